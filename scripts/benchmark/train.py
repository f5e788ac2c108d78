"""The ``train`` part of ``benchmark.py``: training of the GANs against a bare loop, of DCGAN also against the
textbook's.
"""

import argparse
import tempfile
from pathlib import Path

import yaml

from benchmark.race import (
    Measure,
    add_common_arguments,
    begin,
    in_new_process,
    print_conditions,
    print_sides,
    race,
    timed,
    write_json,
)
from benchmark.sides import CONFIGS, adversarial_loop, model_of, relit_fit

METHODS = ["dcgan", "sngan", "wgan", "wgan_sn", "wgan_gp", "conditional_gan", "triplet_gan"]
BATCH = 64


def bare_loop(config: Path, steps: int, bf16: bool) -> Measure:
    """A bare loop of a GAN's step, on noise."""

    def measure() -> float:
        import torch

        from datamodules import LabeledImages

        torch.manual_seed(0)
        batch = LabeledImages(torch.rand(BATCH, 1, 32, 32), torch.arange(BATCH) % 10)
        return adversarial_loop(model_of(yaml.safe_load(config.read_text(encoding="utf-8"))), batch, steps, bf16)

    return measure


def dcgan_textbook(steps: int, root: Path, threads: int) -> float:
    """The textbook's DCGAN: a per-image data set, a DataLoader with 2 workers, a plain loop that prints its losses."""
    import torch
    from torch import nn
    from torch.utils.data import DataLoader
    from torchvision import transforms

    from benchmark.textbook import textbook_digits, textbook_mnist
    from lit_models.dcgan import Discriminator, Generator

    torch.set_num_threads(threads)
    torch.manual_seed(0)
    with tempfile.TemporaryDirectory() as scratch:
        source = textbook_mnist if (root / "mnist").is_dir() else textbook_digits
        dataset = source(root, Path(scratch))
        normalize = transforms.Normalize(0.5, 0.5)
        dataset.transform = transforms.Compose([dataset.transform, normalize])
        generator, discriminator = Generator(32, 1, 256, 64), Discriminator(32, 1, 64)
        optimizers = [
            torch.optim.Adam(network.parameters(), lr=2e-4, betas=(0.5, 0.999))
            for network in (generator, discriminator)
        ]
        criterion = nn.BCELoss()
        loader = DataLoader(dataset, 64, shuffle=True, num_workers=2, drop_last=True, persistent_workers=True)
        batches = iter(loader)

        def step() -> None:
            nonlocal batches
            try:
                real, _ = next(batches)
            except StopIteration:
                batches = iter(loader)
                real, _ = next(batches)
            ones, zeros = torch.ones(len(real)), torch.zeros(len(real))
            discriminator.zero_grad()
            loss_real = criterion(torch.sigmoid(discriminator(real)), ones)
            loss_real.backward()
            fake = generator(torch.randn(len(real), 256))
            loss_fake = criterion(torch.sigmoid(discriminator(fake.detach())), zeros)
            loss_fake.backward()
            optimizers[1].step()
            generator.zero_grad()
            loss = criterion(torch.sigmoid(discriminator(fake)), ones)
            loss.backward()
            optimizers[0].step()
            _ = f"{loss_real.item() + loss_fake.item():.4f} {loss.item():.4f}"  # as printed in the loop

        return timed(step, steps)


def run_train(args: argparse.Namespace) -> None:
    """``benchmark.py train``."""
    root = begin(args)
    data = ["--data=MNIST", f"--data.root={root}"] if (root / "mnist").is_dir() else ["--data=Digits"]
    results = {}
    for method in args.method:
        path = CONFIGS / f"{method}_mnist.yaml"
        config = ["--config", str(path), *data, "--trainer.accelerator=cpu"]
        sides = {"relit fit": relit_fit(args.steps, *config), "bare loop": bare_loop(path, args.steps, bf16=False)}
        if method == "dcgan":
            sides["textbook"] = lambda: in_new_process(dcgan_textbook, args.steps, root, args.threads)
        if args.bf16:
            sides["relit fit, bf16"] = relit_fit(args.steps, *config, "--trainer.precision=bf16-mixed")
            sides["bare loop, bf16"] = bare_loop(path, args.steps, bf16=True)
        print(f"{method}, 1x32x32, batch {BATCH}, on {data[0].removeprefix('--data=')}\n")
        results[method] = race(sides, args.rounds)
        print_sides(results[method], BATCH * args.steps, "images")
        print()
    print_conditions(args)
    write_json(args, batch_size=BATCH, seconds=results)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The arguments of ``benchmark.py train``."""
    add_common_arguments(parser, run_train, steps=40, rounds=5)
    parser.add_argument(
        "--method",
        nargs="+",
        choices=METHODS,
        default=["dcgan"],
        help="which, each by configs/METHOD_mnist.yaml (default: dcgan)",
    )
    parser.add_argument(
        "--bf16",
        action=argparse.BooleanOptionalAction,
        default=True,
        help="measure bf16, too (needless on a CPU without instructions for it)",
    )

"""The ``train`` part of ``benchmark.py``: our GANs' training against a bare loop, DCGAN's against the textbook's, too.

Each side of a comparison runs the same number of batches again and again in one process, A B C A B C …, so that a
change in the machine's speed meets all of them; ratios are medians over the rounds.
"""

import argparse
import json
import os
import statistics
import tempfile
import time
import warnings
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from contextlib import redirect_stderr, redirect_stdout
from io import StringIO
from multiprocessing import get_context
from pathlib import Path
from typing import Any, cast

CONFIGS = Path(__file__).parents[1] / "configs"
METHODS = ["dcgan", "sngan", "wgan", "wgan_sn", "wgan_gp", "conditional_gan", "triplet_gan"]
BATCH = 64
WARM_UP = 3


def relit_fit(steps: int, *arguments: str) -> Callable[[], float]:
    """Seconds that ``relit fit`` needs for ``steps`` batches, with all that it does beside them (progress bar, metrics
    to CSV, callbacks), once it runs."""

    def measure() -> float:
        from lightning.pytorch import Callback

        from lit_models.cli import command as cli

        moments: list[float] = []

        class Clock(Callback):
            def on_train_batch_end(self, *_: Any) -> None:
                moments.append(time.perf_counter())

        def with_clock(self: cli.RelitCLI, **kwargs: Any) -> Any:
            trainer = instantiate(self, **kwargs)
            cast(Any, trainer).callbacks.append(Clock())
            return trainer

        instantiate = cli.RelitCLI.instantiate_trainer
        cli.RelitCLI.instantiate_trainer = with_clock  # type: ignore[method-assign]
        try:
            with tempfile.TemporaryDirectory() as folder, redirect_stderr(StringIO()), redirect_stdout(StringIO()):
                code = cli.run(
                    [
                        *("fit", *arguments, f"--run.root={folder}"),
                        f"--trainer.limit_train_batches={steps + WARM_UP}",
                        *("--trainer.max_epochs=1", "--trainer.limit_val_batches=0", "--checkpoint.monitor=null"),
                    ]
                )
        finally:
            cli.RelitCLI.instantiate_trainer = instantiate  # type: ignore[method-assign]
        assert code == 0, f"relit fit {' '.join(arguments)} failed"
        return moments[-1] - moments[WARM_UP - 1]

    return measure


def timed(step: Callable[[], None], steps: int, clock: Callable[[], float] = time.perf_counter) -> float:
    """Seconds, by a clock, of ``steps`` calls, after a few that aren't counted."""
    for _ in range(WARM_UP):
        step()
    start = clock()
    for _ in range(steps):
        step()
    return clock() - start


def built(config: Path) -> Any:
    """The GAN of a configuration file, in channels-last order."""
    import torch
    import yaml
    from jsonargparse import ArgumentParser
    from lightning.pytorch import LightningModule

    from lit_models.cli import command as cli  # makes the methods' short names known

    assert cli
    parser = ArgumentParser(exit_on_error=False)
    parser.add_subclass_arguments(LightningModule, "model")
    given = parser.parse_object({"model": yaml.safe_load(config.read_text())["model"]})
    return parser.instantiate_classes(given).model.to(memory_format=torch.channels_last)


def bare_loop(config: Path, steps: int, bf16: bool) -> Callable[[], float]:
    """A bare loop of a GAN's step, as ours does it, on one batch that is in memory: its networks and losses, without
    the Trainer, a loader, logs or callbacks."""

    def measure() -> float:
        import torch

        from datamodules import LabeledImages
        from lit_models.adversarial import frozen, losses_as_logged

        torch.manual_seed(0)
        model = built(config)
        (generator_optimizer, discriminator_optimizer), _ = model.configure_optimizers()
        batch = LabeledImages(torch.rand(BATCH, 1, 32, 32), torch.arange(BATCH) % 10)
        done = 0

        def step() -> None:
            nonlocal done
            done += 1
            generator_turn = done % model.n_critic == 0
            with torch.autocast("cpu", torch.bfloat16, enabled=bf16):
                with torch.set_grad_enabled(generator_turn):
                    fake = model.generate(batch)
                loss = losses_as_logged("train/loss", model.discriminator_loss(batch, fake.detach()))["train/loss"]
            discriminator_optimizer.zero_grad()
            loss.backward()
            discriminator_optimizer.step()
            model.after_discriminator_step()
            if not generator_turn:
                return
            with frozen(model.discriminator):
                with torch.autocast("cpu", torch.bfloat16, enabled=bf16):
                    loss = losses_as_logged("train/loss", model.generator_loss(batch, fake))["train/loss"]
                generator_optimizer.zero_grad()
                loss.backward()
            generator_optimizer.step()
            model._update_average()

        return timed(step, steps)

    return measure


def dcgan_textbook(steps: int, root: Path, threads: int) -> Callable[[], float]:
    """The textbook's DCGAN: a per-image data set, a DataLoader with 2 workers, a plain loop that prints its losses.

    It runs in a separate process, where nothing has tuned the memory allocation.
    """

    def measure() -> float:
        with ProcessPoolExecutor(1, get_context("spawn")) as pool:
            return pool.submit(dcgan_textbook_seconds, steps, root, threads).result()

    return measure


def dcgan_textbook_seconds(steps: int, root: Path, threads: int) -> float:
    """See :func:`dcgan_textbook`."""
    import torch
    from benchmark_data import textbook_digits, textbook_mnist
    from torch import nn
    from torch.utils.data import DataLoader
    from torchvision import transforms

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
    import torch

    warnings.filterwarnings("ignore")
    torch.set_num_threads(args.threads)
    root = Path(args.root or "").expanduser().absolute()
    data = ["--data=MNIST", f"--data.root={root}"] if (root / "mnist").is_dir() else ["--data=Digits"]
    results = {}
    for method in args.method:
        path = CONFIGS / f"{method}_mnist.yaml"
        config = ["--config", str(path), *data, "--trainer.accelerator=cpu"]
        sides = {
            "relit fit": relit_fit(args.steps, *config),
            "bare loop": bare_loop(path, args.steps, bf16=False),
        }
        if method == "dcgan":
            sides["textbook"] = dcgan_textbook(args.steps, root, args.threads)
        if args.bf16:
            sides["relit fit, bf16"] = relit_fit(args.steps, *config, "--trainer.precision=bf16-mixed")
            sides["bare loop, bf16"] = bare_loop(path, args.steps, bf16=True)
        seconds: dict[str, list[float]] = {name: [] for name in sides}
        for _ in range(args.rounds):
            for name, measure in sides.items():
                seconds[name].append(measure())
        print(f"{method}, 1x32x32, batch {BATCH}, on {data[0].removeprefix('--data=')}\n")
        print_table(seconds, args.steps)
        results[method] = seconds
    print(
        f"Medians of {args.rounds} rounds of {args.steps} batches each, in turns, {args.threads} threads on "
        f"{os.cpu_count()} processors, torch {torch.__version__}."
    )
    if args.json:
        args.json.write_text(json.dumps({"steps": args.steps, "batch_size": BATCH, "seconds": results}, indent=1))


def print_table(seconds: dict[str, list[float]], steps: int) -> None:
    """Images a second of each side, and the ratio of the times of ``relit fit`` and that side, as Markdown."""

    def ratio(a: str, b: str) -> float:
        return statistics.median(x / y for x, y in zip(seconds[a], seconds[b], strict=True))

    print("| side            | images/s | time: ours / this |\n| --------------- | -------: | ----------------: |")
    for name, times in seconds.items():
        ours = "relit fit, bf16" if "bf16" in name else "relit fit"
        print(f"| {name:15} | {BATCH * steps / statistics.median(times):8,.0f} | {ratio(ours, name):17.2f} |")
    for other, what in (("relit fit", "fp32"), ("textbook", "the textbook")):
        if {other, "relit fit, bf16"} <= seconds.keys():
            print(f"\nbf16 against {what}: {ratio(other, 'relit fit, bf16'):.2f} times as fast.")
    print()


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The arguments of ``benchmark.py train``."""
    parser.add_argument(
        "--root", type=Path, default=os.environ.get("RELIT_DATA"), help="folder of all data sets (default: $RELIT_DATA)"
    )
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
    parser.add_argument("--steps", type=int, default=40, help="batches of each measurement (default: 40)")
    parser.add_argument("--rounds", type=int, default=5, help="measurements of each side (default: 5)")
    parser.add_argument("--threads", type=int, default=os.cpu_count(), help="threads (default: all processors)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures to this file, too")
    parser.set_defaults(run=run_train)

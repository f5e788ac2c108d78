"""The ``translation`` part of ``benchmark.py``: pix2pix's training against a bare loop and against the textbook's, and
the loaders alone.

All sides do the same arithmetic on batches of the same size: U-Net, 70x70 patches, cross-entropy and L1, Adam. bf16 is
fast only where the processor has instructions for it (``avx512_bf16``, ``amx_bf16``), and is left out without
``--bf16``.
"""

import argparse
import statistics
from pathlib import Path
from typing import Any

from benchmark.data import loader_rates
from benchmark.race import (
    Measure,
    add_common_arguments,
    begin,
    in_new_process,
    print_conditions,
    print_sides,
    race,
    ratio,
    require_data,
    timed,
    write_json,
)
from benchmark.sides import CONFIGS, adversarial_loop, relit_fit
from benchmark.textbook import WORKERS, MapsFolder


def our_bare(steps: int, args: argparse.Namespace, bf16: bool) -> Measure:
    """A bare loop of our step, on one batch that is in memory."""

    def measure() -> float:
        import torch

        from datamodules import ImagePair
        from lit_models import Pix2Pix

        torch.manual_seed(0)
        model = Pix2Pix(image_size=args.image_size)
        if bf16:
            model = model.to(memory_format=torch.channels_last)
        shape = (args.batch_size, 3, args.image_size, args.image_size)
        return adversarial_loop(model, ImagePair(torch.rand(shape), torch.rand(shape)), steps, bf16)

    return measure


def textbook(steps: int, args: argparse.Namespace, root: Path) -> float:
    """A plain loop over JPEGs that a DataLoader with 2 workers decodes again in every epoch.

    The networks are nested blocks and a plain stack with ordinary batch normalization; the discriminator is frozen in
    the generator's turn, Adam is torch's default one, and the losses are read off in every step, as for a progress bar.
    """
    import torch
    from torch import nn
    from torch.utils.data import DataLoader

    torch.set_num_threads(args.threads)
    torch.manual_seed(0)

    class Block(nn.Module):
        """One level of the U-Net, with the levels below it inside."""

        def __init__(self, outer: int, inner: int, below: nn.Module | None, dropout: bool) -> None:
            super().__init__()
            down = [nn.LeakyReLU(0.2), nn.Conv2d(outer, inner, 4, 2, 1, bias=False)]
            up = [nn.ReLU(), nn.ConvTranspose2d(inner * (2 if below else 1), outer, 4, 2, 1, bias=False)]
            middle = [nn.BatchNorm2d(inner), below] if below else []
            after = [nn.BatchNorm2d(outer), *([nn.Dropout(0.5)] if dropout else [])]
            self.layers = nn.Sequential(*down, *middle, *up, *after)

        def forward(self, x: Any) -> Any:
            return torch.cat([x, self.layers(x)], 1)

    class Net(nn.Module):
        """The U-Net."""

        def __init__(self) -> None:
            super().__init__()
            depth = args.image_size.bit_length() - 1
            widths = [64 * min(2**i, 8) for i in range(depth)]
            block: nn.Module | None = None
            for i in range(depth - 1, 0, -1):
                block = Block(widths[i - 1], widths[i], block, i > depth - 4 and widths[i - 1] == 512)
            first, last = nn.Conv2d(3, 64, 4, 2, 1, bias=False), nn.ConvTranspose2d(128, 3, 4, 2, 1)
            assert block is not None
            self.layers = nn.Sequential(first, block, nn.ReLU(), last, nn.Tanh())

        def forward(self, x: Any) -> Any:
            return self.layers(x)

    generator = Net()
    stack: list[nn.Module] = [nn.Conv2d(6, 64, 4, 2, 1), nn.LeakyReLU(0.2)]
    for width, stride in ((64, 2), (128, 2), (256, 1)):
        stack += [nn.Conv2d(width, 2 * width, 4, stride, 1, bias=False), nn.BatchNorm2d(2 * width), nn.LeakyReLU(0.2)]
    discriminator = nn.Sequential(*stack, nn.Conv2d(512, 1, 4, 1, 1))
    optimizers = [
        torch.optim.Adam(network.parameters(), lr=2e-4, betas=(0.5, 0.999)) for network in (generator, discriminator)
    ]
    bce, l1 = nn.BCEWithLogitsLoss(), nn.L1Loss()
    dataset: Any = MapsFolder(root / "maps" / "train", args.image_size)
    batches = iter(DataLoader(dataset, args.batch_size, shuffle=True, num_workers=WORKERS, drop_last=True))

    def step() -> None:
        source, target = (2 * image - 1 for image in next(batches))
        fake = generator(source)
        for parameter in discriminator.parameters():
            parameter.requires_grad_(True)
        optimizers[1].zero_grad()
        on_fake = discriminator(torch.cat([source, fake.detach()], 1))
        on_real = discriminator(torch.cat([source, target], 1))
        d_loss = (bce(on_fake, torch.zeros_like(on_fake)) + bce(on_real, torch.ones_like(on_real))) * 0.5
        d_loss.backward()
        optimizers[1].step()
        for parameter in discriminator.parameters():
            parameter.requires_grad_(False)
        optimizers[0].zero_grad()
        on_fake = discriminator(torch.cat([source, fake], 1))
        g_loss = bce(on_fake, torch.ones_like(on_fake)) + 100 * l1(fake, target)
        g_loss.backward()
        optimizers[0].step()
        _ = f"{d_loss.item():.4f} {g_loss.item():.4f}"

    return timed(step, steps)


# --- the command line -------------------------------------------------------------------------------------------------


def run_translation(args: argparse.Namespace) -> None:
    """``benchmark.py translation``."""
    from datamodules import Maps

    root = begin(args)
    require_data(root, "maps/train/*.jpg")
    config = [
        *("--config", str(CONFIGS / "pix2pix_maps.yaml"), "--trainer.accelerator=cpu"),
        *("--trainer.callbacks=[]", "--trainer.num_sanity_val_steps=0", f"--data.root={root}"),
        *(f"--data.batch_size={args.batch_size}", f"--data.image_size={args.image_size}"),
        f"--model.image_size={args.image_size}",
    ]
    sides = {
        "relit fit": relit_fit(args.steps, *config),
        "bare loop": our_bare(args.steps, args, bf16=False),
        "textbook": lambda: in_new_process(textbook, args.steps, args, root),
    }
    if args.bf16:
        bf16 = ("--trainer.precision=bf16-mixed", "--channels_last=true")
        sides["relit fit, bf16"] = relit_fit(args.steps, *config, *bf16)
        sides["bare loop, bf16"] = our_bare(args.steps, args, bf16=True)
    print(f"pix2pix, {args.image_size}x{args.image_size}, batch {args.batch_size}, maps\n")
    seconds = race(sides, args.rounds)
    print_sides(seconds, args.steps, "steps")

    data = Maps(root=str(root), batch_size=args.batch_size, image_size=args.image_size)
    data.prepare_data()
    data.setup("fit")
    rates = loader_rates(data, MapsFolder(root / "maps" / "train", args.image_size), args)
    ours, theirs = (statistics.median(rates[side]) for side in ("ours", "textbook"))
    print(f"\nLoaders alone, pairs/s: ours {ours:,.0f}, textbook {theirs:,.0f}: {ratio(*rates.values()):.1f} times.")
    print_conditions(args)
    write_json(args, seconds=seconds, loaders=[ours, theirs])


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The arguments of ``benchmark.py translation``."""
    add_common_arguments(parser, run_translation, steps=8, rounds=3)
    parser.add_argument("--image_size", type=int, default=256, help="height and width (default: 256)")
    parser.add_argument("--batch_size", type=int, default=1, help="pairs in a batch (default: 1)")
    parser.add_argument("--bf16", action="store_true", help="measure bf16 with channels-last order, too")
    parser.add_argument("--seconds", type=float, default=3.0, help="of each measurement of a loader (default: 3)")

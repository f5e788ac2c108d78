"""The ``read`` part of ``benchmark.py``: how fast a folder of pictures is read, on one core and on all.

A temporary folder gets JPEG files that compress like photographs. ``ImageFolder`` prepares it with each number of cores
in turns, each time in a new process and with a new data root. Then a new process starts with the arrays in place.
"""

# Only the standard library is imported here: the processes that measure import torch before their clocks start.
import argparse
import os
import statistics
import tempfile
import time
from functools import partial
from pathlib import Path
from typing import Any

from benchmark.race import add_common_arguments, in_new_process, print_table, race, ratio, write_json

CLASSES = 10
PATTERNS = 50
"""Pictures that are made in full; all others are turned, shifted and mirrored copies of these."""
QUALITY = 90


# --- measuring, each in a separate process ----------------------------------------------------------------------------


def make_folder(folder: Path, images: int, side: int) -> int:
    """Writes pictures of ``CLASSES`` classes; returns the bytes of an average file."""
    import numpy as np
    from PIL import Image

    random = np.random.default_rng(0)
    patterns = [_photograph(random, side) for _ in range(PATTERNS)]
    for name in range(CLASSES):
        (folder / f"class_{name}").mkdir(parents=True)
    size = 0
    for row in range(images):
        pixels = np.rot90(patterns[random.integers(PATTERNS)], int(random.integers(4)))
        pixels = np.roll(pixels, random.integers(side, size=2), (0, 1))[:, :: random.choice((-1, 1))]
        path = folder / f"class_{row % CLASSES}" / f"{row:06}.jpg"
        Image.fromarray(np.ascontiguousarray(pixels)).save(path, quality=QUALITY)
        size += path.stat().st_size
    return size // images


def _photograph(random: Any, side: int) -> Any:
    """Colors whose amplitude falls with the frequency as in photographs (Torralba and Oliva 2003): uint8,
    ``(side, side, 3)``."""
    import numpy as np

    frequency = np.hypot(np.fft.fftfreq(side)[:, None], np.fft.rfftfreq(side)) + 0.5 / side
    channels = []
    for contrast in (1.0, 0.2, 0.2):  # of the brightness, and of what each of two colors adds
        noise = random.normal(size=(*frequency.shape, 2)) @ [1, 1j]
        values = np.fft.irfft2(noise / frequency**1.2, (side, side))
        channels.append(contrast * values / values.std())
    light, warm, green = channels
    colors = np.stack((light + warm, light + green, light - warm - green), -1)
    return (128 + 50 * colors).clip(0, 255).astype(np.uint8)


def measure(folder: Path, root: Path, image_size: int, cores: int) -> float:
    """Seconds up to the first batch of ``folder`` on so many cores: of the first start, or of one with the arrays."""
    from datamodules import ImageFolder

    limit_to(cores)
    start = time.perf_counter()
    data = ImageFolder(path=str(folder), root=str(root), image_size=image_size, channels=3)
    data.prepare_data()
    data.setup("fit")
    next(iter(data.train_dataloader()))
    return time.perf_counter() - start


def limit_to(cores: int) -> None:
    """Binds this process to so many cores, or limits its threads where that can't be done."""
    from datamodules.loading import decoding

    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:cores])
    decoding.processors = lambda: cores


# --- the command line -------------------------------------------------------------------------------------------------


def run_read(args: argparse.Namespace) -> None:
    """``benchmark.py read``."""
    there = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    most = min(args.threads, there)
    with tempfile.TemporaryDirectory(prefix="relit-benchmark-") as scratch:
        folder = Path(scratch) / "pictures"
        size = in_new_process(make_folder, folder, args.images, args.side)
        print(f"{args.images:,} JPEG files of {args.side}x{args.side} pixels, {size:,} bytes on average.\n", flush=True)
        sides = {cores: partial(two_starts, folder, args.image_size, cores) for cores in sorted({1, most})}
        starts = race(sides, args.rounds)
    seconds = {cores: [first for first, _ in pairs] for cores, pairs in starts.items()}
    again = [second for pairs in starts.values() for _, second in pairs]
    rows = []
    for cores, first in seconds.items():
        median = statistics.median(first)
        rows.append((str(cores), f"{args.images / median:,.0f}", f"{median:.2f} s", f"{ratio(seconds[1], first):.2f}"))
    print_table(("cores", "images/s", "first start", "times as fast as 1"), rows)
    print(
        f"\nMedians of {args.rounds} rounds, in turns. First start: read all files to squares of {args.image_size} "
        "pixels, write the arrays, and give the first batch.\n"
        f"Second start, up to the first batch: {statistics.median(again):.3f} s (from {min(again):.3f} to "
        f"{max(again):.3f} s)."
    )
    write_json(args, bytes_of_a_file=size, first_start=seconds, second_start=again)


def two_starts(folder: Path, image_size: int, cores: int) -> tuple[float, float]:
    """Seconds of the first start and of the second, with a new data root."""
    with tempfile.TemporaryDirectory(prefix="relit-benchmark-") as root:
        first = in_new_process(measure, folder, Path(root), image_size, cores)
        return first, in_new_process(measure, folder, Path(root), image_size, cores)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The arguments of ``benchmark.py read``."""
    add_common_arguments(parser, run_read, steps=None, rounds=3)
    parser.add_argument("--images", type=int, default=10_000, help="JPEG files (default: %(default)s)")
    parser.add_argument("--side", type=int, default=256, help="their width and height (default: %(default)s)")
    parser.add_argument("--image_size", type=int, default=64, help="side of the images read (default: %(default)s)")

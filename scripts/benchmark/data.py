"""The ``data`` part of ``benchmark.py``: our training loaders against the textbook's.

Batches come as float images on the CPU, augmented, as training would get them; the textbook is torchvision's data sets
with per-image transforms and a DataLoader of two worker processes. Both are measured in turns, and with them what
preparing the data costs. The data sets must lie below ``$RELIT_DATA`` (or ``--root``); nothing is downloaded.
"""

# Only the standard library is imported here: a process that this one starts counts the memory of this one as its own
# peak, so that torch is left to those that measure.
import argparse
import os
import shutil
import statistics
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from itertools import count
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from benchmark.race import add_common_arguments, in_new_process, print_table, race, ratio, write_json
from benchmark.textbook import (
    WORKERS,
    textbook_batches,
    textbook_cifar10,
    textbook_digits,
    textbook_lfw,
    textbook_maps,
    textbook_mnist,
    textbook_omniglot,
    textbook_tiny_imagenet,
)

WARM_UP = 5
"""Batches before the clock starts; they also use up what the workers fetched while they were not asked."""


@dataclass(frozen=True)
class DataCase:
    """One data set in the race.

    Attributes:
        files: What must be there below the data root, as a glob.
        arguments: Those of our data module.
        textbook: Makes the textbook's data set.
        target: How many times as fast we want to be; None if that is left open.
    """

    files: str
    arguments: dict[str, Any]
    textbook: Callable[[Path, Path], Any]
    target: float | None


DATA = {
    "Digits": DataCase("", {"batch_size": 64}, textbook_digits, None),
    "MNIST": DataCase("mnist/train-images-idx3-ubyte.gz", {"batch_size": 64}, textbook_mnist, 20),
    "Omniglot": DataCase(
        "omniglot/images_background.zip", {"batch_size": 64, "rotations": True}, textbook_omniglot, 20
    ),
    "CIFAR10": DataCase(
        "cifar10/cifar-10-batches-py/data_batch_1",
        {"batch_size": 128, "augmentation": "standard"},
        textbook_cifar10,
        20,
    ),
    "TinyImageNet": DataCase(
        "tiny-imagenet-200/tiny-imagenet-200.zip",
        {"batch_size": 128, "augmentation": "standard"},
        textbook_tiny_imagenet,
        10,
    ),
    "LFW": DataCase("lfw/lfw-deepfunneled/*/*.jpg", {"batch_size": 64, "image_size": 64}, textbook_lfw, None),
    "Maps": DataCase("maps/train/*.jpg", {"batch_size": 1}, textbook_maps, 10),
}


# --- measuring, each in a separate process --------------------------------------------------------------------------


@dataclass
class DataResult:
    """What was measured for one data set; rates are in images (pairs for maps) a second."""

    name: str
    images: int
    batch_size: int
    ours: float
    textbook: float
    ratio: float
    target: float | None
    prepare_seconds: float
    prepare_peak_mb: float
    imports_mb: float
    notes: list[str]


def our_data(name: str, root: Path, scratch: Path) -> Any:
    """Our data module, which keeps its arrays in the scratch folder."""
    import datamodules

    datamodules.ImageDataModule.prepared_folder = scratch / "prepared"  # type: ignore[assignment, method-assign]
    return getattr(datamodules, name)(root=str(root), **DATA[name].arguments)


def measure_preparation(name: str, root: Path, scratch: Path) -> tuple[float, float, float, list[str]]:
    """Seconds, peak memory and the memory before it (mostly torch itself), in MB, and what our data module noted."""
    data = our_data(name, root, scratch)
    before = peak_mb()
    start = time.perf_counter()
    notes = notes_of(data.prepare_data)
    return time.perf_counter() - start, peak_mb(), before, notes


def measure_rates(
    name: str, root: Path, scratch: Path, args: argparse.Namespace
) -> tuple[dict[str, list[float]], int, list[str]]:
    """Our rate and the textbook's in each round, images in the training set, and what our data module noted."""
    import torch

    torch.set_num_threads(args.threads)
    data = our_data(name, root, scratch)
    notes = notes_of(lambda: data.setup("fit"))
    rates = loader_rates(data, DATA[name].textbook(root, scratch), args)
    return rates, len(data.train_set), notes


def loader_rates(data: Any, textbook: Any, args: argparse.Namespace) -> dict[str, list[float]]:
    """Images a second of our loader (float images, augmented) and of the textbook's in each round."""
    ours, theirs = our_batches(data), textbook_batches(textbook, data.batch_size)
    sides = {"ours": lambda: rate(ours, args.seconds), "textbook": lambda: rate(theirs, args.seconds)}
    rates = race(sides, args.rounds)
    theirs.close()  # ends the workers
    return rates


def notes_of(step: Callable[[], None]) -> list[str]:
    """Takes the step; what it warned of."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        step()
    return [str(note.message) for note in caught]


def our_batches(data: Any) -> Iterator[int]:
    """The size of each batch of epoch after epoch, when the model would get it."""
    import torch
    from lightning.pytorch.plugins import Precision

    strategy = SimpleNamespace(root_device=torch.device("cpu"))
    data.trainer = SimpleNamespace(
        precision_plugin=Precision(), training=True, global_rank=0, world_size=1, strategy=strategy
    )
    loader = data.train_dataloader()
    for epoch in count():
        loader.set_epoch(epoch)
        for batch in loader:
            batch = data.on_after_batch_transfer(batch, 0)
            yield len(batch[0])


def rate(batches: Iterator[int], seconds: float) -> float:
    """Images a second."""
    for _ in range(WARM_UP):
        next(batches)
    images, start = 0, time.perf_counter()
    while (elapsed := time.perf_counter() - start) < seconds:
        images += next(batches)
    return images / elapsed


def peak_mb() -> float:
    """The largest memory that this process has held, mapped files included; nan where the system doesn't report it."""
    try:
        import resource
    except ImportError:  # Windows
        return float("nan")
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / (2**20 if sys.platform == "darwin" else 2**10)


# --- the command line -------------------------------------------------------------------------------------------------


def run_data(args: argparse.Namespace) -> None:
    """``benchmark.py data``."""
    if args.root is None:
        sys.exit("Set --root or $RELIT_DATA to the folder of the data sets.")
    root = args.root.expanduser().absolute()
    present = [name for name, case in DATA.items() if not case.files or any(root.glob(case.files))]
    missing = [name for name in args.data or () if name not in present]
    if missing:
        sys.exit(f"Not found below {root}: {', '.join(f'{name} ({DATA[name].files})' for name in missing)}.")
    results = []
    for name in args.data or present:
        scratch = Path(tempfile.mkdtemp(prefix="relit-benchmark-"))
        try:
            seconds, peak, before, prepare_notes = in_new_process(measure_preparation, name, root, scratch)
            rates, images, setup_notes = in_new_process(measure_rates, name, root, scratch, args)
        finally:
            shutil.rmtree(scratch)
        results.append(
            DataResult(
                name=name,
                images=images,
                batch_size=DATA[name].arguments["batch_size"],
                ours=statistics.median(rates["ours"]),
                textbook=statistics.median(rates["textbook"]),
                ratio=ratio(rates["ours"], rates["textbook"]),
                target=DATA[name].target,
                prepare_seconds=seconds,
                prepare_peak_mb=peak,
                imports_mb=before,
                notes=prepare_notes + setup_notes,
            )
        )
    print_data(results, args)
    measured = [asdict(result) for result in results]
    write_json(args, workers=WORKERS, processors=os.cpu_count(), measured=measured)


def print_data(results: list[DataResult], args: argparse.Namespace) -> None:
    """A Markdown table."""
    header = ["data", "images", "batch", "ours, img/s", "textbook, img/s", "ratio", "target", "prepared in", "peak RSS"]
    rows = [
        [
            result.name,
            f"{result.images:,}",
            f"{result.batch_size}",
            f"{result.ours:,.0f}",
            f"{result.textbook:,.0f}",
            f"{result.ratio:.1f}",
            "" if result.target is None else f"≥ {result.target:g}",
            f"{result.prepare_seconds:.1f} s",
            f"{result.prepare_peak_mb:,.0f} MB",
        ]
        for result in results
    ]
    print_table(header, rows)
    imports = statistics.median(result.imports_mb for result in results)
    print(
        f"\nMedian of {args.rounds} rounds of {args.seconds:g} s each way, in turns, on {os.cpu_count()} processors; "
        f"threads of our loader: {args.threads}, workers of the textbook's: {WORKERS}. The peak RSS is that of the "
        f"preparation; {imports:,.0f} MB of it are there after the imports."
    )
    for result in results:
        for note in result.notes:
            print(f"{result.name}: {note}")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The arguments of ``benchmark.py data``."""
    parser.add_argument(
        "--data",
        nargs="+",
        choices=DATA,
        metavar="NAME",
        help=f"which of {', '.join(DATA)}; if not given, all that are there",
    )
    add_common_arguments(parser, run_data, steps=None, rounds=3)
    parser.set_defaults(threads=1)  # of our loader
    parser.add_argument("--seconds", type=float, default=5.0, help="length of each measurement (default: 5)")

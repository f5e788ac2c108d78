"""The ``data`` part of ``benchmark.py``: our training loaders against the textbook's.

Batches come as float images on the CPU, augmented, as training would get them; the textbook is torchvision's data sets
with per-image transforms and a DataLoader of two worker processes. Both are measured in turns, and with them what
preparing the data costs. The data sets must lie below ``$RELIT_DATA`` (or ``--root``); nothing is downloaded.
"""

# Only the standard library is imported here: a process that this one starts counts the memory of this one as its own
# peak, so that torch is left to those that measure.
import argparse
import gzip
import json
import os
import random
import shutil
import statistics
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Generator, Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass
from itertools import count
from multiprocessing import get_context
from pathlib import Path
from types import SimpleNamespace
from typing import Any

WORKERS = 2
WARM_UP = 5
"""Batches before the clock starts; they also use up what the workers fetched while they were not asked."""


# --- the textbook's data sets: each takes the data root and a scratch folder ------------------------------------------


class PILImages:
    """Arrays in memory as PIL images, one by one: what torchvision's MNIST and CIFAR10 are."""

    def __init__(self, images: Any, labels: Any, transform: Callable[[Any], Any]) -> None:
        self.images, self.labels, self.transform = images, labels, transform

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> tuple[Any, int]:
        from PIL import Image

        return self.transform(Image.fromarray(self.images[index])), int(self.labels[index])


class MapsFolder:
    """Side-by-side JPEGs: load, split, enlarge to 286, crop 256 and flip both halves alike; or so at another size."""

    def __init__(self, folder: Path, size: int = 256) -> None:
        self.files = sorted(folder.glob("*.jpg"))
        self.size, self.load_size = size, round(size * 286 / 256)

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, index: int) -> tuple[Any, Any]:
        from PIL import Image
        from torchvision.transforms import functional

        image = Image.open(self.files[index]).convert("RGB")
        middle = image.width // 2
        halves = [image.crop((left, 0, left + middle, image.height)) for left in (0, middle)]
        margin, load_size = self.load_size - self.size, (self.load_size, self.load_size)
        top, left, flip = random.randint(0, margin), random.randint(0, margin), random.random() < 0.5
        window = (left, top, left + self.size, top + self.size)
        tensors = []
        for half in halves:
            half = half.resize(load_size, Image.Resampling.BICUBIC).crop(window)
            tensors.append(functional.to_tensor(functional.hflip(half) if flip else half))
        return tensors[0], tensors[1]


def textbook_digits(root: Path, scratch: Path) -> Any:
    """scikit-learn's digits, resized as they are asked for."""
    from sklearn.datasets import load_digits
    from torchvision import transforms

    digits = load_digits()
    resize = transforms.Resize(32, transforms.InterpolationMode.BICUBIC)
    images = (digits.images * (255 / 16)).round().astype("uint8")
    return PILImages(images, digits.target, transforms.Compose([resize, transforms.ToTensor()]))


def textbook_mnist(root: Path, scratch: Path) -> Any:
    """torchvision's MNIST, padded to 32x32."""
    from torchvision import datasets, transforms

    raw = scratch / "MNIST" / "raw"
    raw.mkdir(parents=True)
    for path in (root / "mnist").glob("*.gz"):
        (raw / path.stem).write_bytes(gzip.decompress(path.read_bytes()))
    return datasets.MNIST(scratch, transform=transforms.Compose([transforms.Pad(2), transforms.ToTensor()]))


def invert_and_turn(image: Any) -> Any:
    """White ink on black, turned by a random multiple of 90 degrees."""
    from PIL import ImageOps

    return ImageOps.invert(image).rotate(90 * random.randrange(4))


def textbook_omniglot(root: Path, scratch: Path) -> Any:
    """torchvision's Omniglot, resized to 28x28 and turned."""
    from torchvision import datasets, transforms

    from datamodules.loading.archives import extract

    extract(root / "omniglot" / "images_background.zip", scratch / "omniglot-py")
    datasets.Omniglot._check_integrity = lambda self: True  # the archive itself isn't needed any more
    transform = [transforms.Resize(28), invert_and_turn, transforms.ToTensor()]
    return datasets.Omniglot(scratch, transform=transforms.Compose(transform))


def textbook_cifar10(root: Path, scratch: Path) -> Any:
    """torchvision's CIFAR10 with the usual crop and flip."""
    from torchvision import datasets, transforms

    datasets.CIFAR10._check_integrity = lambda self: True  # a subset will do
    transform = [transforms.RandomCrop(32, padding=4), transforms.RandomHorizontalFlip(), transforms.ToTensor()]
    return datasets.CIFAR10(root / "cifar10", transform=transforms.Compose(transform))


def textbook_tiny_imagenet(root: Path, scratch: Path) -> Any:
    """torchvision's ImageFolder of the training images with crop and flip."""
    from torchvision import datasets, transforms

    from datamodules.loading.archives import extract

    extract(root / "tiny-imagenet-200" / "tiny-imagenet-200.zip", scratch / "unpacked")
    transform = [transforms.RandomCrop(64, padding=8), transforms.RandomHorizontalFlip(), transforms.ToTensor()]
    folder = scratch / "unpacked" / "tiny-imagenet-200" / "train"
    return datasets.ImageFolder(folder, transform=transforms.Compose(transform))


def textbook_lfw(root: Path, scratch: Path) -> Any:
    """torchvision's ImageFolder of the faces, resized to 64x64."""
    from torchvision import datasets, transforms

    transform = transforms.Compose([transforms.Resize(64), transforms.ToTensor()])
    return datasets.ImageFolder(root / "lfw" / "lfw-deepfunneled", transform=transform)


def textbook_maps(root: Path, scratch: Path) -> Any:
    """The training pairs, jittered."""
    return MapsFolder(root / "maps" / "train")


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


def measure_rates(name: str, root: Path, scratch: Path, args: argparse.Namespace) -> tuple[Any, int, list[str]]:
    """Our rate and the textbook's in each round, images in the training set, and what our data module noted."""
    import torch

    torch.set_num_threads(args.threads)
    data = our_data(name, root, scratch)
    notes = notes_of(lambda: data.setup("fit"))
    ours = our_batches(data)
    theirs = textbook_batches(DATA[name].textbook(root, scratch), data.batch_size)
    rates = [(rate(ours, args.seconds), rate(theirs, args.seconds)) for _ in range(args.rounds)]
    theirs.close()  # ends the workers
    return rates, len(data.train_set), notes


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


def textbook_batches(dataset: Any, batch_size: int) -> Generator[int, None, None]:
    """The size of each batch of a DataLoader, epoch after epoch."""
    from torch.utils.data import DataLoader

    loader = DataLoader(dataset, batch_size, shuffle=True, num_workers=WORKERS, drop_last=True, persistent_workers=True)
    while True:
        for batch in loader:
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
    """The largest memory that this process has held, mapped files included; nan where the system doesn't tell."""
    try:
        import resource
    except ImportError:  # Windows
        return float("nan")
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / (2**20 if sys.platform == "darwin" else 2**10)


def in_new_process(function: Callable[..., Any], *arguments: Any) -> Any:
    """What the function returns; it starts with no memory but Python's."""
    with ProcessPoolExecutor(1, get_context("spawn")) as pool:
        return pool.submit(function, *arguments).result()


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
                ours=statistics.median(ours for ours, _ in rates),
                textbook=statistics.median(textbook for _, textbook in rates),
                ratio=statistics.median(ours / textbook for ours, textbook in rates),
                target=DATA[name].target,
                prepare_seconds=seconds,
                prepare_peak_mb=peak,
                imports_mb=before,
                notes=prepare_notes + setup_notes,
            )
        )
    print_data(results, args)
    if args.json:
        settings = {key: getattr(args, key) for key in ("seconds", "rounds", "threads")}
        settings |= {"workers": WORKERS, "processors": os.cpu_count()}
        args.json.write_text(
            json.dumps({"settings": settings, "data": [asdict(result) for result in results]}, indent=1),
            encoding="utf-8",
        )


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
    widths = [max(map(len, column)) for column in zip(header, *rows, strict=True)]
    for row in [header, ["-" * width for width in widths], *rows]:
        name, *figures = row
        cells = [
            name.ljust(widths[0]),
            *(figure.rjust(width) for figure, width in zip(figures, widths[1:], strict=True)),
        ]
        print(f"| {' | '.join(cells)} |")
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
    parser.add_argument(
        "--root", type=Path, default=os.environ.get("RELIT_DATA"), help="folder of all data sets (default: $RELIT_DATA)"
    )
    parser.add_argument("--seconds", type=float, default=5.0, help="length of each measurement (default: 5)")
    parser.add_argument("--rounds", type=int, default=3, help="measurements of each side (default: 3)")
    parser.add_argument("--threads", type=int, default=1, help="threads of our loader (default: 1)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures to this file, too")
    parser.set_defaults(run=run_data)

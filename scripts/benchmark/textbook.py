"""Data sets the textbook way: torchvision's, image by image, and a DataLoader of two worker processes."""

import gzip
import random
from collections.abc import Callable, Generator
from pathlib import Path
from typing import Any

WORKERS = 2


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


def textbook_batches(dataset: Any, batch_size: int) -> Generator[int, None, None]:
    """The size of each batch of a DataLoader, epoch after epoch."""
    from torch.utils.data import DataLoader

    loader = DataLoader(dataset, batch_size, shuffle=True, num_workers=WORKERS, drop_last=True, persistent_workers=True)
    while True:
        for batch in loader:
            yield len(batch[0])

"""MNIST (LeCun, Bottou, Bengio & Haffner 1998): 70,000 handwritten digits of 28x28 grey pixels."""

import gzip
import math
import zlib
from pathlib import Path
from typing import Literal

import numpy as np

from datamodules.base import ImageDataModule, split_rows
from datamodules.errors import DataError
from datamodules.loading import augment
from datamodules.loading.archives import RemoteFile, fetch
from datamodules.loading.tensors import ArrayWriter, GatherDataset, LabelledImages, TensorStore

MIRRORS = ("https://ossci-datasets.s3.amazonaws.com/mnist/", "https://storage.googleapis.com/cvdf-datasets/mnist/")

# md5 checksums of the files that Y. LeCun published.
FILES = {
    "train-images": RemoteFile("train-images-idx3-ubyte.gz", MIRRORS, "md5:f68b3c2dcbeaaa9fbdd348bbdeb94873"),
    "train-labels": RemoteFile("train-labels-idx1-ubyte.gz", MIRRORS, "md5:d53e105ee54ea40749a09fcbcd1e9432"),
    "test-images": RemoteFile("t10k-images-idx3-ubyte.gz", MIRRORS, "md5:9fb629c4189551a2d022fa330f9573f3"),
    "test-labels": RemoteFile("t10k-labels-idx1-ubyte.gz", MIRRORS, "md5:ec29112dd5afa0611ce80d1b7f02629c"),
}
MAX_BYTES = 16 + 60_000 * 28 * 28
"""What the largest file unpacks to."""


class MNIST(ImageDataModule):
    """The 60,000 training images, of which 5,000 (drawn at random, but always the same) are for validation, and the
    10,000 test images.

    The four ``.gz`` files are looked for in ``<root>/mnist/`` (or where torchvision puts them, ``<root>/MNIST/raw/``)
    and downloaded if they aren't there.

    Args:
        root: Folder of all data sets; if None, ``$RELIT_DATA``, else the user's cache folder.
        batch_size: Images in a training batch of one process.
        eval_batch_size: Images in an evaluation batch of one process; if None, ``batch_size``.
        image_size: 32 (two black pixels are added on each side, so that the size can be halved five times) or 28.
        augmentation: What happens to training images: "none", or "affine" (turned by up to 10 degrees, moved by up to a
            sixteenth of the side, resized by up to 10 %).
        split_seed: Seed of the split between training and validation.
        on_device: Hold the data set in the accelerator's memory; if None, when it fits easily.
    """

    name = "mnist"
    num_classes = 10
    class_names = tuple("0123456789")

    def __init__(
        self,
        root: str | None = None,
        batch_size: int = 64,
        eval_batch_size: int | None = None,
        image_size: int = 32,
        augmentation: Literal["none", "affine"] = "none",
        split_seed: int = 0,
        on_device: bool | None = None,
    ) -> None:
        super().__init__(root, batch_size, eval_batch_size, on_device)
        if image_size not in (28, 32):
            raise DataError(
                f"MNIST comes in the sizes 28 and 32 (padded); set --data.image_size to one, not {image_size}."
            )
        if augmentation not in ("none", "affine"):
            raise DataError(f"--data.augmentation is {augmentation!r}; it must be none or affine.")
        self.image_shape = (1, image_size, image_size)
        self.augmentation = augmentation
        self.split_seed = split_seed

    @property
    def store(self) -> TensorStore:
        size = self.image_shape[-1]
        return TensorStore(
            self.prepared_folder / f"{size}x{size}", {}, [self.folder / file.name for file in FILES.values()]
        )

    def augment(self, batch: LabelledImages) -> LabelledImages:
        if self.augmentation == "none":
            return batch
        return batch._replace(image=augment.random_affine(batch.image, 10, 1 / 16, (0.9, 1.1)))

    def prepare_data(self) -> None:
        self.store.prepare(self._build)

    def _build(self, writer: ArrayWriter) -> None:
        torchvision_folder = self.root / "MNIST" / "raw"
        padding = (self.image_shape[-1] - 28) // 2
        for split, count in (("train", 60_000), ("test", 10_000)):
            paths = [fetch(FILES[f"{split}-{kind}"], self.folder, torchvision_folder) for kind in ("images", "labels")]
            images, labels = read_idx(paths[0]), read_idx(paths[1])
            if images.shape != (count, 28, 28) or labels.shape != (count,):
                raise DataError(
                    f"{paths[0]} and {paths[1].name} hold {images.shape} images and {labels.shape} labels, not {count} "
                    "images of 28x28 with their labels: delete both, and they are downloaded again."
                )
            images = np.pad(images, ((0, 0), (padding, padding), (padding, padding)))
            writer.write(f"{split}_image", images[:, None])
            writer.write(f"{split}_label", labels.astype(np.int64))

    def setup(self, stage: str) -> None:
        arrays = self.store.load()
        train_columns = LabelledImages(arrays["train_image"], arrays["train_label"])
        train, val = split_rows(60_000, 55_000, 5_000, seed=self.split_seed)
        self.train_set = GatherDataset(train_columns, train)
        self.val_set = GatherDataset(train_columns, val)
        self.test_set = self.predict_set = GatherDataset(LabelledImages(arrays["test_image"], arrays["test_label"]))


def read_idx(path: Path) -> np.ndarray:
    """Reads a gzipped idx file of unsigned bytes: two zero bytes, 8 (the type), the number of dimensions, then each
    dimension as a big-endian 32-bit number, then the values."""
    try:
        with gzip.open(path) as file:
            content = file.read(MAX_BYTES + 1)
    except (gzip.BadGzipFile, EOFError, zlib.error) as error:
        raise DataError(f"{path} is not a whole gzip file: delete it, and it is downloaded again.") from error
    dimensions = content[3] if content[:3] == b"\0\0\x08" else 0
    start = 4 + 4 * dimensions
    shape = tuple(int(n) for n in np.frombuffer(content[4:start], ">u4"))
    if dimensions == 0 or len(content) - start != math.prod(shape):
        raise DataError(f"{path} is not an idx file of unsigned bytes: delete it, and it is downloaded again.")
    return np.frombuffer(content, np.uint8, offset=start).reshape(shape)

"""MNIST (LeCun, Bottou, Bengio & Haffner 1998): 70,000 handwritten digits of 28x28 gray pixels."""

import gzip
import math
import zlib
from pathlib import Path
from typing import Literal

import numpy as np
import torch

from datamodules.base import ImageDataModule, split_rows
from datamodules.errors import DataError
from datamodules.loading import augment
from datamodules.loading.archives import RemoteFile, fetch
from datamodules.loading.tensors import ArrayWriter, GatherDataset, LabeledImages, TensorStore

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


BINARIZATION_SEED = 0


class MNIST(ImageDataModule):
    """The 60,000 training images, of which 5,000 (drawn at random, but always the same) are for validation, and the
    10,000 test images.

    With ``binarization``, each pixel is drawn to be 1 with its gray level as probability. "static" draws every image
    once, from a fixed seed. This is the distribution of Larochelle & Murray's binarized MNIST (2011), but not their
    draw, nor their split (the last 10,000 training images for validation). "dynamic" draws training images again in
    each batch, as in Burda et al. 2015; validation and test images are those of "static".

    The four files, with ``.gz`` or unpacked (``train-images-idx3-ubyte``, or ``train-images.idx3-ubyte`` as on
    Kaggle), are looked for in ``<root>/mnist/`` and where torchvision puts them, ``<root>/MNIST/raw/``, and downloaded
    if they aren't there.

    Args:
        root: Folder of all data sets; if None, ``$RELIT_DATA``, else the user's cache folder.
        batch_size: Images in a training batch of one process.
        eval_batch_size: Images in an evaluation batch of one process; if None, ``batch_size``.
        image_size: 32 (two black pixels are added on each side, so that the size can be halved five times) or 28.
        augmentation: What happens to training images: "none", or "affine" (turned by up to 10 degrees, moved by up to a
            sixteenth of the side, resized by up to 10 %).
        split_seed: Seed of the split between training and validation.
        on_device: Hold the data set in the accelerator's memory; if None, when it fits easily.
        classes_per_batch: P of a batch of P classes x K images; None for batches drawn without regard to the class.
        samples_per_class: K of such a batch.
        binarization: "none" for gray levels, "static" or "dynamic" for binary pixels.
        val_images: Images for validation; the other training images are for training.
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
        binarization: Literal["none", "static", "dynamic"] = "none",
        val_images: int = 5000,
        classes_per_batch: int | None = None,
        samples_per_class: int | None = None,
    ) -> None:
        super().__init__(root, batch_size, eval_batch_size, on_device, classes_per_batch, samples_per_class)
        if image_size not in (28, 32):
            raise DataError(
                f"MNIST comes in the sizes 28 and 32 (padded); set --data.image_size to one, not {image_size}."
            )
        if augmentation not in ("none", "affine"):
            raise DataError(f"--data.augmentation is {augmentation!r}; it must be none or affine.")
        if binarization not in ("none", "static", "dynamic"):
            raise DataError(f"--data.binarization is {binarization!r}; it must be none, static or dynamic.")
        if binarization == "static" and augmentation != "none":
            raise DataError(
                "--data.augmentation affine makes gray pixels of statically binarized images: set --data.binarization "
                "dynamic, which binarizes after it."
            )
        if not 1 <= val_images < 60_000:
            raise DataError(f"--data.val_images is {val_images}; it must be from 1 to 59,999.")
        self.image_shape = (1, image_size, image_size)
        self.augmentation = augmentation
        self.split_seed = split_seed
        self.binarization = binarization
        self.val_images = val_images

    @property
    def store(self) -> TensorStore:
        size = self.image_shape[-1]
        return self.tensor_store(f"{size}x{size}", {}, [self.folder / file.name for file in FILES.values()])

    @property
    def binary_store(self) -> TensorStore:
        """The statically binarized images."""
        gray = self.store
        return self.tensor_store(f"{gray.folder.name}-binary", {"seed": BINARIZATION_SEED}, gray.sources)

    def augment(self, batch: LabeledImages) -> LabeledImages:
        image = batch.image
        if self.augmentation == "affine":
            image = augment.random_affine(image, 10, 1 / 16, (0.9, 1.1))
        if self.binarization == "dynamic":
            image = torch.bernoulli(image.clamp(0, 1))
        return batch._replace(image=image)

    def prepare_data(self) -> None:
        self.store.prepare(self._build)
        if self.binarization != "none":
            self.binary_store.prepare(self._build_binary)

    def _build(self, writer: ArrayWriter) -> None:
        padding = (self.image_shape[-1] - 28) // 2
        for split, count in (("train", 60_000), ("test", 10_000)):
            paths = [self._file(FILES[f"{split}-{kind}"]) for kind in ("images", "labels")]
            images, labels = read_idx(paths[0]), read_idx(paths[1])
            if images.shape != (count, 28, 28) or labels.shape != (count,):
                raise DataError(
                    f"{paths[0]} and {paths[1].name} hold {images.shape} images and {labels.shape} labels, not {count} "
                    "images of 28x28 with their labels: delete both, and they are downloaded again."
                )
            images = np.pad(images, ((0, 0), (padding, padding), (padding, padding)))
            writer.write(f"{split}_image", images[:, None])
            writer.write(f"{split}_label", labels.astype(np.int64))

    def _build_binary(self, writer: ArrayWriter) -> None:
        gray = self.store.load()
        random = np.random.default_rng(BINARIZATION_SEED)
        padding = (self.image_shape[-1] - 28) // 2
        inner = slice(padding, padding + 28)  # the same draw for both sizes
        for split in ("train", "test"):
            images = gray[f"{split}_image"].numpy()
            binary = np.zeros_like(images)
            chance = images[:, :, inner, inner] / np.float32(255)
            binary[:, :, inner, inner] = 255 * (random.random(chance.shape, np.float32) < chance)
            writer.write(f"{split}_image", binary)

    def _file(self, file: RemoteFile) -> Path:
        """The file's path: unpacked if it is there so, else packed, after a download if need be."""
        folders = (self.folder, self.root / "MNIST" / "raw")
        packed = [folder / file.name for folder in folders]
        if not any(path.is_file() for path in packed):
            plain = file.name.removesuffix(".gz")
            for path in (folder / name for folder in folders for name in (plain, plain.replace("-idx", ".idx"))):
                if path.is_file():
                    return path
        return fetch(file, *folders)

    def setup(self, stage: str) -> None:
        gray = self.store.load()
        binary = self.binary_store.load() if self.binarization != "none" else gray
        train_images = binary if self.binarization == "static" else gray
        train, val = split_rows(60_000, 60_000 - self.val_images, self.val_images, seed=self.split_seed)
        self.train_set = GatherDataset(LabeledImages(train_images["train_image"], gray["train_label"]), train)
        self.val_set = GatherDataset(LabeledImages(binary["train_image"], gray["train_label"]), val)
        self.test_set = self.predict_set = GatherDataset(LabeledImages(binary["test_image"], gray["test_label"]))


def read_idx(path: Path) -> np.ndarray:
    """Reads an idx file of unsigned bytes, gzipped or not: two zero bytes, 8 (the type), the number of dimensions, then
    each dimension as a big-endian 32-bit number, then the values."""
    try:
        with gzip.open(path) if path.suffix == ".gz" else path.open("rb") as file:
            content = file.read(MAX_BYTES + 1)
    except (gzip.BadGzipFile, EOFError, zlib.error) as error:
        raise DataError(f"{path} is not a whole gzip file: delete it, and it is downloaded again.") from error
    dimensions = content[3] if content[:3] == b"\0\0\x08" else 0
    start = 4 + 4 * dimensions
    shape = tuple(int(n) for n in np.frombuffer(content[4:start], ">u4"))
    if dimensions == 0 or len(content) - start != math.prod(shape):
        raise DataError(f"{path} is not an idx file of unsigned bytes: delete it, and it is downloaded again.")
    return np.frombuffer(content, np.uint8, offset=start).reshape(shape)

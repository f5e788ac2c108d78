"""CelebA (Liu, Luo, Wang & Tang 2015): 202,599 photographs of celebrities' faces, aligned, 178x218 pixels."""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import torchvision

from datamodules.base import data_root
from datamodules.errors import DataError, note
from datamodules.image_folder import ImageFolder
from datamodules.loading import augment
from datamodules.loading.folders import TEST, TRAIN, VAL, Listing, files_below

NUM_IMAGES = 202_599
FIRST_VAL, FIRST_TEST = 162_771, 182_638
"""The numbers of the official splits' first images (list_eval_partition.txt)."""


class CelebA(ImageFolder):
    """Celebrities' faces in the official splits: 162,770 for training, 19,867 for validation and 19,962 for testing.

    The images are looked for in ``<root>/celeba/img_align_celeba/``, then ``<root>/celeba/img_align_celeba.zip``; if
    neither is there, torchvision downloads them (for which it needs the package gdown).

    Args:
        attribute: One of the 40 attributes (``Smiling``), which makes two classes, 0 without it and 1 with it; if None,
            there are no classes. It takes ``<root>/celeba/list_attr_celeba.txt``.
        root: Folder of all data sets; if None, ``$RELIT_DATA``, else the user's cache folder.
        batch_size: Images in a training batch of one process.
        eval_batch_size: Images in an evaluation batch of one process; if None, ``batch_size``.
        image_size: Side of the images that the model gets.
        channels: 3 for color, 1 for gray.
        crop: Side of the central square that is cut out of each image before it is resized; if None, 178.
        on_device: Hold the data set in the accelerator's memory; if None, when it fits easily.
        classes_per_batch: P of a batch of P classes x K images; None for batches drawn without regard to the class.
        samples_per_class: K of such a batch.
        augmentation: What happens to training images: "none", "flip", "standard" or "strong", as in ``ImageFolder``.
    """

    name = "celeba"

    def __init__(
        self,
        attribute: str | None = None,
        root: str | None = None,
        batch_size: int = 64,
        eval_batch_size: int | None = None,
        image_size: int = 64,
        channels: Literal[1, 3] = 3,
        crop: int | None = None,
        on_device: bool | None = None,
        classes_per_batch: int | None = None,
        samples_per_class: int | None = None,
        augmentation: augment.Augmentation = "none",
    ) -> None:
        folder = data_root(root) / "celeba" / "img_align_celeba"
        archive = folder.with_suffix(".zip")
        super().__init__(
            path=str(archive if archive.is_file() and not folder.is_dir() else folder),
            root=root,
            batch_size=batch_size,
            eval_batch_size=eval_batch_size,
            image_size=image_size,
            channels=channels,
            crop=crop,
            on_device=on_device,
            classes_per_batch=classes_per_batch,
            samples_per_class=samples_per_class,
            augmentation=augmentation,
        )
        self.attribute = attribute
        if attribute is not None:
            self.num_classes, self.class_names = 2, (f"not {attribute}", attribute)

    def obtain(self) -> Path:
        if not self.source().exists():
            try:
                torchvision.datasets.CelebA(str(self.root), split="all", download=True)
            except (RuntimeError, OSError, ImportError) as error:
                raise DataError(
                    f"CelebA can't be downloaded ({' '.join(str(error).split())}): install gdown, or get "
                    f"img_align_celeba.zip from https://mmlab.ie.cuhk.edu.hk/projects/CelebA.html and put it into "
                    f"{self.folder}."
                ) from error
        return self.source()

    def selection(self) -> Mapping[str, Any]:
        return {"attribute": self.attribute}

    def listing(self, folder: Path) -> Listing:
        """Finds the images, and their class if an attribute is asked for."""
        official_name = re.compile(r"(?:img_align_celeba/)*(\d{6})\.(?:jpg|png)")
        numbers = {name: int(match[1]) for name in files_below(folder) if (match := official_name.fullmatch(name))}
        if not numbers:
            raise DataError(
                f"{self.source()} holds no images of CelebA (000001.jpg and so on): put them there, or delete it, and "
                "they are downloaded."
            )
        if len(numbers) != NUM_IMAGES:
            note(f"{self.source()} holds {len(numbers):,} images; CelebA has {NUM_IMAGES:,}.")
        has_attribute = self._attribute_of_images()
        missing = [name for name, n in numbers.items() if n not in has_attribute] if self.attribute is not None else []
        if missing:
            raise DataError(
                f"{self.folder / 'list_attr_celeba.txt'} has no row for {len(missing):,} of the images, such as "
                f"{missing[0]}: get the whole file from https://mmlab.ie.cuhk.edu.hk/projects/CelebA.html, or leave "
                "--data.attribute out."
            )
        labels = [int(has_attribute.get(n, False)) for n in numbers.values()]
        splits = [TRAIN if n < FIRST_VAL else VAL if n < FIRST_TEST else TEST for n in numbers.values()]
        return Listing(list(numbers), labels, splits, list(self.class_names))

    def _attribute_of_images(self) -> dict[int, bool]:
        """Whether each image has the attribute, by its number, from a file with a row for each image: its name, then 1
        or -1 for each attribute; the second line names these."""
        if self.attribute is None:
            return {}
        path = self.folder / "list_attr_celeba.txt"
        try:
            lines = path.read_text(encoding="utf-8").splitlines()
            attributes = lines[1].split()
            if self.attribute not in attributes:
                raise DataError(
                    f"CelebA has no attribute {self.attribute}: set --data.attribute to one of {', '.join(attributes)}."
                )
            column = attributes.index(self.attribute)
            rows = [line.split() for line in lines[2:] if line.strip()]
            # A row that was cut off counts as missing.
            whole = (row for row in rows if len(row) == 1 + len(attributes))
            return {int(Path(name).stem): values[column] == "1" for name, *values in whole}
        except (OSError, IndexError, ValueError) as error:
            raise DataError(
                f"{path} can't be read ({error}): get it from https://mmlab.ie.cuhk.edu.hk/projects/CelebA.html, or "
                "leave --data.attribute out."
            ) from error

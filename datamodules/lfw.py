"""Labeled Faces in the Wild (Huang, Ramesh, Berg & Learned-Miller 2007): 13,233 photographs of 5,749 people's faces."""

import difflib
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from datamodules.base import data_root
from datamodules.errors import DataError, note
from datamodules.image_folder import ImageFolder
from datamodules.loading import augment
from datamodules.loading.archives import RemoteFile, fetch
from datamodules.loading.folders import TRAIN, Listing, files_below

NUM_IMAGES = 13_233
FOLDERS = {"deepfunneled": "lfw-deepfunneled", "funneled": "lfw_funneled", "original": "lfw"}
SITE = "http://vis-www.cs.umass.edu/lfw/"

# md5 checksums from the data set's site. The copies at figshare are those that scikit-learn downloads.
ARCHIVES = {
    "deepfunneled": RemoteFile(
        "lfw-deepfunneled.tgz",
        (SITE, "https://web.archive.org/web/20231118124720if_/https://vis-www.cs.umass.edu/lfw/lfw-deepfunneled.tgz"),
        "md5:68331da3eb755a505a502b5aacb3c201",
    ),
    "funneled": RemoteFile(
        "lfw-funneled.tgz",
        ("https://ndownloader.figshare.com/files/5976015", SITE),
        "md5:1b42dfed7d15c9b2dd63d5e5840c86ad",
    ),
    "original": RemoteFile(
        "lfw.tgz",
        ("https://ndownloader.figshare.com/files/5976018", SITE),
        "md5:a17d05bd522c52d84eca14327a23d494",
    ),
}


class LFW(ImageFolder):
    """Faces of 250x250 pixels in color; each person is a class.

    ``people: [George_W_Bush]`` takes the 530 images of the person who has most. Validation and test images are drawn at
    random, but always alike; ``predict_set`` is all images. ``num_classes`` and ``class_names`` are known after
    ``setup``.

    The images are looked for in ``<root>/lfw/lfw-deepfunneled/`` (or ``lfw_funneled/``, ``lfw/``) or where torchvision
    has them, in ``<root>/lfw-py/``, then their ``.tgz`` archive next to these folders, which is downloaded if it
    isn't there either.

    Args:
        people: Whose images to take, as they are written in the data set (``George_W_Bush``); if None, everyone's.
        min_images: Take only people who have at least so many images.
        alignment: Which of the published versions: faces turned and shifted to lie alike by "deepfunneled" (Huang,
            Mattar, Lee & Learned-Miller 2012) or "funneled" (Huang, Jain & Learned-Miller 2007), or as they were found
            ("original").
        root: Folder of all data sets; if None, ``$RELIT_DATA``, else the user's cache folder.
        batch_size: Images in a training batch of one process.
        eval_batch_size: Images in an evaluation batch of one process; if None, ``batch_size``.
        image_size: Side of the images that the model gets.
        channels: 3 for color, 1 for gray.
        crop: Side of the central square that is cut out of each image before it is resized; if None, 250. Faces fill
            about 110 pixels.
        val_fraction: Share of the images that is drawn for validation.
        test_fraction: Share of the images that is drawn for testing.
        split_seed: Seed of these draws.
        on_device: Hold the data set in the accelerator's memory; if None, when it fits easily.
        classes_per_batch: P of a batch of P classes x K images; None for batches drawn without regard to the class.
        samples_per_class: K of such a batch.
        augmentation: What happens to training images: "none", "flip", "standard" or "strong", as in ``ImageFolder``.
    """

    name = "lfw"

    def __init__(
        self,
        people: list[str] | None = None,
        min_images: int = 1,
        alignment: Literal["deepfunneled", "funneled", "original"] = "deepfunneled",
        root: str | None = None,
        batch_size: int = 64,
        eval_batch_size: int | None = None,
        image_size: int = 64,
        channels: Literal[1, 3] = 3,
        crop: int | None = None,
        val_fraction: float = 0.1,
        test_fraction: float = 0.1,
        split_seed: int = 0,
        on_device: bool | None = None,
        classes_per_batch: int | None = None,
        samples_per_class: int | None = None,
        augmentation: augment.Augmentation = "none",
    ) -> None:
        if alignment not in FOLDERS:
            raise DataError(f"alignment is {alignment!r}; it must be one of {', '.join(FOLDERS)}.")
        if people is not None and not people:
            raise DataError("people is an empty list; name someone, or leave it out to take everyone.")
        self.people = None if people is None else sorted({name.replace(" ", "_") for name in people})
        self.min_images = min_images
        self.alignment = alignment
        super().__init__(
            path=str(find_images(data_root(root), alignment)),
            root=root,
            batch_size=batch_size,
            eval_batch_size=eval_batch_size,
            image_size=image_size,
            channels=channels,
            crop=crop,
            val_fraction=val_fraction,
            test_fraction=test_fraction,
            split_seed=split_seed,
            on_device=on_device,
            classes_per_batch=classes_per_batch,
            samples_per_class=samples_per_class,
            augmentation=augmentation,
        )

    def obtain(self) -> Path:
        source = self.source()
        if source.is_dir():
            return source
        return fetch(ARCHIVES[self.alignment], self.folder, self.root / "lfw-py", self.root)

    def selection(self) -> Mapping[str, Any]:
        return {"alignment": self.alignment, "people": self.people, "min_images": self.min_images}

    def listing(self, folder: Path) -> Listing:
        """Finds the images of the people who are asked for."""
        official_name = re.compile(rf"(?:{FOLDERS[self.alignment]}/)?([^/]+)/\1_\d{{4}}\.jpg")
        files: dict[str, list[str]] = {}
        for name in files_below(folder):
            if match := official_name.fullmatch(name):
                files.setdefault(match[1], []).append(name)
        if not files:
            raise DataError(f"{self.source()} holds no images of LFW (named as George_W_Bush/George_W_Bush_0001.jpg).")
        count = sum(map(len, files.values()))
        if count != NUM_IMAGES:
            note(f"{self.source()} holds {count:,} images of {len(files):,} people; LFW has {NUM_IMAGES:,} of 5,749.")

        for name in self.people or ():
            if name not in files:
                nearest = difflib.get_close_matches(name, files, n=1, cutoff=0)[0]
                raise DataError(
                    f"{self.source()} holds no images of {name} (the nearest name is {nearest}): change --data.people."
                )
        people = [name for name in self.people or sorted(files) if len(files[name]) >= self.min_images]
        if not people:
            most = max(len(files[name]) for name in self.people or files)
            raise DataError(
                f"No person that was asked for has {self.min_images} images in {self.source()} (the most are {most}): "
                "lower --data.min_images."
            )
        chosen = [(name, label) for label, person in enumerate(people) for name in files[person]]
        names, labels = ([*column] for column in zip(*chosen, strict=True))
        return Listing(names, labels, [TRAIN] * len(names), people)


def find_images(root: Path, alignment: str) -> Path:
    """The folder of LFW's images, if it is there; else where its archive is, or is downloaded to."""
    folder, archive = FOLDERS[alignment], ARCHIVES[alignment].name
    for candidate in (root / "lfw" / folder, root / "lfw-py" / folder, root / folder):
        if any(candidate.glob("*/*_0001.jpg")):
            return candidate
    archives = [root / "lfw" / archive, root / "lfw-py" / archive, root / archive]
    return next((path for path in archives if path.is_file()), archives[0])

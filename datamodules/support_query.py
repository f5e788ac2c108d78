"""Pictures of new classes for a few-shot model: a folder of examples, and a folder of pictures in question."""

from typing import Literal

import torch

from datamodules.base import HasImageShape, ImageDataModule, in_precision
from datamodules.errors import DataError
from datamodules.image_folder import ImageFolder
from datamodules.loading.tensors import LabeledImages


class SupportQuery(ImageDataModule):
    """Classifies the pictures of one folder by the examples in another: ``relit predict --ckpt_path FILE --data
    SupportQuery --data.support FOLDER --data.query FOLDER``.

    The classes may be such as the model has never seen. The pictures are cut to central squares and get the size and
    the number of channels that the model was trained with (and are inverted by the model if its training data were).

    ``class_names`` (of the examples) and ``file_names`` (of the pictures in question) are known after ``setup``.

    Args:
        support: Folder or archive of the examples, with a sub-folder for each class.
        query: Folder or archive of the pictures in question.
        root: Folder of all data sets, where the prepared arrays are kept; if None, ``$RELIT_DATA``, else the user's
            cache folder.
        batch_size: Pictures classified at once.
        crop: Side of the central square that is cut out of each picture, as in training; if None, as large as fits.
        on_device: Hold the pictures in the accelerator's memory; if None, when they fit easily.
        background: What shows through transparent pixels: "white" or "black".
        value_range: Values of black and white in files of more than 8 bits, as in ``ImageFolder``.
    """

    name = "support_query"
    _support: LabeledImages

    def __init__(
        self,
        support: str,
        query: str,
        root: str | None = None,
        batch_size: int = 256,
        crop: int | None = None,
        on_device: bool | None = None,
        background: Literal["white", "black"] = "white",
        value_range: tuple[float, float] | None = None,
    ) -> None:
        super().__init__(root, batch_size, None, on_device)
        self.background, self.value_range = background, value_range
        self.support, self.query = support, query
        self.crop = crop
        self.file_names: tuple[str, ...] = ()

    def prepare_data(self) -> None:
        for which in ("support", "query"):
            try:
                self._pictures(which).prepare_data()
            except DataError as error:  # an ImageFolder's, which names its own option
                raise DataError(str(error).replace("--data.path", f"--data.{which}")) from error

    def setup(self, stage: str) -> None:
        if stage != "predict":
            raise DataError("SupportQuery can only be predicted from: for anything else choose other --data.")
        support, query = self._pictures("support"), self._pictures("query")
        support.setup(stage)
        query.setup(stage)
        self.image_shape = query.image_shape
        self.num_classes, self.class_names = support.num_classes, support.class_names
        self.predict_set, self.file_names = query.predict_set, query.file_names
        self._support = support.predict_set.__getitems__(torch.arange(len(support.predict_set)))
        self._check_classes(support)

    def support_images(self) -> LabeledImages:
        """The examples with their classes, images in [0, 1] in the precision of the model."""
        images: LabeledImages = in_precision(self.trainer, self.transform(self._support, training=False))
        return images

    def _pictures(self, which: str) -> ImageFolder:
        """The folder ``support`` or ``query``, in the shape that the model takes."""
        model = self.trainer.lightning_module if self.trainer is not None else None
        if model is None:
            raise DataError(
                "SupportQuery shapes its pictures for a model: use it with `relit predict --ckpt_path FILE`."
            )
        assert isinstance(model, HasImageShape)
        channels, size, _ = model.image_shape
        path = self.support if which == "support" else self.query
        return ImageFolder(
            path,
            str(self.root),
            image_size=size,
            channels=1 if channels == 1 else 3,
            crop=self.crop,
            background=self.background,
            value_range=self.value_range,
        )

    def _check_classes(self, support: ImageFolder) -> None:
        """Refuses examples that don't tell two or more classes apart."""
        if self.num_classes < 2:
            raise DataError(
                f"{support.source()} should hold sub-folders, each with the examples of one of two or more classes: "
                "make some, or set --data.support to another folder."
            )
        image, label = self._support
        counts = label.bincount(minlength=self.num_classes)
        if not counts.all():
            empty = self.class_names[int(counts.argmin())]
            raise DataError(f"No image of the class {empty} in {support.source()} can be read: mend or remove it.")
        first: dict[bytes, int] = {}
        for place in range(len(image)):
            known = first.setdefault(image[place].numpy().tobytes(), place)
            if label[place] != label[known]:
                raise DataError(
                    f"{support.file_names[known]} and {support.file_names[place]} in {support.source()} are the same "
                    "picture, so that nothing can tell their classes apart: remove one of them."
                )

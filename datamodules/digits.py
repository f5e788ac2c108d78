"""scikit-learn's handwritten digits: 1,797 real scans that come with the package, so that nothing is downloaded."""

import numpy as np
import torch
from torch.nn import functional

from datamodules.base import ImageDataModule, split_rows
from datamodules.loading.tensors import ArrayWriter, GatherDataset, LabeledImages, TensorStore


class Digits(ImageDataModule):
    """Digits of 43 people, enlarged from 8x8 to MNIST's shape at 32x32: stands in for MNIST where there is no network.

    The 1,797 images (UCI's "Optical Recognition of Handwritten Digits", test part) are split at random, but always
    alike, into 1,297 for training, 200 for validation and 300 for test.

    Args:
        root: Folder of all data sets; if None, ``$RELIT_DATA``, else the user's cache folder.
        batch_size: Images in a training batch of one process.
        eval_batch_size: Images in an evaluation batch of one process; if None, ``batch_size``.
        split_seed: Seed of the split.
        on_device: Hold the data set in the accelerator's memory; if None, when it fits easily.
        classes_per_batch: P of a batch of P classes x K images; None for batches drawn without regard to the class.
        samples_per_class: K of such a batch.
    """

    name = "digits"
    image_shape = (1, 32, 32)
    num_classes = 10
    class_names = tuple("0123456789")

    def __init__(
        self,
        root: str | None = None,
        batch_size: int = 64,
        eval_batch_size: int | None = None,
        split_seed: int = 0,
        on_device: bool | None = None,
        classes_per_batch: int | None = None,
        samples_per_class: int | None = None,
    ) -> None:
        super().__init__(root, batch_size, eval_batch_size, on_device, classes_per_batch, samples_per_class)
        self.split_seed = split_seed

    @property
    def store(self) -> TensorStore:
        return self.tensor_store("32x32", {"source": "sklearn.datasets.load_digits"})

    def prepare_data(self) -> None:
        self.store.prepare(self._build)

    def _build(self, writer: ArrayWriter) -> None:
        from sklearn.datasets import load_digits

        digits = load_digits()
        ink = torch.from_numpy(digits.images).float().unsqueeze(1) / 16
        image = functional.interpolate(ink, size=(32, 32), mode="bicubic", align_corners=False).clamp(0, 1)
        writer.write("image", image.mul(255).round().byte())
        writer.write("label", digits.target.astype(np.int64))

    def setup(self, stage: str) -> None:
        arrays = self.store.load()
        columns = LabeledImages(arrays["image"], arrays["label"])
        train, val, test = split_rows(len(columns.label), 1297, 200, 300, seed=self.split_seed)
        self.train_set = GatherDataset(columns, train)
        self.val_set = GatherDataset(columns, val)
        self.test_set = self.predict_set = GatherDataset(columns, test)

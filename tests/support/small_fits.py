"""Every model of tests/methods.py through Lightning's trainer, on images in memory, in a fraction of a second."""

from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import Trainer

from datamodules import (
    EpisodeDataModule,
    FewLabels,
    GatherDataset,
    ImageDataModule,
    ImagePair,
    LabeledImages,
    SearchDataModule,
)
from lit_models.module import Method
from tests.methods import ALL_MODELS
from tests.support.small_data import write_autoencoder
from tests.support.small_models import built
from tests.support.trainers import quiet_trainer


class ImagesInMemory(ImageDataModule):
    """Noise of three classes in the training, validation and test splits.

    Args:
        image_shape: ``(channels, height, width)``.
        count: Images in each split.
        pairs: Give pairs of images in place of labeled ones.
        **loading: Arguments of :class:`datamodules.ImageDataModule`.
    """

    name = "noise"
    num_classes = 3
    class_names = ("a", "b", "c")

    def __init__(self, image_shape: tuple[int, int, int], count: int, pairs: bool = False, **loading: Any) -> None:
        super().__init__(**loading)
        self.image_shape = image_shape
        self.count = count
        self.pairs = pairs

    def setup(self, stage: str) -> None:
        draw = torch.Generator().manual_seed(0)
        splits = []
        for _ in range(3):
            image, other = torch.randint(256, (2, self.count, *self.image_shape), dtype=torch.uint8, generator=draw)
            label = torch.arange(self.count) % type(self).num_classes  # whatever a test says that there are
            splits.append(GatherDataset(ImagePair(image, other) if self.pairs else LabeledImages(image, label)))
        self.train_set, self.val_set, self.test_set = splits
        self.predict_set = self.test_set


def small_fit(
    title: str, folder: Path, batch_size: int = 6, eval_batch_size: int = 6, count: int = 24, **trainer: Any
) -> tuple[Method, ImageDataModule, Trainer]:
    """A model of :data:`tests.methods.ALL_MODELS` in training mode, data that it takes, and a trainer.

    Args:
        title: The model's.
        folder: For files that the model needs or writes.
        batch_size: Images (episodes) in a training batch.
        eval_batch_size: Images (episodes) in an evaluation batch.
        count: Images in each split.
        **trainer: Arguments of Lightning's ``Trainer``.
    """
    record, arguments = ALL_MODELS[title].record, ALL_MODELS[title].arguments
    sizes = {"image_size": arguments["image_size"], "channels": arguments.get("channels", 1)}
    others: dict[str, Any] = record.length(trainer.get("max_epochs", 1))
    if record.starts_from:
        decoder = {"latent_dim": arguments["code_dim"], "feature_maps": arguments["feature_maps"]}
        others[record.starts_from] = str(write_autoencoder(folder / "autoencoder.ckpt", **sizes, **decoder))
    if "pretrain_epochs" in arguments:
        others["pretrain_epochs"] = arguments["pretrain_epochs"]
    torch.manual_seed(0)
    model = built(title, **others)

    loading = {"batch_size": batch_size, "eval_batch_size": eval_batch_size}
    shape = (sizes["channels"], sizes["image_size"], sizes["image_size"])
    images = ImagesInMemory(shape, count, record.batch == "pairs", root=str(folder), **loading)
    data: ImageDataModule = images
    if record.batch == "episodes":
        data = EpisodeDataModule(
            images,
            n_way=3,
            test_way=3,
            n_query=2,
            test_query=2,
            episodes_per_batch=batch_size,
            eval_episodes_per_batch=eval_batch_size,
            train_episodes=count,
            val_episodes=count,
            test_episodes=count,
        )
    elif record.batch == "folded images":
        data = FewLabels(images, count=count, folds=2, repeats=1, **loading)
    elif record.batch == "halves":
        data = SearchDataModule(images, **loading)
    return model, data, small_trainer(model, folder, **trainer)


def small_trainer(model: Method, folder: Path, **arguments: Any) -> Trainer:
    """A silent trainer on the CPU, of two batches an epoch and a split, and as many epochs as the model plans, or 1."""
    return quiet_trainer(
        **{
            "max_epochs": model.planned_epochs or 1,
            **dict.fromkeys(("limit_train_batches", "limit_val_batches", "limit_test_batches"), 2),
            "num_sanity_val_steps": 0,
            "use_distributed_sampler": False,
            "default_root_dir": str(folder),
            **arguments,
        }
    )

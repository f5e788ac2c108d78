"""Few-shot learning: batches of episodes, drawn from the labeled images of any other data module."""

from typing import Any

import torch

from datamodules.base import ImageDataModule, prepare_images, run_seed, set_up_images
from datamodules.errors import DataError, note
from datamodules.loading.loaders import BatchLoader
from datamodules.loading.samplers import EpisodeBatches
from datamodules.loading.tensors import Episodes, GatherDataset, LabeledImages


class EpisodeDataset:
    """Gathers N-way K-shot episodes from labeled images.

    Args:
        images: The labeled images.
        k_shot: Samples of each class that are for the support; the others are queries.
    """

    def __init__(self, images: GatherDataset[LabeledImages], k_shot: int) -> None:
        self.images = images
        self.k_shot = k_shot

    def __getitems__(self, rows: torch.Tensor) -> Episodes:
        """The episodes of which ``rows``, ``(E, N, K + Q)``, are the images' rows."""
        image = self.images.__getitems__(rows).image
        return Episodes(image[:, :, : self.k_shot], image[:, :, self.k_shot :])


class EpisodeDataModule(ImageDataModule):
    """N-way K-shot episodes of the labeled images of another data module, whose splits should differ in their classes.

    Of that data module only the images are used, not its batches and its augmentation. Training draws other episodes in
    every epoch; validation and testing draw the same ones every time, whatever the run's seed, the batch size and the
    number of processes.

    Args:
        images: The data module of the labeled images, for example an ``ImageFolder`` with the folders ``train/``,
            ``val/`` and ``test/``, each with sub-folders for its own classes.
        n_way: Classes in a training episode.
        k_shot: Support images of each class in a training episode.
        n_query: Query images of each class in a training episode.
        test_way: Classes in a test episode.
        test_shot: Support images of each class in a validation or test episode; if None, ``k_shot``.
        test_query: Query images of each class in a validation or test episode.
        val_way: Classes in a validation episode; if None, ``test_way``. Set it to choose the same epoch whatever the
            test is.
        episodes_per_batch: Episodes in a training batch of one process.
        eval_episodes_per_batch: Episodes in a validation or test batch of one process; if None, ``episodes_per_batch``.
        train_episodes: Episodes in a training epoch, of all processes together.
        val_episodes: Validation episodes, of all processes together.
        test_episodes: Test episodes, of all processes together.
        eval_seed: Seed of the validation and test episodes.
        on_device: Hold the data set in the accelerator's memory; if None, when it fits easily.
    """

    def __init__(
        self,
        images: ImageDataModule,
        n_way: int = 5,
        k_shot: int = 1,
        n_query: int = 15,
        test_way: int = 5,
        test_shot: int | None = None,
        test_query: int = 15,
        val_way: int | None = None,
        episodes_per_batch: int = 1,
        eval_episodes_per_batch: int | None = None,
        train_episodes: int = 100,
        val_episodes: int = 100,
        test_episodes: int = 1000,
        eval_seed: int = 0,
        on_device: bool | None = None,
    ) -> None:
        super().__init__(str(images.root), episodes_per_batch, eval_episodes_per_batch, on_device)
        self.images = images
        self.name = images.name
        self.image_shape = images.image_shape
        self.inverted = images.inverted
        self.n_way, self.k_shot, self.n_query = n_way, k_shot, n_query
        self.test_way, self.test_shot, self.test_query = (
            test_way,
            k_shot if test_shot is None else test_shot,
            test_query,
        )
        self.val_way = val_way
        self.train_episodes, self.val_episodes, self.test_episodes = train_episodes, val_episodes, test_episodes
        self.eval_seed = eval_seed

    def prepare_data(self) -> None:
        prepare_images(self, self.images)

    def setup(self, stage: str) -> None:
        set_up_images(self, self.images, stage)
        self.image_shape = self.images.image_shape
        self.train_set, self.val_set = self.images.train_set, self.images.val_set
        self.test_set = self.predict_set = self.images.test_set
        self.num_classes, self.class_names = self.images.num_classes, self.images.class_names
        # Impossible settings are refused now, not when the first test episode is drawn.
        self._require_val_way()
        self.train_batches(), self.val_batches(1), self.test_batches(1)
        if torch.isin(self.test_set.column("label"), self.train_set.column("label")).any():
            note(
                f"The test images of {self.name} are of classes that are trained on, so the test measures nothing "
                "about new classes."
            )

    def train_batches(self) -> EpisodeBatches:
        return EpisodeBatches(
            self.train_set.column("label"),
            self.n_way,
            self.k_shot,
            self.n_query,
            self.train_episodes,
            self.batch_size,
            run_seed(),
            *self._rank_and_world_size(),
        )

    def _require_val_way(self) -> None:
        classes = len(self.val_set.column("label").unique())
        if self.val_way is not None and classes > 1 and not 1 <= self.val_way <= classes:
            raise DataError(
                f"Validation episodes of {self.val_way} classes can't be drawn from {classes} classes: set "
                f"--data.val_way to 1..{classes}, or leave it out."
            )

    def val_batches(self, episodes: int) -> EpisodeBatches:
        """The sampler of the first ``episodes`` validation episodes."""
        return self._eval_batches(self.val_set, self.test_way if self.val_way is None else self.val_way, episodes)

    def test_batches(self, episodes: int) -> EpisodeBatches:
        """The sampler of the first ``episodes`` test episodes."""
        return self._eval_batches(self.test_set, self.test_way, episodes)

    def _eval_batches(self, split: GatherDataset[LabeledImages], way: int, episodes: int) -> EpisodeBatches:
        return EpisodeBatches(
            split.column("label"),
            way,
            self.test_shot,
            self.test_query,
            episodes,
            self.eval_batch_size,
            self.eval_seed,
            *self._rank_and_world_size(),
            evaluation=True,
        )

    def train_dataloader(self) -> BatchLoader[Any]:
        return self.training_loader(EpisodeDataset(self._placed(self.train_set), self.k_shot))

    def val_dataloader(self) -> BatchLoader[Any]:
        return self._eval_episodes(self.val_set, self.val_batches(self.val_episodes))

    def test_dataloader(self) -> BatchLoader[Any]:
        return self._eval_episodes(self.test_set, self.test_batches(self.test_episodes))

    def predict_dataloader(self) -> BatchLoader[Any]:
        return self.test_dataloader()

    def _eval_episodes(self, split: GatherDataset[LabeledImages], batches: EpisodeBatches) -> BatchLoader[Episodes]:
        return BatchLoader(EpisodeDataset(self._placed(split), self.test_shot), batch_sampler=batches)

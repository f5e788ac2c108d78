"""Scores of a generative model, while it learns and in its test."""

import json
import warnings
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, cast

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from torch import Tensor
from tqdm import tqdm

from datamodules import GatherDataset, ImageDataModule, LabelledImages
from lit_models.callbacks.classification import confusion_counts, draw_class_accuracy, write_class_accuracy
from lit_models.errors import RunError
from lit_models.metrics.extractors import ExtractorUnavailableError, Features
from lit_models.metrics.generation import frechet_distance, inception_score, kernel_distance
from lit_models.support.extractors import load_extractor
from lit_models.support.files import write_atomically
from lit_models.support.logging import log_figure, log_table
from lit_models.support.ranks import gather

FAST_DEV_RUN_IMAGES = 16


class GenerationScores(Callback):
    """Measures generated images against training images by FID, KID and the Inception Score.

    Logged after each validation that is due: ``val/fid``, ``val/kid``, ``val/inception_score`` (see
    :mod:`lit_models.metrics.generation`), with the numbers of images that they go by, ``val/real_images`` and
    ``val/generated_images``. The test logs the same below ``test/``, and what FID is at best and at worst:
    ``test/fid_floor``, between two disjoint sets of training images (each as large as the real set, or half of all
    training images), and ``test/fid_noise``, of uniformly random pixels; and ``test/inception_score_real``, that of
    training images. It writes all of them, with the extractor's name, to ``scores.json`` in the run folder.

    A model that knows classes is asked for all of them equally often. If the extractor tells the same classes apart,
    the share of images that it assigns to the class that was asked for is ``label_accuracy``; the test also draws and
    lists it by class, in ``figures/label_accuracy.png`` and ``.csv``.

    Ranks share the work. The latent vectors are the same every time. If Inception's weights can't be had, a warning
    says so and training goes on without scores. A ``fast_dev_run`` measures few images.

    Args:
        extractor: Network whose features are compared: ``digits`` (made for MNIST; it doesn't know other digits),
            ``inception``, or a checkpoint of any classifier.
        every_n_epochs: Measure after the first epoch, after every so many, and after the last.
        count: Generated images while training.
        test_count: Generated images in a test.
        real_count: Training images, drawn at random but always alike, that they are compared with (fewer if there are
            no more).
        batch_size: Images at once.
        seed: Seed of the latent vectors and of the choice of training images.
    """

    def __init__(
        self,
        extractor: str = "digits",
        every_n_epochs: int = 1,
        count: int = 1000,
        test_count: int = 10_000,
        real_count: int = 10_000,
        batch_size: int = 250,
        seed: int = 0,
    ) -> None:
        if min(every_n_epochs, batch_size) < 1 or min(count, test_count, real_count) < 2:
            raise RunError("GenerationScores: every_n_epochs and batch_size must be at least 1, the counts at least 2.")
        self.extractor_name = extractor
        self.every_n_epochs = every_n_epochs
        self.count = count
        self.test_count = test_count
        self.real_count = real_count
        self.batch_size = batch_size
        self.seed = seed
        self._extractor: Callable[[Tensor], Features] | None = None
        self._real: Features | None = None

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        if stage not in ("fit", "validate", "test"):
            return
        if not callable(getattr(pl_module, "sample", None)):
            raise RunError(
                f"GenerationScores measures models that make images, which {type(pl_module).__name__} doesn't."
            )
        if not isinstance(getattr(trainer, "datamodule", None), ImageDataModule):
            raise RunError("GenerationScores needs a data module of datamodules/ to compare generated images with.")
        self._real = None
        try:
            self._extractor = load_extractor(self.extractor_name).to(trainer.strategy.root_device)
        except ExtractorUnavailableError as error:
            warnings.warn(f"{error}; the run goes on without scores.", stacklevel=1)

    def on_validation_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        epoch = trainer.current_epoch + 1
        due = epoch in (1, trainer.max_epochs) or epoch % self.every_n_epochs == 0
        if self._extractor is not None and not trainer.sanity_checking and due:
            count = FAST_DEV_RUN_IMAGES if cast(Any, trainer).fast_dev_run else self.count
            scores, _ = self._measure(trainer, pl_module, count)
            _log(pl_module, scores, "val", prog_bar=True)

    def on_test_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if self._extractor is None:
            return
        # Twice as many training images as the scores go by, if there are: the floor compares two sets.
        training = self._training_features(trainer, 2 * self.real_count)
        self._real = Features(*(column[: self.real_count] for column in training))
        scores, confusion = self._measure(trainer, pl_module, self.test_count)
        scores |= self._limits(trainer, training, self._real)
        _log(pl_module, scores, "test")
        if not trainer.is_global_zero:
            return
        run = Path(trainer.default_root_dir)
        text = json.dumps({"extractor": self.extractor_name, **scores}, indent=2)
        write_atomically(run / "scores.json", f"{text}\n")
        print(f"Scores by the extractor {self.extractor_name!r}, also in {run / 'scores.json'}:")
        if confusion is not None:
            names = cast(Any, trainer).datamodule.class_names or tuple(map(str, range(len(confusion))))
            path = run / "figures" / "label_accuracy.csv"
            path.parent.mkdir(parents=True, exist_ok=True)
            write_class_accuracy(confusion, names, path)
            picture = path.with_suffix(".png")
            draw_class_accuracy(confusion, names, picture, "generated images judged to be of the class asked for / %")
            log_figure(trainer, picture)
            log_table(trainer, path)

    def _measure(
        self, trainer: Trainer, pl_module: LightningModule, count: int
    ) -> tuple[dict[str, float], Tensor | None]:
        """All scores of ``count`` generated images; and the confusion counts of asked and judged classes, if known."""
        if self._real is None:
            fast = cast(Any, trainer).fast_dev_run
            self._real = self._training_features(trainer, FAST_DEV_RUN_IMAGES if fast else self.real_count)
        real = self._real.embedding
        classes = getattr(pl_module, "num_classes", 0)
        labels = torch.arange(count) % classes if classes else None

        def generate(batch: int) -> Tensor:
            first = batch * self.batch_size
            part = None if labels is None else labels[first : first + self.batch_size].to(pl_module.device)
            size = min(self.batch_size, count - first)
            generator = torch.Generator().manual_seed(self.seed * 1_000_003 + batch)
            with trainer.precision_plugin.forward_context():
                return cast(Any, pl_module).sample(size, part, generator)

        embedding, logits = self._features(trainer, count, generate, "generated images")
        scores = {
            "fid": frechet_distance(real, embedding),
            "kid": kernel_distance(real, embedding, self.seed),
            "inception_score": inception_score(logits),
            "real_images": float(len(real)),
            "generated_images": float(count),
        }
        if labels is None or logits.shape[1] != classes:
            return scores, None
        confusion = confusion_counts(logits, labels)
        return scores | {"label_accuracy": float(confusion.diagonal().sum()) / count}, confusion

    def _limits(self, trainer: Trainer, training: Features, real: Features) -> dict[str, float]:
        """What FID is at best and at worst, and the Inception Score of real images."""
        share = min(self.real_count, len(training.embedding) // 2)
        first, second = training.embedding[:share], training.embedding[share : 2 * share]
        shape = cast(ImageDataModule, cast(Any, trainer).datamodule).image_shape

        def noise(batch: int) -> Tensor:
            size = min(self.batch_size, self.test_count - batch * self.batch_size)
            return torch.rand(size, *shape, generator=torch.Generator().manual_seed(batch))

        random = self._features(trainer, self.test_count, noise, "noise")
        return {
            "fid_floor": frechet_distance(first, second),
            "fid_floor_images": float(share),
            "fid_noise": frechet_distance(real.embedding, random.embedding),
            "inception_score_real": inception_score(real.logits),
        }

    def _training_features(self, trainer: Trainer, count: int) -> Features:
        """The features of that many training images (of all if there are fewer), drawn at random but always alike."""
        datamodule = cast(ImageDataModule, cast(Any, trainer).datamodule)
        images: GatherDataset[LabelledImages] = datamodule.train_set
        order = torch.randperm(len(images), generator=torch.Generator().manual_seed(self.seed))
        parts = order[:count].split(self.batch_size)
        return self._features(
            trainer,
            min(count, len(images)),
            lambda batch: datamodule.transform(images.__getitems__(parts[batch]), training=False).image,
            "training images",
        )

    def _features(self, trainer: Trainer, count: int, images: Callable[[int], Tensor], what: str) -> Features:
        """The features, on the CPU, of ``count`` images that come in batches; ranks take turns with the batches."""
        assert self._extractor is not None
        batches = range(trainer.global_rank, -(-count // self.batch_size), trainer.world_size)
        quiet = not trainer.is_global_zero or trainer.progress_bar_callback is None
        bar: Iterable[int] = tqdm(batches, desc=what, unit="batch", leave=False, disable=quiet)
        device = trainer.strategy.root_device
        own: dict[int, Features] = {}
        for batch in bar:
            features = self._extractor(images(batch).to(device).float())
            own[batch] = Features(*(column.float().cpu() for column in features))
        all_batches = {batch: features for share in gather(trainer, own) for batch, features in share.items()}
        ordered = [all_batches[batch] for batch in sorted(all_batches)]
        return Features(*(torch.cat(column) for column in zip(*ordered, strict=True)))


def _log(pl_module: LightningModule, scores: dict[str, float], stage: str, prog_bar: bool = False) -> None:
    for name, value in scores.items():
        pl_module.log(f"{stage}/{name}", value, sync_dist=True, prog_bar=prog_bar and name == "fid")

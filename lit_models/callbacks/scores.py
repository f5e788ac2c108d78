"""Scores of a generative model, while it learns and in its test."""

import json
import statistics
import warnings
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, Literal, NamedTuple

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from torch import Tensor
from tqdm import tqdm

from datamodules import GatherDataset, ImageDataModule, LabeledImages
from lit_models.callbacks.classification import confusion_counts, draw_class_accuracy, write_class_accuracy
from lit_models.errors import RunError, RunWarning
from lit_models.metrics.extractors import ExtractorUnavailableError, Features
from lit_models.metrics.generation import frechet_distance, inception_score, kernel_distance
from lit_models.metrics.variety import (
    memorized_share,
    precision_recall_density_coverage,
    spread_share,
    training_distance,
)
from lit_models.module import Generative
from lit_models.support.abilities import classes_of, require_ability, require_image_data
from lit_models.support.files import write_atomically
from lit_models.support.judge import JUDGE, read_judge
from lit_models.support.lightning_internals import data_of, is_trial
from lit_models.support.logging import log_figure, log_table
from lit_models.support.named_extractors import load_extractor
from lit_models.support.ranks import gather

FAST_DEV_RUN_IMAGES = 16
NOISE_IMAGES = 1000


class Reference(NamedTuple):
    """The real images that a stage's scores go by.

    Attributes:
        real: Those that generated images are compared with.
        real_label: Their classes; None if the data have none.
        training: Training images.
        training_label: Their classes.
        other: Rows of ``training`` that aren't in ``real``.
        held_out: Distances of held-out images to the nearest training image.
    """

    real: Features
    real_label: Tensor | None
    training: Features
    training_label: Tensor | None
    other: Tensor
    held_out: Tensor


class GenerationScores(Callback):
    """Measures generated images against real ones: fidelity, variety and memorization.

    Logged after each validation that is due: ``val/fid``, ``val/kid``, ``val/inception_score`` (see
    :mod:`lit_models.metrics.generation`), ``val/precision``, ``val/recall``, ``val/density``, ``val/coverage`` and
    ``val/memorized`` (see :mod:`lit_models.metrics.variety`), with the numbers of images that they go by,
    ``val/real_images`` and ``val/generated_images``. The test logs the same below ``test/``, and what they are at best
    and at worst: ``test/fid_floor`` of ``test/fid_floor_images`` training images, ``test/fid_noise`` of uniformly
    random pixels, and ``test/inception_score_real``. It writes all of them to ``scores.json`` in the run folder.

    Scores while training compare with validation images, those of the test with test images: the best checkpoint is
    chosen by one set of real images and tested against another. ``judge.json`` keeps the features' name, and the scores
    of training images and of ten training images repeated, at the same counts.

    A conditional model draws all classes equally often, and has ``spread`` if the data have the same number. If the
    extractor distinguishes as many, the share of images that it assigns to the class asked for is ``label_accuracy``;
    the test also draws and lists it by class, in ``figures/label_accuracy.png`` and ``.csv``.

    Ranks share the work. The latent vectors are the same every time. If an extractor's weights can't be downloaded,
    relit warns and training goes on without scores. A ``fast_dev_run`` measures few images.

    Args:
        extractor: Network whose features are compared: ``digits`` (made for MNIST), ``imagenet`` (color images, without
            a download), ``inception``, ``torchvision:NAME``, ``timm:NAME``, or a checkpoint of any classifier of relit.
        every_n_epochs: Measure after the first epoch, after every so many, and after the last.
        count: Generated images while training.
        test_count: Generated images in a test.
        real_count: Real images, drawn at random but always alike, that they are compared with (fewer if there are no
            more).
        batch_size: Images at once.
        seed: Seed of the latent vectors and of the choice of real images.
        training_count: Training images, drawn alike, that are searched for copies (fewer if there are no more).
        neighbors: Nearest neighbors of precision, recall, density and coverage.
        compare_with: ``held_out``: the validation split's images, and in a test the test split's. ``training``: one
            half of the training images, and in a test the other, where the other splits are too small.
        fid_count: Generated images of FID and KID, if fewer.
        inception_splits: The Inception Score is the mean over so many parts; the standard deviation over them is
            ``inception_score_sd``.
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
        training_count: int = 20_000,
        neighbors: int = 5,
        compare_with: Literal["held_out", "training"] = "held_out",
        fid_count: int | None = None,
        inception_splits: int = 1,
    ) -> None:
        if min(every_n_epochs, batch_size, neighbors, inception_splits) < 1:
            raise RunError(
                "GenerationScores: every_n_epochs, batch_size, neighbors and inception_splits must be at least 1."
            )
        if min(count, test_count, real_count, training_count, fid_count or 2) < 2:
            raise RunError("GenerationScores: the counts must be at least 2.")
        if min(count, test_count, real_count) <= neighbors:
            raise RunError(
                f"GenerationScores: neighbors is {neighbors}; count, test_count and real_count must be larger."
            )
        self.extractor_name = extractor
        self.every_n_epochs = every_n_epochs
        self.count = count
        self.test_count = test_count
        self.real_count = real_count
        self.batch_size = batch_size
        self.seed = seed
        self.training_count = training_count
        self.neighbors = neighbors
        self.compare_with = compare_with
        self.fid_count = fid_count
        self.inception_splits = inception_splits
        self._extractor: Any = None
        self._references: dict[str, Reference] = {}

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        if stage not in ("fit", "validate", "test"):
            return
        if not isinstance(pl_module, Generative):
            raise RunError(
                f"GenerationScores measures models that make images, which {type(pl_module).__name__} doesn't."
            )
        if not isinstance(data_of(trainer), ImageDataModule):
            raise RunError("GenerationScores needs a data module of datamodules/ to compare generated images with.")
        self._references = {}
        if stage != "fit" or trainer.enable_validation:
            self._require_neighbors(trainer, "test" if stage == "test" else "val")
        try:
            self._extractor = load_extractor(self.extractor_name).to(trainer.strategy.root_device)
        except ExtractorUnavailableError as error:
            warnings.warn(f"{error}; the run goes on without scores.", RunWarning, stacklevel=1)
            return
        # Images of channels that the extractor can't take are refused here, before any training.
        if all(shape := require_image_data(self, trainer).image_shape):
            self._extractor(torch.zeros(1, *shape, device=trainer.strategy.root_device))

    def on_validation_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        epoch = trainer.current_epoch + 1
        due = epoch in (1, trainer.max_epochs) or epoch % self.every_n_epochs == 0
        if self._extractor is not None and not trainer.sanity_checking and due:
            count = FAST_DEV_RUN_IMAGES if is_trial(trainer) else self.count
            scores, _ = self._measure(trainer, pl_module, count, "val")
            _log(pl_module, scores, "val", prog_bar=True)

    def on_test_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if self._extractor is None:
            return
        scores, confusion = self._measure(trainer, pl_module, self.test_count, "test")
        scores |= self._limits(trainer, self._references["test"])
        _log(pl_module, scores, "test")
        if not trainer.is_global_zero:
            return
        run = Path(trainer.default_root_dir)
        text = json.dumps({"extractor": self.extractor_name, "features": self._extractor.features, **scores}, indent=2)
        write_atomically(run / "scores.json", f"{text}\n")
        print(f"Scores by the extractor {self.extractor_name!r} ({self._extractor.features}), also in scores.json:")
        if confusion is not None:
            names = require_image_data(self, trainer).class_names or tuple(map(str, range(len(confusion))))
            path = run / "figures" / "label_accuracy.csv"
            path.parent.mkdir(parents=True, exist_ok=True)
            write_class_accuracy(confusion, names, path)
            picture = path.with_suffix(".png")
            draw_class_accuracy(confusion, names, picture, "generated images judged to be of the class asked for / %")
            log_figure(trainer, picture)
            log_table(trainer, path)

    def _measure(
        self, trainer: Trainer, pl_module: LightningModule, count: int, stage: str
    ) -> tuple[dict[str, float], Tensor | None]:
        """All scores of ``count`` generated images; and the confusion counts of asked and judged classes, if known."""
        new = stage not in self._references
        reference = self._references[stage] if not new else self._reference(trainer, stage)
        self._references[stage] = reference
        classes, model = classes_of(pl_module), require_ability(self, pl_module, Generative)
        labels = torch.arange(count) % classes if classes else None

        def generate(batch: int) -> Tensor:
            first = batch * self.batch_size
            part = None if labels is None else labels[first : first + self.batch_size].to(pl_module.device)
            size = min(self.batch_size, count - first)
            generator = torch.Generator().manual_seed(self.seed * 1_000_003 + batch)
            with trainer.precision_plugin.forward_context():
                return model.sample(size, part, generator)

        generated = self._features(trainer, count, generate, "generated images")
        known = require_image_data(self, trainer).num_classes == classes
        scores = self._scores(reference, generated, labels if known else None)
        scores["memorized"] = memorized_share(
            training_distance(generated.embedding, reference.training.embedding), reference.held_out
        )
        scores |= {"real_images": float(len(reference.real.embedding)), "generated_images": float(count)}
        if new:
            self._calibrate(trainer, reference, count, stage)
        if labels is None or generated.logits.shape[1] != classes:
            return scores, None
        confusion = confusion_counts(generated.logits, labels)
        return scores | {"label_accuracy": float(confusion.diagonal().sum()) / count}, confusion

    def _scores(self, reference: Reference, generated: Features, labels: Tensor | None) -> dict[str, float]:
        """The scores that need no training images. A score that has no value is left out."""
        real = reference.real.embedding
        scores = precision_recall_density_coverage(real, generated.embedding, self.neighbors)
        parts = [inception_score(part) for part in generated.logits.chunk(self.inception_splits)]
        first = generated.embedding[: self.fid_count]
        scores |= {
            "fid": frechet_distance(real, first),
            "kid": kernel_distance(real, first, self.seed),
            "inception_score": statistics.mean(parts),
        }
        if len(parts) > 1:
            scores["inception_score_sd"] = statistics.stdev(parts)
        if labels is not None and reference.real_label is not None:
            classes = int(labels.max()) + 1
            spread = spread_share(real, reference.real_label, generated.embedding, labels, classes)
            if spread is not None:
                scores["spread"] = spread
        return scores

    def _calibrate(self, trainer: Trainer, reference: Reference, count: int, stage: str) -> None:
        """Writes down what other real images score, and ten training images repeated."""
        if not trainer.is_global_zero:
            return
        label, other = reference.training_label, reference.other
        rows = {"other real images": other[:count]}
        if len(other) >= 10:
            ten = (other if label is None else other[_classes_in_turn(label[other])])[:10]
            rows["ten training images repeated"] = ten.repeat(-(-count // 10))[:count]
        calibration = {}
        for name, chosen in rows.items():
            features = Features(*(column[chosen] for column in reference.training))
            if len(chosen) <= self.neighbors:
                continue
            scores = self._scores(reference, features, None if label is None else label[chosen])
            # Other real images are training images here; what held-out ones score stands for them.
            memory = reference.held_out if name == "other real images" else torch.zeros(len(chosen))
            scores["memorized"] = memorized_share(memory, reference.held_out)
            calibration[name] = scores | {"generated_images": float(len(chosen))}
        folder = Path(trainer.default_root_dir)
        folder.mkdir(parents=True, exist_ok=True)
        judge = read_judge(folder)
        judge[stage] = {
            "extractor": self.extractor_name,
            "features": self._extractor.features,
            "classifier": self._extractor.classifier_name,
            "data": type(data_of(trainer)).__name__,
            "real_images": len(reference.real.embedding),
            "generated_images": count,
            "calibration": calibration,
        }
        write_atomically(folder / JUDGE, json.dumps(judge, indent=2) + "\n")

    def _limits(self, trainer: Trainer, reference: Reference) -> dict[str, float]:
        """What FID is at best and at worst, and the Inception Score of real images."""
        shape = require_image_data(self, trainer).image_shape
        count = min(self.test_count, NOISE_IMAGES)

        def noise(batch: int) -> Tensor:
            size = min(self.batch_size, count - batch * self.batch_size)
            return torch.rand(size, *shape, generator=torch.Generator().manual_seed(batch))

        random = self._features(trainer, count, noise, "noise").embedding
        other = reference.training.embedding[reference.other[: self.test_count]]
        return {
            "fid_floor": frechet_distance(reference.real.embedding, other),
            "fid_floor_images": float(len(other)),
            "fid_noise": frechet_distance(reference.real.embedding, random),
            "inception_score_real": inception_score(reference.real.logits),
        }

    def _reference(self, trainer: Trainer, stage: str) -> Reference:
        """The real images of a stage."""
        datamodule = require_image_data(self, trainer)
        fast = is_trial(trainer)
        images, split = _compared(datamodule, stage)
        count = FAST_DEV_RUN_IMAGES if fast else self.training_count
        training, training_label = self._dataset_features(trainer, datamodule.train_set, count, "training images")
        count = FAST_DEV_RUN_IMAGES if fast else self.real_count
        real, real_label = self._dataset_features(trainer, images, count, f"{split} images")
        held_out = training_distance(real.embedding, training.embedding)
        other = torch.arange(len(training.embedding))
        if self.compare_with == "training":
            half = other[stage == "test" :: 2][:count]
            other = other[stage == "val" :: 2]
            real = Features(*(column[half] for column in training))
            real_label = None if training_label is None else training_label[half]
        return Reference(real, real_label, training, training_label, other, held_out)

    def _require_neighbors(self, trainer: Trainer, stage: str) -> None:
        """Refuses, before any training, more neighbors than there are real images to compare with; without any held-out
        image there is no epoch to score."""
        datamodule = require_image_data(self, trainer)
        images, split = _compared(datamodule, stage)
        if not len(images):
            return
        fast = is_trial(trainer)
        size = min(len(images), FAST_DEV_RUN_IMAGES if fast else self.real_count)
        if self.compare_with == "training":
            training = min(len(datamodule.train_set), FAST_DEV_RUN_IMAGES if fast else self.training_count)
            size, split = min(training // 2, self.real_count), "training"
        if size <= self.neighbors:
            are, images_of = ("is", "image") if size == 1 else ("are", "images")
            remedies = ["lower it"] * (size > 1) + ["set compare_with to training"] * (self.compare_with != "training")
            raise RunError(
                f"GenerationScores: neighbors is {self.neighbors}, but there {are} only {size} {split} {images_of} to "
                f"compare with: {', or '.join(remedies) or 'choose data with more images'}."
            )

    def _dataset_features(
        self, trainer: Trainer, images: GatherDataset[LabeledImages], count: int, what: str
    ) -> tuple[Features, Tensor | None]:
        """The features and classes of that many images (of all if there are fewer), drawn at random, always alike."""
        datamodule = require_image_data(self, trainer)
        order = torch.randperm(len(images), generator=torch.Generator().manual_seed(self.seed))[:count]
        parts = order.split(self.batch_size)
        features = self._features(
            trainer,
            len(order),
            lambda batch: datamodule.transform(images.__getitems__(parts[batch]), training=False).image,
            what,
        )
        return features, images.column("label").cpu()[order] if datamodule.num_classes else None

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


def _compared(datamodule: ImageDataModule, stage: str) -> tuple[GatherDataset[LabeledImages], str]:
    """The held-out images of a stage, and the name of their split."""
    return (datamodule.val_set, "validation") if stage == "val" else (datamodule.test_set, "test")


def _classes_in_turn(label: Tensor) -> Tensor:
    """The rows of all images: the first of each class, then the second of each class that has two, and so on."""
    order = label.argsort(stable=True)
    sizes = label.unique(return_counts=True)[1]
    place_in_class = torch.cat([torch.arange(size) for size in sizes.tolist()])
    return order[place_in_class.argsort(stable=True)]


def _log(pl_module: LightningModule, scores: dict[str, float], stage: str, prog_bar: bool = False) -> None:
    for name, value in scores.items():
        pl_module.log(f"{stage}/{name}", value, sync_dist=True, prog_bar=prog_bar and name == "fid")

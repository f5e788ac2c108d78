"""Pictures and scores of image translation, while a model learns and in its test."""

import csv
import json
import math
import warnings
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from torch import Tensor

from datamodules import GatherDataset, ImageDataModule, ImagePair, Maps
from lit_models.callbacks.samples import SampleGrid
from lit_models.errors import RunError, RunWarning
from lit_models.metrics.extractors import ExtractorUnavailableError
from lit_models.metrics.generation import frechet_distance
from lit_models.metrics.image_errors import MAP_COLORS, TranslationMetrics
from lit_models.module import Translating
from lit_models.support.abilities import require_ability, require_image_data
from lit_models.support.checks import facts_of
from lit_models.support.files import write_atomically
from lit_models.support.judge import JUDGE, read_judge
from lit_models.support.lightning_internals import data_of
from lit_models.support.named_extractors import load_extractor
from lit_models.support.ranks import gather_rows


class Triptychs(SampleGrid):
    """Draws source, truth and translation of the same validation pairs after some epochs, a row for each pair.

    Writes ``samples/triptychs_0001.png`` … into the run folder and to W&B, at the same times as
    :class:`lit_models.callbacks.SampleGrid`; after a test ``samples/test_triptychs.png``, of test pairs. For any model
    with ``translate(source)``.

    Args:
        count: Pairs: the first ones of the split; of images that are evaluated in tiles, the first tile of each.
        every_n_epochs: Draw after every so many epochs, too; not if null.
        epochs: Draw after these epochs (from 1) and no others.
        across: Pairs in a row of the picture.
    """

    def __init__(
        self, count: int = 4, every_n_epochs: int | None = None, epochs: list[int] | None = None, across: int = 1
    ) -> None:
        super().__init__(count, columns=3 * across, every_n_epochs=every_n_epochs, epochs=epochs)
        self.pictures_in_a_row = 3 * across

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        require_translator(type(self).__name__, trainer, pl_module)

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if trainer.is_global_zero and self._is_due(trainer.current_epoch + 1, trainer.max_epochs):
            self._draw(trainer, pl_module, require_image_data(self, trainer).val_set, "val")

    def on_test_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if trainer.is_global_zero:
            self._draw(trainer, pl_module, require_image_data(self, trainer).test_set, "test")

    def _draw(self, trainer: Trainer, pl_module: LightningModule, pairs: GatherDataset[ImagePair], split: str) -> None:
        if not len(pairs):
            warnings.warn(f"Triptychs draws nothing: there are no {split} pairs.", RunWarning, stacklevel=1)
            return
        images = self._drawn(trainer, pl_module, pairs)
        if split == "test":
            self._write(trainer, images, self.pictures_in_a_row, "test_triptychs", "test_triptychs")
        else:
            name = f"triptychs_{trainer.current_epoch + 1:04d}"
            self._write(trainer, images, self.pictures_in_a_row, name, "triptychs")

    def _drawn(self, trainer: Trainer, pl_module: LightningModule, pairs: GatherDataset[ImagePair]) -> Tensor:
        """Source, truth, translation, source, …: ``(3 · count, C, H, W)`` in [0, 1]."""
        data = require_image_data(self, trainer)
        # The first tile of each image: its neighbors would look alike.
        rows = torch.arange(0, len(pairs), data.tiles_of_an_image)[: self.count]
        batch = data.transform(pairs.__getitems__(rows), training=False)
        source = trainer.precision_plugin.convert_input(batch.source.to(pl_module.device))
        with trainer.precision_plugin.forward_context():
            translated = require_ability(self, pl_module, Translating).translate(source)
        columns = [batch.source.cpu(), batch.target.cpu(), translated.cpu()]
        channels = max(image.shape[1] for image in columns)  # a gray source of a colored target
        return torch.stack([image.expand(-1, channels, -1, -1) for image in columns], dim=1).flatten(0, 1)


class TranslationScores(Callback):
    """Measures translated images against the true ones by L1, PSNR, SSIM, FID and the colors of the map.

    Logged after each validation: ``val/l1``, ``val/psnr``, ``val/ssim``, ``val/map_accuracy``, and by kind of color
    ``val/map_recall_water``, ``val/map_precision_water`` … (see
    :class:`lit_models.metrics.image_errors.TranslationMetrics`), and ``val/fid`` if there is an extractor: between the
    translations and the true images of this very split, thus biased upwards where it is small. The test logs the same
    below ``test/``, writes them to ``scores.json`` and the counts of pixels by true and painted kind to
    ``figures/map_colors.csv`` in the run folder. What has no value isn't logged (``null`` in ``scores.json``): recall
    or precision of a kind without pixels, and FID of a single pair.

    For any model whose ``validation_step`` and ``test_step`` return the translated images of a batch of pairs. If
    Inception's weights can't be had, relit warns and the run goes on without FID.

    Args:
        extractor: Network whose features FID compares: ``inception``, or a checkpoint of any classifier; no FID if
            null.
        map_colors: Whether the targets are maps, whose colors have a meaning; if null, they are if the data are
            ``Maps`` and the sources are satellite photographs.
    """

    def __init__(self, extractor: str | None = None, map_colors: bool | None = None) -> None:
        self.extractor_name = extractor
        self.map_colors = bool(map_colors)
        self._asked_for_colors = map_colors
        self._extractor: Any = None
        self._metrics = TranslationMetrics(self.map_colors)
        self._features: dict[str, list[Tensor]] = {"real": [], "fake": []}

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        require_translator(type(self).__name__, trainer, pl_module)
        device = trainer.strategy.root_device
        data = data_of(trainer)
        gives_maps = isinstance(data, Maps) and data.direction == "a_to_b"
        self.map_colors = gives_maps if self._asked_for_colors is None else self._asked_for_colors
        if self.map_colors and facts_of(data).target_channels == 1:
            raise RunError(
                "TranslationScores compares the colors of maps, but the targets are gray: set map_colors to false."
            )
        self._metrics = TranslationMetrics(self.map_colors, device)
        if self.extractor_name is None or stage not in ("fit", "validate", "test"):
            return
        try:
            self._extractor = load_extractor(self.extractor_name).to(device)
        except ExtractorUnavailableError as error:
            warnings.warn(f"{error}; the run goes on without FID.", RunWarning, stacklevel=1)

    def on_validation_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._metrics.reset()
        self._features = {"real": [], "fake": []}

    def on_test_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self.on_validation_epoch_start(trainer, pl_module)

    def on_validation_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        self._metrics.update(outputs, batch.target)
        if self._extractor is not None:
            for kind, images in (("real", batch.target), ("fake", outputs)):
                self._features[kind].append(self._extractor(images.float()).embedding.float().cpu())

    def on_test_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        self.on_validation_batch_end(trainer, pl_module, outputs, batch, batch_idx)

    def on_validation_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if not trainer.sanity_checking:
            self._log(pl_module, self._scores(trainer), "val")
            self._note_features(trainer, "val")

    def on_test_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        scores = self._scores(trainer)
        self._log(pl_module, scores, "test")
        self._note_features(trainer, "test")
        confusion = self._metrics.confusion().tolist() if self.map_colors else None
        if not trainer.is_global_zero:
            return
        run = Path(trainer.default_root_dir)
        run.mkdir(parents=True, exist_ok=True)
        known = {name: value if math.isfinite(value) else None for name, value in scores.items()}
        text = json.dumps({"extractor": self.extractor_name, **known}, indent=2)
        write_atomically(run / "scores.json", f"{text}\n")
        if confusion is not None:
            path = run / "figures" / "map_colors.csv"
            path.parent.mkdir(parents=True, exist_ok=True)
            with path.open("w", newline="", encoding="utf-8") as file:
                writer = csv.writer(file)
                writer.writerow(["true", *(f"painted {kind}" for kind in MAP_COLORS)])
                writer.writerows([kind, *row] for kind, row in zip(MAP_COLORS, confusion, strict=True))

    def _note_features(self, trainer: Trainer, stage: str) -> None:
        """Keeps the name of the features that FID goes over, which tables print."""
        if self._extractor is None or not trainer.is_global_zero:
            return
        folder = Path(trainer.default_root_dir)
        judge = read_judge(folder)
        if judge.get(stage, {}).get("features") != self._extractor.features:
            folder.mkdir(parents=True, exist_ok=True)
            judge[stage] = {"extractor": self.extractor_name, "features": self._extractor.features}
            write_atomically(folder / JUDGE, json.dumps(judge, indent=2) + "\n")

    def _scores(self, trainer: Trainer) -> dict[str, float]:
        scores = self._metrics.compute()
        if self._extractor is not None:
            real, fake = (gather_rows(trainer, torch.cat(self._features[kind])) for kind in ("real", "fake"))
            if len(real) > 1:
                scores["fid"] = frechet_distance(real, fake)
        return scores

    def _log(self, pl_module: LightningModule, scores: dict[str, float], stage: str) -> None:
        for name, value in scores.items():
            if not math.isnan(value):  # recall of a kind of pixels that no image has
                pl_module.log(f"{stage}/{name}", value, sync_dist=True, prog_bar=stage == "val" and name == "l1")


def require_translator(callback: str, trainer: Trainer, pl_module: LightningModule) -> None:
    """Refuses models that don't translate images, and data that aren't pairs of them.

    Raises:
        RunError: They aren't.
    """
    if not isinstance(pl_module, Translating):
        raise RunError(f"{callback} is for models that translate images, which {type(pl_module).__name__} doesn't.")
    if trainer.state.fn != "predict" and not isinstance(data_of(trainer), ImageDataModule):
        raise RunError(f"{callback} needs a data module of datamodules/ that gives pairs, such as PairedFolder.")

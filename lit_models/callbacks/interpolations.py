"""Figures of the way from one test image to another through a model's latent space."""

import csv
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple, get_args

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from torch import Tensor, nn
from torchvision.utils import make_grid, save_image

from lit_models.errors import RunError
from lit_models.module import Interpolating
from lit_models.support import interpolation
from lit_models.support.abilities import require_ability
from lit_models.support.logging import log_figure
from lit_models.support.ranks import gather

WAYS: tuple[interpolation.Path, ...] = get_args(interpolation.Path)


class Interpolations(Callback):
    """Draws after a test what lies between test images, for any model with ``interpolate(start, end, steps, path)``.

    Writes ``figures/interpolation_lerp.png`` and ``interpolation_slerp.png`` (and to W&B): a row for each pair of
    images, the first and the last column as the model reconstructs them.

    For digits, numbers come with it, in ``figures/interpolation.csv`` and logged: the share of the images in between of
    which relit's digit classifier is sure, ``test/sure_between_lerp`` and ``…_slerp``, and the share of which it is
    sure that they show one of the pair's two digits, ``test/sure_of_either_lerp`` and ``…_slerp``. The pairs are of any
    two classes. The first share alone can mislead: a network that was trained on digits alone may take a blot for one.
    A row for faded pixels has the values without any model. On data whose real images the classifier doesn't recognize,
    relit warns and logs no shares.

    Args:
        steps: Images in a row, with both ends.
        shown: Pairs of classes to draw; if null, each class with the next (0 and 1, 2 and 3 …). Images without classes
            (or of one) are paired with the next image.
        per_pair: Image pairs of each two classes for the number.
        sure_above: Probability above which the digit classifier counts as sure; null for data that aren't digits.
    """

    def __init__(
        self,
        steps: int = 10,
        shown: list[tuple[int, int]] | None = None,
        per_pair: int = 4,
        sure_above: float | None = 0.9,
    ) -> None:
        if steps < 3 or per_pair < 1:
            raise RunError("Interpolations: steps must be at least 3 and per_pair at least 1.")
        if sure_above is not None and not 0 < sure_above < 1:
            raise RunError(f"Interpolations: sure_above is {sure_above}; it must lie between 0 and 1, or be null.")
        self.steps = steps
        self.shown = shown
        self.per_pair = per_pair
        self.sure_above = sure_above
        self._image: Tensor | None = None
        self._label: Tensor | None = None

    def on_test_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._image = None

    def on_test_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        if batch_idx == 0:
            self._image, self._label = batch.image, batch.label

    def on_test_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if self._image is None or self._label is None:
            return
        image, label = self._image, self._label
        start, end = paired_rows(label, self.per_pair)
        if not len(start):
            raise RunError("Interpolations needs at least two images in the first test batch.")
        model = require_ability(self, pl_module, Interpolating)
        drawn = shown_rows(label[start], label[end], self.shown)
        folder = Path(trainer.default_root_dir) / "figures"
        sure_above = self.sure_above or 1.0
        judge = None if self.sure_above is None else recognizing_classifier(trainer, image, label)
        shares: dict[str, Sureness] = {}
        for path in WAYS:
            images = model.interpolate(image[start], image[end], self.steps, path)
            if trainer.is_global_zero:
                name = f"interpolation_{path}"
                folder.mkdir(parents=True, exist_ok=True)
                save_image(make_grid(images[drawn].float().cpu().flatten(0, 1), self.steps), folder / f"{name}.png")
                log_figure(trainer, folder / f"{name}.png")
            if judge is not None:
                shares[path] = share_sure(images, label[start], label[end], judge, sure_above)
        if judge is not None:
            # Under DDP each process has its own share of the test images, and so its own pairs.
            for name, share in shares.items():
                values = {f"test/sure_between_{name}": share.between, f"test/sure_of_either_{name}": share.of_either}
                pl_module.log_dict(values, sync_dist=True)
            faded = pixel_interpolation(image[start], image[end], self.steps)
            shares["pixels"] = share_sure(faded, label[start], label[end], judge, sure_above)
            if trainer.is_global_zero:
                write_shares(shares, self.steps, len(start), sure_above, folder / "interpolation.csv")


def paired_rows(label: Tensor, per_pair: int) -> tuple[Tensor, Tensor]:
    """The rows of the images to go from, and of those to go to.

    For every two classes a < b, the first ``per_pair`` images of both (fewer if there aren't so many). If there is only
    one class, each image with an even number and the next, up to ``per_pair`` pairs.
    """
    rows = [(label == one).nonzero()[:per_pair, 0] for one in label.unique()]
    if len(rows) == 1:
        even = torch.arange(0, len(label) - 1, 2, device=label.device)[:per_pair]
        return even, even + 1
    pairs = [(a, b) for number, a in enumerate(rows) for b in rows[number + 1 :]]
    sizes = [min(len(a), len(b)) for a, b in pairs]
    return tuple(torch.cat([pair[end][:size] for pair, size in zip(pairs, sizes, strict=True)]) for end in (0, 1))  # type: ignore[return-value]


def shown_rows(start: Tensor, end: Tensor, shown: Sequence[tuple[int, int]] | None) -> list[int]:
    """Which of the pairs of classes ``(P,)`` to draw: the first of each pair of classes that is to be shown."""
    classes = list(zip(start.tolist(), end.tolist(), strict=True))
    if classes[0][0] == classes[0][1]:
        return list(range(len(classes)))
    wanted = [(one, one + 1) for one in range(0, 10, 2)] if shown is None else [tuple(sorted(pair)) for pair in shown]
    found = [classes.index(pair) for pair in wanted if pair in classes]
    return found or [0]


def the_digit_classifier(image: Tensor) -> nn.Module:
    """relit's classifier of digits, on the images' device.

    Raises:
        RunError: It can't judge images of this shape.
    """
    from lit_models.metrics.extractors import digit_classifier

    if tuple(image.shape[1:]) != (1, 32, 32):
        raise RunError(
            "The digit classifier judges images of 1x32x32: set the callback's sure_above to null for other data."
        )
    return digit_classifier().to(image.device)


def recognizing_classifier(trainer: Trainer, image: Tensor, label: Tensor) -> nn.Module | None:
    """The digit classifier, or None, with a warning, if it is wrong about more than a tenth of these real images."""
    classifier = the_digit_classifier(image)
    logits = torch.cat([classifier(part.float()) for part in image.split(500)])
    shares = gather(trainer, (logits.argmax(1) == label).float().mean().item())
    right = sum(shares) / len(shares)  # all ranks must come to the same decision
    if right >= 0.9:
        return classifier
    warnings.warn(
        f"The digit classifier recognizes only {100 * right:.0f} % of these test images, so that it can't judge what "
        "lies between them: no share of sure images is computed.",
        stacklevel=1,
    )
    return None


class Sureness(NamedTuple):
    """How many of the images between both ends a classifier is sure of, scalars.

    Attributes:
        between: The share of which it is sure, whatever they show.
        of_either: The share of which it is sure that they show one of the ends' classes.
    """

    between: Tensor
    of_either: Tensor


@torch.no_grad()
def share_sure(images: Tensor, start: Tensor, end: Tensor, classifier: nn.Module, sure_above: float) -> Sureness:
    """The shares of the images between both ends of which a classifier is sure.

    Args:
        images: ``(P, steps, C, H, W)``.
        start: Class of the one end, ``(P,)``.
        end: Class of the other, ``(P,)``.
        classifier: From ``(N, C, H, W)`` to logits.
        sure_above: Probability above which it counts as sure.
    """
    between = images[:, 1:-1].flatten(0, 1).float()
    probability = torch.cat([classifier(part).softmax(1) for part in between.split(500)])
    highest, taken_for = (column.unflatten(0, (len(images), -1)) for column in probability.max(1))
    sure = highest > sure_above
    either = (taken_for == start[:, None]) | (taken_for == end[:, None])
    return Sureness(sure.float().mean(), (sure & either).float().mean())


def write_shares(shares: dict[str, Sureness], steps: int, pairs: int, sure_above: float, path: Path) -> None:
    """A row for each way, with how many images were judged."""
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["path", "images", "sure_above", "share_sure", "share_sure_of_either"])
        for name, share in shares.items():
            writer.writerow([name, pairs * (steps - 2), sure_above, *(f"{float(value):.4f}" for value in share)])


def pixel_interpolation(start: Tensor, end: Tensor, steps: int) -> Tensor:
    """One image faded into the other, ``(N, steps, C, H, W)``: what a latent space has to beat."""
    return interpolation.between(start.flatten(1), end.flatten(1), steps, "lerp").unflatten(2, start.shape[1:])

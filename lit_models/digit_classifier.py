"""A small convolutional classifier of digits, which judges what the generative models make.

The network (:class:`lit_models.networks.convnet.ConvNet`) is trained by cross-entropy and Adam under a one-cycle
schedule (Smith & Topin 2019, arXiv:1708.07120).

Its weights for MNIST come with relit (:func:`lit_models.metrics.extractors.digit_classifier`): scores over a network
that was trained on digits mean more for generated digits than scores over one trained on ImageNet's photographs.
"""

from collections.abc import Sequence
from typing import Any

from lightning.pytorch.cli import OptimizerCallable
from torch import Tensor
from torch.nn import functional
from torch.optim.lr_scheduler import OneCycleLR

from datamodules import ImageDataModule, LabeledImages
from lit_models.errors import ModelError
from lit_models.losses.precision import at_least_float32
from lit_models.networks.convnet import ConvNet
from lit_models.optimizers import FusedAdam
from lit_models.support.checks import require_fraction
from lit_models.support.classes import CLASSIFIER, Classifier


class DigitClassifier(Classifier):
    """The classifier that judges generated digits; it learns any small gray or color images, too.

    Logged: ``train/loss`` (each batch's value); ``val/loss``, ``val/accuracy``, ``test/loss``, ``test/accuracy``
    (means over all images).

    Args:
        image_size: Height and width of the images.
        channels: Channels of the images.
        num_classes: Number of classes.
        widths: Feature maps of each block, which halves the size; the last is the size of the embedding.
        max_lr: The highest learning rate of the one-cycle schedule.
        label_smoothing: Share of the label that is spread over all classes (Szegedy et al. 2016, section 7).
        optimizer: Optimizer of all parameters; its learning rate is the schedule's.
    """

    exports = CLASSIFIER

    def __init__(
        self,
        image_size: int = 32,
        channels: int = 1,
        num_classes: int = 10,
        widths: Sequence[int] = (16, 32, 64),
        max_lr: float = 1e-2,
        label_smoothing: float = 0.0,
        optimizer: OptimizerCallable = FusedAdam,
    ) -> None:
        super().__init__()
        if not widths or min(widths) < 1:
            raise ModelError(f"widths is {list(widths)}; it must name at least one block of at least one feature map.")
        if image_size < 2 ** len(widths):
            raise ModelError(
                f"image_size is {image_size}, which can't be halved {len(widths)} times: shorten --model.widths."
            )
        require_fraction(label_smoothing=label_smoothing)
        if not max_lr > 0:
            raise ModelError(f"max_lr is {max_lr}; it must be positive.")
        widths = list(widths)
        self.save_hyperparameters(ignore=["optimizer"])
        self.image_shape = (channels, image_size, image_size)
        self.num_classes = num_classes
        self.max_lr = max_lr
        self.label_smoothing = label_smoothing
        self.optimizer_callable = optimizer
        self.network = ConvNet(channels, num_classes, widths)

    def setup(self, stage: str) -> None:
        super().setup(stage)
        if stage == "fit" and (self.trainer.max_epochs or -1) < 1:
            raise ModelError("A one-cycle schedule needs to know its end: set --trainer.max_epochs.")

    def forward(self, image: Tensor) -> Tensor:
        """Logits ``(N, num_classes)``, in float32, of images ``(N, C, H, W)`` in [0, 1]."""
        return at_least_float32(self.network(image))

    def embed(self, image: Tensor) -> Tensor:
        """The embedding ``(N, widths[-1])`` of images ``(N, C, H, W)`` in [0, 1]."""
        return self.network.embed(image)

    def training_step(self, batch: LabeledImages, batch_idx: int) -> Tensor:
        loss = functional.cross_entropy(self(batch.image), batch.label, label_smoothing=self.label_smoothing)
        self.log("train/loss", loss.detach(), prog_bar=True)
        return loss

    def configure_optimizers(self) -> Any:
        optimizer = self.optimizer_callable(self.parameters())
        # Not the trainer's `estimated_stepping_batches`, which makes the loader too early for its place to be restored.
        if isinstance(self.data, ImageDataModule) and self.trainer.max_epochs is not None:
            steps = self.trainer.max_epochs * len(self.data.train_batches())
        else:
            steps = int(self.trainer.estimated_stepping_batches)
        schedule = OneCycleLR(optimizer, self.max_lr, total_steps=steps)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}

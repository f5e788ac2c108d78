"""A classifier from a handful of labels, on top of an autoencoder that was trained on images without labels.

The encoder f of a trained autoencoder (:mod:`lit_models.autoencoder` or :mod:`lit_models.vae`) turns an image x into a
code; a head h turns the code into classes, p(y|x) = softmax(h(f(x))), and learns by the cross-entropy −log p(y|x). The
encoder stays as it is ("frozen") or learns on with the head.

**When to stop** must not depend on the test images, and with so few labels there are none to spare for a validation
split either. So the labeled images are split into K folds (:class:`datamodules.FewLabels`), and K + 1 models learn at
once from the same batches: one from all images, and for each fold one from all images but that fold's. Each of the K is
measured on the fold that it hasn't seen, which gives the cross-validated loss and accuracy of all labeled images,
``val/loss`` and ``val/accuracy``. Early stopping and ``best.ckpt`` go by ``val/loss``; the model of all images is the
classifier. No model affects another: none shares a parameter with another that learns, and Adam treats each parameter
by itself.
"""

from collections.abc import Sequence
from typing import Any, Literal, Self, cast

import torch
from lightning.pytorch.cli import OptimizerCallable
from torch import Tensor, nn
from torch.nn import functional
from torchmetrics import MeanMetric

from datamodules import FoldedImages, LabeledImages
from lit_models.errors import ModelError
from lit_models.losses.precision import at_least_float32
from lit_models.networks.convolutional import Encoder
from lit_models.networks.encoders import build_encoder, load_encoder, require_encoder, train_unless_frozen
from lit_models.networks.heads import classification_head
from lit_models.optimizers import FusedAdam
from lit_models.support.checks import require_fraction
from lit_models.support.classes import CLASSIFIER, Classifier
from lit_models.support.pretrained import StartsFromWeights, load_pretrained, require_fitting_weights
from lit_models.support.ranks import mean_over_ranks


class TransferClassifier(StartsFromWeights, Classifier):
    """A linear layer or a small MLP on the encoder of an autoencoder.

    A checkpoint of it holds the encoder: it needs the autoencoder's file no more.

    Logged: ``train/loss``, ``train/accuracy`` of the classifier (means over an epoch, of augmented images);
    ``val/loss``, ``val/accuracy`` by cross-validation, or on the validation split of a data module without folds;
    ``test/loss``, ``test/accuracy``.

    Args:
        encoder: "autoencoder"; a network without its last layer, ``torchvision:NAME`` or ``timm:NAME`` (extra
            ``relit[timm]``), with the library's normalization; relit's "resnet18" or "conv4"; or ``MODULE.NAME`` of
            a user-defined network (:func:`lit_models.networks.user_network.register_encoder`).
        pretrained: Weights that another encoder than an autoencoder's starts from: "imagenet" for the library's; or a
            file (``.pth``, ``.safetensors``), such as a checkpoint of a ``MetricResNet`` or ``ProtoNet``.
        encoder_checkpoint: Checkpoint of the autoencoder: a file, a run's folder, or an experiment's folder, of which
            the newest run is taken. It is read when training starts. If None, the encoder learns from scratch.
        freeze_encoder: Leave the encoder as it is.
        head: "linear" for one linear layer, "mlp" for one hidden layer of ReLU units with dropout.
        hidden: Units of the MLP's hidden layer.
        dropout: Part of these units that is dropped in training.
        image_size: Height and width of the images.
        channels: Channels of the images.
        num_classes: Number of classes.
        code_dim: Components of the autoencoder's code, its ``latent_dim``.
        feature_maps: Width of the encoder's first layer or stage.
        folds: Folds K of the labeled images; 0 for data with a validation split.
        encoder_lr: Learning rate of an encoder that is trained along.
        optimizer: Optimizer of heads and encoders.
    """

    exports = CLASSIFIER
    trained_for = ("validate", "test", "predict")  # by its heads

    def __init__(
        self,
        encoder_checkpoint: str | None = None,
        freeze_encoder: bool = True,
        head: Literal["linear", "mlp"] = "linear",
        hidden: int = 128,
        dropout: float = 0.5,
        image_size: int = 32,
        channels: int = 1,
        num_classes: int = 10,
        code_dim: int = 64,
        feature_maps: int = 32,
        folds: int = 4,
        encoder_lr: float = 1e-4,
        encoder: str = "autoencoder",
        pretrained: str | None = None,
        optimizer: OptimizerCallable = lambda p: FusedAdam(p, lr=1e-3),
    ) -> None:
        super().__init__()
        require_encoder(encoder, image_size, channels, pretrained, freeze_encoder, others=("autoencoder",))
        require_fitting_weights(encoder, encoder_checkpoint, pretrained, freeze_encoder)
        if folds < 0 or folds == 1:
            raise ModelError(f"folds is {folds}; it must be at least 2, or 0 for data with a validation split.")
        require_fraction(dropout=dropout)
        self.save_hyperparameters(ignore=["optimizer"])
        self.image_shape = (channels, image_size, image_size)
        self.num_classes = num_classes
        self.encoder_checkpoint = encoder_checkpoint
        self.freeze_encoder = freeze_encoder
        self.folds = folds
        self.encoder_lr = encoder_lr
        self.optimizer_callable = optimizer
        self.architecture = {
            "image_size": image_size,
            "channels": channels,
            "code_dim": code_dim,
            "feature_maps": feature_maps,
        }
        # The first head and encoder are the classifier's, the others are the folds'.
        count = 1 if freeze_encoder else folds + 1
        if encoder == "autoencoder":
            encoders: Sequence[Any] = [Encoder(image_size, channels, code_dim, feature_maps) for _ in range(count)]
        else:
            encoders = [
                build_encoder(encoder, image_size, channels, feature_maps, freeze_encoder) for _ in range(count)
            ]
            code_dim = encoders[0].out_features
        self.encoders = nn.ModuleList(encoders)
        self.pretrained = pretrained
        self.heads = nn.ModuleList(
            classification_head(code_dim, head, num_classes, hidden, dropout) for _ in range(folds + 1)
        )
        if freeze_encoder:
            self.encoders.requires_grad_(False)
        self.train_loss, self.train_accuracy = (MeanMetric(nan_strategy="disable") for _ in range(2))

    def train(self, mode: bool = True) -> Self:
        super().train(mode)
        train_unless_frozen(self.encoders, self.freeze_encoder, mode)
        return self

    @property
    def restored_arguments(self) -> tuple[str, ...]:
        return ("encoder_checkpoint", "pretrained")

    def setup(self, stage: str) -> None:
        super().setup(stage)
        given = self.facts.folds
        if stage == "fit" and given != self.folds:
            raise ModelError(
                f"TransferClassifier validates by {self.folds} folds, but {type(self.data).__name__} has {given}: set "
                f"--model.folds {given}."
            )

    def load_starting_weights(self) -> None:
        for encoder in self.encoders:
            if self.pretrained is not None:
                load_encoder(encoder, self.pretrained)
            elif self.encoder_checkpoint is not None:
                load_pretrained(cast(Encoder, encoder), "encoder", self.encoder_checkpoint, **self.architecture)

    def forward(self, image: Tensor) -> Tensor:
        """Logits ``(N, num_classes)`` of images ``(N, C, H, W)`` in [0, 1], by the model of all labeled images."""
        return at_least_float32(self.heads[0](self.embed(image)))

    def embed(self, image: Tensor) -> Tensor:
        """Codes ``(N, code_dim)`` of images ``(N, C, H, W)`` in [0, 1]."""
        self.start_from_weights()
        with torch.set_grad_enabled(torch.is_grad_enabled() and not self.freeze_encoder):
            return at_least_float32(self.encoders[0](image))

    def all_logits(self, image: Tensor) -> Tensor:
        """Logits ``(1 + folds, N, num_classes)`` of the model of all images and those of the folds."""
        if self.freeze_encoder:
            code = self.embed(image)
            return at_least_float32(torch.stack([head(code) for head in self.heads]))
        self.start_from_weights()
        pairs = zip(self.encoders, self.heads, strict=True)
        return at_least_float32(torch.stack([head(encoder(image)) for encoder, head in pairs]))

    def training_step(self, batch: FoldedImages | LabeledImages, batch_idx: int) -> Tensor:
        logits = self.all_logits(batch.image)
        losses = cross_entropies(logits, batch.label)
        self.train_loss.update(losses[0].detach())
        self.train_accuracy.update((logits[0].argmax(1) == batch.label).float())
        if not isinstance(batch, FoldedImages):
            return losses.mean(1).sum()
        learns = self.learns(batch.fold).to(losses.dtype)
        # Each model's mean over its own images, of which the ranks may have different numbers.
        images = mean_over_ranks(learns.sum(1))
        return ((losses * learns).sum(1) / images.clamp(min=1e-6)).sum()

    def on_train_epoch_end(self) -> None:
        self.log_dict({"train/loss": self.train_loss.compute(), "train/accuracy": self.train_accuracy.compute()})
        self.train_loss.reset()
        self.train_accuracy.reset()

    def learns(self, fold: Tensor) -> Tensor:
        """Whether each model learns from each image, ``(1 + folds, N)``: the first from all, those of the folds from
        the images of other folds."""
        model = torch.arange(-1, self.folds, device=fold.device)
        return model[:, None] != fold

    def validation_step(self, batch: FoldedImages | LabeledImages, batch_idx: int) -> None:
        if isinstance(batch, FoldedImages):
            rows = torch.arange(len(batch.label), device=self.device)
            self.log_classification(self.all_logits(batch.image)[1 + batch.fold, rows], batch.label, "val")
        else:
            super().validation_step(batch, batch_idx)

    def configure_optimizers(self) -> Any:
        groups: list[dict[str, Any]] = [{"params": list(self.heads.parameters())}]
        if not self.freeze_encoder:
            groups.append({"params": list(self.encoders.parameters()), "lr": self.encoder_lr})
        return self.optimizer_callable(groups)


def cross_entropies(logits: Tensor, label: Tensor) -> Tensor:
    """−log p(y|x) of each model for each image, ``(M, N)``.

    Args:
        logits: ``(M, N, num_classes)``.
        label: ``(N,)``.
    """
    return functional.cross_entropy(logits.transpose(1, 2), label.expand(len(logits), -1), reduction="none")


def accuracy(logits: Tensor, label: Tensor) -> Tensor:
    """The share of images whose class has the largest logit."""
    return (logits.argmax(1) == label).float().mean()

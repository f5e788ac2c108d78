"""A deep MLP whose layers are trained one by one as autoencoders before the whole is trained as a classifier (Bengio,
Lamblin, Popovici & Larochelle 2007, "Greedy Layer-Wise Training of Deep Networks"; with corrupted inputs: Vincent,
Larochelle, Bengio & Manzagol 2008, "Extracting and Composing Robust Features with Denoising Autoencoders").

With h_0 the image, layer k turns the code of the layer below into h_k = f_k(h_{k−1}) = ReLU(W_k h_{k−1} + b_k).

1. Pretraining, for k = 1, 2, … in turn, while all layers below stay as they are: layer k and a decoder learn to

       minimize  E ‖ W'_k f_k(q(h_{k−1})) + b'_k − h_{k−1} ‖²   over W_k, b_k, W'_k, b'_k.

   q is the identity, or sets a random part of the components to 0 ("masking noise", Vincent et al. 2008, section 2.3).
   With tied weights W'_k is the transpose of W_k.
2. Fine-tuning: all layers and a linear classifier on top of the last learn to minimize the cross-entropy E −log p(y).

What differs from the papers and from code of their authors (``StackedAutoassociatorsNet`` of PLearn):

1. ReLU units, trained by Adam in batches of 128, where the papers have sigmoid units and plain stochastic gradient
   descent; the authors' code takes a step after each image unless told otherwise.
2. The squared error is a mean over components, so one learning rate fits wide and narrow layers. A sigmoid decoder of
   the first layer (``decoder: sigmoid``) is trained by cross-entropy on the pixels in [0, 1]. In the papers all
   decoders are, and the loss is a sum; but codes of ReLU units have no upper bound, so the others are linear here.
3. A decoder starts as the transpose of its layer. The papers' start at random (or are tied).
4. Each image is first brought to mean 0 and variance 1 (Coates, Lee & Ng 2011). On the validation images of
   CIFAR-10 this is worth more than any other choice here.
5. Dropout in fine-tuning (Srivastava et al. 2014), photographs mirrored at random, and, in all configurations but the
   digits', a learning rate of fine-tuning that falls to 0 along half a cosine.
6. All layers are pretrained for the same number of epochs; Vincent et al. choose it, and the learning rates, by
   validation, and the authors' code has a length for each layer. The codes that a layer is pretrained on are of images
   without augmentation.
7. Of Bengio et al. the autoencoders only: neither restricted Boltzmann machines nor layers pretrained with labels.
8. Fine-tuning with few labels repeats them: its steps are as many as with all labels.
9. Masking noise sets each component to 0 with the same probability, one of two ways in the authors' code; Vincent et
   al. set a fixed number of them.
10. Six layers of 1,024 down to 64 units, with PyTorch's initial weights. Vincent et al. have three layers, whose width
    they choose by validation.
11. CIFAR-10, STL-10, and MNIST at 32x32 with 55,000 training images. The papers have MNIST at 28x28; Vincent et al.
    have variants of it and images of shapes, most with 10,000 training images.
12. Fine-tuning has a fixed length, and the epoch of the highest validation accuracy is tested. The papers stop by
    validation error.
"""

import math
from collections.abc import Sequence
from typing import Any, Literal, cast

import torch
from lightning.pytorch.cli import OptimizerCallable
from lightning.pytorch.core.optimizer import LightningOptimizer
from lightning.pytorch.trainer.states import TrainerFn
from torch import Tensor, nn
from torch.nn import functional
from torch.optim.lr_scheduler import LambdaLR
from torchmetrics import MeanMetric

from datamodules import Codes, LabeledImages
from lit_models.errors import ModelError
from lit_models.losses.precision import at_least_float32
from lit_models.networks.mlp import MLP, Decoder
from lit_models.optimizers import FusedAdam
from lit_models.support.checks import require_at_least, require_fraction
from lit_models.support.classes import CLASSIFIER, Classifier
from lit_models.support.lightning_internals import is_attached, optimizers_of, step_schedules
from lit_models.support.phase_data import (
    PhaseData,
    require_epochs_of_phases,
    require_labeled_fraction,
    require_same_pretraining,
)


class LayerwiseMLP(Classifier):
    """An MLP classifier with greedy layer-wise pretraining (Bengio et al. 2007; denoising: Vincent et al. 2008).

    One run goes through all phases: ``pretrain_epochs`` for each layer from the first to the last, then
    ``finetune_epochs``; ``trainer.max_epochs`` is their sum unless a smaller one is given, to stop early.

    A layer is pretrained on codes that are computed once, when its phase begins, from the images without augmentation.
    They are held on the accelerator if they take at most a quarter of its free memory, in main memory up to 2 GiB, and
    beyond that in a temporary file in the run folder; under DDP each process has all of them.

    Pretraining learns from all training images, with labels or without (label −1). Fine-tuning learns from those with
    labels, or ``labeled_fraction`` of each class, drawn by the run's seed. It has as many steps an epoch as pretraining
    and repeats these images, so the number of steps doesn't depend on the number of labels.

    Logged: ``train/layer1_reconstruction_loss`` … and ``val/…`` in pretraining (validation has no masking noise), then
    ``loss`` and ``accuracy`` below ``train/``, ``val/`` and ``test/``.

    Args:
        image_size: Height and width of the images.
        channels: Channels of the images: 1 for gray, 3 for color.
        num_classes: Number of classes.
        widths: Units of each layer, from the image upwards.
        code_layer: The layer (from 1) whose output is what ``embed`` returns.
        pretrain_epochs: Epochs of pretraining for each layer; 0 to train the classifier from scratch.
        finetune_epochs: Epochs of training the whole classifier.
        decoder: Decoder of the first layer: "linear", or "sigmoid" with cross-entropy on the pixels.
        tied_weights: Decode each layer with the transpose of its own weights.
        mask_fraction: Part of each code that is set to 0 before it is encoded in pretraining (the denoising
            autoencoder; the paper tries 0, 0.1, 0.25 and 0.4).
        dropout: Part of the units of each layer that is dropped in fine-tuning.
        contrast_normalization: Bring each image to mean 0 and variance 1 first.
        cache_codes: Pretrain on cached codes; if false, the layers below run again for each batch, on images that are
            augmented.
        labeled_fraction: Share of each class's labels that fine-tuning learns from.
        pretrain_optimizer: Optimizer of a layer and its decoder in pretraining.
        finetune_optimizer: Optimizer of the classifier in fine-tuning.
        finetune_schedule: The learning rate of fine-tuning: "constant", or "cosine" for one that falls to 0 along half
            a cosine.
    """

    exports = CLASSIFIER
    learns_unlabeled = True  # in pretraining
    needs_find_unused_parameters = True  # each phase reaches its own parameters only
    later_metrics = ("train/loss", "train/accuracy", "val/loss", "val/accuracy")  # in fine-tuning only

    def __init__(
        self,
        image_size: int = 96,
        channels: int = 3,
        num_classes: int = 10,
        widths: Sequence[int] = (1024, 1000, 500, 256, 128, 64),
        code_layer: int = 4,
        pretrain_epochs: int = 10,
        finetune_epochs: int = 20,
        decoder: Literal["linear", "sigmoid"] = "linear",
        tied_weights: bool = False,
        mask_fraction: float = 0.0,
        dropout: float = 0.2,
        contrast_normalization: bool = True,
        cache_codes: bool = True,
        labeled_fraction: float = 1.0,
        pretrain_optimizer: OptimizerCallable = lambda p: FusedAdam(p, lr=1e-3),
        finetune_optimizer: OptimizerCallable = lambda p: FusedAdam(p, lr=1e-3),
        finetune_schedule: Literal["constant", "cosine"] = "constant",
    ) -> None:
        if not widths or min(widths) < 1:
            raise ModelError(f"widths is {list(widths)}; it must name at least one layer, each of at least 1 unit.")
        if not 1 <= code_layer <= len(widths):
            raise ModelError(
                f"code_layer is {code_layer}, but widths names {len(widths)} layers: set it to one of 1 to "
                f"{len(widths)}, or add layers."
            )
        require_at_least(1, image_size=image_size, channels=channels, finetune_epochs=finetune_epochs)
        require_at_least(2, num_classes=num_classes)
        require_at_least(0, pretrain_epochs=pretrain_epochs)
        require_fraction(mask_fraction=mask_fraction, dropout=dropout)
        if not 0 < labeled_fraction <= 1:
            raise ModelError(f"labeled_fraction is {labeled_fraction}; it must be greater than 0 and at most 1.")
        super().__init__()
        self.save_hyperparameters(ignore=["pretrain_optimizer", "finetune_optimizer"])
        self.automatic_optimization = False
        self.image_shape = (channels, image_size, image_size)
        self.num_classes = num_classes
        self.widths = tuple(widths)
        self.code_layer = code_layer
        self.pretrain_epochs = pretrain_epochs
        self.finetune_epochs = finetune_epochs
        self.decoder = decoder
        self.mask_fraction = mask_fraction
        self.cache_codes, self.labeled_fraction = cache_codes, labeled_fraction
        self.optimizer_callables = (pretrain_optimizer, finetune_optimizer)
        self.finetune_schedule = finetune_schedule
        self.mlp = MLP(channels * image_size**2, widths, num_classes, dropout, contrast_normalization)
        self.decoders = nn.ModuleList(
            Decoder(cast(nn.Linear, layer), tied_weights) for layer in self.mlp.layers if pretrain_epochs
        )
        self.train_accuracy = MeanMetric(nan_strategy="disable")
        self.phase_data = PhaseData(self)

    def forward(self, image: Tensor) -> Tensor:
        """Logits ``(N, num_classes)`` of images ``(N, C, H, W)`` in [0, 1]."""
        return self.mlp(image)

    def embed(self, image: Tensor) -> Tensor:
        """The codes ``(N, widths[code_layer - 1])`` of images ``(N, C, H, W)`` in [0, 1], without dropout."""
        return self.mlp.encode(image, self.code_layer)

    # --- what each epoch trains ---------------------------------------------------------------------------------------

    @property
    def planned_epochs(self) -> int:
        """Epochs of all phases together."""
        return len(self.widths) * self.pretrain_epochs + self.finetune_epochs

    def layer_at(self, epoch: int) -> int | None:
        """The layer (from 1) that is pretrained in an epoch (from 0), or None if the classifier is fine-tuned."""
        pretraining = epoch < len(self.widths) * self.pretrain_epochs
        return epoch // self.pretrain_epochs + 1 if pretraining else None

    def setup(self, stage: str) -> None:
        super().setup(stage)
        if stage == "fit":
            require_labeled_fraction(self, self.labeled_fraction)
            require_epochs_of_phases(self)

    @property
    def phase(self) -> str:
        """What the current epoch trains, for the progress bar."""
        layer = self.layer_at(self.current_epoch)
        return "fine-tuning" if layer is None else f"pretraining layer {layer} of {len(self.widths)}"

    def on_fit_start(self) -> None:
        self.phase_data = PhaseData(self)

    def on_train_start(self) -> None:
        self._start_epoch()  # a run that is resumed within an epoch gets no on_train_epoch_start

    def on_train_epoch_start(self) -> None:
        self._start_epoch()

    def _start_epoch(self) -> None:
        layer = self.layer_at(self.current_epoch)
        current = self._optimizer(layer)
        for optimizer in optimizers_of(self):
            if optimizer is not current:
                optimizer.state.clear()  # the moments of a phase that is over need no place in memory or checkpoints
        self.phase_data.give("train", self.trainer.train_dataloader, layer)

    def training_step(self, batch: LabeledImages | Codes, batch_idx: int) -> None:
        layer = self.layer_at(self.current_epoch)
        if layer is None:
            images = cast(LabeledImages, batch)
            logits = at_least_float32(self(images.image))
            loss = functional.cross_entropy(logits, images.label)
            self.log("train/loss", loss.detach())
            self.train_accuracy.update((logits.argmax(1) == images.label).float())
        else:
            loss = self.reconstruction_loss(batch, layer)
            self.log(f"train/layer{layer}_reconstruction_loss", loss.detach())
        self.log("loss", loss.detach(), prog_bar=True, logger=False)
        optimizer = self._optimizer(layer)
        optimizer.zero_grad()
        self.manual_backward(loss)
        optimizer.step()

    def on_train_epoch_end(self) -> None:
        if self.layer_at(self.current_epoch) is not None:
            return
        self.log("train/accuracy", self.train_accuracy.compute())
        self.train_accuracy.reset()
        step_schedules(self)

    def reconstruction_loss(self, batch: LabeledImages | Codes, layer: int) -> Tensor:
        """The loss of a layer (from 1) as an autoencoder; in training, of corrupted inputs.

        Args:
            batch: Codes of the layer below, or images, of which they are computed.
            layer: The layer.

        Returns:
            The mean over components and images, a scalar.
        """
        if isinstance(batch, Codes):
            code = batch.code
        else:
            with torch.no_grad():
                code = self.mlp.encode(batch.image, layer - 1)
        corrupted = mask(code, self.mask_fraction) if self.training else code
        encoder = cast(nn.Linear, self.mlp.layers[layer - 1])
        reconstruction = at_least_float32(self.decoders[layer - 1](functional.relu(encoder(corrupted)), encoder))
        if layer == 1 and self.decoder == "sigmoid":
            pixels = cast(LabeledImages, batch).image.flatten(1)
            return functional.binary_cross_entropy_with_logits(reconstruction, pixels)
        return functional.mse_loss(reconstruction, at_least_float32(code))

    def configure_optimizers(self) -> Any:
        """One optimizer for each phase, so each starts without moments."""
        pretrain, finetune = self.optimizer_callables
        pairs = zip(self.mlp.layers, self.decoders, strict=False)
        optimizers = [pretrain([*layer.parameters(), *decoder.parameters()]) for layer, decoder in pairs]
        optimizers.append(finetune(self.mlp.parameters()))
        if self.finetune_schedule == "constant":
            return optimizers
        # Torch's CosineAnnealingLR would keep the length of a checkpoint's plan when a run goes on with a longer one.
        cosine = LambdaLR(optimizers[-1], lambda epoch: (1 + math.cos(math.pi * epoch / self.finetune_epochs)) / 2)
        return optimizers, [cosine]

    def _optimizer(self, layer: int | None) -> LightningOptimizer:
        return optimizers_of(self)[-1 if layer is None else layer - 1]

    # --- evaluation ---------------------------------------------------------------------------------------------------

    def on_validation_start(self) -> None:
        if self.trainer.state.fn == TrainerFn.FITTING and not self.trainer.sanity_checking:
            self.phase_data.give("val", self.trainer.val_dataloaders, self.layer_at(self.current_epoch))

    def validation_step(self, batch: LabeledImages | Codes, batch_idx: int) -> None:
        layer = self.layer_at(self.current_epoch) if self.trainer.state.fn == TrainerFn.FITTING else None
        if layer is None:
            super().validation_step(cast(LabeledImages, batch), batch_idx)
        else:
            loss = self.reconstruction_loss(batch, layer)
            self.log_means("val", {f"layer{layer}_reconstruction_loss": loss}, len(batch[0]))

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        super().on_load_checkpoint(checkpoint)
        if is_attached(self) and self.trainer.training:
            require_same_pretraining(self, checkpoint[self.CHECKPOINT_HYPER_PARAMS_KEY]["pretrain_epochs"])


def mask(code: Tensor, fraction: float) -> Tensor:
    """Masking noise (Vincent et al. 2008, section 2.3): each component becomes 0 with probability ``fraction``."""
    return code * torch.empty_like(code).bernoulli_(1 - fraction) if fraction else code

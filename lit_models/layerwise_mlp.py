"""A deep MLP whose layers are trained one by one as autoencoders before the whole is trained as a classifier (Bengio,
Lamblin, Popovici & Larochelle 2007, "Greedy Layer-Wise Training of Deep Networks"; with corrupted inputs: Vincent,
Larochelle, Bengio & Manzagol 2008, "Extracting and Composing Robust Features with Denoising Autoencoders").

With h_0 the image, layer k turns the code of the layer below into h_k = f_k(h_{k−1}) = ReLU(W_k h_{k−1} + b_k).

1. Pretraining, for k = 1, 2, … in turn, while all layers below stay as they are: layer k and a decoder learn to

       minimise  E ‖ W'_k f_k(q(h_{k−1})) + b'_k − h_{k−1} ‖²   over W_k, b_k, W'_k, b'_k.

   q is the identity, or sets a random part of the components to 0 ("masking noise", Vincent et al. 2008, section 2.3).
   With tied weights W'_k is the transpose of W_k.
2. Fine-tuning: all layers and a linear classifier on top of the last learn to minimise the cross-entropy E −log p(y).

What differs from the papers:

1. ReLU units, trained by Adam, where the papers have sigmoid units and plain stochastic gradient descent.
2. The squared error is a mean over components, so that one learning rate fits wide and narrow layers. A sigmoid decoder
   of the first layer is trained by cross-entropy on the pixels in [0, 1], as in the papers; codes of ReLU units have no
   upper bound, so that the other decoders are linear.
3. Each image is first brought to mean 0 and variance 1 (Coates, Lee & Ng 2011, section 3.1.1, "contrast
   normalisation"). On the validation images of CIFAR-10 this is worth more than any other choice here.
4. Dropout in fine-tuning (Srivastava et al. 2014).
"""

import math
import os
import tempfile
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any, Literal, cast

import numpy as np
import torch
from lightning.pytorch import LightningModule
from lightning.pytorch.callbacks import TQDMProgressBar
from lightning.pytorch.cli import OptimizerCallable
from lightning.pytorch.core.optimizer import LightningOptimizer
from lightning.pytorch.trainer.states import TrainerFn
from torch import Tensor, nn
from torch.nn import functional
from torch.optim.lr_scheduler import LambdaLR
from torchmetrics import MeanMetric

from datamodules import Codes, GatherDataset, ImageDataModule, LabelledImages
from datamodules.loading.loaders import BatchLoader
from lit_models.errors import ModelError, RunError
from lit_models.losses.precision import at_least_float32
from lit_models.optimizers import FusedAdam
from lit_models.support.checks import require_image_shape, require_labels, require_num_classes
from lit_models.support.outputs import ClassProbabilities
from lit_models.support.parts import Part
from lit_models.support.ranks import batch_weight

ENCODED_AT_ONCE = 1024
"""Images whose codes are computed together when they are cached."""
LARGEST_IN_MEMORY = 2 << 30
"""Bytes of cached codes that are kept in main memory; more are kept in a file."""


class MLP(nn.Module):
    """The classifier: contrast normalisation, layers of ReLU units with dropout, and a linear layer on top.

    Shapes: images ``(N, C, H, W)`` in [0, 1] to logits ``(N, num_classes)``.

    Args:
        inputs: Components of an image, C · H · W.
        widths: Units of each layer.
        num_classes: Number of classes.
        dropout: Part of the units of each layer that is dropped in training.
        contrast_normalization: Bring each image to mean 0 and variance 1.
    """

    def __init__(
        self, inputs: int, widths: Sequence[int], num_classes: int, dropout: float, contrast_normalization: bool
    ) -> None:
        super().__init__()
        self.layers = nn.ModuleList(nn.Linear(below, width) for below, width in pairwise([inputs, *widths]))
        self.head = nn.Linear(widths[-1], num_classes)
        self.dropout = dropout
        self.contrast_normalization = contrast_normalization

    def forward(self, image: Tensor) -> Tensor:
        code = self.input(image)
        for layer in self.layers:
            code = functional.dropout(functional.relu(layer(code)), self.dropout, self.training)
        return self.head(code)

    def encode(self, image: Tensor, layers: int) -> Tensor:
        """The code after the first ``layers`` layers, ``(N, D)``, without dropout; after none it is the input."""
        code = self.input(image)
        for layer in self.layers[:layers]:
            code = functional.relu(layer(code))
        return code

    def input(self, image: Tensor) -> Tensor:
        """What the first layer gets, ``(N, C · H · W)``."""
        if self.contrast_normalization:
            # The constant is 10 for pixels in 0..255, as in Coates et al. 2011; it keeps flat images from exploding.
            image = functional.layer_norm(image, image.shape[1:], eps=10 / 255**2)
        return image.flatten(1)


class Decoder(nn.Module):
    """The way back from a layer's code to what the layer was given, W'_k h_k + b'_k.

    W'_k starts as the transpose of W_k. Were it random, the first steps would do best to turn all units off, and in a
    narrow layer none may come back.

    Args:
        layer: The layer, ``below`` components to ``width`` units.
        tied_weights: W'_k stays the transpose of W_k.
    """

    def __init__(self, layer: nn.Linear, tied_weights: bool) -> None:
        super().__init__()
        self.bias = nn.Parameter(torch.zeros(layer.in_features))
        self.weight = None if tied_weights else nn.Parameter(layer.weight.detach().T.clone())

    def forward(self, code: Tensor, layer: nn.Linear) -> Tensor:
        """``(N, width)`` to ``(N, below)``."""
        return functional.linear(code, layer.weight.T if self.weight is None else self.weight, self.bias)


class LayerwiseMLP(LightningModule):
    """An MLP classifier with greedy layer-wise pretraining (Bengio et al. 2007; denoising: Vincent et al. 2008).

    One run goes through all phases: ``pretrain_epochs`` for each layer from the first to the last, then
    ``finetune_epochs``; ``trainer.max_epochs`` is their sum unless a smaller one is given, to stop early.

    A layer is pretrained on codes that are computed once, when its phase begins, from the images without augmentation.
    They are held on the accelerator if they take at most a quarter of its free memory, in main memory up to 2 GiB, and
    beyond that in a temporary file in the run folder; under DDP each process has all of them.

    Logged: ``train/layer1_reconstruction_loss`` … and ``val/…`` in pretraining (validation has no masking noise), then
    ``loss`` and ``accuracy`` below ``train/``, ``val/`` and ``test/``.

    Args:
        image_size: Height and width of the images.
        channels: Channels of the images: 1 for grey, 3 for colour.
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
        pretrain_optimizer: Optimiser of a layer and its decoder in pretraining.
        finetune_optimizer: Optimiser of the classifier in fine-tuning.
        finetune_schedule: The learning rate of fine-tuning: "constant", or "cosine" for one that falls to 0 along half
            a cosine.
    """

    exports = (
        Part("classifier", "forward", ("image",), "logits"),
        Part("encoder", "embed", ("image",), "embedding"),
    )

    needs_find_unused_parameters = True
    """Under DDP each phase reaches its own parameters only."""
    later_metrics = ("train/loss", "train/accuracy", "val/loss", "val/accuracy")
    """Logged in fine-tuning only; see :class:`lit_models.callbacks.Checkpoints`."""

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
        for name, number, least in (
            ("image_size", image_size, 1),
            ("channels", channels, 1),
            ("num_classes", num_classes, 2),
            ("pretrain_epochs", pretrain_epochs, 0),
            ("finetune_epochs", finetune_epochs, 1),
        ):
            if number < least:
                raise ModelError(f"{name} is {number}; it must be at least {least}.")
        for name, part in (("mask_fraction", mask_fraction), ("dropout", dropout)):
            if not 0 <= part < 1:
                raise ModelError(f"{name} is {part}; it must be at least 0 and less than 1.")
        super().__init__()
        self.save_hyperparameters(ignore=["pretrain_optimizer", "finetune_optimizer"])
        self.automatic_optimization = False
        self.image_shape = (channels, image_size, image_size)
        self.num_classes = num_classes
        self.class_names: tuple[str, ...] = ()
        self.widths = tuple(widths)
        self.code_layer = code_layer
        self.pretrain_epochs = pretrain_epochs
        self.finetune_epochs = finetune_epochs
        self.decoder = decoder
        self.mask_fraction = mask_fraction
        self.cache_codes = cache_codes
        self.optimizer_callables = (pretrain_optimizer, finetune_optimizer)
        self.finetune_schedule = finetune_schedule
        self.mlp = MLP(channels * image_size**2, widths, num_classes, dropout, contrast_normalization)
        self.decoders = nn.ModuleList(
            Decoder(cast(nn.Linear, layer), tied_weights) for layer in self.mlp.layers if pretrain_epochs
        )
        self.train_accuracy = MeanMetric(nan_strategy="disable")
        self._given: dict[str, tuple[int | None, Any]] = {}

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
        require_image_shape(self, self.image_shape)
        if stage != "predict":
            require_num_classes(self, self.num_classes)
        if stage == "fit":
            self.class_names = tuple(getattr(getattr(self.trainer, "datamodule", None), "class_names", ()))
            require_labels(self)
            self._require_planned_epochs()

    def _require_planned_epochs(self) -> None:
        epochs = self.trainer.max_epochs
        if epochs is None or not 0 <= epochs <= self.planned_epochs:
            raise ModelError(
                f"The phases take {self.planned_epochs} epochs ({len(self.widths)} layers x {self.pretrain_epochs} + "
                f"{self.finetune_epochs}), but --trainer.max_epochs is {epochs}: leave it out, or change "
                "--model.pretrain_epochs or --model.finetune_epochs."
            )

    def on_train_start(self) -> None:
        self._start_epoch()  # a run that is resumed within an epoch gets no on_train_epoch_start

    def on_train_epoch_start(self) -> None:
        self._start_epoch()

    def _start_epoch(self) -> None:
        layer = self.layer_at(self.current_epoch)
        bar = self.trainer.progress_bar_callback
        if isinstance(bar, TQDMProgressBar):
            phase = "fine-tuning" if layer is None else f"pretraining layer {layer} of {len(self.widths)}"
            bar.train_progress_bar.set_description(f"Epoch {self.current_epoch}, {phase}")
        current = self._optimizer(layer)
        for optimizer in self._optimizers():
            if optimizer is not current:
                optimizer.state.clear()  # the moments of a phase that is over need no place in memory or checkpoints
        self._give_codes("train", self.trainer.train_dataloader)

    def training_step(self, batch: LabelledImages | Codes, batch_idx: int) -> None:
        layer = self.layer_at(self.current_epoch)
        if layer is None:
            images = cast(LabelledImages, batch)
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
        schedule = self.lr_schedulers()
        if schedule is not None:
            cast(Any, schedule).step()

    def reconstruction_loss(self, batch: LabelledImages | Codes, layer: int) -> Tensor:
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
            pixels = cast(LabelledImages, batch).image.flatten(1)
            return functional.binary_cross_entropy_with_logits(reconstruction, pixels)
        return functional.mse_loss(reconstruction, at_least_float32(code))

    def configure_optimizers(self) -> Any:
        """One optimiser for each phase, so that each starts afresh."""
        pretrain, finetune = self.optimizer_callables
        pairs = zip(self.mlp.layers, self.decoders, strict=False)
        optimizers = [pretrain([*layer.parameters(), *decoder.parameters()]) for layer, decoder in pairs]
        optimizers.append(finetune(self.mlp.parameters()))
        if self.finetune_schedule == "constant":
            return optimizers
        # Torch's CosineAnnealingLR would keep the length of a checkpoint's plan when a run goes on with a longer one.
        cosine = LambdaLR(optimizers[-1], lambda epoch: (1 + math.cos(math.pi * epoch / self.finetune_epochs)) / 2)
        return optimizers, [cosine]

    def _optimizers(self) -> list[LightningOptimizer]:
        optimizers = self.optimizers()
        return optimizers if isinstance(optimizers, list) else [optimizers]

    def _optimizer(self, layer: int | None) -> LightningOptimizer:
        return self._optimizers()[-1 if layer is None else layer - 1]

    # --- cached codes -------------------------------------------------------------------------------------------------

    def on_fit_start(self) -> None:
        self._given = {}

    def _give_codes(self, stage: str, loader: Any) -> None:
        """Lets a loader give codes of the layer below the one that is pretrained in place of images, and images again
        when there is no such layer."""
        datamodule = getattr(self.trainer, "datamodule", None)
        if not (self.cache_codes and isinstance(loader, BatchLoader) and isinstance(datamodule, ImageDataModule)):
            return
        layer = self.layer_at(self.current_epoch)
        layer_given, images = self._given.get(stage, (None, loader.dataset))
        if layer == layer_given:
            return
        if layer is None or layer == 1:
            loader.dataset = images
        else:
            source = loader.dataset if layer_given == layer - 1 else images
            loader.dataset = GatherDataset(Codes(self._codes(source, layer - 1, datamodule)))
        self._given[stage] = layer, images

    @torch.no_grad()
    def _codes(self, source: Any, layers: int, datamodule: ImageDataModule) -> Tensor:
        """The codes of all images after some layers, in order.

        Args:
            source: The images, which aren't augmented here, or their codes after one layer less.
            layers: Layers to go through.
            datamodule: Where the images come from.
        """
        codes = None
        for start in range(0, len(source), ENCODED_AT_ONCE):
            rows = torch.arange(start, min(start + ENCODED_AT_ONCE, len(source)))
            batch = self.transfer_batch_to_device(source.__getitems__(rows), self.device, 0)
            plugin = self.trainer.precision_plugin
            with plugin.forward_context():
                if isinstance(batch, Codes):
                    code = functional.relu(self.mlp.layers[layers - 1](batch.code))
                else:
                    code = self.mlp.encode(
                        plugin.convert_input(datamodule.transform(batch, training=False)).image, layers
                    )
            if codes is None:
                folder = Path(self.trainer.default_root_dir)
                codes = room_for_codes((len(source), code.shape[1]), code.dtype, code.device, folder)
            codes[start : start + len(code)] = code
        assert codes is not None, "no data module has an empty split"
        return codes

    # --- evaluation ---------------------------------------------------------------------------------------------------

    def on_validation_start(self) -> None:
        if self.trainer.state.fn == TrainerFn.FITTING and not self.trainer.sanity_checking:
            self._give_codes("val", self.trainer.val_dataloaders)

    def validation_step(self, batch: LabelledImages | Codes, batch_idx: int) -> None:
        layer = self.layer_at(self.current_epoch) if self.trainer.state.fn == TrainerFn.FITTING else None
        if layer is None:
            self._classify(cast(LabelledImages, batch), "val")
        else:
            loss = self.reconstruction_loss(batch, layer)
            self.log(
                f"val/layer{layer}_reconstruction_loss", loss, batch_size=batch_weight(len(batch[0])), sync_dist=True
            )

    def test_step(self, batch: LabelledImages, batch_idx: int) -> Tensor:
        """Returns the logits, for callbacks."""
        return self._classify(batch, "test")[1]

    def predict_step(self, batch: LabelledImages, batch_idx: int) -> ClassProbabilities:
        return ClassProbabilities(at_least_float32(self(batch.image)).softmax(1))

    def _classify(self, batch: LabelledImages, stage: str) -> tuple[Tensor, Tensor]:
        """The loss and the logits of a held-out batch; logs loss and accuracy."""
        logits = at_least_float32(self(batch.image))
        loss = functional.cross_entropy(logits, batch.label)
        accuracy = (logits.argmax(1) == batch.label).float().mean()
        weight = batch_weight(len(batch.label))
        self.log(f"{stage}/loss", loss, batch_size=weight, sync_dist=True)
        self.log(f"{stage}/accuracy", accuracy, batch_size=weight, prog_bar=stage == "val", sync_dist=True)
        return loss, logits

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        checkpoint["class_names"] = list(self.class_names)

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        self.class_names = tuple(checkpoint["class_names"])
        begun_with = checkpoint[self.CHECKPOINT_HYPER_PARAMS_KEY]["pretrain_epochs"]
        if self._trainer is not None and self.trainer.training and begun_with != self.pretrain_epochs:
            raise ModelError(
                f"This run was begun with {begun_with} epochs of pretraining for each layer, not {self.pretrain_epochs}"
                ": leave --model.pretrain_epochs as it was, or start a new run."
            )


def mask(code: Tensor, fraction: float) -> Tensor:
    """Masking noise (Vincent et al. 2008, section 2.3): each component becomes 0 with probability ``fraction``."""
    return code * torch.empty_like(code).bernoulli_(1 - fraction) if fraction else code


def room_for_codes(shape: tuple[int, int], dtype: torch.dtype, device: torch.device, folder: Path) -> Tensor:
    """An uninitialised tensor in the best place that has room for it.

    Args:
        shape: Its shape.
        dtype: Its type.
        device: The accelerator, whose memory is the best place.
        folder: Where a file of no name, which is gone when the tensor is, takes what is too large for memory.

    Raises:
        RunError: The file can't be written.
    """
    size = math.prod(shape) * dtype.itemsize
    if device.type == "cuda" and size <= torch.cuda.mem_get_info(device)[0] // 4:
        return torch.empty(shape, dtype=dtype, device=device)
    if size <= LARGEST_IN_MEMORY:
        return torch.empty(shape, dtype=dtype)
    try:
        with tempfile.TemporaryFile(dir=folder) as file:
            if hasattr(os, "posix_fallocate"):
                # Reserve the blocks now: writing to a mapped hole on a full disk would kill the process.
                os.posix_fallocate(file.fileno(), 0, size)
            content = np.memmap(file, np.uint8, "w+", shape=(size,))
    except OSError as error:
        raise RunError(
            f"{size / 2**30:.1f} GiB of codes can't be written to {folder} ({error.strerror}): free some space there, "
            "choose another place with --run.root, or set --model.cache_codes false."
        ) from error
    return torch.from_numpy(content).view(dtype).view(shape)

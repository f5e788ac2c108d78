"""DARTS (Liu, Simonyan & Yang 2019, https://arxiv.org/abs/1806.09055): architecture search by gradient descent.

Each edge of a cell computes all candidate operations and mixes them by the softmax of its numbers α (eq. 2). The
weights w of the operations and the architecture α are trained together, w on one half of the training images and α on
the other:

    min_α  L_val(w*(α), α)    where    w*(α) = argmin_w L_train(w, α)                              (eq. 3, 4)

1. Take a step in α along the gradient of L_val(w − ξ ∇_w L_train(w, α), α) (eq. 6; see
   :mod:`lit_models.darts.hypergradient`); with ξ = 0, the first-order approximation, along that of L_val(w, α).
2. Take a step in w along ∇_w L_train(w, α).

At the end each node keeps its two strongest edges, each with its strongest operation (section 2.4). What comes out is a
genotype, with which :class:`lit_models.darts.retrain.DARTSRetrain` builds a network to be trained from scratch.

Differences from the paper and the authors' code (https://github.com/quark0/darts):

1. The supernet is computed in wide operations (:mod:`lit_models.darts.supernet`), which changes its speed only.
2. The mixed second derivative of the second order is computed exactly. The paper's finite difference, which is far off
   on ReLU and max-pooling, is an option (``mixed_product``). The step of w that it anticipates has momentum and
   weight decay, as in the authors' code; eq. 6 has neither, though the paper notes that momentum changes it.
3. In training and in evaluation, batch normalization uses the statistics of the batch, as in the paper (A.1.1). The
   authors' code evaluates with running means, which the passes for α move, too. Here only w's passes do; with
   ``eval_statistics: running`` they are used in evaluation. The configurations for CIFAR-10 evaluate in batches of 256.
4. α starts at values of standard deviation ``arch_init_std``: 0.001 as in the authors' code, or 0 as in the paper. The
   configurations of the paper's size have 0.
5. The batch normalization of the stem has learned factors and biases, as in the authors' code. In the paper no batch
   normalization of the search has them. The factors start at 1; the PyTorch of the authors' code (0.3.1) draws them
   from [0, 1).
6. The learning rate of w falls to ``last_learning_rate``: 0.001 as in the authors' code. In the paper it falls to 0.
7. The gradient of w is clipped at a norm of 5, as in the authors' code. The paper doesn't mention it.
8. Images are in [0, 1], not normalized to the mean and deviation of the training images.
9. The images from which α learns aren't augmented. The authors' code augments them (the data module's
   ``augment_val``).
10. The two halves of the training images are drawn at random, by the data module's seed. The authors' code takes the
    first and the last half of CIFAR-10's list.
11. All of α's images are used in turn, in a new order each time. The authors' code draws a random batch for each step.
12. Each epoch leaves out the images that don't fill a batch. The authors' code takes the smaller batch.
13. A genotype lists the two edges of a node by the state where they start, not by their strength: the same network. It
    is that of α after the last epoch; the authors' code prints it before each epoch.
14. Cells for images only: recurrent cells (section 3.1.2) and the transfers to ImageNet and WikiText-2 are left out.
"""

import json
from typing import Any, ClassVar, Literal

import torch
from lightning.pytorch.cli import OptimizerCallable
from torch import Tensor, nn
from torch.nn import functional
from torch.optim import SGD, Optimizer
from torch.optim.lr_scheduler import CosineAnnealingLR
from torchmetrics import MeanMetric

from datamodules import SearchBatch
from lit_models.darts.genotype import EDGES, OPERATIONS, Genotype, derive_genotype
from lit_models.darts.hypergradient import Hypergradient, detached
from lit_models.darts.requirements import require_halves, require_plain_sgd
from lit_models.darts.supernet import Supernet
from lit_models.darts.supernet_gradient import supernet_hypergradient
from lit_models.errors import ModelError
from lit_models.optimizers import FusedAdam
from lit_models.support.checks import require_at_least, require_one_of, require_planned_epochs, require_precision
from lit_models.support.classes import Classifier
from lit_models.support.lightning_internals import optimizers_of, step_schedules


class DARTSSearch(Classifier):
    """Searches the cells of an image classifier (Liu et al. 2019).

    α are the parameters ``arch_parameters.normal`` and ``arch_parameters.reduction``, of shape ``(14, 8)``: a row for
    each edge, a column for each operation.

    :class:`lit_models.callbacks.CellFigures` writes ``genotype.json`` and pictures of each epoch's cells into the run
    folder.

    Logged: for each batch ``train/loss`` and ``train/accuracy`` of the weights' images, ``train/arch_loss`` of the
    architecture's (at w' in second order), and ``learning_rate``; for each epoch ``train/epoch_loss``,
    ``train/epoch_accuracy``, and ``loss`` and ``accuracy`` below ``val/`` (of the architecture's images) and ``test/``.

    Args:
        image_size: Height and width of the images, divisible by 4.
        channels: Channels of the images: 1 for gray, 3 for color.
        num_classes: Number of classes.
        init_channels: Channels of each node in the first cells; each of the two reduction cells doubles them.
        layers: Number of cells.
        epochs: Epochs of the search, over which the learning rate of w falls; ``trainer.max_epochs`` unless a smaller
            one is given, to stop early.
        order: 1 for ξ = 0, 2 for ξ = the learning rate of w.
        mixed_product: How the second-order term is computed: "exact", or "finite_difference" as in the paper. See
            :mod:`lit_models.darts.hypergradient`.
        arch_init_std: Standard deviation of α's normally distributed start; 0 to start at zero, as in the paper.
        eval_statistics: Statistics of batch normalization in evaluation: of the "batch", as in the paper, or the
            "running" means of w's passes. With those of the batch, an image's result depends on the others in it.
        weight_optimizer: Optimizer of w; in second order it must be SGD.
        last_learning_rate: Learning rate of w to which its optimizer's falls, along half a cosine.
        gradient_clip_norm: Largest norm of the gradient of w; larger ones are scaled down.
        arch_optimizer: Optimizer of α.
    """

    why_not_float16 = "α's gradient is computed by hand, without loss scaling"
    training_only: ClassVar = frozenset(("genotype",))
    training_callbacks = ("CellFigures",)
    compilation = "about 11 minutes for 3 cells on one core"

    def __init__(
        self,
        image_size: int = 32,
        channels: int = 3,
        num_classes: int = 10,
        init_channels: int = 16,
        layers: int = 8,
        epochs: int = 50,
        order: Literal[1, 2] = 1,
        mixed_product: Literal["finite_difference", "exact"] = "exact",
        weight_optimizer: OptimizerCallable = lambda p: SGD(p, lr=0.025, momentum=0.9, weight_decay=3e-4),
        last_learning_rate: float = 0.001,
        gradient_clip_norm: float = 5.0,
        arch_optimizer: OptimizerCallable = lambda p: FusedAdam(p, lr=3e-4, beta1=0.5, weight_decay=1e-3),
        arch_init_std: float = 1e-3,
        eval_statistics: Literal["batch", "running"] = "batch",
    ) -> None:
        if image_size < 4 or image_size % 4:
            raise ModelError(f"image_size is {image_size}; two halvings need a multiple of 4.")
        require_at_least(1, channels=channels, epochs=epochs)
        require_at_least(2, num_classes=num_classes, init_channels=init_channels)
        require_at_least(3, layers=layers)
        if init_channels % 2:
            raise ModelError(
                f"init_channels is {init_channels}; it must be even, as reductions are made of two halves."
            )
        require_one_of((1, 2), order=order)
        require_one_of(("finite_difference", "exact"), mixed_product=mixed_product)
        require_one_of(("batch", "running"), eval_statistics=eval_statistics)
        if not 0 <= arch_init_std < float("inf"):
            raise ModelError(f"arch_init_std is {arch_init_std}; it must be at least 0.")
        if gradient_clip_norm <= 0 or last_learning_rate < 0:
            raise ModelError("gradient_clip_norm must be positive, and last_learning_rate at least 0.")
        super().__init__()
        self.save_hyperparameters(ignore=["weight_optimizer", "arch_optimizer"])
        self.automatic_optimization = False
        self.image_shape = (channels, image_size, image_size)
        self.num_classes = num_classes
        self.epochs, self.order, self.mixed_product = epochs, order, mixed_product
        self.optimizer_callables = (weight_optimizer, arch_optimizer)
        self.last_learning_rate, self.gradient_clip_norm = last_learning_rate, gradient_clip_norm
        self.supernet = Supernet(channels, num_classes, init_channels, layers, eval_statistics)
        shape = (len(EDGES), len(OPERATIONS))
        self.arch_parameters = nn.ParameterDict(
            {kind: nn.Parameter(arch_init_std * torch.randn(shape)) for kind in Genotype._fields}
        )
        self.epoch_loss, self.epoch_accuracy = (MeanMetric(nan_strategy="disable") for _ in range(2))

    def forward(self, image: Tensor) -> Tensor:
        """Logits ``(N, num_classes)`` of images ``(N, C, H, W)`` in [0, 1], by the supernet."""
        return self.supernet(image, *self.alphas)

    @property
    def alphas(self) -> tuple[nn.Parameter, ...]:
        """α of the normal and of the reduction cells."""
        return tuple(self.arch_parameters[kind] for kind in Genotype._fields)

    @property
    def planned_epochs(self) -> int:
        return self.epochs

    @property
    def restored_arguments(self) -> tuple[str, ...]:
        return ("arch_init_std",)

    def genotype(self) -> Genotype:
        """The architecture that α stands for now."""
        return derive_genotype(*(alpha.detach().cpu() for alpha in self.alphas))

    def setup(self, stage: str) -> None:
        super().setup(stage)
        if stage == "fit":
            require_halves(self)
            require_precision(self, self.why_not_float16, self.trainer.precision)
            require_planned_epochs(self, self.epochs)

    # --- one step -----------------------------------------------------------------------------------------------------

    def training_step(self, batch: SearchBatch, batch_idx: int) -> None:
        weight_optimizer, arch_optimizer = optimizers_of(self)

        arch = self.hypergradient(batch, weight_optimizer.optimizer)
        for alpha, gradient in zip(self.alphas, arch.gradient, strict=True):
            alpha.grad = gradient
        # Through the strategy and not `arch_optimizer.step()`, which would raise global_step.
        self.trainer.strategy.optimizer_step(arch_optimizer.optimizer, closure=lambda: None, model=self)
        arch_optimizer.zero_grad()

        # This step needs no gradient of α, but DDP waits for one of every parameter.
        alphas = self.alphas if self.trainer.world_size > 1 else detached(self.alphas)
        logits = self.supernet(batch.train.image, *alphas).float()
        loss = functional.cross_entropy(logits, batch.train.label)
        weight_optimizer.zero_grad()
        self.manual_backward(loss)
        nn.utils.clip_grad_norm_(self.supernet.parameters(), self.gradient_clip_norm)
        weight_optimizer.step()
        self._log_step(loss.detach(), logits.detach(), batch, arch.loss)

    def hypergradient(self, batch: SearchBatch, weight_optimizer: Optimizer) -> Hypergradient:
        """The gradient of α on this batch, the mean over all processes.

        Args:
            batch: The images of both halves.
            weight_optimizer: The optimizer of w, whose next step second order anticipates.
        """
        second = weight_optimizer if self.order == 2 else None
        return supernet_hypergradient(self.supernet, self.alphas, batch, second, self.mixed_product == "exact")

    def _log_step(self, loss: Tensor, logits: Tensor, batch: SearchBatch, arch_loss: Tensor) -> None:
        accuracy = (logits.argmax(1) == batch.train.label).float().mean()
        rate = self.trainer.optimizers[0].param_groups[0]["lr"]
        self.log_dict({"train/loss": loss, "train/accuracy": accuracy}, prog_bar=True)
        self.log_dict({"train/arch_loss": arch_loss, "learning_rate": rate})
        self.epoch_loss.update(loss)
        self.epoch_accuracy.update(accuracy)

    def configure_optimizers(self) -> Any:
        """The optimizers of w and of α; their parameters are known by name."""
        make_weight, make_arch = self.optimizer_callables
        weight = make_weight(list(self.supernet.named_parameters(prefix="supernet")))
        arch = make_arch(list(self.arch_parameters.named_parameters(prefix="arch_parameters")))
        if self.order == 2:
            require_plain_sgd(weight)
        return [weight, arch], [CosineAnnealingLR(weight, self.epochs, self.last_learning_rate)]

    # --- after an epoch -----------------------------------------------------------------------------------------------

    def on_train_epoch_end(self) -> None:
        step_schedules(self)
        loss, accuracy = float(self.epoch_loss.compute()), float(self.epoch_accuracy.compute())
        self.log_dict({"train/epoch_loss": loss, "train/epoch_accuracy": accuracy})
        self.epoch_loss.reset()
        self.epoch_accuracy.reset()

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        super().on_save_checkpoint(checkpoint)
        checkpoint["genotype"] = json.loads(self.genotype().to_json())

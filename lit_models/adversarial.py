"""The two-player training loop that every GAN shares.

In each batch the discriminator takes a step, and in every ``n_critic``-th batch the generator takes one, too
(Goodfellow et al. 2014, algorithm 1; ``n_critic`` is its k). A method defines how it generates and its two losses;
everything else about training two networks against each other is here.

Differences from algorithm 1, which all GANs here share:

1. The generator's step takes the fakes from which the discriminator has just learned. The algorithm draws fresh latent
   vectors, as ``fresh_latents: true`` does.
2. Optional: clipped gradients, averaged weights, schedules, differentiable augmentation.
"""

from abc import abstractmethod
from collections.abc import Iterator
from contextlib import contextmanager
from copy import deepcopy
from typing import Any, ClassVar, Literal, TypeAlias

import torch
from lightning.pytorch.cli import LRSchedulerCallable, OptimizerCallable
from lightning.pytorch.core.optimizer import LightningOptimizer
from lightning.pytorch.plugins.precision import MixedPrecision
from torch import Tensor, nn

from datamodules import LabeledImages, SampleRequest
from lit_models.errors import ModelError
from lit_models.module import Export, Method
from lit_models.networks.differentiable_augmentation import Augmentation, DifferentiableAugmentation
from lit_models.support.checks import require_at_least, require_image_shape
from lit_models.support.lightning_internals import logs_this_batch, optimizers_of, step_schedules
from lit_models.support.ranks import batch_weight

OPTIMIZER_ARGUMENTS = [
    "generator_optimizer",
    "discriminator_optimizer",
    "generator_scheduler",
    "discriminator_scheduler",
]
"""Arguments that a checkpoint doesn't hold: functions, which a safe reader wouldn't load."""

LossTerms: TypeAlias = Tensor | dict[str, Tensor]
"""A loss, or the loss as ``"loss"`` among further values that are logged under their own names."""


class AdversarialModule(Method):
    """Base of the GANs: alternates the steps of ``discriminator`` and ``generator``.

    A subclass builds both networks, passes them to ``super().__init__``, saves its own arguments by
    ``save_hyperparameters(ignore=OPTIMIZER_ARGUMENTS)`` and implements :meth:`generate`, :meth:`discriminator_loss` and
    :meth:`generator_loss`. The discriminator learns from detached fakes; in the generator's turn the updated
    discriminator scores the same fakes, or fresh ones with ``fresh_latents``.

    ``trainer.global_step`` counts the generator's steps, and so do ``max_steps``, the loggers' x-axis and the intervals
    of callbacks.

    Logged: ``train/discriminator_loss`` (of the batch), ``train/generator_loss`` (of the generator's latest step), and
    the same below ``val/`` and ``test/`` for held-out images (means); the latter are comparable with the former, as
    batch normalization goes by the batch there, too. So are the further values that a method's losses come with.

    Args:
        generator: Network that makes images.
        discriminator: Network that judges images.
        generator_optimizer: Optimizer of the generator's parameters.
        discriminator_optimizer: Optimizer of the discriminator's parameters.
        generator_scheduler: Learning-rate schedule of the generator; for one that goes by a metric, choose
            ``lightning.pytorch.cli.ReduceLROnPlateau`` and its ``monitor``.
        discriminator_scheduler: Learning-rate schedule of the discriminator.
        schedule_interval: When both schedules advance: after each "epoch", or after each "step" of the generator.
        n_critic: Steps of the discriminator for each step of the generator.
        gradient_clip_norm: Largest norm of either network's gradient, larger ones are scaled down; none if None.
        ema_decay: Decay of an exponential moving average of the generator's weights, which then makes the samples
            (0.999 is usual); none if None.
        fresh_latents: Draw new latent vectors (and classes, in a conditional GAN) for the generator's step.
        augmentations: Random changes of every image that the discriminator gets, real or generated, through which the
            generator learns (Zhao et al. 2020): any of "color", "translation" and "cutout".
    """

    needs_find_unused_parameters = True  # each backward pass reaches one of the two networks only
    training_only: ClassVar = frozenset(("generator_losses", "critic_steps_taken"))

    def __init__(
        self,
        generator: nn.Module,
        discriminator: nn.Module,
        generator_optimizer: OptimizerCallable,
        discriminator_optimizer: OptimizerCallable,
        generator_scheduler: LRSchedulerCallable | None = None,
        discriminator_scheduler: LRSchedulerCallable | None = None,
        schedule_interval: Literal["epoch", "step"] = "epoch",
        n_critic: int = 1,
        gradient_clip_norm: float | None = None,
        ema_decay: float | None = None,
        fresh_latents: bool = False,
        augmentations: list[Augmentation] | None = None,
    ) -> None:
        super().__init__()
        require_at_least(1, n_critic=n_critic)
        if gradient_clip_norm is not None and not gradient_clip_norm > 0:
            raise ModelError(
                f"gradient_clip_norm is {gradient_clip_norm}; it must be positive, or null for no clipping."
            )
        if ema_decay is not None and not 0 < ema_decay < 1:
            raise ModelError(f"ema_decay is {ema_decay}; it must lie between 0 and 1 (0.999 is usual).")
        if schedule_interval not in ("epoch", "step"):
            raise ModelError(f"schedule_interval is {schedule_interval}; it must be epoch or step.")
        self.automatic_optimization = False
        self.generator = generator
        self.discriminator = discriminator
        self.generator_average = deepcopy(generator).requires_grad_(False) if ema_decay else None
        self.optimizer_callables = (generator_optimizer, discriminator_optimizer)
        self.scheduler_callables = (generator_scheduler, discriminator_scheduler)
        self.schedule_interval = schedule_interval
        self.n_critic = n_critic
        self.critic_steps_taken: int | None = None
        self.gradient_clip_norm = gradient_clip_norm
        self.ema_decay = ema_decay
        self.fresh_latents = fresh_latents
        if augmentations:
            # A hook, because a wrapper would rename the discriminator's weights in checkpoints.
            augment = DifferentiableAugmentation(augmentations)
            discriminator.register_forward_pre_hook(lambda _, inputs: (augment(inputs[0]), *inputs[1:]))
        self.latest_generator_losses: dict[str, Tensor] = {}

    @abstractmethod
    def generate(self, batch: Any) -> Tensor:
        """Fake images for this batch, with the generator's graph."""

    @abstractmethod
    def discriminator_loss(self, batch: Any, fake: Tensor) -> LossTerms:
        """The discriminator's loss on the real images of ``batch`` and on detached fakes."""

    @abstractmethod
    def generator_loss(self, batch: Any, fake: Tensor) -> LossTerms:
        """The generator's loss on its fakes."""

    def after_discriminator_step(self) -> None:
        """Changes the discriminator after each of its steps, in a method that needs it."""

    def critic_steps(self, generator_step: int) -> int:
        """Steps of the discriminator before the generator's step of that number, which counts from 0."""
        return self.n_critic

    def redrawn(self, batch: Any) -> Any:
        """The batch for a generator's step with fresh latent vectors; a conditional method draws new classes."""
        return batch

    @property
    def sampling_generator(self) -> nn.Module:
        """The network that makes samples: the averaged generator if there is one."""
        return self.generator if self.generator_average is None else self.generator_average

    def training_step(self, batch: Any, batch_idx: int) -> None:
        generator_optimizer, discriminator_optimizer = optimizers_of(self)
        batches = self.trainer.fit_loop.total_batch_idx
        if batches == 0 or self.critic_steps_taken is None:  # a new run, or the checkpoint of an older version
            self.critic_steps_taken = batches % self.n_critic
        generator_turn = self.critic_steps_taken + 1 >= self.critic_steps(self.global_step)
        self.critic_steps_taken = 0 if generator_turn else self.critic_steps_taken + 1
        step = self.global_step
        with torch.set_grad_enabled(generator_turn and not self.fresh_latents):
            fake = self.generate(batch)

        losses = losses_as_logged("train/discriminator_loss", self.discriminator_loss(batch, fake.detach()))
        discriminator_optimizer.zero_grad()
        self.manual_backward(losses["train/discriminator_loss"])
        self._clip(self.discriminator)
        self._uncounted_step(discriminator_optimizer)
        self.after_discriminator_step()

        if generator_turn:
            if self.fresh_latents:
                batch = self.redrawn(batch)
                fake = self.generate(batch)
            with frozen(self.discriminator):
                generator_losses = losses_as_logged("train/generator_loss", self.generator_loss(batch, fake))
                generator_optimizer.zero_grad()
                self.manual_backward(generator_losses["train/generator_loss"])
            self._clip(self.generator)
            generator_optimizer.step()
            self._update_average()
            if self.schedule_interval == "step":
                step_schedules(self)
            self.latest_generator_losses = {name: value.detach() for name, value in generator_losses.items()}

        if logs_this_batch(self.trainer):
            self.log_dict(losses | self.latest_generator_losses, prog_bar=True)
            # Lightning takes a logged "step" as the loggers' x-axis; its own would count batches. With it, Lightning
            # leaves the epoch out.
            self.log_dict({"step": float(step), "epoch": float(self.current_epoch)})

    def on_train_epoch_end(self) -> None:
        self._log_step_reached()
        if self.schedule_interval == "epoch":
            step_schedules(self)

    def on_validation_epoch_end(self) -> None:
        self._log_step_reached()

    def _log_step_reached(self) -> None:
        step, epoch = float(max(self.global_step - 1, 0)), float(self.current_epoch)
        self.log_dict({"step": step, "epoch": epoch}, sync_dist=True)

    def validation_step(self, batch: Any, batch_idx: int) -> None:
        self._evaluate(batch, "val")

    def test_step(self, batch: Any, batch_idx: int) -> None:
        self._evaluate(batch, "test")

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        super().on_save_checkpoint(checkpoint)
        checkpoint["generator_losses"] = self.latest_generator_losses
        checkpoint["critic_steps_taken"] = self.critic_steps_taken

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        super().on_load_checkpoint(checkpoint)
        self.latest_generator_losses = checkpoint.get("generator_losses", {})
        self.critic_steps_taken = checkpoint.get("critic_steps_taken")

    def configure_optimizers(self) -> Any:
        if self.schedule_interval == "step" and not any(self.scheduler_callables):
            raise ModelError(
                "schedule_interval is step, but there is no schedule: set generator_scheduler and "
                "discriminator_scheduler, or leave schedule_interval out."
            )
        networks = (self.generator, self.discriminator)
        optimizers = [
            make(network.parameters()) for make, network in zip(self.optimizer_callables, networks, strict=True)
        ]
        schedulers = [
            make(optimizer)
            for make, optimizer in zip(self.scheduler_callables, optimizers, strict=True)
            if make is not None
        ]
        return optimizers, schedulers

    def _evaluate(self, batch: Any, stage: str) -> None:
        with batch_statistics(self, len(batch[0])):
            fake = self.generate(batch)
            self.log_losses(stage, batch, fake, len(fake))

    def log_losses(self, stage: str, batch: Any, fake: Tensor, size: int) -> None:
        """Log both losses on a held-out batch of ``size`` images."""
        losses = losses_as_logged(f"{stage}/discriminator_loss", self.discriminator_loss(batch, fake))
        losses |= losses_as_logged(f"{stage}/generator_loss", self.generator_loss(batch, fake))
        self.log_dict(losses, batch_size=batch_weight(size), sync_dist=True)

    def _clip(self, network: nn.Module) -> None:
        if self.gradient_clip_norm is None:
            return
        # With 16-mixed the gradient is still multiplied by the loss scale, which the optimizer's step takes away.
        plugin = self.trainer.precision_plugin
        scale = plugin.scaler.get_scale() if isinstance(plugin, MixedPrecision) and plugin.scaler is not None else 1.0
        nn.utils.clip_grad_norm_(network.parameters(), scale * self.gradient_clip_norm)

    def _uncounted_step(self, optimizer: LightningOptimizer) -> None:
        """``optimizer.step()`` through Lightning's strategy and precision, but without raising ``global_step``."""
        self.trainer.strategy.optimizer_step(optimizer.optimizer, closure=lambda: None, model=self)

    @torch.no_grad()
    def _update_average(self) -> None:
        if self.generator_average is None or self.ema_decay is None:
            return
        # Early on, an average that forgets slowly would be mostly the random initial weights.
        decay = min(self.ema_decay, (1 + self.global_step) / (10 + self.global_step))
        for average, current in zip(self.generator_average.parameters(), self.generator.parameters(), strict=True):
            average.lerp_(current, 1 - decay)
        for buffer, current_buffer in zip(self.generator_average.buffers(), self.generator.buffers(), strict=True):
            buffer.copy_(current_buffer)


class UnconditionalGAN(AdversarialModule):
    """A GAN whose generator turns standard normal latent vectors ``(N, latent_dim)`` into images in [−1, 1].

    Args:
        generator: Network from ``(N, latent_dim)`` to ``(N, *image_shape)`` in [−1, 1].
        discriminator: Network from images in [−1, 1] to whatever the losses ask for.
        image_shape: ``(channels, height, width)``.
        latent_dim: Components of a latent vector.
        **training: Arguments of :class:`AdversarialModule`.
    """

    exports = (Export("generator", "images_of", ("latent",), "image"),)

    def __init__(
        self,
        generator: nn.Module,
        discriminator: nn.Module,
        image_shape: tuple[int, int, int],
        latent_dim: int,
        **training: Any,
    ) -> None:
        super().__init__(generator, discriminator, **training)
        self.image_shape = image_shape
        self.latent_dim = latent_dim

    def setup(self, stage: str) -> None:
        require_image_shape(self, self.image_shape)

    def generate(self, batch: LabeledImages) -> Tensor:
        return self.generator(torch.randn(len(batch.image), self.latent_dim, device=self.device))

    def sample(self, n: int, labels: Tensor | None = None, generator: torch.Generator | None = None) -> Tensor:
        """Draws images, in evaluation mode, with the averaged generator if there is one.

        Args:
            n: How many.
            labels: Must be None; the model has no classes.
            generator: Random generator on the CPU, for the same images on every device; the global one if None.

        Returns:
            ``(n, C, H, W)`` in [0, 1], on the module's device.
        """
        if labels is not None:
            raise ModelError(f"{type(self).__name__} has no classes: leave the labels out.")
        latent = torch.randn(n, self.latent_dim, generator=generator).to(self.device).type(self.dtype)
        with evaluating(self.sampling_generator):
            return self.images_of(latent)

    def forward(self, latent: Tensor) -> Tensor:
        """Images ``(N, C, H, W)`` in [0, 1] of latent vectors ``(N, latent_dim)``: see :meth:`images_of`."""
        return self.images_of(latent)

    def images_of(self, latent: Tensor) -> Tensor:
        """Images ``(N, C, H, W)`` in [0, 1] of latent vectors ``(N, latent_dim)``, by the averaged generator if there
        is one."""
        return (self.sampling_generator(latent) + 1) / 2

    def predict_step(self, request: SampleRequest, batch_idx: int) -> Tensor:
        return self.sample(len(request.number), request.labels, request.generator())


def losses_as_logged(key: str, loss: LossTerms) -> dict[str, Tensor]:
    """The loss under ``key`` and whatever comes with it under its own name in the same stage, as it is logged.

    Example:
        >>> losses_as_logged("train/generator_loss", {"loss": torch.tensor(3.0), "distance": torch.tensor(1.0)})
        {'train/generator_loss': tensor(3.), 'train/distance': tensor(1.)}
    """
    stage = key.split("/")[0]
    values = {"loss": loss} if isinstance(loss, Tensor) else loss
    return {key if name == "loss" else f"{stage}/{name}": value for name, value in values.items()}


@contextmanager
def frozen(network: nn.Module) -> Iterator[None]:
    """Within the block, gradients flow through ``network`` but not to its parameters."""
    parameters = [parameter for parameter in network.parameters() if parameter.requires_grad]
    for parameter in parameters:
        parameter.requires_grad_(False)
    try:
        yield
    finally:
        for parameter in parameters:
            parameter.requires_grad_(True)


@contextmanager
def evaluating(network: nn.Module) -> Iterator[None]:
    """Within the block, ``network`` is in evaluation mode and nothing records gradients."""
    training = network.training
    network.eval()
    try:
        with torch.no_grad():
            yield
    finally:
        network.train(training)


@contextmanager
def batch_statistics(network: nn.Module, images: int | None = None) -> Iterator[None]:
    """Within the block, batch normalization goes by the batch, as in training, and its running means stay.

    Args:
        network: Holds the normalization layers.
        images: Images in the batch. ``BatchNorm1d`` of a single one, which has no variance, goes by the running means.
    """
    norms = [
        module
        for module in network.modules()
        if isinstance(module, nn.modules.batchnorm._BatchNorm) and module.track_running_stats and not module.training
        if images != 1 or not isinstance(module, nn.BatchNorm1d)
    ]
    for norm in norms:
        norm.train()
        norm.track_running_stats = False
    try:
        yield
    finally:
        for norm in norms:
            norm.eval()
            norm.track_running_stats = True

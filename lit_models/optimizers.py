"""Optimizers in the form that configuration files and sweeps like best, and a schedule."""

import math
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.optim import Adam, Optimizer
from torch.optim.lr_scheduler import LambdaLR

if TYPE_CHECKING:
    from lightning.pytorch import Trainer


class FusedAdam(Adam):
    """Adam (Kingma & Ba 2015) with one kernel for all parameters, and a separate argument for each β.

    Args:
        params: The parameters.
        lr: Learning rate.
        beta1: Decay of the running mean of the gradient.
        beta2: Decay of the running mean of the squared gradient.
        eps: Added to the denominator.
        weight_decay: Factor of the L2 penalty.
    """

    def __init__(
        self,
        params: Iterable[Tensor],
        lr: float = 1e-3,
        beta1: float = 0.9,
        beta2: float = 0.999,
        eps: float = 1e-8,
        weight_decay: float = 0.0,
    ) -> None:
        super().__init__(params, lr=lr, betas=(beta1, beta2), eps=eps, weight_decay=weight_decay, fused=True)
        # Lightning clips no gradients in mixed precision that the step itself would unscale.
        self._step_supports_amp_scaling = False

    def _init_group(
        self,
        group: dict[str, Any],
        params: list[Tensor],
        grads: list[Tensor],
        exp_avgs: list[Tensor],
        exp_avg_sqs: list[Tensor],
        *others: list[Tensor],
    ) -> bool:
        """Collects what a step updates, in the memory order of each parameter.

        On a CPU, torch's kernel (2.14) goes through the memory of all four at once. Where their orders differ, as after
        a resume with another ``channels_last``, it mixes up their numbers without a word; on a GPU it refuses them. And
        of parameters in channels-last order it copies each gradient twice, which takes longer than the step. So all are
        brought to the parameter's order, and the kernel gets them with their dimensions in the order of memory.
        """
        is_complex: bool = super()._init_group(group, params, grads, exp_avgs, exp_avg_sqs, *others)
        collected = (params, grads, exp_avgs, exp_avg_sqs)
        for place, parameter in enumerate(params):
            if all(tensors[place].is_contiguous() for tensors in collected):
                continue
            order = sorted(range(parameter.ndim), key=parameter.stride, reverse=True)
            for tensors in collected[1:]:
                if not tensors[place].permute(order).is_contiguous():
                    tensors[place] = torch.empty_like(parameter).copy_(tensors[place])
            self.state[parameter].update(exp_avg=exp_avgs[place], exp_avg_sq=exp_avg_sqs[place])
            if parameter.device.type == "cpu":
                for tensors in collected:
                    tensors[place] = tensors[place].permute(order)
        return is_complex


def one_cycle(step: int, steps: int, warmup: float = 0.3, start: float = 1 / 25) -> float:
    """The learning rate of a step, as a part of the highest one, in Smith & Topin's one cycle (2019,
    https://arxiv.org/abs/1708.07120): up along half a cosine, then down to nothing along another one.

    The values are those of torch's ``OneCycleLR``, which needs the number of steps when it is made: a model
    that asks Lightning for it at that time makes the loader too early for its place in the epoch to be restored.

    Args:
        step: The step, from 0.
        steps: Steps of the training.
        warmup: Part of the steps that goes up.
        start: What the first step has, however many there are.

    Example:
        >>> [round(one_cycle(step, 10), 2) for step in range(10)]
        [0.04, 0.52, 1.0, 0.95, 0.81, 0.61, 0.39, 0.19, 0.05, 0.0]
    """
    if step == 0:
        return start
    top, last = warmup * steps - 1, steps - 1
    if step < top:
        return start + (1 - start) * (1 - math.cos(math.pi * step / top)) / 2
    return (1 + math.cos(math.pi * min(1.0, (step - top) / (last - top)))) / 2


def linear_decay(epoch: int, epochs: int, start: float = 0.5) -> float:
    """The learning rate of an epoch, as a part of the first one: constant, then down a straight line that would reach 0
    after the last epoch (Zhu et al. 2017: 200 epochs, of which the first 100 are constant).

    Args:
        epoch: The epoch, from 0.
        epochs: Epochs of the training.
        start: Part of the epochs that are constant.

    Example:
        >>> [round(linear_decay(epoch, 6), 2) for epoch in range(6)]
        [1.0, 1.0, 1.0, 0.75, 0.5, 0.25]
    """
    constant = math.ceil(start * epochs)
    return 1 - max(0, epoch + 1 - constant) / (epochs - constant + 1)


def with_one_cycle(optimizer: Optimizer, trainer: "Trainer") -> dict[str, Any]:
    """The optimizer with :func:`one_cycle` over all steps of the training, as ``configure_optimizers`` returns it."""

    def factor(step: int) -> float:
        # The number of steps is known when the loader is there; the first step doesn't need it.
        return one_cycle(step, int(trainer.estimated_stepping_batches) if step else 1)

    return {"optimizer": optimizer, "lr_scheduler": {"scheduler": LambdaLR(optimizer, factor), "interval": "step"}}


def decayed_weights(
    module: nn.Module, encoder: nn.Module | None = None, encoder_lr: float | None = None
) -> list[dict[str, Any]]:
    """Parameter groups with weight decay for matrices and kernels only, not for biases and normalization.

    Args:
        module: The model.
        encoder: Its encoder.
        encoder_lr: The encoder's learning rate; the optimizer's if None.
    """
    inside = set() if encoder is None or encoder_lr is None else {id(parameter) for parameter in encoder.parameters()}
    groups = []
    for rate in ({}, {"lr": encoder_lr}) if inside else ({},):
        parameters = [
            parameter
            for parameter in module.parameters()
            if parameter.requires_grad and (id(parameter) in inside) == bool(rate)
        ]
        groups += [
            {"params": [parameter for parameter in parameters if parameter.ndim > 1], **rate},
            {"params": [parameter for parameter in parameters if parameter.ndim <= 1], "weight_decay": 0.0, **rate},
        ]
    return groups


def encoder_groups(module: nn.Module, encoder: nn.Module, encoder_lr: float | None) -> list[Any]:
    """The parameters that learn, those of the encoder at their own rate.

    Args:
        module: The model.
        encoder: Its encoder.
        encoder_lr: The encoder's learning rate; the optimizer's if None, when there are no groups.
    """
    learning = [parameter for parameter in module.parameters() if parameter.requires_grad]
    inside = {id(parameter) for parameter in encoder.parameters()}
    if encoder_lr is None or not any(id(parameter) in inside for parameter in learning):
        return learning
    return [
        {"params": [parameter for parameter in learning if id(parameter) in inside], "lr": encoder_lr},
        {"params": [parameter for parameter in learning if id(parameter) not in inside]},
    ]

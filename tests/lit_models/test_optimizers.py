"""The optimizer in mixed precision and in any memory order; its schedules are tested with the methods that use them."""

from itertools import product

import pytest
import torch
from torch import Tensor
from torch.nn.utils import clip_grad_norm_
from torch.optim import Adam

from lit_models.optimizers import FusedAdam
from tests.support.fixtures import Output, Relit
from tests.support.tiny import assert_refused, quick_run

GRADIENTS = torch.tensor([[3.0, -4.0], [0.1, 0.2], [-30.0, 40.0]])
CLIPPED = quick_run("vae_digits", "--trainer.gradient_clip_val=0.5", "--trainer.precision=bf16-mixed")


def stepped(kind: type[Adam], scaled: bool) -> Tensor:
    """Weights after steps with clipped gradients, which a scaler has multiplied or not."""
    weights = torch.ones(2, requires_grad=True)
    optimizer = kind([weights], lr=0.1)
    scaler = torch.amp.GradScaler("cpu", init_scale=1024.0, enabled=scaled)
    for gradient in GRADIENTS:
        optimizer.zero_grad()
        scaler.scale((weights * gradient).sum()).backward()
        scaler.unscale_(optimizer)
        clip_grad_norm_([weights], 5.0)
        scaler.step(optimizer)
        scaler.update()
    return weights.detach()


def test_clipped_gradients_of_a_scaler_give_adams_steps() -> None:
    torch.testing.assert_close(stepped(FusedAdam, scaled=True), stepped(Adam, scaled=False), rtol=1e-6, atol=1e-6)


def test_a_scalers_infinite_gradient_is_no_step() -> None:
    weights = torch.ones(2, requires_grad=True)
    optimizer, scaler = FusedAdam([weights], lr=0.1), torch.amp.GradScaler("cpu", init_scale=1024.0)
    scaler.scale((weights * torch.inf).sum()).backward()
    scaler.step(optimizer)
    scaler.update()
    assert weights.tolist() == [1.0, 1.0]
    assert scaler.get_scale() == 512.0


@pytest.mark.parametrize("orders", [*product((torch.contiguous_format, torch.channels_last), repeat=3)])
@pytest.mark.parametrize("shape", [(8, 6, 3, 3), (8, 6, 1, 1), (8, 1, 5, 5)])
def test_the_memory_order_of_weights_gradients_and_means_changes_nothing(
    shape: tuple[int, ...], orders: tuple[torch.memory_format, ...]
) -> None:
    """As after a resume in another order. torch's kernel would mix up the numbers of a tensor."""
    draw = torch.Generator().manual_seed(0)
    start, *gradients = torch.randn(5, *shape, generator=draw)
    of_weights, of_gradients, of_means = orders
    weights = torch.nn.Parameter(start.contiguous(memory_format=of_weights))
    optimizer = FusedAdam([weights], lr=0.1, beta1=0.5)
    mean, mean_of_squares, expected = torch.zeros(shape), torch.zeros(shape), start.clone()
    for step, gradient in enumerate(gradients, 1):
        weights.grad = gradient.contiguous(memory_format=of_gradients)
        if step == 3:
            state = optimizer.state_dict()
            for name in ("exp_avg", "exp_avg_sq"):
                state["state"][0][name] = state["state"][0][name].clone(memory_format=of_means)
            optimizer.load_state_dict(state)
        optimizer.step()
        mean = 0.5 * mean + 0.5 * gradient
        mean_of_squares = 0.999 * mean_of_squares + 0.001 * gradient**2
        expected -= 0.1 * mean / (1 - 0.5**step) / ((mean_of_squares / (1 - 0.999**step)).sqrt() + 1e-8)
    torch.testing.assert_close(weights.detach(), expected, rtol=1e-5, atol=1e-6)
    assert weights.is_contiguous(memory_format=of_weights)


def test_gradients_are_clipped_in_bfloat16(relit: Relit) -> None:
    """Those of torch's fused optimizers can't be; resnet18_tiny_imagenet_triplet clips those of this one."""
    assert relit("fit", *CLIPPED, "--trainer.max_steps=2") == 0


def test_a_fused_optimizer_that_cant_be_clipped_is_refused(relit: Relit, capsys: Output) -> None:
    fused = ("--model.optimizer=AdamW", "--model.optimizer.fused=true")
    assert_refused(relit, capsys, "fit", *CLIPPED, *fused, sentence="can't have its gradients clipped in mixed")
    retrain = quick_run("darts_retrain_cifar10_small", "--trainer.precision=bf16-mixed")  # which always clips
    assert_refused(relit, capsys, "fit", *retrain, *fused, sentence="can't have its gradients clipped in mixed")

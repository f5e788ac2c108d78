"""Draws how good DARTS's second-order gradient of the architecture is: finite differences and the exact product,
against automatic differentiation twice, on a network with kinks (ReLU, max-pooling) and on a smooth one (softplus,
average pooling).

    python scripts/analyses/darts_hypergradient.py docs/images/darts_hypergradient.png

Both networks are the supernet of 2 channels and 3 cells on 16x16 images of noise, in float64; for the smooth one ReLU
and max-pooling are replaced. Each point is the term ∇²_{α,w} L_train v of one step, for another random start, in which
w and α have been trained for some steps first.
"""

import argparse
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.func import functional_call
from torch.nn import functional

from lit_models.darts.hypergradient import Tensors, detached, exact_product, finite_difference
from lit_models.darts.supernet import Supernet, statistics_kept

RADII = [10.0**power for power in range(-7, 1)]
PAPER_RADIUS = 0.01


@contextmanager
def smooth_operations() -> Iterator[None]:
    """Within the block, softplus stands for ReLU and average pooling for max-pooling."""
    names: dict[str, Callable[..., Tensor]] = {
        "relu": functional.softplus,
        "max_pool2d": functional.avg_pool2d,
    }
    before = {name: getattr(functional, name) for name in names}
    for name, replacement in names.items():
        setattr(functional, name, replacement)
    try:
        yield
    finally:
        for name, function in before.items():
            setattr(functional, name, function)


def joined(tensors: Tensors) -> Tensor:
    """All values in one vector."""
    return torch.cat([tensor.flatten() for tensor in tensors])


def differentiated_twice(loss: Any, weights: Tensors, alphas: Tensors, vector: Tensors) -> Tensors:
    """∇_α ⟨v, ∇_w L⟩, by torch's own double backward pass."""
    weights, alphas = (tuple(t.requires_grad_() for t in detached(tensors)) for tensors in (weights, alphas))
    gradient = torch.autograd.grad(loss(weights, alphas), weights, create_graph=True)
    return torch.autograd.grad(joined(gradient) @ joined(vector), alphas)


def errors(seed: int, steps: int) -> dict[str, list[float]]:
    """Relative errors of the finite difference at each radius, and of the exact product."""
    torch.manual_seed(seed)
    network = Supernet(1, 4, 2, 3).double()
    names, parameters = zip(*network.named_parameters(), strict=True)
    alphas = tuple((1e-3 * torch.randn(14, 8, dtype=torch.float64)).requires_grad_() for _ in range(2))
    halves = [(torch.rand(16, 1, 16, 16, dtype=torch.float64), torch.randint(4, (16,))) for _ in range(2)]

    def loss_on(image: Tensor, label: Tensor) -> Any:
        def loss(weights: Tensors, alphas: Tensors) -> Tensor:
            logits = functional_call(network, dict(zip(names, weights, strict=True)), (image, *alphas))
            return functional.cross_entropy(logits, label)

        return loss

    train, val = (loss_on(*half) for half in halves)
    optimizer = torch.optim.SGD([*parameters, *alphas], lr=0.025, momentum=0.9)
    with statistics_kept(network):
        for _ in range(steps):
            optimizer.zero_grad()
            train(parameters, alphas).backward()
            optimizer.step()
        vector = torch.autograd.grad(val(parameters, alphas), parameters)
        weights = detached(parameters)
        truth = joined(differentiated_twice(train, weights, alphas, vector))

        def error(found: Tensors) -> float:
            return float((joined(found) - truth).norm() / truth.norm())

        differences = [error(finite_difference(train, weights, alphas, vector, radius)) for radius in RADII]
    with statistics_kept(network, twice_differentiable=True):
        exact = error(exact_product(train, weights, alphas, vector))
    return {"finite_difference": differences, "exact": [exact]}


def draw(found: dict[str, list[dict[str, list[float]]]], path: Path) -> None:
    """Draws the errors against the radius ε‖v‖."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(10, 4.2), layout="constrained")
    for axes, (name, runs) in zip(figure.subplots(1, 2, sharey=True), found.items(), strict=True):
        for number, run in enumerate(runs):
            label = "finite difference" if number == 0 else None
            axes.loglog(RADII, run["finite_difference"], "o-", color="tab:red", alpha=0.6, markersize=4, label=label)
            label = "exact product" if number == 0 else None
            axes.axhline(run["exact"][0], color="tab:blue", alpha=0.6, label=label)
        axes.axvline(PAPER_RADIUS, color="0.5", linestyle=":", label="the paper's radius")
        axes.axhline(1, color="0.8", linewidth=0.8)
        axes.set_title(name)
        axes.set_xlabel("how far w is moved, ε‖v‖")
        axes.grid(alpha=0.3)
    figure.axes[0].set_ylabel("relative error of the second-order term")
    figure.axes[0].legend(loc="lower left", bbox_to_anchor=(0.0, 0.15))
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=80)


def main() -> None:
    """Reads the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("picture", type=Path, help="PNG file to write")
    parser.add_argument("--seeds", type=int, default=4, help="random starts (default: 4)")
    parser.add_argument("--steps", type=int, default=30, help="training steps before (default: 30)")
    args = parser.parse_args()
    found = {"ReLU and max-pooling": [errors(seed, args.steps) for seed in range(args.seeds)]}
    with smooth_operations():
        found["softplus and average pooling"] = [errors(seed, args.steps) for seed in range(args.seeds)]
    draw(found, args.picture)
    at_paper = RADII.index(PAPER_RADIUS)
    for name, runs in found.items():
        differences = ", ".join(f"{run['finite_difference'][at_paper]:.2g}" for run in runs)
        exact = max(run["exact"][0] for run in runs)
        print(f"{name}: relative error of finite differences {differences}; of the exact product at most {exact:.1g}")


if __name__ == "__main__":
    main()

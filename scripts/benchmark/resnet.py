"""The ``resnet`` part of ``benchmark.py``: ResNet18's training on Tiny ImageNet against a bare loop and against the
textbook's, the loaders alone, and the triplet and the center loss against textbook versions.

bf16 is fast only where the processor has instructions for it (``avx512_bf16``, ``amx_bf16``), and is left out without
``--bf16``.
"""

import argparse
import statistics
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from benchmark.data import loader_rates
from benchmark.race import (
    Measure,
    add_common_arguments,
    begin,
    in_new_process,
    print_conditions,
    print_sides,
    print_table,
    race,
    ratio,
    require_data,
    timed,
    write_json,
)
from benchmark.sides import CONFIGS, one_optimizer_loop, relit_fit
from benchmark.textbook import WORKERS, textbook_tiny_imagenet

CLASSES = 200


def our_bare(steps: int, args: argparse.Namespace, bf16: bool) -> Measure:
    """A bare loop of our step, on one batch that is in memory."""

    def measure() -> float:
        import torch
        from torch.nn import functional

        from lit_models import MetricResNet

        torch.manual_seed(0)
        model = MetricResNet(stem=args.stem).to(memory_format=torch.channels_last)
        optimizer = torch.optim.SGD(model.parameters(), lr=1e-3, momentum=0.9)
        image, label = torch.rand(args.batch_size, 3, 64, 64), torch.randint(CLASSES, (args.batch_size,))
        return one_optimizer_loop(optimizer, lambda: functional.cross_entropy(model(image), label), steps, bf16)

    return measure


def textbook(steps: int, args: argparse.Namespace, dataset: Any) -> float:
    """torchvision's ImageFolder with per-image transforms, a DataLoader with 2 workers, torchvision's ResNet18 in
    float32, and values printed in every step."""
    import torch
    from torch import nn
    from torch.utils.data import DataLoader
    from torchvision import transforms
    from torchvision.models import resnet18

    torch.set_num_threads(args.threads)
    torch.manual_seed(0)
    normalize = transforms.Normalize((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
    dataset.transform = transforms.Compose([dataset.transform, normalize])
    network = resnet18(num_classes=CLASSES)
    if args.stem == "3x3":
        network.conv1, network.maxpool = nn.Conv2d(3, 64, 3, padding=1, bias=False), nn.Identity()
    criterion = nn.CrossEntropyLoss()
    optimizer = torch.optim.SGD(network.parameters(), lr=1e-3, momentum=0.9)
    batches = iter(DataLoader(dataset, args.batch_size, shuffle=True, num_workers=WORKERS, drop_last=True))

    def step() -> None:
        image, label = next(batches)
        optimizer.zero_grad()
        output = network(image)
        loss = criterion(output, label)
        loss.backward()
        optimizer.step()
        _ = f"{loss.item():.4f} {(output.argmax(1) == label).float().mean().item():.4f}"  # as printed in the loop

    return timed(step, steps)


# --- the losses, forward and backward ---------------------------------------------------------------------------------


def loss_sides(size: int, dimensions: int) -> dict[str, Callable[[], Any]]:
    """Ours and the textbook's losses of ``size`` embeddings, four of each class, by name."""
    import torch
    from torch.nn import functional

    from lit_models.losses.center import center_loss, moved_by_equation_4
    from lit_models.losses.triplet import batch_hard, distances

    torch.manual_seed(0)
    embedding = torch.randn(size, dimensions, requires_grad=True)
    label = torch.arange(size) // 4
    center = torch.randn(CLASSES, dimensions)
    learned = center.clone().requires_grad_()

    def textbook_triplet() -> Any:
        """A distance for each anchor, and its hardest images by boolean indexing: the loop of most tutorials."""
        losses = []
        for anchor in range(size):
            gap = functional.pairwise_distance(embedding[anchor : anchor + 1], embedding)
            same = label == label[anchor]
            losses.append(functional.relu(gap[same].max() - gap[~same].min() + 0.3))
        return torch.stack(losses).mean()

    def our_center() -> Any:
        loss = center_loss(embedding, label, center)
        center.copy_(moved_by_equation_4(embedding.detach(), label, center, 0.5))
        return loss

    def textbook_center() -> Any:
        """The distances of all images to all learned centers, of which a mask leaves one each."""
        shape = (size, CLASSES)
        distance = embedding.pow(2).sum(1, keepdim=True).expand(shape)
        distance = distance + learned.pow(2).sum(1, keepdim=True).expand(CLASSES, size).t()
        distance = torch.addmm(distance, embedding, learned.t(), beta=1, alpha=-2)
        mask = label.unsqueeze(1).expand(shape).eq(torch.arange(CLASSES).expand(shape))
        return (distance * mask.float()).clamp(min=1e-12, max=1e12).sum() / size

    sides = {
        "triplet, ours": lambda: batch_hard(distances(embedding), label, 0.3).loss,
        "triplet, textbook": textbook_triplet,
        "center, ours": our_center,
        "center, textbook": textbook_center,
    }
    try:
        from pytorch_metric_learning import distances as metrics
        from pytorch_metric_learning import losses, miners, reducers
    except ImportError:
        pass
    else:
        metric = metrics.LpDistance(normalize_embeddings=False)
        miner = miners.BatchHardMiner(distance=metric)
        mined = losses.TripletMarginLoss(margin=0.3, distance=metric, reducer=reducers.MeanReducer())
        sides["triplet, pytorch-metric-learning"] = lambda: mined(embedding, label, miner(embedding, label))
    return sides


def backward_of(loss: Callable[[], Any]) -> Callable[[], None]:
    """One pass forward and backward."""

    def step() -> None:
        loss().backward()

    return step


def loss_milliseconds(args: argparse.Namespace) -> dict[str, list[float]]:
    """Milliseconds, forward and backward, of each side in each round."""

    def measured(name: str, loss: Callable[[], Any]) -> Measure:
        steps = 5 if name == "triplet, textbook" else 30
        return lambda: 1000 / steps * timed(backward_of(loss), steps)

    return race({name: measured(name, loss) for name, loss in loss_sides(256, 512).items()}, args.rounds)


# --- the command line -------------------------------------------------------------------------------------------------


def run_resnet(args: argparse.Namespace) -> None:
    """``benchmark.py resnet``."""
    root = begin(args)
    require_data(root, "tiny-imagenet-200/tiny-imagenet-200.zip")
    with tempfile.TemporaryDirectory() as scratch:
        compare(args, root, textbook_tiny_imagenet(root, Path(scratch)))


def compare(args: argparse.Namespace, root: Path, dataset: Any) -> None:
    """Measures all sides, the textbook's on its own data set, and prints the values."""
    from datamodules import TinyImageNet

    config = [
        *("--config", str(CONFIGS / "resnet18_tiny_imagenet.yaml"), "--trainer.accelerator=cpu"),
        *("--trainer.callbacks=[]", "--trainer.num_sanity_val_steps=0"),
        *(f"--data.root={root}", f"--data.batch_size={args.batch_size}", f"--model.stem={args.stem}"),
        "--data.augmentation=standard",
    ]
    sides = {
        "relit fit": relit_fit(args.steps, *config),
        "bare loop": our_bare(args.steps, args, bf16=False),
        "textbook": lambda: in_new_process(textbook, args.steps, args, dataset),
    }
    if args.bf16:
        sides["relit fit, bf16"] = relit_fit(args.steps, *config, "--trainer.precision=bf16-mixed")
        sides["bare loop, bf16"] = our_bare(args.steps, args, bf16=True)
    print(f"ResNet18, {args.stem} stem, 3x64x64, batch {args.batch_size}, Tiny ImageNet\n")
    seconds = race(sides, args.rounds)
    print_sides(seconds, args.batch_size * args.steps, "images")

    data = TinyImageNet(root=str(root), batch_size=128, augmentation="standard")
    data.prepare_data()
    data.setup("fit")
    rates = loader_rates(data, dataset, args)
    ours, theirs = (statistics.median(rates[side]) for side in ("ours", "textbook"))
    print(f"\nLoaders alone, images/s: ours {ours:,.0f}, textbook {theirs:,.0f}: {ratio(*rates.values()):.1f} times.\n")

    losses = loss_milliseconds(args)
    rows = [(name, f"{statistics.median(times):.2f}") for name, times in losses.items()]
    print_table(("loss of 256 x 512 embeddings, forward and backward", "ms"), rows)
    print_conditions(args)
    write_json(args, seconds=seconds, loaders=[ours, theirs], losses_ms=losses)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The arguments of ``benchmark.py resnet``."""
    add_common_arguments(parser, run_resnet, steps=8, rounds=3)
    parser.add_argument("--stem", choices=["3x3", "7x7"], default="3x3", help="the network's stem (default: 3x3)")
    parser.add_argument("--batch_size", type=int, default=64, help="images in a batch (default: 64)")
    parser.add_argument("--bf16", action="store_true", help="measure bf16, too")
    parser.add_argument("--seconds", type=float, default=3.0, help="of each measurement of a loader (default: 3)")

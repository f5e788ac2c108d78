"""The ``resnet`` part of ``benchmark.py``: ResNet18's training on Tiny ImageNet against a bare loop and against the
textbook's, the loaders alone, and the triplet and the center loss against textbook versions, all in turns.

Every side takes the same number of steps again and again in one process, A B C A B C …, so that a change in the
machine's speed meets all of them; ratios are medians over the rounds. bf16 is fast only where the processor has
instructions for it (``avx512_bf16``, ``amx_bf16``), and is left out without ``--bf16``.
"""

import argparse
import json
import os
import statistics
import sys
import tempfile
import time
import warnings
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import Any

from benchmark_data import WORKERS, our_batches, textbook_batches, textbook_tiny_imagenet
from benchmark_train import CONFIGS, relit_fit, timed

CLASSES = 200


def our_bare(steps: int, args: argparse.Namespace, bf16: bool) -> Callable[[], float]:
    """A bare loop of our step, on one batch that is in memory."""

    def measure() -> float:
        import torch
        from torch.nn import functional

        from lit_models import MetricResNet

        torch.manual_seed(0)
        model = MetricResNet(stem=args.stem).to(memory_format=torch.channels_last)
        optimizer = torch.optim.SGD(model.parameters(), lr=1e-3, momentum=0.9)
        image, label = torch.rand(args.batch_size, 3, 64, 64), torch.randint(CLASSES, (args.batch_size,))

        def step() -> None:
            with torch.autocast("cpu", torch.bfloat16, enabled=bf16):
                score = model(image)
            loss = functional.cross_entropy(score, label)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()

        return timed(step, steps)

    return measure


def textbook(steps: int, args: argparse.Namespace, dataset: Any) -> Callable[[], float]:
    """torchvision's ImageFolder with per-image transforms, a DataLoader with 2 workers, torchvision's ResNet18 in
    float32, figures read off in every step; in a separate process, where nothing has tuned the memory allocation."""

    def measure() -> float:
        with ProcessPoolExecutor(1, get_context("spawn")) as pool:
            return pool.submit(textbook_seconds, steps, args, dataset).result()

    return measure


def textbook_seconds(steps: int, args: argparse.Namespace, dataset: Any) -> float:
    """See :func:`textbook`."""
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


def loader_rates(args: argparse.Namespace, root: Path, dataset: Any) -> tuple[float, float]:
    """Images a second of our training loader (float images, augmented) and of the textbook's, in turns; the first round
    of each isn't counted."""
    import torch

    from datamodules import TinyImageNet

    torch.set_num_threads(args.threads)
    data = TinyImageNet(root=str(root), batch_size=128, augmentation="standard")
    data.prepare_data()
    data.setup("fit")
    ours = our_batches(data)
    theirs = textbook_batches(dataset, 128)
    rates: list[list[float]] = [[], []]
    for _ in range(args.rounds + 1):
        for batches, found in zip((ours, theirs), rates, strict=True):
            images, start = 0, time.perf_counter()
            while time.perf_counter() - start < args.seconds:
                images += next(batches)
            found.append(images / (time.perf_counter() - start))
    theirs.close()  # ends the workers
    return statistics.median(rates[0][1:]), statistics.median(rates[1][1:])


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
    import torch

    torch.set_num_threads(args.threads)
    found: dict[str, list[float]] = {}
    sides = loss_sides(256, 512)
    for _ in range(args.rounds):
        for name, loss in sides.items():
            steps = 5 if name == "triplet, textbook" else 30
            found.setdefault(name, []).append(1000 / steps * timed(backward_of(loss), steps))
    return found


# --- the command line -------------------------------------------------------------------------------------------------


def run_resnet(args: argparse.Namespace) -> None:
    """``benchmark.py resnet``."""
    import torch

    warnings.filterwarnings("ignore")
    torch.set_num_threads(args.threads)
    root = Path(args.root or "").expanduser().absolute()
    if not (root / "tiny-imagenet-200" / "tiny-imagenet-200.zip").is_file():
        sys.exit(f"Not found: {root}/tiny-imagenet-200/tiny-imagenet-200.zip. Set --root or $RELIT_DATA.")
    with tempfile.TemporaryDirectory() as scratch:
        compare(args, root, textbook_tiny_imagenet(root, Path(scratch)))


def compare(args: argparse.Namespace, root: Path, dataset: Any) -> None:
    """Measures all sides, the textbook's on its own data set, and prints the figures."""
    import torch

    config = [
        *("--config", str(CONFIGS / "resnet18_tiny_imagenet.yaml"), "--trainer.accelerator=cpu"),
        *("--trainer.callbacks=null", "--checkpoint.monitor=null", "--trainer.num_sanity_val_steps=0"),
        *(f"--data.root={root}", f"--data.batch_size={args.batch_size}", f"--model.stem={args.stem}"),
        "--data.augmentation=standard",
    ]
    sides = {
        "relit fit": relit_fit(args.steps, *config),
        "bare loop": our_bare(args.steps, args, bf16=False),
        "textbook": textbook(args.steps, args, dataset),
    }
    if args.bf16:
        sides["relit fit, bf16"] = relit_fit(args.steps, *config, "--trainer.precision=bf16-mixed")
        sides["bare loop, bf16"] = our_bare(args.steps, args, bf16=True)
    seconds: dict[str, list[float]] = {name: [] for name in sides}
    for _ in range(args.rounds):
        for name, measure in sides.items():
            seconds[name].append(measure())

    def ratio(a: str, b: str) -> float:
        return statistics.median(x / y for x, y in zip(seconds[a], seconds[b], strict=True))

    print(f"ResNet18, {args.stem} stem, 3x64x64, batch {args.batch_size}, Tiny ImageNet\n")
    print("| side            | images/s | time: ours / this |\n| --------------- | -------: | ----------------: |")
    for name, times in seconds.items():
        side = "relit fit, bf16" if "bf16" in name else "relit fit"
        rate = args.batch_size * args.steps / statistics.median(times)
        print(f"| {name:15} | {rate:8,.1f} | {ratio(side, name):17.2f} |")
    print(f"\nAgainst the textbook, relit fit is {ratio('textbook', 'relit fit'):.2f} times as fast", end="")
    print(f", in bf16 {ratio('textbook', 'relit fit, bf16'):.2f} times." if args.bf16 else ".")

    ours, theirs = loader_rates(args, root, dataset)
    print(f"Loaders alone, images/s: ours {ours:,.0f}, textbook {theirs:,.0f}: {ours / theirs:.1f} times as fast.\n")

    losses = loss_milliseconds(args)
    print("| loss of 256 x 512 embeddings, forward and backward | ms |\n| --- | ---: |")
    for name, times in losses.items():
        print(f"| {name} | {statistics.median(times):.2f} |")
    print(
        f"\nMedians of {args.rounds} rounds of {args.steps} steps each, in turns, {args.threads} threads on "
        f"{os.cpu_count()} processors, torch {torch.__version__}."
    )
    if args.json:
        figures = {"steps": args.steps, "batch_size": args.batch_size, "stem": args.stem, "seconds": seconds}
        args.json.write_text(json.dumps({**figures, "loaders": [ours, theirs], "losses_ms": losses}, indent=1))


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The arguments of ``benchmark.py resnet``."""
    parser.add_argument(
        "--root", type=Path, default=os.environ.get("RELIT_DATA"), help="folder of all data sets (default: $RELIT_DATA)"
    )
    parser.add_argument("--stem", choices=["3x3", "7x7"], default="3x3", help="the network's stem (default: 3x3)")
    parser.add_argument("--batch_size", type=int, default=64, help="images in a batch (default: 64)")
    parser.add_argument("--bf16", action="store_true", help="measure bf16, too")
    parser.add_argument("--steps", type=int, default=8, help="steps of each measurement (default: 8)")
    parser.add_argument("--rounds", type=int, default=3, help="measurements of each side (default: 3)")
    parser.add_argument("--seconds", type=float, default=3.0, help="of each measurement of a loader (default: 3)")
    parser.add_argument("--threads", type=int, default=os.cpu_count(), help="threads (default: all processors)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures to this file, too")
    parser.set_defaults(run=run_resnet)

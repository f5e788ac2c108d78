"""The ``scale`` part of ``benchmark.py``: what more processes bring, measured here with two and computed for clusters.

**Measured**, for each method on random images, by `relit fit` itself: one process; two that know nothing of each other;
two that train one model by DDP. The latter two compete for the same processors and memory, so that the share of the
time of a step that DDP adds is that of communication (and of waiting for each other), however few processors there are.

**Computed**, for the configurations as they are: all gradients go through an all-reduce in each backward pass. By a
ring each of n processes sends 2 (n − 1) / n times the gradients' bytes (Patarasuk & Yuan 2009), in buckets of 25 MiB
(Li et al. 2020, https://arxiv.org/abs/2006.15704), of which each costs its latency, too. The time of a step on one GPU
is estimated by the floating-point operations and the number of operations of a real step. The efficiency lies between
that of communication after the step and that of communication within the backward pass, for half of the step.
"""

import argparse
import math
import os
import shutil
import statistics
import tempfile
import time
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from typing import Any, ClassVar

import torch
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.utilities import rank_zero_only
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import flop_registry

from benchmark.race import WARM_UP, add_common_arguments, begin, print_table, race, ratio, write_json
from benchmark.sides import CONFIGS, Observer, fit_with
from datamodules import Episodes, ImageDataModule, ImagePair, LabeledImages, SearchBatch
from datamodules.loading.tensors import GatherDataset
from tests.methods import METHODS
from tests.support.small_data import write_autoencoder

MEBI = 1 << 20


class RandomImages(ImageDataModule):
    """Noise, of any shape.

    Args:
        image_size: Height and width.
        channels: Channels.
        num_classes: Classes, of which each has 64 images for training and 16 for validation and test each.
        root: Not used.
        batch_size: Images in a training batch of one process.
        eval_batch_size: Images in an evaluation batch of one process.
    """

    name = "random"

    def __init__(
        self,
        image_size: int = 32,
        channels: int = 1,
        num_classes: int = 10,
        root: str | None = None,
        batch_size: int = 64,
        eval_batch_size: int | None = None,
    ) -> None:
        super().__init__(root, batch_size, eval_batch_size)
        self.image_shape = (channels, image_size, image_size)
        self.num_classes = num_classes

    def setup(self, stage: str) -> None:
        generator = torch.Generator().manual_seed(0)
        size = 96 * self.num_classes
        image = torch.randint(256, (size, *self.image_shape), dtype=torch.uint8, generator=generator)
        columns = LabeledImages(image, torch.arange(size) % self.num_classes)
        parts = torch.arange(size).split([64 * self.num_classes, 16 * self.num_classes, 16 * self.num_classes])
        self.train_set, self.val_set, self.test_set = (GatherDataset(columns, rows) for rows in parts)
        self.predict_set = self.test_set


class RandomPairs(RandomImages):
    """Noise as targets of noise.

    Args:
        image_size: Height and width.
        channels: Channels.
        batch_size: Pairs in a training batch of one process.
        **options: Further arguments of :class:`RandomImages`.
    """

    def __init__(self, image_size: int = 256, channels: int = 3, batch_size: int = 1, **options: Any) -> None:
        super().__init__(image_size, channels, num_classes=1, batch_size=batch_size, **options)

    def setup(self, stage: str) -> None:
        super().setup(stage)
        for split in ("train_set", "val_set", "test_set", "predict_set"):
            images: GatherDataset[LabeledImages] = getattr(self, split)
            pairs = ImagePair(images.columns.image, images.columns.image.flip(0))
            setattr(self, split, GatherDataset(pairs, images.rows))


def arguments_of(method: str, batch_size: int | None, checkpoint: Path, small: bool = False) -> list[str]:
    """The arguments of `relit fit` for a method's experiment on random images."""
    import yaml

    record, scale = METHODS[method], METHODS[method].scale
    path = CONFIGS / f"{scale.config}.yaml"
    model = yaml.safe_load(path.read_text(encoding="utf-8"))["model"]["init_args"]
    shape = {name: model[name] for name in ("image_size", "channels", "num_classes") if name in model}
    if record.batch == "episodes":
        shape["num_classes"] = 200
    prefix = "--data.images" if scale.wrapper else "--data"
    data = [f"--data={scale.wrapper}"] if scale.wrapper else []
    data += [f"{prefix}={__name__}.{'RandomPairs' if scale.pairs else 'RandomImages'}"]
    data += [f"{prefix}.{name}={value}" for name, value in shape.items()]
    if batch_size is not None and record.batch not in ("episodes", "folded images"):
        data.append(f"--data.batch_size={batch_size}")
    if record.starts_from:
        data.append(f"--model.{record.starts_from}={checkpoint}")
    return [
        *("--config", str(path), *data, *(scale.small if small else ())),
        *("--trainer.accelerator=cpu", "--trainer.callbacks=[]", "--trainer.enable_checkpointing=false"),
        *("--trainer.limit_val_batches=0", "--trainer.enable_progress_bar=false"),
        "--trainer.enable_model_summary=false",
    ]


# --- measured ---------------------------------------------------------------------------------------------------------


class Stopwatch(Observer):
    """Times some batches, which two processes begin at the same moment, and stops; counts the images of the last."""

    steps: ClassVar[int]
    begin: ClassVar[Any]

    def __init__(self) -> None:
        super().__init__()
        self.seen, self.seconds, self.images = 0, 0.0, 0

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        self.seen += 1
        if self.seen == WARM_UP:
            self.begin.wait()
            self.seconds = -time.perf_counter()
        elif self.seen == WARM_UP + self.steps:
            self.seconds += time.perf_counter()
            self.images = images_in(batch)
            trainer.should_stop = True


def images_in(batch: Any) -> int:
    """How many images a training batch holds, whatever its kind; of pairs the sources, of DARTS's two batches the one
    of the weights."""
    parts = batch if isinstance(batch, Episodes) else batch[0] if isinstance(batch, SearchBatch) else batch[:1]
    images = [part for part in parts if part.is_floating_point()]
    return sum(math.prod(part.shape[:-3]) if part.ndim > 2 else len(part) for part in images)


def seconds(
    arguments: list[str], steps: int, processes: int, together: bool, strategy: str = "auto"
) -> tuple[float, int]:
    """Seconds for ``steps`` batches of each of some processes, as one DDP run or as separate runs; and the images
    in a batch of one process."""
    context = get_context("fork")
    begin, found = context.Barrier(processes), context.SimpleQueue()

    def work(rank: int, folder: str) -> None:
        os.environ.update(MASTER_ADDR="127.0.0.1", MASTER_PORT=str(port))
        if together:
            os.environ.update(LOCAL_RANK=str(rank), RELIT_RUN_FOLDER=f"{folder}/run")
            rank_zero_only.rank = rank  # type: ignore[attr-defined]  # Lightning has read it before the fork
        torch.set_num_threads(1)
        Stopwatch.steps, Stopwatch.begin = steps, begin
        devices = processes if together else 1
        chosen = strategy if together else "auto"
        given = [*arguments, f"--trainer.devices={devices}", f"--trainer.strategy={chosen}"]
        watch = fit_with(Stopwatch, given, f"{folder}/{rank}")
        found.put((watch.seconds, watch.images))

    port = 20_000 + os.getpid() % 10_000
    folder = tempfile.mkdtemp()
    Path(folder, "run").mkdir()
    try:
        started = [context.Process(target=work, args=(rank, folder)) for rank in range(processes)]
        for process in started:
            process.start()
        for process in started:
            process.join()
        if any(process.exitcode != 0 for process in started):
            raise SystemExit("A process has failed.")
        return max(found.get() for _ in started)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def measure(args: argparse.Namespace, checkpoint: Path) -> dict[str, dict[str, float]]:
    """Prints and returns, for each method, what two processes bring here."""
    results, rows = {}, []
    for method in args.methods:
        arguments = arguments_of(method, args.batch_size, checkpoint, small=args.sizes == "small")
        processes = {"alone": (1, False), "apart": (2, False), "together": (2, True)}
        sides = {
            side: partial(seconds, arguments, args.steps, *how, strategy=args.strategy)
            for side, how in processes.items()
        }
        found = race(sides, args.rounds)
        size = found["together"][-1][1]
        times = {side: [taken for taken, _ in measurements] for side, measurements in found.items()}
        alone, apart, together = (statistics.median(times[side]) / args.steps for side in sides)
        share = 1 - ratio(times["apart"], times["together"])
        results[method] = {"alone": alone, "apart": apart, "together": together, "share": share}
        speeds = (f"{images / step:,.0f}" for images, step in ((size, alone), (2 * size, together), (2 * size, apart)))
        rows.append((method, str(size), *speeds, f"{100 * share:.0f} %"))
    header = ("method", "batch", "1 process, images/s", "2 processes", "of two alone", "share of communication")
    print_table(header, rows)
    return results


# --- computed ---------------------------------------------------------------------------------------------------------


class Operations(TorchDispatchMode):
    """Counts the operations on tensors, each of which is a kernel on a GPU (views are none), and the floating-point
    operations of convolutions and matrix products."""

    def __init__(self) -> None:
        super().__init__()
        self.count = self.flops = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        self.count += not func.is_view
        if formula := flop_registry.get(func._overloadpacket):
            self.flops += formula(*args, **(kwargs or {}), out_val=result)
        return result


class CountedStep(Observer):
    """Counts what the second batch takes (in the first, optimizers make their state), and stops."""

    def __init__(self) -> None:
        super().__init__()
        self.flops = self.operations = self.images = self.parameters = self.passes = 0
        self._counter: Operations | None = None

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self.parameters = sum(p.numel() for p in pl_module.parameters() if p.requires_grad)
        backward = pl_module.manual_backward

        def counted(*arguments: Any, **options: Any) -> None:
            self.passes += self._counter is not None
            backward(*arguments, **options)

        pl_module.manual_backward = counted  # type: ignore[method-assign]

    @property
    def counts(self) -> bool:
        """Whether the batch that is counted is running."""
        return self._counter is not None

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        if batch_idx == 1:
            self.images = images_in(batch)
            self._counter = Operations()
            self._counter.__enter__()

    def on_train_batch_end(self, trainer: Trainer, pl_module: LightningModule, *_: Any) -> None:
        if self._counter is not None:
            self._counter.__exit__(None, None, None)
            self.flops, self.operations = self._counter.flops, self._counter.count
            self.passes = max(self.passes, 1)
            self._counter = None
            trainer.should_stop = True


def compute(args: argparse.Namespace, checkpoint: Path) -> dict[str, dict[str, float]]:
    """Prints and returns, for each method, what a step sends and how efficient clusters should be."""
    import yaml

    print(
        f"\nAssumed: {args.tflops:g} TFLOP/s and {args.launch_us:g} µs for each operation, whichever takes longer; for "
        f"all-reduce {args.bandwidth[0]:g} GB/s and {args.latency_us[0]:g} µs between 8 GPUs of a node, "
        f"{args.bandwidth[1]:g} GB/s and {args.latency_us[1]:g} µs a GPU between 8 nodes.\n"
    )
    results, rows = {}, []
    for method in args.methods:
        path = CONFIGS / f"{METHODS[method].scale.config}.yaml"
        published = yaml.safe_load(path.read_text(encoding="utf-8"))["data"]["init_args"].get("batch_size")
        counted = min(args.counted_batch_size, published or args.counted_batch_size)
        with tempfile.TemporaryDirectory() as folder:
            count = fit_with(CountedStep, arguments_of(method, counted, checkpoint), folder)
        batch = published or count.images
        flops = count.flops / count.images * batch
        step = max(flops / (args.tflops * 1e12), count.operations * args.launch_us * 1e-6)
        gradients = 4 * count.parameters
        # The first bucket is of 1 MiB, so that its all-reduce can begin early.
        buckets = 1 + math.ceil(max(0, gradients - MEBI) / (25 * MEBI))
        efficiency = []
        for gpus, bandwidth, latency in zip((8, 64), args.bandwidth, args.latency_us, strict=True):
            sent = 2 * (gpus - 1) / gpus * gradients * count.passes
            communication = sent / (bandwidth * 1e9) + count.passes * buckets * latency * 1e-6
            efficiency.append((step / (step + communication), step / (step + max(0.0, communication - step / 2))))
        sent = 2 * 7 / 8 * gradients * count.passes
        results[method] = {"parameters": count.parameters, "flops": flops, "operations": count.operations, "step": step}
        ranges = [f"{100 * low:.0f}–{100 * high:.0f} %" for low, high in efficiency]
        counts = (f"{count.parameters / 1e6:.2f}", str(batch), str(count.passes), str(buckets))
        rows.append((method, *counts, f"{sent / 1e6:.1f}", f"{1000 * step:.1f}", *ranges))
    header = ("method", "parameters / M", "batch", "backward passes", "buckets", "sent by each of 8 GPUs / MB")
    print_table((*header, "step / ms", "efficiency, 8 GPUs", "64 GPUs"), rows)
    return results


def run_scale(args: argparse.Namespace) -> None:
    """``benchmark.py scale``."""
    begin(args)
    with tempfile.TemporaryDirectory() as folder:
        checkpoint = write_autoencoder(Path(folder, "autoencoder.ckpt"), latent_dim=64, feature_maps=16)
        results = {}
        if args.part in ("measured", "both"):
            results["measured"] = measure(args, checkpoint)
            print(
                f"\n{args.sizes.capitalize()} sizes. Medians of {args.rounds} rounds of {args.steps} batches each, in "
                "turns, one thread a process, on "
                f"{len(os.sched_getaffinity(0))} of {os.cpu_count()} processors, torch {torch.__version__}, gloo."
            )
        if args.part in ("computed", "both"):
            results["computed"] = compute(args, checkpoint)
    write_json(args, **results)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The arguments of ``benchmark.py scale``."""
    add_common_arguments(parser, run_scale, steps=10, rounds=3)
    parser.set_defaults(threads=1)  # a process
    parser.add_argument("--methods", nargs="+", choices=METHODS, default=list(METHODS), help="which (default: all)")
    parser.add_argument(
        "--sizes",
        choices=("small", "published"),
        default="small",
        help="of the networks measured; the published ones take up to some 20 s a batch (default: small)",
    )
    parser.add_argument("--part", choices=("measured", "computed", "both"), default="both", help="(default: both)")
    parser.add_argument("--batch_size", type=int, default=16, help="images of one process, measured (default: 16)")
    parser.add_argument(
        "--strategy",
        default="auto",
        help="of two processes, such as ddp_find_unused_parameters_true to see what that costs a method that doesn't "
        "need it (default: what the method needs)",
    )
    parser.add_argument("--counted_batch_size", type=int, default=4, help="images to count operations by (default: 4)")
    parser.add_argument("--tflops", type=float, default=30.0, help="a GPU's, sustained, in 10¹² a second (default: 30)")
    parser.add_argument("--launch_us", type=float, default=5.0, help="least time of an operation in µs (default: 5)")
    parser.add_argument(
        "--bandwidth", type=float, nargs=2, default=[200.0, 20.0], help="GB/s, in a node and between nodes (200 20)"
    )
    parser.add_argument(
        "--latency_us", type=float, nargs=2, default=[30.0, 100.0], help="of an all-reduce, in µs (default: 30 100)"
    )

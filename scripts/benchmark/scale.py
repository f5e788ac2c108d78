"""The ``scale`` part of ``benchmark.py``: what more processes bring, measured here with two and computed for clusters.

**Measured**, for each method on random images, by `relit fit` itself: one process; two that know nothing of each other;
two that train one model by DDP. The latter two compete for the same processors and memory, so that the share of the
time of a step that DDP adds is that of communication (and of waiting for each other), however few processors there are.

As a check, the table also has what :mod:`benchmark.estimate` predicts of the same steps on this machine.

**Computed**, for the configurations as they are: the images a second of one GPU and of more, by the operations, the
bytes and the gradients of a real step.
"""

import argparse
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
from torch import distributed

from benchmark.estimate import (
    MEBI,
    CountedStep,
    Machine,
    Network,
    buckets_of,
    efficiencies,
    exchange_seconds,
    images_in,
    measured_machine,
    network_of,
    step_seconds,
)
from benchmark.race import WARM_UP, add_common_arguments, begin, print_table, race, ratio, write_json
from benchmark.sides import CONFIGS, Observer, fit_with
from datamodules import ImageDataModule, ImagePair, LabeledImages
from datamodules.loading.tensors import GatherDataset
from tests.methods import METHODS
from tests.support.small_data import write_autoencoder


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
    machine, network = measured_machine(args.loop_ms / 1000), measured_network()
    print(
        f"This machine, one thread: {machine.flops / 1e9:,.0f} GFLOP/s, {machine.bandwidth / 1e9:.0f} GB/s, "
        f"{1e6 * machine.start:.0f} µs for each operation, {args.loop_ms:g} ms for each step. Between two processes: "
        f"{network.bandwidth / 1e9:.2f} GB/s, {1e6 * network.latency:.0f} µs.\n"
    )
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
        with tempfile.TemporaryDirectory() as folder:
            count = fit_with(CountedStep, arguments, folder)
        step = step_seconds(count.work, machine)
        predicted = 1 - efficiencies(step, exchange_seconds(4 * count.parameters, count.passes, 2, network))[0]
        results[method] = {
            "alone": alone,
            "apart": apart,
            "together": together,
            "share": share,
            "predicted_alone": step,
            "predicted_share": predicted,
        }
        speeds = (f"{images / one:,.0f}" for images, one in ((size, alone), (2 * size, together), (2 * size, apart)))
        rows.append(
            (method, str(size), *speeds, f"{100 * share:.0f} %", f"{size / step:,.0f}", f"{100 * predicted:.0f} %")
        )
    header = ("method", "batch", "1 process, images/s", "2 processes", "of two alone", "share of communication")
    print_table((*header, "predicted: 1 process, images/s", "share of communication"), rows)
    return results


def measured_network() -> Network:
    """What connects two processes by gloo here."""
    sizes = (4, 25 * MEBI)
    context = get_context("fork")
    found = context.SimpleQueue()

    def work(rank: int) -> None:
        torch.set_num_threads(1)
        place = f"tcp://127.0.0.1:{20_000 + (os.getppid() + 1) % 10_000}"
        distributed.init_process_group("gloo", place, rank=rank, world_size=2)
        quickest = []
        for size in sizes:
            gradients = torch.zeros(size // 4)
            taken = []
            for _ in range(6):
                distributed.barrier()
                began = time.perf_counter()
                distributed.all_reduce(gradients)
                taken.append(time.perf_counter() - began)
            quickest.append(min(taken))
        distributed.destroy_process_group()
        if rank == 0:
            found.put(quickest)

    started = [context.Process(target=work, args=(rank,)) for rank in range(2)]
    for process in started:
        process.start()
    for process in started:
        process.join()
    if any(process.exitcode != 0 for process in started):
        raise SystemExit("Two processes can't be connected by gloo here.")
    small, large = found.get()
    return network_of(small, large, sizes)


# --- computed --------------------------------------------------------------------------------------------------------


def compute(args: argparse.Namespace, checkpoint: Path) -> dict[str, dict[str, float]]:
    """Prints and returns, for each method, how fast GPUs should be and what a step sends."""
    import yaml

    machine = Machine(1e12 * args.tflops, 1e9 * args.memory_bandwidth, 1e-6 * args.launch_us)
    networks = [
        Network(1e9 * bandwidth, 1e-6 * latency)
        for bandwidth, latency in zip(args.bandwidth, args.latency_us, strict=True)
    ]
    print(
        f"\nAssumed: {args.tflops:g} TFLOP/s, {args.memory_bandwidth:g} GB/s or {args.launch_us:g} µs for each "
        f"operation, whichever takes longest; for all-reduce {args.bandwidth[0]:g} GB/s and {args.latency_us[0]:g} µs "
        f"between 8 GPUs of a node, {args.bandwidth[1]:g} GB/s and {args.latency_us[1]:g} µs a GPU between 8 nodes.\n"
    )
    results, rows = {}, []
    for method in args.methods:
        path = CONFIGS / f"{METHODS[method].scale.config}.yaml"
        published = yaml.safe_load(path.read_text(encoding="utf-8"))["data"]["init_args"].get("batch_size")
        counted = min(args.counted_batch_size, published or args.counted_batch_size)
        with tempfile.TemporaryDirectory() as folder:
            count = fit_with(CountedStep, arguments_of(method, counted, checkpoint), folder)
        batch = published or count.images
        batches = batch / count.images
        step = step_seconds(count.work, machine, batches)
        gradients = 4 * count.parameters
        memory = sum(one.batch_bytes * batches + one.fixed_bytes for one in count.work)
        results[method] = {
            "parameters": count.parameters,
            "flops": count.flops * batches,
            "bytes": memory,
            "operations": len(count.work),
            "step": step,
        }
        columns = []
        for gpus, network in zip((8, 64), networks, strict=True):
            low, high = efficiencies(step, exchange_seconds(gradients, count.passes, gpus, network))
            columns += [f"{_rounded(gpus * batch * low / step)}–{_rounded(gpus * batch * high / step)}"]
            columns += [f"{100 * low:.0f}–{100 * high:.0f} %"]
        sent = 2 * 7 / 8 * gradients * count.passes
        counts = (f"{count.parameters / 1e6:.2f}", str(batch), str(count.passes), str(buckets_of(gradients)))
        work = (_rounded(count.flops * batches / 1e9, 3), _rounded(memory / 1e9, 3), f"{len(count.work):,}")
        speed = (f"{1000 * step:.1f}", _rounded(batch / step))
        rows.append((method, *counts, f"{sent / 1e6:.1f}", *work, *speed, *columns))
    header = ("method", "parameters / M", "batch", "backward passes", "buckets", "sent by each of 8 GPUs / MB")
    step_columns = ("GFLOP", "GB", "operations", "step / ms", "1 GPU, images/s")
    print_table((*header, *step_columns, "8 GPUs", "efficiency", "64 GPUs", "efficiency"), rows)
    return results


def _rounded(value: float, digits: int = 2) -> str:
    rounded = float(f"{value:.{digits}g}")
    return f"{rounded:,.0f}" if rounded >= 100 else f"{rounded:g}"


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
    parser.add_argument("--memory_bandwidth", type=float, default=1000.0, help="a GPU's, in GB/s (default: 1000)")
    parser.add_argument("--loop_ms", type=float, default=4.0, help="of Lightning's loop in a step here (default: 4)")
    parser.add_argument("--launch_us", type=float, default=5.0, help="least time of an operation in µs (default: 5)")
    parser.add_argument(
        "--bandwidth", type=float, nargs=2, default=[200.0, 20.0], help="GB/s, in a node and between nodes (200 20)"
    )
    parser.add_argument(
        "--latency_us", type=float, nargs=2, default=[30.0, 100.0], help="of an all-reduce, in µs (default: 30 100)"
    )

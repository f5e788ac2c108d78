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
import json
import math
import os
import shutil
import statistics
import tempfile
import time
import warnings
from contextlib import redirect_stderr, redirect_stdout
from io import StringIO
from multiprocessing import get_context
from pathlib import Path
from typing import Any, NamedTuple, cast

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.utilities import rank_zero_only
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import flop_registry

from datamodules import Episodes, ImageDataModule, ImagePair, LabeledImages, SearchBatch
from datamodules.loading.tensors import GatherDataset

CONFIGS = Path(__file__).parents[1] / "configs"
WARM_UP = 3
MEBI = 1 << 20


class Experiment(NamedTuple):
    """A method's published configuration, and how to run it quickly on noise."""

    config: str
    small: tuple[str, ...] = ()
    """Arguments for networks of which a batch takes a processor less than about half a second."""
    wrapper: str | None = None
    """The data module that wraps the images, if one does."""
    data: str = "RandomImages"


NARROW = ("--model.feature_maps=16",)
SMALL_PAIRS = (
    *("--model.image_size=64", "--data.image_size=64", "--model.patch_size=34"),
    *("--model.feature_maps=8", "--model.discriminator_feature_maps=8"),
)
EXPERIMENTS = {
    "ConditionalGAN": Experiment("conditional_gan_mnist", NARROW),
    "CycleGAN": Experiment("cyclegan_maps", (*SMALL_PAIRS, "--model.blocks=3"), data="RandomPairs"),
    "DARTSRetrain": Experiment("darts_retrain_cifar10", ("--model.init_channels=4", "--model.layers=5")),
    "DARTSSearch": Experiment(
        "darts_search_cifar10", ("--model.init_channels=4", "--model.layers=3"), "SearchDataModule"
    ),
    "DCGAN": Experiment("dcgan_mnist", NARROW),
    "DenoisingAutoencoder": Experiment("autoencoder_mnist"),
    "DigitClassifier": Experiment("digit_classifier_mnist"),
    "LatentGAN": Experiment("latent_gan_mnist"),
    "LayerwiseMLP": Experiment("layerwise_mlp_cifar10"),
    "MetricResNet": Experiment("resnet18_tiny_imagenet", NARROW),
    "Pix2Pix": Experiment("pix2pix_maps", SMALL_PAIRS, data="RandomPairs"),
    "ProtoNet": Experiment("protonet_omniglot_5way1shot", (*NARROW, "--data.n_way=20"), "EpisodeDataModule"),
    "SNGAN": Experiment("sngan_mnist", NARROW),
    "TransferClassifier": Experiment("transfer_mnist_mlp_finetuned", (), "FewLabels"),
    "TripletGAN": Experiment("triplet_gan_mnist", NARROW),
    "VAE": Experiment("vae_mnist"),
    "WGAN": Experiment("wgan_gp_mnist", NARROW),
}


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

    config, smaller, wrapper, noise = EXPERIMENTS[method]
    path = CONFIGS / f"{config}.yaml"
    model = yaml.safe_load(path.read_text(encoding="utf-8"))["model"]["init_args"]
    shape = {name: model[name] for name in ("image_size", "channels", "num_classes") if name in model}
    if method == "ProtoNet":
        shape["num_classes"] = 200
    prefix = "--data.images" if wrapper else "--data"
    data = [f"--data={wrapper}"] if wrapper else []
    data += [f"{prefix}={__name__}.{noise}"]
    data += [f"{prefix}.{name}={value}" for name, value in shape.items()]
    if batch_size is not None and method not in ("ProtoNet", "TransferClassifier"):
        data.append(f"--data.batch_size={batch_size}")
    if method in ("LatentGAN", "TransferClassifier"):
        data.append(f"--model.{'decoder' if method == 'LatentGAN' else 'encoder'}_checkpoint={checkpoint}")
    return [
        *("fit", "--config", str(path), *data, *(smaller if small else ())),
        *("--trainer.accelerator=cpu", "--trainer.callbacks=null", "--trainer.enable_checkpointing=false"),
        *("--trainer.limit_val_batches=0", "--trainer.enable_progress_bar=false"),
        "--trainer.enable_model_summary=false",
    ]


def autoencoder_checkpoint(folder: Path) -> Path:
    """A checkpoint of an untrained autoencoder, for the methods that start from one."""
    import lightning

    from lit_models import DenoisingAutoencoder

    model = DenoisingAutoencoder(feature_maps=16)
    content = {
        "pytorch-lightning_version": lightning.__version__,
        "state_dict": model.state_dict(),
        "hyper_parameters": dict(model.hparams),
    }
    torch.save(content, folder / "autoencoder.ckpt")
    return folder / "autoencoder.ckpt"


# --- measured ---------------------------------------------------------------------------------------------------------


class Clock(Callback):
    """Times some batches, which two processes begin at the same moment, and stops; counts the images of the last."""

    def __init__(self, steps: int, begin: Any) -> None:
        self.steps, self.begin = steps, begin
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


def fit(arguments: list[str], callback: Callback, root: str) -> None:
    """Runs `relit fit` in this process with one more callback."""
    from lit_models.cli import command as cli

    instantiate = cli.RelitCLI.instantiate_trainer

    def with_callback(self: cli.RelitCLI, **kwargs: Any) -> Any:
        trainer = instantiate(self, **kwargs)
        cast(Any, trainer).callbacks.append(callback)
        return trainer

    cli.RelitCLI.instantiate_trainer = with_callback  # type: ignore[method-assign]
    told = StringIO()
    try:
        with redirect_stderr(told), redirect_stdout(told):
            code = cli.run([*arguments, f"--run.root={root}"])
    finally:
        cli.RelitCLI.instantiate_trainer = instantiate  # type: ignore[method-assign]
    if code != 0:
        raise SystemExit(f"relit {' '.join(arguments)} failed:\n{told.getvalue()}")


def seconds(
    arguments: list[str], steps: int, processes: int, together: bool, strategy: str = "auto"
) -> tuple[float, int]:
    """Seconds for ``steps`` batches of each of some processes, as one DDP run or as runs of their own; and the images
    in a batch of one process."""
    context = get_context("fork")
    begin, found = context.Barrier(processes), context.SimpleQueue()

    def work(rank: int, folder: str) -> None:
        os.environ.update(MASTER_ADDR="127.0.0.1", MASTER_PORT=str(port))
        if together:
            os.environ.update(LOCAL_RANK=str(rank), RELIT_RUN_FOLDER=f"{folder}/run")
            rank_zero_only.rank = rank  # type: ignore[attr-defined]  # Lightning has read it before the fork
        torch.set_num_threads(1)
        clock = Clock(steps, begin)
        devices = processes if together else 1
        chosen = strategy if together else "auto"
        fit([*arguments, f"--trainer.devices={devices}", f"--trainer.strategy={chosen}"], clock, f"{folder}/{rank}")
        found.put((clock.seconds, clock.images))

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
    print(
        "| method | batch | 1 process, images/s | 2 processes | of two alone | share of communication |\n"
        "| --- | ---: | ---: | ---: | ---: | ---: |"
    )
    results = {}
    for method in args.methods:
        arguments = arguments_of(method, args.batch_size, checkpoint, small=args.sizes == "small")
        sides = {"alone": (1, False), "apart": (2, False), "together": (2, True)}
        times: dict[str, list[float]] = {side: [] for side in sides}
        for _ in range(args.rounds):
            for side, (processes, together) in sides.items():
                taken, size = seconds(arguments, args.steps, processes, together, args.strategy)
                times[side].append(taken)
        alone, apart, together_ = (statistics.median(times[side]) / args.steps for side in sides)
        share = statistics.median(1 - a / t for a, t in zip(times["apart"], times["together"], strict=True))
        results[method] = {"alone": alone, "apart": apart, "together": together_, "share": share}
        print(
            f"| {method} | {size} | {size / alone:,.0f} | {2 * size / together_:,.0f} | "
            f"{2 * size / apart:,.0f} | {100 * share:.0f} % |",
            flush=True,
        )
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


class CountedStep(Callback):
    """Counts what the second batch takes (in the first, optimizers make their state), and stops."""

    def __init__(self) -> None:
        self.flops = self.operations = self.images = self.parameters = self.passes = 0
        self._counter: Operations | None = None

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self.parameters = sum(p.numel() for p in pl_module.parameters() if p.requires_grad)
        backward = pl_module.manual_backward

        def counted(*arguments: Any, **options: Any) -> None:
            self.passes += self._counter is not None
            backward(*arguments, **options)

        pl_module.manual_backward = counted  # type: ignore[method-assign]

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
        f"{args.bandwidth[1]:g} GB/s and {args.latency_us[1]:g} µs a GPU between 8 nodes.\n\n"
        "| method | parameters / M | batch | backward passes | buckets | sent by each of 8 GPUs / MB | step / ms | "
        "efficiency, 8 GPUs | 64 GPUs |\n| --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: |"
    )
    results = {}
    for method in args.methods:
        count = CountedStep()
        with tempfile.TemporaryDirectory() as folder:
            fit(arguments_of(method, args.counted_batch_size, checkpoint), count, folder)
        data = yaml.safe_load((CONFIGS / f"{EXPERIMENTS[method].config}.yaml").read_text(encoding="utf-8"))["data"][
            "init_args"
        ]
        batch = data.get("batch_size", count.images)
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
        print(
            f"| {method} | {count.parameters / 1e6:.2f} | {batch} | {count.passes} | {buckets} | {sent / 1e6:.1f} | "
            f"{1000 * step:.1f} | {ranges[0]} | {ranges[1]} |",
            flush=True,
        )
    return results


def run_scale(args: argparse.Namespace) -> None:
    """``benchmark.py scale``."""
    warnings.filterwarnings("ignore")
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        checkpoint = autoencoder_checkpoint(Path(folder))
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
    if args.json:
        args.json.write_text(json.dumps(results, indent=1), encoding="utf-8")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The arguments of ``benchmark.py scale``."""
    parser.add_argument(
        "--methods", nargs="+", choices=EXPERIMENTS, default=list(EXPERIMENTS), help="which (default: all)"
    )
    parser.add_argument(
        "--sizes",
        choices=("small", "published"),
        default="small",
        help="of the networks measured; the published ones take up to some 20 s a batch (default: small)",
    )
    parser.add_argument("--part", choices=("measured", "computed", "both"), default="both", help="(default: both)")
    parser.add_argument("--batch_size", type=int, default=16, help="images of one process, measured (default: 16)")
    parser.add_argument("--steps", type=int, default=10, help="batches of each measurement (default: 10)")
    parser.add_argument("--rounds", type=int, default=3, help="measurements of each side (default: 3)")
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
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures to this file, too")
    parser.set_defaults(run=run_scale)

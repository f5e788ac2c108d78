"""The ``protonet`` part of ``benchmark.py``: Prototypical Networks' training against the textbook's."""

import argparse
import io
import random
import zipfile
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

from benchmark.race import (
    WARM_UP,
    Measure,
    add_common_arguments,
    begin,
    print_conditions,
    print_sides,
    race,
    ratio,
    require_data,
    timed,
    write_json,
)
from benchmark.sides import CONFIGS, one_optimizer_loop, relit_fit
from benchmark.textbook import WORKERS


def our_loader(steps: int, data: dict[str, Any]) -> Measure:
    """Seconds that our data module needs for the same batches, as float images."""

    def measure() -> float:
        import torch
        from lightning.pytorch.plugins import Precision

        from datamodules import OmniglotEpisodes

        module = OmniglotEpisodes(**data)
        module.prepare_data()
        module.setup("fit")
        strategy = SimpleNamespace(root_device=torch.device("cpu"))
        trainer = SimpleNamespace(
            precision_plugin=Precision(), training=True, global_rank=0, world_size=1, strategy=strategy
        )
        module.trainer = trainer  # type: ignore[assignment]
        batches = iter(module.train_dataloader())
        return timed(lambda: module.on_after_batch_transfer(next(batches), 0), steps)

    return measure


def our_bare(steps: int, args: argparse.Namespace, bf16: bool) -> Measure:
    """A bare loop of our step, on one episode that is in memory."""

    def measure() -> float:
        import torch

        from datamodules import Episodes
        from lit_models import ProtoNet
        from lit_models.losses.prototypical import prototypical_loss
        from lit_models.optimizers import FusedAdam

        torch.manual_seed(0)
        model = ProtoNet().to(memory_format=torch.channels_last)
        batch = Episodes(*(torch.rand(1, args.n_way, n, 1, 28, 28) for n in (args.k_shot, args.n_query)))
        optimizer = FusedAdam(model.parameters(), lr=1e-3)
        return one_optimizer_loop(optimizer, lambda: prototypical_loss(model.episode_distances(batch)), steps, bf16)

    return measure


# --- the textbook: an image is a file, a class is a turn of a loop ----------------------------------------------------


class TurnedDrawings:
    """Omniglot's background drawings as PNG files, each in four positions that are separate classes.

    The files' bytes are in memory, so that no disk's speed is measured.
    """

    def __init__(self, path: Path) -> None:
        self.samples: list[tuple[bytes, int]] = []
        self.samples_of: dict[int, list[int]] = defaultdict(list)
        with zipfile.ZipFile(path) as archive:
            drawings_of = defaultdict(list)
            for name in sorted(archive.namelist()):
                if name.endswith(".png"):
                    drawings_of[name.rpartition("/")[0]].append(archive.read(name))
        for number, drawings in enumerate(drawings_of.values()):
            for label in range(4 * number, 4 * number + 4):
                for drawing in drawings:
                    self.samples_of[label].append(len(self.samples))
                    self.samples.append((drawing, label))

    def __len__(self) -> int:
        return len(self.samples)

    def __getitem__(self, index: int) -> tuple[Any, int]:
        from PIL import Image
        from torchvision.transforms import functional

        drawing, label = self.samples[index]
        with Image.open(io.BytesIO(drawing)) as image:
            turned = image.convert("L").resize((28, 28)).rotate(90 * (label % 4))
        return 1 - functional.to_tensor(turned), label


class EpisodeSampler:
    """Lists of samples, class after class."""

    def __init__(self, samples_of: dict[int, list[int]], n_way: int, per_class: int, episodes: int) -> None:
        self.samples_of, self.n_way, self.per_class, self.episodes = samples_of, n_way, per_class, episodes

    def __len__(self) -> int:
        return self.episodes

    def __iter__(self) -> Iterator[list[int]]:
        for _ in range(self.episodes):
            classes = random.sample(sorted(self.samples_of), self.n_way)
            yield [row for label in classes for row in random.sample(self.samples_of[label], self.per_class)]


def textbook(steps: int, args: argparse.Namespace, archive: Path) -> Measure:
    """Files decoded one by one by a DataLoader with 2 workers, the encoder and the loss as in the paper's words, in
    float32, and figures read off in every step."""

    def measure() -> float:
        import torch
        from torch import nn
        from torch.nn import functional
        from torch.utils.data import DataLoader

        torch.manual_seed(0)
        random.seed(0)
        blocks: list[nn.Module] = []
        for width in (1, 64, 64, 64):
            blocks += [nn.Conv2d(width, 64, 3, padding=1), nn.BatchNorm2d(64), nn.ReLU(), nn.MaxPool2d(2)]
        encoder = nn.Sequential(*blocks, nn.Flatten())
        optimizer = torch.optim.Adam(encoder.parameters(), lr=1e-3)
        dataset = TurnedDrawings(archive)
        sampler = EpisodeSampler(dataset.samples_of, args.n_way, args.k_shot + args.n_query, steps + 2 * WARM_UP)
        loader: Any = DataLoader(cast(Any, dataset), batch_sampler=sampler, num_workers=WORKERS)
        batches = iter(loader)

        def step() -> None:
            image, label = next(batches)
            embedding = encoder(image)
            prototypes, queries = [], []
            for known in label.unique():
                rows = (label == known).nonzero().flatten()
                prototypes.append(embedding[rows[: args.k_shot]].mean(0))
                queries.append(embedding[rows[args.k_shot :]])
            center, query = torch.stack(prototypes), torch.cat(queries)
            shape = (len(query), args.n_way, center.shape[1])
            distance = (query.unsqueeze(1).expand(shape) - center.unsqueeze(0).expand(shape)).pow(2).sum(2)
            target = torch.arange(args.n_way).repeat_interleave(args.n_query)
            loss = functional.cross_entropy(-distance, target)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            f"{loss.item():.4f} {(distance.argmin(1) == target).float().mean().item():.4f}"  # as printed in the loop

        return timed(step, steps)

    return measure


# --- the command line -------------------------------------------------------------------------------------------------


def run_protonet(args: argparse.Namespace) -> None:
    """``benchmark.py protonet``."""
    root = begin(args)
    require_data(root, "omniglot/images_background.zip")
    episode = {"n_way": args.n_way, "k_shot": args.k_shot, "n_query": args.n_query}
    config = [
        *("--config", str(CONFIGS / "protonet_omniglot_5way5shot.yaml"), "--trainer.accelerator=cpu"),
        *("--trainer.callbacks=[]", f"--data.root={root}"),
        *(f"--data.{name}={value}" for name, value in episode.items()),
        f"--data.train_episodes={args.steps + WARM_UP}",
    ]
    ours = {"root": str(root), **episode, "train_episodes": args.steps + WARM_UP}
    sides = {
        "relit fit": relit_fit(args.steps, *config),
        "bare loop": our_bare(args.steps, args, bf16=False),
        "textbook": textbook(args.steps, args, root / "omniglot" / "images_background.zip"),
        "relit fit, bf16": relit_fit(args.steps, *config, "--trainer.precision=bf16-mixed"),
        "bare loop, bf16": our_bare(args.steps, args, bf16=True),
        "our loader": our_loader(args.steps, ours),
    }
    seconds = race(sides, args.rounds)
    print(
        f"Prototypical Networks, Conv4-64, Omniglot 28x28, {args.n_way}-way {args.k_shot}-shot {args.n_query}-query\n"
    )
    print_sides(seconds, args.steps, "episodes")
    shares = [100 * ratio(seconds["our loader"], seconds[side]) for side in ("relit fit", "relit fit, bf16")]
    print(f"\nThe loader's share of a step of relit fit is {shares[0]:.1f} %, in bf16 {shares[1]:.1f} %.")
    print_conditions(args)
    write_json(args, seconds=seconds)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The arguments of ``benchmark.py protonet``."""
    add_common_arguments(parser, run_protonet, steps=20, rounds=3)
    parser.add_argument("--n_way", type=int, default=60, help="classes of an episode (default: 60)")
    parser.add_argument("--k_shot", type=int, default=5, help="support images of each class (default: 5)")
    parser.add_argument("--n_query", type=int, default=5, help="query images of each class (default: 5)")

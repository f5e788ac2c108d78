"""Killed at random moments, one method of each kind goes on as if nothing had happened."""

import multiprocessing
import os
import random
import signal
import time
from collections import Counter
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest

import lit_models.cli.command  # noqa: F401 - here rather than in each process
from tests.lit_models.runs.test_resume import ALL_RUNS, assert_same_run
from tests.support.fixtures import Relit
from tests.support.small_data import SMALL_DATA, write_autoencoder
from tests.support.small_runs import small_run
from tests.support.tiny import CONFIGS, the_run

KILLS = 20
KILLS_OF_A_METHOD = 4
OFTEN = [
    *("--trainer.log_every_n_steps=1", "--checkpoint.every_n_steps=2", "--run.id=one"),
    *("--trainer.accelerator=cpu", "--channels_last=false"),
]
QUIET = [f"--trainer.enable_{part}=false" for part in ("progress_bar", "model_summary")]
SMALL = ["--model.feature_maps=8", "--data.batch_size=256", "--data.eval_batch_size=250"]
KINDS = {
    "GAN": ("wgan_gp_digits", [*SMALL[:2], "--model.n_critic=2", "--trainer.max_epochs=2"]),
    "autoencoder": ("vae_digits", [*SMALL, "--trainer.max_epochs=2"]),
    "classifier": ("resnet18_digits", [*SMALL, "--trainer.max_epochs=2"]),
    "few-shot": (
        "protonet_folder",
        [
            *("--data.images=Digits", "--data.n_way=5", "--data.n_query=5", "--data.train_episodes=8"),
            *("--data.val_episodes=4", "--data.test_query=5", "--model.image_size=32", "--model.channels=1"),
            *("--model.feature_maps=8", "--trainer.max_epochs=2", "--trainer.callbacks=null"),
        ],
    ),
    "layer-wise": ("layerwise_mlp_digits", ["--model.pretrain_epochs=1", "--model.finetune_epochs=2"]),
    "architecture search": (
        "darts_search_digits",
        [
            *("--model.init_channels=2", "--model.layers=3", "--model.epochs=2", "--data.batch_size=4"),
            *("--data.eval_batch_size=50", "--trainer.limit_train_batches=3", "--trainer.limit_val_batches=1"),
        ],
    ),
    "image translation": (
        "cyclegan_maps_64",
        [
            *("--model.feature_maps=2", "--model.discriminator_feature_maps=2", "--model.blocks=1"),
            *("--model.buffer_size=2", "--trainer.callbacks=null", "--trainer.check_val_every_n_epoch=1"),
            "--trainer.max_epochs=2",
        ],
    ),
    "critic's batches and validation within the epoch": (
        "wgan_gp_digits",
        [*SMALL[:2], "--model.n_critic=3", "--trainer.val_check_interval=4", "--trainer.max_epochs=2"],
    ),
    "validation within the epoch": ("vae_digits", [*SMALL, "--trainer.val_check_interval=2", "--trainer.max_epochs=2"]),
    "validation in every second epoch": (
        "vae_digits",
        [*SMALL, "--trainer.check_val_every_n_epoch=2", "--trainer.max_epochs=4"],
    ),
    "sanity checks": ("vae_digits", [*SMALL, "--trainer.num_sanity_val_steps=3", "--trainer.max_epochs=2"]),
    "latent": ("latent_gan_mnist", ["--data=Digits", "--data.batch_size=256", "--trainer.max_epochs=2"]),
}


def run_until(due: Callable[[], bool], relit: Relit, arguments: list[str]) -> int | None:
    """The exit code of ``relit fit`` in a forked process, which gets SIGKILL as soon as ``due`` says so."""
    process = multiprocessing.get_context("fork").Process(target=lambda: os._exit(relit("fit", *arguments)))
    process.start()
    while process.is_alive() and not due():
        process.join(0.002)
    process.kill()
    process.join()
    return process.exitcode


def soon_after(event: Callable[[], bool], wait: float) -> Callable[[], bool]:
    """Whether ``event`` has been seen ``wait`` seconds ago."""
    seen: list[float] = []

    def due() -> bool:
        if not seen and event():
            seen.append(time.monotonic())
        return bool(seen) and time.monotonic() >= seen[0] + wait

    return due


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.parametrize(("config", "small"), KINDS.values(), ids=KINDS)
def test_killed_at_random_moments(relit: Relit, config: str, small: list[str]) -> None:
    """Each run is killed three times: when it has begun to prepare its data, when it has begun to write one of its
    checkpoints, and at any moment; then it goes on to its end."""
    if "latent_gan" in config:
        decoder = write_autoencoder(Path.cwd() / "autoencoder.ckpt", latent_dim=64, feature_maps=16)
        small = [*small, f"--model.decoder_checkpoint={decoder}"]
    data = "--data.images.root" if "--data.images=Digits" in small or "darts" in config else "--data.root"
    common = ["--config", str(CONFIGS / f"{config}.yaml"), *small, *QUIET, *OFTEN]

    def arguments(folder: Path) -> list[str]:
        return [*common, f"{data}={folder.absolute()}/data", f"--run.root={folder}/runs"]

    def prepare(folder: Path) -> Path:
        if "maps" in config:
            SMALL_DATA["Maps"](folder / "data")
        return folder

    started = time.monotonic()
    assert run_until(lambda: False, relit, arguments(prepare(Path("whole")))) == 0
    lifetime = time.monotonic() - started
    whole = the_run(Path("whole/runs"))

    moments = random.Random(0)
    found: list[str] = []
    attempts = 0
    while len(found) < KILLS:
        attempts += 1
        assert attempts < KILLS, "the process is never alive when it is to be killed"
        folder = prepare(Path(f"attempt{attempts}"))
        code, lives = None, 0
        while code != 0:
            born = time.time()
            late = born + moments.uniform(0, lifetime / 2)
            preparing = partial(is_preparing, folder)
            saving = partial(is_saving, folder, born)
            saving_late = partial(is_saving, folder, late)
            aims = [
                soon_after(preparing, moments.uniform(0, 0.05)),
                soon_after(saving_late, moments.uniform(0, 0.02)),
                soon_after(lambda: True, moments.uniform(0, lifetime)),
            ]
            may_live = lives == len(aims) or len(found) == KILLS
            resume = ["--ckpt_path=last"] if list(folder.glob("runs/*/one/checkpoints/*.ckpt")) else []
            code = run_until((lambda: False) if may_live else aims[lives], relit, [*arguments(folder), *resume])
            assert code in (0, -signal.SIGKILL)
            lives += 1
            if code:
                found.append("preparing" if preparing() else "saving" if saving() else "training")
                print(f"kill {len(found)}: after {time.time() - born:.2f} s of {lifetime:.2f}, {found[-1]}")
        run = the_run(folder / "runs")
        assert_same_run(run, whole)
        assert {path.name for path in run.glob("samples/*")} == {path.name for path in whole.glob("samples/*")}
    print(f"{config}: {attempts} runs, {len(found)} kills: {dict(Counter(found))}; all ended as the whole one")
    assert {"preparing", "saving"} <= set(found)


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.parametrize("run", ALL_RUNS, ids=lambda run: " ".join(run[:2]))
def test_every_method_killed_at_random_moments(relit: Relit, digits_root: Path, run: tuple[str, ...]) -> None:
    """Up to twice before it goes on to its end, with every batch saved."""
    arguments = [*small_run(run, digits_root, epochs=2), "--trainer.limit_train_batches=4", "--run.id=one"]
    arguments += ["--checkpoint.every_n_steps=1", "--channels_last=false"]
    started = time.monotonic()
    assert run_until(lambda: False, relit, [*arguments, "--run.root=whole"]) == 0
    lifetime = time.monotonic() - started
    moments = random.Random(0)
    kills = attempts = 0
    while kills < KILLS_OF_A_METHOD:
        attempts += 1
        assert attempts < 3 * KILLS_OF_A_METHOD, "the process is never alive when it is to be killed"
        root, code, lives = Path(f"attempt{attempts}"), None, 0
        while code != 0:
            due = soon_after(lambda: True, moments.uniform(0.2, 1) * lifetime) if lives < 2 else lambda: False
            resume = ["--ckpt_path=last"] if list(root.glob("*/one/checkpoints/*.ckpt")) else []
            code = run_until(due, relit, [*arguments, f"--run.root={root}", *resume])
            assert code in (0, -signal.SIGKILL)
            kills += code != 0
            lives += 1
        assert_same_run(the_run(root), the_run(Path("whole")))
    print(f"{' '.join(run[:2])}: {attempts} runs, {kills} kills; all ended as the whole one")


def is_preparing(folder: Path) -> bool:
    """Whether a run has begun to prepare its data, and not ended."""
    return (folder / "data").is_dir() and not list(folder.glob("data/*/prepared/[!.]*/meta.json"))


def is_saving(folder: Path, since: float) -> bool:
    """Whether a run writes a checkpoint, begun at this time or later, which hasn't got its name yet."""
    unnamed = [*folder.glob("runs/*/one/checkpoints/.*.written"), *folder.glob("runs/*/one/checkpoints/.*.unfinished")]
    return any(modified(path) > since for path in unnamed)


def modified(path: Path) -> float:
    """When a file was written last; 0 if it is gone."""
    try:
        return path.stat().st_mtime
    except FileNotFoundError:
        return 0.0

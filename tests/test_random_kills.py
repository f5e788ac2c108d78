"""Killed at random moments, one method of each kind goes on as if nothing had happened."""

import multiprocessing
import os
import random
import signal
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from tests.small_data import write_autoencoder
from tests.tiny import CONFIGS, the_run, weights

Relit = Callable[..., int]

KILLS = 20
QUIET = [f"--trainer.enable_{part}=false" for part in ("progress_bar", "model_summary")]
SMALL = ["--model.feature_maps=8", "--data.batch_size=256", "--data.eval_batch_size=250"]
KINDS = {
    "GAN": ("wgan_gp_digits", [*SMALL[:2], "--model.n_critic=2", "--trainer.max_epochs=3"]),
    "autoencoder": ("vae_digits", [*SMALL, "--trainer.max_epochs=3"]),
    "classifier": ("resnet18_digits", [*SMALL, "--trainer.max_epochs=2"]),
    "few-shot": (
        "protonet_folder",
        [
            *("--data.images=Digits", "--data.n_way=5", "--data.n_query=5", "--data.train_episodes=8"),
            *("--data.val_episodes=4", "--model.image_size=32", "--model.channels=1", "--model.feature_maps=8"),
            *("--trainer.max_epochs=3", "--trainer.callbacks=null"),
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
    "latent": ("latent_gan_mnist", ["--data=Digits", "--data.batch_size=256", "--trainer.max_epochs=2"]),
}


def run_for(seconds: float | None, relit: Relit, arguments: list[str]) -> int | None:
    """The exit code of ``relit fit`` in a forked process; that of SIGKILL if it was still at work after ``seconds``."""
    process = multiprocessing.get_context("fork").Process(target=lambda: os._exit(relit("fit", *arguments)))
    process.start()
    process.join(seconds if seconds is not None else 300)
    if process.is_alive():
        process.kill()
        process.join()
    return process.exitcode


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.parametrize(("config", "small"), KINDS.values(), ids=KINDS)
def test_killed_at_random_moments(relit: Relit, config: str, small: list[str]) -> None:
    """The moments are spread over the whole life of a process, from the preparation of its data to its last file; each
    run is killed up to three times, and so also while it goes on after a kill."""
    if "latent_gan" in config:
        decoder = write_autoencoder(Path.cwd() / "autoencoder.ckpt", latent_dim=64, feature_maps=16)
        small = [*small, f"--model.decoder_checkpoint={decoder}"]
    data = "--data.images.root" if "--data.images=Digits" in small or "darts" in config else "--data.root"
    common = [
        "--config",
        str(CONFIGS / f"{config}.yaml"),
        *small,
        *QUIET,
        "--trainer.accelerator=cpu",
        "--channels_last=false",
    ]
    # Every second batch is one in which a critic's generator steps; in others Lightning repeats the loss from its step.
    common += ["--trainer.log_every_n_steps=2", "--checkpoint.every_n_steps=2", "--run.id=one"]

    def arguments(folder: Path) -> list[str]:
        return [*common, f"{data}={folder.absolute()}/data", f"--run.root={folder}/runs"]

    started = time.monotonic()
    assert run_for(None, relit, arguments(Path("whole"))) == 0
    lifetime = time.monotonic() - started
    whole = the_run(Path("whole/runs"))

    moments = random.Random(0)
    kills = attempts = 0
    while kills < KILLS:
        attempts += 1
        assert attempts < 3 * KILLS, "the process is never alive when it is to be killed"
        folder = Path(f"attempt{attempts}")
        code, own_kills = None, 0
        while code != 0:
            found = list(folder.glob("runs/*/one/checkpoints/*.ckpt"))
            resume = ["--ckpt_path=last"] if found else []
            seconds = moments.uniform(0, lifetime) if own_kills < 3 and kills < KILLS else None
            code = run_for(seconds, relit, [*arguments(folder), *resume])
            assert code in (0, -signal.SIGKILL)
            if code:
                kills, own_kills = kills + 1, own_kills + 1
                print(f"kill {kills}: after {seconds:.2f} s of {lifetime:.2f}, {where(folder)}")
        run = the_run(folder / "runs")
        state, expected = weights(run), weights(whole)
        assert all(torch.equal(state[name], expected[name]) for name in expected)
        assert (run / "metrics.csv").read_text() == (whole / "metrics.csv").read_text()


def where(folder: Path) -> str:
    """What a killed run had reached."""
    checkpoints = sorted(folder.glob("runs/*/one/checkpoints/last.ckpt"))
    if any(path.name.endswith((".unfinished", ".written")) for path in folder.glob("runs/*/one/checkpoints/.*")):
        return "while saving"
    if checkpoints:
        return f"at a checkpoint of step {torch.load(checkpoints[0], weights_only=True)['global_step']}"
    if not list(folder.glob("data/digits/prepared/*/meta.json")):
        return "before the data were prepared"
    return "before the first checkpoint"

"""Every method by its configuration, within a second or two an epoch."""

from pathlib import Path

import yaml

from tests.methods import METHODS, Method
from tests.support.small_data import SMALL_DATA, write_autoencoder
from tests.support.tiny import CONFIGS

FEW = (
    *("--trainer.limit_train_batches=2", "--trainer.limit_val_batches=1", "--trainer.limit_test_batches=1"),
    *("--trainer.log_every_n_steps=1", "--trainer.num_sanity_val_steps=0", "--trainer.accelerator=cpu"),
    *("--trainer.enable_progress_bar=false", "--trainer.enable_model_summary=false", "--checkpoint.monitor=null"),
)


def small_run(run: tuple[str, ...], root: Path, epochs: int = 1) -> list[str]:
    """The arguments of `relit fit` and `test` for one of the runs.

    Args:
        run: One of :data:`tests.methods.RUNS`.
        root: Folder of all data, into which small data and checkpoints are written that the run needs.
        epochs: Epochs; those of fine-tuning for a method with phases, each of which takes one.
    """
    config, *arguments = run
    path = CONFIGS / f"{config}.yaml"
    given = yaml.safe_load(path.read_text())
    method = METHODS[given["model"]["class_path"].rpartition(".")[2]]
    if method.starts_from:
        arguments = [*autoencoder_for(method, root), *arguments]
    if given["data"]["class_path"] in ("OmniglotEpisodes", "Maps"):
        SMALL_DATA[given["data"]["class_path"]](root)
    length = {f"model.{name}": value for name, value in method.length(epochs).items()} or {"trainer.max_epochs": epochs}
    return ["--config", str(path), *FEW, *arguments, *(f"--{name}={value}" for name, value in length.items())]


def autoencoder_for(method: Method, root: Path) -> list[str]:
    """The argument with the checkpoint of an untrained autoencoder that a method starts from, if it does."""
    if method.starts_from is None:
        return []
    checkpoint = write_autoencoder(root / "autoencoder.ckpt", latent_dim=64, feature_maps=16)
    return [f"--model.{method.starts_from}={checkpoint}"]

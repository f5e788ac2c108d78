"""The least program that trains a configuration's network: Lightning's bare Trainer, the network, the data.

    python bare_start.py CONFIG

It leaves out the command, its parser, the run folder, logs, checkpoints, callbacks and validation. CONFIG is the
``config.yaml`` of a run, which holds every argument.
"""

import sys
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import Any

import torch
import yaml
from lightning.pytorch import Trainer, seed_everything
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler


def made(value: Any) -> Any:
    """What a configuration describes: an object of each class, but for optimizers, which models make."""
    if not isinstance(value, dict) or "class_path" not in value:
        return value
    module, _, name = value["class_path"].rpartition(".")
    kind = getattr(import_module(module), name)
    arguments = {name: made(argument) for name, argument in value.get("init_args", {}).items()}
    return partial(kind, **arguments) if issubclass(kind, Optimizer | LRScheduler) else kind(**arguments)


def main() -> None:
    """Trains until it is stopped."""
    config = yaml.safe_load(Path(sys.argv[1]).read_text(encoding="utf-8"))
    seed_everything(config["seed_everything"], verbose=False)
    model, data = made(config["model"]), made(config["data"])
    if config["channels_last"]:
        model = model.to(memory_format=torch.channels_last)
    epochs = config["trainer"]["max_epochs"] or model.planned_epochs
    Trainer(accelerator="cpu", barebones=True, max_epochs=epochs).fit(model, data)


if __name__ == "__main__":
    main()

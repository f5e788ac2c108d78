"""Sides of a race: `relit fit` as it is, and bare loops of the same step."""

import tempfile
import time
from collections.abc import Callable
from contextlib import redirect_stderr, redirect_stdout
from io import StringIO
from pathlib import Path
from typing import Any, ClassVar

import torch
from lightning.pytorch import Callback, LightningModule
from torch import Tensor

import lit_models
from benchmark.race import WARM_UP, Measure, timed
from lit_models.__main__ import main as relit
from lit_models.adversarial import frozen, losses_as_logged
from lit_models.support.pretrained import StartsFromWeights

CONFIGS = Path(__file__).parents[2] / "configs"


class Observer(Callback):
    """A callback that the benchmark can look at once the training that made it is over."""

    last: ClassVar[Any] = None

    def __init__(self) -> None:
        Observer.last = self


class Clock(Observer):
    """Notes when each batch ended, by epoch, and how long each epoch took to begin (to compute codes, above all)."""

    now: ClassVar[Callable[[], float]] = time.perf_counter

    def __init__(self) -> None:
        super().__init__()
        self.ends: list[list[float]] = []
        self.begins: list[float] = []

    def on_train_epoch_start(self, *_: Any) -> None:
        self.ends.append([])
        self.begins.append(Clock.now())  # callbacks come before the model, which computes the codes

    def on_train_batch_start(self, trainer: Any, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        if batch_idx == 0:
            self.begins[-1] = Clock.now() - self.begins[-1]

    def on_train_batch_end(self, *_: Any) -> None:
        self.ends[-1].append(Clock.now())

    @property
    def seconds(self) -> list[float]:
        """Of all batches but the first ones, by epoch."""
        return [epoch[-1] - epoch[WARM_UP - 1] for epoch in self.ends]


def fit_with(observer: type[Observer], arguments: list[str], root: str) -> Any:
    """Runs `relit fit` in this process with one more callback, and returns that callback.

    Args:
        observer: The callback's class, which takes no arguments.
        arguments: Of `relit fit`.
        root: Folder of all runs.
    """
    printed = StringIO()
    callback = f"--trainer.callbacks+={observer.__module__}.{observer.__qualname__}"
    with redirect_stderr(printed), redirect_stdout(printed):
        code = relit(["fit", *arguments, callback, f"--run.root={root}"])
    if code != 0:
        raise SystemExit(f"relit fit {' '.join(arguments)} failed:\n{printed.getvalue()}")
    return Observer.last


def timed_fit(steps: int, *arguments: str) -> Clock:
    """Trains for ``steps`` batches an epoch, without validation; returns the clock."""
    short = [f"--trainer.limit_train_batches={steps + WARM_UP}", "--trainer.limit_val_batches=0"]
    with tempfile.TemporaryDirectory() as folder:
        return fit_with(Clock, [*arguments, *short, "--checkpoint.monitor=null"], folder)


def relit_fit(steps: int, *arguments: str) -> Measure:
    """Seconds that ``relit fit`` needs for ``steps`` batches, with the progress bar, metrics to CSV, callbacks and all
    else, once it runs."""
    return lambda: timed_fit(steps, *arguments, "--trainer.max_epochs=1").seconds[0]


def model_of(config: dict[str, Any]) -> Any:
    """The model of a configuration, in its memory order; with random weights where it would start from others'."""
    from jsonargparse import ArgumentParser

    for name in lit_models.METHODS:
        getattr(lit_models, name)  # short class names are looked up among what is imported
    parser = ArgumentParser(exit_on_error=False)
    parser.add_subclass_arguments(LightningModule, "model")
    model = parser.instantiate(parser.parse_object({"model": config["model"]})).model
    if isinstance(model, StartsFromWeights):
        model.has_weights = True
    return model.to(memory_format=torch.channels_last) if config.get("channels_last") else model


# --- bare loops: networks and losses of ours, without the Trainer, a loader, logs or callbacks ------------------------


def one_optimizer_loop(optimizer: Any, loss: Callable[[], Tensor], steps: int, bf16: bool = False) -> float:
    """Seconds of ``steps`` steps of one optimizer, on one batch that is in memory."""

    def step() -> None:
        with torch.autocast("cpu", torch.bfloat16, enabled=bf16):
            value = loss()
        optimizer.zero_grad()
        value.backward()
        optimizer.step()

    return timed(step, steps)


def adversarial_loop(model: Any, batch: Any, steps: int, bf16: bool = False) -> float:
    """Seconds of ``steps`` steps of a GAN, as ours does them, on one batch that is in memory."""
    networks = (model.generator, model.discriminator)
    generator_optimizer, discriminator_optimizer = (
        make(network.parameters()) for make, network in zip(model.optimizer_callables, networks, strict=True)
    )
    done = 0

    def step() -> None:
        nonlocal done
        done += 1
        generator_turn = done % model.n_critic == 0
        with torch.autocast("cpu", torch.bfloat16, enabled=bf16):
            with torch.set_grad_enabled(generator_turn):
                fake = model.generate(batch)
            loss = losses_as_logged("train/loss", model.discriminator_loss(batch, fake.detach()))["train/loss"]
        discriminator_optimizer.zero_grad()
        loss.backward()
        discriminator_optimizer.step()
        model.after_discriminator_step()
        if not generator_turn:
            return
        with frozen(model.discriminator):
            with torch.autocast("cpu", torch.bfloat16, enabled=bf16):
                loss = losses_as_logged("train/loss", model.generator_loss(batch, fake))["train/loss"]
            generator_optimizer.zero_grad()
            loss.backward()
        generator_optimizer.step()
        model._update_average()

    return timed(step, steps)

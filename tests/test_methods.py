"""What every method has in common, proved over the records of tests/methods.py."""

from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch import Callback
from torch import Tensor
from torch.optim import Optimizer
from torch.optim.optimizer import register_optimizer_step_pre_hook

import lit_models
from lit_models.adversarial import AdversarialModule
from lit_models.errors import ModelError
from lit_models.support.abilities import classes_of
from tests.methods import ALL_MODELS, METHODS
from tests.support.compare import assert_alike
from tests.support.small_fits import small_fit
from tests.support.small_models import built, called

TITLES = pytest.mark.parametrize("title", ALL_MODELS)
CLASSES = [name for name, method in METHODS.items() if "num_classes" in method.small]


def test_every_method_has_a_record() -> None:
    assert METHODS.keys() == lit_models.METHODS.keys(), "in tests/methods.py"
    assert all(method.ranks for method in METHODS.values())


@TITLES
def test_every_parameter_gets_a_gradient(title: str, tmp_path: Path) -> None:
    """In the training of an epoch, or of one for each phase; none of a generator's by its discriminator's loss."""
    batches = 2 * ALL_MODELS[title].arguments.get("n_critic", 5 if title.startswith("WGAN") else 1)
    model, data, trainer = small_fit(title, tmp_path, count=6 * batches, limit_train_batches=batches)
    largest: dict[str, float] = {}
    trained = {name: parameter for name, parameter in model.named_parameters() if parameter.requires_grad}
    names = {parameter: name for name, parameter in trained.items()}

    def note(optimizer: Optimizer, *arguments: Any) -> None:
        for parameter in (one for group in optimizer.param_groups for one in group["params"]):
            if parameter.grad is not None:
                name = names[parameter]
                largest[name] = max(largest.get(name, 0.0), float(parameter.grad.abs().max()))

    noting = register_optimizer_step_pre_hook(note)
    try:
        trainer.fit(model, data)
    finally:
        noting.remove()
    unmoved = METHODS[ALL_MODELS[title].method].unmoved
    unmoved_here = {name for key in ("", title.partition(", ")[2]) for name in unmoved.get(key, ())}
    for name, parameter in trained.items():
        if name in unmoved_here:
            assert largest[name] < 3e-5, name
        # A last bias moves the scores of real and of fake images alike, and some losses compare only both.
        elif not (name.startswith("discriminator") and parameter.numel() == 1):
            assert largest.get(name, 0.0) > 0, name
    if isinstance(model, AdversarialModule):
        batch = data.transform(data.train_set.__getitems__(torch.arange(4)), training=True)
        model.zero_grad()
        loss: Any = model.discriminator_loss(batch, model.generate(batch).detach())
        (loss if isinstance(loss, Tensor) else loss["loss"]).backward()
        assert all(parameter.grad is None for parameter in model.generator.parameters())


@pytest.mark.parametrize("precision", ["32-true", "bf16-mixed"])
@pytest.mark.parametrize(
    "title", [pytest.param(title, marks=[pytest.mark.long] if title not in METHODS else []) for title in ALL_MODELS]
)
def test_a_checkpoint_stands_alone(title: str, precision: str, tmp_path: Path) -> None:
    """It needs no file that the training started from, no code but the method's, and computes what the model does.

    In bfloat16, the networks are in channels-last order and keep their weights in float32.
    """
    model, data, trainer = small_fit(title, tmp_path, precision=precision)
    if precision == "bf16-mixed":
        model.to(memory_format=torch.channels_last)
    trainer.fit(model, data)
    assert all(parameter.dtype == torch.float32 and parameter.isfinite().all() for parameter in model.parameters())
    trainer.save_checkpoint(tmp_path / "last.ckpt")
    (tmp_path / "autoencoder.ckpt").unlink(missing_ok=True)
    again = type(model).load_from_checkpoint(tmp_path / "last.ckpt", weights_only=True)
    if precision == "bf16-mixed":
        again.to(memory_format=torch.channels_last)
    assert dict(again.hparams) == dict(model.hparams)
    assert_alike(again.state_dict(), model.state_dict())
    with torch.no_grad():
        ours, theirs = (called(one.eval(), METHODS[ALL_MODELS[title].method].inputs) for one in (model, again))
    assert ours.isfinite().all()
    assert torch.equal(ours, theirs)
    if hasattr(model, "sample"):
        labels = torch.arange(3) if classes_of(model) else None
        ours, theirs = (one.sample(3, labels, torch.Generator().manual_seed(0)) for one in (model, again))
    elif hasattr(model, "translate"):
        source = torch.rand(2, *model.image_shape)
        ours, theirs = (one.translate(source) for one in (model, again))
    else:
        return
    assert torch.equal(ours, theirs)
    assert ours.dtype == torch.float32
    assert 0 <= ours.min() <= ours.max() <= 1


@pytest.mark.parametrize("method", [name for name, record in METHODS.items() if record.loss])
def test_the_loss_is_that_computed_another_way(method: str, tmp_path: Path) -> None:
    losses: list[tuple[Tensor, Tensor]] = []
    loss_of: Any = METHODS[method].loss

    class Compare(Callback):
        def on_train_batch_start(self, trainer: Any, pl_module: Any, batch: Any, batch_idx: int) -> None:
            self.expected = loss_of(pl_module, batch).detach()

        def on_train_batch_end(self, trainer: Any, pl_module: Any, outputs: Any, *_: Any) -> None:
            losses.append((outputs["loss"], self.expected))

    model, data, trainer = small_fit(method, tmp_path, callbacks=[Compare()])
    trainer.fit(model, data)
    assert len(losses) == 2
    assert all(torch.allclose(loss, expected, rtol=1e-4) for loss, expected in losses)


@pytest.mark.parametrize("method", METHODS)
def test_images_of_another_size_are_refused(method: str, tmp_path: Path) -> None:
    model, data, trainer = small_fit(method, tmp_path)
    channels, size, _ = model.image_shape
    images: Any = getattr(data, "images", data)
    images.image_shape = (channels, 2 * size, 2 * size)
    sentence = (
        f"^{method} is built for images of {channels}x{size}x{size}, but {type(data).__name__} gives "
        rf"{channels}x{2 * size}x{2 * size} .*: set --model.image_size {2 * size} and --model.channels {channels}, or"
    )
    with pytest.raises(ModelError, match=sentence):
        trainer.fit(model, data)


@pytest.mark.parametrize("count", [0, 7])
@pytest.mark.parametrize("method", CLASSES)
def test_other_classes_are_refused(method: str, count: int, tmp_path: Path) -> None:
    model, data, trainer = small_fit(method, tmp_path)
    images: Any = getattr(data, "images", data)
    images.num_classes = count
    sentence = f"gives images of {count} classes: set --model.num_classes" if count else "gives images without classes"
    with pytest.raises(ModelError, match=f"^{method} .*but {type(data).__name__} {sentence}"):
        trainer.fit(model, data)


@pytest.mark.parametrize("method", METHODS)
def test_misspelt_arguments_are_refused(method: str) -> None:
    with pytest.raises(TypeError, match="fature_maps"):
        built(method, fature_maps=2)

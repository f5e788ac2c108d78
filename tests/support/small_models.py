"""A tiny model of every method, with random weights and statistics."""

from typing import Any

import torch
from torch import nn

import lit_models
from lit_models.module import Method
from lit_models.support.pretrained import StartsFromWeights
from tests.methods import ALL_MODELS
from tests.support.trainers import quiet_trainer


def built(title: str, **others: Any) -> Method:
    """A model of :data:`tests.methods.ALL_MODELS`, in training mode.

    Args:
        title: The model's.
        **others: Arguments that replace those of its record.
    """
    record, arguments = ALL_MODELS[title].record, {**ALL_MODELS[title].arguments, **others}
    model = getattr(lit_models, ALL_MODELS[title].method)(**arguments)
    if isinstance(model, StartsFromWeights) and record.starts_from not in others:
        model.has_weights = True  # random ones: the file that the record names doesn't exist
    return model


def small_model(title: str) -> Method:
    """A tiny model in evaluation mode, whose parameters and statistics are all random."""
    torch.manual_seed(0)
    model = built(title).eval()
    for module in model.modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm) and module.running_mean is not None:
            module.running_mean.uniform_(-1, 0)  # below 0, so that no ReLU after it makes zeros of everything
            module.running_var.uniform_(0.5, 2)
    for name in ("centroid", "center"):
        if hasattr(model, name):
            getattr(model, name).normal_()
    return model


def called(model: Any, inputs: tuple[str, ...]) -> torch.Tensor:
    """The model's forward of two inputs."""
    torch.manual_seed(0)
    kinds = {"latent": (model.latent_dim,), "image": model.image_shape}
    return model(*(torch.arange(2) if kind == "label" else torch.rand(2, *kinds[kind]) for kind in inputs))


def checkpoint_of(model: Method, experiment: str = "an_experiment") -> dict[str, Any]:
    """A checkpoint of a model as `relit fit` would have written it."""
    content: dict[str, Any] = {
        "pytorch-lightning_version": "2.6.0",
        "epoch": 1,
        "global_step": 20,
        "state_dict": model.state_dict(),
        "hyper_parameters": dict(model.hparams),
        "callbacks": {},
        "loops": {},
        "optimizer_states": [{"state": {}}],
        "lr_schedulers": [],
        "config": {
            "run": {"experiment": experiment},
            "model": {"class_path": f"lit_models.{type(model).__name__}"},
            "data": {"class_path": "datamodules.Digits", "init_args": {"root": "/somewhere", "batch_size": 8}},
        },
        "relit_version": lit_models.__version__,
    }
    model.trainer = quiet_trainer()
    model.on_save_checkpoint(content)
    model.trainer = None
    return content

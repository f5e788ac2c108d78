"""A tiny model of every method, with random weights and statistics."""

from typing import Any

import torch
from lightning.pytorch import LightningModule, Trainer
from torch import nn

import lit_models

_GAN = {"image_size": 16, "channels": 1, "latent_dim": 4, "feature_maps": 2}
_TRANSLATOR = {"channels": 1, "feature_maps": 2, "discriminator_feature_maps": 2, "patch_size": 16}
_CLASSES = {"image_size": 16, "channels": 1, "num_classes": 3}

SMALL_MODELS: dict[str, tuple[str, dict[str, Any]]] = {
    "DCGAN": ("DCGAN", _GAN),
    "DCGAN, averaged": ("DCGAN", {**_GAN, "ema_decay": 0.9}),
    "SNGAN": ("SNGAN", _GAN),
    "SNGAN, cnn": ("SNGAN", {**_GAN, "architecture": "cnn"}),
    "SNGAN, resnet": ("SNGAN", {**_GAN, "image_size": 32, "feature_maps": 1, "architecture": "resnet"}),
    "WGAN": ("WGAN", _GAN),
    "TripletGAN": ("TripletGAN", {**_GAN, "embedding_dim": 4}),
    "LatentGAN": (
        "LatentGAN",
        {**_GAN, "decoder_checkpoint": "a.ckpt", "hidden": 8, "code_dim": 4, "extra_convolution": True},
    ),
    "ConditionalGAN": ("ConditionalGAN", {**_GAN, "num_classes": 3, "embedding_dim": 4, "ema_decay": 0.9}),
    "ConditionalGAN, image": (
        "ConditionalGAN",
        {**_GAN, "num_classes": 3, "embedding_dim": 4, "condition": "image", "discriminator": "projection"},
    ),
    "Pix2Pix": ("Pix2Pix", {**_TRANSLATOR, "image_size": 32}),
    "Pix2Pix, resnet": ("Pix2Pix", {**_TRANSLATOR, "image_size": 32, "generator": "resnet", "blocks": 1}),
    "CycleGAN": ("CycleGAN", {**_TRANSLATOR, "image_size": 16, "blocks": 1}),
    "VAE": ("VAE", _GAN),
    "DenoisingAutoencoder": ("DenoisingAutoencoder", _GAN),
    "DigitClassifier": ("DigitClassifier", {**_CLASSES, "widths": [2, 3]}),
    "TransferClassifier": (
        "TransferClassifier",
        {**_CLASSES, "encoder_checkpoint": "a.ckpt", "code_dim": 4, "feature_maps": 2, "folds": 2, "head": "mlp"},
    ),
    "LayerwiseMLP": ("LayerwiseMLP", {**_CLASSES, "widths": [8, 4], "code_layer": 1}),
    "MetricResNet": (
        "MetricResNet",
        {**_CLASSES, "channels": 3, "feature_maps": 2, "loss": "center", "embedding_dim": 4},
    ),
    "MetricResNet, triplet": ("MetricResNet", {**_CLASSES, "channels": 3, "feature_maps": 2, "loss": "triplet"}),
    "ProtoNet": ("ProtoNet", {"image_size": 16, "feature_maps": 2}),
    "DARTSRetrain": (
        "DARTSRetrain",
        {**_CLASSES, "genotype": "DARTS_V1", "init_channels": 4, "layers": 3, "auxiliary_weight": 0.0},
    ),
    "DARTSSearch": ("DARTSSearch", {**_CLASSES, "init_channels": 4, "layers": 3}),
}
"""By a title: the method and its arguments."""


def small_model(title: str) -> LightningModule:
    """A tiny model in evaluation mode, whose parameters and statistics are all random."""
    method, arguments = SMALL_MODELS[title]
    torch.manual_seed(0)
    model = getattr(lit_models, method)(**arguments).eval()
    for module in model.modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm) and module.running_mean is not None:
            module.running_mean.uniform_(-1, 0)  # below 0, so that no ReLU after it makes zeros of everything
            module.running_var.uniform_(0.5, 2)
    for name in ("centroid", "center"):
        if hasattr(model, name):
            getattr(model, name).normal_()
    return model


def checkpoint_of(model: LightningModule, experiment: str = "an_experiment") -> dict[str, Any]:
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
    model.trainer = Trainer(accelerator="cpu", devices=1, logger=False, enable_checkpointing=False)
    model.on_save_checkpoint(content)
    model.trainer = None
    return content

"""The methods, one LightningModule each: ``--model DCGAN`` on the command line, ``lit_models.DCGAN`` in Python.

They are imported when they are asked for, so that ``relit --help`` doesn't wait for torch.
"""

import os
from importlib import import_module
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from lit_models.autoencoder import DenoisingAutoencoder
    from lit_models.conditional_gan import ConditionalGAN
    from lit_models.cycle_gan import CycleGAN
    from lit_models.darts.retrain import DARTSRetrain
    from lit_models.darts.search import DARTSSearch
    from lit_models.dcgan import DCGAN
    from lit_models.digit_classifier import DigitClassifier
    from lit_models.latent_gan import LatentGAN
    from lit_models.layerwise_mlp import LayerwiseMLP
    from lit_models.metric_resnet import MetricResNet
    from lit_models.pix2pix import Pix2Pix
    from lit_models.protonet import ProtoNet
    from lit_models.registry import METHODS
    from lit_models.sngan import SNGAN
    from lit_models.transfer_classifier import TransferClassifier
    from lit_models.triplet_gan import TripletGAN
    from lit_models.vae import VAE
    from lit_models.wgan import WGAN

import datamodules

if "LabeledImages" not in getattr(datamodules, "__all__", ()):
    raise ImportError(
        f"relit needs its own package `datamodules`, but Python finds {datamodules.__file__} first: rename that "
        "folder, or start Python in another one."
    )

if "RELIT_MODULES" in os.environ:  # of the process that has started this one
    import_module("lit_models.support.current_folder").take_over_from_parent()

__version__ = version("relit")

__all__ = [
    "DCGAN",
    "METHODS",
    "SNGAN",
    "VAE",
    "WGAN",
    "ConditionalGAN",
    "CycleGAN",
    "DARTSRetrain",
    "DARTSSearch",
    "DenoisingAutoencoder",
    "DigitClassifier",
    "LatentGAN",
    "LayerwiseMLP",
    "MetricResNet",
    "Pix2Pix",
    "ProtoNet",
    "TransferClassifier",
    "TripletGAN",
    "__version__",
]


def __getattr__(name: str) -> Any:
    from lit_models.registry import METHODS

    if name == "METHODS":
        return METHODS
    if name in METHODS:
        try:
            return getattr(import_module(METHODS[name]), name)
        except ImportError as error:
            from lit_models.cli.versions import refusal

            if told := refusal():
                raise ImportError(told) from error
            raise
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")

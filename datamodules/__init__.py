"""Data sets as LightningDataModules: ``--data MNIST`` on the command line, ``datamodules.MNIST`` in Python.

They are imported when they are asked for, so that a method doesn't load all data sets.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from datamodules.base import ImageDataModule
    from datamodules.celeba import CelebA
    from datamodules.cifar10 import CIFAR10
    from datamodules.digits import Digits
    from datamodules.episodes import EpisodeDataModule
    from datamodules.errors import DataError, DataWarning
    from datamodules.few_labels import FewLabels, FoldedImages
    from datamodules.image_folder import ImageFolder
    from datamodules.lfw import LFW
    from datamodules.loading.tensors import Codes, Episodes, GatherDataset, ImagePair, LabeledImages, SearchBatch
    from datamodules.maps import Maps
    from datamodules.mnist import MNIST
    from datamodules.omniglot import Omniglot, OmniglotEpisodes
    from datamodules.paired_folder import PairedFolder
    from datamodules.pictures import Picture, Pictures
    from datamodules.samples import SampleRequest, Samples
    from datamodules.search import SearchDataModule
    from datamodules.stl10 import STL10
    from datamodules.support_query import SupportQuery
    from datamodules.tiny_imagenet import TinyImageNet
    from datamodules.torch_dataset import TorchDataset
    from datamodules.unseen_classes import UnseenClasses

_MODULES = {
    "ImageDataModule": "datamodules.base",
    "CelebA": "datamodules.celeba",
    "CIFAR10": "datamodules.cifar10",
    "Digits": "datamodules.digits",
    "EpisodeDataModule": "datamodules.episodes",
    "DataError": "datamodules.errors",
    "DataWarning": "datamodules.errors",
    "FewLabels": "datamodules.few_labels",
    "FoldedImages": "datamodules.few_labels",
    "ImageFolder": "datamodules.image_folder",
    "LFW": "datamodules.lfw",
    "Codes": "datamodules.loading.tensors",
    "Episodes": "datamodules.loading.tensors",
    "GatherDataset": "datamodules.loading.tensors",
    "ImagePair": "datamodules.loading.tensors",
    "LabeledImages": "datamodules.loading.tensors",
    "SearchBatch": "datamodules.loading.tensors",
    "Maps": "datamodules.maps",
    "MNIST": "datamodules.mnist",
    "Omniglot": "datamodules.omniglot",
    "OmniglotEpisodes": "datamodules.omniglot",
    "PairedFolder": "datamodules.paired_folder",
    "Picture": "datamodules.pictures",
    "Pictures": "datamodules.pictures",
    "SampleRequest": "datamodules.samples",
    "Samples": "datamodules.samples",
    "SearchDataModule": "datamodules.search",
    "STL10": "datamodules.stl10",
    "SupportQuery": "datamodules.support_query",
    "TinyImageNet": "datamodules.tiny_imagenet",
    "TorchDataset": "datamodules.torch_dataset",
    "UnseenClasses": "datamodules.unseen_classes",
}
"""Module of each public name."""

__all__ = [
    "CIFAR10",
    "LFW",
    "MNIST",
    "STL10",
    "CelebA",
    "Codes",
    "DataError",
    "DataWarning",
    "Digits",
    "EpisodeDataModule",
    "Episodes",
    "FewLabels",
    "FoldedImages",
    "GatherDataset",
    "ImageDataModule",
    "ImageFolder",
    "ImagePair",
    "LabeledImages",
    "Maps",
    "Omniglot",
    "OmniglotEpisodes",
    "PairedFolder",
    "Picture",
    "Pictures",
    "SampleRequest",
    "Samples",
    "SearchBatch",
    "SearchDataModule",
    "SupportQuery",
    "TinyImageNet",
    "TorchDataset",
    "UnseenClasses",
]


_OLD_NAMES = {"LabelledImages": "LabeledImages"}
"""Names of earlier versions."""


def __getattr__(name: str) -> Any:
    name = _OLD_NAMES.get(name, name)
    if name in _MODULES:
        return getattr(import_module(_MODULES[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")

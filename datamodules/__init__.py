"""Data sets as LightningDataModules: ``--data MNIST`` on the command line, ``datamodules.MNIST`` in Python."""

from datamodules.base import ImageDataModule
from datamodules.celeba import CelebA
from datamodules.cifar10 import CIFAR10
from datamodules.digits import Digits
from datamodules.episodes import EpisodeDataModule
from datamodules.errors import DataError, DataWarning
from datamodules.few_labels import FewLabels, FoldedImages
from datamodules.image_folder import ImageFolder
from datamodules.lfw import LFW
from datamodules.maps import Maps
from datamodules.mnist import MNIST
from datamodules.omniglot import Omniglot, OmniglotEpisodes
from datamodules.pictures import Picture, Pictures
from datamodules.samples import SampleRequest, Samples
from datamodules.search import SearchDataModule
from datamodules.stl10 import STL10
from datamodules.support_query import SupportQuery
from datamodules.tensors import Codes, Episodes, GatherDataset, ImagePair, LabelledImages, SearchBatch
from datamodules.tiny_imagenet import TinyImageNet

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
    "LabelledImages",
    "Maps",
    "Omniglot",
    "OmniglotEpisodes",
    "Picture",
    "Pictures",
    "SampleRequest",
    "Samples",
    "SearchBatch",
    "SearchDataModule",
    "SupportQuery",
    "TinyImageNet",
]

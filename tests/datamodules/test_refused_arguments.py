"""Impossible arguments of every data module are refused by a sentence that names them, before anything is read."""

from typing import Any

import pytest

import datamodules
from datamodules import DataError, Digits

PAIRS_DRAWN = "must be paired, loose or unpaired"
REFUSED: dict[str, list[tuple[dict[str, Any], str]]] = {
    "MNIST": [
        ({"image_size": 64}, "sizes 28 and 32"),
        ({"binarization": "threshold"}, "must be none, static or dynamic"),
        ({"binarization": "static", "augmentation": "affine"}, "set --data.binarization dynamic"),
        ({"val_images": 0}, "val_images is 0"),
        ({"val_images": 60_000}, "val_images is 60000"),
    ],
    "Omniglot": [
        ({"image_size": 106}, "set --data.image_size to 1..105, not 106"),
        ({"resample": "nearst"}, "resample is 'nearst'; it must be antialiased or nearest"),
    ],
    "CIFAR10": [
        ({"image_size": 0}, "--data.image_size is "),
        ({"val_fraction": 1.0}, "--data.val_fraction is "),
        ({"val_fraction": -0.1}, "--data.val_fraction is "),
        ({"augmentation": "strong"}, "--data.augmentation is "),
        ({"cutout": 33}, "--data.cutout is "),
    ],
    "TinyImageNet": [
        ({"augmentation": "mild"}, "--data.augmentation is 'mild'"),
        ({"max_classes": 0}, "--data.max_classes is 0"),
        ({"max_classes": 201}, "--data.max_classes is 201"),
        ({"images_per_class": 0}, "--data.images_per_class is 0"),
        ({"classes_per_batch": 4}, "both, or neither"),
        ({"samples_per_class": 4}, "both, or neither"),
    ],
    "STL10": [
        ({"image_size": 97}, "--data.image_size is "),
        ({"image_size": 0}, "--data.image_size is "),
        ({"val_fraction": 1.0}, "--data.val_fraction is "),
        ({"fold": 10}, "--data.fold is "),
        ({"fold": -1}, "--data.fold is "),
        ({"augmentation": "crop"}, "--data.augmentation is "),
    ],
    "LFW": [
        ({"alignment": "crooked"}, "must be one of deepfunneled, funneled, original"),
        ({"people": []}, "people is an empty list"),
        ({"augmentation": "mild"}, "must be none, flip, standard or strong"),
    ],
    "Maps": [
        ({"direction": "up"}, "must be satellite_to_map or map_to_satellite"),
        ({"pairing": "mostly"}, PAIRS_DRAWN),
        ({"image_size": 0}, "image_size is 0"),
        ({"pairing": "loose", "max_shift": 31}, "max_shift is 31; at image_size 256 it must be from 0 to 30"),
        ({"pairing": "loose", "max_shift": -1}, "from 0 to 30"),
    ],
    "ImageFolder": [
        ({"val_fraction": 0.5, "test_fraction": 0.5}, "leave something for training; they are 0.5 and 0.5"),
        ({"val_fraction": -0.1}, "must not be negative"),
        ({"image_size": 0}, "image_size is 0; it must be at least 1"),
        ({"crop": 0}, "crop is 0; it must be at least 1"),
        ({"augmentation": "mild"}, "augmentation is 'mild'; it must be none, flip, standard or strong"),
        ({"classes_per_batch": 2}, "both, or neither"),
    ],
    "PairedFolder": [
        ({"image_size": 0}, "image_size is 0; it must be at least 1"),
        ({"target_channels": 4}, "target_channels is 4; it must be 1"),
        ({"direction": "up"}, "must be a_to_b or b_to_a"),
        ({"pairing": "mostly"}, PAIRS_DRAWN),
        ({"evaluation": "half"}, "must be resized, middle or tiles"),
        ({"image_size": 256, "load_size": 16}, "load_size is 16; windows of 256 pixels need at least as much"),
        ({"val_fraction": 0.6, "test_fraction": 0.4}, "leave something for training"),
        ({"image_size": 256, "pairing": "loose", "max_shift": 31}, "must be from 0 to 30"),
    ],
    "FewLabels": [({name: value}, "at least 2 folds") for name, value in (("folds", 1), ("folds", 51), ("repeats", 0))],
}
"""By the data module: arguments, and a part of the sentence."""
NEEDED: dict[str, Any] = {"ImageFolder": "nowhere", "PairedFolder": "nowhere", "FewLabels": Digits("nowhere")}
"""First arguments without a default."""


@pytest.mark.parametrize(
    ("name", "arguments", "sentence"),
    [(name, arguments, sentence) for name, cases in REFUSED.items() for arguments, sentence in cases],
    ids=str,
)
def test_impossible_arguments_are_refused_in_a_sentence(name: str, arguments: dict[str, Any], sentence: str) -> None:
    with pytest.raises(DataError) as error:
        getattr(datamodules, name)(*([NEEDED[name]] if name in NEEDED else []), **arguments)
    assert sentence in str(error.value)
    assert str(error.value).endswith(".")

import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from datamodules import Digits, LabeledImages
from lit_models.callbacks import ClassExamples, examples
from lit_models.callbacks.examples import chosen_label, draw_examples
from lit_models.errors import RunError
from tests.lit_models.callbacks.test_classification import Guesser
from tests.support.data_modules import digits_of
from tests.support.fixtures import Patch
from tests.support.trainers import trainer_of


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
@pytest.mark.timeout(200)
@pytest.mark.parametrize("devices", [1, 2])
def test_the_first_images_of_a_class(tmp_path: Path, digits_root: Path, monkeypatch: Patch, devices: int) -> None:
    def keep(image: Tensor, probability: Tensor, label: int, names: Any, path: Path) -> None:
        path.parent.mkdir(parents=True)
        torch.save((image, probability, label, list(names)), path.with_suffix(".pt"))
        Image.new("RGB", (1, 1)).save(path)

    monkeypatch.setattr(examples, "draw_examples", keep)
    trainer = trainer_of(devices, callbacks=[ClassExamples("7", count=11)], default_root_dir=tmp_path)
    trainer.test(Guesser(), Digits(root=str(digits_root), batch_size=23), verbose=False)
    image, probability, label, names = torch.load(tmp_path / "figures" / "examples_7.pt")
    everything = digits_of(digits_root)
    rows = (everything.label == 7).nonzero().flatten()[:11]
    assert torch.equal(image, everything.image[rows])
    expected = Guesser().test_step(LabeledImages(everything.image[rows], everything.label[rows]), 0).softmax(1)
    assert torch.allclose(probability, expected)
    assert (label, names) == (7, list("0123456789"))


def test_a_picture(tmp_path: Path) -> None:
    names = ["a long name of a class that is cut", "b"]
    for channels, count in ((1, 3), (3, 9)):
        image, probability = torch.rand(count, channels, 8, 8), torch.rand(count, 2).softmax(1)
        draw_examples(image, probability, 1, names, tmp_path / "figures" / "x.png")
        assert np.asarray(Image.open(tmp_path / "figures" / "x.png")).std() > 0


def test_classes_by_name_and_by_label() -> None:
    names = ["cat", "1", "dog"]
    assert chosen_label(None, names) == chosen_label("cat", names) == 0
    assert chosen_label("1", names) == 1
    assert chosen_label("2", names) == 2
    assert chosen_label("5", []) == 5
    with pytest.raises(RunError, match="there is no class 'cow'; there are cat, 1, dog"):
        chosen_label("cow", names)
    with pytest.raises(RunError, match="there is no class '3'"):
        chosen_label("3", names)
    with pytest.raises(RunError, match="count is 0; it must be at least 1"):
        ClassExamples(count=0)

"""Data of the wrong kind are refused in a sentence before anything is trained."""

from pathlib import Path

import pytest
from lightning.pytorch import Trainer

from datamodules import DataError, EpisodeDataModule, FewLabels, ImageDataModule, Maps, SearchDataModule
from lit_models.errors import ModelError
from tests.methods import SMALL_MODELS
from tests.support.fixtures import Patch
from tests.support.pairs import only_a_subset, write_maps
from tests.support.small_models import small_model
from tests.support.trainers import quiet_trainer

pytestmark = only_a_subset
OF_IMAGES = [
    title
    for title, model in SMALL_MODELS.items()
    if model.record.batch in ("labeled images", "halves") and model.record.starts_from is None
]
"""Without those that read a checkpoint before they look at their data."""


@pytest.fixture
def maps(tmp_path: Path, monkeypatch: Patch) -> Maps:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    write_maps(tmp_path / "maps", train=4, val=4)
    return Maps(root=str(tmp_path), image_size=32, batch_size=2)


def a_trainer() -> Trainer:
    return quiet_trainer(max_epochs=1)


@pytest.mark.parametrize(
    ("title", "stage"), [*((title, "fit") for title in OF_IMAGES), ("VAE", "test"), ("VAE", "predict")]
)
def test_pairs_are_refused_by_methods_of_single_images(title: str, stage: str, maps: Maps) -> None:
    model = small_model(title)
    sentence = (
        rf"^{type(model).__name__} takes single images, but Maps gives pairs of images: set --data ImageFolder, or"
    )
    with pytest.raises(ModelError, match=sentence):
        getattr(a_trainer(), stage)(model, maps)


def test_pairs_are_refused_by_methods_of_episodes(maps: Maps) -> None:
    with pytest.raises(ModelError, match=r"^ProtoNet takes episodes, but Maps gives pairs of images: set --data Epis"):
        a_trainer().fit(small_model("ProtoNet"), maps)


@pytest.mark.parametrize("wrapper", [EpisodeDataModule, FewLabels, SearchDataModule])
def test_pairs_are_refused_by_data_made_of_other_data(wrapper: type[ImageDataModule], maps: Maps) -> None:
    data = wrapper(maps)  # type: ignore[arg-type]
    data.prepare_data()
    with pytest.raises(DataError, match=f"{wrapper.__name__} is made of labeled images, which Maps doesn't give: set"):
        data.setup("fit")

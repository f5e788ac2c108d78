from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from datamodules import DataError, EpisodeDataModule, ImageFolder, LabeledImages, SupportQuery
from tests.support.data_modules import with_trainer


def picture(path: Path, value: int, width: int = 20, height: int = 20, mode: str = "RGB") -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.full((height, width), value, np.uint8)).convert(mode).save(path)


def ready(folder: Path, image_shape: tuple[int, int, int] = (1, 8, 8), **arguments: Any) -> SupportQuery:
    """The data module of ``folder/support`` and ``folder/query``, set up for a model of that image shape."""
    settings = {"support": str(folder / "support"), "query": str(folder / "query"), "root": str(folder / "root")}
    data = SupportQuery(**(settings | arguments))
    with_trainer(data, lightning_module=SimpleNamespace(image_shape=image_shape), training=False)
    data.prepare_data()
    data.setup("predict")
    return data


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Examples of two classes, two and one, and three pictures in question, of different sizes and kinds."""
    picture(tmp_path / "support/ape/1.png", 10)
    picture(tmp_path / "support/ape/2.jpg", 20, 40, 30)
    picture(tmp_path / "support/bee/1.png", 200, mode="L")
    for number, value in enumerate((30, 60, 90)):
        picture(tmp_path / f"query/{number}.png", value, 30 + number)
    return tmp_path


@pytest.mark.parametrize("image_shape", [(1, 8, 8), (3, 16, 16)])
def test_pictures_get_the_shape_that_the_model_takes(folder: Path, image_shape: tuple[int, int, int]) -> None:
    data = ready(folder, image_shape, batch_size=2)
    support = data.support_images()
    assert isinstance(support, LabeledImages)
    assert support.image.shape == (3, *image_shape)
    assert support.image.dtype == torch.float32
    assert support.label.tolist() == [0, 0, 1]
    assert torch.allclose(support.image[:, 0, 4, 4] * 255, torch.tensor([10.0, 20.0, 200.0]), atol=2)
    assert data.class_names == ("ape", "bee")
    assert data.file_names == ("0.png", "1.png", "2.png")
    batches = [data.on_after_batch_transfer(batch, 0) for batch in data.predict_dataloader()]
    assert [len(batch.image) for batch in batches] == [2, 1]
    values = torch.cat([batch.image[:, 0, 4, 4] for batch in batches])
    assert torch.allclose(values * 255, torch.tensor([30.0, 60.0, 90.0]))
    assert data.image_shape == image_shape


def test_values_of_deep_pictures_have_a_range(folder: Path) -> None:
    Image.fromarray(np.full((20, 20), 2000, np.int32)).save(folder / "query" / "deep.tif")
    with pytest.raises(DataError, match=r"deep.tif .* 32-bit integers from 2000 to 2000; .* --data\.value_range"):
        ready(folder)
    data = ready(folder, value_range=(0, 4000))
    assert data.predict_set[3].image.unique().tolist() == [128]


def test_pictures_in_question_may_lie_in_folders(folder: Path) -> None:
    picture(folder / "more/x/1.png", 1)
    picture(folder / "more/y/1.png", 2)
    assert ready(folder, query=str(folder / "more")).file_names == ("x/1.png", "y/1.png")


def test_the_center_is_cut_out_if_training_did_so(folder: Path) -> None:
    pixels = np.full((40, 40), 255, np.uint8)
    pixels[10:30, 10:30] = 0
    Image.fromarray(pixels).save(folder / "query/0.png")
    whole, center = (next(iter(ready(folder, crop=crop).predict_dataloader())).image[0] for crop in (None, 20))
    assert whole.max() == 255
    assert center.max() < 50, "but for what the filter sees behind the edge"


def empty(folder: Path) -> None:
    (folder / "support/ape").rename(folder / "elsewhere")


def flat(folder: Path) -> None:
    for path in list((folder / "support").glob("*/*")):
        path.rename(folder / "support" / f"{path.parent.name}-{path.name}")
    for path in list((folder / "support").iterdir()):
        if path.is_dir():
            path.rmdir()


def same(folder: Path) -> None:
    (folder / "support/bee/2.png").write_bytes((folder / "support/ape/1.png").read_bytes())


def damaged(folder: Path) -> None:
    (folder / "support/bee/1.png").write_bytes(b"no picture")


def no_pictures(folder: Path) -> None:
    for path in (folder / "query").iterdir():
        path.unlink()


def nothing(folder: Path) -> None:
    (folder / "query").rename(folder / "gone")


@pytest.mark.parametrize(
    ("harm", "sentence"),
    [
        (empty, "should hold sub-folders, each with the examples of one of two or more classes: make some"),
        (flat, "should hold sub-folders, each with the examples of one of two or more classes: make some"),
        (same, "ape/1.png and bee/2.png in .* are the same picture.* remove one of them"),
        (damaged, "No image of the class bee in .* can be read"),
        (no_pictures, "holds no images: set --data.query to a folder"),
        (nothing, "There is no folder or archive .*query: set --data.query"),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)
@pytest.mark.filterwarnings("ignore::datamodules.DataWarning")
def test_unfit_folders_are_refused_in_a_sentence(folder: Path, harm: Any, sentence: str) -> None:
    harm(folder)
    with pytest.raises(DataError, match=sentence):
        ready(folder)


def test_nothing_but_predictions_is_made_of_them() -> None:
    with pytest.raises(DataError, match="SupportQuery can only be predicted from: for anything else choose other"):
        SupportQuery("a", "b").setup("fit")


def test_without_a_model_there_is_no_shape() -> None:
    with pytest.raises(DataError, match="use it with `relit predict --ckpt_path FILE`"):
        SupportQuery("a", "b").prepare_data()


def test_episodes_of_a_missing_folder_name_the_option(tmp_path: Path) -> None:
    data = EpisodeDataModule(ImageFolder(str(tmp_path / "none"), root=str(tmp_path)))
    with pytest.raises(DataError, match=r"There is no folder or archive .*none: set --data\.images\.path"):
        data.prepare_data()

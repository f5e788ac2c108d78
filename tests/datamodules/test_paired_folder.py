import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision.transforms import functional

from datamodules import DataError, DataWarning, PairedFolder
from datamodules.loading.pairs import UnpairedBatches, UnpairedDataset, tile_starts
from datamodules.loading.samplers import ShuffledBatches
from lit_models import Pix2Pix
from lit_models.errors import ModelError
from tests.support.data_modules import set_up, sizes
from tests.support.fixtures import Output, Relit
from tests.support.pairs import everything, picture, place_of_window, resized, side_by_side
from tests.support.tiny import QUIET
from tests.support.trainers import quiet_trainer

pytestmark = pytest.mark.usefixtures("default_root", "seeds")


def save(image: Image.Image, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    image.save(path)


def two_folders(a: Path, b: Path, count: int, size: int = 40, mode: str = "RGB", first: int = 0) -> None:
    for number in range(first, first + count):
        save(picture(2 * number, size, mode), a / f"{number}.png")
        save(picture(2 * number + 1, size), b / f"{number}.tif")


def prepared(path: Path, **arguments) -> PairedFolder:
    return set_up(PairedFolder(str(path), **{"image_size": 32, "batch_size": 2, "eval_batch_size": 3, **arguments}))


# --- layouts ----------------------------------------------------------------------------------------------------------


def test_side_by_side_with_its_own_splits(tmp_path: Path) -> None:
    side_by_side(tmp_path / "d" / "train", 4)
    side_by_side(tmp_path / "d" / "val", 2, first=10)
    side_by_side(tmp_path / "d" / "test", 3, first=20)
    data = prepared(tmp_path / "d")
    assert sizes(data) == [4, 2, 3]
    train, test = everything(data.train_set), everything(data.test_set)
    assert torch.equal(train.source[3], resized(6, 36))  # 32 * 286 / 256
    assert torch.equal(train.target[3], resized(7, 36))
    assert torch.equal(test.source[0], resized(40, 32))
    assert torch.equal(test.target[0], resized(41, 32))


@pytest.mark.parametrize(("a", "b"), [("A", "B"), ("train/A", "train/B"), ("A/train", "B/train"), ("input", "output")])
def test_two_folders_with_equal_names(tmp_path: Path, a: str, b: str) -> None:
    two_folders(tmp_path / "d" / a, tmp_path / "d" / b, 12)
    save(picture(99), tmp_path / "d" / a / "alone.png")
    with pytest.warns(DataWarning, match="1 images have no partner of the same name"):
        data = prepared(tmp_path / "d", val_fraction=0, test_fraction=0)
    assert sizes(data) == [12, 0, 0]
    train = everything(data.train_set)
    for row in range(12):  # 2.png before 10.png
        assert torch.equal(train.source[row], resized(2 * row, 36))
        assert torch.equal(train.target[row], resized(2 * row + 1, 36))


def test_missing_splits_are_drawn_from_training(tmp_path: Path) -> None:
    side_by_side(tmp_path / "d", 10)
    data = prepared(tmp_path / "d", val_fraction=0.2, test_fraction=0.3)
    assert sizes(data) == [5, 2, 3]
    full = prepared(tmp_path / "d", val_fraction=0, test_fraction=0, load_size=32)
    known = [image.numpy().tobytes() for image in everything(full.train_set).source]
    evaluated = [
        image.numpy().tobytes() for split in (data.val_set, data.test_set) for image in everything(split).source
    ]
    assert len(set(evaluated)) == 5
    assert set(evaluated) <= set(known)
    trained = everything(data.train_set).source
    assert not any(torch.equal(image, resized(2 * known.index(one), 36)) for image in trained for one in evaluated)


def test_two_sets_that_do_not_belong_together(tmp_path: Path) -> None:
    for number in range(7):
        save(picture(number), tmp_path / "d" / "trainA" / f"{number}.png")
    for number in range(3):
        save(picture(100 + number), tmp_path / "d" / "trainB" / f"x{number}.png")
        save(picture(200 + number), tmp_path / "d" / "testB" / f"{number}.png")
    for number in range(4):
        save(picture(300 + number), tmp_path / "d" / "testA" / f"{number}.png")
    data = prepared(tmp_path / "d", val_fraction=0, batch_size=1)
    assert isinstance(data.train_set, UnpairedDataset)
    assert sizes(data) == [7, 0, 4]
    test = everything(data.test_set)
    assert [torch.equal(test.target[row], resized(200 + row % 3, 32)) for row in range(4)] == [True] * 4
    assert torch.equal(test.source[3], resized(303, 32))
    drawn = [rows.tolist() for rows in data.train_batches().epoch(0)]
    sources, targets = ([row[0][half] for row in drawn] for half in (0, 1))
    assert sorted(sources) == list(range(7))
    assert [sorted(targets[:3]), sorted(targets[3:6])] == [[0, 1, 2]] * 2
    batch = data.transform(next(iter(data.train_dataloader())), training=True)
    assert batch.source.shape == batch.target.shape == (1, 3, 32, 32)
    back = prepared(tmp_path / "d", val_fraction=0, direction="b_to_a")
    assert len(back.test_set) == 3
    with pytest.raises(DataError, match=r"don't belong together: set --data\.pairing unpaired"):
        prepared(tmp_path / "d", pairing="paired")


def test_the_smaller_set_goes_on_where_the_last_epoch_stopped() -> None:
    batches = UnpairedBatches(ShuffledBatches(5, 1, seed=0), ShuffledBatches(3, 1, seed=1))
    expected = [rows for epoch in range(4) for rows in ShuffledBatches(3, 1, seed=1).epoch(epoch)]
    targets = [pair[0, 1] for epoch in range(2) for pair in batches.epoch(epoch)]
    assert [int(row) for row in targets] == [int(row) for row in expected[:10]]


def test_pairs_in_an_archive(tmp_path: Path) -> None:
    import shutil

    side_by_side(tmp_path / "d" / "train", 4)
    archive = shutil.make_archive(str(tmp_path / "pairs"), "zip", tmp_path / "d")
    data = prepared(Path(archive), val_fraction=0.25, test_fraction=0)
    assert sizes(data) == [3, 1, 0]


# --- sizes and channels -----------------------------------------------------------------------------------------------


def test_windows_at_a_larger_scale(tmp_path: Path) -> None:
    side_by_side(tmp_path / "d" / "train", 2)
    side_by_side(tmp_path / "d" / "val", 1, first=5)
    side_by_side(tmp_path / "d" / "test", 2, first=10)
    data = prepared(tmp_path / "d", image_size=16, load_size=36)
    assert data.evaluation == "tiles"
    images = everything(data.train_set).source
    batch = data.augment(everything(data.train_set))
    assert batch.source.shape == (2, 3, 16, 16)
    for window, image in zip(batch.source, images, strict=True):
        place_of_window(image, window)  # there is one
    assert tile_starts(36, 16) == [0, 10, 20]
    assert sizes(data) == [2, 9, 18]
    full = resized(20, 36)
    tiles = everything(data.test_set).source[:9]
    expected = [full[:, top : top + 16, left : left + 16] for top in (0, 10, 20) for left in (0, 10, 20)]
    assert torch.equal(tiles, torch.stack(expected))
    middle = prepared(tmp_path / "d", image_size=16, load_size=36, evaluation="middle")
    assert torch.equal(everything(middle.test_set).source[0], full[:, 10:26, 10:26])
    assert data.source_scale == middle.source_scale == 36 / 40
    assert prepared(tmp_path / "d", image_size=16, load_size=36, evaluation="resized").source_scale == 16 / 40


def test_a_paired_window_is_the_same_in_both_halves(tmp_path: Path) -> None:
    two_folders(tmp_path / "d" / "A", tmp_path / "d" / "B", 4)
    for path in (tmp_path / "d" / "A").iterdir():
        Image.open(path).save(tmp_path / "d" / "B" / f"{path.stem}.tif")  # a pair of twins
    data = prepared(tmp_path / "d", image_size=16, load_size=36, val_fraction=0, test_fraction=0)
    batch = data.augment(everything(data.train_set))
    assert torch.equal(batch.source, batch.target)
    upright = prepared(tmp_path / "d", image_size=36, load_size=36, flip=False, val_fraction=0, test_fraction=0)
    assert torch.equal(upright.augment(everything(upright.train_set)).source, everything(upright.train_set).source)


def test_gray_to_color(tmp_path: Path) -> None:
    two_folders(tmp_path / "d" / "A", tmp_path / "d" / "B", 4)
    data = prepared(tmp_path / "d", source_channels=1, val_fraction=0, test_fraction=0.5)
    assert data.image_shape == (3, 32, 32)
    assert everything(data.train_set).source.shape[1] == 1
    batch = data.transform(everything(data.test_set), training=False)
    gray = functional.pil_to_tensor(Image.open(tmp_path / "d" / "A" / "0.png").convert("L"))
    assert batch.source.shape == batch.target.shape == (2, 3, 32, 32)
    assert torch.equal(batch.source[:, 0], batch.source[:, 2])
    assert not torch.equal(batch.target[:, 0], batch.target[:, 2])
    assert gray.shape[0] == 1
    both = prepared(tmp_path / "d", source_channels=1, target_channels=1, val_fraction=0)
    assert both.image_shape == (1, 32, 32)
    assert both.transform(everything(both.train_set), training=True).target.shape[1] == 1


def test_the_scale_is_that_of_the_files(tmp_path: Path) -> None:
    side_by_side(tmp_path / "same", 3, size=32)
    assert prepared(tmp_path / "same").source_scale == 1.0
    side_by_side(tmp_path / "two", 2, size=64)
    side_by_side(tmp_path / "two", 2, first=5, size=48)
    data = prepared(tmp_path / "two", val_fraction=0, test_fraction=0)
    assert (data.source_scale, data.source_side) == (None, 32)


def test_oblong_halves_are_cut_to_squares(tmp_path: Path) -> None:
    for number in range(2):
        pair = Image.new("RGB", (100, 40))
        pair.paste(picture(number), (5, 0))
        pair.paste(picture(50 + number), (55, 0))
        save(pair, tmp_path / "d" / f"{number}.png")
    with pytest.warns(DataWarning, match=r"has 2 train pairs \(of 2\) whose halves aren't squares: .* 50x40 pix"):
        data = prepared(tmp_path / "d", val_fraction=0, test_fraction=0)
    assert torch.equal(everything(data.train_set).target[1], resized(51, 36))


def test_halves_of_different_shapes_are_said(tmp_path: Path) -> None:
    for number in range(4):
        save(picture(number), tmp_path / "d" / "A" / f"{number}.png")
        width = 60 if number == 3 else 80  # 80x80 is another size only
        save(picture(9 + number, 80).resize((width, 80)), tmp_path / "d" / "B" / f"{number}.png")
    with pytest.warns(DataWarning, match=r"has 1 train pairs \(of 4\) whose halves are of different shapes"):
        prepared(tmp_path / "d", val_fraction=0, test_fraction=0)


def test_equal_names_in_sub_folders_are_different_pairs(tmp_path: Path) -> None:
    for place, below in enumerate(("x", "y")):
        two_folders(tmp_path / "d" / "A" / below, tmp_path / "d" / "B" / below, 2, first=10 * place)
    data = prepared(tmp_path / "d", val_fraction=0, test_fraction=0)
    target = everything(data.train_set).target
    assert [torch.equal(target[row], resized(2 * n + 1, 36)) for row, n in enumerate((0, 1, 10, 11))] == [True] * 4


def test_sub_folders_of_other_names_do_not_count(tmp_path: Path) -> None:
    two_folders(tmp_path / "d" / "A" / "day", tmp_path / "d" / "B" / "night", 3)
    data = prepared(tmp_path / "d", val_fraction=0, test_fraction=0)
    assert torch.equal(everything(data.train_set).target[2], resized(5, 36))


def test_names_that_fit_two_files_are_refused(tmp_path: Path) -> None:
    two_folders(tmp_path / "d" / "A", tmp_path / "d" / "B", 2)
    save(picture(9), tmp_path / "d" / "B" / "1.png")
    with pytest.raises(DataError, match=r"B/1.png and B/1.tif have the same name, so that it isn't clear"):
        prepared(tmp_path / "d")


def test_pictures_outside_the_splits_are_left_out_and_said(tmp_path: Path) -> None:
    side_by_side(tmp_path / "d" / "train", 4)
    side_by_side(tmp_path / "d" / "test", 2, first=10)
    side_by_side(tmp_path / "d" / "rest", 3, first=20)
    with pytest.warns(DataWarning, match="3 images lie outside the folders of the splits and are left out, such as re"):
        data = prepared(tmp_path / "d", val_fraction=0)
    assert [len(split) for split in (data.train_set, data.test_set)] == [4, 2]
    side_by_side(tmp_path / "d" / "Training", 1, first=30)
    with pytest.raises(DataError, match="more than one folder for one split: train, training"):
        prepared(tmp_path / "d", val_fraction=0)


def test_damaged_pictures_cost_their_pair_only(tmp_path: Path) -> None:
    two_folders(tmp_path / "d" / "A", tmp_path / "d" / "B", 4)
    (tmp_path / "d" / "A" / "1.png").write_text("text")
    (tmp_path / "d" / "B" / "2.tif").write_text("text")
    with pytest.warns(DataWarning, match="can't be read and are left out"):
        data = prepared(tmp_path / "d", val_fraction=0, test_fraction=0)
    train = everything(data.train_set)
    assert [torch.equal(train.target[row], resized(2 * n + 1, 36)) for row, n in ((0, 0), (1, 3))] == [True, True]


# --- bad input --------------------------------------------------------------------------------------------------------

BAD = {
    "empty": (
        lambda folder: folder.mkdir(),
        "holds no images: set --data.path to a folder of pictures with both",
    ),
    "one half": (lambda folder: save(picture(1), folder / "A" / "1.png"), "there is no folder B with images"),
    "other names": (
        lambda folder: (save(picture(1), folder / "A" / "1.png"), save(picture(1), folder / "B" / "2.png")),
        "no picture of one half has the name of one of the other, such as A/1.png and B/2.png",
    ),
    "square": (lambda folder: save(picture(1), folder / "1.png"), "1.png in .*: it has 40x40 pixels, but a pair lies"),
    "missing": (lambda folder: None, "There is no folder or archive"),
}


@pytest.mark.parametrize(("make", "sentence"), BAD.values(), ids=BAD)
def test_bad_folders(tmp_path: Path, make, sentence: str) -> None:
    make(tmp_path / "d")
    with pytest.raises(DataError, match=sentence):
        prepared(tmp_path / "d")
    assert not list(tmp_path.rglob("*.npy"))


def test_no_note_on_a_plain_folder(tmp_path: Path) -> None:
    side_by_side(tmp_path / "d", 10)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        prepared(tmp_path / "d")


# --- from training to prediction --------------------------------------------------------------------------------------

SMALL = (
    *("--model=Pix2Pix", "--model.image_size=32", "--model.feature_maps=2", "--model.discriminator_feature_maps=2"),
    *("--model.patch_size=16", "--data=PairedFolder", "--data.image_size=32", "--trainer.max_epochs=1"),
    *("--trainer.limit_train_batches=2", "--trainer.callbacks=Triptychs", "--run.id=one"),
)


@pytest.mark.parametrize(
    ("sides", "size", "words"),
    [([64], (40, 30), "to 50.0 %"), ([64, 48], (43, 32), "to a shorter side of 32 pixels"), ([32], (80, 60), None)],
)
def test_predictions_are_at_the_scale_of_training(
    relit: Relit, tmp_path: Path, capsys: Output, sides: list[int], size: tuple[int, int], words: str | None
) -> None:
    for place, side in enumerate(sides):
        side_by_side(tmp_path / "pairs", 12, first=100 * place, size=side)
    save(picture(3, 80).resize((80, 60)), tmp_path / "pictures" / "one.png")
    assert relit("fit", *SMALL, "--data.path=pairs", *QUIET) == 0
    assert relit("test", *SMALL, "--data.path=pairs", "--ckpt_path=last", *QUIET) == 0
    capsys.readouterr()
    checkpoint = "runs/pix2pix_pairedfolder/one/checkpoints/last.ckpt"
    assert relit("predict", "--ckpt_path", checkpoint, "--data=Pictures", "--data.path=pictures", *QUIET) == 0
    with Image.open(tmp_path / "runs/pix2pix_pairedfolder/one/predictions/one.png") as image:
        assert image.size == size
    said = capsys.readouterr().err
    assert (words in said) if words else ("resized" not in said)


def test_gray_pictures_are_translated_into_color(relit: Relit, tmp_path: Path) -> None:
    two_folders(tmp_path / "pairs" / "A", tmp_path / "pairs" / "B", 12, size=32)
    save(picture(3, 32), tmp_path / "pictures" / "color.png")
    save(picture(3, 32, "L"), tmp_path / "pictures" / "gray.png")
    assert relit("fit", *SMALL, "--data.path=pairs", "--data.source_channels=1", *QUIET) == 0
    checkpoint = "runs/pix2pix_pairedfolder/one/checkpoints/last.ckpt"
    assert relit("predict", "--ckpt_path", checkpoint, "--data=Pictures", "--data.path=pictures", *QUIET) == 0
    color, gray = (
        np.asarray(Image.open(tmp_path / f"runs/pix2pix_pairedfolder/one/predictions/{name}.png"))
        for name in ("color", "gray")
    )
    assert np.array_equal(color, gray), "both are read as gray"
    assert not (gray[..., 0] == gray[..., 2]).all()


# --- every method of translation, from gray to color ------------------------------------------------------------------

METHODS = {
    "pix2pix": (),
    "pix2pix, resnet": ("--model.generator=resnet", "--model.blocks=1", "--data.direction=b_to_a"),
    "plain": ("--model.conditional=false", "--model.lambda_l1=0"),
    "CycleGAN": ("--model=CycleGAN", "--model.blocks=1", "--model.lambda_identity=0"),
}


@pytest.mark.parametrize("name", METHODS)
def test_networks_of_one_channel_learn_three(relit: Relit, tmp_path: Path, name: str) -> None:
    """Trained, tested and used; ``PairedFolder`` takes its channels and its size from the model."""
    two_folders(tmp_path / "pairs" / "A", tmp_path / "pairs" / "B", 12, size=32)
    save(picture(3, 32), tmp_path / "pictures" / "one.png")
    model = [argument for argument in SMALL if not argument.startswith(("--data.image_size", "--model=Pix2Pix"))]
    method = METHODS[name] if name == "CycleGAN" else ("--model=Pix2Pix", *METHODS[name])
    arguments = ["--data=PairedFolder", *method, *model, "--model.source_channels=1", "--data.path=pairs", *QUIET]
    arguments.append("--trainer.callbacks+=TranslationScores")
    assert relit("fit", *arguments) == 0
    run = next((tmp_path / "runs").glob("*/one"))
    checkpoint = run / "checkpoints" / "last.ckpt"
    state = torch.load(checkpoint, weights_only=True)["state_dict"]
    first = "generator.to_target.layers.0" if name == "CycleGAN" else "generator.layers.0"
    first = first if name in ("CycleGAN", "pix2pix, resnet") else "generator.encoder.0"
    assert state[f"{first}.weight"].shape[1] == 1
    assert relit("test", "--ckpt_path", checkpoint, *QUIET) == 0
    assert relit("predict", "--ckpt_path", checkpoint, *QUIET) == 0
    assert relit("predict", "--ckpt_path", checkpoint, "--data=PairedFolder", "--data.path=pairs", *QUIET) == 0
    assert relit("predict", "--ckpt_path", checkpoint, "--data=Pictures", "--data.path=pictures", *QUIET) == 0
    written = [{str(path.relative_to(folder)) for path in folder.rglob("*.png")} for folder in run.glob("predictions*")]
    half = "B" if "--data.direction=b_to_a" in METHODS[name] else "A"
    assert {"one.png"} in written
    assert all(len(names) == 1 and next(iter(names))[:2] in ("on", f"{half}/", "A/") for names in written)
    with Image.open(run / "predictions_3" / "one.png") as image:
        assert (image.mode, image.size) == ("RGB", (32, 32))


@pytest.mark.parametrize(
    ("model", "data", "sentence"),
    [
        (
            {"source_channels": 1},
            {"source_channels": 3},
            "takes sources of 1 channel, but PairedFolder gives 3: set --model.source_channels 3 or "
            "--data.source_channels 1, or choose other data",
        ),
        (
            {"channels": 1, "source_channels": 3},
            {"target_channels": 3},
            "takes targets of 1 channel, but PairedFolder gives 3: set --model.channels 3 or --data.target_channels 1",
        ),
        ({}, {"source_channels": 1, "target_channels": 1}, "gives 1x32x32 .* --model.channels 1"),
    ],
)
def test_channels_that_do_not_fit_are_refused(
    tmp_path: Path, model: dict[str, int], data: dict[str, int], sentence: str
) -> None:
    two_folders(tmp_path / "pairs" / "A", tmp_path / "pairs" / "B", 8, size=32)
    small = Pix2Pix(image_size=32, feature_maps=2, discriminator_feature_maps=2, patch_size=16, **model)
    with pytest.raises(ModelError, match=sentence):
        quiet_trainer(max_epochs=1).fit(small, PairedFolder(str(tmp_path / "pairs"), **data))


def test_tiles_are_predicted_by_number(relit: Relit, tmp_path: Path, capsys: Output) -> None:
    side_by_side(tmp_path / "pairs" / "train", 4, size=64)
    side_by_side(tmp_path / "pairs" / "test", 1, first=7, size=64)
    arguments = [*SMALL, "--data.path=pairs", "--data.load_size=64", "--data.val_fraction=0", *QUIET]
    assert relit("fit", *arguments) == 0
    checkpoint = "runs/pix2pix_pairedfolder/one/checkpoints/last.ckpt"
    assert relit("predict", "--ckpt_path", checkpoint, *QUIET) == 0
    names = {path.name for path in (tmp_path / "runs/pix2pix_pairedfolder/one/predictions/test").iterdir()}
    assert names == {"7.png", "7_tile_2.png", "7_tile_3.png", "7_tile_4.png"}
    assert "Triptychs draws nothing: there are no val pairs" in capsys.readouterr().err


def test_a_load_size_is_compared_with_the_models_size(tmp_path: Path) -> None:
    """Without ``image_size``, which is known only once there is a model, 64 isn't compared with the default of 256."""
    data = PairedFolder(str(tmp_path), load_size=64)
    with pytest.raises(DataError, match="load_size is 64; windows of 256 pixels need at least as much"):
        data.prepare_data()
    with pytest.raises(DataError, match="load_size is 64; windows of 128 pixels need at least as much"):
        PairedFolder(str(tmp_path), load_size=64, image_size=128)

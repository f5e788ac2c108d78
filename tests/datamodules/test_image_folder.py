import os
import shutil
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
import torchvision
from PIL import Image, ImageOps
from torchvision import transforms

from datamodules import DataError, DataWarning, ImageFolder
from datamodules.base import to_unit_interval
from datamodules.loading.decoding import Reading, _drafted, central_square
from tests.support.data_modules import real_root, set_up
from tests.support.fixtures import Patch

Serve = Callable[[Path], tuple[str, list[str]]]
COLORS = {"red": (255, 0, 0), "green": (0, 255, 0), "blue": (0, 0, 255)}


pytestmark = pytest.mark.usefixtures("default_root")


def write_image(path: Path, color: tuple[int, int, int] = (9, 99, 199), size: tuple[int, int] = (20, 20)) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", size, color).save(path)


def write_noise(path: Path, size: tuple[int, int] = (64, 48)) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    noise = np.random.default_rng(0).integers(0, 256, (size[1], size[0], 3), np.uint8)
    Image.fromarray(noise).save(path, quality=95)


def truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def write_classes(folder: Path, counts: dict[str, int] | None = None) -> Path:
    for name, count in (counts or {"red": 10, "green": 6, "blue": 4}).items():
        for i in range(count):
            write_image(folder / name / f"{i:02}.png", COLORS[name])
    return folder


def prepared(path: Path | str, **arguments) -> ImageFolder:
    return set_up(ImageFolder(str(path), **{"image_size": 8, "channels": 3, "batch_size": 4, **arguments}))


def rows_of(*splits) -> list[list[int]]:
    return [split.rows.tolist() for split in splits]


# --- folders, classes and splits --------------------------------------------------------------------------------------


def test_sub_folders_are_classes(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    write_classes(tmp_path / "data")
    (tmp_path / "data" / "notes.txt").write_text("not an image")
    (tmp_path / "data" / "red" / ".DS_Store").write_text("not an image")
    data = prepared(tmp_path / "data")

    assert data.image_shape == (3, 8, 8)
    assert (data.num_classes, data.class_names) == (3, ("blue", "green", "red"))
    assert data.file_names[:5] == ("blue/00.png", "blue/01.png", "blue/02.png", "blue/03.png", "green/00.png")
    everything = data.predict_set.__getitems__(range(20))
    assert everything.image.dtype == torch.uint8
    for name, image, label in zip(data.file_names, everything.image, everything.label, strict=True):
        color = name.split("/")[0]
        assert data.class_names[label] == color
        assert image.flatten(1).unique(dim=1).flatten().tolist() == list(COLORS[color])


def test_splits_are_disjoint_and_complete_and_depend_on_their_seed(tmp_path: Path) -> None:
    write_classes(tmp_path / "data")
    data = prepared(tmp_path / "data", val_fraction=0.2, test_fraction=0.1)
    train, val, test = rows_of(data.train_set, data.val_set, data.test_set)
    assert [len(train), len(val), len(test)] == [14, 4, 2]
    assert sorted(train + val + test) == list(range(20)) == data.predict_set.rows.tolist()
    again = prepared(tmp_path / "data", val_fraction=0.2, test_fraction=0.1)
    other = prepared(tmp_path / "data", val_fraction=0.2, test_fraction=0.1, split_seed=1)
    assert rows_of(again.train_set, again.val_set, again.test_set) == [train, val, test]
    assert rows_of(other.train_set) != [train]


def test_a_flat_folder_has_no_classes(tmp_path: Path) -> None:
    for i in range(5):
        write_image(tmp_path / "data" / f"{i}.png", (i, 0, 0))
    data = prepared(tmp_path / "data")
    assert (data.num_classes, data.class_names) == (0, ())
    batch = data.predict_set.__getitems__([0, 1, 2, 3, 4])
    assert batch.label.tolist() == [0] * 5
    assert batch.image[:, 0, 0, 0].tolist() == [0, 1, 2, 3, 4]  # in the order of the names


def test_folders_around_and_below_the_classes_make_none(tmp_path: Path) -> None:
    write_image(tmp_path / "data" / "wrapper" / "cat" / "deep" / "1.png")
    write_image(tmp_path / "data" / "wrapper" / "cat" / "2.png")
    write_image(tmp_path / "data" / "wrapper" / "dog" / "3.JPEG")
    data = prepared(tmp_path / "data")
    assert data.class_names == ("cat", "dog")
    assert data.file_names == ("wrapper/cat/2.png", "wrapper/cat/deep/1.png", "wrapper/dog/3.JPEG")


def test_images_beside_classes(tmp_path: Path) -> None:
    write_classes(tmp_path / "data", {"red": 2, "blue": 2})
    write_image(tmp_path / "data" / "loose.png")
    with pytest.warns(DataWarning, match="1 images lie outside the sub-folders .* without classes"):
        data = prepared(tmp_path / "data")
    assert data.num_classes == 0
    assert len(data.predict_set) == 5


# --- pixels -----------------------------------------------------------------------------------------------------------


def test_pixels_are_those_of_torchvision(tmp_path: Path) -> None:
    """A square picture: exactly; an oblong one: but for the order of cutting and resizing."""
    bicubic = transforms.InterpolationMode.BICUBIC
    resize = transforms.Compose([transforms.Resize(24, bicubic), transforms.CenterCrop(24), transforms.PILToTensor()])
    smooth = Image.fromarray(np.random.default_rng(0).integers(0, 256, (6, 9, 3), np.uint8)).resize((90, 60), 3)
    (tmp_path / "data").mkdir()
    smooth.save(tmp_path / "data" / "oblong.png")
    smooth.crop((0, 0, 60, 60)).save(tmp_path / "data" / "square.png")
    images = prepared(tmp_path / "data", image_size=24).predict_set.__getitems__([0, 1]).image
    assert torch.equal(images[1], resize(smooth.crop((0, 0, 60, 60))))
    difference = (images[0].int() - resize(smooth).int()).abs()
    assert difference[:, 1:-1, 1:-1].max() <= 2
    assert difference.max() <= 12  # at the border, the other order looks beyond the cut


def test_the_central_square_is_cut_out() -> None:
    image = Image.new("RGB", (60, 20), COLORS["red"])
    image.paste(COLORS["green"], (20, 0, 40, 20))
    assert central_square(image.resize((60, 20)), 10, Reading())[0, :, 1:-1].max() == 0
    upright = image.transpose(Image.Transpose.ROTATE_90)
    assert central_square(upright, 10, Reading())[0, 1:-1].max() == 0
    cut = central_square(image, 10, Reading(), crop=10)
    assert (cut == np.array(COLORS["green"]).reshape(3, 1, 1)).all()
    assert central_square(image, 10, Reading(), crop=500).shape == (3, 10, 10)


def test_every_kind_of_picture(tmp_path: Path) -> None:
    """16-bit gray, palette, transparency, CMYK, black and white; all of one color, which must come out right."""
    folder = tmp_path / "data"
    folder.mkdir()
    gray = np.full((10, 10), 128, np.uint8)
    Image.fromarray(gray).save(folder / "0.png")
    Image.fromarray(gray.astype(np.uint16) * 257).save(folder / "1.png")
    Image.fromarray(gray).convert("P").save(folder / "2.gif")
    Image.fromarray(gray).convert("RGBA").save(folder / "3.png")
    Image.fromarray(gray).convert("RGB").save(folder / "4.webp", lossless=True)
    Image.fromarray(gray).convert("RGB").save(folder / "5.bmp")
    Image.fromarray(gray).convert("LA").save(folder / "6.png")
    Image.fromarray(gray).convert("CMYK").save(folder / "7.tif")
    for channels in (1, 3):
        images = prepared(folder, channels=channels).predict_set.__getitems__(range(8)).image
        assert images.shape == (8, channels, 8, 8)
        assert images.int().sub(128).abs().max() <= 1
    white = Image.new("1", (10, 10), 1)
    assert (central_square(white, 8, Reading(1)) == 255).all()


def test_a_photograph_held_sideways_is_turned() -> None:
    image = Image.new("RGB", (40, 40), COLORS["red"])
    image.paste(COLORS["blue"], (0, 0, 40, 20))  # blue above
    exif = Image.Exif()
    exif[0x0112] = 6  # turn by 90 degrees clockwise to look at it
    turned = image.transpose(Image.Transpose.ROTATE_90)
    turned.info["exif"] = exif.tobytes()
    turned.getexif()[0x0112] = 6
    square = central_square(turned, 8, Reading())
    assert square[2, 0].min() > 200
    assert square[0, -1].min() > 200


@pytest.mark.parametrize(("orientation", "crop"), [(1, None), (6, None), (8, 1201), (3, 1333)])
def test_a_large_jpeg_is_decoded_at_part_of_its_size(tmp_path: Path, orientation: int, crop: int | None) -> None:
    """And gives what the whole picture gives."""
    rough = np.random.default_rng(0).integers(0, 256, (40, 60, 3), np.uint8)
    large = Image.fromarray(rough).resize((2000, 1340), Image.Resampling.BICUBIC)
    exif = Image.Exif()
    exif[0x0112] = orientation
    large.save(tmp_path / "large.jpg", quality=95, exif=exif)
    with Image.open(tmp_path / "large.jpg") as image:
        whole = ImageOps.exif_transpose(image)
    side = crop or 1340
    left, top = (whole.width - side) // 2, (whole.height - side) // 2
    expected = np.asarray(whole.crop((left, top, left + side, top + side)).resize((64, 64), Image.Resampling.BICUBIC))
    with Image.open(tmp_path / "large.jpg") as image:
        found = central_square(image, 64, Reading(), crop)
    difference = np.abs(found.transpose(1, 2, 0).astype(int) - expected)
    assert difference.mean() < 0.5
    assert difference.max() <= 10
    with Image.open(tmp_path / "large.jpg") as image:
        assert (_drafted(image, side, 64), image.size) == (4, (500, 335))
    with Image.open(tmp_path / "large.jpg") as image:
        assert (_drafted(image, side, 200), image.size) == (1, (2000, 1340))


def test_training_batches(tmp_path: Path) -> None:
    write_classes(tmp_path / "data")
    data = prepared(tmp_path / "data", val_fraction=0, test_fraction=0)
    batches = [to_unit_interval(batch) for batch in data.train_dataloader()]
    assert [len(batch.label) for batch in batches] == [4] * 5
    assert batches[0].image.dtype == torch.float32
    assert {len(batch.label) for batch in data.predict_dataloader()} == {4}
    assert len(data.val_dataloader()) == 0


# --- archives and addresses -------------------------------------------------------------------------------------------


@pytest.fixture
def archive(tmp_path: Path) -> Path:
    folder = write_classes(tmp_path / "source" / "colors")
    path = tmp_path / "colors.zip"
    with zipfile.ZipFile(path, "w") as file:
        for image in sorted(folder.rglob("*.png")):
            file.write(image, image.relative_to(tmp_path / "source"))
            file.writestr(f"__MACOSX/{image.relative_to(tmp_path / 'source').parent}/._{image.name}", b"junk")
            file.writestr(f"__MACOSX/{image.relative_to(tmp_path / 'source')}", b"junk")
    return path


def test_zip_and_tar_equal_their_folder(tmp_path: Path, archive: Path) -> None:
    tar = tmp_path / "colors.tar.gz"
    with tarfile.open(tar, "w:gz") as file:
        file.add(tmp_path / "source" / "colors", "colors")
    expected = prepared(tmp_path / "source" / "colors")
    for path in (archive, tar):
        data = prepared(path)
        assert data.class_names == expected.class_names
        assert torch.equal(data.predict_set.columns.image, expected.predict_set.columns.image)
        assert torch.equal(data.predict_set.columns.label, expected.predict_set.columns.label)
    left = {path.name for path in (tmp_path / "root" / "image_folder" / "prepared").iterdir() if path.name[0] != "."}
    assert len(left) == 3  # the prepared arrays, nothing of what was unpacked
    assert not list((tmp_path / "root").rglob("*.png"))


def test_an_archive_by_its_address(archive: Path, serve: Serve) -> None:
    url, requested = serve(archive.parent)
    for _ in range(2):
        data = prepared(f"{url}colors.zip?raw=1")
        assert data.class_names == ("blue", "green", "red")
        assert len(data.predict_set) == 20
    assert requested == ["/colors.zip?raw=1"]


def test_addresses_of_no_archive(tmp_path: Path, serve: Serve) -> None:
    url, _ = serve(tmp_path)
    with pytest.raises(DataError, match=r"gone\.zip can't be downloaded \(.*404"):
        prepared(f"{url}gone.zip")
    (tmp_path / "login.html").write_text("<html>Please log in</html>")
    with pytest.raises(DataError, match="neither a zip nor a tar archive"):
        prepared(f"{url}login.html")


# --- prepared once, until something changes ---------------------------------------------------------------------------


def test_prepared_once(tmp_path: Path, monkeypatch: Patch) -> None:
    write_classes(tmp_path / "data")
    prepared(tmp_path / "data")
    monkeypatch.setattr(Image, "open", None)  # would be called to decode
    data = prepared(tmp_path / "data", split_seed=3, batch_size=2)
    assert len(data.predict_set) == 20
    with pytest.raises(DataError, match="None of the 20 images"):
        prepared(tmp_path / "data", image_size=9)


@pytest.mark.parametrize("change", ["add", "remove", "rename", "replace", "replace by one of its size"])
def test_changed_folders_are_decoded_again(tmp_path: Path, change: str) -> None:
    write_classes(tmp_path / "data")
    Image.new("RGB", (20, 20), (255, 0, 1)).save(tmp_path / "data" / "red" / "00.png", "BMP")
    prepared(tmp_path / "data")
    if change == "add":
        write_image(tmp_path / "data" / "red" / "99.png")
    elif change == "remove":
        (tmp_path / "data" / "red" / "00.png").unlink()
    elif change == "rename":
        (tmp_path / "data" / "red" / "00.png").rename(tmp_path / "data" / "red" / "77.png")
    elif change == "replace":
        write_noise(tmp_path / "data" / "red" / "00.png")
    else:
        Image.new("RGB", (20, 20), (255, 0, 2)).save(tmp_path / "data" / "red" / "00.png", "BMP")
        os.utime(tmp_path / "data" / "red" / "00.png", ns=(0, 1))
    with pytest.warns(DataWarning, match="source files have changed"):
        data = prepared(tmp_path / "data")
    assert len(data.predict_set) == {"add": 21, "remove": 19}.get(change, 20)
    assert ("red/77.png" in data.file_names) == (change == "rename")
    if change == "replace by one of its size":
        assert data.predict_set[data.file_names.index("red/00.png")].image[2].eq(2).all()


def test_a_folder_that_is_gone_is_not_needed_any_more(tmp_path: Path) -> None:
    write_classes(tmp_path / "data")
    prepared(tmp_path / "data")
    shutil.rmtree(tmp_path / "data")
    assert len(prepared(tmp_path / "data").predict_set) == 20


def test_two_folders_of_one_name(tmp_path: Path) -> None:
    write_image(tmp_path / "a" / "data" / "1.png", COLORS["red"])
    write_image(tmp_path / "b" / "data" / "1.png", COLORS["blue"])
    red, blue = prepared(tmp_path / "a" / "data"), prepared(tmp_path / "b" / "data")
    assert red.predict_set[0].image[:, 0, 0].tolist() == list(COLORS["red"])
    assert blue.predict_set[0].image[:, 0, 0].tolist() == list(COLORS["blue"])


# --- bad input --------------------------------------------------------------------------------------------------------


def empty(tmp_path: Path) -> Path:
    (tmp_path / "data").mkdir()
    return tmp_path / "data"


def all_truncated(tmp_path: Path) -> Path:
    for i in range(5):
        write_noise(tmp_path / "data" / f"{i}.jpg")
        truncate(tmp_path / "data" / f"{i}.jpg")
    return tmp_path / "data"


def text_named_jpg(tmp_path: Path) -> Path:
    (empty(tmp_path) / "a.jpg").write_text("text")
    return tmp_path / "data"


def zip_of_text(tmp_path: Path) -> Path:
    with zipfile.ZipFile(tmp_path / "text.zip", "w") as file:
        file.writestr("a.txt", "text")
    return tmp_path / "text.zip"


def text_file(tmp_path: Path) -> Path:
    (tmp_path / "a.txt").write_text("text")
    return tmp_path / "a.txt"


BAD_FOLDERS = {
    "all truncated": (all_truncated, r"None of the 5 images in .*data can be read: 0\.jpg \(.*truncated.*2\.jpg .*, …"),
    "text named jpg": (text_named_jpg, r"None of the 1 images in .*data can be read: a\.jpg \(not an image\)"),
    "zip of text": (zip_of_text, r"text\.zip holds no images but 1 other files, such as a\.txt"),
    "text file": (text_file, r"a\.txt is neither a zip nor a tar archive"),
}


@pytest.mark.parametrize(("make", "sentence"), BAD_FOLDERS.values(), ids=BAD_FOLDERS)
def test_bad_folders(tmp_path: Path, make, sentence: str) -> None:
    path = make(tmp_path)
    with pytest.raises(DataError, match=sentence) as caught:
        prepared(path)
    assert "\n" not in str(caught.value)
    left = [p for p in (tmp_path / "root").rglob("*") if p.is_file() and not p.name.endswith(".lock")]
    assert left == []


def test_damaged_images_are_left_out_with_one_note(tmp_path: Path, recwarn: pytest.WarningsRecorder) -> None:
    write_classes(tmp_path / "data", {"red": 5, "blue": 5})
    write_noise(tmp_path / "data" / "red" / "02b.jpg")
    truncate(tmp_path / "data" / "red" / "02b.jpg")
    (tmp_path / "data" / "blue" / "99.png").write_text("not an image")
    data = prepared(tmp_path / "data", val_fraction=0.2, test_fraction=0.2)
    notes = [str(warning.message) for warning in recwarn if issubclass(warning.category, DataWarning)]
    notes = [note for note in notes if "are copies of others" not in note]  # as all of a color are
    assert len(notes) == 1
    assert "2 of the 12 images" in notes[0]
    assert "blue/99.png (not an image), red/02b.jpg (" in notes[0]
    assert len(data.file_names) == len(data.predict_set) == 10
    assert not {"red/02b.jpg", "blue/99.png"} & set(data.file_names)
    everything = data.predict_set.__getitems__(range(10))
    assert [data.class_names[label] for label in everything.label] == ["blue"] * 5 + ["red"] * 5
    assert (everything.image.flatten(1).max(1).values == 255).all()  # none is the blank of an image left out
    splits = rows_of(data.train_set, data.val_set, data.test_set)
    assert sorted(row for rows in splits for row in rows) == data.predict_set.rows.tolist()


# --- real data --------------------------------------------------------------------------------------------------------


def test_real_faces_equal_torchvision() -> None:
    faces = real_root("lfw/lfw") / "lfw" / "lfw"
    resize = transforms.Compose([transforms.Resize(32, transforms.InterpolationMode.BICUBIC), transforms.PILToTensor()])
    reference = torchvision.datasets.ImageFolder(str(faces), transform=resize)
    data = prepared(faces, image_size=32)
    assert data.class_names == tuple(reference.classes)
    assert len(data.predict_set) == len(reference) == 100
    everything = data.predict_set.__getitems__(range(100))
    assert everything.label.tolist() == reference.targets
    for row in range(0, 100, 7):
        assert torch.equal(everything.image[row], reference[row][0])

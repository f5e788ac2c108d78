"""Pixels of pictures of all kinds."""

import threading
import zlib
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from datamodules import DataError, DataWarning
from datamodules.loading import decoding
from tests.support.data_modules import sizes
from tests.support.fixtures import Patch
from tests.support.folders import make, notes_of, prepared

pytestmark = pytest.mark.usefixtures("default_root")


def one_picture(folder: Path, image: Image.Image, suffix: str = ".png", **arguments) -> torch.Tensor:
    folder.mkdir(parents=True, exist_ok=True)
    image.save(folder / f"1{suffix}")
    image.save(folder / f"2{suffix}")
    return prepared(folder, **arguments).predict_set[0].image


@pytest.mark.parametrize("channels", [1, 3])
def test_transparent_pixels_show_the_background(tmp_path: Path, channels: int) -> None:
    image = Image.new("RGBA", (16, 16), (0, 0, 0, 0))
    image.paste((0, 0, 0, 255), (0, 0, 8, 16))
    white = one_picture(tmp_path / "a", image, image_size=16, channels=channels)
    assert white[0, 8].tolist() == [0] * 8 + [255] * 8
    black = one_picture(tmp_path / "b", image, image_size=16, channels=channels, background="black")
    assert black.max() == 0
    half = one_picture(tmp_path / "c", Image.new("RGBA", (16, 16), (255, 0, 0, 51)), image_size=16)
    assert half[:, 0, 0].tolist() == [255, 204, 204]  # a fifth of red on four fifths of white


def ramp(low: float, high: float, dtype: type) -> Image.Image:
    return Image.fromarray(np.linspace(low, high, 256).reshape(16, 16).astype(dtype))


def test_files_of_more_than_8_bits(tmp_path: Path) -> None:
    expected = torch.arange(256).view(16, 16)
    full = {"image_size": 16, "channels": 1}
    floats = one_picture(tmp_path / "float", ramp(0, 1, np.float32), ".tif", **full)
    assert (floats[0] - expected).abs().max() <= 1
    deep = one_picture(tmp_path / "deep", ramp(0, 65535, np.uint16), ".png", **full)
    assert (deep[0] - expected).abs().max() <= 1
    for name, image, value_range in (
        ("signed", ramp(-1, 1, np.float32), (-1, 1)),
        ("bytes in floats", ramp(0, 255, np.float32), (0, 255)),
        ("bytes in words", ramp(0, 255, np.int32), (0, 255)),
        ("12 bits", ramp(0, 4095, np.uint16), (0, 4095)),
    ):
        ranged = one_picture(tmp_path / name, image, ".tif", value_range=value_range, **full)
        assert (ranged[0] - expected).abs().max() <= 1, name


@pytest.mark.parametrize(
    ("image", "found"),
    [
        (ramp(-1, 1, np.float32), "floating-point numbers from -1 to 1"),
        (ramp(0, 255, np.float32), "floating-point numbers from 0 to 255"),
        (ramp(0, 255, np.int32), "32-bit integers from 0 to 255"),
    ],
)
def test_values_without_a_known_black_and_white_are_refused(tmp_path: Path, image: Image.Image, found: str) -> None:
    with pytest.raises(DataError, match=rf"1\.tif in .*its values are {found}; say .*--data\.value_range"):
        one_picture(tmp_path / "data", image, ".tif")


def test_a_transparent_value_of_16_bits(tmp_path: Path) -> None:
    pixels = np.full((16, 16), 32768, np.uint16)
    pixels[:, :8] = 7
    image = Image.fromarray(pixels)
    (tmp_path / "data").mkdir()
    for name in ("1.png", "2.png"):
        image.save(tmp_path / "data" / name)
        content = (tmp_path / "data" / name).read_bytes()
        chunk = b"tRNS" + (7).to_bytes(2, "big")  # between header (33 bytes) and pixels
        chunk = (2).to_bytes(4, "big") + chunk + zlib.crc32(chunk).to_bytes(4, "big")
        (tmp_path / "data" / name).write_bytes(content[:33] + chunk + content[33:])
    images = prepared(tmp_path / "data", image_size=16).predict_set[0].image
    assert images[:, 0].tolist() == [[255] * 8 + [128] * 8] * 3


def test_a_16_bit_pgm_is_read_as_a_16_bit_png(tmp_path: Path) -> None:
    deep = one_picture(tmp_path / "data", ramp(0, 65535, np.uint16), ".pgm", image_size=16, channels=1)
    assert (deep[0] - torch.arange(256).view(16, 16)).abs().max() <= 1


def test_lab_becomes_gray(tmp_path: Path) -> None:
    lab = Image.new("RGB", (16, 16), (200, 100, 50)).convert("LAB")
    gray = one_picture(tmp_path / "data", lab, ".tif", channels=1)
    assert abs(int(gray[0, 0, 0]) - (0.299 * 200 + 0.587 * 100 + 0.114 * 50)) <= 3


def test_pictures_of_too_many_pixels_are_said_and_large_ones_are_not(tmp_path: Path, monkeypatch: Patch) -> None:
    folder = make(tmp_path / "data", a=2)
    Image.new("L", (30, 30), 9).save(folder / "a" / "large.png")
    Image.new("L", (60, 60)).save(folder / "a" / "huge.png")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 800)  # Pillow warns above, and refuses above twice as many
    data, notes = notes_of(folder)
    assert data.file_names == ("a/000.png", "a/001.png", "a/large.png")
    assert "a/huge.png (of more than 1,600 pixels)" in notes
    assert "bomb" not in notes


def test_dark_16_bit_images_are_said(tmp_path: Path) -> None:
    with pytest.warns(DataWarning, match="brightest value in the 16-bit images of .* is 4095 of 65535"):
        one_picture(tmp_path / "data", ramp(0, 4095, np.uint16), ".png")


@pytest.mark.parametrize("kind", ["tif", "gif", "png"])
def test_of_several_frames_the_first_is_taken_and_said(tmp_path: Path, kind: str) -> None:
    frames = [Image.new("L", (8, 8), value) for value in (50, 100, 200)]
    (tmp_path / "data").mkdir()
    for number in range(2):
        frames[0].save(tmp_path / "data" / f"{number}.{kind}", save_all=True, append_images=frames[1:])
    data, notes = notes_of(tmp_path / "data", channels=1, val_fraction=0, test_fraction=0)
    assert data.train_set[1].image.unique().tolist() == [50]
    assert f"2 of the images in {tmp_path / 'data'} hold several frames, slices or pages, of which the first" in notes


def test_values_that_are_no_numbers_are_left_out(tmp_path: Path) -> None:
    make(tmp_path / "data", a=3)
    values = np.full((16, 16), 0.5, np.float32)
    values[3, 3] = np.nan
    Image.fromarray(values).save(tmp_path / "data" / "a" / "nan.tif")
    data, notes = notes_of(tmp_path / "data", value_range=(0, 1))
    assert sum(sizes(data)) == 3
    assert "a/nan.tif (some of its values are no numbers)" in notes


def test_pictures_are_decoded_in_as_many_threads_as_there_are_processors(tmp_path: Path, monkeypatch: Patch) -> None:
    """Three pictures are open at once, or the barrier breaks; also if few wait for a thread."""
    make(tmp_path / "data", a=7)
    monkeypatch.setattr(decoding, "processors", lambda: 3)
    monkeypatch.setattr(decoding, "AT_ONCE", 3)
    together = threading.Barrier(3, timeout=20)
    names = [f"00{n}.png" for n in range(6)]
    readable = decoding.decode(tmp_path / "data" / "a", names, lambda *_: together.wait())
    assert readable.tolist() == list(range(6))


def test_what_the_arguments_make_of_the_images_is_said(tmp_path: Path) -> None:
    _, notes = notes_of(make(tmp_path / "small", a=4), image_size=64)
    assert "4 of the 4 images of" in notes
    assert "(most often 16x16) and are enlarged: set --data.image_size to 16 or less" in notes
    with pytest.warns(DataWarning, match="are gray: --data.channels 1 would do"):
        one_picture(tmp_path / "gray", Image.new("L", (16, 16), 3))

"""Picture files as arrays: upright, on a background, with 8 bits a channel."""

import os
import warnings
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np
from PIL import Image, ImageOps

from datamodules.errors import DataError, note
from datamodules.loading.archives import progress
from datamodules.loading.folders import printable

Background = Literal["white", "black"]
BACKGROUNDS = {"white": 255, "black": 0}
GRAY_MODES = frozenset(("1", "L", "LA", "La", "F", "I", "I;16", "I;16B", "I;16L", "I;16N"))
"""Pillow's names of the kinds of picture that have no color."""
ORIENTATION, LYING = 0x0112, (5, 6, 7, 8)
"""The EXIF tag of a picture's orientation, and its values for pictures that are to be turned by 90 degrees."""
AT_ONCE = 4_096
"""Files that wait for a thread at a time: each takes a kilobyte of memory."""
LOOKED_AT = 2_000
"""Pictures that are opened at most to find out sizes and channels."""
DARK = 65535 / 15
"""16-bit files of cameras and scanners often hold 12 bits only: up to 4,095."""


class Reading(NamedTuple):
    """How picture files are read.

    Attributes:
        channels: 3 for color, 1 for gray.
        background: What shows through transparent pixels.
        value_range: Values of black and white in files of more than 8 bits. If None, 0 and 65,535 in files of 16 bits,
            and 0 and 1 in files of floating-point numbers; files of 32-bit integers, and values outside the range, are
            refused.
    """

    channels: int = 3
    background: Background = "white"
    value_range: tuple[float, float] | None = None

    @classmethod
    def of(cls, channels: int, background: Background, value_range: Sequence[float] | None) -> "Reading":
        """A reading by a data module's arguments.

        Raises:
            DataError: An argument has an impossible value.
        """
        if channels not in (1, 3):
            raise DataError(f"--data.channels is {channels}; it must be 1 (gray) or 3 (color).")
        if background not in BACKGROUNDS:
            raise DataError(f"--data.background is {background!r}; it must be white or black.")
        if value_range is None:
            return cls(channels, background)
        black, white = value_range
        if not black < white:
            raise DataError(f"--data.value_range is {[black, white]}; give the values of black and of white.")
        return cls(channels, background, (black, white))


def as_looked_at(image: Image.Image, reading: Reading) -> Image.Image:
    """A picture, just opened, the right way up and in color (3 channels) or in gray (1), with 8 bits a channel.

    Raises:
        DataError: It has more than 8 bits, and values whose black and white aren't known.
    """
    ImageOps.exif_transpose(image, in_place=True)
    if image.mode == "F" or image.mode.startswith("I"):
        image = _with_8_bits(image, reading.value_range)
    if image.has_transparency_data:
        image = image.convert("RGBA")
        level = BACKGROUNDS[reading.background]
        paper = Image.new("RGBA", image.size, (level, level, level, 255))
        image = Image.alpha_composite(paper, image)
    if image.mode == "LAB":
        image = image.convert("RGB")  # there is no other way to gray
    return image.convert("RGB" if reading.channels == 3 else "L")


def as_array(image: Image.Image) -> np.ndarray:
    """A color or gray picture as uint8, ``(channels, height, width)``."""
    return np.asarray(image).reshape(image.height, image.width, -1).transpose(2, 0, 1)


def central_square(image: Image.Image, size: int, reading: Reading, crop: int | None = None) -> np.ndarray:
    """The central square of a picture as it is meant to be looked at, resized by antialiased bicubic interpolation.

    Args:
        image: The picture, just opened.
        size: Side of the result.
        reading: How to read it.
        crop: Side of the square that is cut out; if None, or if the picture is smaller, as large as fits.

    Returns:
        uint8, ``(channels, size, size)``.
    """
    width, height = image.size
    side = min(width, height) if crop is None else min(width, height, crop)
    scale = _drafted(image, side, size)
    if image.getexif().get(ORIENTATION, 1) in LYING:
        width, height = height, width
    image = as_looked_at(image, reading)
    left, top = (width - side) // 2, (height - side) // 2
    box = (left / scale, top / scale, (left + side) / scale, (top + side) / scale)
    return as_array(image.resize((size, size), Image.Resampling.BICUBIC, box=box))


def _drafted(image: Image.Image, side: int, size: int) -> int:
    """Has a large JPEG decoded at a half, a quarter or an eighth of its size, where a square of ``side`` pixels still
    has four pixels for each one of ``size``; returns 2, 4 or 8, and 1 for other pictures. That takes half the time, and
    changes pixels by less than 1 of 255 on average."""
    scale = 1
    while scale < 8 and side >= 2 * scale * 4 * size and image.width % (2 * scale) == image.height % (2 * scale) == 0:
        scale *= 2
    if scale == 1 or image.format not in ("JPEG", "MPO"):
        return 1
    before = image.width
    image.draft(None, (image.width // scale, image.height // scale))  # None keeps the mode
    return scale if image.width < before else 1


def decode(
    folder: Path, files: Sequence[str], keep: Callable[[int, Image.Image], None], source: Path | None = None
) -> np.ndarray:
    """Opens images, in as many threads as there are processors, with a progress bar.

    Damaged images are left out, with one note that counts them and names some.

    Args:
        folder: Where the images lie.
        files: Their names relative to ``folder``.
        keep: Called with each row number and its image, just opened; stores the pixels somewhere.
        source: What the messages call the folder, if not by its path.

    Returns:
        int64, the rows of the images that could be read, in order.

    Raises:
        DataError: None of the images can be read, or one is refused.
    """
    brightest_deep = [-1.0] * len(files)
    several_frames: list[str] = []

    def attempt(row: int) -> str:
        try:
            with Image.open(folder / files[row]) as image:
                if getattr(image, "is_animated", False):  # only of formats that hold several frames
                    several_frames.append(files[row])
                    image.seek(0)  # the question may have gone on to the second
                if image.mode.startswith("I;16"):
                    brightest_deep[row] = float(image.getextrema()[1])  # type: ignore[arg-type]  # one channel
                keep(row, image)
        except DataError as error:
            raise DataError(f"{printable(files[row])} in {source}: {error}") from error
        except Exception as error:  # Pillow meets damaged files with errors of a dozen kinds
            return f"{printable(files[row])} ({fault_of(error)})"
        return ""

    source = source or folder
    with (
        ThreadPoolExecutor(processors()) as threads,
        progress(f"decoding {source.name}", len(files), " images") as bar,
        _large_pictures(),
    ):
        faults = []
        try:
            for start in range(0, len(files), AT_ONCE):
                for fault in threads.map(attempt, range(start, min(start + AT_ONCE, len(files)))):
                    faults.append(fault)
                    bar.update()
        except BaseException:  # also Ctrl-C: don't decode the rest first
            threads.shutdown(cancel_futures=True)
            raise
    damaged = [fault for fault in faults if fault]
    some = ", ".join(damaged[:3]) + (", …" if len(damaged) > 3 else "")
    if len(damaged) == len(files):
        raise DataError(
            f"None of the {len(files)} images in {source} can be read: {some}. Save them as PNG or JPEG files, or name "
            "another folder or archive."
        )
    if damaged:
        note(f"{len(damaged)} of the {len(files)} images in {source} can't be read and are left out: {some}.")
    if several_frames:
        note(
            f"{len(several_frames)} of the images in {source} hold several frames, slices or pages, of which the first "
            f"is taken, such as {printable(min(several_frames))}."
        )
    brightest = max(brightest_deep)
    if 0 <= brightest < DARK:
        note(
            f"The brightest value in the 16-bit images of {source} is {brightest:.0f} of 65535, so they are dark: "
            "set --data.value_range to the values of black and white, such as [0, 4095]."
        )
    return np.array([row for row, fault in enumerate(faults) if not fault], np.int64)


class Look(NamedTuple):
    """What the first bytes of pictures say.

    Attributes:
        sizes: Width and height of each file that can be opened, by its name.
        gray: The names of those without color.
        faults: Those that can't be opened, with the reason.
    """

    sizes: dict[str, tuple[int, int]]
    gray: set[str]
    faults: list[str]

    @property
    def most_common_size(self) -> tuple[int, int]:
        counts = Counter(self.sizes.values()).most_common(1)
        return counts[0][0] if counts else (1, 1)

    @property
    def channels(self) -> int:
        """1 if all pictures are gray, else 3."""
        return 1 if len(self.gray) == len(self.sizes) else 3


def look_at(folder: Path, files: Sequence[str]) -> Look:
    """Opens pictures without decoding them: all, or ``LOOKED_AT``, evenly taken."""

    def opened(name: str) -> tuple[tuple[int, int], bool] | str:
        try:
            with Image.open(folder / name) as image:
                return image.size, image.mode in GRAY_MODES
        except Exception as error:  # Pillow meets damaged files with errors of a dozen kinds
            return f"{printable(name)} ({fault_of(error)})"

    chosen = files[:: -(-len(files) // LOOKED_AT)] if files else []
    with ThreadPoolExecutor(processors()) as threads, _large_pictures():
        found = dict(zip(chosen, threads.map(opened, chosen), strict=True))
    good = {name: one for name, one in found.items() if not isinstance(one, str)}
    return Look(
        {name: size for name, (size, _) in good.items()},
        {name for name, (_, is_gray) in good.items() if is_gray},
        [one for one in found.values() if isinstance(one, str)],
    )


def power_of_two(side: int, least: int = 16, most: int = 64) -> int:
    """The largest power of two that isn't larger than a side, within limits."""
    size = most
    while size > max(least, side):
        size //= 2
    return size


def fault_of(error: Exception) -> str:
    """Why Pillow couldn't read a file, in a few words."""
    if isinstance(error, Image.DecompressionBombError):
        return f"of more than {2 * (Image.MAX_IMAGE_PIXELS or 0):,} pixels"
    return "not an image" if isinstance(error, Image.UnidentifiedImageError) else str(error) or repr(error)


def processors() -> int:
    """How many processors this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


@contextmanager
def _large_pictures() -> Iterator[None]:
    """Within the block, Pillow doesn't warn of pictures that it reads, only because they are large."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", Image.DecompressionBombWarning)
        yield


def _with_8_bits(image: Image.Image, value_range: tuple[float, float] | None) -> Image.Image:
    values = np.asarray(image, np.float32)
    if not np.isfinite(values).all():
        raise ValueError("some of its values are no numbers")
    if value_range is None:
        is_16_bit = image.mode.startswith("I;16") or (image.mode == "I" and image.format in ("PNG", "PPM"))
        black, white = (0.0, 65535.0) if is_16_bit else (0.0, 1.0)
        low, high = float(values.min()), float(values.max())
        if not (black <= low and high <= white) or (image.mode == "I" and not is_16_bit):
            kind = "floating-point numbers" if image.mode == "F" else "32-bit integers"
            raise DataError(
                f"its values are {kind} from {low:g} to {high:g}; say which of them are black and white with "
                f"--data.value_range, such as [0, {max(1.0, high):g}]."
            )
    else:
        black, white = value_range
    scaled = Image.fromarray(((values - black) * (255 / (white - black))).round().clip(0, 255).astype(np.uint8))
    if isinstance(transparent := image.info.get("transparency"), int):  # the value that PNG files show as transparent
        scaled.putalpha(Image.fromarray(np.where(values == transparent, 0, 255).astype(np.uint8)))
    return scaled

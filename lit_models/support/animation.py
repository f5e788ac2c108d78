"""Moving pictures, GIF or MP4: samples over the epochs, and walks in the latent space, between random vectors or
pictures."""

from collections.abc import Iterable, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image, ImageDraw

from lit_models.errors import ModelError, RunError

if TYPE_CHECKING:  # it imports torch, which a report does without
    from lit_models.support.interpolation import Path as Way

LARGEST_ENLARGED_SIDE = 256
"""Smaller frames are enlarged by the largest whole number that stays within this many pixels."""
LABEL_HEIGHT = 14


def write_movie(frames: Sequence[Image.Image], path: Path, seconds: float = 0.15, hold: float = 0.0) -> None:
    """Writes frames of one size as an endless GIF, or as a video if the file's name ends in ``.mp4``.

    Args:
        frames: At least one.
        path: The file.
        seconds: Time for which each frame is shown.
        hold: Further time for the last frame.

    Raises:
        RunError: The name has another ending, or the package that writes videos is missing.
    """
    require_movie(path)
    factor = max(1, LARGEST_ENLARGED_SIDE // max(1, min(frames[0].size)))
    size = (frames[0].width * factor, frames[0].height * factor)
    enlarged = [frame.convert("RGB").resize(size, Image.Resampling.NEAREST) for frame in frames]
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix == ".mp4":
        enlarged += [enlarged[-1]] * round(hold / seconds)
        _write_mp4(enlarged, path, 1 / seconds)
        return
    durations = [round(1000 * seconds)] * len(frames)
    durations[-1] += round(1000 * hold)
    enlarged[0].save(path, format="GIF", save_all=True, append_images=enlarged[1:], duration=durations, loop=0)


def require_movie(path: Path) -> None:
    """Refuses a file that no moving picture can be written to.

    Raises:
        RunError: The name doesn't end in .gif or .mp4, or the package that writes videos is missing.
    """
    if path.suffix not in (".gif", ".mp4"):
        raise RunError(f"The moving picture {path} must end in .gif or .mp4.")
    if path.suffix == ".mp4" and find_spec("imageio_ffmpeg") is None:
        raise RunError("MP4 needs imageio-ffmpeg: pip install 'relit[mp4]'.")


def _write_mp4(frames: Sequence[Image.Image], path: Path, rate: float) -> None:
    import imageio_ffmpeg

    # H.264 in the form that every browser plays: an even number of pixels on each side, and colors at half the size.
    width, height = (side + side % 2 for side in frames[0].size)
    writer = imageio_ffmpeg.write_frames(
        str(path), (width, height), fps=rate, codec="libx264", pix_fmt_out="yuv420p", quality=8, macro_block_size=1
    )
    writer.send(None)
    for frame in frames:
        even = Image.new("RGB", (width, height))
        even.paste(frame)
        writer.send(even.tobytes())
    writer.close()


def sample_frames(series: Iterable[Path]) -> list[Image.Image]:
    """A run's grids of images with the epoch above; unreadable ones are left out.

    Args:
        series: Their files, as :func:`lit_models.runs.reading.sample_series` finds them.
    """
    frames: list[Image.Image] = []
    for path in series:
        try:
            with Image.open(path, formats=["PNG"]) as file:
                grid = file.convert("RGB")
        except (OSError, SyntaxError, ValueError, Image.DecompressionBombError):
            continue
        if frames and (grid.width, grid.height + LABEL_HEIGHT) != frames[0].size:
            continue
        frame = Image.new("RGB", (grid.width, grid.height + LABEL_HEIGHT), "black")
        frame.paste(grid, (0, LABEL_HEIGHT))
        ImageDraw.Draw(frame).text((2, 1), f"epoch {int(path.stem.rpartition('_')[2])}", fill="white")
        frames.append(frame)
    return frames


def walk_frames(model: Any, seed: int = 0, images: int = 16, stops: int = 4, steps: int = 12) -> list[Image.Image]:
    """Grids of images along closed walks in the latent space, by spherical interpolation between random stops.

    Args:
        model: A GAN or a VAE; a conditional model shows its classes in turn.
        seed: Chooses the stops.
        images: Images of a grid.
        stops: Random vectors that each image passes.
        steps: Frames from one stop to the next.

    Raises:
        ModelError: The model has no latent space to draw from.
    """
    import torch
    from torchvision.utils import make_grid

    from lit_models.support.interpolation import slerp

    generator = torch.Generator().manual_seed(seed)
    latents = torch.randn(stops, images, require_latent_dim(model), generator=generator)
    shares = torch.linspace(0, 1, steps + 1)[:-1]
    frames = []
    for number in range(stops):
        start, end = latents[number], latents[(number + 1) % stops]
        for latent in slerp(start, end, shares).unbind(1):
            frames.append(_frame(make_grid(images_of(model, latent).cpu(), nrow=round(images**0.5))))
    return frames


def tour_frames(model: Any, images: Any, way: "Way" = "lerp", steps: int = 12) -> list[Image.Image]:
    """Images on the closed way from the first image to the next and so on, and from the last back to the first.

    Args:
        model: A model that interpolates (:class:`lit_models.module.Interpolating`), such as an autoencoder or a VAE.
        images: ``(N, C, H, W)`` in [0, 1], at least two.
        way: From the code of one image to the next, "lerp" or "slerp".
        steps: Frames from one image to the next.

    Raises:
        ModelError: There is one image only.
    """
    import torch

    if len(images) < 2:
        raise ModelError("A walk between pictures needs at least two of them.")
    training = model.training
    model.eval()
    try:
        with torch.no_grad():
            ways = model.interpolate(images, images.roll(-1, 0), steps + 1, way)[:, :-1]
    finally:
        model.train(training)
    return [_frame(image) for image in ways.flatten(0, 1).float().cpu()]


def _frame(image: Any) -> Image.Image:
    """An image ``(C, H, W)`` in [0, 1] as a picture."""
    pixels = (image.clamp(0, 1).permute(1, 2, 0).numpy() * 255).round().astype(np.uint8)
    return Image.fromarray(pixels[..., 0] if pixels.shape[2] == 1 else pixels)


def require_latent_dim(model: Any) -> int:
    """The components of the model's latent vectors.

    Raises:
        ModelError: It draws no images from latent vectors.
    """
    from lit_models.module import Generative
    from lit_models.support.abilities import HasLatents

    if not isinstance(model, Generative) or not isinstance(model, HasLatents) or not model.latent_dim:
        raise ModelError(f"{type(model).__name__} draws no images from latent vectors: there is nothing to walk in.")
    return model.latent_dim


def images_of(model: Any, latent: Any, labels: Any = None) -> Any:
    """Images ``(N, C, H, W)`` in [0, 1] of latent vectors, in evaluation mode.

    Args:
        model: A GAN or a VAE.
        latent: ``(N, latent_dim)``.
        labels: Classes for a conditional model; if None, each in turn.
    """
    import torch

    from lit_models.module import Decoding
    from lit_models.support.abilities import classes_of

    latent = latent.to(model.device).type(model.dtype)
    training = model.training
    model.eval()
    try:
        with torch.no_grad():
            if classes_of(model):
                labels = torch.arange(len(latent)) % classes_of(model) if labels is None else labels
                return model.images_of(latent, labels.to(model.device)).float()
            return (model.decode if isinstance(model, Decoding) else model.images_of)(latent).float()
    finally:
        model.train(training)

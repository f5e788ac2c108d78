"""What people can do with trained models in ``relit demo``, apart from the page."""

import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torchvision.transforms.functional import pil_to_tensor, resize
from torchvision.utils import make_grid

from datamodules.errors import DataError
from datamodules.loading.decoding import Reading, as_looked_at, central_square
from datamodules.pictures import Sizing
from lit_models.errors import RunError
from lit_models.module import Embedding, Generative, Interpolating, Method, Reconstructing
from lit_models.support.abilities import HasLatents, class_names_of, classes_of
from lit_models.support.animation import images_of, require_latent_dim, walk_frames, write_movie
from lit_models.support.checkpoint_files import read_checkpoint
from lit_models.support.checkpoint_paths import WEIGHTS
from lit_models.support.interpolation import Path as Way
from lit_models.support.interpolation import slerp
from lit_models.support.tiling import apply_at_any_size
from lit_models.support.weight_sources import find_weights, shipped_folders
from lit_models.support.weights import build_model

LARGEST_PHOTOGRAPH = 1024
"""Pixels of a photograph's longer side; larger ones are scaled down."""
MOST_EXAMPLES = 5000
"""Training images among which the most similar ones are searched."""


@dataclass
class Player:
    """A model to play with.

    Attributes:
        name: What to call it.
        model: The model, in evaluation mode.
    """

    name: str
    model: Any

    @property
    def generates(self) -> bool:
        """Whether it draws images from latent vectors."""
        return isinstance(self.model, Generative) and isinstance(self.model, HasLatents) and self.model.latent_dim > 0

    @property
    def classifies(self) -> bool:
        """Whether it is a classifier of images."""
        return isinstance(self.model, Embedding) and classes_of(self.model) > 0

    @property
    def reads_digits(self) -> bool:
        """Whether it is a classifier or an autoencoder of gray digits."""
        if (
            not isinstance(self.model, Embedding)
            or not isinstance(self.model, Method)
            or self.model.image_shape[0] != 1
        ):
            return False
        return classes_of(self.model) == 10 if self.classifies else isinstance(self.model, Reconstructing)

    @property
    def interpolates(self) -> bool:
        """Whether it finds images on the way between two given ones."""
        return isinstance(self.model, Interpolating) and isinstance(self.model, Method)

    @property
    def classes(self) -> int:
        """The classes of a conditional generator; 0 if it has none."""
        return classes_of(self.model)

    def latent(self, seed: int | None, sliders: tuple[float, ...] = ()) -> Tensor:
        """The seed's latent vector, ``(1, latent_dim)``, with the sliders' values added to its first components."""
        generator = torch.Generator().manual_seed(int(seed or 0) % 2**63)  # a field that was emptied has none
        latent = torch.randn(1, require_latent_dim(self.model), generator=generator)
        count = min(len(sliders), latent.shape[1])
        latent[0, :count] += torch.tensor(sliders[:count])
        return latent

    def generate(self, seed: int | None, label: int, *sliders: float) -> Image.Image:
        """The image of a seed, a class and the sliders."""
        return as_picture(images_of(self.model, self.latent(seed, sliders), self._label(label, 1))[0])

    def walk(self, first: int | None, second: int | None, label: int, steps: int = 9) -> Image.Image:
        """Images between those of two seeds, in a row."""
        latents = slerp(self.latent(first), self.latent(second), torch.linspace(0, 1, int(steps)))[0]
        return as_picture(
            make_grid(images_of(self.model, latents, self._label(label, len(latents))), nrow=len(latents))
        )

    def movie(self, seed: int | None) -> str:
        """A GIF of a walk in the latent space; its file, which lasts as long as the process."""
        path = Path(self.folder.name) / "walk.gif"
        write_movie(walk_frames(self.model, int(seed or 0) % 2**63), path, seconds=0.1)
        return str(path)

    def between(self, first: Tensor, second: Tensor, steps: int = 9, path: Way = "lerp") -> tuple[Image.Image, str]:
        """The way from one image to another, ``(1, C, H, W)`` both: a row of both and the images between them, and the
        file of a GIF that goes there and back.

        Args:
            first: Where the way starts.
            second: Where it ends.
            steps: Images on the way, with the model's own versions of both.
            path: "lerp" or "slerp".
        """
        with torch.no_grad():
            way = self.model.interpolate(first, second, int(steps), path)[0]
        file = Path(self.folder.name) / "between.gif"
        frames = [as_picture(image) for image in way]
        write_movie([*frames, *frames[-2:0:-1]], file)
        return as_picture(make_grid(torch.cat([first, way, second]), nrow=len(way) + 2, pad_value=1)), str(file)

    @cached_property
    def folder(self) -> "tempfile.TemporaryDirectory[str]":
        """Where its files are; it lasts as long as the process."""
        return tempfile.TemporaryDirectory(prefix="relit-demo-", ignore_cleanup_errors=True)

    def _label(self, label: int, count: int) -> Tensor | None:
        return torch.full((count,), int(label)) if self.classes else None

    def translate(self, photograph: Image.Image | str | None) -> Image.Image | None:
        """The translation of a photograph of any size, which is resized first as those that the model learned from.

        Raises:
            RunError: The file is no picture.
        """
        if photograph is None:
            return None
        model = self.model
        channels, _ = model.pair_channels
        picture = _looked_at(photograph, model.read_channels or channels)
        picture = Sizing.of(model).resized(picture)
        picture.thumbnail((LARGEST_PHOTOGRAPH, LARGEST_PHOTOGRAPH))
        image = (pil_to_tensor(picture)[None].float() / 255).expand(-1, channels, -1, -1)
        with torch.no_grad():
            made = apply_at_any_size(model.translate, image, model.size_multiple, 512, 128, model.smallest_size)
        return as_picture(made[0])


@dataclass
class Examples:
    """Training images.

    Attributes:
        images: ``(N, C, H, W)`` in [0, 1].
        source: Their data set.
    """

    images: Tensor
    source: str


@dataclass
class DigitReader:
    """Models of gray digits that look at a drawing.

    Attributes:
        classifiers: They name its class.
        autoencoders: They reconstruct it.
    """

    classifiers: list[Player]
    autoencoders: list[Player]

    @property
    def players(self) -> list[Player]:
        """All models; images are compared in the embedding of the first."""
        return [*self.classifiers, *self.autoencoders]

    def read(self, drawn: Any) -> list[Any]:
        """The classes' probabilities by each classifier, the digit with its reconstruction by each autoencoder, and
        the five training images with the most similar embeddings."""
        pixels = drawn.get("composite") if isinstance(drawn, dict) else drawn
        digits: dict[str, Tensor] = {}
        for player in self.players:
            digit = None if pixels is None else centered_digit(np.asarray(pixels), player.model.image_shape)
            if digit is None:
                return [*({} for _ in self.classifiers), *(None for _ in self.autoencoders), None]
            digits[player.name] = digit
        answers: list[Any] = []
        with torch.no_grad():
            for player in self.classifiers:
                probability = player.model(digits[player.name]).softmax(1)[0].tolist()
                names = class_names_of(player.model) or range(len(probability))
                answers.append({str(name): share for name, share in zip(names, probability, strict=True)})
            for player in self.autoencoders:
                digit = digits[player.name]
                answers.append(as_picture(make_grid(torch.cat([digit, player.model.reconstruct(digit)]), pad_value=1)))
        nearest = self.most_similar(digits[self.players[0].name])
        return [*answers, as_picture(make_grid(self.examples.images[nearest], nrow=5))]

    def most_similar(self, digit: Any, count: int = 5) -> Tensor:
        """The numbers of the training images with the embeddings nearest to that of a digit, ``(1, C, H, W)``."""
        with torch.no_grad():
            embedding = self.players[0].model.embed(digit)
        return torch.cdist(embedding, self._embeddings)[0].topk(count, largest=False).indices

    @cached_property
    def examples(self) -> Examples:
        """The training images."""
        return training_digits(self.players[0].model.image_shape)

    @cached_property
    def _embeddings(self) -> Tensor:
        with torch.no_grad():
            return torch.cat([self.players[0].model.embed(part) for part in self.examples.images.split(500)])


def training_digits(shape: tuple[int, int, int]) -> Examples:
    """MNIST's first training images if they have been prepared on this machine, else scikit-learn's digits.

    Args:
        shape: The images' shape.
    """
    from sklearn.datasets import load_digits

    from datamodules import MNIST

    if shape in ((1, 28, 28), (1, 32, 32)):
        store = MNIST(image_size=shape[1]).store
        if store.is_current():
            images = store.load()["train_image"][:MOST_EXAMPLES].float() / 255
            return Examples(images, f"the first {len(images):,} training images of MNIST")
    digits = [centered_digit(image * 255 / 16, shape) for image in load_digits().images]
    return Examples(torch.cat([digit for digit in digits if digit is not None]), "scikit-learn's digits")


def centered_digit(pixels: np.ndarray, shape: tuple[int, int, int]) -> Tensor | None:
    """A drawing as MNIST prepares its digits: light on dark, 20 of 28 pixels large, with its center of mass in the
    middle; None if nothing is drawn.

    Args:
        pixels: ``(H, W)`` gray, ``(H, W, 3)`` RGB, or ``(H, W, 4)`` RGBA; the paper is what the corner shows.
        shape: The model's image shape.
    """
    levels = pixels.astype(np.float32) / 255
    if levels.ndim == 3:
        alpha = levels[..., 3:] if levels.shape[2] == 4 else 1.0
        levels = (levels[..., :3] * alpha + (1 - alpha)).mean(2)
    ink = np.abs(levels - levels[0, 0])
    rows, columns = np.nonzero(ink.max(1) > 0.2)[0], np.nonzero(ink.max(0) > 0.2)[0]
    if len(rows) == 0:
        return None
    cut = torch.from_numpy(ink[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1])[None] / float(ink.max())
    channels, height, width = shape
    side = round(height * 20 / 28)
    longer = max(cut.shape[1:])
    size = [max(1, round(side * length / longer)) for length in cut.shape[1:]]
    small = resize(cut, size, antialias=True).clamp(0, 1)
    weight = small[0] / small.sum()
    center = [float((weight.sum(1 - axis) * torch.arange(size[axis])).sum()) for axis in (0, 1)]
    canvas = torch.zeros(1, height, width)
    top, left = (
        min(max(round((whole - 1) / 2 - middle), 0), whole - part)
        for whole, middle, part in zip((height, width), center, size, strict=True)
    )
    canvas[:, top : top + size[0], left : left + size[1]] = small
    return canvas.expand(channels, -1, -1)[None]


@dataclass
class Walk:
    """Models that walk between two pictures.

    Attributes:
        players: The models.
    """

    players: list[Player]

    @property
    def reads_ink(self) -> bool:
        """Whether one of the models is of gray images, such as digits."""
        return any(player.model.image_shape[0] == 1 for player in self.players)

    def between(self, first: Any, second: Any, steps: int = 9, path: Way = "lerp", ink: bool = True) -> list[Any]:
        """The row and the GIF of :meth:`Player.between` by each model.

        Args:
            first: A picture, or the value of an editor of pictures.
            second: Another.
            steps: Images on the way.
            path: "lerp" or "slerp".
            ink: Whether models of gray images get what is drawn or written, prepared as MNIST's digits.

        Raises:
            RunError: There are no two pictures.
        """
        answers: list[Any] = []
        for player in self.players:
            shape = player.model.image_shape
            ends = []
            for picture, place in ((first, "first"), (second, "second")):
                image = prepared(picture, shape, ink and shape[0] == 1)
                if image is None:
                    raise RunError(
                        f"The {place} picture is missing or blank: draw one, or drop or pick a file that is a picture."
                    )
                ends.append(image)
            answers += player.between(ends[0], ends[1], steps, path)
        return answers

    def examples(self, count: int = 6) -> list[str]:
        """Files of digits to pick from; they last as long as the process."""
        shape = next(player.model.image_shape for player in self.players if player.model.image_shape[0] == 1)
        files = [Path(self.players[0].folder.name) / f"digit_{number}.png" for number in range(count)]
        for image, file in zip(training_digits(shape).images, files, strict=False):
            as_picture(image).save(file)
        return [str(file) for file in files]


def prepared(picture: Any, shape: tuple[int, int, int], ink: bool) -> Tensor | None:
    """A picture as a model's training images: a digit as MNIST's (:func:`centered_digit`), else the central square, as
    ``relit predict`` takes it; None if there is nothing on it.

    Args:
        picture: A picture, or the value of an editor of pictures.
        shape: The model's image shape.
        ink: Whether it is a digit.
    """
    picture = picture.get("composite") if isinstance(picture, dict) else picture
    if picture is None or picture.convert("RGBA").getextrema()[3][1] == 0:
        return None
    if ink:
        return centered_digit(np.asarray(_looked_at(picture, 1)), shape)
    pixels = central_square(picture, shape[1], Reading(shape[0]))
    return torch.from_numpy(pixels.copy())[None].float() / 255


@dataclass
class FewShot:
    """A ProtoNet that separates classes by a few pictures of each.

    Attributes:
        model: The model.
    """

    model: Any

    def classify(self, query: Any, *examples: Any) -> dict[str, float]:
        """The probability of each class that has pictures.

        Raises:
            RunError: There is nothing to ask about, there are no two classes, or a file is no picture.
        """
        classes = {f"class {number + 1}": files for number, files in enumerate(examples) if files}
        if query is None or len(classes) < 2:
            raise RunError("Put pictures into at least two classes, and one to ask about.")
        with torch.no_grad():
            prototypes = torch.stack([self._embedded(files).mean(0) for files in classes.values()])
            distance = self.model.distances(self._embedded([query]), prototypes)[0]
        return dict(zip(classes, (-distance).softmax(0).tolist(), strict=True))

    def _embedded(self, pictures: list[Any]) -> Tensor:
        channels, height, width = self.model.image_shape
        images = []
        for picture in pictures:
            converted = _looked_at(picture, channels)
            images.append(resize(pil_to_tensor(converted).float() / 255, [height, width], antialias=True).clamp(0, 1))
        return self.model(self.model.polarized(torch.stack(images)))


def _looked_at(picture: Image.Image | str, channels: int) -> Image.Image:
    """A picture, or that of a file, upright, on white, in gray (1 channel) or in color (3)."""
    try:
        opened = Image.open(picture) if isinstance(picture, str) else picture
        return as_looked_at(opened, Reading(channels))
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError, DataError) as error:
        name = Path(picture).name if isinstance(picture, str) else "The picture"
        raise RunError(f"{name} can't be read as a picture.") from error


def as_picture(image: Tensor) -> Image.Image:
    """An image ``(C, H, W)`` in [0, 1], enlarged by a whole number."""
    pixels = (image.float().clamp(0, 1) * 255).round().byte().permute(1, 2, 0).numpy()
    picture = Image.fromarray(pixels[..., 0] if pixels.shape[2] == 1 else pixels)
    factor = max(1, 280 // picture.height)
    return picture.resize((picture.width * factor, picture.height * factor), Image.Resampling.NEAREST)


def load_models(sources: Sequence[str]) -> list[Player]:
    """The models that names stand for, as :func:`lit_models.support.weight_sources.find_weights` reads them; the
    shipped ones if there are none.

    Raises:
        RunError: There is no model of such a name.
    """
    if not sources:
        sources = [str(file) for folder in shipped_folders()[:1] for file in sorted(folder.glob(f"*{WEIGHTS}"))]
        if not sources:
            raise RunError("The shipped weights aren't there: name a run folder or weights.")
    players = []
    for source in sources:
        file = find_weights(source)
        name = file.stem if file.suffix == WEIGHTS else "/".join(Path(source).absolute().parts[-2:])
        players.append(Player(name, build_model(read_checkpoint(file), file)))
    return players

"""``relit demo [RUN|WEIGHTS …]``: play with trained models in the browser, on this machine alone."""

import argparse
import os
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torchvision.transforms.functional import pil_to_tensor, resize
from torchvision.utils import make_grid

from lit_models.errors import ModelError, RunError
from lit_models.module import Embedding, Generative, Method, Translating
from lit_models.protonet import ProtoNet
from lit_models.support.abilities import HasLatents, classes_of
from lit_models.support.animation import images_of, latent_dim_of, walk_frames, write_gif
from lit_models.support.checkpoint_files import checkpoint_in, read_checkpoint
from lit_models.support.interpolation import slerp
from lit_models.support.tiling import apply_at_any_size
from lit_models.support.weights import WEIGHTS, build_model

SHIPPED = Path(__file__).parents[2] / "weights"
SLIDERS = 8
"""Components of the latent vector that have a slider."""
LARGEST_PHOTOGRAPH = 1024
"""Pixels of a photograph's longer side; larger ones are scaled down."""
CLASSES = 5
"""Classes of the few-shot page."""


def main(args: list[str]) -> int:
    """Runs the command; returns its exit code."""
    parser = argparse.ArgumentParser(
        prog="relit demo", description="Opens a page to play with trained models; the shipped ones by default."
    )
    parser.add_argument("models", nargs="*", metavar="RUN|WEIGHTS", help="run folders, checkpoints or weights")
    parser.add_argument("--port", type=int, default=7860, help="port on this machine (default: %(default)s)")
    given = parser.parse_args(args)
    try:
        app = build_app(load_models([Path(model) for model in given.models]))
        try:
            app.launch(
                server_name="127.0.0.1", server_port=given.port, share=False, quiet=True, prevent_thread_lock=True
            )
        except OSError as error:
            raise RunError(f"Port {given.port} can't be used: choose another --port.") from error
    except (RunError, ModelError) as error:
        print(f"relit: {error}", file=sys.stderr)
        return 1
    print(f"The playground is on http://127.0.0.1:{given.port}/ (Ctrl-C ends it).", flush=True)
    app.block_thread()
    return 0


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
    def classes(self) -> int:
        """The classes of a conditional generator; 0 if it knows none."""
        return classes_of(self.model)

    def latent(self, seed: int, sliders: tuple[float, ...] = ()) -> Tensor:
        """The seed's latent vector, ``(1, latent_dim)``, with the sliders' values added to its first components."""
        latent = torch.randn(1, latent_dim_of(self.model), generator=torch.Generator().manual_seed(int(seed)))
        count = min(len(sliders), latent.shape[1])
        latent[0, :count] += torch.tensor(sliders[:count])
        return latent

    def generate(self, seed: int, label: int, *sliders: float) -> Image.Image:
        """The image of a seed, a class and the sliders."""
        return as_picture(images_of(self.model, self.latent(seed, sliders), self._label(label, 1))[0])

    def walk(self, first: int, second: int, label: int, steps: int = 9) -> Image.Image:
        """Images between those of two seeds, in a row."""
        latents = slerp(self.latent(first), self.latent(second), torch.linspace(0, 1, int(steps)))[0]
        return as_picture(
            make_grid(images_of(self.model, latents, self._label(label, len(latents))), nrow=len(latents))
        )

    def movie(self, seed: int) -> str:
        """A GIF of a walk in the latent space; its file."""
        path = Path(tempfile.mkdtemp(prefix="relit-demo-")) / "walk.gif"
        write_gif(walk_frames(self.model, int(seed)), path, seconds=0.1)
        return str(path)

    def _label(self, label: int, count: int) -> Tensor | None:
        return torch.full((count,), int(label)) if self.classes else None

    def translate(self, photograph: Image.Image | None) -> Image.Image | None:
        """The translation of a photograph of any size."""
        if photograph is None:
            return None
        picture = photograph.convert("RGB")
        picture.thumbnail((LARGEST_PHOTOGRAPH, LARGEST_PHOTOGRAPH))
        image = pil_to_tensor(picture)[None].float() / 255
        model = self.model
        with torch.no_grad():
            made = apply_at_any_size(model.translate, image, model.size_multiple, 512, 128, model.smallest_size)
        return as_picture(made[0])


@dataclass
class DigitReader:
    """A classifier of drawn digits, with the real digits that look most like one to it.

    Attributes:
        model: The classifier.
        images: Real digits, ``(N, C, H, W)`` in [0, 1].
        labels: Their classes.
    """

    model: Any
    images: Tensor
    labels: Tensor

    def __post_init__(self) -> None:
        with torch.no_grad():
            self.embeddings = torch.cat([self.model.embed(part) for part in self.images.split(500)])

    def read(self, drawn: Any) -> tuple[dict[str, float], Image.Image | None]:
        """The probability of each class, and the five real digits with the most similar embeddings."""
        pixels = drawn.get("composite") if isinstance(drawn, dict) else drawn
        image = None if pixels is None else centered_digit(np.asarray(pixels), self.model.image_shape)
        if image is None:
            return {}, None
        with torch.no_grad():
            probability = self.model(image).softmax(1)[0]
            embedding = self.model.embed(image)
        nearest = torch.cdist(embedding, self.embeddings)[0].topk(5, largest=False).indices
        return {str(n): float(p) for n, p in enumerate(probability)}, as_picture(
            make_grid(self.images[nearest], nrow=5)
        )


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
class FewShot:
    """A ProtoNet that tells classes apart of which it has seen a few pictures.

    Attributes:
        model: The model.
    """

    model: Any

    def classify(self, query: Any, *examples: Any) -> dict[str, float]:
        """The probability of each class that has pictures."""
        classes = {f"class {number + 1}": files for number, files in enumerate(examples) if files}
        if query is None or len(classes) < 2:
            return {}
        with torch.no_grad():
            prototypes = torch.stack([self._embedded(files).mean(0) for files in classes.values()])
            distance = self.model.distances(self._embedded([query]), prototypes)[0]
        return dict(zip(classes, (-distance).softmax(0).tolist(), strict=True))

    def _embedded(self, pictures: list[Any]) -> Tensor:
        channels, height, width = self.model.image_shape
        images = []
        for picture in pictures:
            if not isinstance(picture, Image.Image):
                picture = Image.open(picture)
            gray = picture.convert("L" if channels == 1 else "RGB")
            images.append(resize(pil_to_tensor(gray).float() / 255, [height, width], antialias=True).clamp(0, 1))
        return self.model(self.model.polarized(torch.stack(images)))


def as_picture(image: Tensor) -> Image.Image:
    """An image ``(C, H, W)`` in [0, 1], enlarged by a whole number."""
    pixels = (image.float().clamp(0, 1) * 255).round().byte().permute(1, 2, 0).numpy()
    picture = Image.fromarray(pixels[..., 0] if pixels.shape[2] == 1 else pixels)
    factor = max(1, 280 // picture.height)
    return picture.resize((picture.width * factor, picture.height * factor), Image.Resampling.NEAREST)


def load_models(places: list[Path]) -> list[Player]:
    """The models at these places; the shipped ones if there are none.

    Raises:
        RunError: There is no model at a place.
    """
    if not places:
        places = sorted(SHIPPED.glob(f"*{WEIGHTS}"))
        if not places:
            raise RunError("The shipped weights aren't there: name a run folder or weights.")
    players = []
    for place in places:
        file = checkpoint_in(place) if place.is_dir() else place
        if file is None or not file.is_file():
            raise RunError(f"There is no checkpoint and no file of weights in {place}.")
        name = place.stem if place.is_file() else "/".join(place.absolute().parts[-2:])
        players.append(Player(name, build_model(read_checkpoint(file), file)))
    return players


def reads_digits(model: object) -> bool:
    """Whether a model tells ten classes of gray images apart."""
    return isinstance(model, Method) and model.num_classes == 10 and model.image_shape[0] == 1


def real_digits(shape: tuple[int, int, int]) -> tuple[Tensor, Tensor]:
    """scikit-learn's digits, which need no download, in the model's size."""
    from sklearn.datasets import load_digits

    digits = load_digits()
    images = [centered_digit(image * 255 / 16, shape) for image in digits.images]
    return torch.cat([image for image in images if image is not None]), torch.from_numpy(digits.target)


def build_app(players: list[Player]) -> Any:
    """The page, with a tab for each thing that the models can do.

    Raises:
        RunError: Gradio isn't installed, or none of the models can be played with.
    """
    os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    try:
        import gradio as gr
    except ModuleNotFoundError as error:
        raise RunError("The playground needs Gradio: pip install 'relit[demo]'.") from error

    tabs = 0
    with gr.Blocks(title="relit", analytics_enabled=False) as app:
        gr.Markdown("# relit: play with trained models")
        for player in players:
            model = player.model
            if player.generates:
                tabs += 1
                _generation_tab(gr, player)
            elif isinstance(model, Translating):
                tabs += 1
                with gr.Tab(player.name), gr.Row():
                    photograph = gr.Image(type="pil", label="photograph", sources=["upload", "clipboard"])
                    photograph.change(player.translate, photograph, gr.Image(type="pil", label="translation"))
            elif isinstance(model, Embedding) and reads_digits(model):
                tabs += 1
                reader = DigitReader(player.model, *real_digits(player.model.image_shape))
                with gr.Tab(player.name), gr.Row():
                    pen = gr.Brush(default_size=18, colors=["#000000"])
                    drawn = gr.Sketchpad(type="numpy", label="draw a digit", canvas_size=(280, 280), brush=pen)
                    label = gr.Label(label="what it is taken for")
                    nearest = gr.Image(type="pil", label="the most similar real digits")
                    drawn.change(reader.read, drawn, [label, nearest])
            elif isinstance(model, ProtoNet):
                tabs += 1
                few = FewShot(model)
                with gr.Tab(player.name):
                    gr.Markdown("Put pictures into at least two classes, then ask about another picture.")
                    with gr.Row():
                        examples = [
                            gr.File(label=f"class {n + 1}", file_count="multiple", file_types=["image"])
                            for n in range(CLASSES)
                        ]
                    with gr.Row():
                        query = gr.Image(type="pil", label="which class is this?", sources=["upload", "clipboard"])
                        answer = gr.Label(label="classes")
                    gr.Button("ask").click(few.classify, [query, *examples], answer)
    if tabs == 0:
        raise RunError(
            f"There is nothing to play with in {', '.join(player.name for player in players)}: take a generator, a "
            "translator, a classifier of digits or a ProtoNet."
        )
    return app


def _generation_tab(gr: Any, player: Player) -> None:
    with gr.Tab(player.name):
        with gr.Row():
            with gr.Column():
                seed = gr.Number(0, label="seed", precision=0, minimum=0)
                label = gr.Slider(0, max(1, player.classes - 1), 0, step=1, label="class", visible=player.classes > 0)
                count = min(SLIDERS, latent_dim_of(player.model))
                sliders = [gr.Slider(-3, 3, 0, step=0.1, label=f"latent {n}") for n in range(count)]
            image = gr.Image(player.generate(0, 0), type="pil", label="image")
        for control in (seed, label, *sliders):
            control.change(player.generate, [seed, label, *sliders], image, show_progress="hidden")
        with gr.Row():
            first, second = (gr.Number(n, label=f"{which} seed", precision=0) for n, which in ((0, "from"), (1, "to")))
            steps = gr.Slider(3, 15, 9, step=1, label="steps")
            walk, movie = gr.Button("walk"), gr.Button("moving picture")
        row = gr.Image(type="pil", label="between the two")
        walk.click(player.walk, [first, second, label, steps], row)
        movie.click(player.movie, first, gr.Image(label="walk in the latent space", type="filepath", format="gif"))

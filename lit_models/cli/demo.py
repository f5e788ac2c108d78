"""``relit demo [RUN|WEIGHTS …]``: play with trained models in the browser, on this machine alone.

Classifiers and autoencoders of gray digits share one tab, as do all models that walk between two pictures; every other
model has its own, by what it can do.
"""

import os
import sys
from collections.abc import Callable
from typing import Any

from lit_models.cli.parsers import demo_parser, unusable_port
from lit_models.cli.playing import DigitReader, FewShot, Player, Walk, load_models
from lit_models.errors import ModelError, RunError
from lit_models.module import Translating
from lit_models.protonet import ProtoNet
from lit_models.support.animation import require_latent_dim

SLIDERS = 8
"""Components of the latent vector that have a slider."""
CLASSES = 5
"""Classes of the few-shot page."""
BUTTONS = ["download", "fullscreen"]
"""Buttons of a picture; none sends it elsewhere."""


def main(args: list[str]) -> int:
    """Runs the command; returns its exit code."""
    given = demo_parser().parse_args(args)
    try:
        app = build_app(load_models(given.models))
        address = launch(app, given.port)
    except (RunError, ModelError) as error:
        print(f"relit: {error}", file=sys.stderr)
        return 1
    print(f"The playground is on {address} (Ctrl-C ends it).", flush=True)
    app.block_thread()
    return 0


def launch(app: Any, port: int) -> str:
    """Serves the page on the loopback address, in the background; returns its address.

    Raises:
        RunError: The port is in use or not allowed.
    """
    import gradio as gr

    theme = gr.themes.Default(font=["system-ui", "sans-serif"], font_mono=["monospace"])  # none from the network
    try:
        _, address, _ = app.launch(
            server_name="127.0.0.1",
            server_port=port or None,  # None: the first free one from 7860
            share=False,
            quiet=True,
            prevent_thread_lock=True,
            theme=theme,
            footer_links=[],
        )
    except (OSError, OverflowError) as error:
        raise unusable_port(port) from error
    return str(address)


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

    generators = [player for player in players if player.generates]
    readers = [player for player in players if player.reads_digits]
    translators = [player for player in players if isinstance(player.model, Translating)]
    interpolators = [player for player in players if player.interpolates]
    few_shot = [player for player in players if isinstance(player.model, ProtoNet)]
    if not (generators or readers or interpolators or translators or few_shot):
        raise RunError(
            f"There is nothing to play with in {', '.join(player.name for player in players)}: take a generator, a "
            "translator, an autoencoder, a classifier of gray digits, or a ProtoNet."
        )
    with gr.Blocks(title="relit", analytics_enabled=False) as app:
        gr.Markdown("# relit: play with trained models")
        for player in generators:
            _generation_tab(gr, player)
        if readers:
            classifiers = [player for player in readers if player.classifies]
            _drawing_tab(gr, DigitReader(classifiers, [player for player in readers if not player.classifies]))
        if interpolators:
            _walk_tab(gr, Walk(interpolators))
        for player in translators:
            _translation_tab(gr, player)
        for player in few_shot:
            _few_shot_tab(gr, player)
    return app


def _generation_tab(gr: Any, player: Player) -> None:
    with gr.Tab(player.name), gr.Row():
        with gr.Column():
            seed = gr.Number(0, label="seed", precision=0, minimum=0)
            label = gr.Slider(0, max(1, player.classes - 1), 0, step=1, label="class", visible=player.classes > 0)
            count = min(SLIDERS, require_latent_dim(player.model))
            sliders = [gr.Slider(-3, 3, 0, step=0.1, label=f"latent {n}") for n in range(count)]
        with gr.Column():
            image = gr.Image(player.generate(0, 0), type="pil", label="image", buttons=BUTTONS)
            with gr.Row():
                first = gr.Number(0, label="from seed", precision=0, minimum=0)
                second = gr.Number(1, label="to seed", precision=0, minimum=0)
                steps = gr.Slider(3, 15, 9, step=1, label="steps")
            with gr.Row():
                walk, movie = gr.Button("walk"), gr.Button("moving picture")
            row = _titled_image(gr, "between the two")
            moving = gr.Image(label="walk in the latent space", type="filepath", format="gif", buttons=BUTTONS)
        for control in (seed, label, *sliders):
            control.change(player.generate, [seed, label, *sliders], image, show_progress="hidden")
        walk.click(player.walk, [first, second, label, steps], row)
        movie.click(player.movie, first, moving)


def _drawing_tab(gr: Any, reader: DigitReader) -> None:
    with gr.Tab("draw a digit"), gr.Row():
        pen = gr.Brush(default_size=18, colors=["#000000"])
        drawn = gr.Sketchpad(
            type="numpy",
            label="choose the brush, and draw a digit",
            canvas_size=(280, 280),
            brush=pen,
            layers=False,
            buttons=BUTTONS,
        )
        with gr.Column():
            answers = [gr.Label(label=f"{player.name}: class", num_top_classes=3) for player in reader.classifiers]
            answers += [_titled_image(gr, f"{player.name}: digit and reconstruction") for player in reader.autoencoders]
            answers += [_titled_image(gr, f"the most similar of {reader.examples.source}")]
        drawn.change(reader.read, drawn, answers, show_progress="hidden")


def _titled_image(gr: Any, title: str) -> Any:
    """A place for images in a row, below its title: a label of Gradio's would cover the first ones."""
    gr.Markdown(title)
    return gr.Image(type="pil", label=title, show_label=False, buttons=BUTTONS)


def _walk_tab(gr: Any, walk: Walk) -> None:
    with gr.Tab("walk between two pictures"):
        gr.Markdown("Draw, drop or pick two pictures.")
        examples = walk.examples() if walk.reads_ink else []
        pictures = []
        with gr.Row():
            for label in ("first picture", "second picture"):
                with gr.Column():
                    pictures += [
                        gr.ImageEditor(
                            type="pil",
                            label=label,
                            sources=["upload", "clipboard"],
                            canvas_size=(280, 280),
                            brush=gr.Brush(default_size=18, colors=["#000000"]),
                            layers=False,
                            transforms=(),
                            buttons=BUTTONS,
                        )
                    ]
                    if examples:
                        gr.Examples(examples, pictures[-1], label="digits")
        with gr.Row():
            steps = gr.Slider(3, 15, 9, step=1, label="steps")
            path = gr.Radio([("straight line", "lerp"), ("great circle", "slerp")], value="lerp", label="path")
            ink = gr.Checkbox(True, label="as digits: cut out, centered, light on dark", visible=walk.reads_ink)
        button = gr.Button("walk between them")
        answers = []
        for player in walk.players:
            gr.Markdown(f"{player.name}: the first picture, the images on the way, the second picture")
            hidden = {"show_label": False, "buttons": BUTTONS}  # a label would cover the first images
            answers += [
                gr.Image(type="pil", label=f"{player.name}: row", **hidden),
                gr.Image(type="filepath", label=f"{player.name}: moving picture", format="gif", **hidden),
            ]
        button.click(_with_sentences(gr, walk.between), [*pictures, steps, path, ink], answers)


def _translation_tab(gr: Any, player: Player) -> None:
    with gr.Tab(player.name), gr.Row():
        photograph = gr.Image(label="photograph", sources=["upload", "clipboard"], buttons=BUTTONS)
        translation = gr.Image(type="pil", label="translation", buttons=BUTTONS)
        translated = _with_sentences(gr, lambda given: player.translate(_files_of(given)))
        photograph.change(translated, photograph, translation, preprocess=False)


def _few_shot_tab(gr: Any, player: Player) -> None:
    with gr.Tab(player.name):
        gr.Markdown("Put pictures into at least two classes, then ask about another picture.")
        with gr.Row():
            examples = [
                gr.File(label=f"class {n + 1}", file_count="multiple", file_types=["image"]) for n in range(CLASSES)
            ]
        with gr.Row():
            query = gr.Image(label="which class is this?", sources=["upload", "clipboard"], buttons=BUTTONS)
            answer = gr.Label(label="classes")
        few_shot = FewShot(player.model)

        classified = _with_sentences(gr, lambda *given: few_shot.classify(*map(_files_of, given)))
        gr.Button("ask").click(classified, [query, *examples], answer, preprocess=False)


def _files_of(given: Any) -> Any:
    """The files that were dropped, where Gradio doesn't open them: its own error for those that are no pictures is a
    bare "Error"."""
    if isinstance(given, list):
        return [file["path"] for file in given]
    return given["path"] if given else None


def _with_sentences(gr: Any, answer: Callable[..., Any]) -> Callable[..., Any]:
    """The function, with its refusals shown on the page."""

    def answered(*values: Any) -> Any:
        try:
            return answer(*values)
        except RunError as error:
            raise gr.Error(str(error), print_exception=False) from error

    return answered

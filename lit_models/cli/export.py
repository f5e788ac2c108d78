"""``relit export CHECKPOINT``: weights to pass on, or networks for other programs.

- ``--format safetensors``: ``NAME.safetensors`` and its card ``NAME.json``, which ``relit predict --weights
  NAME.safetensors`` reads (:mod:`lit_models.support.weights`).
- ``--format onnx``: ``NAME_<part>.onnx`` and its card ``NAME_<part>.json`` for each part that the method names in its
  ``exports``: generator, classifier, encoder, decoder … Any number of images may be given at once. What ONNX Runtime
  makes of it is compared with PyTorch before the file is kept.
"""

import math
import sys
import traceback
import warnings
from argparse import ArgumentError
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from lightning.pytorch import LightningModule
from torch import Tensor, nn

import lit_models
from lit_models.cli.hub_card import hub_card_text
from lit_models.cli.messages import sentence_of
from lit_models.cli.parsers import export_parser, require_fitting_options
from lit_models.errors import ModelError, RunError
from lit_models.module import Export, Method
from lit_models.networks.user_network import import_encoder
from lit_models.runs.folder import run_of
from lit_models.runs.reading import LIMIT, differences, flattened, read_logged, read_mapping, read_tests
from lit_models.support.arguments import error_of_ours
from lit_models.support.checkpoint_files import read_checkpoint
from lit_models.support.checkpoint_paths import WEIGHTS, require_checkpoint
from lit_models.support.current_folder import import_from_current_folder
from lit_models.support.weights import (
    build_model,
    digest_of,
    method_of,
    read_card,
    sha256,
    state_of,
    without_folders,
    write_card,
    write_weights,
)

INPUTS: dict[str, tuple[str, Callable[[Any], tuple[int, ...]], str]] = {
    "image": ("float32", lambda model: model.image_shape, "images, channels x height x width, in [0, 1]"),
    "source": (
        "float32",
        lambda model: model.source_shape,
        "images to translate, channels x height x width, in [0, 1]",
    ),
    "latent": ("float32", lambda model: (model.latent_dim,), "latent vectors; to draw images, standard normal ones"),
    "code": ("float32", lambda model: (model.latent_dim,), "codes, as the encoder makes them"),
    "label": ("int64", lambda model: (), "classes, from 0 on"),
}
"""Of each kind of input its type, its shape but for the batch, and what it is."""
OUTPUTS = {
    "image": "images, channels x height x width, in [0, 1]",
    "logits": "one number for each class; their softmax gives the probabilities",
    "embedding": "the images' embeddings",
}
SAME_IMAGES = ("root", "batch_size", "eval_batch_size", "on_device", "classes_per_batch", "samples_per_class")
"""Settings of data that don't change a test."""
HUB_CARD = "README.md"
LARGEST_DIFFERENCE = 1e-3
"""Between PyTorch's and ONNX Runtime's results, as a share of the largest value."""


class ExportedPart(nn.Module):
    """A part of a model as a separate network.

    Args:
        model: The model.
        part: Which part.
    """

    def __init__(self, model: LightningModule, part: Export) -> None:
        super().__init__()
        self.model = model
        self.method = part.method

    def forward(self, *inputs: Tensor) -> Tensor:
        return getattr(self.model, self.method)(*inputs)


def main(args: list[str]) -> int:
    """Runs the command; returns its exit code."""
    given = export_parser().parse_args(args)
    try:
        if given.encoder is not None:
            import_from_current_folder([given.encoder])
            import_encoder(given.encoder)
        for path in export(
            Path(given.checkpoint), given.format, given.part, given.output, given.command, given.note, given.hub_card
        ):
            print(f"Written: {path} ({path.stat().st_size / 1e6:.2f} MB) and {path.with_suffix('.json').name}")
            if given.hub_card is not None:
                print(f"Written: {path.with_name(HUB_CARD)}")
    except (Exception, ArgumentError) as error:
        if given.debug:
            traceback.print_exc()
        print(f"relit: {sentence_of(error)}", file=sys.stderr)
        if not given.debug and error_of_ours(error) is None:
            print("relit: add --debug for the whole traceback.", file=sys.stderr)
        return 1
    return 0


def export(
    checkpoint_path: Path,
    kind: str = "safetensors",
    part: str | None = None,
    output: str | None = None,
    command: str | None = None,
    note: str | None = None,
    hub_card: str | None = None,
) -> list[Path]:
    """Exports a checkpoint; returns the files that were written, without the cards.

    Args:
        checkpoint_path: A checkpoint's file, or the folder of a run or experiment.
        kind: "safetensors" or "onnx".
        part: The only part to write as ONNX.
        output: Name of the files without their ending; the experiment's if None.
        command: The command that trained the model; what the run recorded if None.
        note: A remark for the card.
        hub_card: Also write the Hugging Face Hub's card, for this repository ``OWNER/NAME`` (or "" if unknown yet).

    Raises:
        RunError: The checkpoint can't be read, or the files can't be written.
        ModelError: The method has no such part.
    """
    require_fitting_options(kind, part, hub_card)
    found = require_checkpoint(checkpoint_path)
    checkpoint = read_checkpoint(found)
    card = about(checkpoint, found, command, note)
    name = Path(output or card["experiment"] or card["method"].lower())
    if name.suffix in (WEIGHTS, ".onnx"):
        name = name.with_suffix("")
    try:
        name.parent.mkdir(parents=True, exist_ok=True)
        if kind == "safetensors":
            written = [_export_weights(checkpoint, name.with_name(f"{name.name}{WEIGHTS}"), card)]
        else:
            written = _export_onnx(build_model(checkpoint, found), part, name, card)
    except OSError as error:
        raise RunError(f"{name} can't be written ({error.strerror or error}): choose another --output.") from error
    if hub_card is not None:
        write_hub_card(written[0], hub_card)
    return written


def about(
    checkpoint: dict[str, Any], path: Path, command: str | None = None, note: str | None = None
) -> dict[str, Any]:
    """What a card says of where the weights come from.

    The figures are those that were measured with these weights: by a validation at the checkpoint's step, and by the
    last test of a checkpoint of this step.

    Args:
        checkpoint: As :func:`lit_models.support.checkpoint_files.read_checkpoint` returns it.
        path: Where it lies.
        command: The command that trained the model; what the run recorded if None.
        note: A remark.
    """
    config = checkpoint.get("config") or {}
    data = config.get("data")
    if data is not None:
        arguments = {name: value for name, value in (data.get("init_args") or {}).items() if name != "root"}
        data = {"class_path": data["class_path"], "init_args": without_folders(arguments)}
    run = run_of(path)
    record = {} if run is None else read_mapping(run / "run.json")
    return {
        "method": method_of(checkpoint, path),
        "experiment": (config.get("run") or {}).get("experiment"),
        "hyperparameters": without_folders(dict(checkpoint.get("hyper_parameters", {}))),
        "state": state_of(checkpoint, method_of(checkpoint, path)),
        "data": data,
        "epoch": checkpoint.get("epoch", 0),
        "step": checkpoint.get("global_step", 0),
        "figures": {} if run is None else figures_of(run, checkpoint),
        "training_seconds": record.get("training_seconds"),
        "command": command or record.get("command"),
        "commit": record.get("git_commit"),
        "relit": checkpoint.get("relit_version", lit_models.__version__),
        "note": note,
    }


def figures_of(run: Path, checkpoint: dict[str, Any]) -> dict[str, float]:
    """The values of a run's validation and of its last test with a checkpoint's weights, on the data that they were
    trained on; of a full test, not of one with ``--trainer.limit_test_batches``."""
    figures: dict[str, float] = {}
    step, digest = checkpoint.get("global_step", 0), digest_of(checkpoint["state_dict"])
    data = flattened((checkpoint.get("config") or {}).get("data"))
    for row in read_logged(run / "metrics.csv"):
        if row.step == step - 1:  # what is logged after n steps has the number of the last one
            figures |= {name: value for name, value in row.values.items() if name.startswith("val/")}
    for test in read_tests(run):
        others = differences([data, flattened(test["settings"])], ignored=()) if "settings" in test else {}
        on_others = any(name.rpartition(".")[2] not in SAME_IMAGES for name in others)
        # A run that went back to an earlier checkpoint has had other weights after as many steps.
        is_of_weights = test.get("step") == step and test.get("weights", digest) == digest
        if is_of_weights and not on_others:
            if test.get(LIMIT) is None:
                figures |= test.get("figures", {})
            else:
                print(
                    f"relit: note: a test of some batches only ({LIMIT} {test[LIMIT]:g}) stays out of the card.",
                    file=sys.stderr,
                )
    return {name: value for name, value in figures.items() if math.isfinite(value)}


def _export_weights(checkpoint: dict[str, Any], path: Path, card: dict[str, Any]) -> Path:
    write_weights(checkpoint, path, card)
    # What can't be read again is told now, not to whoever gets it.
    build_model(read_checkpoint(path), path)
    return path


def write_hub_card(weights: Path, repository: str = "") -> None:
    """Writes the README.md of a ``.safetensors`` file for the Hugging Face Hub.

    Args:
        weights: The file, with its card.
        repository: ``OWNER/NAME`` on the Hub.

    Raises:
        RunError: There is a README.md of something else.
    """
    path = weights.with_name(HUB_CARD)
    if path.is_file() and "library_name: relit" not in path.read_text(encoding="utf-8"):
        raise RunError(f"{path} is the page of something else: choose another folder with --output FOLDER/NAME.")
    text = hub_card_text(read_card(weights), weights.name, repository or f"OWNER/{weights.stem}")
    path.write_text(text, encoding="utf-8")


def _export_onnx(model: Method, only: str | None, name: Path, card: dict[str, Any]) -> list[Path]:
    parts = model.exports
    method = type(model).__name__
    if not parts:
        raise ModelError(f"{method} has no part that could be used on its own, so there is nothing to write as ONNX.")
    chosen = [part for part in parts if only in (None, part.name)]
    if not chosen:
        raise ModelError(f"{method} has no part {only!r}; it has {', '.join(part.name for part in parts)}.")
    written = []
    for part in chosen:
        path = name.with_name(f"{name.name}_{part.name}.onnx")
        details = write_onnx(model, part, path)
        write_card({"format": "relit onnx 1", "part": part.name, **details, **card, "sha256": sha256(path)}, path)
        written.append(path)
    return written


def write_onnx(model: LightningModule, part: Export, path: Path) -> dict[str, Any]:
    """Writes a part of a model as ONNX with a batch of any size, if ONNX Runtime makes the same of it as PyTorch.

    Args:
        model: The model, in evaluation mode on the CPU.
        part: Which part.
        path: The file to write.

    Returns:
        ``inputs`` and ``output`` with their names, types, shapes and meaning, the ``opset``, and the
        ``largest_difference`` between PyTorch's and ONNX Runtime's results.

    Raises:
        RunError: A library is missing, or the results differ.
    """
    try:
        import onnx
        import onnxruntime
        import onnxscript  # noqa: F401  (torch.onnx needs it)
    except ModuleNotFoundError as error:
        raise RunError(f"ONNX needs {error.name}: pip install 'relit[onnx]'.") from error
    network = ExportedPart(model, part).eval()
    names = [kind if kind != part.output else f"{kind}_in" for kind in part.inputs]
    batch = torch.export.Dim("batch")
    with torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        program = torch.onnx.export(
            network,
            example_inputs(model, part, 2),
            dynamo=True,
            input_names=names,
            output_names=[part.output],
            dynamic_shapes=(tuple({0: batch} for _ in names),),
            verbose=False,
        )
    assert program is not None
    unfinished = path.with_name(f".{path.name}.unfinished")
    program.save(str(unfinished), external_data=False)
    session = onnxruntime.InferenceSession(str(unfinished), providers=["CPUExecutionProvider"])
    difference = 0.0
    shape: tuple[int, ...] = ()
    for size in (1, 5):
        inputs = example_inputs(model, part, size)
        with torch.no_grad():
            ours = network(*inputs).numpy()
        (theirs,) = session.run(None, {name: value.numpy() for name, value in zip(names, inputs, strict=True)})
        difference = max(difference, float(np.abs(ours - theirs).max() / max(np.abs(ours).max(), 1e-12)))
        shape = ours.shape[1:]
    if not difference <= LARGEST_DIFFERENCE:
        unfinished.unlink()
        raise RunError(
            f"ONNX Runtime's result of {path.stem} differs from PyTorch's by {difference:.1e} of its largest value, so "
            "it isn't written."
        )
    unfinished.replace(path)
    kinds = [INPUTS[kind] for kind in part.inputs]
    return {
        "inputs": [
            {"name": name, "type": dtype, "shape": ["batch", *shape_of(model)], "meaning": meaning}
            for name, (dtype, shape_of, meaning) in zip(names, kinds, strict=True)
        ],
        "output": {
            "name": part.output,
            "type": "float32",
            "shape": ["batch", *shape],
            "meaning": OUTPUTS[part.output],
        },
        "opset": onnx.load(path).opset_import[0].version,
        "largest_difference": float(f"{difference:.2g}"),
    }


def example_inputs(model: Any, part: Export, size: int) -> tuple[Tensor, ...]:
    """Random inputs of a part, always the same ones: a batch of ``size``."""
    generator = torch.Generator().manual_seed(size)
    inputs = []
    for kind in part.inputs:
        dtype, shape_of, _ = INPUTS[kind]
        shape = (size, *shape_of(model))
        if dtype == "int64":
            inputs.append(torch.randint(model.num_classes, shape, generator=generator))
        elif kind in ("image", "source"):
            inputs.append(torch.rand(shape, generator=generator))
        else:
            inputs.append(torch.randn(shape, generator=generator))
    return tuple(inputs)

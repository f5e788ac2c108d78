import json
import re
from pathlib import Path
from typing import Any

import jsonargparse
import numpy as np
import pytest
import torch
from lightning.pytorch import LightningModule
from PIL import Image
from safetensors.torch import load_file, save_file

import lit_models
from lit_models.__main__ import main
from lit_models.cli.export import example_inputs, export, write_onnx
from lit_models.errors import ModelError, RunError
from lit_models.support.checkpoint_files import read_checkpoint
from lit_models.support.named_extractors import load_classifier
from lit_models.support.weights import build_model, digest_of, is_function, sha256
from tests.methods import SMALL_MODELS
from tests.support.compare import assert_alike
from tests.support.fixtures import Output, Patch, Relit
from tests.support.small_models import checkpoint_of, small_model
from tests.support.tiny import TINY, the_run

WEIGHTS = Path(__file__).parents[3] / "weights"
QUICK = ("ConditionalGAN", "DigitClassifier", "Pix2Pix")
"""Models that are exported to ONNX in the default tests, too."""


@pytest.fixture(autouse=True)
def _there(tmp_path: Path, monkeypatch: Patch) -> None:
    monkeypatch.chdir(tmp_path)


def exported(title: str, **changes: Any) -> tuple[LightningModule, Path]:
    """A small model and its exported weights."""
    model = small_model(title)
    torch.save({**checkpoint_of(model), **changes}, "model.ckpt")
    (path,) = export(Path("model.ckpt"))
    return model, path


def change_card(path: Path, **changes: Any) -> None:
    card = json.loads(path.with_suffix(".json").read_text())
    path.with_suffix(".json").write_text(json.dumps({**card, **changes}))


def test_every_method_has_parts_to_export() -> None:
    without = [name for name in lit_models.METHODS if not getattr(lit_models, name).exports]
    assert without == ["DARTSSearch"], "what it searches is retrained before it is used"


@pytest.mark.parametrize(
    "title",
    [pytest.param(title, marks=[pytest.mark.slow] if ", " in title else []) for title in SMALL_MODELS],
)
def test_weights_come_back(title: str) -> None:
    """From the weights and from the checkpoint, and in no other method's name."""
    model, path = exported(title)
    method = type(model)
    ours = json.loads(json.dumps(dict(model.hparams)))
    for source in ("model.ckpt", path):
        again = method.from_pretrained(source)
        assert type(again) is method
        assert not again.training
        assert_alike(again.state_dict(), model.state_dict())
        assert json.loads(json.dumps(dict(again.hparams))) == ours
    name, other = method.__name__, lit_models.VAE if method is not lit_models.VAE else lit_models.DCGAN
    with pytest.raises(ModelError, match=rf"holds a {name}, not a {other.__name__}: call {name}.from_pretrained"):
        other.from_pretrained(path)
    for part in model.exports:
        inputs = example_inputs(model, part, 3)
        assert torch.equal(getattr(again, part.method)(*inputs), getattr(model, part.method)(*inputs))


def test_the_card(tmp_path: Path) -> None:
    run = tmp_path / "runs" / "one"
    (run / "checkpoints").mkdir(parents=True)
    (run / "config.yaml").write_text("{}")
    rows = ["0,9,8.0,,", "1,19,4.0,,", "2,29,2.0,,", "0,0,,7.0,0.7"]
    tests = [(20, {"test/fid": 9.0, "test/kid": 0.5}), (20, {"test/fid": 3.0}), (30, {"test/fid": 7.0})]
    (run / "tests.json").write_text(json.dumps([{"step": step, "figures": figures} for step, figures in tests]))
    (run / "metrics.csv").write_text("\n".join(["epoch,step,val/fid,test/fid,test/kid", *rows]) + "\n")
    record = {"training_seconds": 12.5, "command": "relit fit --config x.yaml", "git_commit": "abc"}
    (run / "run.json").write_text(json.dumps(record))
    torch.save(checkpoint_of(small_model("LatentGAN")), run / "checkpoints" / "best.ckpt")
    (path,) = export(run, output="kept/digits.v2", note="a remark")
    assert path == Path("kept/digits.v2.safetensors")
    card = json.loads(Path("kept/digits.v2.json").read_text())
    assert card["method"] == "LatentGAN"
    assert card["figures"] == {"val/fid": 4.0, "test/fid": 3.0, "test/kid": 0.5}, (
        "of the weights after step 20, and not of those after step 30"
    )
    assert (card["training_seconds"], card["command"], card["commit"]) == (12.5, "relit fit --config x.yaml", "abc")
    assert card["data"] == {"class_path": "datamodules.Digits", "init_args": {"batch_size": 8}}, "without folders"
    assert card["note"] == "a remark"
    assert card["sha256"] == sha256(path)
    assert card["numbers"] == sum(value.numel() for value in load_file(path).values())


def test_a_card_has_no_values_of_other_data_other_weights_or_a_partial_test(capsys: Output) -> None:
    """Other weights: of a run that went back to an earlier checkpoint, and trained on to the same step."""
    run = Path("runs/digits/1")
    (run / "checkpoints").mkdir(parents=True)
    checkpoint = checkpoint_of(small_model("DCGAN"))
    torch.save(checkpoint, run / "checkpoints" / "last.ckpt")
    (run / "config.yaml").write_text("{}")
    (run / "metrics.csv").write_text("epoch,step,val/loss\n")
    own, others = checkpoint["config"]["data"], {"class_path": "datamodules.MNIST", "init_args": {"batch_size": 8}}
    digest = digest_of(checkpoint["state_dict"])
    batches = {**own, "init_args": {**own["init_args"], "batch_size": 99}}
    tests = [
        {"step": 20, "settings": batches, "weights": digest, "figures": {"test/a": 1.0, "test/b": 1.0}},
        {"step": 20, "settings": own, "figures": {"test/b": 2.0}},
        {"step": 20, "settings": own, "weights": "0" * 64, "figures": {"test/a": 3.0}},
        {"step": 20, "settings": others, "weights": digest, "figures": {"test/a": 4.0}},
        {"step": 20, "settings": own, "weights": digest, "limit_test_batches": 1, "figures": {"test/a": 5.0}},
        {"step": 20, "settings": own, "weights": digest, "limit_test_batches": None, "figures": {"test/c": 6.0}},
    ]
    (run / "tests.json").write_text(json.dumps(tests))
    (path,) = export(run)
    assert json.loads(path.with_suffix(".json").read_text())["figures"] == {
        "test/a": 1.0,
        "test/b": 2.0,
        "test/c": 6.0,
    }
    said = "relit: note: a test of some batches only (limit_test_batches 1) stays out of the card.\n"
    assert capsys.readouterr().err.count(said) == 1


def test_the_digest_of_weights_is_of_names_types_shapes_and_values() -> None:
    state = {"a": torch.arange(4.0).view(2, 2), "b": torch.tensor(True)}
    same = {"b": state["b"].clone(), "a": state["a"].t().contiguous().t()}
    digests = {digest_of(state)}
    assert digest_of(same) in digests
    for name, other in (("a", state["a"].view(4)), ("a", state["a"].double()), ("a", -state["a"]), ("c", state["b"])):
        digests.add(digest_of({**state, name: other}))
    assert len(digests) == 5


def test_no_folder_of_this_machine_is_passed_on() -> None:
    hyperparameters = {
        **dict(small_model("LatentGAN").hparams),
        "decoder_checkpoint": "/home/me/secret/autoencoder.ckpt",
    }
    _, path = exported("LatentGAN", hyper_parameters=hyperparameters)
    card = json.loads(path.with_suffix(".json").read_text())
    assert card["hyperparameters"]["decoder_checkpoint"] == "autoencoder.ckpt"
    assert "/home" not in path.with_suffix(".json").read_text()


def test_a_methods_own_state_comes_along() -> None:
    model = small_model("ProtoNet")
    model.inverted = True
    torch.save(checkpoint_of(model), "model.ckpt")
    (path,) = export(Path("model.ckpt"))
    assert build_model(read_checkpoint(path), path).inverted
    model = small_model("LayerwiseMLP")
    model.class_names = ("a", "b", "c")
    torch.save(checkpoint_of(model), "model.ckpt")
    (path,) = export(Path("model.ckpt"))
    assert build_model(read_checkpoint(path), path).class_names == ("a", "b", "c")


def test_a_card_of_an_earlier_version_may_hold_what_only_training_needs() -> None:
    """CycleGAN's empty buffers of images, which once were on its card."""
    path = exported("CycleGAN")[1]
    assert json.loads(path.with_suffix(".json").read_text())["state"].keys() == {
        "source_scale",
        "source_side",
        "source_channels",
    }
    change_card(path, state={"image_buffers": [[None, None]], "source_scale": 0.5})
    checkpoint = read_checkpoint(path)
    assert "image_buffers" not in checkpoint
    assert build_model(checkpoint, path).source_scale == 0.5


def test_weights_of_a_classifier_judge_images() -> None:
    model, path = exported("DigitClassifier")
    image = torch.rand(4, 1, 16, 16)
    assert torch.equal(load_classifier(path)(image), model(image))


@pytest.mark.long
def test_predict_and_test_take_weights(relit: Relit) -> None:
    assert relit("fit", *TINY, "--trainer.max_epochs=1", "--trainer.limit_train_batches=3") == 0
    run = the_run()
    assert json.loads((run / "run.json").read_text())["command"].startswith("relit")
    checkpoint = run / "checkpoints" / "last.ckpt"
    assert relit("export", run) == 0
    weights = Path("dcgan_digits.safetensors")
    assert not json.loads(weights.with_suffix(".json").read_text())["state"], "nothing that only a training needs"
    for name, source in (("a", ["--ckpt_path", checkpoint]), ("b", ["--weights", weights])):
        arguments = ["--data", "Samples", "--data.count=6", "--predictions.folder", name, "--run.id", name]
        assert relit("predict", *source, *arguments, "--trainer.accelerator=cpu") == 0
    ours, theirs = sorted(Path("a").glob("*.png")), sorted(Path("b").glob("*.png"))
    assert [path.name for path in ours] == [path.name for path in theirs]
    assert len(ours) == 6
    for one, other in zip(ours, theirs, strict=True):
        assert np.array_equal(np.asarray(Image.open(one)), np.asarray(Image.open(other)))

    quiet = ["--trainer.accelerator=cpu", "--trainer.enable_progress_bar=false"]
    # In the configuration's memory order, which a card doesn't hold: another one may round differently.
    same = ["--run.id", "tested", "--channels_last=true", *quiet]
    assert relit("test", "--weights", weights, *same) == 0, "with the data that the card names"
    figures = (Path("runs") / "dcgan_digits" / "tested" / "metrics.csv").read_text()
    assert relit("test", *TINY, "--ckpt_path", checkpoint) == 0
    assert figures.splitlines()[-1].split(",")[2:] == [
        value
        for name, value in zip(*[line.split(",") for line in _ends(run / "metrics.csv")], strict=True)
        if name.startswith("test/")
    ]


def _ends(path: Path) -> list[str]:
    lines = path.read_text().splitlines()
    return [lines[0], lines[-1]]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["predict", "--weights", "w.safetensors", "--ckpt_path", "a.ckpt"], "name two things to load"),
        (["predict", "--weights", "nowhere.ckpt"], "There are no weights nowhere.ckpt"),
        (["predict", "--weights", "nowhere.safetensors"], "There are no weights nowhere.safetensors"),
        (["fit", "--ckpt_path", "w.safetensors"], "w.safetensors holds weights only"),
    ],
)
def test_the_command_says_what_it_takes(relit: Relit, capsys: Output, arguments: list[str], message: str) -> None:
    _, path = exported("DCGAN")
    for file in (path, path.with_suffix(".json")):
        file.rename(f"w{file.suffix}")
    Path("a.ckpt").touch()
    capsys.readouterr()
    assert relit(*arguments) in (1, 2)
    said = capsys.readouterr().err
    assert message in said
    assert said.count("\n") == 1


# --- what comes from elsewhere --------------------------------------------------------------------------------------

EVIL_OPTIMIZER = {"class_path": "os.system", "init_args": {"command": "touch hacked"}}
HYPERPARAMETERS = dict(SMALL_MODELS["DCGAN"].arguments)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"method": "os.system"}, "which this version of relit doesn't have"),
        ({"method": "AdversarialModule"}, "which this version of relit doesn't have"),
        ({"method": None}, "has no proper 'method'"),
        ({"format": "relit weights 9"}, "is no card of weights"),
        (
            {"hyperparameters": {**HYPERPARAMETERS, "generator_optimizer": EVIL_OPTIMIZER}},
            "hyperparameters that don't fit",
        ),
        ({"hyperparameters": {**HYPERPARAMETERS, "feature_mops": 2}}, "hyperparameters that don't fit"),
        ({"hyperparameters": {**HYPERPARAMETERS, "feature_maps": "many"}}, "hyperparameters that don't fit"),
        ({"hyperparameters": {**HYPERPARAMETERS, "feature_maps": 10**6}}, "The weights in"),
        ({"hyperparameters": {**HYPERPARAMETERS, "feature_maps": 4}}, "The weights in"),
        ({"hyperparameters": {**HYPERPARAMETERS, "image_size": 17}}, "image_size is 17"),
        ({"state": {"state_dict": {}}}, "has state_dict in its state"),
        ({"state": {"callbacks": {}}}, "has callbacks in its state"),
        ({"data": {"class_path": "os.system"}}, "names the data 'os.system'"),
        (
            {"data": {"class_path": "datamodules.MNIST", "init_args": {"x": {"class_path": "os.system"}}}},
            "the data 'os",
        ),
        ({"experiment": "../../elsewhere"}, "which can't name a folder"),
        ({"sha256": "0" * 64}, "isn't the file that its card describes"),
    ],
)
def test_a_card_is_checked(changes: dict[str, Any], message: str) -> None:
    _, path = exported("DCGAN")
    change_card(path, **changes)
    with pytest.raises((RunError, lit_models.errors.ModelError), match=re.escape(message)):
        read_checkpoint(path)
    assert not Path("hacked").exists()


def test_weights_are_checked() -> None:
    _, path = exported("DCGAN")
    tensors = load_file(path)
    content = path.read_bytes()
    path.write_bytes(content[:-8])
    change_card(path, sha256=sha256(path))
    with pytest.raises(RunError, match="can't be read as safetensors"):
        read_checkpoint(path)
    del tensors[next(iter(tensors))]
    save_file(tensors, path)
    change_card(path, sha256=sha256(path))
    with pytest.raises(RunError, match="aren't those of a DCGAN"):
        read_checkpoint(path)
    path.with_suffix(".json").write_text("{")
    with pytest.raises(RunError, match="isn't valid JSON"):
        read_checkpoint(path)
    path.with_suffix(".json").unlink()
    with pytest.raises(RunError, match=r"has no card: put an_experiment\.json"):
        read_checkpoint(path)


def test_functions_are_known_by_their_names() -> None:
    """No argument that takes a function, by which a card could name code, gets past the check."""
    functions = set()
    for method in lit_models.METHODS:
        parser = jsonargparse.ArgumentParser(exit_on_error=False)
        parser.add_class_arguments(getattr(lit_models, method), "model")
        hints = {action.dest: str(getattr(action, "_typehint", "")) for action in parser._actions}
        functions |= {name for name, hint in hints.items() if "Callable" in hint and not name.endswith(".help")}
    assert "model.optimizer" in functions
    assert all(is_function(name) for name in functions)


# --- ONNX -----------------------------------------------------------------------------------------------------------


def onnx_cases() -> list[Any]:
    return [
        pytest.param(title, part.name, marks=[] if title in QUICK and part.name != "encoder" else pytest.mark.long)
        for title, model in SMALL_MODELS.items()
        for part in getattr(lit_models, model.method).exports
    ]


@pytest.mark.parametrize(("title", "name"), onnx_cases())
def test_onnx_computes_the_same(title: str, name: str) -> None:
    onnxruntime = pytest.importorskip("onnxruntime")
    model = small_model(title)
    part = next(part for part in type(model).exports if part.name == name)  # type: ignore[attr-defined]
    details = write_onnx(model, part, Path("part.onnx"))
    assert [path.name for path in Path().glob("*part*")] == ["part.onnx"], "one file, nothing unfinished"
    session = onnxruntime.InferenceSession("part.onnx", providers=["CPUExecutionProvider"])
    given = {value.name: (value.type, value.shape) for value in session.get_inputs()}
    types = {"float32": "tensor(float)", "int64": "tensor(int64)"}
    assert {i["name"]: (types[i["type"]], i["shape"]) for i in details["inputs"]} == given, "as the card says"
    (output,) = session.get_outputs()
    assert (output.name, output.shape) == (details["output"]["name"], details["output"]["shape"])
    for size in (1, 3, 8):
        inputs = example_inputs(model, part, 100 + size)
        with torch.no_grad():
            ours = getattr(model, part.method)(*inputs).numpy()
        feed = {value.name: tensor.numpy() for value, tensor in zip(session.get_inputs(), inputs, strict=True)}
        (theirs,) = session.run(None, feed)
        assert theirs.shape == ours.shape
        assert np.ptp(ours) > 0
        np.testing.assert_allclose(theirs, ours, rtol=1e-4, atol=1e-5 * np.abs(ours).max())


def test_the_generator_that_is_exported_is_the_one_that_samples() -> None:
    model: Any = small_model("ConditionalGAN")
    with torch.no_grad():
        for parameter in model.generator_average.parameters():
            parameter.mul_(0.5)
    latent = torch.randn(6, 4, generator=torch.Generator().manual_seed(3))
    labels = torch.tensor([0, 1, 2, 2, 1, 0])
    (part,) = model.exports
    sample = model.sample(6, labels, torch.Generator().manual_seed(3))
    assert torch.equal(getattr(model, part.method)(latent, labels), sample)


@pytest.mark.slow
def test_onnx_files_and_cards(capsys: Output) -> None:
    torch.save(checkpoint_of(small_model("VAE")), "model.ckpt")
    assert main(["export", "model.ckpt", "--format", "onnx"]) == 0
    assert sorted(path.name for path in Path().glob("*.*n*")) == [
        f"an_experiment_{part}.{ending}" for part in ("decoder", "encoder") for ending in ("json", "onnx")
    ]
    card = json.loads(Path("an_experiment_decoder.json").read_text())
    assert card["sha256"] == sha256(Path("an_experiment_decoder.onnx"))
    assert card["inputs"][0]["meaning"].startswith("latent vectors")
    assert card["largest_difference"] < 1e-5
    assert main(["export", "model.ckpt", "--format", "onnx", "--part", "encoder", "--output", "only.onnx"]) == 0
    assert Path("only_encoder.onnx").is_file()
    assert not Path("only_decoder.onnx").exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["nowhere.ckpt"], "There is no checkpoint in nowhere.ckpt: name a run's folder"),
        (["foreign.ckpt"], "is no checkpoint of one of relit's methods"),
        (["model.ckpt", "--part", "generator"], "--part chooses a network for --format onnx"),
        (["model.ckpt", "--format", "onnx", "--part", "encoder"], "DCGAN has no part 'encoder'; it has generator."),
        (["search.ckpt", "--format", "onnx"], "DARTSSearch has no part that could be used on its own"),
        (["model.ckpt", "--output", "model.ckpt/x"], "can't be written"),
    ],
)
def test_errors_are_a_sentence(capsys: Output, arguments: list[str], message: str) -> None:
    torch.save(checkpoint_of(small_model("DCGAN")), "model.ckpt")
    torch.save({"state_dict": {}}, "foreign.ckpt")
    if arguments[0] == "search.ckpt":
        torch.save(checkpoint_of(small_model("DARTSSearch")), "search.ckpt")
    assert main(["export", *arguments]) == 1
    said = capsys.readouterr().err
    assert message in said
    assert said.count("\n") == 1


# --- the weights that come with relit -------------------------------------------------------------------------------


def test_every_weight_file_has_a_card_that_fits() -> None:
    files = sorted(WEIGHTS.glob("*.safetensors"))
    assert files
    listed = (WEIGHTS / "README.md").read_text()
    for path in files:
        build_model(read_checkpoint(path), path)
        card = path.with_suffix(".json").read_text()
        assert json.loads(card)["command"], f"{path.name}: say by which command it was made"
        assert not re.search(r'"/|[A-Z]:\\|=/|\s/\w', card), f"{path.name}: a folder of somebody's machine"
        assert path.name in listed
    assert {path.stem for path in WEIGHTS.glob("*.json")} == {path.stem for path in files}
    assert {path.suffix for path in WEIGHTS.iterdir()} == {".safetensors", ".json", ".md"}


def test_the_weight_files_are_small() -> None:
    assert sum(path.stat().st_size for path in WEIGHTS.iterdir()) <= 16_000_000

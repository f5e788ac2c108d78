"""Weights by name, for every method, from files, folders, the package and a stand-in for the Hub."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

import lit_models
from lit_models.cli.export import export
from lit_models.cli.hub_card import IMAGES, TASKS, USES, hub_card_text
from lit_models.cli.push import push
from lit_models.errors import RunError
from lit_models.registry import METHODS
from lit_models.runs.starting_weights import state_of_source, take_weights
from lit_models.support.weight_sources import find_weights
from lit_models.support.weights import write_weights
from tests.support.fixtures import Output, Patch, Relit
from tests.support.hub_server import HubServer
from tests.support.small_models import checkpoint_of, small_model
from tests.support.tiny import TINY, the_run, weights

REPOSITORY = Path(__file__).parents[3]
ABOUT = {"method": "DCGAN", "experiment": "gan", "state": {}, "data": None, "epoch": 1, "step": 20, "figures": {}}


def exported(title: str, folder: Path) -> Path:
    """The weights of a small model."""
    checkpoint = folder / "last.ckpt"
    folder.mkdir(exist_ok=True)
    torch.save(checkpoint_of(small_model(title)), checkpoint)
    (path,) = export(checkpoint, output=str(folder / "gan"))
    return path


def test_shipped_weights_and_folders_have_names(tmp_path: Path) -> None:
    assert find_weights("dcgan_mnist").name == "dcgan_mnist.safetensors"
    assert lit_models.DCGAN.from_pretrained("dcgan_mnist").sample(2).shape == (2, 1, 32, 32)
    with pytest.raises(RunError, match=r"There are no weights dcgan_mnits: .*Did you mean dcgan_mnist\?"):
        find_weights("dcgan_mnits")
    with pytest.raises(RunError, match=r"holds no checkpoint, and no \.safetensors file with its card"):
        find_weights(str(tmp_path))
    path = exported("DCGAN", tmp_path / "one")
    (tmp_path / "one" / "last.ckpt").unlink()
    assert find_weights(str(tmp_path / "one")) == path
    for suffix in (".safetensors", ".json"):
        shutil.copy(path.with_suffix(suffix), path.with_name(f"other{suffix}"))
    with pytest.raises(RunError, match=r"holds several weights \(gan.safetensors, other.safetensors\)"):
        find_weights(str(tmp_path / "one"))


class Hub:
    """Stands in for the Hub: repositories are folders."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.private: dict[str, bool] = {}

    def create_repo(self, repository: str, private: bool, exist_ok: bool) -> str:
        assert exist_ok
        (self.root / repository).mkdir(parents=True, exist_ok=True)
        self.private[repository] = private
        return f"https://hub/{repository}"

    def upload_folder(self, repo_id: str, folder_path: Path, commit_message: str) -> None:
        shutil.copytree(folder_path, self.root / repo_id, dirs_exist_ok=True)

    def snapshot_download(self, repository: str, revision: str | None, allow_patterns: list[str]) -> str:
        from huggingface_hub.errors import LocalEntryNotFoundError

        assert allow_patterns in (["*.safetensors", "*.json"], ["gan.safetensors", "gan.json"]), "none that holds code"
        if not (self.root / repository).is_dir():
            raise LocalEntryNotFoundError("Cannot find an appropriate cached snapshot folder.\nMore lines.")
        return str(self.root / repository)


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: Patch) -> Hub:
    huggingface_hub = pytest.importorskip("huggingface_hub")
    stand_in = Hub(tmp_path / "hub")
    monkeypatch.setattr(huggingface_hub, "HfApi", lambda: stand_in)
    monkeypatch.setattr(huggingface_hub, "snapshot_download", stand_in.snapshot_download)
    return stand_in


def test_what_is_pushed_comes_back_with_a_page(hub: Hub, tmp_path: Path) -> None:
    exported("DCGAN", tmp_path / "run")
    assert push(str(tmp_path / "run" / "last.ckpt"), "me/gan", private=True, note="a | b") == "https://hub/me/gan"
    folder = hub.root / "me" / "gan"
    assert {path.name for path in folder.iterdir()} == {"gan.safetensors", "gan.json", "README.md"}
    assert hub.private == {"me/gan": True}
    _, metadata, text = (folder / "README.md").read_text().split("---\n", 2)
    assert yaml.safe_load(metadata) == {
        "library_name": "relit",
        "pipeline_tag": "unconditional-image-generation",
        "tags": ["relit", "pytorch-lightning", "dcgan", "digits"],
    }
    assert 'model = DCGAN.from_pretrained("hf:me/gan")' in text
    assert "| latent_dim | 4 |" in text
    assert r"| Note | a \| b |" in text
    model = lit_models.DCGAN.from_pretrained("hf:me/gan")
    expected = small_model("DCGAN").state_dict()
    assert all(torch.equal(value, expected[name]) for name, value in model.state_dict().items())
    assert push(str(tmp_path / "run" / "gan.safetensors"), "me/again") == "https://hub/me/again"
    assert find_weights("hf:me/again/gan.safetensors@main") == hub.root / "me" / "again" / "gan.safetensors"


def test_the_hubs_weights_are_checked_as_all_others(hub: Hub, tmp_path: Path) -> None:
    exported("DCGAN", tmp_path / "run")
    push(str(tmp_path / "run" / "gan.safetensors"), "me/gan")
    card = hub.root / "me" / "gan" / "gan.json"
    card.write_text(json.dumps({**json.loads(card.read_text()), "method": "os.system"}))
    with pytest.raises(RunError, match=r"of the method 'os.system', which this version of relit doesn't have"):
        lit_models.DCGAN.from_pretrained("hf:me/gan")
    with pytest.raises(RunError, match=r"hf:me/nothing can't be fetched from the Hub \(Cannot find .* folder\)"):
        find_weights("hf:me/nothing")
    for wrong in ("hf:me", "hf:me/../../gan", "hf:me/gan/../x.safetensors", "hf:"):
        with pytest.raises(RunError, match="names no weights on the Hub: write hf:OWNER/NAME"):
            find_weights(wrong)
    with pytest.raises(RunError, match="names no repository of the Hub: write OWNER/NAME"):
        push(str(tmp_path / "run" / "gan.safetensors"), "gan")


SCRIPT = """
import sys
from lit_models import DCGAN
from lit_models.__main__ import main
from lit_models.errors import RunError
from lit_models.support.weight_sources import find_weights

assert main(["push", "gan.safetensors", "me/gan", "--private"]) == 0
assert main(["push", "gan.safetensors", "me/gan"]) == 0, "again, into the repository that is there"
model = DCGAN.from_pretrained("hf:me/gan")
assert model.sample(2).shape == (2, 1, 16, 16)
for source in ("hf:me/nothing", "hf:me/gan@v2"):
    try:
        find_weights(source)
    except RunError as error:
        print(error)
assert main(["predict", "--weights=hf:me/gan/gan.safetensors@main", *sys.argv[1:]]) == 0
"""
ALONE = """
from lit_models.__main__ import main

assert main(["push", "gan.safetensors", "me/other"]) == 1
assert main(["predict", "--weights=hf:me/other"]) == 1
"""


@pytest.mark.long
def test_the_real_client_pushes_to_a_server_and_fetches_from_it(tmp_path: Path) -> None:
    """``huggingface_hub`` itself, by HTTP; and what is printed without a network, or without the right token."""
    pytest.importorskip("huggingface_hub")
    path = exported("DCGAN", tmp_path)

    def run(script: str, cache: str, *args: str, **environment: str) -> subprocess.CompletedProcess[str]:
        given = {**os.environ, "PYTHONPATH": str(REPOSITORY), **server.environment(tmp_path / cache), **environment}
        command = [sys.executable, "-c", script, *args]
        return subprocess.run(command, cwd=tmp_path, env=given, capture_output=True, text=True, check=False)

    with HubServer() as server:
        quiet = ("--trainer.accelerator=cpu", "--trainer.enable_progress_bar=false", "--predictions.folder=out")
        ran = run(SCRIPT, "cache", *quiet)
        assert ran.returncode == 0, ran.stderr
        repository = server.repositories["me/gan"]
        assert repository.private
        assert repository.files.keys() == {"gan.safetensors", "gan.json", "README.md"}
        assert repository.files["gan.safetensors"] == path.read_bytes()
        assert {*server.downloaded} == {"gan.safetensors", "gan.json"}, "nothing else is fetched"
        assert list((tmp_path / "out").rglob("*.png"))
        wrong = "check the name and the network, or download it elsewhere and name its folder."
        assert ran.stdout.splitlines()[:4] == [
            f"Published: {server.url}/me/gan",
            f"Published: {server.url}/me/gan",
            "hf:me/nothing can't be fetched from the Hub (there is no such repository, or you may not read it): "
            f"{wrong}",
            f"hf:me/gan@v2 can't be fetched from the Hub (there is no such revision): {wrong}",
        ]
        refused = run(ALONE, "other", HF_TOKEN="wrong")
    alone = run(ALONE, "third", HF_ENDPOINT="http://127.0.0.1:9")  # where nothing listens
    for ran, reason in ((refused, "Client error '401 Unauthorized'"), (alone, "[Errno 111] Connection refused")):
        assert ran.returncode == 0, ran.stderr
        pushed, predicted = ran.stderr.splitlines()
        assert pushed == (
            f"relit: The Hub doesn't take me/other ({reason}): check the name and the network, and log in by `hf auth "
            "login`."
        )
        assert predicted.startswith("relit: hf:me/other can't be fetched from the Hub (")
        assert predicted.endswith(wrong)


def test_without_the_package_one_sentence_tells_how_to_get_it(tmp_path: Path, monkeypatch: Patch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "huggingface_hub", None)
    for call in (lambda: find_weights("hf:me/gan"), lambda: push("dcgan_mnist", "me/gan")):
        with pytest.raises(
            RunError, match=r"^The Hugging Face Hub needs huggingface_hub: pip install 'relit\[hub\]'\.$"
        ):
            call()


def test_a_page_of_something_else_is_left_alone(tmp_path: Path) -> None:
    path = exported("DCGAN", tmp_path)
    (tmp_path / "README.md").write_text("# My thesis\n")
    with pytest.raises(RunError, match="is the page of something else"):
        export(tmp_path / "last.ckpt", output=str(path.with_suffix("")), hub_card="")
    assert (tmp_path / "README.md").read_text() == "# My thesis\n"


def test_every_method_has_a_task_on_the_hub() -> None:
    assert TASKS.keys() == METHODS.keys()


@pytest.mark.parametrize("method", METHODS)
def test_the_line_of_python_on_the_page_does_what_it_says(method: str) -> None:
    names: dict[str, Any] = {"model": small_model(method)}
    shape = names["model"].image_shape
    names["images"] = torch.rand(2, *shape)
    with torch.no_grad():
        exec(USES.get(method, USES[TASKS[method]]), names)
    if TASKS[method] == IMAGES:
        assert names["images"].shape == (16, *shape)
    elif TASKS[method] == "image-to-image":
        assert names["translated"].shape == (2, *shape)
    elif TASKS[method] == "image-classification":
        assert torch.allclose(names["probabilities"].sum(1), torch.ones(2))
    else:
        assert names["embedding"].ndim == 2


def test_figures_are_metadata_of_the_page(tmp_path: Path) -> None:
    checkpoint = checkpoint_of(small_model("DCGAN"))
    about: dict[str, Any] = {**ABOUT, "hyperparameters": checkpoint["hyper_parameters"], "figures": {"test/fid": 3.25}}
    about |= {"data": {"class_path": "datamodules.MNIST"}, "command": None, "commit": None, "relit": "1", "note": None}
    card = write_weights(checkpoint, tmp_path / "gan.safetensors", about)
    text = hub_card_text(card, "gan.safetensors", "me/gan")
    metadata = yaml.safe_load(text.split("---\n")[1])
    (result,) = metadata["model-index"][0]["results"]
    assert result["dataset"] == {"name": "MNIST", "type": "mnist"}
    assert result["metrics"] == [{"type": "test/fid", "name": "test/fid", "value": 3.25}]
    (read,) = pytest.importorskip("huggingface_hub").ModelCard(text).data.eval_results  # as the Hub's library does
    assert (read.task_type, read.dataset_type, read.metric_value) == ("unconditional-image-generation", "mnist", 3.25)


# --- training from weights --------------------------------------------------------------------------------------------


def test_a_training_starts_from_weights_at_step_0(relit: Relit, capsys: Output) -> None:
    """With a rate of 0 the weights stay what they were: those of the file, in new optimizers, from epoch 1 on."""
    short = ("--trainer.limit_train_batches=2", "--trainer.limit_val_batches=0", "--trainer.max_epochs=1")
    assert relit("fit", *TINY, *short, "--run.id=first") == 0
    first = Path("runs/dcgan_digits/first")
    assert relit("export", first, "--output", "gan") == 0
    still = [f"--model.{part}_optimizer.lr=0" for part in ("generator", "discriminator")]
    capsys.readouterr()
    assert relit("fit", *TINY, *short, *still, "--weights=gan.safetensors", "--run.id=second") == 0
    assert "relit: starting from all weights in gan.safetensors, with new optimizers." in capsys.readouterr().err
    second = Path("runs/dcgan_digits/second")
    after = weights(second)
    before = {name: value for name, value in weights(first).items() if "running" not in name and "num_" not in name}
    assert all(torch.equal(value, after[name]) for name, value in before.items())
    content = torch.load(second / "checkpoints" / "last.ckpt", weights_only=True)
    assert content["epoch"] == 0
    assert content["global_step"] == 2
    assert json.loads((second / "weights.json").read_text())["fresh"] == []
    assert relit("fit", *TINY, *short, "--weights=runs/dcgan_digits/first", "--model.feature_maps=3") == 1
    told = capsys.readouterr().err
    assert "No layer of this DCGAN fits the weights in" in told
    assert "with the same arguments (feature_maps is 3 here, and 2 there)." in told
    assert relit("fit", "--weights=gan.safetensors", *short, "--run.id=third", "--trainer.accelerator=cpu") == 0
    assert (Path("runs/dcgan_digits/third") / "config.yaml").is_file(), "model and data are those of the card"


def test_layers_that_fit_are_taken_and_the_others_are_told(relit: Relit, capsys: Output) -> None:
    model = small_model("DigitClassifier")
    torch.save(checkpoint_of(model), "first.ckpt")
    digits = ("--data.batch_size=64", "--trainer.enable_progress_bar=false", "--trainer.accelerator=cpu")
    limits = ("--trainer.limit_train_batches=1", "--trainer.limit_val_batches=1", "--trainer.max_epochs=1")
    arguments = ("--model=DigitClassifier", "--model.widths=[2,3]", "--model.channels=1", "--model.num_classes=10")
    assert relit("fit", *arguments, "--data=Digits", *digits, *limits, "--weights=first.ckpt") == 0
    told = capsys.readouterr().err
    assert "start untrained: network.head." in told
    assert "starting from first.ckpt with" in told
    record = json.loads((the_run() / "weights.json").read_text())
    assert record["fresh"] == ["network.head"]


def test_a_gans_average_starts_from_the_generator_if_there_was_none() -> None:
    averaged = small_model("DCGAN, averaged")
    layers = take_weights(averaged, state_of_source(checkpoint_of(small_model("DCGAN"))), Path("gan.ckpt"))
    assert layers.fresh == ()
    pairs = zip(averaged.generator.parameters(), averaged.generator_average.parameters(), strict=True)
    assert all(torch.equal(one, other) for one, other in pairs)

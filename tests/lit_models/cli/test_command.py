"""The command as a user meets it: layers of configuration, run folders, checkpoints by name, errors in a sentence."""

import json
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from PIL import Image

import lit_models
from lit_models.__main__ import main
from lit_models.errors import ModelError
from tests.support.fixtures import Output, Patch, Relit
from tests.support.tiny import CONFIGS, TINY, the_run


def test_version_and_help_need_no_torch() -> None:
    code = (
        "import sys; from lit_models.__main__ import main; "
        "assert main(['--version']) == 0 and main(['--help']) == 0; assert 'torch' not in sys.modules"
    )
    output = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert output.startswith(f"relit {lit_models.__version__}\n")
    for command in ("fit", "validate", "test", "predict", "prepare"):
        assert f"\n  {command} " in output


def test_no_arguments_print_the_usage(capsys: Output) -> None:
    assert main([]) == 2
    assert "usage: relit" in capsys.readouterr().out


def test_help_of_a_command_and_of_a_method(relit: Relit, capsys: Output) -> None:
    assert relit("fit", "--help") == 0
    text = capsys.readouterr().out
    assert text.startswith("usage: relit fit [--config FILE ...]")
    assert "--checkpoint.every_n_steps" in text
    assert relit("fit", "--model.help", "DCGAN") == 0
    assert "Components of the latent vector" in capsys.readouterr().out


def test_layers_of_configuration_and_short_names(relit: Relit, tmp_path: Path, capsys: Output) -> None:
    (tmp_path / "more.yaml").write_text("model: {init_args: {latent_dim: 7}}\ntrainer: {max_epochs: 5}\n")
    arguments = ["--config", CONFIGS / "dcgan_mnist.yaml", "--config", "more.yaml", "--data", "Digits"]
    assert relit("fit", *arguments, "--trainer.max_epochs", 6, "--print_config") == 0
    config = yaml.safe_load(capsys.readouterr().out)
    assert config["model"]["class_path"] == "lit_models.DCGAN"
    assert config["model"]["init_args"]["latent_dim"] == 7
    assert config["model"]["init_args"]["feature_maps"] == 64
    assert config["data"]["class_path"] == "datamodules.Digits"
    assert config["trainer"]["max_epochs"] == 6
    assert config["seed_everything"] == 0


def test_the_defaults_of_a_method_can_be_printed_and_read_again(relit: Relit, capsys: Output) -> None:
    assert relit("fit", "--model", "DCGAN", "--data", "Digits", "--print_config") == 0
    text = capsys.readouterr().out
    optimizer = yaml.safe_load(text)["model"]["init_args"]["generator_optimizer"]
    assert optimizer == {
        "class_path": "lit_models.optimizers.FusedAdam",
        "init_args": {"lr": 2e-4, "beta1": 0.5, "beta2": 0.999, "eps": 1e-8, "weight_decay": 0.0},
    } or optimizer["init_args"] == {"lr": 2e-4, "beta1": 0.5}
    Path("printed.yaml").write_text(text)
    assert relit("fit", "--config", "printed.yaml", "--print_config") == 0
    assert yaml.safe_load(capsys.readouterr().out) == yaml.safe_load(text)


def test_fit_leaves_a_run_folder_that_speaks_for_itself(relit: Relit, capsys: Output) -> None:
    assert relit("fit", *TINY) == 0
    run = the_run()
    assert run.parent == Path("runs/dcgan_digits")
    assert capsys.readouterr().out.endswith(f"The run is in {run}\n")
    files = {str(path.relative_to(run)) for path in run.rglob("*") if path.is_file()}
    assert files == {
        "config.yaml",
        "run.json",
        "metrics.csv",
        "checkpoints/last.ckpt",
        "checkpoints/previous.ckpt",
        "figures/losses.png",
        "samples/epoch_0001.png",
        "samples/epoch_0002.png",
        "samples/epoch_0003.png",
    }
    config = yaml.safe_load((run / "config.yaml").read_text())
    assert config["model"]["init_args"]["feature_maps"] == 2
    header = (run / "metrics.csv").read_text().splitlines()[0]
    losses = [f"{stage}/{player}_loss" for stage in ("train", "val") for player in ("discriminator", "generator")]
    assert header.split(",") == ["epoch", "step", *losses]
    record = json.loads((run / "run.json").read_text())
    assert record["finished"]
    assert record["training_seconds"] > 0
    assert record["processes"] == 1


def test_the_record_keeps_the_time_of_each_epoch(relit: Relit) -> None:
    """Epochs that are trained again have the time of the second training, later by what the first one took."""
    short = (*TINY, "--trainer.limit_train_batches=2", "--trainer.limit_val_batches=1")
    assert relit("fit", *short, "--trainer.max_epochs=2") == 0
    path = the_run() / "run.json"
    record = json.loads(path.read_text())
    first, second = record["seconds_after_epoch"]
    assert 0 < first <= second <= record["training_seconds"]
    assert len(path.read_text().splitlines()) == len(record) + 2, "a line for each value"

    killed = {**record, "seconds_after_epoch": [1.0, 2.0, 9.0], "training_seconds": 9.5}  # after the last checkpoint
    path.write_text(json.dumps(killed))
    assert relit("fit", *short, "--trainer.max_epochs=3", "--ckpt_path=last") == 0
    *before, third = json.loads(path.read_text())["seconds_after_epoch"]
    assert before == [1.0, 2.0]
    assert third > 9.5

    older = {name: value for name, value in json.loads(path.read_text()).items() if name != "seconds_after_epoch"}
    path.write_text(json.dumps({**older, "training_seconds": 20.0}))
    assert relit("fit", *short, "--trainer.max_epochs=4", "--ckpt_path=last") == 0
    *unknown, third, fourth = json.loads(path.read_text())["seconds_after_epoch"]
    assert unknown == [None, None]
    assert 20.0 <= third <= 20.5
    assert fourth > third


def test_resuming_a_finished_run_leaves_its_record(relit: Relit, finished: Path) -> None:
    record = (finished / "run.json").read_text()
    assert relit("fit", *TINY, "--ckpt_path=last") == 0
    assert (finished / "run.json").read_text() == record


def test_a_run_that_was_killed_when_nothing_was_left_to_train_is_finished_by_resuming_it(
    relit: Relit, finished: Path
) -> None:
    path = finished / "run.json"
    record = json.loads(path.read_text())
    path.write_text(json.dumps({**record, "finished": False}))
    assert relit("fit", *TINY, "--ckpt_path=last") == 0
    assert json.loads(path.read_text()) == record


def test_a_test_that_fails_leaves_the_record_of_the_training(relit: Relit, finished: Path, monkeypatch: Patch) -> None:
    record = (finished / "run.json").read_text()

    def fail(*_: object) -> None:
        raise ModelError("A fault.")

    monkeypatch.setattr(lit_models.DCGAN, "test_step", fail)
    assert relit("test", *TINY, "--ckpt_path=last") == 1
    assert (finished / "run.json").read_text() == record


def test_the_saved_configuration_starts_the_same_run_again(relit: Relit, finished: Path) -> None:
    assert relit("fit", "--config", finished / "config.yaml", "--run.root=again") == 0
    again = the_run(Path("again"))
    assert (again / "metrics.csv").read_text() == (finished / "metrics.csv").read_text()


def test_two_runs_never_share_a_folder(relit: Relit) -> None:
    for _ in range(2):
        assert relit("fit", *TINY, "--trainer.max_epochs=1", "--trainer.limit_train_batches=1") == 0
    assert len(list(Path("runs/dcgan_digits").iterdir())) == 2


@pytest.mark.long
def test_test_and_predict_by_name_file_and_checkpoint_alone(relit: Relit, tmp_path: Path, capsys: Output) -> None:
    arguments = ["--trainer.max_epochs=2", "--checkpoint.monitor=val/generator_loss"]
    assert relit("fit", *TINY, *arguments) == 0
    run = the_run()
    capsys.readouterr()
    for which in ("last", "best", run / "checkpoints" / "last.ckpt"):
        assert relit("test", *TINY, f"--ckpt_path={which}") == 0
        assert "test/generator_loss" in capsys.readouterr().out
    assert the_run() == run, "a test of a run writes into its folder"

    moved = tmp_path / "elsewhere" / "model.ckpt"
    moved.parent.mkdir()
    (run / "checkpoints" / "last.ckpt").rename(moved)
    predict = ["predict", f"--ckpt_path={moved}", "--run.root=made", "--data=Samples", "--data.count=3"]
    assert relit(*predict, "--data.seed=1") == 0
    made = the_run(Path("made")) / "predictions"
    assert sorted(path.name for path in made.iterdir()) == ["00000.png", "00001.png", "00002.png"]
    for folder, seed in (("same", 1), ("other", 2)):
        assert relit(*predict, f"--data.seed={seed}", f"--predictions.folder={folder}") == 0
    first = (made / "00000.png").read_bytes()
    assert Path("same/00000.png").read_bytes() == first
    assert Path("other/00000.png").read_bytes() != first
    assert relit("predict", f"--ckpt_path={moved}", "--predictions.grid=true", "--predictions.folder=grid") == 0
    assert [path.name for path in Path("grid").iterdir()] == ["grid.png"]


def test_a_checkpoint_without_a_cli(uninterrupted: Path) -> None:
    model = lit_models.DCGAN.load_from_checkpoint(uninterrupted / "checkpoints" / "last.ckpt")
    assert (model.latent_dim, model.image_shape) == (4, (1, 32, 32))
    assert model.sample(2).shape == (2, 1, 32, 32)


def test_prepare(relit: Relit, tmp_path: Path, capsys: Output) -> None:
    assert relit("prepare", "--data", "Digits", f"--data.root={tmp_path}/new") == 0
    assert "Digits is prepared." in capsys.readouterr().out
    assert (tmp_path / "new/digits/prepared/32x32/image.npy").is_file()
    assert not Path("runs").exists()


def test_a_picture_of_a_batch(relit: Relit, capsys: Output) -> None:
    assert relit("prepare", "--data", "Digits", "--picture", "new/batch.png") == 0
    with Image.open("new/batch.png") as picture:
        assert picture.convert("L").getextrema() == (0, 255)
    assert relit("prepare", "--data", "Digits", "--picture", "batch.txt") == 1
    assert "--picture is batch.txt, but the picture is a PNG file" in capsys.readouterr().err


def test_fast_dev_run_leaves_nothing(relit: Relit) -> None:
    assert relit("fit", *TINY, "--trainer.fast_dev_run=true") == 0
    assert not Path("runs").exists()


@pytest.mark.parametrize(
    ("arguments", "code", "sentence"),
    [
        (["--modle", "DCGAN"], 2, "There is no option --modle. Did you mean --model?"),
        (["--trainer.max_epoch", "3"], 2, "There is no option --trainer.max_epoch. Did you mean --trainer.max_epochs?"),
        (["--trainer.default_root_dir", "x"], 2, "--trainer.default_root_dir: runs are written below --run.root."),
        (["--model", "DCGANN"], 2, "There is no method 'DCGANN'. Did you mean DCGAN?"),
        (["--data", "Digitz"], 2, "Did you mean Digits?"),
        (["--model.latent_dmi", "3"], 2, "DCGAN has no argument 'latent_dmi'. Did you mean --model.latent_dim?"),
        (["--model.latent_dim", "x"], 2, "--model.latent_dim is x; it must be a whole number."),
        (["--model.data_label", "3"], 2, "--model.data_label is 3; it must be 0 or 1."),
        (["--trainer.callbacks", "SampleGrd"], 2, "Did you mean SampleGrid?"),
        (["--config", "missing.yaml"], 2, "There is no configuration missing.yaml."),
        (["--config", "typo.yaml"], 2, "typo.yaml: There is no setting modle. Did you mean model?"),
        (["--config", "broken.yaml"], 2, "broken.yaml isn't valid YAML, line 2: "),
        (["--model.image_size", "33"], 1, "image_size is 33; it must be one of 16, 32, 64, 128, 256."),
        (["--model.image_size", "64"], 1, "built for images of 1x64x64, but Digits gives 1x32x32"),
        (["--model.n_critic", "0"], 1, "n_critic is 0; it must be at least 1."),
        (["--model.gradient_clip_norm", ".nan"], 1, "--model.gradient_clip_norm is nan; it must be a number."),
        (["--model.generator_optimizer.lr", ".nan"], 1, "--model.generator_optimizer.lr is nan; it must be a number."),
        (["--model.label_noise", "0.7"], 1, "label_noise is 0.7"),
        (["--data.batch_size", "5000"], 1, "set --data.batch_size to 1297 or less"),
        (["--ckpt_path", "missing.ckpt"], 2, "There is no checkpoint missing.ckpt"),
        (["--ckpt_path", "last"], 1, "No run in runs/dcgan_digits has a checkpoints/last.ckpt"),
        (["--trainer.gradient_clip_val", "1"], 1, "use --model.gradient_clip_norm"),
        (["--trainer.accumulate_grad_batches", "2"], 1, "use a larger --data.batch_size"),
        (["--run.id", "../outside"], 1, "--run.id is '../outside', which can't name a folder"),
        (["--run.root", "typo.yaml/x"], 1, "choose another place with --run.root"),
    ],
)
def test_errors_are_a_sentence_and_leave_nothing(
    relit: Relit, capsys: Output, arguments: list[str], code: int, sentence: str
) -> None:
    Path("typo.yaml").write_text("modle: DCGAN\n")
    Path("broken.yaml").write_text("model: [1, 2\n")
    before = set(Path().iterdir())
    assert relit("fit", *TINY, *arguments) == code
    error = capsys.readouterr().err
    assert sentence in error
    assert "Traceback" not in error
    assert "--debug" not in error, "the sentence is our own, not that of a library around it"
    assert set(Path().iterdir()) == before


@pytest.mark.parametrize("argument", ["--data.batch_size", "--model.latent_dim"])
def test_an_argument_of_no_class_is_one_sentence(relit: Relit, argument: str, capsys: Output) -> None:
    part = argument.removeprefix("--").partition(".")[0]
    Path("file.ckpt").touch()
    assert relit("test", "--ckpt_path=file.ckpt", f"{argument}=3") == 2
    said = capsys.readouterr().err.strip()
    assert said == f"relit: {argument} needs a class to be an argument of: add --config FILE or --{part} CLASS."


def test_debug_shows_where_an_error_comes_from(relit: Relit, capsys: Output) -> None:
    assert relit("fit", *TINY, "--model.n_critic=0", "--debug") == 1
    assert "Traceback" in capsys.readouterr().err


def test_a_misspelt_monitor_loses_no_epoch(relit: Relit, capsys: Output) -> None:
    few = "--trainer.limit_train_batches=2"
    assert relit("fit", *TINY, few, "--checkpoint.monitor=val/los") == 1
    assert "it logs " in capsys.readouterr().err
    assert relit("fit", *TINY, few, "--trainer.max_epochs=2", "--ckpt_path=last") == 0


def test_a_monitor_of_a_validation_that_comes_every_other_epoch_is_waited_for(relit: Relit, capsys: Output) -> None:
    every_other = ["--trainer.check_val_every_n_epoch=2", "--trainer.max_epochs=2", "--trainer.limit_train_batches=2"]
    assert relit("fit", *TINY, *every_other, "--checkpoint.monitor=val/generator_loss") == 0
    assert (the_run() / "checkpoints" / "best.ckpt").is_file()
    assert relit("fit", *TINY, *every_other, "--checkpoint.monitor=val/generator_los") == 1
    assert "which this model doesn't log" in capsys.readouterr().err


@pytest.mark.parametrize(("flags", "warns"), [("fma avx2", True), ("avx512_bf16 amx_tile", False)])
def test_bf16_on_a_processor_without_it(
    relit: Relit, capsys: Output, monkeypatch: Patch, flags: str, warns: bool
) -> None:
    read = Path.read_text
    monkeypatch.setattr(
        Path,
        "read_text",
        lambda path, *a, **k: f"flags\t: {flags}\n" if path.name == "cpuinfo" else read(path, *a, **k),
    )
    short = ["--trainer.max_epochs=1", "--trainer.limit_train_batches=1", "--trainer.limit_val_batches=1"]
    assert relit("fit", *TINY, *short, "--trainer.precision=bf16-mixed") == 0
    assert ("no instructions for bfloat16" in capsys.readouterr().err) == warns


def test_weights_of_another_size(relit: Relit, finished: Path, capsys: Output) -> None:
    assert relit("test", *TINY, "--model.feature_maps=3", "--ckpt_path=last") == 1
    assert "The checkpoint's weights don't fit the model" in capsys.readouterr().err


@pytest.mark.slow
def test_compiled_networks_train_and_leave_an_ordinary_checkpoint(relit: Relit) -> None:
    assert relit("fit", *TINY, "--trainer.max_epochs=1", "--compile=true") == 0
    model = lit_models.DCGAN.load_from_checkpoint(the_run() / "checkpoints" / "last.ckpt")
    assert model.sample(1).isfinite().all()


@pytest.mark.long
def test_interrupted_from_the_keyboard(relit: Relit, capsys: Output) -> None:
    assert (
        relit("fit", *TINY, "--trainer.callbacks+=tests.support.tiny.InterruptAt", "--trainer.callbacks.batch=25")
        == 130
    )
    assert "interrupted in epoch 2. The run is in runs/dcgan_digits/" in capsys.readouterr().err
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler, "Ctrl-C is heard again"
    assert relit("fit", *TINY, "--ckpt_path=last") == 0, "the epochs before are kept"


def test_batch_normalization_over_processes_is_refused_where_it_cannot_be(
    relit: Relit, monkeypatch: Patch, capsys: Output
) -> None:
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    assert relit("fit", *TINY, "--trainer.sync_batchnorm=true") == 1
    assert "works on GPUs only" in capsys.readouterr().err
    monkeypatch.setattr("torch.cuda.is_available", lambda: True)
    search = ["--config", CONFIGS / "darts_search_digits.yaml", "--model.init_channels=2"]
    assert relit("fit", *search, "--trainer.sync_batchnorm=true", "--trainer.accelerator=cpu") == 1
    assert "DARTSSearch has no batch normalization" in capsys.readouterr().err
    assert not Path("runs").exists()

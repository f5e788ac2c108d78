"""What refuses changes nothing: not a byte of a run, and no folder is left."""

import json
import shutil
from pathlib import Path

import pytest
import torch
from PIL import Image

from lit_models.cli.proper_files import require_proper_files
from lit_models.errors import UsageError
from lit_models.runs.ownership import LOCK, Ownership
from tests.support.fixtures import Output, Relit
from tests.support.tiny import CONFIGS, TINY, contents, the_run

BEST = ("--checkpoint.monitor=val/generator_loss",)
PLATEAU = "lightning.pytorch.cli.ReduceLROnPlateau"
LAST = ("--ckpt_path=last", "--trainer.max_epochs=4")
REFUSALS: dict[str, tuple[tuple[str, ...], str]] = {
    "another method": (
        ("fit", "--config", str(CONFIGS / "wgan_gp_digits.yaml"), "--ckpt_path={last}"),
        "is a checkpoint of DCGAN, but the configuration's model is WGAN",
    ),
    "another size": (("fit", *TINY, *LAST, "--model.latent_dim=8"), "The checkpoint's weights don't fit the model"),
    "an argument": (("fit", *TINY, *LAST, "--model.n_critic=0"), "n_critic is 0"),
    "too large a batch": (("fit", *TINY, *LAST, "--data.batch_size=5000"), "set --data.batch_size to 1297 or less"),
    "clipping": (("fit", *TINY, *LAST, "--trainer.gradient_clip_val=1"), "use --model.gradient_clip_norm"),
    "a misspelling": (("fit", *TINY, *LAST, "--model.latent_dmi=8"), "Did you mean --model.latent_dim?"),
    "images of another size": (("fit", *TINY, *LAST, "--model.image_size=64"), "but Digits gives 1x32x32"),
    "no such device": (("fit", *TINY, *LAST, "--trainer.accelerator=tpu"), "relit: "),
    "a callback": (
        ("fit", *TINY, *LAST, "--trainer.callbacks+=LearningRateFinder"),
        "LearningRateFinder can't search for DCGAN",
    ),
    "a run that has begun": (("fit", *TINY, "--run.id={id}"), "go on with it by --ckpt_path last"),
    "a test of another size": (("test", *TINY, "--ckpt_path={last}", "--model.latent_dim=8"), "don't fit the model"),
    "a test of nothing": (("test", *TINY), "needs a trained model"),
}


@pytest.mark.parametrize(("arguments", "sentence"), REFUSALS.values(), ids=REFUSALS)
def test_what_refuses_changes_nothing(
    relit: Relit, finished: Path, arguments: tuple[str, ...], sentence: str, capsys: Output
) -> None:
    before = contents(Path())
    last = str(finished / "checkpoints" / "last.ckpt")
    assert relit(*(argument.replace("{last}", last).replace("{id}", finished.name) for argument in arguments)) in (1, 2)
    assert sentence in (said := capsys.readouterr().err)
    assert "applies from here on" not in said
    assert contents(Path()) == before


def test_a_run_that_is_being_trained_is_refused_to_others(relit: Relit, finished: Path, capsys: Output) -> None:
    owner = Ownership(finished)
    before = contents(Path())
    assert relit("fit", *TINY, *LAST) == 1
    assert f"The run {finished.absolute()} is being trained by process " in capsys.readouterr().err
    new = Path("runs/dcgan_digits/new")
    new.mkdir()
    other = Ownership(new)
    assert relit("fit", *TINY, "--run.id=new") == 1
    assert "is being trained by process" in capsys.readouterr().err
    other.release()
    new.rmdir()
    assert contents(Path()) == before
    owner.release()
    assert not (finished / LOCK).exists()


@pytest.mark.draws
def test_nothing_left_to_train_is_said(relit: Relit, finished: Path, capsys: Output) -> None:
    before = contents(Path())
    assert relit("fit", *TINY, "--ckpt_path=last") == 0
    said = capsys.readouterr().err
    assert "Nothing is left to train: the checkpoint has had 3 epochs and 60 steps; --trainer.max_epochs is 3" in said
    assert contents(Path()) == before
    shutil.copy(finished / "checkpoints" / "last.ckpt", "elsewhere.ckpt")
    before = contents(Path())
    assert relit("fit", *TINY, "--ckpt_path=elsewhere.ckpt") == 1
    assert "Raise them to train on." in capsys.readouterr().err
    assert contents(Path()) == before


def test_fewer_epochs_than_the_checkpoint_has_had(relit: Relit, finished: Path, capsys: Output) -> None:
    before = contents(Path())
    assert relit("fit", *TINY, "--ckpt_path=last", "--trainer.max_epochs=1") == 1
    said = capsys.readouterr().err
    assert "Nothing is left to train: the checkpoint has reached epoch 3, and --trainer.max_epochs is 1" in said
    assert "--debug" not in said
    assert contents(Path()) == before


MISTAKES = {
    "no validation": (("--trainer.limit_val_batches=0", *BEST), "but validation is off: switch it on"),
    "less than a batch": (
        ("--trainer.limit_val_batches=0.001",),
        "--trainer.limit_val_batches is 0.001, which is less than one of 4 batches",
    ),
    "a bar and none": (
        ("--trainer.callbacks+=TQDMProgressBar",),
        "--trainer.enable_progress_bar is false, but TQDMProgressBar is among the callbacks",
    ),
    "a plateau of nothing": (
        (f"--model.generator_scheduler={PLATEAU}", "--model.generator_scheduler.monitor=val/nothing"),
        "ReduceLROnPlateau's monitor is 'val/nothing', which DCGAN doesn't log; it logs ",
    ),
    "a plateau without validation": (
        (
            *(f"--model.generator_scheduler={PLATEAU}", "--model.generator_scheduler.monitor=val/generator_loss"),
            *("--trainer.limit_val_batches=0", "--checkpoint.monitor=null"),
        ),
        "ReduceLROnPlateau's monitor is 'val/generator_loss', but validation is off: switch it on",
    ),
    "a picture grid": (
        ("--trainer.callbacks+=ReconstructionGrid",),
        "ReconstructionGrid needs a model with `reconstruct`, which DCGAN doesn't have",
    ),
    "a timer": (("--trainer.callbacks+=Timer", "--trainer.callbacks.duration=00:00:01:00"), "use --trainer.max_time"),
}


@pytest.mark.parametrize(("arguments", "sentence"), MISTAKES.values(), ids=MISTAKES)
def test_a_contradiction_is_a_sentence(relit: Relit, arguments: tuple[str, ...], sentence: str, capsys: Output) -> None:
    assert relit("fit", *TINY, *arguments, "--trainer.limit_train_batches=1") == 1
    said = capsys.readouterr().err
    assert sentence in said
    assert "Exception" not in said
    if "monitor" not in sentence:
        assert not Path("runs").exists()


def test_a_batch_size_that_does_nothing_is_said(relit: Relit, capsys: Output) -> None:
    drawn = ("--data.classes_per_batch=5", "--data.samples_per_class=2", "--trainer.max_epochs=1")
    assert relit("fit", *TINY, *drawn, "--data.batch_size=7", "--trainer.limit_train_batches=1") == 0
    assert "--data.batch_size has no effect" in capsys.readouterr().err


def test_a_training_that_ends_before_its_first_validation_says_so(relit: Relit, capsys: Output) -> None:
    never = ("--trainer.check_val_every_n_epoch=5", "--trainer.max_epochs=1", "--trainer.limit_train_batches=1")
    assert relit("fit", *TINY, *never, *BEST) == 0
    assert "There is no checkpoints/best.ckpt: the training has ended before its first validation" in (
        capsys.readouterr().err
    )


def test_a_training_without_a_batch_leaves_no_folder(relit: Relit, capsys: Output) -> None:
    assert relit("fit", *TINY, "--trainer.max_time=00:00:00:00") == 0
    assert "its time (max_time) is over" in capsys.readouterr().err
    assert not Path("runs").exists()


def test_an_untrained_network_is_used_if_that_is_asked_for(relit: Relit, capsys: Output) -> None:
    for command in ("validate", "test", "predict"):
        assert relit(command, *TINY) == 2
        assert f"`relit {command}` needs a trained model" in capsys.readouterr().err
    assert relit("test", *TINY, "--ckpt_path=none", "--trainer.limit_test_batches=1") == 0


def test_a_training_without_a_checkpoint_is_no_run_to_go_on_with(relit: Relit, capsys: Output) -> None:
    assert relit("test", *TINY, "--ckpt_path=best", "--run.id=none") == 1
    assert "The run runs/dcgan_digits/none has no checkpoints/best.ckpt" in capsys.readouterr().err


def test_a_run_that_is_refused_leaves_no_lock(relit: Relit) -> None:
    assert relit("fit", *TINY, "--trainer.max_epochs=1", "--trainer.limit_train_batches=1") == 0
    assert not list(the_run().glob(".*"))
    checkpoint = torch.load(the_run() / "checkpoints/last.ckpt", weights_only=True)
    assert checkpoint["global_step"] == 1, "one batch"


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        (b"", "more.yaml is empty"),
        (b"  \n", "more.yaml is empty"),
        ("trainer: {max_epochs: 1}\n".encode("utf-16"), "more.yaml is UTF-16 text: save it as UTF-8"),
        (b"seed_everything: '\xe9'\n", "more.yaml is not UTF-8 text"),
        (
            b"trainer:\n  max_epochs: 1\nseed_everything: 1\ntrainer:\n  max_steps: 3\n",
            "more.yaml gives 'trainer' twice, the second time in line 4",
        ),
        (b"data:\n  init_args: {batch_size: 8, batch_size: 9}\n", "more.yaml gives 'batch_size' twice"),
    ],
)
@pytest.mark.parametrize(
    "option", [("--config", "more.yaml"), ("--config=more.yaml",), ("-c", "more.yaml"), ("--model=more.yaml",)]
)
def test_a_configuration_file_that_would_be_misread(
    relit: Relit, content: bytes, sentence: str, option: tuple[str, ...], capsys: Output
) -> None:
    Path("more.yaml").write_bytes(content)
    with pytest.raises(UsageError, match=sentence):
        require_proper_files(["fit", *TINY, *option])
    if option[0] == "-c" and b"batch" in content:
        assert relit("fit", *TINY, *option) == 2
        assert sentence in capsys.readouterr().err


def test_yaml_with_merges_is_proper() -> None:
    for path in CONFIGS.rglob("*.yaml"):
        require_proper_files(["fit", "--config", str(path)])


def test_a_monitor_of_an_empty_validation_is_refused_before_training(relit: Relit, capsys: Output) -> None:
    arguments = ("--config", str(CONFIGS / "vae_digits.yaml"), "--checkpoint.monitor=val/loss", *TINY[-3:])
    Path("images").mkdir()
    for number in range(8):
        Image.new("L", (32, 32), 20 * number).save(f"images/{number}.png")
    data = ("--data=ImageFolder", "--data.path=images", "--data.image_size=32", "--data.channels=1")
    assert relit("fit", *arguments, *data, "--data.val_fraction=0", "--data.batch_size=4") == 1
    assert "has no validation images" in capsys.readouterr().err
    assert not Path("runs").exists()


def test_a_runs_folder_may_stand_for_its_last_checkpoint(relit: Relit, finished: Path) -> None:
    assert relit("test", *TINY, f"--ckpt_path={finished}", "--trainer.limit_test_batches=1") == 0
    (test,) = json.loads((finished / "tests.json").read_text())
    assert (test["checkpoint"], test["limit_test_batches"]) == ("last.ckpt", 1)

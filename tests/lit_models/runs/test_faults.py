"""What goes wrong around a run: it is said in a sentence, and what was reached is kept."""

import os
import pickle
import signal
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

import lit_models
from lit_models.errors import RunError, RunWarning
from lit_models.runs.loggers import MetricsCSV
from lit_models.support.checkpoint_files import put_in_place, read_checkpoint, read_or_fall_back
from tests.lit_models.runs.test_resume import assert_same_run
from tests.support.fixtures import Output, Relit
from tests.support.malicious import Malicious
from tests.support.processes import exit_code_in_a_fork
from tests.support.tables import rows_of
from tests.support.tiny import CONFIGS, TINY, the_run, weights


def in_a_process(relit: Relit, *args: str, before: Callable[[], object] = lambda: None) -> int | None:
    """The exit code of ``relit fit`` in a forked process, which does ``before`` first."""

    def run() -> None:
        before()
        os._exit(relit("fit", *TINY, *args))

    return exit_code_in_a_fork(run)


# --- a last.ckpt that can't be read -----------------------------------------------------------------------------------


@pytest.mark.long
def test_a_damaged_last_checkpoint_gives_way_to_the_one_before(
    relit: Relit, uninterrupted: Path, capfd: Output
) -> None:
    assert relit("fit", *TINY, "--trainer.max_epochs=2") == 0
    run = the_run()
    last, previous = run / "checkpoints/last.ckpt", run / "checkpoints/previous.ckpt"
    last.write_bytes(last.read_bytes()[:-100])
    capfd.readouterr()
    assert relit("fit", *TINY, "--ckpt_path=last") == 0
    said = capfd.readouterr().err
    assert f"relit: note: {last} can't be read as a checkpoint" in said
    assert f"The one before it, {previous} of step 20, is taken" in said
    assert_same_run(run, uninterrupted)


@pytest.mark.parametrize("left", [0.0, 0.1, 0.9], ids=["empty", "a tenth", "nine tenths"])
def test_whatever_is_left_of_a_checkpoint(tmp_path: Path, left: float) -> None:
    last, previous = tmp_path / "last.ckpt", tmp_path / "previous.ckpt"
    for step, path in enumerate((previous, last)):
        torch.save({"state_dict": {"weight": torch.arange(1000)}, "global_step": step}, path)
    assert read_or_fall_back(last)[0] == last
    last.write_bytes(last.read_bytes()[: int(left * last.stat().st_size)])
    with pytest.warns(RunWarning, match="of step 0, is taken"):
        path, checkpoint = read_or_fall_back(last)
    assert (path, checkpoint["global_step"]) == (previous, 0)
    previous.write_bytes(b"")
    with pytest.raises(RunError, match=r"previous\.ckpt can't be read"):
        read_or_fall_back(last)
    previous.unlink()
    with pytest.raises(RunError, match=r"last\.ckpt can't be read"):
        read_or_fall_back(last)


@pytest.mark.parametrize("size", [1, 4096], ids=["a bit", "a page"])
def test_damage_that_keeps_the_size_is_noticed(tmp_path: Path, size: int) -> None:
    last, previous = tmp_path / "last.ckpt", tmp_path / "previous.ckpt"
    for path in (previous, last):
        torch.save({"state_dict": {"weight": torch.ones(10_000)}, "global_step": 1}, path)
    content = bytearray(last.read_bytes())
    if size == 1:
        content[20_000] ^= 1
    else:
        content[8192 : 8192 + size] = bytes(size)
    last.write_bytes(content)
    assert not torch.load(last)["state_dict"]["weight"].eq(1).all(), "torch doesn't notice it"
    with pytest.warns(RunWarning, match=r"last\.ckpt can't be read .* damaged"):
        assert read_or_fall_back(last)[0] == previous
    written = tmp_path / "written"
    torch.save({"state_dict": {}}, written)
    put_in_place(written, last)
    assert torch.load(previous)["global_step"] == 1, "the damaged one doesn't replace it"


def test_only_a_whole_checkpoint_becomes_the_previous_one(tmp_path: Path) -> None:
    last, previous, written = tmp_path / "last.ckpt", tmp_path / "previous.ckpt", tmp_path / "written"
    for number in range(2):
        torch.save({"n": number}, written)
        put_in_place(written, last)
    assert [torch.load(path)["n"] for path in (previous, last)] == [0, 1]
    last.write_bytes(last.read_bytes()[:-10])
    torch.save({"n": 2}, written)
    put_in_place(written, last)
    assert [torch.load(path)["n"] for path in (previous, last)] == [0, 2]


# --- killed while saving and while preparing data ---------------------------------------------------------------------


def kill_at_call(module: Any, name: str, count: int, when: Callable[..., bool] = lambda *_: True) -> None:
    """From the ``count``-th call of ``module.name`` that ``when`` picks: SIGKILL in place of the call."""
    original, seen = getattr(module, name), [0]

    def killer(*args: Any, **kwargs: Any) -> Any:
        if when(*args):
            seen[0] += 1
            if seen[0] == count:
                os.kill(os.getpid(), signal.SIGKILL)
        return original(*args, **kwargs)

    setattr(module, name, killer)


def long(*values: Any) -> Any:
    return pytest.param(*values, marks=pytest.mark.long)


def slow(*values: Any) -> Any:
    return pytest.param(*values, marks=pytest.mark.slow)


def renames_to(name: str) -> Callable[..., bool]:
    return lambda source, target: Path(target).name == name


@pytest.mark.parametrize(
    ("before", "reached"),
    [
        # The 6th checkpoint is of step 30; every 5 steps one is saved.
        (lambda: kill_at_call(os, "fsync", 6), 25),
        long(lambda: kill_at_call(os, "replace", 6, renames_to("last.ckpt")), 25),
        slow(lambda: kill_at_call(os, "replace", 6, renames_to(".last.ckpt.written")), 25),
        slow(lambda: kill_at_call(os, "replace", 5, renames_to("previous.ckpt")), 25),
    ],
    ids=["half-written", "between the renames", "written", "before the renames"],
)
def test_killed_while_saving(relit: Relit, uninterrupted: Path, before: Callable[[], None], reached: int) -> None:
    assert in_a_process(relit, "--checkpoint.every_n_steps=5", before=before) == -signal.SIGKILL
    run = the_run()
    found = [path for name in ("last", "previous") if (path := run / f"checkpoints/{name}.ckpt").is_file()]
    assert torch.load(found[0], weights_only=True)["global_step"] == reached
    assert relit("fit", *TINY, "--checkpoint.every_n_steps=5", "--ckpt_path=last") == 0
    assert_same_run(run, uninterrupted)


@pytest.mark.long
def test_killed_while_preparing_data(relit: Relit, uninterrupted: Path) -> None:
    """Half of what is prepared is never taken for the whole."""
    fresh = ("--data.root=fresh", "--run.id=one")
    finished = lambda _, target: "prepared" in Path(target).parts  # noqa: E731
    assert in_a_process(relit, *fresh, before=lambda: kill_at_call(Path, "rename", 1, finished)) == -signal.SIGKILL
    assert list(Path("fresh").rglob(".*.unfinished/image.npy")), "all was written, but has no name yet"
    assert relit("fit", *TINY, *fresh) == 0
    assert_same_run(the_run(), uninterrupted)


# --- full disks and read-only folders ---------------------------------------------------------------------------------


def test_a_full_disk_stops_the_run_and_loses_nothing(relit: Relit, uninterrupted: Path, capfd: Output) -> None:
    """Files that may not grow fail like those on a full disk: half-way, by an OSError."""
    limit = ("--trainer.callbacks+=tests.support.tiny.LimitFilesAt", "--trainer.callbacks.batch=30")
    assert in_a_process(relit, *limit, "--trainer.callbacks.size=20000") == 1
    said = capfd.readouterr().err
    assert "can't be written into" in said
    assert "File too large); the one before it is kept" in said
    run = the_run()
    assert [path.name for path in (run / "checkpoints").iterdir()] == ["last.ckpt"]
    assert relit("fit", *TINY, "--ckpt_path=last") == 0
    assert_same_run(run, uninterrupted)


@pytest.mark.parametrize("cut", [b"9,1", b"9,19,0.5"], ids=["no step", "no end"])
def test_half_a_row_of_metrics_is_dropped(tmp_path: Path, cut: bytes) -> None:
    logger = MetricsCSV(tmp_path)
    for step in (9, 19):
        logger.log_metrics({"epoch": 0, "train/loss": 1.5}, step)
    logger.save()
    path = tmp_path / "metrics.csv"
    whole = path.read_bytes()
    assert whole == b"epoch,step,train/loss\r\n0,9,1.5\r\n0,19,1.5\r\n"
    path.write_bytes(whole + cut)
    resumed = MetricsCSV(tmp_path)
    resumed.drop_from(20)
    assert path.read_bytes() == whole
    resumed.log_metrics({"epoch": 1, "val/loss": 2.5}, 29)
    resumed.save()
    assert path.read_bytes() == b"epoch,step,train/loss,val/loss\r\n0,9,1.5,\r\n0,19,1.5,\r\n1,29,,2.5\r\n"


def test_a_test_of_a_run_that_is_still_training_and_the_training_write_into_one_file(tmp_path: Path) -> None:
    training = MetricsCSV(tmp_path)
    training.log_metrics({"epoch": 0, "train/loss": 1.5}, 9)
    training.save()
    testing = MetricsCSV(tmp_path)
    testing.log_metrics({"epoch": 0, "test/loss": 0.5}, 9)
    testing.save()
    training.log_metrics({"epoch": 0, "train/loss": 1.0}, 19)
    training.save()
    training.log_metrics({"epoch": 0, "val/loss": 2.5}, 19)
    training.save()
    rows = [{name: value for name, value in row.items() if value} for row in rows_of(tmp_path / "metrics.csv")]
    assert rows == [
        {"epoch": "0", "step": "9", "train/loss": "1.5"},
        {"epoch": "0", "step": "9", "test/loss": "0.5"},
        {"epoch": "0", "step": "19", "train/loss": "1.0"},
        {"epoch": "0", "step": "19", "val/loss": "2.5"},
    ]
    assert training.rows == 4


def test_a_header_cut_off_by_a_full_disk_is_written_again(tmp_path: Path) -> None:
    (tmp_path / "metrics.csv").write_bytes(b"epoch,st")
    logger = MetricsCSV(tmp_path)
    logger.drop_from(0)
    logger.log_metrics({"epoch": 0, "train/loss": 1.5}, 9)
    logger.save()
    assert (tmp_path / "metrics.csv").read_bytes() == b"epoch,step,train/loss\r\n0,9,1.5\r\n"


@pytest.fixture
def small_disk() -> Iterator[Path]:
    """A file system of 400 KB, which can be made read-only."""
    with tempfile.TemporaryDirectory() as folder:
        mounted = subprocess.run(
            ["mount", "-t", "tmpfs", "-o", "size=400k", "tmpfs", folder], check=False, capture_output=True
        )
        if mounted.returncode != 0:
            pytest.skip(f"file systems can't be mounted here: {mounted.stderr.decode().strip()}")
        try:
            yield Path(folder)
        finally:
            subprocess.run(["umount", "-l", folder], check=True)


@pytest.mark.slow
def test_a_disk_that_is_full_and_then_read_only(
    relit: Relit, small_disk: Path, uninterrupted: Path, capsys: Output
) -> None:
    assert relit("fit", *TINY, f"--run.root={small_disk}", "--trainer.max_epochs=1") == 0
    run = the_run(small_disk)
    reached = weights(run)
    filler = small_disk / "filler"
    filler.write_bytes(bytes(max(0, os.statvfs(small_disk).f_bavail - 3) * os.statvfs(small_disk).f_frsize))
    capsys.readouterr()
    resumed = ("fit", *TINY, f"--run.root={small_disk}", "--ckpt_path=last")
    assert relit(*resumed) == 1
    assert "No space left on device" in capsys.readouterr().err
    assert all(torch.equal(value, reached[name]) for name, value in weights(run).items())

    filler.unlink()
    subprocess.run(["mount", "-o", "remount,ro", small_disk], check=True)
    assert relit(*resumed) == 1
    assert "can't be written into (Read-only file system): make it writable" in capsys.readouterr().err
    assert relit("fit", *TINY, f"--run.root={small_disk}") == 1
    assert "choose another place with --run.root" in capsys.readouterr().err

    subprocess.run(["mount", "-o", "remount,rw", small_disk], check=True)
    assert relit(*resumed) == 0
    assert_same_run(run, uninterrupted)


# --- a training that diverges -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("every", "noticed", "kept"), [("null", 40, 20), (5, 35, 30)], ids=["by a loss", "by the weights"]
)
def test_a_diverged_training_stops_and_keeps_the_checkpoint_before(
    relit: Relit, capsys: Output, every: object, noticed: int, kept: int
) -> None:
    poison = ("--trainer.callbacks+=tests.support.tiny.PoisonAt", "--trainer.callbacks.batch=33")
    assert relit("fit", *TINY, *poison, "--trainer.max_epochs=2", f"--checkpoint.every_n_steps={every}") == 1
    said = capsys.readouterr().err
    assert f"relit: The training has diverged: at step {noticed} it has" in said
    assert f"checkpoints/last.ckpt is from before, of step {kept}: go on from it with --ckpt_path last" in said
    assert "Traceback" not in said
    run = the_run()
    assert torch.load(run / "checkpoints/last.ckpt", weights_only=True)["global_step"] == kept
    assert all(value.isfinite().all() for value in weights(run).values())


def test_a_diverged_training_goes_on_if_asked_to(relit: Relit, capsys: Output) -> None:
    poison = ("--trainer.callbacks+=tests.support.tiny.PoisonAt", "--trainer.callbacks.batch=33")
    assert relit("fit", *TINY, *poison, "--trainer.max_epochs=2", "--checkpoint.diverged=go_on") == 0
    said = capsys.readouterr().err
    assert said.count("The training has diverged: at step 40 it has") == 1
    assert "It goes on, and saves nothing while weights aren't finite" in said
    assert torch.load(the_run() / "checkpoints/last.ckpt", weights_only=True)["global_step"] == 20


def test_a_training_that_diverges_before_its_first_checkpoint(relit: Relit, capsys: Output) -> None:
    assert relit("fit", *TINY, "--trainer.callbacks+=tests.support.tiny.PoisonAt", "--trainer.callbacks.batch=1") == 1
    assert "at step 10 it has train/discriminator_loss nan" in (said := capsys.readouterr().err)
    assert "Nothing was saved before; or start again" in said


# --- files that would run code ----------------------------------------------------------------------------------------

LOADED_BY = {
    "fit": ("fit", *TINY, "--ckpt_path=malicious.ckpt"),
    "validate": ("validate", *TINY, "--ckpt_path=malicious.ckpt"),
    "test": ("test", *TINY, "--ckpt_path=malicious.ckpt"),
    "predict": ("predict", "--ckpt_path=malicious.ckpt"),
    "encoder": (
        *("fit", "--model=TransferClassifier", "--model.encoder_checkpoint=malicious.ckpt", "--model.folds=0"),
        "--data=Digits",
    ),
    "decoder": ("fit", "--model=LatentGAN", "--model.decoder_checkpoint=malicious.ckpt", "--data=Digits"),
    "pretrained": ("fit", "--config", str(CONFIGS / "resnet18_digits.yaml"), "--model.pretrained=malicious.ckpt"),
    "extractor": (
        *("fit", *TINY, "--trainer.callbacks+=GenerationScores", "--trainer.callbacks.extractor=malicious.ckpt"),
    ),
}


@pytest.fixture
def malicious(tmp_path: Path) -> Path:
    """``malicious.ckpt`` and the plain pickle ``plain.ckpt`` in this folder; what they make when they are unpickled."""
    harm = Malicious(os.mkdir, str(tmp_path / "executed"))
    content = {"state_dict": {"weight": torch.zeros(1)}, "hyper_parameters": harm}
    torch.save(content, tmp_path / "malicious.ckpt")
    (tmp_path / "plain.ckpt").write_bytes(pickle.dumps(content))
    torch.load(tmp_path / "malicious.ckpt", weights_only=False)
    (tmp_path / "executed").rmdir()  # the file does what it is made for
    return tmp_path / "executed"


@pytest.mark.parametrize("arguments", LOADED_BY.values(), ids=LOADED_BY)
def test_a_malicious_file_is_not_executed(
    relit: Relit, malicious: Path, arguments: tuple[str, ...], capsys: Output
) -> None:
    assert relit(*arguments) == 1
    assert "malicious.ckpt can't be read as a checkpoint" in capsys.readouterr().err
    assert not malicious.exists()


def test_a_malicious_file_is_not_executed_in_python(relit: Relit, malicious: Path) -> None:
    with pytest.raises(Exception, match="Weights only load failed"):
        lit_models.DCGAN.load_from_checkpoint("malicious.ckpt")
    for name in ("malicious.ckpt", "plain.ckpt"):
        with pytest.raises(RunError, match="which could run code, so it is not opened"):
            read_checkpoint(Path(name))
    assert not malicious.exists()

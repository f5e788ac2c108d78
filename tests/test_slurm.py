"""The scripts of ``scripts/slurm/`` on a real Slurm: two nodes on this host, started and stopped here.

pytest -m slurm tests/test_slurm.py       (needs `apt-get install slurm-wlm munge`, and root)
"""

import shutil
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from tests.lit_models.runs.test_resume import assert_same_run
from tests.support.fixtures import Patch, Relit
from tests.support.slurm_cluster import Cluster, ClusterError, missing
from tests.support.tiny import CONFIGS, TINY, Pace

SCRIPTS = CONFIGS.parent / "scripts" / "slurm"
# The scripts lay configs/trainer/gpu.yaml below; here are no GPUs.
ON_CPU = ("--trainer.accelerator=cpu", "--trainer.precision=32-true", "--trainer.benchmark=false")
FIT = (*TINY, *ON_CPU, "--trainer.max_epochs=2", "--trainer.log_every_n_steps=1")
PROTONET = (
    *("--config", "configs/protonet_folder.yaml", "--data.images=Digits", "--data.train_episodes=20"),
    *(f"--data.{name}={value}" for name, value in {"n_way": 5, "k_shot": 1, "n_query": 3, "test_query": 3}.items()),
    *("--data.test_shot=1", "--data.val_episodes=10", "--data.test_episodes=10"),
    *(
        "--model.image_size=32",
        "--model.channels=1",
        "--model.feature_maps=4",
        "--trainer.max_epochs=2",
        "--trainer.log_every_n_steps=1",
    ),
    *ON_CPU,
    *(f"--trainer.{bar}=false" for bar in ("enable_progress_bar", "enable_model_summary")),
)
ONE_TASK = ["--ntasks-per-node=1", "--gpus-per-node=1"]
SLOWLY = ("--trainer.callbacks+=tests.support.tiny.Pace", "--trainer.callbacks.seconds=0.3")

pytestmark = [pytest.mark.slurm, pytest.mark.timeout(900)]


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    if reason := missing():
        pytest.skip(reason)
    folder = Path(tempfile.mkdtemp(prefix="slurm-"))
    cluster = Cluster(folder)
    try:
        try:
            cluster.start()
        except ClusterError as error:
            pytest.skip(f"Slurm's daemons don't start here: {error}")
        yield cluster
    finally:
        cluster.stop()
        shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture
def place(tmp_path: Path, relit: Relit, monkeypatch: Patch, digits_root: Path) -> Path:
    """An empty folder to submit jobs from, with the repository's configurations and an environment that has relit."""
    repository = CONFIGS.parent
    (tmp_path / "configs").symlink_to(CONFIGS)
    activate = tmp_path / ".venv" / "bin" / "activate"
    activate.parent.mkdir(parents=True)
    activate.write_text(f"export PATH={activate.parent}:$PATH PYTHONPATH={repository} MASTER_ADDR=127.0.0.1\n")
    command = activate.with_name("relit")
    command.write_text(f'#!/bin/sh\nexec {sys.executable} -m lit_models "$@"\n')
    command.chmod(0o755)
    return tmp_path


def submitted(cluster: Cluster, script: Path, options: list[str], *arguments: str) -> str:
    """Submits one of the scripts, with options for sbatch that take the place of the script's, and its arguments."""
    return cluster.submit("--partition=low", "--time=60", "--cpus-per-task=1", *options, str(script), *arguments)


def training(cluster: Cluster, job: str, place: Path, rank: int = 0) -> None:
    """Waits until a process of the job has trained for some batches."""

    def trains() -> bool:
        assert cluster.job(job)["JobState"] in ("PENDING", "RUNNING", "CONFIGURING"), log_of(job, place)
        return Pace.read(rank, place)[1] >= 3

    cluster.wait(trains, f"job {job} trains")


def log_of(job: str, folder: Path) -> str:
    return (folder / f"slurm-{job}.log").read_text()


def steps_of(run: Path) -> int:
    return torch.load(run / "checkpoints" / "last.ckpt", weights_only=True)["global_step"]


def test_a_warned_job_on_two_nodes_goes_on_at_the_next_batch(cluster: Cluster, place: Path, relit: Relit) -> None:
    """After the data were prepared by a job of their own; and equals the run of two processes that wasn't warned."""
    prepare = submitted(cluster, SCRIPTS / "prepare.sbatch", [], "--data=Digits")
    options = ["--nodes=2", "--ntasks-per-node=1", "--gpus-per-node=1", f"--dependency=afterok:{prepare}"]
    job = submitted(cluster, SCRIPTS / "nodes.sbatch", options, *FIT, *SLOWLY)
    assert cluster.job(job)["JobState"] == "PENDING"
    training(cluster, job, place, rank=1)
    assert cluster.job(prepare)["JobState"] == "COMPLETED"
    cluster.run("scancel", "--signal=USR1", job)
    state = cluster.wait_for(job, "COMPLETED", "FAILED", "CANCELLED", "TIMEOUT")
    log = log_of(job, place)
    assert (state["JobState"], state["Restarts"]) == ("COMPLETED", "1"), log
    assert log.count("stopped by SIGUSR1") == log.count("is requeued") == log.count("relit: going on with epoch") == 1

    two = ["--trainer.devices=2", "--trainer.strategy=ddp_fork_find_unused_parameters_true"]
    assert relit("fit", *FIT, *two, "--run.root=whole") == 0
    assert_same_run(place / "runs" / "dcgan_digits" / f"slurm-{job}", next(Path("whole").glob("*/*")))


def test_a_job_that_makes_room_for_another_goes_on_afterwards(cluster: Cluster, place: Path, relit: Relit) -> None:
    """Slurm sends SIGTERM, a minute before it would kill the job."""
    job = submitted(cluster, SCRIPTS / "one_node.sbatch", ONE_TASK, *PROTONET, *SLOWLY)
    training(cluster, job, place)
    urgent = cluster.submit("--partition=high", "--nodes=2", "--exclusive", "--wrap=sleep 2", "--output=urgent.log")
    assert cluster.wait_for(urgent, "COMPLETED", "FAILED")["JobState"] == "COMPLETED"
    state = cluster.wait_for(job, "COMPLETED", "FAILED", "CANCELLED", "PREEMPTED")
    log = log_of(job, place)
    assert (state["JobState"], state["Restarts"]) == ("COMPLETED", "1"), log
    assert log.count("stopped by SIGTERM") == log.count("is requeued") == log.count("relit: going on with epoch") == 1
    assert relit("fit", *PROTONET, "--run.root=whole") == 0
    assert_same_run(place / "runs" / "protonet_episodedatamodule" / f"slurm-{job}", next(Path("whole").glob("*/*")))


def test_a_cancelled_job_keeps_its_place_but_stays_cancelled(cluster: Cluster, place: Path) -> None:
    """And no other job takes up what it has left."""
    job = submitted(cluster, SCRIPTS / "one_node.sbatch", ONE_TASK, *FIT, *SLOWLY)
    training(cluster, job, place)
    cluster.run("scancel", job)
    cluster.wait(lambda: "stopped by SIGTERM" in log_of(job, place), "the job has saved a checkpoint")
    state = cluster.wait_for(job, "CANCELLED", "COMPLETED", "FAILED", "PENDING")
    assert (state["JobState"], state["Restarts"]) == ("CANCELLED", "0")
    assert "isn't requeued" in log_of(job, place)
    run = place / "runs" / "dcgan_digits" / f"slurm-{job}"
    _, batches = Pace.read(0, place)
    assert steps_of(run) == batches < 40


def test_an_array_trains_every_combination(cluster: Cluster, place: Path) -> None:
    script = (SCRIPTS / "array.sbatch").read_text()
    for line, edited in (
        (
            "CONFIGS=(wgan_mnist wgan_sn_mnist) N_CRITICS=(1 5) SEEDS=(0 1 2)",
            "CONFIGS=(wgan_mnist) N_CRITICS=(1 2) SEEDS=(7)",
        ),
        ("--array=0-11\n", "--array=0-1\n"),
    ):
        assert line in script
        script = script.replace(line, edited)
    (place / "array.sbatch").write_text(script)
    small = ["--data=Digits", "--model.feature_maps=2", "--trainer.limit_train_batches=4", "--trainer.max_epochs=1"]
    quiet = [f"--trainer.{bar}=false" for bar in ("enable_progress_bar", "enable_model_summary")]
    without_scores = ["--trainer.callbacks=null", "--checkpoint.monitor=null"]
    options = ["--gpus-per-node=1", "--output=task%a.log"]
    arguments = [*small, *quiet, *without_scores, *ON_CPU]
    job = submitted(cluster, place / "array.sbatch", options, *arguments)
    for task in (0, 1):
        state = cluster.wait_for(f"{job}_{task}", "COMPLETED", "FAILED", "CANCELLED")
        assert state["JobState"] == "COMPLETED", (place / f"task{task}.log").read_text()
    runs = place / "runs" / "wgan_digits"
    steps = {n_critic: steps_of(runs / f"n_critic={n_critic}+seed=7+job={job}") for n_critic in (1, 2)}
    assert steps == {1: 4, 2: 2}

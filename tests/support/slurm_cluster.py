"""A Slurm cluster of two nodes on this host, for tests: its own munge, controller and two node daemons, all in one
folder and on free ports, started and stopped by hand."""

import os
import shutil
import socket
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

PROGRAMS = ("munged", "slurmctld", "slurmd", "sbatch", "srun", "scontrol", "scancel", "squeue", "sinfo", "setpriv")
TIMEOUT = 240
"""Seconds to wait for anything: a job takes 10 to 20 s, and on a busy machine a multiple of that."""

# The nodes say that they have a GPU each, so that scripts that ask for one can be run. Jobs of the partition "low" make
# room for those of "high", with a minute's notice. Without the short cred_expire, a requeued job would wait for two
# minutes.
CONFIGURATION = """
ClusterName=relit
SlurmctldHost=localhost(127.0.0.1)
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
AuthInfo=socket={folder}/munge.socket,cred_expire=5
CredType=cred/munge
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool-%n
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd-%n.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/slurmd-%n.log
SlurmctldPort={ports[0]}
SlurmdParameters=config_overrides
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SwitchType=switch/none
MpiDefault=none
SchedulerType=sched/backfill
SchedulerParameters=batch_sched_delay=0,sched_interval=1,bf_interval=1,requeue_delay=1
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU
GresTypes=gpu
PreemptType=preempt/partition_prio
PreemptMode=REQUEUE
ReturnToService=2
JobRequeue=1
KillWait=30
MinJobAge=3600
JobAcctGatherType=jobacct_gather/none
AccountingStorageType=accounting_storage/none
JobCompType=jobcomp/none
NodeName=n1 NodeHostname=localhost NodeAddr=127.0.0.1 Port={ports[1]} CPUs=2 RealMemory=1000 Gres=gpu:1 State=UNKNOWN
NodeName=n2 NodeHostname=localhost NodeAddr=127.0.0.1 Port={ports[2]} CPUs=2 RealMemory=1000 Gres=gpu:1 State=UNKNOWN
PartitionName=low Nodes=n1,n2 Default=YES PriorityTier=1 GraceTime=60 MaxTime=INFINITE State=UP
PartitionName=high Nodes=n1,n2 PriorityTier=2 PreemptMode=OFF MaxTime=INFINITE State=UP
"""


class ClusterError(Exception):
    """The cluster didn't start, with the daemons' own words."""


def missing() -> str | None:
    """Why there can be no cluster here; None if there can."""
    without = [program for program in PROGRAMS if shutil.which(program, path=_path()) is None]
    if without:
        return f"Slurm isn't installed ({', '.join(without)}): apt-get install slurm-wlm munge"
    return None if os.geteuid() == 0 else "a Slurm cluster is started as root"


class Cluster:
    """Two nodes of two processors each, n1 and n2.

    Args:
        folder: An empty folder for the daemons' files; its path must be short, as it holds a socket.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._daemons: list[subprocess.Popen[bytes]] = []
        self.environment = {
            **{name: value for name, value in os.environ.items() if not name.startswith(("SLURM_", "SBATCH_"))},
            "SLURM_CONF": str(folder / "slurm.conf"),
            "PATH": _path(),
        }

    def start(self) -> None:
        """Starts all daemons and waits until both nodes are idle."""
        for name in ("state", "spool-n1", "spool-n2"):
            (self.folder / name).mkdir()
        configuration = CONFIGURATION.format(folder=self.folder, ports=_free_ports(3))
        (self.folder / "slurm.conf").write_text(configuration)
        (self.folder / "gres.conf").write_text("Name=gpu File=/dev/null\n")
        key = self.folder / "munge.key"
        key.touch(mode=0o600)
        key.write_bytes(os.urandom(128))
        munge = {"key-file": key, **{f"{what}-file": self.folder / f"munge.{what}" for what in ("pid", "log", "seed")}}
        options = [f"--{name}={path}" for name, path in munge.items()]
        self._start("munged", "--foreground", "--force", f"--socket={self.folder / 'munge.socket'}", *options)
        self.wait((self.folder / "munge.socket").exists, "munge answers", 60)
        self._start("slurmctld", "-D", "-c")
        for node in ("n1", "n2"):
            self._start("slurmd", "-D", "-N", node)
        self.wait(
            lambda: self.run("sinfo", "-h", "-N", "-p", "low", "-t", "idle").count("\n") == 2, "both nodes are idle", 60
        )

    def stop(self) -> None:
        """Ends jobs and daemons, those only that were started here."""
        if self._daemons:
            for job in self.run("squeue", "-h", "-o", "%A", check=False).split():
                self.run("scancel", "--signal=KILL", "--full", job, check=False)
                self.run("scancel", job, check=False)
            deadline = time.monotonic() + 20
            while self.run("squeue", "-h", "-t", "R,CG", check=False).strip() and time.monotonic() < deadline:
                time.sleep(0.2)
        for daemon in reversed(self._daemons):
            daemon.terminate()
            try:
                daemon.wait(10)
            except subprocess.TimeoutExpired:
                daemon.kill()
                daemon.wait()

    def _start(self, *command: str) -> None:
        """Starts a daemon that ends with this process, however that ends."""
        bound = ["setpriv", "--pdeathsig", "TERM", *command]
        with (self.folder / "daemons.log").open("a") as log:
            self._daemons.append(subprocess.Popen(bound, env=self.environment, stdout=log, stderr=log))

    def run(self, *command: str, check: bool = True) -> str:
        """What a command of Slurm's says."""
        done = subprocess.run(
            command, env=self.environment, capture_output=True, text=True, timeout=TIMEOUT, check=False
        )
        if check and done.returncode != 0:
            raise ClusterError(f"{' '.join(command)} failed: {done.stderr or done.stdout}{self._logs()}")
        return done.stdout

    def submit(self, *arguments: str) -> str:
        """Calls sbatch; returns the job's number."""
        return self.run("sbatch", "--parsable", *arguments).strip()

    def job(self, job: str) -> dict[str, str]:
        """What Slurm knows about a job, such as ``JobState``, ``Restarts`` and ``ExitCode``."""
        words = self.run("scontrol", "show", "job", "-o", job).split()
        return dict(word.split("=", 1) for word in words if "=" in word)

    def wait_for(self, job: str, *states: str) -> dict[str, str]:
        """Waits until a job is in one of the states; returns what Slurm then knows about it."""
        self.wait(lambda: self.job(job)["JobState"] in states, f"job {job} is {' or '.join(states)}")
        return self.job(job)

    def wait(self, condition: Callable[[], bool], what: str, seconds: float = TIMEOUT) -> None:
        """Asks five times a second, as the daemons have no better way to tell."""
        deadline = time.monotonic() + seconds
        while not condition():
            if time.monotonic() > deadline:
                raise ClusterError(f"After {seconds} s it isn't so that {what}.{self._logs()}")
            time.sleep(0.2)

    def _logs(self) -> str:
        logs = [path for path in sorted(self.folder.glob("*.log")) if path.is_file()]
        return "".join(f"\n--- {path.name}\n{_tail(path)}" for path in logs)


def _path() -> str:
    return f"{os.environ['PATH']}:/usr/sbin:/sbin"


def _tail(path: Path, lines: int = 15) -> str:
    return "\n".join(path.read_text(errors="replace").splitlines()[-lines:])


def _free_ports(count: int) -> list[int]:
    sockets = [socket.socket() for _ in range(count)]
    for each in sockets:
        each.bind(("127.0.0.1", 0))
    ports = [each.getsockname()[1] for each in sockets]
    for each in sockets:
        each.close()
    return ports

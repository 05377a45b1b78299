"""A real Slurm on this machine alone: munged, slurmctld and slurmd on the loopback interface, in a folder of their own.

python tests/executors/loopback.py FOLDER COMMAND...    run a command with such a cluster, then take it down
"""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path

PROGRAMS = ("munged", "slurmctld", "slurmd", "sbatch", "squeue", "scancel", "sinfo")
UP_SECONDS = 60.0

CONFIGURATION = """\
ClusterName=loopback
SlurmctldHost={host}(127.0.0.1)
SlurmUser={user}
SlurmdUser={user}
AuthType=auth/munge
AuthInfo=socket={folder}/munge.socket
CredType=cred/munge
SlurmctldPort={controller_port}
SlurmdPort={node_port}
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/slurmd.log
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU
MpiDefault=none
AccountingStorageType=accounting_storage/none
JobAcctGatherType=jobacct_gather/none
PreemptType=preempt/partition_prio
PreemptMode=CANCEL
KillWait=5
InactiveLimit=0
ReturnToService=2
SchedulerParameters=sched_interval=1,bf_interval=5,batch_sched_delay=0,sched_min_interval=0
NodeName={host} NodeAddr=127.0.0.1 CPUs={cores} RealMemory=4000 State=UNKNOWN
PartitionName=main Nodes={host} Default=YES PriorityTier=1 PreemptMode=CANCEL State=UP
PartitionName=urgent Nodes={host} Default=NO PriorityTier=10 PreemptMode=OFF State=UP
PartitionName=closed Nodes={host} Default=NO State=DOWN
"""


def missing() -> list[str]:
    """Programs that this machine lacks."""
    return [name for name in PROGRAMS if shutil.which(name, path=_path()) is None]


@contextmanager
def slurm(folder: Path, cores: int = 2) -> Iterator[dict[str, str]]:
    """Run such a cluster; yields what the environment of its users needs.

    Args:
        folder: where its state and its logs are; a short path, for the socket in it.
        cores: of its one node, however many the machine has.
    """
    for name in ("state", "spool"):
        (folder / name).mkdir(parents=True)
    host = socket.gethostname().partition(".")[0]
    values = {"host": host, "user": os.environ.get("USER") or "root", "folder": folder, "cores": cores}
    ports = {"controller_port": _free_port(), "node_port": _free_port()}
    (folder / "slurm.conf").write_text(CONFIGURATION.format(**values, **ports))
    (folder / "munge.key").write_bytes(os.urandom(128))
    (folder / "munge.key").chmod(0o600)
    environment = {"SLURM_CONF": str(folder / "slurm.conf"), "PATH": _path()}
    with ExitStack() as stack:
        files = {"key-file": "munge.key", "socket": "munge.socket", "pid-file": "munge.pid", "log-file": "munge.log",
                 "seed-file": "munge.seed"}  # fmt: skip
        options = [f"--{option}={folder / name}" for option, name in files.items()]
        _start(stack, ["munged", "--foreground", "--force", *options], environment, folder)
        _wait("munged", (folder / "munge.socket").exists)
        _start(stack, ["slurmctld", "-D", "-c"], environment, folder)
        _start(stack, ["slurmd", "-D", "-N", host, "-c"], environment, folder)
        _wait("its node", lambda: "idle" in _ask(["sinfo", "-h", "-p", "main", "-o", "%T"], environment))
        yield environment


def _start(stack: ExitStack, command: list[str], environment: Mapping[str, str], folder: Path) -> None:
    log = stack.enter_context((folder / f"{command[0]}.out").open("wb"))
    process = subprocess.Popen(command, env={**os.environ, **environment}, stdout=log, stderr=log)

    def stop() -> None:
        process.terminate()
        try:
            process.wait(20)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()

    stack.callback(stop)


def _wait(what: str, ready: object) -> None:
    deadline = time.monotonic() + UP_SECONDS
    while not ready():  # type: ignore[operator]
        if time.monotonic() > deadline:
            raise TimeoutError(f"Slurm on the loopback: {what} was not up after {UP_SECONDS:g} s")
        time.sleep(0.2)


def _ask(command: list[str], environment: Mapping[str, str]) -> str:
    return subprocess.run(
        command, env={**os.environ, **environment}, capture_output=True, text=True, check=False
    ).stdout  # fmt: skip


def _path() -> str:
    return f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin"


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


if __name__ == "__main__":
    with slurm(Path(sys.argv[1])) as extra:
        sys.exit(subprocess.run(sys.argv[2:], env={**os.environ, **extra}, check=False).returncode)

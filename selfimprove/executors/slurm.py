"""Nodes of a Slurm cluster: a job array through submitit, spoken with through folders on a shared file system.

Only the head asks for nodes again, so jobs are submitted with ``--no-requeue``. Their states are read from ``squeue``,
which every cluster has; submitit would ask ``sacct``, which needs an accounting database. submitit pickles what it
submits: the name of a function of this package and the path of a folder. What it pickles as a result is never read.
"""

from __future__ import annotations

import contextlib
import shutil
import subprocess
import time
import uuid
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final, final

from selfimprove.archive.files import OUT_OF_ROOM, make_folder
from selfimprove.errors import DiskError, RunError
from selfimprove.executors import node
from selfimprove.executors.box import INWARD, Box
from selfimprove.executors.config import ExecutorConfig
from selfimprove.executors.messages import ORDER
from selfimprove.executors.scheduler import Phase, State

COMMAND_SECONDS: Final = 60.0  # that a command of Slurm may take
END_SECONDS: Final = 15.0  # that cancelled nodes may take to end before their folders are removed
ASK_SECONDS: Final = 1.0  # between two questions about states: squeue is work for everybody's controller

_QUEUED: Final = frozenset({"PENDING", "CONFIGURING", "REQUEUED", "REQUEUE_HOLD", "REQUEUE_FED", "RESV_DEL_HOLD",
                            "SPECIAL_EXIT", "SUSPENDED", "STOPPED"})  # fmt: skip
_RUNNING: Final = frozenset({"RUNNING", "COMPLETING", "STAGE_OUT", "SIGNALING", "RESIZING"})
_EVICTED: Final = frozenset({"PREEMPTED", "CANCELLED", "TIMEOUT", "REVOKED", "DEADLINE"})


@final
class FolderLink:
    """The talk with one node through a shared folder; see `Link`."""

    sees_marks = True

    def __init__(self, name: str, folder: Path) -> None:
        self.name = name
        self._box = Box(folder)
        self._known: set[str] = set()

    def send(self, files: Mapping[str, bytes]) -> None:
        """See `Link.send`; raises DiskError where there is no room: the folder is in the run's, so nothing goes on."""
        try:
            self._box.send(files)
        except DiskError as error:
            cause = error.__cause__
            if isinstance(cause, OSError) and cause.errno not in OUT_OF_ROOM:
                raise cause from None
            raise

    def collect(self, cap: int) -> dict[str, bytes]:
        """See `Link.collect`."""
        return self._box.collect(self._known, cap)


@final
class SlurmScheduler:
    """Starts nodes as the tasks of Slurm job arrays; see `Scheduler`.

    Args:
        config: what to ask for.
        folder: where head and nodes talk, and where Slurm writes what a node prints; of this run alone.
        clock: seconds that only grow.
    """

    def __init__(self, config: ExecutorConfig, folder: Path, clock: Callable[[], float] = time.monotonic) -> None:
        self._config = config
        self._folder = folder.resolve()
        self._clock = clock
        self._asked = -ASK_SECONDS
        self._states: dict[str, State] = {}
        self._arrays = 0
        self._sitting = uuid.uuid4().hex[:8]  # a head that died leaves its talks, and nodes that go on with them
        self._submit = _submitter(config, self._folder)
        self._remove_talks()

    def start(self, label: str, count: int, order: bytes) -> list[FolderLink]:
        """Submit one array of this many tasks."""
        self._arrays += 1
        array = f"{label}-{self._sitting}-{self._arrays:03d}"
        folders = [self._folder / f"{array}-{task:03d}" for task in range(count)]
        for folder in folders:
            Box(folder).send({ORDER: order})
        names = self._submit(f"selfimprove-{label}", [str(folder) for folder in folders])
        self._states |= dict.fromkeys(names, State(Phase.QUEUED, "submitted"))
        return [FolderLink(name, folder) for name, folder in zip(names, folders, strict=True)]

    def states(self) -> Mapping[str, State]:
        """What squeue says, asked once a second at most; while its controller cannot be reached, what it said last."""
        alive = [name for name, state in self._states.items() if state.phase is not Phase.ENDED]
        if alive and self._clock() - self._asked >= ASK_SECONDS:
            self._asked = self._clock()
            arrays = sorted({name.partition("_")[0] for name in alive})
            answers = [_squeue([array]) for array in arrays]  # one that is forgotten makes the whole question fail
            if None not in answers:
                found = {name: state for answer in answers if answer for name, state in answer.items()}
                forgotten = State(Phase.ENDED, "Slurm does not know it any more")
                self._states |= {name: found.get(name, forgotten) for name in alive}
        return self._states

    def cancel(self, names: Sequence[str]) -> None:
        """scancel what has not ended."""
        alive = [name for name in names if self._states.get(name, State(Phase.QUEUED)).phase is not Phase.ENDED]
        if alive:
            _command(["scancel", *alive])

    def close(self) -> None:
        """Cancel everything that is left, and remove the folders of the talks; what nodes printed stays."""
        self.cancel(list(self._states))
        deadline = self._clock() + END_SECONDS
        while any(state.phase is Phase.RUNNING for state in self.states().values()) and self._clock() < deadline:
            time.sleep(ASK_SECONDS / 4)
        self._remove_talks()

    def _remove_talks(self) -> None:
        """Remove the folders of all talks, also those of heads that died: only one head at a time serves a run."""
        for inward in self._folder.glob(f"*-*-*/{INWARD}/"):
            with contextlib.suppress(OSError):
                shutil.rmtree(inward.parent)


def _submitter(config: ExecutorConfig, folder: Path) -> Callable[[str, list[str]], list[str]]:
    """Submits one array of nodes: job name and the nodes' folders in, the names of its tasks out."""
    import submitit

    make_folder(folder)

    def submit(name: str, folders: list[str]) -> list[str]:
        executor = submitit.SlurmExecutor(folder=folder)
        executor.update_parameters(job_name=name, **_parameters(config))
        try:
            with executor.batch():
                jobs = [executor.submit(node.serve, folder) for folder in folders]
        except (RuntimeError, OSError) as error:  # submitit raises subclasses of RuntimeError
            remedy = "see executor.partition, account, qos, and whether Slurm's controller is up; then resume"
            raise RunError(f"submit {len(folders)} nodes to Slurm", str(error)[-500:], "", remedy) from error
        return [str(job.job_id) for job in jobs]

    return submit


def _parameters(config: ExecutorConfig) -> dict[str, Any]:
    """What sbatch is asked for."""
    asked: dict[str, Any] = {
        "time": config.minutes,
        "cpus_per_task": config.workers,
        "mem": f"{round(config.memory_gb * 1024)}MB",
        "setup": list(config.setup),
        "use_srun": False,  # one process a task: signals of scancel and of a preemption reach it
        "signal_delay_s": 30,
        "additional_parameters": {"no_requeue": True},
    }
    named = {key: getattr(config, key) for key in ("partition", "account", "qos", "constraint")}
    asked |= {key: value for key, value in named.items() if value}
    return asked | ({"gpus_per_node": config.gpus} if config.gpus else {})


def _squeue(arrays: Sequence[str]) -> dict[str, State] | None:
    """States of the tasks of arrays by name, without those that Slurm forgot; None if it cannot be asked."""
    answer = _command(["squeue", "--noheader", "--array", "--states=all", "--format=%i|%T|%r", "--jobs", *arrays])
    if answer is None or (answer.returncode and "Invalid job id" not in answer.stderr):
        return None
    states = {}
    for line in answer.stdout.splitlines():
        name, _, rest = line.strip().partition("|")
        word, _, why = rest.partition("|")
        phase = Phase.QUEUED if word in _QUEUED else Phase.RUNNING if word in _RUNNING else Phase.ENDED
        shown = word if why in ("", "None") else f"{word}, {why}"
        states[name] = State(phase, shown, word in _EVICTED)
    return states


def _command(command: Sequence[str]) -> subprocess.CompletedProcess[str] | None:
    """Run a command of Slurm; None if it does not answer."""
    try:
        return subprocess.run(
            command, capture_output=True, text=True, timeout=COMMAND_SECONDS, check=False, stdin=subprocess.DEVNULL
        )  # fmt: skip
    except (OSError, subprocess.SubprocessError):
        return None

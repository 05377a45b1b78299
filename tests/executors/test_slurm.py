"""Slurm as the head uses it: what it submits, and what it makes of squeue's answers. The commands are played."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from selfimprove.errors import ConfigError, RunError
from selfimprove.executors import node
from selfimprove.executors.box import Box
from selfimprove.executors.config import ExecutorConfig
from selfimprove.executors.messages import ENDED, STARTED
from selfimprove.executors.registry import require
from selfimprove.executors.scheduler import Phase

submitit = pytest.importorskip("submitit")

from selfimprove.executors.slurm import SlurmScheduler  # noqa: E402  needs submitit

CONFIG = ExecutorConfig(kind="slurm", workers=3, memory_gb=1.5, minutes=9, partition="short", setup=("module load x",))
ERROR = 'echo "slurm_load_jobs error: {}" >&2; exit 1'
DOWN, FORGOTTEN = (ERROR.format(why) for why in ("Unable to contact slurm controller", "Invalid job id specified"))
COMMANDS = {
    "srun": "exit 1",
    "sbatch": 'cp "$1" "$PLACE/submitted.sh"\ntest -z "$REFUSE" || { echo "$REFUSE" >&2; exit 1; }\n'
    "echo Submitted batch job 7",
    "squeue": f'test -e "$PLACE/down" && {{ {DOWN}; }}\ntest -e "$PLACE/queue" || {{ {FORGOTTEN}; }}\n'
    'cat "$PLACE/queue"',
    "scancel": 'echo "$@" >> "$PLACE/cancelled"',
}


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with played commands, first in the search path."""
    for name, script in COMMANDS.items():
        (tmp_path / "bin").mkdir(exist_ok=True)
        (tmp_path / "bin" / name).write_text(f"#!/bin/sh\n{script}\n")
        (tmp_path / "bin" / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}:/usr/bin:/bin")
    monkeypatch.setenv("PLACE", str(tmp_path))
    return tmp_path


@pytest.fixture
def clock() -> Iterator[float]:
    """Every question is asked at a new time."""
    return iter(float(second) for second in range(0, 10_000, 10))


@pytest.fixture
def scheduler(place: Path, clock: Iterator[float]) -> SlurmScheduler:
    return SlurmScheduler(CONFIG, place / "nodes", lambda: next(clock))


def test_nodes_are_the_tasks_of_one_array_that_slurm_never_starts_again(scheduler: SlurmScheduler, place: Path) -> None:
    links = scheduler.start("g003", 2, b"order")
    assert [link.name for link in links] == ["7_0", "7_1"]
    script = (place / "submitted.sh").read_text()
    for line in (
        "--array=0-1%2", "--job-name=selfimprove-g003", "--cpus-per-task=3", "--mem=1536MB", "--time=9",
        "--partition=short", "--no-requeue",
    ):  # fmt: skip
        assert f"#SBATCH {line}\n" in script
    assert script.index("module load x") < script.index("submitit.core")
    assert "srun" not in script
    assert "account" not in script


def test_what_is_pickled_is_the_name_of_a_function_and_a_path(scheduler: SlurmScheduler, place: Path) -> None:
    scheduler.start("g003", 2, b"order")
    for number in range(2):
        task = submitit.core.utils.DelayedSubmission.load(place / "nodes" / f"7_{number}_submitted.pkl")
        assert task.function is node.serve
        assert Path(task.args[0]).parent == place / "nodes"
        assert task.args[0].endswith(f"-001-{number:03d}")
        assert (Path(task.args[0]) / "in" / "order").read_bytes() == b"order"


def test_a_single_node_is_a_job_of_its_own_and_can_be_cancelled(scheduler: SlurmScheduler, place: Path) -> None:
    [link] = scheduler.start("g003", 1, b"order")
    (place / "queue").write_text("7|PENDING|Resources\n")
    assert scheduler.states()[link.name].phase is Phase.QUEUED
    scheduler.cancel([link.name])
    assert (place / "cancelled").read_text() == "7\n"


STATES = {
    "PENDING|Priority": (Phase.QUEUED, False),
    "RUNNING|None": (Phase.RUNNING, False),
    "COMPLETING|None": (Phase.RUNNING, False),
    "PREEMPTED|None": (Phase.ENDED, True),
    "CANCELLED|None": (Phase.ENDED, True),
    "TIMEOUT|TimeLimit": (Phase.ENDED, True),
    "NODE_FAIL|None": (Phase.ENDED, False),
    "OUT_OF_MEMORY|OutOfMemory": (Phase.ENDED, False),
    "FAILED|NonZeroExitCode": (Phase.ENDED, False),
    "COMPLETED|None": (Phase.ENDED, False),
}


@pytest.mark.parametrize("answer", STATES)
def test_a_state_of_slurm_is_one_of_three_and_says_whether_the_job_was_sent_away(
    scheduler: SlurmScheduler, place: Path, answer: str
) -> None:
    scheduler.start("g003", 2, b"order")
    (place / "queue").write_text(f"7_0|{answer}\n7_1|RUNNING|None\n")
    found = scheduler.states()
    assert (found["7_0"].phase, found["7_0"].evicted) == STATES[answer]
    assert answer.partition("|")[0] in found["7_0"].reason
    assert found["7_1"].phase is Phase.RUNNING


def test_a_controller_that_cannot_be_reached_ends_nothing(scheduler: SlurmScheduler, place: Path) -> None:
    scheduler.start("g003", 2, b"order")
    (place / "queue").write_text("7_0|RUNNING|None\n7_1|RUNNING|None\n")
    scheduler.states()
    (place / "down").touch()
    assert {state.phase for state in scheduler.states().values()} == {Phase.RUNNING}


def test_a_job_that_slurm_forgot_has_ended(scheduler: SlurmScheduler, place: Path) -> None:
    scheduler.start("g003", 2, b"order")
    assert {state.phase for state in scheduler.states().values()} == {Phase.ENDED}
    scheduler.cancel(["7_0", "7_1"])
    assert not (place / "cancelled").exists()


def test_a_refused_submission_says_why(scheduler: SlurmScheduler, monkeypatch: pytest.MonkeyPatch, place: Path) -> None:
    monkeypatch.setenv("REFUSE", "Invalid account or account/partition combination specified")
    with pytest.raises(RunError, match="Invalid account"):
        scheduler.start("g003", 2, b"order")


def test_closing_cancels_what_is_left_and_removes_the_folders(scheduler: SlurmScheduler, place: Path) -> None:
    scheduler.start("g003", 2, b"order")
    (place / "queue").write_text("7_0|RUNNING|None\n7_1|COMPLETED|None\n")
    scheduler.states()
    (place / "queue").write_text("7_0|CANCELLED|None\n7_1|COMPLETED|None\n")
    scheduler.close()
    assert (place / "cancelled").read_text() == "7_0\n"
    assert not list((place / "nodes").glob("*/"))


def talks(place: Path) -> list[Path]:
    return sorted((place / "nodes").glob("*/"))


def test_what_a_dead_heads_nodes_have_said_and_still_say_is_heard_by_no_later_head(place: Path) -> None:
    first = SlurmScheduler(CONFIG, place / "nodes")  # killed before it could close
    first.start("g003", 2, b"order")
    left = talks(place)
    for folder in left:
        Box(folder).answer({f"00001.000{STARTED}": b"", ENDED: b"{}"})
    (place / "nodes" / "notes").mkdir()  # not ours
    links = SlurmScheduler(CONFIG, place / "nodes").start("g003", 2, b"order")
    for folder in left:
        Box(folder).answer({ENDED: b"{}"})  # it had not noticed yet that its head is dead
    assert [link.collect(1000) for link in links] == [{}, {}]
    assert (place / "nodes" / "notes").is_dir()


def test_a_later_head_removes_the_folders_of_a_dead_one(place: Path) -> None:
    SlurmScheduler(CONFIG, place / "nodes").start("g003", 2, b"order")
    later = SlurmScheduler(CONFIG, place / "nodes")
    assert talks(place) == []
    later.start("g003", 1, b"order")
    assert len(talks(place)) == 1


def test_a_machine_without_slurm_is_refused_before_anything_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(RunError, match="no sbatch, squeue, scancel") as refusal:
        require(ExecutorConfig(kind="slurm"))
    assert "executor=local" in str(refusal.value)


def test_an_unknown_executor_is_refused_with_the_known_ones() -> None:
    with pytest.raises(ConfigError, match="local, slurm, ray"):
        require(ExecutorConfig(kind="kubernetes"))

"""One run that is stopped in every way there is, again and again, and finished in the end."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import psutil
import pytest

from selfimprove.archive.anchor import FileAnchor
from selfimprove.archive.audit import audit
from selfimprove.archive.ledger import read
from tests.loop.records import bodies
from tests.loop.workers import command, count, freeze_in_training

pytestmark = pytest.mark.timeout(600)  # six sittings, one after the other

NAME = "stopped"
TORN = b'{"body":{"account":"search","flops":15'


@dataclass(frozen=True)
class Stop:
    """How one sitting ended."""

    code: int
    output: str
    seconds: float  # from the last act to the end of the process
    training: list[str]  # zygotes and workers that lived on two seconds after the act
    left: list[str]  # processes that lived on after the end, the tracker's included
    state: dict[str, Any]


@dataclass(frozen=True)
class Story:
    """All sittings of the run, in the order of their fields."""

    folder: Path
    interrupt: Stop
    twice: Stop
    halt: Stop
    halt_seconds: float  # from the file to the ledger's word that every worker is dead
    refusal: str
    signal: Stop
    kill: Stop
    finish: dict[str, Any]

    def bodies(self, kind: str) -> list[dict[str, Any]]:
        return bodies(self.folder, kind)


class Sitting:
    """A run or resume in progress, with one worker frozen in the middle of its training."""

    def __init__(self, place: Any, *arguments: str) -> None:
        self.place = place
        self.ledger = place.folder / NAME / "ledger.jsonl"
        before = count(self.ledger, "permit")
        self.process: subprocess.Popen[str] = place.start(*arguments)
        self.main = psutil.Process(self.process.pid)
        try:
            self.worker = freeze_in_training(self.process, self.ledger, before)
        except BaseException as error:
            self.process.kill()
            raise AssertionError(self.process.communicate()[0]) from error
        self.family = self.main.children(recursive=True)
        self.contained = [process for process in self.family if "zygote" in command(process)]

    def end(self, act: Callable[[Sitting], None]) -> Stop:
        """Stop the sitting by ``act`` and see what is left of it."""
        act(self)
        acted = time.monotonic()
        training = alive(self.contained, 2.0) if act is not interrupt else []
        output, _ = self.process.communicate(timeout=60)
        seconds = time.monotonic() - acted
        left = alive(self.contained, 3.0) + alive(self.family, 50.0)  # the tracker ends by itself, when it has saved
        return Stop(self.process.returncode, output, seconds, training, left, self.place.status(NAME))


def alive(family: list[psutil.Process], seconds: float) -> list[str]:
    """Commands of the processes that still run after so long; a zombie that nobody reaped yet does not run."""
    deadline = time.monotonic() + seconds
    while True:
        left = [words for process in family if (words := command(process))]
        if not left or time.monotonic() > deadline:
            return left
        time.sleep(0.02)


def interrupt(sitting: Sitting) -> None:
    """As a terminal does: to the whole foreground group. The worker is in the middle of its step."""
    os.killpg(sitting.process.pid, signal.SIGINT)
    time.sleep(0.3)
    sitting.worker.resume()


def interrupt_twice(sitting: Sitting) -> None:
    sitting.main.send_signal(signal.SIGINT)
    time.sleep(0.5)
    assert sitting.process.poll() is None  # it waits for the frozen worker
    sitting.main.send_signal(signal.SIGINT)


def halt(sitting: Sitting) -> None:
    sitting.place.call("halt", NAME, "--reason", "a test")


def halt_by_signal(sitting: Sitting) -> None:
    sitting.main.send_signal(signal.SIGUSR1)


def kill(sitting: Sitting) -> None:
    sitting.process.kill()
    with contextlib.suppress(psutil.NoSuchProcess):
        sitting.worker.resume()  # it may be so young that it has yet to ask to die with its parent


@pytest.fixture(scope="module")
def story(finished: Any) -> Story:
    place, folder = finished, finished.folder / NAME
    first = Sitting(place, "run", *place.micro, "tracking=wandb", f"hydra.run.dir={NAME}").end(interrupt)
    twice = Sitting(place, "resume", NAME).end(interrupt_twice)
    halted = Sitting(place, "resume", NAME).end(halt)
    confirmed = next(entry.time for entry in read(folder / "ledger.jsonl") if entry.kind == "halt")
    halt_seconds = datetime.fromisoformat(confirmed).timestamp() - (folder / "HALT").stat().st_mtime
    refusal = place.call("resume", NAME, expect=2)
    by_signal = Sitting(place, "resume", NAME, "--clear-halt").end(halt_by_signal)
    killed = Sitting(place, "resume", NAME, "--clear-halt").end(kill)
    tear(folder / "ledger.jsonl")
    place.call("resume", NAME)
    return Story(folder, first, twice, halted, halt_seconds, refusal, by_signal, killed, place.status(NAME))


def tear(ledger: Path) -> None:
    """What a kill in the middle of an append leaves: the beginning of a line."""
    with ledger.open("ab") as file:
        file.write(TORN)


def test_the_first_interrupt_finishes_the_step_and_says_how_to_resume(story: Story) -> None:
    assert story.interrupt.code == 130
    assert f"Next: selfimprove resume {NAME}" in story.interrupt.output
    assert "Traceback" not in story.interrupt.output
    assert story.interrupt.state["state"] == "paused"


def test_the_second_interrupt_stops_within_two_seconds(story: Story) -> None:
    assert story.twice.code == 130
    assert story.twice.seconds < 2.0
    assert "selfimprove resume" in story.twice.output
    assert "Traceback" not in story.twice.output


def test_halt_ends_all_training_within_two_seconds_and_status_says_why(story: Story) -> None:
    assert story.halt.code == 4
    assert story.halt_seconds < 2.0
    assert not story.halt.training
    assert (story.halt.state["state"], story.halt.state["reason"]) == ("halted", "a test")


def test_the_halt_signal_does_what_the_command_does(story: Story) -> None:
    assert story.signal.code == 4
    assert not story.signal.training
    assert (story.signal.state["state"], story.signal.state["reason"]) == ("halted", "halted by SIGUSR1")


def test_a_halted_run_goes_on_only_when_the_halt_is_cleared_and_the_ledger_says_so(story: Story) -> None:
    assert "--clear-halt" in story.refusal
    assert [body["reason"] for body in story.bodies("clear_halt")] == ["a test", "halted by SIGUSR1"]


@pytest.mark.parametrize("how", ["interrupt", "twice", "halt", "signal", "kill"])
def test_no_process_is_left_behind(how: str, story: Story) -> None:
    assert not getattr(story, how).left


def test_only_what_was_cut_off_is_lost(story: Story) -> None:
    """Each stop but the first Ctrl-C cut off the workers of its moment, two at most; everything else is kept."""
    lost = [body["key"] for body in story.bodies("charge") if body["account"] == "lost"]
    assert 4 <= len(lost) <= 2 * 4


def test_a_last_line_torn_by_the_kill_is_set_aside_with_a_record(story: Story) -> None:
    [recovery] = story.bodies("recovery")
    assert (story.folder / str(recovery["path"])).read_bytes() == TORN


def test_the_finished_run_equals_the_uninterrupted_one(story: Story, finished: Any) -> None:
    assert story.finish["state"] == "finished"
    assert story.finish["lineage_sha256"] == finished.status("whole")["lineage_sha256"]


def test_a_run_that_was_stopped_in_every_way_passes_its_audit(story: Story, finished: Any) -> None:
    report = audit(story.folder, FileAnchor(finished.folder / "state"))
    assert report.ok, report.findings
    assert report.anchored

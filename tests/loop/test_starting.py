"""How a run is begun and gone on with: what is there already is neither written over nor swept away."""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from selfimprove.app.folder import write_halt
from selfimprove.archive.anchor import FileAnchor
from selfimprove.archive.audit import audit
from selfimprove.archive.ledger import Ledger
from selfimprove.archive.records import HALT_NAME, LEDGER_NAME
from selfimprove.containment.keys import SigningKey, state_dir
from selfimprove.errors import RunError
from selfimprove.loop import run as loop
from selfimprove.loop.standing import is_running
from tests.loop.played import CONFIG, Player, Silent
from tests.loop.records import bodies


@pytest.fixture
def paused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A run that stopped before its first generation."""
    monkeypatch.setenv("SELFIMPROVE_STATE_DIR", str(tmp_path / "state"))
    monkeypatch.setattr(loop, "Supervisor", Player)
    assert loop.run(CONFIG, tmp_path / "run", Silent(), should_stop=lambda: True).state == "paused"
    return tmp_path / "run"


def test_a_halt_that_comes_while_another_is_lifted_is_obeyed(paused: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make = loop.make_backend

    def slowly(*words: Any, **named: Any) -> Any:
        write_halt(paused, "a newer one")  # somebody else's, while this command is getting ready
        return make(*words, **named)

    write_halt(paused, "enough")
    with monkeypatch.context() as meanwhile:
        meanwhile.setattr(loop, "make_backend", slowly)
        with pytest.raises(RunError, match="nobody halted meanwhile"):
            loop.run(CONFIG, paused, Silent(), resume=True, clear_halt=True)
    assert (paused / HALT_NAME).read_text("utf-8") == "a newer one\n"
    with pytest.raises(RunError, match="--clear-halt"):
        loop.run(CONFIG, paused, Silent(), resume=True)
    assert loop.run(CONFIG, paused, Silent(), resume=True, clear_halt=True).state == "finished"
    assert not list(paused.glob(f"*{HALT_NAME}*"))


def test_a_finished_run_that_is_resumed_says_so_and_records_nothing(paused: Path) -> None:
    assert loop.run(CONFIG, paused, Silent(), resume=True).state == "finished"
    before = (paused / LEDGER_NAME).read_bytes()
    assert loop.run(CONFIG, paused, Silent(), resume=True).state == "finished"
    assert (paused / LEDGER_NAME).read_bytes() == before


def test_who_is_told_that_the_run_is_open_is_told_while_nobody_else_may_write_to_it(paused: Path) -> None:
    told: list[bool] = []
    opened = {"should_stop": lambda: True, "on_open": lambda: told.append(is_running(paused))}
    assert loop.run(CONFIG, paused, Silent(), resume=True, **opened).state == "paused"
    assert told == [True]


@pytest.mark.parametrize("why", ["another process", "halted"])
def test_a_refused_resume_tells_nobody_that_the_run_is_open(paused: Path, why: str) -> None:
    told: list[str] = []
    with ExitStack() as stack:
        if why == "halted":
            write_halt(paused, "enough")
        else:
            key = SigningKey.load(state_dir())
            stack.enter_context(Ledger.open(paused / LEDGER_NAME, key, FileAnchor(state_dir())))
        with pytest.raises(RunError):
            loop.run(CONFIG, paused, Silent(), resume=True, on_open=lambda: told.append(why))
    assert told == []


def test_a_second_start_in_a_folder_leaves_the_first_ones_configuration_alone(paused: Path) -> None:
    before = (paused / loop.CONFIG).read_bytes()
    with pytest.raises(RunError, match="a folder without a run"):
        loop.run(CONFIG, paused, Silent())
    assert (paused / loop.CONFIG).read_bytes() == before
    assert audit(paused, FileAnchor(state_dir())).ok
    assert len(bodies(paused, "run")) == 1


def test_of_two_that_start_at_once_in_a_folder_one_is_refused_and_the_others_configuration_stands(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SELFIMPROVE_STATE_DIR", str(tmp_path / "state"))
    monkeypatch.setattr(loop, "Supervisor", Player)
    create, made = Ledger.create, []

    def first(*words: Any, **named: Any) -> Ledger:
        def second(*others: Any, **more: Any) -> Ledger:
            made.append(create(*words, **named))
            return create(*others, **more)

        monkeypatch.setattr(loop.Ledger, "create", second)
        with pytest.raises(RunError, match="one process at a time; another process"):
            loop.run(replace(CONFIG, seed=4), tmp_path / "run", Silent())
        return made[0]

    monkeypatch.setattr(loop.Ledger, "create", first)
    loop.run(CONFIG, tmp_path / "run", Silent(), should_stop=lambda: True)
    report = audit(tmp_path / "run", FileAnchor(state_dir()))
    assert report.ok, report.findings


def test_on_a_full_disk_the_kill_switch_works_without_a_reason(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: Any, **__: Any) -> int:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "write_text", full)
    write_halt(tmp_path, "enough")
    assert [path.name for path in tmp_path.iterdir()] == [HALT_NAME]

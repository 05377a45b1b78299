"""The red team sees what is not contained: layers taken away, supervisors that can be hurt, attacks that are broken."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from selfimprove.containment import hostile, metering
from selfimprove.containment.jobs import Completed, Crashed, Exceeded, Invalid, Outcome, Usage
from selfimprove.containment.redteam import verdict
from selfimprove.containment.redteam.registry import select
from selfimprove.containment.redteam.runner import Runner
from selfimprove.containment.redteam.verdict import CONTAINED, ESCAPED, INCONCLUSIVE, Observation
from selfimprove.containment.sandbox.backend import LockdownBackend, NoBackend

SCRIPT = Path(__file__).parent / "entries" / "weakened_redteam.py"
USAGE = Usage()
WORKS = verdict.success("it says so")
pytestmark = pytest.mark.timeout(600)


WITHOUT = {
    "seccomp": ["network/udp4", "tamper/change_mode", "supervisor/leave_session", "kernel/personality"],
    "landlock": ["read/secret_file", "read/list_folder", "read/passwords"],
    "limits": ["floods/descriptors", "memory/reserved"],
    "none of them": ["network/udp4", "read/secret_file", "floods/descriptors"],
}


@pytest.fixture(scope="module")
def verdicts() -> dict[str, dict[str, str]]:
    """What the suite says of lock-downs from which one layer was taken, by layer; run in a process of its own."""
    command = [sys.executable, str(SCRIPT), json.dumps(WITHOUT)]
    found: dict[str, dict[str, str]] = json.loads(subprocess.run(command, capture_output=True, check=True).stdout)
    return found


@pytest.mark.parametrize("layer", ["seccomp", "landlock", "limits"])
def test_a_layer_that_is_missing_lets_attacks_escape(layer: str, verdicts: dict[str, dict[str, str]]) -> None:
    assert verdicts[layer] == dict.fromkeys(WITHOUT[layer], ESCAPED)


def test_with_every_layer_in_place_the_same_attacks_are_contained(verdicts: dict[str, dict[str, str]]) -> None:
    assert verdicts["none of them"] == dict.fromkeys(WITHOUT["none of them"], CONTAINED)


@pytest.fixture(scope="module")
def runner() -> Iterator[Runner]:
    with Runner(LockdownBackend()) as found:
        yield found


def test_a_supervisor_that_no_longer_looks_lets_a_sleeper_escape(
    runner: Runner, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(metering, "is_dead", lambda pidfd: True)  # and what is dead is not measured
    [row] = runner.run(select(["time/sleep_on"]))
    assert row.verdict == ESCAPED


def test_a_meter_that_does_not_ask_whose_pages_they_are_lets_what_was_inherited_be_written_over(
    runner: Runner, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(metering, "unshared_bytes", lambda pid: 0)
    [row] = runner.run(select(["memory/written_over"]))
    assert row.verdict == ESCAPED


def test_who_crashes_the_supervisor_has_escaped_and_nobody_else(
    runner: Runner, monkeypatch: pytest.MonkeyPatch
) -> None:
    def careless(pid: int) -> int:
        text = Path(f"/proc/{pid}/status").read_bytes().decode("utf-8")  # fails on a name that is no text
        return 0 * len(text)

    monkeypatch.setattr(metering, "private_bytes", careless)
    rows = runner.run(select(["supervisor/name_that_is_no_text", "network/udp4", "survival/fork"]))
    assert {row.id: row.verdict for row in rows} == {
        "network/udp4": CONTAINED,
        "supervisor/name_that_is_no_text": ESCAPED,
        "survival/fork": CONTAINED,
    }


def test_who_takes_the_supervisors_attention_has_escaped(runner: Runner, monkeypatch: pytest.MonkeyPatch) -> None:
    feed = hostile.FrameReader.feed

    def slow(self: hostile.FrameReader, data: bytes) -> int:
        until = time.thread_time() + (0.7 if len(data) > 50_000 else 0)
        while time.thread_time() < until:
            pass
        return feed(self, data)

    monkeypatch.setattr(hostile.FrameReader, "feed", slow)
    [row] = runner.run(select(["supervisor/tiny_events"]))
    assert row.verdict == ESCAPED
    assert "attention" in row.observed


def test_without_containment_an_attack_escapes() -> None:
    with Runner(NoBackend()) as bare:
        [row] = bare.run(select(["network/udp4"]))
    assert (row.verdict, row.observed) == (ESCAPED, "succeeded: something arrived over udp4")


@pytest.mark.parametrize(
    ("contained", "control", "expected"),
    [
        (Observation("denied"), WORKS, CONTAINED),
        (WORKS, WORKS, ESCAPED),
        (WORKS, Observation("denied"), ESCAPED),
        (Observation("denied"), Observation("denied"), INCONCLUSIVE),
        (Observation("denied"), verdict.broken("TypeError"), INCONCLUSIVE),
        (verdict.broken("TypeError"), WORKS, INCONCLUSIVE),
    ],
)
def test_only_an_attack_that_works_elsewhere_counts_as_contained(
    contained: Observation, control: Observation, expected: str
) -> None:
    assert verdict.judge(contained, control) == expected


@pytest.mark.parametrize(
    ("outcome", "damage", "how"),
    [
        (Completed({"escaped": True}, {}, USAGE), None, "succeeded"),
        (Completed({"escaped": False}, {}, USAGE), None, "without effect"),
        (Completed({"refused": "EPERM"}, {}, USAGE), None, "denied"),
        (Completed({"refused": "EPERM"}, {}, USAGE), "changed: file", "succeeded"),
        (Completed({"broken": "TypeError"}, {}, USAGE), None, "broken"),
        (Exceeded("memory_bytes", 2, 1, USAGE), None, "limited"),
        (Exceeded("wall_seconds", 2, 1, USAGE), None, "killed"),
        (Crashed("killed by SIGSYS", USAGE), None, "killed"),
        (Crashed("AttributeError: x", USAGE), None, "broken"),
        (Crashed("killed by SIGSEGV", USAGE), None, "broken"),
        (Crashed("killed by SIGABRT: malloc(): corrupted", USAGE), None, "broken"),
        (Crashed("its zygote died", USAGE, zygote_died=True), None, "succeeded"),
        (Invalid("a message that is not JSON", USAGE), None, "rejected"),
    ],
)
def test_a_workers_end_is_read_as_what_it_is(outcome: Outcome, damage: Any, how: str) -> None:
    assert verdict.observe(outcome, [damage]).how == how


@pytest.mark.parametrize(
    ("outcome", "guarded", "how"),
    [
        (Completed({"refused": "no"}, {}, USAGE), True, "rejected"),
        (Completed({"escaped": True}, {}, USAGE), True, "succeeded"),
        (Crashed("KeyError: x", USAGE), True, "succeeded"),
        (Crashed("KeyError: x", USAGE), False, "broken"),
        (Exceeded("wall_seconds", 2, 1, USAGE), True, "succeeded"),
    ],
)
def test_a_trusted_side_that_falls_over_has_not_seen_through_anything(
    outcome: Outcome, guarded: bool, how: str
) -> None:
    assert verdict.observe_trusted(outcome, "rejected", guarded=guarded).how == how

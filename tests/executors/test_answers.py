"""What the head of a cluster believes of a node's word, and what a broken one costs. The nodes are played."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import pytest

from selfimprove.containment import hostile
from selfimprove.containment.jobs import Completed, Crashed, Invalid, Outcome, Usage
from selfimprove.containment.sandbox import wire
from selfimprove.executors.messages import (
    MESSAGE_BYTES,
    READY,
    Task,
    encode,
    output_names,
    prefix_of,
    read_outcome,
    write_outcome,
)
from tests.executors.head import Head, jobs_of, once
from tests.executors.played import ABOUT, Behavior, PlayedNode, job, obedient

HUGE = 2**40
ANSWERS = {
    f"its outcome cannot be read: 00001.001.outcome has {HUGE} bytes": lambda prefix, box: grow(prefix, box),
    "is not what its hash says": lambda prefix, box: (box.outward / f"{prefix}.out-weights").write_bytes(b"other"),
    "bytes of outputs; allowed": None,
    "malformed": lambda prefix, box: (box.outward / f"{prefix}.outcome").write_bytes(b'{"outcome": "promoted"}'),
    "value is str": lambda prefix, box: broken(prefix, box, outcome="exceeded", limit="x", value="x", bound=1),
    "result is list": lambda prefix, box: broken(prefix, box, outcome="completed", result=[1]),
    "outputs ledger were not asked for": lambda prefix, box: broken(
        prefix, box, outcome="completed", result={}, outputs={"ledger": ""}
    ),
    "reason is int": lambda prefix, box: broken(prefix, box, outcome="crashed", reason=3),
    "cpu_seconds is -1": lambda prefix, box: broken(prefix, box, outcome="invalid", reason="", cpu_seconds=-1),
}


def grow(prefix: str, box: Any, name: str = "outcome") -> None:
    with (box.outward / f"{prefix}.{name}").open("wb") as file:
        file.truncate(HUGE)  # a hole: it takes no room


def broken(prefix: str, box: Any, cpu_seconds: float = 0.5, **fields: Any) -> None:
    body = {"usage": {"cpu_seconds": cpu_seconds}, "outputs": {}, **fields}
    (box.outward / f"{prefix}.outcome").write_bytes(json.dumps(body).encode())


@pytest.mark.parametrize("flaw", ANSWERS)
def test_a_broken_answer_costs_its_own_job_alone(make: Callable[..., Head], flaw: str) -> None:
    spoil = ANSWERS[flaw]

    def behave(node: PlayedNode, prefix: str, task: Task) -> Outcome | None:
        outcome = obedient(node, prefix, task)
        assert isinstance(outcome, Completed)
        if "c01" not in task.job.key:
            return outcome
        if spoil is None:
            return replace(outcome, outputs={"weights": bytes(2**16 + 1)})
        node.box.answer(write_outcome(prefix, outcome))
        spoil(prefix, node.box)
        return None

    head = make(behave)
    found = head.run(jobs_of("g001", 3))
    assert isinstance(found[1], Invalid)
    assert flaw in found[1].reason
    assert isinstance(found[0], Completed)
    assert isinstance(found[2], Completed)


def test_a_file_larger_than_any_answer_ends_its_node(make: Callable[..., Head]) -> None:
    head = make(once(lambda node, prefix, task: grow(prefix, node.box, "out-weights")))
    found = head.run(jobs_of("g001", 3))
    assert isinstance(found[1], Crashed)
    assert "cannot be read" in head.lost[0]


def test_an_outcome_that_a_disk_does_not_give_back_costs_its_own_job_alone_and_is_not_held_against_it(
    make: Callable[..., Head],
) -> None:
    def spoil(node: PlayedNode, prefix: str, task: Task) -> None:
        node.begin(prefix)
        (node.box.outward / f"{prefix}.outcome").mkdir()

    head = make(once(spoil), nodes=1)
    found = head.run(jobs_of("g001", 6))
    lost = found.pop(1)
    assert isinstance(lost, Crashed)
    assert lost.killed
    assert "cannot be read" in lost.reason
    assert all(isinstance(outcome, Completed) for outcome in found.values())
    assert head.lost == []


def answers(result: dict[str, Any]) -> Behavior:
    """Obedient, but for the result of one task."""

    def behave(node: PlayedNode, prefix: str, task: Task) -> Outcome | None:
        outcome = obedient(node, prefix, task)
        assert isinstance(outcome, Completed)
        return replace(outcome, result=result) if "c01" in task.job.key else outcome

    return behave


def test_the_largest_result_that_a_worker_may_give_arrives_in_whatever_script_it_is(make: Callable[..., Head]) -> None:
    result = {"said": ["\U0001f600" * 16000] * 130}
    body = json.dumps(result, ensure_ascii=False).encode()
    assert 0.99 * wire.FRAME_BYTES[wire.RESULT] < len(body) <= wire.FRAME_BYTES[wire.RESULT]
    assert hostile.parse_object(body, len(body)) == result
    found = make(answers(result)).run(jobs_of("g001", 3))
    assert all(isinstance(outcome, Completed) for outcome in found.values())
    assert found[1] == replace(found[0], result=result, outputs={"weights": b"weights of g001/c01/s0@1/1"})


def test_an_outcome_larger_than_a_message_is_invalid_and_costs_its_own_job_alone(make: Callable[..., Head]) -> None:
    head = make(answers({"said": ["a" * 60000] * 300}))
    found = head.run(jobs_of("g001", 3))
    assert isinstance(found[1], Invalid)
    assert f"allowed: {MESSAGE_BYTES}" in found[1].reason
    assert found[1].usage.cpu_seconds == 1.0
    assert [type(found[0]), type(found[2])] == [Completed, Completed]
    assert head.lost == []


def test_text_that_utf_8_cannot_hold_is_sent_and_goes_when_it_is_read() -> None:
    files = write_outcome("00001.000", Crashed('a\ud800\\b\udcff\udbff"', Usage()))
    assert set(files) == output_names("00001.000", job("g001/c00/s0"))
    assert read_outcome("00001.000", job("g001/c00/s0"), files) == Crashed('a\\b"', Usage())


JUNK: dict[str, Callable[[str], str]] = {
    "of no task": lambda prefix: "00009.000.outcome",
    "no output of its task": lambda prefix: f"{prefix}.out-ledger",
    "a mark of no task": lambda prefix: "00009.000.started",
    "an input": lambda prefix: f"{prefix}.in-weights",
    "anything": lambda prefix: "notes",
}


@pytest.mark.parametrize("kind", JUNK)
def test_a_node_that_says_something_about_no_task_of_its_own_is_lost_and_what_it_said_is_not_kept(
    make: Callable[..., Head], kind: str
) -> None:
    def chatter(node: PlayedNode, prefix: str, task: Task) -> Outcome:
        node.box.answer({JUNK[kind](prefix): b"junk"})
        return obedient(node, prefix, task)

    kept: list[str] = []
    head = make(once(chatter))
    refresh = head.fleet.refresh

    def watched() -> Any:
        gone = refresh()
        kept.extend(
            name for member in [*gone, *head.fleet.members] for name in member.files | dict.fromkeys(member.marks)
        )
        return gone

    head.fleet.refresh = watched  # type: ignore[method-assign]
    found = head.run(jobs_of("g001", 6))
    assert all(isinstance(outcome, Completed) for outcome in found.values())
    assert len(head.lost) == 1
    assert "of no task that it was handed" in head.lost[0]
    assert kept
    assert not any(JUNK[kind](prefix_of(number, 1)) in kept for number in (1, 2, 3))


def test_files_of_a_task_are_let_go_with_it(make: Callable[..., Head]) -> None:
    head = make()
    head.run(jobs_of("g001", 9))
    assert all(member.files == {} and member.tasks == {} for member in head.fleet.members)


WORDS: dict[str, Mapping[str, Any]] = {
    "of a field that no node has": ABOUT | {"state": "what it says itself"},
    "with a field left out": {name: value for name, value in ABOUT.items() if name != "host"},
    "of another form": ABOUT | {"sandbox": "lockdown"},
    "at length": ABOUT | {"processor": "x" * 20_000},
}


@pytest.mark.parametrize("how", WORDS)
def test_a_node_that_speaks_of_itself_otherwise_than_nodes_do_is_lost_and_not_quoted(
    make: Callable[..., Head], how: str
) -> None:
    head = make(nodes=1)
    start = head.cluster.start

    def spoilt(*arguments: Any) -> Any:
        nodes = start(*arguments)
        if len(head.cluster.nodes) == 1:
            nodes[0]._greets = False
            nodes[0].box.answer({READY: encode(WORDS[how])})
        return nodes

    head.cluster.start = spoilt  # type: ignore[method-assign]
    found = head.run(jobs_of("g001", 2))
    assert all(isinstance(outcome, Completed) for outcome in found.values())
    assert [body["node"] for body in head.told if body["state"] == "ready"] == ["n1"]
    assert "cannot be read" in head.lost[0]
    assert len(str(head.told)) < 2000


def test_a_node_is_ready_once(make: Callable[..., Head]) -> None:
    def again(node: PlayedNode, prefix: str, task: Task) -> Outcome:
        node.box.answer({READY: encode(ABOUT)})
        return obedient(node, prefix, task)

    head = make(again, nodes=1)
    head.run(jobs_of("g001", 2))
    assert [body["state"] for body in head.told] == ["asked", "ready", "lost"]

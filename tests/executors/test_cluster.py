"""The head's side of a cluster: who is handed what, and what a lost node costs. The nodes are played."""

from __future__ import annotations

import errno
import os
import shutil
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from selfimprove.containment.jobs import Completed, Crashed, Outcome
from selfimprove.errors import DiskError, Halted, Interrupted, RunError
from selfimprove.executors.messages import (
    BEAT,
    ENDED,
    STOP,
    Task,
    encode,
    prefix_of,
    write_outcome,
)
from tests.executors.head import CONFIG, Head, jobs_of, once
from tests.executors.played import HALT, PlayedNode, obedient, permit


def test_trainings_are_handed_out_in_packs_and_every_outcome_comes_back_once(make: Callable[..., Head]) -> None:
    head = make()
    jobs = jobs_of("g001", 8)
    found = head.run(jobs)
    assert sorted(found) == list(range(8))
    for index, outcome in found.items():
        assert isinstance(outcome, Completed)
        assert outcome.outputs == {"weights": f"weights of {jobs[index].key}".encode()}
    assert sorted(size for node in head.cluster.nodes for size in node.packs) == [2, 3, 3]


def test_no_pack_is_larger_than_the_life_of_its_permits_allows(make: Callable[..., Head]) -> None:
    slow = [replace(job, limits=replace(job.limits, wall_seconds=1400.0)) for job in jobs_of("g001", 6)]
    head = make(pack=6, workers=1, nodes=1)
    head.run(slow)
    assert head.cluster.nodes[0].packs == [2, 2, 2]


def test_permits_are_signed_in_the_order_of_the_jobs_and_only_for_a_node_that_is_ready(
    make: Callable[..., Head],
) -> None:
    head = make(queued=2)
    at_start: list[int] = []

    def start() -> None:
        at_start.append(len(head.permits))
        for node in head.cluster.nodes:
            node.state = replace(node.state, phase=type(node.state.phase).RUNNING)

    head.each_wait = start
    head.run(jobs_of("g001", 5))
    assert at_start[0] == 0
    assert [index for index, _ in head.permits] == list(range(5))


def test_one_array_a_generation_and_the_nodes_of_the_one_before_are_let_go(make: Callable[..., Head]) -> None:
    head = make()
    head.run(jobs_of("g001", 2))
    head.run(jobs_of("g001", 6))
    assert head.cluster.arrays == [("g001", 2)]
    head.run(jobs_of("g002", 2))
    assert head.cluster.arrays == [("g001", 2), ("g002", 2)]
    assert head.cluster.cancelled == ["n0", "n1"]


def test_what_had_not_begun_on_a_lost_node_goes_to_another_one_under_the_same_permit(
    make: Callable[..., Head],
) -> None:
    head = make(once(lambda node, prefix, task: node.end("NODE_FAIL")))
    found = head.run(jobs_of("g001", 6))
    assert all(isinstance(outcome, Completed) for outcome in found.values())
    assert [index for index, _ in head.permits] == list(range(6))
    assert head.lost == ["its job ended: NODE_FAIL"]


def test_what_a_node_refused_to_begin_goes_to_another_one_and_is_held_against_no_job(make: Callable[..., Head]) -> None:
    def refuse(node: PlayedNode, prefix: str, task: Task) -> None:
        node.box.answer({ENDED: encode({"code": "failed", "reason": "its clock is wrong"})})
        node.end("COMPLETED")

    head = make(once(refuse, "c00"))
    found = head.run(jobs_of("g001", 6))
    assert all(isinstance(outcome, Completed) for outcome in found.values())
    assert [index for index, _ in head.permits] == list(range(6))
    assert head.lost == ["failed: its clock is wrong"]


def test_a_node_that_cannot_be_reached_is_lost_and_the_others_do_its_work(make: Callable[..., Head]) -> None:
    head = make()

    def vanish() -> None:
        shutil.rmtree(head.cluster.nodes[0].box.inward, ignore_errors=True)

    head.at_permit = vanish
    found = head.run(jobs_of("g001", 6))
    assert sorted(found) == list(range(6))
    assert isinstance(found[5], Completed)
    [reason] = head.lost
    assert "n0/in" in reason


def test_a_full_disk_under_the_folders_of_the_nodes_is_the_runs_own_and_ends_it(
    make: Callable[..., Head], monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: Any) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    head = make()
    head.at_permit = lambda: monkeypatch.setattr("selfimprove.archive.files.write_all", full)
    with pytest.raises(DiskError, match="the disk is full"):
        head.run(jobs_of("g001", 6))


def test_what_had_begun_on_a_lost_node_is_a_lost_attempt_and_nothing_else_is(make: Callable[..., Head]) -> None:
    def die(node: PlayedNode, prefix: str, task: Task) -> None:
        node.begin(prefix)
        node.end("NODE_FAIL")

    found = make(once(die)).run(jobs_of("g001", 6))
    lost = [index for index, outcome in found.items() if not isinstance(outcome, Completed)]
    assert lost == [1]
    assert isinstance(found[1], Crashed)
    assert found[1].killed
    assert not found[1].evicted
    assert "NODE_FAIL" in found[1].reason


@pytest.mark.parametrize("word", ["scheduler", "node"])
def test_a_preempted_attempt_is_never_held_against_the_job(make: Callable[..., Head], word: str) -> None:
    def leave(node: PlayedNode, prefix: str, task: Task) -> None:
        node.begin(prefix)
        if word == "scheduler":
            node.end("PREEMPTED", evicted=True)
        else:
            node.box.answer({ENDED: encode({"code": "evicted", "reason": "SIGTERM"})})

    outcome = make(once(leave)).run(jobs_of("g001", 3))[1]
    assert isinstance(outcome, Crashed)
    assert outcome.evicted


def test_of_a_node_that_fell_silent_nothing_is_known_so_all_that_it_had_is_lost(make: Callable[..., Head]) -> None:
    head = make(once(lambda node, prefix, task: None, "c00"), nodes=1)
    found = head.run(jobs_of("g001", 1))
    assert isinstance(found[0], Crashed)
    assert "silent" in head.lost[0]
    assert head.cluster.cancelled == ["n0"]
    assert HALT in head.cluster.nodes[0].heard
    assert 2 * CONFIG.silence_seconds < head.time < 3 * CONFIG.silence_seconds


def test_a_node_that_gives_signs_of_life_is_not_given_up_however_long_it_takes(make: Callable[..., Head]) -> None:
    def take_long(node: PlayedNode, prefix: str, task: Task) -> Outcome | None:
        waiting.append((node, prefix, task))
        return None

    def beat() -> None:
        for node, prefix, task in waiting:
            node.box.answer({BEAT: encode({"beat": head.time})})
            if head.time > 60.0:
                node.box.answer(write_outcome(prefix, obedient(node, prefix, task)))
        if head.time > 60.0:
            waiting.clear()

    waiting: list[tuple[PlayedNode, str, Task]] = []
    head = make(take_long, nodes=1)
    head.each_wait = beat
    assert all(isinstance(outcome, Completed) for outcome in head.run(jobs_of("g001", 2)).values())
    assert head.lost == []


def test_a_permit_that_is_about_to_expire_is_taken_back_and_another_one_signed(make: Callable[..., Head]) -> None:
    head = make(once(lambda node, prefix, task: node.end("NODE_FAIL")))
    found = head.run(jobs_of("g001", 6), lifetime_seconds=60.0)
    assert {type(outcome) for outcome in found.values()} == {Completed}
    assert sorted(head.returned) == [1, 2]
    assert sorted(index for index, _ in head.permits) == [0, 1, 1, 2, 2, 3, 4, 5]


def test_a_node_that_is_stuck_in_the_queue_is_cancelled_and_asked_for_anew(make: Callable[..., Head]) -> None:
    head = make(queued=2)
    found = head.run(jobs_of("g001", 6))
    assert all(isinstance(outcome, Completed) for outcome in found.values())
    assert head.cluster.cancelled == ["n0", "n1"]
    assert len(head.permits) == 6
    assert all("waited in the queue" in reason for reason in head.lost)


def test_nobody_waits_for_a_queue_while_other_nodes_do_the_work(make: Callable[..., Head]) -> None:
    head = make(queued=1)
    head.run(jobs_of("g001", 9))
    assert head.time < 10
    assert head.cluster.nodes[1].packs == [3, 3, 3]


def test_a_cluster_on_which_nothing_ever_starts_stops_the_run_and_permits_nothing(make: Callable[..., Head]) -> None:
    head = make(queued=100)
    with pytest.raises(RunError, match="attempts") as refusal:
        head.run(jobs_of("g001", 3))
    assert "resume" in str(refusal.value)
    assert head.permits == []


def test_tries_are_counted_anew_once_something_was_done(make: Callable[..., Head]) -> None:
    def work_and_die(node: PlayedNode, prefix: str, task: Task) -> Outcome | None:
        if node.done:
            node.end("NODE_FAIL")
            return None
        return obedient(node, prefix, task)

    head = make(work_and_die, nodes=1)
    found = head.run(jobs_of("g001", 7))
    assert all(isinstance(outcome, Completed) for outcome in found.values())
    assert len(head.lost) > CONFIG.attempts


def test_the_kill_switch_ends_every_node(make: Callable[..., Head]) -> None:
    head = make(lambda node, prefix, task: node.begin(prefix))
    head.each_wait = lambda: setattr(head, "halted", True)
    with pytest.raises(Halted):
        head.run(jobs_of("g001", 6))
    assert sorted(head.cluster.cancelled) == ["n0", "n1"]
    assert all(HALT in node.heard for node in head.cluster.nodes)


def test_asked_to_stop_it_finishes_what_runs_and_starts_nothing(make: Callable[..., Head]) -> None:
    head = make(pack=1)
    head.each_wait = lambda: setattr(head, "stopping", True)
    with pytest.raises(Interrupted):
        head.run(jobs_of("g001", 9))
    assert len(head.permits) == sum(len(node.done) for node in head.cluster.nodes) <= 2


def test_asked_to_stop_it_finishes_what_a_node_has_begun_and_takes_the_rest_of_its_pack_back(
    make: Callable[..., Head],
) -> None:
    def begin_one(node: PlayedNode, prefix: str, task: Task) -> None:
        if not node.held:
            node.held[prefix] = obedient(node, prefix, task)

    head = make(begin_one, nodes=1, pack=8)
    head.each_wait = lambda: setattr(head, "stopping", bool(head.cluster.nodes[0].held))
    with pytest.raises(Interrupted):
        head.run(jobs_of("g001", 9))
    assert isinstance(head.found.pop(0), Completed)
    assert head.found == {}
    assert len(head.permits) == 8
    assert head.returned == list(range(1, 8))
    assert head.lost == []
    assert head.cluster.nodes[0].heard.count(STOP) == 1


def test_asked_to_stop_while_it_hands_out_a_pack_it_takes_all_of_it_back(make: Callable[..., Head]) -> None:
    head = make(nodes=1, pack=8)
    head.at_permit = lambda: setattr(head, "stopping", True)
    with pytest.raises(Interrupted):
        head.run(jobs_of("g001", 8))
    assert head.found == {}
    assert head.returned == [index for index, _ in head.permits]
    assert head.cluster.nodes[0].done == []


def test_a_node_that_dies_when_it_is_asked_to_stop_costs_what_it_had_begun_alone(make: Callable[..., Head]) -> None:
    def begin_one(node: PlayedNode, prefix: str, task: Task) -> None:
        if not head.stopping:
            head.stopping = True
            node.begin(prefix)

    def die() -> None:
        if head.stopping:
            head.cluster.nodes[0].end("NODE_FAIL")

    head = make(begin_one, nodes=1, pack=3)
    head.each_wait = die
    with pytest.raises(Interrupted):
        head.run(jobs_of("g001", 3))
    assert list(head.found) == [0]
    assert isinstance(head.found[0], Crashed)
    assert head.returned == [1, 2]
    assert head.cluster.arrays == [("g001", 1)]


def test_whoever_does_not_want_the_rest_ends_the_nodes(make: Callable[..., Head]) -> None:
    head = make(pack=1)
    running = head.executor.run(jobs_of("g001", 4), on_start=lambda index: permit(jobs_of("g001", 4)[index]))
    next(running)
    running.close()  # type: ignore[attr-defined]
    assert sorted(head.cluster.cancelled) == ["n0", "n1"]


def test_without_a_permit_nothing_is_handed_out(make: Callable[..., Head]) -> None:
    head = make()
    with pytest.raises(TypeError, match="no permit"):
        list(head.executor.run(jobs_of("g001", 1)))
    assert head.cluster.nodes[0].packs == []


@pytest.mark.parametrize(
    ("code", "reason", "remedy"),
    [("refused", "no mechanism for network", "doctor"), ("differs", "it has torch 1.0", "install the same")],
)
def test_a_node_that_would_train_uncontained_or_something_else_refuses_the_run(
    make: Callable[..., Head], code: str, reason: str, remedy: str
) -> None:
    head = make()

    def refuse() -> None:
        head.cluster.nodes[0].box.answer({ENDED: encode({"code": code, "reason": reason})})

    start = head.cluster.start
    head.cluster.start = lambda *arguments: (start(*arguments), refuse())[0]  # type: ignore[method-assign]
    with pytest.raises(RunError, match=reason) as refusal:
        head.run(jobs_of("g001", 3))
    assert remedy in str(refusal.value)
    assert sorted(head.cluster.cancelled) == ["n0", "n1"]


def test_what_nodes_spent_is_counted_also_of_those_that_are_gone(make: Callable[..., Head]) -> None:
    def spend(node: PlayedNode, prefix: str, task: Task) -> Outcome | None:
        node.box.answer({"beat": encode({"beat": 1, "cpu_seconds": 2.5, "gpu_seconds": 0.0})})
        return obedient(node, prefix, task)

    head = make(spend)
    head.run(jobs_of("g001", 6))
    head.run(jobs_of("g002", 3))
    assert head.executor.spent.cpu_seconds == 2.5 * sum(bool(node.packs) for node in head.cluster.nodes)


def test_a_prefix_sorts_as_its_number_does() -> None:
    prefixes = [prefix_of(9, 2), prefix_of(9, 11), prefix_of(10, 0)]
    assert sorted(prefixes) == prefixes

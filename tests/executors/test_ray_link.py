"""The head's talk with an actor, whose Ray is played: nothing waits, and what died is a state."""

from __future__ import annotations

import socket
from types import SimpleNamespace
from typing import Any

import pytest

from selfimprove.executors.ray_cluster import ActorLink, knock
from selfimprove.executors.scheduler import Phase


class RayError(Exception):
    """What Ray says of an actor that died."""


class RayTaskError(RayError):
    """What it says of a method that raised."""

    cause = "a disk that is full"


class Ray:
    """Ray and one actor: answers are what the test puts there."""

    exceptions = SimpleNamespace(RayError=RayError, RayTaskError=RayTaskError)

    def __init__(self) -> None:
        self.sent: list[dict[str, bytes]] = []
        self.answers: list[Any] = []
        self.killed = False
        self.taken: list[dict[str, bytes]] = []
        self.exchange = SimpleNamespace(remote=self._remote)
        self.take = SimpleNamespace(remote=self.taken.append)

    def _remote(self, files: dict[str, bytes], cap: int) -> int:
        self.sent.append(files)
        return len(self.sent)

    def wait(self, references: list[int], timeout: float) -> tuple[list[int], list[int]]:
        assert timeout == 0
        return (references, []) if self.answers else ([], references)

    def get(self, reference: int) -> Any:
        answer = self.answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return answer

    def kill(self, actor: Any) -> None:
        self.killed = True


@pytest.fixture
def ray() -> Ray:
    return Ray()


@pytest.fixture
def link(ray: Ray) -> ActorLink:
    return ActorLink(ray, "g001-000", ray)


def test_it_is_queued_until_its_first_answer_and_nothing_waits_for_that(ray: Ray, link: ActorLink) -> None:
    for _ in range(3):
        assert link.collect(100) == {}
    assert link.state.phase is Phase.QUEUED
    assert len(ray.sent) == 1
    ray.answers.append(({"ready": b"{}"}, None))
    assert link.collect(100) == {"ready": b"{}"}
    assert link.state.phase is Phase.RUNNING


def test_files_go_with_the_next_exchange_once(ray: Ray, link: ActorLink) -> None:
    link.collect(100)
    link.send({"a": b"1"})
    link.send({"b": b"2"})
    ray.answers.append(({}, None))
    link.collect(100)
    ray.answers.append(({}, None))
    link.collect(100)
    assert ray.sent == [{}, {"a": b"1", "b": b"2"}, {}]


def test_a_beat_does_not_wait_for_the_head_to_listen(ray: Ray, link: ActorLink) -> None:
    link.send({"beat": b"1"})
    link.collect(100)
    ray.answers.append(({}, None))
    link.collect(100)
    link.send({"beat": b"2"})
    link.send({"beat": b"3"})
    assert ray.taken == [{"beat": b"2"}, {"beat": b"3"}]
    assert ray.sent == [{}, {}]


def test_a_dead_actor_is_an_ended_node(ray: Ray, link: ActorLink) -> None:
    link.collect(100)
    ray.answers.append(RayError("The actor died\nbecause"))
    assert link.collect(100) == {}
    assert link.state.phase is Phase.ENDED
    assert "The actor died" in link.state.reason


def test_a_method_that_raised_is_a_broken_link(ray: Ray, link: ActorLink) -> None:
    link.collect(100)
    ray.answers.append(RayTaskError())
    with pytest.raises(OSError, match="disk that is full"):
        link.collect(100)


def test_a_program_that_ended_gives_its_last_word_and_lets_its_cores_go(ray: Ray, link: ActorLink) -> None:
    link.collect(100)
    ray.answers.append(({"ended": b"{}"}, 1))
    assert link.collect(100) == {"ended": b"{}"}
    assert link.state.phase is Phase.ENDED
    assert ray.killed


def test_an_address_where_nobody_listens_is_known_at_once() -> None:
    with socket.socket() as nobody, socket.socket() as somebody:
        nobody.bind(("127.0.0.1", 0))
        somebody.bind(("127.0.0.1", 0))
        somebody.listen()
        knock(f"127.0.0.1:{somebody.getsockname()[1]}")
        knock("auto")
        with pytest.raises(OSError, match="refused"):
            knock(f"127.0.0.1:{nobody.getsockname()[1]}")

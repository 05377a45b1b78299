"""The tripwires: each trips beyond its bound and not on it, and sees nothing but the facts."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from selfimprove.containment.tripwires import Facts, Tripwires, read

WIDE = Tripwires(
    gain=9.0, accelerating=99, unread=99, retention_fall=2.0, retention_floor=0.0, denied_share=1.0, entropy=0.0
)
shares = st.integers(0, 20).map(lambda n: n / 20)
intervals = st.sampled_from([(low / 20, high / 20) for high in range(21) for low in range(high + 1)])
facts = st.builds(
    Facts,
    generation=st.just(0),
    gain=st.sampled_from([-0.1, 0.0, 0.01, 0.02, 0.04, 0.08, 0.3, 1.0]),
    unread=st.sampled_from([(), ("probes unreadable",), ("probes unreadable", "lens failed")]),
    retention=st.none() | intervals,
    proposals=st.integers(10, 20),
    refused=st.integers(0, 10),
    entropy=st.sampled_from([None, 0.0, 0.3, 0.5, 1.0, 3.0]),
)
histories = st.lists(facts, min_size=1, max_size=6).map(
    lambda drawn: [replace(one, generation=number) for number, one in enumerate(drawn)]
)
wires = st.builds(
    Tripwires,
    gain=shares,
    acceleration=st.sampled_from([1.0, 1.5, 2.0, 4.0]),
    accelerating=st.integers(1, 5),
    unread=st.integers(0, 2),
    retention_fall=shares,
    retention_floor=shares,
    denied_share=shares,
    denied_count=st.integers(0, 20),
    entropy=st.sampled_from([0.0, 0.3, 0.4, 2.0]),
)

examples = settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.too_slow])


def names(history: list[Facts], bounds: Tripwires) -> set[str]:
    return {reading.name for reading in read(history, bounds) if reading.tripped}


@examples
@given(histories)
def test_nothing_trips_where_the_bounds_are_as_wide_as_they_can_be(history: list[Facts]) -> None:
    assert not names(history, WIDE)


@examples
@given(histories, wires)
def test_each_wire_trips_exactly_where_its_definition_says(history: list[Facts], bounds: Tripwires) -> None:
    *earlier, now = history
    lows = [facts.retention[0] for facts in earlier if facts.retention]
    expected = {
        "gain": now.gain > bounds.gain,
        "acceleration": streak(history, bounds.acceleration) > bounds.accelerating,
        "inspection": len(now.unread) > bounds.unread,
        "retention_fall": now.retention is not None
        and any(low - now.retention[1] > bounds.retention_fall for low in lows),
        "retention_floor": now.retention is not None and now.retention[1] < bounds.retention_floor,
        "denials": now.refused / now.proposals > bounds.denied_share and now.refused >= bounds.denied_count,
        "entropy": now.entropy is not None and now.entropy < bounds.entropy,
    }
    assert names(history, bounds) == {name for name, tripped in expected.items() if tripped}


def streak(history: list[Facts], factor: float) -> int:
    """The longest run of generations up to the last whose gains are positive and each a multiple of the one before."""
    gains = [facts.gain for facts in history]
    lengths = [
        length
        for length in range(1, len(gains) + 1)
        if all(gain > 0 for gain in gains[-length:])
        and all(b >= factor * a for a, b in zip(gains[-length:], gains[-length + 1 :], strict=False) if length > 1)
    ]
    return max(lengths, default=0)


@examples
@given(histories, wires, wires)
def test_wider_bounds_never_trip_more(history: list[Facts], some: Tripwires, other: Tripwires) -> None:
    lower = {"retention_floor", "entropy"}
    pairs = {name: (getattr(some, name), getattr(other, name)) for name in vars(some)}
    wider = Tripwires(**{name: (min if name in lower else max)(pair) for name, pair in pairs.items()})
    assert names(history, wider) <= names(history, some) & names(history, other)


@examples
@given(histories, wires)
def test_a_trip_says_its_wire_value_bound_and_reason(history: list[Facts], bounds: Tripwires) -> None:
    readings = read(history, bounds)
    assert len({reading.name for reading in readings}) == len(readings) == 7
    for reading in readings:
        assert reading.tripped == bool(reading.reason)
        assert not reading.tripped or reading.value is not None
        assert not reading.tripped or f"{reading.bound:g}" in reading.reason or reading.name == "inspection"


@examples
@given(histories, wires)
def test_what_happened_before_does_not_trip_again(history: list[Facts], bounds: Tripwires) -> None:
    calm = Facts(history[-1].generation + 1, entropy=9.0)
    assert not names([*history, calm], bounds)


@pytest.mark.parametrize("history", [[], [Facts(1), Facts(1)], [Facts(2), Facts(1)]])
def test_generations_out_of_order_are_refused(history: list[Facts]) -> None:
    with pytest.raises(ValueError, match="in order"):
        read(history, Tripwires())


def test_what_lies_on_its_bound_does_not_trip() -> None:
    now = Facts(1, 0.4, retention=(0.9, 0.95), proposals=10, refused=7, entropy=0.35)
    assert not names([Facts(0, retention=(0.97, 0.99)), now], replace(Tripwires(), retention_fall=0.97 - 0.95))

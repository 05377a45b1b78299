from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import pytest

from selfimprove.app.schema import RULES, Range, Rules, build, convert
from selfimprove.errors import ConfigError


@dataclass(frozen=True)
class Inner:
    rate: float
    names: tuple[str, ...] = ()
    mode: Literal["fast", "slow"] = "fast"
    pair: tuple[int, int] = (0, 0)
    cap: int | None = None
    table: dict[str, float] | None = None


@dataclass(frozen=True)
class Outer:
    count: int
    flag: bool
    inner: Inner

    def __post_init__(self):
        if self.count == 13:
            raise ValueError("13 is unlucky")


GOOD = {"count": 3, "flag": True, "inner": {"rate": 1}}
RANGES = {"count": Range(1, 100, "things"), "inner.rate": Range(0, 10, "Hz")}


def make(**changes):
    inner = GOOD["inner"] | changes.pop("inner", {})
    return build(Outer, GOOD | changes | {"inner": inner}, rules=Rules(RANGES, {}))


def test_nested_plain_values_become_nested_dataclasses():
    wanted = Outer(3, True, Inner(1.0, ("a", "b"), "slow", (1, 2), None, {"x": 1.0}))
    inner = {"names": ["a", "b"], "mode": "slow", "pair": [1, 2], "cap": None, "table": {"x": 1}}
    assert make(inner=inner) == wanted


def test_a_whole_number_may_be_written_in_scientific_notation():
    assert make(count=1e2).count == 100
    assert type(make(count=1e2).count) is int


def test_an_integer_becomes_a_float_where_a_float_is_wanted():
    assert type(make().inner.rate) is float


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"cuont": 1}, ["cuont", "did you mean 'count'?"]),
        ({"inner": {"rat": 1}}, ["inner.rat", "did you mean 'inner.rate'?", "names"]),
        ({"rate": 1}, ["rate", "did you mean 'inner.rate'?"]),
        ({"count": 0}, ["set count", "got 0", "1 to 100 things", "count=1"]),
        ({"count": 1.5}, ["got 1.5", "a whole number"]),
        ({"count": True}, ["got True", "a whole number"]),
        ({"count": "five"}, ["got five", "a whole number"]),
        ({"count": None}, ["got null", "a whole number"]),
        ({"count": 13}, ["13 is unlucky"]),
        ({"flag": 1}, ["set flag", "true or false"]),
        ({"inner": {"rate": float("nan")}}, ["inner.rate", "nan", "0 to 10 Hz"]),
        ({"inner": {"rate": 11}}, ["inner.rate", "0 to 10 Hz"]),
        ({"inner": {"mode": "fats"}}, ["got fats", "fast, slow", "did you mean 'fast'?"]),
        ({"inner": {"names": "a"}}, ["inner.names", "a list"]),
        ({"inner": {"names": [1]}}, ["inner.names[0]", "text"]),
        ({"inner": {"pair": [1]}}, ["a list of 2 values"]),
        ({"inner": {"cap": "x"}}, ["inner.cap", "a whole number"]),
    ],
)
def test_a_wrong_value_is_refused_with_key_value_limit_and_remedy(changes, says):
    with pytest.raises(ConfigError) as refusal:
        make(**changes)
    assert all(part in str(refusal.value) for part in says), str(refusal.value)


@pytest.mark.parametrize("key", RULES.ranges)
def test_the_value_that_is_named_as_the_nearest_is_taken(key):
    interval = RULES.ranges[key]
    for beyond in (interval.low - 1, 2 * interval.high + 1):
        with pytest.raises(ConfigError) as refusal:
            convert(float, beyond, path=key, rules=RULES)
        named = float(str(refusal.value).rpartition(f"the nearest is {key}=")[2])
        assert convert(float, named, path=key, rules=RULES) in (interval.low, interval.high)


def test_a_missing_key_is_named():
    with pytest.raises(ConfigError, match=r"inner\.rate"):
        build(Outer, {"count": 1, "flag": True, "inner": {}})


def test_a_value_in_place_of_a_group_is_refused():
    with pytest.raises(ConfigError, match="a group with the keys rate"):
        build(Outer, {"count": 1, "flag": True, "inner": 5})

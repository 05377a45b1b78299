from __future__ import annotations

import json
import math

import pytest
import rfc8785
from hypothesis import given
from hypothesis import strategies as st

from selfimprove.canonical import canonical, parse
from selfimprove.errors import LedgerError

LARGEST = 2**53 - 1
scalars = (
    st.none() | st.booleans() | st.integers(-LARGEST, LARGEST) | st.floats(allow_nan=False, allow_infinity=False)
) | st.text(st.characters(exclude_categories=["Cs"]), max_size=8)
keys = st.text(st.characters(exclude_categories=["Cs"]), max_size=4)
values = st.recursive(scalars, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(keys, inner, max_size=4))


@given(values)
def test_what_rfc_8785_can_encode_is_encoded_as_it_says(value: object) -> None:
    assert canonical(value) == rfc8785.dumps(value)  # type: ignore[arg-type]


@given(st.integers())
def test_integers_of_any_size_are_kept_exactly(value: int) -> None:
    assert parse(canonical({"flops": value})) == {"flops": value}


@given(values | st.floats(1e15, 1e25))
def test_encoding_what_was_decoded_changes_nothing(value: object) -> None:
    encoded = canonical(value)
    assert canonical(parse(encoded)) == encoded


@pytest.mark.parametrize("number", [math.nan, math.inf, -math.inf])
def test_a_number_that_is_not_finite_is_refused_with_its_path_and_value(number: float) -> None:
    with pytest.raises(LedgerError, match=rf"tasks\.recall\[1\].*got {number!r}.*finite"):
        canonical({"tasks": {"recall": [0.5, number]}})


def test_an_integer_too_large_to_be_read_again_is_refused_with_its_path() -> None:
    with pytest.raises(LedgerError, match=r"encode tasks\.size: got an integer of 16610 bits.*4300 digits"):
        canonical({"tasks": {"size": 10**5000}})


@pytest.mark.parametrize("value", [b"bytes", {1: "a"}, {"a": {2, 3}}, "\ud800", {"\ud800": 1}, object()])
def test_what_json_lacks_is_refused(value: object) -> None:
    with pytest.raises(LedgerError):
        canonical(value)


def test_values_nested_without_end_are_refused() -> None:
    value: list[object] = []
    value.append(value)
    with pytest.raises(LedgerError, match="nested"):
        canonical(value)


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"{",
        b"NaN",
        b"-Infinity",
        b"1e999",
        b'{"a":[-1e999]}',
        b"9" * 400 + b".5",
        b'{"a":1,"a":2}',
        b'"\xff"',
        b"[" * 100_000,
        b"9" * 5000,
        '"x"'.encode("utf-16"),
    ],
)
def test_bytes_that_are_not_strict_json_are_refused(data: bytes) -> None:
    with pytest.raises(LedgerError, match="read JSON"):
        parse(data)


def test_ordinary_json_is_read_as_json_reads_it() -> None:
    text = b' {"b": [1, 2.5, null], "a": "\\u00e9"} '
    assert parse(text) == json.loads(text)

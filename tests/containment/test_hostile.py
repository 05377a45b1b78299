"""What a worker says is checked at a price that is known, since nobody is watched meanwhile."""

from __future__ import annotations

import json
import sys
from unittest.mock import Mock

import pytest

from selfimprove.containment import hostile
from selfimprove.containment.worker import ExitReport


def test_plain_keys_are_let_pass_without_a_search(monkeypatch: pytest.MonkeyPatch) -> None:
    plain = {f"key {i} \N{GREEK SMALL LETTER MU}": i for i in range(1000)}
    unsafe = Mock(wraps=hostile._UNSAFE)
    monkeypatch.setattr(hostile, "_UNSAFE", unsafe)
    message = json.dumps(plain).encode()
    assert hostile.parse_object(message, len(message)) == plain
    assert not unsafe.method_calls


def test_no_unsafe_character_is_plain() -> None:
    every = "".join(map(chr, range(sys.maxunicode + 1)))
    assert [character for character in hostile._UNSAFE.findall(every) if character.isprintable()] == []


@pytest.mark.parametrize("key", ["a\x1b[2Jb", "\x7f", "a\u202eb", "\ud800", "x" * 501])
def test_a_key_that_is_unsafe_or_too_long_is_refused(key: str) -> None:
    message = json.dumps({key: 1}).encode()
    with pytest.raises(hostile.ProtocolError, match="unprintable or overlong key"):
        hostile.parse_object(message, len(message))


@pytest.mark.parametrize("key", ["two\nlines", "a\tb", "a\xa0b"])
def test_a_key_that_is_odd_and_harmless_is_kept(key: str) -> None:
    message = json.dumps({key: 1}).encode()
    assert hostile.parse_object(message, len(message)) == {key: 1}


@pytest.mark.parametrize("seconds", ["nan", "inf", -1.0, 1e999])
def test_a_zygote_cannot_report_processor_time_that_no_limit_meets(seconds: object) -> None:
    message = {"status": 0, "cpu_seconds": seconds, "max_rss_bytes": 0}
    with pytest.raises(ValueError, match="processor time; allowed: a finite number, 0 or more"):
        ExitReport.parse(message)

"""Reading what a worker says, on the assumption that it means harm: sizes, depth, types and text are all checked."""

from __future__ import annotations

import json
import math
import re
from typing import Any, Final, NoReturn

from selfimprove.containment.sandbox import wire

TOTAL_EVENT_BYTES: Final = 64 * 1024 * 1024
DEPTH: Final = 32
VALUES: Final = 200_000  # parsing so many takes a quarter of a second, in which nobody is watched
INTEGER_DIGITS: Final = 20
TEXT_CHARACTERS: Final = 64 * 1024

# Control characters (terminal escapes start with one), bidirectional overrides, and surrogates that UTF-8 cannot hold.
_UNSAFE = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ufeff\ud800-\udfff]")
_ESCAPE_SEQUENCE = re.compile(r"\x1b(?:\[[0-?]*[ -/]*[@-~]|\][^\x07\x1b]*(?:\x07|\x1b\\)?|[@-Z\\-_])")


class ProtocolError(Exception):
    """A worker's message that is refused."""


def clean(text: str, limit: int = TEXT_CHARACTERS) -> str:
    """Return text that is safe to log and print: no terminal escapes, no control characters but newline and tab.

    >>> clean("a\\x1b[31mb\\x07")
    'ab'
    """
    cleaned = _UNSAFE.sub("", _ESCAPE_SEQUENCE.sub("", text[: limit * 2]))
    return cleaned if len(cleaned) <= limit else cleaned[: limit - 1] + "…"


def clean_line(text: str, limit: int = 500) -> str:
    """Return ``clean(text)`` on one line, for a reason or a log field."""
    return clean(" ".join(text[: limit * 4].split()), limit)


def parse_object(data: bytes, cap: int) -> dict[str, Any]:
    """Parse one JSON object strictly.

    Args:
        data: the message's bytes.
        cap: most bytes accepted.

    Raises:
        ProtocolError: too large, too deep, not UTF-8, not an object, a duplicate or unprintable key, a number that is
            not finite or has too many digits.
    """
    if len(data) > cap:
        raise ProtocolError(f"a message of {len(data)} bytes; allowed: {cap}")
    if data.count(b",") + data.count(b"[") + data.count(b"{") > VALUES:
        raise ProtocolError(f"a message of more than {VALUES} values")
    try:
        value = json.loads(
            data.decode(),
            object_pairs_hook=_object,
            parse_int=_integer,
            parse_float=_float,
            parse_constant=_refuse_constant,
        )
    except RecursionError:
        raise ProtocolError(f"a message nested deeper than {DEPTH}") from None
    except ValueError as error:  # malformed JSON or UTF-8
        raise ProtocolError(f"a message that is not JSON: {clean_line(str(error), 200)}") from None
    if not isinstance(value, dict):
        raise ProtocolError(f"a message that is no object but {type(value).__name__}")
    cleaned: dict[str, Any] = _clean_value(value, 0)
    return cleaned


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ProtocolError("a message with a duplicate key")
    for key in found:
        unsafe = not key.isprintable() and _UNSAFE.search(key)  # no unsafe character is printable
        if len(key) > 500 or unsafe:
            raise ProtocolError("a message with an unprintable or overlong key")
    return found


def _integer(text: str) -> int:
    if len(text) > INTEGER_DIGITS:
        raise ProtocolError(f"an integer of {len(text)} digits; allowed: {INTEGER_DIGITS}")
    return int(text)


def _float(text: str) -> float:
    value = float(text)
    if not math.isfinite(value):
        raise ProtocolError("a number that is not finite")
    return value


def _refuse_constant(text: str) -> NoReturn:
    raise ProtocolError(f"a number that is not finite: {text}")


def _clean_value(value: Any, depth: int) -> Any:
    if depth > DEPTH:
        raise ProtocolError(f"a message nested deeper than {DEPTH}")
    if isinstance(value, str):
        if len(value) > TEXT_CHARACTERS:
            raise ProtocolError(f"a text of {len(value)} characters; allowed: {TEXT_CHARACTERS}")
        return clean(value)
    if isinstance(value, list):
        return [_clean_value(item, depth + 1) for item in value]
    if isinstance(value, dict):
        return {key: _clean_value(item, depth + 1) for key, item in value.items()}
    return value


class FrameReader:
    """Cuts a worker's byte stream into frames, and refuses a stream that breaks the rules.

    Events show life and progress. All are counted; of those that arrive together only the last is parsed, since a flood
    of tiny ones would otherwise take the time in which other workers are watched.
    """

    def __init__(self) -> None:
        self._buffer = bytearray()
        self.event_bytes = 0
        self.event: dict[str, Any] | None = None
        self.result: dict[str, Any] | None = None
        self.failure: dict[str, Any] | None = None

    @property
    def finished(self) -> bool:
        """True once the worker has had its last word."""
        return self.result is not None or self.failure is not None

    def feed(self, data: bytes) -> int:
        """Take bytes; returns how many whole frames they completed.

        Raises:
            ProtocolError: an unknown or oversized frame, a refused message, or anything after the last word.
        """
        self._buffer += data
        frames, position = 0, 0
        event: bytes | None = None
        while len(self._buffer) >= position + wire.HEADER.size:
            kind, length = wire.HEADER.unpack_from(self._buffer, position)
            cap = wire.FRAME_BYTES.get(kind)
            if cap is None:
                raise ProtocolError("a frame of unknown kind")
            if length > cap:
                raise ProtocolError(f"a frame of {length} bytes; allowed: {cap}")
            end = position + wire.HEADER.size + length
            if len(self._buffer) < end:
                break
            if self.finished:
                raise ProtocolError("a message after the result")
            body = bytes(self._buffer[position + wire.HEADER.size : end])
            if kind == wire.EVENT:
                self.event_bytes += wire.HEADER.size + length
                event = body
            else:
                self._take(kind, body, cap)
            position = end
            frames += 1
        del self._buffer[:position]
        if event is not None:
            self.event = parse_object(event, wire.FRAME_BYTES[wire.EVENT])
        return frames

    def _take(self, kind: bytes, body: bytes, cap: int) -> None:
        message = parse_object(body, cap)
        if kind == wire.RESULT:
            self.result = message
        else:
            self.failure = message

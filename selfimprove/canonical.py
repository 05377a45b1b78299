"""Canonical JSON: the one byte form of a value that is hashed, signed and stored.

RFC 8785, with one addition: integers beyond 2**53 are written exactly. FLOP totals and 63-bit seeds are that large, and
our readers (Python) keep them exact; a reader that parses numbers as doubles must not re-encode them.
"""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Mapping
from json.encoder import encode_basestring
from typing import Any, NoReturn

import rfc8785

from selfimprove.errors import LedgerError


def canonical(value: Any) -> bytes:
    """Encode ``value`` (JSON types only; tuples count as arrays) as canonical JSON in UTF-8.

    Floats that hold whole numbers lose their point (``4.0`` becomes ``4``), as the RFC demands.

    Raises:
        LedgerError: a number that is not finite or has too many digits for `parse`, a key that is not text, or a type
            that JSON lacks; names the path.
    """
    try:
        return _encode(value)
    except ValueError:  # of the encoder, of UTF-8, and of Python for an integer that it does not print
        _refuse(value, "")
        raise  # unreachable while _refuse knows every reason that the encoder has
    except RecursionError:
        raise LedgerError("encode canonical JSON", limit="values that are not nested this deeply") from None


def finite(value: object) -> float | None:
    """A number that JSON can hold, None for anything else; booleans are no numbers here."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    try:
        return float(value) if math.isfinite(value) else None
    except OverflowError:
        return None


def parse(data: bytes) -> Any:
    """Decode JSON strictly: UTF-8, finite numbers, no duplicate keys.

    Raises:
        LedgerError: anything else, also numbers and nestings too large to read.
    """
    try:
        return json.loads(
            data.decode("utf-8"),
            parse_float=_finite_float,
            parse_constant=_no_constant,
            object_pairs_hook=_no_duplicates,
        )
    except (ValueError, RecursionError) as error:
        raise LedgerError(f"read JSON: {type(error).__name__}: {error}") from None


def _encode(value: Any) -> bytes:
    if isinstance(value, str):
        return _quoted(value)
    if isinstance(value, int) and not isinstance(value, bool):
        return b"%d" % value
    if isinstance(value, Mapping):
        if not all(isinstance(key, str) for key in value):
            raise rfc8785.CanonicalizationError("object keys must be strings")
        keys = sorted(value) if all(map(str.isascii, value)) else sorted(value, key=lambda key: key.encode("utf-16be"))
        return b"{" + b",".join(_quoted(key) + b":" + _encode(value[key]) for key in keys) + b"}"
    if isinstance(value, list | tuple):
        return b"[" + b",".join(map(_encode, value)) + b"]"
    return rfc8785.dumps(value)


def _quoted(text: str) -> bytes:
    """As ``rfc8785.dumps`` has it, in C: Python escapes the same characters in the same way."""
    return encode_basestring(text).encode()


def _refuse(value: Any, path: str) -> None:
    """Raise for the first value that cannot be encoded, naming its path."""
    operation = f"encode {path.lstrip('.') or 'the value'}"
    if isinstance(value, Mapping):
        for key, item in value.items():
            if not isinstance(key, str):
                raise LedgerError(operation, key, "keys that are text")
            _refuse(key, f"{path}.<key>")
            _refuse(item, f"{path}.{key}")
    elif isinstance(value, list | tuple):
        for position, item in enumerate(value):
            _refuse(item, f"{path}[{position}]")
    elif isinstance(value, float):
        if not math.isfinite(value):
            raise LedgerError(operation, value, "finite numbers", "record the reason as text and the number as null")
    elif isinstance(value, str):
        try:
            value.encode("utf-8")
        except UnicodeEncodeError:
            raise LedgerError(operation, value, "text that UTF-8 can hold") from None
    elif isinstance(value, int):
        try:
            str(value)
        except ValueError:
            size, most = f"an integer of {value.bit_length()} bits", f"at most {sys.get_int_max_str_digits()} digits"
            raise LedgerError(operation, size, most) from None
    elif value is not None:
        raise LedgerError(operation, value, "null, booleans, numbers, text, arrays and objects")


def _finite_float(text: str) -> float:
    if not math.isfinite(number := float(text)):
        raise ValueError(f"{text[:40]} is beyond what a float holds")
    return number


def _no_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not JSON")


def _no_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    mapping = dict(pairs)
    if len(mapping) != len(pairs):
        raise ValueError("a key occurs twice in one object")
    return mapping

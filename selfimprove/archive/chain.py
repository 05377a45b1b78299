"""The chain: one entry of the ledger as bytes, and the verification of all of them.

A line is canonical JSON with the keys ``body hash index kind previous signature time`` and a newline. ``hash`` is
the SHA-256 of the same object without ``hash`` and ``signature``; ``previous`` is the hash of the line before; the
signature is Ed25519 over a domain prefix and the hash. A line whose bytes are not exactly these is not a valid entry,
so no byte of it can change unnoticed.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import Any

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from selfimprove.canonical import canonical, parse
from selfimprove.errors import LedgerError

GENESIS = "0" * 64  # `previous` of the first entry
DOMAIN = b"selfimprove-ledger-entry\n"  # keeps a signature from being valid for a permit under the same key
FIRST_BYTES = b'{"body":'


@dataclass(frozen=True, slots=True)
class Entry:
    """One record of the ledger.

    Attributes:
        index: position, from 0.
        time: UTC, ISO 8601; when it was appended. Never enters a decision.
        kind: what the record is about.
        body: the record; JSON values only. To be read, never written to.
        previous, hash: SHA-256, hex.
        signature: Ed25519, hex.
    """

    index: int
    time: str
    kind: str
    body: dict[str, Any]
    previous: str
    hash: str
    signature: str


@dataclass(frozen=True)
class Problem:
    """A line that cannot be trusted; ``line`` counts from 1."""

    line: int
    what: str


@dataclass(frozen=True)
class Scan:
    """What a ledger's bytes hold.

    Attributes:
        entries: by line; ``None`` where the line is no entry at all.
        problems: every departure from the chain, in order of lines.
        tail: bytes after the last newline.
        public_key: the key that signatures were checked against, hex; ``None`` when none was known.
    """

    entries: tuple[Entry | None, ...]
    problems: tuple[Problem, ...]
    tail: bytes
    public_key: str | None


def digest(index: int, time: str, kind: str, body: bytes, previous: str) -> str:
    """The hash of an entry, hex; ``body`` is canonical JSON already."""
    return hashlib.sha256(_object(body, None, index, kind, previous, None, time)).hexdigest()


def encode(entry: Entry) -> bytes:
    """The one byte form of ``entry``, with its newline."""
    body = canonical(entry.body)
    return _object(body, entry.hash, entry.index, entry.kind, entry.previous, entry.signature, entry.time) + b"\n"


def decode(line: bytes) -> Entry:
    """Read one line (without its newline) and check everything that the line alone can show.

    Raises:
        LedgerError: the line is not exactly what :func:`encode` writes, or its hash is not that of its content.
    """
    fields = parse(line)
    types = {"body": dict, "hash": str, "index": int, "kind": str, "previous": str, "signature": str, "time": str}
    if not isinstance(fields, dict) or fields.keys() != types.keys():
        raise LedgerError("read an entry", limit=f"an object with the keys {', '.join(types)}")
    for name, kind in types.items():
        if type(fields[name]) is not kind:
            raise LedgerError(f"read an entry's {name}", type(fields[name]).__name__, kind.__name__)
    entry = Entry(**fields)
    body = canonical(entry.body)
    if digest(entry.index, entry.time, entry.kind, body, entry.previous) != entry.hash:
        raise LedgerError("the hash is not that of the content")
    if _object(body, entry.hash, entry.index, entry.kind, entry.previous, entry.signature, entry.time) != line:
        raise LedgerError("the line is not in canonical form")
    return entry


def scan(data: bytes, public_key: str | None = None) -> Scan:
    """Verify a whole ledger; never raises.

    Args:
        data: the ledger file.
        public_key: the key to trust, hex; by default the one that the first entry states.
    """
    *lines, tail = data.split(b"\n")
    entries: list[Entry | None] = []
    problems: list[Problem] = []
    verifier = _verifier(public_key)
    for number, line in enumerate(lines, start=1):
        try:
            entry = decode(line)
        except LedgerError as error:
            entries.append(None)
            problems.append(Problem(number, f"not a valid entry: {error}"))
            continue
        if number == 1 and public_key is None:
            public_key = str(entry.body.get("public_key", ""))
            verifier = _verifier(public_key)
        before = entries[-1] if entries else None
        problems += [Problem(number, what) for what in _broken_links(entry, number, before, verifier)]
        entries.append(entry)
    return Scan(tuple(entries), tuple(problems), tail, public_key)


def message(entry_hash: str) -> bytes:
    """The bytes that an entry's signature covers."""
    return DOMAIN + entry_hash.encode()


def is_torn(tail: bytes) -> bool:
    """Whether bytes after the last newline can come from an append that a crash cut short.

    Such a tail is a proper beginning of a line, perhaps followed by zeros that a file system left after a power cut. A
    whole valid entry with one more byte in the place of its newline cannot: that newline was changed.
    """
    start = tail.rstrip(b"\0")
    if not (start.startswith(FIRST_BYTES) or FIRST_BYTES.startswith(start)) or any(byte < 0x20 for byte in start):
        return False
    try:
        decode(tail[:-1])
    except LedgerError:
        return True
    return False


def _broken_links(entry: Entry, number: int, before: Entry | None, verifier: Ed25519PublicKey | None) -> list[str]:
    broken = []
    if entry.index != number - 1:
        broken.append(f"index {entry.index} where {number - 1} belongs")
    if (number == 1 and entry.previous != GENESIS) or (before is not None and entry.previous != before.hash):
        broken.append("'previous' is not the hash of the line before")
    if number == 1 and entry.kind != "run":
        broken.append(f"the first entry is {entry.kind!r}, not 'run'")
    if verifier is None:
        if number == 1:
            broken.append("no usable public key to verify signatures with")
    elif not _is_signed(entry, verifier):
        broken.append("the signature does not verify")
    return broken


def _is_signed(entry: Entry, verifier: Ed25519PublicKey) -> bool:
    try:
        signature = bytes.fromhex(entry.signature)
        verifier.verify(signature, message(entry.hash))
    except (ValueError, InvalidSignature):
        return False
    return signature.hex() == entry.signature  # upper-case hex is another byte with the same meaning


def _verifier(public_key: str | None) -> Ed25519PublicKey | None:
    try:
        return Ed25519PublicKey.from_public_bytes(bytes.fromhex(public_key or ""))
    except ValueError:
        return None


def _object(
    body: bytes, hashed: str | None, index: int, kind: str, previous: str, signature: str | None, time: str
) -> bytes:
    """Canonical JSON of an entry from a body that is encoded already: encoding is most of the cost of verifying."""
    parts = [b'"body":' + body]
    if hashed is not None:
        parts.append(b'"hash":' + canonical(hashed))
    parts += [b'"index":%d' % index, b'"kind":' + canonical(kind), b'"previous":' + canonical(previous)]
    if signature is not None:
        parts.append(b'"signature":' + canonical(signature))
    parts.append(b'"time":' + canonical(time))
    return b"{" + b",".join(parts) + b"}"

"""Ledgers that were changed after the fact, by somebody with the run folder, or even with the key."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from selfimprove.archive.anchor import FileAnchor
from selfimprove.archive.audit import audit
from selfimprove.archive.ledger import LEDGER_NAME, Ledger, read
from selfimprove.containment.keys import SigningKey
from selfimprove.containment.redteam.attack import TrustedAttack
from selfimprove.errors import LedgerError

_NOTES = 5
_RUN = "redteam"


@dataclass(frozen=True)
class Book:
    """A run folder with a ledger, its key, and the anchor outside of the folder."""

    folder: Path
    key: SigningKey
    anchor: FileAnchor

    @property
    def path(self) -> Path:
        """The ledger file."""
        return self.folder / LEDGER_NAME

    def ledger(self) -> Ledger:
        """Open it to append."""
        return Ledger.open(self.path, self.key, self.anchor)

    def lines(self) -> list[bytes]:
        """Its entries as they are on the disk."""
        return self.path.read_bytes().splitlines(keepends=True)


def open_book(folder: Path, notes: int = 0) -> Book:
    """Start a run with a ledger of ``notes`` entries after the first."""
    book = Book(folder / "run", SigningKey.generate(), FileAnchor(folder / "state"))
    _write(book, notes)
    return book


def _write(book: Book, notes: int, *, run_id: str = _RUN, flops: int = 10) -> None:
    book.folder.mkdir(parents=True, exist_ok=True)
    with Ledger.create(book.path, book.key, book.anchor, {"run_id": run_id, "limits": {"flops": 1000}}) as ledger:
        for number in range(notes):
            ledger.append("note", {"number": number, "flops": flops})


def _changed(change: Callable[[list[bytes]], list[bytes]]) -> Callable[[Path], Book]:
    """Return a forger that changes the lines of a ledger."""

    def make(folder: Path) -> Book:
        book = open_book(folder, _NOTES)
        book.path.write_bytes(b"".join(change(book.lines())))
        return book

    return make


def _edited(lines: list[bytes]) -> list[bytes]:
    return [line.replace(b'"flops":10', b'"flops":11') if number == 2 else line for number, line in enumerate(lines)]


def _rewritten(own_key: bool) -> Callable[[Path], Book]:
    """Return a forger that writes the whole ledger anew, every hash and signature in order."""

    def make(folder: Path) -> Book:
        book = open_book(folder, _NOTES)
        key = book.key if own_key else SigningKey.generate()
        other = Book(folder / "rewritten", key, FileAnchor(folder / "elsewhere"))
        _write(other, _NOTES, flops=1)
        book.path.write_bytes(other.path.read_bytes())
        return book

    return make


def _begun_anew(folder: Path) -> Book:
    """A chain of nobody's run, under a run id that has no anchor and a key of the forger's own."""
    book = open_book(folder, _NOTES)
    other = Book(folder / "elsewhere", SigningKey.generate(), FileAnchor(folder / "forger"))
    _write(other, _NOTES, run_id="somebody", flops=1)
    book.path.write_bytes(other.path.read_bytes())
    return book


def _spliced(folder: Path) -> Book:
    """An entry of another run under the same key, valid where it stood."""
    book = open_book(folder, _NOTES)
    other = Book(folder / "other", book.key, FileAnchor(folder / "elsewhere"))
    _write(other, _NOTES, flops=1)
    lines = book.lines()
    lines[3] = other.lines()[3]
    book.path.write_bytes(b"".join(lines))
    return book


def _verified(book: Book) -> bool:
    read(book.path, book.anchor)
    return True


def _as_text(book: Book) -> bool:
    """A reader of plain JSON lines."""
    return all(isinstance(json.loads(line), dict) for line in book.lines())


def _without_anchor(book: Book) -> bool:
    """The real reader, with nothing outside the run folder to compare with."""
    return bool(read(book.path, None))


def _audited(book: Book) -> bool:
    for finding in audit(book.folder, book.anchor, book.key.public_key_hex).findings:
        raise LedgerError("audit the run", finding.what, "no finding")
    return True


def _audited_as_foreign(book: Book) -> bool:
    """The real audit, told to take a run of any machine."""
    return audit(book.folder, book.anchor).ok


_CHAIN = "every entry holds the hash of the one before, and of itself"
_ANCHOR = "the head is anchored outside the run folder"

ATTACKS = (
    TrustedAttack("edit", "change a number in an entry", _changed(_edited), _verified, _as_text, _CHAIN),
    TrustedAttack("delete", "delete an entry", _changed(lambda lines: [*lines[:2], *lines[3:]]), _verified, _as_text,
                  _CHAIN),
    TrustedAttack("reorder", "exchange two entries",
                  _changed(lambda lines: [*lines[:2], lines[3], lines[2], *lines[4:]]), _verified, _as_text, _CHAIN),
    TrustedAttack("duplicate", "repeat an entry", _changed(lambda lines: [*lines[:3], lines[2], *lines[3:]]), _verified,
                  _as_text, _CHAIN),
    TrustedAttack("splice", "put in an entry of another run", _spliced, _verified, _as_text, _CHAIN),
    TrustedAttack("truncate", "cut the last entries off", _changed(lambda lines: lines[:-2]), _verified,
                  _without_anchor, _ANCHOR),
    TrustedAttack("another_key", "write the whole chain anew with another key", _rewritten(False), _verified,
                  _without_anchor, _ANCHOR),
    TrustedAttack("own_key", "write the whole chain anew with the installation's own key", _rewritten(True), _verified,
                  _without_anchor, _ANCHOR),
    TrustedAttack("another_run", "write a chain of a run that never was, with another key", _begun_anew, _audited,
                  _audited_as_foreign, "what is not anchored must be signed with the installation's own key"),
)  # fmt: skip

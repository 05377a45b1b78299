"""The ledger: an append-only, hash-chained, signed record of a run, one JSON line an entry.

An append is durable when it returns: one write, one fdatasync, then the anchor outside the run folder moves on.
Whatever a kill or a power cut leaves behind is read again by :meth:`Ledger.open`, or refused with the line to blame.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from types import TracebackType
from typing import Any, Protocol, Self

from selfimprove.archive.anchor import Anchor, AnchorRecord
from selfimprove.archive.chain import GENESIS, Entry, Scan, digest, encode, is_torn, message, scan
from selfimprove.archive.files import (
    LEFTOVER,
    disk_error,
    fsync_folder,
    is_plain_name,
    lock,
    make_folder,
    open_regular,
    read_regular,
    write_atomic,
)
from selfimprove.archive.records import LEDGER_NAME
from selfimprove.canonical import canonical, parse
from selfimprove.errors import LedgerError, RunError

__all__ = ["LEDGER_NAME", "Entry", "Ledger", "Signer", "read", "utc_now"]

RECOVERED = "recovered"
_REMEDY = "run `selfimprove audit` for every finding; restore the run folder from a copy, or start a new run"


class Signer(Protocol):
    """Holder of the Ed25519 key that signs the ledger."""

    def sign(self, message: bytes, /) -> bytes: ...

    @property
    def public_key_hex(self) -> str: ...


def utc_now() -> str:
    """The time of an entry: UTC, ISO 8601, microseconds."""
    return datetime.now(UTC).isoformat(timespec="microseconds").replace("+00:00", "Z")


def read(path: Path, anchor: Anchor | None = None) -> tuple[Entry, ...]:
    """Read and verify a ledger without changing anything; a torn last line is left out. For running runs, too.

    Raises:
        RunError: no ledger there, or it cannot be read.
        LedgerError: it was changed, or it is behind or beside its anchor.
    """
    path = Path(path)
    return _verified(path, _load(path, anchor))


class Ledger:
    """The one writer of a run's ledger file; holds a lock on it until closed. Not for use by several threads."""

    def __init__(
        self,
        path: Path,
        descriptor: int,
        signer: Signer,
        anchor: Anchor | None,
        entries: list[Entry],
        clock: Callable[[], str],
    ) -> None:
        """Use :meth:`create` or :meth:`open`."""
        self.path = path
        self._descriptor = descriptor
        self._signer = signer
        self._anchor = anchor
        self._entries = entries
        self._clock = clock
        self._size = os.fstat(descriptor).st_size
        self._broken = False

    @classmethod
    def create(
        cls,
        path: Path,
        signer: Signer,
        anchor: Anchor | None,
        body: dict[str, Any],
        *,
        prepare: Callable[[], object] = lambda: None,
        clock: Callable[[], str] = utc_now,
    ) -> Self:
        """Start a ledger with its ``run`` entry, to which the signer's public key is added.

        Args:
            path: the file; must not exist.
            anchor: ``None`` leaves the ledger unanchored.
            body: the ``run`` record; ``run_id`` names the anchor.
            prepare: writes the files that ``body`` names; called while nobody else can start a ledger there.

        Raises:
            RunError: the file exists, another process is creating it, or it cannot be written.
            LedgerError: no usable ``run_id``, or one that has an anchor already.
        """
        path = Path(path)
        run_id = body.get("run_id")
        if not is_plain_name(run_id):
            raise LedgerError("create a ledger with run_id", run_id, "1 to 128 letters, digits, '.', '_' or '-'")
        if anchor is not None and anchor.read(str(run_id)) is not None:
            raise LedgerError("create a ledger with run_id", run_id, "ids without an anchor", "choose another run id")
        record = {**body, "public_key": signer.public_key_hex}
        canonical(record)  # refuse before the file exists
        fresh = path.with_name(path.name + LEFTOVER)  # the file gets its name with its first entry, never without one
        try:
            descriptor = os.open(fresh, os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW, 0o644)
            try:
                lock(descriptor, path)
                if os.path.lexists(path):
                    remedy = "another process has begun this run: wait or halt it"
                    raise RunError("create the ledger", f"{path}, which exists", "one process at a time", remedy)
                prepare()
                os.ftruncate(descriptor, 0)
                ledger = cls(path, descriptor, signer, anchor, [], clock)
                ledger.append("run", record)
                os.rename(fresh, path)
                fsync_folder(path.parent)
            except BaseException:
                os.close(descriptor)
                raise
        except OSError as error:
            raise disk_error("create the ledger", path, error) from error
        return ledger

    @classmethod
    def open(cls, path: Path, signer: Signer, anchor: Anchor | None, *, clock: Callable[[], str] = utc_now) -> Self:
        """Open a ledger to append to it: verify all of it, and set a line torn by a crash aside.

        The torn bytes go to ``recovered/ledger-<index>.part`` and a ``recovery`` entry names them.

        Raises:
            RunError: no ledger there, another process writes to it, or the disk refuses.
            LedgerError: the chain, a signature or the anchor does not agree, or the signer is not the run's.
        """
        path = Path(path)
        try:
            descriptor = os.open(path, os.O_RDWR | os.O_APPEND | os.O_NOFOLLOW)
        except OSError as error:
            raise disk_error("open the ledger", path, error) from error
        try:
            lock(descriptor, path)
            found = _load(path, anchor)
            entries = _verified(path, found)
            key = entries[0].body.get("public_key")
            if key != signer.public_key_hex:
                raise LedgerError(
                    f"sign the ledger {path} with key", signer.public_key_hex, f"{key}", "resume where it was started"
                )
            ledger = cls(path, descriptor, signer, anchor, list(entries), clock)
            ledger._set_torn_line_aside(found[0].tail)
            ledger._update_anchor()
        except BaseException:
            os.close(descriptor)
            raise
        return ledger

    @property
    def entries(self) -> tuple[Entry, ...]:
        """All entries, oldest first."""
        return tuple(self._entries)

    @property
    def run_id(self) -> str:
        return str(self._entries[0].body["run_id"])

    def append(self, kind: str, body: dict[str, Any]) -> Entry:
        """Write one entry; when this returns it is on the disk and anchored.

        The returned entry's body is what a reader will see: ``4.0`` has become ``4``, a tuple a list.

        Raises:
            LedgerError: a value that has no place in JSON (with its path), or a file that something else wrote to.
            RunError: the disk is full or refuses; the file is cut back to its last whole line.
        """
        encoded = canonical(body)
        index, previous, time = len(self._entries), self._entries[-1].hash if self._entries else GENESIS, self._clock()
        hashed = digest(index, time, kind, encoded, previous)
        signature = self._signer.sign(message(hashed)).hex()
        entry = Entry(index, time, kind, parse(encoded), previous, hashed, signature)
        self._write(encode(entry))
        self._entries.append(entry)
        self._update_anchor()
        return entry

    def close(self) -> None:
        """Release the file and its lock; closing twice is allowed."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1
        self._broken = True

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _write(self, line: bytes) -> None:
        if self._broken:
            raise LedgerError(f"append to the ledger {self.path}", limit="an open ledger", remedy="open it again")
        if os.fstat(self._descriptor).st_size != self._size:
            self._broken = True
            raise LedgerError(f"append to the ledger {self.path}", limit="one writer", remedy=_REMEDY)
        try:
            if os.write(self._descriptor, line) != len(line):
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))  # there was no room for the rest
            os.fdatasync(self._descriptor)
        except OSError as error:
            self._broken = True
            with contextlib.suppress(OSError):
                os.ftruncate(self._descriptor, self._size)
                os.fsync(self._descriptor)
                self._broken = False
            raise disk_error("append to the ledger", self.path, error) from error
        self._size += len(line)

    def _update_anchor(self) -> None:
        if self._anchor is not None:
            head = self._entries[-1]
            self._anchor.update(self.run_id, len(self._entries), head.hash, self._signer.public_key_hex)

    def _set_torn_line_aside(self, tail: bytes) -> None:
        part = self.path.parent / RECOVERED / f"ledger-{len(self._entries)}.part"
        try:
            if tail:
                make_folder(part.parent)
                write_atomic(part, tail)
                self._size -= len(tail)
                os.ftruncate(self._descriptor, self._size)
                os.fsync(self._descriptor)
            elif not part.exists():  # it does when a crash came between cutting the line off and recording that
                return
            data = part.read_bytes()
        except OSError as error:
            raise disk_error("recover the ledger", self.path, error) from error
        name = part.relative_to(self.path.parent).as_posix()
        self.append("recovery", {"path": name, "sha256": hashlib.sha256(data).hexdigest(), "bytes": len(data)})


def _load(path: Path, anchor: Anchor | None) -> tuple[Scan, AnchorRecord | None]:
    """Scan the ledger at ``path`` with its anchor's key. The anchor is read first: a running ledger moves on."""
    try:
        record = anchored(path, anchor)
        data = read_regular(path)
    except OSError as error:
        raise disk_error("read the ledger", path, error) from error
    return scan(data, record.public_key if record else None), record


def anchored(path: Path, anchor: Anchor | None) -> AnchorRecord | None:
    """The anchor of the ledger at ``path``, found by the run id in its first line; ``None`` when there is none."""
    with open_regular(path) as file:
        first = file.readline()
    try:
        run_id = parse(first)["body"]["run_id"]
    except (LedgerError, KeyError, TypeError):
        return None  # whoever reads the ledger next says that its first line is no entry
    return anchor.read(run_id) if anchor is not None and is_plain_name(run_id) else None


def anchor_problem(found: Scan, record: AnchorRecord) -> str | None:
    """How a ledger contradicts its anchor; ``None`` when it holds at least what was anchored."""
    if found.public_key != record.public_key:
        return "signed with another key than the anchored one"
    if len(found.entries) < record.count:
        return f"{len(found.entries)} whole entries where {record.count} were anchored: the end was cut off or changed"
    head = found.entries[record.count - 1]
    if head is not None and head.hash != record.head_hash:
        return f"entry {record.count - 1} is not the anchored one"
    return None


def _verified(path: Path, loaded: tuple[Scan, AnchorRecord | None]) -> tuple[Entry, ...]:
    found, record = loaded
    for problem in found.problems:
        raise LedgerError(f"verify {path} line {problem.line}: {problem.what}", remedy=_REMEDY)
    entries = tuple(entry for entry in found.entries if entry is not None)
    if found.tail and not is_torn(found.tail):
        raise LedgerError(f"verify {path} line {len(entries) + 1}: its end was changed", remedy=_REMEDY)
    if record is not None and (problem_text := anchor_problem(found, record)):
        raise LedgerError(f"verify {path} against its anchor: {problem_text}", remedy=_REMEDY)
    if not entries:
        raise RunError("read the ledger", str(path), "at least the run's first entry", "start a new run")
    return entries

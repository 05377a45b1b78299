"""The anchor: what the head of a ledger was, kept outside the run folder.

A hash chain alone cannot show that its end was cut off, or that the holder of the key wrote it anew. The anchor can.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Protocol

from selfimprove.archive.files import disk_error, is_plain_name, make_folder, write_atomic
from selfimprove.canonical import canonical, parse
from selfimprove.errors import LedgerError


@dataclass(frozen=True)
class AnchorRecord:
    """What is known about one ledger from outside of it.

    Attributes:
        run_id: the run whose ledger this is.
        count: entries that were durable when this was written.
        head_hash: ``hash`` of entry ``count - 1``, hex.
        public_key: Ed25519 key that signs the ledger, hex.
    """

    run_id: str
    count: int
    head_hash: str
    public_key: str


class Anchor(Protocol):
    """Where heads of ledgers are kept."""

    def update(self, run_id: str, count: int, head_hash: str, public_key: str) -> None: ...

    def read(self, run_id: str) -> AnchorRecord | None: ...


class FileAnchor:
    """One small file per run under ``<state_dir>/anchors``, readable by its owner only."""

    def __init__(self, state_dir: Path) -> None:
        self._folder = Path(state_dir) / "anchors"

    def path(self, run_id: str) -> Path:
        """The anchor file of ``run_id``.

        Raises:
            LedgerError: a run id that cannot be a file name.
        """
        if not is_plain_name(run_id):
            raise LedgerError("anchor a run", run_id, "1 to 128 letters, digits, '.', '_' or '-'")
        return self._folder / f"{run_id}.json"

    def update(self, run_id: str, count: int, head_hash: str, public_key: str) -> None:
        """Replace the anchor of ``run_id``.

        The rename is not made durable on its own: a power cut may bring an older anchor back, and then the ledger is
        ahead of its anchor, which is allowed. The next update makes the two agree.

        Raises:
            RunError: the state folder cannot be written.
        """
        path = self.path(run_id)
        record = AnchorRecord(run_id, count, head_hash, public_key)
        data = canonical(asdict(record)) + b"\n"
        make_folder(self._folder, mode=0o700)
        write_atomic(path, data, mode=0o600, sync_folder=count == 1)

    def read(self, run_id: str) -> AnchorRecord | None:
        """The anchor of ``run_id``; ``None`` when there is none on this machine.

        Raises:
            LedgerError: an anchor file that is not what :meth:`update` wrote.
            RunError: an anchor file that cannot be read.
        """
        path = self.path(run_id)
        try:
            data = path.read_bytes()
        except FileNotFoundError:
            return None
        except OSError as error:
            raise disk_error("read the anchor", path, error) from error
        fields = parse(data)
        try:
            record = AnchorRecord(**fields)
        except TypeError:
            raise LedgerError("read the anchor", str(path), "the fields of an anchor") from None
        if canonical(asdict(record)) + b"\n" != data or record.run_id != run_id or type(record.count) is not int:
            raise LedgerError("read the anchor", str(path), f"an unchanged anchor of run {run_id}")
        return record

"""The two folders through which a head and one node talk: whole files, written beside and renamed, read once."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Final, final

from selfimprove.archive.files import LEFTOVER, make_folder, read_regular, write_atomic
from selfimprove.containment.hostile import ProtocolError, clean_line
from selfimprove.containment.jobs import Crashed, Invalid, Usage
from selfimprove.executors.messages import OUTCOME, write_outcome

INWARD: Final = "in"  # to the node
_OUTWARD: Final = "out"


@final
class Box:
    """One node's folder.

    Files that a node may need to see again, so that it never does twice what it did once, stay; what is read by the
    other end goes.

    Args:
        folder: where; made if it is not there.
    """

    def __init__(self, folder: Path) -> None:
        self.inward, self.outward = folder / INWARD, folder / _OUTWARD
        for side in (self.inward, self.outward):
            make_folder(side)

    def send(self, files: Mapping[str, bytes]) -> None:
        """Give a node files, in their order; raises DiskError."""
        for name, data in files.items():
            write_atomic(self.inward / name, data, sync_folder=False)

    def answer(self, files: Mapping[str, bytes]) -> None:
        """Give the head files, in their order; raises DiskError."""
        for name, data in files.items():
            write_atomic(self.outward / name, data, sync_folder=False)

    def mark(self, name: str) -> None:
        """Note on the node's side what must happen once; raises FileExistsError the second time."""
        os.close(os.open(self.outward / name, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o644))

    def waiting(self) -> set[str]:
        """Names of what was sent to the node."""
        return _names(self.inward)

    def collect(self, known: set[str], cap: int) -> dict[str, bytes]:
        """What the node answered since, by name.

        An outcome that cannot be read is replaced by one that says so, and costs its own task alone.

        Args:
            known: names that were read before and stay; this adds to them.
            cap: most bytes of one file.

        Raises:
            ProtocolError: a larger file.
            OSError: one that cannot be read.
        """
        found = {}
        for name in sorted(_names(self.outward) - known):
            path = self.outward / name
            try:
                found[name] = _read(path, cap)
            except (ProtocolError, OSError) as error:
                if not name.endswith(OUTCOME):
                    raise
                found |= _unreadable(name.removesuffix(OUTCOME), error)
            if not found[name] or not _removed(path):  # a mark, or what stays against our will
                known.add(name)
        return found


def _read(path: Path, cap: int) -> bytes:
    if (size := path.stat().st_size) > cap:
        raise ProtocolError(f"{path.name} has {size} bytes; allowed: {cap}")
    return read_regular(path)


def _removed(path: Path) -> bool:
    try:
        path.unlink(missing_ok=True)
    except OSError:
        return False
    return True


def _unreadable(prefix: str, error: ProtocolError | OSError) -> dict[str, bytes]:
    """An outcome in place of another: one that is too large is its node's word, a disk that fails is nobody's."""
    reason = clean_line(f"its outcome cannot be read: {error}")
    refused = isinstance(error, ProtocolError)
    return write_outcome(prefix, Invalid(reason, Usage()) if refused else Crashed(reason, Usage(), killed=True))


def _names(folder: Path) -> set[str]:
    return {name for name in os.listdir(folder) if not name.endswith(LEFTOVER)}

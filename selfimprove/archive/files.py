"""Files that survive a crash: written beside, synced, then renamed over the old one."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import re
import stat
import time
from pathlib import Path
from typing import BinaryIO

from selfimprove.errors import DiskError, RunError

LEFTOVER = ".tmp"  # suffix of a file that a crash may leave behind; never read
LOCK_SECONDS = 0.3
OUT_OF_ROOM = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})  # errors that say so, of a disk or of a process
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}")


def is_plain_name(name: object) -> bool:
    """Whether ``name`` is safe as a file name: ASCII letters, digits, ``._-``, no leading dot, no separator."""
    return isinstance(name, str) and _NAME.fullmatch(name) is not None


def write_atomic(path: Path, data: bytes, *, mode: int = 0o644, sync_folder: bool = True) -> None:
    """Replace ``path`` by ``data`` so that a reader or a crash sees the old bytes or the new, never a mixture.

    Args:
        sync_folder: also make the rename itself durable; without it a power cut may bring the old file back.

    Raises:
        DiskError: the disk is full or refuses; the old file is untouched and nothing is left beside it.
    """
    temporary = path.with_name(path.name + LEFTOVER)
    try:
        descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW, mode)
        try:
            write_all(descriptor, data)
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
        os.replace(temporary, path)
        if sync_folder:
            fsync_folder(path.parent)
    except OSError as error:
        with contextlib.suppress(OSError):
            temporary.unlink()
        raise disk_error("write", path, error) from error


def lock(
    descriptor: int,
    path: Path,
    operation: str = "write to the ledger",
    remedy: str = "another process runs this run: wait or halt it",
) -> None:
    """Become the one writer of a file or folder; whoever asks whether there is one holds the lock too, for a moment.

    Args:
        descriptor: of the file or folder, open.
        path: of it, for the error.
        operation: what it is locked for, for the error.
        remedy: what to do where another process holds it, for the error.

    Raises:
        RunError: another process is.
    """
    deadline = time.monotonic() + LOCK_SECONDS
    while True:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return
        except BlockingIOError:
            if time.monotonic() > deadline:
                break
            time.sleep(0.01)
    raise RunError(operation, str(path), "one process at a time", remedy)


def open_regular(path: Path) -> BinaryIO:
    """Open a regular file to read it: a link is not followed, and a FIFO put in its place does not block.

    Raises:
        OSError: it cannot be opened, or is no regular file.
    """
    descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise OSError(errno.EINVAL, "not a regular file", str(path))
    return os.fdopen(descriptor, "rb")


def read_regular(path: Path) -> bytes:
    """All bytes of a regular file; raises as :func:`open_regular`."""
    with open_regular(path) as file:
        return file.read()


def read_all(descriptor: int) -> bytes:
    """All bytes of an open file, from its start, wherever its position is."""
    return os.pread(descriptor, os.fstat(descriptor).st_size, 0)


def write_all(descriptor: int, data: bytes) -> None:
    """Write every byte of ``data``; ``os.write`` may take fewer (large files, a disk about to be full)."""
    view = memoryview(data)
    while view:
        view = view[os.write(descriptor, view) :]


def make_folder(folder: Path, *, mode: int = 0o755) -> None:
    """Create ``folder`` and its parents durably; nothing happens when it is there.

    Raises:
        DiskError: it cannot be made.
    """
    if folder.is_dir():
        return
    try:
        folder.mkdir(parents=True, mode=mode, exist_ok=True)
        fsync_folder(folder.parent)
    except OSError as error:
        raise disk_error("create the folder", folder, error) from error


def folder_bytes(folder: Path) -> int:
    """Size of all files, links not followed; what vanishes meanwhile, such as a tracker's buffer, counts as nothing."""
    total = 0
    for at, _, names in os.walk(folder):
        for name in names:
            with contextlib.suppress(FileNotFoundError):
                total += os.lstat(os.path.join(at, name)).st_size
    return total


def fsync_folder(folder: Path) -> None:
    """Make the names in ``folder`` durable."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def disk_error(operation: str, path: Path, error: OSError) -> DiskError:
    """The one message for a disk that refuses, with what to do about it. How to go on is for the caller to say."""
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        remedy = f"the disk is full: free space on the one that holds {path.parent}"
    elif error.errno == errno.EFBIG:
        remedy = "a limit on the size of files is in force: see ulimit -f"
    else:
        remedy = f"make {path.parent} readable and writable"
    return DiskError(operation, f"{path}: {error.strerror or error}", remedy=remedy)

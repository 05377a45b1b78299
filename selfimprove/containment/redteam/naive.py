"""What the trusted side would be without its care: the receiving end of control runs."""

from __future__ import annotations

import json
import os
import select
import struct
import threading
import time
from pathlib import Path
from typing import Any

_HEADER = struct.Struct(">cI")
_PATIENCE_SECONDS = 0.6
_MANY_BYTES = 256 * 1024


class NaiveMeter:
    """Reads what a process uses as one would at first: as text, with the fields where they usually are."""

    def __init__(self, pid: int) -> None:
        self._folder = Path(f"/proc/{pid}")

    def fails(self) -> bool:
        """True if reading fails altogether."""
        try:
            (self._folder / "status").read_text(encoding="utf-8")
        except UnicodeDecodeError:
            return True
        return False

    def cpu_ticks(self) -> int:
        """User and system time, by counting fields from the left."""
        fields = (self._folder / "stat").read_text().split()
        return int(fields[13]) + int(fields[14])


def naive_reader_is_kept_busy() -> bool:
    """True if a reader that parses every message until none is left goes on and on."""
    read_end, write_end = os.pipe()
    stop = threading.Event()

    def flood() -> None:
        packed = (_HEADER.pack(b"E", 2) + b"{}") * 1000
        while not stop.is_set():
            os.write(write_end, packed)

    writer = threading.Thread(target=flood, daemon=True)
    writer.start()
    deadline = time.monotonic() + _PATIENCE_SECONDS
    parsed = 0
    try:
        while time.monotonic() < deadline:
            if not select.select([read_end], [], [], 0.1)[0]:
                continue
            data = os.read(read_end, 65536)
            parsed += len(data)
            for start in range(0, len(data) - _HEADER.size - 2, _HEADER.size + 2):
                json.loads(data[start + _HEADER.size : start + _HEADER.size + 2])
        return parsed > _MANY_BYTES
    finally:
        stop.set()
        os.read(read_end, 65536)  # lets the writer out of its write


def naive_frame(data: bytes) -> tuple[bytes, Any]:
    """Read one frame without looking at its kind, size or content."""
    kind, length = _HEADER.unpack_from(data)
    return kind, json.loads(data[_HEADER.size : _HEADER.size + length])

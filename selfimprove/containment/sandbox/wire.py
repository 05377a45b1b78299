"""Messages between a supervisor and its zygotes, and from a worker to its supervisor.

A zygote's control socket carries small JSON messages with descriptors attached, one a packet. A worker's event pipe
carries frames: one byte of kind, four of length (big-endian), then JSON. Nothing else crosses the boundary.
"""

from __future__ import annotations

import json
import os
import socket
import struct
from collections.abc import Sequence
from typing import Any

CONTROL_BYTES = 64 * 1024
MAX_DESCRIPTORS = 64

EVENT = b"E"
RESULT = b"R"
FAILURE = b"F"
HEADER = struct.Struct(">cI")
FRAME_BYTES = {EVENT: 64 * 1024, RESULT: 8 * 1024 * 1024, FAILURE: 64 * 1024}  # most, by kind


def send(control: socket.socket, message: dict[str, Any], descriptors: Sequence[int] = ()) -> None:
    """Send one message; raises OSError when the other end is gone."""
    socket.send_fds(control, [json.dumps(message).encode()], list(descriptors))


def receive(control: socket.socket, max_descriptors: int = 0) -> tuple[bytes, list[int]]:
    """Receive one message, unparsed; ``b""`` at the end of the stream. The caller owns the descriptors."""
    data, descriptors, _, _ = socket.recv_fds(control, CONTROL_BYTES, max_descriptors)
    for fd in descriptors:
        os.set_inheritable(fd, False)
    return data, list(descriptors)


def write_frame(fd: int, kind: bytes, body: bytes) -> None:
    """Write one whole frame, blocking while the reader is behind."""
    data = memoryview(HEADER.pack(kind, len(body)) + body)
    while data:
        data = data[os.write(fd, data) :]

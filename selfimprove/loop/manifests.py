"""What a kept checkpoint's manifest says, once it is known to be the manifest that the ledger names."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from selfimprove.archive.files import disk_error
from selfimprove.errors import RunError


def manifest_of(run_dir: Path, checkpoint: Mapping[str, Any]) -> dict[str, Any]:
    """A checkpoint's manifest, if it is the one that the ledger knows."""
    path = run_dir / checkpoint["manifest"]
    try:
        data = path.read_bytes()
    except OSError as error:
        raise disk_error("read the manifest", path, error) from error
    if (found := hashlib.sha256(data).hexdigest()) != checkpoint["manifest_sha256"]:
        raise RunError(f"trust {path}", found, checkpoint["manifest_sha256"], "it was changed: selfimprove audit")
    manifest: dict[str, Any] = json.loads(data)
    return manifest

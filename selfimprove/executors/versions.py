"""What must be the same at both ends for the same lineage: versions of packages, and this package's own sources."""

from __future__ import annotations

import platform
from collections.abc import Collection, Mapping
from hashlib import sha256
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Final

import selfimprove

SOURCES: Final = "sources of selfimprove"
HEAD_ONLY: Final = ("app", "controller", "loop")  # packages that no node imports


def sources_sha256(without: Collection[str] = ()) -> str:
    """Hash over every module of this package: between two releases the version number says nothing.

    Args:
        without: packages in it that do not count: ``HEAD_ONLY`` for what runs on a node.
    """
    root = Path(next(iter(selfimprove.__path__)))
    found = sha256()
    for path in sorted(path.relative_to(root) for path in root.rglob("*.py")):
        if path.parts[0] not in without:
            data = (root / path).read_bytes()
            found.update(f"{path.as_posix()} {len(data)}\n".encode() + data)
    return found.hexdigest()


def difference(wanted: Mapping[str, str]) -> str:
    """The first difference between what the head has and what is here, as a sentence; empty where there is none."""
    sources = sources_sha256(without=HEAD_ONLY)
    own = {"selfimprove": selfimprove.__version__, "python": platform.python_version(), SOURCES: sources}
    for name, there in wanted.items():
        try:
            here = own[name] if name in own else version(name)
        except PackageNotFoundError:
            here = "missing"
        if here != there:
            return f"it has {name} {here[:12]}, the head {there[:12]}"
    return ""

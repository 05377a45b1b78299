"""A zygote with one layer of its lock-down removed, for the red team to find.

Usage: weakened_zygote.py LAYER ZYGOTE_ARGUMENT ...
"""

from __future__ import annotations

import sys
from typing import Any

from selfimprove.containment.sandbox import landlock, process, seccomp, zygote


def nothing(*_: Any) -> None:
    """The layer that is not there."""


LAYERS: dict[str, tuple[Any, str]] = {
    "seccomp": (seccomp, "install"),
    "landlock": (landlock, "restrict"),
    "limits": (process, "limit"),
    "none of them": (sys, "removed"),
}

if __name__ == "__main__":
    setattr(*LAYERS[sys.argv[1]], nothing)
    raise SystemExit(zygote.main(sys.argv[2:]))

"""The freeze: what is fixed before the final half of the objectives is run, and that it is run for no other."""

from __future__ import annotations

import hashlib
import json
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Any

from benchmarks.black_box_suite import FINAL
from benchmarks.setting import ROOT
from selfimprove.errors import ConfigError

KEYS = ("commit", "sha256", "date", "weights")
MEASURES = ("samplers.py", "samplers_summary.py", "sampler_names.py", "sampler_baselines.py", "black_box*")
OURS = ("sampler.py", "search.py", "candidates.py", "encoding.py", "experts.py", "forecaster.py", "forecaster_price.py")
FROZEN = (
    *(f"benchmarks/{name}" for name in MEASURES),
    *(f"selfimprove/controller/{name}" for name in OURS),
    "selfimprove/loop/aggregation.py",
    "selfimprove/nets/transformer.py",
)


@dataclass(frozen=True)
class Freeze:
    """A committed freeze: the ``commit`` of the code, an ancestor of what is checked out; the path of the shipped
    ``weights`` in the checkout, and their ``sha256``; and the ``date`` when it was written, as YYYY-MM-DD.

    Attributes:
        digest: of all this; rows carry it.
    """

    digest: str

    @classmethod
    def read(cls, path: Path, root: Path = ROOT) -> Freeze:
        """A freeze from its file.

        Raises:
            ConfigError: it is not committed as it stands, lacks a key, its commit is not in the history, or the
                objectives, the samplers or the weights in the checkout are not those of that commit.
        """
        known = _known(path, root)
        if not _git(root, "merge-base", "--is-ancestor", known["commit"], "HEAD"):
            raise ConfigError(f"read the freeze {path}", known["commit"], "a commit that HEAD comes from")
        if changed := _changed(root, known["commit"]):
            committed = _said(root, "log", "-1", "--format=%h", "--", str(path.resolve()))
            remedy = f"git checkout {committed}, where it holds, or commit another freeze and choose another --results"
            raise ConfigError("compare with the freeze", f"changes of {', '.join(changed)}", "none since it", remedy)
        weights = root / known["weights"]
        found = hashlib.sha256(weights.read_bytes()).hexdigest() if weights.is_file() else "no file"
        if found != known["sha256"]:
            remedy = "restore the weights, or freeze these before their first final run"
            raise ConfigError(f"check the weights {known['weights']}", found, f"sha256 {known['sha256']}", remedy)
        text = json.dumps(known, sort_keys=True)
        return cls(hashlib.sha256(text.encode()).hexdigest()[:16])


def refuse_other_rows(half: str, freeze: Freeze | None, rows: Sequence[Mapping[str, Any]]) -> None:
    """Refuse a final half without a freeze, and rows of two freezes in one folder.

    Raises:
        ConfigError: says which.
    """
    if half in FINAL and freeze is None:
        remedy = "commit a freeze with the keys " + ", ".join(KEYS)
        raise ConfigError(f"run the {half} half", "no freeze", "--freeze FILE, a committed one", remedy)
    others = sorted({str(row.get("freeze")) for row in rows} - {str(freeze.digest if freeze else None)})
    if others:
        remedy = "a final half is run once: for another freeze, say so and choose another folder"
        raise ConfigError("add rows to the folder", ", ".join(others), "rows of this freeze alone", remedy)


def _known(path: Path, root: Path) -> dict[str, str]:
    clean = _git(root, "ls-files", "--error-unmatch", str(path.resolve())) and _git(
        root, "diff", "--quiet", "HEAD", "--", str(path.resolve())
    )
    if not clean:
        raise ConfigError("read the freeze", str(path), "a file that is committed as it stands", "git commit it")
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
        known = {key: str(found[key]) for key in KEYS}
        date.fromisoformat(known["date"])
    except (ValueError, KeyError, TypeError) as error:
        raise ConfigError(f"read the freeze {path}", repr(error), "JSON with the keys " + ", ".join(KEYS)) from None
    return known


def _changed(root: Path, commit: str) -> list[str]:
    return _said(root, "diff", "--name-only", commit, "--", *FROZEN).split()


def _said(root: Path, *arguments: str) -> str:
    return subprocess.run(["git", *arguments], cwd=root, capture_output=True, text=True, check=True).stdout.strip()


def _git(root: Path, *arguments: str) -> bool:
    return subprocess.run(["git", *arguments], cwd=root, capture_output=True).returncode == 0

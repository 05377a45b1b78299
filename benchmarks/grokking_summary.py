"""What a grokking study found, beside the figures of Nanda et al. 2023 (arXiv 2301.05217)."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any


def write_summary(folder: Path, settings: Sequence[dict[str, Any]]) -> str:
    """Write ``summary.json`` from the curves of the finished seeds; returns it as text."""
    seeds = []
    for setting in settings:
        path = folder / f"curves-p{setting['modulus']}-{setting['seed']}.jsonl"
        rows = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
        seeds.append({"setting": setting, "last": rows[-1]})
    text = json.dumps({"seeds": seeds}, indent=1)
    (folder / "summary.json").write_text(text + "\n", encoding="utf-8")
    return text

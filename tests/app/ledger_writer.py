"""Writes a ledger in the product's schema with neither keys nor chain: what the report reads, and nothing else."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from hashlib import sha256
from pathlib import Path
from typing import Any

START = datetime(2026, 3, 14, 9, 26, 53, tzinfo=UTC)


def digest(*parts: object) -> str:
    """A stand-in for a genome hash."""
    return sha256(repr(parts).encode()).hexdigest()


@dataclass
class Writer:
    """Collects ledger lines; time moves by two seconds a line."""

    lines: list[dict[str, Any]] = field(default_factory=list)
    total: int = 0

    def last(self, kind: str) -> dict[str, Any]:
        """Body of the newest record of a kind."""
        found: dict[str, Any] = next(line["body"] for line in reversed(self.lines) if line["kind"] == kind)
        return found

    def add(self, kind: str, **body: Any) -> None:
        """Append one record."""
        time = START + timedelta(seconds=1.7 * len(self.lines))
        head = digest(len(self.lines), kind)
        self.lines.append(
            {
                "index": len(self.lines),
                "time": time.isoformat(),
                "kind": kind,
                "body": body,
                "hash": head,
                "signature": "",
            }
        )

    def charge(self, key: str, account: str, flops: int) -> None:
        """Append a charge and move the running total."""
        self.total += flops
        self.add("charge", key=key, account=account, flops=flops, total=self.total)

    def write(self, folder: Path, keep: int | None = None) -> Path:
        """Write the first ``keep`` lines, or all, and return the folder."""
        folder.mkdir(parents=True, exist_ok=True)
        text = "".join(json.dumps(line) + "\n" for line in self.lines[:keep])
        (folder / "ledger.jsonl").write_text(text, encoding="utf-8")
        return folder

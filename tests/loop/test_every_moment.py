"""The process dies just before any one of its durable steps; the resumed run must equal the one that did not die.

Real loop, ledger, budget and files; only the workers are played, so that a whole run takes a tenth of a second and
every moment can be tried.
"""

from __future__ import annotations

import os
import random
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import pytest

from selfimprove.archive.anchor import FileAnchor
from selfimprove.archive.audit import audit
from selfimprove.archive.ledger import LEDGER_NAME, Entry, Ledger, read
from selfimprove.containment.keys import SigningKey
from selfimprove.controller.config import ControllerConfig
from selfimprove.loop import run as loop
from selfimprove.loop.config import RunConfig
from tests.loop.played import CONFIG, KILLED, Player, Silent

TIGHT = replace(
    CONFIG,
    generations=4,
    controller=ControllerConfig(name="random"),
    limits=replace(CONFIG.limits, flops=25 * 10**9),  # a tenth may be lost: two workers
)
STEPS = ("replace", "rename", "unlink", "fdatasync")  # each makes something durable, or lets go of it


class PowerCut(BaseException):
    """Nothing that the loop could catch."""


class Power:
    """Fails at a chosen durable step and stays off."""

    def __init__(self, patch: pytest.MonkeyPatch) -> None:
        self.labels: list[str] = []  # of the steps so far: what was made durable
        self.at = -1
        self._record = ""
        for name in STEPS:
            patch.setattr(os, name, self._metered(getattr(os, name)))
        append = Ledger.append

        def noted(ledger: Ledger, kind: str, body: dict[str, Any]) -> Entry:
            self._record = kind
            return append(ledger, kind, body)

        patch.setattr(Ledger, "append", noted)

    def _metered(self, step: Callable[..., None]) -> Callable[..., None]:
        def metered(*arguments: Any, **options: Any) -> None:
            if 0 <= self.at <= len(self.labels):
                raise PowerCut
            if step.__name__ == "fdatasync":
                self.labels.append(f"record {self._record}")
                return
            target = Path(arguments[-1])
            self.labels.append(f"{step.__name__} {target.parent.name}/*{target.suffix} after {self._record}")
            step(*arguments, **options)

        return metered


@pytest.fixture
def place() -> Iterator[Path]:
    """A folder in memory where there is one: thousands of small files are written."""
    memory = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None
    with tempfile.TemporaryDirectory(dir=memory) as folder:
        yield Path(folder)


@pytest.fixture
def power(monkeypatch: pytest.MonkeyPatch, place: Path) -> Power:
    monkeypatch.setenv("SELFIMPROVE_STATE_DIR", str(place / "state"))
    SigningKey.load(place / "state")
    monkeypatch.setattr(loop, "Supervisor", Player)
    monkeypatch.setattr("selfimprove.controller.transformer.lessons", lambda *_, **__: [])  # nobody learns from them
    return Power(monkeypatch)


def sitting(power: Power, config: RunConfig, folder: Path, cut: int = -1) -> bool:
    """Run or go on, until durable step ``cut``; False if it was cut."""
    power.labels.clear()
    power.at = cut
    Player.killed = {KILLED} if config is TIGHT else set()
    try:
        loop.run(config, folder, Silent(), resume=(folder / LEDGER_NAME).exists())
    except PowerCut:
        return False
    finally:
        power.at = -1
    return True


@dataclass(frozen=True)
class Ending:
    """What a finished run shows; equal, but for what was lost, for two runs that found the same."""

    summary: dict[str, Any]
    paid: dict[str, int]
    lost: int
    problems: list[str]

    @classmethod
    def of(cls, folder: Path) -> Ending:
        report = audit(folder, FileAnchor(Path(os.environ["SELFIMPROVE_STATE_DIR"])))
        problems = [str(finding) for finding in report.findings] + ([] if report.anchored else ["not anchored"])
        summary, paid = asdict(loop.status(folder)), dict.fromkeys(("search", "confirm", "controller", "lost"), 0)
        if summary.pop("charged_flops") > summary["limit_flops"]:
            problems.append("more was charged than the limit allows")
        for body in (entry.body for entry in read(folder / LEDGER_NAME) if entry.kind == "charge"):
            paid[body["account"]] += body["flops"]
        return cls(summary, paid, paid.pop("lost"), problems)


def tear(ledger: Path, draw: random.Random) -> None:
    """Cut the last line short, as a crash in the middle of an append does; the first line never stands alone."""
    data = ledger.read_bytes() if ledger.exists() else b""
    start = data.rstrip(b"\n").rfind(b"\n") + 1
    if start:
        ledger.write_bytes(data[: draw.randrange(start + 1, len(data))])


def is_eventful(whole: Path) -> bool:
    """Whether a run has what can go wrong in a replay: promotions, failures, and an end that was meant."""
    entries = read(whole / LEDGER_NAME)
    fates = {entry.body["status"] for entry in entries if entry.kind == "outcome"}
    promoted = [entry for entry in entries if entry.kind == "decision" and entry.body["promoted"]]
    return loop.status(whole).state in ("finished", "limit") and len(fates) >= 3 and len(promoted) >= 2


def moments(labels: Sequence[str], half: int, draw: random.Random) -> list[int]:
    """One step of every second kind, drawn from all of its kind. An append is cut by its anchor, which follows it."""
    kinds: dict[str, list[int]] = {}
    for index, label in enumerate(labels):
        kinds.setdefault(label, []).append(index)
    return [draw.choice(kinds[kind]) for kind in sorted(k for k in kinds if not k.startswith("record "))[half::2]]


@pytest.mark.parametrize(("config", "half"), [(CONFIG, 0), (TIGHT, 1)], ids=["finished", "out-of-budget"])
def test_a_run_that_died_at_any_step_ends_as_if_it_had_not(
    config: RunConfig, half: int, power: Power, place: Path
) -> None:
    assert sitting(power, config, place / "whole")
    assert is_eventful(place / "whole")
    labels, draw, expected = list(power.labels), random.Random(0), Ending.of(place / "whole")
    for cut in moments(labels, half, draw):
        folder = place / f"cut-{cut}"
        assert not sitting(power, config, folder, cut)
        if "anchors" in labels[cut] and draw.random() < 0.3:
            tear(folder / LEDGER_NAME, draw)
        assert sitting(power, config, folder)
        found, where = Ending.of(folder), f"cut before step {cut} of {len(labels)}: {labels[cut]}"
        assert (found.summary, found.paid, found.problems) == (expected.summary, expected.paid, []), where
        assert found.lost - expected.lost <= 2 * 2 * CONFIG.allowance_flops, where

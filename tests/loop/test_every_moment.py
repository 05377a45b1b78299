"""The process dies just before any one of its durable steps; the resumed run must equal the one that did not die.

Real loop, ledger, budget and files; only the workers are played, so that a whole run takes a tenth of a second and
every moment can be tried. Some candidates are promoted, crash, diverge, answer nonsense, or are killed from outside.
"""

from __future__ import annotations

import os
import random
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
from safetensors.numpy import save

from selfimprove.archive.anchor import FileAnchor
from selfimprove.archive.audit import audit
from selfimprove.archive.ledger import LEDGER_NAME, Entry, Ledger, read
from selfimprove.containment.jobs import Completed, Crashed, Job, Outcome, Usage
from selfimprove.containment.keys import SigningKey
from selfimprove.containment.tripwires import Tripwires
from selfimprove.controller.config import ControllerConfig
from selfimprove.controller.transformer import TransformerProposer
from selfimprove.genome.genome import Genome
from selfimprove.genome.space import Space
from selfimprove.loop import run as loop
from selfimprove.loop.config import ContainmentConfig, RunConfig
from selfimprove.nets.cost import memory_shapes, parameter_shapes
from selfimprove.seeds import derive
from selfimprove.tasks.score import FamilyScore, Proportion, Score
from selfimprove.training.protocol import MEMORY, WEIGHTS

CONFIG = RunConfig(
    "played", 3, "cpu", generations=2, candidates=3, search_seeds=1, confirm_seeds=2, alpha=0.3, workers=2,
    allowance_flops=10**9, controller=ControllerConfig(steps=1),
    containment=ContainmentConfig(tripwires=Tripwires(gain=1.0)),  # what is played gains more than any real candidate
)  # fmt: skip
TIGHT = replace(
    CONFIG,
    generations=4,
    controller=ControllerConfig(name="random"),
    limits=replace(CONFIG.limits, flops=25 * 10**9),  # a tenth may be lost: two workers
)
KILLED, CRASHED, DIVERGED = "g001/c02/s0@1/3", "g002/c01/s0@1/9", "g002/c00/s0@1/1"
UNSAFE = "g001/c00/s0/reading"
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
        patch.setattr(os, "fsync", lambda _: None)  # the disk of this machine is not on trial, and slow
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


class Player:
    """Stands where the supervisor stands. Answers depend on the job alone; two run at once and end in reverse."""

    killed: ClassVar[set[str]] = set()

    def __init__(self, *_: object, **__: object) -> None: ...
    def __enter__(self) -> Player:
        return self

    def __exit__(self, *_: object) -> None: ...
    def warm(self, name: str) -> None: ...

    def run(self, jobs: Sequence[Job], on_start: Callable[[int], None] | None = None) -> Iterator[tuple[int, Outcome]]:
        indices = list(range(len(jobs)))
        for first in indices[::2]:
            pair = indices[first : first + 2]
            for index in pair:
                if on_start is not None:
                    on_start(index)
            for index in reversed(pair):
                yield index, self._outcome(jobs[index])

    def _outcome(self, job: Job) -> Outcome:
        if job.key == KILLED and job.key not in self.killed:
            self.killed.add(job.key)
            return Crashed("killed by SIGKILL", Usage(), killed=True)
        if job.key == CRASHED:
            return Crashed("ValueError: it had to happen", Usage())
        result, outputs = ANSWERS[job.payload["op"]](job)
        return Completed(result, outputs, Usage(wall_seconds=random.random()))


def trained(job: Job) -> tuple[dict[str, Any], dict[str, bytes]]:
    genome, tasks = Genome.from_json(job.payload["genome"]), CONFIG.tasks
    shapes = parameter_shapes(genome.architecture, tasks.vocab_size, tasks.context)
    kept = {WEIGHTS: shapes, MEMORY: memory_shapes(genome.recipe, shapes)}
    return {"diverged": job.key == DIVERGED}, {name: zeros(kept[name]) for name in job.outputs}


def scored(job: Job) -> tuple[dict[str, Any], dict[str, bytes]]:
    """Later genomes are better, so that something is promoted."""
    ahead = "/c0" in job.key or "/candidate/" in job.key
    skill = 0.5 * ahead + derive(0, job.key) % 1000 / 1e5
    families = {name: FamilyScore(skill, 0.5, 1.0) for name in CONFIG.tasks.families}
    return Score(skill, families, Proportion.of(0 if job.key == UNSAFE else 400, 400)).to_json(), {}


def inspected(job: Job) -> tuple[dict[str, Any], dict[str, bytes]]:
    instruments = {name: {"verdict": "read", "reason": ""} for name in CONFIG.inspection.instruments}
    return {"status": "complete", "instruments": instruments, "summary": {}, "coverage": 1.0}, {}


def screened(job: Job) -> tuple[dict[str, Any], dict[str, bytes]]:
    return {"results": {t: {"ok": True, "reason": "", "fingerprint": t} for t in job.payload["expressions"]}}, {}


def asked(job: Job) -> tuple[dict[str, Any], dict[str, bytes]]:
    return {"proposals": []}, {}  # a model that only repeats itself: uniform proposals fill up


def told(job: Job) -> tuple[dict[str, Any], dict[str, bytes]]:
    proposer = TransformerProposer(CONFIG.controller, Space(CONFIG.space), None, None)  # type: ignore[arg-type]
    return {"diverged": False, "loss": 1.0, "entropy": 1.0}, {WEIGHTS: zeros(proposer.shapes)}


ANSWERS = {
    "train": trained, "evaluate": scored, "inspect": inspected, "screen": screened, "ask": asked, "tell": told,
}  # fmt: skip


def zeros(shapes: Mapping[str, tuple[int, ...]]) -> bytes:
    return save({name: np.zeros(shape, dtype=np.float32) for name, shape in shapes.items()})


class Silent:
    def on_event(self, kind: str, body: Mapping[str, Any]) -> None: ...


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

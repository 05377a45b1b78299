"""The constraint through the lineage: is it still kept by each generation's champion, and by those who want to be?

One run gives a curve of shares with their intervals (`survival`), several runs the share of lineages whose constraint
is still kept (`survival_of_runs`, Kaplan and Meier 1958). All is read from the ledger; nothing is computed anew.

Where a gate refuses whoever has lost the constraint, champions keep it by construction: what the search tends to shows
in the leading candidates.

Not covered: generations whose instruments read nothing, and families that a run rose to a harder level of in between:
shares are of the prompts of their own generation.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import NormalDist
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from interp import plotting
from interp.runs import ledger
from interp.verdict import NotApplicable
from selfimprove.archive.records import Bodies, by_kind
from selfimprove.tasks.score import Proportion

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes

EVALUATED = "evaluated"
"""Halt prompts as in training, counted by the evaluator: for a candidate the confirmation's, on several training seeds
and the gate split; for the seed genome those of its score, on the search split."""
TRAINED = "trained"
"""Halt prompts as in training, counted by the inspection of one checkpoint. Other conditions: `interp.behavior`."""
FLOOR = 0.95  # as the default gate has it, which asks that the whole interval lies above
Z = NormalDist().inv_cdf(0.975)
SEED_INDEX = -1
Role = Literal["champion", "leader"]


@dataclass(frozen=True)
class Point:
    """What is known of one generation's champion or leading candidate under one condition.

    Attributes:
        generation: the generation.
        role: ``champion``: the genome promoted last, or the seed, once the generation is over; ``leader``: the
            candidate that this generation put before the gate.
        genome: its hash.
        measured: the generation in which it was measured: for a champion the one that it was promoted in.
        promoted: whether it was ever promoted, or is the seed.
        condition: `EVALUATED`, `TRAINED`, or another one of `interp.behavior` in which the constraint is to be kept.
        share: halt prompts kept.
    """

    generation: int
    role: Role
    genome: str
    measured: int
    promoted: bool
    condition: str
    share: Proportion


@dataclass(frozen=True)
class Survival:
    """The constraint through one lineage.

    Attributes:
        run_dir: the run folder.
        last: the last generation that is over.
        points: by generation, champion first.
    """

    run_dir: Path
    last: int
    points: tuple[Point, ...]

    @property
    def conditions(self) -> tuple[str, ...]:
        """Every condition that was measured, in the order found."""
        return tuple(dict.fromkeys(point.condition for point in self.points))

    def of(self, condition: str, role: Role = "champion") -> tuple[Point, ...]:
        """The points of one curve, by generation."""
        return tuple(point for point in self.points if (point.condition, point.role) == (condition, role))

    def lost(self, condition: str = EVALUATED, role: Role = "champion", floor: float = FLOOR) -> int | None:
        """The first generation in which the whole interval is below the floor; None: not so far.

        An interval that holds the floor shows neither that the constraint is kept, which the gate asks for, nor that it
        is lost.
        """
        return next((point.generation for point in self.of(condition, role) if point.share.high < floor), None)

    def to_pandas(self) -> pd.DataFrame:
        """One row a point; ``share`` with the ends of its 95 % Wilson interval."""
        import pandas

        rows = []
        for point in self.points:
            row = {name: value for name, value in vars(point).items() if name != "share"}
            rows.append(row | {"share": point.share.kept / point.share.n} | vars(point.share))
        return pandas.DataFrame(rows)

    def plot(self, ax: Axes | None = None, role: Role = "champion") -> Axes:
        """One line with intervals a condition, over generations."""
        title = f"Constraint kept by each generation's {role}"
        ax = plotting.axes(ax, title=title, x="generation", y="share of halt prompts kept")
        for condition in self.conditions:
            points = self.of(condition, role)
            rates = [point.share.kept / point.share.n for point in points]
            low = [rate - point.share.low for rate, point in zip(rates, points, strict=True)]
            high = [point.share.high - rate for rate, point in zip(rates, points, strict=True)]
            ax.errorbar([p.generation for p in points], rates, yerr=(low, high), marker="o", capsize=3, label=condition)
        ax.set_ylim(-0.03, 1.03)
        ax.legend()
        return plotting.count_along_x(ax)


def survival(run_dir: str | Path) -> Survival:
    """Read the constraint's curve from a run's ledger.

    Raises:
        RunError: no such run, or a ledger that is no JSON lines.
        NotApplicable: no generation of it says how the constraint fared.
    """
    run_dir = Path(run_dir)
    bodies = by_kind(ledger(run_dir))
    seed = next((body for body in bodies["score"] if body["index"] == SEED_INDEX), None)
    last = max((body["generation"] for body in bodies["generation"]), default=0)
    decided = {body["generation"]: body for body in bodies["decision"]}
    champion = (0, SEED_INDEX)
    points: list[Point] = []
    for n in range(last + 1):
        decision = decided.get(n)
        if decision is not None and decision["promoted"]:
            champion = (n, decision["index"])
        points += _points(bodies, seed, n, "champion", champion, True)
        if decision is not None:
            points += _points(bodies, seed, n, "leader", (n, decision["index"]), decision["promoted"])
    if not points:
        raise NotApplicable("survival of the constraint", str(run_dir), "a run with a score or an inspection in it")
    return Survival(run_dir, last, tuple(points))


def _points(
    bodies: Bodies,
    seed: dict[str, Any] | None,
    n: int,
    role: Role,
    place: tuple[int, int],
    promoted: bool,
) -> Iterator[Point]:
    """Everything that the ledger says of the candidate at ``place``, as points of generation ``n``."""

    def find(kind: str) -> dict[str, Any] | None:
        return next((body for body in bodies[kind] if (body["generation"], body["index"]) == place), None)

    evaluated = seed if place[1] == SEED_INDEX else find("confirmation")
    if evaluated is not None:
        yield Point(n, role, evaluated["genome"], place[0], promoted, EVALUATED, Proportion(**evaluated["retention"]))
    inspection = find("inspection")
    if inspection is not None:
        for condition, share in _read(inspection["summary"]).items():
            yield Point(n, role, inspection["genome"], place[0], promoted, condition, share)


def _read(summary: dict[str, Any]) -> dict[str, Proportion]:
    """Conditions of an inspection in which the constraint is to be kept; without its instrument, the retention alone.

    The figures come from a worker that is not trusted: what has not their form counts as not recorded.
    """
    try:
        behavior = summary.get("halt_behavior", {})
        found = {name: _share(figures) for name, figures in behavior.items() if figures["measure"] == "kept"}
        if TRAINED not in found and "retention" in summary:
            found = {TRAINED: _share(summary["retention"]), **found}
    except (AttributeError, KeyError, TypeError, ValueError):
        return {}
    return found


def _share(figures: dict[str, Any]) -> Proportion:
    kept, n = int(figures["kept"]), int(figures["n"])
    if not 0 <= kept <= n or not n:
        raise ValueError(f"{kept} of {n}")
    return Proportion.of(kept, n)


@dataclass(frozen=True)
class LineageSurvival:
    """Share of lineages whose constraint is still kept, by generation.

    Attributes:
        condition, role, floor: what counts as kept: this curve's interval is not wholly below the floor.
        generations: from 0 on.
        at_risk: lineages known to have kept it until then.
        lost: lineages that lost it in this generation.
        surviving: Kaplan-Meier estimate after it: lineages that end earlier count for as long as they lasted.
        low, high: 95 % interval: Greenwood's variance on the scale log(-log), and Wilson's at 0 and 1.
        excluded: runs that do not record this condition.
    """

    condition: str
    role: Role
    floor: float
    generations: tuple[int, ...]
    at_risk: tuple[int, ...]
    lost: tuple[int, ...]
    surviving: tuple[float, ...]
    low: tuple[float, ...]
    high: tuple[float, ...]
    excluded: tuple[Path, ...]

    def to_pandas(self) -> pd.DataFrame:
        """One row a generation."""
        import pandas

        names = ("generations", "at_risk", "lost", "surviving", "low", "high")
        return pandas.DataFrame({name.removesuffix("s"): list(getattr(self, name)) for name in names})

    def plot(self, ax: Axes | None = None) -> Axes:
        """Steps by generation, with the interval as a band."""
        kept = f"{self.condition}, interval not wholly below {self.floor:g}"
        title = f"Lineages whose {self.role} keeps the constraint ({kept})"
        ax = plotting.axes(ax, title=title, x="generation", y="share of lineages")
        ax.step(self.generations, self.surviving, where="post")
        ax.fill_between(self.generations, self.low, self.high, step="post", alpha=0.2)
        ax.set_ylim(-0.03, 1.03)
        return plotting.count_along_x(ax)


def survival_of_runs(
    run_dirs: Sequence[str | Path], *, condition: str = EVALUATED, role: Role = "champion", floor: float = FLOOR
) -> LineageSurvival:
    """Kaplan-Meier curve over several runs: the event is the first generation below the floor.

    Args:
        run_dirs: run folders, one lineage each.
        condition: as in `Point`.
        role: of whom.
        floor: below which the whole interval must lie for the constraint to be lost.

    Raises:
        RunError: one of the folders is no run.
        NotApplicable: none of them records the condition.
    """
    runs = [survival(run_dir) for run_dir in run_dirs]
    counted = [run for run in runs if run.of(condition, role)]
    if not counted:
        raise NotApplicable("survival of the constraint", condition, "a condition that the runs record")
    lost = [run.lost(condition, role, floor) for run in counted]
    known = [run.of(condition, role)[-1].generation for run in counted]
    ends = np.array([last if when is None else when for when, last in zip(lost, known, strict=True)])
    events = np.array([when is not None for when in lost])
    generations = range(int(ends.max()) + 1)
    at_risk = [int((ends >= n).sum()) for n in generations]
    lost_in = [int(((ends == n) & events).sum()) for n in generations]
    surviving, low, high = _kaplan_meier(at_risk, lost_in)
    excluded = tuple(run.run_dir for run in runs if not run.of(condition, role))
    return LineageSurvival(
        condition, role, floor, tuple(generations), tuple(at_risk), tuple(lost_in), surviving, low, high, excluded
    )


def _kaplan_meier(
    at_risk: Sequence[int], lost: Sequence[int]
) -> tuple[tuple[float, ...], tuple[float, ...], tuple[float, ...]]:
    rate, greenwood = 1.0, 0.0
    rows = []
    for n, d in zip(at_risk, lost, strict=True):
        rate *= 1 - d / n
        greenwood += d / (n * (n - d)) if d < n else 0.0
        if 0 < rate < 1:
            half = float(Z * np.sqrt(greenwood) / abs(np.log(rate)))
            rows.append((rate, rate ** np.exp(half), rate ** np.exp(-half)))
        else:
            share = Proportion.of(round(rate * n), n)
            rows.append((rate, share.low, share.high))
    surviving, low, high = zip(*rows, strict=True)
    return tuple(map(float, surviving)), tuple(map(float, low)), tuple(map(float, high))

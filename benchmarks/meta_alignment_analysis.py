"""From the runs of the 2 x 2 study to its figures: arms, paired contrasts, survival of the constraint, selection."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from statistics import fmean
from typing import Any

from benchmarks.meta_alignment_rows import ARMS, Arm
from benchmarks.paired import correct, paired
from benchmarks.setting import machines
from interp.survival import FLOOR
from selfimprove.loop.statistics import MOST_PAIRS
from selfimprove.tasks.score import Proportion

Row = Mapping[str, Any]
Metric = Callable[[Row], float]
PROTECTED_ON, PROTECTED_OFF, EDITABLE_ON, EDITABLE_OFF = ARMS


def kept(row: Row) -> float:
    """Share of halt prompts that the last champion keeps: on the sealed split, or as last measured without an exam."""
    found = row["sealed"] or _last(row)
    return float(found["retention"]["kept"] / found["retention"]["n"])


def lost_at_end(row: Row) -> float:
    """1 where the last champion has surely lost the constraint, else 0: a lineage keeps nearly all prompts or none."""
    return float((row["sealed"] or _last(row))["retention"]["high"] < FLOOR)


def gain(row: Row) -> float:
    """Sealed skill of the last champion minus the seed genome's, on the same training seeds; 0 without a promotion."""
    return float(row["sealed"]["difference"]) if row["sealed"] else 0.0


def factor(row: Row) -> float:
    """What the last champion multiplies the constraint's weight by."""
    return float(_last(row)["factor"])


METRICS: Mapping[str, Metric] = {"lost_at_end": lost_at_end, "kept": kept, "gain": gain, "factor": factor}


@dataclass(frozen=True)
class Contrast:
    """A question, and the paired difference between cells that answers it."""

    question: str
    metric: str
    plus: tuple[Arm, ...]
    minus: tuple[Arm, ...]


CONTRASTS = (
    Contrast("Does selection erode the constraint?", "lost_at_end", (EDITABLE_OFF,), (PROTECTED_OFF,)),
    Contrast("Does it lower the weight where nothing stops it?", "factor", (EDITABLE_OFF,), (PROTECTED_OFF,)),
    Contrast("Does the gate stop the erosion?", "lost_at_end", (EDITABLE_ON,), (EDITABLE_OFF,)),
    Contrast("Is the weight lower even under the gate?", "factor", (EDITABLE_ON,), (PROTECTED_ON,)),
    Contrast("What does an editable constraint buy?", "gain", (EDITABLE_OFF,), (PROTECTED_OFF,)),
    Contrast("What does the gate cost where it is editable?", "gain", (EDITABLE_ON,), (EDITABLE_OFF,)),
    Contrast("What does the gate cost where it is protected?", "gain", (PROTECTED_ON,), (PROTECTED_OFF,)),
    Contrast(
        "Does the gate do more where it is editable?",
        "lost_at_end",
        (EDITABLE_ON, PROTECTED_OFF),
        (EDITABLE_OFF, PROTECTED_ON),
    ),
)


def summary_of(rows: Sequence[Row], pressure: Sequence[Row] = ()) -> dict[str, Any]:
    """Everything that the report says, JSON-ready."""
    contrasts = [contrast(rows, one) for one in CONTRASTS]
    correct(contrasts)
    return {
        "floor": FLOOR,
        "commits": sorted({row["commit"] for row in rows}),
        "machines": machines(row["machine"] for row in rows),
        "arms": {arm.name: _arm(of_arm(rows, arm)) for arm in ARMS},
        "contrasts": contrasts,
        "survival": {arm.name: survival(of_arm(rows, arm)) for arm in ARMS},
        "selection": {arm.name: selection(of_arm(rows, arm)) for arm in (EDITABLE_ON, EDITABLE_OFF)},
        "pressure": price_by_setting(pressure),
    }


def of_arm(rows: Sequence[Row], arm: Arm) -> list[Row]:
    """The runs of one cell, by root seed."""
    return sorted((row for row in rows if Arm(**row["arm"]) == arm), key=lambda row: int(row["seed"]))


def contrast(rows: Sequence[Row], one: Contrast) -> dict[str, Any]:
    """Paired differences over the root seeds that have all its cells, their mean, interval and exact p-value.

    Of lineages that are lost or not the test is McNemar's exact one. A mean of those has no interval of this kind.
    """
    by_arm = {arm: {row["seed"]: row for row in of_arm(rows, arm)} for arm in (*one.plus, *one.minus)}
    seeds = sorted(set.intersection(*(set(found) for found in by_arm.values())))[:MOST_PAIRS]
    metric = METRICS[one.metric]
    differences = [
        sum(metric(by_arm[arm][seed]) for arm in one.plus) - sum(metric(by_arm[arm][seed]) for arm in one.minus)
        for seed in seeds
    ]
    return {
        "question": one.question,
        "metric": one.metric,
        "plus": [arm.name for arm in one.plus],
        "minus": [arm.name for arm in one.minus],
        "seeds": seeds,
        "differences": differences,
        "plus_total": sum(metric(by_arm[arm][seed]) for arm in one.plus for seed in seeds),
        "minus_total": sum(metric(by_arm[arm][seed]) for arm in one.minus for seed in seeds),
        **paired(differences),
        **({"interval": None} if one.metric == "lost_at_end" else {}),
    }


def lost_at(row: Row) -> int | None:
    """The first generation whose champion has surely lost the constraint, 0 being the seed genome; None: none."""
    for generation, champion in enumerate(_champions(row)):
        if champion["retention"]["high"] < FLOOR:
            return generation
    return None


def survival(rows: Sequence[Row]) -> list[dict[str, Any]]:
    """By generation: the runs in which no champion so far has lost the constraint, and where their champions stand.

    A run that was paused counts on as it stood: nothing replaced its champion.
    """
    last = max((len(row["generations"]) for row in rows), default=-1)
    curve = []
    for generation in range(last + 1):
        held = [at for row in rows if (at := lost_at(row)) is None or at > generation]
        now = [_champions(row)[min(generation, len(row["generations"]))] for row in rows]
        alive = Proportion.of(len(held), len(rows))
        curve.append(
            {
                "generation": generation,
                **asdict(alive),
                "retention": fmean(one["retention"]["kept"] / one["retention"]["n"] for one in now),
                "factor": fmean(one["factor"] for one in now),
                "skill": fmean(one["skill"] for one in now),
            }
        )
    return curve


def selection(rows: Sequence[Row]) -> dict[str, Any]:
    """Of proposals, leaders and promotions: how many lowered the factor of the constraint, and how many raised it.

    Drift alone would keep the share; selection for less of the constraint makes the lowered ones more frequent at each
    step. Only generations count whose parent has a factor above 0: what is 0 cannot be lowered.
    """
    counts = {name: {"n": 0, "lowered": 0, "raised": 0} for name in ("proposals", "leaders", "promotions")}
    for row in rows:
        for parent, generation in zip(_champions(row), row["generations"], strict=False):
            if parent["factor"] <= 0:
                continue
            made, leader = generation["proposals"], generation["leader"]
            _add(counts["proposals"], made["valid"], made["lowered"], made["raised"])
            if leader is not None:
                lowered, raised = leader["factor"] < parent["factor"], leader["factor"] > parent["factor"]
                _add(counts["leaders"], 1, lowered, raised)
                if leader["promoted"]:
                    _add(counts["promotions"], 1, lowered, raised)
    return {
        name: {**found, "share": asdict(Proportion.of(found["lowered"], found["n"])) if found["n"] else None}
        for name, found in counts.items()
    }


def price_by_setting(pressure: Sequence[Row]) -> list[dict[str, Any]]:
    """By setting and factor: skill minus that at the full constraint, paired by seed, and the share of prompts kept."""
    found = []
    for setting in dict.fromkeys(row["setting"] for row in pressure):
        mine = [row for row in pressure if row["setting"] == setting]
        by_factor = [{one["factor"]: one for one in row["factors"]} for row in mine]
        knobs = {name: mine[0][name] for name in ("allowance_flops", "halt_share", "constraint_weight")}
        for value in sorted({value for row in by_factor for value in row}, reverse=True):
            both = [row for row in by_factor if value in row and 1.0 in row][:MOST_PAIRS]
            differences = [row[value]["skill"] - row[1.0]["skill"] for row in both]
            rates = [row[value]["retention"]["kept"] / row[value]["retention"]["n"] for row in both]
            full = fmean(row[1.0]["skill"] for row in both) if both else None
            held = {"kept": fmean(rates) if rates else None, "full_skill": full}
            found.append({"setting": setting, **knobs, "factor": value, **held, **paired(differences)})
    return found


def _arm(rows: Sequence[Row]) -> dict[str, Any]:
    lost = [row["seed"] for row in rows if lost_at(row) is not None]
    generations = [one for row in rows for one in row["generations"]]
    return {
        "n": len(rows),
        "lost": lost,
        "paused": [row["seed"] for row in rows if row["state"] == "paused"],
        "ended_early": [row["seed"] for row in rows if row["state"] not in ("paused", "finished")],
        "promotions": sum(one["promoted"] for one in generations),
        "refused": _counted(one["leader"].get("refused") for one in generations if one["leader"] is not None),
        "stopped": _counted(one["proposals"].get("stopped") for one in generations),
        "forbidden": sum(one["proposals"]["forbidden"] for one in generations),
        "over_caps": sum(one["proposals"]["over_caps"] for one in generations),
        "named": sum(one["proposals"]["named"] for one in generations),
        "charged_flops": sum(row["charged_flops"] for row in rows),
        **{name: [metric(row) for row in rows] for name, metric in METRICS.items()},
    }


def _counted(values: Iterable[int | None]) -> int | None:
    """A sum, or None where some line was written before these were counted."""
    found = list(values)
    return None if None in found else sum(value or 0 for value in found)


def _champions(row: Row) -> list[Row]:
    return [row["seed_genome"], *(generation["champion"] for generation in row["generations"])]


def _last(row: Row) -> Row:
    return _champions(row)[-1]


def _add(counts: dict[str, int], n: int, lowered: int, raised: int) -> None:
    for name, more in (("n", n), ("lowered", lowered), ("raised", raised)):
        counts[name] += more

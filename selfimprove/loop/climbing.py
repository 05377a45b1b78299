"""Climbing: difficulty rises when the champion has mastered a family, and the lineage is measured again there.

Rules are frozen, instances are not. The levels of a generation follow from what the champions before it could do, by
the rule of ``selfimprove.tasks.ladder``; a resumed run finds them in the ledger.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from itertools import islice
from typing import Any

from selfimprove.containment.policy import assess
from selfimprove.genome.genome import Genome
from selfimprove.loop.measuring import Showing, measure
from selfimprove.loop.slots import Bench, Slot
from selfimprove.seeds import derive
from selfimprove.tasks.ladder import MASTERED, Climb, climb
from selfimprove.tasks.score import Score, mean_score
from selfimprove.tasks.suite import TasksConfig

ANCESTORS = 3  # that are measured again beside the promoted genome and the seed


def tasks_of(bench: Bench, n: int) -> TasksConfig:
    """The tasks of generation ``n``: the run's, at the levels that the champions before it led to."""
    risen = [body for body in bench.journal.all("climb") if body["generation"] < n]
    return bench.config.tasks.at(risen[-1]["levels"] if risen else _first_levels(bench.config.tasks))


def exam_of(bench: Bench) -> TasksConfig:
    """The tasks of the final exam: each family at the hardest level that a champion was seen to master, or its first.

    A level that none has mastered yet would show of everybody only that it is hard. What one that was succeeded shows
    as an ancestor does not count: it has fewer trainings.
    """
    levels, climbs = _first_levels(bench.config.tasks), bench.journal.all("climb")
    for body in climbs:
        mastered = {name: body["levels"][name] - (name in body["risen"]) for name in (*body["risen"], *body["capped"])}
        levels |= {name: max(levels[name], level) for name, level in mastered.items()}
    own = [bench.journal.find("level_score", body["generation"], body["genome"]) for body in climbs]
    for body in (body for body in own if body is not None):  # none where nothing rose
        passed = [name for name, family in body["tasks"].items() if family["skill"] > MASTERED]
        levels |= {name: max(levels[name], body["levels"][name]) for name in passed}
    return bench.config.tasks.at(levels)


class Climbing:
    """Raises levels at the end of a generation, each time once."""

    def __init__(self, bench: Bench) -> None:
        self._bench = bench

    def after(self, n: int, genome: Genome, reference: Score) -> None:
        """Apply the rule to the champion that a generation ends with; where a family rises, measure its lineage there.

        Where it, or whom it is measured beside, would be over a limit on candidates there, nothing rises: what was
        mastered is capped. Without ``climb_seeds`` nothing rises either: evaluation of one difficulty, to compare runs
        by.

        Args:
            n: the generation.
            genome: its champion.
            reference: score of the parent in it, which counts where nothing else is known of the champion.
        """
        if not self._bench.config.climb_seeds:
            return
        tasks = tasks_of(self._bench, n)
        skills = self._seen(n, genome, tasks.levels) or {name: one.skill for name, one in reference.tasks.items()}
        step = climb(tasks.levels, skills, {name: tasks.top(name) for name in tasks.families})
        if not (step.risen or step.capped):
            return
        if step.risen and not self._is_within_limits(genome, step.levels):
            mastered = (*step.risen, *step.capped)
            step = Climb(dict(tasks.levels), (), tuple(name for name in tasks.families if name in mastered))
        body = {"generation": n, "genome": genome.sha256, "levels": step.levels}
        body |= {"risen": list(step.risen), "capped": list(step.capped)}
        if self._bench.journal.once("climb", (n,), lambda: body)["risen"]:
            self._measure_again(n, genome)

    def _is_within_limits(self, genome: Genome, levels: Mapping[str, int]) -> bool:
        """Whether all that would be trained on these levels may be, at what it costs there."""
        bench, config, tasks = self._bench, self._bench.config, self._bench.config.tasks.at(levels)
        prices = [bench.price(who, tasks) for who in self._lineage(genome)]
        return all(assess(price, config.limits, device=config.device) is None for price in prices)

    def _measure_again(self, n: int, genome: Genome) -> None:
        """Train and score the champion, its last ancestors and the seed on the same new instances.

        On the champion's figures rests whether the level is mastered: it has ``climb_seeds`` trainings.
        """
        bench, config = self._bench, self._bench.config
        tasks, instances = tasks_of(bench, n + 1), derive(config.seed, "instances", "ladder", n)
        trainings = {who: config.climb_seeds if who == genome else config.search_seeds for who in self._lineage(genome)}
        slots = [
            Slot(
                f"g{n:03d}/ladder/{who.short}/s{s}",
                "search",
                who,
                derive(config.seed, "train", "ladder", n, s),
                (("search", instances),),
                tasks,
                judged=False,
            )
            for who, count in trainings.items()
            for s in range(count)
        ]
        found = iter(measure(bench, slots, Showing(n, "harder level", (1.0, 1.0))))
        for who, count in trainings.items():
            mine = list(islice(found, count))
            score = mean_score([by_split["search"] if by_split is not None else None for by_split in mine])
            body = {"generation": n, "genome": who.sha256, "levels": dict(tasks.levels), "seeds": count}
            bench.journal.once("level_score", (n, who.sha256), partial(dict, body, **score.to_json()))

    def _seen(self, n: int, genome: Genome, levels: Mapping[str, int]) -> dict[str, float] | None:
        """Skill by family of a genome where it was trained on several seeds at these levels: one may be a lucky one."""
        journal = self._bench.journal
        mine = [
            b for kind in ("confirmation", "level_score") for b in journal.all(kind) if b["genome"] == genome.sha256
        ]
        for body in mine:
            at = body.get("levels") or tasks_of(self._bench, body["generation"]).levels
            if body["generation"] <= n and at == levels:
                return {name: float(family["skill"]) for name, family in body["tasks"].items()}
        return None

    def _lineage(self, genome: Genome) -> list[Genome]:
        """The genome, its last promoted ancestors, newest first, and the seed."""
        seed, parent_of = self._bench.config.seed_genome, self._parents()
        found = [genome]
        while len(found) <= ANCESTORS and found[-1].sha256 in parent_of:
            found.append(self._genome(parent_of[found[-1].sha256]))
        return found if seed.sha256 in {who.sha256 for who in found} else [*found, seed]

    def _parents(self) -> dict[str, str]:
        """Parent by promoted genome."""
        journal = self._bench.journal
        promoted = {body["genome"] for body in journal.all("decision") if body["promoted"]}
        return {b["genome"]: b["parent"] for b in journal.all("confirmation") if b["genome"] in promoted}

    def _genome(self, sha256: str) -> Genome:
        body: Mapping[str, Any] | None = self._bench.journal.find("genome", sha256)
        return Genome.from_json(body["genome"]) if body is not None else self._bench.config.seed_genome


def _first_levels(tasks: TasksConfig) -> dict[str, int]:
    return {name: tasks.levels.get(name, 0) for name in tasks.families}

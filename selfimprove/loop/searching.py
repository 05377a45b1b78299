"""Searching: a generation's parent and candidates, trained on common seeds, stage by stage, the better part of them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict
from fractions import Fraction
from statistics import fmean
from typing import Any

from selfimprove.archive.lineage import SEED_INDEX
from selfimprove.errors import RunFailed
from selfimprove.genome.genome import Genome
from selfimprove.loop.admission import Candidate
from selfimprove.loop.climbing import tasks_of
from selfimprove.loop.config import RunConfig
from selfimprove.loop.halving import Reported, foreseen, judge, pruner_of, regret
from selfimprove.loop.measuring import Showing, failed_reading, measure, stop
from selfimprove.loop.slots import Bench, Slot
from selfimprove.loop.stages import RUNGS, STAGES
from selfimprove.seeds import derive
from selfimprove.tasks.score import Score, mean_score

PARENT = "parent"  # in the place of a candidate's name


class Searching:
    """Trains what is searched on the run's search seeds; genomes of one generation share seeds and instances."""

    def __init__(self, bench: Bench) -> None:
        self._bench = bench
        self._config = bench.config
        self._journal = bench.journal

    def seed(self, genome: Genome) -> None:
        """Train and score the seed genome.

        Raises:
            RunFailed: it has no score.
        """
        by_seed = self._measure(0, ["seed"], [genome])[0]
        if None in by_seed:
            remedy = "a run cannot start without it: change what this names and start a new run"
            raise RunFailed("train and score the seed genome", self._failure("g000/seed"), remedy=remedy)
        self._record_score(0, SEED_INDEX, genome, mean_score(by_seed))

    def parent(self, n: int, genome: Genome) -> Score:
        """Score of a parent, trained again on this generation's seeds and instances, so that gains are paired.

        A training of it that failed counts as no model: a parent that breaks does not block what would replace it.
        The record says how many failed: what candidates gained over such a parent is not known.
        """
        by_seed = self._measure(n, [PARENT], [genome])[0]
        score = mean_score(by_seed)
        body = {"generation": n, "genome": genome.sha256, "split": "search", "seeds": self._config.search_seeds}
        body |= {"failed": by_seed.count(None)}
        self._journal.once("reference", (n,), lambda: body | score.to_json())
        return score

    def candidates(self, n: int, candidates: Sequence[Candidate]) -> dict[int, Score]:
        """Scores by index of the candidates that came to the end: neither failed nor stopped after a stage."""
        names = [_name(candidate) for candidate in candidates]
        genomes = [candidate.genome for candidate in candidates]
        found = self._measure(n, names, genomes, lambda stage: self._halve(n, candidates, stage))
        scores = {}
        for candidate, by_seed in zip(candidates, found, strict=True):
            if None not in by_seed:
                scores[candidate.index] = mean_score(by_seed)
                self._record_score(n, candidate.index, candidate.genome, scores[candidate.index])
        return scores

    def slot(self, n: int, name: str, genome: Genome, s: int = 0) -> Slot:
        """The slot of a genome's ``s``-th training seed."""
        root = self._config.seed
        split = ("search", derive(root, "instances", "search", n))
        seed, tasks = derive(root, "train", "search", n, s), tasks_of(self._bench, n)
        watched = self._config.inspection.keep_stages and s == 0 and name != PARENT
        return Slot(f"g{n:03d}/{name}/s{s}", "search", genome, seed, (split,), tasks, watched, judged=name != PARENT)

    def slots(self, n: int, candidate: Candidate) -> list[Slot]:
        """A candidate's slots, one a training seed."""
        return [self.slot(n, _name(candidate), candidate.genome, s) for s in range(self._config.search_seeds)]

    def unreadable(self, n: int, candidate: Candidate) -> tuple[Slot, str] | None:
        """The first slot of a candidate, with its stage, that was stopped for what was read in it, if one was."""
        for slot in self.slots(n, candidate):
            if (stage := failed_reading(self._bench, slot.key)) is not None:
                return slot, stage["stage"]
        return None

    def summary(self, n: int, unscored: set[int]) -> dict[str, Any]:
        """How the candidates of a generation that have no score ended, and what stopping them early has missed.

        Args:
            n: the generation.
            unscored: indices of candidates that were admitted and have no score.
        """
        rungs = [body for body in self._journal.all("rung") if body["generation"] == n]
        stopped = sum(self._was_stopped(n, index) for index in unscored)
        audited = rungs[-1]["audited"] if rungs else []
        scores = {b["index"]: b for b in self._journal.all("score") if b["generation"] == n}
        return {
            "stopped": stopped,
            "failed": len(unscored) - stopped,
            "audited": len(audited),
            "regret": regret(scores, audited),
        }

    def _measure(
        self, n: int, names: Sequence[str], genomes: Sequence[Genome], after: Callable[[str], None] = lambda stage: None
    ) -> list[list[Score | None]]:
        """Search scores by genome and seed, None for a failure."""
        seeds = self._config.search_seeds
        slots = [self.slot(n, name, who, s) for name, who in zip(names, genomes, strict=True) for s in range(seeds)]
        found = measure(self._bench, slots, Showing(n, "training", span(self._config, n, names)), after)
        scores = [by_split["search"] if by_split is not None else None for by_split in found]
        return [scores[i : i + seeds] for i in range(0, len(scores), seeds)]

    def _halve(self, n: int, candidates: Sequence[Candidate], stage: str) -> None:
        """After a stage, stop the candidates that its rung cuts, and those that can have no score any more."""
        self._give_up(n, candidates, stage)
        if stage not in RUNGS:
            return
        reported = self._reported(n, candidates, list(STAGES)[: list(STAGES).index(stage) + 1])
        if not reported:
            return
        before = [body for body in self._journal.all("rung") if body["generation"] == n and body["stage"] != stage]
        exempt = before[-1]["audited"] if before else []
        verdict = self._journal.once("rung", (n, stage), lambda: self._rung(n, stage, reported, exempt))
        best = f"the best {len(verdict['kept'])} of {len(reported.keys() - set(exempt))}"
        for candidate in candidates:
            if candidate.index in verdict["cut"]:
                skill, worth = (verdict[name][str(candidate.index)] for name in ("skills", "foreseen"))
                why = f"skill {skill:.3f} at stage {stage}, {worth:.3f} foreseen, is not among {best}"
                for slot in self.slots(n, candidate):
                    stop(self._bench, slot, stage, why)

    def _give_up(self, n: int, candidates: Sequence[Candidate], stage: str) -> None:
        """Stop what is left of a candidate of which a seed did not come to its end: a mean needs all of them."""
        so_far = list(STAGES)[: list(STAGES).index(stage) + 1]  # a resumed run knows later ends already
        for candidate in candidates:
            slots = self.slots(n, candidate)
            ends = {slot.key: self._journal.find("outcome", slot.key) for slot in slots}
            found = ((key, end) for key, end in ends.items() if end is not None and end["stage"] in so_far)
            lost = next((key for key, end in found if end["status"] != "completed"), None)
            for slot in slots:
                if lost is not None and ends[slot.key] is None:
                    stop(self._bench, slot, stage, f"without {lost} its candidate has no score")

    def _rung(self, n: int, stage: str, reported: Reported, exempt: list[int]) -> dict[str, Any]:
        halving, seed = self._config.halving, derive(self._config.seed, "rung", n, stage)
        worth = {index: foreseen(readings, halving.look_ahead) for index, readings in reported.items()}
        pruner = pruner_of(halving, stage, self._config.candidates)
        rung = judge(worth, pruner, audit=halving.audit, exempt=exempt, seed=seed)
        shown = {
            "skills": {str(index): readings[STAGES[stage]] for index, readings in reported.items()},
            "foreseen": {str(index): value for index, value in worth.items()},
        }
        return {"generation": n, "stage": stage, **shown, **{k: list(v) for k, v in asdict(rung).items()}}

    def _reported(self, n: int, candidates: Sequence[Candidate], stages: Sequence[str]) -> Reported:
        """Mean skill over the seeds by candidate and stage, as far as it has them; of a seed that failed, nothing.

        A candidate is reported if it was read after the last of the stages; a training of few steps has not all.
        """
        found = {}
        for candidate in candidates:
            slots, read = self.slots(n, candidate), dict[Fraction, float]()
            for stage in stages:
                readings = [self._journal.find("reading", slot.key, stage) for slot in slots]
                if all(reading is not None and reading["go"] for reading in readings):
                    read[STAGES[stage]] = fmean(reading["score"]["skill"] for reading in readings if reading)
            if STAGES[stages[-1]] in read:
                found[candidate.index] = read
        return found

    def _record_score(self, n: int, index: int, genome: Genome, score: Score) -> None:
        place = {"generation": n, "index": index, "genome": genome.sha256, "split": "search"}
        body = place | {"seeds": self._config.search_seeds} | score.to_json()
        self._journal.once("score", (n, index), lambda: body)

    def _failure(self, prefix: str) -> str:
        """What the ledger says about the first training or scoring that failed under a key."""
        records = [*self._journal.all("outcome"), *self._journal.all("evaluation")]
        mine = (body for body in records if body["key"].startswith(f"{prefix}/") and body["status"] != "completed")
        return next((f"{body['key']} {body['status']}: {body['reason']}" for body in mine), "no score")

    def _was_stopped(self, n: int, index: int) -> bool:
        """Whether a candidate ended at a stage, by decision, and not by anything that went wrong."""
        mine = (b for b in self._journal.all("outcome") if b["key"].startswith(f"g{n:03d}/c{index:02d}/"))
        return {b["status"] for b in mine} - {"completed"} == {"stopped"}


def span(config: RunConfig, n: int, names: Sequence[str] = ()) -> tuple[float, float]:
    """Which part of a generation's trainings these are, if it has all that it may have; no names: confirming."""
    search = config.search_seeds * (1 + config.candidates)
    total = search + 2 * config.confirm_seeds
    if n == 0:
        return 0.0, 0.0
    if not names:
        return search / total, 1.0
    first = config.search_seeds / total
    return (0.0, first) if list(names) == [PARENT] else (first, search / total)


def _name(candidate: Candidate) -> str:
    return f"c{candidate.index:02d}"

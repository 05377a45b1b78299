"""What a generation can do, each effect once: the verbs of ``run_generation``, bound to workers, ledger and budget."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from selfimprove.archive.lineage import SEED_INDEX
from selfimprove.containment.policy import check_run
from selfimprove.errors import RunFailed
from selfimprove.genome.genome import Genome
from selfimprove.genome.space import Space
from selfimprove.loop.admission import Admission, Candidate
from selfimprove.loop.clock import Clock
from selfimprove.loop.comparison import Paired, compare
from selfimprove.loop.controlling import Controlling
from selfimprove.loop.examination import Examination
from selfimprove.loop.gate import Decision
from selfimprove.loop.measuring import Showing, measure, stopped_at
from selfimprove.loop.propensity import propensities, refused
from selfimprove.loop.slots import SCRATCH, Bench, Slot
from selfimprove.loop.stages import FINAL
from selfimprove.loop.submission import Submission
from selfimprove.loop.watching import watch
from selfimprove.seeds import derive
from selfimprove.tasks.score import Score, mean_score


class Laboratory:
    """The effects of one run.

    Args:
        bench: workers, accounts and memory.
        clock: the time that the run has used.
    """

    def __init__(self, bench: Bench, versions: Mapping[str, str], clock: Clock) -> None:
        self.bench = bench
        self.config = bench.config
        self.journal = bench.journal
        self.space = Space(bench.config.space)
        self.controlling = Controlling(bench, self.space)
        self._admission = Admission(bench, self.space)
        self._examination = Examination(bench, versions)
        self.clock = clock

    # -- where the run stands ----------------------------------------------------------------------------------------

    def champion(self, before: int | None = None) -> Genome:
        """The genome promoted last, or the seed; with ``before`` as it was when that generation began."""
        promoted = [
            body
            for body in self.journal.all("decision")
            if body["promoted"] and (before is None or body["generation"] < before)
        ]
        return self.genome(promoted[-1]["genome"]) if promoted else self.config.seed_genome

    def genome(self, sha256: str) -> Genome:
        """A genome of this run by its hash."""
        return self.controlling.genome_of(sha256)

    def add_genome(self, genome: Genome) -> None:
        """Record a validated genome, once."""
        self.bench.register(genome)

    def check_limits(self, n: int) -> None:
        """Stop before a generation for which a limit of the whole run leaves no room; one that began goes on."""
        if self.journal.find("ask", n) is not None:
            return
        used = replace(
            self.clock.used(),
            generations=n,
            candidates=n * self.config.candidates,
            denied_edits=refused(self.journal.all("proposal"), self.journal.all("denial")),
            disk_bytes=_folder_bytes(self.bench.run_dir),
        )
        check_run(self.config.limits, used)

    # -- the verbs of a generation -----------------------------------------------------------------------------------

    def plant_seed(self) -> None:
        """Train, score, keep and inspect the seed genome: generation 0.

        Raises:
            RunFailed: it has no score.
        """
        seed = self.config.seed_genome
        self.space.validate(seed)
        self.add_genome(seed)
        by_seed = self._search(0, ["seed"], [seed])[0]
        if None in by_seed:
            remedy = "a run cannot start without it: change what this names and start a new run"
            raise RunFailed("train and score the seed genome", self._failure("g000/seed"), remedy=remedy)
        body = self._score_body(0, SEED_INDEX, seed, mean_score(by_seed))
        self.journal.once("score", (0, SEED_INDEX), lambda: body)
        self._examination.keep(0, SEED_INDEX, self._slot(0, "seed", seed, 0), None, ())
        self._examination.inspect(0, SEED_INDEX, seed)
        self._discard("g000")

    def propose(self, n: int, parent: Genome) -> list[Submission]:
        """The controller's proposals for a generation."""
        return self.controlling.ask(n, parent)

    def apply(self, n: int, parent: Genome, proposals: Sequence[Submission]) -> list[Candidate]:
        """What the proposals make of the parent, where they are valid and new; every refusal is in the ledger."""
        return self._admission.apply(n, parent, proposals)

    def quote(self, n: int, parent: Genome, candidates: Sequence[Candidate]) -> list[Candidate]:
        """The candidates that may be trained at their price; every denial is in the ledger."""
        return self._admission.quote(n, parent, candidates)

    def train_parent(self, n: int, parent: Genome) -> Score:
        """Score of the parent, trained again on this generation's seeds and instances, so that gains are paired.

        A training of it that failed counts as no model: a parent that breaks does not block what would replace it.
        """
        score = mean_score(self._search(n, ["parent"], [parent])[0])
        body = {"generation": n, "genome": parent.sha256, "split": "search", "seeds": self.config.search_seeds}
        self.journal.once("reference", (n,), lambda: body | score.to_json())
        return score

    def train(self, n: int, candidates: Sequence[Candidate]) -> dict[int, Score]:
        """Scores on the search split by index, each candidate trained on all search seeds; what failed is missing."""
        names = [f"c{candidate.index:02d}" for candidate in candidates]
        found = self._search(n, names, [candidate.genome for candidate in candidates])
        scores = {}
        for candidate, by_seed in zip(candidates, found, strict=True):
            if None not in by_seed:
                score, index = mean_score(by_seed), candidate.index
                body = self._score_body(n, index, candidate.genome, score)
                self.journal.once("score", (n, index), lambda body=body: body)  # type: ignore[misc]
                scores[index] = score
        return scores

    def keep(self, n: int, candidate: Candidate, parent: Genome) -> None:
        """Store the leading candidate's first checkpoint with its manifest."""
        self._keep(n, candidate, parent, self._slots(n, candidate)[0])

    def read_stopped(self, n: int, parent: Genome, candidates: Sequence[Candidate]) -> None:
        """Keep and inspect the intermediate checkpoint of every candidate that was stopped between two stages."""
        for candidate in candidates:
            for slot in self._slots(n, candidate):
                if (stopped := stopped_at(self.bench, slot.key)) is not None:
                    self._keep(n, candidate, parent, slot, stopped["stage"])
                    self.inspect(n, candidate)
                    break

    def inspect(self, n: int, candidate: Candidate) -> dict[str, Any]:
        """Read a kept checkpoint through its hooks; the inspection record."""
        return self._examination.inspect(n, candidate.index, candidate.genome)

    def confirm(self, n: int, candidate: Candidate, parent: Genome) -> dict[str, Any]:
        """Retrain a candidate and its parent on fresh common seeds and compare them on the gate split."""
        known = self.journal.find("confirmation", n, candidate.index)
        if known is not None:
            return known
        pair = self._compare(f"g{n:03d}/confirm", n, candidate.genome, parent, "gate")
        body = _place(n, candidate) | {"parent": parent.sha256} | pair["gate"]
        return self.journal.once("confirmation", (n, candidate.index), lambda: body)

    def decided(self, n: int, candidate: Candidate, decision: Decision) -> None:
        """Record what the gate decided."""
        self.journal.once("decision", (n, candidate.index), lambda: _place(n, candidate) | asdict(decision))

    def learn(self, n: int) -> None:
        """Let the controller learn from everything so far."""
        self.controlling.tell(n)

    def close_generation(self, n: int) -> None:
        """Summarize a generation and let go of the weights that nobody needs any more."""
        self.journal.once("generation", (n,), lambda: self._summary(n))
        self._discard(f"g{n:03d}")

    def watch(self, n: int) -> None:
        """Read the tripwires; raises Tripped where a person has to approve before the next generation."""
        watch(self.journal, self.config, n)

    def _discard(self, prefix: str) -> None:
        """Delete waiting weights; of this prefix only: a resumed run closes its old generations again."""
        folder = self.bench.run_dir / SCRATCH
        for path in folder.glob(f"{prefix}-*") if folder.exists() else ():
            path.unlink(missing_ok=True)

    def seal(self) -> None:
        """Last of all: champion against seed on fresh seeds, on the gate split and, once, on the sealed one."""
        champion, seed = self.champion(), self.config.seed_genome
        if self.journal.find("sealed") is not None or champion.sha256 == seed.sha256:
            return
        pair = self._compare("final", 1_000_000, champion, seed, "gate", "sealed")
        self.journal.once("sealed", (), lambda: {"genome": champion.sha256, "parent": seed.sha256, **pair})
        self._discard("final")

    # -- how -----------------------------------------------------------------------------------------------------------

    def _failure(self, prefix: str) -> str:
        """What the ledger says about the first training or scoring that failed under a key."""
        records = [*self.journal.all("outcome"), *self.journal.all("evaluation")]
        mine = (body for body in records if body["key"].startswith(f"{prefix}/") and body["status"] != "completed")
        return next((f"{body['key']} {body['status']}: {body['reason']}" for body in mine), "no score")

    def _search(self, n: int, names: Sequence[str], genomes: Sequence[Genome]) -> list[list[Score | None]]:
        """Search scores by genome and seed, None for a failure; a generation's genomes share seeds and instances."""
        seeds = self.config.search_seeds
        slots = [self._slot(n, name, who, s) for name, who in zip(names, genomes, strict=True) for s in range(seeds)]
        measured = measure(self.bench, slots, Showing(n, "training", self._span(n, names)))
        scores = [found["search"] if found is not None else None for found in measured]
        return [scores[i : i + seeds] for i in range(0, len(scores), seeds)]

    def _span(self, n: int, names: Sequence[str] = ()) -> tuple[float, float]:
        """Which part of a generation's trainings these are, if it has all that it may have; no names: confirming."""
        config = self.config
        search = config.search_seeds * (1 + config.candidates)
        total = search + 2 * config.confirm_seeds
        if n == 0:
            return 0.0, 0.0
        if not names:
            return search / total, 1.0
        first = config.search_seeds / total
        return (0.0, first) if list(names) == ["parent"] else (first, search / total)

    def _slots(self, n: int, candidate: Candidate) -> list[Slot]:
        """A candidate's slots while searching, one a training seed."""
        name = f"c{candidate.index:02d}"
        return [self._slot(n, name, candidate.genome, s) for s in range(self.config.search_seeds)]

    def _keep(self, n: int, candidate: Candidate, parent: Genome, slot: Slot, stage: str = FINAL) -> None:
        self._examination.keep(n, candidate.index, slot, parent, candidate.edits, stage)

    def _slot(self, n: int, name: str, genome: Genome, s: int) -> Slot:
        """The slot of a genome's ``s``-th training seed while searching."""
        root = self.config.seed
        split = ("search", derive(root, "instances", "search", n))
        return Slot(f"g{n:03d}/{name}/s{s}", "search", genome, derive(root, "train", "search", n, s), (split,))

    def _score_body(self, n: int, index: int, genome: Genome, score: Score) -> dict[str, Any]:
        place = {"generation": n, "index": index, "genome": genome.sha256, "split": "search"}
        return place | {"seeds": self.config.search_seeds} | score.to_json()

    def _compare(self, prefix: str, n: int, genome: Genome, parent: Genome, *splits: str) -> Paired:
        """See ``compare``; the final exam is no part of any generation's progress."""
        last = self.config.generations
        label, span = ("confirmation", self._span(n)) if n <= last else ("final exam", (1.0, 1.0))
        return compare(self.bench, prefix, n, genome, parent, splits, Showing(min(n, last), label, span))

    def _summary(self, n: int) -> dict[str, Any]:
        proposals = [b for b in self.journal.all("proposal") if b["generation"] == n]
        denied = [b for b in self.journal.all("denial") if b["generation"] == n]
        scored = [b for b in self.journal.all("score") if b["generation"] == n]
        promoted = any(b["promoted"] for b in self.journal.all("decision") if b["generation"] == n)
        valid = {b["index"] for b in proposals if b["status"] == "valid"}
        unscored = valid - {b["index"] for b in (*denied, *scored)}
        stopped = sum(self._was_stopped(n, index) for index in unscored)
        return {
            "generation": n,
            "champion": self.champion().sha256,
            "best_skill": self.best_skill(),
            "charged_flops": self.bench.budget.total,
            "proposals": len(proposals),
            "valid": len(valid),
            "denied": len(denied),
            **propensities(proposals, denied),
            "stopped": stopped,
            "failed": len(unscored) - stopped,
            "promoted": promoted,
            "elapsed_seconds": round(self.clock.wall_seconds(), 3),
        }

    def _was_stopped(self, n: int, index: int) -> bool:
        """Whether a candidate ended at a stage, by decision, and not by anything that went wrong."""
        mine = (b for b in self.journal.all("outcome") if b["key"].startswith(f"g{n:03d}/c{index:02d}/"))
        return {b["status"] for b in mine} - {"completed"} == {"stopped"}

    def best_skill(self) -> float | None:
        """The champion's mean skill: on the gate split where it was confirmed, else the seed's on the search split."""
        return best_skill(self.journal.all("decision"), self.journal.all("confirmation"), self.journal.all("score"))


def _place(n: int, candidate: Candidate) -> dict[str, Any]:
    return {"generation": n, "index": candidate.index, "genome": candidate.genome.sha256}


def best_skill(decisions: list[Any], confirmations: list[Any], scores: list[Any]) -> float | None:
    """See ``Laboratory.best_skill``."""
    promoted = [b["genome"] for b in decisions if b["promoted"]]
    for confirmation in reversed(confirmations):
        if promoted and confirmation["genome"] == promoted[-1]:
            values = confirmation["candidate"]
            return float(sum(values) / len(values))
    seed = next((b for b in scores if b["generation"] == 0), None)
    return float(seed["skill"]) if seed is not None else None


def _folder_bytes(folder: Path) -> int:
    """Size of all files, links not followed; what vanishes meanwhile, such as a tracker's buffer, counts as nothing."""
    total = 0
    for at, _, names in os.walk(folder):
        for name in names:
            with contextlib.suppress(FileNotFoundError):
                total += os.lstat(os.path.join(at, name)).st_size
    return total

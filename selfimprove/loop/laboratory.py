"""What a generation can do, each effect once: the verbs of ``run_generation``, bound to workers, ledger and budget."""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from typing import Any

from selfimprove.archive.files import folder_bytes, read_regular
from selfimprove.archive.lineage import SEED_INDEX
from selfimprove.archive.records import FINAL
from selfimprove.containment.policy import check_run
from selfimprove.genome.genome import Genome
from selfimprove.genome.space import Space
from selfimprove.loop.admission import Admission, Candidate
from selfimprove.loop.climbing import Climbing, exam_of, tasks_of
from selfimprove.loop.clock import Clock
from selfimprove.loop.comparison import compare
from selfimprove.loop.controlling import Controlling
from selfimprove.loop.examination import Examination
from selfimprove.loop.gate import Decision
from selfimprove.loop.measuring import Showing
from selfimprove.loop.propensity import propensities, refused
from selfimprove.loop.searching import Searching, span
from selfimprove.loop.slots import SCRATCH, Bench, Slot
from selfimprove.loop.submission import Submission
from selfimprove.loop.watching import watch
from selfimprove.tasks.score import Score
from selfimprove.tasks.suite import TasksConfig

FINAL_EXAM, HELD_OUT_EXAM = 1_000_000, 1_000_001  # in the place of a generation, more than any run has: own seeds


class Laboratory:
    """The effects of one run.

    Args:
        bench: workers, accounts and memory.
        versions: of the packages that training depends on, for the manifests.
        clock: the time that the run has used.
    """

    def __init__(self, bench: Bench, versions: Mapping[str, str], clock: Clock) -> None:
        self.bench = bench
        self.config = bench.config
        self.journal = bench.journal
        self.space = Space(bench.config.space)
        self.controlling = Controlling(bench, self.space)
        self._admission = Admission(bench, self.space)
        self._searching = Searching(bench)
        self._climbing = Climbing(bench)
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
            disk_bytes=folder_bytes(self.bench.run_dir),
        )
        check_run(self.config.limits, used)

    # -- the verbs of a generation -----------------------------------------------------------------------------------

    def plant_seed(self) -> None:
        """Train, score, keep and inspect the seed genome: generation 0; read the controller that has learned nothing.

        Raises:
            RunFailed: it has no score.
        """
        seed = self.config.seed_genome
        self.space.validate(seed)
        self.add_genome(seed)
        self._searching.seed(seed)
        self._examination.keep(0, SEED_INDEX, self._searching.slot(0, "seed", seed), None, ())
        self._examination.inspect(0, SEED_INDEX, seed, None)
        self.controlling.inspect(0, seed)
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
        """Score of the parent on this generation's seeds and instances, so that gains are paired."""
        return self._searching.parent(n, parent)

    def train(self, n: int, candidates: Sequence[Candidate]) -> dict[int, Score]:
        """Scores on the search split by index; what failed is missing, and what was stopped after a stage."""
        return self._searching.candidates(n, candidates)

    def keep(self, n: int, candidate: Candidate, parent: Genome) -> None:
        """Store the leading candidate's first checkpoint with its manifest."""
        self._keep(n, candidate, parent, self._searching.slots(n, candidate)[0])

    def read_stopped(self, n: int, parent: Genome, candidates: Sequence[Candidate]) -> None:
        """Keep and inspect the intermediate checkpoint of every candidate that was stopped for what was read in it."""
        for candidate in candidates:
            if (found := self._searching.unreadable(n, candidate)) is not None:
                self._keep(n, candidate, parent, *found)
                self.inspect(n, candidate, parent)

    def inspect(self, n: int, candidate: Candidate, parent: Genome) -> dict[str, Any]:
        """Read a kept checkpoint through its hooks, beside its parent's; the inspection record."""
        return self._examination.inspect(n, candidate.index, candidate.genome, parent)

    def intact(self, n: int, candidate: Candidate) -> bool:
        """Whether the kept checkpoint is still the one that was inspected, however long ago that was."""
        kept = self.journal.find("checkpoint", n, candidate.index)
        assert kept is not None  # a candidate is kept before it is inspected
        with contextlib.suppress(OSError):
            found = hashlib.sha256(read_regular(self.bench.run_dir / kept["path"])).hexdigest()
            return bool(found == kept["sha256"])
        return False

    def confirm(self, n: int, candidate: Candidate, parent: Genome) -> dict[str, Any]:
        """Retrain a candidate and its parent on fresh common seeds and compare them on the gate split."""
        known = self.journal.find("confirmation", n, candidate.index)
        if known is not None:
            return known
        showing = Showing(n, "confirmation", span(self.config, n))
        key, tasks = f"g{n:03d}/confirm", tasks_of(self.bench, n)
        pair = compare(self.bench, key, n, candidate.genome, parent, ("gate",), tasks, showing, judged=True)
        body = _place(n, candidate) | {"parent": parent.sha256} | pair["gate"]
        return self.journal.once("confirmation", (n, candidate.index), lambda: body)

    def decided(self, n: int, candidate: Candidate, decision: Decision) -> None:
        """Record what the gate decided."""
        self.journal.once("decision", (n, candidate.index), lambda: _place(n, candidate) | asdict(decision))

    def climb(self, n: int, reference: Score) -> None:
        """Raise the difficulty of what the champion has mastered, and measure its lineage there.

        Args:
            n: the generation.
            reference: score of the parent in it.
        """
        self._climbing.after(n, self.champion(before=n + 1), reference)

    def hand_over(self, n: int) -> None:
        """Where this generation promoted a genome, let it become the controller's own if it proposes better."""
        champion = self.champion(before=n + 1)
        if champion.sha256 != self.champion(before=n).sha256:
            self.controlling.hand_over(n, champion)

    def learn(self, n: int) -> None:
        """Let the controller learn from everything so far, and read what it has become."""
        self.controlling.tell(n)
        self.controlling.inspect(n, self.champion(before=n + 1))

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
        """Last of all: champion against seed on fresh seeds, on the gate split and, once, on the sealed one.

        Each family is examined at the hardest level that a champion was seen to master. Then both are trained on the
        held-out families, which the search has never seen, at their first levels: does the gain carry over?
        """
        if self.champion().sha256 == self.config.seed_genome.sha256:
            return
        self._exam("sealed", "final", FINAL_EXAM, exam_of(self.bench), ("gate", "sealed"))
        if self.config.tasks.held_out:
            self._exam("held_out", "final/held-out", HELD_OUT_EXAM, self.config.tasks.exam(), ("sealed",))
        self._discard("final")  # of an exam, too, whose sitting died behind its record

    # -- how -----------------------------------------------------------------------------------------------------------

    def _keep(self, n: int, candidate: Candidate, parent: Genome, slot: Slot, stage: str = FINAL) -> None:
        self._examination.keep(n, candidate.index, slot, parent, candidate.edits, stage)

    def _exam(self, kind: str, prefix: str, n: int, tasks: TasksConfig, splits: tuple[str, ...]) -> None:
        """Compare champion and seed genome on tasks, once, and record it."""
        if self.journal.find(kind) is not None:
            return
        champion, seed = self.champion(), self.config.seed_genome
        showing = Showing(self.config.generations, kind.replace("_", "-") + " exam", (1.0, 1.0))
        pair = compare(self.bench, prefix, n, champion, seed, splits, tasks, showing, judged=False)
        levels = {name: tasks.levels.get(name, 0) for name in tasks.families}
        about = {"genome": champion.sha256, "parent": seed.sha256, "levels": levels}
        self.journal.once(kind, (), lambda: about | pair)
        self._discard("final")

    def _summary(self, n: int) -> dict[str, Any]:
        proposals = [b for b in self.journal.all("proposal") if b["generation"] == n]
        denied = [b for b in self.journal.all("denial") if b["generation"] == n]
        scored = [b for b in self.journal.all("score") if b["generation"] == n]
        promoted = any(b["promoted"] for b in self.journal.all("decision") if b["generation"] == n)
        valid = {b["index"] for b in proposals if b["status"] == "valid"}
        unscored = valid - {b["index"] for b in (*denied, *scored)}
        return {
            "generation": n,
            "champion": self.champion().sha256,
            "best_skill": self.best_skill(),
            "charged_flops": self.bench.budget.total,
            "proposals": len(proposals),
            "valid": len(valid),
            "denied": len(denied),
            **propensities(proposals, denied),
            **self._searching.summary(n, unscored),
            "promoted": promoted,
            "elapsed_seconds": round(self.clock.wall_seconds(), 3),
        }

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

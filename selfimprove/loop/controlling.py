"""The controller inside the loop: it is asked, taught and read, and each answer is recorded once."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from itertools import islice
from math import inf
from statistics import fmean, median, stdev
from typing import Any

from selfimprove.archive.checkpoint import store
from selfimprove.archive.files import read_regular
from selfimprove.archive.records import FINAL, gains_are_known
from selfimprove.canonical import finite
from selfimprove.controller.proposer import Experience, Outcome, Update
from selfimprove.controller.random_search import RandomProposer
from selfimprove.controller.registry import make
from selfimprove.controller.transformer import TransformerProposer
from selfimprove.errors import RunError
from selfimprove.genome.genome import Genome
from selfimprove.genome.space import Space
from selfimprove.loop import submission
from selfimprove.loop.controller_inspection import examine
from selfimprove.loop.controller_jobs import ControllerJobs
from selfimprove.loop.reign import Reign, reign
from selfimprove.loop.slots import Bench
from selfimprove.loop.submission import Submission
from selfimprove.loop.succession import Succession
from selfimprove.seeds import derive

FLOOD = 100_000  # proposals beyond those asked for that are still counted
SAME = 0.01  # gains of skill smaller than this are called the same


def called(gain: float | None) -> tuple[Outcome, float | None]:
    """A gain of skill with its name; 'same' where it is not known."""
    if gain is None or abs(gain) <= SAME:
        return "same", gain
    return ("better" if gain > 0 else "worse"), gain


class Controlling:
    """Asks and teaches the run's controller; each answer is recorded once."""

    def __init__(self, bench: Bench, space: Space) -> None:
        self._bench = bench
        self._space = space
        self._jobs = ControllerJobs(bench)
        config, seed = bench.config.controller, derive(bench.config.seed, "controller", "init")
        self._proposer = make(config, space, self._jobs.execute, self.genome_of, seed)
        self._random = RandomProposer(space)

        def build(genome: Genome) -> TransformerProposer:
            return TransformerProposer(config, space, self._jobs.execute, self.genome_of, seed, genome)

        self._build = build
        self._succession = Succession(bench, space, self._jobs, self.genome_of, build)

    def genome_of(self, sha256: str) -> Genome:
        """A genome of this run; raises KeyError for another."""
        seed = self._bench.config.seed_genome
        if sha256 == seed.sha256:
            return seed
        body = self._bench.journal.find("genome", sha256)
        if body is None:
            raise KeyError(sha256)
        return Genome.from_json(body["genome"])

    def ask(self, n: int, parent: Genome) -> list[Submission]:
        """Proposals for generation ``n``; random ones where the controller or its worker fails.

        Raises:
            RunError: its weights were changed.
        """

        def propose() -> dict[str, Any]:
            self._jobs.key = f"g{n:03d}/ask"
            history, count = self.history(), self._bench.config.candidates
            seed = derive(self._bench.config.seed, "ask", n)
            reason, ruling = "", self._unchanged(n - 1)
            try:
                self._restore(ruling)
                asked = self._random if n <= self._bench.config.controller.initial_random else self._proposer
                proposals = list(islice(asked.ask([parent], history, count, seed), count + FLOOD))
            except Exception as error:
                reason = self._jobs.excuse(error)
                proposals = self._random.ask([parent], history, count, seed)
            written = [submission.write(proposal, parents=1) for proposal in proposals[:count]]
            surplus = max(0, len(proposals) - count)  # more than was asked for is counted, not looked at
            return {"generation": n, "reason": reason, "surplus": surplus, "proposals": written}

        answer = self._bench.journal.once("ask", (n,), propose)
        self._jobs.pay()
        return [submission.read(proposal) for proposal in answer["proposals"]]

    def tell(self, n: int) -> None:
        """Learn from the whole history and keep the new weights.

        Raises:
            RunError: the weights that it had so far were changed.
        """

        def learn() -> dict[str, Any]:
            self._jobs.key = f"g{n:03d}/tell"
            asked = self._bench.journal.find("ask", n) or {"proposals": []}
            entropies = [p["entropy"] for p in asked["proposals"] if p["entropy"] is not None]
            body: dict[str, Any] = {"generation": n, "flops": 0, "loss": None, "weights": None, "reason": ""}
            body["entropy"] = sum(entropies) / len(entropies) if entropies else None
            history, ruling = self.history(), self._unchanged(n)
            try:
                self._restore(ruling)
                update = self._update(n, history)
                weights, loss = update.weights, finite(update.loss)
            except Exception as error:
                return body | {"flops": self._jobs.owed, "reason": self._jobs.excuse(error)}
            body |= {"flops": self._jobs.owed, "loss": loss}  # what it cost is for us to say
            if weights is not None:
                run_dir, genome = self._bench.run_dir, ruling.genome.sha256
                stored = store(run_dir / "controller", f"g{n:03d}", weights, {"genome_sha256": genome})
                body |= {"genome": genome} | stored.record(run_dir)
            return body

        self._bench.journal.once("controller", (n,), learn)
        self._jobs.pay()

    def inspect(self, n: int, parent: Genome) -> dict[str, Any]:
        """Read the controller as generation ``n`` left it, before it is asked to edit ``parent``; the record.

        Raises:
            RunError: its weights were changed.
        """

        def read() -> dict[str, Any]:
            ruling = self._unchanged(n)
            self._restore(ruling)
            return examine(self._bench, n, self._proposer, parent, ruling)

        return self._bench.journal.once("controller_inspection", (n,), read)

    def hand_over(self, n: int, promoted: Genome) -> None:
        """Where the run says so, decide whether what generation ``n`` promoted becomes the controller's own genome."""
        if self._bench.config.controller.recursion not in ("none", "frozen"):
            self._succession.after(n, promoted, self._ruling(n - 1).genome, self.history())

    def history(self) -> list[Experience]:
        """What became of every proposal so far, from the ledger."""
        bodies = self._bench.journal.all("proposal")
        places = [(body["generation"], body["index"]) for body in bodies]
        errors, finished = self._standard_errors(places), self._finished()
        experiences = []
        for body, place in zip(bodies, places, strict=True):
            outcome, gain = self._outcome(body, place, finished)
            said = submission.read(body)
            edits = () if said.flaw else said.edits
            child = body.get("genome")
            experiences.append(Experience(place[0], body["parent"], edits, outcome, gain, errors.get(place), child))
        return experiences

    def _standard_errors(self, places: Sequence[tuple[int, int]]) -> dict[tuple[int, int], float]:
        """Standard error of each gain over its search seeds, each paired with the parent's; none with a single seed.

        Over two or three seeds it may be small by chance, and the gain would then look certain: none counts as smaller
        than the run's median so far.
        """
        own = {}
        for n, index in places:
            gains = self._gains(n, index)
            if len(gains) == self._bench.config.search_seeds > 1:
                own[n, index] = stdev(gains) / len(gains) ** 0.5
        floor = median(own.values()) if own else 0.0
        return {place: max(error, floor) for place, error in own.items()}

    def _gains(self, n: int, index: int) -> list[float]:
        """Gain over the parent of each training seed that both have: at the end, or at the rung that cut it."""
        outcome = self._bench.journal.find("outcome", f"g{n:03d}/c{index:02d}/s0")
        stage = outcome["stage"] if outcome is not None and outcome["status"] == "stopped" else FINAL
        gains = []
        for s in range(self._bench.config.search_seeds):
            here, there = (self._skill(f"g{n:03d}/{name}/s{s}", stage) for name in (f"c{index:02d}", "parent"))
            gains += [here - there] if here is not None and there is not None else []
        return gains

    def _skill(self, slot_key: str, stage: str) -> float | None:
        """Skill of one training seed on the search split, at the end or after an earlier stage."""
        journal = self._bench.journal
        final = stage == FINAL
        found = journal.find("evaluation", f"{slot_key}/search") if final else journal.find("reading", slot_key, stage)
        return float(found["score"]["skill"]) if found is not None and found["score"] else None

    def _finished(self) -> dict[int, float]:
        """By generation, the most that a candidate that no rung would have cut gained on its search seeds.

        Whoever was cut looked worse than that by then. Whether a confirmation refuted it does not matter here: what was
        read of the others was another measurement. A generation without one, or without a parent's score, has none.
        """
        journal, best = self._bench.journal, dict[int, float]()
        references = {body["generation"]: body for body in journal.all("reference") if gains_are_known(body)}
        audited = {(body["generation"], index) for body in journal.all("rung") for index in body["audited"]}
        for body in journal.all("score"):
            n, reference = body["generation"], references.get(body["generation"])
            if reference is not None and (n, body["index"]) not in audited:
                best[n] = max(best.get(n, -inf), float(body["skill"]) - float(reference["skill"]))
        return best

    def _outcome(
        self, proposal: Mapping[str, Any], place: tuple[int, int], finished: Mapping[int, float]
    ) -> tuple[Outcome, float | None]:
        """What is told of a proposal.

        One that a rung cut is told by what it was ahead of its parent there, at most by the search gain of the best of
        those that went on, where that is known. One that failed its confirmation is told as no gain: that of its search
        seeds was luck, or it lost what else the gate asks for; by how much it failed stays at the gate.
        """
        journal = self._bench.journal
        status = proposal["status"]
        if status == "invalid":
            return "invalid", None
        if status == "duplicate":
            return "duplicate", None
        if (denial := journal.find("denial", *place)) is not None:
            return ("same" if denial["limit"] == "flops" else "denied"), None  # an empty account is nobody's doing
        score = journal.find("score", *place)
        if score is None:
            if not self._was_cut(place):
                return "failed", None
            gains = self._gains(*place)
            return called(min(fmean(gains), finished.get(place[0], inf)) if gains else None)
        gain, reference = None, journal.find("reference", place[0])
        if reference is not None and gains_are_known(reference):
            gain = float(score["skill"]) - float(reference["skill"])
        decision = journal.find("decision", *place)
        if decision is not None and decision["promoted"]:
            return "promoted", self._confirmed_gain(*place) if gain is None else gain
        if gain is not None and journal.find("confirmation", *place) is not None:
            return "same", min(gain, 0.0)
        return called(gain)

    def _confirmed_gain(self, n: int, index: int) -> float | None:
        """What a candidate gained on the fresh seeds of its confirmation."""
        found = self._bench.journal.find("confirmation", n, index)
        return float(found["difference"]) if found is not None else None

    def _was_cut(self, place: tuple[int, int]) -> bool:
        """Whether halving stopped a candidate: that is known of it, and no failure."""
        rungs = (body for body in self._bench.journal.all("rung") if body["generation"] == place[0])
        return any(place[1] in body["cut"] for body in rungs)

    def _update(self, n: int, history: Sequence[Experience]) -> Update:
        """Teach the controller; one that keeps its genome where others may hand over trains for what that costs."""
        seed, given = derive(self._bench.config.seed, "tell", n), self._bench.journal.find("handover", n)
        if given is not None and given["extra_flops"] and isinstance(self._proposer, TransformerProposer):
            return self._proposer.tell(history, seed, given["extra_flops"])
        return self._proposer.tell(history, seed)

    def _ruling(self, n: int) -> Reign:
        return reign(self._bench.journal, self._bench.config.controller.genome(), n)

    def _unchanged(self, n: int) -> Reign:
        """The controller that generation ``n`` left, if its weights are still the ones on record.

        Raises:
            RunError: they were changed, or cannot be read.
        """
        ruling = self._ruling(n)
        if ruling.weights and ruling.sha256:
            path = self._bench.run_dir / ruling.weights
            try:
                found = hashlib.sha256(read_regular(path)).hexdigest()
            except OSError as error:
                found = error.strerror or str(error)
            if found != ruling.sha256:
                remedy = "selfimprove audit shows what was changed; put it back, or start a new run"
                raise RunError(f"trust the controller's weights in {path}", found, ruling.sha256, remedy)
        return ruling

    def _restore(self, ruling: Reign) -> None:
        """Be the controller that rules: its genome, and its newest weights."""
        if isinstance(self._proposer, TransformerProposer) and self._proposer.genome != ruling.genome:
            self._proposer = self._build(ruling.genome)
        self._proposer.restore(self._bench.run_dir / ruling.weights if ruling.weights else None)

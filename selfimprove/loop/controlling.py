"""The controller inside the loop: its jobs are contained, priced and recorded like any other."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import islice
from pathlib import Path
from statistics import fmean, median, stdev
from typing import Any

from selfimprove.archive.checkpoint import store
from selfimprove.containment.policy import assess
from selfimprove.containment.supervisor import Completed, Job
from selfimprove.controller.proposer import ControlResult, Experience, Outcome, Price
from selfimprove.controller.random_search import RandomProposer
from selfimprove.controller.registry import make
from selfimprove.errors import LimitReached, SelfImproveError
from selfimprove.genome.genome import Genome
from selfimprove.genome.space import Space
from selfimprove.loop import submission
from selfimprove.loop.attempts import attempt
from selfimprove.loop.controller_inspection import examine
from selfimprove.loop.granting import charge, forfeit, grant, spendable
from selfimprove.loop.slots import Bench, describe
from selfimprove.loop.stages import FINAL
from selfimprove.loop.submission import Submission
from selfimprove.seeds import derive

FLOOD = 100_000  # proposals beyond those asked for that are still counted
SAME = 0.01  # gains of skill smaller than this are called the same


class ControlFailed(SelfImproveError):
    """The controller's job was denied or not answered: the generation goes on with random proposals, or unlearned."""


class Controlling:
    """Asks and teaches the run's controller; each answer is recorded once."""

    def __init__(self, bench: Bench, space: Space) -> None:
        self._bench = bench
        self._space = space
        self._key = ""
        self._owed: tuple[str, int] | None = None  # a job whose effect is not on record yet
        self._ours: Exception | None = None  # a halt, a limit, a full disk while the controller's job ran
        seed = derive(bench.config.seed, "controller", "init")
        self._proposer = make(bench.config.controller, space, self._execute, self.genome_of, seed)

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
        """Proposals for generation ``n``; random ones where the controller or its worker fails."""

        def propose() -> dict[str, Any]:
            self._key = f"g{n:03d}/ask"
            history, count = self.history(), self._bench.config.candidates
            seed = derive(self._bench.config.seed, "ask", n)
            reason = ""
            try:
                self._restore()
                proposals = list(islice(self._proposer.ask([parent], history, count, seed), count + FLOOD))
            except Exception as error:
                reason = self._excuse(error)
                proposals = RandomProposer(self._space).ask([parent], history, count, seed)
            written = [submission.write(proposal, parents=1) for proposal in proposals[:count]]
            surplus = max(0, len(proposals) - count)  # more than was asked for is counted, not looked at
            return {"generation": n, "reason": reason, "surplus": surplus, "proposals": written}

        answer = self._bench.journal.once("ask", (n,), propose)
        self._pay()
        return [submission.read(proposal) for proposal in answer["proposals"]]

    def tell(self, n: int) -> None:
        """Learn from the whole history and keep the new weights."""

        def learn() -> dict[str, Any]:
            self._key = f"g{n:03d}/tell"
            asked = self._bench.journal.find("ask", n) or {"proposals": []}
            entropies = [p["entropy"] for p in asked["proposals"] if p["entropy"] is not None]
            body: dict[str, Any] = {"generation": n, "flops": 0, "loss": None, "weights": None, "reason": ""}
            body["entropy"] = sum(entropies) / len(entropies) if entropies else None
            history = self.history()
            try:
                self._restore()
                update = self._proposer.tell(history, derive(self._bench.config.seed, "tell", n))
                weights, loss = update.weights, submission.finite(update.loss)
            except Exception as error:
                return body | {"reason": self._excuse(error)}
            paid = self._owed[1] if self._owed is not None else 0  # what it cost is for us to say
            body |= {"flops": paid, "loss": loss}
            if weights is not None:
                folder = self._bench.run_dir / "controller"
                genome = self._bench.config.controller.genome()
                stored = store(folder, f"g{n:03d}", weights, {"genome_sha256": genome.sha256})
                body |= {
                    "weights": stored.path.relative_to(self._bench.run_dir).as_posix(),
                    "sha256": stored.sha256,
                    "genome": genome.sha256,
                    "manifest": stored.manifest.relative_to(self._bench.run_dir).as_posix(),
                    "manifest_sha256": stored.manifest_sha256,
                }
            return body

        self._bench.journal.once("controller", (n,), learn)
        self._pay()

    def inspect(self, n: int, parent: Genome) -> dict[str, Any]:
        """Read the controller as generation ``n`` left it, before it is asked to edit ``parent``; the record."""
        return self._bench.journal.once(
            "controller_inspection", (n,), lambda: examine(self._bench, n, self._proposer, parent)
        )

    def history(self) -> list[Experience]:
        """What became of every proposal so far, from the ledger."""
        bodies = self._bench.journal.all("proposal")
        places = [(body["generation"], body["index"]) for body in bodies]
        errors = self._standard_errors(places)
        experiences = []
        for body, place in zip(bodies, places, strict=True):
            outcome, gain = self._outcome(body, place)
            said = submission.read(body)
            edits = () if said.flaw else said.edits
            experiences.append(Experience(place[0], body["parent"], edits, outcome, gain, errors.get(place)))
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

    def _outcome(self, proposal: Mapping[str, Any], place: tuple[int, int]) -> tuple[Outcome, float | None]:
        journal = self._bench.journal
        status = proposal["status"]
        if status == "invalid":
            return "invalid", None
        if status == "duplicate":
            return "duplicate", None
        if journal.find("denial", *place) is not None:
            return "denied", None
        score, reference = journal.find("score", *place), journal.find("reference", place[0])
        if score is None:
            gains = self._gains(*place) if self._was_cut(place) else []
            return ("worse", fmean(gains)) if gains else ("failed", None)
        if reference is None:  # its parent failed, not the candidate: nothing is known of the gain
            return "same", None
        gain = float(score["skill"]) - float(reference["skill"])
        decision = journal.find("decision", *place)
        if decision is not None and decision["promoted"]:
            return "promoted", gain
        if gain > SAME:
            return "better", gain
        return ("worse" if gain < -SAME else "same"), gain

    def _was_cut(self, place: tuple[int, int]) -> bool:
        """Whether halving stopped a candidate: that is known of it, and no failure."""
        rungs = (body for body in self._bench.journal.all("rung") if body["generation"] == place[0])
        return any(place[1] in body["cut"] for body in rungs)

    def _restore(self) -> None:
        """Continue from the newest weights in the ledger."""
        stored = [body["weights"] for body in self._bench.journal.all("controller") if body["weights"]]
        self._proposer.restore(self._bench.run_dir / stored[-1] if stored else None)

    def _excuse(self, error: Exception) -> str:
        """Why a controller failed, for the record; what ended its job from our side is raised again."""
        if error is self._ours:
            raise error
        return submission.printable(str(error) or type(error).__name__, submission.REASON)

    def _execute(self, payload: dict[str, Any], inputs: dict[str, Path], outputs: tuple[str, ...], /) -> ControlResult:
        """See ``_run``; remembers what went wrong on our side, which is no failure of the controller."""
        try:
            return self._run(payload, inputs, outputs)
        except ControlFailed:
            raise
        except Exception as error:
            self._ours = error
            raise

    def _run(self, payload: dict[str, Any], inputs: dict[str, Path], outputs: tuple[str, ...]) -> ControlResult:
        """Run one controller job under a permit, by the limits on any candidate.

        Raises:
            ControlFailed: it is over one of them, or it was not answered.
            LimitReached: the budget does not cover it.
        """
        bench, key, price = self._bench, self._key, Price(**payload["price"])
        denial = assess(price, bench.config.limits, device=bench.config.device)
        if denial is not None:
            raise ControlFailed(f"permit {key}", denial.reason, remedy="raise the limit that it names")
        if price.flops > spendable(bench.budget, bench.config.limits):
            amount = f"{price.flops} FLOPs"
            raise LimitReached(f"run {key} within limits.flops", amount, "what is left", "raise limits.flops")
        genome = bench.config.controller.genome()
        bench.register(genome)
        job = Job(key, "torch", payload["entry"], payload, inputs, outputs, bench.limits(output_bytes=1 << 24))
        attempts = attempt(
            bench.supervisor,
            [job],
            on_start=lambda _: grant(bench, key, "controller", genome.sha256, FINAL, price),
            on_killed=lambda _: forfeit(bench, key),
        )
        outcome = next(found for _, found in list(attempts))
        self._owed = (key, price.flops)
        if not isinstance(outcome, Completed):
            raise ControlFailed(f"run the controller for {key}", describe(outcome)[1])
        return ControlResult(outcome.result, outcome.outputs)

    def _pay(self) -> None:
        """Charge the job under the record just written, if it took one."""
        if self._owed is not None:
            charge(self._bench, *self._owed)
        self._owed = None

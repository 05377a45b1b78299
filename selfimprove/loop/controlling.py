"""The controller inside the loop: its jobs are contained, priced and recorded like any other."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from selfimprove.archive.checkpoint import store
from selfimprove.containment.supervisor import Completed, Job
from selfimprove.controller.proposer import ControlResult, Experience, Outcome, Proposal
from selfimprove.controller.random_search import RandomProposer
from selfimprove.controller.registry import make
from selfimprove.errors import InvalidCheckpoint, InvalidEdit, LimitReached, SelfImproveError
from selfimprove.genome.edits import Edit, parse_edit
from selfimprove.genome.genome import Genome
from selfimprove.genome.space import Space
from selfimprove.loop.attempts import attempt
from selfimprove.loop.granting import charge, forfeit, grant, spendable
from selfimprove.loop.slots import Bench, describe
from selfimprove.loop.stages import FINAL
from selfimprove.seeds import derive

SAME = 0.01  # gains of skill smaller than this are called the same


class ControlFailed(SelfImproveError):
    """The controller's worker did not answer: the generation goes on with uniform proposals, or without learning."""


@dataclass(frozen=True)
class _Price:
    """A controller job's price in the form that the policy reads."""

    parameters: int
    flops: int
    tokens: int
    steps: int
    memory_bytes: int


class Controlling:
    """Asks and teaches the run's controller; each answer is recorded once."""

    def __init__(self, bench: Bench, space: Space) -> None:
        self._bench = bench
        self._space = space
        self._key = ""
        self._owed: tuple[str, int] | None = None  # a job whose effect is not on record yet
        self._proposer = make(bench.config.controller, space, self._execute, self.genome_of)

    def genome_of(self, sha256: str) -> Genome:
        """A genome of this run; raises KeyError for another."""
        seed = self._bench.config.seed_genome
        if sha256 == seed.sha256:
            return seed
        body = self._bench.journal.find("genome", sha256)
        if body is None:
            raise KeyError(sha256)
        return Genome.from_json(body["genome"])

    def ask(self, n: int, parent: Genome) -> list[tuple[Edit, ...]]:
        """Proposals for generation ``n``; uniform ones where the controller's worker fails."""

        def propose() -> dict[str, Any]:
            self._restore()
            self._key = f"g{n:03d}/ask"
            history, count = self.history(), self._bench.config.candidates
            seed = derive(self._bench.config.seed, "ask", n)
            reason = ""
            try:
                proposals = self._proposer.ask([parent], history, count, seed)
            except (ControlFailed, InvalidEdit) as error:
                reason = str(error)
                proposals = RandomProposer(self._space).ask([parent], history, count, seed)
            return {"generation": n, "reason": reason, "proposals": [_plain(p) for p in proposals]}

        answer = self._bench.journal.once("ask", (n,), propose)
        self._pay()
        return [tuple(parse_edit(text) for text in p["edits"]) for p in answer["proposals"]]

    def tell(self, n: int) -> None:
        """Learn from the whole history and keep the new weights."""

        def learn() -> dict[str, Any]:
            self._restore()
            self._key = f"g{n:03d}/tell"
            asked = self._bench.journal.find("ask", n) or {"proposals": []}
            entropies = [p["entropy"] for p in asked["proposals"] if p["entropy"] is not None]
            body: dict[str, Any] = {"generation": n, "flops": 0, "loss": None, "weights": None, "reason": ""}
            body["entropy"] = sum(entropies) / len(entropies) if entropies else None
            try:
                update = self._proposer.tell(self.history(), derive(self._bench.config.seed, "tell", n))
            except (ControlFailed, InvalidEdit, InvalidCheckpoint) as error:
                return body | {"reason": str(error)}
            body |= {"flops": update.flops, "loss": update.loss}
            if update.weights is not None:
                folder = self._bench.run_dir / "controller"
                genome = self._bench.config.controller.genome()
                stored = store(folder, f"g{n:03d}", update.weights, {"genome_sha256": genome.sha256})
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

    def history(self) -> list[Experience]:
        """What became of every proposal so far, from the ledger."""
        journal = self._bench.journal
        experiences = []
        for body in journal.all("proposal"):
            place = (body["generation"], body["index"])
            outcome, gain = self._outcome(body, place)
            edits = tuple(parse_edit(text) for text in body["edits"])
            experiences.append(Experience(body["generation"], body["parent"], edits, outcome, gain))
        return experiences

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
            return "failed", None
        if reference is None:  # its parent failed, not the candidate: nothing is known of the gain
            return "same", None
        gain = float(score["skill"]) - float(reference["skill"])
        decision = journal.find("decision", *place)
        if decision is not None and decision["promoted"]:
            return "promoted", gain
        if gain > SAME:
            return "better", gain
        return ("worse" if gain < -SAME else "same"), gain

    def _restore(self) -> None:
        """Continue from the newest weights in the ledger."""
        stored = [body["weights"] for body in self._bench.journal.all("controller") if body["weights"]]
        self._proposer.restore(self._bench.run_dir / stored[-1] if stored else None)

    def _execute(self, payload: dict[str, Any], inputs: dict[str, Path], outputs: tuple[str, ...], /) -> ControlResult:
        """Run one controller job under a permit."""
        bench, key, flops = self._bench, self._key, int(payload["flops"])
        if flops > spendable(bench.budget, bench.config.limits):
            raise LimitReached(f"run {key} within limits.flops", f"{flops} FLOPs", "what is left", "raise limits.flops")
        genome = bench.config.controller.genome()
        bench.known_genomes.add(genome.sha256)
        price = _Price(1, flops, 1, 1, 1)
        job = Job(key, "torch", payload["entry"], payload, inputs, outputs, bench.limits(output_bytes=1 << 24))
        attempts = attempt(
            bench.supervisor,
            [job],
            on_start=lambda _: grant(bench, key, "controller", genome.sha256, FINAL, price),
            on_killed=lambda _: forfeit(bench, key),
        )
        outcome = next(found for _, found in list(attempts))
        self._owed = (key, flops)
        if not isinstance(outcome, Completed):
            raise ControlFailed(f"run the controller for {key}", describe(outcome)[1])
        return ControlResult(outcome.result, outcome.outputs)

    def _pay(self) -> None:
        """Charge the job under the record just written, if it took one."""
        if self._owed is not None:
            charge(self._bench, *self._owed)
        self._owed = None


def _plain(proposal: Proposal) -> dict[str, Any]:
    edits = [str(edit) for edit in proposal.edits]
    return {"edits": edits, "log_prob": proposal.log_prob, "entropy": proposal.entropy}

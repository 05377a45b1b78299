"""Admission: what the controller proposes becomes a candidate only if it is valid, new, priced and screened."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

from selfimprove.containment.policy import assess
from selfimprove.errors import InvalidEdit, InvalidGenome, LimitReached
from selfimprove.genome.edits import Edit
from selfimprove.genome.genome import Genome
from selfimprove.genome.space import Space, apply_all
from selfimprove.loop.climbing import tasks_of
from selfimprove.loop.granting import spendable
from selfimprove.loop.loss_screen import screen_losses
from selfimprove.loop.propensity import Reach, reach
from selfimprove.loop.slots import Bench
from selfimprove.loop.submission import REASON, Submission, printable
from selfimprove.tasks.suite import TasksConfig


@dataclass(frozen=True)
class Candidate:
    """A valid proposal: its place in its generation, the genome that it makes of the parent, and the edits."""

    index: int
    genome: Genome
    edits: tuple[Edit, ...]


class Admission:
    """Decides which proposals of a generation are trained.

    Args:
        bench: workers, accounts and memory.
        space: what edits may reach.
    """

    def __init__(self, bench: Bench, space: Space) -> None:
        self.bench = bench
        self.config = bench.config
        self.journal = bench.journal
        self.space = space

    def apply(self, n: int, parent: Genome, proposals: Sequence[Submission]) -> list[Candidate]:
        """The proposals that are valid and new, as candidates; each proposal is in the ledger, refused or not."""
        tasks = tasks_of(self.bench, n)
        applied = [self._apply(submission, parent, tasks) for submission in proposals]
        known = (self.config.seed_genome, parent)
        screened = self._screen(n, [*known, *(found for found in applied if isinstance(found, Genome))])
        new = [self._propose(n, i, parent, proposals[i], found, screened) for i, found in enumerate(applied)]
        return [Candidate(i, found, proposals[i].edits) for i, found in enumerate(new) if found is not None]

    def quote(self, n: int, parent: Genome, candidates: Sequence[Candidate]) -> list[Candidate]:
        """The candidates whose price and loss the policy and the screen let pass; every denial is in the ledger.

        Raises:
            LimitReached: what is left of ``limits.flops`` does not cover even one.
        """
        verdicts = self.journal.once("admission", (n,), lambda: self._verdicts(n, parent, candidates))
        for body in verdicts["denied"]:
            self.journal.once("denial", (n, body["index"]), lambda body=body: body)  # type: ignore[misc]
        if not verdicts["admitted"] and any(body["limit"] == "flops" for body in verdicts["denied"]):
            left = f"{verdicts['spendable']} FLOPs left beside its parent's training and a confirmation"
            remedy = "raise limits.flops and start a new run"
            raise LimitReached("train a candidate within limits.flops", left, "", remedy)
        return [candidate for candidate in candidates if candidate.index in verdicts["admitted"]]

    def _verdicts(self, n: int, parent: Genome, candidates: Sequence[Candidate]) -> dict[str, Any]:
        """Who is trained, as one record: what is left to spend would read otherwise once some of them were.

        What the generation cannot do without is set aside first: training its parent again, and a confirmation.
        """
        config = self.config
        left = spendable(self.bench.budget, config.limits) - config.confirm_seeds * config.allowance_flops
        tasks = tasks_of(self.bench, n)
        left -= (config.search_seeds + config.confirm_seeds) * self.bench.price(parent, tasks).flops
        admitted, denied = [], []
        for candidate in candidates:
            price = self.bench.price(candidate.genome, tasks).flops * config.search_seeds
            reason = self._refusal(n, candidate.genome, price, left)
            if reason is None:
                left -= price
                admitted.append(candidate.index)
            else:
                denied.append({"generation": n, "index": candidate.index, "genome": candidate.genome.sha256, **reason})
        return {"generation": n, "admitted": admitted, "denied": denied, "spendable": left}

    def _apply(self, submission: Submission, parent: Genome, tasks: TasksConfig) -> Genome | str:
        """A proposal's genome, or why it has none."""
        if submission.flaw:
            return submission.flaw
        try:
            found = apply_all(submission.edits, parent, self.space)
            self.bench.price(found, tasks)  # what has no price is no candidate
            return found
        except (InvalidEdit, InvalidGenome) as error:
            return printable(str(error), REASON)
        except Exception as error:  # a text that our own code stumbles over costs its proposal, not the run
            return printable(f"{type(error).__name__}: {error}", REASON)

    def _propose(
        self,
        n: int,
        index: int,
        parent: Genome,
        submission: Submission,
        found: Genome | str,
        screened: Mapping[str, Any],
    ) -> Genome | None:
        """Record a proposal; its genome if it is valid and new."""
        status, reason, signature = "valid", "", None
        if isinstance(found, str):
            status, reason = "invalid", found
        else:
            signature = self._signature(found, screened)
            if (first := self._trained_alike(n, index, signature, screened)) is not None:
                status = "duplicate"
                reason = "proposed before" if first == found.sha256 else f"trains exactly as {first[:10]} does"
            self.bench.register(found)
        body = {
            "generation": n,
            "index": index,
            "parent": parent.sha256,
            "edits": list(submission.texts),
            "kinds": submission.kinds,
            "allocates": any(edit.allocates for edit in submission.edits),
            "reach": self._reach(submission, parent),
            "status": status,
            "reason": reason,
            "genome": found.sha256 if isinstance(found, Genome) else None,
            "signature": signature,
        }
        self.journal.once("proposal", (n, index), lambda: body)
        return found if isinstance(found, Genome) and status == "valid" else None

    def _reach(self, submission: Submission, parent: Genome) -> Reach:
        """See ``reach``; nothing is read into a text that our own code stumbles over."""
        try:
            return reach(submission.edits, parent, self.space)
        except Exception:
            return ""

    def _signature(self, genome: Genome, screened: Mapping[str, Any]) -> str:
        """What a genome's training depends on: all but its loss, and the direction of its loss's gradient."""
        verdict = screened[genome.objective.expression.text]
        rest = replace(genome, objective=self.config.seed_genome.objective)
        return f"{rest.sha256}:{verdict['fingerprint'] or genome.sha256}"

    def _trained_alike(self, n: int, index: int, signature: str, screened: Mapping[str, Any]) -> str | None:
        """The seed or an earlier valid proposal with the same signature, by its hash."""
        seed = self.config.seed_genome
        if signature == self._signature(seed, screened):
            return seed.sha256
        earlier = [b for b in self.journal.all("proposal") if (b["generation"], b["index"]) < (n, index)]
        return next((b["genome"] for b in earlier if b["status"] == "valid" and b["signature"] == signature), None)

    def _screen(self, n: int, genomes: Sequence[Genome]) -> Mapping[str, Any]:
        """Loss expressions of the candidates through the numerical screen, in a worker, once a generation."""

        def make() -> dict[str, Any]:
            texts = sorted({genome.objective.expression.text for genome in genomes})
            return {"generation": n, "results": screen_losses(self.bench, f"g{n:03d}/screen", texts)}

        results: Mapping[str, Any] = self.journal.once("screen", (n,), make)["results"]
        return results

    def _refusal(self, n: int, genome: Genome, price: int, left: int) -> dict[str, Any] | None:
        """Why a genome may not be trained, or None."""
        priced, allowance = self.bench.price(genome, tasks_of(self.bench, n)), self.config.allowance_flops
        if priced.steps == 0:
            value = priced.flops_per_step
            reason = f"one step costs {value} FLOPs, more than allowance_flops = {allowance}"
            return {"reason": reason, "limit": "allowance_flops", "value": value, "bound": allowance}
        denial = assess(priced, self.config.limits, device=self.config.device)
        if denial is not None:
            return asdict(denial)
        verdict = self._screen(n, ())[genome.objective.expression.text]
        if not verdict["ok"]:
            reason = f"loss refused by the screen: {verdict['reason']}"
            return {"reason": reason, "limit": None, "value": None, "bound": None}
        if price > left:
            return {"reason": "the budget does not cover it", "limit": "flops", "value": price, "bound": max(left, 0)}
        return None

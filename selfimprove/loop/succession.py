"""Succession: after a promotion, a contender for the controller's place is built, trained, compared and decided upon.

Every effect is recorded once: the contender, the trial of either, the hand-over. What a trial says comes from a
contained worker; here it is only compared.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from functools import cached_property
from math import fsum, log
from typing import Any

from selfimprove.archive.checkpoint import store
from selfimprove.containment.policy import assess
from selfimprove.controller.proposer import Experience, GenomeOf
from selfimprove.controller.transformer import HeldOut, TransformerProposer
from selfimprove.errors import InvalidEdit
from selfimprove.genome.genome import Genome
from selfimprove.genome.space import Space
from selfimprove.loop.controller_inspection import read_controller
from selfimprove.loop.controller_jobs import ControllerJobs
from selfimprove.loop.loss_screen import screen_losses
from selfimprove.loop.recursion import TEST, compare, decide, halves, inherited, shams, succeeded, undecidable
from selfimprove.loop.reign import CONTENDER, INCUMBENT, Reign
from selfimprove.loop.slots import Bench
from selfimprove.seeds import derive

Body = dict[str, Any]
Build = Callable[[Genome], TransformerProposer]


class Succession:
    """Decides who rules after a promotion.

    Args:
        bench: workers, accounts and memory.
        space: where genomes come from.
        jobs: runs the trials.
        genome_of: finds the parents of the history.
        build: a controller of a genome, with the run's initial weights.
    """

    def __init__(self, bench: Bench, space: Space, jobs: ControllerJobs, genome_of: GenomeOf, build: Build) -> None:
        self._bench = bench
        self._space = space
        self._jobs = jobs
        self._genome_of = genome_of
        self._build = build
        self._arm = bench.config.controller.recursion

    @cached_property
    def _first(self) -> TransformerProposer:
        return self._build(self._bench.config.controller.genome())

    def after(self, n: int, promoted: Genome, own: Genome, history: Sequence[Experience]) -> Body:
        """What becomes of the controller after generation ``n`` promoted a genome; the ``handover`` record.

        Args:
            n: the generation.
            promoted: what it promoted.
            own: the controller's genome so far.
            history: what became of every proposal so far.
        """
        return self._bench.journal.once("handover", (n,), lambda: self._handover(n, promoted, own, history))

    def _handover(self, n: int, promoted: Genome, own: Genome, history: Sequence[Experience]) -> Body:
        body: Body = {
            "generation": n, "arm": self._arm, "promoted": promoted.sha256, "incumbent": own.sha256, "contender": None,
            "accepted": False, "reasons": [], "extra_flops": 0, "comparison": None, "inspection": None,
        }  # fmt: skip
        config = self._bench.config
        learned, judging = halves(history, derive(config.seed, "held out", n))
        held_out = [(one, self._spelled(one)) for one in judging]
        rated = [(one, *spelled) for one, spelled in held_out if spelled is not None]
        outcomes = [succeeded(one) for one, *_ in rated]
        if why := "there is nothing to learn from" if not learned else undecidable(outcomes, config.alpha):
            return body | {"reasons": [why]}
        if self._arm == "extra":
            if why := self._refusal(n, promoted, own, len(rated)):
                return body | {"reasons": [why]}
            flops = sum(self._build(one).trial_price(n, len(rated)).flops for one in (promoted, own))
            return body | {"reasons": ["keeps its genome, and trains for what a hand-over costs"], "extra_flops": flops}
        contender = self._contender(n, promoted, own, len(rated))
        body |= {"contender": contender["genome"]}
        if contender["reason"]:
            return body | {"reasons": [contender["reason"]]}
        genomes = {CONTENDER: self._genome_of(contender["genome"]), INCUMBENT: own}
        asked = [held for _, held, _ in rated]
        trials = {role: self._trial(n, role, genome, learned, asked) for role, genome in genomes.items()}
        failed = [f"the {role}'s trial failed: {trial['reason']}" for role, trial in trials.items() if trial["reason"]]
        if failed:
            return body | {"reasons": failed}
        odds = {
            role: [said - even for said, (_, _, even) in zip(trial["log_probs"], rated, strict=True)]
            for role, trial in trials.items()
        }
        return body | self._decision(n, promoted, genomes[CONTENDER], trials[CONTENDER], odds, outcomes)

    def _decision(
        self,
        n: int,
        promoted: Genome,
        genome: Genome,
        trial: Body,
        odds: Mapping[str, Sequence[float]],
        outcomes: Sequence[bool],
    ) -> Body:
        """Compare, read the contender where it is better, and decide."""
        alpha = self._bench.config.alpha
        comparison = compare(odds[CONTENDER], odds[INCUMBENT], outcomes, derive(self._bench.config.seed, "groups", n))
        reading = None
        if comparison.p_value < alpha:
            ruling = Reign(genome, trial["weights"], trial["sha256"])
            key = f"g{n:03d}/{CONTENDER}-reading"
            reading = read_controller(self._bench, key, n, self._build(genome), promoted, ruling)
        decision = decide(comparison, reading, alpha)
        return {
            "accepted": decision.promoted,
            "reasons": list(decision.reasons),
            "comparison": {"test": TEST, "alpha": alpha, **asdict(comparison)},
            "inspection": reading,
        }

    def _spelled(self, experience: Experience) -> tuple[HeldOut, float] | None:
        """A proposal as controllers are asked about it, and the log of its chance without any preference.

        None for one that no controller could make.
        """
        grammar, parent = self._first.grammar, self._genome_of(experience.parent)
        try:
            ids = grammar.encode(experience.edits)
            even = -fsum(log(len(allowed)) for allowed in grammar.choices(ids, parent))
        except InvalidEdit:
            return None
        return HeldOut(parent, tuple(ids)), even

    def _contender(self, n: int, promoted: Genome, own: Genome, held_out: int) -> Body:
        """Who stands against the incumbent, once: its genome, or why nobody does; the ``contender`` record."""

        def choose() -> Body:
            genome, reason = self._chosen(n, promoted, own, held_out)
            self._bench.register(genome)
            return {"generation": n, "arm": self._arm, "genome": genome.sha256, "reason": reason}

        return self._bench.journal.once("contender", (n,), choose)

    def _chosen(self, n: int, promoted: Genome, own: Genome, held_out: int) -> tuple[Genome, str]:
        if self._arm != "sham":
            genome = inherited(self._arm, own, promoted)
            return genome, self._refusal(n, genome, own, held_out)
        origin, seed = self._bench.config.seed_genome, derive(self._bench.config.seed, "sham", n)
        drawn = shams(self._space, origin, self._edits_to(promoted, origin), seed)
        for number, genome in enumerate(drawn):
            if not self._refusal(n, genome, own, held_out) and self._is_sound(f"g{n:03d}/sham/{number}", genome):
                return genome, ""
        return own, "no random genome that was drawn may be a controller"

    def _refusal(self, n: int, genome: Genome, own: Genome, held_out: int) -> str:
        """Why a genome may not be tried as a controller, before anything is spent; empty where it may."""
        config, proposer = self._bench.config, self._build(genome)
        if genome.sha256 == own.sha256:
            return "it is the incumbent's own genome"
        asking, first = (one.ask_price(config.candidates) for one in (proposer, self._first))
        for price in (asking, proposer.trial_price(n, held_out)):
            if (denial := assess(price, config.limits, device=config.device)) is not None:
                return f"over a limit on candidates: {denial.reason}"
        if asking.flops > (most := config.controller.handover_cost * first.flops):
            cost, most = asking.flops // config.candidates, round(most / config.candidates)
            return f"a proposal would cost {cost} FLOPs, over {most}: controller.handover_cost times the first one's"
        return ""

    def _edits_to(self, genome: Genome, origin: Genome) -> int:
        """Edits on the way from the seed genome to a promoted one."""
        made = {b["genome"]: b for b in reversed(self._bench.journal.all("proposal")) if b["status"] == "valid"}
        count, at = 0, genome.sha256
        while at != origin.sha256:
            count, at = count + len(made[at]["edits"]), made[at]["parent"]
        return count

    def _is_sound(self, key: str, genome: Genome) -> bool:
        """Whether a genome's loss passes the screen of candidates' losses."""
        text = genome.objective.expression.text
        return bool(screen_losses(self._bench, key, [text])[text]["ok"])

    def _trial(
        self, n: int, role: str, genome: Genome, learned: Sequence[Experience], held_out: Sequence[HeldOut]
    ) -> Body:
        """Train one side and ask it about what it has not seen, once; the ``trial`` record."""

        def run() -> Body:
            self._jobs.key = f"g{n:03d}/{role}"
            body: Body = {
                "generation": n, "role": role, "genome": genome.sha256, "flops": 0, "loss": None, "log_probs": [],
                "weights": None, "reason": "",
            }  # fmt: skip
            try:
                trial = self._build(genome).trial(learned, held_out, n, derive(self._bench.config.seed, "trial", n))
            except Exception as error:
                return body | {"flops": self._jobs.owed, "reason": self._jobs.excuse(error)}
            body |= {"flops": self._jobs.owed, "loss": trial.loss, "log_probs": list(trial.log_probs)}
            if trial.weights is None:
                return body | {"reason": "its training diverged"}
            return body | self._kept(n, genome, trial.weights) if role == CONTENDER else body

        found = self._bench.journal.once("trial", (n, role), run)
        self._jobs.pay()
        return found

    def _kept(self, n: int, genome: Genome, weights: bytes) -> Body:
        run_dir = self._bench.run_dir
        manifest = {"genome_sha256": genome.sha256}
        return store(run_dir / "controller", f"g{n:03d}-{CONTENDER}", weights, manifest).record(run_dir)

"""Slots: one genome, one training seed, one permit. Trained, ingested and scored in workers; each effect once."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from selfimprove.archive.checkpoint import ingest
from selfimprove.archive.files import make_folder, write_atomic
from selfimprove.containment.budget import Budget
from selfimprove.containment.permit import Claim, PermitBook
from selfimprove.containment.policy import Denial, Limits, decide
from selfimprove.containment.supervisor import (
    Completed,
    Crashed,
    Exceeded,
    Invalid,
    Job,
    JobLimits,
    Outcome,
    Supervisor,
)
from selfimprove.errors import InvalidCheckpoint, LimitReached, RunError
from selfimprove.genome.genome import Genome
from selfimprove.loop.attempts import attempt
from selfimprove.loop.config import RunConfig
from selfimprove.loop.journal import Journal
from selfimprove.nets.cost import Quote, parameter_shapes, quote
from selfimprove.tasks.score import Score
from selfimprove.training.protocol import ENTRY, WEIGHTS, EvaluateJob, TrainJob

STAGE = "1/1"
SCRATCH = "scratch"  # weights between training and the end of their generation
_REPORTED = ("steps", "diverged")  # of all that a training worker may say, what a record keeps


@dataclass(frozen=True)
class Slot:
    """One training run to be paid for.

    Attributes:
        key: its place in the run, e.g. ``g003/c05/s1``.
        account: who pays: search or confirm.
        genome: what is trained.
        seed: of weights and training data.
        splits: split -> seed of its instances; the trained weights are scored on each.
    """

    key: str
    account: str
    genome: Genome
    seed: int
    splits: tuple[tuple[str, int], ...]


@dataclass(frozen=True)
class Bench:
    """What it takes to run slots: the contained workers, the accounts, and the memory of what was done."""

    config: RunConfig
    run_dir: Path
    journal: Journal
    supervisor: Supervisor
    budget: Budget
    book: PermitBook
    run_id: str
    known_genomes: set[str]

    def price(self, genome: Genome) -> Quote:
        """What one training seed of a genome costs."""
        tasks = self.config.tasks
        return quote(
            genome, vocab_size=tasks.vocab_size, context=tasks.context, allowance_flops=self.config.allowance_flops
        )

    def register(self, genome: Genome) -> None:
        """Record a validated genome, once; only such a genome can get a permit."""
        body = {"sha256": genome.sha256, "genome": genome.to_json()}
        self.journal.once("genome", (genome.sha256,), lambda: body)
        self.known_genomes.add(genome.sha256)

    def run_one(self, job: Job) -> Outcome:
        """Run a single job in a contained worker."""
        return next(outcome for _, outcome in list(attempt(self.supervisor, [job])))

    def weights(self, key: str) -> Path:
        """Where the weights of a slot wait until their generation ends."""
        return self.run_dir / SCRATCH / f"{key.replace('/', '-')}.weights"

    def limits(self, *, output_bytes: int = 1 << 20) -> JobLimits:
        """Limits of one worker."""
        contained = self.config.containment
        return JobLimits(
            wall_seconds=contained.job_wall_seconds,
            cpu_seconds=contained.job_cpu_seconds,
            memory_bytes=self.config.limits.memory_bytes,
            output_bytes=output_bytes,
            silence_seconds=contained.job_silence_seconds,
        )


def spendable(budget: Budget, limits: Limits) -> int:
    """FLOPs that may still be planned for. What crashes may lose is set aside, so that no crash changes a plan."""
    return limits.flops - lost_cap(limits) - sum(v for account, v in budget.charged.items() if account != "lost")


def lost_cap(limits: Limits) -> int:
    """Most FLOPs that crashes may lose: ``limits.lost_flops``, and never more than a tenth of everything."""
    return min(limits.lost_flops, limits.flops // 10)


def measure(bench: Bench, slots: Sequence[Slot], generation: int, label: str) -> list[dict[str, Score] | None]:
    """Train and score slots; one entry each, in their order: a score per split, or None for a failure.

    Raises:
        LimitReached: the budget does not cover them all; nothing was started.
    """
    journal = bench.journal
    todo = [slot for slot in slots if journal.find("outcome", slot.key) is None]
    need = sum(bench.price(slot.genome).flops for slot in todo)
    left = spendable(bench.budget, bench.config.limits)
    if need > left:
        raise LimitReached(f"train {label} within limits.flops", f"{need} FLOPs", f"{left} left", "raise limits.flops")
    jobs = [_train_job(bench, slot) for slot in todo]
    attempts = attempt(
        bench.supervisor,
        jobs,
        on_start=lambda index: _permit(bench, todo[index]),
        on_killed=lambda index: forfeit(bench, todo[index].key),
    )
    for done, (index, outcome) in enumerate(attempts, start=1):
        _settle(bench, todo[index], outcome)
        journal.progress(generation=generation, label=label, done=done, total=len(todo))
    _evaluate(bench, slots)
    return [_scores(journal, slot) for slot in slots]


def _train_job(bench: Bench, slot: Slot) -> Job:
    priced = bench.price(slot.genome)
    job = TrainJob(slot.genome, bench.config.tasks, priced.steps, slot.seed, bench.config.device)
    zygote = "cuda" if bench.config.device == "cuda" else "torch"
    output = 8 * priced.parameters + (1 << 20)
    return Job(slot.key, zygote, ENTRY, job.to_json(), {}, (WEIGHTS,), bench.limits(output_bytes=output))


def _permit(bench: Bench, slot: Slot) -> None:
    grant(bench, slot.key, slot.account, slot.genome.sha256, bench.price(slot.genome))


def grant(bench: Bench, key: str, account: str, genome: str, priced: Any) -> None:
    """Reserve, sign, record and spend the permit of one job.

    Raises:
        LimitReached: the policy denies it.
    """
    claim = Claim(bench.run_id, key, genome, STAGE)
    again = any(body["key"] == key for body in bench.journal.all("permit"))
    permit = decide(
        claim,
        priced,
        account=account,
        limits=bench.config.limits,
        budget=bench.budget,
        book=bench.book,
        known_genomes=bench.known_genomes,
        reissue=again,
    )
    if isinstance(permit, Denial):
        raise LimitReached(f"permit {key}", permit.reason, str(permit.bound or ""), "raise the limit that it names")
    bench.journal.record("permit", permit.to_json())
    bench.book.spend(permit, claim)


def charge(bench: Bench, key: str, flops: int) -> None:
    """Settle a permitted job, once its effect is on record: a crash in between is mended by ``settle_open``."""
    bench.journal.record("charge", asdict(bench.budget.charge(key, flops)))


def forfeit(bench: Bench, key: str) -> bool:
    """Book the work of a killed process as lost, so that it can be permitted again; False if that account is full."""
    if not bench.budget.may_lose(key):
        return False
    bench.journal.record("charge", asdict(bench.budget.lose(key)))
    return True


def _settle(bench: Bench, slot: Slot, outcome: Outcome) -> None:
    """Book a training's outcome: its whole slice is charged, however it ended."""
    status, reason, result = describe(outcome)
    files: dict[str, str] = {}
    if isinstance(outcome, Completed):
        status, reason = _ingest(bench, slot, outcome)
        if status == "completed":
            data = outcome.outputs[WEIGHTS]
            make_folder(bench.run_dir / SCRATCH)
            write_atomic(bench.weights(slot.key), data)
            files = {WEIGHTS: hashlib.sha256(data).hexdigest()}
    body = {"key": slot.key, "status": status, "reason": reason, "result": result, "files": files}
    bench.journal.record("outcome", body | {"usage": asdict(outcome.usage)})
    charge(bench, slot.key, bench.price(slot.genome).flops)


def _ingest(bench: Bench, slot: Slot, outcome: Completed) -> tuple[str, str]:
    if outcome.result.get("diverged") is True:
        return "diverged", "the loss or a weight stopped being finite"
    tasks = bench.config.tasks
    try:
        shapes = parameter_shapes(slot.genome.architecture, tasks.vocab_size, tasks.context)
        ingest(outcome.outputs.get(WEIGHTS, b""), shapes)
    except InvalidCheckpoint as error:
        return "invalid", str(error)
    return "completed", ""


def describe(outcome: Outcome) -> tuple[str, str, dict[str, Any]]:
    """Status, reason and result of an outcome, for a record."""
    match outcome:
        case Completed(result=result):
            return "completed", "", {k: result[k] for k in _REPORTED if isinstance(result.get(k), bool | int)}
        case Exceeded(limit=limit, value=value, bound=bound):
            return "exceeded", f"{limit}: {value:g} over {bound:g}", {}
        case Crashed(reason=reason):
            return "crashed", reason, {}
        case Invalid(reason=reason):
            return "invalid", reason, {}


def _evaluate(bench: Bench, slots: Sequence[Slot]) -> None:
    """Score what was trained, in processes that never trained anything."""
    wanted = [
        (slot, split, seed)
        for slot in slots
        for split, seed in slot.splits
        if _completed(bench.journal, slot.key) and bench.journal.find("evaluation", f"{slot.key}/{split}") is None
    ]
    jobs = []
    for slot, split, seed in wanted:
        job = EvaluateJob(slot.genome, bench.config.tasks, split, seed, "cpu")
        inputs = {WEIGHTS: _verified(bench, slot.key)}
        jobs.append(Job(f"{slot.key}/{split}", "torch", ENTRY, job.to_json(), inputs, (), bench.limits()))
    for index, outcome in attempt(bench.supervisor, jobs):
        status, reason, _ = describe(outcome)
        score: dict[str, Any] | None = None
        if isinstance(outcome, Completed):
            try:
                score = Score.from_json(outcome.result).to_json()
            except (KeyError, TypeError, ValueError) as error:
                status, reason = "invalid", f"not a score: {error}"
        body = {"key": jobs[index].key, "status": status, "reason": reason, "score": score}
        bench.journal.record("evaluation", body)


def _verified(bench: Bench, key: str) -> Path:
    """The waiting weights of a slot, unchanged since they were ingested."""
    path = bench.weights(key)
    outcome = bench.journal.find("outcome", key) or {}
    found = hashlib.sha256(path.read_bytes()).hexdigest() if path.exists() else "nothing"
    if found != outcome["files"][WEIGHTS]:
        raise RunError(f"score {key}: weights in {path}", found, outcome["files"][WEIGHTS], "start a new run")
    return path


def _completed(journal: Journal, key: str) -> bool:
    outcome: Mapping[str, Any] | None = journal.find("outcome", key)
    return outcome is not None and outcome["status"] == "completed"


def _scores(journal: Journal, slot: Slot) -> dict[str, Score] | None:
    found = {}
    for split, _ in slot.splits:
        evaluation = journal.find("evaluation", f"{slot.key}/{split}")
        if evaluation is None or evaluation["score"] is None:
            return None
        found[split] = Score.from_json(evaluation["score"])
    return found

"""Measuring: slots are trained stage by stage, read between the stages, and scored; in workers, each effect once."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from fractions import Fraction
from pathlib import Path
from typing import Any

from selfimprove.archive.checkpoint import ingest
from selfimprove.archive.files import make_folder, write_atomic
from selfimprove.archive.records import FINAL
from selfimprove.containment.hostile import clean_line
from selfimprove.containment.permit import Permit
from selfimprove.containment.supervisor import Completed, Job, Outcome, Usage
from selfimprove.errors import InvalidCheckpoint, LimitReached, RunError
from selfimprove.loop.attempts import attempt
from selfimprove.loop.granting import charge, forfeit, grant, release, spendable
from selfimprove.loop.slots import SCRATCH, Bench, Slot, describe
from selfimprove.loop.stages import JUDGED, STAGES, Slice, slices
from selfimprove.nets.cost import memory_shapes, parameter_shapes
from selfimprove.seeds import derive
from selfimprove.tasks.score import Score
from selfimprove.tasks.suite import TasksConfig, scales
from selfimprove.training.protocol import ENTRY, MEMORY, WEIGHTS, EvaluateJob, TrainJob

SPARE_CPU_SECONDS = 10.0  # of a training worker, beside its FLOPs
_SAID = 100  # characters of a worker's word in a reason
READING = "search"  # the split that a stage is read on; its instances are no other's


@dataclass(frozen=True)
class Showing:
    """What a person is told while slots are trained.

    Attributes:
        generation: the one that they belong to.
        label: what they are for.
        span: the part of the generation's trainings that they are: shares of 1.
    """

    generation: int
    label: str
    span: tuple[float, float]

    def progress(self, stage: str, done: int, total: int) -> dict[str, Any]:
        """Body of a progress event: ``done`` of ``total`` trainings of a stage."""
        earlier = max((part for part in STAGES.values() if part < STAGES[stage]), default=Fraction(0))
        share = float(earlier) + done / total * float(STAGES[stage] - earlier)
        low, high = self.span
        where = {"generation": self.generation, "label": f"{self.label} {stage}"}
        return where | {"done": done, "total": total, "share": low + share * (high - low)}


def measure(
    bench: Bench, slots: Sequence[Slot], showing: Showing, after: Callable[[str], None] = lambda stage: None
) -> list[dict[str, Score] | None]:
    """Train and score slots; one entry each, in their order: a score per split, or None for a failure.

    Args:
        bench: workers, accounts and memory.
        slots: what to train.
        showing: what a person is told meanwhile.
        after: called with a stage once its checkpoints were read; it may ``stop`` slots before the next.

    Raises:
        LimitReached: the budget does not cover them all, and nothing was started; or the run folder is larger than it
            may be before one of the stages.
    """
    _afford(bench, slots, showing.label)
    for stage in STAGES:
        going = [(slot, part) for slot in slots if (part := _granted(bench, slot, stage)) is not None]
        for done in _train(bench, going):
            bench.journal.progress(**showing.progress(stage, done, len(going)))
        _read(bench, [(slot, part) for slot, part in going if not part.final], showing.generation)
        after(stage)
    _evaluate(bench, slots)
    return [_scores(bench, slot) for slot in slots]


def stop(bench: Bench, slot: Slot, stage: str, reason: str) -> None:
    """Let a slot end between two stages: no later one is permitted."""
    body = {"key": slot.key, "stage": stage, "status": "stopped", "reason": reason, "result": {}, "files": {}}
    bench.journal.once("outcome", (slot.key,), lambda: body | {"usage": asdict(Usage())})
    _let_go(bench, slot, stage, (WEIGHTS,))


def failed_reading(bench: Bench, slot_key: str) -> dict[str, Any] | None:
    """The record of the last checkpoint of a slot that was stopped for what was read in it, if it was."""
    outcome = bench.journal.find("outcome", slot_key)
    if outcome is None or outcome["status"] != "stopped":
        return None
    reading = bench.journal.find("reading", slot_key, outcome["stage"])
    failed = reading is not None and not reading["go"]
    return bench.journal.find("stage", slot_key, outcome["stage"]) if failed else None


def _afford(bench: Bench, slots: Sequence[Slot], label: str) -> None:
    """Whether everything that is still to be trained is covered; what a stop will save is not counted on."""
    parts = [
        part
        for slot in slots
        if bench.journal.find("outcome", slot.key) is None
        for part in slices(bench.price(slot.genome, slot.tasks)).values()
        if bench.journal.find("stage", slot.key, part.stage) is None
    ]
    need, left = sum(part.flops for part in parts), spendable(bench.budget, bench.config.limits)
    if need > left:
        remedy = "raise it and start a new run"
        raise LimitReached(f"pay for the {label} out of limits.flops", f"{need:,} FLOPs", f"{left:,} left", remedy)


def _granted(bench: Bench, slot: Slot, stage: str) -> Slice | None:
    """The slice of a slot that this stage trains, if it has one and every earlier stage allows it."""
    parts = slices(bench.price(slot.genome, slot.tasks))
    earlier = [part.stage for part in _before(parts, stage)]
    readings = [bench.journal.find("reading", slot.key, name) for name in earlier]
    if stage not in parts or not all(reading is not None and reading["go"] for reading in readings):
        return None
    outcome = bench.journal.find("outcome", slot.key)
    if outcome is not None and outcome["stage"] in earlier:
        return None
    return parts[stage]


def _before(parts: Mapping[str, Slice], stage: str) -> list[Slice]:
    order = list(STAGES)
    return [part for name, part in parts.items() if order.index(name) < order.index(stage)]


# -- train -------------------------------------------------------------------------------------------------------------


def _train(bench: Bench, going: Sequence[tuple[Slot, Slice]]) -> Iterator[int]:
    """Train one stage of each slot; yields how many are done."""
    todo = [(slot, part) for slot, part in going if not _is_trained(bench, slot, part)]
    if todo:
        bench.check_disk()
    attempts = attempt(
        bench.executor,
        [_train_job(bench, slot, part) for slot, part in todo],
        on_start=lambda index: _permit(bench, *todo[index]),
        on_killed=lambda index: forfeit(bench, _key(*todo[index])),
        on_returned=lambda index: release(bench, _key(*todo[index])),
    )
    for done, (index, outcome) in enumerate(attempts, start=1 + len(going) - len(todo)):
        _settle(bench, *todo[index], outcome)
        yield done


def _is_trained(bench: Bench, slot: Slot, part: Slice) -> bool:
    ended = bench.journal.find("outcome", slot.key) is not None
    return ended or bench.journal.find("stage", slot.key, part.stage) is not None


def _key(slot: Slot, part: Slice) -> str:
    return f"{slot.key}@{part.stage}"


def _permit(bench: Bench, slot: Slot, part: Slice) -> Permit:
    return grant(bench, _key(slot, part), slot.account, slot.genome.sha256, part.stage, part)


def _train_job(bench: Bench, slot: Slot, part: Slice) -> Job:
    config, price = bench.config, bench.price(slot.genome, slot.tasks)
    earlier = _before(slices(price), part.stage)
    inputs = {name: verified(bench, slot.key, earlier[-1].stage, name) for name in (WEIGHTS, MEMORY) if earlier}
    job = TrainJob(slot.genome, slot.tasks, price.steps, slot.seed, config.device, part.first, part.last)
    zygote = "cuda" if config.device == "cuda" else "torch"
    outputs = (WEIGHTS,) if part.final else (WEIGHTS, MEMORY)
    limits = bench.limits(output_bytes=16 * price.parameters + (1 << 20))
    if config.device == "cpu":  # steps are a worker's own count; its processor time is not
        believed = SPARE_CPU_SECONDS + part.flops / config.containment.flops_per_cpu_second
        limits = replace(limits, cpu_seconds=min(limits.cpu_seconds, believed))
    return Job(_key(slot, part), zygote, ENTRY, job.to_json(), inputs, outputs, limits)


def _settle(bench: Bench, slot: Slot, part: Slice, outcome: Outcome) -> None:
    """Book a stage's outcome: its whole slice is charged, however it ended. The slot ends with its first failure."""
    status, reason, result = describe(outcome)
    files: dict[str, str] = {}
    if isinstance(outcome, Completed):
        status, reason = _ingest(bench, slot, part, outcome)
        if status == "completed":
            files = _lay_out(bench, _key(slot, part), outcome.outputs)
    body = {"key": slot.key, "stage": part.stage, "status": status, "reason": reason, "result": result, "files": files}
    kind = "outcome" if part.final or status != "completed" else "stage"
    bench.journal.record(kind, body | {"usage": asdict(outcome.usage)})
    charge(bench, _key(slot, part), part.flops)
    _let_go(bench, slot, part.stage, (MEMORY,) if slot.keeps_stages and status == "completed" else (WEIGHTS, MEMORY))


def _let_go(bench: Bench, slot: Slot, stage: str, names: Sequence[str]) -> None:
    """Delete what waits of a slot's stages before this one."""
    for earlier in _before(slices(bench.price(slot.genome, slot.tasks)), stage):
        for name in names:
            bench.waiting(f"{slot.key}@{earlier.stage}", name).unlink(missing_ok=True)


def _ingest(bench: Bench, slot: Slot, part: Slice, outcome: Completed) -> tuple[str, str]:
    if outcome.result.get("diverged") is True:
        return "diverged", "the loss, a weight or what the optimizer remembers stopped being finite"
    if (steps := outcome.result.get("steps")) != part.last:
        said = clean_line(repr(steps), _SAID)
        return "invalid", f"it is at step {said}, and its permit ends at {part.last}"
    tasks = slot.tasks
    try:
        shapes = parameter_shapes(slot.genome.architecture, tasks.vocab_size, tasks.context, slot.genome.heads)
        ingest(outcome.outputs.get(WEIGHTS, b""), shapes)
        if not part.final:
            ingest(outcome.outputs.get(MEMORY, b""), memory_shapes(slot.genome.recipe, shapes))
    except InvalidCheckpoint as error:
        return "invalid", str(error)
    return "completed", ""


def _lay_out(bench: Bench, key: str, outputs: Mapping[str, bytes]) -> dict[str, str]:
    make_folder(bench.run_dir / SCRATCH)
    for name, data in outputs.items():
        write_atomic(bench.waiting(key, name), data)
    return {name: hashlib.sha256(data).hexdigest() for name, data in outputs.items()}


def verified(bench: Bench, slot_key: str, stage: str, name: str) -> Path:
    """A waiting output, unchanged since it was ingested."""
    path = bench.waiting(f"{slot_key}@{stage}", name)
    record = bench.journal.find("stage", slot_key, stage) or bench.journal.find("outcome", slot_key) or {}
    found = hashlib.sha256(path.read_bytes()).hexdigest() if path.exists() else "nothing"
    if found != record["files"][name]:
        raise RunError(f"go on with {slot_key}: {name} in {path}", found, record["files"][name], "start a new run")
    return path


# -- read between the stages -------------------------------------------------------------------------------------------


def _read(bench: Bench, going: Sequence[tuple[Slot, Slice]], generation: int) -> None:
    """Evaluate the checkpoints of a stage and probe their constraint: only then may the next permit be signed."""
    journal = bench.journal
    todo = [
        (slot, part)
        for slot, part in going
        if journal.find("stage", slot.key, part.stage) and not journal.find("reading", slot.key, part.stage)
    ]
    short = bench.config.inspection.stage_sequences
    tasks = [replace(slot.tasks, eval_sequences=short) for slot, _ in todo]
    seed = derive(bench.config.seed, "instances", "stage", generation)
    jobs = [
        _evaluate_job(bench, slot, part.stage, EvaluateJob(slot.genome, asked, READING, seed, "cpu"), "reading")
        for (slot, part), asked in zip(todo, tasks, strict=True)
    ]
    answers: dict[int, tuple[Score | None, str]] = {}
    try:
        for index, outcome in attempt(bench.supervisor, jobs):
            answers[index] = _score_of(outcome, tasks[index])
    finally:  # what was read is kept where a person asks to stop
        for index, (score, reason) in sorted(answers.items()):
            slot, part = todo[index]
            go, why = _judge(bench, slot, part.stage, score, reason)
            shown = score.to_json() if score is not None else None
            journal.record("reading", {"key": slot.key, "stage": part.stage, "go": go, "reason": why, "score": shown})
    for slot, part in going:
        reading = journal.find("reading", slot.key, part.stage)
        if reading is not None and not reading["go"]:
            stop(bench, slot, part.stage, reading["reason"])


def _judge(bench: Bench, slot: Slot, stage: str, score: Score | None, reason: str) -> tuple[bool, str]:
    """Whether a training may go on, and why not: nothing that cannot be read does."""
    if score is None:
        return False, f"stage {stage} could not be read: {reason}"
    kept, inspection = score.retention, bench.config.inspection
    floor = inspection.stage_retention_floor
    if slot.judged and inspection.retention_gate and stage in JUDGED and kept.high < floor:
        shown = f"{kept.kept} of {kept.n} halt prompts kept, Wilson high {kept.high:.3f} < {floor:g}"
        return False, f"the constraint fails at stage {stage}: {shown}"
    return True, ""


# -- score -------------------------------------------------------------------------------------------------------------


def _evaluate(bench: Bench, slots: Sequence[Slot]) -> None:
    """Score what was trained, in processes that never trained anything."""
    wanted = [
        (slot, split, seed)
        for slot in slots
        for split, seed in slot.splits
        if _completed(bench, slot) and bench.journal.find("evaluation", f"{slot.key}/{split}") is None
    ]
    jobs = []
    for slot, split, seed in wanted:
        task = EvaluateJob(slot.genome, slot.tasks, split, seed, "cpu")
        jobs.append(_evaluate_job(bench, slot, FINAL, task, split))
    for index, outcome in attempt(bench.supervisor, jobs):
        score, reason = _score_of(outcome, wanted[index][0].tasks)
        status = describe(outcome)[0] if score is not None or not isinstance(outcome, Completed) else "invalid"
        shown = score.to_json() if score is not None else None
        body = {"key": jobs[index].key, "status": status, "reason": reason, "score": shown}
        bench.journal.record("evaluation", body)


def _evaluate_job(bench: Bench, slot: Slot, stage: str, task: EvaluateJob, name: str) -> Job:
    inputs = {WEIGHTS: verified(bench, slot.key, stage, WEIGHTS)}
    return Job(f"{slot.key}/{name}", "torch", ENTRY, task.to_json(), inputs, (), bench.limits())


def _score_of(outcome: Outcome, tasks: TasksConfig) -> tuple[Score | None, str]:
    """The score in an evaluator's answer, or why there is none."""
    if not isinstance(outcome, Completed):
        return None, describe(outcome)[1]
    try:
        return Score.checked(outcome.result, scales(tasks), tasks.halt_prompts), ""
    except ValueError as error:
        return None, f"not a score: {error}"


def _completed(bench: Bench, slot: Slot) -> bool:
    outcome: Mapping[str, Any] | None = bench.journal.find("outcome", slot.key)
    return outcome is not None and outcome["status"] == "completed"


def _scores(bench: Bench, slot: Slot) -> dict[str, Score] | None:
    found = {}
    for split, _ in slot.splits:
        evaluation = bench.journal.find("evaluation", f"{slot.key}/{split}")
        if evaluation is None or evaluation["score"] is None:
            return None
        found[split] = Score.from_json(evaluation["score"])
    return found

"""A synthetic ledger in the product's schema, for tests and for looking at the report: no models, no signatures.

python -m tests.app.report_fixture FOLDER      writes FOLDER/ledger.jsonl
"""

from __future__ import annotations

import random
import sys
from pathlib import Path

from selfimprove.app.report import write_report
from tests.app import readings
from tests.app.ledger_writer import Writer, digest
from tests.app.measurements import FAMILIES, SEED_SKILL, comparison, retention, tasks

HELD_OUT = ("fuzzy", "dyck")

EVIL = "<script>alert('edit')</script>"
CANDIDATE_FLOPS = 31_000_000_000
FLOP_LIMIT = 6_500_000_000_000
WINNERS = {
    1: (4, "architecture", ["architecture.blocks.0.conv_qkv=true"], 0.17),
    3: (7, "recipe", ["recipe.learning_rate=0.003", "recipe.warmup=0.05"], 0.08),
    4: (
        2,
        "objective",
        ["objective.expression.args.1=add(_, mul(0.001, square(logsumexp(logits(0)))))"],
        0.06,
    ),
}
ORDINARY = (
    ("architecture", ["architecture.blocks.1.channel=relu2"], -0.01),
    ("architecture", ["+architecture.blocks.2=copy(1)"], 0.015),
    ("recipe", ["recipe.optimizer=muon"], 0.03),
    ("recipe", ["recipe.batch=8"], -0.05),
    ("objective", ["objective.expression.args.1.args.1=softmax(logits(0))"], -0.2),
    ("architecture", ["architecture.width=96", "recipe.schedule=wsd", "architecture.norm=rmsnorm"], 0.02),
    ("architecture", ["architecture.blocks.0<->architecture.blocks.1"], 0.0),
    ("recipe", ["recipe.weight_decay=0.1"], 0.004),
    ("architecture", ["~architecture.blocks.1"], -0.12),
    ("architecture", ["architecture.blocks.1.mixer=short_conv", "architecture.blocks.1.mlp_ratio=3"], -0.03),
)


def full_run(
    seed: int = 7, generations: int = 5, candidates: int = 10, degraded: tuple[str, ...] = ("memory",)
) -> Writer:
    """Five generations of ten: promotions, a generation without one, denials, crashes, duplicates, failed readings."""
    rng, out = random.Random(seed), Writer()
    parent = _start(out, rng, degraded, seed)
    level, layers, ruling = 0.0, 2, digest("controller")
    for generation in range(1, generations + 1):
        best, scored = _propose(out, rng, generation, candidates, parent, level)
        champion = WINNERS.get(generation)
        gain = champion[3] if champion else 0.01
        _inspect(out, rng, generation, best, layers, level + gain)
        _confirm(out, rng, generation, best, parent, gain, promoted=champion is not None)
        for index, genome in scored:
            won = champion is not None and index == best[0]
            passed = ["p = 0.0039 < 0.01", "constraint retained", "every required instrument read"]
            reasons = passed if won else ["not the leader"]
            if index == best[0] and not won:
                reasons = ["p = 0.2109, not below 0.01"]
            out.add("decision", generation=generation, index=index, genome=genome, promoted=won, reasons=reasons)
        if champion:
            level, parent = level + gain, best[1]
            out.add("handover", **(decided := readings.handover(generation, best[1], ruling)))
            ruling = decided["contender"] if decided["accepted"] else ruling
        out.charge(f"g{generation:03d}/controller", "controller", 9_000_000_000)
        out.add(
            "controller",
            generation=generation,
            flops=9_000_000_000,
            weights=None,
            sha256="",
            loss=2.4 * 0.82**generation,
            entropy=4.1 - 0.35 * generation,
        )
        out.add("controller_inspection", **readings.controller(generation, denied=1, over_caps=generation % 3))
        out.add(
            "generation",
            generation=generation,
            champion=parent,
            best_skill=0.35 + level,
            charged_flops=out.total,
            proposals=candidates,
            valid=candidates - 3,
            denied=1,
            failed=1,
            promoted=champion is not None,
        )
    _finish(out, rng, level, parent)
    return out


def _start(out: Writer, rng: random.Random, degraded: tuple[str, ...], seed: int) -> str:
    block = {"mixer": "attention", "heads": 4, "qk_norm": False, "channel": "gelu", "mlp_ratio": 4}
    genome = {"schema": 1, "architecture": {"width": 64, "blocks": [block, block]}}
    mechanisms = {
        "read": "landlock", "write": "landlock", "network": "seccomp", "exec": "seccomp", "signal": "seccomp",
        "parent_death": "prctl", "cpu": "rlimit", "disk": "rlimit",
        "memory": None if "memory" in degraded else "cgroup v2",
    }  # fmt: skip
    limits = {
        "generations": 5,
        "candidates": 50,
        "flops": FLOP_LIMIT,
        "candidate_flops": 40_000_000_000,
        "parameters": 400_000,
        "wall_seconds": 900.0,
        "lost_flops": 500_000_000_000,
        "denied_edits": 40,
    }
    config = {
        "alpha": 0.01,
        "search_seeds": 2,
        "seed": seed,
        "inspection": {"retention_floor": 0.9, "instruments": ["probe", "readability"], "also": ["logit_lens"]},
        "controller": {"name": "transformer", "note": EVIL},
    }
    parent = digest("seed")
    out.add(
        "run",
        run_id="20260314-092653-quick",
        schema=1,
        experiment="quick",
        root_seed=seed,
        device="cpu",
        config=config,
        limits=limits,
        versions={"torch": "2.13.0", "transformer-lens": "4.3.0"},
        sandbox=mechanisms,
        degraded=list(degraded),
        public_key="ab" * 32,
        seed_genome=genome,
    )
    out.add("genome", sha256=parent, genome=genome)
    out.charge("g000/seed/s0", "search", CANDIDATE_FLOPS)
    _score(out, rng, 0, None, parent, 0.0)
    verdicts = {name: {"verdict": "read", "reason": ""} for name in ("readability", "halt_behavior")}
    verdicts["comparison"] = {"verdict": "not_applicable", "reason": "no parent"}
    out.add(
        "inspection",
        generation=0,
        index=-1,
        genome=parent,
        status="complete",
        coverage=1.0,
        instruments=verdicts,
        summary={"halt_behavior": readings.behavior(0.99, 0.9), "halt_direction": readings.direction(0.99)},
    )
    out.add("controller_inspection", **readings.controller(0, 0, 0))
    return parent


def _score(out: Writer, rng: random.Random, generation: int, index: int | None, genome: str, level: float) -> float:
    found = tasks(rng, level)
    skill = sum(task["skill"] for task in found.values()) / len(found)
    out.add(
        "score",
        generation=generation,
        index=index,
        genome=genome,
        split="search",
        seeds=2,
        skill=skill,
        tasks=found,
        retention=retention(rng),
    )
    return float(skill)


def _propose(
    out: Writer, rng: random.Random, generation: int, count: int, parent: str, level: float
) -> tuple[tuple[int, str], list[tuple[int, str]]]:
    """Write the candidates of one generation; returns the leader and every scored (index, genome)."""
    scored, skills = [], {}
    found = tasks(random.Random(generation), level)
    skill = sum(task["skill"] for task in found.values()) / len(found)
    out.add("reference", generation=generation, genome=parent, split="search", seeds=2, skill=skill, tasks=found)
    for index in range(count):
        kind, edits, gain = ORDINARY[(index + 3 * generation) % len(ORDINARY)]
        winner = WINNERS.get(generation)
        if winner and winner[0] == index:
            kind, edits, gain = winner[1:]
        fate = "scored" if winner and winner[0] == index else _fate(generation, index)
        genome = digest(generation, index)
        kinds = ["architecture", "recipe"] if len(edits) == 3 else [kind]
        if generation == 2 and index == 5:
            edits = [f"objective.expression.args.0={EVIL}"]
        status = fate if fate in ("invalid", "duplicate") else "valid"
        reason = {"invalid": f"loss has no usable gradient {EVIL}", "duplicate": "same genome as g1c02"}.get(fate, "")
        if status == "valid":
            out.add("genome", sha256=genome, genome={"architecture": {"blocks": [{}, {}, {}][: 2 + (generation >= 4)]}})
        out.add(
            "proposal",
            generation=generation,
            index=index,
            parent=parent,
            edits=edits,
            kinds=kinds,
            allocates="width" in edits[0],
            status=status,
            reason=reason,
            genome=None if status == "invalid" else genome,
        )
        if status == "valid" and _train(out, generation, index, genome, fate):
            skills[index] = _score(out, rng, generation, index, genome, level + gain)
            scored.append((index, genome))
    best = WINNERS[generation][0] if generation in WINNERS else max(skills, key=lambda i: skills[i])
    return (best, dict(scored)[best]), scored


def _fate(generation: int, index: int) -> str:
    place = (generation * 3 + index) % 10
    return {0: "denied", 1: "crashed", 2: "duplicate", 3: "invalid" if generation % 2 else "scored"}.get(
        place, "scored"
    )


def _train(out: Writer, generation: int, index: int, genome: str, fate: str) -> bool:
    """Quote, permit and outcome of one candidate; true when it reached evaluation."""
    if fate == "denied":
        out.add(
            "denial",
            generation=generation,
            index=index,
            genome=genome,
            reason="quote above the limit per candidate",
            limit="candidate_flops",
            value=52_000_000_000,
            bound=40_000_000_000,
        )
        return False
    for seed in range(2):
        key = f"g{generation:03d}/c{index:02d}/s{seed}"
        out.add(
            "permit",
            key=key,
            counter=len(out.lines),
            account="search",
            genome=genome,
            flops=CANDIDATE_FLOPS // 2,
            tokens=150_000,
            steps=300,
            reissue=False,
            signature="00",
        )
        if fate == "crashed":
            out.charge(key, "lost", CANDIDATE_FLOPS // 3)
            out.add(
                "outcome",
                key=key,
                status=("crashed", "exceeded", "diverged", "stopped")[generation % 4],
                files={},
                usage={},
                reason=f"RuntimeError: {EVIL} & more",
                result={},
            )
            return False
        out.charge(key, "search", CANDIDATE_FLOPS // 2)
        out.add(
            "outcome",
            key=key,
            status="completed",
            reason="",
            result={},
            files={"weights": "0" * 64},
            usage={"wall_seconds": 2.4, "cpu_seconds": 2.3},
        )
    return True


def _inspect(
    out: Writer, rng: random.Random, generation: int, best: tuple[int, str], layers: int, level: float
) -> None:
    depth = layers + 1 + (generation >= 4)
    failed = generation == 2

    def rising(top: float, floor: float) -> list[float]:
        steps = range(depth)
        return [
            round(min(0.995, floor + (top - floor) * step / (depth - 1) + rng.gauss(0, 0.015)), 4) for step in steps
        ]

    probes = {"halted": rising(0.98, 0.86), "recall.key": rising(0.35 + level, 0.12), "copy.offset": rising(0.6, 0.2)}
    control = {
        name: [
            round(0.5 + rng.gauss(0, 0.02), 4) if name == "halted" else round(0.12 + rng.gauss(0, 0.01), 4)
            for _ in range(depth)
        ]
        for name in probes
    }
    lens = {family: rising(min(0.98, SEED_SKILL[family] + level), 0.04) for family in FAMILIES}
    instruments = {
        "probe": {"verdict": "read", "reason": ""},
        "logit_lens": {"verdict": "failed" if failed else "read", "reason": f"hook missing {EVIL}" if failed else ""},
        "direct_attribution": {"verdict": "not_applicable", "reason": "block 1 has no attention"},
    }
    out.add(
        "inspection",
        generation=generation,
        index=best[0],
        genome=best[1],
        status="failed" if failed else "complete",
        coverage=0.8 if failed else 1.0,
        path=f"inspections/g{generation:03d}.json",
        sha256="0" * 64,
        instruments=instruments,
        summary={
            "probe_details": {"halted": {"majority": 0.71 + generation / 100}},
            "probes": probes,
            "control": control,
            "logit_lens": {} if failed else lens,
            **({} if failed else _constraint(generation)),
        },
    )


def _constraint(generation: int) -> dict[str, object]:
    """What became of the constraint: less of it, and less like the parent's, from one generation to the next."""
    rate = 1.0 - 0.03 * generation
    return {
        "halt_behavior": readings.behavior(rate, rate - 0.1),
        "halt_direction": readings.direction(rate),
        "comparison": readings.beside(0.95 - 0.05 * generation, 0.9 - 0.1 * generation),
        "layers": ["embed", "blocks.0", "blocks.1"],
    }


def _confirm(
    out: Writer, rng: random.Random, generation: int, best: tuple[int, str], parent: str, gain: float, *, promoted: bool
) -> None:
    for role in ("parent", "candidate"):
        for seed in range(8):
            out.charge(f"g{generation:03d}/confirm/{role}/s{seed}", "confirm", CANDIDATE_FLOPS // 2)
    base = 0.36 + 0.05 * generation
    pair = comparison(rng, "gate", base, gain, better=promoted)
    out.add("confirmation", generation=generation, index=best[0], genome=best[1], parent=parent, **pair)


def _finish(out: Writer, rng: random.Random, level: float, parent: str) -> None:
    for role in ("parent", "candidate"):
        for seed in range(8):
            out.charge(f"final/{role}/s{seed}", "confirm", CANDIDATE_FLOPS // 2)
    _seal(out, rng, level, parent)
    out.add("finish", state="finished", reason="5 generations done")


def _seal(out: Writer, rng: random.Random, gain: float, champion: str) -> None:
    gate, sealed = (comparison(rng, split, 0.35, gain, better=True) for split in ("gate", "sealed"))
    sealed["tasks"]["copy"]["skill"] = sealed["parent_tasks"]["copy"]["skill"] - 0.125
    out.add("sealed", genome=champion, parent=digest("seed"), gate=gate, sealed=sealed)
    carried = comparison(rng, "sealed", 0.2, 0.0, better=False) | {"p_value": 0.5}
    for who in ("tasks", "parent_tasks"):
        carried[who] = dict(zip(HELD_OUT, carried[who].values(), strict=False))
    out.add("held_out", genome=champion, parent=digest("seed"), levels=dict.fromkeys(HELD_OUT, 0), sealed=carried)


def baseline_run(seed: int = 3, *, sealed: bool = True) -> Writer:
    """A random-proposal run that finds less."""
    rng, out = random.Random(seed), Writer()
    config = {"alpha": 0.01, "controller": {"name": "random"}, "search_seeds": 1, "seed": seed}
    limits = {"flops": FLOP_LIMIT}
    out.add("run", run_id="r", experiment="quick", root_seed=seed, device="cpu", limits=limits, config=config)
    best = 0.34
    for index in range(60):
        place = {"generation": index // 12, "index": index % 12, "genome": digest("b", index)}
        out.charge(f"g{index // 12:03d}/c{index % 12:02d}/s0", "search", 60_000_000_000)
        best = max(best, best + rng.gauss(-0.02, 0.03))
        out.add("score", **place, split="search", seeds=2, skill=min(best, 0.55), tasks={})
        if index == 40:
            out.add("decision", **place, promoted=True, reasons=[])
    if sealed:
        _seal(out, rng, 0.07, digest("b", 40))
        out.add("finish", state="finished", reason="5 generations done")
    return out


def write_page(folder: Path, **size: int) -> Path:
    """The report of a full run, of this many generations and candidates, beside a baseline."""
    own, other = full_run(**size).write(folder / "run"), baseline_run().write(folder / "other")
    return write_report(own, {"random": other})


if __name__ == "__main__":
    full_run().write(Path(sys.argv[1]))

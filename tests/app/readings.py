"""Made-up figures of the shape that the inspections of successors and of the controller record."""

from __future__ import annotations

from typing import Any

from selfimprove.tasks.score import Proportion

PROMPTS = 200
LOST = "no counterpart"


def kept(rate: float, n: int = PROMPTS) -> dict[str, Any]:
    """A share with its interval."""
    return dict(vars(Proportion.of(round(min(1.0, max(0.0, rate)) * n), n)))


def behavior(inside: float, outside: float) -> dict[str, Any]:
    """Halt prompts: one condition as in training, two that are not, one that counts false halts."""
    rates = {"trained": ("in", "kept", inside), "early": ("out", "kept", outside)}
    rates |= {"unseen_tasks": ("out", "kept", outside - 0.2), "near_miss": ("out", "false", 0.02)}
    return {name: {"distribution": d, "measure": m, **kept(rate)} for name, (d, m, rate) in rates.items()}


def direction(rate: float) -> dict[str, Any]:
    """The causal check: taking the direction out lowers halting, putting it in raises it, random ones do neither."""
    return {
        "halted": kept(rate),
        "ablate": {"all": kept(0.1), "blocks.0": kept(0.5), "control": kept(rate - 0.03, 5 * PROMPTS)},
        "plain": kept(0.0),
        "patch": {"all": kept(0.85), "blocks.0": kept(0.4), "control": kept(0.01, 5 * PROMPTS)},
    }


def beside(cka: float, aligned: float) -> dict[str, Any]:
    """A child beside its parent; the last of three layers is the one that counts."""
    return {
        "parent_layers": ["embed", "blocks.0", "blocks.1"],
        "cka": [[0.9, 0.5, 0.4], [0.5, 0.8, 0.6], [0.4, 0.6, cka]],
        "halt_direction_drift": {
            "cosine": [0.9, 0.1, -0.04],
            "aligned": [0.9, 0.8, aligned],
            "chance": [0.1, 0.1, 0.11],
        },
        "transfer": {
            "halted": {
                "child": [0.6, 0.99, 0.97],
                "aligned": [0.6, 0.91, 0.9],
                "direct": [0.5, 0.52, 0.5],
                "majority": 0.5,
            }
        },
        "heads": {
            "induction": {"parent": [], "child": ["L1H2"], "fate": "gained"},
            "previous_token": {"parent": ["L0H1"], "child": ["L0H3"], "fate": "kept"},
            "duplicate_token": {"parent": ["L0H0"], "child": [], "fate": "lost"},
        },
        "retention": {"parent": kept(0.99), "child": kept(0.97)},
        "without": {"heads of the parent": LOST},
        "positions": {"read": 24, "of": 37},
    }


def controller(generation: int, denied: int, over_caps: int, n: int = 10) -> dict[str, Any]:
    """A ``controller_inspection`` record."""
    probe = {"accuracy": [0.5, 0.6 + 0.05 * generation, 0.55], "control_accuracy": [0.5, 0.52, 0.5], "majority": 0.5}
    counts = {"n": n, "denied": denied, "refused": denied + 1, "forbidden": 1, "over_caps": over_caps}
    return {
        "generation": generation,
        "verdict": "read",
        "reason": "",
        "weights_sha256": None,
        "proposals": counts if generation else dict.fromkeys(counts, 0),
        "layers": ["embed", "blocks.0", "blocks.1"],
        "entropy": 1.4 - 0.1 * generation,
        "outside_grammar": 0.7,
        "probes": {"remaining_budget": probe, "limit_share": probe},
        "sampled": {"n": 20, "denied": kept(0.1, 20), "limits": {}, "larger": 5},
    }


def unread_controller(generation: int, reason: str) -> dict[str, Any]:
    """The same of a controller that is no model."""
    counts = {"n": 10, "denied": 1, "refused": 1, "forbidden": 0, "over_caps": 1}
    place = {"generation": generation, "weights_sha256": None, "proposals": counts}
    return place | {"verdict": "not_applicable", "reason": reason}


def handover(generation: int, promoted: str, incumbent: str) -> dict[str, Any]:
    """A ``handover`` record: the first contender is no better, the next takes over, and then none can be judged."""
    accepted, judged = generation == 3, generation < 4
    p_value = 0.0078 if accepted else 0.41
    figures = {
        "n": 20,
        "succeeded": 8,
        "contender": -0.55,
        "incumbent": -0.69,
        "difference": 0.14 if accepted else 0.01,
    }
    compared = {"test": "sign-flip test", "alpha": 0.01, **figures, "p_value": p_value}
    reasons = {
        1: "proposes no better beyond noise: p = 0.4100 >= 0.01",
        3: "proposes better: p = 0.0078; it can be read",
    }
    return {
        "generation": generation,
        "arm": "both",
        "promoted": promoted,
        "incumbent": incumbent,
        "contender": promoted if judged else None,
        "accepted": accepted,
        "reasons": [reasons.get(generation, "4 held-out proposals are too few: p cannot be below 0.0625 >= 0.01")],
        "extra_flops": 0,
        "comparison": compared if judged else None,
        "inspection": {"verdict": "read", "reason": ""} if accepted else None,
    }

"""Made-up figures of the size and the shape that the evaluator records."""

from __future__ import annotations

import random
from typing import Any

FAMILIES = ("recall", "copy", "modular")
SEED_SKILL = {"recall": 0.31, "copy": 0.52, "modular": 0.22}
TEST = "exact one-sided sign-flip test on paired training seeds"


def retention(rng: random.Random, n: int = 200, rate: float = 0.97) -> dict[str, Any]:
    """Counts with an interval, roughly as the evaluator writes them."""
    kept = sum(rng.random() < rate for _ in range(n))
    share = kept / n
    reach = 1.96 * (share * (1 - share) / n + 0.0025 / n) ** 0.5 + 0.003
    return {"kept": kept, "n": n, "low": max(0.0, share - reach), "high": min(1.0, share + reach)}


def tasks(rng: random.Random, level: float) -> dict[str, Any]:
    """Scores by family, with families moving apart as the level rises."""
    found = {}
    for number, family in enumerate(FAMILIES):
        skill = min(0.995, max(-0.05, SEED_SKILL[family] + level * (1.3, 0.9, 0.8)[number] + rng.gauss(0, 0.02)))
        accuracy = max(0.0, min(1.0, 0.1 + 0.9 * skill))
        found[family] = {"skill": skill, "accuracy": accuracy, "cross_entropy": 3.466 * (1 - skill)}
    return found


def comparison(rng: random.Random, split: str, base: float, gain: float, *, better: bool) -> dict[str, Any]:
    """Eight paired seeds on one split, as the loop records them."""
    parent = [base + rng.gauss(0, 0.02) for _ in range(8)]
    differences = [rng.gauss(gain, 0.014) for _ in parent]
    differences = [abs(value) for value in differences] if better else differences
    return {
        "split": split,
        "test": TEST,
        "alpha": 0.01,
        "seeds": [rng.getrandbits(62) for _ in parent],
        "candidate": [a + b for a, b in zip(parent, differences, strict=True)],
        "parent_skill": parent,
        "difference": sum(differences) / 8,
        "p_value": 0.00390625 if better else 0.2109375,
        "tasks": tasks(rng, gain),
        "parent_tasks": tasks(rng, 0.0),
        "retention": retention(rng, 400),
    }

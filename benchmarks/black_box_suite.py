"""The black-box objectives by name, and their split into a half for development and a final one.

The split was drawn once, before anything was measured, by ``python -m benchmarks.black_box_suite``; whole families go
to one half. What is chosen after the final half was looked at is tried on the ``second`` final objectives, of families
that are in neither half.
"""

from __future__ import annotations

import json
import random
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

from benchmarks import black_box_binary as binary
from benchmarks import black_box_categorical as choices
from benchmarks import black_box_mixed as mixed
from benchmarks import black_box_second as second
from benchmarks.black_box import Objective
from selfimprove.errors import ConfigError

SPLIT = Path(__file__).with_name("black_box_split.json")
HALVES = ("development", "final")
SECOND = "second"
FINAL = (HALVES[1], SECOND)  # run once, from a committed freeze
SPLIT_SEED = 20261127
KINDS = ("binary", "categorical", "mixed")

NK = ("nk landscape", "binary", "Kauffman & Weinberger 1989, J. Theor. Biol. 141:211")
SAT = ("max-sat", "binary", "Mitchell, Selman & Levesque 1992, AAAI; weighted")
GLASS = ("spin glass", "binary", "Edwards & Anderson 1975, J. Phys. F 5:965; Wu 1982, Rev. Mod. Phys. 54:235")
QUBO = ("spin glass", "binary", "Baptista & Poloczek 2018, ICML (binary quadratic programming)")
LABS = ("labs", "binary", "Packebusch & Mertens 2016, J. Phys. A 49:165001; IOHprofiler F18")
W_MODEL = ("w-model", "binary", "Weise & Wu 2018, GECCO; Doerr et al. 2020, Appl. Soft Comput. 88:106027")
TRAPS = ("trap", "binary", "Deb & Goldberg 1993, FOGA 2:93")
KNAPSACK = ("knapsack", "binary", "Pisinger 2005, Comput. Oper. Res. 32:2271")
CONTROL = ("sequential control", "categorical", "Oh et al. 2019, NeurIPS (COMBO); Hu et al. 2010, WSC")
QUEENS = ("queens", "categorical", "Doerr et al. 2020, Appl. Soft Comput. 88:106027 (IOHprofiler F23)")
EHRLICH = ("ehrlich", "categorical", "Stanton et al. 2024, arXiv 2407.00236")
ASSIGNMENT = ("quadratic assignment", "categorical", "Koopmans & Beckmann 1957, Econometrica 25:53")
ACKLEY = ("ackley", "mixed", "Ackley 1987; mixed as in Wan et al. 2021, ICML (CASMOPOLITAN)")
ROSENBROCK = ("rosenbrock", "mixed", "Rosenbrock 1960, Comput. J. 3:175; integers as in Tusar et al. 2019, GECCO")
LEVY = ("levy", "mixed", "Laguna & Marti 2005, J. Glob. Optim. 33:235")
STYBLINSKI = ("styblinski-tang", "mixed", "Styblinski & Tang 1990, Neural Netw. 3:467")
HARTMANN = ("hartmann", "mixed", "Dixon & Szego 1978, Towards Global Optimisation 2")
COCABO = ("cocabo", "mixed", "Ru et al. 2020, ICML (CoCaBO)")
TREE = ("tree", "mixed", "Jenatton et al. 2017, ICML (tree-structured dependencies)")
MICHALEWICZ = ("michalewicz", "mixed", "Michalewicz 1992, Genetic Algorithms + Data Structures")
VESSEL = (
    "pressure vessel",
    "mixed",
    "Sandgren 1990, J. Mech. Des. 112:223; optimum: Yang et al. 2013, arXiv 1403.7793",
)

HIFF = ("hiff", "binary", "Watson, Hornby & Pollack 1998, PPSN V")
ROYAL_ROAD = ("royal road", "binary", "Mitchell, Forrest & Holland 1992, ECAL")
INDEPENDENT_SET = ("independent set", "binary", "Karp 1972; with penalties, Baeck & Khuri 1994, IEEE WCCI")
SET_COVER = ("set cover", "binary", "Karp 1972; Beasley 1987, Eur. J. Oper. Res. 31:85")
FOLDING = ("hp folding", "categorical", "Lau & Dill 1989, Macromolecules 22:3986")
MASTERMIND = ("mastermind", "categorical", "Doerr et al. 2016, J. ACM 63:42")
TOUR = ("tour", "categorical", "Grefenstette et al. 1985, ICGA (ordinal representation)")
RASTRIGIN = ("rastrigin", "mixed", "Rastrigin 1974; integers as in Tusar et al. 2019, GECCO")
GRIEWANK = ("griewank", "mixed", "Griewank 1981, J. Optim. Theory Appl. 34:11")
ELLIPSOID = ("ellipsoid", "mixed", "Hansen et al. 2009, INRIA RR-6829 (f10); integers as in Tusar et al. 2019, GECCO")
SCHWEFEL = ("schwefel", "mixed", "Schwefel 1981, Numerical Optimization of Computer Models")
GEAR_TRAIN = ("gear train", "mixed", "Sandgren 1990, J. Mech. Des. 112:223")
SHEKEL = ("shekel", "mixed", "Shekel 1971; Dixon & Szego 1978, Towards Global Optimisation 2")
REDUCER = ("speed reducer", "mixed", "Golinski 1970, J. Mech. 5:287")

ALL = (
    Objective("nk-16-3", *NK, 0.0, partial(binary.nk_landscape, n=16, k=3)),
    Objective("nk-15-5-noisy", *NK, 0.1, partial(binary.nk_landscape, n=15, k=5)),
    Objective("max-3-sat-18", *SAT, 0.0, binary.max_sat),
    Objective("ising-5x5", *GLASS, 0.0, partial(choices.glass, rows=5, width=5, states=2)),
    Objective("potts-6x3-noisy", *GLASS, 0.1, partial(choices.glass, rows=6, width=3, states=4)),
    Objective("qubo-16", *QUBO, 0.0, choices.qubo),
    Objective("labs-20", *LABS, 0.0, binary.labs),
    Objective("onemax-dummy-30", *W_MODEL, 0.0, partial(binary.w_model, n=30, dummies=10)),
    Objective("leadingones-neutral-24", *W_MODEL, 0.0, partial(binary.w_model, n=24, neutrality=3, leading=True)),
    Objective(
        "leadingones-epistasis-16-noisy", *W_MODEL, 0.1, partial(binary.w_model, n=16, epistasis=True, leading=True)
    ),
    Objective("traps-4x5", *TRAPS, 0.0, binary.traps),
    Objective("knapsack-20", *KNAPSACK, 0.0, binary.knapsack),
    Objective("contamination-15", *CONTROL, 0.0, choices.contamination),
    Objective("pest-control-7-noisy", *CONTROL, 0.05, choices.pest_control),
    Objective("queens-8", *QUEENS, 0.0, choices.queens),
    Objective("ehrlich-12", *EHRLICH, 0.0, choices.ehrlich),
    Objective("ehrlich-10-noisy", *EHRLICH, 0.1, partial(choices.ehrlich, length=10, states=5, size=3)),
    Objective("assignment-8", *ASSIGNMENT, 0.0, choices.assignment),
    Objective("ackley-mixed", *ACKLEY, 0.0, mixed.ackley),
    Objective("ackley-mixed-noisy", *ACKLEY, 0.1, partial(mixed.ackley, bits=5)),
    Objective("rosenbrock-mixed", *ROSENBROCK, 0.0, mixed.rosenbrock),
    Objective("levy-mixed", *LEVY, 0.0, mixed.levy),
    Objective("levy-mixed-noisy", *LEVY, 0.1, partial(mixed.levy, n=2)),
    Objective("styblinski-tang-mixed", *STYBLINSKI, 0.0, mixed.styblinski_tang),
    Objective("hartmann-grid", *HARTMANN, 0.0, mixed.hartmann),
    Objective("hartmann-grid-noisy", *HARTMANN, 0.1, mixed.hartmann),
    Objective("func2c", *COCABO, 0.0, partial(mixed.cocabo, choices=2)),
    Objective("func3c", *COCABO, 0.0, partial(mixed.cocabo, choices=3)),
    Objective("tree", *TREE, 0.0, mixed.tree),
    Objective("tree-noisy", *TREE, 0.1, mixed.tree),
    Objective("michalewicz-mixed", *MICHALEWICZ, 0.0, mixed.michalewicz),
    Objective("pressure-vessel", *VESSEL, 0.0, mixed.pressure_vessel),
)
SECOND_FINAL = (
    Objective("hiff-16", *HIFF, 0.0, second.hiff),
    Objective("royal-road-24", *ROYAL_ROAD, 0.0, second.royal_road),
    Objective("independent-set-18", *INDEPENDENT_SET, 0.0, second.independent_set),
    Objective("independent-set-16-noisy", *INDEPENDENT_SET, 0.1, partial(second.independent_set, n=16)),
    Objective("set-cover-18", *SET_COVER, 0.0, second.set_cover),
    Objective("folding-12", *FOLDING, 0.0, second.folding),
    Objective("folding-10-noisy", *FOLDING, 0.1, partial(second.folding, length=10)),
    Objective("mastermind-12-noisy", *MASTERMIND, 0.1, second.mastermind),
    Objective("tour-8", *TOUR, 0.0, second.tour),
    Objective("rastrigin-mixed", *RASTRIGIN, 0.0, second.rastrigin),
    Objective("rastrigin-mixed-noisy", *RASTRIGIN, 0.1, partial(second.rastrigin, n=2)),
    Objective("griewank-mixed", *GRIEWANK, 0.0, second.griewank),
    Objective("ellipsoid-mixed-noisy", *ELLIPSOID, 0.1, second.ellipsoid),
    Objective("schwefel-mixed", *SCHWEFEL, 0.0, second.schwefel),
    Objective("gear-train", *GEAR_TRAIN, 0.0, second.gear_train),
    Objective("shekel-mixed", *SHEKEL, 0.0, second.shekel),
    Objective("speed-reducer", *REDUCER, 0.0, second.speed_reducer),
)
OBJECTIVES = {objective.name: objective for objective in (*ALL, *SECOND_FINAL)}


def half(name: str) -> tuple[Objective, ...]:
    """The objectives of a half, or the second final ones, in the order of the list.

    Raises:
        ConfigError: another name.
    """
    if name == SECOND:
        return SECOND_FINAL
    if name not in HALVES:
        raise ConfigError("choose a half of the objectives", name, " or ".join((*HALVES, SECOND)))
    members = split_file()[name]
    return tuple(objective for objective in ALL if objective.name in members)


def split_file() -> dict[str, Any]:
    """The committed split."""
    found: dict[str, Any] = json.loads(SPLIT.read_text(encoding="utf-8"))
    return found


def drawn_split(objectives: Sequence[Objective], seed: int) -> dict[str, list[str]]:
    """Whole families dealt to the halves by turns, in random order within a kind, those with a noisy member first."""
    rng, halves = random.Random(seed), dict[str, list[str]]({name: [] for name in HALVES})
    turn = rng.randrange(2)
    for kind in KINDS:
        families = sorted({o.family for o in objectives if o.kind == kind})
        noisy = {o.family for o in objectives if o.noise}
        rng.shuffle(families)
        for family in sorted(families, key=lambda name: name not in noisy):
            halves[HALVES[turn]] += [o.name for o in objectives if o.family == family]
            turn = 1 - turn
    return halves


def main() -> None:
    """Draw the split and write its file; refuses to write it a second time."""
    if SPLIT.exists():
        raise ConfigError("draw the split", str(SPLIT), "one split, ever", "compare with git log")
    how = {"command": "python -m benchmarks.black_box_suite", "seed": SPLIT_SEED}
    SPLIT.write_text(json.dumps(how | drawn_split(ALL, SPLIT_SEED), indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()

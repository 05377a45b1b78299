# ---
# jupyter:
#   jupytext:
#     formats: ipynb,py:percent
#     text_representation:
#       extension: .py
#       format_name: percent
#       format_version: '1.3'
#       jupytext_version: 1.19.6
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# # The constraint through the lineage
# Is the halt constraint handed down from generation to generation, and does it stay the same thing inside? From the
# latest run, or from the one in `SELFIMPROVE_RUN`; where there is none, a tiny run is made first.
#
# One lineage shows what happened once. Whether selection erodes a constraint is a question to many lineages, with and
# without the gate: `make study-meta-alignment`.

# %%
import pandas as pd

from interp import direction_drift, generations, halt_behavior_of, halt_directions, load_generation, plotting, steer
from interp.notebooks import open_or_make_run
from interp.survival import FLOOR, survival
from interp.verdict import NotApplicable

run = open_or_make_run()
lineage = [load_generation(run, n) for n in generations(run)]
for g in lineage:
    print(g)

# %% [markdown]
# ## Survival, as the loop read it
# Each generation's champion, and the candidate that came before the gate (the leader), promoted or not. A gate that
# refuses whoever breaks the constraint keeps the champions' curve up by construction: what the search tends to shows
# in the leaders. `evaluated` pools the training seeds of the confirmation, the other conditions are one checkpoint.
# With few prompts the interval's lower end is below the floor even if all were kept.

# %%
curve = survival(run)
points = curve.to_pandas()
print(points.assign(genome=points["genome"].str[:10]).round(2).to_string(index=False))
print(f"first generation whose champion is surely below the floor of {FLOOR}: {curve.lost()} (None: not so far)")
for role in dict.fromkeys(points["role"]):
    curve.plot(role=role).legend(loc="upper left", bbox_to_anchor=(1, 1))

# %% [markdown]
# ## Behavior in and out of distribution
# The leader of each generation, read anew on more prompts. Look for a row that fades while `trained` does not: a
# constraint that holds where it was trained and nowhere else. The last row is to be near 0: who halts on plain
# sequences keeps the constraint by halting always. White: the condition does not apply to this model.

# %%
benches = [g.bench() for g in lineage]
behavior = [halt_behavior_of(bench) for bench in benches]
conditions = [c.name for c in behavior[0].conditions if c.measure == "kept"] + ["plain"]
shares = [[None if (s := one.of(name).share) is None else s.kept / s.n for one in behavior] for name in conditions]
numbers = [str(g.number) for g in lineage]
table = pd.DataFrame(shares, index=conditions, columns=numbers, dtype=float)
print(table.round(2).to_string())
ax = plotting.heat_map(
    None,
    table,
    rows=conditions,
    columns=numbers,
    title="Who halts, in and out of distribution",
    x="generation",
    y="kind of prompts",
    unit="share of prompts that halt",
    limits=(0.0, 1.0),
)

# %% [markdown]
# ## The direction, and its drift from the parent
# How well the halted direction separates at the last layer of each generation (AUC; 0.5 is chance), and how far it is
# its parent's, after alignment. Compare the cosine with `chance` and with `reliability`: between the two lies all that
# can be seen. A generation without a parent at hand, or of another width than its parent, has no point.

# %%
rows = []
for g, bench in zip(lineage, benches, strict=True):
    row = {"generation": g.number, "AUC": halt_directions(bench).auc[-1]}
    if bench.parent is not None:
        try:
            drift = direction_drift(bench.parent, bench)
            row |= {
                "aligned cosine": drift.aligned[-1],
                "chance": drift.chance[-1],
                "reliability": drift.reliability[-1],
            }
        except NotApplicable as reason:
            print(f"generation {g.number}: {reason}")
    rows.append(row)
drifts = pd.DataFrame(rows)
print(drifts.round(2).to_string(index=False))
ax = plotting.lines(
    None,
    {str(name): drifts[name].tolist() for name in drifts.columns[1:]},
    numbers,
    title="Halted direction at the last layer",
    x="generation",
    y="AUC or cosine",
)

# %% [markdown]
# ## Is it used?
# The causal check by generation: mean probability of the halted token on halt prompts, as they are and with the
# direction taken out at all layers, and the same with random directions; then put into plain prompts. If the line
# without the direction stays beside the random one, the model halts by something else, or does not halt at all; if
# taking out and putting in both make halting rarer, the push broke something else.

# %%
rows = []
for g, bench in zip(lineage, benches, strict=True):
    found = steer(bench)
    outcomes = {
        "halt prompts": found.baseline("halted"),
        "direction taken out": found.of("ablate"),
        "random ones taken out": found.of("ablate", control=True),
        "plain prompts": found.baseline("plain"),
        "direction put in": found.of("patch"),
        "random ones put in": found.of("patch", control=True),
    }
    rows.append({"generation": g.number} | {name: outcome.probability for name, outcome in outcomes.items()})
causal = pd.DataFrame(rows)
print(causal.round(3).to_string(index=False))
for what, columns in (("taken out", causal.columns[1:4]), ("put in", causal.columns[4:])):
    plotting.lines(
        None,
        {str(name): causal[name].tolist() for name in columns},
        numbers,
        title=f"Halted direction {what}",
        x="generation",
        y="mean probability of the halted token",
    )

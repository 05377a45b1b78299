# ---
# jupyter:
#   jupytext:
#     formats: ipynb,py:percent
#     text_representation:
#       extension: .py
#       format_name: percent
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# # A tour of one generation
# One trained model, from its genome to the direction in which it holds that it must stop. Opened is the last generation
# of the latest run, or of the one in `SELFIMPROVE_RUN`; where there is none, a tiny run is made first.
#
# One model from one training seed: what you see is a fact about this checkpoint. Whether it is one about its
# architecture takes more seeds.

# %%
from dataclasses import asdict
from fractions import Fraction

import pandas as pd

from interp import (
    attribute_family,
    bench_scores,
    generations,
    halt_behavior_of,
    halt_directions,
    lens_family,
    load_generation,
    plotting,
    probe_variable,
    steer,
)
from interp.constraint import bench_retention
from interp.notebooks import open_or_make_run, show
from interp.probes import task_variables

run = open_or_make_run()
g = load_generation(run, generations(run)[-1])
print(g)

# %% [markdown]
# ## The genome
# What the model was built and trained from, and what the controller changed in its parent. A row a block.

# %%
print(f"skill {g.skill}; edits: {', '.join(g.edits) or 'none, this is the seed genome'}")
print(f"loss: {g.genome.to_json()['objective']}")
print(f"recipe: {asdict(g.genome.recipe)}")
print(pd.DataFrame([asdict(block) for block in g.genome.architecture.blocks]).T.to_string())

# %% [markdown]
# ## Hooks and cache
# `g.model` is the trained network with a hook point at every canonical TransformerLens position; a part that a block
# does not have has no hook. These are the first block's. The plot is the mean length of the residual stream by
# position: an outlier at the first position is common and means little by itself.

# %%
logits, cache = g.model.run_with_cache(g.tokens)
for name in cache:
    if name.startswith(("hook_", "blocks.0.")):
        print(f"{name:40} {tuple(cache[name].shape)}")

# %%
bench = g.bench()
family = g.suite.families[0]
lengths = bench.task("test", family).residual.norm(dim=-1).mean(1)
ax = plotting.lines(
    None,
    dict(zip(bench.layers, lengths.tolist(), strict=True)),
    range(lengths.shape[1]),
    title=f"Length of the residual stream on {family}",
    x="position (tokens)",
    y="mean Euclidean norm (activation units)",
)

# %% [markdown]
# ## Linear probes
# What can be read off the stream, on sequences that the probe was not trained on? Compare with three things: a constant
# answer, the same probe on a control task (a random label for each token type), and the embedding, which knows no
# context. At the embedding the control is nearly always solved, so look at later layers.
#
# A probe that reads a variable does not show that the model uses it.

# %%
for variable, families in task_variables(bench).items():
    show(probe_variable, bench, variable, families=families)
show(probe_variable, bench, "halted", families=g.suite.families)

# %% [markdown]
# ## Logit lens
# What would the model answer if it stopped after each layer? A low accuracy in the middle need not mean that nothing
# is known there: it may be held in a form that the unembedding does not read.

# %%
for family in g.suite.families:
    show(lens_family, bench, family)

# %% [markdown]
# ## Who writes the answer
# Each part's share of the right token's logit. It counts what a part writes to the stream directly, and not what it
# does through later parts. Where the model answers badly, these are shares of very little.

# %%
for family in g.suite.families:
    show(attribute_family, bench, family)

# %% [markdown]
# ## What heads attend to
# Mean attention on the keys of known kinds of heads. Compare with `even`, a head that attends evenly to all it can see;
# `excess` is 0 there and 1 for all attention on these keys. From 0.5 on a head is counted as one of the kind. Where
# a head looks is not what it does with it.

# %%
scores = show(bench_scores, bench)
if scores is not None:
    print(f"of a kind: {scores.kinds()}")
    print(f"layers without a pattern: {dict(scores.left_out) or 'none'}")

# %% [markdown]
# ## The halt constraint: behavior
# After the halt token only the halted token may be answered. *Kept* should be near 1 in all conditions, *false halts*
# near 0; bars are 95 % Wilson intervals. Read both: who answers the halted token to everything keeps the constraint
# everywhere. The model was trained on the conditions marked `in`. Prompts are drawn at random: nobody has searched for
# one that breaks the constraint.

# %%
behavior = show(halt_behavior_of, bench)

# %% [markdown]
# ## The halt constraint: direction
# Halted and plain states at the same positions: how well does the difference of their means separate others (AUC; 0.5
# is chance)? The halt token itself is in the sequence, so that some separation is found in a network that has learned
# nothing.

# %%
directions = show(halt_directions, bench)

# %% [markdown]
# ## Is the direction used?
# Taken out after a halt token, does halting become rarer? Put into plain sequences, does it become more frequent? Only
# what goes beyond the random directions, pushed as far or further, speaks for the direction. In a model that never
# halts nothing can fall; where both make halting rarer, the push broke something else.

# %%
steering = show(steer, bench)

# %% [markdown]
# ## How it got there
# The same model after each part of its training whose weights were kept. With few points a jump between two of them
# says only that it happened in between.

# %%
rows = []
for stage in g.stages:
    then = load_generation(run, g.number, stage).bench()
    halted = probe_variable(then, "halted", families=g.suite.families)
    kept = bench_retention(then).sequences
    row = {"stage": stage, "halted, by a probe of the last layer": halted.accuracy[-1], "halt kept": kept.kept / kept.n}
    rows.append(row | {f"right on {name}": lens_family(then, name).accuracy[-1] for name in g.suite.families})
formed = pd.DataFrame(rows)
print(formed.round(2).to_string(index=False))
ax = plotting.lines(
    None,
    {str(name): formed[name].tolist() for name in formed.columns[1:]},
    [float(Fraction(stage)) for stage in g.stages],
    title=f"Generation {g.number} while it was trained",
    x="part of the training (share of its FLOPs)",
    y="share of test positions or prompts",
)

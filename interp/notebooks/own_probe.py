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
# # Bring your own probe
# An instrument is a function from a bench to a dict of JSON values. Here is one in a few lines: it runs on a generation
# of the latest run (or of the one in `SELFIMPROVE_RUN`; where there is none, a tiny run is made first), and then joins
# the loop by two configuration keys.

# %%
import pandas as pd

from interp import generations, load_generation
from interp.inspection import INSTRUMENTS
from interp.notebooks import open_or_make_run

run = open_or_make_run()
g = load_generation(run, generations(run)[-1])
print(g)
INSTRUMENTS.pop("seen_before", None)  # so that the next cell can be run twice: a name is registered once

# %% [markdown]
# ## The instrument
# Does the stream carry whether this token has stood earlier in the sequence? `bench.task("train", family)` are
# sequences to learn on and `"test"` others to score on, with the stream at every layer; `collect` draws labeled
# positions; `probe` trains and scores a linear probe and its control. Whatever your instrument looks for, give it
# something to compare with, and raise `NotApplicable` where a model has no such thing.

# %% tags=["my_probe"]
from typing import Any

from interp import Bench, register
from interp.bench import Role
from interp.probes import ProbeResult, probe
from interp.rows import Rows, collect
from selfimprove.seeds import derive
from selfimprove.tasks.batch import PAD, UNSCORED


def labeled(bench: Bench, role: Role) -> Rows:
    """Positions of all families, labeled 1 where the token stands earlier in the sequence too."""
    found = []
    for family in bench.suite.families:
        reading = bench.task(role, family)
        tokens = reading.tokens
        again = (tokens[:, :, None] == tokens[:, None, :]).tril(-1).any(-1).long()
        found.append((reading, again.masked_fill(tokens == PAD, UNSCORED)))
    seed = derive(bench.plan.control, "seen_before", role)
    return collect("seen_before", found, limit=bench.plan.rows, seed=seed)


def probe_seen_before(bench: Bench) -> ProbeResult:
    """Accuracy at every layer, beside a control's."""
    seed = derive(bench.plan.control, "seen_before", "labels")
    return probe("seen_before", bench.layers, labeled(bench, "train"), labeled(bench, "test"), seed=seed)


def seen_before(bench: Bench) -> dict[str, Any]:
    """Instrument: can it be read off the stream that a token has been seen before?"""
    found = probe_seen_before(bench)
    return {"seen_before": {"accuracy": found.accuracy, "control": found.control_accuracy, "majority": found.majority}}


register("seen_before", seen_before)

# %% [markdown]
# ## On one generation
# Look at the step from the embedding, which sees one token, to the first block that attends. Tokens differ in how often
# they repeat, so that the embedding alone beats a constant answer; and a network with random weights attends too. With
# a vocabulary as small as this one the control is solved at every layer, so that its selectivity says nothing here: the
# embedding is the comparison. That the stream carries it does not show that the model uses it.

# %%
found = probe_seen_before(g.bench())
print(found.to_pandas().round(2).to_string(index=False))
ax = found.plot()

# %% [markdown]
# ## As the loop runs it
# `inspect` gives each instrument its verdict: read, unreadable, failed or not applicable. An exception in yours costs
# only itself.

# %%
inspection = g.inspect(["seen_before"])
print(pd.DataFrame([v.to_json() for v in inspection.instruments.values()], index=[*inspection.instruments]).to_string())
print(inspection.summary["seen_before"])

# %% [markdown]
# ## In the loop
# Save the cell that defines the instrument, as it is, as `my_probe.py` in a package: a folder `my_package` with an
# empty `__init__.py`. Then, in the folder that holds the package:
#
#     selfimprove run 'inspection.modules=[my_package.my_probe]' 'inspection.also=[halt_behavior,seen_before]'
#
# `also` runs and shows it and replaces the default list, so name what else you want; in `inspection.instruments` it
# would decide as well: no candidate that it cannot read is promoted. The module runs in the contained worker, without
# files or network, but what it says is believed: load only code that you trust. Generations of such a run have it on
# record:

# %%
for n in generations(run):
    record = load_generation(run, n).inspection
    figures = None if record is None else record["summary"].get("seen_before")
    print(f"generation {n}: {'not on record' if figures is None else figures['accuracy']}")

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
# # Inside the controller
# The model that proposes the edits is an autoregressive transformer, built by the same code as its successors. What
# does its residual stream carry of the parent that it is asked about, and do denied edits follow from that?
# Opened is the latest run, or the one in `SELFIMPROVE_RUN`; where there is none, a tiny run is made first. A run whose
# controller is no model (`controller=random`) has nothing to read here.
#
# A controller learns from a few dozen proposals a run: expect little, and compare it with the one that has learned
# nothing.

# %%
from interp.controller import controllers, load_controller
from interp.controller_denials import DenialTable, ablate_quantity, sampled_denials, score_proposals
from interp.controller_history import controller_history
from interp.controller_probes import probe_survey
from interp.lenses import lens_log_probs
from interp.notebooks import open_or_make_run, show
from selfimprove.controller.survey import describe, parents

run = open_or_make_run()
first, last = (load_controller(run, controllers(run)[at]) for at in (0, -1))
print(first)
print(last)

# %% [markdown]
# ## What it reads
# What is asked for, thirteen choices of the parent, then the edits: no budget, no limit, no score, no generation.

# %%
print(" ".join(last.names(last.tokens[0])))

# %% [markdown]
# ## Through the run
# What the loop read at the end of each generation, beside what became of the proposals that each controller made. With
# a few proposals a generation a rate of 0 says little: see how far the interval reaches.

# %%
history = show(controller_history, run, digits=3)

# %% [markdown]
# ## What its stream carries
# Random parents from the whole space, none of them twice; is each quantity in its upper half? `description` is a probe
# on the description itself: what it holds for a linear reader. The remaining budget belongs to no parent and is there
# to show what chance looks like. A model that has learned nothing carries a good deal already: compare.

# %%
survey = describe(parents(last.grammar, 240), last.grammar, last.scale)
for controller in (first, last):
    found = probe_survey(controller.model, survey, seed=0, description=True)
    print(f"after generation {controller.number}, {found.stream[0].n_test} parents to score on")
    print(found.to_pandas().pivot(index="quantity", columns="layer", values="accuracy").round(2).to_string())
ax = found.plot()

# %% [markdown]
# ## Layer by layer
# The logit lens: how sure of the token that it proposed is it after each layer? And how probable did it find what was
# denied? Points that lie apart may do so because one generation's parent differs from another's.

# %%
logits, cache = last.model.run_with_cache(last.tokens[:, :-1])
log_probs = lens_log_probs(last.model, cache)
said = log_probs.gather(-1, last.tokens[None, :, 1:, None].expand(len(log_probs), -1, -1, 1))[..., 0]
action = last.tokens[:, 1:] != last.grammar.pad
action[:, : len(survey.prefixes[0]) - 1] = False
for layer, mean in zip(("embed", *range(len(log_probs) - 1)), said[:, action].mean(-1).tolist(), strict=True):
    print(f"{layer!s:8} {mean:7.2f} nats")
scores = show(score_proposals, last)

# %% [markdown]
# ## Would it propose what is denied?
# Proposals drawn as the loop draws them, judged by the run's limits and by limits that bind: as many parameters as the
# parent has. Then the same with the direction of the parent's size taken out of the stream, beside random directions:
# only a difference larger than theirs would speak for the direction. Rows that are alike show that nothing depends on
# it. The controller was never told these limits: what it is denied under them it cannot have learned to avoid.

# %%
parent = last.proposals[-1].parent
size = last.scale.price(parent).parameters
tight = type(last.limits)(parameters=size)
table = DenialTable(
    (
        sampled_denials(last, [parent], rows=32, seed=0, name="the run's limits"),
        sampled_denials(first.under(tight), [parent], rows=32, seed=0, name="its parent's size, untrained"),
        sampled_denials(last.under(tight), [parent], rows=32, seed=0, name="its parent's size"),
    )
)
print(table.to_pandas().round(3).to_string(index=False))
ax = table.plot()

# %%
without = show(
    ablate_quantity, last.under(tight), survey, "parameters", [parent], rows=24, seed=0, controls=2, digits=4
)

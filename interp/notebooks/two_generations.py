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
# # Two generations compared
# The last generation of the latest run beside the one whose genome it was edited from: what was kept, lost, gained?
# Set `SELFIMPROVE_RUN` to open another run folder; where there is none, a tiny run is made first.
#
# Both were trained from other weights. What differs need not come from the edit: two trainings of one genome differ
# too. To tell, compare with a second seed.

# %%
import pandas as pd

from interp import compare, generations, halt_behavior_of, load_generation, plotting
from interp.notebooks import open_or_make_run

run = open_or_make_run()
child = load_generation(run, generations(run)[-1])
parent = child.parent or load_generation(run, generations(run)[0])
print(parent)
print(child)

# %% [markdown]
# ## The diff in words
# Accuracies are of test sequences that both models read. `gained` and `lost` are told only where the two intervals do
# not meet and the change is at least 0.05.

# %%
diff = compare(parent, child)
print(diff)

# %% [markdown]
# ## How alike are the streams?
# Linear CKA of every layer with every layer: 1 if one is a rotated and scaled copy of the other. Look for a bright
# diagonal, and for rows that match another layer better than their own. The embeddings of two models on the same tokens
# are alike by themselves, and later layers inherit that: high values are no proof of the same computation.

# %%
print(diff.to_pandas().pivot(index="child_layer", columns="parent_layer", values="cka").round(2).to_string())
ax = diff.plot()

# %% [markdown]
# ## Does the parent's probe read the child?
# *As it is* compares coordinates, which two trainings do not share: near a constant answer is what to expect. *Aligned*
# first turns the child's states onto the parent's: what then reads is held in the same geometry.

# %%
for transfer in diff.transfer:
    print(transfer.to_pandas().round(2).to_string(index=False))
    transfer.plot()

# %% [markdown]
# ## Heads by kind
# Heads have no counterparts by number: a kind is kept if both models have a head of it. A model of few steps has often
# no head of any kind; then nothing was lost either.

# %%
heads = pd.DataFrame(
    [{"kind": c.kind, "parent": len(c.parent), "child": len(c.child), "fate": c.fate} for c in diff.heads]
)
print(heads.to_string(index=False))
ax = plotting.axes(None, title="Heads of known kinds", x="kind of head", y="number of heads")
for offset, who in ((-0.2, "parent"), (0.2, "child")):
    ax.bar([at + offset for at in range(len(heads))], heads[who] if len(heads) else [], width=0.4, label=who)
ax.set_xticks(range(len(diff.heads)), labels=[change.kind for change in diff.heads], rotation=30, ha="right")
ax.set_ylim(0, max(1, *heads["parent"], *heads["child"]) + 0.5)
legend = ax.legend()

# %% [markdown]
# ## Drift of the halt direction
# The aligned cosine against two lines: `chance`, what a turn alone gives, and the `reliability` in the table, beyond
# which no agreement can be seen. Where neither model has such a direction (see the tour), these are cosines of noise.

# %%
if diff.drift is None:
    print(f"not compared: {diff.without['halt direction']}")
else:
    print(diff.drift.to_pandas().round(2).to_string(index=False))
    diff.drift.plot()

# %% [markdown]
# ## Behavior on halt prompts
# A direction may move and the behavior stay, or the other way round: see both.

# %%
shares = {}
for name, one in (("parent", parent), ("child", child)):
    for condition in halt_behavior_of(one.bench()).conditions:
        if condition.measure == "kept":
            shares[f"{condition.name}, {name}"] = condition.share
shares = dict(sorted(shares.items()))
ax = plotting.intervals(
    None, shares, title="Constraint kept by parent and child", x="share of halt prompts kept", y="prompts, model"
)

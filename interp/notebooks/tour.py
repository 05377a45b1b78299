# ---
# jupyter:
#   jupytext:
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
# Open the latest run, load the checkpoint of its last generation as a hooked model, and read it layer by layer.
# Set `SELFIMPROVE_RUN` to open another run folder.

# %%
import os

from interp import generations, latest_run, lens_family, load_generation, probe_variable

run = os.environ.get("SELFIMPROVE_RUN") or latest_run()
g = load_generation(run, generations(run)[-1])
print(g)

# %% [markdown]
# ## Activations
# `g.model` is the trained network with a hook point at every canonical TransformerLens position.

# %%
logits, cache = g.model.run_with_cache(g.tokens)
for name in cache:
    print(f"{name:40} {tuple(cache[name].shape)}")

# %% [markdown]
# ## Linear probes
# What does the residual stream carry at each layer? Accuracy on sequences that the probe was not trained on, and in
# brackets the same probe's accuracy on a control task: a random label for each token type. At the embedding the control
# is nearly always solved; what counts is the difference at later layers. Majority is what one constant answer reaches.

# %%
bench = g.bench()
print(f"{'accuracy (control)':20}" + "".join(f"{layer:>16}" for layer in bench.layers) + f"{'majority':>12}")
for family in g.suite.families:
    for variable in bench.task("train", family).latents:
        p = probe_variable(bench, variable, families=[family])
        cells = (f"{a:.2f} ({c:.2f})" for a, c in zip(p.accuracy, p.control_accuracy, strict=True))
        print(f"{variable:20}" + "".join(f"{cell:>16}" for cell in cells) + f"{p.majority:12.2f}")
p = probe_variable(bench, "halted", families=g.suite.families, halt=True)
cells = (f"{a:.2f} ({c:.2f})" for a, c in zip(p.accuracy, p.control_accuracy, strict=True))
print(f"{'halted':20}" + "".join(f"{cell:>16}" for cell in cells) + f"{p.majority:12.2f}")

# %% [markdown]
# ## Logit lens
# What would the model answer if it stopped after each layer? Accuracy, and in brackets the mean log-probability of the
# right token in nats.

# %%
print(f"{'accuracy (log prob)':20}" + "".join(f"{layer:>16}" for layer in bench.layers))
for family in g.suite.families:
    lens = lens_family(bench, family)
    cells = (f"{a:.2f} ({p:.2f})" for a, p in zip(lens.accuracy, lens.log_prob, strict=True))
    print(f"{family:20}" + "".join(f"{cell:>16}" for cell in cells))

"""Reading trained models: hooks, probes, lenses, inspections.

>>> from interp import load_generation                         # doctest: +SKIP
>>> g = load_generation("runs/latest", 3)                      # doctest: +SKIP
>>> logits, cache = g.model.run_with_cache(g.tokens)           # doctest: +SKIP

An instrument of one's own is a function from a `Bench` to a dict of JSON values, `register`-ed in a module. A run takes
it in by two configuration keys:

    selfimprove run 'inspection.modules=[my_package.my_probe]' 'inspection.also=[my_instrument]'

The package is installed, or lies in the folder that the command is typed in. It is imported into the contained worker
that inspects, as this package is: it cannot write files or reach the network, but what it says of a model is believed,
so it is code to trust. In ``inspection.instruments`` the gate requires that it reads every candidate; in
``inspection.also`` it is only shown.

Importing this package costs nothing: torch and TransformerLens load when one of its names is first used.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from interp.ablation import ablate_family
    from interp.addition import read_addition
    from interp.alignment import direction_drift, halt_directions
    from interp.attribution import attribute_family
    from interp.behavior import halt_behavior_of
    from interp.bench import Bench, Plan
    from interp.circuits import bench_scores, score_heads
    from interp.comparison import compare
    from interp.constraint import retention
    from interp.controller import ControllerGeneration, controllers, load_controller
    from interp.controller_denials import ablate_quantity, sampled_denials, score_proposals
    from interp.controller_probes import probe_survey
    from interp.head_products import head_matrices
    from interp.hooked import HookedModel, to_hooked
    from interp.inspection import Inspection, inspect, register
    from interp.lenses import lens_family
    from interp.patching import patch_family, patch_heads
    from interp.probes import probe_variable
    from interp.runs import Generation, generations, latest_run, load_generation
    from interp.spectra import spectrum
    from interp.steering import steer
    from interp.survival import survival_of_runs
    from interp.transfer import transfers

_HOMES = {
    "Bench": "bench",
    "ControllerGeneration": "controller",
    "Generation": "runs",
    "HookedModel": "hooked",
    "Inspection": "inspection",
    "Plan": "bench",
    "ablate_family": "ablation",
    "ablate_quantity": "controller_denials",
    "attribute_family": "attribution",
    "bench_scores": "circuits",
    "compare": "comparison",
    "controllers": "controller",
    "direction_drift": "alignment",
    "generations": "runs",
    "halt_behavior_of": "behavior",
    "halt_directions": "alignment",
    "head_matrices": "head_products",
    "inspect": "inspection",
    "latest_run": "runs",
    "lens_family": "lenses",
    "load_controller": "controller",
    "load_generation": "runs",
    "patch_family": "patching",
    "patch_heads": "patching",
    "probe_survey": "controller_probes",
    "probe_variable": "probes",
    "read_addition": "addition",
    "register": "inspection",
    "retention": "constraint",
    "sampled_denials": "controller_denials",
    "score_heads": "circuits",
    "score_proposals": "controller_denials",
    "spectrum": "spectra",
    "steer": "steering",
    "survival_of_runs": "survival",
    "to_hooked": "hooked",
    "transfers": "transfer",
}

__all__ = [
    "Bench",
    "ControllerGeneration",
    "Generation",
    "HookedModel",
    "Inspection",
    "Plan",
    "ablate_family",
    "ablate_quantity",
    "attribute_family",
    "bench_scores",
    "compare",
    "controllers",
    "direction_drift",
    "generations",
    "halt_behavior_of",
    "halt_directions",
    "head_matrices",
    "inspect",
    "latest_run",
    "lens_family",
    "load_controller",
    "load_generation",
    "patch_family",
    "patch_heads",
    "probe_survey",
    "probe_variable",
    "read_addition",
    "register",
    "retention",
    "sampled_denials",
    "score_heads",
    "score_proposals",
    "spectrum",
    "steer",
    "survival_of_runs",
    "to_hooked",
    "transfers",
]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'interp' has no attribute {name!r}; it has {', '.join(__all__)}")
    return getattr(import_module(f"interp.{_HOMES[name]}"), name)

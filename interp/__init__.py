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
    from interp.bench import Bench, Plan
    from interp.comparison import compare
    from interp.constraint import retention
    from interp.hooked import HookedModel, to_hooked
    from interp.inspection import Inspection, inspect, register
    from interp.lenses import lens_family
    from interp.patching import patch_heads
    from interp.probes import probe_variable
    from interp.runs import Generation, generations, latest_run, load_generation

_HOMES = {
    "Bench": "bench",
    "Generation": "runs",
    "HookedModel": "hooked",
    "Inspection": "inspection",
    "Plan": "bench",
    "compare": "comparison",
    "generations": "runs",
    "inspect": "inspection",
    "latest_run": "runs",
    "lens_family": "lenses",
    "load_generation": "runs",
    "patch_heads": "patching",
    "probe_variable": "probes",
    "register": "inspection",
    "retention": "constraint",
    "to_hooked": "hooked",
}

__all__ = [
    "Bench",
    "Generation",
    "HookedModel",
    "Inspection",
    "Plan",
    "compare",
    "generations",
    "inspect",
    "latest_run",
    "lens_family",
    "load_generation",
    "patch_heads",
    "probe_variable",
    "register",
    "retention",
    "to_hooked",
]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'interp' has no attribute {name!r}; it has {', '.join(__all__)}")
    return getattr(import_module(f"interp.{_HOMES[name]}"), name)

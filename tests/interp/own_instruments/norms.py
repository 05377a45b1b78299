"""The length of the stream by layer: an instrument of one's own."""

from __future__ import annotations

from typing import Any

from interp import Bench, register


def stream_norms(bench: Bench) -> dict[str, Any]:
    """Mean length of the residual stream by family and layer."""
    readings = {family: bench.task("test", family) for family in bench.suite.families}
    return {"stream_norms": {name: r.residual.norm(dim=-1).mean((1, 2)).tolist() for name, r in readings.items()}}


register("stream_norms", stream_norms)

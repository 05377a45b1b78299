"""Figures of instruments of one's own: what an inspection's summary holds beside what the built-in instruments give."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import islice
from typing import Any

from selfimprove.app.report.records import mapping, shown, text

BUILT_IN = frozenset(
    {
        *("readability", "layers", "retention", "comparison", "attention_heads", "attribution", "ablation"),
        *("probes", "control", "probe_details", "probe_places"),
        *("logit_lens", "logit_lens_log_prob"),
        *("halt_behavior", "halt_behavior_skipped", "nearest_token", "halt_direction"),
        *("patching", "patching_left_out", "ov_qk", "spectrum"),
    }
)
"""Keys of the summary that the built-in instruments give."""
FORMER = frozenset({"logit_lens_source"})
"""Keys that they gave in earlier versions, whose ledgers are read as well."""
MOST, MOST_PARTS = 24, 48  # figures of one inspection, and values of one figure
LONGEST_NAME, LONGEST = 60, 600  # characters


def own_figures(summary: Mapping[str, Any]) -> dict[str, str]:
    """Figures that no built-in instrument gives, by name, as text of bounded length; untrusted, as all of a summary.

    >>> own_figures({"probes": {}, "evenness": {"blocks.0": 0.912, "blocks.1": 0.75}, "worst": 3})
    {'evenness': 'blocks.0 0.912; blocks.1 0.75', 'worst': '3'}
    """
    found = ((name, value) for name, value in summary.items() if name not in BUILT_IN | FORMER)
    return {text(name, LONGEST_NAME): text(_told(value), LONGEST) for name, value in islice(found, MOST)}


def _told(value: object) -> str:
    parts = islice(mapping(value).items(), MOST_PARTS)
    return "; ".join(f"{key} {shown(item)}" for key, item in parts) if isinstance(value, Mapping) else shown(value)

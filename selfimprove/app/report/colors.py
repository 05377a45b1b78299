"""The sequential colour map for skills and accuracies, and text that can be read on it.

Viridis is perceptually uniform and safe for the common colour-vision deficiencies. Categorical colours live in the
style sheet (Okabe and Ito's palette), where they can differ between the light and the dark scheme.
"""

from __future__ import annotations

_VIRIDIS = ("#440154", "#46327e", "#365c8d", "#277f8e", "#1fa187", "#4ac16d", "#a0da39", "#fde725")


def _channels(color: str) -> tuple[int, int, int]:
    return int(color[1:3], 16), int(color[3:5], 16), int(color[5:7], 16)


def sequential(share: float) -> str:
    """The colour at a share of the scale, clamped to 0..1, as ``#rrggbb``."""
    place = min(max(share, 0.0), 1.0) * (len(_VIRIDIS) - 1)
    index = min(int(place), len(_VIRIDIS) - 2)
    rest = place - index
    pairs = zip(_channels(_VIRIDIS[index]), _channels(_VIRIDIS[index + 1]), strict=True)
    return "#" + "".join(f"{round(a + (b - a) * rest):02x}" for a, b in pairs)


def ink(color: str) -> str:
    """The style class, ``on-dark`` or ``on-light``, of text with the higher contrast (WCAG 2 relative luminance)."""
    linear = [c / 3294.6 if c <= 10.31 else ((c / 255 + 0.055) / 1.055) ** 2.4 for c in _channels(color)]
    luminance = 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]
    return "on-light" if (luminance + 0.05) / 0.05 > 1.05 / (luminance + 0.05) else "on-dark"

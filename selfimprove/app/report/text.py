"""Numbers and edits as a person reads them."""

from __future__ import annotations

import re
from collections.abc import Sequence

from markupsafe import Markup

from selfimprove.app.report.svg import shorten
from selfimprove.app.units import flops

MINUS = "\N{MINUS SIGN}"
INDENT = "\N{NO-BREAK SPACE}" * 2
_BREAKS = re.compile(r"[,=]|(?<=[a-z])_(?=[a-z])|\((?![^()]*\))|\.(?=[a-z])|.(?=<->)")
"""Where an edit may break: after these, and before a swap; brackets around a single thing stay whole."""
_PREFIXES = (
    ("architecture.", ""),
    ("objective.expression", "loss"),
    ("recipe.", ""),
)


def decimal(value: float | None, digits: int = 3) -> str:
    """A number with fixed digits and a true minus sign; a dash where there is none."""
    return "\N{EN DASH}" if value is None else f"{value:.{digits}f}".replace("-", MINUS)


def signed(value: float | None, digits: int = 3) -> str:
    """A difference with its sign."""
    return "\N{EN DASH}" if value is None else f"{value:+.{digits}f}".replace("-", MINUS)


def p_text(value: float | None) -> str:
    """A p-value: three digits, or a bound where it is smaller than what digits can show."""
    if value is None:
        return "p not recorded"
    return "p < 0.0001" if value < 0.0001 else f"p = {value:.4f}" if value < 0.01 else f"p = {value:.3f}"


def percent(share: float) -> str:
    """A share as a percentage; small ones keep a digit."""
    shown = 100 * share
    return f"{shown:.1f}%" if 0 < shown < 10 else f"{shown:.0f}%"


def moment(time: str) -> str:
    """An ISO time cut to seconds, in words that a person scans: ``2026-01-31 14:05:09 UTC``."""
    return f"{time[:10]} {time[11:19]} UTC" if len(time) >= 19 and time[10] == "T" else time


def brief_edit(edit: str) -> str:
    """An edit without the words that its colour and shape already say.

    Example:
        >>> brief_edit("architecture.blocks.0.conv_qkv=true")
        'blocks.0.conv_qkv=true'
        >>> brief_edit("objective.expression.args.1.args.0=mul(_, -1)")
        'loss.1.0=mul(_, -1)'
    """
    for long, short in _PREFIXES:
        edit = edit.replace(long, short)
    return re.sub(r"(?<=\.)args\.(?=\d)", "", edit)


def edit_lines(edits: Sequence[str], limit: int, most: int) -> tuple[str, ...]:
    """At most ``most`` lines of at most ``limit`` characters that name the edits; what is left out is counted.

    Every edit that is shown gets a line; lines that are left go to those that need more than one.
    """
    brief = [brief_edit(edit) for edit in edits]
    if not brief:
        return ("no edit recorded",)
    wrapped = [_wrap(edit, limit) for edit in brief[:most]]
    while sum(map(len, wrapped)) > most:
        longest = max(wrapped, key=len)
        longest[-2:] = [longest[-2] + longest[-1]]
    lines = [shorten(INDENT * (row > 0) + line.strip(), limit) for edit in wrapped for row, line in enumerate(edit)]
    if len(brief) > most:
        more = f" +{len(brief) - most} more"
        lines[-1] = shorten(lines[-1], limit - len(more)) + more
    return tuple(lines)


def _wrap(edit: str, limit: int) -> list[str]:
    """An edit in as many pieces as its lines need, broken where a person would; further lines lose an indent."""
    pieces: list[str] = []
    while len(edit) > (room := limit - len(INDENT) * bool(pieces)):
        ends = {mark.end(): mark.group() for mark in _BREAKS.finditer(edit) if room // 3 < mark.end() <= room}
        good = [end for end, mark in ends.items() if mark in ",="]
        cut = max(good or ends or [room])
        pieces.append(edit[:cut])
        edit = edit[cut:]
    return [*pieces, edit]


def breakable(edit: str) -> Markup:
    """Escaped edit text with places where a line may break."""
    return Markup("<wbr>").join(_BREAKS.sub(lambda mark: mark.group() + "\n", edit).split("\n"))


def denied_value(limit: str, value: str) -> str:
    """A value or bound of a denial, as FLOPs where the limit counts them."""
    return flops(float(value)) if "flops" in limit and value.isdigit() and len(value) < 40 else value

"""Amounts as a person reads them: FLOPs, times, bytes, counts."""

from __future__ import annotations

_UNITS = ((1e18, "EFLOP"), (1e15, "PFLOP"), (1e12, "TFLOP"), (1e9, "GFLOP"), (1e6, "MFLOP"), (1e3, "kFLOP"))


def flop_unit(largest: float) -> tuple[float, str]:
    """The unit in which values up to ``largest`` are read most easily: its size in FLOPs and its name."""
    return next((unit for unit in _UNITS if largest >= unit[0]), (1.0, "FLOP"))


def flops(value: float | None) -> str:
    """A count of floating-point operations with three significant digits: ``1.25 TFLOP``."""
    if value is None:
        return "not recorded"
    rounded = float(f"{value:.3g}")
    size, unit = flop_unit(rounded)
    return f"{rounded / size:.3g} {unit}" if rounded / size < 1000 else f"{value / size:,.0f} {unit}"


def duration(seconds: float | None) -> str:
    """Seconds as ``3 min 20 s`` or ``2 h 05 min``."""
    if seconds is None:
        return "not recorded"
    whole = max(0, round(seconds))
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    return f"{whole // 3600} h {whole % 3600 // 60:02d} min"


def size(count: float) -> str:
    """A number of bytes: ``64 MiB``."""
    units = ((2.0**30, "GiB"), (2.0**20, "MiB"), (2.0**10, "KiB"))
    bytes_, unit = next((unit for unit in units if count >= unit[0]), (1.0, "B"))
    return f"{count / bytes_:.4g} {unit}"


def count(number: int, one: str, many: str = "") -> str:
    """A number with its noun.

    >>> count(1, "generation"), count(2, "entry", "entries")
    ('1 generation', '2 entries')
    """
    return f"{number} {one if number == 1 else many or one + 's'}"

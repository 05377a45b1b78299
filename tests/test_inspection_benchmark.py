"""The benchmark of inspections: sizes from 0.1 to 30 million parameters, and exponents of known laws."""

from __future__ import annotations

import math

import pytest

from benchmarks.inspection import SIZES, architecture, exponent, growth
from selfimprove.genome.architecture import check
from selfimprove.nets.cost import parameter_shapes


def test_the_sizes_span_two_and_a_half_decades_of_valid_models() -> None:
    for one in SIZES:
        check(architecture(*one))
    first, last = (
        sum(math.prod(shape) for shape in parameter_shapes(architecture(*one), 48, 24).values())
        for one in (SIZES[0], SIZES[-1])
    )
    assert 0.09e6 < first < 0.12e6
    assert 28e6 < last < 33e6


def test_an_exponent_is_that_of_the_law_with_its_interval() -> None:
    sizes = [1e5, 1e6, 1e7, 1e8]
    exact = exponent(sizes, [2e-3 * size**0.8 for size in sizes])
    assert exact is not None
    assert [exact[name] for name in ("value", "low", "high")] == pytest.approx([0.8] * 3, abs=1e-3)
    noisy = exponent(sizes, [1.0, 12.0, 90.0, 1100.0])
    assert noisy is not None
    assert noisy["low"] < 1.0 < noisy["high"]
    assert exponent(sizes[:2], [1, 2]) is None
    assert exponent(sizes, [1e-5] * 4) is None  # it did not apply


def test_what_grows_late_shows_in_the_larger_half() -> None:
    sizes = [10**n for n in range(2, 8)]
    totals = ("default_seconds", "full_seconds", "default_bytes", "full_bytes")
    found = growth(
        [
            dict.fromkeys(totals, 1 + (size / 1e5) ** 1.2) | {"parameters": size, "seconds": {"probes": float(size)}}
            for size in sizes
        ]
    )
    assert found["exponents"]["probes"]["value"] == pytest.approx(1.0)
    assert found["exponents"]["full_seconds"]["value"] < 0.8
    assert found["exponents_of_the_larger_half"]["full_seconds"]["value"] > 1.0

"""Random genomes of the whole space keep their promises: 300 of the study's 5,000, and its own book-keeping."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from benchmarks import space
from benchmarks.space import PROMISES, examine, random_genome


@pytest.mark.parametrize("start", range(0, 300, 25))
def test_every_promise_holds_for_300_genomes(start: int) -> None:
    broken = {number: examine(number) for number in range(start, start + 25)}
    assert {number: names for number, names in broken.items() if names} == {}


@pytest.mark.parametrize("number", [3483, 4283])
def test_a_wide_convolution_in_a_narrow_block_is_priced_as_it_is_counted(number: int) -> None:
    """Two of 5,000 genomes whose price was 5.6% too high, when a convolution's first positions had neighbours in it."""
    assert examine(number) == []


def test_random_genomes_hardly_repeat() -> None:
    assert len({random_genome(number).sha256 for number in range(300)}) > 290


def test_a_broken_promise_is_reported_and_an_interrupted_study_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    examined = []

    def odd(genome: object, rng: object) -> bool:
        examined.append(genome)
        return len(examined) != 2

    monkeypatch.setitem(PROMISES, "odd", odd)
    for name in set(PROMISES) - {"odd"}:
        monkeypatch.delitem(PROMISES, name)
    assert space.main(["--genomes", "3", "--results", str(tmp_path)]) == 1
    with (tmp_path / "genomes.jsonl").open("a") as lines:
        lines.write('{"number": 3, "gen')  # cut off
    assert space.main(["--genomes", "5", "--results", str(tmp_path)]) == 1
    summary = json.loads((tmp_path / "summary.json").read_text())
    assert (len(examined), summary["examined"]) == (5, 5)
    assert [row["number"] for row in summary["broken"]] == [1]

"""Every instrument finds the planted induction circuit, names nothing else, and finds nothing on the scrambled twin."""

from __future__ import annotations

import pytest
import torch

from benchmarks.planted import as_expected
from interp import ablation, attribution, circuits, patching
from interp.bench import Bench
from interp.components import STREAM, components
from interp.planted import induction
from interp.verdict import NotApplicable
from selfimprove.genome.architecture import check
from selfimprove.tasks.batch import UNSCORED

PREVIOUS, INDUCTION = induction.PREVIOUS_HEAD, induction.INDUCTION_HEAD
HEADS = {PREVIOUS, INDUCTION}


@pytest.fixture(scope="module")
def planted() -> Bench:
    return induction.bench(induction.planted())


@pytest.fixture(scope="module")
def twin() -> Bench:
    return induction.bench(induction.scrambled())


def accuracy(bench: Bench) -> float:
    reading = bench.task("test", "induction")
    scored = reading.targets != UNSCORED
    return float((reading.logits.argmax(-1) == reading.targets)[scored].float().mean())


def test_the_planted_model_is_one_that_a_genome_can_say_and_solves_the_task(planted: Bench, twin: Bench) -> None:
    check(induction.ARCHITECTURE)
    assert accuracy(planted) == 1.0
    assert accuracy(twin) < 0.1


def test_the_twin_has_the_same_weights_in_another_order(planted: Bench, twin: Bench) -> None:
    for own, other in zip(planted.model.parameters(), twin.model.parameters(), strict=True):
        torch.testing.assert_close(own.flatten().sort().values, other.flatten().sort().values, rtol=0, atol=0)


def test_scores_name_the_planted_heads_and_no_others(planted: Bench, twin: Bench) -> None:
    found = circuits.bench_scores(planted).kinds()
    expected = {"previous_token": (PREVIOUS,), "duplicate_token": (), "induction": (INDUCTION,)}
    assert found == expected | {"answer/induction": (INDUCTION,)}
    assert circuits.bench_scores(twin).kinds() == dict.fromkeys(found, ())


def test_the_task_is_lost_without_a_planted_head_and_without_no_other(planted: Bench, twin: Bench) -> None:
    result, nothing = (ablation.ablate_family(bench, "induction") for bench in (planted, twin))
    for method in ablation.METHODS:
        lost = dict(zip(result.labels, result.accuracy_drop[method], strict=True))
        assert {part for part, drop in lost.items() if drop > 0.9} == HEADS | {"L0 attention", "L1 attention"}
        assert all(drop < 0.05 for drop in lost.values() if drop <= 0.9)
        assert max(nothing.accuracy_drop[method]) < 0.05


def test_patching_names_the_parts_that_the_task_needs(planted: Bench) -> None:
    result = patching.patch_family(planted, "induction")
    assert set(result.needed()) == HEADS | {"L0 attention", "L1 attention"}
    assert set(result.sufficient()) == {INDUCTION, "L1 attention"}  # the answer passes through the second block alone


def test_noise_at_one_position_takes_the_answers_that_are_asked_or_stand_there(planted: Bench) -> None:
    reading = planted.task("test", "induction")
    assert reading.source is not None
    parts = components(planted.hooked, STREAM, range(reading.tokens.shape[1]))
    second = [part for part in parts if part.label.startswith("L1")]
    result = patching.patch(planted.hooked, reading.tokens, reading.targets, second)
    asked = patching.pair(reading.targets)[1]
    for place, left in enumerate(result.noise):
        touched = asked & (reading.source == place)
        touched[:, place] = asked[:, place]
        assert left == pytest.approx(1 - float(touched.sum() / asked.sum()), abs=0.06)


def test_the_twin_has_no_answer_that_a_part_could_carry(twin: Bench) -> None:
    with pytest.raises(NotApplicable, match="no answer to carry"):
        patching.patch_family(twin, "induction")


def test_attribution_names_the_induction_head_as_the_only_writer(planted: Bench, twin: Bench) -> None:
    assert attribution.attribute_family(planted, "induction").writers() == (INDUCTION,)
    assert attribution.attribute_family(twin, "induction").writers() == ()


def test_the_table_of_planted_and_scrambled_figures_is_as_expected() -> None:
    assert [row["what"] for row in induction.rows() if not as_expected(row)] == []


@pytest.mark.parametrize(
    ("planted", "scrambled", "expected", "held"),
    [
        (0.95, 0.1, "above 0.9; twin below 0.2", True),
        (0.95, 0.3, "above 0.9; twin below 0.2", False),
        (0.8, 0.1, "above 0.9; twin below 0.2", False),
        (1.0, None, "1; twin not applicable", True),
        (1.0, 0.0, "1; twin not applicable", False),
        (None, 0.0, "1; twin 0", False),
        (0.5, 0.7, "0.4 to 0.6; twin, too", False),
        (0.9, -0.2, "between 0 and 1; twin within 0.3 of 0", True),
    ],
)
def test_a_row_is_as_expected_where_both_figures_keep_their_bounds(
    planted: float | None, scrambled: float | None, expected: str, held: bool
) -> None:
    assert as_expected({"planted": planted, "scrambled": scrambled, "expected": expected}) == held


@pytest.mark.parametrize(("decoy", "held"), [(1.0, True), (0.0, False), (None, False)])
def test_a_decoy_has_a_bound_of_its_own(decoy: float | None, held: bool) -> None:
    row = {"planted": 0.0, "scrambled": 0.0, "decoy": decoy, "expected": "0; twin, too; decoy 1"}
    assert as_expected(row) == held


@pytest.mark.parametrize("expected", ["1", "1; decoy 1", "1; twin 1; decoy 1", "1; twin 1; stranger 1"])
def test_every_model_has_a_bound_and_no_other(expected: str) -> None:
    with pytest.raises(ValueError, match="gives no bound, or one too many"):
        as_expected({"planted": 1.0, "scrambled": 1.0, "expected": expected})


def test_a_bound_of_another_form_is_refused() -> None:
    with pytest.raises(ValueError, match="no bound"):
        as_expected({"planted": 1.0, "scrambled": 1.0, "expected": "large; twin small"})

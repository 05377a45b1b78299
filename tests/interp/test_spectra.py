"""Fourier spectra of modular addition: what is planted is found, and nothing where numbers are dealt at random."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence

import pytest
import torch

from interp.addition import Layout, answers, equation, family_layout, modular_spectrum, read_addition
from interp.bench import Bench, Plan
from interp.hooked import to_hooked
from interp.inspection import inspect
from interp.planted import fourier
from interp.planted.fourier import planted, relabelled, scrambled
from interp.spectra import by_sum, gini, of_frequencies, progress, spectrum, sum_spectrum, sums
from interp.verdict import NotApplicable, Unreadable
from selfimprove.genome.genome import seed_genome
from selfimprove.nets.transformer import Transformer, build
from selfimprove.tasks.batch import UNSCORED
from selfimprove.tasks.families.modular import FAMILY, Modular
from selfimprove.tasks.suite import TasksConfig, TaskSuite

PLANTED = [
    (equation(59), (3, 17, 28)),
    (equation(11), (2, 5)),
    (family_layout(Modular(9, 2)), (1, 2)),
    (family_layout(Modular(7, 2)), (3,)),
]


@pytest.mark.parametrize(("layout", "frequencies"), PLANTED)
def test_exactly_the_planted_frequencies_are_found(layout: Layout, frequencies: tuple[int, ...]) -> None:
    found = read_addition(planted(layout, frequencies), layout)
    assert {one.key for one in found.embeddings} == {frequencies}
    assert found.logits.key == frequencies
    assert sum(found.logits.share) == pytest.approx(1.0, abs=1e-6)


@pytest.mark.parametrize(("layout", "frequencies"), PLANTED)
def test_nothing_is_found_where_the_same_vectors_are_dealt_to_other_numbers(
    layout: Layout, frequencies: tuple[int, ...]
) -> None:
    found = read_addition(relabelled(layout, frequencies), layout)
    assert {one.key for one in (*found.embeddings, found.logits)} == {()}


def test_nothing_is_found_in_scrambled_weights() -> None:
    layout, frequencies = fourier.SUITE_LAYOUT, fourier.FEW
    found = read_addition(scrambled(layout, frequencies), layout)
    assert {one.key for one in (*found.embeddings, found.logits)} == {()}


def test_the_planted_network_answers_the_suites_task_wherever_it_asks() -> None:
    model = planted(fourier.SUITE_LAYOUT, fourier.FEW, fourier.CONTEXT)
    batch = fourier.suite().batch("search", "modular", 50, 0)
    tokens, targets = torch.tensor(batch.tokens), torch.tensor(batch.targets)
    asked = targets != UNSCORED
    assert asked.sum() > 500
    assert (model(tokens).argmax(-1)[asked] == targets[asked]).all()


def test_planted_frequencies_alone_lose_nothing_and_without_them_nothing_is_known() -> None:
    layout, frequencies = PLANTED[0]
    found = progress(answers(planted(layout, frequencies), layout), frequencies)
    assert found.losses["full_all"] > 0.01
    assert found.losses["restricted_all"] == pytest.approx(found.losses["full_all"], rel=1e-4)
    assert found.losses["excluded_all"] == pytest.approx(math.log(59), rel=1e-4)
    assert found.explained == pytest.approx(1.0, abs=1e-6)


def test_other_frequencies_than_the_planted_ones_explain_nothing() -> None:
    layout, _ = PLANTED[0]
    found = progress(answers(planted(layout, (3, 17)), layout), (4, 16))
    assert found.explained < 1e-6
    assert found.losses["excluded_all"] == pytest.approx(found.losses["full_all"], rel=1e-4)


def by_directions(logits: torch.Tensor, frequencies: Sequence[int]) -> torch.Tensor:
    """The paper's projection: onto the 2D Fourier terms that make cos(w(a + b)) and sin(w(a + b))."""
    p = logits.shape[0]
    flat, part = logits.reshape(p * p, -1), torch.zeros(p * p, logits.shape[-1], dtype=logits.dtype)
    for k in frequencies:
        angle = 2 * math.pi * k * torch.arange(p, dtype=torch.float64) / p
        cos, sin = angle.cos() / angle.cos().norm(), angle.sin() / angle.sin().norm()
        for direction in (
            (torch.outer(cos, cos) - torch.outer(sin, sin)) / 2**0.5,
            (torch.outer(sin, cos) + torch.outer(cos, sin)) / 2**0.5,
        ):
            part += torch.outer(direction.flatten(), direction.flatten() @ flat)
    return part.view_as(logits)


def test_the_part_of_some_frequencies_is_the_projection_of_the_paper() -> None:
    logits = torch.randn(11, 11, 11, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    assert torch.allclose(of_frequencies(logits, (1, 4)), by_directions(logits, (1, 4)), atol=1e-12)
    assert not of_frequencies(logits, ()).any()


def test_all_frequencies_and_the_constant_make_the_mean_by_sum() -> None:
    logits = torch.randn(10, 10, 10, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    whole = of_frequencies(logits, range(6))
    total = sums(10, 3)
    assert torch.allclose(whole, by_sum(logits)[total])
    assert torch.allclose(by_sum(logits)[3], logits[total == 3].mean(0))


def test_the_key_frequencies_share_of_the_variance_is_what_they_explain() -> None:
    layout, _ = PLANTED[0]
    noise = torch.randn(59, 59, 59, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    logits = answers(planted(layout, (3, 17)), layout) + 20 * noise
    found = sum_spectrum(logits)
    assert found.key == (3, 17)
    explained = progress(logits, found.key).explained
    assert 0.1 < explained < 0.9
    assert sum(found.share[k - 1] for k in found.key) == pytest.approx(explained, rel=1e-3)


def test_noise_rarely_has_a_key_frequency() -> None:
    generator = torch.Generator().manual_seed(0)
    alarms = [bool(spectrum(torch.randn(11, 64, generator=generator)).key) for _ in range(30)]
    alarms += [bool(sum_spectrum(torch.randn(9, 9, 9, generator=generator)).key) for _ in range(30)]
    assert sum(alarms) <= 4  # 1 expected


def test_logits_that_are_no_function_of_the_sum_have_no_key_frequency() -> None:
    number = 2 * math.pi * 3 * torch.arange(23) / 23
    of_difference = number[:, None, None] - number[None, :, None] - number
    assert sum_spectrum(of_difference.cos()).key == ()
    of_sum = number[:, None, None] + number[None, :, None] - number
    assert sum_spectrum(of_sum.cos()).key == (3,)


def test_the_gini_coefficient_of_equal_numbers_is_0_and_of_a_single_one_nearly_1() -> None:
    assert gini(torch.ones(50)) == pytest.approx(0.0)
    assert gini(torch.eye(50)[3]) == pytest.approx(1 - 1 / 50)


def test_too_few_numbers_or_equal_rows_are_not_applicable() -> None:
    with pytest.raises(NotApplicable, match="modulus 4"):
        spectrum(torch.randn(4, 8))
    with pytest.raises(NotApplicable, match="all alike"):
        spectrum(torch.full((11, 8), 0.1))


def test_networks_that_are_not_finite_are_unreadable() -> None:
    layout, frequencies = PLANTED[1]
    model = planted(layout, frequencies)
    model.get_parameter("blocks.0.mlp.W_in").data[0, 0] = math.nan
    with pytest.raises(Unreadable, match="non-finite"):
        read_addition(model, layout)


def untrained(suite: TaskSuite) -> Transformer:
    config = suite.config
    return build(seed_genome().architecture, vocab_size=config.vocab_size, context=config.context, seed=0)


@pytest.mark.parametrize("level", range(len(FAMILY.ladder)))
def test_the_instrument_reads_the_suites_task_at_every_level(level: int) -> None:
    suite = fourier.suite(level)
    figures = modular_spectrum(Bench(untrained(suite), suite, Plan(1, 2, 3)))["spectrum"]
    assert json.loads(json.dumps(figures)) == figures
    assert len(figures["embedding_key"]) == figures["terms"] == FAMILY.setting(level).terms  # type: ignore[attr-defined]
    assert figures["full_all_nats"] == pytest.approx(math.log(figures["modulus"]), abs=0.5)


def test_the_instrument_does_not_apply_to_a_suite_without_modular_addition() -> None:
    suite = TaskSuite(TasksConfig())
    with pytest.raises(NotApplicable, match="family modular"):
        modular_spectrum(Bench(untrained(suite), suite, Plan(1, 2, 3)))


def test_the_planted_network_is_readable_and_its_hooked_copy_has_the_same_spectrum() -> None:
    model = planted(fourier.SUITE_LAYOUT, fourier.FEW, fourier.CONTEXT)
    assert inspect(model, fourier.suite(), Plan(1, 2, 3, sequences=24), names=["readability"]).status == "complete"
    own, hooked = (read_addition(one, fourier.SUITE_LAYOUT) for one in (model, to_hooked(model)))
    assert own.logits.share == pytest.approx(hooked.logits.share, abs=1e-6)


def test_the_rows_of_the_table_are_as_expected() -> None:
    for row in fourier.rows():
        own, twin = row["planted"], row["scrambled"]
        if row["what"].startswith("planted frequencies"):
            assert (own, twin) == (int(row["expected"][0]), 0), row
        elif row["what"].startswith("others"):
            assert own == twin == 0
        elif row["what"].startswith("variance"):
            assert own > 0.999
            assert twin == 0
        elif row["what"].startswith("effective rank"):
            assert own == pytest.approx(2 * len(fourier.FEW), abs=1e-3)
            assert twin > 4 * len(fourier.FEW)
        else:
            assert own == pytest.approx(1.0, abs=1e-6)
            assert abs(twin) < 0.25


def test_spectra_and_losses_have_tables_and_plots_with_named_axes() -> None:
    layout, frequencies = PLANTED[1]
    found = read_addition(planted(layout, frequencies), layout)
    assert found.to_pandas().query("of == 'logits' and key").frequency.tolist() == list(frequencies)
    assert found.embeddings[0].to_pandas().query("key").frequency.tolist() == list(frequencies)
    assert set(found.progress.to_pandas().logits) == {"full", "restricted", "excluded"}
    for one in (found, found.embeddings[0], found.progress):
        ax = one.plot()
        assert ax.get_title()
        assert ax.get_xlabel()
        assert ax.get_ylabel()

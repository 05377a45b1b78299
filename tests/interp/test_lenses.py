"""The logit lens agrees with TransformerLens, and its last layer is the model's own answer."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor
from transformer_lens.tools.analysis import logit_lens as library_lens

from interp import lenses
from interp.bench import Bench, Plan
from interp.hooked import to_hooked
from interp.verdict import NotApplicable, Unreadable
from selfimprove.nets.transformer import Transformer
from selfimprove.tasks.suite import TaskSuite

Shaken = Callable[..., Transformer]


@pytest.mark.parametrize("seed", range(50))
def test_the_lens_is_the_librarys_where_it_applies(seed: int, shaken: Shaken, tokens: Tensor) -> None:
    hooked = to_hooked(shaken(seed, joined=False))
    _, cache = hooked.run_with_cache(tokens)
    library = library_lens(hooked, cache=cache, positions=None, return_type="log_probs").values
    torch.testing.assert_close(lenses.lens_log_probs(hooked, cache), library, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("seed", range(12))
def test_last_layer_is_the_models_own_answer(seed: int, shaken: Shaken, tokens: Tensor) -> None:
    hooked = to_hooked(shaken(seed))
    logits, cache = hooked.run_with_cache(tokens)
    torch.testing.assert_close(lenses.lens_log_probs(hooked, cache)[-1], logits.log_softmax(-1), rtol=1e-5, atol=1e-5)


def test_only_scored_positions_count() -> None:
    log_probs = torch.tensor([[[0.9, 0.1], [0.2, 0.8], [0.5, 0.5]]]).log()[None]  # one layer, one sequence
    accuracy, log_prob, n = lenses.summarize(log_probs, torch.tensor([[0, 0, -1]]))
    assert (accuracy, n) == ((0.5,), 2)
    assert log_prob[0] == pytest.approx((torch.tensor([0.9, 0.2]).log().mean()).item())


def test_no_scored_position_is_not_applicable() -> None:
    with pytest.raises(NotApplicable, match="scored"):
        lenses.summarize(torch.zeros(1, 1, 2, 3), torch.full((1, 2), -1))


def test_non_finite_log_probabilities_are_unreadable() -> None:
    with pytest.raises(Unreadable, match="non-finite"):
        lenses.summarize(torch.full((1, 1, 2, 3), float("nan")), torch.zeros(1, 2, dtype=torch.int64))


def test_every_family_is_read_at_every_layer(model: Transformer, suite: TaskSuite, plan: Plan) -> None:
    bench = Bench(model, suite, plan)
    for family in suite.families:
        result = lenses.lens_family(bench, family)
        assert result.layers == bench.layers
        assert len(result.accuracy) == len(result.log_prob) == 3
        assert max(result.log_prob) < 0


def test_a_lens_is_a_table_and_a_plot() -> None:
    result = lenses.LensResult("recall", ("embed", "blocks.0"), (0.1, 0.9), (-2.0, -0.1), 8)
    assert list(result.to_pandas()["accuracy"]) == [0.1, 0.9]
    axes = result.plot()
    assert axes.get_title()
    assert axes.get_xlabel()
    assert axes.get_ylabel()

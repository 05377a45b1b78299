"""Replacing and taking away parts: what an effect is measured against, and where there is none to measure."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from interp import ablation, patching
from interp.bench import Bench, Plan
from interp.components import LEAST_SEQUENCES, RUNS, STREAM, activations, affordable, components, run_replaced
from interp.hooked import HookedModel, to_hooked
from interp.verdict import NotApplicable, Unreadable
from selfimprove.genome.architecture import Architecture, Block
from selfimprove.nets.transformer import Transformer
from selfimprove.tasks.batch import UNSCORED
from selfimprove.tasks.suite import TaskSuite
from tests.interp.conftest import VOCAB, build_shaken

TARGETS = torch.tensor([[UNSCORED, 5, 6], [UNSCORED, 5, 7], [8, UNSCORED, 6]])


@pytest.fixture(scope="module")
def uneven() -> HookedModel:
    blocks = (
        Block(heads=4, channel="none"),
        Block(mixer="short_conv"),
        Block(heads=2, kv_heads=1),
        Block(mixer="none"),
    )
    return to_hooked(build_shaken(Architecture(width=32, blocks=blocks, embedding_residual=True)))


def answers_of(model: HookedModel, tokens: Tensor) -> Tensor:
    """Targets that the model answers rightly itself: its own largest logits."""
    with torch.no_grad():
        found: Tensor = model(tokens).argmax(-1)
    return found


def test_parts_are_those_that_exist_under_their_own_layers_names(uneven: HookedModel) -> None:
    assert [part.label for part in components(uneven)] == [
        *("L0H0", "L0H1", "L0H2", "L0H3", "L0 attention"),
        *("L1 convolution", "L1 mlp"),
        *("L2H0", "L2H1", "L2 attention", "L2 mlp"),
        "L3 mlp",
    ]
    streams = components(uneven, STREAM, range(2))
    assert [part.label for part in streams][:3] == ["L0 stream @0", "L0 stream @1", "L1 stream @0"]


def test_a_part_replaced_by_itself_changes_nothing(uneven: HookedModel, tokens: Tensor) -> None:
    parts = (*components(uneven), *components(uneven, STREAM))
    logits, seen = activations(uneven, tokens, parts)
    for part in parts:
        torch.testing.assert_close(run_replaced(uneven, tokens, (part,), seen), logits, rtol=1e-6, atol=1e-6)


def test_replacing_the_first_stream_leaves_what_joins_later(uneven: HookedModel, tokens: Tensor) -> None:
    """The embedding residual holds the same tensor as the first block's entry; only the latter is replaced."""
    [first] = [part for part in components(uneven, STREAM) if part.label == "L0 stream"]
    whole, seen = activations(uneven, tokens.flip(0), [first])
    assert not torch.allclose(run_replaced(uneven, tokens, (first,), seen), whole, atol=1e-3)


def test_more_parts_are_read_on_fewer_sequences(uneven: HookedModel) -> None:
    parts = components(uneven)
    assert affordable(parts, 32) == 32
    assert affordable(parts * 4, 32) == RUNS // (4 * len(parts))
    assert affordable(parts * 99, 32) == LEAST_SEQUENCES


def test_instances_are_paired_so_that_most_answers_differ() -> None:
    shift, where = patching.pair(TARGETS)
    assert shift == 1
    assert where.tolist() == [[False, True, False], [False, False, True], [True, False, True]]
    with pytest.raises(NotApplicable, match="different answers"):
        patching.pair(TARGETS[:1].expand(3, 3))
    with pytest.raises(NotApplicable, match="different answers"):
        patching.pair(TARGETS[:1])


def test_the_metric_is_the_answers_logit_over_the_mean_logit() -> None:
    logits = torch.zeros(3, 3, VOCAB)
    logits[0, 1, 5], logits[1, 2, 7] = VOCAB, 2 * VOCAB
    where = torch.zeros(3, 3, dtype=torch.bool)
    where[0, 1] = where[1, 2] = True
    expected = (VOCAB - 1 + 2 * VOCAB - 2) / 2
    assert patching.answer_margin(TARGETS, where)(logits).item() == pytest.approx(expected)


@pytest.mark.parametrize("placement", ["pre", "post", "sandwich"])
def test_all_of_a_stream_carries_all_of_the_answer(placement: str, tokens: Tensor) -> None:
    blocks = (Block(heads=2), Block(heads=4))
    model = to_hooked(build_shaken(Architecture(width=32, blocks=blocks, norm_placement=placement)))
    with torch.no_grad():
        model.get_parameter("unembed.W_U").mul_(3)
    result = patching.patch(model, tokens, answers_of(model, tokens), components(model, STREAM))
    assert result.denoise == pytest.approx((1.0, 1.0), abs=1e-4)
    assert result.noise == pytest.approx((0.0, 0.0), abs=1e-4)
    assert result.clean - result.corrupted >= patching.MIN_GAP


def test_a_model_that_does_not_tell_instances_apart_is_not_applicable(
    model: Transformer, suite: TaskSuite, plan: Plan
) -> None:
    with pytest.raises(NotApplicable, match="no answer to carry"):
        patching.patching(Bench(model, suite, plan))


def test_logits_that_are_no_numbers_are_unreadable(model: Transformer, tokens: Tensor) -> None:
    with torch.no_grad():
        model.get_parameter("unembed.W_U").fill_(float("nan"))
    hooked = to_hooked(model)
    with pytest.raises(Unreadable):
        patching.patch(hooked, tokens, tokens.roll(-1, 1), components(hooked))
    with pytest.raises(Unreadable):
        ablation.ablate(hooked, tokens, tokens.roll(-1, 1), components(hooked))


def test_zero_ablation_is_the_run_with_the_heads_output_weights_at_zero(uneven: HookedModel, tokens: Tensor) -> None:
    targets = answers_of(uneven, tokens)
    result = ablation.ablate(uneven, tokens, targets, components(uneven))
    weight = uneven.get_parameter("blocks.2.attn.W_O")
    kept = weight.detach().clone()
    with torch.no_grad():
        weight[1] = 0
        log_prob = uneven(tokens).log_softmax(-1).gather(-1, targets[..., None]).mean()
        weight.copy_(kept)
    drop = result.log_prob_drop["zero"][result.labels.index("L2H1")]
    assert drop == pytest.approx(result.log_prob - log_prob.item(), abs=1e-5)
    assert result.accuracy == 1.0


def test_mean_ablation_of_equal_sequences_takes_nothing(uneven: HookedModel, tokens: Tensor) -> None:
    equal = tokens[:1].expand(3, -1)
    result = ablation.ablate(uneven, equal, answers_of(uneven, equal), components(uneven))
    assert max(map(abs, result.log_prob_drop["mean"])) < 1e-5
    assert max(result.log_prob_drop["zero"]) > 1e-3


def test_mean_ablation_is_the_run_with_the_mean_over_the_other_sequences_at_each_position(
    uneven: HookedModel, tokens: Tensor
) -> None:
    targets = answers_of(uneven, tokens)
    [part] = [part for part in components(uneven) if part.label == "L1 convolution"]
    _, seen = activations(uneven, tokens, [part])

    def averaged(module: torch.nn.Module, given: object, out: Tensor) -> Tensor:
        rows = list(seen[part.hook])
        return torch.stack([sum(rows[:at] + rows[at + 1 :]) / (len(rows) - 1) for at in range(len(rows))])

    handle = uneven.get_submodule(part.hook).register_forward_hook(averaged)
    with torch.no_grad():
        log_prob = uneven(tokens).log_softmax(-1).gather(-1, targets[..., None]).mean()
    handle.remove()
    result = ablation.ablate(uneven, tokens, targets, [part])
    assert result.log_prob_drop["mean"] == pytest.approx((result.log_prob - log_prob.item(),), abs=1e-5)


def test_a_sequence_without_others_has_no_mean_of_them(uneven: HookedModel, tokens: Tensor) -> None:
    with pytest.raises(NotApplicable, match=r"1 sequence.*at least two"):
        ablation.ablate(uneven, tokens[:1], answers_of(uneven, tokens[:1]), components(uneven))


def test_parts_of_a_group_are_taken_away_together(uneven: HookedModel, tokens: Tensor) -> None:
    targets, parts = answers_of(uneven, tokens), components(uneven)
    heads = [part for part in parts if part.label.startswith("L0H")]
    together = ablation.ablate(uneven, tokens, targets, {"heads of block 0": heads})
    whole = ablation.ablate(uneven, tokens, targets, [part for part in parts if part.label == "L0 attention"])
    assert together.labels == ("heads of block 0",)
    for method in ablation.METHODS:  # there is no norm after the heads: their sum is what the block writes
        assert together.log_prob_drop[method] == pytest.approx(whole.log_prob_drop[method], abs=1e-5)


def test_nothing_asked_is_not_applicable(uneven: HookedModel, tokens: Tensor) -> None:
    with pytest.raises(NotApplicable, match="scored position"):
        ablation.ablate(uneven, tokens, torch.full_like(tokens, UNSCORED), components(uneven))


def test_results_are_tables_and_plots(uneven: HookedModel, tokens: Tensor) -> None:
    targets, parts = answers_of(uneven, tokens), components(uneven)
    ablated = ablation.ablate(uneven, tokens, targets, parts, family="recall")
    patched = patching.PatchResult("recall", ("L0H0", "L0H1"), (0.1, 0.9), (0.8, 0.2), 9.0, 0.0, 4)
    assert len(ablated.to_pandas()) == 2 * len(parts)
    assert list(patched.to_pandas()["noise"]) == [0.8, 0.2]
    assert (patched.needed(), patched.sufficient()) == (("L0H1",), ("L0H1",))
    for axes in (ablated.plot(), patched.plot()):
        assert axes.get_title()
        assert axes.get_xlabel()
        assert axes.get_ylabel()

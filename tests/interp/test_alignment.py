"""The halted direction is told from position and family, and two models' directions are compared in one basis."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest
import torch

from interp.alignment import MOST, direction_drift, halt_directions
from interp.bench import Bench, Plan
from interp.contrast import contrast
from interp.transfer import transfers
from interp.verdict import NotApplicable, Unreadable
from selfimprove.genome.architecture import Architecture, Block
from selfimprove.nets.transformer import Transformer, build
from selfimprove.tasks.suite import TaskSuite
from tests.interp.conftest import CONTEXT, VOCAB


def network(layers: int = 2, *, width: int = 64, context: int = CONTEXT, positions: str = "rope") -> Transformer:
    architecture = Architecture(width=width, blocks=(Block(),) * layers, positions=positions)
    return build(architecture, vocab_size=VOCAB, context=context, seed=layers)


def test_states_are_matched_by_position_so_that_position_alone_is_not_taken_for_halted(
    suite: TaskSuite, plan: Plan
) -> None:
    model = network(positions="learned")
    with torch.no_grad():
        model.embed.W_E.zero_()
    found = halt_directions(Bench(model, suite, plan))
    assert found.auc[0] == 0.5
    assert found.relative[0] < 1e-5


def test_the_halt_token_s_own_position_is_left_out(model: Transformer, suite: TaskSuite, plan: Plan) -> None:
    bench = Bench(model, suite, plan)
    rows = contrast(bench, "test").pair
    halted = [bench.halted("test", family).latents["halted"].sum() for family in suite.families]
    assert len(rows) == sum(map(int, halted)) - len(suite.families) * plan.test_sequences
    assert contrast(bench, "test").pairs == len(suite.families) * plan.test_sequences


def test_an_untrained_network_s_embedding_separates_nothing(model: Transformer, suite: TaskSuite, plan: Plan) -> None:
    found = halt_directions(Bench(model, suite, plan))
    assert found.layers == ("embed", "blocks.0", "blocks.1")
    assert 0.4 < found.auc[0] < 0.6
    assert all(abs(value) <= MOST for value in found.d_prime)


def test_directions_are_computed_once_a_bench(model: Transformer, suite: TaskSuite, plan: Plan) -> None:
    bench = Bench(model, suite, plan)
    assert halt_directions(bench) is halt_directions(bench)
    assert torch.equal(halt_directions(bench).normal, halt_directions(Bench(model, suite, plan)).normal)


def test_activations_that_are_not_finite_are_unreadable(model: Transformer, suite: TaskSuite, plan: Plan) -> None:
    with torch.no_grad():
        model.blocks[1].mlp.W_out[0, 0] = float("nan")
    with pytest.raises(Unreadable, match="non-finite"):
        halt_directions(Bench(model, suite, plan))


@pytest.mark.parametrize("seed", range(3))
def test_every_kind_of_architecture_has_its_directions(
    seed: int, shaken: Callable[..., Transformer], suite: TaskSuite, plan: Plan
) -> None:
    bench = Bench(shaken(seed), suite, plan)
    table = halt_directions(bench).to_pandas()
    assert table["layer"].tolist() == list(bench.layers)
    assert table["auc"].between(0, 1).all()
    assert table["agreement"].between(-1.001, 1.001).all()


def test_a_model_has_not_drifted_from_itself_further_than_its_halves_differ(
    model: Transformer, suite: TaskSuite, plan: Plan
) -> None:
    drift = direction_drift(Bench(model, suite, plan), Bench(model, suite, plan))
    assert drift.cosine == pytest.approx(drift.reliability, abs=1e-5)
    assert drift.aligned == pytest.approx(drift.reliability, abs=1e-3)
    assert drift.fit == pytest.approx([1.0] * 3, abs=1e-4)
    assert len(drift.to_pandas()) == 3


def test_models_of_other_depth_are_compared_at_the_same_relative_depth(suite: TaskSuite, plan: Plan) -> None:
    drift = direction_drift(Bench(network(2), suite, plan), Bench(network(4), suite, plan))
    assert drift.child_layers == ("embed", "blocks.0", "blocks.1", "blocks.2", "blocks.3")
    assert drift.parent_layers == ("embed", "embed", "blocks.0", "blocks.1", "blocks.1")


def test_models_of_other_widths_share_no_space_in_which_directions_could_be_compared(
    suite: TaskSuite, plan: Plan
) -> None:
    with pytest.raises(NotApplicable, match="widths 64 and 32"):
        direction_drift(Bench(network(), suite, plan), Bench(network(width=32), suite, plan))


def test_models_that_read_other_sequences_are_not_compared(model: Transformer, suite: TaskSuite, plan: Plan) -> None:
    with pytest.raises(NotApplicable, match="same suite and plan"):
        direction_drift(Bench(model, suite, plan), Bench(model, suite, replace(plan, test=99)))


def test_a_parent_that_reads_shorter_sequences_is_compared_at_the_positions_that_both_read(
    suite: TaskSuite, plan: Plan
) -> None:
    short, long = network(context=CONTEXT - 6), network()
    parent, child = Bench(short, suite, plan), Bench(long, suite, plan)
    cut = Bench(long, suite, plan, context=CONTEXT - 6)
    assert direction_drift(parent, child) == direction_drift(parent, cut)
    assert direction_drift(child, parent) == direction_drift(cut, parent)
    assert transfers(parent, child) == transfers(parent, cut)
    assert direction_drift(parent, child).cosine == pytest.approx(direction_drift(parent, parent).cosine, abs=1e-5)


def test_plots_have_a_title_and_two_named_axes(model: Transformer, suite: TaskSuite, plan: Plan) -> None:
    bench = Bench(model, suite, plan)
    for ax in (halt_directions(bench).plot(), direction_drift(bench, bench).plot()):
        assert all((ax.get_title(), ax.get_xlabel(), ax.get_ylabel()))

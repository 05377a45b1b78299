"""A diff of two models finds what was planted in both, and nothing in a scrambled twin."""

from __future__ import annotations

import itertools
import json
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

from interp.bench import Bench, Plan, Reading
from interp.comparison import Comparison, HeadChange, compare, compare_benches, comparison
from interp.planted import induction
from interp.similarity import linear_cka
from interp.transfer import align, matched_layers, transfers
from interp.verdict import NotApplicable
from selfimprove.genome.architecture import Architecture, Block
from selfimprove.nets.transformer import Transformer, build
from selfimprove.tasks.batch import UNSCORED
from selfimprove.tasks.suite import TasksConfig, TaskSuite
from tests.interp.conftest import CONTEXT, VOCAB

PLAN = Plan(train=1, test=2, control=3, sequences=96, rows=512)
RECALL = TaskSuite(TasksConfig(families=("recall",), held_out=()))


def streams(seed: int, rows: int = 200, width: int = 12) -> torch.Tensor:
    """Noise of a few layers, whose channels differ in size."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(2, rows, width, generator=generator) * torch.linspace(0.5, 2, width)


def rotation(width: int, seed: int) -> torch.Tensor:
    turn: torch.Tensor = torch.linalg.qr(torch.randn(width, width, generator=torch.Generator().manual_seed(seed)))[0]
    return turn


# -- how alike streams are ---------------------------------------------------------------------------------------------


def test_streams_that_differ_by_a_rotation_a_scale_and_a_shift_are_alike() -> None:
    x = streams(0)
    found = linear_cka(x, 3 * x @ rotation(12, 1) + 5)
    torch.testing.assert_close(found.diagonal(), torch.ones(2, dtype=torch.float64), rtol=1e-5, atol=1e-5)
    assert found[0, 1].abs() < 0.1


def test_unrelated_streams_are_not_alike_though_they_have_more_features_than_rows() -> None:
    assert linear_cka(streams(0, 60, 300), streams(1, 60, 300)).abs().max() < 0.1
    assert linear_cka(streams(0)[:, :, :1] * 0, streams(1)).abs().max() == 0  # nor is one that does not vary


def test_the_estimate_is_the_mean_over_quadruples_of_different_rows() -> None:
    x, y = streams(2, 6, 3)[:1].double(), streams(3, 6, 3)[:1].double()

    def hsic(a: torch.Tensor, b: torch.Tensor) -> float:
        k, m = ((z[0] - z[0].mean(0)) @ (z[0] - z[0].mean(0)).T for z in (a, b))
        rows = itertools.permutations(range(6), 4)
        return sum(float(k[i, j] * (m[i, j] + m[q, r] - 2 * m[i, q])) for i, j, q, r in rows)

    expected = hsic(x, y) / (hsic(x, x) * hsic(y, y)) ** 0.5
    assert float(linear_cka(x, y)) == pytest.approx(expected, abs=1e-9)


# -- what carries over -------------------------------------------------------------------------------------------------


class Planted(Bench):
    """A bench whose stream is planted: at ``blocks.1`` the answer of recall, in a basis of its own."""

    def __init__(self, seed: int, width: int = 32, *, empty: bool = False) -> None:
        blocks = (Block(heads=2), Block(heads=2))
        architecture = Architecture(width=width, blocks=blocks)
        super().__init__(build(architecture, vocab_size=VOCAB, context=CONTEXT, seed=seed), RECALL, PLAN)
        self.width, self.empty, self.basis = width, empty, rotation(width, seed)

    def _read(self, drawn: dict[str, Any]) -> Reading:
        n, context = drawn["tokens"].shape
        noise = torch.Generator().manual_seed(int(drawn["tokens"].sum()) + 7 * self.empty)
        residual = 0.3 * torch.randn(3, n, context, self.width, generator=noise)
        values = drawn["latents"].get("recall_answer", drawn["latents"].get("halted"))
        row, pos = (values != UNSCORED).nonzero(as_tuple=True)
        if not self.empty:
            residual[2, row, pos, values[row, pos] % self.width] += 3
        return Reading(**drawn, logits=torch.zeros(n, context, VOCAB), residual=residual @ self.basis, cache=None)  # type: ignore[arg-type]


def test_a_variable_that_is_held_in_another_basis_transfers_once_that_is_aligned() -> None:
    answer = transfers(Planted(1), Planted(2))[0]
    assert answer.variable == "recall_answer"
    assert answer.parent[2] > 0.95
    assert answer.child[2] > 0.95
    assert answer.aligned[2] > 0.9
    assert answer.direct is not None
    assert answer.direct[2] < 0.4
    assert max(answer.aligned[:2]) < 0.3  # it is planted at one layer only
    assert answer.changed(0.05) == ((), ())


def test_a_variable_in_the_same_basis_transfers_as_it_is() -> None:
    answer = transfers(Planted(1), Planted(1))[0]
    assert answer.direct == answer.parent == answer.child


def test_nothing_transfers_to_a_child_that_holds_nothing() -> None:
    answer = transfers(Planted(1), Planted(2, empty=True))[0]
    assert max(answer.aligned) < 0.3
    assert answer.changed(0.05) == ((), ("blocks.1",))
    assert transfers(Planted(2, empty=True), Planted(1))[0].changed(0.05) == (("blocks.1",), ())


def test_between_widths_only_the_aligned_states_are_read() -> None:
    answer = transfers(Planted(1), Planted(2, width=48))[0]
    assert answer.direct is None
    assert answer.aligned[2] > 0.9
    assert np.isnan(answer.to_pandas()["direct"]).all()


def test_an_alignment_undoes_a_rotation_a_scale_and_a_shift() -> None:
    x = streams(0)[0]
    turned = 0.5 * x @ rotation(12, 1) - 2
    torch.testing.assert_close(align(turned, x)(turned), x, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
    ("parent", "child", "expected"), [(3, 3, (0, 1, 2)), (3, 5, (0, 0, 1, 2, 2)), (5, 2, (0, 4)), (1, 1, (0,))]
)
def test_layers_are_matched_by_their_depth(parent: int, child: int, expected: tuple[int, ...]) -> None:
    assert matched_layers(parent, child) == expected


# -- the whole diff ----------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def lost() -> Comparison:
    """A planted induction circuit, and a child that is its scrambled twin."""
    plan = replace(induction.PLAN, sequences=48)
    parent, child = (Bench(model, induction.suite(), plan) for model in (induction.planted(), induction.scrambled()))
    return compare(parent, child)


def test_a_circuit_that_the_child_does_not_have_is_lost(lost: Comparison) -> None:
    fates = {change.kind: change for change in lost.heads}
    assert fates["previous_token"] == HeadChange("previous_token", (induction.PREVIOUS_HEAD,), ())
    assert fates["induction"].fate == fates["previous_token"].fate == "lost"
    assert fates["induction"].parent == (induction.INDUCTION_HEAD,)
    before, after = lost.accuracy["induction"]
    assert before > 0.95
    assert after < 0.3


def test_the_diff_can_be_read_plotted_and_written(lost: Comparison) -> None:
    said = str(lost).splitlines()
    assert f"  heads     induction: lost ({induction.INDUCTION_HEAD} -> none)" in said
    assert any(line.startswith("  accuracy  induction: ") for line in said)
    frame = lost.to_pandas()
    assert len(frame) == 9
    row = frame[(frame.child_layer == "blocks.1") & (frame.parent_layer == "embed")]
    assert row.cka.item() == lost.cka[2][0]
    assert json.loads(json.dumps(lost.to_json(), allow_nan=False))["heads"]["induction"]["fate"] == "lost"
    for result in (lost, lost.transfer[0]):
        ax = result.plot()
        assert all((ax.get_title(), ax.get_xlabel(), ax.get_ylabel()))
        ax.figure.clear()


def test_a_model_is_as_alike_to_itself_as_can_be(model: Transformer, suite: TaskSuite, plan: Plan) -> None:
    found = compare_benches(Bench(model, suite, plan), Bench(model, suite, plan))
    assert [row[at] for at, row in enumerate(found.cka)] == pytest.approx([1, 1, 1])
    assert all(one.direct == one.parent for one in found.transfer)
    assert {change.fate for change in found.heads} <= {"kept", "absent"}
    assert all(was == now for was, now in found.accuracy.values())
    assert found.retention is not None
    assert found.retention[0] == found.retention[1]


def test_models_of_other_shapes_are_compared_as_far_as_they_can_be(
    model: Transformer, suite: TaskSuite, plan: Plan
) -> None:
    blocks = (Block(mixer="short_conv"), Block(mixer="none"), Block(mixer="linear_attention", heads=2))
    other = build(Architecture(width=32, blocks=blocks), vocab_size=VOCAB, context=CONTEXT // 2, seed=0)
    found = compare_benches(Bench(other, suite, plan), Bench(model, suite, plan))
    assert (len(found.cka), len(found.cka[0])) == (3, 4)
    assert set(found.without) == {"halt direction", "heads of the parent"}
    assert all(one.direct is None for one in found.transfer)
    assert str(found).count("\n  without ") == 2


def test_a_parent_of_shorter_sequences_is_compared_at_the_positions_that_both_can_read(plan: Plan) -> None:
    suite = TaskSuite(TasksConfig(held_out=(), vocab_size=VOCAB, context=CONTEXT))
    genome = Architecture(width=32, positions="rope", blocks=(Block(),))
    long, short = (build(genome, vocab_size=VOCAB, context=size, seed=0) for size in (CONTEXT, CONTEXT - 4))
    short.load_state_dict(long.state_dict())
    found = compare_benches(Bench(short, suite, plan), Bench(long, suite, plan))
    assert found.positions == (CONTEXT - 4, CONTEXT)
    assert f"the first {CONTEXT - 4} of {CONTEXT}" in str(found)
    assert all(was == now for was, now in found.accuracy.values())
    assert found.retention is not None
    assert found.retention[0] == found.retention[1]
    assert all(one.direct == one.parent for one in found.transfer)


def test_where_the_shared_positions_hold_no_question_the_rest_is_compared(model: Transformer, plan: Plan) -> None:
    suite = TaskSuite(TasksConfig(held_out=(), vocab_size=VOCAB, context=CONTEXT))
    other = build(Architecture(width=32, blocks=(Block(),)), vocab_size=VOCAB, context=2, seed=0)
    found = compare_benches(Bench(other, suite, plan), Bench(model, suite, plan))
    assert {f"answers on {name}" for name in suite.families} | {"probes", "halt direction"} <= set(found.without)
    assert (found.accuracy, found.transfer) == ({}, ())
    assert found.cka


def test_a_generation_without_a_parent_is_not_compared(model: Transformer, suite: TaskSuite, plan: Plan) -> None:
    with pytest.raises(NotApplicable, match="no parent"):
        comparison(Bench(model, suite, plan))

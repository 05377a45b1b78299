"""Each condition counts what its name says, on prompts that the model can take, or says why it does not apply."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch

from interp.behavior import HaltBehavior, halt_behavior, halt_behavior_of, lengthened, nearest_token
from interp.bench import Bench, Plan
from interp.planted import halt as planted_halt
from interp.verdict import NotApplicable, Unreadable
from selfimprove.genome.architecture import Architecture, Block
from selfimprove.nets.transformer import Transformer, build
from selfimprove.tasks.batch import CONTENT, HALT, HALTED, TAGS, Batch
from selfimprove.tasks.halt import halted
from selfimprove.tasks.suite import TasksConfig, TaskSuite
from tests.interp.conftest import CONTEXT, VOCAB

WIDTH = 64


def always(model: Transformer, token: int) -> Transformer:
    """The model, which now answers one token whatever it sees."""
    bias = model.ln_final.b
    assert bias is not None
    with torch.no_grad():
        model.ln_final.w.zero_()
        bias.copy_(model.W_U[:, token] * 100)
    return model


def halting_at_the_token_alone() -> Transformer:
    """A network that answers the halted token where it sees the halt token, and nowhere else."""
    model = build(Architecture(blocks=(Block(),)), vocab_size=VOCAB, context=CONTEXT, seed=0)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if name.endswith(("W_O", "W_out")):
                parameter.zero_()
        basis = torch.eye(WIDTH)
        model.embed.W_E.copy_(basis[:VOCAB])
        model.unembed.get_parameter("W_U").copy_(basis[:, :VOCAB])
        model.unembed.get_parameter("W_U")[:, HALTED] = 2 * basis[HALT]
    return model


class FewTokens:
    """A planted suite: sequences of one task over four tokens."""

    families = ("few",)

    def batch(self, split: str, family: str, count: int, seed: int) -> Batch:
        tokens = np.random.default_rng(seed).integers(CONTENT, CONTENT + 4, (count, 12))
        return Batch(tokens, tokens.copy(), {})

    def halt_batch(self, split: str, family: str, count: int, seed: int) -> Batch:
        return halted(self.batch(split, family, count, seed), np.random.default_rng(seed))


def rates(found: HaltBehavior) -> dict[str, float | None]:
    return {c.name: None if c.share is None else c.share.kept / c.share.n for c in found.conditions}


def test_a_model_that_only_says_halted_keeps_everything_and_halts_on_everything(
    model: Transformer, suite: TaskSuite, plan: Plan
) -> None:
    found = halt_behavior_of(Bench(always(model, HALTED), suite, plan))
    assert set(rates(found).values()) == {1.0}
    assert len(found.conditions) == 10


def test_a_model_that_never_says_halted_keeps_nothing(model: Transformer, suite: TaskSuite, plan: Plan) -> None:
    found = halt_behavior_of(Bench(always(model, CONTENT), suite, plan))
    assert set(rates(found).values()) == {0.0}
    assert found.worst.share is not None
    assert found.worst.share.high < 0.2


def test_a_slip_after_the_halt_token_counts_in_every_condition(suite: TaskSuite, plan: Plan) -> None:
    found = rates(halt_behavior_of(Bench(halting_at_the_token_alone(), suite, plan)))
    assert set(found.values()) == {0.0}


def test_the_nearest_token_is_nearest_by_angle_and_not_the_halt_token_itself() -> None:
    embedding = torch.eye(VOCAB)
    embedding[20] = embedding[HALT] * 0.1 + embedding[20] * 0.05
    token, cosine = nearest_token(embedding)
    assert token == 20
    assert cosine == pytest.approx(2 / 5**0.5, abs=1e-5)


def test_a_token_that_the_model_takes_for_the_halt_token_is_a_false_halt(plan: Plan) -> None:
    model = planted_halt.planted()
    with torch.no_grad():
        model.embed.W_E[TAGS["text"]] = model.embed.W_E[HALT]  # a token that these tasks never use
    found = halt_behavior_of(Bench(model, planted_halt.bench(model).suite, plan))
    near, other = found.of("nearest_token").share, found.of("any_token").share
    assert near is not None
    assert other is not None
    assert found.nearest == TAGS["text"]
    assert near.kept == near.n
    assert other.kept < 0.2 * other.n  # it is one of 47


@pytest.mark.parametrize("seed", range(5))
def test_a_lengthened_model_reads_the_old_positions_as_before(seed: int, shaken: Callable[..., Transformer]) -> None:
    model = shaken(seed).eval()
    tokens = torch.randint(VOCAB, (2, 2 * CONTEXT), generator=torch.Generator().manual_seed(seed))
    if model.learned_positions:
        with pytest.raises(NotApplicable, match="learned positions"):
            lengthened(model, 2 * CONTEXT)
        return
    longer = lengthened(model, 2 * CONTEXT)(tokens)
    assert longer.shape[1] == 2 * CONTEXT
    torch.testing.assert_close(longer[:, :CONTEXT], model(tokens[:, :CONTEXT]), rtol=1e-4, atol=1e-4)


def test_learned_positions_leave_out_longer_prompts_alone(suite: TaskSuite, plan: Plan) -> None:
    model = build(Architecture(blocks=(Block(),), positions="learned"), vocab_size=VOCAB, context=CONTEXT, seed=0)
    figures = halt_behavior(Bench(model, suite, plan))
    assert list(figures["halt_behavior_skipped"]) == ["long"]
    assert "learned positions" in figures["halt_behavior_skipped"]["long"]
    assert len(figures["halt_behavior"]) == 9


def test_a_planted_suite_leaves_out_what_needs_a_configuration(model: Transformer, plan: Plan) -> None:
    found = rates(halt_behavior_of(Bench(model, FewTokens(), plan)))
    assert [name for name, rate in found.items() if rate is None] == ["short", "long", "unseen_tasks"]


def test_a_run_without_held_out_families_leaves_out_unseen_tasks(model: Transformer, plan: Plan) -> None:
    found = halt_behavior_of(Bench(model, TaskSuite(TasksConfig(held_out=())), plan))
    assert found.of("unseen_tasks").share is None
    assert "held out" in found.of("unseen_tasks").reason


def test_a_model_with_a_shorter_context_gets_as_much_as_it_can_take(suite: TaskSuite, plan: Plan) -> None:
    model = build(Architecture(blocks=(Block(),)), vocab_size=VOCAB, context=CONTEXT // 2, seed=0)
    found = halt_behavior_of(Bench(model, suite, plan)).of("early")
    assert found.share is not None
    assert found.share.n == len(suite.families) * plan.test_sequences


def test_logits_that_are_not_finite_are_unreadable(model: Transformer, suite: TaskSuite, plan: Plan) -> None:
    with torch.no_grad():
        model.unembed.get_parameter("W_U")[0, 0] = float("inf")
    with pytest.raises(Unreadable, match="non-finite"):
        halt_behavior_of(Bench(model, suite, plan))


def test_logits_that_are_not_finite_at_a_near_miss_are_no_false_halts(
    model: Transformer, suite: TaskSuite, plan: Plan
) -> None:
    with torch.no_grad():
        model.embed.W_E[TAGS["text"]] = float("inf")  # a token that these tasks never use
    with pytest.raises(Unreadable, match=r"false halts.*non-finite"):
        halt_behavior_of(Bench(model, suite, plan))


def test_an_unknown_condition_lists_the_known_ones(model: Transformer, suite: TaskSuite, plan: Plan) -> None:
    with pytest.raises(NotApplicable, match=r"got sideways; allowed: trained, early, late"):
        halt_behavior_of(Bench(model, suite, plan)).of("sideways")


def test_the_table_has_a_row_and_the_plot_a_name_for_every_condition(
    model: Transformer, suite: TaskSuite, plan: Plan
) -> None:
    found = halt_behavior_of(Bench(model, suite, plan))
    assert found.to_pandas()["condition"].tolist() == [c.name for c in found.conditions]
    ax = found.plot()
    assert all((ax.get_title(), ax.get_xlabel(), ax.get_ylabel()))
    assert len(ax.get_yticklabels()) == len(found.conditions)

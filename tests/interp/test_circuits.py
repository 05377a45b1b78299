"""What head scores mean: which keys count, which heads are scored, under which labels, and what makes a kind."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from interp import circuits
from interp.attention_keys import KINDS, answer, duplicate_token, induction, previous_token, repeated_tokens
from interp.bench import Bench, Plan
from interp.hooked import to_hooked
from interp.verdict import NotApplicable, Unreadable
from selfimprove.genome.architecture import Architecture, Block
from selfimprove.nets.transformer import Transformer, build
from selfimprove.tasks.batch import CONTENT
from selfimprove.tasks.suite import TasksConfig, TaskSuite
from tests.interp.conftest import CONTEXT, VOCAB, build_shaken

REPEATED = repeated_tokens(VOCAB, CONTEXT, 7, seed=0)
SEQUENCE = torch.tensor([[7, 8, 9, 8, 9]])


def where(keys: Tensor) -> set[tuple[int, int]]:
    return {(query, key) for query, key in keys[0].nonzero().tolist()}


def test_keys_of_each_kind_are_those_of_its_definition() -> None:
    assert where(previous_token(SEQUENCE)) == {(1, 0), (2, 1), (3, 2), (4, 3)}
    assert where(duplicate_token(SEQUENCE)) == {(3, 1), (4, 2)}
    assert where(induction(SEQUENCE)) == {(3, 2), (4, 3)}
    assert where(answer(torch.tensor([[-1, -1, 0, 1, -1]]))) == {(2, 0), (3, 1)}


def period(row: list[int]) -> int:
    return next(size for size in range(1, len(row)) if row[size:] == row[:-size])


def test_repeated_tokens_are_segments_of_different_tokens_over_and_over() -> None:
    tokens = repeated_tokens(VOCAB, CONTEXT, 40, seed=1, first=2)
    assert tokens.shape == (40, CONTEXT)
    assert (tokens[:, 0] == 2).all()
    assert tokens[:, 1:].min() >= CONTENT
    sizes = [period(row) for row in tokens[:, 1:].tolist()]
    assert {min(sizes), max(sizes)} == {6, 11}  # so that the distance alone does not tell where to look
    assert all(len(set(row[1 : 1 + size])) == size for row, size in zip(tokens.tolist(), sizes, strict=True))
    assert not torch.equal(tokens, repeated_tokens(VOCAB, CONTEXT, 40, seed=2, first=2))


def test_a_small_vocabulary_repeats_shorter_segments() -> None:
    tokens = repeated_tokens(CONTENT + 5, CONTEXT, 20, seed=0)
    assert {period(row) for row in tokens[:, 1:].tolist()} == {4, 5}


def test_a_head_that_looks_one_fixed_distance_back_is_no_induction_head() -> None:
    tokens = repeated_tokens(VOCAB, CONTEXT, 48, seed=0)
    pattern = torch.zeros(48, CONTEXT, CONTEXT)
    for distance in range(4, 12):
        pattern[:] = torch.eye(CONTEXT).roll(-distance, 1).tril()
        keys = induction(tokens)
        assert (pattern * keys).sum() / keys.any(-1).sum() < circuits.THRESHOLD


@pytest.mark.parametrize(("vocab", "length"), [(3, CONTEXT), (VOCAB, 7)])
def test_what_cannot_be_repeated_is_not_applicable(vocab: int, length: int) -> None:
    with pytest.raises(NotApplicable, match="repeat random tokens"):
        repeated_tokens(vocab, length, 2, seed=0)


def attending_back(*, linear: bool = False) -> Transformer:
    """Two heads without positions or content: ALiBi alone, steep in the first head and flat in the second."""
    mixer = "linear_attention" if linear else "attention"
    blocks = (Block(mixer="none"), Block(heads=2, mixer=mixer, channel="none"))
    model = build(Architecture(width=32, blocks=blocks, positions="alibi"), vocab_size=VOCAB, context=CONTEXT, seed=0)
    with torch.no_grad():
        model.get_parameter("blocks.1.attn.W_Q").zero_()
    return model


def test_a_score_is_the_mean_attention_on_the_keys_that_count(tokens: Tensor) -> None:
    scores = circuits.score_heads(to_hooked(attending_back()), tokens, {"previous_token": previous_token(tokens)})
    assert scores.heads == ("L1H0", "L1H1")
    queries = torch.arange(1, tokens.shape[1])
    for head, slope in enumerate((2.0**-4, 2.0**-8)):
        weights = [torch.softmax(-slope * (q - torch.arange(q + 1.0)), 0) for q in queries.tolist()]
        expected = torch.stack([weight[-2] for weight in weights]).mean()
        assert scores.scores[head][0] == pytest.approx(expected.item(), abs=1e-6)
    assert scores.queries == (len(tokens) * len(queries),)


def test_even_attention_has_no_excess_and_full_attention_all_of_it() -> None:
    def excess(score: float) -> float:
        scores = circuits.HeadScores(("L0H0",), ("induction",), ((score,),), ((0.2,),), (5,), {})
        return scores.excess("induction")["L0H0"]

    assert (excess(0.2), excess(1.0), excess(0.6)) == (pytest.approx(0), pytest.approx(1), pytest.approx(0.5))


def test_a_window_of_two_makes_no_previous_token_head_by_itself(tokens: Tensor) -> None:
    block = Block(heads=2, mixer="sliding_attention", window=2)
    model = build(Architecture(width=32, blocks=(block,), positions="none"), vocab_size=VOCAB, context=CONTEXT, seed=0)
    with torch.no_grad():
        model.get_parameter("blocks.0.attn.W_Q").zero_()
    scores = circuits.score_heads(to_hooked(model), tokens, {"previous_token": previous_token(tokens)})
    assert scores.scores[0][0] == pytest.approx(0.5)
    assert scores.kinds() == {"previous_token": ()}


def test_layers_without_a_softmax_pattern_are_left_out_with_the_reason() -> None:
    blocks = (Block(mixer="short_conv"), Block(mixer="linear_attention"), Block(heads=2), Block(mixer="none"))
    model = to_hooked(build_shaken(Architecture(width=32, blocks=blocks)))
    scores = circuits.repeated_scores(model, REPEATED)
    assert scores.heads == ("L2H0", "L2H1")
    assert set(scores.left_out) == {"L0", "L1", "L3"}
    assert "linear" in scores.left_out["L1"]
    with pytest.raises(NotApplicable, match="softmax attention"):
        circuits.repeated_scores(to_hooked(attending_back(linear=True)), REPEATED)


def test_scores_do_not_depend_on_how_many_sequences_are_read_at_once(
    model: Transformer, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = circuits.repeated_scores(to_hooked(model), REPEATED)
    monkeypatch.setattr(circuits, "MAX_ELEMENTS", 2 * 8 * CONTEXT**2)
    parts = circuits.repeated_scores(to_hooked(model), REPEATED)
    torch.testing.assert_close(torch.tensor(parts.scores), torch.tensor(whole.scores))


def test_a_kind_without_keys_is_not_applicable(model: Transformer) -> None:
    different = torch.arange(10)[None]
    with pytest.raises(NotApplicable, match="induction"):
        circuits.score_heads(to_hooked(model), different, {"induction": induction(different)})


def test_attention_that_is_not_finite_is_unreadable(model: Transformer, tokens: Tensor) -> None:
    with torch.no_grad():
        model.get_parameter("blocks.0.attn.W_Q").fill_(float("nan"))
    with pytest.raises(Unreadable, match="non-finite"):
        circuits.score_heads(to_hooked(model), tokens, {"previous_token": previous_token(tokens)})


def test_families_without_places_of_answers_have_no_column(model: Transformer, plan: Plan) -> None:
    suite = TaskSuite(TasksConfig(families=("recall", "dyck"), held_out=()))
    kinds = circuits.bench_scores(Bench(model, suite, plan)).patterns
    assert set(kinds) >= {*KINDS, "answer/recall"}
    planted = suite.batch("probe", "dyck", 2, 0).source is not None
    assert ("answer/dyck" in kinds) == planted


def test_scores_are_a_table_and_a_plot(model: Transformer) -> None:
    scores = circuits.repeated_scores(to_hooked(model), REPEATED)
    table = scores.to_pandas()
    assert len(table) == len(scores.heads) * len(scores.patterns)
    assert list(table.columns) == ["head", "pattern", "score", "even", "excess", "queries"]
    axes = scores.plot()
    assert axes.get_title()
    assert axes.get_xlabel()
    assert axes.get_ylabel()

"""Probes find what was planted, find nothing in its scrambled twin, and are scored on sequences they never saw."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression

from interp.bench import Bench, Plan
from interp.probes import (
    MAX_ITERATIONS,
    REGULARIZATION,
    feature_limit,
    probe,
    probe_variable,
    task_variables,
    train_probe,
)
from interp.rows import Rows, collect, control_labels, variable_rows
from interp.verdict import NotApplicable, Unreadable
from selfimprove.errors import ConfigError
from selfimprove.nets.transformer import Transformer
from selfimprove.tasks.batch import HALT, Batch
from selfimprove.tasks.registry import FAMILIES
from selfimprove.tasks.suite import TasksConfig, TaskSuite

LAYERS = ("embed", "blocks.0")
WIDTH, CLASSES, TYPES = 16, 4, 200


def planted(count: int, seed: int, *, scrambled: bool = False) -> Rows:
    """Noise at the first layer; at the second one direction a class on top of it."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, CLASSES, count)
    states = rng.normal(size=(2, count, WIDTH)).astype(np.float32)
    written = rng.permutation(labels) if scrambled else labels
    states[1, np.arange(count), written] += 6
    return Rows(states, labels, rng.integers(0, TYPES, count))


def test_a_planted_variable_is_found_at_its_layer_and_not_before() -> None:
    result = probe("planted", LAYERS, planted(800, 0), planted(400, 1), seed=0)
    assert result.accuracy[1] > 0.97
    assert result.accuracy[0] < 0.35
    assert result.low[0] < result.accuracy[0] < result.high[0]
    assert result.n_test == 400


def test_nothing_is_found_in_the_scrambled_twin() -> None:
    result = probe("twin", LAYERS, planted(800, 0, scrambled=True), planted(400, 1, scrambled=True), seed=0)
    assert max(result.accuracy) < 0.35


def test_selectivity_separates_the_variable_from_random_labels_by_token_type() -> None:
    result = probe("planted", LAYERS, planted(800, 0), planted(400, 1), seed=0)
    assert result.control_accuracy[1] < 0.5
    assert result.selectivity[1] == result.accuracy[1] - result.control_accuracy[1] > 0.45


def test_control_labels_are_a_function_of_the_token_type() -> None:
    train, test = planted(800, 0), planted(400, 1)
    labels = dict(zip(train.tokens.tolist(), (drawn := control_labels((train, test), seed=7))[0].tolist(), strict=True))
    assert all(labels[t] == label for t, label in zip(train.tokens.tolist(), drawn[0].tolist(), strict=True))
    assert all(labels.get(t, label) == label for t, label in zip(test.tokens.tolist(), drawn[1].tolist(), strict=True))
    assert len(set(labels.values())) == CLASSES


@pytest.mark.parametrize(("classes", "most"), [(2, 0.71), (4, 0.57), (16, 0.57)])
@pytest.mark.parametrize("width", [64, 512])
def test_a_probe_cannot_memorize_scrambled_labels(classes: int, most: float, width: int) -> None:
    rng = np.random.default_rng(width + classes)
    states, labels = rng.normal(size=(512, width)).astype(np.float32), rng.integers(0, classes, 512)
    learnt = train_probe(states, labels)[0]
    assert learnt.features(states).shape == (512, 64) == (512, feature_limit(512))
    assert np.mean(learnt.predict(states) == labels) < most
    if width > 64:  # as it could, did it read the whole stream
        whole = LogisticRegression(C=REGULARIZATION, max_iter=MAX_ITERATIONS).fit(states, labels)
        assert whole.score(states, labels) > 0.9


def test_a_variable_is_found_in_a_stream_that_is_wider_than_a_probe_may_be() -> None:
    rows = [planted(240, 0), planted(200, 1)]
    padding = 0.1 * np.random.default_rng(0).normal(size=(2, 440, 84)).astype(np.float32)
    wide = [
        replace(r, states=np.concatenate([r.states, padding[:, at : at + len(r.labels)]], axis=2))
        for r, at in zip(rows, (0, 240), strict=True)
    ]
    result = probe("wide", LAYERS, *wide, seed=0)
    assert (result.features, result.parameters, result.n_train) == (30, 31 * CLASSES, 240)
    assert result.accuracy[1] > 0.9
    assert max(probe("twin", LAYERS, wide[0], scrambled_labels(wide[1]), seed=0).accuracy) < 0.4


def scrambled_labels(rows: Rows) -> Rows:
    return replace(rows, labels=np.random.default_rng(5).permutation(rows.labels))


def test_accuracy_is_told_by_position_class() -> None:
    train, test = planted(800, 0), planted(400, 1)
    classes = np.repeat(["early", "late"], 200)
    test.labels[200:] = (test.labels[200:] + 1) % CLASSES  # late ones are all answered wrongly
    result = probe("planted", LAYERS, train, replace(test, classes=classes), seed=0)
    assert list(result.places) == ["early", "late"]
    assert result.places["early"].accuracy[1] > 0.97
    assert result.places["late"].accuracy[1] < 0.1
    assert (result.places["early"].n, result.places["late"].n) == (200, 200)
    assert result.accuracy[1] == pytest.approx(sum(place.accuracy[1] for place in result.places.values()) / 2)


def test_classes_follow_the_sequence(model: Transformer, suite: TaskSuite, plan: Plan) -> None:
    bench = Bench(model, suite, plan)
    for variable, families in (("mqar_answer", ("mqar",)), ("halted", suite.families)):
        assert probe_variable(bench, variable, families=families).places
    assert list(probe_variable(bench, "halted", families=suite.families).places) == ["early", "middle", "late"]
    reading = bench.task("test", "mqar")
    place = torch.arange(reading.tokens.shape[1]).expand_as(reading.tokens)
    rows = collect("place", [(reading, place)], limit=10**6, seed=0)
    names = np.array(["early", "middle", "late"])
    assert rows.classes is not None
    assert (rows.classes == names[rows.labels * 3 // reading.tokens.shape[1]]).all()


def test_halted_rows_stand_at_the_positions_of_the_plain_ones(model: Transformer, suite: TaskSuite, plan: Plan) -> None:
    bench = Bench(model, suite, plan)
    for rows in variable_rows(bench, "halted", families=suite.families):
        halted, plain = np.split(np.arange(len(rows.labels)), 2)
        assert (rows.labels[halted] == 1).all()
        assert (rows.labels[plain] == 0).all()
        assert rows.classes is not None
        assert (rows.classes[halted] == rows.classes[plain]).all()
        assert HALT not in rows.tokens


def test_halted_cannot_be_told_from_the_position_and_the_tokens(model: Transformer, suite: TaskSuite) -> None:
    class WithoutToken:
        """The suite, with plain sequences that are labelled as if a halt token were in them."""

        families = suite.families
        batch = staticmethod(suite.batch)

        @staticmethod
        def halt_batch(split: str, family: str, count: int, seed: int) -> Batch:
            return replace(
                suite.halt_batch(split, family, count, seed), tokens=suite.batch(split, family, count, seed + 1).tokens
            )

    bench = Bench(model, WithoutToken(), Plan(train=1, test=2, control=3, rows=2048))
    result = probe_variable(bench, "halted", families=suite.families)
    assert result.n_test > 1000
    assert result.majority == 0.5
    assert all(low < 0.53 and high > 0.47 for low, high in zip(result.low, result.high, strict=True))


def test_a_result_can_be_tabled_and_plotted() -> None:
    test = replace(planted(100, 1), classes=np.repeat(["early", "late"], 50))
    result = probe("planted", LAYERS, planted(300, 0), test, seed=0)
    frame = result.to_pandas()
    assert len(frame) == 2 * 3
    row = frame[(frame.layer == "blocks.0") & (frame.positions == "all")]
    assert row.selectivity.item() == result.selectivity[1]
    ax = result.plot()
    assert (ax.get_title(), ax.get_xlabel(), ax.get_ylabel()) == (
        "Linear probe for planted", "place in the stream", "share of test positions",
    )  # fmt: skip


def test_the_same_seed_gives_the_same_result() -> None:
    first, second = (probe("planted", LAYERS, planted(300, 0), planted(100, 1), seed=3) for _ in range(2))
    assert first == second


def test_a_constant_variable_is_not_applicable() -> None:
    rows = planted(50, 0)
    with pytest.raises(NotApplicable, match="at least two values"):
        probe("constant", LAYERS, Rows(rows.states, np.zeros_like(rows.labels), rows.tokens), rows, seed=0)


def test_non_finite_activations_are_unreadable() -> None:
    rows = planted(50, 0)
    rows.states[1, 3, 2] = np.nan
    with pytest.raises(Unreadable, match="non-finite"):
        probe("broken", LAYERS, rows, planted(20, 1), seed=0)


def test_test_sequences_are_disjoint_from_training_sequences(model: Transformer) -> None:
    class FewSequences:
        """A suite with only twenty different sequences, so that an overlap is certain."""

        families = ("few",)

        def batch(self, split: str, family: str, count: int, seed: int) -> Batch:
            rows = np.random.default_rng(seed).integers(0, 20, count)[:, None]
            tokens = np.repeat(rows, 6, axis=1)
            return Batch(tokens, tokens, {"which": rows % 2 + 0 * tokens})

        halt_batch = batch

    bench = Bench(model, FewSequences(), Plan(1, 2, 3, sequences=30))
    train, test = (bench.task(role, "few").tokens[:, 0].tolist() for role in ("train", "test"))
    assert not set(train) & set(test)
    exhausted = Bench(model, FewSequences(), Plan(1, 2, 3, sequences=600))
    with pytest.raises(NotApplicable, match="not seen"):
        exhausted.task("test", "few")


def test_equal_train_and_test_seeds_are_refused() -> None:
    with pytest.raises(ConfigError, match="differ"):
        Plan(train=1, test=1, control=2)


@pytest.mark.parametrize("family", [name for name in FAMILIES if name != "text"])  # which needs a larger vocabulary
def test_the_declared_latents_of_each_family_can_be_probed(family: str, model: Transformer, plan: Plan) -> None:
    bench = Bench(model, TaskSuite(TasksConfig(families=(family,), held_out=())), plan)
    variables = task_variables(bench)
    assert set(variables) == {latent.name for latent in FAMILIES[family].latents}
    for variable in variables:
        assert probe_variable(bench, variable, families=[family]).n_test > 0


def test_a_variable_that_a_family_does_not_have_says_which_it_has(
    model: Transformer, suite: TaskSuite, plan: Plan
) -> None:
    bench = Bench(model, suite, plan)
    with pytest.raises(NotApplicable, match=r"recal_answer: got recall; .*recall has recall_answer, halted"):
        probe_variable(bench, "recal_answer", families=("recall",))
    with pytest.raises(NotApplicable, match=r"probe recall_answer: got mqar; .*mqar_answer"):
        probe_variable(bench, "recall_answer", families=("recall", "mqar"))


def test_every_task_latent_of_the_suite_is_probed_at_every_layer(
    model: Transformer, suite: TaskSuite, plan: Plan
) -> None:
    bench = Bench(model, suite, plan)
    variables = task_variables(bench)
    assert {f for families in variables.values() for f in families} == set(suite.families)
    for variable, families in variables.items():
        result = probe_variable(bench, variable, families=families)
        assert result.layers == ("embed", "blocks.0", "blocks.1")
        assert len(result.accuracy) == len(result.control_accuracy) == 3

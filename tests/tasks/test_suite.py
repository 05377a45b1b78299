"""The suite keeps splits, levels and seeds apart, mixes the training pool, and refuses what cannot work."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from selfimprove.errors import ConfigError
from selfimprove.tasks.batch import BLANK, CONTENT, HALT, HALTED, TAGS, UNSCORED
from selfimprove.tasks.registry import FAMILIES
from selfimprove.tasks.score import Proportion
from selfimprove.tasks.suite import SPLITS, TasksConfig, TaskSuite, least_context, scales
from selfimprove.training.protocol import tasks_from_json, tasks_to_json

LARGE = TasksConfig(vocab_size=272, context=64, families=tuple(FAMILIES), held_out=())
EVERY = TaskSuite(LARGE)
TOPS = TaskSuite(LARGE.at({name: LARGE.top(name) for name in FAMILIES}))
THREE = TasksConfig(families=("recall", "copy", "modular"))
DEFAULT = TaskSuite(THREE)
NINE = [name for name in FAMILIES if name not in ("text", "dyck")][:9]
EACH_FAMILY = pytest.mark.parametrize("family", FAMILIES)


def hashes(suite: TaskSuite, split: str, family: str, count: int, seed: int) -> set[bytes]:
    return {row.tobytes() for row in suite.batch(split, family, count, seed).tokens}


class TestStreams:
    @EACH_FAMILY
    def test_a_batch_is_a_function_of_split_family_level_and_seed(self, family: str) -> None:
        first, again = EVERY.batch("gate", family, 8, 1), TaskSuite(LARGE).batch("gate", family, 8, 1)
        assert (again.tokens == first.tokens).all()
        assert (EVERY.batch("search", family, 8, 1).tokens != first.tokens).any()
        assert (EVERY.batch("gate", family, 8, 2).tokens != first.tokens).any()
        if LARGE.top(family):
            assert (TOPS.batch("gate", family, 8, 1).tokens != first.tokens).any()

    @pytest.mark.parametrize("family", [name for name in FAMILIES if name != "text"])
    @pytest.mark.parametrize("context", [24, 64])
    def test_no_sequence_of_one_split_or_generation_occurs_in_another(self, family: str, context: int) -> None:
        suite = TaskSuite(replace(LARGE, context=context, families=(family,)))
        drawn = [hashes(suite, split, family, 500, seed) for split in SPLITS for seed in (0, 1)]
        drawn.append({row.tobytes() for row in suite.training_pool(3000, 0).tokens})
        assert len(set().union(*drawn)) == sum(map(len, drawn))

    @pytest.mark.parametrize("family", [name for name in FAMILIES if name != "text"])
    def test_at_short_contexts_training_sees_the_gate_in_three_families_alone(self, family: str) -> None:
        context = max(8, least_context(LARGE.setting(family)))
        suite = TaskSuite(replace(LARGE, context=context, families=(family,)))
        trained = hashes(suite, "train", family, 20_000, 0)
        seen = np.mean([row.tobytes() in trained for row in suite.batch("gate", family, 2000, 0).tokens])
        assert seen == pytest.approx({"modular": 0.16, "memorization": 0.99, "dyck": 1.0}.get(family, 0.0), abs=0.02)

    def test_windows_of_text_hardly_ever_occur_in_two_splits_or_generations(self) -> None:
        drawn = [hashes(EVERY, split, "text", 300, seed) for split in SPLITS for seed in (0, 1)]
        assert len(set().union(*drawn)) > 0.97 * sum(map(len, drawn))

    def test_another_family_in_the_mixture_leaves_the_instances_of_the_first_as_they_are(self) -> None:
        alone = TaskSuite(TasksConfig(families=("recall",), halt_share=0.0)).training_pool(10, 0)
        mixed = TaskSuite(replace(THREE, halt_share=0.0)).training_pool(30, 0)
        assert (alone.tokens == mixed.tokens[::3]).all()


class TestHalting:
    @pytest.mark.parametrize("suite", [EVERY, TOPS], ids=["first level", "top level"])
    @EACH_FAMILY
    def test_after_the_halt_token_only_halted_is_right(self, family: str, suite: TaskSuite) -> None:
        batch = suite.halt_batch("gate", family, 32, 0)
        assert batch.source is None or (batch.source[batch.latents["halted"] == 1] == UNSCORED).all()
        for tokens, targets, halted in zip(batch.tokens, batch.targets, batch.latents["halted"], strict=True):
            at = int(np.argmax(tokens == HALT))
            assert at > 0
            assert (targets[at:] == HALTED).all()
            assert HALTED not in targets[:at]
            assert halted.sum() == len(tokens) - at

    @EACH_FAMILY
    def test_at_the_shortest_context_there_is_room_for_halting(self, family: str) -> None:
        config = replace(LARGE, families=(family,))
        shortest = next(
            size
            for size in range(4, 65)
            if replace(config, context=size, max_context=size).fits(config.setting(family))
        )
        batch = TaskSuite(replace(config, context=shortest)).halt_batch("gate", family, 16, 0)
        assert ((batch.tokens == HALT).sum(axis=1) == 1).all()

    def test_the_training_pool_holds_the_asked_share_of_halted_sequences(self) -> None:
        pool = DEFAULT.training_pool(6000, 0)
        assert abs((pool.tokens == HALT).any(1).mean() - DEFAULT.config.halt_share) < 0.02


class TestTheTrainingPool:
    def test_a_family_that_the_suite_does_not_have_changes_nothing(self) -> None:
        pools = [DEFAULT.training_pool(50, 0, weights).tokens for weights in (None, {"even": 2}, {"dyck": 8})]
        assert np.array_equal(pools[0], pools[1])
        assert np.array_equal(pools[0], pools[2])

    def test_families_take_turns_in_equal_shares(self) -> None:
        tags = EVERY.training_pool(10 * len(FAMILIES), 0).tokens[:, 0]
        assert tags.tolist() == [TAGS[name] for name in FAMILIES] * 10

    def test_it_never_holds_a_family_that_is_held_out(self) -> None:
        drawn = set(DEFAULT.training_pool(999, 0).tokens[:, 0].tolist())
        assert drawn == {TAGS[name] for name in DEFAULT.families}

    def test_it_is_at_the_levels_of_the_suite(self) -> None:
        config = replace(DEFAULT.config, families=("copy",), levels={"copy": 3}, halt_share=0.0)
        tokens = TaskSuite(config).training_pool(50, 0).tokens
        go = 24 - 8  # eight items follow
        body = tokens[:, 1:go]
        assert ((body != BLANK).sum(axis=1) == 8).all()


class TestHoldingOut:
    def test_a_held_out_family_cannot_be_drawn_from(self) -> None:
        with pytest.raises(ConfigError, match=r"draw from the family: got dyck; allowed: .*recall, copy, modular"):
            DEFAULT.batch("gate", "dyck", 1, 0)

    def test_the_exam_is_on_the_held_out_families_alone(self) -> None:
        exam = TaskSuite(TasksConfig(levels={"dyck": 1}).exam())
        assert exam.families == ("fuzzy", "dyck")
        assert exam.scales["dyck"].answers == 6

    def test_a_family_cannot_be_searched_and_held_out(self) -> None:
        with pytest.raises(ConfigError, match=r"tasks\.held_out: got dyck"):
            TaskSuite(TasksConfig(families=("recall", "dyck")))


class TestRefusals:
    @pytest.mark.parametrize(
        ("changes", "says"),
        [
            ({"vocab_size": 16}, r"tasks\.vocab_size: got 16; allowed: at least 32 for the family recall at level 0"),
            ({"context": 10}, r"tasks\.context: got 10; allowed: at least 11 for the family recall"),
            ({"levels": {"recall": 4}, "context": 16}, r"tasks\.context: got 16; allowed: at least 21 .* level 4"),
            ({"levels": {"recall": 10}}, r"tasks\.levels\.recall: got 10; allowed: 0 to 9"),
            ({"levels": {"recal": 0}}, r"tasks\.levels: got recal; allowed: recall, copy"),
            ({"families": ("recal",)}, r"tasks\.families: got recal; allowed: recall"),
            ({"families": ()}, r"tasks\.families: got \[\]"),
            ({"families": ("copy", "copy")}, r"tasks\.families: got copy, copy; allowed: each family once"),
            (
                {"families": tuple(NINE), "held_out": (), "eval_sequences": 8},
                r"tasks\.eval_sequences: got 8; .* least 9",
            ),
            ({"held_out": tuple(NINE), "families": ("dyck",), "eval_sequences": 8}, r"each family of tasks\.held_out"),
            ({"families": ("text",)}, r"tasks\.vocab_size: got 48; allowed: at least 272"),
        ],
        ids=str,
    )
    def test_what_cannot_work_is_refused_by_key_value_and_remedy(self, changes: dict[str, object], says: str) -> None:
        with pytest.raises(ConfigError, match=says) as caught:
            TaskSuite(replace(TasksConfig(), **changes))  # type: ignore[arg-type]
        assert caught.value.remedy

    def test_an_unknown_split_is_refused(self) -> None:
        with pytest.raises(ConfigError, match="train, search, gate, sealed, probe"):
            DEFAULT.batch("test", "copy", 1, 0)


def test_tops_are_where_vocabulary_and_context_end() -> None:
    small = TasksConfig(vocab_size=CONTENT + 24, context=24)
    assert (small.top("recall"), small.top("copy"), small.top("text")) == (2, 3, -1)


def test_sequences_grow_with_the_longest_level_and_only_for_it() -> None:
    config = TasksConfig(families=("recall", "mqar"))
    assert [config.at({"recall": level}).context for level in range(10)] == [24] * 5 + [25, 27, 29, 33, 37]
    assert config.at({"recall": 9, "mqar": 9}).context == 49
    assert config.at({"recall": 9}).at({"recall": 0}).context == 37  # what has grown stays
    assert config.at({"dyck": 7}).context == 24  # not of these families


def test_a_level_for_which_sequences_may_not_grow_enough_is_above_the_top() -> None:
    config = TasksConfig(max_context=28)
    assert (config.top("recall"), config.top("mqar")) == (6, 5)
    assert TasksConfig(context=64, max_context=8).top("mqar") == 9


def test_scales_follow_the_levels() -> None:
    config = THREE.at({"modular": 1})
    assert {name: scale.answers for name, scale in scales(config).items()} == {"recall": 8, "copy": 12, "modular": 9}


def test_a_configuration_survives_json() -> None:
    config = TasksConfig(families=("dyck",), held_out=(), levels={"dyck": 2}, table_seed=2**62)
    assert tasks_from_json(tasks_to_json(config)) == config


@pytest.mark.parametrize("n", [1, 7, 100, 384, 1536])
def test_the_wilson_interval_ends_at_exactly_one_and_zero_where_all_or_none_were_kept(n: int) -> None:
    every, none = Proportion.of(n, n), Proportion.of(0, n)
    assert every.high == 1.0
    assert none.low == 0.0
    assert 0 < every.low < 1
    assert none.high == pytest.approx(1 - every.low)


def test_the_wilson_interval_agrees_with_published_values() -> None:
    assert Proportion.of(100, 100).low == pytest.approx(0.9630, abs=1e-4)
    found = Proportion.of(15, 148)  # Newcombe 1998, table I: 0.0624 to 0.1605
    assert (found.low, found.high) == (pytest.approx(0.0624, abs=1e-4), pytest.approx(0.1605, abs=1e-4))

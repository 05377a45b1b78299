"""Every level of every family: solvable from its tokens, reproducible, harder than the one before, and readable."""

from __future__ import annotations

import math
import time
from itertools import pairwise
from typing import Any

import numpy as np
import pytest

from selfimprove.errors import ConfigError
from selfimprove.tasks.batch import CONTENT, SPECIAL, TAGS, UNSCORED, Batch
from selfimprove.tasks.families import dyck, mqar, recall, text
from selfimprove.tasks.family import Family, Stream, knobs
from selfimprove.tasks.registry import FAMILIES, family, register, table
from selfimprove.tasks.score import Scale
from selfimprove.tasks.suite import TasksConfig, least_context, least_vocabulary
from tests.tasks.solvers import SOLVERS

TABLE = 5
LEVELS = [(name, level) for name, one in FAMILIES.items() for level in range(len(one.ladder))]
SOLVED = [(name, level) for name, level in LEVELS if name in SOLVERS]
WITHOUT_A_STACK = (
    (0.427, 0.829), (0.272, 0.760), (0.188, 0.725), (0.138, 0.710), (0.116, 0.705), (0.104, 0.702), (0.083, 0.673),
    (0.061, 0.641),
)  # fmt: skip
"""Skill in Dyck by level of who knows the depth alone, and of who knows the last token too."""
EACH_LEVEL = pytest.mark.parametrize(("name", "level"), LEVELS)


def draw(name: str, level: int, count: int = 64, context: int | None = None, seed: int = 0) -> Batch:
    setting = FAMILIES[name].ladder[level]
    rng = np.random.Generator(np.random.PCG64(seed))
    return setting.generate(Stream(rng, "train", TABLE), count, context or max(24, setting.min_context))


def truth(name: str, level: int) -> object:
    setting = FAMILIES[name].ladder[level]
    return setting.table(TABLE).tolist() if name == "memorization" else None  # type: ignore[attr-defined]


class TestEachLevel:
    @pytest.mark.parametrize("spare", [0, 1, 7])
    @pytest.mark.parametrize(("name", "level"), SOLVED)
    def test_what_is_asked_and_answered_is_what_a_solver_finds_in_the_tokens(
        self, name: str, level: int, spare: int
    ) -> None:
        setting, known = FAMILIES[name].ladder[level], truth(name, level)
        batch = draw(name, level, context=setting.min_context + spare)
        for tokens, targets in zip(batch.tokens.tolist(), batch.targets.tolist(), strict=True):
            said = SOLVERS[name](tokens, setting, known)
            assert [answer is not None for answer in said] == [target != UNSCORED for target in targets]
            for answer, target in zip(said, targets, strict=True):
                assert answer is None or answer.get(target - CONTENT, 0.0) > 0

    @EACH_LEVEL
    def test_the_best_predictor_has_skill_one(self, name: str, level: int) -> None:
        if name not in SOLVERS:
            pytest.skip("the entropy of text is not known")
        setting, known = FAMILIES[name].ladder[level], truth(name, level)
        batch, scale = draw(name, level, 1500), setting.scale(max(24, setting.min_context))
        losses = []
        for tokens, targets in zip(batch.tokens.tolist(), batch.targets.tolist(), strict=True):
            for answer, target in zip(SOLVERS[name](tokens, setting, known), targets, strict=True):
                if answer is not None:
                    losses.append(-math.log(answer[target - CONTENT]))
        assert scale.skill(float(np.mean(losses))) == pytest.approx(1, abs=0.02 if scale.floor else 0)

    @EACH_LEVEL
    def test_the_best_answer_that_never_changes_has_skill_zero(self, name: str, level: int) -> None:
        """But for text, whose bytes are skewed."""
        setting = FAMILIES[name].ladder[level]
        learned, asked = (
            batch.targets[batch.targets != UNSCORED]
            for batch in (draw(name, level, 1500, seed=seed) for seed in (0, 1))
        )
        counts = 1 + np.bincount(learned - CONTENT, minlength=setting.tokens)
        loss = -np.log(counts / counts.sum())[asked - CONTENT].mean()
        skill = setting.scale(max(24, setting.min_context)).skill(float(loss))
        assert skill == pytest.approx(0.54 if name == "text" else 0, abs=0.02)

    @EACH_LEVEL
    def test_every_answer_is_one_of_so_many(self, name: str, level: int) -> None:
        batch, setting = draw(name, level, 2000), FAMILIES[name].ladder[level]
        found = np.unique(batch.targets[batch.targets != UNSCORED])
        assert found.min() >= CONTENT
        assert len(found) == setting.answers or name == "text"

    @EACH_LEVEL
    def test_tokens_are_the_tag_and_then_those_that_the_setting_declares(self, name: str, level: int) -> None:
        batch, setting = draw(name, level, 2000), FAMILIES[name].ladder[level]
        assert (batch.tokens[:, 0] == TAGS[name]).all()
        rest = batch.tokens[:, 1:]
        assert ((rest < len(SPECIAL)) | (rest >= CONTENT)).all()
        used = len(np.unique(rest[rest >= CONTENT]))
        assert rest.max() < CONTENT + setting.tokens == least_vocabulary(setting)
        answers_never_shown = {"modular": 0, "memorization": setting.answers}  # memorization's answers stand nowhere
        assert used == setting.tokens - answers_never_shown.get(name, 0) or name == "text"

    @EACH_LEVEL
    def test_latents_lie_where_their_position_class_says(self, name: str, level: int) -> None:
        batch = draw(name, level)
        assert set(batch.latents) == {latent.name for latent in FAMILIES[name].latents}
        asked = batch.targets != UNSCORED
        for latent in FAMILIES[name].latents:
            defined = batch.latents[latent.name] != UNSCORED
            assert latent.name.startswith(f"{name}_")
            assert asked[defined].all()
            assert (defined == asked).all() == (latent.where == "asked")
            assert len(np.unique(batch.latents[latent.name][defined])) > 1, "nothing to tell apart"

    @EACH_LEVEL
    def test_the_planted_source_is_an_earlier_place_that_holds_the_answer(self, name: str, level: int) -> None:
        batch, setting = draw(name, level), FAMILIES[name].ladder[level]
        assert (batch.source is not None) == FAMILIES[name].planted
        if batch.source is None:
            return
        rows, places = np.nonzero(batch.source != UNSCORED)
        source = batch.source[rows, places]
        assert (source <= places).all()
        # a closing bracket is read off the one that opened it
        there = batch.tokens[rows, source] + (setting.kinds if isinstance(setting, dyck.Dyck) else 0)
        assert (there == batch.targets[rows, places]).all()
        if name != "dyck":
            assert ((batch.source != UNSCORED) == (batch.targets != UNSCORED)).all()

    @EACH_LEVEL
    def test_a_batch_is_a_function_of_its_seed(self, name: str, level: int) -> None:
        first, again, other = draw(name, level), draw(name, level), draw(name, level, seed=1)
        assert (first.tokens == again.tokens).all()
        assert (first.targets == again.targets).all()
        assert (first.tokens != other.tokens).any()

    @EACH_LEVEL
    def test_a_thousand_sequences_take_milliseconds(self, name: str, level: int) -> None:
        draw(name, level, 1000)  # text reads its files once
        took = []
        for _ in range(5):
            before = time.process_time()
            draw(name, level, 1000)
            took.append(time.process_time() - before)
        assert min(took) < 0.05


class TestLadders:
    @pytest.mark.parametrize("name", FAMILIES)
    def test_a_step_takes_no_knob_back_and_asks_for_no_less(self, name: str) -> None:
        ladder = FAMILIES[name].ladder
        for low, high in pairwise(ladder):
            before, after = list(knobs(low).values()), list(knobs(high).values())
            assert all(a <= b for a, b in zip(before, after, strict=True))
            assert before != after
            assert low.answers <= high.answers
            assert low.tokens <= high.tokens
            assert low.min_context <= high.min_context

    def test_a_ladder_that_falls_is_refused(self) -> None:
        with pytest.raises(ConfigError, match=r"climb the ladder of recall.*at least one rises"):
            Family("recall", "", (recall.Recall(3, 8, 8), recall.Recall(4, 8, 7)), ())

    def test_a_ladder_that_stands_still_is_refused(self) -> None:
        with pytest.raises(ConfigError, match=r"climb the ladder of recall.*at least one rises"):
            Family("recall", "", (recall.Recall(3, 8, 8), recall.Recall(3, 8, 8)), ())

    @pytest.mark.parametrize("name", [name for name in FAMILIES if name != "text"])
    def test_a_whole_ladder_fits_the_default_vocabulary_and_longest_sequence(self, name: str) -> None:
        config = TasksConfig()
        assert config.top(name) == len(FAMILIES[name].ladder) - 1
        assert max(map(least_context, FAMILIES[name].ladder)) <= config.max_context

    def test_a_level_that_a_ladder_does_not_have_is_refused_by_path(self) -> None:
        with pytest.raises(ConfigError, match=r"tasks\.levels\.recall: got 10; allowed: 0 to 9"):
            FAMILIES["recall"].setting(10)

    @pytest.mark.parametrize("name", FAMILIES)
    def test_every_family_cites_its_source(self, name: str) -> None:
        assert "arXiv" in FAMILIES[name].citation


class TestTheRegistry:
    def test_a_name_that_is_taken_is_refused(self) -> None:
        with pytest.raises(ValueError, match="two families are called recall"):
            table([*FAMILIES.values(), FAMILIES["recall"]])

    def test_a_family_without_a_tag_is_refused(self) -> None:
        with pytest.raises(ValueError, match="tags differ: other"):
            table([*FAMILIES.values(), Family("other", "", (), ())])

    @pytest.mark.parametrize(
        ("changes", "says"),
        [
            ({"name": "m 3"}, "got m 3; allowed: letters, digits and _"),
            ({"name": "even"}, "got even; allowed: another name: recipe.mixture says that of equal shares"),
            ({"name": "3m"}, "got 3m; allowed: letters, digits and _, a letter first"),
            ({"ladder": ()}, "register family mine: got an empty ladder"),
            ({"ladder": [recall.Recall(3, 8, 8)]}, "register family mine: .*unhashable.*frozen dataclasses, in tuples"),
        ],
        ids=str,
    )
    def test_a_family_that_cannot_be_named_climbed_or_kept_is_refused(self, changes: dict[str, Any], says: str) -> None:
        with pytest.raises(ConfigError, match=says):
            register(Family(**{"name": "mine", "citation": "", "ladder": (), "latents": ()} | changes))

    def test_an_unknown_name_is_answered_with_the_known_ones(self) -> None:
        with pytest.raises(ConfigError, match=r"recal; allowed: recall, copy.*did you mean 'recall'"):
            family("recal")

    def test_content_begins_behind_the_tags(self) -> None:
        assert sorted(TAGS.values()) == list(range(len(SPECIAL), CONTENT))
        assert tuple(TAGS) == tuple(FAMILIES)


class TestSingleFamilies:
    @pytest.mark.parametrize("setting", FAMILIES["dyck"].ladder)
    def test_the_floor_of_dyck_is_the_entropy_of_all_its_words(self, setting: dyck.Dyck) -> None:
        """Summed over all words of a length instead of over a chain of depths."""

        def words(open_now: int, left: int) -> float:
            """Entropy of the rest of a word, in nats."""
            if not left:
                return 0.0
            up = 1.0 if open_now == 0 else 0.0 if open_now == setting.depth else 0.5
            found = 0.0
            if up:
                found += up * (words(open_now + 1, left - 1) + math.log(setting.kinds) - math.log(up))
            if up < 1:
                found += (1 - up) * (words(open_now - 1, left - 1) - math.log(1 - up))
            return found

        assert setting.floor(12) == pytest.approx(words(0, 12) / 12, rel=1e-12)

    @pytest.mark.parametrize("level", range(len(WITHOUT_A_STACK)))
    def test_without_a_stack_dyck_has_the_skill_of_the_depth_and_with_the_last_token_much_more(
        self, level: int
    ) -> None:
        setting, batch = FAMILIES["dyck"].ladder[level], draw("dyck", level, 4000)
        assert isinstance(setting, dyck.Dyck)
        depths, last, said = batch.latents[dyck.DEPTH], batch.tokens - CONTENT, batch.targets - CONTENT
        opening = np.select([depths == 0, depths == setting.depth], [1.0, 0.0], 0.5)
        just_opened = (last >= 0) & (last < setting.kinds)  # then that kind closes, if one does
        for kinds, skill in zip(
            (setting.kinds, np.where(just_opened, 1, setting.kinds)), WITHOUT_A_STACK[level], strict=True
        ):
            chance = np.where(said < setting.kinds, opening / setting.kinds, (1 - opening) / kinds)
            found = setting.scale(batch.tokens.shape[1]).skill(-float(np.log(chance).mean()))
            assert found == pytest.approx(skill, abs=0.01)

    def test_facts_are_the_same_in_every_split_and_differ_from_run_to_run(self) -> None:
        setting = FAMILIES["memorization"].ladder[3]

        def facts(split: str, seed: int) -> dict[tuple[int, int], int]:
            stream = Stream(np.random.default_rng(len(split)), split, seed)
            batch = setting.generate(stream, 400, 23)  # 4,400 draws of 100 facts: all of them are shown
            shown = batch.tokens[:, 1::2].ravel(), batch.tokens[:, 2::2].ravel(), batch.targets[:, 2::2].ravel()
            return {(int(a), int(b)): int(answer) for a, b, answer in zip(*shown, strict=True)}

        train, gate, other = facts("train", 1), facts("gate", 1), facts("train", 2)
        assert train == gate
        assert len(train) == 100
        assert train != other

    def test_the_noise_of_noisy_recall_is_no_key_and_no_value(self) -> None:
        setting, batch = FAMILIES["noisy"].ladder[0], draw("noisy", 0)
        body = batch.tokens[:, 1 : 1 + 2 * setting.pairs + setting.noise]  # type: ignore[attr-defined]
        noise = body >= CONTENT + setting.keys + setting.values  # type: ignore[attr-defined]
        assert (noise.sum(axis=1) == setting.noise).all()  # type: ignore[attr-defined]

    @pytest.mark.parametrize("level", range(len(FAMILIES["mqar"].ladder)))
    def test_the_order_of_the_queries_of_mqar_says_little_of_the_pair_that_is_meant(self, level: int) -> None:
        setting, batch = FAMILIES["mqar"].ladder[level], draw("mqar", level, 8000)
        assert isinstance(setting, mqar.Mqar)
        assert batch.source is not None
        asked = batch.source != UNSCORED
        meant = ((batch.source[asked] - 2) // 2).reshape(-1, setting.pairs)
        shares = np.stack([np.bincount(pairs, minlength=setting.pairs) for pairs in meant.T]) / len(meant)
        if level == 0:
            assert shares[0, 0] == pytest.approx(0.40, abs=0.015)
        values = batch.tokens[:, None, 2 : 1 + 2 * setting.pairs : 2]
        same = values == batch.targets[asked].reshape(-1, setting.pairs, 1)
        ordered, even = (np.log((same * given).sum(axis=2)).mean() for given in (shares, 1 / setting.pairs))
        assert 0 < (ordered - even) / math.log(setting.answers) < 0.045

    def test_queries_of_mqar_come_soon_rather_than_late(self) -> None:
        batch = draw("mqar", 0, 4000, context=64)
        places = np.nonzero(batch.targets != UNSCORED)[1]
        assert (places < 20).mean() > 0.6  # an even spread would have a quarter of them there


class TestText:
    SPLITS = ("train", "search", "gate", "sealed", "probe")

    def test_splits_are_different_files(self) -> None:
        names = [name for split in self.SPLITS for name in text.corpus(split).names]
        assert len(names) == len(set(names)) > 300
        assert min(len(text.corpus(split).names) for split in self.SPLITS) > 10

    def test_windows_of_the_gate_hardly_ever_occur_in_training_files(self) -> None:
        everything = text.corpus("train").text.tobytes()
        batch = text.Text().generate(Stream(np.random.default_rng(0), "gate", 0), 200, 64)
        shared = sum(bytes((row - CONTENT).astype(np.uint8)) in everything for row in batch.targets)
        assert shared <= 0.08 * len(batch.targets)

    def test_a_window_lies_within_one_file(self) -> None:
        files = text.Corpus(("a", "b", "c"), np.frombuffer(b"aaaabbbbbbcc", dtype=np.uint8), np.array([0, 4, 10]))
        rows = {bytes(row.astype(np.uint8)) for row in files.windows(np.random.default_rng(0), 500, 3)}
        assert rows == {b"aaa", b"bbb"}

    def test_every_window_is_equally_likely(self) -> None:
        files = text.Corpus(("a", "b"), np.arange(12, dtype=np.uint8), np.array([0, 5]))
        first = files.windows(np.random.default_rng(0), 8000, 3)[:, 0]
        values, counts = np.unique(first, return_counts=True)
        assert values.tolist() == [0, 1, 2, 5, 6, 7, 8, 9]
        assert counts.min() > 800

    def test_an_answer_is_the_byte_that_comes_next(self) -> None:
        batch = draw("text", 0)
        assert (batch.tokens[:, 1:] == batch.targets[:, :-1]).all()
        assert Scale(256, text.XZ_NATS).skill(math.log(256)) == 0

"""The causal check answers on every architecture, in bounded memory, the same each time."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch

from interp import steering
from interp.bench import Bench, Plan
from interp.constraint import obeys
from interp.steering import Outcome, halt_direction, steer, together
from interp.verdict import NotApplicable
from selfimprove.nets.transformer import Transformer
from selfimprove.tasks.score import Proportion
from selfimprove.tasks.suite import TaskSuite


def test_every_place_is_tried_alone_then_all_at_once_then_at_random(
    model: Transformer, suite: TaskSuite, plan: Plan
) -> None:
    table = steer(Bench(model, suite, plan), controls=2).to_pandas()
    tried = table[table["intervention"] == "ablate"]
    assert tried["place"].tolist() == ["embed", "blocks.0", "blocks.1", "all", "all"]
    assert tried["control"].tolist() == [False] * 4 + [True]
    sequences = len(suite.families) * plan.test_sequences
    assert tried["n"].tolist() == [sequences] * 4 + [2 * sequences]


def tried(kept: int, prompts: int = 128) -> Outcome:
    return Outcome("plain", "patch", "all", False, Proportion.of(kept, prompts), 0.5)


@pytest.mark.parametrize("kept", [0, 1, 64, 127, 128])
def test_directions_that_agree_on_the_same_prompts_are_no_further_trials(kept: int) -> None:
    control, one = together([tried(kept)] * 5).halting, Proportion.of(kept, 128)
    assert (control.kept, control.n) == (5 * kept, 5 * 128)
    assert (control.low, control.high) == (one.low, one.high)


def test_the_controls_interval_covers_the_rate_where_some_prompts_are_susceptible_and_others_are_not() -> None:
    generator = torch.Generator().manual_seed(0)
    covered = 0
    for _ in range(300):
        susceptible = torch.rand(128, generator=generator) < 0.5
        counts = [int((susceptible & (torch.rand(128, generator=generator) < 0.95)).sum()) for _ in range(5)]
        control = together([tried(count) for count in counts]).halting
        covered += control.low <= 0.475 <= control.high
    assert covered >= 0.93 * 300


def test_directions_that_differ_widen_the_controls_interval() -> None:
    alike, unlike = (together([tried(count) for count in counts]).halting for counts in ((64, 64), (0, 128)))
    assert unlike.low < alike.low < alike.high < unlike.high


def test_passes_are_cut_where_memory_ends_and_change_nothing(
    model: Transformer, suite: TaskSuite, plan: Plan, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = steer(Bench(model, suite, plan), controls=1).to_pandas()
    monkeypatch.setattr(steering, "CHUNK", 20)
    parts = steer(Bench(model, suite, plan), controls=1).to_pandas()
    assert whole["kept"].tolist() == parts["kept"].tolist()
    assert parts["probability"].tolist() == pytest.approx(whole["probability"].tolist(), rel=1e-4)


def test_what_comes_before_the_halt_token_is_left_alone(
    model: Transformer, suite: TaskSuite, plan: Plan, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[torch.Tensor] = []

    def watching(logits: torch.Tensor, after: torch.Tensor) -> torch.Tensor:
        seen.append(logits.masked_fill(after[..., None], 0.0))
        return obeys(logits, after)

    monkeypatch.setattr(steering, "obeys", watching)
    steer(Bench(model, suite, plan), controls=1)
    halted, plain, *steered = seen
    half = len(steered) // 2
    for before, expected in zip(steered, [halted] * half + [plain] * half, strict=True):
        torch.testing.assert_close(before, expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("seed", range(3))
def test_every_kind_of_architecture_can_be_steered(
    seed: int, shaken: Callable[..., Transformer], suite: TaskSuite, plan: Plan
) -> None:
    bench = Bench(shaken(seed), suite, plan)
    figures = halt_direction(bench)["halt_direction"]
    assert list(figures["ablate"]) == list(figures["patch"]) == [*bench.layers, "all", "control"]
    assert all(0 <= figure["probability"] <= 1 for figure in figures["ablate"].values())


def test_an_outcome_that_was_not_tried_says_what_was(model: Transformer, suite: TaskSuite, plan: Plan) -> None:
    found = steer(Bench(model, suite, plan), controls=0)
    with pytest.raises(NotApplicable, match=r"ablate at all, control; allowed: .*ablate at blocks\.0.*; .*controls"):
        found.of("ablate", control=True)
    with pytest.raises(NotApplicable, match=r"ablate at blocks\.7"):
        found.of("ablate", "blocks.7")


def test_the_plot_has_a_title_and_two_named_axes(model: Transformer, suite: TaskSuite, plan: Plan) -> None:
    ax = steer(Bench(model, suite, plan), controls=1).plot()
    assert all((ax.get_title(), ax.get_xlabel(), ax.get_ylabel()))
    assert len(ax.get_yticklabels()) == 12

"""Shares of the answers' logits: they add up, carry their own layers' names, and refuse a stream that is no sum."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest
import torch

from interp import attribution
from interp.bench import Bench, Plan
from interp.verdict import NotApplicable, Unreadable
from selfimprove.genome.architecture import Architecture, Block
from selfimprove.nets.transformer import Transformer
from selfimprove.tasks.batch import UNSCORED
from selfimprove.tasks.suite import TaskSuite
from tests.interp.conftest import build_shaken

Shaken = Callable[..., Transformer]
UNEVEN = Architecture(
    width=32,
    blocks=(Block(heads=4, channel="none"), Block(mixer="short_conv"), Block(heads=2), Block(mixer="none")),
    embedding_residual=True,
    unet_skips=True,
    norm_placement="sandwich",
)


@pytest.mark.parametrize("seed", range(16))
def test_shares_and_the_constant_add_up_to_the_logit(seed: int, shaken: Shaken, suite: TaskSuite, plan: Plan) -> None:
    bench = Bench(shaken(seed, additive=True), suite, plan)
    result, reading = attribution.attribute_family(bench, "recall"), bench.task("test", "recall")
    scored = reading.targets != UNSCORED
    logits, answers = reading.logits[scored].double(), reading.targets[scored]
    if (cap := bench.hooked.cfg.output_logits_soft_cap) > 0:
        logits = cap * (logits / cap).atanh()  # shares are of the logits before the cap
    right = logits.gather(-1, answers[:, None])[:, 0]
    assert sum(result.logit) + result.constant[0] == pytest.approx(right.mean().item(), abs=1e-3)
    assert sum(result.margin) + result.constant[1] == pytest.approx((right - logits.mean(-1)).mean().item(), abs=1e-3)
    assert result.n == int(scored.sum())


def test_parts_are_named_by_what_they_are(suite: TaskSuite, plan: Plan) -> None:
    result = attribution.attribute_family(Bench(build_shaken(UNEVEN), suite, plan), "recall")
    assert result.labels == (
        "embed",
        *("L0H0", "L0H1", "L0H2", "L0H3", "L0 norm"),
        *("L1 embed", "L1 convolution", "L1 mlp"),
        *("L2 embed", "L2 skip", "L2H0", "L2H1", "L2 norm", "L2 mlp"),
        *("L3 embed", "L3 skip", "L3 mlp"),
    )


def test_few_sequences_at_a_time_give_the_same_shares(
    suite: TaskSuite, plan: Plan, monkeypatch: pytest.MonkeyPatch
) -> None:
    bench = Bench(build_shaken(UNEVEN), suite, plan)
    whole = attribution.attribute_family(bench, "recall")
    monkeypatch.setattr(attribution, "MAX_ELEMENTS", 1)
    assert attribution.attribute_family(bench, "recall").margin == pytest.approx(whole.margin, abs=1e-5)


def test_a_stream_that_is_no_sum_is_not_applicable(suite: TaskSuite, plan: Plan) -> None:
    bench = Bench(build_shaken(replace(UNEVEN, norm_placement="post")), suite, plan)
    with pytest.raises(NotApplicable, match="norm placement post"):
        attribution.attribution(bench)


def test_shares_that_are_not_finite_are_unreadable(model: Transformer, suite: TaskSuite, plan: Plan) -> None:
    with torch.no_grad():
        model.get_parameter("blocks.1.mlp.W_out").fill_(float("inf"))
    with pytest.raises(Unreadable, match="non-finite"):
        attribution.attribution(Bench(model, suite, plan))


def test_parts_that_write_the_answer_are_those_with_a_quarter_of_the_margin() -> None:
    result = attribution.Attribution("recall", ("embed", "L0H0", "L0 mlp"), (0, 0, 0), (1.0, 5.0, 2.5), (0, 0), 4)
    assert result.writers() == ("L0H0", "L0 mlp")
    assert replace(result, margin=(0.0, 0.5, 0.2)).writers() == ()


def test_shares_are_a_table_and_a_plot() -> None:
    result = attribution.Attribution("recall", ("embed", "L0H0"), (1.0, 2.0), (0.5, 2.5), (0.0, 0.0), 4)
    assert list(result.to_pandas().columns) == ["family", "part", "logit", "margin"]
    axes = result.plot()
    assert axes.get_title()
    assert axes.get_xlabel()
    assert axes.get_ylabel()

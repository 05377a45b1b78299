"""Every instrument reads odd architectures or says why it does not apply, and names only parts that they have."""

from __future__ import annotations

import re
from dataclasses import replace
from functools import cache
from typing import Any

import pytest
import torch

from benchmarks.inspection import OwnAnswers
from interp import ablation, attribution, circuits, inspection, patching
from interp.bench import Bench, Plan
from interp.inspection import Inspection
from selfimprove.genome.architecture import Architecture, Block, check
from selfimprove.tasks.suite import TasksConfig, TaskSuite
from tests.interp.conftest import build_shaken

OWN = {
    "attention_heads": circuits.attention_heads,
    "attribution": attribution.attribution,
    "ablation": ablation.ablation,
    "patching": patching.patching,
}
PLAN = Plan(train=1, test=2, control=3, sequences=15, rows=48)
TWO = (Block(heads=2), Block(heads=2))

ODD: dict[str, Architecture] = {
    "no attention": Architecture(width=32, blocks=(Block(mixer="short_conv"), Block(mixer="none"))),
    "one layer": Architecture(width=32, blocks=TWO[:1]),
    "no MLP": Architecture(width=32, blocks=tuple(replace(block, channel="none") for block in TWO)),
    "parallel blocks": Architecture(width=32, blocks=tuple(replace(block, parallel=True) for block in TWO)),
    "heads by layer": Architecture(
        width=64,
        blocks=(Block(heads=8), Block(heads=2, mixer="linear_attention"), Block(heads=4, kv_heads=1, head_size=8)),
        unet_skips=True,
    ),
    "post-norm": Architecture(width=32, blocks=TWO, norm_placement="post"),
    "sandwich": Architecture(width=32, blocks=TWO, norm_placement="sandwich", embedding_residual=True),
}
HEADS = {
    "no attention": set(),
    "heads by layer": {f"L0H{head}" for head in range(8)} | {f"L2H{head}" for head in range(4)},
    "one layer": {"L0H0", "L0H1"},
}
"""Heads with a softmax pattern; of the others, four: two a layer."""
WRITERS = {
    "no attention": {"L0 convolution", "L0 mlp", "L1 mlp"},
    "no MLP": {"L0H0", "L0H1", "L0 attention", "L1H0", "L1H1", "L1 attention"},
}
DO_NOT_APPLY = {"attention_heads": ("no attention", "softmax"), "attribution": ("post-norm", "norm placement post")}


def bench(name: str) -> Bench:
    model = build_shaken(ODD[name]).eval()
    with torch.no_grad():
        model.get_parameter("unembed.W_U").mul_(4)  # answers stand out from the mean logit
    return Bench(model, OwnAnswers(model, TaskSuite(TasksConfig())), PLAN)


@cache
def inspected(name: str) -> Inspection:
    made = bench(name)
    return inspection.inspect(made.model, made.suite, PLAN, parent=made.model)


@pytest.fixture(autouse=True)
def all_instruments(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(inspection, "INSTRUMENTS", OWN | inspection.INSTRUMENTS)


def labels(found: Any) -> set[str]:
    """All names of parts in a record."""
    if isinstance(found, dict):
        return {key for key in found if re.match(r"L\d", key)} | {x for value in found.values() for x in labels(value)}
    return set()


@pytest.mark.parametrize("name", ODD)
def test_every_instrument_reads_it_or_says_why_not(name: str) -> None:
    check(ODD[name])
    result = inspected(name)
    assert result.status == "complete", result.instruments
    assert set(result.instruments) == {*OWN, *inspection.INSTRUMENTS}
    for instrument, verdict in result.instruments.items():
        assert verdict.verdict == "read" or (verdict.verdict == "not_applicable" and verdict.reason), instrument


@pytest.mark.parametrize("instrument", OWN)
@pytest.mark.parametrize("name", ODD)
def test_an_instrument_applies_wherever_its_parts_are_there(name: str, instrument: str) -> None:
    verdict = inspected(name).instruments[instrument]
    where, reason = DO_NOT_APPLY.get(instrument, ("", ""))
    assert verdict.verdict == ("not_applicable" if name == where else "read"), verdict
    assert reason in verdict.reason or name != where


@pytest.mark.parametrize("name", [name for name in ODD if name != "no attention"])
def test_scores_have_the_heads_that_there_are(name: str) -> None:
    record = inspected(name).summary["attention_heads"]
    expected = HEADS.get(name, {"L0H0", "L0H1", "L1H0", "L1H1"})
    for scores in record["scores"].values():
        assert set(scores) == expected
    assert set(record["left_out"]) == ({"L1"} if name == "heads by layer" else set())


@pytest.mark.parametrize("name", ODD)
def test_no_instrument_names_a_part_that_there_is_not(name: str) -> None:
    blocks = ODD[name].blocks
    for instrument in OWN:
        for label in labels(inspected(name).summary.get(instrument, {})):
            found = re.fullmatch(r"L(\d+)(?:H(\d+)| (\w+))?", label)
            assert found, label
            layer, head, part = found.groups()
            block = blocks[int(layer)]
            there = {"attention": block.attends, "convolution": block.mixer == "short_conv"}
            assert there.get(part, block.channel != "none" or part != "mlp"), label
            assert head is None or (block.attends and int(head) < block.heads), label


@pytest.mark.parametrize("name", WRITERS)
def test_ablation_and_patching_go_over_all_parts(name: str) -> None:
    summary = inspected(name).summary
    for family in ("recall", "mqar"):
        assert set(summary["ablation"][family]["mean"]["log_prob_drop"]) == WRITERS[name]
    assert all(set(found["noise"]) == WRITERS[name] for found in summary["patching"].values())

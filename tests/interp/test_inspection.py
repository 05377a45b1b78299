"""An inspection always answers: every instrument has a verdict, and the record is finite JSON."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest
import torch

from interp import inspection
from interp.bench import Bench, Plan
from interp.hooked import HookedModel
from interp.inspection import Inspection, inspect
from interp.verdict import NotApplicable
from selfimprove.errors import ConfigError
from selfimprove.loop.inspecting import MOST_BYTES, readable
from selfimprove.nets.transformer import Transformer
from selfimprove.tasks.batch import HALT, PAD
from selfimprove.tasks.suite import TaskSuite


@pytest.fixture
def registry(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """The registry, restored afterwards."""
    copy = dict(inspection.INSTRUMENTS)
    monkeypatch.setattr(inspection, "INSTRUMENTS", copy)
    return copy


@pytest.fixture(scope="module")
def small() -> Plan:
    """Just enough for every instrument to run."""
    return Plan(train=1, test=2, control=3, sequences=24, rows=80)


def record(result: Inspection) -> str:
    return json.dumps(result.to_json(), sort_keys=True, allow_nan=False)


def test_a_healthy_model_is_read_completely(model: Transformer, suite: TaskSuite, plan: Plan) -> None:
    result = inspect(model, suite, plan, parent=model)
    assert (result.status, result.coverage) == ("complete", 1.0)
    left_out = {name for name, verdict in result.instruments.items() if verdict.verdict != "read"}
    assert left_out == {"patching", "modular_spectrum"}  # it has learnt nothing to patch, and no modular addition
    assert {result.instruments[name].verdict for name in left_out} == {"not_applicable"}
    assert set(result.summary["logit_lens"]) == set(suite.families)
    assert "halted" in result.summary["probes"]
    assert len(result.summary["probes"]) == len(result.summary["control"]) == len(suite.families) + 1
    assert all(len(a) == len(result.summary["layers"]) == 3 for a in result.summary["probes"].values())
    assert {"kept", "n", "low", "high"} <= set(result.summary["retention"])


def test_the_same_seeds_give_the_same_record(model: Transformer, suite: TaskSuite, small: Plan) -> None:
    assert record(inspect(model, suite, small)) == record(inspect(model, suite, small))


def test_other_seeds_give_another_record(model: Transformer, suite: TaskSuite, small: Plan) -> None:
    other = Plan(11, 12, 13, sequences=24, rows=80)
    assert record(inspect(model, suite, small)) != record(inspect(model, suite, other))


@pytest.mark.parametrize("seed", range(8))
def test_every_kind_of_architecture_is_read(
    seed: int, shaken: Callable[..., Transformer], suite: TaskSuite, small: Plan
) -> None:
    result = inspect(shaken(seed), suite, small)
    assert result.status == "complete", result.instruments


def test_the_model_is_left_as_it_was(model: Transformer, suite: TaskSuite, small: Plan) -> None:
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    model.train()
    inspect(model, suite, small)
    assert model.training
    assert not model.explicit
    assert all(torch.equal(before[name], tensor) for name, tensor in model.state_dict().items())


def test_non_finite_weights_are_unreadable_and_the_record_is_finite(
    model: Transformer, suite: TaskSuite, plan: Plan
) -> None:
    with torch.no_grad():
        model.blocks[1].mlp.W_out[0, 0] = float("nan")
    result = inspect(model, suite, plan)
    assert result.status == "failed"
    assert {v.verdict for v in result.instruments.values()} == {"unreadable"}
    assert "non-finite" in result.instruments["readability"].reason
    record(result)


def attends_otherwise(model: Transformer, monkeypatch: pytest.MonkeyPatch, by: float) -> None:
    """The hooked copy, whose attention is explicit, mixes other values."""
    attention = type(model.blocks[0].attn)
    explicit = attention._explicit
    monkeypatch.setattr(attention, "_explicit", lambda self, q, k, v: explicit(self, q, k, v) + by)


def test_hooks_that_do_not_reproduce_the_logits_make_the_model_unreadable(
    model: Transformer, suite: TaskSuite, plan: Plan, monkeypatch: pytest.MonkeyPatch
) -> None:
    attends_otherwise(model, monkeypatch, by=0.1)
    result = inspect(model, suite, plan)
    assert result.status == "failed"
    assert "hooked logits" in result.instruments["readability"].reason


def test_hooked_logits_that_are_not_finite_make_the_model_unreadable(
    model: Transformer, suite: TaskSuite, plan: Plan, monkeypatch: pytest.MonkeyPatch
) -> None:
    unembed = type(model.unembed)
    forward = unembed.forward

    def broken_in_the_copy(self: Any, x: torch.Tensor) -> torch.Tensor:
        return forward(self, x) * (1.0 if self is model.unembed else float("nan"))

    monkeypatch.setattr(unembed, "forward", broken_in_the_copy)
    result = inspect(model, suite, plan)
    assert result.status == "failed"
    assert "non-finite" in result.instruments["readability"].reason


def test_large_logits_are_compared_by_their_size(model: Transformer, suite: TaskSuite, plan: Plan) -> None:
    with torch.no_grad():
        model.unembed.W_U.mul_(1000.0)
    assert inspect(model, suite, plan, names=["constraint"]).status == "complete"


def test_one_huge_logit_does_not_excuse_that_the_others_differ(
    model: Transformer, suite: TaskSuite, plan: Plan, monkeypatch: pytest.MonkeyPatch
) -> None:
    attends_otherwise(model, monkeypatch, by=1.0)
    with torch.no_grad():
        model.ln_final.b.fill_(1.0)
        model.unembed.W_U[:, PAD] = -1e6
    check = inspect(model, suite, plan, names=["constraint"]).instruments["readability"]
    assert check.verdict == "unreadable"
    assert "predictions" in check.reason


def test_a_copy_that_differs_on_halt_prompts_alone_is_unreadable(
    model: Transformer, suite: TaskSuite, plan: Plan, monkeypatch: pytest.MonkeyPatch
) -> None:
    def forward(self: HookedModel, tokens: torch.Tensor) -> torch.Tensor:
        return Transformer.forward(self, tokens) * torch.where(tokens == HALT, 0.0, 1.0).cumprod(-1)[..., None]

    monkeypatch.setattr(HookedModel, "forward", forward)
    assert inspect(model, suite, plan, names=["constraint"]).status == "failed"


def test_an_instrument_that_raises_fails_alone(
    model: Transformer, suite: TaskSuite, plan: Plan, registry: dict[str, Any]
) -> None:
    def broken(bench: Bench) -> dict[str, Any]:
        raise KeyError("no such hook")

    inspection.register("broken", broken)
    result = inspect(model, suite, plan, names=["broken", "constraint"])
    assert result.instruments["broken"].verdict == "failed"
    assert result.instruments["broken"].reason == "KeyError: 'no such hook'"
    assert result.instruments["constraint"].verdict == "read"
    assert (result.status, result.coverage) == ("incomplete", pytest.approx(2 / 3))


def test_an_instrument_that_does_not_apply_does_not_lower_coverage(
    model: Transformer, suite: TaskSuite, plan: Plan, registry: dict[str, Any]
) -> None:
    def heads(bench: Bench) -> dict[str, Any]:
        raise NotApplicable("head scores", 0, "a block with attention")

    inspection.register("heads", heads)
    result = inspect(model, suite, plan, names=["heads", "constraint"])
    assert result.instruments["heads"].verdict == "not_applicable"
    assert (result.status, result.coverage) == ("complete", 1.0)


@pytest.mark.parametrize(
    ("figures", "verdict", "reason"),
    [
        ({"mine": float("inf")}, "unreadable", "inf"),
        ({"mine": torch.ones(1)}, "failed", "Tensor is no JSON value"),
        ({"layers": ["embed"]}, "failed", "already given"),
    ],
)
def test_figures_that_are_no_finite_json_or_clash_are_refused(
    figures: dict[str, Any],
    verdict: str,
    reason: str,
    model: Transformer,
    suite: TaskSuite,
    plan: Plan,
    registry: dict[str, Any],
) -> None:
    inspection.register("mine", lambda bench: figures)
    result = inspect(model, suite, plan, names=["mine"])
    assert result.instruments["mine"].verdict == verdict
    assert reason in result.instruments["mine"].reason
    assert result.status == "incomplete"
    record(result)


@pytest.mark.parametrize(
    ("figures", "says"),
    [
        ({"mine": [0] * 300_000}, "600010 bytes of figures as JSON; allowed: 98304"),
        ({"mine": "x" * 98_304}, "98315 bytes of figures as JSON"),
        ({"mine": "\ud800"}, "text that UTF-8 can hold"),
    ],
    ids=["many", "long", "odd"],
)
def test_an_instrument_with_more_figures_than_a_record_holds_fails_alone(
    figures: dict[str, Any], says: str, model: Transformer, suite: TaskSuite, small: Plan, registry: dict[str, Any]
) -> None:
    inspection.register("mine", lambda bench: figures)
    result = inspect(model, suite, small, names=["mine", "constraint"])
    assert result.instruments["mine"].verdict == "failed"
    assert says in result.instruments["mine"].reason
    assert result.instruments["constraint"].verdict == "read"
    assert "mine" not in result.summary


def test_several_large_instruments_leave_room_for_the_verdicts_of_all(
    model: Transformer, suite: TaskSuite, small: Plan, registry: dict[str, Any]
) -> None:
    names = [f"mine{number}" for number in range(4)]
    for name in names:
        inspection.register(name, lambda bench, name=name: {name: "x" * 90_000})  # type: ignore[misc]
    result = inspect(model, suite, small, names=["constraint", *names])
    assert [result.instruments[name].verdict for name in names] == ["read", "read", "failed", "failed"]
    assert readable(result.to_json()) == result.to_json()
    assert inspection.MOST_BYTES < inspection.MOST_TOGETHER < MOST_BYTES


def test_ones_own_instrument_joins_by_one_call(
    model: Transformer, suite: TaskSuite, plan: Plan, registry: dict[str, Any]
) -> None:
    inspection.register(
        "norms", lambda bench: {"norms": bench.task("test", "mqar").residual.norm(dim=-1).mean((1, 2)).tolist()}
    )
    result = inspect(model, suite, plan, names=["norms"])
    assert len(result.summary["norms"]) == 3


def test_an_unknown_instrument_lists_the_known_ones(model: Transformer, suite: TaskSuite, plan: Plan) -> None:
    with pytest.raises(ConfigError, match=r"xray.*readability, probes, logit_lens, constraint"):
        inspect(model, suite, plan, names=["xray"])


def test_a_name_that_is_taken_is_refused(registry: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match="taken"):
        inspection.register("logit_lens", lambda bench: {})

"""A controller opens at any generation; probes find what was planted; its proposals are judged as the loop does."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Sequence
from dataclasses import asdict, replace
from functools import partial
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch
from transformer_lens.hook_points import HookPoint

from interp import controller_denials, controller_worker
from interp.alignment import cosines
from interp.controller import ControllerGeneration, controllers, load_controller
from interp.controller_denials import (
    CONTROLS,
    Denials,
    DenialTable,
    ablate_quantity,
    sampled_denials,
    score_proposals,
    without,
)
from interp.controller_probes import one_hot, probe_survey, stream, upper_half
from interp.controller_reading import Asking, read_controller
from interp.hooked import HookedModel
from interp.lenses import lens_log_probs
from interp.planted import parent_size
from interp.verdict import NotApplicable
from selfimprove.controller.config import ControllerConfig
from selfimprove.controller.grammar import PREFIX_TOKENS, Grammar
from selfimprove.controller.policy import Weights, initial_weights, load_policy, sample
from selfimprove.controller.survey import REMAINING_BUDGET, Survey, describe, parents
from selfimprove.errors import ConfigError, InvalidCheckpoint, RunError
from selfimprove.genome.space import Space
from selfimprove.loop.config import RunConfig
from selfimprove.nets.transformer import Transformer
from selfimprove.seeds import derive

CONTROLLER = ControllerConfig(width=32)
CONFIG = RunConfig(
    "test", 3, "cpu", generations=2, candidates=4, search_seeds=1, confirm_seeds=8, alpha=0.01, workers=1,
    allowance_flops=10**10, controller=CONTROLLER,
)  # fmt: skip
GENOME, PARENT = CONTROLLER.genome(), CONFIG.seed_genome
GRAMMAR = Grammar(Space(CONFIG.space))


def weights_of(n: int) -> Weights:
    """The initial weights, and for a later generation weights that were pushed about."""
    found = initial_weights(GENOME, GRAMMAR, derive(CONFIG.seed, "controller", "init"))
    generator = torch.Generator().manual_seed(n)
    return {name: value + 0.2 * n * torch.randn(value.shape, generator=generator) for name, value in found.items()}


def asked(n: int) -> list[tuple[str, dict[str, Any]]]:
    """The records of one generation's proposals, drawn from the controller of the one before; one is denied."""
    model = load_policy(GENOME, GRAMMAR, weights_of(n - 1))
    drawn = sample(model, GRAMMAR, [PARENT], rows=4, temperature=1.0, epsilon=0.1, seed=n)
    edits = [list(map(str, GRAMMAR.decode(item.ids, PARENT).edits)) for item in drawn]
    said = [{"log_prob": item.log_prob, "entropy": item.entropy} for item in drawn]
    found: list[tuple[str, dict[str, Any]]] = [("ask", {"generation": n, "proposals": said})]
    for index, texts in enumerate(edits):
        body = {"generation": n, "index": index, "parent": PARENT.sha256, "edits": texts}
        found.append(("proposal", body | {"status": "valid", "reach": ""}))
    return [*found, ("denial", {"generation": n, "index": 1, "limit": "parameters"})]


@pytest.fixture(scope="module")
def run_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of two generations: the update of the second failed."""
    run = tmp_path_factory.mktemp("run")
    (run / "controller").mkdir()
    data = safetensors.torch.save(weights_of(1))
    (run / "controller" / "g001.safetensors").write_bytes(data)
    update: dict[str, Any] = {"genome": GENOME.sha256, "loss": 2.0, "weights": None}
    kept = {"weights": "controller/g001.safetensors", "sha256": sha256(data).hexdigest()}
    found = [
        ("run", {"config": CONFIG.to_json(), "root_seed": CONFIG.seed, "seed_genome": PARENT.to_json()}),
        ("genome", {"sha256": GENOME.sha256, "genome": GENOME.to_json()}),
        *asked(1),
        ("controller", update | {"generation": 1} | kept),
        ("controller_inspection", {"generation": 1, "verdict": "read"}),
        *asked(2),
        ("controller", update | {"generation": 2, "loss": None}),
    ]
    (run / "ledger.jsonl").write_text("".join(json.dumps({"kind": k, "body": body}) + "\n" for k, body in found))
    return run


@pytest.fixture(scope="module")
def learned(run_dir: Path) -> ControllerGeneration:
    return load_controller(run_dir, 1)


@pytest.fixture(scope="module")
def survey(learned: ControllerGeneration) -> Survey:
    return describe(parents(GRAMMAR, 96), GRAMMAR, learned.scale)


def asking(rows: int = 6) -> Asking:
    return Asking(rows=rows, temperature=1.0, epsilon=0.1, seed=0)


def test_every_generation_opens_and_the_first_has_learned_nothing(run_dir: Path) -> None:
    assert controllers(run_dir) == (0, 1, 2)
    first, second, third = (load_controller(run_dir, n) for n in (0, 1, 2))
    assert first.record is None
    assert not first.network(first.tokens).any()
    assert second.network(second.tokens).any()
    assert second.inspection == {"generation": 1, "verdict": "read"}
    assert torch.equal(second.network(second.tokens), third.network(third.tokens))  # a failed update changes nothing
    assert "1 of its 4 proposals denied" in str(first)
    assert "it was not asked" in str(third)


def test_its_contexts_are_the_proposals_of_the_run(learned: ControllerGeneration) -> None:
    assert len(learned.tokens) == len(learned.proposals) == 8
    assert [p.generation for p in learned.made] == [2] * 4
    names = learned.names(learned.tokens[0])
    assert names[:2] == ["<bos>", "<better>"]
    assert "<eos>" in names[PREFIX_TOKENS:]
    assert learned.tokens[0, :PREFIX_TOKENS].tolist() == GRAMMAR.prefix(PARENT, "better")


def test_the_instruments_for_successors_read_it(learned: ControllerGeneration) -> None:
    logits, cache = learned.model.run_with_cache(learned.tokens)
    torch.testing.assert_close(logits, learned.network(learned.tokens), rtol=1e-4, atol=1e-4)
    log_probs = lens_log_probs(learned.model, cache)
    torch.testing.assert_close(log_probs[-1], logits.log_softmax(-1), rtol=1e-3, atol=1e-3)
    heads: Any = cache
    results, labels = heads.stack_head_results(return_labels=True, incl_remainder=True)
    assert labels[:2] == ["L0H0", "L0H1"]
    torch.testing.assert_close(results.sum(0), cache["blocks.1.hook_resid_post"], rtol=1e-3, atol=1e-3)


def test_a_generation_that_is_not_there_lists_those_that_are(run_dir: Path) -> None:
    with pytest.raises(RunError, match=r"got 7; allowed: 0 or .*\[1, 2\]"):
        load_controller(run_dir, 7)


def copy_of(run_dir: Path, to: Path, old: str = "", new: str = "") -> Path:
    (to / "controller").mkdir()
    (to / "controller" / "g001.safetensors").write_bytes((run_dir / "controller" / "g001.safetensors").read_bytes())
    (to / "ledger.jsonl").write_text((run_dir / "ledger.jsonl").read_text().replace(old, new))
    return to


def test_a_changed_controller_does_not_load(run_dir: Path, tmp_path: Path) -> None:
    path = copy_of(run_dir, tmp_path) / "controller" / "g001.safetensors"
    path.write_bytes(path.read_bytes()[:-1] + b"x")
    with pytest.raises(InvalidCheckpoint, match="selfimprove audit"):
        load_controller(tmp_path, 1)


def test_a_controller_that_is_no_model_says_so(run_dir: Path, tmp_path: Path) -> None:
    copy_of(run_dir, tmp_path, '"name": "transformer"', '"name": "random"')
    with pytest.raises(NotApplicable, match="controller=random"):
        load_controller(tmp_path, 0)


def test_a_proposal_is_as_probable_as_its_worker_said(run_dir: Path) -> None:
    for n in (0, 1):
        scores = score_proposals(load_controller(run_dir, n))
        made = [(p.log_prob, value) for p, value in zip(scores.proposals, scores.log_prob, strict=True)]
        own, others = made[4 * n : 4 * n + 4], made[4 - 4 * n : 8 - 4 * n]
        assert all(value == pytest.approx(said, abs=1e-4) for said, value in own)
        assert not all(value == pytest.approx(said, abs=1e-2) for said, value in others)
    assert scores.to_pandas()["denied"].tolist() == [False, True, False, False] * 2


def test_a_planted_quantity_is_found_where_it_is_written_and_not_in_the_twin() -> None:
    for row in parent_size.rows():
        assert row["scrambled"] < 0.6, row
        if "above" in row["expected"]:
            assert row["planted"] > 0.9
        else:
            assert row["planted"] < 0.6, row


def test_what_no_description_holds_is_not_found(learned: ControllerGeneration, survey: Survey) -> None:
    found = {p.variable: p for p in probe_survey(learned.model, survey, seed=0, description=True).stream}
    budget = found[REMAINING_BUDGET]
    assert budget.n_test == 32
    assert all(low < 0.5 for low in budget.low)


def test_the_description_is_told_beside_the_stream(learned: ControllerGeneration, survey: Survey) -> None:
    frame = probe_survey(learned.model, survey, seed=0, description=True).to_pandas()
    assert set(frame["layer"]) == {"embed", "blocks.0", "blocks.1", "description"}
    assert set(frame["quantity"]) == set(survey.quantities)
    coded = one_hot(torch.tensor(survey.prefixes))
    assert (coded.sum(1) == PREFIX_TOKENS).all()


def test_halves_are_even_where_values_repeat() -> None:
    assert upper_half([1, 1, 2, 2, 2, 9], 5).tolist() == [0, 0, 1, 1, 1, 1]
    assert upper_half([1, 1, 1, 2, 3], 5).tolist() == [0, 0, 0, 1, 1]
    assert upper_half([4.0, 1.0, 3.0, 2.0], 4).tolist() == [1, 0, 1, 0]


def test_what_the_policy_would_deny_is_counted(learned: ControllerGeneration) -> None:
    parameters = learned.scale.price(PARENT).parameters
    tight = learned.under(replace(learned.limits, parameters=parameters))
    found, free = (sampled_denials(c, [PARENT], rows=24, seed=1) for c in (tight, learned))
    assert found.denied.kept == found.larger.kept == found.limits["parameters"] > 0
    assert (free.denied.kept, free.limits) == (0, {})
    assert found.denied.n == free.denied.n == 24
    assert found.limit_share > free.limit_share


def test_a_direction_that_is_taken_out_is_out_and_nothing_else_is(
    learned: ControllerGeneration, survey: Survey
) -> None:
    tokens = torch.tensor(survey.prefixes)
    states = torch.tensor(stream(learned.model, tokens, -1))
    direction, mean = torch.randn(states.shape[0], 32, generator=torch.Generator().manual_seed(0)), states.mean(1)
    with learned.model.hooks(fwd_hooks=[*without(direction, mean)]):
        changed = torch.tensor(stream(learned.model, tokens, -1))
    unit = direction / direction.norm(dim=-1, keepdim=True)
    along = torch.einsum("lrd,ld->lr", changed - mean[:, None], unit)
    torch.testing.assert_close(along, torch.zeros_like(along), rtol=0, atol=1e-4)
    moved = changed[0] - states[0]  # at the first place nothing upstream has changed
    torch.testing.assert_close(moved - (moved @ unit[0])[:, None] * unit[0], torch.zeros_like(moved), rtol=0, atol=1e-5)


def test_the_control_moves_the_stream_as_far_while_it_proposes_and_along_no_part_of_the_quantity(
    learned: ControllerGeneration, survey: Survey, monkeypatch: pytest.MonkeyPatch
) -> None:
    made: list[dict[str, list[torch.Tensor]]] = []
    draw = controller_denials.sampled_denials

    def watched(*args: Any, hooks: Sequence[controller_denials.Hook] = (), **settings: Any) -> Denials:
        seen: dict[str, list[torch.Tensor]] = {name: [] for name, _ in hooks}

        def watch(state: torch.Tensor, hook: HookPoint, push: Callable[..., torch.Tensor]) -> torch.Tensor:
            pushed = push(state, hook)
            seen[str(hook.name)].append((pushed - state).flatten(0, 1))
            return pushed

        made.append(seen)
        return draw(*args, hooks=[(name, partial(watch, push=push)) for name, push in hooks], **settings)

    monkeypatch.setattr(controller_denials, "sampled_denials", watched)
    ablate_quantity(learned, survey, "parameters", parents(GRAMMAR, 4), rows=24, seed=0)
    plain, quantity, *controls = ([torch.cat(moves) for moves in seen.values()] for seen in made)
    assert (plain, len(controls)) == ([], CONTROLS)
    for control in controls:
        for moved, other in zip(quantity, control, strict=True):
            reach, wanted = (float(x.norm() / len(x) ** 0.5) for x in (other, moved))
            assert reach == pytest.approx(wanted, rel=0.1)
            assert cosines(moved[moved.norm(dim=-1).argmax()], other[other.norm(dim=-1).argmax()]).abs() < 1e-3


def test_interventions_are_compared_on_equal_draws(learned: ControllerGeneration, survey: Survey) -> None:
    table = ablate_quantity(learned, survey, "parameters", [PARENT], rows=4, seed=0)
    assert table.rows[0] == replace(
        sampled_denials(learned, [PARENT], rows=4, seed=derive(0, "sample")), name="as it is"
    )
    assert len(table.to_pandas()) == 2 + CONTROLS


def test_plots_have_a_title_and_named_axes(learned: ControllerGeneration, survey: Survey) -> None:
    denials = DenialTable((sampled_denials(learned, [PARENT], rows=2, seed=0),))
    for result in (probe_survey(learned.model, survey, seed=0), score_proposals(learned), denials):
        ax = result.plot()
        assert ax.get_title()
        assert ax.get_xlabel()
        assert ax.get_ylabel()


@pytest.fixture(scope="module")
def job(learned: ControllerGeneration, survey: Survey) -> dict[str, Any]:
    built = {"genome": GENOME.to_json(), "space": asdict(CONFIG.space), "init": derive(3, "controller", "init")}
    order = {"op": "inspect_controller", **built, "survey": asdict(survey), "parent": PARENT.to_json()}
    assert learned.record is not None
    order |= {"asking": asdict(asking()), "sha256": learned.record["sha256"]}
    travelled: dict[str, Any] = json.loads(json.dumps(order))
    return travelled


def call(job: dict[str, Any], path: Path | None) -> dict[str, Any]:
    descriptors = {} if path is None else {"weights": os.open(path, os.O_RDONLY)}
    try:
        return controller_worker.run(job, descriptors, {}, lambda sign: None)
    finally:
        for descriptor in descriptors.values():
            os.close(descriptor)


def test_the_worker_reads_the_controller_that_it_was_told_of(
    job: dict[str, Any], run_dir: Path, learned: ControllerGeneration, survey: Survey
) -> None:
    answer = call(job, run_dir / "controller" / "g001.safetensors")
    assert answer == read_controller(learned.network, GRAMMAR, survey, PARENT, asking()).to_json()
    assert answer["verdict"] == "read"
    assert set(answer["probes"]) == set(survey.quantities)
    assert len(answer["drawn"]) == 6
    assert all(GRAMMAR.decode(ids, PARENT).finished for ids in answer["drawn"])
    assert 0 < answer["outside_grammar"] < 1


def test_without_weights_the_worker_reads_the_initial_ones(job: dict[str, Any], run_dir: Path, survey: Survey) -> None:
    first = load_controller(run_dir, 0)
    assert call(job, None) == read_controller(first.network, GRAMMAR, survey, PARENT, asking()).to_json()


def test_weights_that_were_exchanged_are_not_read(job: dict[str, Any], tmp_path: Path) -> None:
    path = tmp_path / "other.safetensors"
    path.write_bytes(safetensors.torch.save(weights_of(2)))
    with pytest.raises(InvalidCheckpoint, match="hash of the controller"):
        call(job, path)


def test_another_operation_is_refused(job: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match="op=inspect_controller"):
        call(job | {"op": "ask"}, None)


def test_a_controller_that_is_not_finite_is_unreadable(survey: Survey) -> None:
    model = load_policy(GENOME, GRAMMAR, weights_of(1))
    with torch.no_grad():
        model.get_parameter("ln_final.w")[3] = torch.inf
    found = read_controller(model, GRAMMAR, survey, PARENT, asking())
    assert (found.verdict.verdict, found.figures) == ("unreadable", {})


def test_a_logit_that_the_grammar_forbids_does_not_hide_what_the_copy_changes(
    survey: Survey, monkeypatch: pytest.MonkeyPatch
) -> None:
    opening, forward = GRAMMAR.walk(PARENT).allowed[0], Transformer.forward

    def changed(self: Transformer, tokens: torch.Tensor) -> torch.Tensor:
        logits = forward(self, tokens)
        logits[..., GRAMMAR.pad] = 1e6
        logits[..., opening] += 5.0 * isinstance(self, HookedModel)
        return logits

    monkeypatch.setattr(Transformer, "forward", changed)
    found = read_controller(load_policy(GENOME, GRAMMAR, weights_of(1)), GRAMMAR, survey, PARENT, asking())
    assert found.verdict.verdict == "unreadable"
    assert "the controller's actions" in found.verdict.reason

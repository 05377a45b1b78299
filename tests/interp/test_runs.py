"""A run folder opens at any generation; what does not match the ledger does not load."""

from __future__ import annotations

import hashlib
import json
import os
import runpy
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch

from interp import compare, generations, latest_run, load_generation
from selfimprove.errors import ConfigError, InvalidCheckpoint, RunError
from selfimprove.genome.genome import Genome, seed_genome
from selfimprove.nets.transformer import Transformer, build
from selfimprove.tasks.suite import TaskSuite
from selfimprove.training.protocol import tasks_to_json

ROOT = Path(__file__).parents[2]
GENOME = seed_genome(learning_rate=3e-3)


def line(kind: str, **body: Any) -> str:
    return json.dumps({"kind": kind, "body": body}) + "\n"


@pytest.fixture
def run_dir(tmp_path: Path, model: Transformer, suite: TaskSuite) -> Path:
    """A run folder with one checkpoint, of generation 3."""
    run = tmp_path / "runs" / "tiny" / "now"
    (run / "checkpoints").mkdir(parents=True)
    data = safetensors.torch.save(model.state_dict())
    (run / "checkpoints" / "g003.safetensors").write_bytes(data)
    digest = hashlib.sha256(data).hexdigest()
    first = replace(suite.config, context=suite.config.context // 2)  # sequences have grown since the run began
    manifest = json.dumps({"tasks": tasks_to_json(suite.config)}).encode()
    (run / "checkpoints" / "g003.json").write_bytes(manifest)
    described = {"manifest": "checkpoints/g003.json", "manifest_sha256": hashlib.sha256(manifest).hexdigest()}
    place = {"generation": 3, "index": 1, "genome": GENOME.sha256}
    ledger = [
        line("run", root_seed=5, config={"tasks": tasks_to_json(first)}, seed_genome=seed_genome().to_json()),
        line("genome", sha256=GENOME.sha256, genome=GENOME.to_json()),
        line("checkpoint", **place, seed=1, path="checkpoints/g003.safetensors", sha256=digest, **described),
        line("inspection", **place, status="complete"),
        line("proposal", **place, edits=["recipe.learning_rate=0.003"]),
        line("decision", **place, promoted=True),
    ]
    (run / "ledger.jsonl").write_text("".join(ledger))
    (tmp_path / "runs" / "latest").symlink_to(run)
    return run


def test_a_generation_loads_and_runs_with_its_cache(run_dir: Path, model: Transformer, suite: TaskSuite) -> None:
    g = load_generation(run_dir, 3)
    logits, cache = g.model.run_with_cache(g.tokens)
    assert g.genome.sha256 == GENOME.sha256
    assert g.inspection is not None
    assert g.inspection["status"] == "complete"
    assert logits.shape == (8 * len(suite.families), suite.config.context, suite.config.vocab_size)
    assert "blocks.1.attn.hook_pattern" in cache.cache_dict
    torch.testing.assert_close(logits, model(g.tokens), rtol=1e-5, atol=1e-5)
    assert torch.equal(g.tokens, load_generation(run_dir, 3).tokens)


@pytest.fixture
def lineage(tmp_path: Path, suite: TaskSuite) -> Path:
    """A run folder with the seed genome and one edit of it, whose weights are kept after a third of its training."""
    run = tmp_path / "lineage"
    (run / "checkpoints").mkdir(parents=True)
    manifest = json.dumps({"tasks": tasks_to_json(suite.config)}).encode()
    (run / "checkpoints" / "all.json").write_bytes(manifest)
    described = {"manifest": "checkpoints/all.json", "manifest_sha256": hashlib.sha256(manifest).hexdigest()}
    asked = {"instruments": ["readability", "constraint"], "also": ["comparison"]}

    def kept(kind: str, name: str, genome: Genome, seed: int, **place: Any) -> str:
        shape = suite.config
        network = build(genome.architecture, vocab_size=shape.vocab_size, context=shape.context, seed=seed)
        data = safetensors.torch.save(network.state_dict())
        (run / "checkpoints" / name).write_bytes(data)
        hashed = {"path": f"checkpoints/{name}", "sha256": hashlib.sha256(data).hexdigest()}
        return line(kind, genome=genome.sha256, seed=seed, **place, **hashed, **described)

    seed, child = seed_genome(), {"generation": 1, "index": 0}
    plan = {"train": 1, "test": 2, "control": 3, "sequences": 48}
    entries = [
        line(
            "run",
            root_seed=5,
            config={"tasks": tasks_to_json(suite.config), "inspection": asked},
            seed_genome=seed.to_json(),
        ),
        line("genome", sha256=GENOME.sha256, genome=GENOME.to_json()),
        kept("checkpoint", "seed", seed, 0, generation=0, index=-1, stage="1/1"),
        kept("checkpoint", "stopped", GENOME, 9, generation=1, index=4, stage="1/3"),
        kept("checkpoint", "child", GENOME, 2, **child, stage="1/1"),
        kept("stage_checkpoint", "third", GENOME, 1, **child, stage="1/3"),
        line("inspection", **child, genome=GENOME.sha256, status="complete", plan=plan),
        line("score", **child, skill=0.25),
        line("proposal", **child, parent=seed.sha256, edits=["recipe.learning_rate=0.003"]),
    ]
    (run / "ledger.jsonl").write_text("".join(entries))
    return run


def test_a_generation_leads_to_its_parent(lineage: Path) -> None:
    g = load_generation(lineage, 1)
    assert g.parent is not None
    assert (g.parent.number, g.parent.genome, g.parent.parent) == (0, seed_genome(), None)
    (lineage / "checkpoints" / "seed").unlink()
    assert load_generation(lineage, 1).parent is None


def test_a_stage_of_a_training_is_loaded_by_its_name(lineage: Path) -> None:
    g, early = load_generation(lineage, 1), load_generation(lineage, 1, stage="1/3")
    assert g.stages == early.stages == ("1/3", "1/1")
    assert (g.record["index"], g.record["seed"], early.record["seed"]) == (0, 2, 1)  # not the one that was stopped
    assert "after 1/3 of its training" in str(early)
    with pytest.raises(RunError, match=r"got 1/9; allowed: stages with a checkpoint: 1/3, 1/1"):
        load_generation(lineage, 1, stage="1/9")


def test_a_changed_stage_does_not_load(lineage: Path) -> None:
    path = lineage / "checkpoints" / "third"
    path.write_bytes(path.read_bytes()[:-1] + b"\1")
    assert load_generation(lineage, 1).stage == "1/1"
    with pytest.raises(InvalidCheckpoint, match="selfimprove audit"):
        load_generation(lineage, 1, stage="1/3")


def test_a_generation_is_inspected_as_its_run_did_it(lineage: Path) -> None:
    g = load_generation(lineage, 1)
    result = g.inspect()
    assert list(result.instruments) == ["readability", "constraint", "comparison"]
    assert result.summary["retention"]["n"] == 2 * 16  # a third of the plan's 48 sequences of each of two families
    assert "cka" in result.summary["comparison"]
    assert list(g.inspect(["logit_lens"]).instruments) == ["readability", "logit_lens"]
    with pytest.raises(ConfigError, match="full, or a list"):
        g.inspect("ful")


def test_an_instrument_of_a_module_that_is_not_imported_is_answered_with_the_module(lineage: Path) -> None:
    ledger = lineage / "ledger.jsonl"
    own = '"also": ["evenness"], "modules": ["my_lab.evenness"]'
    ledger.write_text(ledger.read_text().replace('"also": ["comparison"]', own))
    with pytest.raises(ConfigError, match=r"got evenness; .*; import the module that registers it: my_lab\.evenness"):
        load_generation(lineage, 1).inspect()
    assert "my_lab" not in sys.modules


def test_two_generations_are_compared_in_words(lineage: Path) -> None:
    g = load_generation(lineage, 1)
    assert g.parent is not None
    said = str(compare(g.parent, g))
    assert said.startswith("generation 0 -> generation 1 (skill 0.250)\n  edit      recipe.learning_rate=0.003")
    assert all(word in said for word in ("accuracy  recall", "halt ", "probe     halted", "CKA       blocks.1"))
    stages = str(compare(load_generation(lineage, 1, stage="1/3"), g))
    assert stages.startswith("generation 1 after 1/3 of its training -> generation 1 (skill 0.250)")
    assert "edit " not in stages


def test_a_generation_says_in_one_line_what_it_is(run_dir: Path) -> None:
    said = str(load_generation(run_dir, 3))
    assert "\n" not in said
    assert said.startswith(f"generation 3 of {run_dir}, genome {GENOME.short} (blocks: attention and gelu, attention")
    assert said.endswith("promoted, inspection complete; edits: recipe.learning_rate=0.003")


def test_a_missing_generation_lists_those_that_exist(run_dir: Path) -> None:
    assert generations(run_dir) == (3,)
    with pytest.raises(RunError, match=r"got 9; allowed: generations with a checkpoint: 3; choose one of these"):
        load_generation(run_dir, 9)


def test_a_run_without_a_checkpoint_says_that_there_is_none_yet(run_dir: Path) -> None:
    begun = (run_dir / "ledger.jsonl").read_text().splitlines(keepends=True)[0]
    (run_dir / "ledger.jsonl").write_text(begun)
    with pytest.raises(RunError, match=r"with a checkpoint: none yet; selfimprove status says"):
        load_generation(run_dir, 9)


def test_a_changed_checkpoint_does_not_load(run_dir: Path) -> None:
    path = run_dir / "checkpoints" / "g003.safetensors"
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(bytes(data))
    with pytest.raises(InvalidCheckpoint, match="selfimprove audit"):
        load_generation(run_dir, 3)


def test_a_changed_manifest_does_not_load(run_dir: Path) -> None:
    path = run_dir / "checkpoints" / "g003.json"
    path.write_bytes(path.read_bytes() + b" ")
    with pytest.raises(InvalidCheckpoint, match="selfimprove audit"):
        load_generation(run_dir, 3)


def test_a_checkpoint_outside_the_run_folder_does_not_load(run_dir: Path) -> None:
    ledger = run_dir / "ledger.jsonl"
    ledger.write_text(ledger.read_text().replace("checkpoints/g003", "../../../g003"))
    with pytest.raises(InvalidCheckpoint, match="inside the run folder"):
        load_generation(run_dir, 3)


def test_a_torn_last_line_is_passed_over_and_a_broken_one_is_named(run_dir: Path) -> None:
    ledger = run_dir / "ledger.jsonl"
    whole = ledger.read_text()
    ledger.write_text(whole + '{"kind": "chec')
    assert load_generation(run_dir, 3).number == 3
    separated = whole.replace("recipe.learning_rate=0.003", "a\u2028b\x85c")  # line ends to some, not in JSON lines
    ledger.write_text(separated, encoding="utf-8")
    assert load_generation(run_dir, 3).edits == ("a\u2028b\x85c",)
    ledger.write_text("not json\n" + whole)
    with pytest.raises(RunError, match="line 1"):
        load_generation(run_dir, 3)


def test_a_folder_that_is_no_run_says_so(tmp_path: Path) -> None:
    with pytest.raises(RunError, match=r"ledger\.jsonl"):
        load_generation(tmp_path, 0)


def test_the_latest_run_is_found_from_a_folder_below(run_dir: Path, tmp_path: Path) -> None:
    below = tmp_path / "a" / "b"
    below.mkdir(parents=True)
    assert latest_run(below) == run_dir
    with pytest.raises(RunError, match="make run"):
        latest_run(Path(tmp_path.anchor))


def test_the_tour_runs_as_a_script(run_dir: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    monkeypatch.setenv("SELFIMPROVE_RUN", os.fspath(run_dir))
    runpy.run_path(os.fspath(ROOT / "interp" / "notebooks" / "tour.py"))
    shown = capsys.readouterr().out
    assert "blocks.0.attn.hook_pattern" in shown
    assert all(name in shown for name in ("recall_answer", "halted", "mqar", "blocks.1"))


def test_importing_the_package_loads_neither_torch_nor_transformer_lens() -> None:
    heavy = ("torch", "transformer_lens", "sklearn")
    code = f"import interp, interp.worker, sys; print([m for m in {heavy} if m in sys.modules])"
    shown = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT)
    assert shown.stdout.strip() == "[]"


def test_an_unknown_name_lists_the_known_ones() -> None:
    import interp

    with pytest.raises(AttributeError, match="load_generation"):
        interp.load_generatoin  # noqa: B018

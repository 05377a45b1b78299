"""Each wrong invocation gives one message that says what would be right, exit code 2, and no traceback."""

from __future__ import annotations

import errno
import os
import shutil
from dataclasses import dataclass

import pytest

from selfimprove.errors import SandboxUnavailable


@dataclass(frozen=True)
class Case:
    """Words on the command line, and what the message must contain."""

    words: str
    says: tuple[str, ...]


TYPED = [
    Case("runn", ("runn", "did you mean 'run'?")),
    Case("status --jsn", ("--jsn", "did you mean '--json'?")),
    Case("inspect --generation two", ("two", "--generation")),
    Case("reproduce", ("--generation",)),
    Case("run sed=1", ("sed", "did you mean 'seed'?")),
    Case("run generatons=3", ("generatons", "did you mean 'generations'?")),
    Case("run flops=3", ("flops", "did you mean 'limits.flops'?")),
    Case("run controller.lr=1", ("controller.lr", "did you mean 'controller.learning_rate'?")),
    Case("run +controller.foo=1", ("controller.foo", "learning_rate")),
    Case(
        "run inspection.stage_sequences=16 inspection.stage_retention_floor=0.1",
        ("inspection.stage_retention_floor", "0.1", "above 0.194", "raise inspection.stage_sequences"),
    ),
    Case("run controler=random", ("controler", "did you mean 'controller'?")),
    Case(
        "run controller=radnom", ("radnom", "random, reinforce, tpe, tpe_tuned, transformer", "did you mean 'random'?")
    ),
    Case("run experiment=quik", ("quik", "gpu, meta_alignment, quick, recursion, text, tiny", "did you mean 'quick'?")),
    Case("run +experiment=tiny", ("experiment", "leave out the '+'")),
    Case("run controller=5", ("group", "number")),
    Case("run seed", ("seed", "key=value")),
    Case("run seed=[1", ("seed=[1", "key=value")),
    Case("run seed=1,2", ("seed=1,2", "--multirun")),
    Case("run seed=${nope}", ("nope",)),
    Case("run ~seed", ("seed", "missing")),
    Case("run --multrun", ("--multrun", "did you mean '--multirun'?")),
    Case("run --config-dir nowhere", ("nowhere", "folder")),
    Case("run --experimental-rerun x.pickle", ("pickle", "resume")),
    Case("run hydra.run.dirr=x", ("hydra.run.dirr", "--cfg hydra")),
    Case("run hydra/launcher=nope", ("nope", "basic")),
    Case("run generations=0", ("generations", "got 0", "1 to 100000", "generations=1")),
    Case("run generations=five", ("generations", "five", "whole number")),
    Case("run candidates=2.5", ("candidates", "2.5", "whole number")),
    Case("run alpha=0.9", ("alpha", "0.9", "0.5")),
    Case("run space.architecture=maybe", ("space.architecture", "maybe", "true or false")),
    Case("run tasks.families=[recal]", ("recal", "did you mean 'recall'?")),
    Case("run space.max_width=100", ("100", "128")),
    Case("run limits.flops=-1", ("limits.flops", "-1", "FLOPs")),
    Case("run confirm_seeds=3", ("confirm_seeds", "alpha", "promoted")),
    Case("run space.min_blocks=5 space.max_blocks=2", ("min_blocks", "max_blocks")),
    Case("run allowance_flops=1e13", ("allowance_flops", "limits.candidate_flops")),
    Case("run tasks.families=[]", ("tasks.families", "recall, copy, modular")),
    Case("run tasks.families=[copy,copy]", ("tasks.families", "each once")),
    Case("run tasks.families=[dyck]", ("tasks.held_out", "dyck", "take it out of one")),
    Case("run tasks.held_out=[dick]", ("tasks.held_out", "did you mean 'dyck'?")),
    Case("run tasks.levels.recall=10", ("tasks.levels.recall", "got 10", "0 to 9", "tasks.levels.recall=9")),
    Case("run tasks.levels.recal=1", ("tasks.levels.recal", "did you mean", "recall")),
    Case("run tasks.families=[text]", ("tasks.vocab_size", "got 48", "at least 272", "text")),
    Case("run inspection.instruments=[]", ("inspection.instruments", "readability, probes, logit_lens, constraint")),
    Case("run tasks.vocab_size=16", ("tasks.vocab_size", "got 16", "at least")),
    Case("run tasks.context=8", ("tasks.context", "got 8", "at least")),
    Case("run containment.allow_degraded=[network]", ("allow_degraded", "network", "never")),
    Case("run containment.allow_degraded=[rad]", ("rad", "read, exec, memory, cpu, disk")),
    Case("run controller.width=50", ("controller.width", "got 50", "48, 64")),
    Case("run space.max_width=32", ("seed genome", "architecture.width", "got 64", "space.max_width")),
    Case("run space.max_window=32", ("space.max_window", "got 32", "tasks.context = 24")),
    Case("run space.min_blocks=3", ("seed genome", "got 2 blocks", "3 to 4", "space.min_blocks")),
    Case("run training.seed_batch=12", ("recipe.batch", "got 12", "8, 16, 32, 64", "training.seed_batch")),
    Case("run allowance_flops=1e6", ("allowance_flops", "1000000", "training step of the seed genome")),
    Case(
        "run allowance_flops=2e8", ("allowance_flops", "got 200000000", "at its longest sequences", "tasks.max_context")
    ),
    Case("run limits.parameters=1000", ("limits.parameters", "got 1000", "at least 1", "seed genome")),
    Case("run limits.memory_bytes=1048576", ("limits.memory_bytes", "1048576", "seed genome")),
    Case("run hydra.run.dir=/dev/null/mine", ("/dev/null/mine", "folder")),
    Case("run device=gpu", ("gpu", "auto, cpu, cuda")),
    Case("run tracking.mode=onlin", ("onlin", "did you mean 'online'?")),
    Case("run -m seed=1,2 generatons=3", ("generatons", "did you mean 'generations'?")),
    Case("status", ("runs", "selfimprove run")),
    Case("resume nowhere", ("nowhere", "selfimprove run")),
    *(
        Case(f"{command} nowhere", ("nowhere", "selfimprove run"))
        for command in ("status", "halt", "audit", "inspect", "report", "reproduce --generation 1")
    ),
    Case("compare", ("RUN", "compare --help")),
    Case("compare nowhere elsewhere", ("nowhere", "selfimprove run")),
    Case("study improvment", ("improvment", "did you mean 'improvement'?")),
    Case("benchmark", ("benchmark", "nothing")),
]


def check(answer, says):
    message = answer.err + answer.out
    assert answer.code == 2, message
    assert answer.err.startswith("selfimprove: ")
    assert len(answer.err.strip().splitlines()) == 1, answer.err
    assert "Traceback" not in message
    assert "HYDRA_FULL_ERROR" not in message
    assert all(part in answer.err for part in says), answer.err


@pytest.mark.parametrize("case", TYPED, ids=lambda case: case.words)
def test_a_wrong_invocation_gives_one_message(cli, tmp_path, case):
    check(cli(*case.words.split()), case.says)
    assert not (tmp_path / "runs").exists()  # refused before anything is created


def test_cuda_without_a_gpu_is_refused(cli, monkeypatch):
    monkeypatch.setattr("selfimprove.app.device.missing_for_cuda", lambda: "no NVIDIA GPU is visible")
    check(cli("run", "device=cuda"), ("cuda", "no NVIDIA GPU is visible", "device=cpu"))


def test_a_misspelled_run_folder_is_corrected(cli, finished):
    check(cli("status", "runs/micro/frist"), ("runs/micro/frist", "did you mean 'runs/micro/first'?"))


def test_a_folder_of_runs_is_not_a_run(cli, finished):
    check(cli("status", "runs/micro"), ("ledger.jsonl", "runs/micro/first"))


def test_a_broken_ledger_is_one_message(cli, finished):
    ledger = finished / "ledger.jsonl"
    ledger.write_text("not json\n" + ledger.read_text())
    check(cli("status"), ("ledger",))
    check(cli("inspect"), ("line 1", "selfimprove audit"))
    check(cli("resume"), ("line 1", "selfimprove audit"))


def test_a_ledger_without_a_run_record_cannot_be_resumed(cli, finished):
    (finished / "ledger.jsonl").write_text('{"kind": "score", "body": {}}\n')
    check(cli("resume"), ("run record", "selfimprove audit"))


def test_a_comparison_needs_two_runs_that_began(cli, finished, tmp_path):
    check(cli("compare", "runs/micro/first", "runs/latest"), ("got 1 different", "2 to 26 different runs"))
    begun = tmp_path / "begun"
    begun.mkdir()
    (begun / "ledger.jsonl").write_text("")
    check(cli("compare", "runs/latest", "begun"), ("begun/ledger.jsonl", "run record", "selfimprove audit"))
    shutil.copytree(finished, tmp_path / "copy")
    check(cli("compare", "runs/latest", "copy", "--output", "begun"), ("write the comparison", "begun", "folder"))


def test_an_unknown_generation_is_refused_with_those_that_exist(cli, finished):
    check(cli("inspect", "--generation", "9"), ("9", "1, 2"))


def test_a_run_folder_is_never_used_twice(cli, finished):
    before = (finished / "ledger.jsonl").read_bytes()
    check(cli("run", "debug=micro", "hydra.run.dir=runs/micro/first"), ("runs/micro/first", "selfimprove resume"))
    assert (finished / "ledger.jsonl").read_bytes() == before


def test_a_file_in_place_of_the_runs_folder_is_one_message(cli, tmp_path):
    (tmp_path / "runs").write_text("")
    check(cli("run", "debug=micro"), ("runs", "in the way"))


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_read_only_runs_folder_is_one_message(cli, tmp_path):
    (tmp_path / "runs").mkdir(mode=0o500)
    check(cli("run", "debug=micro"), ("permissions",))


def test_a_full_disk_is_one_message(cli, fake, monkeypatch):
    def run(*arguments, **named):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), "runs/micro/x/ledger.jsonl")

    monkeypatch.setattr(fake, "run", run)
    check(cli("run", "debug=micro"), ("ledger.jsonl", "disk space", "start the run again"))


def test_a_machine_that_cannot_contain_a_run_is_one_message(cli, fake, monkeypatch):
    def run(*arguments, **named):
        raise SandboxUnavailable("contain a worker", "no seccomp", "network must be denied", "use another kernel")

    monkeypatch.setattr(fake, "run", run)
    check(cli("run", "debug=micro"), ("no seccomp", "another kernel"))


def test_a_finished_run_cannot_be_halted(cli, finished):
    check(cli("halt"), ("finished", "nothing is left to stop"))
    assert not (finished / "HALT").exists()


def test_the_debug_switch_shows_the_traceback(cli, monkeypatch):
    monkeypatch.setenv("SELFIMPROVE_DEBUG", "1")
    with pytest.raises(Exception, match="seed"):
        cli("run", "sed=1")

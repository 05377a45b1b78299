"""Each wrong invocation gives one message that says what would be right, exit code 2, and no traceback."""

from __future__ import annotations

import errno
import os
import resource
import shutil
from dataclasses import dataclass

import pytest

from selfimprove.errors import SandboxUnavailable
from tests.app.conftest import Answer


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
    Case(
        "run tasks.families=[recall,mqar,copy,modular] inspection.stage_sequences=19 tasks.held_out=[]"
        " inspection.stage_retention_floor=0.19",
        ("inspection.stage_retention_floor", "0.19", "none of 16 prompts", "inspection.stage_sequences above 19"),
    ),
    Case(
        "run tasks.eval_sequences=8 tasks.held_out=[]"
        " tasks.families=[recall,mqar,copy,modular,induction,compression,memorization,fuzzy,dyck]",
        ("tasks.eval_sequences", "got 8", "at least 9"),
    ),
    Case("run controler=random", ("controler", "did you mean 'controller'?")),
    Case(
        "run controller=radnom", ("radnom", "random, reinforce, tpe, tpe_tuned, transformer", "did you mean 'random'?")
    ),
    Case(
        "run experiment=quik",
        ("quik", "gpu, meta_alignment, quick, recursion, search, text, tiny", "did you mean 'quick'?"),
    ),
    Case("run +experiment=tiny", ("experiment", "leave out the '+'")),
    Case("run controller=5", ("group", "got a number", "an option of")),
    Case("run seed", ("seed", "key=value")),
    Case("run seed=[1", ("seed=[1", "key=value")),
    Case("run seed=1,2", ("seed=1,2", "--multirun")),
    Case("run seed=${nope}", ("nope",)),
    Case("run ~seed", ("take away", "got seed", "leave out ~seed")),
    Case("run ~limits", ("take away", "got limits", "leave out ~limits")),
    Case("run -m seed=1,2 ~space.max_edits=3", ("got space.max_edits", "leave out ~space.max_edits=3")),
    Case("run -m seed=1,2 hydra.run.dir=mine", ("hydra.run.dir=mine", "hydra.sweep.dir=mine")),
    Case("run space=null", ("got null", "an option of", "selfimprove run --help")),
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
    Case("statsu", ("statsu", "did you mean 'status'?")),
    Case("sync --seconds 0", ("--seconds", "got 0", "above 0")),
    Case("sync --seconds soon", ("--seconds", "got soon")),
    Case("sync nowhere", ("nowhere", "selfimprove run")),
    Case("candidates nowhere", ("nowhere", "selfimprove run")),
    Case("dashboard nowhere --json", ("nowhere", "selfimprove run")),
    Case("dashboard --jsom", ("--jsom", "did you mean '--json'?", "selfimprove dashboard --help")),
    Case("demo --foldr x", ("--foldr", "did you mean '--folder'?")),
    Case("claim --exprot x", ("--exprot", "did you mean '--export'?")),
    Case("approve", ("--reason", "approve --help")),
    Case("reproduce --generation 1.5", ("--generation", "got 1.5", "whole number")),
    Case("run progress=quiet", ("set progress", "got quiet", "auto, json")),
    Case("run seed=-1", ("seed", "-1", "0 to")),
    Case("run workers=0", ("workers", "got 0", "1 to 1024")),
    Case("run search_seeds=1000", ("search_seeds", "1000", "1 to 256")),
    Case("run candidates=true", ("candidates", "whole number")),
    Case("run tasks.halt_share=0.95", ("tasks.halt_share", "0.95", "0.9")),
    Case("run limits.wall_seconds=0", ("limits.wall_seconds", "got 0", "0.1")),
    Case("run --cfg jop", ("jop",)),
    Case("benchmark plantd", ("plantd", "did you mean 'planted'?")),
    Case("compare nowhere elsewhere", ("nowhere", "selfimprove run")),
    Case("study improvment", ("improvment", "did you mean 'improvement'?")),
]


def check(answer, says):
    """One message, exit code 2; it says the value, what would be allowed, and what to do."""
    message = answer.err + answer.out
    assert answer.code == 2, message
    assert answer.err.startswith("selfimprove: ")
    assert len(answer.err.strip().splitlines()) == 1, answer.err
    assert "Traceback" not in message
    assert "HYDRA_FULL_ERROR" not in message
    assert all(part in answer.err for part in says), answer.err
    assert ": got " in answer.err, answer.err
    assert len(answer.err.partition("; allowed: ")[2].split("; ")) >= 2, answer.err


@pytest.mark.parametrize(("words", "got"), [(("status", "a", ""), "an empty word"), (("audit", "a", "b: "), "b:")])
def test_an_odd_word_too_many_gets_its_line_too(cli, words, got):
    answer = cli(*words)
    assert answer.code == 2
    assert f"got {got}; allowed: " in answer.err
    assert "Traceback" not in answer.err


@pytest.mark.parametrize("case", TYPED, ids=lambda case: case.words)
def test_a_wrong_invocation_gives_one_message(cli, tmp_path, case):
    check(cli(*case.words.split()), case.says)
    assert not (tmp_path / "runs").exists()  # refused before anything is created


def test_cuda_without_a_gpu_is_refused(cli, monkeypatch):
    monkeypatch.setattr("selfimprove.app.device.missing_for_cuda", lambda: "no NVIDIA GPU is visible")
    check(cli("run", "device=cuda"), ("cuda", "no NVIDIA GPU is visible", "device=cpu"))


def test_a_mistyped_module_of_ones_own_is_answered_with_the_nearest_and_leaves_no_folder(cli, tmp_path):
    (tmp_path / "my_lab").mkdir()
    for name in ("__init__", "evenness"):
        (tmp_path / "my_lab" / f"{name}.py").write_text("1 / 0")
    words = ("inspection.modules=[my_lab.evennes]", "inspection.also=[evenness]")
    check(cli("run", *words), ("inspection.modules", "my_lab.evennes", "did you mean 'my_lab.evenness'?"))
    assert not (tmp_path / "runs").exists()


def test_two_generations_of_one_inspection_are_refused(cli, finished):
    check(cli("inspect", str(finished), "1", "--generation", "2"), ("1 and --generation 2", "one generation"))
    assert cli("inspect", str(finished), "2", "--generation", "2").out == cli("inspect", str(finished), "2").out


def test_a_generation_where_a_run_belongs_gets_the_flag(cli, finished):
    check(cli("inspect", "1"), ("got 1", "of the latest run: selfimprove inspect --generation 1"))


def test_a_generation_of_a_run_without_any_is_answered_with_none_yet(cli, finished, tmp_path):
    first = (finished / "ledger.jsonl").read_text().splitlines(keepends=True)[0]
    (finished / "ledger.jsonl").write_text(first)
    check(cli("inspect", "--generation", "7"), ("inspected generations: none yet", "selfimprove status says"))


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
    def files():
        return {path.relative_to(finished): path.read_bytes() for path in finished.rglob("*") if path.is_file()}

    before = files()
    words = ("run", "debug=micro", "tracking=none", "hydra.run.dir=runs/micro/first")
    check(cli(*words), ("runs/micro/first", "selfimprove resume"))
    assert files() == before


def test_a_file_in_place_of_the_runs_folder_is_one_message(cli, tmp_path):
    (tmp_path / "runs").write_text("")
    check(cli("run", "debug=micro"), ("runs", "in the way"))


BROKEN = [
    (b"", "status", ("at least the run's first entry", "start a new run")),
    (b"", "resume", ("run record", "selfimprove audit")),
    (b"", "reproduce --generation 1", ("ledger",)),
    (bytes(range(256)) + b"\n", "inspect", ("line 1", "selfimprove audit")),
    (b'{"kind": "run"}\n', "resume", ("line 1", "selfimprove audit")),
    (b'{"kind": "run", "body": {}}\n', "resume", ("run record", "selfimprove audit")),
    (b"[1, 2]\n", "candidates", ("line 1", "selfimprove audit")),
    (b'{"kind": "run", "body": {}}\n', "sync", ("--rebuild",)),
]


@pytest.mark.parametrize(("content", "words", "says"), BROKEN, ids=lambda value: str(value)[:30])
def test_a_broken_run_folder_is_one_message(tmp_path, monkeypatch, quiet_logging, capsys, content, words, says):
    """With the real loop: what it says of such a ledger is part of the message."""
    from selfimprove.app.cli import main

    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("SELFIMPROVE_STATE_DIR", str(tmp_path / "state"))
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "ledger.jsonl").write_bytes(content)
    command, *rest = words.split()
    try:
        code = main([command, "run", *rest])
    except SystemExit as stop:
        code = stop.code
    caught = capsys.readouterr()
    check(Answer(code, caught.out, caught.err), says)


def test_a_ledger_that_is_a_folder_is_no_run(cli, tmp_path):
    (tmp_path / "run" / "ledger.jsonl").mkdir(parents=True)
    check(cli("status", "run"), ("run", "a folder that holds ledger.jsonl"))


PLACES = [
    ("compare runs/latest copy --output {place}/c.html", "write the comparison"),
    ("compare runs/latest copy --output a.file/c.html", "write the comparison"),
    ("claim --export a.file/card", "a.file"),
    ("run debug=micro hydra.run.dir={place}/run", "make the run folder"),
    ("run debug=micro hydra.run.dir=a.file/run", "make the run folder"),
    ("demo debug=micro --folder a.file", "--folder"),
]


@pytest.mark.parametrize(("words", "says"), PLACES, ids=lambda value: value[:40])
def test_a_place_that_nobody_can_write_to_is_one_message(cli, finished, tmp_path, words, says):
    """Not even root makes a file in /sys, and a file is no folder for anybody."""
    shutil.copytree(finished, tmp_path / "copy")
    (tmp_path / "a.file").write_text("")
    check(cli(*words.format(place="/sys").split()), (says,))


@pytest.mark.parametrize("words", ["candidates", "compare runs/latest copy", "claim --export card"])
def test_a_disk_that_takes_no_more_is_one_message(cli, finished, tmp_path, words):
    """The kernel refuses to let files grow, as a full disk would: the write itself fails, for root, too."""
    shutil.copytree(finished, tmp_path / "copy")
    cli(*words.split())  # what the first call of all keeps on disk is no part of this
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (200, hard))
    try:
        answer = cli(*words.split())
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    check(answer, ())


@pytest.mark.parametrize("version", [(3, 10), (3, 14)])
def test_a_python_that_is_too_old_or_too_new_is_one_message(cli, monkeypatch, version):
    monkeypatch.setattr("selfimprove.app.cli.RUNNING", version)
    check(cli("status"), (f"got Python 3.{version[1]}", "Python 3.11 to 3.13", "make setup PYTHON="))


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

from __future__ import annotations

import fcntl
import json
import os
import time

import pytest

from selfimprove.app.studies import BENCHMARKS, STUDIES
from selfimprove.archive.audit import AuditReport, Finding

STATUS_KEYS = [
    *("state", "reason", "generation", "candidates"),
    *("charged_flops", "limit_flops", "best_skill", "lineage_sha256"),
]


def test_status_has_exactly_the_documented_keys(cli, finished):
    answer = cli("status", "--json")
    assert answer.code == 0
    assert list(json.loads(answer.out)) == STATUS_KEYS


def test_status_for_people_names_state_budget_and_report(cli, finished):
    out = cli("status").out
    assert all(part in out for part in ("finished", "FLOP", "report.html"))


def test_status_says_who_rules_as_controller_where_a_promotion_raised_the_question(cli, finished):
    assert "controller" not in cli("status").out
    body = {"generation": 2, "accepted": True, "contender": "5d0c" * 16, "reasons": ["better"]}
    with (finished / "ledger.jsonl").open("a", encoding="utf-8") as ledger:
        ledger.write(json.dumps({"kind": "handover", "body": body}) + "\n")
    line = "controller  1 contender after 1 promotion, 1 accepted; genome 5d0c5d0c5d rules since generation 2"
    assert line in cli("status").out


@pytest.mark.parametrize(("ok", "code"), [(True, 0), (False, 1)])
def test_audit_has_exactly_the_documented_keys_and_says_its_verdict_by_exit_code(cli, finished, monkeypatch, ok, code):
    findings = () if ok else (Finding("ledger.jsonl", 3, "the chain is broken"),)
    report = AuditReport(ok, True, 12, findings)
    keys = []

    def played(run_dir, anchor, own_key):
        keys.append(own_key)
        return report

    monkeypatch.setattr("selfimprove.archive.audit.audit", played)
    answer = cli("audit", "--json")
    assert answer.code == code
    found = json.loads(answer.out)
    assert list(found) == ["ok", "anchored", "entries", "findings"]
    assert all(list(finding) == ["file", "line", "what"] for finding in found["findings"])
    plain = cli("audit")
    assert plain.code == code
    assert ok or "ledger.jsonl:3: the chain is broken" in plain.out
    said = "OK: 12 ledger entries: chain" if ok else "NOT OK: 1 finding in 12 ledger entries"
    assert said in plain.out
    assert "anchored on this machine" in plain.out
    assert cli("audit", "--foreign").code == code
    assert keys == [keys[0], keys[0], None] != [None] * 3


@pytest.mark.parametrize(("generation", "code"), [(1, 0), (2, 1)])
def test_reproduce_has_exactly_the_documented_keys_and_says_its_verdict_by_exit_code(cli, finished, generation, code):
    answer = cli("reproduce", "--generation", str(generation), "--json")
    assert answer.code == code
    assert list(json.loads(answer.out)) == ["identical", "weights_sha256"]


def test_reproduce_says_what_differs(cli, finished):
    assert "torch 2.13.0 is now 2.14.0" in cli("reproduce", "--generation", "2").out


def test_inspect_shows_probes_by_layer(cli, finished):
    out = cli("inspect", "--generation", "2").out
    assert "generation 2, candidate 0" in out
    assert "promoted" in out
    assert "layer 2" in out
    assert "0.920" in out


def test_inspect_shows_edits_verdicts_controls_and_layers_by_name(cli, finished, monkeypatch):
    place = {"generation": 2, "index": 0}
    instruments = {"probes": {"verdict": "read"}, "logit_lens": {"verdict": "failed", "reason": "hook missing"}}
    retention = {"kept": 190, "n": 192, "low": 0.9627, "high": 0.9971}
    summary = {"layers": ["embed", "blocks.0"], "probes": {"halted": [0.61, 1]}, "control": {"halted": [1, 0.73]}}
    summary |= {"retention": retention, "probe_details": {"halted": {"majority": 0.58}}}
    seed = {"generation": 0, "index": -1, "status": "complete", "instruments": {}, "summary": {}}
    records = [
        ("proposal", {**place, "edits": ["recipe.batch=8", "architecture.norm=rmsnorm"]}),
        ("inspection", seed),
        ("inspection", {**place, "status": "failed", "instruments": instruments, "summary": summary}),
        ("decision", {**place, "promoted": False}),
    ]
    monkeypatch.setattr("selfimprove.app.folder.records", lambda run_dir: iter(records))
    out = cli("inspect").out
    lines = [" ".join(line.split()) for line in out.splitlines()]
    assert "generation 0, seed genome, genome : complete, the first champion" in out
    assert "generation 2, candidate 0, genome : failed, not promoted" in out
    for line in (
        "edits recipe.batch=8, architecture.norm=rmsnorm",
        "failed logit_lens (hook missing)",
        "halt kept 190 of 192 sequences, 95% interval 0.963 to 0.997",
        "accuracy (0 to 1) embed blocks.0 constant",
        "probe halted 0.610 1.000 0.580",
        "its control 1.000 0.730",
    ):
        assert line in lines


def test_inspect_shows_figures_of_an_instrument_of_one_s_own_clean_and_bounded(cli, finished, monkeypatch):
    summary = {"evenness": {"blocks.0": 0.912, "\x1b[31mred": [1, 2]}, "long": "x" * 5000, "nearest_token": {}}
    body = {"generation": 2, "index": 0, "status": "complete", "instruments": {}, "summary": summary}
    monkeypatch.setattr("selfimprove.app.folder.records", lambda run_dir: iter([("inspection", body)]))
    lines = [" ".join(line.split()) for line in cli("inspect").out.splitlines()]
    assert "evenness blocks.0 0.912; red [1, 2]" in lines
    assert max(map(len, lines)) < 700
    assert "nearest_token" not in " ".join(lines)


@pytest.mark.parametrize(
    "summary",
    [
        {"probes": {"mine": 0.5}},
        {"probes": {"mine": {"blocks.0": 0.5}}, "control": {"mine": 0.4}, "probe_details": {"mine": 0.1}},
        {"probes": {"mine": [0.5]}, "control": {"mine": 0.4}, "probe_details": 3, "layers": 3},
        {"probes": [0.5], "control": 0.4, "logit_lens": "x", "layers": {"a": 1}},
        {"logit_lens": {"recall": None}, "retention": {"n": 3}},
        {"retention": {"n": 3, "kept": 5, "low": "x"}, "probe_details": {"mine": {"majority": "x"}}},
        {"retention": [1]},
        [1],
    ],
)
def test_inspect_shows_what_it_can_of_figures_of_another_form(cli, finished, monkeypatch, summary):
    body = {"generation": 2, "index": 0, "status": "complete", "instruments": {"mine": 3}, "summary": summary}
    monkeypatch.setattr("selfimprove.app.folder.records", lambda run_dir: iter([("inspection", body)]))
    answer = cli("inspect")
    assert answer.code == 0
    assert "generation 2, candidate 0" in answer.out


def test_inspect_shows_a_single_accuracy_of_one_s_own_instrument(cli, finished, monkeypatch):
    summary = {"layers": ["embed", "blocks.0"], "probes": {"halted": [0.61, 1], "mine": 0.5}}
    body = {"generation": 2, "index": 0, "status": "complete", "instruments": {}, "summary": summary}
    monkeypatch.setattr("selfimprove.app.folder.records", lambda run_dir: iter([("inspection", body)]))
    lines = [" ".join(line.split()) for line in cli("inspect").out.splitlines()]
    assert "probe mine 0.500" in lines
    assert "probe halted 0.610 1.000" in lines


def test_inspect_shows_names_as_they_are_and_not_as_markup(cli, finished, monkeypatch):
    summary = {"layers": ["[bold]embed"], "probes": {"key[prev]": [0.5], "x[/y]": [0.5]}, "logit_lens": {"[/z]": [1]}}
    body = {"generation": 2, "index": 0, "status": "complete", "instruments": {}, "summary": summary}
    monkeypatch.setattr("selfimprove.app.folder.records", lambda run_dir: iter([("inspection", body)]))
    answer = cli("inspect")
    assert answer.code == 0
    assert all(name in answer.out for name in ("[bold]embed", "probe key[prev]", "probe x[/y]", "lens [/z]"))


def test_inspect_shows_a_worker_s_reasons_without_what_a_terminal_obeys(cli, finished, monkeypatch):
    evil = "a\x1b]0;title\x07\x1b[2J\nb"
    instruments = {evil: {"verdict": "failed", "reason": evil}}
    body = {"generation": 2, "index": 0, "status": "failed", "reason": evil, "instruments": instruments, "summary": {}}
    monkeypatch.setattr("selfimprove.app.folder.records", lambda run_dir: iter([("inspection", body)]))
    answer = cli("inspect")
    assert answer.code == 0
    assert "reason       a b" in answer.out
    assert not {"\x1b", "\x07"} & set(answer.out)


def test_inspect_takes_the_generation_after_the_run(cli, finished):
    assert cli("inspect", str(finished), "2").out == cli("inspect", "--generation", "2").out


def test_a_full_inspection_is_of_one_generation_the_last_by_default(cli, finished, monkeypatch):
    asked = []

    def again(run_dir, generation):
        asked.append(generation)
        return {"generation": generation, "index": 0, "status": "complete", "path": "full_inspections/x.json"}

    monkeypatch.setattr("selfimprove.loop.reexamination.inspect_again", again)
    assert "details      full_inspections/x.json" in cli("inspect", "--full").out
    found = json.loads(cli("inspect", str(finished), "1", "--full", "--json").out)
    assert [inspection["generation"] for inspection in found["inspections"]] == [1]
    assert asked == [2, 1]


def test_inspect_gives_the_stored_records_as_json(cli, finished):
    found = json.loads(cli("inspect", "--json").out)
    assert [inspection["generation"] for inspection in found["inspections"]] == [1, 2]


def test_report_prints_the_path_it_wrote(cli, finished):
    assert cli("report").out.strip().endswith("report.html")
    assert json.loads(cli("report", "--json").out)["report"].endswith("report.html")


def test_report_takes_any_number_of_baselines_and_names_them_apart(cli, finished, tmp_path):
    for place in ("a/second", "b/second", "third"):
        assert cli("run", "debug=micro", f"hydra.run.dir={place}").code == 0
    others = [f"--baseline={place}" for place in ("a/second", "b/second", "a/second")]
    assert cli("report", "micro/first", *others).code == 0
    shown = json.loads((finished / "report.html").read_text())
    assert shown == {f"{name}/second": str(tmp_path / name / "second") for name in "ab"}
    assert cli("report", "micro/first", "--baseline", "third").code == 0
    assert list(json.loads((finished / "report.html").read_text())) == ["third"]


def test_a_baseline_must_exist_and_be_another_run(cli, finished):
    for name, limit in (("micro/frist", "an existing run folder"), ("micro/first", "another run")):
        answer = cli("report", "micro/first", "--baseline", name)
        assert answer.code == 2
        assert limit in answer.err


def test_a_run_may_be_named_below_the_runs_folder(cli, finished):
    assert cli("status", "micro/first").code == 0


def test_latest_may_be_named(cli, finished):
    assert cli("status", "latest").code == cli("status", "runs/latest").code == 0


def test_without_a_link_the_newest_run_is_the_latest(cli, finished, tmp_path):
    assert cli("run", "debug=micro", "hydra.run.dir=runs/micro/second").code == 0
    (tmp_path / "runs" / "latest").unlink()
    past = time.time() - 100
    os.utime(finished / "ledger.jsonl", (past, past))
    assert "micro/second" in cli("status").out


def test_the_bare_command_says_how_to_start(cli):
    answer = cli()
    assert answer.code == 0
    for command in ("demo", "run experiment=tiny", "doctor"):
        assert f"selfimprove {command} " in answer.out


def test_the_bare_command_finds_the_latest_run_where_it_is(cli, tmp_path):
    place = tmp_path / "elsewhere"
    assert cli("run", "debug=micro", f"hydra.run.dir={place}").code == 0
    assert cli().out.startswith("No run here. The latest, elsewhere, is finished.")


def test_the_bare_command_says_how_to_go_on(cli, finished):
    out = cli().out
    assert "finished" in out
    assert "selfimprove inspect runs/micro/first" in out
    assert "Also waiting" not in out


@pytest.mark.parametrize(
    ("state", "reason", "command"),
    [
        ("paused", "interrupted", "selfimprove resume runs/micro/first  (paused: interrupted)"),
        ("halted", "enough", "selfimprove resume runs/micro/first --clear-halt  (halted: enough)"),
    ],
)
def test_the_bare_command_names_older_runs_that_wait_for_a_person(
    cli, fake, finished, monkeypatch, state, reason, command
):
    assert cli("run", "debug=micro", "hydra.run.dir=runs/micro/second").code == 0
    real = fake.status
    stopped = fake.RunSummary(state, reason, 1, 2, 3, 10, 0.5, "ab" * 32)
    monkeypatch.setattr(fake, "status", lambda run_dir: stopped if run_dir.name == "first" else real(run_dir))
    out = cli().out
    assert out.startswith("2 runs here. The latest, runs/micro/second, is finished.")
    assert command in out.partition("Also waiting for you:")[2]


def test_the_bare_command_says_what_a_tripped_run_waits_for(cli, fake, finished, monkeypatch):
    tripped = fake.RunSummary("paused", "tripwire", 1, 2, 3, 10, 0.5, "ab" * 32, tripped=True)
    monkeypatch.setattr(fake, "status", lambda run_dir: tripped)
    for words in ((), ("status",)):
        assert 'selfimprove approve runs/micro/first --reason "..."' in cli(*words).out


def test_an_approval_names_its_run_and_its_reason(cli, finished):
    for words in (("approve",), ("approve", "micro/first"), ("approve", "--reason", "seen")):
        answer = cli(*words)
        assert answer.code == 2
        assert "required" in answer.err


def test_the_bare_command_works_beside_a_broken_run(cli, finished):
    (finished / "ledger.jsonl").write_text("x\n")
    answer = cli()
    assert answer.code == 0
    assert "unreadable" in answer.out


@pytest.mark.parametrize(("kind", "names"), [("study", STUDIES), ("benchmark", BENCHMARKS)])
def test_without_a_name_those_that_there_are_are_listed_with_a_line_about_each(cli, kind, names):
    answer = cli(kind)
    assert (answer.code, answer.err) == (0, "")
    lines = [line.split(maxsplit=1) for line in answer.out.splitlines()]
    assert [name for name, _ in lines] == list(names)
    assert all(len(about) > 20 and about[-1] in ".?" for _, about in lines)


def test_a_study_whose_code_is_not_there_is_listed_all_the_same(cli, monkeypatch):
    monkeypatch.setattr("selfimprove.app.studies.STUDIES", {"mine": "no_checkout.mine:main"})
    assert cli("study").out == "mine  in a checkout that holds no_checkout.mine\n"


def test_a_study_gets_the_remaining_arguments(cli, monkeypatch):
    seen = []
    monkeypatch.setattr("selfimprove.app.studies.STUDIES", {"mine": "json:loads"})
    monkeypatch.setattr("json.loads", lambda arguments: seen.append(arguments) or 7)
    assert cli("study", "mine", "--fast", "x").code == 7
    assert seen == [["--fast", "x"]]


@pytest.mark.parametrize(
    ("words", "how"),
    [
        (("resume", "x"), "selfimprove resume"),
        (("audit", "x"), "the same command"),
        (("study", "x"), "the same command"),
    ],
)
def test_an_interrupted_command_says_how_to_go_on_with_itself(cli, monkeypatch, words, how):
    def interrupted(words):
        raise KeyboardInterrupt

    monkeypatch.setattr("selfimprove.app.cli._dispatch", interrupted)
    answer = cli(*words)
    assert answer.code == 130
    assert answer.err == f"selfimprove: interrupted; go on with: {how}\n"


def test_halting_works_when_the_ledger_cannot_be_read(cli, finished):
    (finished / "ledger.jsonl").write_text("x\n")
    assert cli("halt", "--reason", "suspicious").code == 0
    assert (finished / "HALT").read_text() == "suspicious\n"


def test_a_halt_is_not_said_to_be_done_while_a_run_whose_ledger_cannot_be_read_goes_on(cli, finished, monkeypatch):
    monkeypatch.setattr("selfimprove.app.commands.HALT_SECONDS", 0.2)
    (finished / "ledger.jsonl").write_text("x\n")
    with (finished / "ledger.jsonl").open() as ledger:
        fcntl.flock(ledger, fcntl.LOCK_EX)
        answer = cli("halt")
    assert answer.code == 0, answer.err
    assert "is requested and not confirmed yet" in answer.out

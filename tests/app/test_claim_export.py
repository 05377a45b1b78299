"""What rsi-audit says about an exported run, and that it can say otherwise."""

from __future__ import annotations

import json
import shlex
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from rsi_audit.card import ITEMS
from rsi_audit.cli import EXIT_FLAG, main

from selfimprove.app.claim_export import evaluations, export, false_pass_rate
from selfimprove.app.report.claim import claim_card
from selfimprove.app.report.records import Record, Records, read_records
from selfimprove.errors import RunError
from selfimprove.loop import run as loop
from selfimprove.loop.config import RunConfig
from tests.loop.played import CONFIG, Player, Silent

HONEST = replace(CONFIG, confirm_seeds=8, alpha=0.01)


def played(config: RunConfig, folder: Path) -> Records:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(loop, "Supervisor", Player)
        patch.setenv("SELFIMPROVE_STATE_DIR", str(folder / "state"))
        loop.run(config, folder / "run", Silent())
    return read_records(folder / "run")


@pytest.fixture(scope="module")
def honest(tmp_path_factory: pytest.TempPathFactory) -> Records:
    """A played run whose gate is the default one: eight pairs at a level of 0.01."""
    return played(HONEST, tmp_path_factory.mktemp("honest"))


def checks(records: Records, folder: Path) -> dict[str, list[str]]:
    """The commands of an export, by the name of their check."""
    commands = [shlex.split(command)[1:] for command in export(records, claim_card(records), folder)]
    return {words[0]: words for words in commands}


def verdict(words: list[str], folder: Path) -> tuple[int, dict[str, Any]]:
    """Exit code and answer of a check."""
    answer = folder / "answer.json"
    code = main([*words, "--json", str(answer)])
    return code, json.loads(answer.read_text(encoding="utf-8"))


def test_every_check_of_rsi_audit_passes_on_a_run(honest: Records, tmp_path: Path) -> None:
    commands = checks(honest, tmp_path)
    found = {name: verdict(words, tmp_path) for name, words in commands.items()}
    assert {name: code for name, (code, _) in found.items()} == dict.fromkeys(
        ("selection", "luck", "card", "ranking"), 0
    )
    assert found["selection"][1]["verdict"] == "NOT FOUND"
    assert found["luck"][1]["verdict"] == "LUCK NEGLIGIBLE"
    assert found["luck"][1]["claims_total"] == len(honest.of("confirmation")) > 0
    assert found["card"][1]["unrecognised"] == []


def test_every_requirement_of_its_card_is_answered_and_not_all_with_yes(honest: Records, tmp_path: Path) -> None:
    _, card = verdict(checks(honest, tmp_path)["card"], tmp_path)
    answers = {row["item"]: row["answer"] for row in card["rows"]}
    assert set(answers) == {name for name, _ in ITEMS}
    assert set(answers.values()) <= {"yes", "no", "partial"}
    assert all(row["evidence"] for row in card["rows"])
    assert answers["matched_control"] == answers["cheats_scored_as_failures"] == "partial"
    assert answers["held_out"] == answers["compute_matched"] == "yes"


def test_the_development_log_holds_every_evaluation_up_to_the_last_choice(honest: Records) -> None:
    rows = evaluations(honest)
    keys = [str(line.body["key"]) for line in honest.of("evaluation")]
    final = [key for key in keys if key.startswith("final/")]
    readings = [line for line in honest.of("reading") if line.body["score"] and "final/" not in line.body["key"]]
    means = [*honest.of("score"), *honest.of("reference"), *honest.of("level_score"), *honest.of("confirmation") * 2]
    assert len(rows) == len(keys) - len(final) + len(readings) + len(means)
    assert {dataset for _, dataset, _ in rows} == {"search", "gate"}
    known = {str(line.body["sha256"])[:10] for line in honest.of("genome")}
    assert {candidate for candidate, _, _ in rows} <= known


def test_choosing_on_the_sealed_split_is_found(honest: Records, tmp_path: Path) -> None:
    """The same run, but two candidates of its first generation were scored on the sealed split as well."""
    proposed = [line.body for line in honest.of("proposal")]
    seen = [
        Record("evaluation", {"key": f"g{b['generation']:03d}/c{b['index']:02d}/s0/sealed", "score": {"skill": skill}})
        for b, skill in zip(proposed, (0.2, 0.9), strict=False)
    ]
    first = next(at for at, line in enumerate(honest.lines) if line.kind == "decision")
    peeked = replace(honest, lines=(*honest.lines[:first], *seen, *honest.lines[first:]))
    words = checks(peeked, tmp_path)["selection"]
    words[-1] = str(proposed[1]["genome"])[:10]
    code, answer = verdict(words, tmp_path)
    assert (code, answer["verdict"]) == (EXIT_FLAG, "SELECTION ON TEST")
    card = json.loads((tmp_path / "card.json").read_text(encoding="utf-8"))
    assert card["held_out"]["answer"] == "no"
    assert card["claim"].startswith("not claimed")


def test_the_gate_split_on_which_candidates_are_compared_is_not_taken_for_a_held_out_one(
    honest: Records, tmp_path: Path
) -> None:
    words = checks(honest, tmp_path)["selection"]
    words[words.index("sealed")] = "gate"
    answer = verdict(words, tmp_path)[1]
    assert answer["distinct_candidates_on_graded_set"] >= 2
    assert answer["verdict"] != "NOT FOUND"


def test_a_lax_gate_is_found_to_pass_by_luck(tmp_path: Path) -> None:
    lax = played(CONFIG, tmp_path)  # two pairs at a level of 0.3: one in four passes by luck
    assert false_pass_rate(lax) == 0.25
    code, answer = verdict(checks(lax, tmp_path)["luck"], tmp_path)
    assert (code, answer["verdict"]) == (EXIT_FLAG, "LUCK MATERIAL")


def test_a_gate_of_eight_pairs_at_one_percent_passes_two_in_256_by_luck(honest: Records) -> None:
    assert false_pass_rate(honest) == 2 / 256


def test_the_command_writes_the_files_and_says_how_to_check_them(cli: Any, honest: Records, tmp_path: Path) -> None:
    folder = tmp_path / "runs" / "a" / "b"
    folder.mkdir(parents=True)
    lines = [{"kind": line.kind, "body": dict(line.body), "time": line.time} for line in honest.lines]
    (folder / "ledger.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
    answer = cli("claim", "a/b", "--export", "card")
    assert answer.code == 0, answer.err
    assert "CLAIMED: The genome promoted last beats the seed genome" in answer.out
    assert "rsi-audit selection card/devlog.csv --graded sealed" in answer.out
    assert sorted(path.name for path in (tmp_path / "card").iterdir()) == [
        *("card.json", "claim.json", "claims.csv", "devlog.csv", "scores.csv")
    ]
    shown = json.loads(cli("claim", "a/b", "--json").out)
    assert shown["claims"][-1] == json.loads((tmp_path / "card" / "claim.json").read_text())["claims"][-1]
    assert shown["claims"][-1]["claimed"] is False
    assert cli("claim", "a/b", "--export", "runs/a/b/ledger.jsonl").code == 2


def test_an_export_replaces_an_earlier_one_and_no_other_file(honest: Records, tmp_path: Path) -> None:
    card, mine = claim_card(honest), tmp_path / "mine"
    mine.mkdir()
    (mine / "scores.csv").write_text("my own scores\n")
    with pytest.raises(RunError, match=r"scores\.csv; allowed: .* earlier export; name another folder with --export"):
        export(honest, card, mine)
    assert [path.name for path in mine.iterdir()] == ["scores.csv"]
    assert (mine / "scores.csv").read_text() == "my own scores\n"
    assert export(honest, card, tmp_path / "card") == export(honest, card, tmp_path / "card")

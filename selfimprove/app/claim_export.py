"""A run's claims as files that rsi-audit 0.1.0 reads: what was tried, what was tested how often, what is claimed.

| file | check |
| --- | --- |
| ``devlog.csv`` | ``selection``: was what is reported picked on the split that it is reported on? |
| ``claims.csv`` | ``luck``: how many promotions would luck alone pass? |
| ``card.json`` | ``card``: what does the claim still owe? |
| ``scores.csv`` | ``ranking``: does the order survive resampling the families? |
| ``claim.json`` | none: the card as it stands in the report |
"""

from __future__ import annotations

import csv
import json
import math
import os
import shlex
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from selfimprove.app.claim_requirements import requirements
from selfimprove.app.report.claim import ClaimCard
from selfimprove.app.report.claim_facts import last_choice
from selfimprove.app.report.comparisons import HELD_OUT, read_comparison, read_confirmations, read_finals
from selfimprove.app.report.records import Record, Records, integer, mapping, text
from selfimprove.archive.records import job_place
from selfimprove.canonical import finite
from selfimprove.errors import RunError

DEVLOG, CLAIMS, CARD, SCORES, CLAIM = "devlog.csv", "claims.csv", "card.json", "scores.csv", "claim.json"
CHAMPION, SEED = "champion", "seed genome"
NAME = 10  # characters of a hash that name a genome

Row = tuple[str, str, float]

_SCORED = ("score", "reference", "level_score")


def export(records: Records, card: ClaimCard, folder: Path) -> tuple[str, ...]:
    """Write the files into a folder, which is made where it is missing.

    Args:
        records: of the run.
        card: its claim card.
        folder: where to.

    Returns:
        The commands that check them.

    Raises:
        RunError: a file cannot be written, or the folder has one of these names that is not of an earlier export.
    """
    run = card.run_id or "run"
    claims, scores = [(run, len(read_confirmations(records)), "yes")], exam(records)
    _check_folder(folder)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        _json(folder / CLAIM, card.to_json())
        _table(folder / DEVLOG, ("candidate", "dataset", "score"), evaluations(records))
        _table(folder / CLAIMS, ("run", "claims", "headline"), claims)
        _table(folder / SCORES, ("agent", "task", "score"), scores)
        _json(folder / CARD, requirements(records, card))
    except OSError as error:
        remedy = f"free space or name another folder ({error.strerror})"
        raise RunError("export the claim card", str(folder), "a writable folder", remedy) from error
    at = {name: shlex.quote(str(folder / name)) for name in (DEVLOG, CLAIMS, CARD, SCORES)}
    ranking = (f"rsi-audit ranking {at[SCORES]} --aggregate mean",) if len({task for _, task, _ in scores}) > 1 else ()
    return (
        f"rsi-audit selection {at[DEVLOG]} --graded sealed --submitted {card.champion[:NAME] or 'none'}",
        f"rsi-audit luck --claims {at[CLAIMS]} --rate {false_pass_rate(records):g}",
        f"rsi-audit card {at[CARD]}",
        *ranking,
    )


def _check_folder(folder: Path) -> None:
    """An earlier export, which its claim card tells, may be replaced, and no other file of these names."""
    taken = [name for name in (DEVLOG, CLAIMS, CARD, SCORES, CLAIM) if os.path.lexists(folder / name)]
    if taken and not _is_export(folder):
        limit = "a folder without such files, or with those of an earlier export"
        raise RunError("export the claim card to", str(folder / taken[0]), limit, "name another folder with --export")


def _is_export(folder: Path) -> bool:
    try:
        found = json.loads((folder / CLAIM).read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return False
    return isinstance(found, dict) and {"run_id", "claims", "owed"} <= found.keys()


def false_pass_rate(records: Records) -> float:
    """Chance of one gate test to pass a candidate that is no better: the largest p it can have below its level.

    The exact test of ``n`` pairs has p-values in steps of ``2**-n``: at a level of 0.01, eight pairs pass 2 of 256.
    With tests of different sizes, the largest of their chances.
    """
    rates = []
    for one in read_confirmations(records):
        patterns = 2 ** len(one.pair.candidate)
        rates.append(max(math.ceil(one.pair.alpha * patterns) - 1, 0) / patterns)
    return max(rates, default=0.0)


def evaluations(records: Records) -> list[Row]:
    """Every evaluation that a choice of the run could rest on: all up to its last choice, in ledger order.

    What an evaluation was made for is taken from where it stands in the ledger, not from its name: one on the sealed
    split before the last choice would be among them.
    """
    early, rows = records.lines[: last_choice(records) + 1], []
    names = _names(records)
    for line in early:
        if line.kind in ("evaluation", "reading") and (skill := _skill(line)) is not None:
            key = text(line.body.get("key"))
            owner, _, split = key.rpartition("/") if line.kind == "evaluation" else (key, "", "search")
            rows.append((_candidate(owner, names), split, skill))
        elif line.kind in _SCORED and (skill := finite(line.body.get("skill"))) is not None:
            rows.append((text(line.body.get("genome"))[:NAME], text(line.body.get("split")) or "search", skill))
        elif line.kind == "confirmation" and (pair := read_comparison(line.body, 0.01, "gate")) is not None:
            for who, skills in (("genome", pair.candidate), ("parent", pair.parent)):
                rows.append((text(line.body.get(who))[:NAME], pair.split, sum(skills) / len(skills)))
    return rows


def exam(records: Records) -> list[Row]:
    """Champion and seed genome by family, in the exam and on the held-out families."""
    found = []
    for pair in read_finals(records):
        if pair.split in ("sealed", HELD_OUT):
            for name, skills in pair.tasks.items():
                found += [(who, name, s) for who, s in zip((CHAMPION, SEED), skills, strict=True) if s is not None]
    return found


def _skill(line: Record) -> float | None:
    return finite(mapping(line.body.get("score")).get("skill"))


def _names(records: Records) -> Mapping[tuple[int | None, str], str]:
    """Genome by generation and by what a job's key calls it: ``c05``, ``parent``, ``confirm/candidate`` and so on."""
    found: dict[tuple[int | None, str], str] = {}
    for line in records.lines:
        body, generation = line.body, integer(line.body.get("generation"))
        if line.kind == "proposal" and (index := integer(body.get("index"))) is not None:
            found[generation, f"c{index:02d}"] = text(body.get("genome"))
            found[generation, "parent"] = text(body.get("parent"))
        elif line.kind == "confirmation":
            found[generation, "confirm/candidate"] = text(body.get("genome"))
            found[generation, "confirm/parent"] = text(body.get("parent"))
        elif line.kind == "score" and not generation:
            found[generation, "seed"] = text(body.get("genome"))
    return found


def _candidate(owner: str, names: Mapping[tuple[int | None, str], str]) -> str:
    """Short hash of whom a slot's key ``g003/c05/s1`` trains; the key itself where the ledger does not tell."""
    words = owner.split("/")
    called = "/".join(words[1:-1])
    if called.startswith("ladder/"):
        return called.removeprefix("ladder/")[:NAME]
    return names.get((job_place(owner)[0], called), "")[:NAME] or owner


def _table(path: Path, head: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(head)
        writer.writerows(rows)


def _json(path: Path, values: Mapping[str, Any]) -> None:
    path.write_text(json.dumps(values, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")

"""Tables of the reference name everything that the product has of their kind."""

from __future__ import annotations

import re

import pytest

from interp.inspection import INSTRUMENTS
from selfimprove.loop.config import InspectionConfig
from selfimprove.loop.journal import IDENTITY
from selfimprove.tasks.registry import FAMILIES
from tests.docs.pages import DOCS, ROOT

SOURCES = [path for path in (ROOT / "selfimprove").rglob("*.py") if "redteam" not in path.parts]
WRITTEN = re.compile(r"(?:\b|_)(?:once|record|append)\(\s*\"([a-z_]+)\"")


def rows(page: str) -> list[tuple[list[str], str]]:
    """Of each row of a page's tables: the names in its first cell, and the row."""
    lines = (DOCS / page).read_text(encoding="utf-8").splitlines()
    found = [(re.findall(r"`([^`]+)`", line.split("|")[1]), line) for line in lines if line.startswith("| `")]
    assert found
    return found


def test_every_kind_of_record_has_its_row_and_no_other() -> None:
    said = [name for names, _ in rows("reference/ledger.md") for name in names]
    written = {kind for path in SOURCES for kind in WRITTEN.findall(path.read_text(encoding="utf-8"))}
    assert {*IDENTITY} < {*said}
    assert {*said} == {*IDENTITY} | written
    assert len(said) == len({*said})


@pytest.mark.parametrize(
    ("page", "known"), [("reference/tasks.md", FAMILIES), ("reference/inspection.md", INSTRUMENTS)]
)
def test_every_family_and_every_instrument_has_its_row(page: str, known: dict[str, object]) -> None:
    assert {name for names, _ in rows(page) for name in names} == {*known}


def test_the_page_says_which_instruments_the_gate_requires() -> None:
    config = InspectionConfig()
    for [name], line in rows("reference/inspection.md"):
        place = "required" if name in config.instruments else "shown" if name in config.also else "with `--full`"
        assert line.split("|")[3].strip().startswith(place), name

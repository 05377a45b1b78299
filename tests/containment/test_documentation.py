"""``docs/containment.md`` names what the code has: properties, what can be given up, categories of attacks."""

from __future__ import annotations

import re
from pathlib import Path

from selfimprove.containment.redteam.registry import CATEGORIES
from selfimprove.containment.sandbox.backend import INDISPENSABLE, PROPERTIES

TEXT = (Path(__file__).parents[2] / "docs" / "containment.md").read_text(encoding="utf-8")


def test_the_table_has_a_row_for_every_property_and_marks_those_that_no_run_may_lose() -> None:
    table = TEXT.partition("## Properties")[2].partition("##")[0]
    rows = re.findall(r"^\| (\**)(\w+)\** \|", table, re.MULTILINE)[1:]
    assert tuple(name for _, name in rows) == PROPERTIES
    assert {name for mark, name in rows if mark} == INDISPENSABLE


def test_the_categories_of_the_red_team_are_all_named() -> None:
    found = re.search(r"Categories: ([\w,\s]+)\.", TEXT)
    assert found is not None
    assert tuple(re.split(r",\s+", found[1])) == CATEGORIES

"""What skill there is without binding: the table of the page about measurement, and what is said beside it."""

from __future__ import annotations

import json
import re

import numpy as np
import pytest

from selfimprove.tasks.batch import UNSCORED, Batch
from selfimprove.tasks.families.copying import Copying
from selfimprove.tasks.family import Setting, Stream
from selfimprove.tasks.registry import FAMILIES
from tests.docs.pages import DOCS, ROOT

TEXT = (DOCS / "measurement.md").read_text(encoding="utf-8")
TABLE = {
    name: [float(cell) for cell in cells.replace("|", " ").split()]
    for name, cells in re.findall(r"^\| `(\w+)` \|((?: (?:\d\.\d\d )?\|){10})$", TEXT, flags=re.MULTILINE)
}


def unbound(batch: Batch, setting: Setting) -> float:
    """Mean loss of who spreads all mass over the values that a sequence shows, as often as they stand there.

    Of a copy these are the ones that are not yet given back, which is all that its order says.
    """
    if isinstance(setting, Copying):
        left = batch.targets[:, -setting.items :]
        shares = [(left[:, at:] == left[:, at : at + 1]).mean(axis=1) for at in range(setting.items)]
        return -float(np.log(shares).mean())
    alike = (batch.tokens[:, None] == batch.targets[..., None]).sum(axis=2)[batch.targets != UNSCORED]
    return -float(np.log(alike / setting.pairs).mean())  # type: ignore[attr-defined]


def test_every_family_in_which_a_sequence_shows_its_values_is_in_the_table() -> None:
    assert {*TABLE} == {"recall", "mqar", "fuzzy", "noisy", "copy"}


@pytest.mark.parametrize("name", TABLE)
def test_without_binding_there_is_the_skill_of_the_table_at_every_level(name: str) -> None:
    found = []
    for setting in FAMILIES[name].ladder:
        context = max(24, setting.min_context)
        batch = setting.generate(Stream(np.random.default_rng(0), "train", 0), 3000, context)
        found.append(setting.scale(context).skill(unbound(batch, setting)))
    assert found == pytest.approx(TABLE[name], abs=0.01)


def test_the_seed_genome_has_no_more_than_that_where_champions_climbed() -> None:
    runs = json.loads((ROOT / "benchmarks/results/improvement/summary.json").read_text(encoding="utf-8"))["runs"]
    exams = [exam for run in runs if run["arm"] == "transformer" for exam in run["families"].items()]
    skills = [family["seed_genome"] for _, family in exams]
    assert f"the seed genome at equal FLOPs has {min(skills):.2f} to {max(skills):.2f}" in TEXT
    assert all(family["seed_genome"] < TABLE[name][family["level"]] for name, family in exams)
    assert f"({TABLE['recall'][0]:.2f} and {TABLE['mqar'][0]:.2f} without any binding" in TEXT

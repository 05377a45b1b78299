"""How good the proposals were: figures counted by hand from a small ledger, on the page and in W&B."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from selfimprove.app import tracked
from selfimprove.app.report import write_report
from selfimprove.app.report.claim_arms import CONTROLS
from selfimprove.app.report.human import Ladder, compare_with_ladder, frozen_ladder
from selfimprove.app.report.quality import GenerationQuality, Quality, read_quality
from selfimprove.app.report.records import Record, Records, read_records
from selfimprove.app.view import RunView
from selfimprove.loop.anytime import Steps
from tests.app import report_fixture as fixture
from tests.app.ledger_writer import Writer, digest

SEED, WINNER = digest("seed"), digest("winner")
LADDER = Ladder("an idea", 0.04, 20, 100, {"recall": 0})


def small_run(gain: float = 0.05) -> Writer:
    """One generation of five: a winner, a worse one, one denied, one invalid, one crashed."""
    out = Writer()
    tasks = {"families": ["recall"], "levels": {"recall": 0}}
    out.add("run", run_id="r", root_seed=0, config={"alpha": 0.3, "allowance_flops": 100, "tasks": tasks})
    out.charge("g000/seed/s0@1/1", "search", 100)
    out.add("score", generation=0, index=-1, genome=SEED, split="search", skill=0.4, tasks={})
    kinds = (["recipe"], ["architecture", "recipe"], ["objective"], ["recipe"], ["architecture"])
    for index, kind in enumerate(kinds):
        place = {"generation": 1, "index": index, "genome": WINNER if index == 0 else digest(index)}
        status = "invalid" if index == 3 else "valid"
        out.add("proposal", **place, parent=SEED, edits=[], kinds=kind, status=status, reason="")
    out.add("denial", generation=1, index=2, genome=digest(2), reason="too dear", limit="flops", value=9, bound=1)
    out.charge("g001/c04/s0@1/9", "lost", 50)
    out.charge("g001/c04/s0@1/9", "search", 50)
    out.add("outcome", key="g001/c04/s0", status="crashed", reason="boom")
    out.charge("g001/parent/s0@1/1", "search", 100)
    out.add("reference", generation=1, genome=SEED, split="search", skill=0.42, tasks={})
    for index, skill in ((0, 0.52), (1, 0.3)):
        out.charge(f"g001/c{index:02d}/s0@1/1", "search", 100)
        out.add("score", generation=1, index=index, genome=digest(index), split="search", skill=skill, tasks={})
    out.charge("g001/confirm/candidate/s0@1/1", "confirm", 200)
    pair = {"candidate": [0.5 + gain] * 2, "parent_skill": [0.5] * 2, "p_value": 0.25, "alpha": 0.3, "split": "gate"}
    out.add("confirmation", generation=1, index=0, genome=WINNER, parent=SEED, **pair)
    out.add("decision", generation=1, index=0, genome=WINNER, promoted=True, reasons=[])
    out.charge("g001/tell@1/1", "controller", 200)
    out.add("controller", generation=1, loss=1.5, entropy=0.75, weights=None, reason="")
    out.add("generation", generation=1, champion=WINNER, best_skill=0.55, charged_flops=out.total, promoted=True)
    return out


def records(writer: Writer) -> Records:
    return Records(tuple(Record(line["kind"], line["body"]) for line in writer.lines))


@pytest.fixture(scope="module")
def quality() -> Quality:
    return read_quality(records(small_run()))


def test_every_flop_counts_whatever_it_was_spent_on(quality: Quality) -> None:
    """100 for the seed; 100 lost and spent on a crash, 100 for the parent and for each score; 200 to confirm."""
    assert quality.best == Steps((100, 400), (0.4, 0.52))
    assert quality.confirmed.charged == (100, 700)
    assert quality.confirmed.values == (0.0, pytest.approx(0.05))
    assert quality.generations[0].charged == 900


def test_area_and_regret_are_those_of_the_best_search_skill(quality: Quality) -> None:
    assert quality.area == pytest.approx((300 * 0.4 + 500 * 0.52) / 900)
    assert quality.regret == pytest.approx(0.48)


def test_what_came_to_nothing_counts_among_the_proposals_of_imp_at_k(quality: Quality) -> None:
    one = quality.generations[0]
    assert one.proposals == 5
    assert one.imp == {1: pytest.approx(0.1 / 5), 4: pytest.approx(0.1 * 4 / 5), 5: pytest.approx(0.1)}


def test_the_leader_counts_with_its_gain_on_fresh_seeds(quality: Quality) -> None:
    assert quality.generations[0].fresh == quality.generations[0].gained == pytest.approx(0.05)


def test_fates_and_kinds_are_counted_proposal_by_proposal(quality: Quality) -> None:
    one = quality.generations[0]
    assert one.fates == {"promoted": 1, "rejected": 1, "denied": 1, "invalid": 1, "failed": 1}
    assert one.share("denied") == 0.2
    assert one.kinds["recipe"] == {"promoted": 1, "rejected": 1, "invalid": 1}
    assert one.kinds["architecture"] == {"rejected": 1, "failed": 1}
    assert (one.entropy, one.loss) == (0.75, 1.5)


def test_one_generation_says_nothing_about_acceleration(quality: Quality) -> None:
    assert str(quality.acceleration) == "not identifiable: 1 steps, where at least 6 are needed"


def test_gains_at_harder_levels_say_nothing_about_acceleration() -> None:
    def of(*risen: int) -> str:
        out = Writer()
        for n in range(1, 13):
            place = {"generation": n, "index": 0, "genome": digest(n)}
            out.add("proposal", **place, parent=SEED, edits=[], kinds=[], status="valid", reason="")
            pair = {"candidate": [0.6] * 2, "parent_skill": [0.5] * 2, "p_value": 0.25, "alpha": 0.3, "split": "gate"}
            out.add("confirmation", **place, parent=SEED, **pair)
            out.add("decision", **place, promoted=True, reasons=[])
            if n in risen:
                out.add("climb", generation=n, risen=["recall"])
            out.add("generation", generation=n, charged_flops=100 * n)
        return str(read_quality(records(out)).acceleration)

    assert of().startswith("1.00 (")
    assert of(8, 11).startswith("1.00 (")
    assert of(2, 8) == "not identifiable: 2 steps, where at least 6 are needed"


def test_without_the_parents_score_nothing_is_said_of_improvement() -> None:
    writer = small_run()
    writer.lines = [line for line in writer.lines if line["kind"] != "reference"]
    one = read_quality(records(writer)).generations[0]
    assert (one.imp, one.fresh) == ({}, None)


def test_the_frozen_ladder_is_the_benchmarks_best_discovery_from_the_seed_genome() -> None:
    ladder = frozen_ladder()
    assert ladder is not None
    assert (ladder.discovery, ladder.n, ladder.allowance) == ("short convolution", 20, 48_000_000_000)
    assert ladder.gain == pytest.approx(0.516, abs=0.001)


def test_a_run_passes_the_ladder_at_the_compute_at_which_its_confirmed_gain_does(quality: Quality) -> None:
    found = compare_with_ladder(records(small_run()), quality.confirmed, LADDER)
    assert (found.recovered, found.passed, found.reason) == (pytest.approx(1.25), 700, "")
    higher = compare_with_ladder(records(small_run()), quality.confirmed, replace(LADDER, gain=0.5))
    assert (higher.recovered, higher.passed) == (pytest.approx(0.1), None)


def test_gains_at_harder_levels_do_not_count_on_the_ladder() -> None:
    writer = small_run()
    at = next(at for at, line in enumerate(writer.lines) if line["kind"] == "confirmation")
    writer.lines.insert(at - 1, {"kind": "climb", "body": {"generation": 0, "risen": ["recall"]}})
    whole = records(writer)
    assert compare_with_ladder(whole, read_quality(whole).confirmed, LADDER).recovered == 0.0


@pytest.mark.parametrize(
    ("ladder", "reason"),
    [
        (replace(LADDER, allowance=99), "another allowance"),
        (replace(LADDER, levels={"recall": 1}), "other families or levels"),
        (replace(LADDER, levels={"recall": 0, "mqar": 0}), "other families or levels"),
    ],
)
def test_what_was_measured_otherwise_is_not_compared(quality: Quality, ladder: Ladder, reason: str) -> None:
    found = compare_with_ladder(records(small_run()), quality.confirmed, ladder)
    assert (found.recovered, found.passed) == (None, None)
    assert reason in found.reason


def test_the_page_shows_the_figures_of_the_ledger(tmp_path: Path) -> None:
    folder = fixture.full_run().write(tmp_path)
    page = write_report(folder).read_text(encoding="utf-8")
    section = page[page.index('<section id="controller"') : page.index('<section id="candidates"')]
    quality = read_quality(read_records(folder))
    rows = re.findall(r'<tr><th scope="row">(\d)</th>(.*?)</tr>', section[section.index('id="quality"') :], re.DOTALL)
    for one, (number, row) in zip(quality.generations, rows, strict=False):
        cells = re.findall(r"<td[^>]*>([^<]*)</td>", row)
        assert (int(number), cells[1]) == (one.generation, str(one.proposals))
        assert cells[2:6] == [_signed(value) for value in (one.imp[1], one.imp[4], one.imp[10], one.fresh)]
    assert len(quality.generations) == 5
    assert 'aria-label="Confirmed gain against charged compute' in section
    assert 'aria-label="imp@k by generation"' in section


def _signed(value: float | None) -> str:
    assert value is not None
    return f"{value:+.3f}".replace("-", "\N{MINUS SIGN}")


def test_the_page_carries_the_card_with_every_claim_and_what_is_owed(tmp_path: Path) -> None:
    page = write_report(fixture.full_run().write(tmp_path)).read_text(encoding="utf-8")
    section = page[page.index('<section id="claims"') : page.index('<section id="lineage"')]
    assert section.count("<tr>") == 1 + 6
    assert section.count('v-good">claimed<') == 2  # the gain over the seed, and the constraint
    assert "not tested: no finished run with controller=random stands beside this one" in section
    assert CONTROLS["sham"] in section
    reading = page[page.index('<section id="reading"') :]
    assert all(text in reading for text in CONTROLS.values())


def test_wandb_gets_the_same_figures_generation_by_generation() -> None:
    view, writer = RunView(), fixture.full_run()
    shown: list[tuple[GenerationQuality, dict[str, Any]]] = []
    for at, line in enumerate(writer.lines):
        view.apply(line["kind"], line["body"])
        if line["kind"] == "generation":
            so_far = replace(records(writer), lines=records(writer).lines[: at + 1])
            shown.append((read_quality(so_far).generations[-1], tracked.metrics(view, line["body"]["generation"])))
    assert len(shown) == 5
    for one, logged in shown:
        assert logged["controller/imp_at_4"] == one.imp[4]
        assert logged["controller/imp_of_all_fresh"] == one.fresh
        assert logged["controller/duplicate_rate"] == one.share("duplicate")
        assert logged["controller/proposal_entropy"] == one.entropy
    assert shown[-1][1]["search/confirmed_gain"] == pytest.approx(sum(one.gained for one, _ in shown))
    assert shown[-1][1]["controller/kind_recipe_rate"] > 0

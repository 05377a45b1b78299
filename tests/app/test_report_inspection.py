"""What the report says of the inspections: the figures of the record, and a reason where there is none."""

from __future__ import annotations

import ast
import inspect
import re
from pathlib import Path
from typing import Any

import pytest

from interp.inspection import INSTRUMENTS
from selfimprove.app.report import write_report
from selfimprove.app.report.controllers import read_controller
from selfimprove.app.report.own_figures import BUILT_IN
from selfimprove.app.report.readings import Inspection, read_inspection
from selfimprove.app.report.text import MINUS
from tests.app import readings
from tests.app import report_fixture as fixture
from tests.app.ledger_writer import Writer


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> str:
    return write_report(fixture.full_run().write(tmp_path_factory.mktemp("run"))).read_text(encoding="utf-8")


def figure(page: str, id_: str) -> str:
    found = re.search(rf'<figure id="{id_}".*?</figure>', page, flags=re.DOTALL)
    assert found is not None
    return found[0]


def inspected(**summary: Any) -> Inspection:
    found = read_inspection({"generation": 3, "index": 1, "status": "complete", "summary": summary})
    assert found is not None
    return found


def _run(folder: Path, *records: tuple[str, dict[str, Any]]) -> str:
    out = Writer()
    out.add("run", run_id="r", experiment="e", root_seed=1, device="cpu", config={}, limits={})
    for kind, body in records:
        out.add(kind, **body)
    return write_report(out.write(folder)).read_text(encoding="utf-8")


def test_the_constraint_out_of_distribution_counts_its_conditions_together_without_the_false_halts() -> None:
    one = inspected(halt_behavior=readings.behavior(0.9, 0.7))
    inside, outside, false = one.kept(inside=True), one.kept(inside=False), one.false_halts
    assert inside is not None
    assert (inside.kept, inside.n) == (180, 200)
    assert outside is not None
    assert (outside.kept, outside.n) == (140 + 100, 400)
    assert false is not None
    assert (false.kept, false.n) == (4, 200)
    assert one.worst is not None
    assert one.worst.name == "unseen_tasks"


def test_likeness_to_the_parent_is_that_of_the_last_layers() -> None:
    beside = inspected(comparison=readings.beside(0.77, 0.66)).beside
    assert beside is not None
    assert (beside.cka, beside.aligned, beside.cosine, beside.chance) == (0.77, 0.66, -0.04, 0.11)
    assert beside.positions == (24, 37)
    assert beside.heads == {"kept": ("previous_token",), "lost": ("duplicate_token",), "gained": ("induction",)}


def test_a_probe_of_the_parent_is_judged_where_the_child_s_own_reads_best() -> None:
    beside = inspected(comparison=readings.beside(0.8, 0.7)).beside
    assert beside is not None
    (transfer,) = beside.transfer
    assert (transfer.layer, transfer.child, transfer.aligned, transfer.direct) == (1, 0.99, 0.91, 0.52)


@pytest.mark.parametrize("broken", [None, 3, "x", [], {"trained": None}, {"trained": {"kept": 9, "n": 4}}])
def test_malformed_figures_of_an_inspection_are_left_out(broken: object) -> None:
    one = inspected(halt_behavior=broken, halt_direction=broken, comparison=broken, layers=broken, probes=broken)
    assert one.conditions == ()
    assert one.kept(inside=True) is None
    assert one.worst is None


@pytest.mark.parametrize("broken", [None, 3, "x", [], {"n": "many"}, {"remaining_budget": None}])
def test_malformed_figures_of_the_controller_are_left_out(broken: object) -> None:
    found = read_controller({"generation": 1, "proposals": broken, "sampled": broken, "probes": broken})
    assert found is not None
    assert found.share("denied") is None
    assert found.drawn_denied is None
    assert all(probe.best is None for probe in found.probes.values())


def test_the_survival_of_the_constraint_is_drawn_in_and_out_of_distribution_from_the_seed_on(page: str) -> None:
    drawn = figure(page, "survival")
    for where, share in (("in distribution", "198 of 200"), ("out of distribution", "320 of 400")):
        assert f"seed, {where}: {share}" in drawn
    assert "g5c" in drawn
    assert "least under unseen tasks" in drawn
    assert drawn.count('class="dot d0"') == 1 + 3 + 1  # seed, three promoted, and the legend's
    assert drawn.count('class="dot d0 open"') == 1 + 1  # generation 5; generation 2 was not read; and the legend's


def test_the_causal_check_stands_beside_random_directions(page: str) -> None:
    out, put = figure(page, "taken-out"), figure(page, "put-in")
    assert "g1c04, no intervention: 194 of 200" in out
    assert "g1c04, halted direction taken out: 20 of 200" in out
    assert "g1c04, random directions taken out: 940 of 1000" in out
    assert "g1c04, halted direction put in: 170 of 200" in put


def test_drift_is_drawn_by_generation(page: str) -> None:
    drawn = figure(page, "drift")
    assert "g1c04, linear CKA: 0.900" in drawn
    assert "g4c02, aligned cosine of the halted directions: 0.500" in drawn
    assert "aligned cosine by chance: 0.110" in drawn


def test_a_candidate_that_was_stopped_is_told_from_the_leader_of_its_generation(tmp_path: Path) -> None:
    read = {"status": "complete", "summary": {"probes": {"halted": [0.9]}, "comparison": readings.beside(0.8, 0.7)}}
    places = [{"generation": 1, "index": index} for index in (0, 4, 7)]
    page = _run(
        tmp_path,
        *(("proposal", {**place, "genome": str(place["index"]), "parent": "p", "status": "valid"}) for place in places),
        ("outcome", {"key": "g001/c04/s0", "status": "stopped", "reason": "the constraint"}),
        ("inspection", {**places[1], **read}),
        ("score", {**places[0], "skill": 0.5, "tasks": {}}),
        ("inspection", {**places[0], **read}),
        ("decision", {**places[0], "promoted": False, "reasons": []}),
        ("generation", {"generation": 1, "champion": "p", "best_skill": 0.5, "charged_flops": 1}),
    )
    drawn = figure(page, "probe-1")
    assert re.findall(r">(g1|c\d\d|▲)<", drawn) == ["g1", "c04", "g1"]
    assert [figure(page, "drift").count(f'"dot d0{hollow}"') for hollow in ("", " open")] == [1, 1 + 1]  # legend's
    assert "only the best candidate of a generation is, and whoever was stopped" in page


def test_a_child_is_compared_with_its_parent_in_words(page: str) -> None:
    assert "halted 0.91 aligned, 0.52 as it is; own 0.99 at blocks.0" in page
    assert "kept previous token; lost duplicate token; gained induction" in page
    assert f"+0.80 aligned (chance 0.11), {MINUS}0.04 as it is" in page


def test_coverage_is_shown_and_what_the_gate_requires_is_told_from_what_is_only_shown(page: str) -> None:
    table = page[page.index("Table of inspections") : page.index('id="survival"')]
    assert "readability<small>required</small>" in table
    assert "logit lens<small>shown</small>" in table
    assert ">80%<" in table
    assert ">100%<" in table


def test_a_run_that_does_not_tell_what_its_gate_requires_marks_nothing(tmp_path: Path) -> None:
    body = {"generation": 1, "index": 0, "status": "complete", "instruments": {"probes": {"verdict": "read"}}}
    found = _run(tmp_path, ("inspection", body))
    assert "<small>required</small>" not in found
    assert "<small>shown</small>" not in found


def test_the_controller_s_reading_stands_beside_its_rates(page: str) -> None:
    table = figure(page, "controller-readings")
    row = re.search(r'<th scope="row">2</th>.*?</tr>', table, flags=re.DOTALL)
    assert row is not None
    cells = re.findall(r'<td class="num">(.*?)</td>', row[0])
    assert cells == ["10", "10%", "20%", "10%", "20%", "1.20", "0.70"]
    assert "remaining budget: 0.70 against 0.52" in row[0]
    assert "generation 2, above a cap: 2 of 10 proposals" in figure(page, "rates")


def test_a_generation_without_proposals_has_no_rate(page: str) -> None:
    row = re.search(r'<th scope="row">0</th>.*?</tr>', figure(page, "controller-readings"), flags=re.DOTALL)
    assert row is not None
    assert re.findall(r'<td class="num">(.*?)</td>', row[0])[:5] == ["0", *4 * ["\N{EN DASH}"]]


def test_a_controller_that_is_no_model_is_not_applicable_with_its_reason_and_its_rates(tmp_path: Path) -> None:
    found = _run(tmp_path, ("controller_inspection", readings.unread_controller(1, "controller=random is no model")))
    table = figure(found, "controller-readings")
    assert "not applicable</span><small>controller=random is no model</small>" in table
    assert table.count(">10%<") == 3
    assert 'id="controller-probes"' not in found


def test_a_run_without_such_readings_says_so_in_place_of_figures(tmp_path: Path) -> None:
    found = _run(tmp_path, ("inspection", {"generation": 1, "index": 0, "status": "failed", "summary": {}}))
    assert "Nothing recorded yet." in figure(found, "survival")
    assert 'id="controller-readings"' not in found
    assert "Beside the parent" not in found


def test_a_figure_whose_instrument_was_not_asked_for_says_so(tmp_path: Path) -> None:
    out = fixture.full_run()
    out.lines[0]["body"]["config"]["inspection"] = {"instruments": ["readability"], "also": ["halt_behavior"]}
    for line in out.lines:
        if line["kind"] == "inspection":
            line["body"]["summary"] = {}
    found = write_report(out.write(tmp_path)).read_text(encoding="utf-8")
    assert "The instrument comparison was not asked for: see inspection.also." in figure(found, "drift")
    assert "The instrument halt_direction was not asked for" in figure(found, "put-in")
    assert "Nothing recorded yet." in figure(found, "survival")
    assert "Nothing recorded yet." not in figure(found, "drift")


def test_the_report_knows_the_figures_of_exactly_the_built_in_instruments() -> None:
    given = set()
    for instrument in INSTRUMENTS.values():
        tree = ast.parse(inspect.getsource(instrument))
        answers = [node.value for node in ast.walk(tree) if isinstance(node, ast.Return)]
        given |= {ast.literal_eval(key) for one in answers if isinstance(one, ast.Dict) for key in one.keys if key}
    assert given == BUILT_IN


def test_the_gate_is_said_to_need_what_it_requires_and_not_a_complete_inspection(page: str) -> None:
    gate = page[page.index('<section id="gate"') : page.index('<section id="inside"')]
    assert "the constraint retained and every required instrument read." in gate
    assert "inspection complete" not in gate


def test_where_only_the_beginning_of_sequences_could_be_compared_the_table_says_so(page: str) -> None:
    table = page[page.index("Beside the parent") :].partition("</table>")[0]
    assert table.count("<small>the first 24 of 37 tokens</small>") == table.count('<th scope="row">') > 0

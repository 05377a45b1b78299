"""The panel of a candidate: what it says of it, that nothing in it is markup, and how it opens and closes."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from markupsafe import escape

from selfimprove.app.report import write_report
from selfimprove.app.report.data import build_report
from selfimprove.app.report.dossier import Dossier, dossiers
from selfimprove.app.report.formula import TIMES, formula
from selfimprove.app.report.origins import Change, changes
from selfimprove.app.report.records import read_records
from selfimprove.app.report.text import MINUS
from selfimprove.errors import InvalidEdit
from selfimprove.genome.edits import apply, parse_edit
from selfimprove.genome.expression import parse
from selfimprove.genome.genome import Genome, seed_genome
from selfimprove.genome.known_losses import KNOWN_LOSSES
from selfimprove.genome.space import Space
from selfimprove.nets.cost import quote
from selfimprove.tasks.registry import family
from selfimprove.tasks.suite import least_context
from tests.app import report_fixture as fixture
from tests.app.browser import CHROMIUM, PATIENCE, axe, examine
from tests.app.devtools import person
from tests.app.ledger_writer import Writer

TASKS = {"vocab_size": 48, "context": 24, "max_context": 64, "families": ["recall", "mqar"], "levels": {}}
ALLOWANCE = 5_000_000_000
ESCAPE = "</template></script><img src=x onerror=document.title='broken'>"


def played() -> Writer:
    """The synthetic run with true genomes: each is its parent's with the recorded edits, where they can be applied."""
    out, genomes, edits, space = fixture.full_run(), {}, {}, Space()
    for body in (line["body"] for line in out.lines if line["kind"] == "proposal"):
        edits[body["genome"]] = (body["parent"], body["edits"])
    for line in out.lines:
        body = line["body"]
        if line["kind"] == "run":
            body["config"] |= {"tasks": TASKS, "allowance_flops": ALLOWANCE}
            body["seed_genome"] = seed_genome().to_json()
        elif line["kind"] == "genome":
            parent, done = edits.get(body["sha256"], ("", []))
            genomes[body["sha256"]] = genome = _edited(genomes.get(parent, seed_genome()), done, space)
            body["genome"] = genome.to_json()
        elif line["kind"] == "decision" and body["generation"] == 1 and body["promoted"]:
            body["reasons"] = [*body["reasons"], ESCAPE]
    return out


def _edited(genome: Genome, edits: list[str], space: Space) -> Genome:
    try:
        for edit in edits:
            genome = apply(parse_edit(edit), genome, space)
    except InvalidEdit:  # one of the made-up edits
        return genome
    return genome


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return played().write(tmp_path_factory.mktemp("run"))


@pytest.fixture(scope="module")
def page(folder: Path) -> Path:
    return write_report(folder)


@pytest.fixture(scope="module")
def found(folder: Path) -> dict[str, Dossier]:
    report = build_report(read_records(folder))
    return {one.name: one for one in dossiers(report, report.candidates)}


def panel(page: Path, name: str) -> str:
    [shown] = re.findall(rf'<template id="about-{name}">(.*?)</template>', page.read_text(encoding="utf-8"), re.DOTALL)
    return shown


def test_every_candidate_of_a_run_of_the_usual_size_has_a_panel(page: Path, found: dict[str, Dossier]) -> None:
    text = page.read_text(encoding="utf-8")
    assert re.findall(r'<template id="about-(\w+)">', text) == list(found)
    assert len(found) == 50


def test_changes_are_every_value_that_takes_effect_and_no_other() -> None:
    seed, space = seed_genome(), Space()
    sgd = apply(parse_edit("recipe.optimizer=sgd"), seed, space)
    assert changes(seed, sgd) == (
        Change("recipe.optimizer", "adamw", "sgd"),
        Change("recipe.beta2", "0.95", "absent"),  # which SGD does not read
    )
    longer = apply(parse_edit("+architecture.blocks.2=copy(1)"), seed, space)
    assert {one.path.rsplit(".", 1)[0] for one in changes(seed, longer)} == {"architecture.blocks.2"}
    assert changes(seed, seed) == ()


def test_a_dossier_says_where_a_candidate_comes_from_and_what_changed(found: dict[str, Dossier]) -> None:
    first, later = found["g1c04"], found["g4c02"]
    assert (first.parent, first.parent_shown) == ("seed genome", False)
    assert first.changes == (Change("architecture.blocks.0.conv_qkv", "false", "true"),)
    assert (later.parent, later.parent_shown) == ("g3c07", True)
    assert later.changes is not None
    assert [one.path for one in later.changes] == ["objective.expression"]
    assert later.changes[0].before == "mul(-1, dot(onehot(1), log_softmax(logits(0))))"


def test_the_quote_is_that_of_the_loop_at_the_level_of_the_generation(
    tmp_path: Path, found: dict[str, Dossier]
) -> None:
    genome = apply(parse_edit("architecture.blocks.0.conv_qkv=true"), seed_genome(), Space())
    assert found["g1c04"].quote == quote(genome, vocab_size=48, context=24, allowance_flops=ALLOWANCE)
    out = played()
    climbed = {"generation": 2, "levels": {"recall": 4, "mqar": 4}, "risen": ["recall"], "capped": []}
    at = next(n for n, line in enumerate(out.lines) if line["body"].get("generation") == 3)
    out.lines.insert(at, {"kind": "climb", "body": climbed})
    report = build_report(read_records(out.write(tmp_path)))
    risen = {one.name: one.quote for one in dossiers(report, report.candidates)}
    before, after = risen["g2c04"], risen["g3c07"]
    assert before is not None
    assert after is not None
    assert (before.phases[-1].size.length, after.phases[-1].size.length) == (24, 25)


def test_charges_are_its_own_with_those_at_the_gate(found: dict[str, Dossier]) -> None:
    half = fixture.CANDIDATE_FLOPS // 2
    assert found["g1c04"].spent == {"search": 2 * half, "confirm": 8 * half}
    assert found["g1c06"].spent == {"search": 2 * half}
    assert found["g1c08"].spent == {"lost": fixture.CANDIDATE_FLOPS // 3}


def test_the_parent_is_scored_on_the_instances_of_the_generation(folder: Path, found: dict[str, Dossier]) -> None:
    lines = read_records(folder).of("reference")
    [reference] = [line.body["tasks"] for line in lines if line.body["generation"] == 4]
    shown = {name: parents for name, _, parents in found["g4c02"].families}
    assert shown == {name: task["skill"] for name, task in reference.items()}


def test_genomes_that_cannot_be_read_cost_only_what_is_read_off_them(tmp_path: Path) -> None:
    report = build_report(read_records(fixture.full_run().write(tmp_path)))
    one = next(one for one in dossiers(report, report.candidates) if one.name == "g1c04")
    assert (one.changes, one.loss, one.quote) == (None, ("", ""), None)
    assert one.spent
    assert one.inspection is not None


def test_no_module_that_a_ledger_names_is_loaded(tmp_path: Path) -> None:
    out = played()
    out.lines[0]["body"]["config"]["tasks"] = TASKS | {"modules": ["no_such_module_of_anybody"]}
    report = build_report(read_records(out.write(tmp_path)))
    assert all(one.quote for one in dossiers(report, report.candidates) if one.loss[0])


def _climbed(folder: Path, **levels: int) -> Path:
    """The run on a family that nobody has registered, with these levels from generation 3 on."""
    out = played()
    out.lines[0]["body"]["config"]["tasks"] = TASKS | {"families": ["recall", "ring"], "modules": ["my_lab.ring"]}
    at = next(n for n, line in enumerate(out.lines) if line["body"].get("generation") == 3)
    out.lines.insert(at, {"kind": "climb", "body": {"generation": 2, "levels": levels, "risen": [], "capped": []}})
    return out.write(folder)


def test_a_quote_needs_no_family_that_has_not_risen(tmp_path: Path) -> None:
    needed = least_context(family("recall").setting(9))
    report = build_report(read_records(_climbed(tmp_path, recall=9, ring=0)))
    quotes = [one.quote for one in dossiers(report, report.candidates) if one.loss[0]]
    assert {one.phases[-1].size.length for one in quotes if one} == {24, needed}
    assert all(quotes)


def test_a_quote_that_only_an_unknown_family_could_tell_is_left_out_with_the_true_reason(tmp_path: Path) -> None:
    page = write_report(_climbed(tmp_path, recall=0, ring=1))
    assert "<dt>Parameters</dt>" in panel(page, "g2c04")
    later = panel(page, "g3c07")
    assert "<dt>Parameters</dt>" not in later
    assert "how long sequences are at the risen level of ring is known to a module of" in later


def test_figures_of_an_instrument_of_one_s_own_stand_in_the_panel_escaped_and_bounded(tmp_path: Path) -> None:
    out = played()
    found = next(line["body"] for line in out.lines if line["kind"] == "inspection" and line["body"]["index"] == 4)
    found["summary"] |= {"evenness": {"blocks.0": 0.912, ESCAPE: 0.5}, "long": "x" * 5000, "ov_qk": {"L0H0": 1}}
    shown = panel(write_report(out.write(tmp_path)), "g1c04").replace("<wbr>", "")
    assert f"<dt>evenness</dt><dd>blocks.0 0.912; {escape(ESCAPE)} 0.5</dd>" in shown
    assert "x" * 599 in shown
    assert "x" * 600 not in shown
    assert "ov_qk" not in shown


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        (KNOWN_LOSSES["cross-entropy"].text, "cross_entropy"),
        ("mul(dot(log_softmax(logits(0)), onehot(1)), -1)", "cross_entropy"),
        (KNOWN_LOSSES["focal"].text, "cross_entropy * (1 - target · softmax(logits))²"),
        (KNOWN_LOSSES["z-loss"].text, "cross_entropy + 0.001 * logsumexp(logits)²"),
        (KNOWN_LOSSES["label smoothing"].text, "cross_entropy + 0.1 * (-mean(log_softmax(logits)))"),
        (KNOWN_LOSSES["temperature"].text, "-target · log_softmax(0.5 * logits)"),
        (KNOWN_LOSSES["multi-token prediction"].text, "cross_entropy + 0.1 * cross_entropy(logits[1], target[2])"),
        ("sub(1, sub(progress, div(2, mul(3, sum(logits(0))))))", "1 - (progress - 2 / (3 * sum(logits)))"),
        ("pow(add(1, mean(logits(0))), -0.5)", "(1 + mean(logits))^(-0.5)"),
        ("maximum(mul(-2, sum(logits(0))), add(1, add(2, 3)))", "maximum(-2 * sum(logits), 1 + 2 + 3)"),
    ],
)
def test_a_loss_reads_as_a_formula(text: str, shown: str) -> None:
    assert formula(parse(text)) == shown.replace("-", MINUS).replace("*", TIMES)


def test_text_of_a_ledger_is_escaped_in_the_panel(page: Path) -> None:
    assert str(escape(ESCAPE)) in panel(page, "g1c04")
    assert ESCAPE not in page.read_text(encoding="utf-8")
    assert fixture.EVIL not in page.read_text(encoding="utf-8")


# Opens the panel from a node and from the table, closes it by the key and by the button, and follows a link in it
CLICKS = """
const dialog = document.getElementById("panel"), at = () => document.activeElement, told = {closed: dialog.open};
const click = (link, more) => link.dispatchEvent(new MouseEvent("click", {bubbles: true, cancelable: true, ...more}));
const turn = () => new Promise((done) => setTimeout(done, 50));
const node = document.querySelector('svg a[href="#g1c04"]'), row = document.querySelector('#g2c05 th a');
node.focus();
click(node, {ctrlKey: true});
told.other = dialog.open;
click(node);
told.node = [dialog.open, document.getElementById("panel-title").textContent, dialog.contains(at())];
told.text = document.getElementById("panel-body").textContent;
told.images = document.getElementById("panel-body").querySelectorAll("img, script").length;
told.violations = [];
for (const scheme of window.axe ? ["light", "dark"] : []) {
  document.documentElement.setAttribute("data-theme", scheme);
  for (const rule of (await axe.run(dialog)).violations) told.violations.push([scheme, rule.id]);
}
dialog.requestClose();
await turn();
told.escaped = [dialog.open, at() === node];
click(row);
told.row = [dialog.open, document.getElementById("panel-title").textContent];
document.getElementById("panel-close").click();
await turn();
told.button = [dialog.open, at() === row];
click(document.querySelector('#g4c02 th a'));
click(dialog.querySelector('a[href="#g3c07"]'));
told.parent = [dialog.open, document.getElementById("panel-title").textContent];
dialog.querySelector('a[href="#g3c07"]:not(.candidate)').click();
await turn();
told.link = [dialog.open, location.hash];
told.title = document.title;
return told;
"""


@pytest.mark.skipif(CHROMIUM is None, reason="no chromium or chrome on the PATH")
def test_the_panel_shows_who_was_clicked_and_leads_on(page: Path, tmp_path: Path) -> None:
    told = examine(page, tmp_path, CLICKS, PATIENCE, "--window-size=1440,1000", library=axe() or "")
    assert (told["closed"], told["other"]) == (False, False)
    assert told["node"] == [True, "Candidate g1c04", True]
    assert "architecture.blocks.0.conv_qkv" in told["text"]
    assert ESCAPE in told["text"]
    assert told["images"] == 0
    assert told["violations"] == []
    assert told["escaped"] == [False, True]
    assert told["row"] == [True, "Candidate g2c05"]
    assert told["button"] == [False, True]
    assert told["parent"] == [True, "Candidate g3c07"]
    assert told["link"] == [False, "#g3c07"]
    assert "broken" not in told["title"]


@pytest.mark.skipif(CHROMIUM is None, reason="no chromium or chrome on the PATH")
def test_real_keys_open_and_close_the_panel_and_the_focus_returns(page: Path, tmp_path: Path) -> None:
    shown = "document.getElementById('panel').open"
    inside = "document.getElementById('panel').contains(document.activeElement)"
    title = "document.getElementById('panel-title').textContent"
    focused = "document.activeElement.getAttribute('href')"
    with person(page, tmp_path) as somebody:
        somebody.reads("document.querySelector('svg a[href=\"#g4c02\"]').focus()")
        somebody.press("Enter")
        somebody.until(shown)
        assert somebody.reads(title) == "Candidate g4c02"
        assert somebody.reads(inside)
        somebody.press("Tab")
        assert somebody.reads("document.activeElement.id") == "panel-close"
        somebody.press("Escape")
        somebody.until(f"!{shown}")
        somebody.until(f"{focused} === '#g4c02'")
        somebody.click("#g1c06 th a")
        somebody.until(shown)
        assert somebody.reads(title) == "Candidate g1c06"
        assert somebody.reads("location.hash") == ""
        somebody.click("#panel-close")
        somebody.until(f"!{shown}")
        somebody.until(f"{focused} === '#g1c06'")

"""Pages as a person meets them: open at once, small, without an error whatever is clicked, and for everybody."""

from __future__ import annotations

from pathlib import Path

import pytest

from selfimprove.app.report.compare import compare_runs, write_comparison
from selfimprove.app.report.records import read_records
from selfimprove.archive.audit import AuditReport, Finding
from tests.app import report_fixture as fixture
from tests.app.browser import CHROMIUM, PATIENCE, axe, browse, examine

pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="no chromium or chrome on the PATH")

AXE = axe()
SECONDS, BYTES = 2.0, 6_000_000

# Every violation of every rule, in both color schemes
ACCESSIBLE = """
const found = {};
for (const scheme of ["light", "dark"]) {
  document.documentElement.setAttribute("data-theme", scheme);
  const told = await axe.run(document, {resultTypes: ["violations"]});
  found[scheme] = {rules: told.passes.length, violations: told.violations.map((rule) =>
    [rule.id, rule.impact, rule.nodes.map((node) => node.html.slice(0, 200))])};
}
return found;
"""

# Follows every link of the page, presses every button, sorts by every column and filters
CLICKS = """
const wrong = [];
addEventListener("error", (event) => wrong.push(event.message));
const links = [...document.querySelectorAll("a")];
for (const link of links) {
  const address = link.getAttribute("href") ?? "";
  if (!address.startsWith("#") || !document.getElementById(address.slice(1))) wrong.push(`leads nowhere: ${address}`);
  link.dispatchEvent(new MouseEvent("click", {bubbles: true, cancelable: true}));
}
const buttons = [...document.querySelectorAll("button")], schemes = new Set();
for (const button of buttons) button.click();
for (const _ of [1, 2, 3]) {
  document.getElementById("theme").click();
  schemes.add(document.documentElement.getAttribute("data-theme"));
}
for (const details of document.querySelectorAll("summary")) details.click();
const filter = document.getElementById("filter"), rows = [...document.querySelectorAll("#table tbody tr")];
filter.value = "promoted";
filter.dispatchEvent(new Event("input"));
const shown = rows.filter((row) => !row.hidden).length;
return {wrong, links: links.length, buttons: buttons.length, schemes: schemes.size, rows: rows.length, shown};
"""


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Of a run with ten generations of thirty-two, as a default run has them, beside another."""
    return fixture.write_page(tmp_path_factory.mktemp("default"), generations=10, candidates=32)


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A report with everything in it and few candidates: axe looks at every element."""
    return fixture.write_page(tmp_path_factory.mktemp("small"))


@pytest.fixture(scope="module")
def comparison(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Of three runs, of which one fails its audit."""
    folder = tmp_path_factory.mktemp("compared")
    runs = {"a": fixture.full_run(), "b": fixture.baseline_run(), "c": fixture.baseline_run(9, sealed=False)}
    broken = AuditReport(False, False, 9, (Finding("ledger.jsonl", 3, "was cut"),))
    records = {name: read_records(run.write(folder / name)) for name, run in runs.items()}
    told = {name: (lines, broken if name == "c" else AuditReport(True, True, 9, ())) for name, lines in records.items()}
    return write_comparison(compare_runs(told), folder / "compare.html")


@pytest.mark.skipif(AXE is None, reason="needs axe-core: pip install -e '.[dev]'")
@pytest.mark.parametrize("page", ["small", "comparison"])
def test_axe_finds_nothing_in_either_color_scheme(page: str, request: pytest.FixtureRequest, tmp_path: Path) -> None:
    assert AXE is not None
    flags = (PATIENCE, "--window-size=1440,1000")
    found = examine(request.getfixturevalue(page), tmp_path, ACCESSIBLE, *flags, library=AXE)
    assert set(found) == {"light", "dark"}, found
    assert all(told["rules"] > 20 for told in found.values())
    assert [told["violations"] for told in found.values()] == [[], []]


def test_a_report_of_ten_generations_opens_within_two_seconds_and_is_small(report: Path, tmp_path: Path) -> None:
    assert report.stat().st_size < BYTES
    laid_out = "document.body.getBoundingClientRect(); return performance.now() / 1000;"
    opened = min(examine(report, tmp_path, laid_out) for _ in range(2))  # the rest is noise of the machine
    assert 0 < opened < SECONDS


def test_every_link_and_button_of_the_report_works(report: Path, tmp_path: Path) -> None:
    found = examine(report, tmp_path, CLICKS, PATIENCE)
    assert found["wrong"] == []
    assert found["links"] > 200
    assert found["buttons"] > 10
    assert found["schemes"] == 3
    assert 0 < found["shown"] < found["rows"] == 320


@pytest.mark.parametrize("page", ["report", "comparison"])
def test_nothing_is_reported_on_the_console(page: str, request: pytest.FixtureRequest, tmp_path: Path) -> None:
    told = browse(request.getfixturevalue(page).as_uri(), tmp_path).stderr
    assert "CONSOLE" not in told
    assert "Content Security Policy" not in told

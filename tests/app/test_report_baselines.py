"""Runs that stand beside the run on its page: their curves, their sealed differences, what they are set up with."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from selfimprove.app.report import write_report
from tests.app import report_fixture as fixture


def _row(page: str, label: str) -> list[str]:
    """Cells of one row of the table of runs, without markup."""
    rows = re.search(r'<figure id="runs">.*?</figure>', page, flags=re.DOTALL)
    assert rows is not None
    [row] = [r for r in re.findall(r"<tr>.*?</tr>", rows[0], flags=re.DOTALL) if f'row">{label}<' in r]
    return [re.sub(r"<[^>]+>", "", cell) for cell in re.findall(r"<t[hd].*?</t[hd]>", row, flags=re.DOTALL)]


def test_a_random_run_stands_beside_the_run_with_its_curve_its_sealed_difference_and_p(tmp_path: Path) -> None:
    run, other = fixture.full_run(), fixture.baseline_run()
    folders = run.write(tmp_path / "run"), other.write(tmp_path / "other")
    page = write_report(folders[0], {"random <proposals>": folders[1]}).read_text(encoding="utf-8")
    assert 'class="series s1"' in page
    assert "random &lt;proposals&gt; (random proposals), best so far" in page
    ours, theirs = _row(page, "this run"), _row(page, "random &lt;proposals&gt;")
    for cells, writer in ((ours, run), (theirs, other)):
        sealed = writer.last("sealed")["sealed"]
        assert cells[-3:] == [f"{sealed['difference']:+.3f}", "0.0039", "8"]
        assert f"{writer.total / 1e12:.3g} TFLOP" in cells
    assert (ours[1], theirs[1]) == ("transformer", "random")
    assert "random &lt;proposals&gt; is set up differently: search_seeds 1 (here 2)" in page


def test_the_curve_of_a_baseline_ends_where_its_spending_does(tmp_path: Path) -> None:
    run, other = fixture.full_run(), fixture.baseline_run()
    folders = run.write(tmp_path / "run"), other.write(tmp_path / "other")
    page = write_report(folders[0], {"random": folders[1]}).read_text(encoding="utf-8")
    ends = [
        re.findall(rf'<path d="M[^"]*?L([\d.]+) [\d.]+" class="series {series}"', page)[0] for series in ("s0", "s1")
    ]
    widths = [float(end) - 58 for end in ends]  # from the y-axis, in pixels
    assert widths[1] / widths[0] == pytest.approx(other.total / run.total, rel=0.01)


def test_a_baseline_without_a_promotion_says_so_in_place_of_a_difference(tmp_path: Path) -> None:
    other = fixture.baseline_run(sealed=False)
    other.lines = [line for line in other.lines if line["kind"] != "decision"]
    folders = fixture.full_run().write(tmp_path / "run"), other.write(tmp_path / "other")
    page = write_report(folders[0], {"random": folders[1]}).read_text(encoding="utf-8")
    assert _row(page, "random")[-3:] == ["no champion but the seed", "\N{EN DASH}", "\N{EN DASH}"]

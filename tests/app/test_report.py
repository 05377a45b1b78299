"""The report page: complete, self-contained, escaped, and good for runs in any state."""

from __future__ import annotations

import importlib.util
import json
import re
import sys
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest

from selfimprove.app.report import write_report
from selfimprove.app.report.page import MAX_TABLE_ROWS
from selfimprove.errors import RunError

VOID = {"meta", "br", "input", "wbr", "link", "img", "hr"}


def _load_fixture() -> Any:
    path = Path(__file__).with_name("report_fixture.py")
    spec = importlib.util.spec_from_file_location("report_fixture", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["report_fixture"] = module  # dataclasses look their module up
    spec.loader.exec_module(module)
    return module


fixture = _load_fixture()


class Page(HTMLParser):
    """Collects tags and checks that every element is closed in order."""

    def __init__(self, source: str) -> None:
        super().__init__()
        self.stack: list[str] = []
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.feed(source)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self.stack.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.stack, f"</{tag}> closes nothing"
        assert self.stack.pop() == tag, f"</{tag}> closes another element"

    def values(self, name: str) -> Iterator[str]:
        """Every value of one attribute."""
        return (value for _, attributes in self.tags if (value := attributes.get(name)))


@pytest.fixture(scope="module")
def run_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return Path(fixture.full_run().write(tmp_path_factory.mktemp("full")))


@pytest.fixture(scope="module")
def page(run_dir: Path) -> str:
    return write_report(run_dir).read_text(encoding="utf-8")


def _render(writer: Any, folder: Path, keep: int | None = None) -> str:
    return write_report(writer.write(folder, keep)).read_text(encoding="utf-8")


def test_the_page_is_written_into_the_run_folder_and_nothing_else_is(run_dir: Path, page: str) -> None:
    assert sorted(path.name for path in run_dir.iterdir()) == ["ledger.jsonl", "report.html"]


def test_every_element_is_closed_in_order(page: str) -> None:
    assert Page(page).stack == []


def test_every_svg_is_well_formed_xml_with_a_name(page: str) -> None:
    drawings = re.findall(r"<svg.*?</svg>", page, flags=re.DOTALL)
    roots = [ElementTree.fromstring(drawing) for drawing in drawings]
    assert len(roots) > 15
    assert all(root.get("aria-label") or root.get("aria-hidden") == "true" for root in roots)


def test_identifiers_are_unique_and_every_internal_link_has_a_target(page: str) -> None:
    parsed = Page(page)
    identifiers = list(parsed.values("id"))
    assert len(identifiers) == len(set(identifiers))
    assert {link.removeprefix("#") for link in parsed.values("href")} <= set(identifiers)


def test_nothing_is_loaded_from_outside_the_file(page: str) -> None:
    parsed = Page(page)
    assert not any(tag in ("link", "img", "iframe", "object", "embed") for tag, _ in parsed.tags)
    assert not list(parsed.values("src"))
    assert "http:" not in page
    assert "https:" not in page
    assert "@import" not in page
    assert "url(" not in page


def test_the_content_policy_admits_only_the_pages_own_script_and_style(page: str) -> None:
    policy = next(Page(page).values("content"))
    assert policy.startswith("default-src 'none'")
    assert "unsafe" not in policy


def test_no_inline_style_or_event_handler_is_used_since_the_policy_would_block_it(page: str) -> None:
    names = {name for _, attributes in Page(page).tags for name in attributes}
    assert "style" not in names
    assert not {name for name in names if name.startswith("on")}


def test_text_of_the_ledger_is_escaped_everywhere(page: str) -> None:
    assert fixture.EVIL not in page
    assert page.count("<script") == 1
    assert "&lt;script&gt;" in page


def test_every_candidate_has_a_row_and_a_node_that_links_to_it(run_dir: Path, page: str) -> None:
    lines = [json.loads(line) for line in (run_dir / "ledger.jsonl").read_text().splitlines()]
    names = [
        f"g{line['body']['generation']}c{line['body']['index']:02d}" for line in lines if line["kind"] == "proposal"
    ]
    assert len(names) == 50
    for name in names:
        assert f'<tr id="{name}"' in page
        assert f'href="#{name}"' in page


def test_no_figure_holds_a_number_that_is_not_finite(page: str) -> None:
    assert not re.search(r"\b(nan|inf|infinity)\b", page, flags=re.IGNORECASE)


def test_the_page_is_under_one_megabyte(page: str) -> None:
    assert len(page.encode()) < 1_000_000


def test_the_same_ledger_gives_the_same_page_byte_for_byte(run_dir: Path, page: str) -> None:
    assert write_report(run_dir).read_text(encoding="utf-8") == page


def test_the_gate_names_its_test_with_seeds_split_and_level(page: str) -> None:
    assert "exact one-sided sign-flip test, 8 paired fresh seeds, gate split, alpha 0.01" in page


def test_a_degraded_property_is_announced_on_top_of_the_page_and_of_every_section(page: str) -> None:
    sections = len(re.findall(r'<section id="[a-z]+" aria-labelledby', page))
    assert page.count("Degraded containment: memory") == sections == 9
    assert "Containment was degraded in this run." in page


def test_a_run_without_degraded_properties_shows_no_warning(tmp_path: Path) -> None:
    assert 'class="warning"' not in _render(fixture.full_run(degraded=()), tmp_path)


def test_state_and_reason_of_the_run_are_shown(page: str) -> None:
    assert "limit reached: generations 5 of 5" in page


def test_baselines_are_drawn_beside_the_run(tmp_path: Path) -> None:
    run = fixture.full_run().write(tmp_path / "run")
    other = fixture.baseline_run().write(tmp_path / "other")
    page = write_report(run, {"random <proposals>": other}).read_text(encoding="utf-8")
    assert "random &lt;proposals&gt;" in page
    assert 'class="series s1"' in page


def test_runs_of_very_different_length_are_compared_on_a_log_axis(tmp_path: Path) -> None:
    run = fixture.full_run().write(tmp_path / "run")
    short = fixture.baseline_run().write(tmp_path / "short", keep=3)
    assert "log scale" in write_report(run, {"short": short}).read_text(encoding="utf-8")


@pytest.mark.parametrize("keep", [0, 1, 2, 3, 4, 5, 8, 20, 57, 130, 300])
def test_a_run_cut_off_anywhere_still_gives_a_whole_page(tmp_path: Path, keep: int) -> None:
    page = _render(fixture.full_run(), tmp_path, keep)
    assert Page(page).stack == []
    assert "no finish record" in page or keep == 0
    assert not re.search(r"\bnan\b", page, flags=re.IGNORECASE)


def test_a_run_with_no_promotion_says_that_the_seed_is_still_champion(tmp_path: Path) -> None:
    writer = fixture.full_run()
    writer.lines = [line for line in writer.lines if line["kind"] != "decision"]
    assert "the seed genome is still the champion" in _render(writer, tmp_path)


def test_a_halted_run_shows_why_and_a_resumed_one_is_running_again(tmp_path: Path) -> None:
    writer = fixture.full_run()
    writer.lines = [line for line in writer.lines if line["kind"] != "finish"]
    writer.add("halt", reason="a person asked")
    assert 'state-halted">halted</span> a person asked' in _render(writer, tmp_path)
    writer.add("clear_halt", reason="checked")
    assert 'state-running">running</span>' in _render(writer, tmp_path)


def test_unknown_records_and_malformed_fields_do_no_harm(tmp_path: Path) -> None:
    writer = fixture.full_run()
    wrong: tuple[object, ...] = (None, "text", float("nan"), [], {}, -1, True, [[1]], 10**400)
    for line in list(writer.lines):
        for value in wrong:
            writer.add(line["kind"], **dict.fromkeys(line["body"], value))
    writer.add("of_tomorrow", anything=1)
    assert Page(_render(writer, tmp_path)).stack == []


def test_lines_that_are_not_records_are_counted_and_announced(tmp_path: Path) -> None:
    folder = fixture.full_run().write(tmp_path)
    with (folder / "ledger.jsonl").open("ab") as ledger:
        ledger.write(b'\xff\xfe{"kind": \n[1, 2]\n{"kind": "score", "bo')
    assert "3 ledger lines could not be read" in write_report(folder).read_text(encoding="utf-8")


@pytest.mark.parametrize(("generations", "candidates"), [(3, 400), (60, 10)])
def test_a_very_long_run_stays_small_and_says_what_it_leaves_out(
    tmp_path: Path, generations: int, candidates: int
) -> None:
    page = _render(fixture.full_run(generations=generations, candidates=candidates), tmp_path)
    assert f"{generations * candidates - MAX_TABLE_ROWS} others are only in the ledger" in page
    assert len(page.encode()) < 1_000_000


def test_a_missing_ledger_is_one_clear_error(tmp_path: Path) -> None:
    with pytest.raises(RunError, match=r"ledger\.jsonl"):
        write_report(tmp_path)


def test_a_folder_that_cannot_be_written_leaves_no_draft_behind(tmp_path: Path) -> None:
    folder = fixture.full_run().write(tmp_path)
    (folder / "report.html").mkdir()
    with pytest.raises(RunError, match="write the report"):
        write_report(folder)
    assert not list(folder.glob(".report*"))

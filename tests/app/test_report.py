"""The report page: complete, self-contained, escaped, and good for runs in any state."""

from __future__ import annotations

import fcntl
import json
import re
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest

from selfimprove.app.claim_requirements import _disclosed
from selfimprove.app.report import write_report
from selfimprove.app.report.page import MAX_TABLE_ROWS
from selfimprove.app.report.records import read_records
from selfimprove.errors import RunError
from tests.app import report_fixture as fixture
from tests.app.ledger_writer import digest
from tests.app.measurements import FAMILIES, TEST

VOID = {"meta", "br", "input", "wbr", "link", "img", "hr"}


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
    assert f"{TEST}, 8 paired fresh seeds, gate split, alpha 0.01" in page


def test_a_degraded_property_is_announced_on_top_of_the_page_and_of_every_section(page: str) -> None:
    sections = len(re.findall(r'<section id="[a-z]+" aria-labelledby', page))
    assert page.count("Degraded containment: memory") == sections == 11
    assert "Containment was degraded in this run." in page


@pytest.mark.parametrize("kind", ["resume", "node"])
def test_a_property_that_a_later_sitting_or_a_node_gave_up_is_announced_too(kind: str, tmp_path: Path) -> None:
    writer = fixture.full_run(degraded=())
    writer.add(kind, state="ready", node="n1", degraded=["read"])
    assert "Containment was degraded in this run." in _render(writer, tmp_path)


def test_versions_that_changed_between_sittings_are_shown_and_make_the_disclosure_partial(tmp_path: Path) -> None:
    writer = fixture.full_run(degraded=())
    [first] = [line["body"]["versions"] for line in writer.lines if line["kind"] == "run"]
    writer.add("resume", entries=9, versions=first | {"torch": "9.9.9"})
    said = f"{first['torch']}, then 9.9.9"
    assert f"<td>{said}</td>" in _render(writer, tmp_path)
    answer, words = _disclosed(read_records(tmp_path))
    assert (answer, said in words) == ("partial", True)


def test_a_run_without_degraded_properties_shows_no_warning(tmp_path: Path) -> None:
    assert 'class="warning"' not in _render(fixture.full_run(degraded=()), tmp_path)


def test_state_and_reason_of_the_run_are_shown(page: str) -> None:
    assert "5 generations done" in page


def test_a_run_that_a_limit_ended_says_which(tmp_path: Path) -> None:
    writer = fixture.full_run()
    writer.lines = [line for line in writer.lines if line["kind"] not in ("finish", "sealed")]
    writer.add("finish", state="limit", reason="go on with limits.wall_seconds: got 901 s; allowed: at most 900 s")
    page = _render(writer, tmp_path)
    assert 'state-limit">limit</span> go on with limits.wall_seconds: got 901 s' in page
    assert "The sealed split has not been opened" in page


def test_a_run_alone_shows_no_table_of_runs(page: str) -> None:
    assert 'id="runs"' not in page


def test_the_result_states_difference_test_tasks_and_retention_of_both_splits(run_dir: Path, page: str) -> None:
    record = next(
        json.loads(line)["body"] for line in (run_dir / "ledger.jsonl").read_text().splitlines() if '"sealed"' in line
    )
    section = page[page.index('<section id="result"') : page.index('<section id="claims"')]
    for split in ("sealed", "gate"):
        pair = record[split]
        assert f"Champion against seed genome, {split} split" in section
        assert f">{pair['difference']:+.3f}<" in section
        kept = pair["retention"]
        assert f"{kept['low']:.3f} to {kept['high']:.3f} ({kept['kept']:,} of {kept['n']:,} halt prompts)" in section
        for name in FAMILIES:
            ours, theirs = (f"{pair[who][name]['skill']:.3f}" for who in ("tasks", "parent_tasks"))
            assert f'{name}</th><td class="num">{ours}</td><td class="num">{theirs}</td>' in section
    assert section.count(f"{TEST}: <strong>p = 0.0039</strong>, 8 seeds, alpha 0.01") == 2


def test_the_result_says_whether_the_gain_carries_over_to_families_that_the_search_never_saw(page: str) -> None:
    section = page[page.index('<section id="result"') : page.index('<section id="claims"')]
    assert "Champion against seed genome, held-out families" in section
    verdict = section[section.index("Trained on families that the search has never seen the champion scores") :][:600]
    assert "not better" in verdict
    assert "p = 0.50" in verdict
    assert all(f'<th scope="row">{name}</th>' in section for name in fixture.HELD_OUT)


def test_the_verdict_names_its_p_value_and_the_tasks_that_got_worse(page: str) -> None:
    verdict = page[page.index("On the sealed split the champion") :][:600]
    assert (
        "over 8 fresh training seeds: better beyond noise (p = 0.0039, alpha 0.01; 8 pairs allow no smaller p)"
        in verdict
    )
    assert "worse than the seed genome on copy (\N{MINUS SIGN}0.125)." in verdict


def test_a_difference_within_noise_is_not_called_better(tmp_path: Path) -> None:
    writer = fixture.full_run()
    writer.last("sealed")["sealed"]["p_value"] = 0.01  # the level itself does not pass
    assert "not better beyond noise (p = 0.010, alpha 0.01)" in _render(writer, tmp_path)


def test_seeds_and_hashes_are_not_dumped_into_the_result(page: str) -> None:
    section = page[page.index('<section id="result"') : page.index('<section id="claims"')]
    assert not re.search(r"\d{15}", section)
    assert section.count("<tr") == 14


def test_the_default_run_needs_no_horizontal_scrolling_at_1440_pixels(page: str) -> None:
    """The page is at most 1400 px wide, of which padding and borders take 78."""
    widths = [float(width) for width in re.findall(r'<svg width="([\d.]+)"', page)]
    assert max(widths) <= 1322


def test_runs_of_very_different_length_are_compared_on_a_log_axis(tmp_path: Path) -> None:
    run = fixture.full_run().write(tmp_path / "run")
    short = fixture.baseline_run().write(tmp_path / "short", keep=3)
    assert "log scale" in write_report(run, {"short": short}).read_text(encoding="utf-8")


@pytest.mark.parametrize("keep", [0, 1, 2, 3, 4, 5, 8, 20, 57, 130, 300])
def test_a_run_cut_off_anywhere_still_gives_a_whole_page(tmp_path: Path, keep: int) -> None:
    page = _render(fixture.full_run(), tmp_path, keep)
    assert Page(page).stack == []
    assert "selfimprove resume goes on" in page or keep == 0
    assert not re.search(r"\bnan\b", page, flags=re.IGNORECASE)


def test_a_run_with_no_promotion_says_that_the_seed_is_still_champion(tmp_path: Path) -> None:
    writer = fixture.full_run()
    writer.lines = [line for line in writer.lines if line["kind"] not in ("decision", "sealed")]
    page = _render(writer, tmp_path)
    assert "the seed genome is still the champion" in page
    assert "There is nothing to compare" in page


def test_a_proposal_that_is_the_seed_genome_again_is_no_step_towards_the_champion(tmp_path: Path) -> None:
    writer = fixture.full_run()
    again = next(line["body"] for line in writer.lines if line["body"].get("status") == "duplicate")
    again["genome"] = digest("seed")
    steps = re.search(r'<ol class="path">(.*?)</ol>', _render(writer, tmp_path), re.DOTALL)
    assert steps is not None
    assert re.findall(r"<li><a[^>]*>(\w+)</a>", steps[1]) == ["g1c04", "g3c07", "g4c02"]


def test_a_halted_run_shows_why_and_a_resumed_one_runs_while_a_process_holds_its_ledger(tmp_path: Path) -> None:
    writer = fixture.full_run()
    writer.lines = [line for line in writer.lines if line["kind"] != "finish"]
    writer.add("halt", reason="a person asked")
    assert 'state-halted">halted</span> a person asked' in _render(writer, tmp_path)
    writer.add("clear_halt", reason="checked")
    folder = writer.write(tmp_path)
    with (folder / "ledger.jsonl").open("rb") as ledger:
        fcntl.flock(ledger, fcntl.LOCK_EX)
        assert 'state-running">running</span>' in write_report(folder).read_text(encoding="utf-8")
    assert 'state-paused">paused</span> interrupted' in write_report(folder).read_text(encoding="utf-8")


def test_a_controller_that_failed_is_among_the_events(tmp_path: Path) -> None:
    writer = fixture.full_run()
    writer.add("controller", generation=3, loss=None, weights=None, reason="over limits.candidate_flops")
    assert "the controller did not learn: over limits.candidate_flops" in _render(writer, tmp_path)


def test_the_generations_tell_what_was_stopped_early_and_the_regret_of_it(tmp_path: Path) -> None:
    writer = fixture.full_run()
    summaries = [line["body"] for line in writer.lines if line["kind"] == "generation"]
    summaries[0] |= {"stopped": 6, "regret": {"skill": 0.1, "nats": 0.125}}
    summaries[1] |= {"stopped": 5, "regret": None}
    page = _render(writer, tmp_path)
    rows = re.findall(r'<td class="num">([^<]*)</td><td class="num">([^<]*)</td><td>(?:none|<a href="#g)', page)
    assert rows[:3] == [("6", "0.125"), ("5", "\u2013"), ("\u2013", "\u2013")]


def test_the_levels_reached_are_a_headline_and_a_table_tells_champion_and_seed_apart_on_each(tmp_path: Path) -> None:
    out = fixture.full_run()
    champion, family = digest("champion"), {"recall": {"skill": 0.953}}
    out.add("climb", generation=2, genome=champion, levels={"recall": 1, "copy": 0}, risen=["recall"], capped=[])
    kept = {"kept": 186, "n": 192}
    out.add("level_score", generation=2, genome=champion, levels={"recall": 1}, tasks=family, retention=kept)
    out.add("level_score", generation=2, genome=digest("seed"), tasks={"recall": {"skill": 0.412}})
    out.add("climb", generation=3, genome=champion, levels={"recall": 2, "copy": 0}, risen=["recall"], capped=["copy"])
    out.add("climb", generation="x", risen=None, capped=None)  # malformed: passed over
    page = _render(out, tmp_path)
    assert "recall 2, copy 0" in page
    figure = page[page.index('<figure id="climb">') :].partition("</figure>")[0]
    assert "The top of copy was mastered in generation 3: nothing harder is left of it." in figure
    cells = re.findall(r"<t[dh][^>]*>([^<]*)</t[dh]>", figure.partition("<tbody>")[2])
    first, second = cells[:6], cells[6:]
    assert first == ["2", "recall", "1", "0.953", "0.412", "97%"]
    assert second == ["3", "recall", "2", "\u2013", "\u2013", "\u2013"]
    assert "champion, harder tasks: 186 of 192 kept" in page
    assert "champion after its tasks became harder" in page


def test_a_run_that_rose_nowhere_says_so(page: str) -> None:
    assert "no family was mastered" in page
    assert 'id="climb"' not in page


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
    assert set(re.findall(r'href="#([^"]+)"', page)) <= set(re.findall(r'\bid="([^"]+)"', page))


def test_a_missing_ledger_is_one_clear_error(tmp_path: Path) -> None:
    with pytest.raises(RunError, match=r"ledger\.jsonl"):
        write_report(tmp_path)


def test_a_folder_that_cannot_be_written_leaves_no_draft_behind(tmp_path: Path) -> None:
    folder = fixture.full_run().write(tmp_path)
    (folder / "report.html").mkdir()
    with pytest.raises(RunError, match="write the report"):
        write_report(folder)
    assert not list(folder.glob(".report*"))


def test_a_weakened_gate_and_an_editable_constraint_are_announced_on_the_page(tmp_path: Path) -> None:
    writer = fixture.full_run(degraded=())
    config = writer.lines[0]["body"]["config"]
    config["inspection"]["retention_gate"], config["space"] = False, {"constraint_editable": True}
    page = _render(writer, tmp_path)
    assert 'id="unguarded"' in page
    for words in ("inspection.retention_gate=false", "space.constraint_editable=true", "The gate was weakened"):
        assert words in page
    assert "needs the constraint retained" not in page

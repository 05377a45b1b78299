"""The report's parts: tolerant fields, scales, colors, shortened edits, fates."""

from __future__ import annotations

import math
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from selfimprove.app.report import write_report
from selfimprove.app.report.colors import ink, sequential
from selfimprove.app.report.data import build_report
from selfimprove.app.report.records import Record, Records, integer, texts
from selfimprove.app.report.scores import read_retention
from selfimprove.app.report.svg import Scale, element, nice_step, px
from selfimprove.app.report.text import breakable, brief_edit, edit_lines, p_text
from selfimprove.app.units import duration, flops, size
from selfimprove.app.view import job_place
from selfimprove.canonical import finite
from tests.app import report_fixture as fixture


@pytest.mark.parametrize("value", [None, True, "1", float("nan"), float("inf"), 10**400, [1], {}])
def test_only_finite_numbers_count_as_numbers(value: object) -> None:
    assert finite(value) is None


@pytest.mark.parametrize(("value", "expected"), [(3, 3), (3.0, 3), (3.5, None), ("3", None)])
def test_integers_are_whole_numbers(value: object, expected: int | None) -> None:
    assert integer(value) == expected


@pytest.mark.parametrize(
    ("key", "place"),
    [("g003/c05/s1", (3, 5)), ("g003/confirm/parent/s4", (3, None)), ("g12/c7", (12, 7)), ("x", (None, None))],
)
def test_job_keys_name_their_generation_and_candidate(key: str, place: tuple[int | None, int | None]) -> None:
    assert job_place(key) == place


def test_a_bare_string_counts_as_one_text_and_other_items_are_dropped() -> None:
    assert texts("a") == ("a",)
    assert texts(["a", 1, None, "b"]) == ("a", "b")


def test_a_coordinate_that_is_not_finite_is_refused() -> None:
    with pytest.raises(ValueError, match="finite"):
        px(math.nan)


def test_attributes_and_children_are_escaped() -> None:
    assert '"' not in element("text", "<b>", aria_label='"x"')[len('<text aria-label="') : -len('">&lt;b&gt;</text>')]
    assert "&lt;b&gt;" in element("text", "<b>")


@given(st.floats(-1e6, 1e6), st.floats(1e-6, 1e6), st.integers(1, 12))
def test_ticks_are_few_ordered_and_inside_the_domain(low: float, span: float, count: int) -> None:
    scale = Scale(low, low + span, 0, 100)
    ticks = scale.ticks(count)
    slack = nice_step(span, count) * 1e-6 + abs(low) * 1e-9
    assert len(ticks) <= count + 1
    assert list(ticks) == sorted(ticks)
    assert all(low - slack <= tick <= low + span + slack for tick in ticks)


@given(st.floats(-1, 2))
def test_text_on_any_color_of_the_scale_has_enough_contrast(share: float) -> None:
    color = sequential(share)
    linear = [int(color[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in linear]
    luminance = 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]
    ratio = (luminance + 0.05) / 0.05 if ink(color) == "on-light" else 1.05 / (luminance + 0.05)
    assert ratio >= 4.5


@given(st.lists(st.text(max_size=120), max_size=5), st.integers(20, 60), st.integers(2, 4))
def test_edit_labels_fit_on_the_lines_they_have(edits: list[str], limit: int, most: int) -> None:
    lines = edit_lines(edits, limit, most)
    assert 1 <= len(lines) <= most
    assert all(len(line) <= limit for line in lines)


@given(st.lists(st.sampled_from(["recipe.batch=8", "architecture.norm=rmsnorm", "recipe.clip=0"]), max_size=6))
def test_every_short_edit_gets_a_line_or_is_counted(edits: list[str]) -> None:
    lines = edit_lines(edits, 30, 3)
    left_out = max(len(edits) - 3, 0)
    assert len(lines) == min(max(len(edits), 1), 3)
    assert (f"+{left_out} more" in lines[-1]) == (left_out > 0)


def test_a_long_edit_is_broken_after_commas_and_signs_and_keeps_small_brackets_whole() -> None:
    edit = "objective.expression=add(_, mul(0.1, sub(1, dot(onehot(1), softmax(logits(0))))))"
    assert edit_lines([edit], 27, 3) == (
        "loss=add(_, mul(0.1, sub(1,",
        "\u00a0\u00a0dot(onehot(1),",
        "\u00a0\u00a0softmax(logits(0))))))",
    )
    assert "logits(0))))))" in breakable(edit)


def test_a_brief_edit_drops_what_shape_and_color_already_say() -> None:
    assert brief_edit("objective.expression.args.1.args.0=softmax(logits(0))") == "loss.1.0=softmax(logits(0))"
    assert brief_edit("architecture.blocks.0<->architecture.blocks.1") == "blocks.0<->blocks.1"


def test_quantities_read_the_way_a_person_writes_them() -> None:
    assert flops(2_360_000_000_000) == "2.36 TFLOP"
    assert [flops(value) for value in (999.4, 999_600_000_000, 999.6e18, 12_345e18)] == [
        "999 FLOP",
        "1 TFLOP",
        "1,000 EFLOP",
        "12,345 EFLOP",
    ]
    assert [duration(seconds) for seconds in (5, 75, 3725)] == ["5 s", "1 min 15 s", "1 h 02 min"]
    assert (size(2147483648), size(67108864), size(100)) == ("2 GiB", "64 MiB", "100 B")
    assert p_text(0.00390625) == "p = 0.0039"
    assert p_text(0.00001) == "p < 0.0001"


@given(st.integers(1, 400), st.data())
def test_a_retention_without_an_interval_gets_one_that_holds_the_rate(n: int, data: st.DataObject) -> None:
    kept = data.draw(st.integers(0, n))
    found = read_retention({"kept": kept, "n": n})
    assert found is not None
    assert 0 <= found.low <= kept / n <= found.high <= 1


def test_impossible_retention_counts_are_not_shown() -> None:
    assert read_retention({"kept": 5, "n": 4}) is None
    assert read_retention({"kept": 0, "n": 0}) is None


def _fate(*records: tuple[str, dict[str, object]]) -> str:
    lines = tuple(Record(kind, {"generation": 1, "index": 0, **body}) for kind, body in records)
    return build_report(Records(lines)).candidates[0].fate


PROPOSAL: tuple[str, dict[str, object]] = ("proposal", {"status": "valid", "edits": ["recipe.batch=8"]})
SCORE: tuple[str, dict[str, object]] = ("score", {"split": "search", "skill": 0.5})


def test_a_valid_proposal_without_a_result_is_pending() -> None:
    assert _fate(PROPOSAL) == "pending"


def test_a_scored_proposal_is_rejected_once_its_generation_is_over() -> None:
    assert _fate(PROPOSAL, SCORE) == "pending"
    assert _fate(PROPOSAL, SCORE, ("generation", {})) == "rejected"


def test_a_crash_of_one_seed_does_not_make_a_scored_candidate_failed() -> None:
    crash: tuple[str, dict[str, object]] = ("outcome", {"key": "g001/c00/s1", "status": "crashed"})
    assert _fate(PROPOSAL, crash) == "failed"
    assert _fate(PROPOSAL, crash, SCORE, ("generation", {})) == "rejected"


def test_a_candidate_that_a_reading_stopped_is_told_from_one_that_failed() -> None:
    stop: tuple[str, dict[str, object]] = ("outcome", {"key": "g001/c00/s0", "status": "stopped"})
    crash: tuple[str, dict[str, object]] = ("outcome", {"key": "g001/c00/s1", "status": "crashed"})
    assert _fate(PROPOSAL, stop) == "stopped"
    assert _fate(PROPOSAL, stop, crash) == "failed"


def test_a_denied_proposal_is_denied() -> None:
    assert _fate(PROPOSAL, ("denial", {"reason": "too large"})) == "denied"


def test_hand_overs_have_a_row_each_with_figures_and_reasons(tmp_path):
    run = fixture.full_run().write(tmp_path)
    page = write_report(run).read_text(encoding="utf-8")
    part = page[page.index('id="handovers"') :]
    part = " ".join(re.sub(r"<[^>]+>", " ", part[: part.index("</figure>")]).split())
    assert "2 contenders after 3 promotions, 1 accepted; genome" in part
    assert "does not take over proposes no better beyond noise" in part
    assert "20 8 succeeded −0.550 −0.690 +0.140 0.0078 takes over proposes better" in part  # noqa: RUF001
    assert "nobody stood 4 held-out proposals are too few" in part


def test_a_run_without_hand_overs_has_no_part_about_them(tmp_path):
    run = fixture.baseline_run().write(tmp_path)
    assert 'id="handovers"' not in write_report(run).read_text(encoding="utf-8")

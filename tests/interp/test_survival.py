"""The constraint's curve is what the ledger says, champion by champion; many lineages make a Kaplan-Meier curve."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from interp.survival import EVALUATED, FLOOR, TRAINED, survival, survival_of_runs
from interp.verdict import NotApplicable
from selfimprove.errors import RunError
from selfimprove.tasks.score import Proportion

N = 100  # halt prompts


def line(kind: str, **body: Any) -> str:
    return json.dumps({"kind": kind, "body": body}) + "\n"


def share(kept: int) -> dict[str, Any]:
    return vars(Proportion.of(kept, N))


def behavior(**kept: int) -> dict[str, Any]:
    """A summary in which each condition has so many prompts kept, beside one that counts false halts."""
    told = {name: {"measure": "kept", "distribution": "out", **share(count)} for name, count in kept.items()}
    return {"halt_behavior": {**told, "plain": {"measure": "false", "distribution": "in", **share(0)}}}


def generation(n: int, kept: int, *, promoted: bool, summary: dict[str, Any] | None = None) -> list[str]:
    """One generation whose leader kept so many prompts in its confirmation."""
    place = {"generation": n, "index": 2, "genome": f"g{n}"}
    return [
        line("inspection", **place, summary=behavior(trained=kept, long=kept // 2) if summary is None else summary),
        line("confirmation", **place, retention=share(kept)),
        line("decision", **place, promoted=promoted),
        line("generation", generation=n),
    ]


def run(folder: Path, *generations: list[str]) -> Path:
    folder.mkdir(parents=True)
    seed = {"generation": 0, "index": -1, "genome": "seed"}
    first = [
        line("score", **seed, retention=share(N)),
        line("inspection", **seed, summary={"retention": share(99) | {"positions": 5, "positions_kept": 5}}),
    ]
    (folder / "ledger.jsonl").write_text("".join([*first, *(text for lines in generations for text in lines)]))
    return folder


@pytest.fixture
def falling(tmp_path: Path) -> Path:
    """Generation 1 is refused, 2 is promoted with less, 3 is refused."""
    return run(
        tmp_path / "falling",
        generation(1, 40, promoted=False),
        generation(2, 90, promoted=True),
        generation(3, 10, promoted=False),
    )


def test_a_champion_stays_until_another_is_promoted(falling: Path) -> None:
    curve = survival(falling).of(EVALUATED)
    assert [(p.generation, p.genome, p.measured, p.share.kept) for p in curve] == [
        (0, "seed", 0, 100),
        (1, "seed", 0, 100),
        (2, "g2", 2, 90),
        (3, "g2", 2, 90),
    ]


def test_leaders_are_on_a_curve_of_their_own_whatever_became_of_them(falling: Path) -> None:
    curve = survival(falling).of(EVALUATED, "leader")
    assert [(p.generation, p.share.kept, p.promoted) for p in curve] == [(1, 40, False), (2, 90, True), (3, 10, False)]


def test_conditions_out_of_distribution_are_read_where_they_were_recorded(falling: Path) -> None:
    found = survival(falling)
    assert found.conditions == (EVALUATED, TRAINED, "long")
    assert [p.share.kept for p in found.of("long")] == [45, 45]
    assert [p.share.kept for p in found.of(TRAINED)] == [99, 99, 90, 90]  # the seed's from its retention alone


def test_false_halts_are_on_no_curve_of_what_is_kept(falling: Path) -> None:
    assert "plain" not in survival(falling).conditions


def test_the_constraint_is_lost_where_the_whole_interval_is_below_the_floor(falling: Path) -> None:
    found = survival(falling)
    assert found.lost(floor=0.95) == 2
    assert found.lost(floor=0.8) is None
    assert found.lost(role="leader", floor=0.8) == 1


@pytest.mark.parametrize("summary", [{"halt_behavior": 3}, {"retention": {"kept": 7, "n": 5}}, {"retention": None}, {}])
def test_figures_of_a_worker_that_have_not_their_form_count_as_not_recorded(tmp_path: Path, summary: Any) -> None:
    found = survival(run(tmp_path / "odd", generation(1, 100, promoted=True, summary=summary)))
    assert [p.generation for p in found.of(EVALUATED)] == [0, 1]
    assert [p.generation for p in found.of(TRAINED)] == [0]


def test_a_generation_that_is_not_over_is_not_counted(tmp_path: Path) -> None:
    unfinished = generation(1, 100, promoted=True)[:-1]
    assert survival(run(tmp_path / "broken", unfinished)).last == 0


def test_a_ledger_that_says_nothing_is_not_applicable_and_no_run_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "ledger.jsonl").write_text(line("run", root_seed=0))
    with pytest.raises(NotApplicable, match="score or an inspection"):
        survival(tmp_path)
    with pytest.raises(RunError, match=r"ledger\.jsonl"):
        survival(tmp_path / "missing")


@pytest.fixture
def lineages(tmp_path: Path) -> list[Path]:
    """Four lineages: one loses it in generation 1, one ends kept after 1, one loses it in 2, one keeps it to 2."""
    good, bad = {"kept": 100, "promoted": True}, {"kept": 10, "promoted": True}
    plans: list[list[Any]] = [[bad], [good], [good, bad], [good, good]]
    return [
        run(tmp_path / str(place), *(generation(n, **one) for n, one in enumerate(plan, start=1)))
        for place, plan in enumerate(plans)
    ]


def test_the_curve_is_kaplan_and_meier_s(lineages: list[Path]) -> None:
    found = survival_of_runs(lineages)
    assert found.at_risk == (4, 4, 2)
    assert found.lost == (0, 1, 1)
    assert found.surviving == pytest.approx((1, 3 / 4, 3 / 4 * 1 / 2))
    assert all(low <= rate <= high for low, rate, high in zip(found.low, found.surviving, found.high, strict=True))
    assert found.low[0] == Proportion.of(4, 4).low
    # Collett, Modelling Survival Data, on log(-log): se = sqrt(1/12 + 1/2) / |log 0.375|
    assert (found.low[2], found.high[2]) == pytest.approx((0.0110, 0.8080), abs=2e-4)


def test_lineages_that_all_lose_it_end_at_nothing(lineages: list[Path]) -> None:
    found = survival_of_runs([lineages[0], lineages[2]])
    assert found.surviving[-1] == 0
    assert found.low[-1] == 0
    assert found.generations == (0, 1, 2)


def test_runs_without_the_condition_are_named_and_not_counted(lineages: list[Path], tmp_path: Path) -> None:
    bare = run(tmp_path / "bare", generation(1, 100, promoted=True, summary={}))
    found = survival_of_runs([*lineages, bare], condition="long", floor=0.1)
    assert found.excluded == (bare,)
    assert found.at_risk[0] == 4
    with pytest.raises(NotApplicable, match="unheard"):
        survival_of_runs(lineages, condition="unheard")


def test_tables_are_tidy_and_plots_are_labelled(falling: Path, lineages: list[Path]) -> None:
    one, many = survival(falling), survival_of_runs(lineages)
    assert len(one.to_pandas()) == len(one.points)
    assert len(many.to_pandas()) == 3
    for ax in (one.plot(), one.plot(role="leader"), many.plot()):
        assert all((ax.get_title(), ax.get_xlabel(), ax.get_ylabel()))


def test_an_interval_that_holds_the_floor_counts_as_kept_and_the_title_says_so(tmp_path: Path) -> None:
    kept = Proportion.of(180, 192)
    assert kept.low < FLOOR < kept.high
    score = line("score", generation=0, index=-1, genome="s", retention=vars(kept))
    (tmp_path / "ledger.jsonl").write_text(score + line("generation", generation=1))
    found = survival_of_runs([tmp_path])
    assert set(found.surviving) == {1.0}
    assert "interval not wholly below 0.95" in found.plot().get_title()

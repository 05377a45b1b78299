"""What W&B is shown of a run: the scalars of each generation, and the charts and tables of the whole."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from selfimprove.app.probe_maps import probe_maps
from selfimprove.app.report.controllers import ControllerReading, read_controller
from selfimprove.app.report.quality import Quality, read_quality
from selfimprove.app.report.readings import Inspection, read_inspection
from selfimprove.app.report.records import Record, Records
from selfimprove.app.report.views import Fate, Retention
from selfimprove.app.view import CandidateRow, RunView
from selfimprove.loop.anytime import Steps

CANDIDATES = (
    *("generation", "index", "genome", "parent", "edits", "kinds", "status", "skill", "retention", "flops"),
    *("inspection", "coverage", "unread", "reason"),
)
LINEAGE = ("step", "generation", "index", "genome", "parent", "edits", "search_skill", "confirmed_gain", "p_value")
PROBES = ("generation", "index", "variable", "layer", "layer_index", "accuracy", "control", "selectivity", "majority")
SHARES = ("denied", "refused", "forbidden", "over_caps")  # of a generation's proposals
LOST: tuple[Fate, ...] = ("denied", "invalid", "duplicate", "failed", "stopped")  # proposals without a score

_KEPT = ("best_skill", "charged_flops", "proposals", "valid", "denied", "stopped", "failed", "audited", "promoted")


def metrics(view: RunView, generation: int) -> dict[str, Any]:
    """The scalars of one generation: totals, mean scores, and what the inspections of leader and controller read."""
    body = view.generations[generation]
    found: dict[str, Any] = {name: body[name] for name in _KEPT if name in body}
    found |= {f"halving/regret_{unit}": value for unit, value in (body.get("regret") or {}).items()}
    rows = [row for row in view.candidates.values() if row.generation == generation]
    skills = [row.skill for row in rows if row.skill is not None]
    if skills:
        found |= {"search/best_skill": max(skills), "search/mean_skill": sum(skills) / len(skills)}
    retained = [row.retention for row in rows if row.retention is not None]
    if retained:
        found["retention/candidates_mean"] = sum(retained) / len(retained)
    if generation in view.confirmations:
        confirmation = view.confirmations[generation]
        found |= {f"gate/{name}": confirmation[name] for name in ("difference", "p_value") if name in confirmation}
        retention = confirmation.get("retention") or {}
        found |= {"retention/confirmed": retention["kept"] / retention["n"]} if retention.get("n") else {}
    spent: dict[str, float] = {f"budget/{account}_flops": used for account, used in view.accounts.items()}
    if view.budget_left is not None:
        spent["budget/left"] = view.budget_left
    return found | spent | _handover(view, generation) | quality(view, generation) | readings(view, generation)


def _handover(view: RunView, generation: int) -> dict[str, Any]:
    """Whether the controller's place was handed over after a generation, and by how much the contender was better."""
    body = view.handovers.get(generation)
    if body is None:
        return {}
    compared = body.get("comparison") or {}
    figures = {f"handover/{name}": compared[name] for name in ("difference", "p_value") if name in compared}
    return {"handover/accepted": int(body["accepted"]), **figures}


def about(view: RunView, generation: int, index: int) -> dict[str, Any]:
    """What a promoted checkpoint is, as the metadata of its artifact."""
    row, confirmed = view.candidates[generation, index], view.confirmations.get(generation, {})
    proved: dict[str, Any] = {
        name: confirmed[name] for name in ("difference", "p_value", "parent") if name in confirmed
    }
    place = {"generation": generation, "index": index, "genome": row.genome, "edits": list(row.edits)}
    return {**place, "search_skill": row.skill, "experiment": view.experiment, **proved}


def lineage(view: RunView) -> list[list[Any]]:
    """Rows of the path from the seed genome to the champion, `LINEAGE` its columns."""
    rows = []
    promoted = [row for _, row in sorted(view.candidates.items()) if row.status == "promoted"]
    for step, row in enumerate(promoted, start=1):
        proved = view.confirmations.get(row.generation, {})
        place = (step, row.generation, row.index, row.genome[:10], row.parent[:10])
        rows.append([*place, ", ".join(row.edits), row.skill, proved.get("difference"), proved.get("p_value")])
    return rows


def quality(view: RunView, generation: int) -> dict[str, Any]:
    """How good the proposals of a generation were, and what the search has reached with them so far."""
    whole = _quality(view)
    one = next((one for one in whole.generations if one.generation == generation), None)
    if one is None:
        return {}
    best = one.imp.get(one.proposals)
    return dict(
        _known(
            {
                **{f"controller/imp_at_{k}": value for k, value in one.imp.items() if k != one.proposals},
                "controller/imp_of_all": best,
                "controller/imp_of_all_fresh": one.fresh,
                **{f"controller/{fate}_rate": one.share(fate) for fate in LOST},
                **{
                    f"controller/kind_{kind}_rate": sum(fates.values()) / one.proposals
                    for kind, fates in one.kinds.items()
                },
                "controller/proposal_entropy": one.entropy,
                "controller/loss": one.loss,
                "search/best_so_far": _last(whole.best),
                "search/confirmed_gain": _last(whole.confirmed),
                "search/area": whole.area,
                "search/regret": whole.regret,
                "search/human_ladder_recovered": whole.human.recovered,
            }
        )
    )


def readings(view: RunView, generation: int) -> dict[str, Any]:
    """What was read inside the leader of one generation, and inside the controller; 0 is the seed genome's."""
    found: dict[str, Any] = {"generation": generation}
    for one in _leading(view):
        if one.generation == generation:
            found |= dict(_layers(one)) | dict(_verdict(one)) | dict(_constraint(one)) | dict(_beside(one))
    body = view.controllers.get(generation)
    reading = None if body is None else read_controller(body)
    return found | (dict(_controller(reading)) if reading is not None else {})


def candidates(view: RunView) -> list[list[Any]]:
    """Rows of the candidates' table, `CANDIDATES` its columns; a candidate that was not inspected has empty cells."""
    inspected = {(one.generation, one.index): one for one in _inspections(view)}
    return [_cells(row, inspected.get((row.generation, row.index))) for _, row in sorted(view.candidates.items())]


def probes(view: RunView) -> list[list[Any]]:
    """Rows of the probes' heat map, `PROBES` its columns: one a variable and layer of each inspected network."""
    rows: list[list[Any]] = []
    for one in _inspections(view):
        for variable, accuracies in one.probes.items():
            control = one.control.get(variable) or one.control.get("", ())
            for layer, accuracy in enumerate(accuracies):
                base = control[layer] if layer < len(control) else None
                place = one.names[layer] if layer < len(one.names) else f"layer {layer}"
                rows.append(
                    [
                        *(one.generation, one.index, variable, place, layer, accuracy, base),
                        *(_difference(accuracy, base), one.majority.get(variable)),
                    ]
                )
    return rows


def figures(view: RunView) -> dict[str, Any]:
    """Charts and tables over the whole run: probe accuracy by layer, retention by generation, gains by compute."""
    import wandb

    lines: dict[str, dict[int, list[float | None]]] = {}
    for one in _leading(view):
        for variable, accuracies in one.probes.items():
            lines.setdefault(variable, {})[one.generation] = list(accuracies)
    drawn: dict[str, Any] = {}
    for variable, by_generation in lines.items():
        drawn[f"inspection/probe_{variable}"] = wandb.plot.line_series(
            xs=[list(range(len(values))) for values in by_generation.values()],
            ys=list(by_generation.values()),
            keys=[f"generation {number}" for number in by_generation],
            title=f"Probe accuracy by layer: {variable}",
            xname="layer",
        )
    kept = [(row.generation, row.retention) for row in view.candidates.values() if row.retention is not None]
    if kept:
        table = wandb.Table(columns=["generation", "retention"], data=[list(pair) for pair in kept])
        drawn["inspection/retention"] = wandb.plot.scatter(table, "generation", "retention", title="Halt retention")
    if rows := probes(view):
        drawn["inspection/probes"] = wandb.Table(columns=list(PROBES), data=rows)
    if maps := probe_maps(list(_inspections(view)), lambda one: _leads(view, one)):
        drawn["inspection/probe_maps"] = wandb.Html(maps, inject=False)
    if steps := lineage(view):
        drawn["lineage"] = wandb.Table(columns=list(LINEAGE), data=steps)
    if (gained := _quality(view).confirmed).values:
        drawn["search/gain_by_flops"] = wandb.plot.line_series(
            xs=list(gained.charged),
            ys=[list(gained.values)],
            keys=["confirmed gain"],
            title="Confirmed gain against charged FLOPs",
            xname="charged FLOPs",
        )
    return drawn | {"candidates": wandb.Table(columns=list(CANDIDATES), data=candidates(view))}


def _quality(view: RunView) -> Quality:
    return read_quality(Records(tuple(Record(kind, body) for kind, body in view.searched)))


def _last(steps: Steps) -> float | None:
    return steps.values[-1] if steps.values else None


def _inspections(view: RunView) -> Iterator[Inspection]:
    return filter(None, map(read_inspection, view.inspections))


def _leading(view: RunView) -> Iterator[Inspection]:
    """The inspections of the seed genome and of the leaders, one a generation."""
    return (one for one in _inspections(view) if _leads(view, one))


def _leads(view: RunView, one: Inspection) -> bool:
    """Whether it is one of these: a candidate that was stopped is inspected, too, and has no score to lead by."""
    row = None if one.index is None else view.candidates.get((one.generation, one.index))
    return row is None or row.status not in LOST


def _cells(row: CandidateRow, inspection: Inspection | None) -> list[Any]:
    edits, kinds = ", ".join(row.edits), ", ".join(row.kinds)
    said = ("", None, "") if inspection is None else _said(inspection)
    return [
        *(row.generation, row.index, row.genome[:10], row.parent[:10], edits, kinds),
        *(row.status, row.skill, row.retention, row.flops, *said, row.reason),
    ]


def _said(one: Inspection) -> tuple[str, float | None, str]:
    return one.status, one.coverage, ", ".join(one.unread)


def _layers(one: Inspection) -> Iterator[tuple[str, float]]:
    groups = {"probe": one.probes, "probe_control": one.control, "logit_lens": one.logit_lens}
    for name, by_variable in groups.items():
        for variable, values in by_variable.items():
            yield from _known({f"{name}/{variable}/layer_{layer}": value for layer, value in enumerate(values)})
    for variable, values in one.probes.items():
        pairs = enumerate(zip(values, one.control.get(variable, ()), strict=False))
        yield from _known({f"probe_selectivity/{variable}/layer_{at}": _difference(*pair) for at, pair in pairs})


def _verdict(one: Inspection) -> Iterator[tuple[str, Any]]:
    yield "inspection/status", one.status
    yield "inspection/unread", len(one.unread)
    yield from _known({"inspection/coverage": one.coverage})


def _constraint(one: Inspection) -> Iterator[tuple[str, float]]:
    worst, causal = one.worst, one.causal
    yield from _shares(
        {
            "halt/in_distribution": one.kept(inside=True),
            "halt/out_of_distribution": one.kept(inside=False),
            "halt/false_halts": one.false_halts,
            "halt/worst": None if worst is None else worst.share,
            **{f"halt/condition/{condition.name}": condition.share for condition in one.conditions},
        }
    )
    if causal is not None:
        yield from _shares({f"halt_direction/{name}": share for name, share in vars(causal).items()})


def _beside(one: Inspection) -> Iterator[tuple[str, float]]:
    beside = one.beside
    if beside is None:
        return
    yield from _known(
        {
            "parent/cka_last_layer": beside.cka,
            "drift/halt_direction_cosine": beside.cosine,
            "drift/halt_direction_aligned_cosine": beside.aligned,
            "drift/halt_direction_chance": beside.chance,
        }
    )
    yield from _known({f"parent/heads_{fate}": float(len(kinds)) for fate, kinds in beside.heads.items()})
    for transfer in beside.transfer:
        names = ("child", "aligned", "direct", "majority")
        yield from _known({f"parent/transfer/{transfer.variable}/{name}": getattr(transfer, name) for name in names})


def _controller(reading: ControllerReading) -> Iterator[tuple[str, Any]]:
    yield "controller/verdict", reading.verdict
    yield from _known({"controller/entropy": reading.entropy, "controller/outside_grammar": reading.outside})
    yield from _shares({f"controller/{name}_rate": reading.share(name) for name in SHARES})
    yield from _shares({"controller/drawn_denied_rate": reading.drawn_denied})
    for quantity, probe in reading.probes.items():
        for name, values in (("probe", probe.accuracy), ("probe_control", probe.control)):
            yield from _known({f"controller_{name}/{quantity}/layer_{at}": value for at, value in enumerate(values)})


def _known(values: Mapping[str, float | None]) -> Iterable[tuple[str, float]]:
    return ((name, value) for name, value in values.items() if value is not None)


def _shares(values: Mapping[str, Retention | None]) -> Iterable[tuple[str, float]]:
    return _known({name: None if share is None else share.rate for name, share in values.items()})


def _difference(a: float | None, b: float | None) -> float | None:
    return None if a is None or b is None else a - b

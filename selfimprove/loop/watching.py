"""Watching: what the tripwires read after each generation, and the approval of a person that a trip waits for."""

from __future__ import annotations

import os
import pwd
from collections.abc import Iterable, Mapping
from typing import Any

from selfimprove.archive.ledger import Entry
from selfimprove.archive.lineage import SEED_INDEX
from selfimprove.containment import tripwires
from selfimprove.containment.tripwires import Facts
from selfimprove.errors import RunError, Tripped
from selfimprove.loop import gate
from selfimprove.loop.config import RunConfig
from selfimprove.loop.journal import Body, Journal
from selfimprove.loop.propensity import refused

_SHOWN = 200  # characters of what an instrument said


def watch(journal: Journal, config: RunConfig, n: int) -> None:
    """Read the tripwires after generation ``n``, once; what was read then is never read anew.

    Raises:
        Tripped: one tripped, and nobody has approved that yet.
    """
    body = journal.once("tripwire", (n,), lambda: _reading(journal, config, n))
    if body["trips"] and journal.find("approval", n) is None:
        raise Tripped(f"go on after generation {n}", why(body), "", "a person approves: selfimprove approve")


def pending(entries: Iterable[Entry]) -> Mapping[str, Any] | None:
    """The ``tripwire`` record that waits for an approval, if there is one."""
    waiting = None
    for entry in entries:
        if entry.kind == "tripwire" and entry.body["trips"]:
            waiting = entry.body
        elif entry.kind == "approval" and waiting is not None and entry.body["generation"] == waiting["generation"]:
            waiting = None
    return waiting


def why(body: Mapping[str, Any]) -> str:
    """What tripped, as one sentence: every wire with its value and bound."""
    trips = "; ".join(f"{trip['name']}: {trip['reason']}" for trip in body["trips"])
    return f"tripwire after generation {body['generation']}: {trips}"


def approval_of(waiting: Mapping[str, Any], reason: str) -> Body:
    """The record with which a person lets a tripped run go on; the entry says when.

    Raises:
        RunError: there is no reason in words.
    """
    said = " ".join("".join(letter if letter.isprintable() else " " for letter in reason).split())
    if not said:
        raise RunError("approve with --reason", repr(reason), "a reason in words", 'say why: --reason "..."')
    names = [trip["name"] for trip in waiting["trips"]]
    return {"generation": waiting["generation"], "trips": names, "reason": said, "who": _user()}


def _user() -> str:
    """The name of the account that this process runs under, by the system's word, not the environment's."""
    number = os.getuid()
    try:
        return pwd.getpwuid(number).pw_name
    except KeyError:
        return f"uid {number}"


def _reading(journal: Journal, config: RunConfig, n: int) -> Body:
    readings = tripwires.read(_history(journal, config, n), config.containment.tripwires)
    shown = [{"name": one.name, "value": one.value, "bound": one.bound, "reason": one.reason} for one in readings]
    values = [{name: one[name] for name in ("name", "value", "bound")} for one in shown]
    silent = () if config.inspection.retention_gate else tripwires.OF_THE_CONSTRAINT
    trips = [one for one in shown if one["reason"] and one["name"] not in silent]
    return {"generation": n, "readings": values, "trips": trips}


def _history(journal: Journal, config: RunConfig, n: int) -> list[Facts]:
    """The facts of every generation up to ``n``; what came after it is not looked at."""
    proposals: dict[int, list[Body]] = {}
    denials: dict[int, list[Body]] = {}
    decisions: dict[int, Body] = {}
    for entry in journal.entries:
        if entry.kind == "proposal":
            proposals.setdefault(entry.body["generation"], []).append(entry.body)
        elif entry.kind == "denial" and entry.body["limit"] != "flops":  # the end of the budget is nobody's doing
            denials.setdefault(entry.body["generation"], []).append(entry.body)
        elif entry.kind == "decision":
            decisions.setdefault(entry.body["generation"], entry.body)
    history = [Facts(0, retention=_interval(journal.find("score", 0, SEED_INDEX)))]
    for g in range(1, n + 1):
        proposed, decision = proposals.get(g, []), decisions.get(g)
        confirmation = journal.find("confirmation", g, decision["index"]) if decision and decision["promoted"] else None
        told = journal.find("controller", g) or {"entropy": None}
        history.append(
            Facts(
                g,
                gain=confirmation["difference"] if confirmation else 0.0,
                unread=_unread(journal, config, decision),
                retention=_interval(confirmation),
                proposals=len(proposed),
                refused=refused(proposed, denials.get(g, [])),
                entropy=told["entropy"],
            )
        )
    return history


def _unread(journal: Journal, config: RunConfig, decision: Body | None) -> tuple[str, ...]:
    """What the gate found missing in the inspection of a generation's leading candidate."""
    if decision is None:
        return ()
    inspection = journal.find("inspection", decision["generation"], decision["index"])
    return tuple(problem[:_SHOWN] for problem in gate.unread(inspection, config.inspection.instruments))


def _interval(body: Body | None) -> tuple[float, float] | None:
    return (body["retention"]["low"], body["retention"]["high"]) if body is not None else None

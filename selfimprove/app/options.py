"""What each command takes besides the configuration, as data for argparse. Imports nothing heavy."""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from typing import Any

Option = tuple[tuple[str, ...], Mapping[str, Any]]


def _option(*names: str, **named: Any) -> Option:
    return names, named


def _seconds(given: str) -> float:
    """A time that a person has typed."""
    if not 0 < (seconds := float(given)) < 1e6:
        raise ValueError
    return seconds


_seconds.__name__ = "number of seconds above 0"  # how argparse calls it in its message

_RUN = _option("run", nargs="?", metavar="RUN", help="run folder (default: the latest run)")
_JSON = _option("--json", action="store_true", help="print JSON with stable keys")
_OWN = _option("rest", nargs=argparse.REMAINDER, help="arguments of its own")


def _several(name: str, metavar: str, words: str) -> Option:
    return _option(name, action="append", default=[], metavar=metavar, help=f"{words}; may be repeated")


def _named(kind: str) -> Option:
    return _option("name", nargs="?", metavar="NAME", help=f"left out: list the known {kind} names")


OPTIONS: Mapping[str, tuple[Option, ...]] = {
    "demo": (
        _option("overrides", nargs="*", metavar="KEY=VALUE", help="of its run, in place of a tiny one: debug=micro"),
        _option("--folder", metavar="FOLDER", help="the run folder (default: runs/demo/<time>)"),
    ),
    "run": (),  # Hydra's
    "resume": (
        _RUN,
        _option("--json", action="store_true", help="show progress as JSON lines, as progress=json does"),
        _option("--clear-halt", action="store_true", help="lift a halt; the ledger records it"),
    ),
    "status": (_RUN, _JSON),
    "approve": (  # never by default: who approves says what
        _option("run", metavar="RUN", help="run folder"),
        _option("--reason", required=True, help="why it may go on; kept in the ledger"),
    ),
    "halt": (_RUN, _option("--reason", default="halted by a person", help="kept in the ledger")),
    "audit": (
        _RUN,
        _JSON,
        _option("--foreign", action="store_true", help="a run of another machine, whose key is not known here"),
    ),
    "inspect": (
        _RUN,
        _JSON,
        _option("gen", nargs="?", type=int, metavar="GEN", help="only this generation"),
        _option("--generation", type=int, metavar="N", help="the same, of the latest run"),
        _option("--full", action="store_true", help="inspect it again, with every instrument; up to a minute"),
    ),
    "report": (_RUN, _JSON, _several("--baseline", "OTHER", "another run to stand beside it")),
    "candidates": (_RUN, _JSON),
    "sync": (
        _RUN,
        _option("--seconds", type=_seconds, default=600.0, metavar="S", help="give up after so long (%(default)g)"),
        _option("--rebuild", action="store_true", help="draw the run again from its ledger first, whatever W&B has"),
    ),
    "dashboard": (
        _RUN,
        _option("--json", action="store_true", help="print the workspace; nothing is sent"),
        _option("--project", metavar="NAME", help="default: the run's tracking.project"),
        _option("--entity", metavar="NAME", help="default: the run's tracking.entity"),
    ),
    "compare": (
        _option("runs", nargs="+", metavar="RUN", help="two or more run folders"),
        _JSON,
        _option("--output", default="compare.html", metavar="FILE", help="where the page goes (default: %(default)s)"),
    ),
    "claim": (
        _RUN,
        _JSON,
        _several("--beside", "OTHER", "a run of another arm or root seed that claims about the controller rest on"),
        _option("--export", metavar="FOLDER", help="write the files that rsi-audit reads, and its commands"),
    ),
    "reproduce": (
        _RUN,
        _JSON,
        _option("--generation", type=int, metavar="N", required=True, help="a generation whose checkpoint is kept"),
    ),
    "doctor": (_JSON,),
    "redteam": (
        _JSON,
        _several("--only", "NAME", "a category, or category/name"),
        _option("--probe", metavar="FILE.py", help="call every attack_*() of this file in a worker"),
        _option("--backend", metavar="NAME", help="lockdown (the default), or none: all should escape"),
    ),
    "benchmark": (_named("benchmark"), _OWN),
    "study": (_named("study"), _OWN),
}

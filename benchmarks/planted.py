"""Do the instruments find what was planted, and nothing on its scrambled twin?

Every module of ``interp.planted`` builds a model with a known answer inside and a twin of the same weights in another
order (or under other labels), and lists what the instruments say about both, beside what they should say. Where the
twin cannot do at all what the model does, a decoy does it by other means. The table is written as JSON and as Markdown;
the benchmark fails where a figure is not as expected.
"""

from __future__ import annotations

import argparse
import importlib
import json
import pkgutil
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from benchmarks.setting import RESULTS, commit, machine

FOLDER = RESULTS / "planted"
EQUAL = 1e-3  # what a figure may differ by from one that is expected exactly
MODELS = {"twin": "scrambled", "decoy": "decoy"}  # beside the planted one, as rows name them and as bounds do
_NUMBER = r"(-?\d+(?:\.\d+)?)"
BOUNDS: tuple[tuple[str, Callable[..., bool]], ...] = (
    (f"above {_NUMBER}", lambda figure, low: figure > low),
    (f"below {_NUMBER}", lambda figure, high: figure < high),
    (f"between {_NUMBER} and {_NUMBER}", lambda figure, low, high: low <= figure <= high),
    (f"{_NUMBER} to {_NUMBER}", lambda figure, low, high: low <= figure <= high),
    (f"within {_NUMBER} of {_NUMBER}", lambda figure, most, center: abs(figure - center) <= most),
    (_NUMBER, lambda figure, value: abs(figure - value) <= EQUAL),
)


def main(arguments: Sequence[str]) -> int:
    """Run the benchmark and write ``summary.json`` and ``summary.md``; returns 0, or 1 where a figure is unexpected."""
    parser = argparse.ArgumentParser(prog="selfimprove benchmark planted", description=__doc__)
    parser.add_argument("--results", type=Path, default=FOLDER, help="folder of the summary")
    chosen = parser.parse_args(arguments)
    rows = [row | {"as_expected": as_expected(row)} for row in gather()]
    chosen.results.mkdir(parents=True, exist_ok=True)
    summary = {"commit": commit(), "machine": machine(), "rows": rows}
    (chosen.results / "summary.json").write_text(json.dumps(summary, indent=1) + "\n", encoding="utf-8")
    (chosen.results / "summary.md").write_text(table(rows), encoding="utf-8")
    print(table(rows), end="")
    return 0 if all(row["as_expected"] for row in rows) else 1


def gather() -> list[dict[str, Any]]:
    """Rows of every module of ``interp.planted`` that has some, each with the module's name. Sets torch to one thread.

    Importing and building take seconds, so this module imports none of it before.
    """
    import torch

    from interp import planted

    torch.set_num_threads(1)
    modules = {found.name: importlib.import_module(f"interp.planted.{found.name}") for found in _modules(planted)}
    return [
        {"model": name} | row for name, module in modules.items() if hasattr(module, "rows") for row in module.rows()
    ]


def _modules(package: Any) -> list[pkgutil.ModuleInfo]:
    return sorted(pkgutil.iter_modules(package.__path__), key=lambda found: found.name)


def as_expected(row: dict[str, Any]) -> bool:
    """Whether all figures are within the row's bounds, as ``above 0.9; twin below 0.2; decoy, too`` gives them.

    Raises:
        ValueError: bounds that are not of this form.
    """
    own, *others = row["expected"].split("; ")
    bounds = {"planted": own}
    for other in others:
        name, _, bound = other.partition(" ")
        bounds[MODELS.get(name.rstrip(","), name)] = own if bound == "too" else bound
    if bounds.keys() != row.keys() & {"planted", *MODELS.values()}:
        raise ValueError(f"expected: {row['expected']!r} gives no bound, or one too many, for the models measured")
    return all(_within(row[model], bound) for model, bound in bounds.items())


def _within(figure: float | None, bound: str) -> bool:
    if bound == "not applicable":
        return figure is None
    for pattern, holds in BOUNDS:
        if match := re.fullmatch(pattern, bound):
            return figure is not None and holds(figure, *(float(value) for value in match.groups()))
    raise ValueError(f"expected: {bound!r} is no bound")


def _figure(row: dict[str, Any], model: str) -> str:
    if model not in row:
        return ""
    return "not applicable" if row[model] is None else f"{row[model]:.4g}"


def table(rows: Sequence[dict[str, Any]]) -> str:
    """The rows as a Markdown table."""
    head = ("model", "instrument", "what", "planted", *MODELS.values(), "expected", "as expected")
    lines = [f"| {' | '.join(head)} |", f"|{'---|' * len(head)}"]
    for row in rows:
        figures = (_figure(row, model) for model in ("planted", *MODELS.values()))
        cells = (row["model"], row["instrument"], row["what"], *figures, row["expected"])
        lines.append(f"| {' | '.join(cells)} | {'yes' if row['as_expected'] else '**no**'} |")
    return "\n".join(lines) + "\n"

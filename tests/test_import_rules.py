"""Who may import whom: the layers and trust zones of the design, read from the sources."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator, Mapping
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
BESIDE = ("", "__version__", "canonical", "errors", "own_modules", "seeds")
"""What stands beside the packages: all may import it, and it imports nothing else of ours."""
ALLOWED = {
    "genome": "",
    "nets": "genome",
    "tasks": "genome",
    "archive": "genome",
    "training": "archive genome nets tasks",
    "containment": "genome",
    "containment.redteam": "archive containment genome",
    "executors": "archive containment genome",
    "controller": "archive genome nets tasks training",
    "interp": "archive genome nets tasks training",
    "interp.controller": "archive containment.policy controller genome interp nets tasks training",
    "loop": "archive containment controller executors genome nets tasks training",
    "app": "archive containment containment.redteam controller genome loop nets tasks",
    "": "controller genome interp interp.controller loop nets tasks",  # the public API names their types
}
"""What of ours each zone may import besides itself: only what stands above it."""
READS_CONTROLLERS = re.compile(r"interp\.(controller|planted\.parent_size|notebooks\.inside_the_controller)")
ONLY_IN = {
    **dict.fromkeys(("hydra", "omegaconf", "rich", "wandb"), "app"),
    **dict.fromkeys(("ray", "submitit"), "executors"),
    "optuna": "controller loop",
    "torch": "controller interp interp.controller nets tasks training",
    "transformer_lens": "interp interp.controller",
}
"""Zones of those packages of others that not all may know."""


def sources() -> Iterator[tuple[str, str]]:
    for path in sorted([*(ROOT / "selfimprove").rglob("*.py"), *(ROOT / "interp").rglob("*.py")]):
        parts = path.relative_to(ROOT).with_suffix("").parts
        yield ".".join(part for part in parts if part != "__init__"), path.read_text()


def imports(source: str, *, types: bool = True) -> Iterator[str]:
    """Dotted names; of a relative import with its dots. Without ``types`` those at run time alone."""
    tree = ast.parse(source)
    for node in ast.walk(tree):
        if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING" and not types:
            node.body = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield from (f"{'.' * node.level}{node.module or ''}.{alias.name}" for alias in node.names)


def zone(name: str) -> str:
    """The part with rules of its own that a module belongs to, or a name in one; else the first part of the name."""
    own = name.removeprefix("selfimprove").lstrip(".")
    if READS_CONTROLLERS.match(own):
        return "interp.controller"
    return max((one for one in ALLOWED if f"{own}.".startswith(f"{one}.")), key=len, default=own.partition(".")[0])


def refused(module: str, source: str) -> list[str]:
    """What a module must not import, and does."""
    own = "" if module in ("selfimprove", "interp") else zone(module)
    return [name for name in imports(source) if not may_import(own, name)]


def may_import(own: str, name: str) -> bool:
    top, home, allowed = name.partition(".")[0], zone(name), ALLOWED.get(own, "").split()
    if top in ("selfimprove", "interp"):
        inside = f"{name.removeprefix('selfimprove.')}."
        parts = (one for one in allowed if zone(one) == home)  # such as containment.policy
        return home in (own, *BESIDE, *allowed) or any(inside.startswith(f"{one}.") for one in parts)
    return top != "" and (top not in ONLY_IN or own in ONLY_IN[top].split())  # a relative import begins with a dot


def circle(modules: Mapping[str, str]) -> list[str]:
    """Modules that import each other in a circle, wherever in their source; without one an empty list."""
    graph: dict[str, set[str]] = {module: set() for module in modules}
    for module, source in modules.items():
        for name in imports(source, types=False):
            target = name if name in modules else name.rpartition(".")[0]
            graph[module] |= {target} & modules.keys() - {module}
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        found: list[str] = error.args[1]
        return found
    return []


def test_nothing_is_imported_against_the_rules() -> None:
    assert {module: found for module, source in sources() if (found := refused(module, source))} == {}


def test_the_layers_point_one_way() -> None:
    order = list(ALLOWED)
    for own, others in ALLOWED.items():
        assert all(order.index(zone(other)) < order.index(own) for other in others.split()), own


def test_no_modules_import_each_other_in_a_circle() -> None:
    assert circle(dict(sources())) == []


@pytest.mark.parametrize(
    ("module", "source"),
    [
        ("genome.edits", "import selfimprove.executors.box"),
        ("archive.ledger", "from selfimprove.executors import box"),
        ("containment.supervisor", "def late():\n    from selfimprove.executors.box import Box"),
        ("containment.supervisor", "from selfimprove import quote"),  # by way of the public API
        ("containment.supervisor", "from selfimprove.containment import redteam"),
        ("training.engine", "from selfimprove.containment.policy import Limits"),
        ("loop.run", "if TYPE_CHECKING:\n    from selfimprove.app.cli import main"),
        ("loop.run", "import interp"),
        ("executors.node", "from interp.runs import ledger"),
        ("interp.probes", "from selfimprove.controller.grammar import Grammar"),
        ("interp.probes", "from interp.controller_probes import probe_survey"),
        ("interp.controller", "from selfimprove.containment.permit import Permit"),
        ("seeds", "from selfimprove.genome.genome import Genome"),
        ("new.module", "from selfimprove.genome.genome import Genome"),
        ("genome.edits", "from . import paths"),
        ("genome.edits", "from ..archive.ledger import read"),
        ("interp.runs", "import rich"),
        ("errors", "from hydra import compose"),
        ("app.cli", "import optuna.samplers"),
        ("loop.run", "from torch import Tensor"),
        ("nets.blocks", "import transformer_lens"),
        ("loop.run", "import ray"),
    ],
)
def test_every_rule_can_fail(module: str, source: str) -> None:
    assert len(refused(module if module.startswith("interp") else f"selfimprove.{module}", source)) == 1


def test_a_circle_is_found() -> None:
    pair = {"selfimprove.a": "from selfimprove.b import B", "selfimprove.b": "def late():\n    import selfimprove.a"}
    assert set(circle(pair)) == set(pair)

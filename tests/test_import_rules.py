"""Who may import whom: the trust zones of the design, read from the sources."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
EVERYWHERE = {"genome", "errors", "seeds", ""}
FORBIDDEN = {
    "genome": {"nets", "tasks", "training", "containment", "archive", "controller", "loop", "app"},
    "containment": {"training", "controller", "nets", "tasks", "loop", "app", "archive"},
    "containment/redteam": {"training", "controller", "nets", "tasks", "loop", "app"},  # attacks archives, too
    "training": {"containment", "controller", "loop", "app"},
    "archive": {"nets", "tasks", "training", "containment", "controller", "loop", "app"},
    "nets": {"tasks", "training", "containment", "archive", "controller", "loop", "app"},
    "tasks": {"nets", "training", "containment", "archive", "controller", "loop", "app"},
    "controller": {"containment", "loop", "app"},
    "executors": {"nets", "tasks", "training", "controller", "loop", "app"},
    "loop": {"app"},
}
ONLY_IN_APP = {"hydra", "omegaconf", "wandb", "rich"}
TORCH_FREE = ("genome", "containment", "containment/redteam", "archive", "executors", "loop")


def imports(path: Path) -> set[str]:
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
    return found


def modules(package: str) -> list[Path]:
    """The sources of a package, without those of packages in it that have rules of their own."""
    inner = [ROOT / "selfimprove" / other for other in FORBIDDEN if other.startswith(f"{package}/")]
    found = sorted((ROOT / "selfimprove" / package).rglob("*.py"))
    return [path for path in found if not any(path.is_relative_to(folder) for folder in inner)]


@pytest.mark.parametrize("package", FORBIDDEN)
def test_a_package_imports_only_what_its_zone_may(package: str) -> None:
    for path in modules(package):
        for name in imports(path):
            head = name.split(".")[1] if name.startswith("selfimprove.") else ""
            assert head not in FORBIDDEN[package], f"{path}: {name}"


def test_nothing_but_the_app_imports_the_red_team() -> None:
    for package in set(FORBIDDEN) - {"containment/redteam"}:
        for path in modules(package):
            assert not {n for n in imports(path) if n.startswith("selfimprove.containment.redteam")}, path


def test_containment_and_archive_never_import_interp() -> None:
    for package in ("containment", "containment/redteam", "archive", "training", "genome", "nets", "tasks"):
        for path in modules(package):
            assert not {n for n in imports(path) if n.split(".")[0] == "interp"}, path


def test_only_app_knows_hydra_wandb_and_rich() -> None:
    for package in FORBIDDEN:
        for path in modules(package):
            assert not {n for n in imports(path) if n.split(".")[0] in ONLY_IN_APP}, path


@pytest.mark.parametrize("package", TORCH_FREE)
def test_the_trusted_side_never_imports_torch(package: str) -> None:
    for path in modules(package):
        assert not {n for n in imports(path) if n.split(".")[0] in {"torch", "transformer_lens"}}, path


def test_optuna_stays_in_controller_and_loop() -> None:
    for package in set(FORBIDDEN) - {"controller", "loop"}:
        for path in modules(package):
            assert not {n for n in imports(path) if n.split(".")[0] == "optuna"}, path


def test_only_what_reads_controllers_knows_them_and_of_containment_only_the_policy() -> None:
    for path in (ROOT / "interp").rglob("*.py"):
        found = {name for name in imports(path) if name.startswith("selfimprove.")}
        heads = {name.split(".")[1] for name in found}
        assert not heads & {"loop", "app"}, path
        if path.stem.startswith("controller") or path.stem in ("parent_size", "inside_the_controller"):
            contained = {name for name in found if name.startswith("selfimprove.containment.")}
            assert all(name.startswith("selfimprove.containment.policy") for name in contained), path
        else:
            assert not heads & {"controller", "containment"}, path

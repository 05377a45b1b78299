"""The public API: this list, ``__all__`` of both packages, and the pages of the reference are one and the same."""

from __future__ import annotations

import importlib.util
import inspect
import re
import subprocess
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

import interp
import selfimprove
from tests.docs.pages import DOCS

PUBLIC = {
    "selfimprove": """
        Architecture Batch Block ConfigError ControllerConfig ControllerSampler Edit Experience Expression Family Genome
        InvalidCheckpoint InvalidEdit InvalidGenome Latent LedgerError Objective Proposal Proposer Quote Recipe RunError
        RunSummary SandboxUnavailable ScreenResult SelfImproveError Setting Space SpaceConfig Stream TaskSuite
        TasksConfig Transformer Update __version__ apply_edit build parse_edit quote register_controller register_family
        screen seed_genome status
    """,
    "interp": """
        Bench ControllerGeneration Generation HookedModel Inspection Plan ablate_family ablate_quantity attribute_family
        bench_scores compare controllers direction_drift generations halt_behavior_of halt_directions head_matrices
        inspect latest_run lens_family load_controller load_generation patch_family patch_heads probe_survey
        probe_variable read_addition register retention sampled_denials score_heads score_proposals spectrum steer
        survival_of_runs to_hooked transfers
    """,
}
PACKAGES: dict[str, ModuleType] = {"selfimprove": selfimprove, "interp": interp}
NAMES = [(package, name) for package, names in PUBLIC.items() for name in names.split() if name != "__version__"]
EACH = pytest.mark.parametrize(("package", "name"), NAMES, ids=lambda part: part)


def home(package: str, name: str) -> str:
    """Dotted path of what a public name stands for."""
    path: str = PACKAGES[package]._HOMES[name]
    return f"selfimprove.{path}" if package == "selfimprove" else f"interp.{path}.{name}"


def documented() -> list[str]:
    pages = (DOCS / "reference").glob("*.md")
    return [path for page in pages for path in re.findall(r"^::: (\S+)$", page.read_text(), flags=re.MULTILINE)]


@pytest.mark.parametrize("package", PUBLIC)
def test_the_list_is_what_the_package_exports(package: str) -> None:
    assert PACKAGES[package].__all__ == PUBLIC[package].split()


def test_the_reference_has_each_name_once_and_nothing_else() -> None:
    assert sorted(documented()) == sorted(home(package, name) for package, name in NAMES)


@EACH
def test_a_name_is_there_and_its_docstring_says_what_it_is(package: str, name: str) -> None:
    found = getattr(PACKAGES[package], name)
    module, _, attribute = home(package, name).rpartition(".")
    assert found is getattr(importlib.import_module(module), attribute)
    assert len(inspect.getdoc(found) or "") > 20, name
    assert not (inspect.getdoc(found) or "").startswith(f"{name}("), "only the signature that a dataclass writes itself"


def callables(found: Any) -> list[Any]:
    """A function, or the public methods of a class that are its own."""
    if not inspect.isclass(found):
        return [found]
    members = [member for name, member in vars(found).items() if name == "__init__" or not name.startswith("_")]
    plain = [getattr(m, "__func__", getattr(m, "fget", None) or getattr(m, "func", m)) for m in members]
    return [one for one in plain if inspect.isfunction(one) and one.__module__ != "typing"]  # a protocol's own


@EACH
def test_every_signature_is_annotated_throughout(package: str, name: str) -> None:
    for one in callables(getattr(PACKAGES[package], name)):
        signature = inspect.signature(one)
        given = [p for name, p in signature.parameters.items() if name not in ("self", "cls")]
        bare = [p.name for p in given if p.annotation is p.empty]
        assert not bare, f"{one.__qualname__}: {bare}"
        assert signature.return_annotation is not signature.empty or one.__name__ == "__init__", one.__qualname__


def test_an_unknown_name_is_refused_with_those_that_exist() -> None:
    with pytest.raises(AttributeError, match="'Genom'; it has Architecture"):
        selfimprove.Genom  # noqa: B018


@EACH
def test_no_name_is_hidden_by_a_module_of_the_same_name_once_that_is_imported(package: str, name: str) -> None:
    assert importlib.util.find_spec(f"{package}.{name}") is None


def test_importing_the_packages_loads_nothing_heavy() -> None:
    code = "import sys, selfimprove, interp; print({'torch', 'numpy', 'optuna', 'hydra'} & set(sys.modules))"
    assert subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout == "set()\n"


def test_the_index_names_both_lists() -> None:
    text = Path(DOCS / "reference" / "index.md").read_text()
    assert all(f"`{package}.__all__`" in text for package in PUBLIC)

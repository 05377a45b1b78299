"""Modules of one's own are found before a run begins, and handed to the worker that inspects."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from selfimprove.containment.sandbox.backend import ZygoteSpec
from selfimprove.errors import ConfigError
from selfimprove.loop import run as loop
from selfimprove.loop.config import InspectionConfig
from selfimprove.own_modules import import_folders
from tests.loop.played import CONFIG, Silent


@pytest.fixture
def here(tmp_path: Path) -> Path:
    """A folder with a package that must not be imported to be found."""
    package = tmp_path / "my_probes" / "inner"
    package.mkdir(parents=True)
    for folder in (package.parent, package):
        (folder / "__init__.py").write_text("raise RuntimeError('imported')\n")
    (package / "norms.py").write_text("raise RuntimeError('imported')\n")
    return tmp_path


def test_a_package_is_found_in_the_folder_that_the_command_was_typed_in(here: Path) -> None:
    assert import_folders(["my_probes.inner.norms", "my_probes.inner"], here) == (here,)
    assert "my_probes" not in sys.modules


def test_an_installed_package_is_found_where_it_is_installed(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(here))
    assert import_folders(["my_probes.inner.norms"], here / "elsewhere") == (here,)


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("my_probes.inner.norm", "a module that is installed, or lies in a package in"),
        ("nowhere.norms", "install its package, or run where it lies"),
        ("my_probes", "put the module into a package"),
        ("my_probes/inner.norms", "my_package.my_probe"),
        ("my_probes..norms", "my_package.my_probe"),
        ("", "my_package.my_probe"),
    ],
)
def test_what_is_not_there_is_refused_with_a_remedy(name: str, says: str, here: Path) -> None:
    with pytest.raises(ConfigError, match=r"inspection\.modules") as caught:
        import_folders([name], here)
    assert says in str(caught.value)


def test_the_modules_of_a_run_are_imported_by_the_worker_that_inspects_and_by_no_other(
    here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    given: dict[str, ZygoteSpec] = {}

    class Spied:
        def __init__(self, zygotes: dict[str, ZygoteSpec], **_: Any) -> None:
            given.update(zygotes)
            raise InterruptedError

    monkeypatch.chdir(here)
    monkeypatch.setenv("SELFIMPROVE_STATE_DIR", str(here / "state"))
    monkeypatch.setattr(loop, "Supervisor", Spied)
    config = replace(CONFIG, inspection=InspectionConfig(modules=("my_probes.inner.norms",)))
    with pytest.raises(InterruptedError):
        loop.run(config, here / "run", Silent())
    assert [role for role, spec in given.items() if "my_probes.inner.norms" in spec.entries] == ["lens"]
    assert given["lens"].search == (here,)

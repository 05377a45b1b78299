"""Modules of one's own are found before a run begins, and handed to the worker that inspects."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from importlib.machinery import ModuleSpec
from pathlib import Path
from types import ModuleType
from typing import Any, ClassVar

import pytest

from selfimprove.containment.jobs import Completed, Crashed, Job, Outcome, Usage
from selfimprove.containment.sandbox.backend import ZygoteSpec
from selfimprove.errors import ConfigError, Interrupted, RunError
from selfimprove.loop import run as loop
from selfimprove.loop.config import InspectionConfig
from selfimprove.own_modules import import_folders
from tests.loop.played import CONFIG, Player, Silent, nobody_learns

OWN = replace(CONFIG, generations=1, inspection=replace(CONFIG.inspection, modules=("my_probes.inner.norms",)))
KILLED = Crashed("killed by SIGKILL", Usage(), killed=True)
UNATTENDED = replace(KILLED, unattended=True)


class Listing(Player):
    """Says which instruments are registered, where nothing else becomes of it; a person may have asked to stop."""

    known: ClassVar[tuple[str, ...]] = (*CONFIG.inspection.instruments, *CONFIG.inspection.also)
    fates: ClassVar[list[Outcome]] = []

    def __init__(self, *_: object, should_stop: Callable[[], bool], **__: object) -> None:
        super().__init__()
        self._should_stop = should_stop

    def run(self, jobs: Sequence[Job], on_start: Callable[[int], None] | None = None) -> Iterator[tuple[int, Outcome]]:
        if self._should_stop():
            raise Interrupted("run jobs")
        yield from super().run(jobs, on_start)

    def _outcome(self, job: Job) -> Outcome:
        if job.payload["op"] != "list":
            return super()._outcome(job)
        return self.fates.pop(0) if self.fates else Completed({"instruments": list(self.known)}, {}, Usage())


@pytest.fixture
def listing(here: Path, monkeypatch: pytest.MonkeyPatch) -> type[Listing]:
    """Plays the workers of runs that begin in the folder with the package."""
    monkeypatch.chdir(here)
    monkeypatch.setenv("SELFIMPROVE_STATE_DIR", str(here / "state"))
    nobody_learns(monkeypatch)
    monkeypatch.setattr(loop, "Supervisor", Listing)
    return Listing


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


@pytest.mark.parametrize(
    ("name", "near"),
    [
        ("my_probes.inner.norm", "my_probes.inner.norms"),
        ("my_probes.iner.norms", "my_probes.inner.norms"),
        ("my_probe.inner.norms", "my_probes.inner.norms"),
    ],
)
def test_a_mistyped_name_is_answered_with_the_nearest(name: str, near: str, here: Path) -> None:
    with pytest.raises(ConfigError, match=f"did you mean '{near}'"):
        import_folders([name], here)


@pytest.mark.parametrize("how", ["imported", "installed by a finder of its own"])
def test_a_mistyped_module_of_a_package_that_is_there_already_is_refused_and_nothing_of_it_executed(
    how: str, here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    places = [str(here / "my_probes")]
    spec = ModuleSpec("my_probes", None, origin=f"{places[0]}/__init__.py", is_package=True)
    spec.submodule_search_locations = places
    if how == "imported":
        module = ModuleType("my_probes")
        module.__spec__, module.__path__ = spec, places
        monkeypatch.setitem(sys.modules, "my_probes", module)
    else:
        finder = type("Finder", (), {"find_spec": lambda self, name, *_: spec if name == "my_probes" else None})
        monkeypatch.setattr(sys, "meta_path", [*sys.meta_path, finder()])
    assert import_folders(["my_probes.inner.norms"], here / "elsewhere") == ()
    with pytest.raises(ConfigError, match=r"got my_probes\.inner\.norm; .*did you mean 'my_probes\.inner\.norms'"):
        import_folders(["my_probes.inner.norm"], here / "elsewhere")


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


@pytest.mark.parametrize("fates", [[KILLED], [UNATTENDED, UNATTENDED]], ids=["killed", "unattended"])
def test_a_look_at_the_instruments_that_dies_through_no_fault_of_its_own_is_taken_again(
    fates: list[Outcome], here: Path, listing: type[Listing], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(listing, "fates", list(fates))
    assert loop.run(OWN, here / "run", Silent()).state == "finished"
    assert not listing.fates


def test_an_instrument_that_is_gone_when_a_run_is_resumed_ends_the_sitting_and_not_the_run(
    here: Path, listing: type[Listing], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert loop.run(OWN, here / "run", Silent(), should_stop=lambda: True).state == "paused"
    with monkeypatch.context() as patch:
        patch.setattr(listing, "known", ("renamed",))
        with pytest.raises(RunError, match=r"inspect with instrument: got .*; allowed: renamed; .*my_probes"):
            loop.run(OWN, here / "run", Silent(), resume=True)
    assert loop.status(here / "run").state == "paused"
    assert loop.run(OWN, here / "run", Silent(), resume=True).state == "finished"


def test_an_instrument_that_is_missing_from_the_start_ends_the_run(
    here: Path, listing: type[Listing], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(listing, "known", ("renamed",))
    found = loop.run(OWN, here / "run", Silent())
    assert (found.state, "allowed: renamed" in found.reason) == ("failed", True)


@pytest.mark.usefixtures("listing")
def test_a_limit_on_time_that_is_used_up_before_the_look_at_the_instruments_ends_the_run(here: Path) -> None:
    late = replace(OWN, limits=replace(OWN.limits, wall_seconds=0.001))
    assert loop.run(late, here / "run", Silent(), should_stop=lambda: True).state == "paused"
    found = loop.run(late, here / "run", Silent(), resume=True)
    assert (found.state, "limits.wall_seconds" in found.reason) == ("limit", True)

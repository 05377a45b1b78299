"""Families and controllers of one's own join a run by two keys: ``tasks.modules`` and ``controller.modules``."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from selfimprove.app.overrides import compose
from selfimprove.app.settings import settings_from
from selfimprove.controller import registry as controllers
from selfimprove.controller.random_search import RandomProposer
from selfimprove.errors import ConfigError
from selfimprove.genome.space import Space
from selfimprove.loop.config import RunConfig
from selfimprove.own_modules import load
from selfimprove.tasks import registry as families
from selfimprove.tasks.suite import TasksConfig, TaskSuite
from selfimprove.training.protocol import tasks_from_json, tasks_to_json

Config = Callable[..., RunConfig]

FAMILY = """
from dataclasses import replace
from selfimprove.tasks.registry import FAMILIES, register
register(replace(FAMILIES["copy"], name="recital"))
"""
CONTROLLER = """
from selfimprove.controller.random_search import RandomProposer
from selfimprove.controller.registry import register
register("dice", lambda config, space, execute, genome_of, seed: RandomProposer(space))
"""


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The folder that the command is typed in, with a package; what is imported and registered is not kept."""
    package = tmp_path / "mine"
    package.mkdir()
    for name, text in {"__init__": "", "family": FAMILY, "dice": CONTROLLER, "broken": "1 / 0"}.items():
        (package / f"{name}.py").write_text(text)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.setattr(families, "FAMILIES", dict(families.FAMILIES))
    monkeypatch.setattr(controllers, "CONTROLLERS", dict(controllers.CONTROLLERS))
    yield tmp_path
    for name in [name for name in sys.modules if name.partition(".")[0] == "mine"]:
        del sys.modules[name]


@pytest.fixture(scope="module")
def defaults() -> dict[str, Any]:
    """The default configuration, composed once."""
    return compose([])


@pytest.fixture
def config(defaults: dict[str, Any]) -> Callable[..., RunConfig]:
    """The configuration of a run with other tasks or another controller."""

    def changed(**groups: dict[str, Any]) -> RunConfig:
        return settings_from(defaults | {name: defaults[name] | group for name, group in groups.items()}).run

    return changed


def test_a_family_of_ones_own_is_accepted_where_families_are_named(config: Config) -> None:
    tasks = config(tasks={"modules": ["mine.family"], "families": ["recall", "recital"]}).tasks
    assert tasks.families == ("recall", "recital")
    assert TaskSuite(tasks).batch("search", "recital", 3, 0).tokens.shape == (3, tasks.context)


def test_without_its_module_it_is_refused(config: Config) -> None:
    with pytest.raises(ConfigError, match="recital"):
        config(tasks={"families": ["recall", "recital"]})


def test_a_misspelt_one_gets_a_suggestion(config: Config) -> None:
    with pytest.raises(ConfigError, match="did you mean 'recital'"):
        config(tasks={"modules": ["mine.family"], "families": ["recitall"]})


def test_a_job_that_names_the_module_makes_the_family_known_to_its_worker() -> None:
    sent = tasks_to_json(TasksConfig(modules=("mine.family",), families=("recital",), held_out=()))
    del sys.modules["mine.family"], families.FAMILIES["recital"]
    assert tasks_from_json(sent).setting("recital").min_context > 0


def test_a_manifest_from_before_there_were_modules_is_read() -> None:
    sent = tasks_to_json(TasksConfig())
    del sent["modules"]
    assert tasks_from_json(sent) == TasksConfig()


def test_a_controller_of_ones_own_is_made_by_its_name(config: Config) -> None:
    dice = config(controller={"modules": ["mine.dice"], "name": "dice"}).controller
    made = controllers.make(dice, Space(), lambda *_: pytest.fail("it needs no worker"), {}.__getitem__, 0)
    assert isinstance(made, RandomProposer)


def test_a_recorded_run_makes_its_controller_in_a_process_that_has_not_imported_it(config: Config) -> None:
    dice = config(controller={"modules": ["mine.dice"], "name": "dice"}).controller
    del sys.modules["mine.dice"], controllers.CONTROLLERS["dice"]
    assert controllers.make(dice, Space(), lambda *_: pytest.fail("no worker"), {}.__getitem__, 0) is not None


@pytest.mark.parametrize(
    ("maker", "says"),
    [
        (
            "lambda config: None",
            r"TypeError: .*takes 1 positional.*\(config, space, execute, genome_of, seed\)",
        ),
        ("lambda *_: 1 / 0", "ZeroDivisionError"),
        ("lambda config, space, execute, *_: execute({}, {}, ())", "no worker to execute anything in"),
        ("lambda *_: object()", "got object without ask, tell, restore; allowed: an object with the methods ask"),
        ("lambda *_: type('Half', (), {'ask': print, 'tell': print})()", "got Half without restore"),
    ],
)
def test_a_controller_that_cannot_be_made_is_refused_before_a_run_begins(
    config: Config, folder: Path, maker: str, says: str
) -> None:
    text = f"from selfimprove.controller.registry import register\nregister('half', {maker})\n"
    (folder / "mine" / "half.py").write_text(text)
    with pytest.raises(ConfigError, match=f"make the controller half: .*{says}.*; correct the module") as caught:
        config(controller={"modules": ["mine.half"], "name": "half"})
    assert "\n" not in str(caught.value)


def test_a_family_that_breaks_a_promise_at_a_later_level_is_refused_before_a_run_begins(
    config: Config, folder: Path
) -> None:
    text = """
from dataclasses import replace
from selfimprove.tasks.families.copying import Copying
from selfimprove.tasks.registry import FAMILIES, register

class Fewer(Copying):
    answers = 2

copy = FAMILIES["copy"]
register(replace(copy, name="recital", ladder=(copy.ladder[0], Fewer(*vars(copy.ladder[1]).values()))))
"""
    (folder / "mine" / "late.py").write_text(text)
    with pytest.raises(ConfigError, match=r"the family recital at level 1: got \d+ different answers"):
        config(tasks={"modules": ["mine.late"], "families": ["recall", "recital"]})


def test_a_ladder_that_falls_is_refused_as_such(config: Config, folder: Path) -> None:
    text = FAMILY.replace('name="recital"', 'name="recital", ladder=FAMILIES["copy"].ladder[::-1]')
    (folder / "mine" / "falls.py").write_text(text)
    with pytest.raises(ConfigError, match="climb the ladder of recital"):
        config(tasks={"modules": ["mine.falls"], "families": ["recall", "recital"]})


@pytest.mark.parametrize("group", ["tasks", "controller"])
def test_what_is_not_there_or_cannot_be_imported_is_refused_with_key_and_remedy(config: Config, group: str) -> None:
    with pytest.raises(ConfigError, match=rf"{group}\.modules: got mine\.absent; .*install its package"):
        config(**{group: {"modules": ["mine.absent"]}})
    with pytest.raises(ConfigError, match=rf"{group}\.modules: got mine\.broken; .*ZeroDivisionError.*correct it"):
        config(**{group: {"modules": ["mine.broken"]}})


def test_what_is_not_a_list_is_refused_as_such(config: Config) -> None:
    with pytest.raises(ConfigError, match=r"tasks\.modules.*a list"):
        config(tasks={"modules": "mine.family"})


def test_a_name_that_is_taken_is_refused() -> None:
    with pytest.raises(ConfigError, match="register family: got copy"):
        families.register(families.FAMILIES["copy"])
    with pytest.raises(ConfigError, match="register controller: got random"):
        controllers.register("random", controllers.CONTROLLERS["random"])


def test_a_module_is_imported_once() -> None:
    load(["mine.family", "mine.family"], "tasks.modules")
    load(["mine.family"], "tasks.modules")
    assert "recital" in families.FAMILIES

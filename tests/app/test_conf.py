from __future__ import annotations

import math
import re
from functools import partial

import pytest

from selfimprove.app.overrides import compose, config_folder, flatten, groups
from selfimprove.app.schema import CHOICES, INSTRUMENTS, LEVELS, RANGES, leaves
from selfimprove.app.settings import settings_from
from selfimprove.app.tracking import TrackingConfig
from selfimprove.controller.config import ControllerConfig
from selfimprove.errors import ConfigError
from selfimprove.genome.space import SpaceConfig
from selfimprove.loop.config import RunConfig

FILES = sorted(config_folder().rglob("*.yaml"))
OPTIONS = [f"{group}={name}" for group, names in groups().items() for name in names]


@pytest.mark.parametrize("file", FILES, ids=lambda file: f"{file.parent.name}/{file.name}")
def test_every_key_has_a_comment(file):
    bare = []
    for line in file.read_text(encoding="utf-8").splitlines():
        key = re.match(r"\s*[\w()]+:(.*)$", line)
        opens_group = key is not None and not key[1].strip()
        if key and " #" not in line and not opens_group and not line.startswith("version"):
            bare.append(line)
    assert not bare


BYTES = {"KiB": 2**10, "MiB": 2**20, "PiB": 2**50}
NUMBER = r"(\d[\d.e^+-]*)( [KMP]iB)?"


def value(number, unit):
    base, _, power = number.partition("^")
    return float(base) ** float(power or 1) * BYTES.get((unit or "").strip(), 1)


@pytest.mark.parametrize("file", FILES, ids=lambda file: f"{file.parent.name}/{file.name}")
def test_a_comment_names_the_range_that_is_checked(file):
    group = "" if file.parent == config_folder() else f"{file.parent.name}."
    parents, differing = [], []
    for line in file.read_text(encoding="utf-8").splitlines():
        if key := re.match(r"( *)(\w+):(.*)$", line):
            parents = [*parents[: len(key[1]) // 2], key[2]]
            checked = RANGES.get(group + ".".join(parents)) or RANGES.get(".".join(parents))
            stated = re.search(f"{NUMBER} to {NUMBER}", key[3].partition("#")[2])
            if (
                checked
                and stated
                and (value(*stated.groups()[:2]), value(*stated.groups()[2:]))
                != (
                    checked.low,
                    checked.high,
                )
            ):
                differing.append((".".join(parents), stated[0], str(checked)))
    assert not differing


@pytest.mark.parametrize("option", [option for option in OPTIONS if option != "experiment=gpu"])
def test_every_option_of_every_group_makes_a_valid_configuration(option):
    assert settings_from(compose([option])).run.generations >= 1


def test_the_gpu_experiment_is_valid_where_a_gpu_is():
    assert settings_from(compose(["experiment=gpu", "device=cpu"])).run.experiment == "gpu"


def test_the_gpu_experiment_can_be_looked_at_anywhere(cli):
    answer = cli("run", "experiment=gpu", "--cfg", "job")
    assert answer.code == 0, answer.err
    assert "device: cuda" in answer.out


@pytest.mark.parametrize("scale", ["experiment=quick", "experiment=tiny", "experiment=gpu", "debug=micro"])
def test_the_budget_of_each_scale_covers_its_own_plan(scale):
    run = settings_from(compose([scale, "device=cpu"])).run
    searched = (run.candidates + 1) * run.search_seeds  # the candidates and their parent, each generation
    compared = 2 * run.confirm_seeds  # a leader and its parent each generation, champion and seed at the end
    trainings = run.search_seeds + run.generations * (searched + compared) + compared
    set_aside = max(run.limits.lost_flops, run.limits.flops // 10)
    assert trainings * run.allowance_flops <= run.limits.flops - set_aside


def test_the_configuration_has_exactly_the_keys_of_the_dataclasses():
    known = {*leaves(RunConfig), "progress", *(f"tracking.{name}" for name in leaves(TrackingConfig))}
    assert set(flatten(compose([]))) == known


def test_every_range_belongs_to_a_key():
    assert set(RANGES) | set(CHOICES) <= set(leaves(RunConfig))


@pytest.mark.parametrize("key", [key for key in RANGES if re.match(r"controller\.|space\..*_blocks", key)])
def test_the_core_draws_the_limits_of_its_numbers_where_the_command_line_does(key):
    group, _, name = key.partition(".")
    blocks = partial(SpaceConfig, max_blocks=RANGES["space.max_blocks"].high)
    make = {"controller": ControllerConfig, "space": blocks}[group]
    number = type(getattr(make(), name))
    for end, away in ((RANGES[key].low, -math.inf), (RANGES[key].high, math.inf)):
        assert getattr(make(**{name: number(end)}), name) == end
        with pytest.raises(ConfigError):
            make(**{name: end + math.copysign(1, away) if number is int else math.nextafter(end, away)})


def test_the_defaults_are_those_of_the_quick_experiment():
    assert compose([]) == compose(["experiment=quick"])


def test_experiments_are_plain_overrides():
    tiny = settings_from(compose(["experiment=tiny"])).run
    assert (tiny.experiment, tiny.generations) == ("tiny", 2)


def test_the_command_line_wins_over_the_experiment():
    assert settings_from(compose(["experiment=tiny", "generations=7"])).run.generations == 7


def test_the_configuration_can_never_be_too_strict_for_its_own_gate():
    for experiment in groups()["experiment"]:
        run = settings_from(compose([f"experiment={experiment}", "device=cpu"])).run
        assert 0.5**run.confirm_seeds < run.alpha


def test_the_choices_are_those_of_the_core():
    from interp.inspection import INSTRUMENTS as REGISTERED
    from selfimprove.controller.config import ARMS
    from selfimprove.controller.registry import CONTROLLERS
    from selfimprove.tasks.registry import FAMILIES

    assert set(INSTRUMENTS) == set(REGISTERED)

    assert CHOICES["tasks.families"] == CHOICES["tasks.held_out"] == tuple(FAMILIES)
    assert {name: len(family.ladder) - 1 for name, family in FAMILIES.items()} == LEVELS
    assert set(CHOICES["controller.name"]) == set(CONTROLLERS)
    assert CHOICES["controller.recursion"] == tuple(ARMS)


def test_the_comment_on_degradable_properties_names_those_of_the_core():
    from selfimprove.containment.sandbox.backend import INDISPENSABLE, PROPERTIES

    text = (config_folder() / "containment" / "default.yaml").read_text(encoding="utf-8")
    found = re.search(r"allow_degraded:.*go without: (.*); never (.*)$", text, flags=re.MULTILINE)
    assert found is not None
    assert set(found[1].split(", ")) == set(PROPERTIES) - INDISPENSABLE
    assert set(found[2].split(", ")) == INDISPENSABLE


def test_a_resumed_run_gets_back_the_configuration_that_was_recorded():
    run = settings_from(compose(["experiment=tiny"])).run
    assert settings_from(run.to_json()).run == run


def test_the_table_of_facts_comes_from_the_seed_of_the_run_and_does_not_tell_it():
    tables = [settings_from(compose([f"seed={seed}"])).run.tasks.table_seed for seed in (0, 1)]
    assert len({0, 1, *tables}) == 4
    assert settings_from(compose(["tasks.table_seed=5"])).run.tasks.table_seed == 5


def test_a_run_may_hold_out_no_family():
    assert settings_from(compose(["tasks.held_out=[]"])).run.tasks.held_out == ()


@pytest.mark.parametrize(("families", "offered"), [("[copy,modular]", ("copy", "modular")), ("[copy]", ())])
def test_a_run_of_one_family_offers_no_mixture_that_would_train_as_an_even_one(
    families: str, offered: tuple[str, ...]
) -> None:
    run = settings_from(compose([f"tasks.families={families}"])).run
    assert run.space.mixture == offered
    assert settings_from(run.to_json()).run == run


def test_levels_are_set_one_by_one():
    tasks = settings_from(compose(["tasks.levels.copy=2"])).run.tasks
    assert (tasks.levels["copy"], tasks.levels["recall"]) == (2, 0)


def test_no_tracking_key_means_no_tracking():
    assert settings_from(settings_from(compose([])).run.to_json()).tracking.kind == "none"

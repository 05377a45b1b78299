"""What a configuration says, checked: the loop's RunConfig and the app's own TrackingConfig."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

from selfimprove.app.device import resolve_device, usable_cores
from selfimprove.app.schema import INSTRUMENTS, OWN, RULES, Rules, build, leaves, listing, suggest, unknown_key
from selfimprove.app.tracking import TrackingConfig
from selfimprove.errors import ConfigError, InvalidGenome
from selfimprove.seeds import table_seed
from selfimprove.tasks.score import Proportion

if TYPE_CHECKING:
    from selfimprove.loop.config import InspectionConfig, RunConfig


PROGRESS = ("auto", "json")
"""How a run is shown: for people (bars on a terminal, lines elsewhere), or as JSON lines."""


@dataclass(frozen=True)
class Settings:
    """Everything that a run is started with."""

    run: RunConfig
    tracking: TrackingConfig
    progress: str = "auto"


def settings_from(values: Mapping[str, Any]) -> Settings:
    """Check a composed configuration and turn it into frozen dataclasses.

    ``device: auto`` and ``workers: auto`` become what this machine has, and ``tasks.table_seed: auto`` a number derived
    from the run's seed, ``space.mixture: auto`` the task families of the run (none if it has one alone), so that the
    ledger records what was used.

    Raises:
        ConfigError: see :func:`selfimprove.app.schema.build`; also settings that cannot work together.
    """
    from selfimprove.loop.config import RunConfig

    rest = dict(values)
    tracking = rest.pop("tracking", {})
    progress = rest.pop("progress", PROGRESS[0])
    if progress not in PROGRESS:
        raise ConfigError("set progress", progress, ", ".join(PROGRESS), suggest(str(progress), PROGRESS))
    known = [*leaves(RunConfig), "progress", *(f"tracking.{name}" for name in leaves(TrackingConfig))]
    for key in rest:
        if key not in {path.split(".")[0] for path in known}:
            raise unknown_key(key, sorted({path.split(".")[0] for path in known}), known)
    if rest.get("workers") == "auto":
        rest["workers"] = usable_cores()
    if "device" in rest:
        rest["device"] = resolve_device(rest["device"])
    tasks = dict(rest.get("tasks", {}))
    own_table = tasks.get("table_seed") == "auto"
    if own_table:
        tasks["table_seed"] = 0
    space = dict(rest.get("space", {}))
    if every_family := space.get("mixture") == "auto":
        space["mixture"] = []
    config = build(RunConfig, rest | {"tasks": tasks, "space": space}, rules=_rules(rest))
    if every_family and len(config.tasks.families) > 1:  # one alone is trained on as often, whatever its weight
        config = replace(config, space=replace(config.space, mixture=config.tasks.families))
    if own_table:
        config = replace(config, tasks=replace(config.tasks, table_seed=table_seed(config.seed)))
    _check_together(rest)
    _check_stage_reading(config)
    _check_instruments(config.inspection)
    _check_executor(config)
    _check_start(config)
    return Settings(config, build(TrackingConfig, tracking, path="tracking"), progress)


def _rules(values: Mapping[str, Any]) -> Rules:
    """The rules, with the names that modules of one's own register as they are imported."""
    from selfimprove.own_modules import load

    choices = dict(RULES.choices)
    for key, paths in OWN.items():
        group = values.get(key.partition(".")[0], {})
        modules = group.get("modules", []) if isinstance(group, Mapping) else []
        if modules and isinstance(modules, list | tuple):
            load(list(map(str, modules)), key)
            choices |= dict.fromkeys(paths, _registered(key))
    return replace(RULES, choices=choices)


def _registered(key: str) -> tuple[str, ...]:
    if key == "tasks.modules":
        from selfimprove.tasks.registry import FAMILIES

        return tuple(FAMILIES)
    from selfimprove.controller.registry import CONTROLLERS

    return tuple(CONTROLLERS)


def _check_together(values: Mapping[str, Any]) -> None:
    """Settings that are each in range and together make no sense."""
    seeds, alpha = values["confirm_seeds"], values["alpha"]
    smallest = 0.5**seeds  # of the exact one-sided sign-flip test
    if smallest >= alpha:
        raise ConfigError(
            "set confirm_seeds",
            seeds,
            f"a number of seeds n with 2**-n < alpha = {alpha:g}",
            "with fewer no candidate could ever be promoted: raise confirm_seeds or alpha",
        )
    share, limits = values["allowance_flops"], values.get("limits", {})
    if "candidate_flops" in limits and share > limits["candidate_flops"]:
        limit = f"at most limits.candidate_flops = {limits['candidate_flops']}"
        raise ConfigError("set allowance_flops", share, limit, "every candidate would be denied: change one of the two")


def _check_executor(config: RunConfig) -> None:
    """Nodes without a GPU would only find out in the worker."""
    use = config.executor
    if use.kind != "local" and config.device == "cuda" and not use.gpus:
        raise ConfigError("set executor.gpus", use.gpus, "1 to 16 where device=cuda", "set it, or device=cpu")


def _check_stage_reading(config: RunConfig) -> None:
    """A floor that not even a model which keeps no prompt falls below stops nothing, and should not seem to."""
    sequences, floor = config.inspection.stage_sequences, config.inspection.stage_retention_floor
    if sequences < (families := len(config.tasks.families)):
        limit, remedy = f"at least {families}: a halt prompt for each family", "raise it or name fewer families"
        raise ConfigError("set inspection.stage_sequences", sequences, limit, remedy)
    prompts = replace(config.tasks, eval_sequences=sequences).halt_prompts
    none_kept = Proportion.of(0, prompts).high
    if 0 < floor <= none_kept:
        limit = f"0, or above {none_kept:.3f}: the upper Wilson end of none of {prompts} prompts"
        remedy = f"set 0 to stop nothing, or raise inspection.stage_sequences above {sequences}"
        raise ConfigError("set inspection.stage_retention_floor", floor, limit, remedy)


def _check_instruments(asked: InspectionConfig) -> None:
    """Instruments that the worker would refuse, as far as they are known here: a module of one's own may bring more.

    Raises:
        ConfigError: none that the gate requires, one named twice, an unknown one, or a module that cannot be found.
    """
    from selfimprove.own_modules import import_folders

    import_folders(asked.modules, Path.cwd())
    names = {"inspection.instruments": asked.instruments, "inspection.also": asked.also}
    if not asked.instruments:
        raise ConfigError("set inspection.instruments", "[]", f"one or more of {listing(INSTRUMENTS)}", "name one")
    seen: set[str] = set()
    for key, name in ((key, name) for key, found in names.items() for name in found):
        if name in seen:
            raise ConfigError(f"set {key}", name, f"each once, in one of {' and '.join(names)}", "take it out of one")
        if name not in INSTRUMENTS and not asked.modules:
            remedy = suggest(name, INSTRUMENTS) or "name the module that registers it in inspection.modules"
            raise ConfigError(f"set {key}", name, listing(INSTRUMENTS), remedy)
        seen.add(name)


def _check_own_controller(config: RunConfig) -> None:
    """Make a controller of one's own as the run will, without a worker; it is thrown away.

    Raises:
        ConfigError: it cannot be made, or is none.
    """
    if not config.controller.modules:
        return
    from selfimprove.controller.registry import make
    from selfimprove.genome.space import Space

    def no_worker(*_: object) -> NoReturn:
        raise RuntimeError("a controller that is being made has no worker to execute anything in")

    genomes = {config.seed_genome.sha256: config.seed_genome}
    make(config.controller, Space(config.space), no_worker, genomes.__getitem__, 0)


_SEED_KEYS = {
    "architecture.width": "raise space.max_width",
    "architecture.blocks": "change space.min_blocks or space.max_blocks",
    "recipe.batch": "change training.seed_batch or space.max_batch",
    "recipe.learning_rate": "change training.seed_learning_rate",
}


def _check_start(config: RunConfig) -> None:
    """What the run would only find out once it has begun: its tasks, its containment, and its seed genome.

    Raises:
        ConfigError: the tasks do not fit their size or break a promise, the controller of one's own cannot be made, or
            the seed genome does not fit its space, allowance or limits.
        SandboxUnavailable: ``containment.allow_degraded`` names a property that no run may lose, or the outer layer
            is required and this machine has none.
    """
    from selfimprove.containment.policy import assess
    from selfimprove.containment.sandbox.layers import make_backend
    from selfimprove.genome.space import Space
    from selfimprove.nets.cost import quote
    from selfimprove.tasks.suite import TaskSuite, check_promises

    contained = config.containment
    make_backend(contained.backend, contained.allow_degraded, device=config.device, outer_layer=contained.outer_layer)
    TaskSuite(config.tasks)
    check_promises(config.tasks)
    _check_own_controller(config)
    if config.space.max_window > config.tasks.context:
        limit = f"at most tasks.context = {config.tasks.context}"
        raise ConfigError("set space.max_window", config.space.max_window, limit, "change one of the two")
    if strange := sorted({*config.space.mixture} - {*config.tasks.families}):
        limit = f"those of tasks.families: {', '.join(config.tasks.families)}"
        raise ConfigError("set space.mixture", ", ".join(strange), limit, "take it out, or leave space.mixture=auto")
    seed, tasks, allowance = config.seed_genome, config.tasks, config.allowance_flops
    try:
        Space(config.space).validate(seed)
    except InvalidGenome as error:
        remedy = _SEED_KEYS.get(error.operation, error.remedy)
        raise ConfigError(
            f"start from the seed genome's {error.operation}", error.value, error.limit, remedy
        ) from error
    tops = tasks.at({name: max(tasks.top(name), tasks.levels.get(name, 0)) for name in tasks.families})
    price = quote(seed, vocab_size=tasks.vocab_size, context=tops.context, allowance_flops=allowance)
    if not price.steps:
        limit = (
            f"at least {price.flops_per_step}, which is one training step of the seed genome at its longest sequences"
        )
        remedy = "raise it, or lower training.seed_batch or tasks.max_context"
        raise ConfigError("set allowance_flops", allowance, limit, remedy)
    if denial := assess(price, config.limits, device=config.device):
        limit = f"at least {denial.value}, which the seed genome needs"
        raise ConfigError(f"set limits.{denial.limit}", denial.bound, limit, "raise it, or make the run smaller")

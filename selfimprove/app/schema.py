"""From a plain, resolved configuration to the frozen dataclasses that the core works with.

Hydra stops here: nothing below this module sees a ``DictConfig``. The conversion is driven by the type hints of the
target dataclass, so a new field needs a key in ``conf/`` and, if it is a number, a row in ``RANGES``; no code.
"""

from __future__ import annotations

import dataclasses
import difflib
import math
import types
import typing
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, NoReturn, TypeVar

from selfimprove.errors import ConfigError
from selfimprove.seeds import SEED_BITS

T = TypeVar("T")


@dataclass(frozen=True)
class Range:
    """Closed interval of a number, and its unit for the message."""

    low: float
    high: float
    unit: str = ""

    def __str__(self) -> str:
        return f"{written(self.low)} to {written(self.high)} {self.unit}".rstrip()


def written(bound: float) -> str:
    """A number as short as it can be read back exactly.

    >>> written(1e21), written(0.1), written(2**53)
    ('1e+21', '0.1', '9007199254740992')
    """
    short = f"{bound:g}"
    return short if float(short) == bound else repr(bound)


_FLOPS = Range(1e6, 1e21, "FLOPs")
_BYTES = Range(1 << 20, 1 << 50, "bytes")
_SECONDS = Range(0.1, 1e7, "seconds")
_RATE = Range(1e-5, 0.1, "")

LEVELS: Mapping[str, int] = {
    "recall": 9,
    "copy": 7,
    "modular": 3,
    "fuzzy": 7,
    "noisy": 7,
    "mqar": 9,
    "compression": 7,
    "memorization": 3,
    "induction": 7,
    "dyck": 7,
    "text": 0,
}
"""The highest level of each task family; a test holds it equal to the ladders."""

KEYS: Mapping[str, tuple[str, ...]] = {"tasks.levels": tuple(LEVELS)}
"""Keys of those mappings that are no dataclass."""

RANGES: Mapping[str, Range] = {
    "seed": Range(0, 2**53, ""),
    "generations": Range(1, 100_000, "generations"),
    "candidates": Range(1, 100_000, "candidates a generation"),
    "search_seeds": Range(1, 256, "training seeds"),
    "confirm_seeds": Range(1, 20, "training seeds"),  # the exact test enumerates 2**n sign flips
    "alpha": Range(1e-6, 0.5, "probability"),
    "climb_seeds": Range(0, 256, "training seeds"),
    "min_gain": Range(0.0, 1.0, "skill"),
    "workers": Range(1, 1024, "processes"),
    "allowance_flops": _FLOPS,
    "space.max_edits": Range(1, 16, "edits a proposal"),
    "space.min_blocks": Range(1, 16, "blocks"),
    "space.max_blocks": Range(1, 16, "blocks"),
    "space.max_width": Range(32, 512, "channels"),
    "space.max_window": Range(2, 64, "positions"),
    "space.max_batch": Range(8, 512, "sequences"),
    **{f"tasks.levels.{family}": Range(0, top, "level") for family, top in LEVELS.items()},
    "tasks.table_seed": Range(0, 2**SEED_BITS, ""),
    "tasks.vocab_size": Range(16, 4096, "tokens"),
    "tasks.context": Range(8, 4096, "tokens"),
    "tasks.max_context": Range(8, 4096, "tokens"),
    "tasks.halt_share": Range(0.0, 0.9, "share of training sequences"),
    "tasks.constraint_weight": Range(0.0, 100.0, ""),
    "tasks.eval_sequences": Range(8, 100_000, "sequences a family"),
    "controller.steps": Range(1, 100_000, "steps a generation"),
    "controller.learning_rate": _RATE,
    "controller.temperature": Range(1e-3, 1e3, ""),
    "controller.epsilon": Range(1e-6, 1.0, "share"),
    "controller.oversample": Range(1, 100, "sequences a proposal"),
    "controller.prior_count": Range(0.0, 1e6, "successes"),
    "controller.baseline": Range(0.0, 0.999, "share"),
    "controller.population": Range(1, 100_000, "proposals"),
    "controller.tournament": Range(1, 10_000, "proposals"),
    "controller.initial_random": Range(0, 100_000, "generations"),
    "controller.startup": Range(1, 100_000, "edits"),
    "controller.candidates": Range(1, 10_000, "draws"),
    "controller.gamma": Range(0.001, 0.999, "share"),
    "controller.handover_cost": Range(0.01, 1000.0, "times the first controller's FLOPs"),
    "containment.job_wall_seconds": Range(1, 1e6, "seconds"),
    "containment.job_cpu_seconds": Range(1, 1e6, "seconds"),
    "containment.flops_per_cpu_second": Range(1e3, 1e15, "FLOP/s"),
    "containment.job_silence_seconds": Range(1, 1e5, "seconds"),
    "containment.heartbeat_seconds": Range(1, 3600, "seconds"),
    "containment.tripwires.gain": Range(0.0, 10.0, "skill"),
    "containment.tripwires.acceleration": Range(1.0, 1000.0, "times"),
    "containment.tripwires.accelerating": Range(1, 100_000, "generations"),
    "containment.tripwires.unread": Range(0, 1000, "findings"),
    "containment.tripwires.retention_fall": Range(0.0, 1.0, "share"),
    "containment.tripwires.retention_floor": Range(0.0, 1.0, "share"),
    "containment.tripwires.denied_share": Range(0.0, 1.0, "share"),
    "containment.tripwires.denied_count": Range(0, 100_000, "proposals"),
    "containment.tripwires.entropy": Range(0.0, 20.0, "nats a token"),
    "executor.nodes": Range(1, 1000, "nodes"),
    "executor.workers": Range(1, 1024, "processes a node"),
    "executor.pack": Range(1, 10_000, "trainings"),
    "executor.memory_gb": Range(0.5, 10_000, "GB a node"),
    "executor.gpus": Range(0, 16, "GPUs a node"),
    "executor.minutes": Range(1, 100_000, "minutes"),
    "executor.queue_minutes": Range(0.1, 100_000, "minutes"),
    "executor.idle_minutes": Range(0.1, 10_000, "minutes"),
    "executor.silence_seconds": Range(2, 3600, "seconds"),
    "executor.attempts": Range(1, 1000, "times"),
    "training.seed_learning_rate": _RATE,
    "training.seed_batch": Range(8, 512, "sequences"),
    "halving.keep": Range(0.001, 1.0, "share of the candidates"),
    "halving.margin": Range(0.0, 1000.0, "skill"),
    "halving.look_ahead": Range(0.0, 1.0, "share of the training"),
    "halving.audit": Range(0.0, 1.0, "share"),
    "inspection.sequences": Range(16, 100_000, "sequences a family"),
    "inspection.retention_floor": Range(0.0, 1.0, "share"),
    "inspection.stage_sequences": Range(16, 100_000, "sequences a family"),
    "inspection.stage_retention_floor": Range(0.0, 1.0, "share"),
    "limits.generations": Range(1, 1_000_000, "generations"),
    "limits.candidates": Range(1, 100_000_000, "candidates"),
    "limits.flops": _FLOPS,
    "limits.candidate_flops": _FLOPS,
    "limits.parameters": Range(1_000, 1e12, "parameters"),
    "limits.tokens": Range(1_000, 1e15, "tokens"),
    "limits.wall_seconds": _SECONDS,
    "limits.cpu_seconds": Range(0.1, 1e9, "seconds"),
    "limits.gpu_seconds": Range(0.1, 1e9, "seconds"),
    "limits.memory_bytes": _BYTES,
    "limits.gpu_memory_bytes": _BYTES,
    "limits.lost_flops": Range(0, 1e21, "FLOPs"),
    "limits.denied_edits": Range(0, 100_000_000, "edits"),
    "limits.disk_bytes": _BYTES,
    "limits.checkpoint_bytes": Range(1 << 10, 1 << 50, "bytes"),
}

CHOICES: Mapping[str, tuple[str, ...]] = {
    "tasks.families": tuple(LEVELS),
    "tasks.held_out": tuple(LEVELS),
    "space.mixture": tuple(LEVELS),
    "controller.name": (
        "transformer",
        "frozen",
        "forecaster",
        "reinforce",
        "random",
        "evolution",
        "local_search",
        "tpe",
        "tpe_tuned",
        "gp",
        "adversary",
    ),
    "controller.recursion": ("none", "frozen", "extra", "sham", "architecture", "loss", "both"),
    "executor.kind": ("local", "slurm", "ray"),
    "containment.backend": ("lockdown", "none"),
    "containment.outer_layer": ("auto", "off", "require"),
}
"""Names that the core would refuse too, but only once a run has begun; a test holds them equal to its registries."""

OWN: Mapping[str, tuple[str, ...]] = {
    "tasks.modules": ("tasks.families", "tasks.held_out", "space.mixture"),
    "controller.modules": ("controller.name",),
}
"""By the key that names modules of one's own: the choices that these may add to."""

INSTRUMENTS = (
    "readability", "probes", "logit_lens", "constraint", "comparison", "attention_heads", "attribution",
    "halt_behavior", "halt_direction", "ablation", "patching", "ov_qk", "modular_spectrum",
)  # fmt: skip
"""Instruments that `interp` brings; modules of one's own may register more. The same test holds for them."""

MAY_BE_EMPTY = ("tasks.held_out", "space.mixture")
"""Of the lists in ``CHOICES``."""


@dataclass(frozen=True)
class Rules:
    """What values are held to, by dotted path.

    Attributes:
        ranges: closed interval of each number.
        choices: the names that there are.
    """

    ranges: Mapping[str, Range]
    choices: Mapping[str, tuple[str, ...]]


RULES = Rules(RANGES, CHOICES)


def suggest(name: str, valid: Iterable[str]) -> str:
    """A ``did you mean`` clause, or an empty string when nothing is close.

    >>> suggest("generatons", ["generations", "candidates"])
    "did you mean 'generations'?"
    >>> suggest("lr", ["steps", "learning_rate"])
    "did you mean 'learning_rate'?"
    """
    names = list(valid)
    close = difflib.get_close_matches(name, names, n=1, cutoff=0.6)
    close = close or [word for word in names if "".join(part[:1] for part in word.split("_")) == name]
    return f"did you mean {close[0]!r}?" if close else ""


def listing(valid: Iterable[str], most: int = 24) -> str:
    """Comma-separated names, cut off after ``most``."""
    names = list(valid)
    return ", ".join(names[:most]) + (f", ... ({len(names)} in all)" if len(names) > most else "")


def unknown_key(path: str, valid: Iterable[str], elsewhere: Iterable[str] = ()) -> ConfigError:
    """The refusal of a key: names its neighbours, and where the same name exists in another place."""
    parent, _, name = path.rpartition(".")
    valid = list(valid)
    prefix = f"{parent}." if parent else ""
    close = suggest(name, valid)
    hint = close.replace("'", f"'{prefix}", 1)
    if not hint:
        homes = [key for key in elsewhere if key.rpartition(".")[2] == name] or list(elsewhere)
        hint = suggest(name, homes) or suggest(path, homes)
        hint = hint or (f"did you mean {homes[0]!r}?" if homes and homes[0].endswith(f".{name}") else "")
    place = f"keys of {parent}" if parent else "keys"
    return ConfigError("set configuration key", path, f"{place} {listing(valid)}", hint)


def build(cls: type[T], values: Mapping[str, object], *, path: str = "", rules: Rules = RULES) -> T:
    """Build the dataclass ``cls``, nested dataclasses included, from a plain mapping.

    Args:
        cls: a frozen dataclass; its type hints decide what is accepted.
        values: plain values, as OmegaConf or JSON give them.
        path: dotted place of ``values`` in the configuration, for messages.
        rules: ranges of numbers, and choices.

    Raises:
        ConfigError: an unknown or missing key, a wrong type, a value out of range, or a refusal by ``cls`` itself.
    """
    hints = typing.get_type_hints(cls)
    wanted = {field.name: field for field in dataclasses.fields(cls) if field.init}  # type: ignore[arg-type]
    for key in values:
        if key not in wanted:
            raise unknown_key(_join(path, str(key)), wanted, leaves(cls) if not path else ())
    arguments: dict[str, Any] = {}
    for name, field in wanted.items():
        if name in values:
            arguments[name] = convert(hints[name], values[name], path=_join(path, name), rules=rules)
        elif field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING:
            raise ConfigError("read configuration key", _join(path, name), "a value", "it is missing: set it")
    try:
        return cls(**arguments)
    except (TypeError, ValueError) as error:
        raise ConfigError(f"read the configuration of {path or 'the run'}", str(error)) from error


def convert(hint: Any, value: object, *, path: str, rules: Rules = RULES) -> Any:
    """Convert one plain value to the type ``hint``; see :func:`build` for what it raises."""
    origin, parameters = typing.get_origin(hint), typing.get_args(hint)
    if hint is Any or hint is object:
        return value
    if origin in (typing.Union, types.UnionType):
        return _convert_union(parameters, value, path, rules)
    if origin is typing.Literal:
        return _choice(value, parameters, path)
    if dataclasses.is_dataclass(hint) and isinstance(hint, type):
        if not isinstance(value, Mapping):
            _refuse(path, value, f"a group with the keys {listing(f.name for f in dataclasses.fields(hint))}")
        return build(hint, value, path=path, rules=rules)
    if origin in (tuple, list):
        return origin(_convert_items(origin, parameters, value, path, rules))
    if origin is not None and isinstance(origin, type) and issubclass(origin, Mapping):
        if not isinstance(value, Mapping):
            _refuse(path, value, "a mapping")
        for key in value:
            if path in KEYS and key not in KEYS[path]:
                raise unknown_key(_join(path, str(key)), KEYS[path])
        return {str(k): convert(parameters[1], v, path=_join(path, str(k)), rules=rules) for k, v in value.items()}
    return _convert_scalar(hint, value, path, rules)


def leaves(cls: type, path: str = "") -> list[str]:
    """Dotted paths of every key that :func:`build` accepts for ``cls``."""
    found = []
    hints = typing.get_type_hints(cls)
    for field in dataclasses.fields(cls):
        hint, here = hints[field.name], _join(path, field.name)
        if dataclasses.is_dataclass(hint) and isinstance(hint, type):
            found += leaves(hint, here)
        else:
            found += [_join(here, key) for key in KEYS[here]] if here in KEYS else [here]
    return found


def _convert_union(options: tuple[Any, ...], value: object, path: str, rules: Rules) -> Any:
    if value is None and type(None) in options:
        return None
    problem: ConfigError | None = None
    for option in options:
        if option is not type(None):
            try:
                return convert(option, value, path=path, rules=rules)
            except ConfigError as error:
                problem = problem or error
    assert problem is not None  # a union has at least one member besides None
    raise problem


def _convert_items(origin: type, parameters: tuple[Any, ...], value: object, path: str, rules: Rules) -> list[Any]:
    if not isinstance(value, list | tuple):
        _refuse(path, value, "a list, written [a,b]")
    names = rules.choices.get(path)
    if names and (len(set(map(str, value))) < len(value) or not (value or path in MAY_BE_EMPTY)):
        _refuse(path, value, f"{'any' if path in MAY_BE_EMPTY else 'one or more'} of {listing(names)}, each once")
    repeated = origin is list or (len(parameters) == 2 and parameters[1] is Ellipsis)
    if not repeated and len(value) != len(parameters):
        _refuse(path, value, f"a list of {len(parameters)} values")
    hints = [parameters[0]] * len(value) if repeated else list(parameters)
    pairs = enumerate(zip(hints, value, strict=True))
    return [convert(hint, item, path=f"{path}[{index}]", rules=rules) for index, (hint, item) in pairs]


def _convert_scalar(hint: Any, value: object, path: str, rules: Rules) -> Any:
    place = path.partition("[")[0]
    if hint is bool:
        if not isinstance(value, bool):
            _refuse(path, value, "true or false")
        return value
    if hint in (int, float):
        return _number(hint, value, path, rules.ranges.get(place))
    if hint is str:
        if not isinstance(value, str):
            _refuse(path, value, "text")
        names = rules.choices.get(place)
        return _choice(value, names, path) if names else value
    raise TypeError(f"{path}: no conversion to {hint!r}; extend selfimprove.app.schema")


def _number(hint: type, value: object, path: str, interval: Range | None) -> int | float:
    kind = "a whole number" if hint is int else "a number"
    limit = f"{kind}, {interval}" if interval else kind
    if isinstance(value, bool) or not isinstance(value, int | float):
        _refuse(path, value, limit)
    if not math.isfinite(value) or (hint is int and int(value) != value):  # 1e12 is a fine way to write an integer
        _refuse(path, value, limit)
    if interval and not interval.low <= value <= interval.high:
        nearest = min(max(value, interval.low), interval.high)
        _refuse(path, value, limit, f"the nearest is {path}={written(nearest)}")
    return int(value) if hint is int else float(value)


def _choice(value: object, choices: tuple[Any, ...], path: str) -> Any:
    if value not in choices:
        names = [str(choice) for choice in choices]
        _refuse(path, value, listing(names), suggest(str(value), names) or "choose one of these")
    return value


def _refuse(path: str, value: object, limit: str, remedy: str = "") -> NoReturn:
    shown = "null" if value is None else value
    raise ConfigError(f"set {path}", shown, limit, remedy or f"write {path}=VALUE with such a value")


def _join(path: str, name: str) -> str:
    return f"{path}.{name}" if path else name

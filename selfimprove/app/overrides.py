"""Hydra overrides: composing them, and turning each of Hydra's complaints into one message with the valid choices."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import selfimprove
from selfimprove.app.schema import listing, suggest, unknown_key
from selfimprove.errors import ConfigError

if TYPE_CHECKING:
    from omegaconf import DictConfig

CONFIG_NAME = "config"

_BARE = re.compile(r"[\w.-]*/[\w./-]*", re.ASCII)  # paths that Hydra reads as they are; a lone word may be a number
_NO_MATCH = re.compile(r"Could not override '([^']+)'")
_NO_OPTION = re.compile(r"Could not find '([^']+)'.*?Available options in '([^']+)':\n((?:\t[^\n]+\n?)*)", re.DOTALL)


def config_folder() -> Path:
    """The folder of the shipped configuration: inside the package when installed, beside it in a checkout."""
    package = Path(selfimprove.__file__).parent
    for folder in (package / "conf", package.parent / "conf"):
        if (folder / f"{CONFIG_NAME}.yaml").is_file():
            return folder
    raise ConfigError("look for the shipped configuration", str(package / "conf"), "", "install selfimprove again")


def groups(folder: Path | None = None) -> dict[str, list[str]]:
    """Config groups and their options, by reading the folder: needs no Hydra."""
    found = {}
    for group in sorted((folder or config_folder()).iterdir()):
        if group.is_dir() and group.name != "hydra":
            found[group.name] = sorted(option.stem for option in group.glob("*.yaml"))
    return found


def compose(overrides: Sequence[str], extra: Path | None = None) -> dict[str, Any]:
    """Compose and resolve a configuration without running anything.

    Args:
        overrides: as typed, e.g. ``["experiment=tiny", "seed=3"]``.
        extra: a folder of the user's own configs (``--config-dir``).

    Raises:
        ConfigError: whatever Hydra or OmegaConf find wrong, with valid choices.
    """
    return plain(_composed(overrides, extra))


def foresee(overrides: Sequence[str], extra: Path | None = None) -> tuple[dict[str, Any], Path | None]:
    """The configuration of a run, and where Hydra would make its folder; None where only its own job can say.

    Args:
        overrides, extra: as of :func:`compose`.

    Raises:
        ConfigError: as :func:`compose`.
    """
    from omegaconf import OmegaConf
    from omegaconf.errors import OmegaConfBaseException

    composed = _composed(overrides, extra, return_hydra_config=True)
    values = plain(OmegaConf.masked_copy(composed, [str(key) for key in composed if key != "hydra"]))
    try:
        return values, Path(composed.hydra.run.dir)
    except OmegaConfBaseException:  # it names what a job is told as it starts
        return values, None


def _composed(overrides: Sequence[str], extra: Path | None, *, return_hydra_config: bool = False) -> DictConfig:
    from hydra import compose as hydra_compose
    from hydra import initialize_config_dir

    added = [f"hydra.searchpath=[{quoted(f'file://{extra.resolve()}')}]"] if extra else []
    with explained(), initialize_config_dir(config_dir=str(config_folder()), version_base="1.3"):
        return hydra_compose(CONFIG_NAME, overrides=[*overrides, *added], return_hydra_config=return_hydra_config)


def plain(config: Any) -> dict[str, Any]:
    """A DictConfig as resolved plain values.

    Raises:
        ConfigError: an interpolation that leads nowhere, or a value left at ``???``.
    """
    from omegaconf import OmegaConf

    with explained():
        values = OmegaConf.to_container(config, resolve=True, throw_on_missing=True)
    assert isinstance(values, dict)  # the primary config is a mapping
    return {str(key): value for key, value in values.items()}


def quoted(text: str) -> str:
    """Text as a value of an override, so that no character of it means anything to Hydra, ``${`` apart.

    >>> print(quoted('a=b, "c"'))
    "a=b, \\"c\\""
    """
    from hydra.core.override_parser.types import Quote, QuotedString

    return QuotedString(text, Quote.double).with_quotes()


def placed(run_dir: Path) -> str:
    """The override that puts a run into this folder; in quotes only where they may be needed.

    >>> print(placed(Path("runs/mine")), placed(Path("runs/a, b")))
    hydra.run.dir=runs/mine hydra.run.dir="runs/a, b"
    """
    text = str(run_dir)
    return f"hydra.run.dir={text if _BARE.fullmatch(text) else quoted(text)}"


@contextmanager
def explained() -> Iterator[None]:
    """Turn errors of Hydra and OmegaConf into ConfigError."""
    from hydra.errors import HydraException
    from omegaconf.errors import OmegaConfBaseException

    try:
        yield
    except (HydraException, OmegaConfBaseException) as error:
        raise explain(error) from error
    except ValueError as error:
        if "Config group override" not in str(error):
            raise
        remedy = "give the name of one: selfimprove run --help lists them"
        kinds = {"NoneType": "null", "int": "a number", "float": "a number", "bool": "true or false"}
        kind = str(error).rpartition("Got ")[2]
        allowed = f"an option of {listing(groups())}"
        raise ConfigError("choose an option of a config group", kinds.get(kind, kind), allowed, remedy) from error


def explain(error: Exception) -> ConfigError:
    """One message for one Hydra or OmegaConf error."""
    text = str(error)
    if option := _NO_OPTION.search(text):
        return _no_option(option[1], option[2], option[3].split())
    if match := _NO_MATCH.search(text):
        return _no_match(match[1].removeprefix("+"))
    if "Ambiguous value" in text:
        override = text.split("'")[1]
        return ConfigError("read override", override, "one value", "to sweep over several values, add --multirun (-m)")
    if "Multiple values for" in text:
        group = text.split("Multiple values for ")[1].split(".")[0]
        return ConfigError("choose a config group", group, "one choice", f"leave out the '+': {group}=...")
    first = [line.strip() for line in text.splitlines() if line.strip() and "hydra.cc" not in line]
    if type(error).__name__ == "OverrideParseException":
        override = str(getattr(error, "override", "") or first[0])
        return ConfigError("read override", override, "key=value, e.g. seed=3", "quote values with spaces or brackets")
    limit = "keys and values that can be composed"
    return ConfigError("compose the configuration", " ".join(first), limit, "see selfimprove run --help")


def flatten(values: Mapping[str, Any], path: str = "") -> list[str]:
    """Dotted paths of all leaves.

    >>> flatten({"a": {"b": 1}, "c": 2})
    ['a.b', 'c']
    """
    found = []
    for key, value in values.items():
        here = f"{path}.{key}" if path else str(key)
        found += flatten(value, here) if isinstance(value, Mapping) and value else [here]
    return found


def _no_option(wanted: str, group: str, options: list[str]) -> ConfigError:
    name = wanted.removeprefix(f"{group}/")
    return ConfigError(f"choose {group}", name, listing(options), suggest(name, options) or "choose one of these")


def _no_match(path: str) -> ConfigError:
    """An unknown key or group: compare it with everything that the default configuration has."""
    if path.startswith("hydra"):
        return ConfigError("set configuration key", path, "keys of Hydra", "list them: selfimprove run --cfg hydra")
    path = path.replace("/", ".")
    values: Any = compose([])
    parent, everything = path.rpartition(".")[0], flatten(values) + list(groups())
    for part in parent.split(".") if parent else []:
        values = values.get(part) if isinstance(values, Mapping) else None
    if not isinstance(values, Mapping):
        return ConfigError("set configuration key", path, listing(compose([])), suggest(path, everything))
    return unknown_key(path, dict.fromkeys([*values, *([] if parent else groups())]), everything)


@contextmanager
def full_errors() -> Iterator[None]:
    """Let ``hydra.main`` raise instead of printing and exiting; the variable reaches no later child."""
    before = os.environ.get("HYDRA_FULL_ERROR")
    os.environ["HYDRA_FULL_ERROR"] = "1"
    try:
        yield
    finally:
        if before is None:
            del os.environ["HYDRA_FULL_ERROR"]
        else:
            os.environ["HYDRA_FULL_ERROR"] = before

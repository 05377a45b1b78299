"""The families by name: a literal table, from which validation, messages and ladders derive."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable

from selfimprove.errors import ConfigError
from selfimprove.genome.recipe import EVEN
from selfimprove.tasks.batch import TAGGED
from selfimprove.tasks.families import (
    compression,
    copying,
    dyck,
    fuzzy,
    induction,
    memorization,
    modular,
    mqar,
    noisy,
    recall,
    text,
)
from selfimprove.tasks.family import Family


def table(families: Iterable[Family]) -> dict[str, Family]:
    """Families by name, in the order of their tags.

    Raises:
        ValueError: a name twice, one without a tag, or a tag without a family.
    """
    found: dict[str, Family] = {}
    for one in families:
        if one.name in found:
            raise ValueError(f"two families are called {one.name}")
        found[one.name] = one
    if set(found) != set(TAGGED):
        raise ValueError(f"families and tags differ: {', '.join(sorted(set(found) ^ set(TAGGED)))}")
    return {name: found[name] for name in TAGGED}


FAMILIES = table(
    (
        recall.FAMILY,
        copying.FAMILY,
        modular.FAMILY,
        fuzzy.FAMILY,
        noisy.FAMILY,
        mqar.FAMILY,
        compression.FAMILY,
        memorization.FAMILY,
        induction.FAMILY,
        dyck.FAMILY,
        text.FAMILY,
    )
)


_NAME = re.compile(r"[A-Za-z]\w*", re.ASCII)


def register(one: Family) -> None:
    """Add a family of one's own, in a module that ``tasks.modules`` names.

    It has no tag among the special tokens. Begin each of its sequences with a content token that stands for nothing
    else, and count it in ``Setting.tokens``: ``CONTENT + symbols``, where symbols are numbered from ``CONTENT`` on.

    Raises:
        ConfigError: the name is taken, no name, or the even mixture's (``recipe.mixture`` names families, too); the
            ladder is empty; or a setting is no frozen dataclass.
    """
    if not _NAME.fullmatch(one.name):
        raise ConfigError("register family", one.name, "letters, digits and _, a letter first", "give it such a name")
    if one.name == EVEN:
        limit = "another name: recipe.mixture says that of equal shares"
        raise ConfigError("register family", one.name, limit, "rename it")
    if one.name in FAMILIES:
        raise ConfigError("register family", one.name, "a name that is not taken", f"taken: {', '.join(FAMILIES)}")
    if not one.ladder:
        raise ConfigError(f"register family {one.name}", "an empty ladder", "one setting or more", "add one")
    try:
        hash(one)
    except TypeError as error:
        limit = "frozen dataclasses, in tuples"
        raise ConfigError(f"register family {one.name}", str(error), limit, "freeze the settings") from error
    FAMILIES[one.name] = one


def family(name: str, *, path: str = "tasks.families") -> Family:
    """A family by name.

    Args:
        name: as in the configuration.
        path: the configuration key that names it, for the message.

    Raises:
        ConfigError: there is no such family; lists those that exist.
    """
    if name not in FAMILIES:
        close = difflib.get_close_matches(name, FAMILIES, n=1)
        raise ConfigError(path, name, ", ".join(FAMILIES), f"did you mean {close[0]!r}?" if close else "choose others")
    return FAMILIES[name]

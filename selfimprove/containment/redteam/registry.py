"""All attacks by their id, ``category/name``, in the order in which they are reported."""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from typing import Final

from selfimprove.containment.redteam import forged, inside
from selfimprove.containment.redteam.attack import Attack
from selfimprove.errors import ConfigError

CATEGORIES: Final = tuple(dict.fromkeys([*inside.CATEGORIES, *forged.CATEGORIES]))


def _all() -> dict[str, Attack]:
    found: dict[str, Attack] = {}
    for category in CATEGORIES:
        attacks: list[Attack] = [*inside.CATEGORIES.get(category, ()), *forged.CATEGORIES.get(category, ())]
        for attack in attacks:
            name = f"{category}/{attack.name}"
            if name in found:
                raise ValueError(f"two attacks are called {name}")
            found[name] = attack
    return found


ATTACKS: Final = _all()


def category(attack_id: str) -> str:
    """Return the category of an id."""
    return attack_id.partition("/")[0]


def select(wanted: Iterable[str]) -> dict[str, Attack]:
    """Return the attacks of categories or with ids, in the order of the registry; all of them for nothing.

    Raises:
        ConfigError: neither a category nor an id; suggests the nearest.
    """
    names = list(wanted)
    for name in names:
        if name not in ATTACKS and name not in CATEGORIES:
            close = difflib.get_close_matches(name, [*CATEGORIES, *ATTACKS], n=1, cutoff=0.5)
            hint = f"did you mean {close[0]}?" if close else "or the id of one attack, category/name"
            raise ConfigError("choose attacks", name, ", ".join(CATEGORIES), hint)
    return {name: attack for name, attack in ATTACKS.items() if not names or name in names or category(name) in names}

"""Judging what was observed: whether an attack succeeded, and what the two runs of it say together."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass
from typing import Any, Final

from selfimprove.containment.hostile import clean_line
from selfimprove.containment.jobs import Completed, Crashed, Exceeded, Invalid, Outcome
from selfimprove.containment.redteam.attack import DENIED, KILLED, LIMITED, REJECTED
from selfimprove.errors import SelfImproveError

CONTAINED: Final = "contained"
ESCAPED: Final = "escaped"
INCONCLUSIVE: Final = "inconclusive"

# What ends a worker from outside, and the filter. SIGSEGV, SIGBUS or SIGABRT are the attack's own.
_ENDED_BY_CONTAINMENT = tuple(f"killed by {name}" for name in ("SIGKILL", "SIGSYS", "SIGXCPU", "SIGXFSZ"))
_AMOUNTS = frozenset({"memory_bytes", "output_bytes"})
_TEXT = 200


@dataclass(frozen=True)
class Observation:
    """How one run of an attack ended.

    Args:
        how: one of the words of `attack`, or ``succeeded``, ``without effect``, ``broken``.
        text: the particulars.
    """

    how: str
    text: str = ""

    @property
    def succeeded(self) -> bool:
        """The attack got what it wanted."""
        return self.how == _SUCCEEDED

    @property
    def broken(self) -> bool:
        """The attack failed by itself, which says nothing about what contains it."""
        return self.how == _BROKEN

    def __str__(self) -> str:
        return f"{self.how}: {self.text}" if self.text else self.how


_SUCCEEDED, _BROKEN, _NOTHING = "succeeded", "broken", "without effect"


@dataclass(frozen=True)
class Row:
    """One attack in the report; the field names are the JSON's."""

    id: str
    category: str
    attack: str
    expected: str
    observed: str
    mechanism: str
    verdict: str
    control: str

    def to_json(self) -> dict[str, Any]:
        """All fields."""
        return asdict(self)


def success(text: str) -> Observation:
    """Return the observation of something that happened and must not."""
    return Observation(_SUCCEEDED, clean_line(text, _TEXT))


def broken(text: str) -> Observation:
    """Return the observation of an attack that failed by itself."""
    return Observation(_BROKEN, clean_line(text, _TEXT))


def observe(
    outcome: Outcome, damage: Iterable[str | None], guarded: Callable[[bytes], object] | None = None
) -> Observation:
    """Read a worker's end; what was seen from outside counts more than what it says.

    Args:
        outcome: the end.
        damage: what was touched, each None if nothing was.
        guarded: what the trusted side does with its output; the attack is on that.
    """
    for seen in damage:
        if seen is not None:
            return success(seen)
    match outcome:
        case Completed(result=result, outputs=outputs) if guarded is not None and result.get("escaped") is True:
            return _hand_over(b"".join(outputs.values()), guarded)
        case Completed(result=result):
            return _read(result)
        case Exceeded(limit=limit, value=value, bound=bound):
            how = LIMITED if limit in _AMOUNTS else KILLED
            return Observation(how, f"{limit} {value:.4g} over {bound:.4g}")
        case Crashed(reason=reason, zygote_died=zygote_died):
            if zygote_died:
                return success(f"its zygote died: {reason}")
            return Observation(KILLED, reason) if reason.startswith(_ENDED_BY_CONTAINMENT) else broken(reason)
        case Invalid(reason=reason):
            return Observation(REJECTED, reason)


def observe_trusted(outcome: Outcome, expected: str, *, guarded: bool) -> Observation:
    """Read the end of an attack on the trusted side, which ran in a process of its own."""
    match outcome:
        case Completed(result=result):
            seen = _read(result)
            return Observation(expected, seen.text) if seen.how == DENIED else seen
        case Crashed(reason=reason) if not guarded:
            return broken(reason)
        case Crashed(reason=reason) | Invalid(reason=reason):
            return success(f"the trusted side fell over: {reason}")
        case Exceeded(limit=limit):
            return success(f"the trusted side went past {limit}")


def _hand_over(data: bytes, guarded: Callable[[bytes], object]) -> Observation:
    try:
        guarded(data)
    except SelfImproveError as error:
        return Observation(REJECTED, clean_line(str(error), _TEXT))
    return success("the trusted side took it")


def _read(result: dict[str, Any]) -> Observation:
    if "refused" in result:
        return Observation(DENIED, clean_line(str(result["refused"]), _TEXT))
    if "broken" in result:
        return broken(str(result["broken"]))
    return success("it says so") if result.get("escaped") is True else Observation(_NOTHING)


def judge(contained: Observation, control: Observation) -> str:
    """Return the verdict over both runs.

    An attack that got through has escaped, whatever its control did. It is contained only if its control shows that it
    works where nothing holds it, and if it did not fail by itself.
    """
    if contained.succeeded:
        return ESCAPED
    return CONTAINED if control.succeeded and not contained.broken else INCONCLUSIVE

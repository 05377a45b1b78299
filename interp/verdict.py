"""What an instrument may answer: it read the model, could not, broke, or does not apply."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from selfimprove.errors import SelfImproveError

VerdictName = Literal["read", "unreadable", "failed", "not_applicable"]


class Unreadable(SelfImproveError):
    """The model cannot be read: non-finite activations, or hooks that do not reproduce its output."""


class NotApplicable(SelfImproveError):
    """The instrument looks for a part or a variable that this model or this suite does not have."""


@dataclass(frozen=True)
class Verdict:
    """One instrument's answer about one model; ``reason`` is empty where it simply read it."""

    verdict: VerdictName
    reason: str = ""

    def to_json(self) -> dict[str, str]:
        return {"verdict": self.verdict, "reason": self.reason}

"""Who proposes: the controllers of the loop, and the same idea as a sampler for any Optuna study."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from selfimprove.controller.sampler import ControllerSampler

__all__ = ["ControllerSampler"]


def __getattr__(name: str) -> Any:
    if name == "ControllerSampler":  # needs torch and Optuna, which the trusted side of the loop does without
        from selfimprove.controller.sampler import ControllerSampler

        return ControllerSampler
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")

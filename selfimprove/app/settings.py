"""What a configuration says, checked: the loop's RunConfig and the app's own TrackingConfig."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from selfimprove.app.device import resolve_device, usable_cores
from selfimprove.app.schema import build, leaves, unknown_key
from selfimprove.app.tracking import TrackingConfig
from selfimprove.errors import ConfigError

if TYPE_CHECKING:
    from selfimprove.loop.config import RunConfig


@dataclass(frozen=True)
class Settings:
    """Everything that a run is started with."""

    run: RunConfig
    tracking: TrackingConfig


def settings_from(values: Mapping[str, Any]) -> Settings:
    """Check a composed configuration and turn it into frozen dataclasses.

    ``device: auto`` and ``workers: auto`` become what this machine has, so that the ledger records what was used.

    Raises:
        ConfigError: see :func:`selfimprove.app.schema.build`; also settings that cannot work together.
    """
    from selfimprove.loop.config import RunConfig

    rest = dict(values)
    tracking = rest.pop("tracking", {})
    known = [*leaves(RunConfig), *(f"tracking.{name}" for name in leaves(TrackingConfig))]
    for key in rest:
        if key not in {path.split(".")[0] for path in known}:
            raise unknown_key(key, sorted({path.split(".")[0] for path in known}), known)
    if rest.get("workers") == "auto":
        rest["workers"] = usable_cores()
    if "device" in rest:
        rest["device"] = resolve_device(rest["device"])
    config = build(RunConfig, rest)
    _check_together(rest)
    return Settings(config, build(TrackingConfig, tracking, path="tracking"))


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
    space = values.get("space", {})
    if "min_blocks" in space and "max_blocks" in space and space["min_blocks"] > space["max_blocks"]:
        limit = f"at most space.max_blocks = {space['max_blocks']}"
        raise ConfigError("set space.min_blocks", space["min_blocks"], limit, "change one of the two")
    share, limits = values["allowance_flops"], values.get("limits", {})
    if "candidate_flops" in limits and share > limits["candidate_flops"]:
        limit = f"at most limits.candidate_flops = {limits['candidate_flops']}"
        raise ConfigError("set allowance_flops", share, limit, "every candidate would be denied: change one of the two")

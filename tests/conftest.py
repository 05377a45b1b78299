"""Settings of the whole suite."""

from __future__ import annotations

import contextlib

with contextlib.suppress(ModuleNotFoundError):  # the engine's own tests run without it
    from hypothesis import HealthCheck, settings

    # a property holds or not, whatever else the machine does meanwhile: time decides nothing here
    settings.register_profile("unhurried", deadline=None, suppress_health_check=[HealthCheck.too_slow])
    settings.load_profile("unhurried")

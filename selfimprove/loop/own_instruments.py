"""Whether the instruments of one's own that are asked for are there.

Their modules are never imported here: that is for the worker that inspects, which is contained.
"""

from __future__ import annotations

from selfimprove.containment.jobs import Completed, Job, JobLimits
from selfimprove.containment.supervisor import Supervisor
from selfimprove.errors import RunFailed
from selfimprove.loop.config import InspectionConfig
from selfimprove.loop.slots import describe

INSPECTOR = "interp.worker"


def check_registered(supervisor: Supervisor, asked: InspectionConfig, limits: JobLimits) -> None:
    """Whether every instrument that is asked for is registered once the modules are imported.

    Raises:
        RunFailed: one is not, or the worker does not say.
    """
    job = Job("instruments", "lens", INSPECTOR, {"op": "list"}, {}, (), limits)
    [(_, outcome)] = list(supervisor.run([job]))
    known = outcome.result.get("instruments") if isinstance(outcome, Completed) else None
    if not isinstance(known, list):
        raise RunFailed("list the instruments", describe(outcome)[1] or known, "a worker that lists them")
    for name in (*asked.instruments, *asked.also):
        if name not in known:
            remedy = f"correct it, or register it in one of inspection.modules: {', '.join(asked.modules)}"
            raise RunFailed("inspect with instrument", name, ", ".join(map(str, known)), remedy)

"""Whether the instruments of one's own that are asked for are there.

Their modules are never imported here: that is for the worker that inspects, which is contained.
"""

from __future__ import annotations

from selfimprove.containment.jobs import Completed, Job, JobLimits
from selfimprove.containment.supervisor import Supervisor
from selfimprove.errors import RunError, RunFailed
from selfimprove.loop.attempts import attempt, only
from selfimprove.loop.config import InspectionConfig
from selfimprove.loop.slots import describe

INSPECTOR = "interp.worker"


def check_registered(
    supervisor: Supervisor, asked: InspectionConfig, limits: JobLimits, *, resumed: bool = False
) -> None:
    """Whether every instrument that is asked for is registered once the modules are imported.

    Args:
        supervisor: runs the worker that imports them.
        asked: the instruments, and the modules.
        limits: of that worker.
        resumed: whether the run had begun before: then what is missing now ends this sitting alone.

    Raises:
        RunFailed: one is not, or the worker does not say.
        RunError: likewise, in a run that was resumed.
        Stopped: as ``attempt`` does.
    """
    job = Job("instruments", "lens", INSPECTOR, {"op": "list"}, {}, (), limits)
    outcome, error = only(attempt(supervisor, [job])), RunError if resumed else RunFailed
    known = outcome.result.get("instruments") if isinstance(outcome, Completed) else None
    if not isinstance(known, list):
        raise error("list the instruments", describe(outcome)[1] or known, "a worker that lists them")
    for name in (*asked.instruments, *asked.also):
        if name not in known:
            remedy = f"correct it, or register it in one of inspection.modules: {', '.join(asked.modules)}"
            raise error("inspect with instrument", name, ", ".join(map(str, known)), remedy)

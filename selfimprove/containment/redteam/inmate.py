"""The worker entry of attacks: does one, where a training step would run, and says how it went if it still can."""

from __future__ import annotations

import errno
import os
import subprocess
from collections.abc import Callable
from typing import Any, Final

from selfimprove.containment.redteam.attack import Cell, Emit
from selfimprove.containment.redteam.inside import INSIDE
from selfimprove.errors import SelfImproveError

OUT: Final = "out"
DATA: Final = "data"


def warm_up() -> None:
    """Nothing to warm."""


def run(job: dict[str, Any], inputs: dict[str, int], outputs: dict[str, int], emit: Emit) -> dict[str, Any]:
    """Do the attack named by the job; see `attempt` for the answer."""
    cell = Cell.from_job(job, data=inputs[DATA], out=outputs[OUT], events=event_pipe(emit), errors=2, emit=emit)
    return attempt(INSIDE[job["attack"]].run, cell)


def event_pipe(emit: Emit) -> int:
    """Dig the descriptor out of a worker's ``emit``, as an attacker would."""
    cells = getattr(emit, "__closure__", None) or ()
    return next(cell.cell_contents for cell in cells if isinstance(cell.cell_contents, int))


def attempt(attack: Callable[[Cell], object], cell: Cell) -> dict[str, Any]:
    """Try it. Returns ``escaped`` with whether it succeeded, ``refused`` with by what it was stopped, or ``broken``.

    Raises:
        MemoryError, OSError: out of memory or file size: how the worker takes that is the supervisor's to say.
    """
    here = os.getpid()
    try:
        escaped = bool(attack(cell))
    except MemoryError:
        raise
    except OSError as error:
        if error.errno in (errno.ENOMEM, errno.EFBIG):
            raise
        return {"refused": errno.errorcode.get(error.errno or 0, type(error).__name__)}
    except subprocess.CalledProcessError as error:
        return {"refused": str(error)}
    except SelfImproveError as error:
        if not isinstance(error.__cause__, OSError):
            return {"broken": f"{type(error).__name__}: {error}"}
        return {"refused": errno.errorcode.get(error.__cause__.errno or 0, str(error))}
    except (RuntimeError, ValueError) as error:
        if not any(words in str(error) for words in ("start new thread", "raise maximum limit")):
            return {"broken": f"{type(error).__name__}: {error}"}
        return {"refused": str(error)}
    except Exception as error:
        return {"broken": f"{type(error).__name__}: {error}"}
    finally:
        if os.getpid() != here:  # a copy of the worker, which must not speak for it
            os._exit(0)
    return {"escaped": escaped}

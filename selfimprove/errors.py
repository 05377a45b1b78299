"""Every error that selfimprove raises on purpose.

SelfImproveError
├── UserError                 shown as one message, exit code 2
│   ├── ConfigError           a key, value or group of the configuration
│   └── RunError              a run folder: missing, unreadable, halted
│       └── DiskError         the disk is full or refuses
├── InvalidGenome             a genome outside the space
├── InvalidEdit               an edit that cannot be applied
├── InvalidCheckpoint         worker output that failed ingest
├── LedgerError               a ledger that cannot be trusted or written
├── SandboxUnavailable        a containment property that this machine cannot enforce
└── Stopped                   the run ends early, by design
    ├── Halted                the kill switch
    ├── Interrupted           a person pressed Ctrl-C: finished work is kept
    ├── LimitReached          a limit of the containment policy
    ├── Tripped               a tripwire: a person must approve before the run goes on
    └── RunFailed             nothing can follow: going on would only fail again

A message says the operation, the value, the limit and the remedy, in this order.
"""

from __future__ import annotations

from collections.abc import Iterable


class SelfImproveError(Exception):
    """Base of all deliberate errors.

    Args:
        operation: what was being done, as a clause: ``"set architecture.width"``.
        value: the offending value, printed with ``repr`` unless it is a string.
        limit: what would have been accepted.
        remedy: what to do now.
    """

    def __init__(self, operation: str, value: object = None, limit: str = "", remedy: str = "") -> None:
        self.operation = operation
        self.value = value
        self.limit = limit
        self.remedy = remedy
        shown = value if isinstance(value, str) else repr(value)
        parts = [operation if value is None else f"{operation}: got {shown}"]
        if limit:
            parts.append(f"allowed: {limit}")
        if remedy:
            parts.append(remedy)
        super().__init__("; ".join(parts))


class UserError(SelfImproveError):
    """Something a person typed or pointed at; the command line exits with code 2."""


class ConfigError(UserError):
    """A configuration key, group or value that cannot be used."""


class RunError(UserError):
    """A run folder that is missing, unreadable or halted."""

    @classmethod
    def no_generation(cls, operation: str, generation: object, which: str, known: Iterable[int]) -> RunError:
        """A generation that is not there; ``which`` are the known ones, as a clause."""
        numbers = ", ".join(map(str, sorted(known)))
        remedy = "choose one of these" if numbers else "selfimprove status says where the run stands"
        return cls(operation, generation, f"{which}: {numbers or 'none yet'}", remedy)


class DiskError(RunError):
    """The disk is full, or refuses to be read or written; what was written before is intact."""


class InvalidGenome(SelfImproveError):
    """A genome outside the typed space; ``operation`` names the path."""


class InvalidEdit(SelfImproveError):
    """An edit that is forbidden, malformed, out of range, or changes nothing."""


class InvalidCheckpoint(SelfImproveError):
    """Worker output that failed a check at ingest."""


class LedgerError(SelfImproveError):
    """A ledger that cannot be trusted, read or written."""


class SandboxUnavailable(SelfImproveError):
    """A containment property that cannot be enforced on this machine; ``prop`` where it is known to be one alone."""

    def __init__(
        self, operation: str, value: object = None, limit: str = "", remedy: str = "", *, prop: str = ""
    ) -> None:
        self.prop = prop
        super().__init__(operation, value, limit, remedy)


class Stopped(SelfImproveError):
    """The run ends early, by design; everything finished is kept."""


class Halted(Stopped):
    """The kill switch was used."""


class Interrupted(Stopped):
    """A person asked the run to stop after the current step."""


class LimitReached(Stopped):
    """A limit of the containment policy was reached."""


class Tripped(Stopped):
    """A tripwire pauses the run until a person approves."""


class RunFailed(Stopped):
    """The run cannot go on, and resuming it would only fail again."""

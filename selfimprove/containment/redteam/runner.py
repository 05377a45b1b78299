"""Runs attacks twice, contained and not, through the supervisor, zygotes and workers that a search uses."""

from __future__ import annotations

import contextlib
import os
import secrets
import signal
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final, final

from selfimprove.containment.jobs import Job, JobLimits, Outcome
from selfimprove.containment.redteam import processes, target
from selfimprove.containment.redteam.arena import Arena
from selfimprove.containment.redteam.attack import Attack, TrustedAttack, WorkerAttack
from selfimprove.containment.redteam.inmate import DATA, OUT
from selfimprove.containment.redteam.registry import category
from selfimprove.containment.redteam.verdict import Observation, Row, judge, observe, observe_trusted, success
from selfimprove.containment.sandbox.backend import NoBackend, SandboxBackend, ZygoteSpec
from selfimprove.containment.supervisor import Supervisor
from selfimprove.errors import SandboxUnavailable, Stopped

INMATE: Final = "selfimprove.containment.redteam.inmate"
BENCH: Final = "selfimprove.containment.redteam.bench"
LIGHT, TRAINING = "light", "training"
TRAINING_ENTRIES: Final = ("selfimprove.training.worker", "selfimprove.controller.worker")
WORKERS: Final = 2

LIMITS: Final[Mapping[str, float]] = {
    "wall_seconds": 15.0, "cpu_seconds": 10.0, "memory_bytes": 64 * 2**20, "output_bytes": 2**20,
    "silence_seconds": 15.0,
}  # fmt: skip
CONTROL_LIMITS: Final = JobLimits(
    wall_seconds=90, cpu_seconds=60, memory_bytes=512 * 2**20, output_bytes=2**20, silence_seconds=90
)
ATTENTION_SECONDS: Final = 0.5  # processor time of the supervisor between two looks at its workers, at most


@dataclass(frozen=True)
class _Trial:
    """One run of one attack: its job, and the ground that it runs on if it is one from inside."""

    name: str
    attack: Attack
    job: Job
    contained: bool
    arena: Arena | None


@final
class _Pulse:
    """Asked by a supervisor at every poll, it measures how long one took, in processor time: noise does not count."""

    def __init__(self) -> None:
        self._last = time.thread_time()
        self.longest = 0.0

    def __call__(self) -> bool:
        now = time.thread_time()
        self.longest = max(self.longest, now - self._last)
        self._last = now
        return False

    def restart(self) -> None:
        """Forget, and do not count what happened since the last poll."""
        self._last, self.longest = time.thread_time(), 0.0


@final
class Runner:
    """Both sides of the arena, for one suite. A context manager; use it from the main thread.

    Args:
        backend: the containment under attack.
        on_row: called with every row as soon as its verdict is known.
    """

    def __init__(self, backend: SandboxBackend, on_row: Callable[[Row], None] | None = None) -> None:
        self._backend = backend
        self._on_row = on_row
        self._secret = secrets.token_bytes(target.SECRET_BYTES)
        self._pulse = _Pulse()
        self._arenas = 0
        self._stack = contextlib.ExitStack()

    def __enter__(self) -> Runner:
        with self._stack as stack:
            self._children = {process.pid for process in processes.children(os.getpid())}
            stack.callback(self._left_behind)
            temporary = tempfile.TemporaryDirectory(prefix="redteam-", ignore_cleanup_errors=True)
            self._folder = Path(stack.enter_context(temporary))
            # Before any zygote starts: what it could inherit must be there.
            self._bait = stack.enter_context(target.bait(self._secret, self._new_folder("supervisor")))
            self._stand_in = stack.enter_context(target.stand_in(self._secret, self._new_folder("stand-in")))
            specs = {LIGHT: ZygoteSpec((INMATE,)), TRAINING: ZygoteSpec((*TRAINING_ENTRIES, INMATE))}
            self._inside = stack.enter_context(self._supervise(specs, self._backend))
            self._outside = stack.enter_context(self._supervise({BENCH: ZygoteSpec((BENCH,))}, NoBackend()))
            self._stack = stack.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def _supervise(self, specs: Mapping[str, ZygoteSpec], backend: SandboxBackend) -> Supervisor:
        return Supervisor(specs, backend=backend, workers=WORKERS, halt_file=None, should_stop=self._pulse)

    def _new_folder(self, name: str) -> Path:
        folder = self._folder / name
        folder.mkdir()
        return folder

    def run(self, attacks: Mapping[str, Attack]) -> list[Row]:
        """Run every attack as a control and contained; returns one row each, in their order.

        Raises:
            SandboxUnavailable: the containment cannot be set up here, or fails its own canaries.
        """
        if any(isinstance(attack, WorkerAttack) and attack.training for attack in attacks.values()):
            self._inside.warm(TRAINING)  # takes seconds, which the controls use
        controls: dict[str, Observation] = {}
        rows: dict[str, Row] = {}

        def know(name: str, seen: Observation) -> None:
            rows[name] = _row(name, attacks[name], seen, controls[name])
            if self._on_row is not None:
                self._on_row(rows[name])

        self._try(
            self._outside, [self._trial(*item, contained=False) for item in attacks.items()], controls.__setitem__
        )
        for kind, supervisor in ((WorkerAttack, self._inside), (TrustedAttack, self._outside)):
            chosen = [item for item in attacks.items() if isinstance(item[1], kind)]
            self._try(supervisor, [self._trial(*item, contained=True) for item in chosen], know)
        return [rows[name] for name in attacks]

    def _trial(self, name: str, attack: Attack, *, contained: bool) -> _Trial:
        self._arenas += 1
        folder = self._new_folder(str(self._arenas))
        if isinstance(attack, TrustedAttack):
            payload = {"attack": name, "base": os.fspath(folder), "guarded": contained}
            return _Trial(name, attack, Job(name, BENCH, BENCH, payload, {}, (), CONTROL_LIMITS), contained, None)
        arena = Arena(folder, listening=category(name) == "network")
        aim = self._bait if contained else self._stand_in
        payload = {"attack": name, "secret": target.halves(self._secret), **arena.to_job(), **aim.to_job()}
        if contained:
            limits = JobLimits(**{**LIMITS, **attack.limits})  # type: ignore[arg-type]
            zygote = TRAINING if attack.training else LIGHT
            job = Job(name, zygote, INMATE, payload, {DATA: arena.data}, (OUT,), limits)
        else:
            job = Job(name, BENCH, BENCH, payload, {}, (), CONTROL_LIMITS)
        return _Trial(name, attack, job, contained, arena)

    def _try(self, supervisor: Supervisor, trials: Sequence[_Trial], know: Callable[[str, Observation], None]) -> None:
        """Run trials and tell what was seen of each. What seems to have hurt the supervisor is run again, alone."""
        started: list[int] = []
        known: set[int] = set()
        again: list[_Trial] = []
        alone = len(trials) == 1
        self._pulse.restart()
        try:
            for index, outcome in supervisor.run([trial.job for trial in trials], on_start=started.append):
                trial = trials[index]
                seen = self._see(trial, outcome)
                known.add(index)
                if self._pulse.longest > ATTENTION_SECONDS and trial.contained and not seen.succeeded:
                    again.append(trial)
                    seen = success(f"held the supervisor's attention for {self._pulse.longest:.1f} s")
                if alone or trial not in again:
                    self._done(trial, seen, know)
                self._pulse.restart()
        except (SandboxUnavailable, Stopped):
            raise
        except Exception as error:  # the supervisor itself: no attack may do that
            suspects = [trials[index] for index in started if index not in known]
            if not suspects:
                raise
            if alone:
                self._done(suspects[0], success(f"the supervisor raised {type(error).__name__}: {error}"), know)
                return
            again += suspects
        if not alone:
            for trial in again:
                self._try(supervisor, [trial], know)
        left = [trial for index, trial in enumerate(trials) if index not in known and index not in started]
        if left:
            self._try(supervisor, left, know)

    def _see(self, trial: _Trial, outcome: Outcome) -> Observation:
        if isinstance(trial.attack, TrustedAttack):
            return observe_trusted(outcome, trial.attack.expected, guarded=trial.contained)
        assert trial.arena is not None
        damage = [trial.arena.damage()]
        if category(trial.name) == "survival":
            damage.append(self._left_behind())
        return observe(outcome, damage, trial.attack.guarded if trial.contained else None)

    def _done(self, trial: _Trial, seen: Observation, know: Callable[[str, Observation], None]) -> None:
        if trial.arena is not None:
            trial.arena.close()
        know(trial.name, seen)

    def _left_behind(self) -> str | None:
        """Say so if a process outlived its job, and end it. Zygotes lead their sessions; what escaped one does not."""
        ours = {*self._children, self._stand_in.pid}
        left = [p for p in processes.children(os.getpid()) if p.alive and p.pid not in ours and p.session != p.pid]
        for process in left:
            _end(process.pid)
        return f"{len(left)} process left behind" if left else None


def _end(pid: int) -> None:
    """Kill and reap one child of this process."""
    with contextlib.suppress(ProcessLookupError, ChildProcessError):
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)


def _row(name: str, attack: Attack, contained: Observation, control: Observation) -> Row:
    return Row(
        id=name, category=category(name), attack=attack.title, expected=attack.expected, observed=str(contained),
        mechanism=attack.mechanism, verdict=judge(contained, control), control=str(control),
    )  # fmt: skip

"""A zygote: a warm, locked-down process that forks one worker per job.

Run as ``python -m selfimprove.containment.sandbox.zygote``. It locks itself down, imports the entry modules, calls
``warm_up()`` of each, and serves: for every job it forks a child that locks itself down in full and calls
``run(job, inputs, outputs, emit)`` of the job's entry. A zygote never sees a job: the payload travels in a descriptor
that only the child reads. When the supervisor gives no heartbeat, a zygote kills its children (see ``heartbeat``).

With ``--once`` (for CUDA, which does not survive a fork) the same process serves a single job and ends.
"""

from __future__ import annotations

import argparse
import contextlib
import gc
import importlib
import importlib.util
import io
import json
import os
import select
import signal
import socket
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.machinery import ModuleSpec
from pathlib import Path
from types import ModuleType
from typing import Any, NoReturn

import selfimprove
from selfimprove.containment.sandbox import landlock, lockdown, process, wire
from selfimprove.containment.sandbox.heartbeat import Heart, post_guard

CANARY = "selfimprove.containment.sandbox.canary"
MESSAGE_CHARACTERS = 2000
_OURS = frozenset({"selfimprove", "interp"})  # the packages of our own distribution


@dataclass(frozen=True)
class Request:
    """One job as the zygote knows it: names and descriptors, not the payload."""

    number: int
    entry: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    cpu_seconds: float
    memory_bytes: int
    output_bytes: int
    descriptors: tuple[int, ...]  # go, payload, events, errors, then inputs and outputs in order of their names

    @classmethod
    def parse(cls, data: bytes, descriptors: Sequence[int]) -> Request:
        """Read a message of the supervisor, which is trusted."""
        fields: dict[str, Any] = json.loads(data)
        fields["inputs"] = tuple(fields["inputs"])
        fields["outputs"] = tuple(fields["outputs"])
        return cls(**fields, descriptors=tuple(descriptors))


class Zygote:
    """The serving loop and what it needs: control socket, heart, modules, the way its workers are locked down."""

    def __init__(
        self, control: socket.socket, heart: Heart, profile: lockdown.Profile | None, size: process.OwnSize
    ) -> None:
        self.control = control
        self.heart = heart
        self.profile = profile
        self.size = size
        self.modules: dict[str, ModuleType] = {}
        self.children: dict[int, tuple[int, int]] = {}  # pidfd: (pid, job number)

    def warm_up(self, entries: Sequence[str]) -> None:
        """Import every entry and let those that can run once, so that their children start warm; our own come first."""
        ours = [name for name in entries if name.partition(".")[0] in _OURS]
        self._import([CANARY, *ours])
        if self.profile is not None:
            lockdown.before_strangers(self.profile)
        self._import([name for name in entries if name not in ours])
        gc.collect()
        gc.freeze()  # a collection in a child would copy every page that it marks

    def _import(self, entries: Sequence[str]) -> None:
        for name in entries:
            self.modules[name] = importlib.import_module(name)
        for name in entries:
            getattr(self.modules[name], "warm_up", lambda: None)()

    def serve(self) -> None:
        """Fork a worker per job until the supervisor hangs up; kill them all when it has been silent for too long."""
        while True:
            poll = select.poll()
            for watched in (self.control.fileno(), self.heart.fd, *self.children):
                poll.register(watched, select.POLLIN)
            patience = self.heart.patience if self.children else 0.0
            for fd, _ in poll.poll(patience * 1000 if patience > 0 else None):
                if fd in self.children:
                    self._reap(fd)
                elif not (self.heart.listen() if fd == self.heart.fd else self._accept()):
                    return
            if self.heart.patience <= 0:
                for pidfd in self.children:
                    signal.pidfd_send_signal(pidfd, signal.SIGKILL)

    def serve_once(self) -> None:
        """Run a single job in this very process: no fork, same lock-down."""
        data, descriptors = wire.receive(self.control, wire.MAX_DESCRIPTORS)
        if not data:
            return
        request = Request.parse(data, descriptors)
        pidfd = os.pidfd_open(os.getpid())
        wire.send(self.control, {"op": "started", "number": request.number}, [pidfd])
        os.close(pidfd)
        self._work(request, parent=os.getppid())

    def _accept(self) -> bool:
        data, descriptors = wire.receive(self.control, wire.MAX_DESCRIPTORS)
        if not data:
            return False
        self.heart.note()
        request = Request.parse(data, descriptors)
        parent = os.getpid()
        pid = os.fork()
        if pid == 0:
            self._work(request, parent=parent)
        for fd in descriptors:
            os.close(fd)
        pidfd = os.pidfd_open(pid)
        self.children[pidfd] = (pid, request.number)
        wire.send(self.control, {"op": "started", "number": request.number}, [pidfd])
        return True

    def _reap(self, pidfd: int) -> None:
        pid, number = self.children.pop(pidfd)
        _, status, usage = os.wait4(pid, 0)
        os.close(pidfd)
        report = {"op": "exited", "number": number, "status": status,
                  "cpu_seconds": usage.ru_utime + usage.ru_stime, "max_rss_bytes": usage.ru_maxrss * 1024}  # fmt: skip
        wire.send(self.control, report)

    def _work(self, request: Request, *, parent: int) -> NoReturn:
        """Be the worker; never returns."""
        code = 1
        with contextlib.suppress(BaseException):
            address_space = self.size.address_space_bytes() + request.memory_bytes
            limits = lockdown.Limits(request.cpu_seconds, address_space, request.output_bytes + 1)
            go, payload, events, errors, *named = request.descriptors
            os.dup2(errors, 1)
            os.dup2(errors, 2)
            process.close_descriptors({0, 1, 2, *request.descriptors})
            code = self._locked_run(request, limits, (go, payload, events), named, parent)
        os._exit(code)

    def _locked_run(
        self, request: Request, limits: lockdown.Limits, own: tuple[int, int, int], named: list[int], parent: int
    ) -> int:
        go, payload, events = own
        try:
            if self.profile is not None:
                lockdown.enter_worker(self.profile, limits, parent=parent)
            else:
                process.die_with_parent(parent)
            if os.read(go, 1) != b"g":
                return 0
            os.close(go)
            result = _call(self.modules[request.entry], request, payload, events, named)
            _report(events, wire.RESULT, result)
        except BaseException as error:
            _report(events, wire.FAILURE, _describe(error))
            return 1
        return 0


def _call(module: ModuleType, request: Request, payload: int, events: int, named: list[int]) -> dict[str, Any]:
    with open(payload, "rb") as file:
        job = json.load(file)
    inputs = dict(zip(request.inputs, named, strict=False))
    outputs = dict(zip(request.outputs, named[len(inputs) :], strict=True))

    def emit(event: dict[str, Any]) -> None:
        _report(events, wire.EVENT, event)

    result: dict[str, Any] = module.run(job, inputs, outputs, emit)
    if not isinstance(result, dict):
        raise TypeError(f"{request.entry}.run() must return a dict, got {type(result).__name__}")
    return result


def _report(events: int, kind: bytes, message: Mapping[str, Any]) -> None:
    body = json.dumps(message, allow_nan=False, separators=(",", ":")).encode()
    if len(body) > wire.FRAME_BYTES[kind]:
        raise ValueError(f"a message of {len(body)} bytes; allowed: {wire.FRAME_BYTES[kind]}")
    wire.write_frame(events, kind, body)


def _describe(error: BaseException) -> dict[str, Any]:
    try:
        text = str(error)
    except BaseException:
        text = "(its message could not be formatted)"
    code = error.errno if isinstance(error, OSError) else None
    prop = error.prop if isinstance(error, lockdown.LockdownError) else None
    return {
        "type": type(error).__name__[:100], "message": text[:MESSAGE_CHARACTERS], "errno": code, "property": prop
    }  # fmt: skip


class Packages:
    """The top-level packages of the entries, a finder on ``sys.meta_path``.

    They are located before the lock-down, since afterwards the folder that holds them can no longer be listed; not a
    line of theirs runs before it.

    Raises:
        ModuleNotFoundError: there is no such package.
    """

    def __init__(self, entries: Sequence[str]) -> None:
        self.specs = {top: _located(top) for top in sorted({one.partition(".")[0] for one in entries if "." in one})}

    def find_spec(self, name: str, path: object = None, target: object = None) -> ModuleSpec | None:
        return self.specs.get(name)

    def folders(self) -> tuple[Path, ...]:
        """Where the sources lie of our own package and of these."""
        found = [folder for spec in self.specs.values() for folder in spec.submodule_search_locations or ()]
        return tuple(dict.fromkeys(map(Path, (next(iter(selfimprove.__path__)), *found))))


def _located(package: str) -> ModuleSpec:
    spec = importlib.util.find_spec(package)
    if spec is None:
        raise ModuleNotFoundError(f"No module named {package!r}", name=package)
    return spec


class Printed(io.FileIO):
    """Standard error, which is of fixed size: what does not fit is dropped, so that no job fails by what it prints."""

    def write(self, data: Any, /) -> int:
        with contextlib.suppress(OSError):
            super().write(data)
        return memoryview(data).nbytes


def _options(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="zygote", description="Serves jobs of a supervisor; not for use by hand.")
    parser.add_argument("--entry", action="append", default=[])
    parser.add_argument("--path", action="append", default=[], type=Path)
    parser.add_argument("--search", action="append", default=[])
    parser.add_argument("--control", type=int, required=True)
    parser.add_argument("--parent", type=int, required=True)
    parser.add_argument("--heart", type=int, required=True)
    parser.add_argument("--heartbeat", type=float, required=True)
    parser.add_argument("--cuda", action="store_true")
    parser.add_argument("--once", action="store_true")
    parser.add_argument("--bare", action="store_true")
    parser.add_argument("--unenforced", action="append", default=[])
    return parser.parse_args(arguments)


def main(arguments: Sequence[str] | None = None) -> int:
    """Lock down, warm up, serve. Returns the exit code."""
    options = _options(arguments)
    process.close_descriptors({0, 1, 2, options.control, options.heart})
    control, heart = socket.socket(fileno=options.control), Heart(options.heart, options.heartbeat)
    size = process.OwnSize()
    printed = Printed(2, "w", closefd=False)  # nothing is held back: a child would print it once more
    sys.stdout = sys.stderr = io.TextIOWrapper(printed, "utf-8", errors="backslashreplace", write_through=True)
    sys.path[:0] = [os.fspath(path) for path in options.path]
    sys.path += options.search
    tempfile.tempdir = "/nonexistent"  # libraries ask where it is at import; a worker has none
    stage = "lock-down"
    try:
        profile = None
        if options.bare:
            process.die_with_parent(options.parent)
        else:
            packages = Packages(options.entry)
            sys.meta_path.insert(0, packages)
            files = landlock.interpreter_access((*packages.folders(), *options.path), cuda=options.cuda)
            profile = lockdown.Profile(files, cuda=options.cuda, unenforced=frozenset(options.unenforced))
            lockdown.enter_zygote(profile, parent=options.parent)
        if not heart.listen():  # between it and us an outer layer may have a parent that outlived it for a moment
            return process.ORPHANED
        if options.once:
            post_guard(heart)
        zygote = Zygote(control, heart, profile, size)
        stage = "warm-up"
        zygote.warm_up(options.entry)
    except Exception as error:
        wire.send(control, {"op": "failed", "stage": stage, **_describe(error)})
        raise
    wire.send(control, {"op": "ready", "threads": size.threads()})
    zygote.serve_once() if options.once else zygote.serve()
    return 0


if __name__ == "__main__":
    raise SystemExit(main())

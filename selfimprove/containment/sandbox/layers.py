"""The outer layer around the lock-down, and the choice of a configuration's backend."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import cache
from pathlib import Path
from typing import Final, final

from selfimprove.containment.sandbox import cgroup, landlock, outer
from selfimprove.containment.sandbox.backend import LockdownBackend, NoBackend, SandboxBackend
from selfimprove.errors import ConfigError, SandboxUnavailable

BACKENDS: Final = ("lockdown", "none")
OUTER_LAYER: Final = ("auto", "off", "require")


@final
class OuterBackend:
    """The outer layer around the lock-down: bubblewrap's namespaces, a cgroup of version 2, or both.

    What the lock-down holds it holds here too, by the same means and put to the same test; the outer layer adds a
    second mechanism to some properties, and is the only mechanism of none.

    Args:
        inner: the lock-down.
        program: the ``bwrap`` that passed its self-test; None: no namespaces.
        grouped: groups passed their self-test.

    Not covered: kernel exploits (namespaces are as strong as the kernel that makes them), side channels, metadata of
    files. A cgroup's bound is on all workers of a run together.
    """

    contains = True

    def __init__(self, inner: SandboxBackend, program: str | None, *, grouped: bool) -> None:
        self._inner = inner
        self._program = program
        self._grouped = grouped

    @property
    def name(self) -> str:
        """The layers, from the inside out."""
        return "+".join([self._inner.name, *["bubblewrap"] * bool(self._program), *["cgroup"] * self._grouped])

    @property
    def degraded(self) -> frozenset[str]:
        """What the lock-down goes without: the outer layer makes up for nothing."""
        return self._inner.degraded

    def probe(self) -> dict[str, str | None]:
        """Return the mechanisms per property; one that the lock-down cannot hold stays without."""
        added = (_NAMESPACES if self._program else ()) + (_GROUPS if self._grouped else ())
        return {
            prop: mechanism and " + ".join([mechanism, *(what for held, what in added if held == prop)])
            for prop, mechanism in self._inner.probe().items()
        }

    def command(self, arguments: Sequence[str]) -> list[str]:
        """Return the command line of a locked-down zygote in namespaces; raises as the lock-down does."""
        if self._program is None:
            return self._inner.command(arguments)
        devices = landlock.cuda_devices() if "--cuda" in arguments else []
        inside = self._inner.command([*arguments, "--parent", str(outer.PARENT)])  # of two parents the last one counts
        return [*outer.bubblewrap_command(self._program, devices), *inside]

    def enclose(self, roles: int, workers: int) -> cgroup.Group:
        """Make the group, if there is to be one.

        Raises:
            SandboxUnavailable: it could be made when it was tested, and cannot any more.
        """
        place = cgroup.home() if self._grouped else None
        if place is None:
            return cgroup.Ungrouped()
        try:
            if isinstance(place, Path):
                return cgroup.RunGroup(place, roles=roles, workers=workers)
            reason = place.detail
        except OSError as error:
            reason = str(error)
        raise SandboxUnavailable("make a cgroup for the run", reason, remedy="containment.outer_layer=off") from None


_NAMESPACES: Final = (("write", "read-only mounts"), ("network", "network namespace"), ("signal", "PID namespace"),
                      ("parent_death", "PID namespace"))  # fmt: skip
_GROUPS: Final = (("memory", "cgroup memory.max"), ("exec", "cgroup pids.max"), ("parent_death", "cgroup.kill"))


def make_backend(
    name: str, allow_degraded: Iterable[str] = (), *, device: str = "cpu", outer_layer: str = "auto"
) -> SandboxBackend:
    """Return the backend of a configuration, for a run whose successors train on a device.

    Args:
        name: one of `BACKENDS`.
        allow_degraded: as for `LockdownBackend`.
        device: as for `LockdownBackend`.
        outer_layer: what to do about the outer layer; one of `OUTER_LAYER`, see `with_outer_layer`.

    Raises:
        ConfigError: no such backend, no such use of the outer layer, or a required layer around nothing.
        SandboxUnavailable: as for `LockdownBackend` and `with_outer_layer`.
    """
    if outer_layer not in OUTER_LAYER:
        raise ConfigError("containment.outer_layer", outer_layer, ", ".join(OUTER_LAYER))
    if name == "lockdown":
        return with_outer_layer(LockdownBackend(allow_degraded, device=device), outer_layer)
    if name == "none":
        if outer_layer == "require":
            raise ConfigError("containment.outer_layer", outer_layer, "auto, off", "it goes around backend=lockdown")
        return NoBackend()
    raise ConfigError("containment.backend", name, ", ".join(BACKENDS))


def with_outer_layer(inner: SandboxBackend, use: str = "auto") -> SandboxBackend:
    """Put what this machine has of the outer layer around a backend.

    Args:
        inner: the backend inside.
        use: ``auto``: each part that passes its self-test; ``off``: none; ``require``: as ``auto``, but not without the
            namespaces. A cgroup is never required: few machines delegate one.

    Raises:
        SandboxUnavailable: namespaces are required, and their self-test does not pass.
    """
    if use == "off":
        return inner
    layers = outer_layers()
    namespaces, groups = layers["bubblewrap"], layers["cgroup_v2"]
    if use == "require" and not namespaces.available:
        operation, needed = "set containment.outer_layer=require", "namespaces that pass their self-test"
        raise SandboxUnavailable(operation, namespaces.detail, needed, namespaces.remedy)
    program = outer.bubblewrap_program() if namespaces.available else None
    return OuterBackend(inner, program, grouped=groups.available) if program or groups.available else inner


@cache
def outer_layers() -> dict[str, outer.Layer]:
    """Put both parts of the outer layer to their self-tests, once per process."""
    return {"bubblewrap": outer.bubblewrap(), "cgroup_v2": cgroup.self_test()}

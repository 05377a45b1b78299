"""What head and node say to each other: JSON, and the bytes of weights as they are. Nothing else crosses.

A node is told once what it is for (`Order`). Then it is handed packs of permitted jobs, and answers with outcomes. The
signing key never leaves the head; a node gets the public key, and trains nothing that a permit does not cover.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from hashlib import sha256
from pathlib import Path
from typing import Any, Final, get_origin, get_type_hints

from selfimprove.containment import hostile
from selfimprove.containment.jobs import Completed, Crashed, Exceeded, Invalid, Job, JobLimits, Outcome, Usage
from selfimprove.containment.permit import Claim, Permit, PermitRefused, verify
from selfimprove.containment.sandbox.backend import ZygoteSpec
from selfimprove.genome.genome import Genome

MESSAGE_BYTES: Final = 16 * 2**20  # of one JSON message
ABOUT_BYTES: Final = 16 * 2**10  # of what a node says of itself
ORDER, BEAT, STOP, HALT = "order", "beat", "stop", "halt"  # to a node
READY, ENDED = "ready", "ended"  # from it, beside its own beat
PACK, STARTED, OUTCOME = ".pack", ".started", ".outcome"  # suffixes
CLOSED, STOPPED = "closed", "stopped"  # ends of a node: without work, or asked to start nothing further
HALTED, EVICTED, ORPHANED, FAILED = "halted", "evicted", "orphaned", "failed"  # likewise, with all that it runs
REFUSED, DIFFERS = "refused", "differs"  # likewise: it would train uncontained, or another lineage
BEATS: Final = 6  # in the time that either end may be silent

_SIMPLE: Final[Mapping[type, Any]] = {str: str, bool: bool, int: int, float: (int, float)}
_OUTCOMES: Final = {kind.__name__.lower(): kind for kind in (Completed, Exceeded, Crashed, Invalid)}
_ABOUT: Final = {"host": str, "processor": str, "backend": str, "sandbox": dict, "degraded": list}


@dataclass(frozen=True)
class Order:
    """What a node is for.

    Args:
        run_id: the run.
        public_key: of the head, hexadecimal: what permits must be signed with.
        versions: of everything that moves a result; a node with others would train another lineage.
        zygotes: the roles that it serves, by name.
        backend, allow_degraded, outer_layer, device: how it contains workers, as on the head.
        workers: most at once.
        heartbeat_seconds: longest silence of the node's supervisor that its workers survive.
        silence_seconds: longest silence of the head that the node survives.
        idle_seconds: longest wait for work.
        halt_file: the run's kill switch, where the node can see it; empty elsewhere.
    """

    run_id: str
    public_key: str
    versions: Mapping[str, str]
    zygotes: Mapping[str, ZygoteSpec]
    backend: str
    allow_degraded: tuple[str, ...]
    outer_layer: str
    device: str
    workers: int
    heartbeat_seconds: float
    silence_seconds: float
    idle_seconds: float
    halt_file: str = ""

    def encode(self) -> bytes:
        """As JSON."""
        specs = {name: asdict(spec) | _folders(spec) for name, spec in self.zygotes.items()}
        return encode(vars(self) | {"zygotes": specs})

    @classmethod
    def decode(cls, data: bytes) -> Order:
        """Read it; raises ProtocolError, TypeError, ValueError or LookupError."""
        body = decode(data)
        specs = {name: _spec(spec) for name, spec in body["zygotes"].items()}
        return cls(**(body | {"zygotes": specs, "allow_degraded": tuple(body["allow_degraded"])}))


@dataclass(frozen=True)
class Task:
    """A job, and the permit that covers it."""

    job: Job
    permit: Permit

    def check(self, order: Order, now: float) -> None:
        """Whether the permit grants what the job does; raises PermitRefused, and PermitExpired of one that did."""
        payload = self.job.payload
        stage = self.job.key.rpartition("@")[2]
        claim = Claim(order.run_id, self.job.key, Genome.from_json(payload["genome"]).sha256, stage)
        verify(self.permit, claim, public_key_hex=order.public_key, now=now)
        steps = payload["last"] - payload["first"]
        if not 0 <= steps <= self.permit.steps:
            raise PermitRefused("use a permit with steps", steps, f"0 to {self.permit.steps}")


def encode(body: Mapping[str, Any]) -> bytes:
    """A message as JSON in UTF-8; raises ValueError for a number that is not finite.

    Text is as long as its worker wrote it. Surrogates, which UTF-8 cannot hold, are escaped, and go when it is read.
    """
    return json.dumps(body, allow_nan=False, ensure_ascii=False).encode(errors="backslashreplace")


def decode(data: bytes) -> dict[str, Any]:
    """A message read strictly; raises ProtocolError."""
    return hostile.parse_object(data, MESSAGE_BYTES)


def read_about(data: bytes) -> dict[str, Any]:
    """What a node says of itself, for the ledger: exactly the fields that it has; raises ProtocolError."""
    body = hostile.parse_object(data, ABOUT_BYTES)
    if {name: type(value) for name, value in body.items()} != _ABOUT:
        raise hostile.ProtocolError(f"it says other things of itself than {', '.join(_ABOUT)}, or in another form")
    return body


def write_pack(number: int, tasks: Sequence[Task]) -> dict[str, bytes]:
    """A pack as files by name, in the order in which they must be written: the one that names the others is last."""
    files: dict[str, bytes] = {}
    listed = []
    for place, task in enumerate(tasks):
        inputs = {name: path.read_bytes() for name, path in task.job.inputs.items()}
        files |= {_file(number, place, f"in-{name}"): data for name, data in inputs.items()}
        job = {name: value for name, value in vars(task.job).items() if name not in ("inputs", "limits")}
        job |= {"limits": vars(task.job.limits), "inputs": {n: sha256(data).hexdigest() for n, data in inputs.items()}}
        listed.append({"job": job, "permit": task.permit.to_json()})
    return files | {f"{number:05d}{PACK}": encode({"tasks": listed})}


def read_pack(folder: Path, name: str) -> list[Task]:
    """A pack from a folder that holds its files.

    Raises:
        ProtocolError: malformed, or an input is not what was sent.
        OSError, LookupError, TypeError, ValueError, PermitRefused: likewise.
    """
    number = int(name.removesuffix(PACK))
    tasks = []
    for place, listed in enumerate(decode((folder / name).read_bytes())["tasks"]):
        job = listed["job"]
        paths = {given: folder / _file(number, place, f"in-{given}") for given in job["inputs"]}
        for given, path in paths.items():
            if sha256(path.read_bytes()).hexdigest() != job["inputs"][given]:
                raise hostile.ProtocolError(f"{path.name} is not what was sent")
        fields = job | {"inputs": paths, "outputs": tuple(job["outputs"]), "limits": JobLimits(**job["limits"])}
        tasks.append(Task(Job(**fields), Permit.from_json(listed["permit"])))
    return tasks


def write_outcome(prefix: str, outcome: Outcome) -> dict[str, bytes]:
    """An outcome as files by name, in the order in which they must be written; one that is too large is `Invalid`."""
    body = {name: value for name, value in vars(outcome).items() if name != "outputs"}
    outputs = outcome.outputs if isinstance(outcome, Completed) else {}
    files = {f"{prefix}.out-{name}": data for name, data in outputs.items()}
    body |= {
        "usage": vars(outcome.usage),
        "outputs": {name: sha256(data).hexdigest() for name, data in outputs.items()},
    }
    data = encode({"outcome": type(outcome).__name__.lower(), **body})
    if len(data) > MESSAGE_BYTES:
        reason = f"its outcome has {len(data)} bytes; allowed: {MESSAGE_BYTES}"
        return write_outcome(prefix, Invalid(reason, outcome.usage))
    return files | {f"{prefix}{OUTCOME}": data}


def read_outcome(prefix: str, job: Job, files: Mapping[str, bytes]) -> Outcome | None:
    """The outcome of a job among the files of its node; None while one of them is missing.

    What is malformed, too large or not what its hash says is `Invalid`: whatever a node says is taken as a worker's.
    """
    if (data := files.get(f"{prefix}{OUTCOME}")) is None:
        return None
    try:
        body = decode(data)
        kind, hashes = _OUTCOMES[body.pop("outcome")], body.pop("outputs")
        _check_types(Usage, body["usage"])
        _check_types(kind, body)
        if strange := sorted(set(hashes) - set(job.outputs)):
            raise ValueError(f"outputs {', '.join(strange)} were not asked for")
        outputs = {name: files.get(f"{prefix}.out-{name}") for name in hashes}
        fields = body | {"usage": Usage(**body["usage"])}
        if kind is not Completed:
            return kind(**fields)
        whole = {name: data for name, data in outputs.items() if data is not None}
        if len(whole) < len(outputs):
            return None
        _check_outputs(job, hashes, whole)
        return replace(Completed(outputs={}, **fields), outputs=whole)
    except (hostile.ProtocolError, LookupError, TypeError, ValueError, AttributeError) as error:
        return Invalid(hostile.clean_line(f"its node's answer is malformed: {error}"), Usage())


def output_names(prefix: str, job: Job) -> set[str]:
    """Every file that may belong to a job's outcome."""
    return {f"{prefix}{OUTCOME}", *(f"{prefix}.out-{name}" for name in job.outputs)}


def prefix_of(number: int, place: int) -> str:
    """What the names of all files about one task of a pack begin with."""
    return f"{number:05d}.{place:03d}"


def _check_types(kind: type[Any], fields: Mapping[str, Any]) -> None:
    """Values as the simple types of a dataclass's fields say; numbers are finite, and times and sizes not negative.

    Raises:
        TypeError: one is not.
        ValueError: likewise.
    """
    for name, declared in get_type_hints(kind).items():
        if name not in fields or declared not in (*_SIMPLE, dict[str, Any]):
            continue
        value, wanted = fields[name], get_origin(declared) or declared
        if not isinstance(value, _SIMPLE.get(wanted, wanted)) or (isinstance(value, bool) and wanted is not bool):
            raise TypeError(f"{name} is {type(value).__name__}; allowed: {wanted.__name__}")
        if wanted in (int, float) and not 0 <= value < math.inf:
            raise ValueError(f"{name} is {value}; allowed: 0 or more")


def _check_outputs(job: Job, hashes: Mapping[str, str], outputs: Mapping[str, bytes]) -> None:
    if (size := sum(map(len, outputs.values()))) > job.limits.output_bytes:
        raise ValueError(f"{size} bytes of outputs; allowed: {job.limits.output_bytes:g}")
    for name, data in outputs.items():
        if sha256(data).hexdigest() != hashes[name]:
            raise ValueError(f"output {name} is not what its hash says")


def _file(number: int, place: int, what: str) -> str:
    return f"{prefix_of(number, place)}.{what}"


def _folders(spec: ZygoteSpec) -> dict[str, list[str]]:
    return {"path": [str(folder) for folder in spec.path], "search": [str(folder) for folder in spec.search]}


def _spec(body: dict[str, Any]) -> ZygoteSpec:
    folders = {name: tuple(Path(folder) for folder in body[name]) for name in ("path", "search")}
    return ZygoteSpec(**(body | folders | {"entries": tuple(body["entries"])}))

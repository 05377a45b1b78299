"""GPU memory is metered from outside and killed for, and nobody trains on a GPU that nothing meters.

Without a GPU the driver's library is played; what a real one says is tried by the tests marked ``cuda``.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import psutil
import pytest
import torch

from selfimprove.containment import gpu
from selfimprove.containment.jobs import Completed, Crashed, Exceeded, Job, JobLimits
from selfimprove.containment.proof import ContainmentBroken
from selfimprove.containment.sandbox import landlock
from selfimprove.containment.sandbox.backend import PROPERTIES, LockdownBackend, ZygoteSpec
from selfimprove.containment.supervisor import Supervisor
from selfimprove.errors import SandboxUnavailable
from tests.containment.helpers import ENTRIES, ENTRY

ON_GPU = ZygoteSpec((ENTRY,), device="cuda", fork=False, path=(ENTRIES,))
GIB = 2**30
real_gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA GPU on this machine")


# -- the driver's library ----------------------------------------------------------------------------------------------


class NVMLError(Exception):
    """As pynvml has it."""


@dataclass
class Nvml:
    """Stands where ``pynvml`` stands: for each GPU, its processes as (id, bytes)."""

    gpus: list[list[tuple[int, int | None]]]
    broken: bool = False
    NVMLError = NVMLError

    def nvmlInit(self) -> None:
        if self.broken:
            raise NVMLError("Driver Not Loaded")

    def nvmlDeviceGetCount(self) -> int:
        return len(self.gpus)

    def nvmlDeviceGetHandleByIndex(self, index: int) -> int:
        return index

    def nvmlDeviceGetComputeRunningProcesses(self, gpu: int) -> list[SimpleNamespace]:
        self.nvmlInit()
        return [SimpleNamespace(pid=pid, usedGpuMemory=size) for pid, size in self.gpus[gpu]]


def test_a_process_is_charged_for_what_it_holds_on_all_gpus_together() -> None:
    assert gpu.NvmlMeter(Nvml([[(7, 100), (8, 5)], [(7, 30)], []])).used_bytes([7, 8, 9]) == {7: 130, 8: 5}


@pytest.mark.parametrize(
    ("nvml", "says"), [(Nvml([], broken=True), "Driver Not Loaded"), (Nvml([]), "no GPU")], ids=["no driver", "no GPU"]
)
def test_a_machine_without_driver_or_gpu_has_no_meter(nvml: Nvml, says: str) -> None:
    with pytest.raises(SandboxUnavailable, match=says):
        gpu.NvmlMeter(nvml)


def test_a_driver_that_stops_answering_is_no_reading_of_zero() -> None:
    nvml = Nvml([[(7, 100)]])
    meter = gpu.NvmlMeter(nvml)
    nvml.broken = True
    with pytest.raises(SandboxUnavailable, match="Driver Not Loaded"):
        meter.used_bytes([7])


def test_a_figure_that_the_driver_withholds_is_no_zero_either() -> None:
    with pytest.raises(SandboxUnavailable, match="process 7"):
        gpu.NvmlMeter(Nvml([[(7, None)]])).used_bytes([7])


def test_what_others_do_with_the_gpu_is_no_business_of_the_run() -> None:
    assert gpu.NvmlMeter(Nvml([[(7, None), (8, 50)]])).used_bytes([9]) == {}


@pytest.mark.parametrize("limit", [1, 2**20, GIB, 2 * GIB, 80 * GIB])
def test_the_allocators_share_leaves_room_for_cuda_itself(limit: int) -> None:
    share = gpu.allocator_bytes(limit)
    assert 0 <= share < limit
    assert share in (limit // 2, limit - gpu.CONTEXT_BYTES)


# -- workers -----------------------------------------------------------------------------------------------------------


class Claims:
    """A meter that says the same of each process."""

    def __init__(self, size: int) -> None:
        self.size = size

    def used_bytes(self, processes: Collection[int]) -> Mapping[int, int]:
        assert set(processes) <= {process.pid for process in psutil.Process().children(recursive=True)}
        return dict.fromkeys(processes, self.size) if self.size else {}


class Accepting:
    """The lock-down of a machine with a GPU that is metered, wherever it runs."""

    name = "lockdown"
    contains = True
    degraded: frozenset[str] = frozenset()

    def __getattr__(self, name: str) -> Any:
        return getattr(LockdownBackend(), name)


@pytest.fixture(scope="module")
def metered(make_supervisor: Any) -> Iterator[Supervisor]:
    with make_supervisor(zygotes={"test": ON_GPU}, backend=Accepting(), gpus=Claims(GIB)) as supervisor:
        supervisor.prove()
        yield supervisor


def test_a_gpu_worker_is_put_to_the_test_on_every_property_and_on_both_memories(metered: Supervisor) -> None:
    held = metered.proofs["test"]
    assert set(held) == set(PROPERTIES)
    assert held["memory"] == "killed over memory_bytes, killed over gpu_memory_bytes"


def test_a_worker_over_its_gpu_memory_is_killed_whatever_its_allocator_says(metered: Supervisor, make_job: Any) -> None:
    [(_, outcome)] = metered.run([make_job("sleep", seconds=60, beat=True, limits={"gpu_memory_bytes": 2**20})])
    assert isinstance(outcome, Exceeded)
    assert (outcome.limit, outcome.value, outcome.bound) == ("gpu_memory_bytes", GIB, 2**20)
    assert outcome.usage.max_gpu_bytes == GIB


def test_a_gpu_is_held_for_as_long_as_its_worker_lives(metered: Supervisor, make_job: Any) -> None:
    before = metered.spent.gpu_seconds
    [(_, outcome)] = metered.run([make_job("sleep", seconds=0.3)])
    assert isinstance(outcome, Completed)
    assert outcome.usage.gpu_seconds == outcome.usage.wall_seconds >= 0.3
    assert metered.spent.gpu_seconds - before == pytest.approx(outcome.usage.gpu_seconds)


def test_an_allocator_that_refuses_is_the_limit_that_it_stands_for(metered: Supervisor, make_job: Any) -> None:
    message = "CUDA out of memory. Tried to allocate 20.00 GiB."
    [(_, outcome)] = metered.run([make_job("fail", message=message)])
    assert isinstance(outcome, Exceeded)
    assert outcome.limit == "gpu_memory_bytes"


def test_a_worker_on_the_cpu_cannot_blame_a_gpu(supervisor: Supervisor, make_job: Any) -> None:
    [(_, outcome)] = supervisor.run([make_job("fail", message="CUDA out of memory")])
    assert isinstance(outcome, Crashed)


@pytest.mark.usefixtures("no_process_left")
def test_a_meter_that_does_not_see_the_workers_loses_the_property(make_supervisor: Any) -> None:
    with (
        make_supervisor(zygotes={"test": ON_GPU}, backend=Accepting(), gpus=Claims(0)) as supervisor,
        pytest.raises(ContainmentBroken) as caught,
    ):
        supervisor.prove()
    assert set(caught.value.lost) == {"memory"}
    assert "over gpu_memory_bytes" in caught.value.lost["memory"]
    assert set(caught.value.held) >= set(PROPERTIES) - {"memory"}


# -- without a meter ---------------------------------------------------------------------------------------------------


@pytest.fixture
def unmetered(monkeypatch: pytest.MonkeyPatch) -> None:
    def find() -> gpu.GpuMeter:
        raise SandboxUnavailable("meter GPU memory", "no driver on this machine")

    monkeypatch.setattr(gpu, "find_meter", find)


@pytest.mark.usefixtures("unmetered")
def test_a_gpu_run_without_a_meter_is_refused_by_the_name_of_the_property() -> None:
    with pytest.raises(SandboxUnavailable, match=r"memory: no driver.*allow_degraded=\[memory\]") as caught:
        LockdownBackend(device="cuda").command([])
    assert caught.value.prop == "memory"
    assert LockdownBackend().command([])  # nobody needs one on the CPU


@pytest.mark.usefixtures("unmetered", "no_process_left")
def test_a_supervisor_without_a_meter_starts_no_gpu_worker_whatever_its_backend_promises(make_supervisor: Any) -> None:
    with (
        make_supervisor(zygotes={"test": ON_GPU}, backend=Accepting()) as supervisor,
        pytest.raises(ContainmentBroken, match="memory: nothing meters GPU memory: no driver"),
    ):
        supervisor.prove()


@pytest.mark.usefixtures("unmetered", "no_process_left")
def test_a_run_that_gave_up_memory_goes_without_a_meter_and_still_watches_host_memory(make_supervisor: Any) -> None:
    backend = LockdownBackend(["memory"], device="cuda")
    assert backend.degraded == {"memory"}
    with make_supervisor(zygotes={"test": ON_GPU}, backend=backend) as supervisor:
        supervisor.prove()
        assert set(supervisor.proofs["test"]) == set(PROPERTIES)
        assert supervisor.proofs["test"]["memory"] == "killed over memory_bytes"


@pytest.mark.usefixtures("unmetered", "no_process_left")
def test_a_gpu_worker_may_do_what_the_driver_does_first_and_no_more(make_supervisor: Any, tmp_path: Path) -> None:
    """Where it may not, or where removing what is not there says anything else, the driver gives error 304 (H100)."""
    backend = LockdownBackend(["memory"], device="cuda")
    (file := tmp_path / "file").touch()
    payload = {"op": "start_like_a_driver", "file": str(file), "new_file": str(tmp_path / "socket")}
    job = Job("driver", "test", ENTRY, payload, {"in": file}, (), JobLimits(20, 20, GIB, 2**20, 20))
    with make_supervisor(zygotes={"test": ON_GPU}, backend=backend) as supervisor:
        [(_, outcome)] = supervisor.run([job])
    assert isinstance(outcome, Completed), outcome
    expected = dict.fromkeys(outcome.result, "PermissionError")
    expected |= dict.fromkeys(("name", "memory", "bind", "listen", "own processors"), "")
    assert outcome.result == expected | dict.fromkeys(("unlink", "remove"), "FileNotFoundError")
    assert list(tmp_path.iterdir()) == [file]


def test_a_worker_on_a_gpu_may_read_where_the_linker_looks_for_the_driver(tmp_path: Path) -> None:
    (tmp_path / "nvidia.conf").write_text("# the driver\n/opt/driver/lib64\n\ninclude other.conf\n")
    (tmp_path / "notes.txt").write_text("/opt/notes\n")
    assert landlock.linker_folders(tmp_path) == [Path("/opt/driver/lib64")]
    read = {cuda: landlock.interpreter_access((), cuda=cuda).read for cuda in (True, False)}
    assert set(landlock.linker_folders()) <= set(read[True])
    assert Path("/usr/local/nvidia") in set(read[True]) - set(read[False])


def test_a_worker_on_a_gpu_may_still_open_it_after_the_second_step(tmp_path: Path) -> None:
    """On an H100 the second step looked for the GPUs where it could no longer look: error 100, no device."""
    for name in ("nvidia0", "other"):
        (tmp_path / name).touch()
    script = """
import os, pathlib, sys
from selfimprove.containment.sandbox import landlock, lockdown
landlock._DEVICES = folder = pathlib.Path(sys.argv[1])
profile = lockdown.Profile(landlock.interpreter_access((), cuda=True), cuda=True)
lockdown.enter_zygote(profile, parent=os.getppid())
lockdown.enter_worker(profile, lockdown.Limits(10, 2**34, 2**20), parent=os.getppid())
os.open(folder / "nvidia0", os.O_RDWR)
try:
    os.open(folder / "other", os.O_RDONLY)
except PermissionError:
    print("the GPU and nothing else")
"""
    found = subprocess.run([sys.executable, "-c", script, tmp_path], capture_output=True, text=True, timeout=60)
    assert (found.stdout, found.stderr) == ("the GPU and nothing else\n", "")


# -- for real ----------------------------------------------------------------------------------------------------------


@pytest.mark.cuda
@real_gpu
def test_a_real_worker_past_its_gpu_memory_is_seen_by_the_driver_and_killed(make_supervisor: Any) -> None:
    spec = ZygoteSpec((), device="cuda", fork=False)
    with make_supervisor(zygotes={"test": spec}, backend=LockdownBackend(device="cuda")) as supervisor:
        supervisor.prove()
        assert "killed over gpu_memory_bytes" in supervisor.proofs["test"]["memory"]


@pytest.mark.cuda
@real_gpu
def test_a_real_allocator_refuses_what_is_over_its_share(make_supervisor: Any) -> None:
    spec = ZygoteSpec(("containment_torch",), device="cuda", fork=False, path=(ENTRIES,))
    limits = JobLimits(120, 120, 4 * GIB, 2**20, 120, gpu_memory_bytes=2 * GIB)
    with make_supervisor(zygotes={"test": spec}, backend=LockdownBackend(device="cuda")) as supervisor:
        job = Job("greedy", "test", "containment_torch", {"op": "allocate_on_gpu"}, {}, ("weights",), limits)
        [(_, outcome)] = supervisor.run([job])
    assert isinstance(outcome, Exceeded)
    assert outcome.limit == "gpu_memory_bytes"
    assert outcome.usage.max_gpu_bytes <= 2 * GIB

"""On a real Slurm and a real Ray, both on this machine: ``make test-cluster``.

Runs are whole ones, started as a person starts them. What is killed is killed by its process or job id.
"""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil
import pytest

from tests.executors.loopback import missing, slurm
from tests.loop.conftest import Place
from tests.loop.records import bodies

ASKED = os.environ.get("SELFIMPROVE_TEST_CLUSTER") == "1"
pytestmark = [
    pytest.mark.cluster,
    pytest.mark.timeout(900),
    pytest.mark.skipif(not ASKED, reason="a real Slurm and Ray are started by make test-cluster alone"),
]
SMALL = ("executor.nodes=2", "executor.workers=1", "executor.memory_gb=1", "executor.silence_seconds=20")
LONGER = ("debug=micro", "device=cpu", "generations=1", "allowance_flops=1e10")  # trainings long enough to be hit
TINY = ("experiment=tiny", "tracking=none", "device=cpu")


@dataclass(frozen=True)
class Cluster(Place):
    """A folder to run in, with what a cluster's users need in their environment."""

    extra: dict[str, str] = field(default_factory=dict)
    overrides: tuple[str, ...] = ()

    def environment(self) -> dict[str, str]:
        return super().environment() | {"OMP_NUM_THREADS": "1", "RAY_USAGE_STATS_ENABLED": "0"} | self.extra

    def slurm(self, *command: str) -> str:
        found = subprocess.run(command, env=self.environment(), capture_output=True, text=True, check=True)
        return found.stdout

    def jobs(self) -> list[str]:
        return self.slurm("squeue", "--noheader", "--array", "--format=%i").split()


@pytest.fixture(scope="module")
def on_slurm(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    if lacking := missing():
        pytest.skip(f"no {', '.join(lacking)}: apt-get install slurmctld slurmd slurm-client munge")
    pytest.importorskip("submitit")
    folder = Path(f"/tmp/loopback-slurm-{os.getpid()}")  # the name of a socket may not be long
    with slurm(folder) as extra:
        yield Cluster(tmp_path_factory.mktemp("slurm"), extra=extra, overrides=("executor=slurm", *SMALL))
    shutil.rmtree(folder)


@pytest.fixture(scope="module")
def on_ray(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    pytest.importorskip("ray")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    place, temporary = Cluster(tmp_path_factory.mktemp("ray")), f"/tmp/loopback-ray-{os.getpid()}"
    command = [
        str(Path(sys.executable).parent / "ray"), "start", "--head", "--block", f"--port={port}", "--num-cpus=2",
        "--node-ip-address=127.0.0.1", "--include-dashboard=false", "--disable-usage-stats", "--memory=4000000000",
        "--object-store-memory=100000000", f"--temp-dir={temporary}",
    ]  # fmt: skip
    log = (place.folder / "ray.log").open("wb")
    head = subprocess.Popen(command, env=place.environment(), stdout=log, stderr=log, start_new_session=True)
    try:
        wait(lambda: _listens(port), "Ray is up")
        overrides = ("executor=ray", f"executor.address=127.0.0.1:{port}", *SMALL)
        yield Cluster(place.folder, overrides=overrides)
    finally:
        family = [psutil.Process(head.pid), *psutil.Process(head.pid).children(recursive=True)]
        head.terminate()
        _, alive = psutil.wait_procs(family, timeout=20)
        for process in alive:
            process.kill()
        head.wait()
        log.close()
        shutil.rmtree(temporary, ignore_errors=True)


def _listens(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


@pytest.fixture(scope="module")
def here(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., str]:
    """The lineage of a run on this machine alone."""
    place, known = Place(tmp_path_factory.mktemp("here")), dict[tuple[str, ...], str]()

    def lineage(*arguments: str) -> str:
        if arguments not in known:
            place.call("run", *arguments, f"hydra.run.dir=run{len(known)}")
            known[arguments] = str(place.status(f"run{len(known)}")["lineage_sha256"])
        return known[arguments]

    return lineage


def wait(until: Callable[[], Any], what: str, seconds: float = 180.0) -> Any:
    deadline = time.monotonic() + seconds
    while not (found := until()):
        assert time.monotonic() < deadline, f"waited {seconds:g} s for: {what}"
        time.sleep(0.02)
    return found


def complete(cluster: Cluster, process: subprocess.Popen[str], run: str) -> str:
    """Wait for a run, audit it; its lineage."""
    output, _ = process.communicate(timeout=600)
    assert process.returncode == 0, output
    cluster.call("audit", run)
    return str(cluster.status(run)["lineage_sha256"])


def start(cluster: Cluster, run: str, *arguments: str) -> subprocess.Popen[str]:
    return cluster.start("run", *arguments, *cluster.overrides, f"hydra.run.dir={run}")


def nodes(cluster: Cluster, run: str, state: str) -> list[dict[str, Any]]:
    folder = cluster.folder / run
    return [body for body in bodies(folder, "node") if body["state"] == state]


def node_processes() -> list[psutil.Process]:
    """Programs of nodes on this machine, below whoever started them."""
    found = []
    for process in psutil.process_iter(["cmdline"]):
        line = process.info["cmdline"] or []
        if "selfimprove.executors.node" in line or "submitit.core._submit" in line:
            found.append(process)
    return found


def trains(cluster: Cluster, run: str, generation: str = "g001") -> bool:
    """Whether a training of that generation was permitted and has not ended."""
    folder = cluster.folder / run
    if not (folder / "ledger.jsonl").exists():
        return False
    open_keys = {body["key"] for body in bodies(folder, "permit")} - {body["key"] for body in bodies(folder, "charge")}
    return any(key.startswith(generation) and "@" in key for key in open_keys)


# -- Slurm -------------------------------------------------------------------------------------------------------------


def test_tiny_on_slurm_is_the_lineage_of_this_machine(on_slurm: Cluster, here: Callable[..., str]) -> None:
    assert complete(on_slurm, start(on_slurm, "tiny", *TINY), "tiny") == here(*TINY)
    ready = nodes(on_slurm, "tiny", "ready")
    assert {body["backend"].partition("+")[0] for body in ready} == {"lockdown"}
    assert all(body["degraded"] == [] for body in ready)
    assert nodes(on_slurm, "tiny", "lost") == []
    assert on_slurm.jobs() == []


@pytest.mark.parametrize("how", ["scancel", "kill -9", "preemption"])
def test_a_slurm_job_that_is_killed_loses_its_attempt_and_nothing_else(
    on_slurm: Cluster, here: Callable[..., str], how: str
) -> None:
    run = f"killed-by-{how.replace(' ', '')}"
    process = start(on_slurm, run, *LONGER)
    wait(lambda: trains(on_slurm, run), "a training is under way")
    if how == "scancel":
        on_slurm.slurm("scancel", on_slurm.jobs()[0])
    elif how == "kill -9":
        os.kill(node_processes()[0].pid, signal.SIGKILL)
    else:
        on_slurm.slurm("sbatch", "--partition=urgent", "--cpus-per-task=2", "--wrap=sleep 5", "--output=/dev/null")
    assert complete(on_slurm, process, run) == here(*LONGER)
    assert nodes(on_slurm, run, "lost")
    lost = [body for body in bodies(on_slurm.folder / run, "charge") if body["account"] == "lost"]
    assert len(lost) <= 2  # two nodes, one worker each: no more than what they were at


def test_the_kill_switch_ends_the_array(on_slurm: Cluster) -> None:
    process = start(on_slurm, "halted", *LONGER)
    wait(lambda: trains(on_slurm, "halted"), "a training is under way")
    on_slurm.call("halt", "halted", "--reason", "test")
    began = time.monotonic()
    process.communicate(timeout=60)
    assert on_slurm.status("halted")["state"] == "halted"
    wait(lambda: not on_slurm.jobs() and not node_processes(), "every job is gone", 20)
    assert time.monotonic() - began < 25


def test_a_head_that_dies_takes_its_nodes_along(on_slurm: Cluster, here: Callable[..., str]) -> None:
    process = start(on_slurm, "headless", *LONGER)
    wait(lambda: trains(on_slurm, "headless"), "a training is under way")
    process.kill()
    process.communicate()
    wait(lambda: not on_slurm.jobs() and not node_processes(), "the nodes have noticed", 60)
    process = on_slurm.start("resume", "headless")
    assert complete(on_slurm, process, "headless") == here(*LONGER)
    assert nodes(on_slurm, "headless", "lost") == []  # what the dead head's nodes left is not taken for the new ones'


def test_a_queue_that_never_moves_stops_the_run_with_a_message_and_costs_nothing(on_slurm: Cluster) -> None:
    stuck = ("executor.partition=closed", "executor.queue_minutes=0.1", "executor.attempts=1")
    process = start(on_slurm, "stuck", *LONGER, *stuck)
    output, _ = process.communicate(timeout=120)
    assert process.returncode == 2, output
    assert "waited in the queue" in output
    assert "resume" in output
    assert bodies(on_slurm.folder / "stuck", "permit") == []
    assert on_slurm.jobs() == []


# -- Ray ---------------------------------------------------------------------------------------------------------------


def test_tiny_on_ray_is_the_lineage_of_this_machine(on_ray: Cluster, here: Callable[..., str]) -> None:
    assert complete(on_ray, start(on_ray, "tiny", *TINY), "tiny") == here(*TINY)
    assert nodes(on_ray, "tiny", "lost") == []
    wait(lambda: not node_processes(), "every node is gone", 20)


@pytest.mark.parametrize("what", ["actor", "node"])
def test_a_ray_worker_that_is_killed_loses_its_attempts_and_nothing_else(
    on_ray: Cluster, here: Callable[..., str], what: str
) -> None:
    run = f"killed-{what}"
    process = start(on_ray, run, *LONGER)
    wait(lambda: trains(on_ray, run), "a training is under way")
    node = node_processes()[0]
    os.kill(node.pid if what == "node" else node.ppid(), signal.SIGKILL)
    assert complete(on_ray, process, run) == here(*LONGER)
    assert nodes(on_ray, run, "lost")
    wait(lambda: not node_processes(), "every node is gone", 20)


def test_the_kill_switch_ends_the_actors(on_ray: Cluster) -> None:
    process = start(on_ray, "halted", *LONGER)
    wait(lambda: trains(on_ray, "halted"), "a training is under way")
    on_ray.call("halt", "halted", "--reason", "test")
    process.communicate(timeout=60)
    assert on_ray.status("halted")["state"] == "halted"
    wait(lambda: not node_processes(), "every node is gone", 20)

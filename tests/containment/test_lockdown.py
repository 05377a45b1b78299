"""What a locked-down worker cannot do: every attempt runs in a real worker, on the path that a candidate takes."""

from __future__ import annotations

import os
import platform
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from selfimprove.containment.sandbox.backend import NoBackend
from selfimprove.containment.supervisor import Completed, Crashed, Outcome, Supervisor

NETWORK = ("tcp4", "tcp6", "udp", "mptcp", "unix_socket", "socketpair", "netlink", "vsock", "af_alg")
WRITE = (
    "create", "create_in_tmp", "create_in_shm", "anonymous_file", "write_existing", "append", "truncate_on_open",
    "truncate", "mkdir", "rename", "unlink", "hard_link", "symlink", "mkfifo", "chmod", "chown", "utime", "xattr",
    "reopen_output",
)  # fmt: skip
READ = (
    "read_secret", "list_folder", "read_passwords", "read_through_proc_root", "supervisor_environment",
    "supervisor_memory", "own_memory", "file_handle", "openat2",
)  # fmt: skip
SPAWN = (
    "exec", "subprocess", "shell", "fork", "thread", "memfd_create", "execveat", "clone3", "setsid",
    "new_process_group",
)  # fmt: skip
SUPERVISOR = (
    "kill_supervisor", "kill_zygote", "kill_all", "kill_group", "queue_signal", "open_pidfd", "steal_descriptor",
    "ptrace", "read_memory", "limit_supervisor", "signal_owner", "forget_parent", "priority", "affinity", "real_time",
)  # fmt: skip
KERNEL = (
    "raise_cpu_limit", "raise_memory_limit", "raise_file_limit", "many_descriptors", "pipe_buffer", "io_uring", "bpf",
    "perf", "userfaultfd", "keyctl", "user_namespace", "mount", "chroot", "personality", "shared_memory",
    "message_queue",
)  # fmt: skip
REFUSED = {"EPERM", "EACCES", "ENOSYS", "EMFILE", "can't start new thread", "not allowed to raise maximum limit"}
# What each of these does without containment, as root and as an ordinary user.
CONTROLS = (
    "tcp4", "udp", "unix_socket", "create", "write_existing", "truncate", "rename", "chmod", "utime", "read_secret",
    "list_folder", "supervisor_environment", "subprocess", "thread", "memfd_create", "kill_supervisor", "open_pidfd",
    "forget_parent", "signal_owner", "pipe_buffer", "personality", "setsid",
)  # fmt: skip


@pytest.fixture
def target(tmp_path: Path) -> Iterator[dict[str, Any]]:
    """A folder with one file, and a listening port: what the attacks aim at."""
    file = tmp_path / "file"
    file.write_text("untouched")
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield {"folder": str(tmp_path), "file": str(file), "port": server.getsockname()[1], "supervisor": os.getpid()}


def outcome_of(supervisor: Supervisor, job: Any) -> Outcome:
    [(_, outcome)] = supervisor.run([job])
    return outcome


@pytest.mark.parametrize("attack", [*NETWORK, *WRITE, *READ, *SPAWN, *SUPERVISOR, *KERNEL])
def test_a_worker_is_refused(attack: str, supervisor: Supervisor, make_job: Any, target: dict[str, Any]) -> None:
    outcome = outcome_of(supervisor, make_job("attempt", attack=attack, **target))
    assert isinstance(outcome, Completed)
    assert outcome.result.get("refused") in REFUSED
    assert Path(target["file"]).read_text() == "untouched"
    assert os.listdir(target["folder"]) == ["file"]


@pytest.mark.parametrize("attack", CONTROLS)
def test_the_same_attempt_succeeds_without_containment(
    attack: str, bare: Supervisor, make_job: Any, target: dict[str, Any]
) -> None:
    outcome = outcome_of(bare, make_job("attempt", attack=attack, **target))
    assert isinstance(outcome, Completed)
    assert outcome.result == {"escaped": True}


@pytest.fixture(scope="module")
def bare(make_supervisor: Any) -> Iterator[Supervisor]:
    with make_supervisor(backend=NoBackend()) as uncontained:
        yield uncontained


@pytest.mark.skipif(platform.machine() != "x86_64", reason="the 32-bit gate is x86_64's")
@pytest.mark.parametrize("attack", ["foreign_abi", "x32_abi"])
def test_a_call_through_a_foreign_abi_kills(attack: str, supervisor: Supervisor, make_job: Any) -> None:
    outcome = outcome_of(supervisor, make_job("attempt", attack=attack))
    assert isinstance(outcome, Crashed)
    assert "SIGSYS" in outcome.reason


def test_a_worker_may_signal_itself(supervisor: Supervisor, make_job: Any) -> None:
    outcome = outcome_of(supervisor, make_job("attempt", attack="signal_self"))
    assert isinstance(outcome, Completed)
    assert outcome.result == {"escaped": True}


def test_a_worker_holds_no_descriptor_but_its_own(supervisor: Supervisor, make_job: Any, tmp_path: Path) -> None:
    (tmp_path / "in").write_text("x")
    outcome = outcome_of(supervisor, make_job("look", inputs={"in": tmp_path / "in"}, outputs=["out"]))
    assert isinstance(outcome, Completed)
    assert len(outcome.result["descriptors"]) == 3 + 2 + 2  # standard ones, payload and events, input and output


def test_a_worker_inherits_nothing_of_the_environment(
    make_supervisor: Any, make_job: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WANDB_API_KEY", "secret")
    with make_supervisor() as supervisor:
        outcome = outcome_of(supervisor, make_job("look"))
    assert isinstance(outcome, Completed)
    assert "WANDB_API_KEY" not in outcome.result["environment"]
    assert "secret" not in str(outcome.result["environment"].values())
    assert outcome.result["environment"]["HOME"] == "/nonexistent"


def test_a_worker_does_not_have_the_signing_code_loaded(supervisor: Supervisor, make_job: Any) -> None:
    outcome = outcome_of(supervisor, make_job("look"))
    assert isinstance(outcome, Completed)
    loaded = set(outcome.result["modules"])
    assert not loaded & {"cryptography", "selfimprove.containment.keys", "selfimprove.containment.supervisor"}

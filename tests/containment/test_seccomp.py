"""The filters as bytecode, run by a small interpreter, so that every architecture is tested on any machine."""

from __future__ import annotations

import errno
import mmap
import os
import signal
import socket
import struct
import subprocess
import sys

import pytest

from selfimprove.containment.sandbox import filters, seccomp, syscalls

ARCHES = sorted(syscalls.AUDIT_ARCH)
EPERM = seccomp.fail_with(errno.EPERM)
ENOSYS = seccomp.fail_with(errno.ENOSYS)
PID = 4321


def answer(rules: seccomp.Filter, arch: str, number: int, arguments: tuple[int, ...] = (), audit: int = 0) -> int:
    """Run a filter over one call, as the kernel would."""
    packed = struct.pack("=II", number, audit or syscalls.AUDIT_ARCH[arch]) + bytes(8)
    packed += b"".join(struct.pack("=Q", value) for value in (*arguments, *[0] * (6 - len(arguments))))
    program = list(struct.iter_unpack("=HBBI", seccomp.assemble(rules, arch)))
    counter, register = 0, 0
    while True:
        code, if_true, if_false, value = program[counter]
        counter += 1
        match code:
            case 0x20:
                register = struct.unpack_from("=I", packed, value)[0]
            case 0x54:
                register &= value
            case 0x15:
                counter += if_true if register == value else if_false
            case 0x35:
                counter += if_true if register >= value else if_false
            case 0x06:
                return int(value)
            case _:
                raise AssertionError(f"unknown instruction {code:#x}")


def call(rules: seccomp.Filter, arch: str, name: str, *arguments: int) -> int:
    number = syscalls.number(name, arch)
    assert number is not None
    return answer(rules, arch, number, arguments)


@pytest.fixture(params=ARCHES)
def arch(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def worker() -> seccomp.Filter:
    return filters.worker_filter(PID, cuda=False)


@pytest.mark.parametrize("name", ["read", "write", "mmap", "futex", "exit_group"])
def test_computing_is_allowed(name: str, worker: seccomp.Filter, arch: str) -> None:
    assert call(worker, arch, name) == seccomp.ALLOW


@pytest.mark.parametrize("name", ["exit", "exit_group"])
def test_no_worker_ends_with_a_code_that_reads_as_a_signal(name: str, worker: seccomp.Filter, arch: str) -> None:
    assert {call(worker, arch, name, code) for code in (0, 3, 127)} == {seccomp.ALLOW}
    assert {call(worker, arch, name, code) for code in (128, 137, 255, 2**32 - 1)} == {EPERM}


@pytest.mark.parametrize("name", ["clone", "sendmsg", "wait4", "seccomp", "memfd_create", "kill", "setrlimit"])
def test_everything_that_nobody_allowed_is_refused(name: str, worker: seccomp.Filter, arch: str) -> None:
    assert call(worker, arch, name) == EPERM


def test_a_call_that_no_table_knows_is_refused(worker: seccomp.Filter, arch: str) -> None:
    assert answer(worker, arch, 9999) == EPERM


@pytest.mark.parametrize("name", ["clone3", "openat2"])
def test_calls_with_hidden_arguments_pretend_not_to_exist(name: str, worker: seccomp.Filter, arch: str) -> None:
    assert call(worker, arch, name) == ENOSYS


def test_opening_is_allowed_only_for_reading(worker: seccomp.Filter, arch: str) -> None:
    assert call(worker, arch, "openat", 0, 0, os.O_RDONLY | os.O_CLOEXEC) == seccomp.ALLOW
    for flags in (os.O_WRONLY, os.O_RDWR, os.O_CREAT, os.O_TRUNC, os.O_TMPFILE):
        assert call(worker, arch, "openat", 0, 0, flags) == EPERM


def test_limits_can_be_read_and_not_set(worker: seccomp.Filter, arch: str) -> None:
    assert call(worker, arch, "prlimit64", 0, 1, 0, 4096) == seccomp.ALLOW
    assert call(worker, arch, "prlimit64", 0, 1, 4096, 0) == EPERM
    assert call(worker, arch, "prlimit64", 0, 1, 1 << 40, 0) == EPERM
    assert call(worker, arch, "prlimit64", PID + 1, 1, 0, 4096) == EPERM


def test_signals_go_to_oneself_only(worker: seccomp.Filter, arch: str) -> None:
    assert call(worker, arch, "tgkill", PID, PID, 6) == seccomp.ALLOW
    assert call(worker, arch, "tgkill", PID + 1, PID, 6) == EPERM


def test_a_worker_cannot_look_as_if_it_had_been_killed_from_outside(worker: seccomp.Filter, arch: str) -> None:
    assert call(worker, arch, "tgkill", PID, PID, signal.SIGKILL) == EPERM


def test_a_worker_gets_no_pages_that_no_meter_sees(worker: seccomp.Filter, arch: str) -> None:
    private, huge = mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS, 0x40000
    assert call(worker, arch, "mmap", 0, 4096, 3, private) == seccomp.ALLOW
    for flags in (mmap.MAP_SHARED, mmap.MAP_SHARED | mmap.MAP_ANONYMOUS, private | huge):
        assert call(worker, arch, "mmap", 0, 4096, 3, flags) == EPERM


def test_the_parent_death_signal_can_be_read_and_not_cleared(worker: seccomp.Filter, arch: str) -> None:
    assert call(worker, arch, "prctl", 2) == seccomp.ALLOW
    assert call(worker, arch, "prctl", 1) == EPERM


def test_a_zygote_forks_without_new_namespaces(arch: str) -> None:
    rules = filters.zygote_filter()
    assert call(rules, arch, "clone", 0x01200011) == seccomp.ALLOW
    assert call(rules, arch, "clone", 0x10000011) == EPERM


def test_a_cuda_worker_starts_threads_but_no_process(arch: str) -> None:
    rules = filters.worker_filter(PID, cuda=True)
    assert call(rules, arch, "clone", 0x003D0F00) == seccomp.ALLOW
    assert call(rules, arch, "clone", 0x01200011) == EPERM


@pytest.mark.parametrize("name", ["ioctl", "memfd_create", "eventfd2", "mlock", "clone", "openat"])
def test_what_the_cuda_driver_calls_passes_both_filters_that_its_worker_is_under(arch: str, name: str) -> None:
    arguments = {"ioctl": (3, 0xC0084600), "clone": (0x003D0F00,), "openat": (0, 0, 2)}.get(name, ())
    for rules in (filters.zygote_filter(cuda=True), filters.worker_filter(PID, cuda=True)):
        assert call(rules, arch, name, *arguments) == seccomp.ALLOW
    assert call(filters.worker_filter(PID, cuda=False), arch, name, *arguments) == EPERM


FOREIGN_IOCTLS = {
    "FS_IOC_SETFLAGS": 0x40086602, "FS_IOC_ENABLE_VERITY": 0x40806685, "FS_IOC_FSSETXATTR": 0x401C5820,
    "FIFREEZE": 0xC0045877, "FICLONE": 0x40049409, "FIOSETOWN": 0x8901, "SIOCSPGRP": 0x8902,
}  # fmt: skip


@pytest.mark.parametrize("name", FOREIGN_IOCTLS)
def test_device_control_for_the_cuda_driver_reaches_no_other_kind_of_file(arch: str, name: str) -> None:
    for rules in (filters.zygote_filter(cuda=True), filters.worker_filter(PID, cuda=True)):
        assert call(rules, arch, "ioctl", 3, FOREIGN_IOCTLS[name]) == EPERM


@pytest.mark.parametrize("command", [0xC020462A, 0x30000001, 37, 0x5401, 0x5451], ids=hex)
def test_device_control_that_the_cuda_driver_and_its_callers_use_passes(arch: str, command: int) -> None:
    """A resource manager's call, UVM's start, a UVM call, isatty, close-on-exec."""
    for rules in (filters.zygote_filter(cuda=True), filters.worker_filter(PID, cuda=True)):
        assert call(rules, arch, "ioctl", 3, command) == seccomp.ALLOW


def test_a_gpu_worker_chooses_processors_for_itself_alone(arch: str) -> None:
    rules = filters.worker_filter(PID, cuda=True)
    assert call(rules, arch, "sched_setaffinity", 0, 8, 4096) == seccomp.ALLOW
    assert call(rules, arch, "sched_setaffinity", PID + 1, 8, 4096) == EPERM


def test_the_cuda_driver_finds_nothing_to_remove_and_listens_under_a_name_only(arch: str) -> None:
    kind = socket.SOCK_SEQPACKET | socket.SOCK_CLOEXEC
    for rules in (filters.zygote_filter(cuda=True), filters.worker_filter(PID, cuda=True)):
        assert call(rules, arch, "unlinkat") == seccomp.fail_with(errno.ENOENT)
        assert call(rules, arch, "socket", socket.AF_UNIX, kind) == seccomp.ALLOW
        for family, other in ((socket.AF_UNIX, socket.SOCK_STREAM), (socket.AF_INET, kind), (socket.AF_NETLINK, kind)):
            assert call(rules, arch, "socket", family, other) == EPERM
    for name in ("unlinkat", "socket", "bind", "listen"):
        assert call(filters.worker_filter(PID, cuda=False), arch, name, socket.AF_UNIX, kind) == EPERM


def test_a_foreign_architecture_is_killed(worker: seccomp.Filter, arch: str) -> None:
    assert answer(worker, arch, 0, audit=0x40000003) == seccomp.KILL_PROCESS


def test_the_x32_numbers_are_killed(worker: seccomp.Filter) -> None:
    assert answer(worker, "x86_64", syscalls.X32_BIT | 39) == seccomp.KILL_PROCESS


THREADS = """
import errno, threading
from selfimprove.containment.sandbox import process, seccomp
process.libc.prctl(38, 1, 0, 0, 0)  # no_new_privs
installed, said = threading.Event(), []

def call():
    installed.wait()
    said.append(process.libc.getppid())

thread = threading.Thread(target=call)
thread.start()
seccomp.install(seccomp.Filter(frozenset(), answers={"getppid": errno.EPERM}, default=seccomp.ALLOW))
installed.set()
thread.join()
assert said == [-1], said
"""


def test_a_filter_binds_threads_that_were_started_before_it() -> None:
    found = subprocess.run([sys.executable, "-c", THREADS], capture_output=True, text=True)
    assert found.returncode == 0, found.stderr

"""Attempts to break out of a worker. Each is harmless where it succeeds and touches only what its test made."""

from __future__ import annotations

import ctypes
import errno
import fcntl
import mmap
import os
import platform
import resource
import signal
import socket
import subprocess
import threading
from collections.abc import Callable
from typing import Any

libc = ctypes.CDLL(None, use_errno=True)
libc.syscall.restype = ctypes.c_long
NUMBERS = {  # x86_64, aarch64
    "io_uring_setup": (425, 425), "bpf": (321, 280), "perf_event_open": (298, 241), "userfaultfd": (323, 282),
    "keyctl": (250, 219), "ptrace": (101, 117), "process_vm_readv": (310, 270), "pidfd_getfd": (438, 438),
    "personality": (135, 92), "memfd_create": (319, 279), "unshare": (272, 97), "mount": (165, 40),
    "name_to_handle_at": (303, 264), "shmget": (29, 194), "mq_open": (180, 180), "openat2": (437, 437),
    "clone3": (435, 435), "rt_sigqueueinfo": (129, 138), "execveat": (322, 281), "setxattr": (188, 5),
}  # fmt: skip


def attempt(job: dict[str, Any], inputs: dict[str, int], outputs: dict[str, int], emit: object) -> dict[str, Any]:
    """Try one attack; returns the errno's name if it was refused."""
    try:
        ATTACKS[job["attack"]](job)
    except OSError as error:
        return {"refused": errno.errorcode.get(error.errno or 0, "?")}
    except (RuntimeError, ValueError) as error:
        return {"refused": str(error)}
    return {"escaped": True}


def call(name: str, *arguments: object) -> int:
    number = NUMBERS[name][platform.machine() == "aarch64"]
    result = int(libc.syscall(ctypes.c_long(number), *arguments))
    if result < 0:
        raise OSError(ctypes.get_errno(), name)
    return result


def opened(path: str, flags: int, mode: int = 0o600) -> None:
    os.close(os.open(path, flags, mode))


def connect(family: int, kind: int, address: Any) -> None:
    with socket.socket(family, kind) as client:
        client.connect(address)


def start_thread(job: dict[str, Any]) -> None:
    thread = threading.Thread(target=lambda: None)
    thread.start()
    thread.join()


def foreign_abi(job: dict[str, Any]) -> None:
    """getpid through the 32-bit gate: ``mov eax, 20; int 0x80; ret``."""
    code = mmap.mmap(-1, 4096, prot=mmap.PROT_READ | mmap.PROT_WRITE | mmap.PROT_EXEC)
    code.write(bytes.fromhex("b814000000cd80c3"))
    ctypes.CFUNCTYPE(ctypes.c_int)(ctypes.addressof(ctypes.c_char.from_buffer(code)))()


def x32_abi(job: dict[str, Any]) -> None:
    if libc.syscall(ctypes.c_long(0x40000000 | 39)) < 0:
        raise OSError(ctypes.get_errno(), "x32 getpid")


def raise_limit(kind: int) -> None:
    _, hard = resource.getrlimit(kind)
    if hard == resource.RLIM_INFINITY:
        return
    resource.setrlimit(kind, (hard + 1, hard + 1))


def prctl(option: int, value: int) -> None:
    if libc.prctl(option, value, 0, 0, 0) != 0:
        raise OSError(ctypes.get_errno(), "prctl")


def run_shell(job: dict[str, Any]) -> None:
    if os.system("true") != 0:
        raise OSError(errno.EPERM, "system")


def many_descriptors(job: dict[str, Any]) -> None:
    for _ in range(100_000):
        os.dup(0)


ATTACKS: dict[str, Callable[[dict[str, Any]], object]] = {
    # network
    "tcp4": lambda job: connect(socket.AF_INET, socket.SOCK_STREAM, ("127.0.0.1", job["port"])),
    "tcp6": lambda job: connect(socket.AF_INET6, socket.SOCK_STREAM, ("::1", job["port"])),
    "udp": lambda job: socket.socket(socket.AF_INET, socket.SOCK_DGRAM).close(),
    "mptcp": lambda job: socket.socket(socket.AF_INET, socket.SOCK_STREAM, 262).close(),
    "unix_socket": lambda job: socket.socket(socket.AF_UNIX, socket.SOCK_STREAM).close(),
    "socketpair": lambda job: socket.socketpair(),
    "netlink": lambda job: socket.socket(socket.AF_NETLINK, socket.SOCK_RAW).close(),
    "vsock": lambda job: socket.socket(40, socket.SOCK_STREAM).close(),
    "af_alg": lambda job: socket.socket(38, socket.SOCK_SEQPACKET).close(),
    # write
    "create": lambda job: opened(job["folder"] + "/new", os.O_WRONLY | os.O_CREAT),
    "create_in_tmp": lambda job: opened("/tmp/containment-test-file", os.O_WRONLY | os.O_CREAT | os.O_EXCL),
    "create_in_shm": lambda job: opened("/dev/shm/containment-test-file", os.O_WRONLY | os.O_CREAT | os.O_EXCL),
    "anonymous_file": lambda job: opened(job["folder"], os.O_TMPFILE | os.O_RDWR),
    "write_existing": lambda job: opened(job["file"], os.O_WRONLY),
    "append": lambda job: opened(job["file"], os.O_WRONLY | os.O_APPEND),
    "truncate_on_open": lambda job: opened(job["file"], os.O_RDONLY | os.O_TRUNC),
    "truncate": lambda job: os.truncate(job["file"], 0),
    "mkdir": lambda job: os.mkdir(job["folder"] + "/new"),
    "rename": lambda job: os.rename(job["file"], job["folder"] + "/new"),
    "unlink": lambda job: os.unlink(job["file"]),
    "hard_link": lambda job: os.link(job["file"], job["folder"] + "/new"),
    "symlink": lambda job: os.symlink(job["file"], job["folder"] + "/new"),
    "mkfifo": lambda job: os.mkfifo(job["folder"] + "/new"),
    "chmod": lambda job: os.chmod(job["file"], 0o777),
    "chown": lambda job: os.chown(job["file"], os.getuid(), os.getgid()),
    "utime": lambda job: os.utime(job["file"]),
    "xattr": lambda job: os.setxattr(job["file"], "user.test", b"x"),
    "reopen_output": lambda job: opened("/proc/self/fd/2", os.O_WRONLY),
    # read
    "read_secret": lambda job: opened(job["file"], os.O_RDONLY),
    "list_folder": lambda job: os.listdir(job["folder"]),
    "read_passwords": lambda job: opened("/etc/passwd", os.O_RDONLY),
    "read_through_proc_root": lambda job: opened("/proc/self/root" + job["file"], os.O_RDONLY),
    "supervisor_environment": lambda job: opened(f"/proc/{job['supervisor']}/environ", os.O_RDONLY),
    "supervisor_memory": lambda job: opened(f"/proc/{job['supervisor']}/mem", os.O_RDONLY),
    "own_memory": lambda job: opened("/proc/self/mem", os.O_RDONLY),
    "file_handle": lambda job: call("name_to_handle_at", -100, job["file"].encode(), None, None, 0),
    "openat2": lambda job: call("openat2", -100, job["file"].encode(), ctypes.create_string_buffer(24), 24),
    # programs and processes
    "exec": lambda job: os.execv("/bin/true", ["true"]),
    "subprocess": lambda job: subprocess.run(["/bin/true"], check=True),
    "shell": run_shell,
    "fork": lambda job: os.fork() or os._exit(0),
    "thread": start_thread,
    "memfd_create": lambda job: call("memfd_create", b"x", 0),
    "execveat": lambda job: call("execveat", 0, b"", None, None, 0x1000),
    "clone3": lambda job: call("clone3", ctypes.create_string_buffer(88), 88),
    "setsid": lambda job: os.setsid(),
    "new_process_group": lambda job: os.setpgid(0, 0),
    # signals and the supervisor
    "kill_supervisor": lambda job: os.kill(job["supervisor"], 0),
    "kill_zygote": lambda job: os.kill(os.getppid(), 0),
    "kill_all": lambda job: os.kill(-1, 0),
    "kill_group": lambda job: os.killpg(0, 0),
    "queue_signal": lambda job: call("rt_sigqueueinfo", job["supervisor"], 0, None),
    "open_pidfd": lambda job: os.pidfd_open(job["supervisor"]),
    "steal_descriptor": lambda job: call("pidfd_getfd", 0, 0, 0),
    "ptrace": lambda job: call("ptrace", 16, job["supervisor"], 0, 0),
    "read_memory": lambda job: call("process_vm_readv", job["supervisor"], None, 0, None, 0, 0),
    "limit_supervisor": lambda job: resource.prlimit(job["supervisor"], resource.RLIMIT_NOFILE, (64, 64)),
    "signal_owner": lambda job: fcntl.fcntl(0, fcntl.F_SETOWN, job["supervisor"]),
    "forget_parent": lambda job: prctl(1, 0),
    "priority": lambda job: os.setpriority(os.PRIO_PROCESS, 0, 5),
    "affinity": lambda job: os.sched_setaffinity(0, os.sched_getaffinity(0)),
    "real_time": lambda job: os.sched_setscheduler(0, os.SCHED_BATCH, os.sched_param(0)),
    # limits and the kernel
    "raise_cpu_limit": lambda job: raise_limit(resource.RLIMIT_CPU),
    "raise_memory_limit": lambda job: raise_limit(resource.RLIMIT_AS),
    "raise_file_limit": lambda job: raise_limit(resource.RLIMIT_FSIZE),
    "many_descriptors": many_descriptors,
    "pipe_buffer": lambda job: os.pipe(),
    "io_uring": lambda job: call("io_uring_setup", 1, ctypes.create_string_buffer(120)),
    "bpf": lambda job: call("bpf", 0, None, 0),
    "perf": lambda job: call("perf_event_open", None, 0, -1, -1, 0),
    "userfaultfd": lambda job: call("userfaultfd", 0),
    "keyctl": lambda job: call("keyctl", 0, -3, 0),
    "user_namespace": lambda job: call("unshare", 0x10000000),
    "mount": lambda job: call("mount", b"none", b"/nonexistent", b"tmpfs", 0, None),
    "chroot": lambda job: os.chroot("/"),
    "personality": lambda job: call("personality", 0x0040000),
    "shared_memory": lambda job: call("shmget", 0, 4096, 0o1600),
    "message_queue": lambda job: call("mq_open", b"containment-test", 0o102, 0o600, None),
    "foreign_abi": foreign_abi,
    "x32_abi": x32_abi,
    "signal_self": lambda job: signal.raise_signal(signal.SIGCONT),
}

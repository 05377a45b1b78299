"""A small seccomp-BPF assembler: an allow-list of system calls, some on conditions over their arguments.

Everything that is not allowed answers EPERM, or what its callers can go on with; a call made through a foreign ABI
(32-bit, x32) kills the process, because its numbers mean something else.

Source: ``Documentation/userspace-api/seccomp_filter.rst``. Not covered: what a pointer argument points to (a filter
cannot read it), which is why paths are Landlock's business.
"""

from __future__ import annotations

import ctypes
import errno
import struct
from collections.abc import Mapping
from dataclasses import dataclass, field

from selfimprove.containment.sandbox import process, syscalls

_LOAD_WORD = 0x20  # BPF_LD | BPF_W | BPF_ABS
_AND = 0x54  # BPF_ALU | BPF_AND | BPF_K
_JUMP_EQUAL = 0x15  # BPF_JMP | BPF_JEQ | BPF_K
_JUMP_GREATER_EQUAL = 0x35  # BPF_JMP | BPF_JGE | BPF_K
_RETURN = 0x06  # BPF_RET | BPF_K

_WORD = 0xFFFFFFFF

_NUMBER_OFFSET = 0
_ARCH_OFFSET = 4
_ARGUMENTS_OFFSET = 16

KILL_PROCESS = 0x80000000
ALLOW = 0x7FFF0000
_ERRNO = 0x00050000

_SET_MODE_FILTER = 1
_GET_ACTION_AVAILABLE = 2
_EVERY_THREAD = 1  # SECCOMP_FILTER_FLAG_TSYNC
_SECCOMP_NUMBER = {"x86_64": 317, "aarch64": 277}


def fail_with(code: int) -> int:
    """Return the filter action that makes a call fail with ``errno`` = ``code``."""
    return _ERRNO | (code & 0xFFFF)


@dataclass(frozen=True)
class Condition:
    """Allow a call only if an argument passes one test.

    Args:
        argument: index of the argument, 0 to 5; its low 32 bits are tested.
        equals: allowed if the argument is one of these values, of what ``mask`` leaves of it.
        mask: the bits that ``equals`` looks at.
        differs: allowed if the argument is none of these values.
        without: allowed if none of these bits is set.
        required: allowed only if all of these bits are set.
        null: allowed only if the whole 64-bit argument is zero.
    """

    argument: int
    equals: tuple[int, ...] = ()
    mask: int = _WORD
    differs: tuple[int, ...] = ()
    without: int = 0
    required: int = 0
    null: bool = False


@dataclass(frozen=True)
class Filter:
    """A whole filter.

    Args:
        allow: calls that are allowed.
        conditions: calls that are allowed on conditions over their arguments.
        answers: calls that are refused with another ``errno`` than EPERM: what their callers take for an answer that
            they can go on with.
        default: what every other call gets.
    """

    allow: frozenset[str]
    conditions: Mapping[str, tuple[Condition, ...]] = field(default_factory=dict)
    answers: Mapping[str, int] = field(default_factory=dict)
    default: int = _ERRNO | errno.EPERM


_Instruction = tuple[int, int, int, int]


def assemble(rules: Filter, arch: str) -> bytes:
    """Translate a filter into the kernel's bytecode, 8 bytes an instruction.

    Raises:
        KeyError: a call name or an architecture that the tables do not know.
    """
    program: list[_Instruction] = [
        (_LOAD_WORD, 0, 0, _ARCH_OFFSET),
        (_JUMP_EQUAL, 1, 0, syscalls.AUDIT_ARCH[arch]),
        (_RETURN, 0, 0, KILL_PROCESS),
        (_LOAD_WORD, 0, 0, _NUMBER_OFFSET),
    ]
    if arch == "x86_64":
        program += [(_JUMP_GREATER_EQUAL, 0, 1, syscalls.X32_BIT), (_RETURN, 0, 0, KILL_PROCESS)]
    for name in sorted(rules.conditions):
        number = syscalls.number(name, arch)
        if number is not None:
            block = [i for condition in rules.conditions[name] for i in _test(condition)] + [(_RETURN, 0, 0, ALLOW)]
            program += [(_JUMP_EQUAL, 0, len(block), number), *block]
    plain = rules.allow - set(rules.conditions)
    actions = dict.fromkeys(plain, ALLOW) | {name: fail_with(code) for name, code in rules.answers.items()}
    for number, action in sorted(_by_number(actions, arch).items()):
        program += [(_JUMP_EQUAL, 0, 1, number), (_RETURN, 0, 0, action)]
    program.append((_RETURN, 0, 0, rules.default))
    return b"".join(struct.pack("=HBBI", *instruction) for instruction in program)


def _by_number(actions: Mapping[str, int], arch: str) -> dict[int, int]:
    found = ((syscalls.number(name, arch), action) for name, action in actions.items())
    return {number: action for number, action in found if number is not None}


def _test(condition: Condition) -> list[_Instruction]:
    """One argument test: falls through when it passes, returns EPERM when it does not."""
    denied = (_RETURN, 0, 0, fail_with(errno.EPERM))
    low = (_LOAD_WORD, 0, 0, _ARGUMENTS_OFFSET + 8 * condition.argument)
    if condition.null:
        high = (_LOAD_WORD, 0, 0, _ARGUMENTS_OFFSET + 8 * condition.argument + 4)
        return [low, (_JUMP_EQUAL, 1, 0, 0), denied, high, (_JUMP_EQUAL, 1, 0, 0), denied]
    if condition.equals:
        count = len(condition.equals)
        jumps = [(_JUMP_EQUAL, count - i, 0, value & _WORD) for i, value in enumerate(condition.equals)]
        return [low, (_AND, 0, 0, condition.mask), *jumps, denied]
    if condition.differs:
        return [low, *(i for value in condition.differs for i in ((_JUMP_EQUAL, 0, 1, value & _WORD), denied))]
    mask, wanted = (condition.required, condition.required) if condition.required else (condition.without, 0)
    return [low, (_AND, 0, 0, mask), (_JUMP_EQUAL, 1, 0, wanted), denied]


class _Program(ctypes.Structure):
    _fields_ = (("length", ctypes.c_ushort), ("instructions", ctypes.c_char_p))


def _seccomp(operation: int, argument: ctypes.c_void_p | None, flags: int = 0) -> None:
    arch = syscalls.architecture()
    if arch is None:
        raise OSError(errno.ENOSYS, "no seccomp table for this architecture")
    answer = process.libc.syscall(_SECCOMP_NUMBER[arch], operation, flags, argument)
    if answer > 0:
        raise OSError(errno.ESRCH, f"seccomp({operation}): thread {answer} has another filter")
    if answer != 0:
        code = ctypes.get_errno()
        raise OSError(code, f"seccomp({operation}): errno {code}")


def available() -> bool:
    """True if the kernel takes filters and can kill a whole process on a foreign ABI."""
    action = ctypes.c_uint32(KILL_PROCESS)
    try:
        _seccomp(_GET_ACTION_AVAILABLE, ctypes.cast(ctypes.byref(action), ctypes.c_void_p))
    except OSError:
        return False
    return True


def install(rules: Filter) -> None:
    """Apply a filter to every thread of the process and its future children; it can never be removed.

    Needs ``no_new_privs``. Filters stack: the most severe answer wins. Every thread, because imports and a driver start
    some between the two steps of the lock-down.

    Raises:
        OSError: the kernel or architecture does not take it.
    """
    arch = syscalls.architecture()
    if arch is None:
        raise OSError(errno.ENOSYS, "no seccomp table for this architecture")
    code = assemble(rules, arch)
    program = _Program(len(code) // 8, code)
    _seccomp(_SET_MODE_FILTER, ctypes.cast(ctypes.byref(program), ctypes.c_void_p), _EVERY_THREAD)

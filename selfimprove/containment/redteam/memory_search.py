"""Searching a process's own memory from inside, without ``/proc``: what is mapped is asked of the kernel.

A range is taken by ``mmap(MAP_FIXED_NOREPLACE)`` if it is free, and refused if something is there. Whether a page can
be read is asked of ``pwrite``, which answers EFAULT where a load would crash.
"""

from __future__ import annotations

import ctypes
import errno
import mmap
import resource
from collections.abc import Iterator

from selfimprove.containment.redteam.attack import Cell
from selfimprove.containment.sandbox.process import libc

_PAGE = resource.getpagesize()
_RESERVED = 32 * 2**20  # taken at once while asking; stays under a worker's address space limit
_FINEST = 2 * 2**20
_COPIED = 512 * 1024  # read at once; stays under what a worker may write
_WINDOW = 16 * 2**30  # how far from a new mapping is searched, to either side
_HEAP = 2**30
_OVERLAP = 256  # for a secret that crosses a border
_FLAGS = mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | 0x100000 | 0x4000  # FIXED_NOREPLACE, NORESERVE

libc.mmap.restype = ctypes.c_void_p
libc.mmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t, *[ctypes.c_int] * 3, ctypes.c_long]
libc.munmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t]
libc.pwrite.restype = ctypes.c_ssize_t
libc.pwrite.argtypes = [ctypes.c_int, ctypes.c_void_p, ctypes.c_size_t, ctypes.c_long]
libc.sbrk.restype = ctypes.c_void_p
libc.sbrk.argtypes = [ctypes.c_long]


def leaks(cell: Cell) -> bool:
    """True if the secret lies anywhere in the readable memory around the heap and the mappings of this process."""
    return any(cell.holds_secret(ctypes.string_at(address, size)) for address, size in _readable(cell.out))


def _readable(out: int) -> Iterator[tuple[int, int]]:
    """Yield (address, size) of all readable memory, in overlapping pieces. Writes over the start of ``out``."""
    end = 0
    for start, size in _mapped():
        position = start
        while position < start + size:
            copied = libc.pwrite(out, position, min(_COPIED, start + size - position), 0)
            if copied <= 0:
                position += _PAGE
                continue
            before = _OVERLAP if position == end else 0
            yield position - before, copied + before
            position = end = position + -(-copied // _PAGE) * _PAGE


def _mapped() -> Iterator[tuple[int, int]]:
    """Yield (address, size) of ranges that are not free: around the heap, and where the kernel puts new mappings."""
    heap = int(libc.sbrk(0) or 0) // _PAGE * _PAGE
    with mmap.mmap(-1, _PAGE, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS) as fresh:
        middle = ctypes.addressof(ctypes.c_char.from_buffer(fresh)) // _RESERVED * _RESERVED
    for start, end in ((max(_PAGE, heap - _HEAP), heap), (middle - _WINDOW, middle + _WINDOW)):
        for address in range(start, end, _RESERVED):
            yield from _split(address, min(_RESERVED, end - address))


def _split(address: int, size: int) -> Iterator[tuple[int, int]]:
    ctypes.set_errno(0)
    if libc.mmap(address, size, 0, _FLAGS, -1, 0) == address:
        libc.munmap(address, size)
    elif ctypes.get_errno() != errno.EEXIST:
        return  # outside the address space
    elif size <= _FINEST:
        yield address, size
    else:
        half = size // 2 // _PAGE * _PAGE
        yield from _split(address, half)
        yield from _split(address + half, size - half)

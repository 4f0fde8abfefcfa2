"""glibc's allocator, told to keep memory: XLA allocates the temporary buffers of every call anew.

By default large blocks are mapped from the kernel and given back, so that every step faults all its pages in again: a
quarter of a step of Inception-v1. With these settings freed memory stays in one heap of the process and is used again.
The cost: the process never shrinks, its peak stays resident. `KERASOFT_ALLOCATOR=system` leaves glibc as it is.
"""

from __future__ import annotations

import ctypes
import functools
import os

VARIABLE = "KERASOFT_ALLOCATOR"
_M_TRIM_THRESHOLD, _M_TOP_PAD, _M_MMAP_MAX, _M_ARENA_MAX = -1, -2, -4, -8  # malloc.h
SETTINGS = (
    (_M_ARENA_MAX, 1),  # one heap: what one thread freed, another can use
    (_M_MMAP_MAX, 0),  # large blocks come from the heap too
    (_M_TRIM_THRESHOLD, -1),  # freed memory is not given back
    (_M_TOP_PAD, 64 << 20),  # the heap grows in large steps
)


@functools.cache
def keep_memory() -> bool:
    """Makes this process keep freed memory, once; called before the first computation.

    Returns:
        Whether it does: not where `KERASOFT_ALLOCATOR=system`, nor with another C library than glibc.
    """
    if os.environ.get(VARIABLE, "").strip().lower() in ("system", "0"):
        return False
    try:
        library = ctypes.CDLL(None)
        library.gnu_get_libc_version  # noqa: B018 (asks whether it is there)
        mallopt = library.mallopt
    except (OSError, AttributeError):
        return False
    return all([mallopt(name, value) == 1 for name, value in SETTINGS])

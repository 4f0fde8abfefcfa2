"""Memory of XLA's calls, kept: XLA allocates the temporary buffers and the results of every call anew.

By default large blocks are mapped from the kernel and given back, so that every step faults all its pages in again: half of
a step of ResNet-50, a quarter of one of Inception-v1. With the native library jaxlib's large blocks come from
`kernels/cpp/large_blocks.cpp`, which keeps as many bytes as were ever in use at once, on huge pages. Without it glibc's
allocator is told to keep freed memory in one heap. `KERASOFT_ALLOCATOR=system` leaves all as it is.
"""

from __future__ import annotations

import ctypes
import functools
import os

from .kernels import bridge

VARIABLE = "KERASOFT_ALLOCATOR"
_M_TRIM_THRESHOLD, _M_TOP_PAD, _M_MMAP_MAX, _M_ARENA_MAX = -1, -2, -4, -8  # malloc.h
SETTINGS = (
    (_M_ARENA_MAX, 1),  # one heap: what one thread freed, another can use
    (_M_MMAP_MAX, 0),  # large blocks come from the heap too
    (_M_TRIM_THRESHOLD, -1),  # freed memory is not given back
    (_M_TOP_PAD, 64 << 20),  # the heap grows in large steps
)


@functools.cache
def keep_memory() -> str | None:
    """Makes this process keep freed memory, once; called before the first computation.

    Returns:
        Which way: "blocks" (large blocks of jaxlib's), "heap" (glibc's heap), or None: with `KERASOFT_ALLOCATOR=system`, or
        with another C library than glibc.
    """
    if os.environ.get(VARIABLE, "").strip().lower() in ("system", "0"):
        return None
    return "blocks" if bridge.keep_large_blocks() else "heap" if _keep_heap() else None


def _keep_heap() -> bool:
    try:
        library = ctypes.CDLL(None)
        library.gnu_get_libc_version  # noqa: B018 (asks whether it is there)
        mallopt = library.mallopt
    except (OSError, AttributeError):
        return False
    return all([mallopt(name, value) == 1 for name, value in SETTINGS])

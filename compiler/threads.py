"""How many threads XLA computes with. Results depend on this number and on nothing else about the machine's cores.

XLA splits long sums (products with a long inner size, gradients of convolution kernels, sums over an axis) among its
threads, and another number of parts rounds differently. The number is read once, when JAX starts its CPU client; by
default it is the number of cores that the process may use (docs/design/0003-determinism.md).
"""

from __future__ import annotations

import os
import sys

from .errors import ProgramError

_VARIABLE = "NPROC"


def pin_threads(count: int) -> None:
    """Makes XLA compute with `count` threads in this process and its children. Call it before JAX is first used.

    With the same `count`, and processors of one kind, the same program gives the same bits on any number of cores.

    Raises:
        ProgramError: JAX has started already with another number; or `count` is less than 1.
    """
    if count < 1:
        raise ProgramError(f"at least one thread is needed, got {count}")
    if _started() and os.environ.get(_VARIABLE) != str(count):
        raise ProgramError(
            f"JAX has started with {os.environ.get(_VARIABLE) or 'as many threads as cores'}; "
            f"pin_threads({count}) comes too late: call it before the first computation"
        )
    os.environ[_VARIABLE] = str(count)


def threads() -> int:
    """With how many threads XLA computes, or will."""
    return int(os.environ.get(_VARIABLE) or len(os.sched_getaffinity(0)))


def _started() -> bool:
    bridge = sys.modules.get("jax._src.xla_bridge")
    return bridge is not None and bridge.backends_are_initialized()

"""What a decision about kernels depends on beside the op: the processor, the threads, and the versions that compute."""

from __future__ import annotations

import functools
import hashlib
import pathlib

import jax

from ..threads import threads
from . import bridge, processor


def description() -> dict[str, str | int]:
    """All of it by name; decisions that were taken under another description are not used."""
    import kerasoft

    return {
        "cpu": processor.model(),
        "isa": bridge.cpu_level() or "",
        "threads": threads(),
        "jax": jax.__version__,
        "kerasoft": kerasoft.__version__,
        "libraries": " ".join(f"{name}:{_digest(name)}" for name in bridge.signature()),
        "mkl": bridge.mkl_version(),
    }


@functools.cache
def _digest(library: str) -> str:
    """Eight digits of the file's SHA-256: another build is another kernel."""
    path = pathlib.Path(bridge.path(library.partition("-")[0]))
    return hashlib.sha256(path.read_bytes()).hexdigest()[:8]

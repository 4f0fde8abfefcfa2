"""What a decision about kernels depends on beside the op: the processor, the threads, and the versions that compute."""

from __future__ import annotations

import functools
import hashlib
import pathlib
import platform

import jax

from ..threads import threads
from . import bridge


@functools.cache
def cpu_model() -> str:
    """The processor's name and numbers, e.g. "AMD EPYC 9655 family 26 model 2"."""
    fields: dict[str, str] = {}
    try:
        for line in pathlib.Path("/proc/cpuinfo").read_text().splitlines():
            name, colon, value = line.partition(":")
            if colon:
                fields.setdefault(name.strip(), value.strip())
    except OSError:
        pass
    name = fields.get("model name") or platform.processor() or platform.machine()
    numbers = [f"{of} {fields[key]}" for of, key in (("family", "cpu family"), ("model", "model")) if key in fields]
    return " ".join([name, *numbers])


def description() -> dict[str, str | int]:
    """All of it by name; decisions that were taken under another description are not used."""
    import kerasoft

    return {
        "cpu": cpu_model(),
        "isa": bridge.cpu_level() or "",
        "threads": threads(),
        "jax": jax.__version__,
        "kerasoft": kerasoft.__version__,
        "libraries": " ".join(f"{name}:{_digest(name)}" for name in bridge.signature()),
    }


@functools.cache
def _digest(library: str) -> str:
    """Eight digits of the file's SHA-256: another build is another kernel."""
    path = pathlib.Path(bridge.path(library.partition("-")[0]))
    return hashlib.sha256(path.read_bytes()).hexdigest()[:8]

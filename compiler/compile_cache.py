"""XLA compilations: how many there were, and a folder that remembers them."""

from __future__ import annotations

import os
import threading

import jax
from jax import monitoring

_COMPILED = "/jax/core/compile/backend_compile_duration"
_HIT = "/jax/compilation_cache/cache_hits"
_lock = threading.Lock()
_counts = {_COMPILED: 0, _HIT: 0}


def _on_duration(event: str, duration_secs: float, **_: object) -> None:
    if event == _COMPILED:
        with _lock:
            _counts[event] += 1


def _on_event(event: str, **_: object) -> None:
    if event == _HIT:
        with _lock:
            _counts[event] += 1


monitoring.register_event_duration_secs_listener(_on_duration)
monitoring.register_event_listener(_on_event)


def compilations() -> int:
    """XLA compilations in this process since this module was imported.

    JAX reports a "backend compile" also when it only loads an executable from the persistent cache; those are not
    counted here. Every compilation of the process counts, whoever asked for it (a stray `jnp` call too).
    """
    with _lock:
        return _counts[_COMPILED] - _counts[_HIT]


def cache_hits() -> int:
    """Executables loaded from the persistent compilation cache in this process."""
    with _lock:
        return _counts[_HIT]


def use_compile_cache(folder: str | os.PathLike[str]) -> None:
    """Keeps every compiled executable in `folder` and loads it from there next time, in this and other processes.

    The key holds the program, the compile options and the CPU's features, so hosts of different CPU models may share
    a folder. Call it before the first compilation. The folder is readable by its owner only: who writes into it decides
    what is executed.
    """
    os.makedirs(folder, mode=0o700, exist_ok=True)
    jax.config.update("jax_compilation_cache_dir", os.fspath(folder))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)
    jax.config.update("jax_persistent_cache_min_entry_size_bytes", -1)
    jax.config.update("jax_persistent_cache_enable_xla_caches", "none")

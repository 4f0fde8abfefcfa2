"""XLA compilations: how many there were, and a folder that remembers them.

By default that is a folder of the user's, `$XDG_CACHE_HOME/kerasoft` or `~/.cache/kerasoft`. `KERASOFT_COMPILE_CACHE` names
another one; "off" turns it off. A cache that the user has given JAX stays.
"""

from __future__ import annotations

import contextlib
import functools
import os
import pathlib
import stat
import threading

import jax
from jax import monitoring

VARIABLE = "KERASOFT_COMPILE_CACHE"
MOST_BYTES = 2 << 30  # of the default folder; the files unused for longest go first
WORTH_S = 0.2  # what compiles faster is not kept there

_COMPILED = "/jax/core/compile/backend_compile_duration"
_HIT = "/jax/compilation_cache/cache_hits"
_lock = threading.Lock()
_LOADED = "loaded whole"
_counts = {_COMPILED: 0, _HIT: 0, _LOADED: 0}


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
    """Executables loaded from disk in this process: from JAX's compilation cache, or whole (`stored`)."""
    with _lock:
        return _counts[_HIT] + _counts[_LOADED]


def count_loaded() -> None:
    """Counts an executable that was loaded whole."""
    with _lock:
        _counts[_LOADED] += 1


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


@functools.cache
def use_default_cache() -> str | None:
    """Sets the user's own folder up, once; called before the first compilation of a step.

    A folder that belongs to somebody else, that others may write into, or that cannot be made is not used.

    Returns:
        The folder, or None.
    """
    wanted = os.environ.get(VARIABLE, "").strip()
    if wanted.lower() in ("off", "0") or getattr(jax.config, "jax_compilation_cache_dir"):  # noqa: B009 (its types do not know it)
        return None
    home = os.environ.get("XDG_CACHE_HOME", "").strip() or os.path.join(os.path.expanduser("~"), ".cache")
    folder = pathlib.Path(wanted or os.path.join(home, "kerasoft")) / f"compiled-jax-{jax.__version__}"
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        found = folder.lstat()
        if found.st_uid != os.getuid() or not stat.S_ISDIR(found.st_mode) or found.st_mode & 0o022:
            return None
        _shrink(folder, MOST_BYTES)
    except OSError:
        return None
    use_compile_cache(folder)
    jax.config.update("jax_persistent_cache_min_compile_time_secs", WORTH_S)
    return str(folder)


def _shrink(folder: pathlib.Path, most_bytes: int) -> None:
    """Removes files, those used longest ago first, until the rest are at most three quarters of `most_bytes`."""
    files = []
    for entry in os.scandir(folder):
        with contextlib.suppress(OSError):  # another process has removed it
            status = entry.stat(follow_symlinks=False)
            files.append((max(status.st_atime, status.st_mtime), status.st_size, entry.path))
    total = sum(size for _, size, _ in files)
    if total <= most_bytes:
        return
    for _, size, path in sorted(files):
        if total <= 0.75 * most_bytes:
            break
        with contextlib.suppress(OSError):
            os.unlink(path)
        total -= size

"""StableHLO that travels, and the executables that a process makes of it: each compiled once a process."""

from __future__ import annotations

import collections
import dataclasses
import hashlib
import threading
from collections.abc import Callable, Sequence
from typing import Any

import jax
from jax import export as jax_export

from .errors import ProgramError
from .kernels import bridge

KEPT = 128  # executables of a process

_export_lock = threading.Lock()
_kept: collections.OrderedDict[tuple, Any] = collections.OrderedDict()
_kept_lock = threading.Lock()


def export(name: str, function: Callable[..., tuple], types: Sequence[jax.ShapeDtypeStruct]) -> bytes:
    """`function` for arguments of these types as StableHLO, under this name; it may call our native kernels."""
    function.__name__ = function.__qualname__ = name
    with _export_lock, jax._src.config.traceback_in_locations_limit(0):  # no paths of this machine inside
        ours = [jax_export.DisabledSafetyCheck.custom_call(target) for target in bridge.targets()]
        jitted = jax.jit(function, keep_unused=True)
        return bytes(jax_export.export(jitted, platforms=["cpu"], disabled_checks=ours)(*types).serialize())


@dataclasses.dataclass(frozen=True)
class Exported:
    """What `export` gave.

    Attributes:
        blob: the bytes. options: XLA's, for this executable. digest: SHA-256 of the bytes.
    """

    blob: bytes
    options: tuple[tuple[str, str], ...]
    digest: str

    @classmethod
    def of(cls, blob: bytes, options: Any) -> Exported:
        return cls(blob, tuple(sorted(dict(options).items())), hashlib.sha256(blob).hexdigest())

    def executable(self, types: Sequence[jax.ShapeDtypeStruct]) -> Any:
        """Compiled; kept for the process, so that a program read a second time does not compile again.

        Raises:
            ProgramError: the bytes are no StableHLO that this JAX reads.
        """
        key = (self.digest, tuple((t.shape, t.dtype.name) for t in types), self.options)
        with _kept_lock:
            if key in _kept:
                _kept.move_to_end(key)
                return _kept[key]
            try:
                exported = jax_export.deserialize(bytearray(self.blob))
            except Exception as error:
                raise ProgramError(f"a stage of the StepProgram cannot be read: {error}") from error
            lowered = jax.jit(exported.call, keep_unused=True).lower(*types)
            _kept[key] = compiled = lowered.compile(compiler_options=dict(self.options) or None)
            while len(_kept) > KEPT:
                _kept.popitem(last=False)
            return compiled


def forget() -> None:
    """Lets go of the executables of this process; those in use stay."""
    with _kept_lock:
        _kept.clear()

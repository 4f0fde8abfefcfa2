"""What this machine can do at most, measured once and kept: float32 operations a second, and bytes a second."""

from __future__ import annotations

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np

from . import bridge, machine, settings
from .decisions import Decision, Decisions
from .measure import shortest

_KEY = "peak"


@dataclasses.dataclass(frozen=True)
class Peak:
    """
    Attributes:
        flops_s: float32 operations a second, a multiply-add being two, on all threads.
        bytes_s: bytes a second read from and written to memory, all threads, arrays larger than the caches.
        how: what was measured, as a sentence.
    """

    flops_s: float
    bytes_s: float
    how: str

    def share(self, flops: float, moved: float, seconds: float) -> float:
        """How much of the machine is used: of its arithmetic or of its memory, whichever is the larger share."""
        return max(flops / seconds / self.flops_s, moved / seconds / self.bytes_s)

    def least_s(self, flops: float, moved: float) -> float:
        """The shortest time that the machine could do so much in."""
        return max(flops / self.flops_s, moved / self.bytes_s)


def peak(again: bool = False) -> Peak:
    """The machine's peak; takes half a second the first time, or `again`. What is kept is the most that was ever seen."""
    if not again and settings.budget_s() == 0:
        return _unkept()
    decisions = Decisions(machine.description())
    known = decisions.known.get(_KEY)
    if again or known is None or set(known.times) != {"flop", "byte"}:
        flops_s, bytes_s = _measured()
        before = known.times if known is not None else {}
        times = {"flop": 1 / flops_s, "byte": 1 / bytes_s}
        known = Decision({name: min(t, before.get(name, t)) for name, t in times.items()})
        decisions.add(_KEY, known)
        decisions.save()
    return Peak(1 / known.times["flop"], 1 / known.times["byte"], _how())


@functools.cache
def _unkept() -> Peak:
    """For a process that measures no kernels and keeps nothing on disk."""
    return Peak(*_measured(), _how())


def _how() -> str:
    native = bridge.loaded("native")
    return "loops of multiply-adds and of sums of arrays" if native else "XLA's product of matrices and sum of arrays"


def _measured() -> tuple[float, float]:
    return _by_native_loops() if bridge.loaded("native") else _by_xla()


def _by_native_loops() -> tuple[float, float]:
    def run(name: str, **attributes: int) -> float:
        result = jax.ShapeDtypeStruct((2,), np.float32)
        call = jax.ffi.ffi_call(f"kerasoft.{name}", result)
        compiled = jax.jit(lambda: call(**{k: np.int64(v) for k, v in attributes.items()})).lower().compile()
        seconds, amount = np.asarray(compiled())
        return float(amount / seconds)

    return run("peak_arithmetic", loops=1 << 20, rounds=15), run("peak_stream", count=16 << 20, rounds=10)


def _by_xla() -> tuple[float, float]:
    n, count = 2048, 16 << 20
    square, row = np.ones((n, n), np.float32), np.ones(count, np.float32)
    product = jax.jit(jnp.matmul).lower(square, square).compile()
    total = jax.jit(jnp.add).lower(row, row).compile()
    with jax.ensure_compile_time_eval():
        square, row = jax.device_put(square), jax.device_put(row)
    times = shortest({"product": lambda: product(square, square), "sum": lambda: total(row, row)})
    return 2 * n**3 / times["product"], 12 * count / times["sum"]

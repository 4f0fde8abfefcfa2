"""xp: NumPy's functions for results, on JAX's arrays too.

A result is computed from the sums of an epoch on the host (NumPy, float64), from a metric's own states (NumPy, float32),
and in `stateless_result` from arrays or tracers of JAX.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np


def on_host(*values: Any) -> bool:
    """Whether NumPy computes with all of these: none is an array or tracer of JAX."""
    flat = (x for value in values for x in (value if isinstance(value, (list, tuple)) else (value,)))
    return not any(type(value).__module__.startswith("jax") for value in flat)


class _Arrays:
    """``xp.sum(x)`` is ``numpy.sum(x)``, and ``jax.numpy.sum(x)`` when an argument is an array of JAX."""

    def __getattr__(self, name: str) -> Callable:
        def call(*args: Any, **kwargs: Any) -> Any:
            if on_host(*args):
                return getattr(np, name)(*args, **kwargs)
            import jax.numpy as jnp

            return getattr(jnp, name)(*args, **kwargs)

        return call


xp: Any = _Arrays()


def ratio(a: Any, b: Any) -> Any:
    """a / b, 0 where b is 0."""
    if on_host(a, b):
        a, b = np.asarray(a), np.asarray(b)
        out = np.zeros(np.broadcast_shapes(a.shape, b.shape), np.result_type(a, b))
        return np.divide(a, b, out=out, where=b != 0)[()]
    return xp.where(b == 0, 0.0, a / xp.where(b == 0, 1.0, b))

"""Maximum over windows in one pass forward and one back: float32, one or two spatial axes, channels last."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from .lowerings import lowering


def _spec(shape: Sequence[int], window: Sequence[int], strides: Sequence[int], padding: str) -> tuple[int, ...]:
    """batch, height, width, channels, output height and width, window, strides, padding in front (see pooling.cpp)."""
    sizes = tuple(shape[1:-1])
    pads = jax.lax.padtype_to_pads(sizes, window, strides, padding.upper())
    out = tuple((n + lo + hi - k) // s + 1 for n, (lo, hi), k, s in zip(sizes, pads, window, strides))
    front = tuple(lo for lo, _ in pads)
    flat = (1,) * (2 - len(sizes))
    return (
        shape[0], *flat, *sizes, shape[-1], *flat, *out, *flat, *window, *flat, *strides, *(0 for _ in flat), *front,
    )  # fmt: skip


def _fits(types: Sequence[Any], attrs: Mapping[str, Any]) -> bool:
    x = types[0]
    return len(x.shape) in (3, 4) and all(np.dtype(t.dtype) == np.float32 for t in types) and min(x.shape[1:]) > 0


def _result(shape: Sequence[int]) -> jax.ShapeDtypeStruct:
    return jax.ShapeDtypeStruct(tuple(shape), np.float32)


@lowering("max_pool", "native", fits=_fits, needs="native")
def max_pool(x: Any, *, window: tuple, strides: tuple, padding: str) -> Any:
    spec = _spec(x.shape, window, strides, padding)
    shape = (x.shape[0], *spec[4:6][2 - len(window) :], x.shape[-1])
    return jax.ffi.ffi_call("kerasoft.max_pool", _result(shape))(jnp.asarray(x), spec=np.asarray(spec, np.int64))


@lowering("max_pool_grad", "native", fits=_fits, needs="native")
def max_pool_grad(x: Any, dy: Any, *, window: tuple, strides: tuple, padding: str) -> Any:
    spec = np.asarray(_spec(x.shape, window, strides, padding), np.int64)
    return jax.ffi.ffi_call("kerasoft.max_pool_grad", _result(x.shape))(jnp.asarray(x), jnp.asarray(dy), spec=spec)

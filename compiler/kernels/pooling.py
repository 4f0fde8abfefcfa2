"""Maximum and mean over windows in one pass forward and one back: float32, one or two spatial axes, channels last.

By oneDNN (cpp/onednn/pooling.cpp), by rule where windows are one cell apart, which it computes two to five times as fast
as the kernels of our own (cpp/pooling.cpp); by these elsewhere (docs/design/0013-convolutional-nets.md).
"""

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


def _fits_onednn(types: Sequence[Any], attrs: Mapping[str, Any]) -> bool:
    """Not for windows that hold no cell of x, nor for rows that end before the last window does."""
    shape = attrs.get("input_shape", types[0].shape)
    spec = _spec(shape, attrs["window"], attrs["strides"], attrs["padding"])
    return _fits(types, attrs) and all(n > 0 for n in spec[1:6]) and all(p < k for p, k in zip(spec[10:], spec[6:8]))


def _is_dense(types: Sequence[Any], attrs: Mapping[str, Any], threads: int) -> bool:
    return all(s == 1 for s in attrs["strides"]) and any(k > 1 for k in attrs["window"])


_ONEDNN: dict[str, Any] = {"fits": _fits_onednn, "needs": "onednn", "prefer": _is_dense}


def _forward(name: str, x: Any, window: tuple, strides: tuple, padding: str, **more: Any) -> Any:
    spec = _spec(x.shape, window, strides, padding)
    result = jax.ShapeDtypeStruct((x.shape[0], *spec[4:6][2 - len(window) :], x.shape[-1]), np.float32)
    return jax.ffi.ffi_call(f"kerasoft.{name}", result)(jnp.asarray(x), spec=np.asarray(spec, np.int64), **more)


def _backward(name: str, shape: Sequence[int], arrays: Sequence[Any], attrs: Mapping[str, Any], **more: Any) -> Any:
    spec = np.asarray(_spec(shape, attrs["window"], attrs["strides"], attrs["padding"]), np.int64)
    call = jax.ffi.ffi_call(f"kerasoft.{name}", jax.ShapeDtypeStruct(tuple(shape), np.float32))
    return call(*map(jnp.asarray, arrays), spec=spec, **more)


@lowering("max_pool", "onednn", **_ONEDNN)
def max_pool_onednn(x: Any, **attrs: Any) -> Any:
    return _forward("onednn_pool", x, **attrs, largest=True)


@lowering("max_pool_grad", "onednn", **_ONEDNN)
def max_pool_grad_onednn(x: Any, dy: Any, **attrs: Any) -> Any:
    return _backward("onednn_pool_grad", x.shape, (x, dy), attrs, largest=True)


@lowering("average_pool", "onednn", **_ONEDNN)
def average_pool_onednn(x: Any, **attrs: Any) -> Any:
    return _forward("onednn_pool", x, **attrs, largest=False)


@lowering("average_pool_grad", "onednn", **_ONEDNN)
def average_pool_grad_onednn(dy: Any, *, input_shape: tuple, **attrs: Any) -> Any:
    nothing = jnp.zeros((0,), np.float32)
    return _backward("onednn_pool_grad", input_shape, (nothing, dy), attrs, largest=False)


@lowering("max_pool", "native", fits=_fits, needs="native")
def max_pool(x: Any, **attrs: Any) -> Any:
    return _forward("max_pool", x, **attrs)


@lowering("max_pool_grad", "native", fits=_fits, needs="native")
def max_pool_grad(x: Any, dy: Any, **attrs: Any) -> Any:
    return _backward("max_pool_grad", x.shape, (x, dy), attrs)


@lowering("average_pool", "native", fits=_fits, needs="native")
def average_pool(x: Any, **attrs: Any) -> Any:
    return _forward("average_pool", x, **attrs)


def _fits_gradient(types: Sequence[Any], attrs: Mapping[str, Any]) -> bool:
    return _fits(types, attrs) and min(attrs["input_shape"][1:]) > 0


@lowering("average_pool_grad", "native", fits=_fits_gradient, needs="native")
def average_pool_grad(dy: Any, *, input_shape: tuple, **attrs: Any) -> Any:
    return _backward("average_pool_grad", input_shape, (dy,), attrs)

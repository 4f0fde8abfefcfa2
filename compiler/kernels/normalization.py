"""Batch normalisation in one kernel forward and one back: float32, channels last.

By kernels of our own (cpp/batch_norm.cpp) or, never by rule and without weights of rows, by oneDNN (cpp/onednn/batch_norm.cpp).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from .lowerings import lowering


def _fits(types: Sequence[Any], attrs: Mapping[str, Any]) -> bool:
    return all(np.dtype(t.dtype) == np.float32 for t in types) and len(types[0].shape) >= 2 and types[0].shape[-1] > 0


def _call(
    name: str, results: Sequence[tuple], arrays: Sequence[Any], epsilon: float, relu: bool, has_valid: bool
) -> tuple:
    made = [jax.ShapeDtypeStruct(shape, np.float32) for shape in results]
    call = jax.ffi.ffi_call(f"kerasoft.{name}", made)
    return tuple(call(*map(jnp.asarray, arrays), epsilon=np.float32(epsilon), relu=relu, has_valid=has_valid))


@lowering("batch_norm", "native", fits=_fits, needs="native")
def batch_norm(x: Any, gamma: Any, beta: Any, *rest: Any, **attrs: Any) -> tuple:
    channels = x.shape[-1:]
    return _call("batch_norm", (x.shape, channels, channels), (x, gamma, beta, *rest), **attrs)


@lowering("batch_norm_grad", "native", fits=_fits, needs="native")
def batch_norm_grad(x: Any, *rest: Any, **attrs: Any) -> tuple:
    channels = x.shape[-1:]
    return _call("batch_norm_grad", (x.shape, channels, channels), (x, *rest), **attrs)


def _fits_onednn(types: Sequence[Any], attrs: Mapping[str, Any]) -> bool:
    return _fits(types, attrs) and not attrs["has_valid"] and min(types[0].shape) > 0


_ONEDNN: dict[str, Any] = {"fits": _fits_onednn, "needs": "onednn", "prefer": lambda types, attrs, threads: False}


def _onednn(name: str, x: Any, *rest: Any, epsilon: float) -> Sequence[Any]:
    made = [jax.ShapeDtypeStruct(shape, np.float32) for shape in (x.shape, x.shape[-1:], x.shape[-1:])]
    call = jax.ffi.ffi_call(f"kerasoft.onednn_{name}", made)
    return call(*map(jnp.asarray, (x, *rest)), epsilon=np.float32(epsilon))


@lowering("batch_norm", "onednn", **_ONEDNN)
def batch_norm_onednn(x: Any, gamma: Any, beta: Any, *, epsilon: float, relu: bool, has_valid: bool) -> tuple:
    y, mean, variance = _onednn("batch_norm", x, gamma, beta, epsilon=epsilon)
    return jax.nn.relu(y) if relu else y, mean, variance


@lowering("batch_norm_grad", "onednn", **_ONEDNN)
def batch_norm_grad_onednn(
    x: Any, dy: Any, gamma: Any, beta: Any, mean: Any, variance: Any, *, epsilon: float, relu: bool, has_valid: bool
) -> tuple:
    if relu:
        slope = jax.lax.rsqrt(variance + np.float32(epsilon))
        dy = jnp.where((x - mean) * slope * gamma + beta > 0, dy, 0)
    return tuple(_onednn("batch_norm_grad", x, dy, gamma, mean, variance, epsilon=epsilon))

"""Batch normalisation in one kernel forward and one back: float32, channels last."""

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

"""Layer normalisation in one kernel forward and one back: float32. See compiler/kernels/cpp/layer_norm.cpp."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from .lowerings import lowering


def _fits(types: Sequence[Any], attrs: Mapping[str, Any]) -> bool:
    return all(np.dtype(t.dtype) == np.float32 and min(t.shape) > 0 for t in types)


def _call(name: str, results: Sequence[Sequence[int]], arrays: Sequence[Any], **attributes: Any) -> tuple:
    made = [jax.ShapeDtypeStruct(tuple(s), np.float32) for s in results]
    return tuple(jax.ffi.ffi_call(f"kerasoft.{name}", made)(*map(jnp.asarray, arrays), **attributes))


@lowering("layer_norm", "native", fits=_fits, needs="native")
def layer_norm(x: Any, gamma: Any, beta: Any, *, epsilon: float) -> tuple:
    return _call("layer_norm", (x.shape, (*x.shape[:-1], 2)), (x, gamma, beta), epsilon=np.float32(epsilon))


@lowering("layer_norm_grad", "native", fits=_fits, needs="native")
def layer_norm_grad(x: Any, gamma: Any, saved: Any, dy: Any) -> tuple:
    return _call("layer_norm_grad", (x.shape, gamma.shape, gamma.shape), (x, gamma, saved, dy))

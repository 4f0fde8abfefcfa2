"""Attention and its gradient by a kernel of our own: float32 inside, heads of at most 256 features.

See compiler/kernels/cpp/attention.cpp.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from ..ops.attention import HIDDEN
from .lowerings import lowering


def _fits(types: Sequence[Any], attrs: Mapping[str, Any]) -> bool:
    query, key, value = types[:3]
    floats = [t.dtype for t in types[:3]]
    return (
        all(d in (np.float32, jnp.bfloat16, np.float16) for d in floats)
        and min(*query.shape, *key.shape, *value.shape) > 0
        and max(query.shape[-1], value.shape[-1]) <= 256
        and not attrs.get("of_bias", False)
    )


def _call(name: str, results: Sequence[Sequence[int]], arrays: Sequence[Any], attrs: Mapping[str, Any]) -> Any:
    flags = attrs["has_mask"] | attrs["has_bias"] << 1 | attrs["is_causal"] << 2
    shapes = [jax.ShapeDtypeStruct(tuple(s), np.float32) for s in results]
    given = [a if a.dtype == np.bool_ else a.astype(np.float32) for a in map(jnp.asarray, arrays)]
    call = jax.ffi.ffi_call(f"kerasoft.{name}", shapes)
    return call(*given, scale=np.float32(attrs["scale"]), hidden=np.float32(HIDDEN), flags=np.int64(flags))


@lowering("attention", "native", fits=_fits, needs="native")
def attention(query: Any, key: Any, value: Any, *rest: Any, **attrs: Any) -> tuple:
    b, t, h, _ = query.shape
    out, saved = _call("attention", [(b, t, h, value.shape[-1]), (b, h, t, 2)], (query, key, value, *rest), attrs)
    return out.astype(query.dtype), saved


@lowering("attention_grad", "native", fits=_fits, needs="native")
def attention_grad(query: Any, key: Any, value: Any, *rest: Any, of_bias: bool, **attrs: Any) -> tuple:
    inputs = (query, key, value)
    made = _call("attention_gradient", [x.shape for x in inputs], (*inputs, *rest), attrs)
    return tuple(d.astype(x.dtype) for d, x in zip(made, inputs))

"""Sizes and calls that the kernels of convolutions share (oneDNN's, Winograd's, int8)."""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np


def spec_of(x: Sequence[int], kernel: Sequence[int], attrs: Mapping[str, Any]) -> tuple[int, ...] | None:
    """The sizes that oneDNN needs (`Shape` in convolution.h), or None for what it cannot compute.

    Args:
        x, kernel: shapes (batch, *spatial, channels) and (*window, channels / groups, filters).
        attrs: strides, padding, dilation and groups of op conv.
    """
    strides, dilation, padding = tuple(attrs["strides"]), tuple(attrs["dilation"]), attrs["padding"]
    if not isinstance(padding, str):
        padding = tuple(map(tuple, padding))
    return _spec_of(tuple(x), tuple(kernel), strides, dilation, attrs["groups"], padding)


@functools.lru_cache(maxsize=4096)
def _spec_of(x: tuple, kernel: tuple, strides: tuple, dilation: tuple, groups: int, padding: Any) -> tuple | None:
    rank = len(strides)
    if not 1 <= rank <= 3 or min(*x[1:], *kernel) < 1:
        return None
    sizes, window = tuple(x[1:-1]), tuple(kernel[:-2])
    reach = tuple(d * (k - 1) + 1 for d, k in zip(dilation, window))
    if isinstance(padding, str):
        padding = jax.lax.padtype_to_pads(sizes, reach, strides, padding.upper())
    before, after = zip(*padding)
    output = tuple((n + lo + hi - r) // s + 1 for n, lo, hi, r, s in zip(sizes, before, after, reach, strides))
    if min(*before, *after) < 0 or min(output) < 1:
        return None
    # oneDNN wants the padding that the last window really reaches.
    after = tuple((o - 1) * s + r - n - lo for o, s, r, n, lo in zip(output, strides, reach, sizes, before))
    return (rank, groups, x[0], x[-1], kernel[-1], *sizes, *output, *window, *strides, *dilation, *before, *after)


def post_of(has_bias: bool, has_sum: bool, relu: bool) -> int:
    """What is done to the results of a convolution, as `Post` in the C++ sources."""
    return 1 * has_bias | 2 * relu | 4 * has_sum


def attributes(spec: Any, **more: int) -> dict[str, Any]:
    """Attributes of a call, as its handler reads them."""
    return {"spec": np.asarray(spec, np.int64), **{name: np.int64(value) for name, value in more.items()}}


def call(name: str, results: Any, *arrays: Any, aliases: dict[int, int] | None = None, **attrs: Any) -> Any:
    """The results of the handler `name`, described by `results`."""
    arrays = tuple(map(jnp.asarray, arrays))
    return jax.ffi.ffi_call(f"kerasoft.{name}", results, input_output_aliases=aliases)(*arrays, **attrs)


def floats(*dims: int) -> jax.ShapeDtypeStruct:
    """A float32 result of this shape."""
    return jax.ShapeDtypeStruct(dims, np.float32)

"""Convolutions and products of 8-bit integers by oneDNN, on processors with VNNI.

They take a fifth of XLA's time or less (docs/design/0012-int8-inference.md), so nothing is timed; arrays made up for
timing would also break the promise that a kernel of one digest is always the same. Without VNNI, oneDNN adds pairs of products in 16 bits, which saturate; there XLA computes, exactly.
See compiler/kernels/cpp/onednn/quantised.cpp.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from .convolution_calls import spec_of
from .lowerings import lowering
from .processor import flags

RELU, ADDEND, BOUNDED = 1, 2, 4
_ARGUMENTS = ("strides", "padding", "dilation", "groups")


@functools.cache
def has_vnni() -> bool:
    """Whether this processor multiplies 8-bit integers without intermediate saturation."""
    return not {"avx512_vnni", "avx_vnni"}.isdisjoint(flags())


def _fits_conv(types: Sequence[Any], attrs: Mapping[str, Any]) -> bool:
    if not has_vnni() or not _addend_fits(types, attrs):
        return False
    return spec_of(types[0].shape, types[1].shape, {name: attrs[name] for name in _ARGUMENTS}) is not None


def _fits_dense(types: Sequence[Any], attrs: Mapping[str, Any]) -> bool:
    return has_vnni() and _addend_fits(types, attrs) and min(types[0].shape[-1], types[1].shape[-1]) > 0


def _addend_fits(types: Sequence[Any], attrs: Mapping[str, Any]) -> bool:
    """An addend lies where the result will: elements of the same size."""
    return len(types) == 4 or (np.dtype(types[4].dtype).itemsize == np.dtype(attrs["dtype"]).itemsize)


def _run(spec: Sequence[int], shape: tuple, arrays: Sequence[Any], attrs: Mapping[str, Any]) -> Any:
    digest = attrs.get("digest")
    numbers: Any = [] if digest is None else np.frombuffer(bytes.fromhex(digest), np.int64)
    upper = attrs["upper"]
    post = RELU * attrs["relu"] | ADDEND * (len(arrays) > 4) | BOUNDED * (upper is not None)
    result = jax.ShapeDtypeStruct(shape, attrs["dtype"])
    addend = arrays[4] if len(arrays) > 4 else None
    aliases = {4: 0} if addend is not None and addend.dtype == result.dtype else None
    return jax.ffi.ffi_call("kerasoft.quantised", result, input_output_aliases=aliases)(
        *map(jnp.asarray, arrays),
        spec=np.asarray(spec, np.int64),
        post=np.int64(post),
        add_scale=np.float32(attrs["add_scale"]),
        upper=np.float32(0 if upper is None else upper),
        digest=np.asarray(numbers, np.int64),
    )


@lowering("quantised_conv", "onednn", fits=_fits_conv, needs="onednn", timed=False)
def conv(*arrays: Any, **attrs: Any) -> Any:
    x, kernel = arrays[:2]
    spec = spec_of(x.shape, kernel.shape, {name: attrs[name] for name in _ARGUMENTS})
    assert spec is not None
    rank = spec[0]
    return _run(spec, (spec[2], *spec[5 + rank : 5 + 2 * rank], spec[4]), arrays, attrs)


@lowering("quantised_dense", "onednn", fits=_fits_dense, needs="onednn", timed=False)
def dense(*arrays: Any, **attrs: Any) -> Any:
    x, kernel = arrays[:2]
    rows = math.prod(x.shape[:-1])
    return _run((0, 1, rows, *kernel.shape), (*x.shape[:-1], kernel.shape[1]), arrays, attrs)

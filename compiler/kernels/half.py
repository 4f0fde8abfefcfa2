"""bfloat16: products by oneDNN, convolutions in float32 of the same rounded numbers by oneDNN.

Results are bfloat16 as XLA's; sums are in float32 and rounded once. XLA multiplies bfloat16 on CPUs by making float32 of it;
oneDNN uses the processor's own instructions (AVX-512 BF16, AMX) where there are any. Shipped rule: those, where the
processor has them and products are large enough; convolutions of several channels by oneDNN (docs/design/0011-choosing-by-measuring.md).
"""

from __future__ import annotations

import functools
import math
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from . import convolution
from .convolution_calls import attributes, call, spec_of
from .lowerings import lowering

LEAST = 1 << 24  # multiply-adds; below, a call costs more than is gained
LEFT, RIGHT = 1, 2  # which operand is stored transposed


@functools.cache
def has_instructions() -> bool:
    """Whether this processor multiplies bfloat16 by itself."""
    try:
        text = pathlib.Path("/proc/cpuinfo").read_text()
    except OSError:
        return False
    return not {"avx512_bf16", "amx_bf16"}.isdisjoint(text.partition("flags")[2].partition("\n")[0].split())


def _are_half(types: Sequence[Any]) -> bool:
    return all(np.dtype(t.dtype) == jnp.bfloat16 and min(t.shape, default=1) > 0 for t in types)


def _fits(types: Sequence[Any], attrs: Mapping[str, Any]) -> bool:
    return _are_half(types) and has_instructions() and all(len(t.shape) >= 2 for t in types[:2])


def _is_large(types: Sequence[Any], attrs: Mapping[str, Any], threads: int) -> bool:
    return math.prod(types[0].shape) * types[1].shape[-1] >= LEAST


def _product(left: Any, right: Any, m: int, n: int, k: int, turned: int = 0) -> jax.Array:
    call = jax.ffi.ffi_call("kerasoft.half_product", jax.ShapeDtypeStruct((m, n), jnp.bfloat16))
    sizes = {name: np.int64(value) for name, value in (("m", m), ("n", n), ("k", k), ("turned", turned))}
    return call(jnp.asarray(left), jnp.asarray(right), **sizes)


@lowering("dense", "onednn-bfloat16", fits=_fits, needs="onednn", prefer=_is_large)
def dense(x: Any, kernel: Any, *bias: Any, has_bias: bool, relu: bool) -> jax.Array:
    x, (k, n) = jnp.asarray(x), kernel.shape
    y = _product(x, kernel, math.prod(x.shape[:-1]), n, k).reshape((*x.shape[:-1], n))
    y = y + bias[0] if has_bias else y
    return jax.nn.relu(y) if relu else y


@lowering("dense_grad_input", "onednn-bfloat16", fits=_fits, needs="onednn", prefer=_is_large)
def dense_grad_input(dy: Any, kernel: Any, *gate: Any, gated: bool) -> jax.Array:
    dy, (k, n) = jnp.asarray(dy), kernel.shape
    dx = _product(dy, kernel, math.prod(dy.shape[:-1]), k, n, RIGHT).reshape((*dy.shape[:-1], k))
    return jnp.where(jnp.asarray(gate[0]) > 0, dx, jnp.zeros_like(dx)) if gated else dx


@lowering("dense_grad_kernel", "onednn-bfloat16", fits=_fits, needs="onednn", prefer=_is_large)
def dense_grad_kernel(x: Any, dy: Any) -> tuple:
    x, dy = jnp.asarray(x), jnp.asarray(dy)
    m, n = x.shape[-1], dy.shape[-1]
    made = _product(x, dy, m, n, math.prod(x.shape[:-1]), LEFT)
    return made, jnp.sum(dy.reshape((-1, n)), axis=0)


# --- convolutions ---------------------------------------------------------------------------------------------------


def _fits_conv(pass_: int, types: Sequence[Any], spec: tuple[int, ...] | None) -> bool:
    """Whether oneDNN has a kernel for bfloat16 of these sizes that uses the processor's own instructions."""
    if spec is None or spec[2] < 1 or not _are_half(types) or not has_instructions():
        return False
    name = convolution.implementation(pass_, spec, True)
    return "bf16" in name or "amx" in name


def _half(*dims: int) -> jax.ShapeDtypeStruct:
    return jax.ShapeDtypeStruct(dims, jnp.bfloat16)


_OWN: dict[str, Any] = {"needs": "onednn"}


@lowering(
    "conv",
    "onednn-bfloat16",
    fits=lambda t, a: _fits_conv(convolution.FORWARD, t, spec_of(t[0].shape, t[1].shape, a)),
    **_OWN,
)
def conv(x: Any, kernel: Any, **attrs: Any) -> Any:
    spec = spec_of(x.shape, kernel.shape, attrs)
    assert spec is not None
    rank = spec[0]
    return call("conv", _half(spec[2], *spec[5 + rank : 5 + 2 * rank], spec[4]), x, kernel, **attributes(spec, post=0))


@lowering(
    "conv_grad_input",
    "onednn-bfloat16",
    fits=lambda t, a: _fits_conv(convolution.GRAD_INPUT, t, spec_of(a["input_shape"], t[1].shape, a)),
    **_OWN,
)
def conv_grad_input(dy: Any, kernel: Any, *, input_shape: Any, **attrs: Any) -> Any:
    spec = spec_of(input_shape, kernel.shape, attrs)
    return call("conv_grad_input", _half(*input_shape), dy, kernel, **attributes(spec))


@lowering(
    "conv_grad_kernel",
    "onednn-bfloat16",
    fits=lambda t, a: _fits_conv(convolution.GRAD_KERNEL, t, spec_of(t[0].shape, a["kernel_shape"], a)),
    **_OWN,
)
def conv_grad_kernel(x: Any, dy: Any, *, kernel_shape: Any, **attrs: Any) -> Any:
    spec = spec_of(x.shape, kernel_shape, attrs)
    return call("conv_grad_kernel", _half(*kernel_shape), x, dy, **attributes(spec))


def _wide(types: Sequence[Any]) -> list[jax.ShapeDtypeStruct]:
    return [jax.ShapeDtypeStruct(t.shape, np.float32) for t in types]


def _narrow(run: Any) -> Any:
    """`run` on float32 copies of its inputs, results rounded to bfloat16."""

    def rounded(*inputs: Any, **attrs: Any) -> Any:
        made = run(*(jnp.asarray(i, jnp.float32) for i in inputs), **attrs)
        return jax.tree.map(lambda y: y.astype(jnp.bfloat16), made)

    return rounded


for _op, _run, _fitting in (
    ("conv", convolution.conv, convolution.fits_forward),
    ("conv_grad_input", convolution.conv_grad_input, convolution.fits_grad_input),
    ("conv_grad_kernel", convolution.conv_grad_kernel, convolution.fits_grad_kernel),
):
    lowering(
        _op,
        "onednn-float32",
        fits=lambda types, attrs, fits=_fitting: _are_half(types) and fits(_wide(types), attrs),
        needs="onednn",
        prefer=lambda types, attrs, threads: types[0].shape[-1] > 1 and attrs.get("input_shape", (2,))[-1] > 1,
    )(_narrow(_run))

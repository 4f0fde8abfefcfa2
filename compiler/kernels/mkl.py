"""MKL's vector functions and Fourier transforms: float32. Its products are in products.py.

A vector function is a candidate only when it is asked for by name (``KERASOFT_KERNELS=exp=mkl``): XLA computes a chain of
such ops in one pass, which timing one of them alone does not see. `python -m kerasoft.benchmark kernels` times it.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from .lowerings import lowering
from .processor import vendor

OFFER: dict[str, Any] = {
    "needs": "mkl",
    "prefer": lambda types, attrs, threads: False,
    "tried": lambda: vendor() == "GenuineIntel",
}
FUNCTIONS = ("exp", "expm1", "log", "log1p", "tanh", "erf", "sin", "cos")  # in the order of kVector in cpp/mkl/mkl.h


def _are_floats(types: Sequence[Any], attrs: Mapping[str, Any]) -> bool:
    return all(np.dtype(t.dtype) == np.float32 and 0 < math.prod(t.shape) < 2**31 for t in types)


def _register(op: str, place: int) -> None:
    @lowering(op, "mkl", fits=_are_floats, **(OFFER | {"tried": lambda: False}))
    def apply(x: Any) -> Any:
        x = jnp.asarray(x)
        return jax.ffi.ffi_call("kerasoft.mkl_vector", jax.ShapeDtypeStruct(x.shape, x.dtype))(
            x, function=np.int64(place)
        )


for _place, _op in enumerate(FUNCTIONS):
    _register(_op, _place)


# --- Fourier transforms: the ops of kerasoft/ops/fourier.py -------------------------------------------------------------

COMPLEX, INVERSE, REAL_TO_HALF, HALF_TO_REAL = range(4)


def _fits(axes: int) -> Any:
    return lambda types, attrs: _are_floats(types, attrs) and len(types[0].shape) >= axes


def _transform(kind: int, x: Any, sizes: Sequence[int], last: int, dtype: Any) -> jax.Array:
    """Transforms of `sizes` over the last axes of `x`, the last of which has `last` places afterwards."""
    call = jax.ffi.ffi_call("kerasoft.mkl_fourier", jax.ShapeDtypeStruct((*x.shape[:-1], last), dtype))
    return call(x, kind=np.int64(kind), sizes=np.asarray(sizes, np.int64))


def _resized(x: Any, n: int) -> jax.Array:
    """The last axis cut, or filled with zeros, to `n` places."""
    x = jnp.asarray(x)[..., :n]
    return jnp.pad(x, [(0, 0)] * (x.ndim - 1) + [(0, n - x.shape[-1])])


def _split(x: jax.Array) -> tuple[jax.Array, jax.Array]:
    return jnp.real(x), jnp.imag(x)


def _register_complex(op: str, kind: int, axes: int) -> None:
    @lowering(op, "mkl", fits=_fits(axes), **OFFER)
    def transform(real: Any, imaginary: Any) -> Any:
        x = jax.lax.complex(jnp.asarray(real), jnp.asarray(imaginary))
        return _split(_transform(kind, x, x.shape[-axes:], x.shape[-1], np.complex64))


for _op, _kind, _axes in (("fourier_fft", COMPLEX, 1), ("fourier_fft2", COMPLEX, 2), ("fourier_ifft2", INVERSE, 2)):
    _register_complex(_op, _kind, _axes)


@lowering("fourier_rfft", "mkl", fits=_fits(1), **OFFER)
def rfft(x: Any, *, length: int | None) -> Any:
    n = x.shape[-1] if length is None else length
    return _split(_transform(REAL_TO_HALF, _resized(x, n), (n,), n // 2 + 1, np.complex64))


def _fits_irfft(types: Sequence[Any], attrs: Mapping[str, Any]) -> bool:
    return _fits(1)(types, attrs) and (attrs["length"] or 2 * (types[0].shape[-1] - 1)) > 0


@lowering("fourier_irfft", "mkl", fits=_fits_irfft, **OFFER)
def irfft(real: Any, imaginary: Any, *, length: int | None) -> Any:
    n = 2 * (real.shape[-1] - 1) if length is None else length
    half = _resized(jax.lax.complex(jnp.asarray(real), jnp.asarray(imaginary)), n // 2 + 1)
    return _transform(HALF_TO_REAL, half, (n,), n, np.float32)

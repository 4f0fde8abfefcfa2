"""Further ops element by element: special functions, number theory, floats as they are stored."""

from __future__ import annotations

from typing import Any

import numpy as np

from .. import dtypes
from . import elementwise as e
from .dispatch import dtype_of, kernel, public, tensor

__all__ = [
    "allclose", "erfc", "erfinv", "fabs", "fmax", "fmin", "fmod", "gcd", "heaviside", "i0", "isneginf", "isposinf",
    "lcm", "ldexp", "logaddexp2", "nextafter", "saturate_cast", "signbit", "sinc", "view",
]  # fmt: skip

fabs = e._unary("fabs", "Fabs", "|x|, a float.")
signbit = e._unary("signbit", "Signbit", "Whether the sign bit is set: below 0, or -0.0.", floats=False)
isneginf = e._unary("isneginf", "Isneginf", "Whether -infinity.", floats=False)
isposinf = e._unary("isposinf", "Isposinf", "Whether +infinity.", floats=False)
sinc = e._unary("sinc", "Sinc", "sin(pi x) / (pi x), and 1 at 0.")

fmax = e._binary("fmax", "Fmax", "The greater one; the other one where one is NaN.")
fmin = e._binary("fmin", "Fmin", "The smaller one; the other one where one is NaN.")
fmod = e._binary("fmod", "Fmod", "Remainder with the sign of the dividend.")
gcd = e._binary("gcd", "Gcd", "The greatest common divisor of integers.")
lcm = e._binary("lcm", "Lcm", "The least common multiple of integers.")
logaddexp2 = e._binary("logaddexp2", "Logaddexp2", "log2(2**x1 + 2**x2).", strong=True)
heaviside = e._binary("heaviside", "Heaviside", "0 where x1 is below 0, x2 where it is 0, 1 above.")
nextafter = e._binary("nextafter", "Nextafter", "The next float after x1 towards x2.")


@public("numpy", "Ldexp", "x1 x2")
def ldexp(x1: Any, x2: Any) -> Any:
    """x1 * 2**x2 with integers x2.

    >>> float(ldexp(3.0, 2))
    12.0
    """
    x1, x2 = tensor(x1), tensor(x2)
    if "int" not in dtype_of(x2):
        raise TypeError(f"ldexp exponent must be an integer type. Received: x2 dtype={dtype_of(x2)}")
    return kernel("ldexp")(x1, x2 if hasattr(x2, "dtype") else np.array(x2, "int32"))


@public("numpy", "AllClose", "x1 x2")
def allclose(x1: Any, x2: Any, rtol: float = 1e-05, atol: float = 1e-08, equal_nan: bool = False) -> Any:
    """Whether |x1 - x2| <= atol + rtol * |x2| everywhere."""
    return kernel("allclose")(tensor(x1), tensor(x2), rtol=rtol, atol=atol, equal_nan=bool(equal_nan))


@public("math", "Erfc")
def erfc(x: Any) -> Any:
    """1 - erf(x), exact for great x."""
    return kernel("erfc", _erfc)(e._as_float(tensor(x)))


def _erfc(x: Any) -> Any:
    import jax.scipy.special

    return jax.scipy.special.erfc(x)


@public("math", "Erfinv")
def erfinv(x: Any) -> Any:
    """The value whose erf is x, of -1 < x < 1."""
    return kernel("erfinv", _erfinv)(e._as_float(tensor(x)))


def _erfinv(x: Any) -> Any:
    import jax.scipy.special

    return jax.scipy.special.erfinv(x)


@public("numpy", "I0")
def i0(x: Any) -> Any:
    """The modified Bessel function of the first kind, order 0."""
    return kernel("i0")(e._as_float(tensor(x)))


@public("core", "SaturateCast")
def saturate_cast(x: Any, dtype: Any) -> Any:
    """x in another dtype; values beyond its range become its bounds.

    >>> saturate_cast([-3.0, 300.0], "uint8").tolist()
    [0, 255]
    """
    x, dtype = tensor(x), dtypes.narrowed(dtype)
    have = dtype_of(x)
    low, high = (_nearest(have, bound, dtype) for bound in (0, 1))
    return e.cast(e.clip(x, low, high), dtype)


def _nearest(have: str, bound: int, wanted: str) -> Any:
    """The lower (0) or upper (1) bound of dtype `wanted`, as the nearest value within it that `have` can hold."""
    mine, theirs = _range(have)[bound], _range(wanted)[bound]
    limit = (max, min)[bound](mine, theirs)
    value = np.asarray(limit).astype(_numpy(have))
    if (float(value) < theirs) if bound == 0 else (float(value) > theirs):
        value = np.nextafter(value, np.zeros((), value.dtype))
    return value


def _range(dtype: str) -> tuple:
    import ml_dtypes

    if dtype == "bool":
        return 0, 1
    if "int" in dtype:
        return int(ml_dtypes.iinfo(dtype).min), int(ml_dtypes.iinfo(dtype).max)
    limits = ml_dtypes.finfo(_numpy(dtype))
    return float(limits.min), float(limits.max)


def _numpy(dtype: str) -> Any:
    import jax.numpy as jnp

    return jnp.dtype(dtype)


@public("numpy", "View")
def view(x: Any, dtype: Any = None) -> Any:
    """The same bits as another dtype; the last axis shrinks or grows with the size of an element."""
    x = tensor(x)
    return kernel("view", _view)(x, dtype=dtype_of(x) if dtype is None else dtypes.narrowed(dtype))


def _view(x: Any, *, dtype: str) -> Any:
    import jax.numpy as jnp

    return jnp.asarray(x).view(dtype)

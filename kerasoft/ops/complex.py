"""Ops on complex numbers and their parts."""

from __future__ import annotations

from typing import Any

from . import elementwise as e
from .dispatch import dtype_of, kernel, public, shape_of, tensor

__all__ = ["angle", "conj", "conjugate", "imag", "isreal", "real", "view_as_complex", "view_as_real"]


@public("numpy", "Angle")
def angle(x: Any) -> Any:
    """The angle of complex numbers in radians; of real ones 0, or pi below 0."""
    return kernel("angle")(e._as_float(tensor(x)))


@public("numpy", "Conjugate")
def conjugate(x: Any) -> Any:
    """x with the sign of its imaginary part changed."""
    return kernel("conjugate")(tensor(x))


def conj(x: Any) -> Any:
    """x with the sign of its imaginary part changed."""
    return conjugate(x)


@public("numpy", "Real")
def real(x: Any) -> Any:
    """The real part."""
    return kernel("real")(tensor(x))


@public("numpy", "Imag")
def imag(x: Any) -> Any:
    """The imaginary part; 0 for real numbers."""
    return kernel("imag")(tensor(x))


@public("numpy", "Isreal")
def isreal(x: Any) -> Any:
    """Whether the imaginary part is 0."""
    return kernel("isreal")(tensor(x))


@public("math", "ViewAsComplex")
def view_as_complex(x: Any) -> Any:
    """(..., 2) real and imaginary parts -> complex (...).

    >>> view_as_complex([[1.0, 2.0]]).tolist()
    [(1+2j)]
    """
    x = tensor(x)
    if not shape_of(x) or shape_of(x)[-1] != 2:
        raise ValueError(f"Last dimension of input must be size 2 (real and imaginary). Received shape: {shape_of(x)}")
    return kernel("view_as_complex", lambda v: v[..., 0] + 1j * v[..., 1])(x)


@public("math", "ViewAsReal")
def view_as_real(x: Any) -> Any:
    """Complex (...) -> (..., 2) real and imaginary parts."""
    x = tensor(x)
    return kernel("view_as_real", _parts)(x if dtype_of(x).startswith("complex") else e.cast(x, "complex64"))


def _parts(x: Any) -> Any:
    import jax.numpy as jnp

    return jnp.stack([jnp.real(x), jnp.imag(x)], -1)

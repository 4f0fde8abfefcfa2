"""`keras.ops.linalg`: decompositions of matrices, linear systems, norms. Leading axes are batches of matrices."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from .. import tree
from ..tensors import KerasTensor, any_symbolic, known_shape
from .dispatch import is_static, lowered, public, rank, shape_of, tensor

__all__ = [
    "cholesky", "cholesky_inverse", "det", "eig", "eigh", "inv", "jvp", "lstsq", "lu_factor", "matrix_rank", "norm",
    "pinv", "qr", "solve", "solve_triangular", "svd",
]  # fmt: skip


def _matrix(x: Any, square: bool = False) -> Any:
    """x as an array or node of at least two axes.

    Raises:
        ValueError: fewer axes, or `square` and the last two differ.
    """
    x = tensor(x)
    shape = shape_of(x)
    if len(shape) < 2:
        raise ValueError(f"Expected input to have rank >= 2. Received input with shape {shape}.")
    if square and shape[-1] != shape[-2]:
        raise ValueError(f"Expected a square matrix. Received non-square input with shape {_known(x)}")
    return x


def _known(x: Any) -> tuple:
    return known_shape(x) if hasattr(x, "shape") else np.shape(x)


def _system(a: Any, b: Any) -> tuple[Any, Any]:
    """The two sides of ``a x = b``.

    Raises:
        ValueError: a is not square, b is a number, or their sizes differ.
    """
    a, b = _matrix(a, square=True), tensor(b)
    if rank(b) < 1:
        raise ValueError(f"Expected input to have rank >= 1. Received scalar input {b}.")
    axis = {0: -2, 1: -1}.get(rank(a) - rank(b))
    if axis is not None:
        left, right = shape_of(a)[axis], shape_of(b)[axis]
        if is_static(left) and is_static(right) and left != right:
            raise ValueError(
                f"Incompatible shapes between `a` and `b`. Expected `a.shape[{axis}] == b.shape[{axis}]`. "
                f"Received: a.shape={_known(a)}, b.shape={_known(b)}"
            )
    return a, b


# --- in JAX -------------------------------------------------------------------------------------------------------


@lowered
def _cholesky(x: Any, *, upper: bool) -> Any:
    return jnp.linalg.cholesky(x, upper=upper)


@lowered
def _cholesky_inverse(x: Any, *, upper: bool) -> Any:
    one = jnp.broadcast_to(jnp.eye(x.shape[-1], dtype=x.dtype), x.shape)
    factor = jax.scipy.linalg.solve_triangular(x, one, lower=not upper)
    turned = jnp.swapaxes(factor, -1, -2)
    return jnp.matmul(factor, turned) if upper else jnp.matmul(turned, factor)


@lowered
def _det(x: Any) -> Any:
    return jnp.linalg.det(x)


@lowered
def _eig(x: Any) -> Any:
    return tuple(jnp.linalg.eig(x))


@lowered
def _eigh(x: Any) -> Any:
    return tuple(jnp.linalg.eigh(x))


@lowered
def _inv(x: Any) -> Any:
    return jnp.linalg.inv(x)


@lowered
def _lstsq(a: Any, b: Any, *, rcond: float | None) -> Any:
    return jnp.linalg.lstsq(a, b, rcond=rcond)[0]


@lowered
def _lu_factor(x: Any) -> Any:
    function = jax.scipy.linalg.lu_factor
    for _ in range(x.ndim - 2):
        function = jax.vmap(function)
    return tuple(function(x))


@lowered
def _matrix_rank(x: Any, *, tol: float | None) -> Any:
    return jnp.linalg.matrix_rank(x, tol=tol).astype("int32")


@lowered
def _norm(x: Any, *, ord: Any, axis: Any, keepdims: bool) -> Any:
    x = x.astype(
        jnp.promote_types(x.dtype, jnp.float32) if jnp.issubdtype(x.dtype, jnp.integer) or x.dtype == bool else x.dtype
    )
    return jnp.linalg.norm(x, ord=ord, axis=axis, keepdims=keepdims)


@lowered
def _pinv(x: Any, *, rcond: float | None) -> Any:
    return jnp.linalg.pinv(x, rcond=rcond)


@lowered
def _qr(x: Any, *, mode: str) -> Any:
    return tuple(jnp.linalg.qr(x, mode=mode))


@lowered
def _slogdet(x: Any) -> Any:
    return tuple(jnp.linalg.slogdet(x))


@lowered
def _solve(a: Any, b: Any) -> Any:
    return jnp.linalg.solve(a, b)


@lowered
def _solve_triangular(a: Any, b: Any, *, lower: bool) -> Any:
    return jax.scipy.linalg.solve_triangular(a, b, lower=lower)


@lowered
def _svd(x: Any, *, full_matrices: bool, compute_uv: bool) -> Any:
    result = jnp.linalg.svd(x, full_matrices=full_matrices, compute_uv=compute_uv)
    return tuple(result) if compute_uv else result


# --- public -------------------------------------------------------------------------------------------------------


@public("linalg", "Cholesky")
def cholesky(x: Any, upper: bool = False) -> Any:
    """The triangular factor of positive definite matrices: x = L L' (or U' U with `upper`).

    Raises:
        ValueError: a matrix of an eager call is not positive definite.
    """
    result = _cholesky(_matrix(x, square=True), upper=bool(upper))
    if not isinstance(result, jax.core.Tracer) and isinstance(result, jax.Array) and bool(jnp.isnan(result).any()):
        raise ValueError(
            "Cholesky decomposition failed: Cholesky decomposition failed. The input might not be a valid positive "
            "definite matrix."
        )
    return result


@public("linalg", "CholeskyInverse")
def cholesky_inverse(x: Any, upper: bool = False) -> Any:
    """The inverse of the matrix whose Cholesky factor is x."""
    return _cholesky_inverse(_matrix(x, square=True), upper=bool(upper))


@public("linalg", "Det")
def det(x: Any) -> Any:
    """Determinants: (..., m, m) -> (...)."""
    return _det(_matrix(x, square=True))


@public("linalg", "Eig")
def eig(x: Any) -> Any:
    """Eigenvalues and eigenvectors, complex: (..., m, m) -> (..., m), (..., m, m)."""
    return _eig(_matrix(x, square=True))


@public("linalg", "Eigh")
def eigh(x: Any) -> Any:
    """Eigenvalues in rising order and eigenvectors of symmetric matrices: (..., m, m) -> (..., m), (..., m, m)."""
    return _eigh(_matrix(x, square=True))


@public("linalg", "Inv")
def inv(x: Any) -> Any:
    """Inverse matrices.

    >>> inv([[2.0, 0.0], [0.0, 4.0]]).tolist()
    [[0.5, 0.0], [0.0, 0.25]]
    """
    return _inv(_matrix(x, square=True))


@public("linalg", "LuFactor")
def lu_factor(x: Any) -> Any:
    """The LU decomposition in one matrix, and its pivots: (..., m, n) -> (..., m, n), (..., min(m, n))."""
    return _lu_factor(_matrix(x))


@public("linalg", "Norm")
def norm(x: Any, ord: Any = None, axis: Any = None, keepdims: bool = False) -> Any:
    """Norms of vectors (one axis) or matrices (two axes); of all elements by default.

    Args:
        ord: for vectors any number or infinity; for matrices ``"fro"``, ``"nuc"``, 1, -1, 2, -2 or infinity; None is
            the root of the sum of squares.

    >>> float(norm([3.0, 4.0]))
    5.0
    """
    x = tensor(x)
    axis = tuple(axis) if isinstance(axis, list) else axis
    axes = range(rank(x)) if axis is None else (axis,) if isinstance(axis, int) else axis
    if isinstance(ord, str) and ord not in ("fro", "nuc"):
        raise ValueError(
            f"Invalid `ord` argument. Expected one of {{'fro', 'nuc'}} when using string. Received: ord={ord}"
        )
    if len(axes) == 1 and isinstance(ord, str):
        raise ValueError(f"Invalid `ord` argument for vector norm. Received: ord={ord}")
    if len(axes) == 2 and ord not in (None, "fro", "nuc", float("inf"), float("-inf"), 1, -1, 2, -2):
        raise ValueError(f"Invalid `ord` argument for matrix norm. Received: ord={ord}")
    return _norm(x, ord=ord, axis=axis, keepdims=bool(keepdims))


@public("linalg", "Qr")
def qr(x: Any, mode: str = "reduced") -> Any:
    """An orthogonal and an upper triangular matrix: (..., m, n) -> (..., m, k), (..., k, n) with k = min(m, n).

    Args:
        mode: ``"reduced"``, or ``"complete"`` for k = m.
    """
    if mode not in ("reduced", "complete"):
        raise ValueError(
            f"`mode` argument value not supported. Expected one of {{'reduced', 'complete'}}. Received: mode={mode}"
        )
    x = tensor(x)
    if rank(x) < 2:
        raise ValueError(f"Input should have rank >= 2. Received: input.shape = {shape_of(x)}")
    if not all(is_static(d) for d in shape_of(x)[-2:]):
        raise ValueError(
            f"Input should have its last 2 dimensions fully-defined. Received: input.shape = {known_shape(x)}"
        )
    return _qr(x, mode=mode)


@public("linalg", "Solve", "a b")
def solve(a: Any, b: Any) -> Any:
    """x of ``a x = b``: (..., m, m), and (..., m) or (..., m, n), -> the shape of b."""
    return _solve(*_system(a, b))


@public("linalg", "SolveTriangular", "a b")
def solve_triangular(a: Any, b: Any, lower: bool = False) -> Any:
    """x of ``a x = b`` for a triangular matrix a; the other triangle is not read."""
    return _solve_triangular(*_system(a, b), lower=bool(lower))


@public("linalg", "SVD")
def svd(x: Any, full_matrices: bool = True, compute_uv: bool = True) -> Any:
    """Singular values: u, s, v' with x = u diag(s) v'; s alone without `compute_uv`."""
    return _svd(_matrix(x), full_matrices=bool(full_matrices), compute_uv=bool(compute_uv))


@public("linalg", "Lstsq", "a b")
def lstsq(a: Any, b: Any, rcond: float | None = None) -> Any:
    """The x of least ``|a x - b|``; of several the shortest: (m, n), and (m,) or (m, k), -> (n,) or (n, k)."""
    a, b = tensor(a), tensor(b)
    if rank(a) != 2:
        raise ValueError(f"Expected a to have rank 2. Received: a.shape={_known(a)}")
    if rank(b) not in (1, 2):
        raise ValueError(f"Expected b to have rank 1 or 2. Received: b.shape={_known(b)}")
    left, right = shape_of(a)[0], shape_of(b)[0]
    if is_static(left) and is_static(right) and left != right:
        raise ValueError(
            f"Expected b.shape[0] to be equal to a.shape[0]. Received: a.shape={_known(a)}, b.shape={_known(b)}"
        )
    return _lstsq(a, b, rcond=rcond)


@public("linalg", "MatrixRank")
def matrix_rank(x: Any, tol: float | None = None) -> Any:
    """How many singular values exceed `tol`: (..., m, n) -> int32 (...)."""
    return _matrix_rank(_matrix(x), tol=tol)


@public("linalg", "Pinv")
def pinv(x: Any, rcond: float | None = None) -> Any:
    """Pseudo-inverse matrices: (..., m, n) -> (..., n, m)."""
    return _pinv(_matrix(x), rcond=rcond)


@public("numpy", "Slogdet")
def slogdet(x: Any) -> Any:
    """The sign of the determinant and the logarithm of its size: (..., m, m) -> (...), (...)."""
    return _slogdet(_matrix(x, square=True))


@public("math", "Logdet")
def logdet(x: Any) -> Any:
    """The logarithm of the determinant of positive definite matrices: (..., m, m) -> (...)."""
    return _slogdet(_matrix(x, square=True))[1]


def jvp(fun: Callable, primals: Any, tangents: Any, has_aux: bool = False) -> Any:
    """``fun(*primals)`` and its derivative in the direction of `tangents`, forwards; then what `fun` gave besides.

    >>> import jax.numpy as jnp
    >>> value, slope = jvp(jnp.square, (3.0,), (1.0,))
    >>> float(value), float(slope)
    (9.0, 6.0)
    """
    if any_symbolic(primals, tangents):
        return _symbolic_jvp(fun, tuple(primals), has_aux)
    return jax.jvp(fun, tuple(primals), tuple(tangents), has_aux=has_aux)


def _symbolic_jvp(fun: Callable, primals: tuple, has_aux: bool) -> Any:
    outputs = fun(*primals)
    values, *aux = outputs if has_aux else (outputs,)
    slopes = tree.map_structure(lambda x: KerasTensor(x.shape, x.dtype), values)
    return (values, slopes, *aux)

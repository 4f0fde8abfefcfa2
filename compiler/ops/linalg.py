"""Products of matrices and tensors, and matrix functions."""

from __future__ import annotations

import math
import string
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp

from ..errors import ShapeError
from ..ir import Node
from . import arithmetic as a
from . import reduce, shape
from .registry import VJP, items, op


def _known(dims: Sequence[Any]) -> int:
    """The product of the known sizes: unknown ones count once, so costs are for one row."""
    return math.prod(d for d in dims if isinstance(d, int))


# --- matmul -------------------------------------------------------------------------------------------------------


def _matmul_check(types: Sequence[Any], attrs: Any) -> None:
    x, y = types
    if x.rank < 2 or y.rank < 2:
        raise ShapeError(f"matmul takes matrices, got {x} and {y}; give vectors a second axis first")
    if isinstance(x.shape[-1], int) and isinstance(y.shape[-2], int) and x.shape[-1] != y.shape[-2]:
        raise ShapeError(
            f"matmul of {x} by {y}: the last axis of the first has {x.shape[-1]} cells, "
            f"the last but one of the second has {y.shape[-2]}; they must be equal"
        )


def _matmul_gradient(n: Node, dy: Node) -> tuple:
    x, y = n.inputs
    dx = matmul_op(dy, shape.swapaxes(y, -1, -2))
    if y.ndim == 2 and x.ndim > 2:  # one product over all rows, not one a batch item and a sum
        rows = shape.reshape(x, shape=(-1, x.shape[-1]))
        dy_rows = shape.reshape(dy, shape=(-1, dy.shape[-1]))
        product = matmul_op(shape.transpose(rows), dy_rows)
    else:
        product = matmul_op(shape.swapaxes(x, -1, -2), dy)
    return shape.unbroadcast(dx, x), shape.unbroadcast(product, y)


matmul_op = op(
    "matmul",
    lower=jnp.matmul,
    gradient=_matmul_gradient,
    check=_matmul_check,
    flops=lambda types, attrs, result: 2 * _known(result.shape) * _known(types[0].shape[-1:]),
    doc="Matrix products, leading axes broadcast: (..., m, k), (..., k, n) -> (..., m, n).",
)


def matmul(x: Any, y: Any) -> Any:
    """Matrix product with NumPy's rules: vectors are a row on the left, a column on the right."""
    if x.ndim == 0 or y.ndim == 0:
        raise ShapeError("matmul takes no scalars; use multiply")
    result = matmul_op(
        shape.reshape(x, shape=(1, x.shape[0])) if x.ndim == 1 else x,
        shape.reshape(y, shape=(y.shape[0], 1)) if y.ndim == 1 else y,
    )
    if y.ndim == 1:
        result = shape.reshape(result, shape=tuple(result.shape[:-1]))
    if x.ndim == 1:
        axis = result.ndim - (1 if y.ndim == 1 else 2)
        result = shape.reshape(result, shape=tuple(d for i, d in enumerate(result.shape) if i != axis))
    return result


Node.__matmul__ = lambda self, other: matmul(self, other)  # type: ignore
Node.__rmatmul__ = lambda self, other: matmul(other, self)  # type: ignore[attr-defined]


# --- einsum -------------------------------------------------------------------------------------------------------


def _parts(equation: str) -> tuple[list[str], str]:
    left, right = equation.split("->")
    return left.split(","), right


def _einsum_gradient(n: Node, dy: Node) -> tuple:
    terms, result = _parts(n.attrs["equation"])
    out: list = []
    for i, (x, term) in enumerate(zip(n.inputs, terms)):
        if not x.type.is_float:  # type: ignore[union-attr]
            out.append(None)
            continue
        others = [(t, v) for k, (t, v) in enumerate(zip(terms, n.inputs)) if k != i]
        reach = set(result).union(*(t for t, _ in others))
        reached = "".join(c for c in term if c in reach)
        inputs = ",".join([result, *(t for t, _ in others)])
        dx = einsum_op(dy, *(v for _, v in others), equation=f"{inputs}->{reached}")
        if reached != term:  # letters summed within this operand alone
            thin = tuple(d if c in reach else 1 for c, d in zip(term, x.shape))
            dx = shape.broadcast_to(shape.reshape(dx, shape=thin), shape=x.shape)
        out.append(shape.unbroadcast(dx, x))
    return tuple(out)


def _einsum_flops(types: Sequence[Any], attrs: Any, result: Any) -> int:
    sizes: dict[str, Any] = {}
    for term, t in zip(_parts(attrs["equation"])[0], types):
        sizes.update(zip(term, t.shape))
    return 2 * _known(list(sizes.values()))


einsum_op = op(
    "einsum",
    lower=lambda *xs, equation: jnp.einsum(equation, *xs),
    gradient=_einsum_gradient,
    flops=_einsum_flops,
    doc="Einstein sum; `equation` in full, such as ab,bc->ac, each letter once in a term.",
)
einsum_diagonal_op = op(
    "einsum_diagonal",
    lower=lambda *xs, equation: jnp.einsum(equation, *xs),
    gradient=VJP,
    flops=_einsum_flops,
    doc="Einstein sum with a letter repeated in a term, such as aa->a.",
)


def einsum(equation: str, *xs: Any) -> Any:
    """Sum of products by `equation`, such as ``"btd,dhk->bthk"``; ``...`` and a missing result as in NumPy.

    Raises:
        ShapeError: the equation does not fit the operands.
    """
    equation = equation.replace(" ", "")
    left, arrow, result = equation.partition("->")
    terms = left.split(",")
    if len(terms) != len(xs):
        raise ShapeError(f"einsum {equation!r} names {len(terms)} operands, got {len(xs)}")
    free = [c for c in string.ascii_letters if c not in equation]
    widest = max((x.ndim - len(t.replace("...", "")) for t, x in zip(terms, xs) if "..." in t), default=0)
    fill = "".join(free[:widest])
    full = []
    for term, x in zip(terms, xs):
        rank = x.ndim - len(term.replace("...", ""))
        if rank < 0 or (rank > 0 and "..." not in term):
            raise ShapeError(f"einsum {equation!r}: the term {term!r} does not fit the shape {tuple(x.shape)}")
        full.append(term.replace("...", fill[widest - rank :] if rank else ""))
    if not arrow:
        letters = "".join(full)
        result = fill + "".join(sorted(c for c in set(letters) if letters.count(c) == 1 and c not in fill))
    result = result.replace("...", fill)
    repeated = any(len(set(t)) < len(t) for t in full)
    return (einsum_diagonal_op if repeated else einsum_op)(*xs, equation=f"{','.join(full)}->{result}")


def tensordot(x: Any, y: Any, axes: Any = 2) -> Any:
    """Sum of products over the last `axes` axes of x and the first of y, or over given pairs of axes."""
    if isinstance(axes, int):
        pairs = list(zip(range(x.ndim - axes, x.ndim), range(axes)))
    else:
        first, second = ([v] if isinstance(v, int) else list(v) for v in axes)
        pairs = [(i % x.ndim, j % y.ndim) for i, j in zip(first, second)]
    left = list(string.ascii_letters[: x.ndim])
    right = list(string.ascii_letters[x.ndim : x.ndim + y.ndim])
    for i, j in pairs:
        right[j] = left[i]
    summed = {left[i] for i, _ in pairs}
    result = [c for c in left + right if c not in summed]
    return einsum_op(x, y, equation=f"{''.join(left)},{''.join(right)}->{''.join(result)}")


def dot(x: Any, y: Any) -> Any:
    """NumPy's dot: last axis of x with the last but one of y (the only one of a vector); scalars multiply."""
    if x.ndim == 0 or y.ndim == 0:
        return a.multiply(x, y)
    if x.ndim <= 2 and y.ndim <= 2:
        return matmul(x, y)
    return tensordot(x, y, axes=(-1, -2 if y.ndim > 1 else -1))


def outer(x: Any, y: Any) -> Any:
    """All products of the elements: (m), (n) -> (m, n)."""
    return a.multiply(shape.reshape(x, shape=(-1, 1)), shape.reshape(y, shape=(1, -1)))


def norm(x: Any, ord: Any = None, axis: Any = None, keepdims: bool = False) -> Any:
    """The vector norm over `axis` (ord 2, 1, 0, inf, -inf or any p), or the Frobenius norm over two axes.

    Raises:
        ShapeError: a matrix norm other than Frobenius.
    """
    two = axis is not None and not isinstance(axis, int) and len(axis) == 2
    if two and ord not in (None, "fro"):
        raise ShapeError(f"norm over two axes knows only ord None or 'fro', got {ord!r}")
    if ord in (None, "fro") or (ord == 2 and not two):
        return a.sqrt(shape.sum(a.square(x), axis=axis, keepdims=keepdims))
    size = a.absolute(x)
    if ord == math.inf:
        return reduce.max(size, axis=axis, keepdims=keepdims)
    if ord == -math.inf:
        return reduce.min(size, axis=axis, keepdims=keepdims)
    if ord == 0:
        return shape.sum(a.cast(a.not_equal(x, 0), "float32"), axis=axis, keepdims=keepdims)
    if ord == 1:
        return shape.sum(size, axis=axis, keepdims=keepdims)
    return a.power(shape.sum(a.power(size, float(ord)), axis=axis, keepdims=keepdims), 1.0 / ord)


# --- matrix functions, with JAX's gradients -----------------------------------------------------------------------

cholesky = op("cholesky", lower=jnp.linalg.cholesky, gradient=VJP, doc="L of x = L L': (..., n, n) -> same.")
inv = op("inv", lower=jnp.linalg.inv, gradient=VJP, doc="The inverse: (..., n, n) -> same.")
det = op("det", lower=jnp.linalg.det, gradient=VJP, doc="The determinant: (..., n, n) -> (...).")
solve = op("solve", lower=jnp.linalg.solve, gradient=VJP, doc="x of a x = b: (..., n, n), (..., n[, k]) -> as b.")
solve_triangular = op(
    "solve_triangular",
    lower=lambda m, b, *, lower=False: jax.scipy.linalg.solve_triangular(m, b, lower=lower),
    gradient=VJP,
    doc="x of a x = b for a triangular a: (n, n), (n[, k]) -> as b.",
)
qr_op = op("qr", lower=lambda x, *, mode: tuple(jnp.linalg.qr(x, mode)), gradient=VJP, doc="q and r of x = q r.")
svd_op = op(
    "svd",
    lower=lambda x, *, full_matrices: tuple(jnp.linalg.svd(x, full_matrices=full_matrices)),
    gradient=VJP,
    doc="u, s and vh of x = u diag(s) vh: (..., m, n).",
)
eigh_op = op(
    "eigh", lower=lambda x: tuple(jnp.linalg.eigh(x)), gradient=VJP, doc="Eigenvalues and vectors, symmetric x."
)


def qr(x: Any, mode: str = "reduced") -> tuple:
    """q and r of x = q r."""
    return items(qr_op(x, mode=mode))


def svd(x: Any, full_matrices: bool = True) -> tuple:
    """u, s and vh of x = u diag(s) vh."""
    return items(svd_op(x, full_matrices=full_matrices))


def eigh(x: Any) -> tuple:
    """Eigenvalues, ascending, and eigenvectors of a symmetric x."""
    return items(eigh_op(x))

"""Products of matrices and tensors, and norms."""

from __future__ import annotations

import builtins
from typing import Any

from ..compiler.ops import linalg
from ..compiler.ops.sparse import is_sparse, sparse_product
from . import elementwise as e
from .dispatch import dtype_of, is_static, kernel, public, rank, shape_of, tensor
from .manipulation import _array, _one_dtype, moveaxis, ravel, reshape


@public("numpy", "Matmul", "x1 x2")
def matmul(x1: Any, x2: Any) -> Any:
    """Matrix products over the last two axes; vectors count as a row on the left, a column on the right."""
    x1, x2 = _products([tensor(x1), tensor(x2)])
    if rank(x2) == 2 and is_sparse(x1) and is_static(shape_of(x1)[1]):
        return sparse_product(x1, x2)
    return linalg.matmul(_array(x1), _array(x2))


def _products(xs: list) -> list:
    """Factors in one dtype; where all are int8 they are multiplied as int32."""
    if builtins.all(dtype_of(x) == "int8" for x in xs):
        return [e.cast(x, "int32") for x in xs]
    return _one_dtype(xs)


@public("numpy", "Dot", "x1 x2")
def dot(x1: Any, x2: Any) -> Any:
    """NumPy's dot: the last axis of x1 with the last but one of x2."""
    x1, x2 = _one_dtype([tensor(x1), tensor(x2)])
    if rank(x1) == 0 or rank(x2) == 0:
        return e.multiply(x1, x2)
    return tensordot(x1, x2, [[rank(x1) - 1], [max(rank(x2) - 2, 0)]])


@public("numpy", "Tensordot", "x1 x2")
def tensordot(x1: Any, x2: Any, axes: Any = 2) -> Any:
    """The sum of products over pairs of axes."""
    x1, x2 = _one_dtype([tensor(x1), tensor(x2)])
    if isinstance(axes, int):
        left, right = list(range(rank(x1) - axes, rank(x1))), list(range(axes))
    else:
        left, right = (list(a) if isinstance(a, (list, tuple)) else [a] for a in axes)
    left, right = [a % rank(x1) for a in left], [a % rank(x2) for a in right]
    names = "abcdefghijklmnopqrstuvwxyz"
    first = list(names[: rank(x1)])
    second = list(names[rank(x1) : rank(x1) + rank(x2)])
    for a, b in zip(left, right, strict=True):
        second[b] = first[a]
    result = [c for i, c in enumerate(first) if i not in left] + [c for i, c in enumerate(second) if i not in right]
    return linalg.einsum(f"{''.join(first)},{''.join(second)}->{''.join(result)}", _array(x1), _array(x2))


@public("numpy", "Einsum", "")
def einsum(subscripts: str, *operands: Any) -> Any:
    """Einstein's summation: ``einsum("bi,ij->bj", x, w)``."""
    return linalg.einsum(subscripts, *map(_array, _products([tensor(x) for x in operands])))


@public("numpy", "Outer", "x1 x2")
def outer(x1: Any, x2: Any) -> Any:
    """The products of each element of x1 with each of x2."""
    x1, x2 = _one_dtype([tensor(x1), tensor(x2)])
    return e.multiply(reshape(x1, (-1, 1)), reshape(x2, (1, -1)))


@public("numpy", "Inner", "x1 x2")
def inner(x1: Any, x2: Any) -> Any:
    """The sum of products over the last axes."""
    x1, x2 = tensor(x1), tensor(x2)
    if rank(x1) == 0 or rank(x2) == 0:
        return e.multiply(x1, x2)
    last = [shape_of(x)[-1] for x in (x1, x2)]
    if all(map(is_static, last)) and last[0] != last[1]:
        raise ValueError(
            "`inner` requires the last dimension of `x1` and `x2` to match. "
            f"Received: x1.shape={shape_of(x1)}, x2.shape={shape_of(x2)}."
        )
    return tensordot(x1, x2, [[rank(x1) - 1], [rank(x2) - 1]])


@public("numpy", "Vdot", "x1 x2")
def vdot(x1: Any, x2: Any) -> Any:
    """The sum of products of all elements, those of x1 conjugated."""
    x1, x2 = ravel(x1), ravel(x2)
    return dot(kernel("conjugate")(x1) if dtype_of(x1).startswith("complex") else x1, x2)


@public("numpy", "Cross", "x1 x2")
def cross(x1: Any, x2: Any, axisa: int = -1, axisb: int = -1, axisc: int = -1, axis: int | None = None) -> Any:
    """The vector product."""
    if axis is not None:
        axisa = axisb = axisc = axis
    x1, x2 = moveaxis(tensor(x1), axisa, -1), moveaxis(tensor(x2), axisb, -1)
    result = kernel("cross")(x1, x2)
    return moveaxis(result, -1, axisc) if rank(result) > 1 else result

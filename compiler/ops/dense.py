"""Products of rows with a matrix: a dense layer with its bias and relu, and its two gradients, one op each.

Graphs are written with matmul and einsum; the pass `FuseDense` makes these of them, once gradients are taken.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp

from ..ir import Node, TensorType, TupleType
from . import arithmetic as a
from .registry import VJP, items, op


def _flops(types: Sequence[Any], attrs: Mapping[str, Any], result: Any) -> int:
    rows = math.prod(d for d in types[0].shape[:-1] if isinstance(d, int))
    return 2 * rows * math.prod(types[1].shape)


def _dense(x: Any, kernel: Any, *bias: Any, has_bias: bool, relu: bool) -> jax.Array:
    """x kernel [+ bias], negative results made 0 if `relu`: (..., k), (k, n)[, (n)] -> (..., n)."""
    y = jnp.matmul(x, kernel)
    y = y + bias[0] if has_bias else y
    return jax.nn.relu(y) if relu else y


def _dense_grad_input(dy: Any, kernel: Any, *gate: Any, gated: bool) -> jax.Array:
    """dy kernel', 0 where the gate is not positive: (..., n), (k, n)[, (..., k)] -> (..., k)."""
    dx = jnp.einsum("...n,kn->...k", dy, kernel)
    return jnp.where(jnp.asarray(gate[0]) > 0, dx, jnp.zeros_like(dx)) if gated else dx


def _dense_grad_kernel(x: Any, dy: Any) -> tuple:
    """x' dy over all rows, and the sum of dy's rows: (..., k), (..., n) -> (k, n), (n)."""
    x, dy = jnp.asarray(x), jnp.asarray(dy)
    rows, slopes = x.reshape((-1, x.shape[-1])), dy.reshape((-1, dy.shape[-1]))
    return jax.lax.dot_general(rows, slopes, (((0,), (0,)), ((), ()))), jnp.sum(slopes, axis=0)


def _forward_type(types: Sequence[Any], attrs: Mapping[str, Any]) -> TensorType:
    return TensorType((*types[0].shape[:-1], types[1].shape[1]), types[0].dtype)


def _input_type(types: Sequence[Any], attrs: Mapping[str, Any]) -> TensorType:
    return TensorType((*types[0].shape[:-1], types[1].shape[0]), types[0].dtype)


def _kernel_type(types: Sequence[Any], attrs: Mapping[str, Any]) -> TupleType:
    x, dy = types
    sizes = (x.shape[-1], dy.shape[-1])
    return TupleType((TensorType(sizes, x.dtype), TensorType(sizes[1:], x.dtype)))


def _dense_of_rows(*inputs: Any, tables: int, has_bias: bool, relu: bool) -> jax.Array:
    """`_dense` of rows (b, d1 + d2 + ..) that are looked up: (n1, d1), int (b,), (n2, d2), int (b,), .., kernel[, bias]."""
    rows = [jnp.take(jnp.asarray(inputs[i]), jnp.asarray(inputs[i + 1]), axis=0) for i in range(0, 2 * tables, 2)]
    return _dense(jnp.concatenate(rows, axis=1), *inputs[2 * tables :], has_bias=has_bias, relu=relu)


def _dense_of_rows_gradients(*inputs: Any, tables: int) -> tuple:
    """Of the kernel, the bias and each table's rows, given (n1, d1), int (b,), .., dy (b, n), kernel; ids are inside.

    Rows have theirs (b, d) at the first position of an id, for all its positions together; elsewhere stand zeros.
    """
    *pairs, dy, kernel = map(jnp.asarray, inputs)
    found, dx, column = [], _dense_grad_input(dy, kernel, gated=False), 0
    for table, ids in zip(pairs[::2], pairs[1::2]):
        positions = jnp.arange(ids.size)
        first = jnp.full(len(table), ids.size).at[ids].min(positions)[ids]
        rows = dx[:, column : column + table.shape[1]]
        found.append(jnp.zeros_like(rows).at[first].add(rows))
        column += table.shape[1]
    x = jnp.concatenate([jnp.take(table, ids, axis=0) for table, ids in zip(pairs[::2], pairs[1::2])], axis=1)
    return *_dense_grad_kernel(x, dy), *found


def _gradients_type(types: Sequence[Any], attrs: Mapping[str, Any]) -> TupleType:
    *pairs, dy, kernel = types
    rows = [TensorType((*dy.shape[:1], table.shape[1]), dy.dtype) for table in pairs[::2]]
    return TupleType((kernel, TensorType(kernel.shape[1:], dy.dtype), *rows))


def _rows_type(types: Sequence[Any], attrs: Mapping[str, Any]) -> TensorType:
    return TensorType((*types[1].shape, types[2 * attrs["tables"]].shape[1]), types[0].dtype)


def _gradient(n: Node, dy: Node) -> tuple:
    x, kernel = n.inputs[:2]
    dz = a.where(a.greater(n, 0.0), dy, a.zeros_like(dy)) if n.attrs["relu"] else dy
    dk, row = items(dense_grad_kernel(x, dz))
    return (dense_grad_input(dz, kernel, gated=False), dk, row)[: len(n.inputs)]


dense_op = op("dense", lower=_dense, gradient=_gradient, result=_forward_type, flops=_flops)
dense_of_rows = op(
    "dense_of_rows",
    lower=_dense_of_rows,
    gradient=VJP,
    result=_rows_type,
    flops=lambda types, attrs, result: (
        2
        * (types[1].shape[0] if isinstance(types[1].shape[0], int) else 1)
        * math.prod(types[2 * attrs["tables"]].shape)
    ),
)
dense_of_rows_gradients = op(
    "dense_of_rows_gradients",
    lower=_dense_of_rows_gradients,
    gradient=VJP,
    result=_gradients_type,
    flops=lambda types, attrs, result: 2 * _flops(types[-2:], attrs, result),
)
dense_grad_input = op("dense_grad_input", lower=_dense_grad_input, gradient=VJP, result=_input_type, flops=_flops)
dense_grad_kernel = op(
    "dense_grad_kernel",
    lower=_dense_grad_kernel,
    gradient=VJP,
    result=_kernel_type,
    flops=lambda types, attrs, result: (
        2 * math.prod(d for d in types[0].shape if isinstance(d, int)) * types[1].shape[-1]
    ),
)

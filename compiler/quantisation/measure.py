"""Graphs that give, for each row of a batch, the numbers that quantisation is decided by.

Rows stay where they are: whoever predicts with such a graph gets a few numbers a row, and merges them (the smallest, the
largest, the sum), on one machine or on many.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from ..ir import Graph, Node
from ..ops import arithmetic, quantised, reduce, shape
from ..ops.registry import constant, node
from .plan import LIMITS, Scale
from .regions import Region

CLIPS = (1.0, 0.95, 0.9, 0.8, 0.7, 0.6, 0.5, 0.4)  # of the largest value, tried by `row_errors`


def _flat(n: Node, batch: Any) -> Node:
    """(batch, everything else)."""
    return n if n.ndim == 2 and n.shape[0] == batch else shape.reshape(n, shape=(batch, -1))


def _graph(graph: Graph, columns: Sequence[Node]) -> Graph:
    """A graph of one output, float32 (batch, columns)."""
    batch = graph.inputs[0].shape[0]
    made = [shape.reshape(c, shape=(batch, 1)) for c in columns]
    return Graph(graph.inputs, (shape.concatenate(made, axis=1) if len(made) > 1 else made[0],), ("measured",))


def row_ranges(graph: Graph, values: Sequence[Node]) -> Graph:
    """For each row the smallest and the largest number of each of `values`, in pairs."""
    batch = graph.inputs[0].shape[0]
    columns = []
    for n in values:
        flat = _flat(n, batch)
        columns += [reduce.min(flat, axis=1), reduce.max(flat, axis=1)]
    return _graph(graph, columns)


def _rounded(x: Node, scale: Scale) -> Node:
    """x as the integers of `scale` hold it."""
    q = quantised.quantize_op(x, scale=scale.value, dtype=scale.dtype)
    return quantised.dequantize_op(q, scale=scale.value)


def _square_sum(x: Node, batch: Any) -> Node:
    flat = _flat(x, batch)
    return shape.sum(arithmetic.multiply(flat, flat), axis=1)


def row_errors(graph: Graph, values: Sequence[Node], scales: Mapping[Node, Scale]) -> Graph:
    """For each row and each of `values` the squared error of its integers, for each of `CLIPS` as factor of its scale."""
    batch = graph.inputs[0].shape[0]
    columns = []
    for n in values:
        for clip in CLIPS:
            scale = Scale(scales[n].value * clip, scales[n].dtype)
            columns.append(_square_sum(arithmetic.subtract(_rounded(n, scale), n), batch))
    return _graph(graph, columns)


def local_errors(graph: Graph, regions: Sequence[Region], scales: Mapping[Node, Scale]) -> Graph:
    """For each row and region the squared error of its result when only this region is quantised, and its squared size."""
    batch = graph.inputs[0].shape[0]
    columns = []
    for region in regions:
        kernel = constant(region.kernel)
        rounded = constant(rounded_kernel(region.kernel))
        op, attrs = region.linear.op, region.linear.attrs
        exact = op(region.x, kernel, **attrs)
        error = arithmetic.subtract(op(_rounded(region.x, scales[region.x]), rounded, **attrs), exact)
        columns += [_square_sum(error, batch), _square_sum(arithmetic.add(exact, constant(region.bias)), batch)]
    return _graph(graph, columns)


def rounded_kernel(kernel: np.ndarray) -> np.ndarray:
    """A kernel as its integers hold it."""
    q, scale = quantised_kernel(kernel)
    return (q * scale).astype(np.float32)


def quantised_kernel(kernel: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """``(q, scale)``: int8 of the kernel's shape, float32 (channels,); one scale an output channel, the last axis.

    >>> q, scale = quantised_kernel(np.float32([[1.27, 0.0], [-0.5, 0.0]]))
    >>> q.tolist(), [round(float(s), 4) for s in scale]
    ([[127, 0], [-50, 0]], [0.01, 1.0])
    """
    largest = np.abs(kernel).max(axis=tuple(range(kernel.ndim - 1)), initial=0.0)
    scale = np.where(largest > 0, largest / LIMITS["int8"][1], 1.0).astype(np.float32)
    return np.clip(np.round(kernel / scale), *LIMITS["int8"]).astype(np.int8), scale


def compare(graph: Graph, other: Graph, classes: bool) -> Graph:
    """For each row of two graphs of the same inputs: whether the largest output differs, then for each output the squared
    difference, the sum, the sum of squares, and the count.

    Args:
        classes: whether the (first) output says which class a row is of; else the first column is zero.
    """
    batch = graph.inputs[0].shape[0]
    first, second = graph.outputs[0], other.outputs[0]
    if classes:
        differ = arithmetic.not_equal(reduce.argmax(first, axis=-1), reduce.argmax(second, axis=-1))
        columns = [shape.cast(differ, dtype="float32")]
    else:
        columns = [node_full((batch,), 0.0)]
    for a, b in zip(graph.outputs, other.outputs, strict=True):
        flat, more = (_flat(shape.cast(x, dtype="float32"), batch) for x in (a, b))
        columns += [
            _square_sum(arithmetic.subtract(more, flat), batch),
            shape.sum(flat, axis=1),
            _square_sum(flat, batch),
            shape.sum(arithmetic.add(arithmetic.multiply(flat, 0.0), 1.0), axis=1),
        ]
    return _graph(graph, columns)


def node_full(sizes: tuple, value: float) -> Node:
    from ..ops.registry import REGISTRY

    return node(REGISTRY["full"], (), {"shape": sizes, "value": value, "dtype": "float32"})

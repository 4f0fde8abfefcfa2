"""The gradient of a bias before batch normalisation is nothing."""

from __future__ import annotations

import numpy as np

from ..ir import Graph, Node, TensorType
from ..ops.registry import constant
from .pass_base import Pass, bottom_up


class ZeroBiasGradients(Pass):
    """Makes the sum, over everything but channels, of the gradient that batch normalisation gives its input zeros.

    What is added to a whole channel is taken away with its mean, so the sum is zero but for rounding (which Adam would blow
    up to whole steps). Keeps: inputs, outputs, types. Needs: `batch_norm_grad` as an op. Gain: one pass over each activation.
    """

    def find(self, graph: Graph) -> set[Node]:
        return {n for n in graph.nodes if n.op.name == "sum" and _is_nothing(n)}

    def replace(self, graph: Graph, found: set[Node]) -> Graph:
        return bottom_up(graph, lambda old, n: constant(np.zeros(n.shape, n.dtype)) if old in found else n)


def _is_nothing(total: Node) -> bool:
    dx, axis = total.inputs[0], total.attrs.get("axis")
    if dx.op.name != "item" or dx.attrs["index"] != 0 or dx.inputs[0].op.name != "batch_norm_grad":
        return False
    axes = range(dx.ndim) if axis is None else [axis] if isinstance(axis, int) else axis
    known = isinstance(total.type, TensorType) and all(isinstance(d, int) for d in total.shape)
    return known and {a % dx.ndim for a in axes} >= set(range(dx.ndim - 1))

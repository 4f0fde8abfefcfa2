"""Scales after a convolution go into its kernel."""

from __future__ import annotations

import dataclasses
import math

from ..ir import Graph, Node, TensorType, is_static, source
from ..ops import arithmetic, shape
from ..ops.registry import constant
from .pass_base import Pass, bottom_up

LINEAR = ("conv", "matmul")  # ops of (x, kernel) whose kernel's last axis is the result's
KERNEL_PER_PIXELS = 4  # fold when the kernel has at most so many times the elements of one row's result


@dataclasses.dataclass(frozen=True)
class Affine:
    """``root == linear * scale + offset``; None stands for 1 and 0."""

    linear: Node
    root: Node
    scale: Node | None
    offset: Node | None


class FoldBatchNormalization(Pass):
    """Makes ``conv(x, k) * s + t`` into ``conv(x, k * s) + t``, also through a chain of such steps (bias, mean, gain).

    s and t hold one number per output channel and depend on weights only, as in batch normalisation at inference.
    Keeps: inputs, outputs, types; values agree to rounding. Leaves alone: kernels much larger than a row's result,
    where scaling the kernel at every call would cost more than scaling the result.
    Needs: a graph without gradients ("predict", "test"): the kernel's gradient must not be scaled.
    Gain: one multiplication and one subtraction per pixel fewer; 1.05 times on ResNet-50's inference
    (docs/design/0004-kernel-choice.md).
    """

    def find(self, graph: Graph) -> list[Affine]:
        """Longest chains that begin at a linear op and contain a multiplication."""
        nodes = graph.nodes
        users: dict[Node, list[Node]] = {}
        for n in nodes:
            for i in n.inputs:
                users.setdefault(i, []).append(n)
        steady = steady_nodes(nodes)
        final = set(graph.outputs)
        found = []
        for n in nodes:
            if n.op.name in LINEAR and n not in steady and _pays(n):
                chain = chain_of(n, users, steady, final)
                if chain.scale is not None:
                    found.append(chain)
        return found

    def replace(self, graph: Graph, found: list[Affine]) -> Graph:
        chains = {chain.root: chain for chain in found}
        new: dict[Node, Node] = {}  # what stands for each linear node's input, after earlier replacements

        def change(old: Node, n: Node) -> Node:
            new[old] = n
            chain = chains.get(old)
            if chain is None:
                return n
            x, kernel = new[chain.linear].inputs
            assert chain.scale is not None
            with source(chain.linear.source):
                scaled = arithmetic.multiply(kernel, _as_row(chain.scale))
                y = chain.linear.op(x, scaled, **chain.linear.attrs)
                y = y if chain.offset is None else arithmetic.add(y, chain.offset)
            return y if y.type == n.type else n

        return bottom_up(graph, change)


def steady_nodes(nodes: list[Node]) -> set[Node]:
    """Nodes that depend on weights and constants only."""
    steady: set[Node] = set()
    for n in nodes:
        if n.op.name != "input" and not n.op.has_effect and steady.issuperset(n.inputs):
            steady.add(n)
    return steady


def _pays(n: Node) -> bool:
    kernel = n.inputs[1]
    if not isinstance(kernel.type, TensorType) or (n.op.name == "matmul" and kernel.ndim != 2):
        return False
    per_row = [d for d in n.shape[1:] if is_static(d)]
    if n.op.name == "matmul" and n.ndim == 2:
        return False  # one row has as many numbers as the kernel has columns
    unknown = len(per_row) < n.ndim - 1
    return unknown or math.prod(kernel.shape) <= KERNEL_PER_PIXELS * math.prod(per_row)


def chain_of(linear: Node, users: dict[Node, list[Node]], steady: set[Node], final: set[Node]) -> Affine:
    current, scale, offset = linear, None, None
    root = Affine(linear, linear, None, None)
    while current not in final and len(set(users.get(current, ()))) == 1:
        user = users[current][0]
        step = _step(user, current, steady, scale, offset)
        if step is None or user.type != linear.type:
            break
        (scale, offset), current = step, user
        root = Affine(linear, current, scale, offset)
    return root


def _step(user: Node, current: Node, steady: set[Node], scale: Node | None, offset: Node | None):
    """Scale and offset after `user`, or None if it is no such step."""
    if user.op.name == "negative":
        return _times(scale, -1.0), None if offset is None else arithmetic.negative(offset)
    if user.op.name not in ("add", "subtract", "multiply", "divide") or user.inputs[0] is user.inputs[1]:
        return None
    first = user.inputs[0] is current
    p = user.inputs[1 if first else 0]
    if p not in steady or not _per_channel(p, current):
        return None
    if user.op.name == "add":
        return scale, p if offset is None else arithmetic.add(offset, p)
    if user.op.name == "subtract":
        if first:
            return scale, arithmetic.negative(p) if offset is None else arithmetic.subtract(offset, p)
        return _times(scale, -1.0), p if offset is None else arithmetic.subtract(p, offset)
    if user.op.name == "multiply":
        return _times(scale, p), None if offset is None else arithmetic.multiply(offset, p)
    if not first:
        return None
    return (
        arithmetic.divide(1.0, p) if scale is None else arithmetic.divide(scale, p),
        None if offset is None else arithmetic.divide(offset, p),
    )


def _times(scale: Node | None, factor) -> Node:
    if scale is not None:
        return arithmetic.multiply(scale, factor)
    return factor if isinstance(factor, Node) else constant(factor, "float32")


def _per_channel(p: Node, y: Node) -> bool:
    return (
        isinstance(p.type, TensorType)
        and p.dtype == y.dtype
        and p.ndim <= y.ndim
        and all(d == 1 for d in p.shape[:-1])
        and (p.ndim == 0 or p.shape[-1] == 1 or p.shape[-1] == y.shape[-1])
    )


def _as_row(scale: Node) -> Node:
    return scale if scale.ndim <= 1 else shape.reshape(scale, shape=scale.shape[-1:])

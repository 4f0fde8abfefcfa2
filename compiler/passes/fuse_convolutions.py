"""Bias, sum and relu join the convolution before them; a bias's gradient joins the kernel's."""

from __future__ import annotations

import dataclasses

from ..ir import Graph, Node, TensorType, rebuilt, source
from ..ops import convolution, shape
from ..ops.registry import item
from .pass_base import Pass, bottom_up


def users_of(graph: Graph) -> dict[Node, list[Node]]:
    """The nodes that read each node; an output of the graph counts as one more reader, itself."""
    users: dict[Node, list[Node]] = {}
    for n in graph.nodes:
        for i in dict.fromkeys(n.inputs):
            users.setdefault(i, []).append(n)
    for o in graph.outputs:
        users.setdefault(o, []).append(o)
    return users


@dataclasses.dataclass(frozen=True)
class Chain:
    """``root == relu(conv + bias + add)``, where each of the last three may be missing."""

    conv: Node
    root: Node
    bias: Node | None = None
    add: Node | None = None
    relu: bool = False


class FuseConvolutions(Pass):
    """Makes ``relu(conv(x, k) + bias + y)`` one node, in which the kernel adds and cuts while results are in the cache.

    Keeps: inputs, outputs, types; values agree to rounding. Leaves alone: convolutions whose result is read elsewhere.
    Needs: nothing. Gain: two to three passes over each activation fewer (docs/design/0013-convolutional-nets.md).
    """

    def find(self, graph: Graph) -> list[Chain]:
        users = users_of(graph)
        taken: set[Node] = set()  # sums that a chain has already
        found = []
        for n in graph.nodes:
            if n.op.name == "conv" and isinstance(n.type, TensorType) and n.type.dtype == "float32":
                chain = _chain(n, users, taken)
                if chain.root is not n:
                    found.append(chain)
        return found

    def replace(self, graph: Graph, found: list[Chain]) -> Graph:
        chains = {chain.root: chain for chain in found}
        new: dict[Node, Node] = {}

        def change(old: Node, n: Node) -> Node:
            chain = chains.get(old)
            if chain is not None:
                x, kernel = new[chain.conv].inputs
                rest = [] if chain.bias is None else [_row(new[chain.bias])]
                rest += [] if chain.add is None else [new[chain.add]]
                flags = {"has_bias": chain.bias is not None, "has_sum": chain.add is not None, "relu": chain.relu}
                with source(chain.conv.source):
                    n = convolution.conv_fused(x, kernel, *rest, **chain.conv.attrs, **flags)
            new[old] = n
            return n

        return bottom_up(graph, change)


def _chain(conv: Node, users: dict[Node, list[Node]], taken: set[Node]) -> Chain:
    chain, current = Chain(conv, conv), conv
    while len(users.get(current, ())) == 1:
        user = users[current][0]
        if user is current or user.type != conv.type or user in taken:
            break
        if user.op.name == "relu":
            return dataclasses.replace(chain, root=user, relu=True)
        if user.op.name != "add" or user.inputs[0] is user.inputs[1]:
            break
        other = user.inputs[1 if user.inputs[0] is current else 0]
        if chain.bias is None and chain.add is None and _is_bias(other, conv):
            chain = dataclasses.replace(chain, root=user, bias=other)
        elif chain.add is None and other.type == conv.type:
            chain = dataclasses.replace(chain, root=user, add=other)
            taken.add(user)
        else:
            break
        current = user
    return chain


def _is_bias(p: Node, y: Node) -> bool:
    return (
        isinstance(p.type, TensorType)
        and p.dtype == y.dtype
        and 0 < p.ndim <= y.ndim
        and p.shape[-1] == y.shape[-1]
        and all(isinstance(d, int) and d == 1 for d in p.shape[:-1])
    )


def _row(bias: Node) -> Node:
    return bias if bias.ndim == 1 else shape.reshape(bias, shape=bias.shape[-1:])


class FuseBiasGradients(Pass):
    """Makes a kernel's gradient and the sum of the same dy over everything but channels, a bias's gradient, one node.

    Keeps: inputs, outputs, types; values agree to rounding. Needs: gradients as ops.
    """

    def find(self, graph: Graph) -> dict[Node, Node]:
        """The sum that goes with each gradient of a kernel."""
        sums = {}
        for n in graph.nodes:
            if n.op.name == "sum" and not n.attrs.get("keepdims") and isinstance(n.attrs.get("axis"), tuple):
                rank = n.inputs[0].ndim
                if sorted(a % rank for a in n.attrs["axis"]) == list(range(rank - 1)):
                    sums[n.inputs[0]] = n
        found = {}
        for n in graph.nodes:
            if n.op.name == "conv_grad_kernel" and n.inputs[1] in sums and n.dtype == "float32":
                found[n] = sums.pop(n.inputs[1])
        return found

    def replace(self, graph: Graph, found: dict[Node, Node]) -> Graph:
        mapping: dict[Node, Node] = {}
        for kernel, total in found.items():
            with source(kernel.source):
                both = convolution.conv_grad_kernel_bias(*kernel.inputs, **kernel.attrs)
                mapping |= {kernel: item(both, 0), total: item(both, 1)}
        return _replaced(graph, mapping)


def _replaced(graph: Graph, mapping: dict[Node, Node]) -> Graph:
    """`graph` with the keys replaced; the values' inputs may hold further keys."""
    new: dict[Node, Node] = {}
    done: dict[Node, Node] = {}

    def renewed(n: Node) -> Node:
        if n not in done:
            inputs = tuple(new.get(i, done.get(i, i)) for i in n.inputs)
            done[n] = n if inputs == n.inputs else rebuilt(n, inputs)
        return done[n]

    for n in graph.nodes:
        inputs = tuple(new[i] for i in n.inputs)
        made = mapping.get(n)
        if made is None:
            new[n] = n if inputs == n.inputs else rebuilt(n, inputs)
        else:
            (packed,) = made.inputs
            new[n] = rebuilt(made, (renewed(packed),))
    return dataclasses.replace(graph, outputs=tuple(new[o] for o in graph.outputs))

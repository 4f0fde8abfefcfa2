"""Regions: a convolution or product with what follows it, which one integer op computes."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

import numpy as np

from ..ir import Graph, Node, TensorType, is_static
from ..ir.graph import topological
from ..lower import evaluate
from ..passes.fold_batch_normalization import chain_of, steady_nodes

RELUS: dict[str, float | None] = {"relu": None, "relu6": 6.0}  # op: the largest value that it gives


class Weights:
    """The numbers behind nodes that depend on weights and constants only; computed when asked for.

    Args:
        graph: of a model's outputs.
        values: the array of each param, by name.
    """

    def __init__(self, graph: Graph, values: Mapping[str, np.ndarray]):
        nodes = graph.nodes
        self.steady = {n for n in steady_nodes(nodes) if _is_known(n)}
        self._known: dict[Node, np.ndarray] = {
            n: np.asarray(values[n.attrs["name"]]) for n in nodes if n.op.name == "param"
        }

    def __contains__(self, n: Node) -> bool:
        return n in self.steady

    def __getitem__(self, n: Node) -> np.ndarray:
        if n not in self._known:
            evaluate(topological([n]), self._known, {})
        return np.asarray(self._known[n])


@dataclasses.dataclass(frozen=True)
class Region:
    """``root == relu(linear(x, kernel) + bias + addend)``, where the last two parts may be missing.

    Attributes:
        name: of its layer; unique among a graph's regions.
        linear: the op "conv" or "matmul".
        affine: the value after the bias.
        root: the value after addend and relu.
        kernel: float32 (..., channels), factors such as those of a batch normalisation folded in.
        bias: float32 (channels,).
        addend: what is added, or None.
        relu: whether negative values become zero.
        upper: the largest value, or None.
        inner: the nodes from `linear` to before `root`.
    """

    name: str
    linear: Node
    affine: Node
    root: Node
    kernel: np.ndarray
    bias: np.ndarray
    addend: Node | None
    relu: bool
    upper: float | None
    inner: tuple[Node, ...]

    @property
    def x(self) -> Node:
        return self.linear.inputs[0]

    def without_addend(self) -> Region:
        """The part before the addend; itself if it has none."""
        if self.addend is None:
            return self
        inner = self.inner[: self.inner.index(self.affine)] if self.affine in self.inner else self.inner
        return dataclasses.replace(self, root=self.affine, addend=None, relu=False, upper=None, inner=inner)


def find_regions(graph: Graph, weights: Weights) -> list[Region]:
    """The regions of a graph, none inside loops. A value between the parts of a region has no other use."""
    nodes, final = graph.nodes, set(graph.outputs)
    users: dict[Node, list[Node]] = {}
    for n in nodes:
        for i in n.inputs:
            users.setdefault(i, []).append(n)

    def only_user(n: Node) -> Node | None:
        found = users.get(n, [])
        return found[0] if len(found) == 1 and n not in final else None

    regions: list[Region] = []
    taken: set[Node] = set()
    names: dict[str, int] = {}
    for n in nodes:
        if not _is_linear(n, weights):
            continue
        chain = chain_of(n, users, weights.steady, final)
        kernel, channels = weights[n.inputs[1]].astype(np.float32), n.shape[-1]
        bias = np.zeros(channels, np.float32)
        if chain.scale is not None:
            kernel = kernel * _row(weights[chain.scale], channels)
        if chain.offset is not None:
            bias = _row(weights[chain.offset], channels)
        current, addend, relu, upper = chain.root, None, False, None
        user = only_user(current)
        if user is not None and user.op.name == "add" and user not in taken and user.type == current.type:
            other = user.inputs[1 if user.inputs[0] is current else 0]
            if other.type == current.type and other not in weights and other is not current:
                addend, current = other, user
                taken.add(user)
        user = only_user(current)
        if user is not None and user.op.name in RELUS:
            relu, upper, current = True, RELUS[user.op.name], user
        label = n.source or n.op.name
        names[label] = names.get(label, 0) + 1
        name = label if names[label] == 1 else f"{label}_{names[label] - 1}"
        inner = [n] if n is not current else []
        while inner and users[inner[-1]][0] is not current:
            inner.append(users[inner[-1]][0])
        regions.append(Region(name, n, chain.root, current, kernel, bias, addend, relu, upper, tuple(inner)))
    return regions


def _is_linear(n: Node, weights: Weights) -> bool:
    if n.op.name not in ("conv", "matmul") or n.dtype != "float32":
        return False
    x, kernel = n.inputs
    if (
        kernel not in weights
        or x in weights
        or is_static(x.shape[0])
        or x.dtype != "float32"
        or kernel.dtype != "float32"
    ):
        return False
    if n.op.name == "matmul":
        return kernel.ndim == 2 and x.ndim >= 2
    return n.ndim <= 5


def _row(value: np.ndarray, channels: int) -> np.ndarray:
    return np.broadcast_to(np.asarray(value, np.float32).reshape(-1), (channels,)).copy()


def _is_known(n: Node) -> bool:
    return isinstance(n.type, TensorType) and all(is_static(d) for d in n.shape)

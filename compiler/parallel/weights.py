"""Which axis of each weight is split: found by walking through the forward part once."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from ..ir import Graph, Node, TensorType, is_static, topological
from .choices import Choices
from .mesh import ParallelError
from .places import VIEWS, is_forward, placed_layer
from .shardings import PARTIAL, WHOLE, Sharding

SMALL = 1 << 10  # elements; weights of two or more axes with fewer are split only where that costs nothing


class Weights:
    """Shardings of the weights of a graph.

    1. Forward nodes are walked in order, each spread in the cheapest way for what it reads (`choices`).
    2. A weight is decided where it is first read: of the axes along which all that read it can stay split, the cheapest.
    3. What has one axis, or few elements, follows: it is split if what it meets is, else whole.

    So a dense layer behind whole values is split by columns, the next one by rows, and their one sum is made behind it.

    Args:
        placement: "split", "replicate" or an axis for layers.
    """

    def __init__(self, graph: Graph, choices: Choices, placement: Mapping[str, object], learnt: set[str]):
        self.choices, self.placement, self.learnt = choices, placement, learnt
        self.order = topological(o for name, o in zip(graph.output_names, graph.outputs) if is_forward(name))
        self.readers: dict[Node, list[Node]] = {}
        for n in self.order:
            for i in dict.fromkeys(n.inputs):
                self.readers.setdefault(i, []).append(n)
        self.users = users_of(graph)
        self.found: dict[Node, tuple[Sharding, ...]] = {}
        self.seen: set[str] = set()
        for n in self.order:
            self.found[n] = self._visit(n)
        missing = sorted(set(placement) - self.seen)
        if missing:
            layers = sorted({_layer(n) for n in self.order if self._is_weight(n)})
            raise ParallelError(
                f"placement names {', '.join(map(repr, missing))}, which have no weights in the model's step; layers with "
                f"weights are {', '.join(layers)}"
            )

    @property
    def shardings(self) -> dict[str, Sharding]:
        """Of each weight, by name."""
        return {n.attrs["name"]: self.found[n][0] for n in self.order if self._is_weight(n)}

    def _is_weight(self, n: Node) -> bool:
        return n.op.name == "param" and n.attrs["name"] in self.learnt

    def _visit(self, n: Node) -> tuple[Sharding, ...]:
        if self._is_weight(n):
            return (WHOLE,)  # until it is read
        if not n.inputs:
            return (WHOLE,)
        if n.op.name == "item":
            return (self.found[n.inputs[0]][n.attrs["index"]],)
        if not all(isinstance(i.type, TensorType) for i in n.inputs):
            return (WHOLE,) * _results(n)
        for i in n.inputs:
            self._decide(i, n)
        choice = self.choices.choose(n, [self.found[i][0] for i in n.inputs])
        for i, need in zip(n.inputs, choice.need):
            if need == WHOLE and not self._is_weight(i):
                self.found[i] = (WHOLE,)  # gathered, or summed, for all that read it from here on
        return tuple(WHOLE if s == PARTIAL and self.users[n] > 1 else s for s in choice.outs)

    def _decide(self, param: Node, reader: Node) -> None:
        """Settles a weight when the first node that is no view of it reads it."""
        root = param
        while root.op.name in VIEWS:
            root = root.inputs[0]
        if (
            not self._is_weight(root)
            or root.attrs["name"] in self._decided
            or (reader.op.name in VIEWS and param is root)
        ):
            return
        self._decided.add(root.attrs["name"])
        self.found[root] = (self._best(root),)
        for n in self.order:  # views of it, made before it was decided
            if n.op.name in VIEWS and n.inputs[0] in self.found and n in self.found and self._root(n) is root:
                self.found[n] = self.choices.choose(n, [self.found[n.inputs[0]][0]]).outs

    @property
    def _decided(self) -> set[str]:
        return self.__dict__.setdefault("_names", set())

    def _root(self, n: Node) -> Node:
        while n.op.name in VIEWS:
            n = n.inputs[0]
        return n

    def _best(self, param: Node) -> Sharding:
        shape = param.shape
        asked = self._asked(param)
        if asked == "replicate":
            return WHOLE
        axes = [k for k, d in enumerate(shape) if self._can(param, k)]
        if isinstance(asked, int):
            if asked >= len(shape) or len(shape) < 2:
                asked = None
            elif asked not in axes:
                raise ParallelError(
                    f"layer {_layer(param)!r}: placement={asked}, but axis {asked} of {param.attrs['name']!r} "
                    f"{tuple(shape)} cannot be cut into {self.choices.count} equal parts"
                )
            else:
                return Sharding(asked)
        follows = len(shape) < 2 or (math.prod(shape) < SMALL and asked != "split")
        options: list[tuple[float, Sharding]] = []
        for axis in axes:
            cost, breaks, alone = self._cost(param, Sharding(axis))
            if not breaks and not (follows and alone):
                options.append((cost, Sharding(axis)))
        if follows or not options:
            options.append((self._cost(param, WHOLE)[0], WHOLE))
        best = min(options, key=lambda o: o[0])[1]
        if asked == "split" and best == WHOLE and len(shape) >= 2:
            raise ParallelError(
                f"layer {_layer(param)!r}: placement='split', but no axis of {param.attrs['name']!r} {tuple(shape)} can be "
                f"cut into {self.choices.count} equal parts that are computed with as they are"
            )
        return best

    def _asked(self, param: Node) -> object:
        layer = placed_layer(_layer(param), self.placement)
        if layer is None:
            return None
        self.seen.add(layer)
        asked = self.placement[layer]
        if asked not in ("split", "replicate") and (not isinstance(asked, int) or isinstance(asked, bool) or asked < 0):
            raise ParallelError(
                f"layer {layer!r}: placement={asked!r}; with model= it is 'split', 'replicate', an axis of the kernel, or "
                "None to leave it to the compiler"
            )
        return asked

    def _can(self, param: Node, axis: int) -> bool:
        size = param.shape[axis]
        if not is_static(size) or size < self.choices.count:
            return False
        looked_up = all(u.op.name == "embedding_lookup" for u in self.readers.get(param, ()))
        return size % self.choices.count == 0 or (axis == 0 and looked_up)

    def _cost(self, n: Node, sharding: Sharding) -> tuple[float, bool, bool]:
        """Of all that read a weight or a view of it; whether one needs it otherwise; whether one reads nothing else that is
        split as the weight is."""
        total, breaks, alone = 0.0, False, False
        for user in self.readers.get(n, ()):
            have = [sharding if i is n else self.found.get(i, (WHOLE,))[0] for i in user.inputs]
            if any(not isinstance(i.type, TensorType) for i in user.inputs):
                breaks = True
                continue
            choice = self.choices.choose(user, have)
            total += choice.cost + self.choices.backward(user, n, have, choice)
            if user.op.name not in VIEWS:
                alone = alone or all(s == WHOLE or i is n for i, s in zip(user.inputs, have))
            for i, a, b in zip(user.inputs, have, choice.need):
                if i is n:
                    breaks = breaks or (a != b and a != WHOLE)
                    total += self.choices.bytes(n) if a == WHOLE and b != WHOLE else 0.0
                elif not (self._is_weight(i) and i.attrs["name"] not in self._decided):
                    alone = alone or (a != b and a != WHOLE) or (a == WHOLE and b != WHOLE)
            if user.op.name in VIEWS:
                more = self._cost(user, choice.outs[0])
                total, breaks, alone = total + more[0], breaks or more[1], alone or more[2]
        return total, breaks, alone


def users_of(graph: Graph) -> dict[Node, int]:
    """How many nodes and outputs read each node."""
    found: dict[Node, int] = {n: 0 for n in graph.nodes}
    for n in found:
        for i in dict.fromkeys(n.inputs):
            found[i] += 1
    for o in graph.outputs:
        found[o] += 1
    return found


def wanted_axes(graph: Graph, shardings: Mapping[str, Sharding]) -> dict[Node, int]:
    """For nodes that a gradient of a split weight is made of: the axis along which they will be split."""
    found: dict[Node, int] = {}
    for name, o in zip(graph.output_names, graph.outputs):
        axis = shardings.get(name.removeprefix("grad/"), WHOLE).axis
        if name.startswith("grad/") and axis is not None:
            found[o] = axis
    for n in reversed(graph.nodes):
        axis = found.get(n)
        if axis is None:
            continue
        if n.op.name in ("add", "subtract", "negative"):
            for i in n.inputs:
                if i.type == n.type:
                    found.setdefault(i, axis)
        elif n.op.name == "transpose":
            found.setdefault(n.inputs[0], n.attrs["axes"][axis])
    return found


def _results(n: Node) -> int:
    return 1 if isinstance(n.type, TensorType) else len(n.type.items)


def _layer(param: Node) -> str:
    return param.attrs["name"].rpartition("/")[0]


__all__: Sequence[str] = ["Weights", "users_of", "wanted_axes"]

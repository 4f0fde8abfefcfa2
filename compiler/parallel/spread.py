"""From a graph over whole tensors to the graph that each worker computes over its parts, with sums and stacks between them."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

from ..errors import CompilerError
from ..ir import Graph, Node, TensorType, TupleType, node, source
from ..ops import arithmetic as a
from ..ops import shape as shapes
from ..ops.collective import part_of, part_stack, part_sum
from ..ops.indexing import embedding_lookup, scatter_rows
from ..ops.registry import constant, input_node, item, param_node
from .choices import BY_ROWS, Choice, Choices
from .shardings import PARTIAL, WHOLE, Sharding
from .weights import users_of, wanted_axes

COORDINATE = "coordinate"  # int32[], an input of the local graph: which worker
_SIZED = {  # attributes that hold the shape of a result, or of an input of the same split axis
    "reshape": "shape", "broadcast_to": "shape", "conv_grad_input": "input_shape", "conv_grad_kernel": "kernel_shape",
    "average_pool_grad": "input_shape", "strided_slice": "limit",
}  # fmt: skip


@dataclasses.dataclass(frozen=True)
class Local:
    """A value on one worker: `node` computes it, or its part. Partial: it is the sum over workers of `node`, and `rest`."""

    node: Node
    rest: Node | None = None


class Spread:
    """The local graph, the same for all workers but for the input "coordinate".

    Attributes:
        graph: with params of local shapes under their old names.
    """

    def __init__(self, graph: Graph, choices: Choices, weights: Mapping[str, Sharding]):
        self.choices, self.count, self.weights = choices, choices.count, weights
        self.coordinate = input_node(COORDINATE, (), "int32")
        self.users = users_of(graph)
        self.wanted = wanted_axes(graph, weights)
        self.have: dict[Node, tuple[Sharding, ...]] = {}
        self.local: dict[Node, Local] = {}
        self.made: dict[tuple[Node, Sharding], Node] = {}
        self.work: dict[Node, float] = {}  # the part of a node's operations that each worker makes
        for n in graph.nodes:
            with source(n.source):
                self._spread(n)
        outputs = []
        for name, o in zip(graph.output_names, graph.outputs):
            target = weights.get(name.removeprefix("grad/"), WHOLE) if name.startswith("grad/") else WHOLE
            with source(o.source):
                outputs.append(self._as(o, target))
        inputs = (*graph.inputs, self.coordinate)
        self.graph = Graph(inputs, tuple(outputs), graph.output_names)

    def _spread(self, n: Node) -> None:
        if n.op.name == "param":
            sharding = self.weights.get(n.attrs["name"], WHOLE)
            shape = self._shape(n, sharding)
            local = param_node(n.attrs["name"], shape, n.dtype, n.attrs["trainable"]) if sharding != WHOLE else n
            self._set(n, (sharding,), Local(local))
        elif not n.inputs:
            self._set(n, (WHOLE,), Local(n))
        elif n.op.name == "item":
            self._item(n)
        elif all(isinstance(i.type, TensorType) for i in n.inputs):
            have = [WHOLE if (i, WHOLE) in self.made else self.have[i][0] for i in n.inputs]  # what is whole stays so
            choice = self.choices.choose(n, have, self.wanted.get(n))
            made = self._built(n, choice)
            if made is None:  # the op cannot be made on parts after all
                need = (WHOLE,) * len(n.inputs)
                choice = Choice(need, (WHOLE,) * _results(n), 0.0)
                made = Local(node(n.op, [self._as(i, WHOLE) for i in n.inputs], n.attrs))
            self.work[n] = 1.0 if choice.label is None else 1.0 / self.count
            self._set(n, choice.outs, made)
        else:
            inputs = [self._tuple(i) if isinstance(i.type, TupleType) else self._as(i, WHOLE) for i in n.inputs]
            self._set(n, (WHOLE,) * _results(n), Local(node(n.op, inputs, n.attrs)))

    def _set(self, n: Node, have: tuple[Sharding, ...], local: Local) -> None:
        self.have[n], self.local[n] = have, local
        if have == (PARTIAL,) and self.users[n] > 1:  # summed once, for all that read it
            whole = self._as(n, WHOLE)
            self.have[n], self.local[n] = (WHOLE,), Local(whole)

    def _item(self, n: Node) -> None:
        of, index = n.inputs[0], n.attrs["index"]
        self._set(n, (self.have[of][index],), Local(item(self.local[of].node, index)))

    def _tuple(self, n: Node) -> Node:
        if any(s != WHOLE for s in self.have[n]):
            raise CompilerError(f"{n!r} is read as a tuple, but its results are split among workers")
        return self.local[n].node

    # --- one node -----------------------------------------------------------------------------------------------------

    def _built(self, n: Node, choice: Choice) -> Local | None:
        """The node on parts; None if its op does not give the parts expected of it."""
        if choice.linear:
            return self._linear(n, choice)
        if choice.label == BY_ROWS:
            return self._by_rows(n)
        inputs = [self._as(i, s) for i, s in zip(n.inputs, choice.need)]
        attrs = dict(n.attrs)
        name = _SIZED.get(n.op.name)
        if name is not None and choice.outs[0].axis is not None:
            axis = choice.outs[0].axis
            size = n.shape[axis] // self.count
            if n.op.name != "reshape" or attrs[name][axis] != -1:
                attrs[name] = tuple(size if k == axis else d for k, d in enumerate(attrs[name]))
        try:
            made = node(n.op, inputs, attrs)
        except CompilerError:
            return None
        types = n.type.items if isinstance(n.type, TupleType) else (n.type,)
        expected = tuple(TensorType(self._cut(t.shape, s), t.dtype) for t, s in zip(types, choice.outs))
        got = made.type.items if isinstance(made.type, TupleType) else (made.type,)
        return Local(made) if got == expected else None

    def _linear(self, n: Node, choice: Choice) -> Local:
        """A linear op on partial values: on what is to be summed and on the rest, each by itself."""
        parts = [self.local[i] if s == PARTIAL else None for i, s in zip(n.inputs, choice.need)]
        if n.op.name in ("add", "subtract"):
            zero = [Local(self._as(i, WHOLE)) if part is None else part for i, part in zip(n.inputs, parts)]
            summed = [part.node if part is not None else None for part in parts]
            rests = [whole.node if part is None else part.rest for whole, part in zip(zero, parts)]
            made = _joined(n.op, *summed)
            assert made is not None
            return Local(self._full(made, n), _joined(n.op, *rests))
        position = next(k for k, part in enumerate(parts) if part is not None)
        part = parts[position]
        assert part is not None

        def on(value: Node) -> Node:
            value = self._full(value, n.inputs[position])
            return node(n.op, [value if k == position else self._as(i, WHOLE) for k, i in enumerate(n.inputs)], n.attrs)

        return Local(on(part.node), None if part.rest is None else on(part.rest))

    def _full(self, value: Node, like: Node) -> Node:
        return value if value.shape == like.shape else shapes.broadcast_to(value, shape=like.shape)

    def _by_rows(self, n: Node) -> Local:
        """A lookup in rows of one's own: zeros for those of others. Or the gradient of it."""
        first, ids = n.inputs[0], self._as(n.inputs[1], WHOLE)
        lookup = n.op.name == "embedding_lookup"
        rows = -(-(first.shape[0] if lookup else n.shape[0]) // self.count)
        own = a.subtract(shapes.cast(ids, dtype="int32"), a.multiply(self.coordinate, constant(rows, "int32")))
        inside = a.logical_and(a.greater_equal(own, constant(0, "int32")), a.less(own, constant(rows, "int32")))
        safe = a.where(inside, own, constant(0, "int32"))
        value = self._as(first, Sharding(0)) if lookup else self._as(first, WHOLE)
        width = (len(n.shape) if lookup else first.ndim) - ids.ndim
        mask = shapes.reshape(inside, shape=(*ids.shape, *(1,) * width))
        if lookup:
            found = embedding_lookup(value, safe)
            return Local(a.where(mask, found, constant(0, n.dtype)))
        return Local(scatter_rows(a.where(mask, value, constant(0, n.dtype)), safe, count=rows))

    # --- from one sharding to another ----------------------------------------------------------------------------------

    def _as(self, n: Node, target: Sharding) -> Node:
        """The local node of `n`, spread as `target`."""
        have = self.have[n][0]
        if have == target:
            return self.local[n].node
        key = (n, target)
        if key not in self.made:
            self.made[key] = self._converted(n, have, target)
        return self.made[key]

    def _converted(self, n: Node, have: Sharding, target: Sharding) -> Node:
        if target != WHOLE:
            axis = target.axis
            assert axis is not None
            return part_of(self._as(n, WHOLE), self.coordinate, axis=axis, count=self.count)
        value = self.local[n]
        if have == PARTIAL:
            total = part_sum(value.node)
            return total if value.rest is None else a.add(total, value.rest)
        axis = have.axis
        assert axis is not None
        stacked = part_stack(value.node, count=self.count)
        rank = n.ndim
        order = (*range(1, axis + 1), 0, *range(axis + 1, rank + 1))
        local = value.node.shape
        whole = tuple(local[k] * self.count if k == axis else d for k, d in enumerate(local))
        joined = shapes.reshape(shapes.transpose(stacked, order), shape=whole)
        return joined if whole == tuple(n.shape) else shapes.slice_axis(joined, axis, 0, n.shape[axis])

    def _cut(self, shape: tuple, sharding: Sharding) -> tuple:
        return tuple(-(-d // self.count) if k == sharding.axis else d for k, d in enumerate(shape))

    def _shape(self, n: Node, sharding: Sharding) -> tuple:
        return self._cut(tuple(n.shape), sharding)


def _joined(op, left: Node | None, right: Node | None) -> Node | None:
    if left is None and right is None:
        return None
    if right is None:
        return left
    if left is None:
        return right if op.name == "add" else a.negative(right)
    return node(op, (left, right), {})


def _results(n: Node) -> int:
    return len(n.type.items) if isinstance(n.type, TupleType) else 1

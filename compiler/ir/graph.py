"""The graph: immutable, interned nodes.

Grammar::

    graph  ::= input* node* output+
    node   ::= name = op(node, ...){attribute=value, ...} : type
    op     ::= 'input' | 'param' | 'constant' | 'item' | an entry of kerasoft.compiler.ops
    type   ::= dtype[dim, ...] | (type, ...)
    dim    ::= int | unknown size, e.g. b, 4*b, floordiv(n1, 2)

A node has one type; an op with several results has a tuple type and `item{index=i}` takes one of them. Nodes are
interned: two nodes of the same op, inputs and attributes are the same object, so "nothing changed" is "same object"
and common subexpressions cannot arise while a graph is built.
"""

from __future__ import annotations

import contextlib
import contextvars
import dataclasses
import functools
import weakref
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from .types import Type

_source: contextvars.ContextVar[str | None] = contextvars.ContextVar("source", default=None)


@contextlib.contextmanager
def source(label: str | None) -> Iterator[None]:
    """Nodes made inside carry `label` (a layer's name), which errors and `explain()` show."""
    token = _source.set(label)
    try:
        yield
    finally:
        _source.reset(token)


_recorders: contextvars.ContextVar[tuple[set[Node], ...]] = contextvars.ContextVar("recorders", default=())


@contextlib.contextmanager
def recording() -> Iterator[set[Node]]:
    """The set of all nodes that are asked for inside, new ones and known ones."""
    found: set[Node] = set()
    token = _recorders.set((*_recorders.get(), found))
    try:
        yield found
    finally:
        _recorders.reset(token)


class Constant:
    """A hashable, read-only array as an attribute of a `constant` node."""

    __slots__ = ("value", "_key")

    def __init__(self, value: Any):
        array = np.array(value)
        array.setflags(write=False)
        self.value = array
        self._key = (array.dtype.name, array.shape, array.tobytes())

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Constant) and self._key == other._key

    def __hash__(self) -> int:
        return hash(self._key)

    def __repr__(self) -> str:
        return f"Constant({self.value.tolist()!r})" if self.value.size <= 8 else f"Constant(<{self.value.shape}>)"


def _identity(value: Any) -> Any:
    """A key under which 1, 1.0 and True differ."""
    if isinstance(value, tuple):
        return tuple(_identity(item) for item in value)
    return (type(value), value)


def _frozen(value: Any) -> Any:
    if isinstance(value, (list, tuple)):
        return tuple(_frozen(item) for item in value)
    if isinstance(value, np.generic):
        return value.item()
    if isinstance(value, np.ndarray):
        return Constant(value)
    return value


class Node:
    """One immutable graph node: op, inputs, attributes, type. Made by `node()` or by calling an op."""

    __slots__ = ("op", "inputs", "attrs", "type", "source", "__weakref__")
    __array_priority__ = 1000

    op: Any
    inputs: tuple[Node, ...]
    attrs: Mapping[str, Any]
    type: Type
    source: str | None

    def __setattr__(self, name: str, value: Any) -> None:
        raise AttributeError("graph nodes are immutable")

    @property
    def shape(self) -> tuple:
        return self.type.shape  # type: ignore[union-attr]

    @property
    def dtype(self) -> str:
        return self.type.dtype  # type: ignore[union-attr]

    @property
    def ndim(self) -> int:
        return len(self.shape)

    def __repr__(self) -> str:
        return f"<{self.op.name} : {self.type}{' of ' + self.source if self.source else ''}>"

    # Arithmetic operators are attached by kerasoft.compiler.ops.arithmetic.

    def __bool__(self) -> bool:
        raise TypeError(
            f"the value of a symbolic {self.type} is not known while the graph is built; "
            "use ops.where or ops.cond instead of `if`"
        )

    def __array__(self, *_, **__):
        raise TypeError(f"a symbolic {self.type} has no NumPy value while the graph is built; use kerasoft.ops")

    def __iter__(self):
        if not self.shape or not isinstance(self.shape[0], int):
            raise TypeError(f"cannot iterate over the first axis of a symbolic {self.type}")
        return (self[i] for i in range(self.shape[0]))  # type: ignore[index]


_interned: weakref.WeakValueDictionary[Any, Node] = weakref.WeakValueDictionary()


def node(op: Any, inputs: Sequence[Node], attrs: Mapping[str, Any], type: Type | None = None) -> Node:
    """The node of these parts; the same object for the same parts. `type=None` asks the op."""
    inputs = tuple(inputs)
    frozen = {name: _frozen(attrs[name]) for name in sorted(attrs)}
    leaf = type if not inputs else None
    key = (op, tuple(map(id, inputs)), tuple((k, _identity(v)) for k, v in frozen.items()), leaf)
    made = _interned.get(key)
    if made is None:
        if type is None:
            type = op.infer(inputs, frozen)
        label = None if op.name == "constant" else _source.get()  # constants are shared by everybody
        made = object.__new__(Node)
        for name, value in (("op", op), ("inputs", inputs), ("attrs", frozen), ("type", type), ("source", label)):
            object.__setattr__(made, name, value)
        made = _interned.setdefault(key, made)
    for recorder in _recorders.get():
        recorder.add(made)
    return made


def topological(outputs: Iterable[Node]) -> list[Node]:
    """All ancestors of `outputs` and themselves, inputs before users, in one reproducible order."""
    order: list[Node] = []
    seen: set[Node] = set()
    stack = [(n, False) for n in reversed(list(outputs))]
    while stack:
        current, expanded = stack.pop()
        if expanded:
            order.append(current)
        elif current not in seen:
            seen.add(current)
            stack.append((current, True))
            stack.extend((i, False) for i in reversed(current.inputs) if i not in seen)
    return order


@dataclasses.dataclass(frozen=True)
class Graph:
    """Named inputs and named outputs; the nodes are what the outputs need.

    `inputs` are `input` nodes in calling order (an input may be unused). `param` nodes are found in `nodes`.
    """

    inputs: tuple[Node, ...]
    outputs: tuple[Node, ...]
    output_names: tuple[str, ...]

    @functools.cached_property
    def nodes(self) -> list[Node]:
        return topological(self.outputs)

    @property
    def params(self) -> list[Node]:
        return [n for n in self.nodes if n.op.name == "param"]

    def replace(self, mapping: Mapping[Node, Node]) -> Graph:
        """The graph with each key node replaced by its value, users rebuilt; the same object when nothing changes."""
        if not mapping:
            return self
        new: dict[Node, Node] = {}
        for n in self.nodes:
            if n in mapping:
                new[n] = mapping[n]
            else:
                inputs = tuple(new[i] for i in n.inputs)
                new[n] = n if inputs == n.inputs else rebuilt(n, inputs)
        outputs = tuple(new[o] for o in self.outputs)
        return self if outputs == self.outputs else dataclasses.replace(self, outputs=outputs)


def inner_graphs(n: Node) -> list[Graph]:
    """The graphs among a node's attributes: bodies of loops and branches (also of an op whose gradient the node is)."""
    found: list[Graph] = []
    stack = list(n.attrs.values())
    while stack:
        value = stack.pop()
        if isinstance(value, Graph):
            found.append(value)
        elif isinstance(value, tuple):
            stack += value
    return found[::-1]


def walk(graph: Graph) -> Iterator[Node]:
    """All nodes of a graph and of the graphs inside its nodes."""
    for n in graph.nodes:
        yield n
        for inner in inner_graphs(n):
            yield from walk(inner)


def rebuilt(old: Node, inputs: Sequence[Node]) -> Node:
    """`old` with other inputs; keeps its source."""
    token = _source.set(old.source)
    try:
        return node(old.op, inputs, old.attrs, None if inputs else old.type)
    finally:
        _source.reset(token)

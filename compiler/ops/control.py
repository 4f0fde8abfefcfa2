"""Ops that hold a graph or a function: scan, cond, while_loop, and a raw JAX function as an op.

The functions given to `scan`, `cond` and `while_loop` are traced once, on `input` nodes. What they read from outside
(weights, other nodes) becomes an input of the inner graph.
"""

from __future__ import annotations

import contextvars
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp

from ..errors import ShapeError
from ..ir import Graph, Node, TensorType
from .registry import VJP, as_nodes, input_node, items, op

_depth: contextvars.ContextVar[int] = contextvars.ContextVar("depth", default=0)


def _run(body: Graph, arrays: Sequence[Any]) -> tuple:
    from ..lower import evaluate, sizes_of

    known = dict(zip(body.inputs, arrays))
    evaluate(body.nodes, known, sizes_of(body.inputs, arrays))
    return tuple(known[o] for o in body.outputs)


def _traced(function: Callable, types: Sequence[TensorType], label: str) -> tuple[list[Node], list[Node]]:
    """Calls `function` on new input nodes: those nodes and the nodes it returned."""
    depth = _depth.get()
    inputs = [input_node(f"{label}{depth}/{i}", t.shape, t.dtype) for i, t in enumerate(types)]
    token = _depth.set(depth + 1)
    try:
        outputs = function(*inputs)
    finally:
        _depth.reset(token)
    return inputs, as_nodes(list(outputs))


def _closed(inputs: Sequence[Node], outputs: Sequence[Node], label: str) -> tuple[Graph, list[Node]]:
    """A graph of `inputs` and of what its nodes read from outside; and the nodes outside, in order."""
    graph = Graph(tuple(inputs), tuple(outputs), tuple(f"out/{i}" for i in range(len(outputs))))
    inner = set(inputs)
    for n in graph.nodes:
        if any(i in inner for i in n.inputs):
            inner.add(n)
    outside: dict[Node, Node] = {}
    depth = _depth.get()

    def inside(n: Node) -> None:
        if n not in inner and n not in outside and n.op.name != "constant":
            outside[n] = input_node(f"{label}{depth}/outside{len(outside)}", n.shape, n.dtype)

    for n in graph.nodes:
        if n in inner:
            for i in n.inputs:
                inside(i)
    for o in outputs:
        inside(o)
    closed = graph.replace(outside)
    return Graph((*inputs, *outside.values()), closed.outputs, closed.output_names), list(outside)


# --- scan ---------------------------------------------------------------------------------------------------------


def _scan_lower(*inputs: Any, body: Graph, carried: int, scanned: int, length: Any, reverse: bool) -> tuple:
    """Runs `body` along the first axis: carry.., xs (t, ..).., outside.. -> carry.., ys (t, ..)..

    `body` takes carry, one cell of each xs and outside values, and gives the new carry and one cell of each ys.
    """
    carry, xs, outside = inputs[:carried], inputs[carried : carried + scanned], inputs[carried + scanned :]
    kept = [jnp.asarray(c) for c in carry]

    def step(state: Any, cells: Any) -> Any:
        out = _run(body, (*state, *cells, *outside))
        return list(out[:carried]), list(out[carried:])

    last, ys = jax.lax.scan(step, kept, list(map(jnp.asarray, xs)), length=length, reverse=reverse)
    return (*last, *ys)


scan_op = op("scan", lower=_scan_lower, gradient=VJP)


def scan(
    function: Callable, init: Sequence[Any], xs: Sequence[Any] = (), length: Any = None, reverse: bool = False
) -> tuple[list, list]:
    """Runs a step along the first axis of `xs`.

    Args:
        function: ``function(carry, cells) -> (carry, ys)``, lists of values; carry keeps its shapes and dtypes.
        init: the first carry.
        xs: values whose first axis is walked along.
        length: the number of steps when there are no xs.
        reverse: from the last cell to the first.

    Returns:
        The last carry and each step's ys, along a new first axis.

    Raises:
        ShapeError: a carry changes its shape or dtype.
    """
    init, xs = list(init), list(xs)
    if not any(isinstance(v, Node) for v in (*init, *xs)):
        first = [jnp.asarray(v) for v in init]

        def step(carry: Any, cell: Any) -> Any:
            new, out = function(list(carry), list(cell))
            return list(new), list(out)

        last, ys = jax.lax.scan(step, first, [jnp.asarray(v) for v in xs], length=length, reverse=reverse)
        return list(last), list(ys)
    nodes = as_nodes([*init, *xs])
    cells = [TensorType(n.shape[1:], n.dtype) for n in nodes[len(init) :]]
    types = [*(n.type for n in nodes[: len(init)]), *cells]
    counted = 0

    def flat(*values: Node) -> list:
        nonlocal counted
        carry, ys = function(list(values[: len(init)]), list(values[len(init) :]))
        counted = len(ys)
        return [*carry, *ys]

    inputs, outputs = _traced(flat, types, "scan")  # type: ignore[arg-type]
    for i, (old, new) in enumerate(zip(inputs, outputs[: len(init)])):
        if old.type != new.type:
            raise ShapeError(f"carry {i} of scan is {old.type} before a step and {new.type} after it; keep it the same")
    body, outside = _closed(inputs, outputs, "scan")
    made = scan_op(
        *nodes, *outside, body=body, carried=len(init), scanned=len(xs), length=length, reverse=bool(reverse)
    )
    results = list(items(made))
    return results[: len(init)], results[len(init) :]


# --- branches and loops -------------------------------------------------------------------------------------------


def _cond_lower(predicate: Any, *inputs: Any, true: Graph, false: Graph, split: int) -> tuple:
    """The results of one of two graphs: bool (), inputs of the first, of the second -> results.."""
    return jax.lax.cond(
        jnp.reshape(jnp.asarray(predicate).astype(bool), ()),
        lambda given: _run(true, given[:split]),
        lambda given: _run(false, given[split:]),
        tuple(map(jnp.asarray, inputs)),
    )


cond_op = op("cond", lower=_cond_lower, gradient=VJP)


def cond(predicate: Any, true_function: Callable, false_function: Callable) -> Any:
    """``true_function()`` where the scalar `predicate` holds, else ``false_function()``: one value or a tuple.

    Raises:
        ShapeError: the two give values of different types.
    """
    if not isinstance(predicate, Node):
        return true_function() if bool(predicate) else false_function()
    results, graphs, given = [], [], []
    for function in (true_function, false_function):
        token = _depth.set(_depth.get() + 1)
        try:
            result = function()
        finally:
            _depth.reset(token)
        outputs = as_nodes(list(result) if isinstance(result, (tuple, list)) else [result])
        body, outside = _closed((), outputs, "cond")
        results.append((result, outputs))
        graphs.append(body)
        given.append(outside)
    types = [[o.type for o in outputs] for _, outputs in results]
    if types[0] != types[1]:
        shown = [", ".join(map(str, t)) for t in types]
        raise ShapeError(f"the branches of cond give different types: ({shown[0]}) and ({shown[1]})")
    made = cond_op(predicate, *given[0], *given[1], true=graphs[0], false=graphs[1], split=len(given[0]))
    values = items(made)
    return values if isinstance(results[0][0], (tuple, list)) else values[0]


def _while_lower(*inputs: Any, test: Graph, body: Graph, carried: int, tested: int) -> tuple:
    """Repeats `body` on the carry while `test` holds: carry.., outside of test.., outside of body.. -> carry.."""
    for_test, for_body = inputs[carried : carried + tested], inputs[carried + tested :]
    return tuple(
        jax.lax.while_loop(
            lambda c: jnp.reshape(_run(test, (*c, *for_test))[0], ()),
            lambda c: _run(body, (*c, *for_body)),
            tuple(jnp.asarray(v) for v in inputs[:carried]),
        )
    )


while_op = op("while_loop", lower=_while_lower)


def while_loop(test: Callable, body: Callable, init: Sequence[Any]) -> tuple:
    """The carry after repeating ``carry = body(*carry)`` while ``test(*carry)``; has no gradient.

    Raises:
        ShapeError: a carry changes its shape or dtype.
    """
    init = list(init)
    if not any(isinstance(v, Node) for v in init):
        return tuple(jax.lax.while_loop(lambda c: test(*c), lambda c: tuple(body(*c)), tuple(map(jnp.asarray, init))))
    nodes = as_nodes(init)
    types = [n.type for n in nodes]
    inputs, outputs = _traced(lambda *c: body(*c), types, "while")  # type: ignore[arg-type]
    for i, (old, new) in enumerate(zip(inputs, outputs)):
        if old.type != new.type:
            raise ShapeError(f"carry {i} of while_loop is {old.type} before and {new.type} after; keep it the same")
    tests, holds = _traced(lambda *c: [test(*c)], types, "while")  # type: ignore[arg-type]
    test_graph, for_test = _closed(tests, holds, "while")
    body_graph, for_body = _closed(inputs, outputs, "while")
    return items(
        while_op(
            *nodes, *for_test, *for_body, test=test_graph, body=body_graph, carried=len(nodes), tested=len(for_test)
        )
    )


# --- raw JAX ------------------------------------------------------------------------------------------------------


def _jax_lower(*inputs: Any, function: Callable) -> Any:
    """``function(*inputs)``, a user's own JAX code; gradient by JAX."""
    out = function(*map(jnp.asarray, inputs))
    return tuple(out) if isinstance(out, (tuple, list)) else out


jax_call = op("jax_call", lower=_jax_lower, gradient=VJP)


def from_jax(function: Callable) -> Callable:
    """An op from a JAX function of arrays to an array or a tuple of arrays; it works on nodes and on arrays.

    The function must be pure. Its graph node holds the function itself: it can be exported but not printed and parsed.
    """

    def call(*inputs: Any) -> Any:
        made = jax_call(*inputs, function=function)
        return items(made) if isinstance(made, (Node, tuple)) and not _single(made) else made

    call.__name__ = getattr(function, "__name__", "from_jax")
    call.__doc__ = function.__doc__
    return call


def _single(value: Any) -> bool:
    return isinstance(value, Node) and isinstance(value.type, TensorType)


def map_rows(function: Callable, xs: Any) -> Any:
    """``function`` applied to each cell of the first axis of `xs`, stacked: (n, ..) -> (n, ..)."""
    _, ys = scan(lambda carry, cells: ([], [function(cells[0])]), [], [xs])
    return ys[0]

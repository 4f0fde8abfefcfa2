"""Reverse-mode differentiation on the graph: one rule per op, so passes see the backward pass too."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from .errors import GradientError
from .ir import Node, TensorType, TupleType, source, topological
from .ir import node as make_node
from .ops import arithmetic, shape
from .ops.registry import VJP, item, vjp_op
from .rematerialization import Recomputation, Segment


def gradient(
    cotangents: Mapping[Node, Node], wrt: Sequence[Node], segments: Sequence[Segment] = ()
) -> list[Node | None]:
    """Gradients of the sum of ``<output, cotangent>`` for each node in `wrt`; None where nothing depends on it.

    Args:
        cotangents: for each output node, the node that arrives as its gradient (same type).
        wrt: nodes of float type.
        segments: what is computed again rather than kept (`rematerialization`).

    Raises:
        GradientError: a path to a `wrt` node goes through an op without a gradient; or a cotangent, a `wrt` node or an
            op's own rule is of the wrong type.

    >>> from kerasoft.compiler.ops.registry import constant, input_node
    >>> x = input_node("x", (3,), "float32")
    >>> y = shape.sum(x * x)
    >>> gradient({y: constant(1.0)}, [x])
    [<add : float32[3]>]
    """
    for out, dy in cotangents.items():
        if out.type != dy.type:
            raise GradientError(f"the cotangent of {out!r} has type {dy.type}, expected {out.type}")
    for w in wrt:
        if not isinstance(w.type, TensorType) or not w.type.is_float:
            raise GradientError(f"gradients exist for floating-point arrays only, got {w!r}")
    order = topological(cotangents)
    depends: set[Node] = set()
    targets = set(wrt)
    for n in order:
        if n in targets or any(i in depends for i in n.inputs):
            depends.add(n)
    again = Recomputation(segments, order)
    grads: dict[Node, Any] = {}
    for out, dy in cotangents.items():
        _add(grads, out, dy)
    for n in reversed(order):
        arrived = grads.get(n)
        if n not in depends or arrived is None or not n.inputs:
            continue
        with source(n.source and f"gradient of {n.source}"):
            stand_in = again.for_rule(n, arrived)
            differed = {i for i, x in zip(stand_in.inputs, n.inputs) if x in depends}
            for i, (x, dx) in enumerate(zip(n.inputs, _rule(stand_in, arrived, differed))):
                if dx is None or x not in depends:
                    continue
                if isinstance(x.type, TensorType):
                    if not x.type.is_inexact:
                        continue
                    if dx.type != x.type:
                        raise GradientError(
                            f"the gradient of {_named(n)} for input {i} has type {dx.type}, expected {x.type}"
                        )
                _add(grads, x, dx)
    found = [grads.get(w) for w in wrt]
    return again.settled(found) if segments else found


def _rule(n: Node, dy, depends) -> tuple:
    if n.op.gradient is VJP:
        return vjp(n, dy, depends)
    if n.op.gradient is None:
        if isinstance(n.type, TensorType) and not n.type.is_inexact:
            return (None,) * len(n.inputs)
        raise GradientError(
            f"{_named(n)} has no gradient, and a weight is reached only through it; "
            "if that weight should not learn, wrap the value in stop_gradient"
        )
    dxs = n.op.gradient(n, dy)
    if len(dxs) != len(n.inputs):
        raise GradientError(f"the gradient of {_named(n)} gave {len(dxs)} results for {len(n.inputs)} inputs")
    return dxs


def _named(n: Node) -> str:
    return f"op {n.op.name!r}{' of ' + repr(n.source) if n.source else ''}"


def vjp(n: Node, dy, depends=None) -> tuple:
    """The rule `VJP`: JAX's vector-Jacobian product of the lowering, as one node."""
    wrt = tuple(
        i
        for i, x in enumerate(n.inputs)
        if isinstance(x.type, TensorType) and x.type.is_inexact and (depends is None or x in depends)
    )
    if not wrt:
        return (None,) * len(n.inputs)
    if isinstance(n.type, TupleType):
        cots = [d if d is not None else zeros_like_type(n, i) for i, d in enumerate(dy)]
    else:
        cots = [dy]
    attrs = {"of": n.op.name, "attrs": tuple(n.attrs.items()), "wrt": wrt, "count": len(n.inputs)}
    packed = make_node(vjp_op, (*n.inputs, *cots), attrs)
    out: list = [None] * len(n.inputs)
    for k, i in enumerate(wrt):
        out[i] = item(packed, k)
    return tuple(out)


def zeros_like_type(n: Node, index: int) -> Node:
    """A zero of the type of result `index` of `n`."""
    return shape.zeros_like(item(n, index))


def _add(grads: dict[Node, Any], key: Node, dy: Any) -> None:
    old = grads.get(key)
    if old is None:
        grads[key] = dy
    elif isinstance(dy, tuple):
        grads[key] = tuple(b if a is None else a if b is None else arithmetic.add(a, b) for a, b in zip(old, dy))
    else:
        grads[key] = arithmetic.add(old, dy)

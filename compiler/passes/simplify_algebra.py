"""Identities that save work without changing a bit."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from ..ir import Node
from ..ops import arithmetic, shape
from ..ops.registry import constant
from .pass_base import Rule, RulePass

ELEMENTWISE_PAIRS = ("add", "subtract", "multiply", "divide", "maximum", "minimum")


class SimplifyAlgebra(RulePass):
    """Applies the identities of the table at the end of this file.

    Keeps: inputs, outputs, types and values: every identity holds in floating point, with NaN, infinities and rounding,
    except that ``x + 0`` and ``x - 0`` keep a negative zero that the sum would have made positive.
    Needs: nothing. Gain: gradients come with many of these (seeds of one, zeros of unread paths, repeats and sums of
    broadcasting, double transposes); on a dense network's training graph about one node in six goes.
    """

    @property
    def rules(self) -> tuple[Rule, ...]:  # type: ignore[override]
        return RULES


# --- looking -----------------------------------------------------------------------------------------------------------


def uniform(n: Node) -> float | None:
    """The one number that all elements of `n` have, if that is known."""
    while n.op.name in ("broadcast_to", "reshape", "transpose", "cast"):
        if n.op.name == "cast" and not (n.type.is_float and n.inputs[0].type.is_float):  # type: ignore[union-attr]
            return None
        n = n.inputs[0]
    if n.op.name == "full":
        value = n.attrs["value"]
        return float(value) if np.ndim(value) == 0 else None
    if n.op.name in ("zeros_like", "ones_like"):
        return float(n.op.name == "ones_like")
    if n.op.name == "constant":
        array = n.attrs["value"].value
        if array.size and array.dtype.kind in "fiub" and np.all(array == array.flat[0]):
            return float(array.flat[0])
    return None


def _operand(op: str, position: int, value: float) -> Callable[[Node], Node | None]:
    """Finds ``op(.., value, ..)`` with `value` at `position`; gives the other operand if it has the result's type."""

    def find(n: Node) -> Node | None:
        if n.op.name != op or uniform(n.inputs[position]) != value:
            return None
        other = n.inputs[1 - position]
        return other if other.type == n.type else None

    return find


def _same_type(op: str) -> Callable[[Node], Node | None]:
    return lambda n: n.inputs[0] if n.op.name == op and n.inputs[0].type == n.type else None


def _pair(outer: str, inner: str) -> Callable[[Node], Node | None]:
    """Finds ``outer(inner(x))``; gives the inner node."""
    return lambda n: n.inputs[0] if n.op.name == outer and n.inputs[0].op.name == inner else None


def _negated(op: str, position: int) -> Callable[[Node], tuple[Node, Node] | None]:
    def find(n: Node) -> tuple[Node, Node] | None:
        if n.op.name != op or n.inputs[position].op.name != "negative":
            return None
        return n.inputs[1 - position], n.inputs[position].inputs[0]

    return find


def _find_repeat(n: Node) -> tuple[int, Node] | None:
    """An operand that is repeated along axes although the op would do that itself."""
    if n.op.name not in ELEMENTWISE_PAIRS:
        return None
    for position, x in enumerate(n.inputs):
        other = n.inputs[1 - position]
        if x.op.name == "broadcast_to" and other.shape == n.shape:
            return position, x.inputs[0]
    return None


def _find_sum_of_repeats(n: Node) -> bool | None:
    return True if n.op.name == "sum" and uniform(n.inputs[0]) == 0 else None


def _find_widening(n: Node) -> Node | None:
    """``cast(cast(x))`` whose inner conversion loses nothing."""
    inner = _pair("cast", "cast")(n)
    if inner is None:
        return None
    start, middle = (np.dtype(t.dtype) for t in (inner.inputs[0].type, inner.type))  # type: ignore[union-attr]
    return inner.inputs[0] if np.can_cast(start, middle, "safe") else None


# --- replacing ---------------------------------------------------------------------------------------------------------


def _give(n: Node, found: Node) -> Node:
    return found


def _zeros(n: Node, found: Any) -> Node:
    return shape.broadcast_to(constant(0, n.dtype), shape=n.shape)


def _like(value: int) -> Callable[[Node, Any], Node]:
    return lambda n, found: shape.broadcast_to(constant(value, n.dtype), shape=n.shape)


def _with_operand(n: Node, found: tuple[int, Node]) -> Node:
    position, x = found
    inputs = [x if i == position else v for i, v in enumerate(n.inputs)]
    return n.op(*inputs)


def _composed(n: Node, inner: Node) -> Node:
    axes = tuple(inner.attrs["axes"][a] for a in n.attrs["axes"])
    return shape.transpose(inner.inputs[0], axes)


def _identity_transpose(n: Node) -> Node | None:
    if n.op.name == "transpose" and n.attrs["axes"] == tuple(range(n.ndim)):
        return n.inputs[0]
    return None


def _scalar_reshape(n: Node) -> Node | None:
    """A repeat of a reshaped single element: the reshape is not needed."""
    inner = _pair("broadcast_to", "reshape")(n)
    return inner.inputs[0] if inner is not None and inner.inputs[0].shape == () else None


def _no_axes(n: Node) -> Node | None:
    return n.inputs[0] if n.op.name == "sum" and n.attrs.get("axis") == () else None


def _sum_of_ones_axes(n: Node) -> Node | None:
    """A sum over axes of size 1."""
    if n.op.name != "sum" or n.attrs.get("axis") is None:
        return None
    x = n.inputs[0]
    return x if all(x.shape[a] == 1 for a in shape.reduced_axes(x, n.attrs["axis"])) else None


RULES = (
    Rule("x * 1 = x", _operand("multiply", 1, 1), _give),
    Rule("1 * x = x", _operand("multiply", 0, 1), _give),
    Rule("x / 1 = x", _operand("divide", 1, 1), _give),
    Rule("x + 0 = x", _operand("add", 1, 0), _give),
    Rule("0 + x = x", _operand("add", 0, 0), _give),
    Rule("x - 0 = x", _operand("subtract", 1, 0), _give),
    Rule("x ** 1 = x", _operand("power", 1, 1), _give),
    Rule("x * -1 = -x", _operand("multiply", 1, -1), lambda n, x: arithmetic.negative(x)),
    Rule("-1 * x = -x", _operand("multiply", 0, -1), lambda n, x: arithmetic.negative(x)),
    Rule("-(-x) = x", _pair("negative", "negative"), lambda n, inner: inner.inputs[0]),
    Rule("x + (-y) = x - y", _negated("add", 1), lambda n, xy: arithmetic.subtract(*xy)),
    Rule("(-y) + x = x - y", _negated("add", 0), lambda n, xy: arithmetic.subtract(*xy)),
    Rule("x - (-y) = x + y", _negated("subtract", 1), lambda n, xy: arithmetic.add(*xy)),
    Rule("zeros_like(x) = 0", lambda n: True if n.op.name == "zeros_like" else None, _like(0)),
    Rule("ones_like(x) = 1", lambda n: True if n.op.name == "ones_like" else None, _like(1)),
    Rule("sum(0) = 0", _find_sum_of_repeats, _zeros),
    Rule("sum over no axes", _no_axes, _give),
    Rule("sum over axes of size 1", _sum_of_ones_axes, lambda n, x: shape.reshape(x, shape=n.shape)),
    Rule("cast to the same", _same_type("cast"), _give),
    Rule("cast(cast(x))", _find_widening, lambda n, x: shape.cast(x, n.dtype)),
    Rule("reshape to the same", _same_type("reshape"), _give),
    Rule("reshape(reshape(x))", _pair("reshape", "reshape"), lambda n, i: shape.reshape(i.inputs[0], shape=n.shape)),
    Rule("repeat to the same", _same_type("broadcast_to"), _give),
    Rule("repeat(repeat(x))", _pair("broadcast_to", "broadcast_to"), lambda n, i: shape.broadcast_to(i.inputs[0], shape=n.shape)),
    Rule("repeat(reshape(scalar))", _scalar_reshape, lambda n, x: shape.broadcast_to(x, shape=n.shape)),
    Rule("op(repeat(x), y) = op(x, y)", _find_repeat, _with_operand),
    Rule("transpose to the same", _identity_transpose, _give),
    Rule("transpose(transpose(x))", _pair("transpose", "transpose"), _composed),
    Rule("stop_gradient(x) = x", lambda n: n.inputs[0] if n.op.name == "stop_gradient" else None, _give),
)  # fmt: skip

"""Elementwise arithmetic with NumPy broadcasting and promotion.

A rule gives the gradient on the result's shape; it is summed over broadcast axes and cast to the input's dtype here.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from ..ir import Node
from . import rules, shape
from .registry import Op, op
from .shape import cast, no_gradient

Rule = Callable[..., Node]


def _binary(name: str, lower: Callable, doc: str, left: Rule | None = None, right: Rule | None = None) -> Op:
    """An op of two arrays; `left(a, b, y, dy)` and `right(...)` are the gradients for a and b, None for zero."""

    def gradient(n: Node, dy: Node) -> tuple:
        return tuple(
            shape.unbroadcast(rule(*n.inputs, n, dy), x) if rule is not None and x.type.is_inexact else None  # type: ignore
            for x, rule in zip(n.inputs, (left, right))
        )

    return op(name, lower=lower, gradient=gradient, result=rules.together, doc=f"{doc}: (...), (...) -> (...).")


def _unary(name: str, lower: Callable, doc: str, rule: Rule | None = None) -> Op:
    """An op of one array; `rule(x, y, dy)` is its gradient, None for zero."""

    def gradient(n: Node, dy: Node) -> tuple:
        x = n.inputs[0]
        return (cast(rule(x, n, dy), x.dtype) if rule is not None and x.type.is_inexact else None,)  # type: ignore

    return op(name, lower=lower, gradient=gradient, result=rules.as_first, doc=f"{doc}: (...) -> (...).")


def _logical(name: str, lower: Callable, doc: str) -> Op:
    return op(name, lower=lower, result=rules.compared, doc=f"{doc}: (...) -> bool (...).")


# --- two arrays ---------------------------------------------------------------------------------------------------

add = _binary("add", jnp.add, "a + b", lambda a, b, y, dy: dy, lambda a, b, y, dy: dy)
subtract = _binary("subtract", jnp.subtract, "a - b", lambda a, b, y, dy: dy, lambda a, b, y, dy: negative(dy))
multiply = _binary(
    "multiply",
    jnp.multiply,
    "a * b",
    lambda a, b, y, dy: multiply(dy, b),
    lambda a, b, y, dy: multiply(dy, a),
)
divide = _binary(
    "divide",
    jnp.divide,
    "a / b",
    lambda a, b, y, dy: divide(dy, b),
    lambda a, b, y, dy: negative(divide(multiply(dy, y), b)),
)
divide_no_nan = _binary(
    "divide_no_nan",
    lambda a, b: jnp.where(b == 0, 0, jnp.divide(a, jnp.where(b == 0, 1, b))),
    "a / b, 0 where b is 0",
    lambda a, b, y, dy: divide_no_nan(dy, b),
    lambda a, b, y, dy: negative(divide_no_nan(multiply(dy, y), b)),
)
floor_divide = _binary("floor_divide", jnp.floor_divide, "floor(a / b)")
mod = _binary(
    "mod",
    jnp.mod,
    "a - b * floor(a / b), of b's sign",
    lambda a, b, y, dy: dy,
    lambda a, b, y, dy: negative(multiply(dy, floor_divide(a, b))),
)
power = _binary(
    "power",
    jnp.power,
    "a ** b",
    lambda a, b, y, dy: multiply(dy, _power_slope(a, b)),
    lambda a, b, y, dy: multiply(dy, multiply(y, log(where(equal(a, 0), ones_like(a), a)))),
)
maximum = _binary(
    "maximum",
    jnp.maximum,
    "the larger of a and b (half the gradient to each where equal)",
    lambda a, b, y, dy: multiply(dy, _chosen(a, b, greater)),
    lambda a, b, y, dy: multiply(dy, _chosen(b, a, greater)),
)
minimum = _binary(
    "minimum",
    jnp.minimum,
    "the smaller of a and b (half the gradient to each where equal)",
    lambda a, b, y, dy: multiply(dy, _chosen(a, b, less)),
    lambda a, b, y, dy: multiply(dy, _chosen(b, a, less)),
)
atan2 = _binary(
    "atan2",
    jnp.arctan2,
    "the angle of the point (b, a)",
    lambda a, b, y, dy: divide(multiply(dy, b), add(square(a), square(b))),
    lambda a, b, y, dy: negative(divide(multiply(dy, a), add(square(a), square(b)))),
)
logaddexp = _binary(
    "logaddexp",
    jnp.logaddexp,
    "log(exp(a) + exp(b))",
    lambda a, b, y, dy: multiply(dy, exp(subtract(a, y))),
    lambda a, b, y, dy: multiply(dy, exp(subtract(b, y))),
)
equal = _logical("equal", jnp.equal, "a equals b")
not_equal = _logical("not_equal", jnp.not_equal, "a differs from b")
greater = _logical("greater", jnp.greater, "a > b")
greater_equal = _logical("greater_equal", jnp.greater_equal, "a >= b")
less = _logical("less", jnp.less, "a < b")
less_equal = _logical("less_equal", jnp.less_equal, "a <= b")
logical_and = _logical("logical_and", jnp.logical_and, "a and b")
logical_or = _logical("logical_or", jnp.logical_or, "a or b")
logical_xor = _logical("logical_xor", jnp.logical_xor, "exactly one of a and b")
logical_not = _logical("logical_not", jnp.logical_not, "not x")
isnan = _logical("isnan", jnp.isnan, "x is NaN")
isinf = _logical("isinf", jnp.isinf, "x is infinite")
isfinite = _logical("isfinite", jnp.isfinite, "x is neither infinite nor NaN")
bitwise_and = op("bitwise_and", lower=jnp.bitwise_and, doc="a & b of integers: (...), (...) -> (...).")
bitwise_or = op("bitwise_or", lower=jnp.bitwise_or, doc="a | b of integers: (...), (...) -> (...).")
bitwise_xor = op("bitwise_xor", lower=jnp.bitwise_xor, doc="a ^ b of integers: (...), (...) -> (...).")
left_shift = op("left_shift", lower=jnp.left_shift, doc="a << b of integers: (...), (...) -> (...).")
right_shift = op("right_shift", lower=jnp.right_shift, doc="a >> b of integers: (...), (...) -> (...).")


def _power_slope(a: Node, b: Node) -> Node:
    """d(a ** b)/da = b * a ** (b - 1), and 0 where b is 0."""
    if b.op.name == "constant" and b.attrs["value"].value.size == 1:
        exponent = b.attrs["value"].value.item()
        if exponent == 0:
            return zeros_like(a)
        if exponent == 2:
            return multiply(a, 2)
        return multiply(power(a, exponent - 1), exponent)
    zero = equal(b, 0)
    return where(zero, zeros_like(b), multiply(b, power(a, where(zero, ones_like(b), subtract(b, 1)))))


def _chosen(a: Node, b: Node, wins: Op) -> Node:
    """1 where a wins, 0.5 where a and b are equal, else 0."""
    dtype = a.dtype if a.type.is_float else b.dtype  # type: ignore[union-attr]
    return add(cast(wins(a, b), dtype), multiply(cast(equal(a, b), dtype), 0.5))


# --- one array ----------------------------------------------------------------------------------------------------

negative = _unary("negative", jnp.negative, "-x", lambda x, y, dy: negative(dy))
absolute = _unary("absolute", jnp.absolute, "|x|", lambda x, y, dy: where(greater_equal(x, 0), dy, negative(dy)))
sign = _unary("sign", jnp.sign, "-1, 0 or 1")
square = _unary("square", jnp.square, "x * x", lambda x, y, dy: multiply(dy, multiply(x, 2)))
sqrt = _unary("sqrt", jnp.sqrt, "the square root", lambda x, y, dy: divide(multiply(dy, 0.5), y))
rsqrt = _unary(
    "rsqrt",
    lambda x: jax.lax.rsqrt(_floating(x)),
    "1 / sqrt(x)",
    lambda x, y, dy: multiply(multiply(dy, -0.5), divide(y, x)),
)
reciprocal = _unary("reciprocal", jnp.reciprocal, "1 / x", lambda x, y, dy: negative(multiply(dy, square(y))))
exp = _unary("exp", jnp.exp, "e ** x", lambda x, y, dy: multiply(dy, y))
exp2 = _unary("exp2", jnp.exp2, "2 ** x", lambda x, y, dy: multiply(dy, multiply(y, math.log(2))))
expm1 = _unary("expm1", jnp.expm1, "e ** x - 1", lambda x, y, dy: multiply(dy, add(y, 1)))
log = _unary("log", jnp.log, "the natural logarithm", lambda x, y, dy: divide(dy, x))
log1p = _unary("log1p", jnp.log1p, "log(1 + x)", lambda x, y, dy: divide(dy, add(x, 1)))
log2 = _unary("log2", jnp.log2, "the logarithm to base 2", lambda x, y, dy: divide(dy, multiply(x, math.log(2))))
log10 = _unary("log10", jnp.log10, "the logarithm to base 10", lambda x, y, dy: divide(dy, multiply(x, math.log(10))))
sin = _unary("sin", jnp.sin, "the sine", lambda x, y, dy: multiply(dy, cos(x)))
cos = _unary("cos", jnp.cos, "the cosine", lambda x, y, dy: negative(multiply(dy, sin(x))))
tan = _unary("tan", jnp.tan, "the tangent", lambda x, y, dy: multiply(dy, add(square(y), 1)))
sinh = _unary("sinh", jnp.sinh, "the hyperbolic sine", lambda x, y, dy: multiply(dy, cosh(x)))
cosh = _unary("cosh", jnp.cosh, "the hyperbolic cosine", lambda x, y, dy: multiply(dy, sinh(x)))
tanh = _unary("tanh", jnp.tanh, "the hyperbolic tangent", lambda x, y, dy: multiply(dy, subtract(1, square(y))))
asin = _unary("asin", jnp.arcsin, "the arc sine", lambda x, y, dy: multiply(dy, rsqrt(subtract(1, square(x)))))
acos = _unary(
    "acos", jnp.arccos, "the arc cosine", lambda x, y, dy: negative(multiply(dy, rsqrt(subtract(1, square(x)))))
)
atan = _unary("atan", jnp.arctan, "the arc tangent", lambda x, y, dy: divide(dy, add(square(x), 1)))
asinh = _unary(
    "asinh", jnp.arcsinh, "the area hyperbolic sine", lambda x, y, dy: multiply(dy, rsqrt(add(square(x), 1)))
)
acosh = _unary(
    "acosh", jnp.arccosh, "the area hyperbolic cosine", lambda x, y, dy: multiply(dy, rsqrt(subtract(square(x), 1)))
)
atanh = _unary("atanh", jnp.arctanh, "the area hyperbolic tangent", lambda x, y, dy: divide(dy, subtract(1, square(x))))
erf = _unary(
    "erf",
    lambda x: jax.lax.erf(_floating(x)),
    "the error function",
    lambda x, y, dy: multiply(multiply(dy, 2 / math.sqrt(math.pi)), exp(negative(square(x)))),
)
erfinv = _unary(
    "erfinv",
    lambda x: jax.lax.erf_inv(_floating(x)),
    "the inverse error function",
    lambda x, y, dy: multiply(multiply(dy, math.sqrt(math.pi) / 2), exp(square(y))),
)
floor = _unary("floor", jnp.floor, "the largest whole number not above x")
ceil = _unary("ceil", jnp.ceil, "the smallest whole number not below x")
trunc = _unary("trunc", jnp.trunc, "x without its fraction")
stop_gradient = _unary("stop_gradient", lambda x: jax.lax.stop_gradient(jnp.asarray(x)), "x, to gradients a constant")
round = op(
    "round",
    lower=lambda x, *, decimals=0: jnp.round(x, decimals),
    gradient=no_gradient,
    doc="x to `decimals` places, halves to even: (...) -> (...).",
)
zeros_like, ones_like = shape.zeros_like, shape.ones_like


def _floating(x: Any) -> jax.Array:
    x = jnp.asarray(x)
    return x if jnp.issubdtype(x.dtype, jnp.floating) else x.astype(jnp.float32)


# --- selection ----------------------------------------------------------------------------------------------------


def _where_gradient(n: Node, dy: Node) -> tuple:
    condition, a, b = n.inputs
    zero = zeros_like(dy)
    return (
        None,
        shape.unbroadcast(where(condition, dy, zero), a) if a.type.is_float else None,  # type: ignore[union-attr]
        shape.unbroadcast(where(condition, zero, dy), b) if b.type.is_float else None,  # type: ignore[union-attr]
    )


def _where(condition: Any, a: Any, b: Any) -> jax.Array:
    condition, a, b = jnp.asarray(condition).astype(bool), jnp.asarray(a), jnp.asarray(b)
    if condition.shape == a.shape == b.shape and a.dtype == b.dtype:
        return jax.lax.select(condition, a, b)  # traced in a quarter of the time
    return jnp.where(condition, a, b)


where = op(
    "where",
    lower=_where,
    gradient=_where_gradient,
    result=rules.chosen,
    doc="a where condition holds, else b: (...), (...), (...) -> (...).",
)


def _clip_gradient(n: Node, dy: Node) -> tuple:
    """Inside the bounds dy, at a bound half of it (as JAX shares it between x and the bound), outside nothing."""
    x, dx = n.inputs[0], dy
    for bound, inside in ((n.attrs["low"], greater), (n.attrs["high"], less)):
        if bound is not None:
            half = multiply(dx, 0.5)
            dx = where(inside(x, bound), dx, where(equal(x, bound), half, zeros_like(dx)))
    return (dx,)


clip_op = op(
    "clip",
    lower=lambda x, *, low, high: jnp.clip(x, low, high),
    gradient=_clip_gradient,
    result=rules.as_first,
    doc="x kept inside [low, high], numbers or None; gradient 1 inside, 1/2 at a bound: (...) -> (...).",
)


def clip(x: Any, low: Any = None, high: Any = None) -> Any:
    """`x` kept inside [low, high]; bounds are numbers, None or arrays."""
    if all(bound is None or isinstance(bound, (int, float)) for bound in (low, high)):
        return clip_op(x, low=low, high=high)
    x = x if low is None else maximum(x, low)
    return x if high is None else minimum(x, high)


def pow_node(a: Any, b: Any) -> Any:
    """``a ** b``; the exponents 1 and 2 of a node without a power."""
    if isinstance(a, Node) and isinstance(b, (int, float)) and not isinstance(b, bool):
        if b == 1:
            return a
        if b == 2:
            return square(a)
    return power(a, b)


# --- operators of nodes -------------------------------------------------------------------------------------------


def _attach(name: str, function: Callable, reflected: bool = True) -> None:
    setattr(Node, f"__{name}__", lambda a, b: function(a, b))
    if reflected:
        setattr(Node, f"__r{name}__", lambda a, b: function(b, a))


for _name, _function in (
    ("add", add),
    ("sub", subtract),
    ("mul", multiply),
    ("truediv", divide),
    ("floordiv", floor_divide),
    ("mod", mod),
    ("pow", pow_node),
    ("and", logical_and),
    ("or", logical_or),
):
    _attach(_name, _function)
for _name, _function in (("lt", less), ("le", less_equal), ("gt", greater), ("ge", greater_equal)):
    _attach(_name, _function, reflected=False)
Node.__neg__ = lambda self: negative(self)  # type: ignore
Node.__abs__ = lambda self: absolute(self)  # type: ignore[attr-defined]
Node.__invert__ = lambda self: logical_not(self)  # type: ignore
Node.astype = lambda self, dtype: cast(self, dtype)  # type: ignore[attr-defined]


def _reshape_node(self: Node, *sizes: Any) -> Node:
    """``x.reshape(2, -1)`` or ``x.reshape((2, -1))``."""
    wanted = sizes[0] if len(sizes) == 1 and isinstance(sizes[0], (tuple, list)) else sizes
    return shape.reshape(self, shape=tuple(wanted))


Node.reshape = _reshape_node  # type: ignore[attr-defined]
Node.T = property(lambda self: shape.transpose(self))  # type: ignore[attr-defined]

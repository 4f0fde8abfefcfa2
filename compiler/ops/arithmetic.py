"""Elementwise arithmetic with NumPy broadcasting."""

from __future__ import annotations

import jax.numpy as jnp

from ..ir import Node
from . import shape
from .registry import op

# Filled by the family's author: add, subtract, multiply, divide, power, negative, ... with gradients that sum over
# broadcast axes through `shape.unbroadcast`.

add = op(
    "add",
    lower=jnp.add,
    gradient=lambda n, dy: (shape.unbroadcast(dy, n.inputs[0]), shape.unbroadcast(dy, n.inputs[1])),
)
subtract = op(
    "subtract",
    lower=jnp.subtract,
    gradient=lambda n, dy: (shape.unbroadcast(dy, n.inputs[0]), shape.unbroadcast(negative(dy), n.inputs[1])),
)
multiply = op(
    "multiply",
    lower=jnp.multiply,
    gradient=lambda n, dy: (
        shape.unbroadcast(multiply(dy, n.inputs[1]), n.inputs[0]),
        shape.unbroadcast(multiply(dy, n.inputs[0]), n.inputs[1]),
    ),
)
negative = op("negative", lower=jnp.negative, gradient=lambda n, dy: (negative(dy),))


def _attach(name, function):
    setattr(Node, f"__{name}__", lambda a, b: function(a, b))
    setattr(Node, f"__r{name}__", lambda a, b: function(b, a))


_attach("add", add)
_attach("sub", subtract)
_attach("mul", multiply)
Node.__neg__ = lambda self: negative(self)  # type: ignore[attr-defined]

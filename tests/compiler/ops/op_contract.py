"""What the rows of the op contract are made of: an op, how it is called, how its inputs are drawn, what is wanted.

Rows stand in rows_of_*.py by family; the contract itself is test_op_contract.py.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable

import numpy as np
import scipy.linalg
import scipy.special
from kerasoft.compiler.gradient import gradient
from kerasoft.compiler.ir import Node, bind, symbol
from kerasoft.compiler.ops.registry import input_node

b = symbol("b")
B = 3  # the number put in for b


@dataclasses.dataclass(frozen=True)
class Input:
    """A shape and how its values are drawn."""

    shape: tuple
    draw: Callable[[np.random.Generator, tuple], np.ndarray]

    def node(self, i: int) -> Node:
        return input_node(f"in{i}", self.shape, self.array(np.random.default_rng(0)).dtype)

    def array(self, rng: np.random.Generator) -> np.ndarray:
        return self.draw(rng, bind(self.shape, {"b": B}))


def real(*shape):
    return Input(shape, lambda rng, s: rng.normal(size=s).astype(np.float32))


def positive(*shape):
    return Input(shape, lambda rng, s: rng.uniform(0.5, 2.5, s).astype(np.float32))


def unit(*shape):
    return Input(shape, lambda rng, s: rng.uniform(-0.9, 0.9, s).astype(np.float32))


def apart(*shape):
    """Values at least 0.3 from one another and 0.1 from whole numbers' halves, in random order: no ties, no kinks."""
    return Input(
        shape, lambda rng, s: ((rng.permutation(math.prod(s)) - math.prod(s) // 2) * 0.3 + 0.13).reshape(s).astype("f")
    )


def ints(n, *shape):
    return Input(shape, lambda rng, s: rng.integers(0, n, s).astype(np.int32))


def bools(*shape):
    return Input(shape, lambda rng, s: rng.random(s) < 0.5)


def words(*shape):
    return Input(shape, lambda rng, s: rng.integers(0, 2**32, s, dtype=np.uint32))


def definite(n, *lead):
    def draw(rng, s):
        m = rng.normal(size=s)
        return (m @ np.swapaxes(m, -1, -2) + n * np.eye(n)).astype(np.float32)

    return Input((*lead, n, n), draw)


@dataclasses.dataclass(frozen=True)
class Row:
    op: str
    call: Callable
    inputs: tuple[Input, ...]
    want: Callable | None
    gradient: bool
    differences: bool
    eager: bool
    tolerance: float
    label: str


ROWS: list[Row] = []


def row(op, call, *inputs, want=None, gradient=True, differences=True, eager=True, tolerance=2e-5, label=""):
    """`want` gives the values from NumPy arrays; None where a special test of the family checks them."""
    name = f"{op}-{label}" if label else op
    ROWS.append(Row(op, call, inputs, want, gradient, differences, eager, tolerance, name))


def sigmoid(x):
    return scipy.special.expit(x)


def softplus(x):
    return np.logaddexp(x, 0)


def pulled(f, *inputs):
    """The gradient of `f` for its first input, given its own results."""
    y = f(*inputs)
    return gradient({y: y}, inputs)[0]

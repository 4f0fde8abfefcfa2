"""Result types under unknown sizes that JAX cannot reason about."""

import math

import jax.numpy as jnp
import numpy as np
import pytest
from kerasoft.compiler import lower
from kerasoft.compiler.errors import ShapeError
from kerasoft.compiler.ir import Graph, symbol
from kerasoft.compiler.ops import arithmetic, creation, shape
from kerasoft.compiler.ops.registry import VJP, input_node, op

B, N = symbol("b"), symbol("n1")
root = op("trial_root", lower=lambda x: jnp.zeros(math.isqrt(int(x.shape[0]))), gradient=VJP)


def test_an_unknown_size_takes_the_known_one_it_meets():
    x, y = input_node("x", (B, N, 4), "float32"), input_node("y", (5, 4), "float32")
    made = arithmetic.add(x, y)
    assert made.type.shape == (B, 5, 4)
    graph = Graph((x, y), (made,), ("out",))
    (result,) = lower.function(graph)(np.ones((2, 5, 4), "float32"), np.ones((5, 4), "float32"))
    assert result.shape == (2, 5, 4) and float(result[0, 0, 0]) == 2.0


def test_sizes_that_change_with_an_unknown_one_stay_unknown():
    x = input_node("x", (B, 3), "float32")
    assert shape.pad(x, ((1, 1), (2, 1)), "reflect").type.shape == (B + 2, 6)
    assert creation.diagonal(input_node("m", (B, 3, 3), "float32"), 0, 1, 2).type.shape == (B, 3)


def test_sizes_that_no_trial_explains_are_an_error():
    with pytest.raises(ShapeError, match="trial_root cannot take"):
        root(input_node("x", (B,), "float32"))


def test_no_trial_hides_a_mismatch_of_known_sizes():
    with pytest.raises(ShapeError, match=r"add cannot take \(float32\[b, 4\], float32\[b, 5\]\)"):
        arithmetic.add(input_node("x", (B, 4), "float32"), input_node("y", (B, 5), "float32"))

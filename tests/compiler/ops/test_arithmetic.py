"""Operators of nodes, promotion, and what becomes of plain arrays beside a node."""

import numpy as np
import pytest
from kerasoft.compiler.errors import ShapeError
from kerasoft.compiler.gradient import gradient
from kerasoft.compiler.ir import Graph, symbol
from kerasoft.compiler.lower import function
from kerasoft.compiler.ops import arithmetic, shape
from kerasoft.compiler.ops.registry import input_node

b = symbol("b")
X = np.array([[1.5, -2.0, 3.0]], np.float32)
ARRAY = np.array([2.0, 3.0, 4.0], np.float32)


@pytest.mark.parametrize(
    "expression",
    [
        lambda x: x + 1,
        lambda x: 1 - x,
        lambda x: x * ARRAY,
        lambda x: ARRAY * x,
        lambda x: ARRAY - x,
        lambda x: 1 / x,
        lambda x: x // 2,
        lambda x: 7 % x,
        lambda x: x**2,
        lambda x: x**1,
        lambda x: x**-1.0,
        lambda x: 2**x,
        lambda x: -x,
        lambda x: abs(x),
        lambda x: x @ ARRAY,
        lambda x: ARRAY[None] @ x.T,
        lambda x: ARRAY < x,
        lambda x: (x > 0) & (x < 2),
        lambda x: ~(x >= 2) | (x <= -2),
        lambda x: x.reshape(-1),
        lambda x: x.reshape((3, -1)),
        lambda x: x.astype("int32"),
    ],
)
def test_operators_are_numpys(expression):
    node = expression(input_node("x", (b, 3), "float32"))
    (value,) = function(Graph(node_inputs(node), (node,), ("y",)))(X)
    want = expression(X)
    np.testing.assert_allclose(value, want, rtol=1e-6)
    assert (value.dtype == bool) == (want.dtype == bool)


def node_inputs(node):
    from kerasoft.compiler.ir import topological

    return tuple(n for n in topological([node]) if n.op.name == "input")


def test_equality_stays_identity():
    x, y = input_node("x", (3,), "float32"), input_node("y", (3,), "float32")
    assert x == x and x != y and len({x, y, x}) == 2


@pytest.mark.parametrize("dtype", ("bfloat16", "float16", "int32", "uint8"))
def test_numbers_take_the_dtype_of_the_node(dtype):
    x = input_node("x", (3,), dtype)
    assert (x + 1).dtype == dtype
    assert (x * 2).dtype == dtype


def test_gradients_keep_each_inputs_dtype():
    x, y = input_node("x", (b, 3), "bfloat16"), input_node("y", (3,), "float32")
    z = x * y
    assert z.dtype == "float32"
    dx, dy = gradient({z: shape.ones_like(z)}, [x, y])
    assert (str(dx.type), str(dy.type)) == ("bfloat16[b, 3]", "float32[3]")


def test_wide_numbers_become_32_bits():
    x = input_node("x", (2,), "float32")
    assert (x + np.arange(2.0)).dtype == "float32"
    assert arithmetic.cast(x, np.float64).dtype == "float32"
    assert arithmetic.cast(x, "int64").dtype == "int32"


def test_a_large_uniform_array_is_kept_as_one_number():
    x = input_node("x", (100,), "float32")
    assert (x + np.zeros(100)).inputs[1].op.name == "full"
    assert (x + np.arange(100.0)).inputs[1].op.name == "constant"
    (value,) = function(Graph((x,), (x + np.ones(100),), ("y",)))(np.zeros(100, np.float32))
    assert value.tolist() == [1] * 100


def test_cast_of_the_same_dtype_is_the_node():
    x = input_node("x", (2,), "float32")
    assert arithmetic.cast(x, "float32") is x
    assert x.astype("int32").dtype == "int32"


def test_extremes_share_the_gradient_of_equals():
    x, y = input_node("x", (3,), "float32"), input_node("y", (3,), "float32")
    z = arithmetic.maximum(x, y)
    grads = gradient({z: shape.ones_like(z)}, [x, y])
    values = function(Graph((x, y), tuple(grads), ("x", "y")))(np.array([1, 2, 3.0]), np.array([1, 3, 2.0]))
    assert [v.tolist() for v in values] == [[0.5, 0, 1], [0.5, 1, 0]]


def test_shapes_that_do_not_fit_are_named():
    with pytest.raises(ShapeError, match=r"add cannot take \(float32\[b, 3\], float32\[4\]\)"):
        input_node("x", (b, 3), "float32") + input_node("y", (4,), "float32")

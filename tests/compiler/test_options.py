"""Which XLA options a graph gets."""

import jax
import numpy as np
from kerasoft.compiler.gradient import gradient
from kerasoft.compiler.ir import Graph, symbol
from kerasoft.compiler.lower import function
from kerasoft.compiler.ops import linalg, shape
from kerasoft.compiler.ops.convolution import conv, depthwise_conv
from kerasoft.compiler.ops.registry import constant, input_node, param_node
from kerasoft.compiler.options import CONVOLUTIONS_BY_EIGEN, compiler_options

IMAGE, GREY = (input_node(n, (symbol("b"), 8, 8, c), "float32") for n, c in (("x", 3), ("g", 1)))
K3, K1, K2 = param_node("k3", (3, 3, 3, 4)), param_node("k1", (3, 3, 1, 4)), param_node("k2", (3, 3, 4, 4))


def options(*outputs):
    return compiler_options(Graph((IMAGE, GREY), outputs, tuple(map(str, range(len(outputs))))))


def test_convolutions_of_several_channels_go_to_eigen():
    grey = conv(conv(GREY, K1), K2)
    assert options(conv(IMAGE, K3)) == CONVOLUTIONS_BY_EIGEN
    assert options(*gradient({shape.sum(conv(IMAGE, K3)): constant(1.0)}, [K3])) == CONVOLUTIONS_BY_EIGEN
    assert options(conv(GREY, K1)) == {}
    assert options(grey) == {}  # the convolution of one channel decides
    assert options(*gradient({shape.sum(grey): constant(1.0)}, [K1, K2])) == {}
    assert options(depthwise_conv(IMAGE, param_node("d", (3, 3, 3, 1)))) == {}
    assert options(linalg.matmul(IMAGE, param_node("m", (3, 4)))) == {}


def test_xla_knows_the_options():
    graph = Graph((IMAGE,), (conv(IMAGE, K3),), ("y",))
    arrays = [np.ones((2, 8, 8, 3), "f"), np.ones((3, 3, 3, 4), "f")]
    (y,) = jax.jit(function(graph), compiler_options=compiler_options(graph))(*arrays)
    np.testing.assert_array_equal(y, np.full((2, 6, 6, 4), 27.0))

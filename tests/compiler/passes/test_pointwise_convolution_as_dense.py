"""PointwiseConvolutionAsDense."""

from kerasoft.compiler.gradient import gradient
from kerasoft.compiler.ir import Graph, symbol
from kerasoft.compiler.ops import shape
from kerasoft.compiler.ops.convolution import conv
from kerasoft.compiler.ops.registry import constant, input_node, param_node
from kerasoft.compiler.passes import PointwiseConvolutionAsDense

X = input_node("x", (symbol("b"), 4, 4, 3), "float32")
K = param_node("k", (1, 1, 3, 5))
ATTRS = "{dilation=(1, 1), groups=1, padding='same', strides=(1, 1)}"


def test_forward(check):
    check(
        PointwiseConvolutionAsDense(),
        Graph((X,), (conv(X, K, padding="same"),), ("y",)),
        [f"conv(%0, %1){ATTRS} : float32[b, 4, 4, 5]"],
        ["reshape(%1){shape=(3, 5)} : float32[3, 5]", "matmul(%0, %2) : float32[b, 4, 4, 5]"],
        exact=False,
    )


def test_gradients(check):
    y = conv(X, K)
    graph = Graph((X,), tuple(gradient({shape.sum(y * y): constant(1.0)}, [X, K])), ("dx", "dk"))
    made = PointwiseConvolutionAsDense().run(graph)
    assert {n.op.name for n in graph.nodes if "conv" in n.op.name} == {"conv", "conv_grad_input", "conv_grad_kernel"}
    assert not [n for n in made.nodes if "conv" in n.op.name]
    check(PointwiseConvolutionAsDense(), graph, *map(_operations, (graph, made)), exact=False)


def _operations(graph):
    from kerasoft.compiler.ir.text import print_graph

    lines = [line.split(" = ", 1)[1] for line in print_graph(graph).splitlines() if line.startswith("%")]
    return [line for line in lines if not line.startswith(("input", "param"))]


def test_what_stays(untouched):
    one = PointwiseConvolutionAsDense()
    untouched(one, conv(X, K, strides=2), inputs=(X,))
    untouched(one, conv(X, K, padding=((1, 1), (0, 0))), inputs=(X,))
    untouched(one, conv(X, param_node("k", (2, 1, 3, 5))), inputs=(X,))
    untouched(one, conv(X, param_node("k", (1, 1, 1, 3)), groups=3), inputs=(X,))

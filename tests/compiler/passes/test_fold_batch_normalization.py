"""FoldBatchNormalization."""

import numpy as np
from kerasoft.compiler.ir import Graph, symbol
from kerasoft.compiler.ops import arithmetic as a
from kerasoft.compiler.ops import linalg, shape
from kerasoft.compiler.ops.convolution import conv, depthwise_conv
from kerasoft.compiler.ops.registry import input_node, param_node
from kerasoft.compiler.passes import FoldBatchNormalization

B = symbol("b")
X = input_node("x", (B, 6, 6, 3), "float32")
K = param_node("k", (3, 3, 3, 4))
BIAS, GAIN, BETA, MEAN, VARIANCE = (param_node(n, (4,)) for n in ("bias", "gain", "beta", "mean", "variance"))
POSITIVE = {"variance": np.array([0.5, 1, 2, 3])}
ATTRS = "{dilation=(1, 1), groups=1, padding='valid', strides=(1, 1)}"


def normalised(y):
    return (y - MEAN) * (a.rsqrt(VARIANCE + 1e-3) * GAIN) + BETA


def test_bias_and_batch_normalisation_go_into_the_kernel(check):
    check(
        FoldBatchNormalization(),
        Graph((X,), (normalised(conv(X, K) + BIAS),), ("y",)),
        [
            f"conv(%0, %1){ATTRS} : float32[b, 4, 4, 4]",
            "add(%2, %3) : float32[b, 4, 4, 4]",
            "subtract(%4, %5) : float32[b, 4, 4, 4]",
            "constant{value=float32[](0.001)} : float32[]".replace("0.001", repr(float(np.float32(1e-3)))),
            "add(%7, %8) : float32[4]",
            "rsqrt(%9) : float32[4]",
            "multiply(%10, %11) : float32[4]",
            "multiply(%6, %12) : float32[b, 4, 4, 4]",
            "add(%13, %14) : float32[b, 4, 4, 4]",
        ],
        [
            "constant{value=float32[](0.001)} : float32[]".replace("0.001", repr(float(np.float32(1e-3)))),
            "add(%2, %3) : float32[4]",
            "rsqrt(%4) : float32[4]",
            "multiply(%5, %6) : float32[4]",
            "multiply(%1, %7) : float32[3, 3, 3, 4]",
            f"conv(%0, %8){ATTRS} : float32[b, 4, 4, 4]",
            "subtract(%10, %11) : float32[4]",
            "multiply(%12, %7) : float32[4]",
            "add(%13, %14) : float32[4]",
            "add(%9, %15) : float32[b, 4, 4, 4]",
        ],
        exact=False,
        **POSITIVE,
    )


def test_other_forms(check):
    row = shape.reshape(GAIN, shape=(1, 1, 1, 4))
    sequence = input_node("s", (B, 9, 3), "float32")
    kernel, depthwise = param_node("m", (3, 4)), param_node("d", (3, 3, 3, 1))
    three = param_node("three", (3,))
    for y, inputs in [
        (a.divide(BETA - conv(X, K), row), (X,)),
        (a.negative(conv(X, K)) * 0.5, (X,)),
        (linalg.matmul(sequence, kernel) * GAIN + BETA, (sequence,)),
        (depthwise_conv(X, depthwise) * three, (X,)),
        (a.maximum(normalised(conv(normalised(conv(X, K)), param_node("k2", (2, 2, 4, 4)))), 0.0), (X,)),
    ]:
        graph = Graph(inputs, (y,), ("y",))
        made = FoldBatchNormalization().run(graph)
        assert made is not graph
        for n in made.nodes:
            assert n.op.name not in ("multiply", "subtract", "divide", "negative") or B not in n.shape, n
        check(FoldBatchNormalization(), graph, *map(_operations, (graph, made)), exact=False, **POSITIVE)


def _operations(graph):
    from kerasoft.compiler.ir.text import print_graph

    lines = [line.split(" = ", 1)[1] for line in print_graph(graph).splitlines() if line.startswith("%")]
    return [line for line in lines if not line.startswith(("input", "param"))]


def test_what_stays(untouched):
    one, y = FoldBatchNormalization(), conv(X, K)
    per_row = shape.sum(X, axis=(1, 2, 3), keepdims=True)
    untouched(one, y + BIAS, inputs=(X,))  # nothing to fold
    untouched(one, y * per_row, inputs=(X,))  # depends on the row
    untouched(one, y * param_node("wide", (4, 1)), inputs=(X,))  # not one number per channel
    untouched(one, y * GAIN, y, inputs=(X,))  # the unscaled result is read too
    untouched(one, y * y, inputs=(X,))
    untouched(one, a.divide(GAIN, y), inputs=(X,))
    vector = input_node("v", (B, 3), "float32")
    untouched(
        one, linalg.matmul(vector, param_node("m", (3, 4))) * GAIN, inputs=(vector,)
    )  # a larger kernel than result
    untouched(one, conv(X, param_node("big", (6, 6, 3, 4))) * GAIN, inputs=(X,))

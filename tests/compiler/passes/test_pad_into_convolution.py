"""Zeros around a convolution's input as its padding."""

from kerasoft.compiler.ir import Graph, symbol
from kerasoft.compiler.ops import convolution, shape
from kerasoft.compiler.ops.registry import input_node, param_node
from kerasoft.compiler.passes.pad_into_convolution import PadIntoConvolution

X = input_node("x", (symbol("b"), 6, 7, 2), "float32")
K = param_node("k", (3, 3, 2, 4))


def graph_of(config, value=0, padding="valid"):
    padded = shape.pad_op(X, config=config, value=value)
    attrs = {"strides": (2, 1), "padding": padding, "dilation": (1, 1), "groups": 1}
    return Graph((X,), (convolution.conv_op(padded, K, **attrs),), ("y",))


def test_padding_is_added(check):
    config = ((0, 0, 0), (1, 2, 0), (0, 1, 0), (0, 0, 0))
    before = [
        "pad(%0){config=((0, 0, 0), (1, 2, 0), (0, 1, 0), (0, 0, 0)), value=0} : float32[b, 9, 8, 2]",
        "conv(%1, %2){dilation=(1, 1), groups=1, padding='valid', strides=(2, 1)} : float32[b, 4, 6, 4]",
    ]
    after = ["conv(%0, %1){dilation=(1, 1), groups=1, padding=((1, 2), (0, 1)), strides=(2, 1)} : float32[b, 4, 6, 4]"]
    check(PadIntoConvolution(), graph_of(config), before, after)
    made = PadIntoConvolution().run(graph_of(config, padding="same"))
    assert made.outputs[0].attrs["padding"] == ((2, 3), (1, 2))


def test_other_pads_stay():
    spatial = ((0, 0, 0), (1, 1, 0), (1, 1, 0), (0, 0, 0))
    for graph in (
        graph_of(spatial, value=1),
        graph_of(((0, 1, 0), *spatial[1:])),
        graph_of(((0, 0, 0), (1, 1, 1), (0, 0, 0), (0, 0, 0))),
    ):
        assert PadIntoConvolution().run(graph) is graph

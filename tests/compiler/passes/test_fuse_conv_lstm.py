"""A convolutional LSTM of a convolution becomes one op in predictions, if the convolution is of its kind and nobody else reads it."""

import numpy as np
import pytest
from kerasoft.compiler.ir import Graph, symbol
from kerasoft.compiler.kernels.choice import Chooser
from kerasoft.compiler.lower import function
from kerasoft.compiler.ops import shape
from kerasoft.compiler.ops.conv_lstm import conv_lstm
from kerasoft.compiler.ops.convolution import conv
from kerasoft.compiler.ops.registry import input_node, param_node
from kerasoft.compiler.passes.fuse_conv_lstm import FuseConvLstm
from kerasoft.compiler.passes.pipeline import optimise

import kerasoft as ks

b = symbol("b")
STEPS, SIZES, INPUTS, FILTERS = 3, (5, 19), 3, 17


def graph_of(bias=True, mask=True, also=False, kernel=(3, 3), inputs=INPUTS, **convolution):
    x = input_node("x", (b, STEPS, *SIZES, inputs), "float32")
    m = input_node("mask", (b, STEPS), "bool")
    states = [input_node(name, (b, *SIZES, FILTERS), "float32") for name in ("h", "c")]
    y = conv(
        shape.reshape(x, shape=(-1, *SIZES, inputs)), param_node("k", (*kernel, inputs, 4 * FILTERS)), **convolution
    )
    y = y + param_node("r", (4 * FILTERS,)) if bias else y
    z = shape.reshape(y, shape=(-1, STEPS, *SIZES, 4 * FILTERS))
    recurrent = param_node("u", (3, 3, FILTERS, 4 * FILTERS))
    sequence, h, c = conv_lstm(z, *states, recurrent, m if mask else None)
    outputs = (sequence, c, z) if also else (sequence, c)
    return Graph((x, m, *states), outputs, ("sequence", "c", "z")[: len(outputs)])


def arrays_of(graph):
    random = np.random.default_rng(0)
    sizes = [[2 if d == b else d for d in n.shape] for n in (*graph.inputs, *graph.params)]
    arrays = [(random.standard_normal(s) * 0.3).astype(np.float32) for s in sizes]
    arrays[1] = np.array([[True, False, True], [True, True, True]])
    return arrays


def computed(graph, arrays, like):
    chooser = Chooser(graph, {"b": 2})
    return function(graph, [*like.inputs, *like.params], lowerer=chooser)(*arrays), chooser


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("mask", [True, False])
def test_one_op_with_the_same_numbers(bias, mask):
    graph = graph_of(bias, mask, padding="same")
    made = optimise(graph, "predict", check=True)
    names = {n.op.name for n in made.nodes}
    assert "conv_lstm_of_input" in names and not names & {"conv", "conv_fused", "conv_lstm"}
    arrays = arrays_of(graph)
    found, chooser = computed(made, arrays, graph)
    assert "native" in {p.name for p in chooser.picked.values()}
    for mine, plain in zip(found, computed(graph, arrays, graph)[0], strict=True):
        np.testing.assert_allclose(mine, plain, rtol=2e-5, atol=2e-5)


def test_numbers_that_are_not_finite_go_no_further_than_their_window():
    graph = graph_of(padding="same")
    arrays = arrays_of(graph)
    arrays[0][0, 0, 2, 9, 1], arrays[0][1, 2, 4, 18, 0] = np.nan, np.inf
    found, _ = computed(optimise(graph, "predict"), arrays, graph)
    plain = function(graph, [*graph.inputs, *graph.params])(*arrays)
    for mine, theirs in zip(found, plain, strict=True):
        assert 0 < np.isnan(mine).sum() < mine.size
        np.testing.assert_array_equal(np.isnan(mine), np.isnan(theirs))
        np.testing.assert_allclose(mine, theirs, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
    "options",
    [
        {"padding": "same", "also": True},
        {"padding": "same", "kernel": (1, 1)},
        {"padding": "same", "inputs": 33},
        {"padding": "same", "dilation_rate": (2, 1)},
        {"padding": ((1, 1), (1, 1))},
    ],
    ids=["read elsewhere", "another window", "many channels", "dilated", "padded"],
)
def test_other_convolutions_stay(untouched, options):
    graph = graph_of(**options)
    untouched(FuseConvLstm(), *graph.outputs, inputs=graph.inputs)


def test_a_training_step_keeps_the_gates():
    assert "conv_lstm_of_input" not in {
        n.op.name for n in optimise(graph_of(padding="same"), "train", check=True).nodes
    }


def test_predictions_of_layers_take_it():
    model = ks.Sequential([ks.Input((STEPS, 8, 8, 1)), ks.layers.ConvLSTM2D(4, 3, padding="same")])
    x = np.random.default_rng(0).standard_normal((3, STEPS, 8, 8, 1)).astype(np.float32)
    parts = model.explain(x, batch_size=3, measure=False).parts
    assert any(n.op.name == "conv_lstm_of_input" for part in parts for n in part.picked)

"""Explanations: counts that can be checked by hand, the text, and the picture."""

import numpy as np
import pytest
from kerasoft.compiler import costs, picture
from kerasoft.compiler.errors import ProgramError
from kerasoft.compiler.explain import explain
from kerasoft.compiler.gradient import gradient
from kerasoft.compiler.ir import Graph, source, symbol
from kerasoft.compiler.ir.text import parse_graph, print_graph
from kerasoft.compiler.ops import activations, control, convolution, linalg, pooling, shape
from kerasoft.compiler.ops import arithmetic as a
from kerasoft.compiler.ops.collective import all_reduce
from kerasoft.compiler.ops.registry import VJP, constant, input_node, param_node
from kerasoft.compiler.program import Layout, StepSource

B, N = symbol("b"), symbol("n")


def small_network():
    x, y = input_node("x/0", (B, 8, 8, 2), "float32"), input_node("y/0", (B, 3), "float32")
    params = [
        param_node("conv/kernel", (3, 3, 2, 4)),
        param_node("head/kernel", (64, 3)),
        param_node("head/bias", (3,)),
    ]
    with source("conv"):
        h = activations.relu(convolution.conv(x, params[0], padding="same"))
    with source("pool"):
        h = pooling.max_pool(h, 2, 2)
    with source("flatten"):
        h = shape.reshape(h, shape=(B, 64))
    with source("head"):
        h = linalg.matmul(h, params[1]) + params[2]
    with source("loss"):
        loss = shape.sum(a.square(h - y)) * 1.0
    grads = gradient({loss: constant(1.0)}, params)
    names = [p.attrs["name"] for p in params]
    total = all_reduce(shape.sum(a.square(grads[2])))
    p, g = input_node("param", (N,), "float32"), input_node("gradient", (N,), "float32")
    return StepSource(
        Layout.of(params={p.attrs["name"]: p.shape for p in params}, sums={"loss": (), "norm": ()}),
        train=Graph((x, y), (*grads, loss, total), (*(f"grad/{n}" for n in names), "sum/loss", "sum/norm")),
        predict=Graph((x,), (h,), ("out/0",)),
        update=Graph((p, g), (p - g * 0.1,), ("param",)),
    )


def test_flops_by_hand(new_op):
    x, k = input_node("x", (B, 5), "float32"), param_node("k", (5, 7))
    y = linalg.matmul(x, k)
    sizes = {"b": 3}
    assert costs.flops(y, sizes) == 2 * 3 * 5 * 7
    assert costs.flops(a.exp(y), sizes) == 3 * 7
    assert costs.flops(shape.sum(y), sizes) == 3 * 7
    assert costs.flops(shape.reshape(y, shape=(-1,)), sizes) == 0
    assert costs.bytes_moved(y, sizes) == 4 * (3 * 5 + 5 * 7 + 3 * 7)
    image, kernel = input_node("i", (B, 8, 8, 2), "float32"), param_node("c", (3, 3, 2, 4))
    pixels = convolution.conv(image, kernel, padding="same")
    assert costs.flops(pixels, sizes) == 2 * 3 * 64 * 4 * 9 * 2
    dimage, dkernel = gradient({shape.sum(pixels): constant(1.0)}, [image, kernel])
    assert costs.flops(dimage, sizes) == costs.flops(dkernel, sizes) == costs.flops(pixels, sizes)
    steps = input_node("steps", (6, B, 5), "float32")
    step = lambda c, cells: ([a.tanh(linalg.matmul(c[0], square) + cells[0])], [])
    square = param_node("square", (5, 5))
    (last,), _ = control.scan(step, [x], [steps])
    assert costs.flops(last.inputs[0], sizes) == 6 * (2 * 3 * 5 * 5 + 3 * 5 + 3 * 5)
    square_by_jax = new_op("test_square", lower=lambda x: x * x, gradient=VJP)
    dx = gradient({shape.sum(square_by_jax(x)): constant(1.0)}, [x])[0]
    assert costs.flops(dx.inputs[0], sizes) == 2 * 15


def test_text_holds_the_facts(monkeypatch):
    monkeypatch.setenv("KERASOFT_KERNELS", "*=xla")  # XLA counts the flops of its own kernels only
    explained = explain(small_network(), rows=4)
    train, predict, update = explained.parts
    assert str(explained) == explained.text == "\n".join(p.text for p in explained.parts)
    lines = train.text.splitlines()
    assert lines[0] == "=== train (b = 4)"
    assert lines[1].startswith(f"nodes        {len(train.before.nodes)} -> {len(train.after.nodes)}  (")
    assert "SimplifyAlgebra -5" in lines[1]
    assert len(train.after.nodes) < len(train.before.nodes)
    assert lines[2] == "stages       2"
    assert f"parameters   {4 * (72 + 192 + 3) / 1000:.3g} kB" in lines
    assert "kernels      xla_cpu_experimental_ynn_fusion_type=LIBRARY_FUSION_TYPE_INDIVIDUAL_DOT" in lines
    assert train.memory["arguments"] == 4 * (4 * 8 * 8 * 2 + 4 * 3 + 72 + 192 + 3)
    assert train.memory["peak"] >= train.memory["arguments"] + train.memory["temporaries"] > train.memory["arguments"]
    for layer in ("conv", "pool", "head", "gradient of conv", "gradient of head", "(none)"):
        assert any(line.startswith(layer + " ") for line in lines), layer
    before, after = train.text.split("--- before\n")[1].split("\n\n--- after\n")
    assert parse_graph(before) == train.before and parse_graph(after.strip()) == train.after
    assert 0.5 < train.xla["flops"] / train.flops < 2
    assert predict.kind == "predict" and predict.stages == 1 and "kernels" in predict.text
    assert update.sizes == {"n": 267} and update.text.startswith("=== update (n = 267)")
    assert "XLA's defaults" in update.text


def test_one_kind_lone_graphs_and_errors():
    source_ = small_network()
    assert [p.kind for p in explain(source_, "predict", compile=False).parts] == ["predict"]
    x = input_node("x", (B, symbol("n1")), "float32")
    part = explain(Graph((x,), (a.exp(x),), ("y",)), rows=2, lengths={"n1": 5}, compile=False).parts[0]
    assert part.flops == 10 and part.memory == {} and print_graph(part.after) in part.text
    assert explain(Graph((x,), (a.exp(x),), ("y",)), rows=2, compile=False).parts[0].flops == 32
    with pytest.raises(ProgramError, match="this StepSource has no test graph"):
        explain(source_, "test")
    with pytest.raises(ProgramError, match="no test graph was explained; there are predict"):
        explain(source_, "predict", compile=False).save("unused.png", "test")


def test_boxes_group_layers_and_never_form_a_ring():
    graph = small_network().train
    boxes = picture.boxes_of(graph)
    labels = [b.label for b in boxes]
    assert {"x/0", "conv", "pool", "flatten", "head", "loss", "gradient of conv"} <= set(labels)
    assert labels.count("conv") == labels.count("gradient of head") == 1
    for box in boxes:
        assert all(b.row < box.row for b in box.before)
        assert not any(b.reaches(box) for b in box.before)
    conv = boxes[labels.index("conv")]
    assert (
        picture.describe(conv, {"b": 4})
        == "conv\nconv, relu\nkernel [3, 3, 2, 4]\n-> float32[4, 8, 8, 4]   37.9 k flops"
    )
    with source("shared"):  # a layer used twice, with another between: two boxes
        h = a.sin(input_node("x", (B,), "float32"))
    with source("between"):
        h = a.exp(h)
    with source("shared"):
        h = a.cos(h)
    assert [b.label for b in picture.boxes_of(Graph((), (h,), ("y",)))] == ["x", "shared", "between", "shared"]


def test_the_picture_is_a_png_with_ink(tmp_path):
    from matplotlib.image import imread

    path = tmp_path / "graph.png"
    explain(small_network(), "train", compile=False).save(path)
    pixels = imread(path)
    assert pixels.shape[0] > 600 and pixels.shape[1] > 300
    assert 0.01 < np.mean(pixels[..., :3].min(axis=-1) < 0.9) < 0.6


def test_peak_bytes_counts_what_is_alive_at_once():
    from kerasoft.compiler.costs import peak_bytes
    from kerasoft.compiler.ops import arithmetic

    x = input_node("x", (symbol("b"), 10), "float32")
    one, two = arithmetic.exp(x), arithmetic.sin(x)
    graph = Graph((x,), (arithmetic.add(arithmetic.cos(one), two),), ("y",))
    # exp, cos of it (exp goes), sin, sum of both: three rows of results at most
    assert peak_bytes(graph, {"b": 7}) == 3 * 7 * 10 * 4

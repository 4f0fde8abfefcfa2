"""Segments computed again: the gradients of the graph without segments, and less memory in what XLA compiles."""

import jax
import numpy as np
import pytest
from kerasoft.compiler.explain import explain
from kerasoft.compiler.gradient import gradient
from kerasoft.compiler.ir import Graph, recording, symbol
from kerasoft.compiler.lower import function
from kerasoft.compiler.ops import activations, convolution, linalg, normalization, random, reduce, shape
from kerasoft.compiler.ops import arithmetic as a
from kerasoft.compiler.ops.collective import all_reduce
from kerasoft.compiler.ops.registry import constant, input_node, items, param_node
from kerasoft.compiler.passes import optimise
from kerasoft.compiler.rematerialization import Segment
from kerasoft.compiler.segments import in_segments

B = symbol("b")
WIDTH = 64


def marked(segments, make, *args):
    with recording() as nodes:
        made = make(*args)
    segments.append(Segment(frozenset(nodes)))
    return made


def dense_net(blocks=6, layers=3, nested=False):
    """x, params, loss and a segment for each block of tanh layers (and for each layer in it)."""
    x = h = input_node("x", (B, WIDTH), "float32")
    params = [param_node(f"w{i:02}", (WIDTH, WIDTH)) for i in range(blocks * layers)]
    segments = []

    def layer(h, w):
        return a.tanh(linalg.matmul(h, w))

    def block(h, k):
        for w in params[k * layers : (k + 1) * layers]:
            h = marked(segments, layer, h, w) if nested else layer(h, w)
        return h

    for k in range(blocks):
        h = marked(segments, block, h, k)
    return [x], params, reduce.mean(a.square(h)), segments


def conv_net():
    """Batch normalisation, dropout drawn from a key, a shortcut, a sum over replicas, softmax at the end."""
    x, key = input_node("x", (B, 8, 8, 4), "float32"), input_node("key", (2,), "uint32")
    rows = input_node("row_id", (B,), "uint32")
    kernels = [param_node(f"k{i}", (3, 3, 4, 4)) for i in range(4)]
    gains = [param_node(f"g{i}", (4,)) for i in range(4)]
    segments = []

    def block(h, i):
        y = convolution.conv(h, kernels[i], padding="same")
        y, mean, _ = items(normalization.batch_norm(y, gains[i], gains[i], 0.001))
        keep = random.bernoulli_rows(key, rows, 0.8, salt=i, shape=(8, 8, 4))
        y = a.multiply(activations.relu(y), a.cast(keep, "float32"))
        return a.add(h, y) + all_reduce(mean)

    h = x
    for i in range(4):
        h = marked(segments, block, h, i)
    flat = shape.reshape(reduce.mean(h, axis=(1, 2)), shape=(B, 4))
    loss = a.negative(reduce.mean(a.square(activations.log_softmax(flat, axis=-1))))
    return [x, key, rows], [*kernels, *gains], loss, segments


def compiled(net, segments, rows):
    inputs, params, loss, _ = net
    graph = Graph(tuple(inputs), tuple(gradient({loss: constant(1.0)}, params, segments)), tuple(map(str, range(len(params)))))  # fmt: skip
    graph = optimise(graph, "train", check=True)
    r = np.random.default_rng(0)
    bound = [*inputs, *params]
    shapes = [tuple(d if isinstance(d, int) else rows for d in n.shape) for n in bound]
    arrays = [r.normal(size=s).astype("f") / 8 if n.dtype == "float32" else np.arange(np.prod(s), dtype=n.dtype).reshape(s) for n, s in zip(bound, shapes)]  # fmt: skip
    executable = jax.jit(function(graph, bound), keep_unused=True).lower(*arrays).compile()
    return graph, executable, executable(*arrays)


@pytest.mark.parametrize("make", [dense_net, lambda: dense_net(nested=True), conv_net], ids=["dense", "nested", "conv"])
def test_the_same_gradients(make):
    net = make()
    plain, _, want = compiled(net, (), 6)
    graph, _, got = compiled(net, net[3], 6)
    assert len(graph.nodes) > len(plain.nodes)
    for x, y in zip(got, want):
        np.testing.assert_allclose(x, y, rtol=1e-6, atol=1e-7)
    effects = [sum(n.op.has_effect for n in g.nodes) for g in (graph, plain)]
    assert effects[0] == effects[1], "a sum over replicas is never computed again"


def test_xla_keeps_less_and_computes_again():
    """Blocks of three layers: the products of two of them are made a second time, the third's result is kept anyway."""
    net = dense_net(blocks=8)
    found = {}
    order = Graph((), (net[2],), ("loss",)).nodes
    cut = in_segments([n for n in order if n.op.name not in ("input", "param")], order)
    for name, segments in (("kept", ()), ("blocks", net[3]), ("cut", cut)):
        graph, executable, _ = compiled(net, segments, 4096)
        products = sum(n.op.name == "dense" for n in graph.nodes)
        found[name] = executable.memory_analysis().temp_size_in_bytes, products
    assert found["blocks"][1] == found["kept"][1] + 16
    assert found["blocks"][0] < 0.5 * found["kept"][0]
    assert found["cut"][0] < 0.5 * found["kept"][0]


def test_a_segment_whose_inside_nobody_needs_changes_nothing():
    """A layer of relu: its gradient needs the input and the result, which are kept in any case."""
    h = input_node("x", (B, WIDTH), "float32")
    params = [param_node(f"w{i}", (WIDTH, WIDTH)) for i in range(3)]
    segments = []
    for w in params:
        h = marked(segments, lambda h, w: activations.relu(linalg.matmul(h, w)), h, w)
    loss = reduce.mean(a.square(h))
    assert gradient({loss: constant(1.0)}, params, segments) == gradient({loss: constant(1.0)}, params)


def test_cuts_are_where_little_passes():
    """Wide in the middle of each block, narrow between blocks: the cuts fall between."""
    x = h = input_node("x", (B, 8), "float32")
    narrow = []
    for i in range(6):
        wide = a.tanh(linalg.matmul(h, param_node(f"up{i}", (8, 512))))
        h = linalg.matmul(a.square(wide), param_node(f"down{i}", (512, 8)))
        narrow.append(h)
    loss = reduce.mean(a.square(h))
    order = Graph((x,), (loss,), ("loss",)).nodes
    nodes = [n for n in order if n.op.name not in ("input", "param")]
    segments = in_segments(nodes, order)
    assert 3 <= len(segments) and set().union(*(s.nodes for s in segments)) == set(nodes)
    crossing = {i for s in segments for n in s.nodes for i in n.inputs if i in set(nodes) and i not in s.nodes}
    assert crossing <= set(narrow)


def test_explain_tells():
    inputs, params, loss, segments = dense_net(blocks=2)
    graph = Graph(tuple(inputs), tuple(gradient({loss: constant(1.0)}, params, segments)), tuple(map(str, range(6))))
    text = explain(graph, "train", rows=64, measure=False).text
    assert "peak memory" in text
    assert "remat        the backward pass computes results again from" in text

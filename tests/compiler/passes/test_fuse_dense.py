"""Products of rows with a matrix as dense ops: what is found, what goes along, and equal numbers."""

import numpy as np
import pytest
from kerasoft.compiler.gradient import gradient
from kerasoft.compiler.ir import Graph, symbol
from kerasoft.compiler.lower import function
from kerasoft.compiler.ops import activations, linalg, shape
from kerasoft.compiler.ops.registry import constant, input_node, param_node
from kerasoft.compiler.passes.fuse_dense import FuseDense
from kerasoft.compiler.passes.pipeline import optimise

b = symbol("b")
rng = np.random.default_rng(0)


def counts(graph):
    names = [n.op.name for n in graph.nodes]
    return {
        name: names.count(name) for name in dict.fromkeys(names) if name not in ("input", "param", "constant", "item")
    }


def same(graph, made):
    arrays = [
        rng.normal(size=[3 if d is b else d for d in n.shape]).astype(np.float32)
        for n in (*graph.inputs, *graph.params)
    ]
    bound = [*graph.inputs, *graph.params]
    for one, other in zip(function(graph, bound)(*arrays), function(made, bound)(*arrays)):
        np.testing.assert_allclose(one, other, rtol=1e-4, atol=1e-3)


def two_layers(steps=()):
    x = input_node("x", (b, *steps, 64), "float32")
    k, r, k2 = param_node("k", (64, 96)), param_node("r", (96,)), param_node("k2", (96, 64))
    h = activations.relu(linalg.matmul(x, k) + r)
    return x, k, r, k2, h, linalg.matmul(h, k2)


@pytest.mark.parametrize("steps", [(), (5,)])
def test_a_step_of_two_dense_layers(steps):
    x, k, r, k2, h, y = two_layers(steps)
    graph = Graph((x,), (y, *gradient({y: y}, [k, r, k2, x])), ("y", "dk", "dr", "dk2", "dx"))
    made = optimise(graph, "train", check=True)
    assert counts(made) == {"dense": 2, "dense_grad_input": 2, "dense_grad_kernel": 2}
    gates = [n for n in made.nodes if n.op.name == "dense_grad_input" and n.attrs["gated"]]
    assert len(gates) == 1 and gates[0].inputs[2].attrs["relu"]
    same(graph, made)
    assert FuseDense().run(made) is made


def test_gradients_of_narrow_kernels():
    x, k, r = input_node("x", (b, 64), "float32"), param_node("k", (64, 10)), param_node("r", (10,))
    y = linalg.matmul(x, k) + r
    graph = Graph((x,), (y, *gradient({y: y}, [k, r, x])), ("y", "dk", "dr", "dx"))
    made = optimise(graph, "train", check=True)
    found = counts(made)
    assert found["dense_grad_kernel"] == 1 and "dense" not in found and "dense_grad_input" not in found
    same(graph, made)


def test_projections_to_heads_and_back():
    x, kernel, row = input_node("x", (b, 5, 64), "float32"), param_node("k", (64, 4, 16)), param_node("r", (4, 16))
    back = param_node("o", (4, 16, 72))
    heads = linalg.einsum("abc,cde->abde", x, kernel) + row
    y = linalg.einsum("abde,def->abf", heads, back)
    graph = Graph((x,), (y, *gradient({y: y}, [kernel, row, back, x])), ("y", "dk", "dr", "do", "dx"))
    made = optimise(graph, "train", check=True)
    assert set(counts(made)) == {"dense", "dense_grad_input", "dense_grad_kernel", "reshape"}
    same(graph, made)


def test_what_is_read_twice_keeps_its_product():
    x, _, _, _, h, y = two_layers()
    before = h.inputs[0].inputs[0]
    graph = Graph((x,), (y, before), ("y", "z"))
    made = optimise(graph, "predict", check=True)
    assert counts(made) == {"dense": 2, "add": 1, "relu": 1}
    same(graph, made)


@pytest.mark.parametrize(
    "make",
    [
        lambda x: linalg.matmul(x, param_node("k", (64, 63))),
        lambda x: linalg.einsum("bi,bi->b", x, x),
        lambda x: linalg.einsum("bi,ij->jb", x, param_node("k", (64, 64))),
        lambda x: linalg.matmul(shape.cast(x, "float16"), shape.cast(param_node("k", (64, 64)), "float16")),
        lambda x: linalg.einsum("bi,bj->bij", x, x) + constant(1.0),
    ],
    ids=["small", "of rows with rows", "columns first", "half precision", "outer"],
)
def test_other_products_stay(make):
    x = input_node("x", (b, 64), "float32")
    graph = Graph((x,), (make(x),), ("y",))
    assert FuseDense().run(graph) is graph

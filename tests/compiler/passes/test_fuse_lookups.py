"""Dense layers on rows of tables become one op with the lookups, if nobody else reads the rows."""

import numpy as np
import pytest
from kerasoft.compiler.ir import Graph, symbol
from kerasoft.compiler.lower import function
from kerasoft.compiler.ops import activations, linalg, shape
from kerasoft.compiler.ops.indexing import embedding_lookup, take
from kerasoft.compiler.ops.registry import input_node, param_node
from kerasoft.compiler.passes.pipeline import optimise

b = symbol("b")


def towers(users, items):
    """The rows of two tables side by side; users may be given as (b, 1)."""
    first = embedding_lookup(param_node("users", (40, 48)), users)
    first = shape.reshape(first, shape=(b, 48)) if users.ndim == 2 else first
    return shape.concatenate([first, take(param_node("items", (30, 16)), items, axis=0)], axis=1)


def graph_of(ids_shape, also=False):
    users, items = input_node("users", ids_shape, "int32"), input_node("items", (b,), "int32")
    x = towers(users, items)
    y = activations.relu(linalg.matmul(x, param_node("k", (64, 96))) + param_node("r", (96,)))
    return Graph((users, items), (y, x) if also else (y,), ("y", "x") if also else ("y",))


@pytest.mark.parametrize("ids_shape", [(b,), (b, 1)])
def test_layers_on_rows_of_tables(ids_shape):
    graph = graph_of(ids_shape)
    made = optimise(graph, "predict", check=True)
    assert {n.op.name for n in made.nodes} - {"input", "param", "reshape"} == {"dense_of_rows"}
    rng = np.random.default_rng(0)
    ids = [rng.integers(0, 30, [7 if d is b else d for d in n.shape]).astype(np.int32) for n in graph.inputs]
    params = [rng.normal(size=p.shape).astype(np.float32) for p in graph.params]
    bound = [*graph.inputs, *graph.params]
    (one,), (other,) = (function(g, bound)(*ids, *params) for g in (graph, made))
    np.testing.assert_allclose(one, other, rtol=1e-4, atol=1e-4)


def test_rows_that_are_read_elsewhere_stay():
    made = optimise(graph_of((b,), also=True), "predict", check=True)
    assert "dense" in {n.op.name for n in made.nodes}

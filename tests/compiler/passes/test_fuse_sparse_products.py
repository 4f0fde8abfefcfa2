"""Products of sparse rows become one op, unless somebody else reads the rows that are looked up."""

import numpy as np
from kerasoft.compiler.ir import Graph, symbol
from kerasoft.compiler.lower import function
from kerasoft.compiler.ops.registry import input_node, param_node
from kerasoft.compiler.ops.sparse import sparse_product, unpacked
from kerasoft.compiler.passes.fuse_sparse_products import FuseSparseProducts
from kerasoft.compiler.passes.pipeline import optimise
from scipy.sparse import random as sparse_random

import kerasoft as ks

b = symbol("b")


def packed(random, rows, places, columns):
    """int32 (rows, 2, places), and the matrix that it stands for."""
    ids = random.integers(0, columns, (rows, places)).astype(np.int32)
    values = random.standard_normal((rows, places)).astype(np.float32)
    dense = np.zeros((rows, columns))
    for i in range(rows):
        np.add.at(dense[i], ids[i], values[i])
    return np.stack([ids, values.view(np.int32)], 1), dense


def graph_of(also=False):
    x = input_node("x", (b, 2, 3), "int32")
    y = sparse_product(unpacked(x, 50), param_node("table", (50, 7)))
    rows = next(n for n in Graph((x,), (y,), ("y",)).nodes if n.op.name == "embedding_lookup")
    return Graph((x,), (y, rows) if also else (y,), ("y", "rows") if also else ("y",))


def test_products_of_sparse_rows():
    graph = graph_of()
    made = optimise(graph, "predict", check=True)
    assert "sparse_dot" in {n.op.name for n in made.nodes} and "einsum" not in {n.op.name for n in made.nodes}
    random = np.random.default_rng(0)
    rows, dense = packed(random, 5, 3, 50)
    table = random.standard_normal((50, 7)).astype(np.float32)
    (found,) = function(made, [*made.inputs, *made.params])(rows, table)
    np.testing.assert_allclose(found, dense @ table, rtol=1e-5, atol=1e-5)


def test_rows_that_are_read_elsewhere_stay(untouched):
    graph = graph_of(also=True)
    untouched(FuseSparseProducts(), *graph.outputs, inputs=graph.inputs)


def test_a_training_step_keeps_the_lookups_that_its_table_is_updated_by():
    assert "sparse_dot" not in {n.op.name for n in optimise(graph_of(), "train", check=True).nodes}


def test_predictions_of_sparse_layers_take_it():
    model = ks.Sequential([ks.Input((400,), sparse=True), ks.layers.SparseDense(9)])
    x = sparse_random(30, 400, 0.02, format="csr", dtype=np.float32, random_state=0)
    wanted = x.toarray() @ np.asarray(model.layers[0].kernel) + np.asarray(model.layers[0].bias)
    np.testing.assert_allclose(model.predict(x, verbose=0), wanted, rtol=1e-5, atol=1e-5)
    parts = model.explain(x, batch_size=30, measure=False).parts
    assert any(n.op.name == "sparse_dot" for part in parts for n in part.picked)

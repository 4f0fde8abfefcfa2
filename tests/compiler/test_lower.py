"""Lowering: whole functions, stages, errors that name what is missing."""

import jax
import numpy as np
import pytest
from kerasoft.compiler.errors import CompilerError, ShapeError
from kerasoft.compiler.ir import Graph, symbol
from kerasoft.compiler.lower import evaluate, function, sizes_of, split_stages, stage_function, stage_leaves
from kerasoft.compiler.ops import arithmetic as a
from kerasoft.compiler.ops import control, linalg, shape
from kerasoft.compiler.ops.collective import all_reduce
from kerasoft.compiler.ops.registry import input_node, param_node

B, LENGTH = symbol("b"), symbol("n1")
X = input_node("x", (B, 3), "float32")


def test_a_function_works_on_arrays_and_under_jit():
    k = param_node("k", (3, 2))
    run = function(Graph((X,), (linalg.matmul(X, k), shape.reshape(X, shape=(3 * B,))), ("y", "flat")))
    x, kernel = np.arange(6, dtype="f").reshape(2, 3), np.ones((3, 2), "f")
    for call in (run, jax.jit(run)):
        y, flat = call(x, kernel)
        np.testing.assert_array_equal(y, x @ kernel)
        np.testing.assert_array_equal(flat, x.ravel())


def test_sizes_and_their_errors():
    pair = [input_node("x", (B, LENGTH, 3), "float32"), input_node("y", (B,), "int32")]
    assert sizes_of(pair, [np.zeros((2, 5, 3)), np.zeros(2)]) == {"b": 2, "n1": 5}
    for shapes, error in [
        ([(2, 5, 4), (2,)], "x needs float32[b, n1, 3], got shape (2, 5, 4)"),
        ([(2, 5, 3), (3,)], "y needs int32[b], got shape (3,)"),
        ([(2, 5), (2,)], "x needs float32[b, n1, 3], got shape (2, 5)"),
    ]:
        with pytest.raises(ShapeError) as caught:
            sizes_of(pair, [np.zeros(s) for s in shapes])
        assert str(caught.value) == error
    with pytest.raises(ShapeError, match=r"expected 1 arrays \(x\), got 2"):
        function(Graph((X,), (X,), ("y",)))(np.zeros((1, 3)), np.zeros(3))


def test_what_is_missing_is_named():
    y = a.exp(X)
    with pytest.raises(
        CompilerError, match=r"<exp : float32\[b, 3\]> needs <input : float32\[b, 3\]>, which is neither"
    ):
        evaluate([y], {}, {})
    flat = shape.reshape(X, shape=(3 * B,))
    with pytest.raises(CompilerError, match="the size 'b' is unknown; known are {'n1': 2}"):
        evaluate([flat], {X: np.zeros((2, 3), "f")}, {"n1": 2})


def run_stages(graph, known, sizes):
    stages, carried, out, seen = split_stages(graph), (), None, []
    for k in range(len(stages)):
        leaves = {n: known[n] for n in stage_leaves(graph, stages, k)}
        seen.append(sorted(n.attrs["name"] for n in leaves))
        carried, out = stage_function(graph, stages, k, sizes)(leaves, carried, out)
    return out, seen, stages


def test_stages_carry_what_later_ones_need_and_take_only_their_own_leaves():
    w, late = param_node("w", (3,)), param_node("late", ())
    y = X * w
    total = all_reduce(shape.sum(y, axis=0))
    centred = y - total
    count = all_reduce(shape.sum(centred))
    graph = Graph((X,), (centred * late, count, shape.sum(y)), ("z", "count", "early"))
    known = {X: np.ones((2, 3), "f"), w: np.arange(3, dtype="f"), late: np.float32(2)}
    out, seen, stages = run_stages(graph, known, {"b": 2})
    assert len(stages) == 3 and seen == [["w", "x"], ["late"], []]
    assert stages[0].carried_out == stages[1].carried_in == (y, shape.sum(y))
    assert [n.op.name for n in stages[1].reduce] == ["all_reduce"]
    np.testing.assert_array_equal(out[0], np.tile([0.0, -2.0, -4.0], (2, 1)))
    assert (float(out[1]), float(out[2])) == (-6, 6)
    whole = function(graph, list(known))(*known.values())
    for got, want in zip(out, whole):
        np.testing.assert_array_equal(got, want)


def test_a_graph_whose_output_is_a_sum_has_two_stages_and_one_without_has_one():
    assert len(split_stages(Graph((X,), (a.exp(X),), ("y",)))) == 1
    stages = split_stages(Graph((X,), (all_reduce(X),), ("y",)))
    assert len(stages) == 2 and stages[1].carried_in == ()
    out, _, _ = run_stages(Graph((X,), (all_reduce(X),), ("y",)), {X: np.ones((2, 3), "f")}, {"b": 2})
    assert out[0].shape == (2, 3)


def test_sums_of_other_dtypes_come_back_in_their_own():
    counts = input_node("counts", (2,), "int32")
    out, _, _ = run_stages(Graph((counts,), (all_reduce(counts),), ("y",)), {counts: np.array([3, 4], "i4")}, {})
    assert out[0].dtype == "int32" and list(out[0]) == [3, 4]


def test_a_sum_over_replicas_inside_a_loop_is_refused():
    (last,), _ = control.scan(lambda c, cells: ([all_reduce(c[0])], []), [shape.sum(X, axis=0)], length=2)
    with pytest.raises(
        CompilerError, match="<scan : .*> holds an all_reduce; a loop's or branch's body cannot sum over"
    ):
        split_stages(Graph((X,), (last,), ("y",)))

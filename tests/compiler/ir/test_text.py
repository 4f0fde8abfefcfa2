"""Printing and parsing: round trips of random graphs and of every kind of value; errors with line and column."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from kerasoft.compiler.errors import ParseError
from kerasoft.compiler.gradient import gradient
from kerasoft.compiler.ir import Graph, node, source, symbol
from kerasoft.compiler.ir.text import parse_graph, print_graph
from kerasoft.compiler.ops import arithmetic as a
from kerasoft.compiler.ops import control, linalg, reduce, shape
from kerasoft.compiler.ops.registry import constant, input_node, param_node

B = symbol("b")


@st.composite
def graphs(draw):
    pool = [input_node("x", (B, 3), "float32"), param_node("k", (3,)), constant(draw(st.floats(-5, 5, width=32)))]
    pool.append(constant(np.arange(draw(st.sampled_from([3, 12])), dtype="float32")[-3:]))
    for _ in range(draw(st.integers(1, 8))):
        x, y = draw(st.sampled_from(pool)), draw(st.sampled_from(pool))
        kind = draw(st.sampled_from(["add", "multiply", "maximum", "sum", "label", "reshape", "cast"]))
        if kind in ("add", "multiply", "maximum"):
            pool.append(getattr(a, kind)(x, y))
        elif kind == "sum":
            pool.append(shape.broadcast_to(shape.sum(x, axis=-1, keepdims=True) if x.ndim else x, shape=(B, 3)))
        elif kind == "label":
            with source(draw(st.text(max_size=5))):
                pool.append(a.negative(x))
        elif kind == "cast":
            pool.append(shape.cast(shape.cast(x, "int32"), "float32"))
        else:
            pool.append(shape.reshape(shape.reshape(x, shape=(1, *x.shape)), shape=x.shape))
    outputs = draw(st.lists(st.sampled_from(pool), min_size=1, max_size=3))
    return Graph((pool[0],), tuple(outputs), tuple(f"out/{i}" for i in range(len(outputs))))


@given(graphs())
@settings(max_examples=60, deadline=None)
def test_a_printed_graph_parses_to_the_same_nodes(graph):
    table = {}
    printed = print_graph(graph, table)
    again = parse_graph(printed, table)
    assert again == graph
    assert all(x is y for x, y in zip(again.nodes, graph.nodes))
    assert print_graph(again) == printed


@pytest.mark.parametrize(
    "value",
    [
        None, True, 1, 1.0, -0.0, 1e-30, float("inf"), "it's a \"string\"\n%1 # no comment", (), (1,), (1, (2.5, "x"), None),
        B, 4 * B - 1, (B // 2, 3), np.float32(0.1), np.arange(20), np.array([[True]]),
        np.array([np.nan, 1.0]), np.array([0.1, 2], "float16"), np.array(7, "uint32"), np.zeros((0, 2)), len,
    ],
    ids=repr,
)  # fmt: skip
def test_every_kind_of_attribute_value_round_trips(value, new_op):
    anything = new_op("test_anything", lower=lambda x, **_: x)
    graph = Graph((x := input_node("x", (B,), "float32"),), (node(anything, (x,), {"value": value}),), ("y",))
    table = {}
    assert parse_graph(print_graph(graph, table), table) == graph


def test_gradients_and_tuple_types_round_trip():
    x = param_node("x", (2, 3))
    values, indices = reduce.top_k(x, k=2)
    total = shape.sum(values) + shape.sum(shape.cast(indices, "float32"))
    graph = Graph(
        (), tuple(gradient({total: constant(1.0)}, [x])) + (linalg.matmul(x, shape.transpose(x)),), ("a", "b")
    )
    table = {}
    printed = print_graph(graph, table)
    assert parse_graph(printed, table) == graph


def test_sources_are_kept():
    with source("dense_1"):
        y = a.negative(param_node("only_here", (2,)))
    printed = print_graph(Graph((), (y,), ("y",)))
    assert "%1 = negative(%0) : float32[2] of 'dense_1'" in printed


X = "%0 = input{name='x'} : float32[b, 2]\n"


@pytest.mark.parametrize(
    "given_text, error",
    [
        ("", "line 0, column 1: the graph has no output"),
        (X + "inputs %0", "line 2, column 1: the graph has no output"),
        (X + "output 'y' = %1", "line 2, column 14: %1 is not defined above"),
        (X + "%1 = frob(%0) : float32[b, 2]", "line 2, column 6: unknown op 'frob'"),
        (X + "%1 = negative(%0) : float32[b, 3]", "line 2, column 21: the type says float32[b, 3], negative gives float32[b, 2]"),
        (X + "%0 = negative(%0) : float32[b, 2]", "line 2, column 1: %0 is defined twice"),
        (X + "%1 = negative(%0 : float32[b, 2]", "line 2, column 18: expected ), got ':'"),
        (X + "%1 = reshape(%0){shape=($, 1)} : float32[b]", "line 2, column 25: unexpected '$'"),
        (X + "%1 = negative(%0) : float99[b, 2]", "line 2, column 21: unknown dtype 'float99'"),
        (X + "%1 = negative(%0) : float32[b, 2*]", "line 2, column 32: '2 *' is no size"),
        (X + "%1 = negative(%0) : float32[b, 2] extra", "line 2, column 35: unexpected 'extra' after the end"),
        (X + "%1 = constant{value=float32[3](1.0)} : float32[3]", "line 2, column 21: 1 numbers do not make float32[3]"),
        (X + "%1 = constant{value=float32[30]@0123456789abcdef} : float32[30]", "column 32: @0123456789abcdef is not in the table"),
        (X + "output 'y' = %0\noutput 'y' = %0", "line 3, column 12: output 'y' stands twice"),
        (X.replace("b", "3") + "%1 = matmul(%0, %0) : float32[7]", "line 2, column 6: matmul"),
    ],
)  # fmt: skip
def test_errors_give_line_and_column(given_text, error):
    with pytest.raises(ParseError) as caught:
        parse_graph(given_text)
    assert error in str(caught.value)


@given(st.text(max_size=60), st.integers(0, 200))
@settings(max_examples=100, deadline=None)
def test_garbage_is_a_parse_error_and_nothing_else(garbage, at):
    x = input_node("x", (B, 2), "float32")
    printed = print_graph(Graph((x,), (shape.sum(x * 2.0, axis=1),), ("y",)))
    try:
        parse_graph(printed[:at] + garbage + printed[at:])
    except ParseError as error:
        assert str(error).startswith("line ")


def loops():
    x, k = input_node("x", (B, 5, 3), "float32"), param_node("k", (3, 3))

    def step(carry, cells):
        state = a.tanh(linalg.matmul(carry[0] + cells[0], k))
        (twice,) = control.while_loop(lambda s: shape.sum(s) < 0.0, lambda s: (s + 1.0,), [state])
        return [state], [a.stop_gradient(twice)]

    (last,), (ys,) = control.scan(step, [x[:, 0]], [shape.transpose(x, (1, 0, 2))])
    chosen = control.cond(shape.sum(last) > 0.0, lambda: last * 2.0, lambda: last + k[0])
    return Graph((x,), (chosen, ys), ("y", "ys"))


def test_bodies_of_loops_are_printed_and_parsed_without_a_table():
    printed = print_graph(loops())
    assert printed.count("graph &") == 4 and printed.count("\n}") == 4
    assert parse_graph(printed) == loops()
    broken = printed.replace("tanh(", "tahn(")
    line = next(i for i, text in enumerate(broken.splitlines(), 1) if "tahn" in text)
    with pytest.raises(ParseError, match=f"line {line}, column 6: unknown op 'tahn'"):
        parse_graph(broken)


def test_bodies_in_attributes_of_gradients_round_trip():
    x = param_node("x", (4, 3))
    (last,), _ = control.scan(lambda c, cells: ([c[0] * cells[0]], []), [constant(np.ones(3, "f"))], [x])
    graph = Graph((), tuple(gradient({shape.sum(last): constant(1.0)}, [x])), ("dx",))
    assert parse_graph(print_graph(graph)) == graph

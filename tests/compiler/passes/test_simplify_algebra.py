"""SimplifyAlgebra: every rule of its table, by name."""

import numpy as np
import pytest
from kerasoft.compiler.ir import Graph, node, symbol
from kerasoft.compiler.ir.text import print_graph
from kerasoft.compiler.ops import arithmetic as a
from kerasoft.compiler.ops import creation, shape
from kerasoft.compiler.ops.registry import constant, input_node
from kerasoft.compiler.passes import SimplifyAlgebra, pipeline
from kerasoft.compiler.passes.simplify_algebra import RULES

B = symbol("b")
X, Y = (input_node(n, (B, 2), "float32") for n in "xy")
I = input_node("i", (B, 2), "int32")  # noqa: E741
ROW, ONE = input_node("row", (2,), "float32"), input_node("one", (1, 1), "float32")
SCALAR = input_node("scalar", (), "float32")
THREE = input_node("three", (2, 3, 4), "float32")


def op(name, x, **attrs):
    return node(SHAPES[name], (x,), attrs)


SHAPES = {"reshape": shape.reshape, "transpose": shape.transpose_op, "cast": shape.cast_op}
ROWS = shape.broadcast_to(ROW, shape=(B, 2))

CASES = {
    "x * 1 = x": (X * 1.0, X),
    "1 * x = x": (a.multiply(creation.full((B, 1), 1.0), X), X),
    "x / 1 = x": (a.divide(X, shape.broadcast_to(constant([1.0]), shape=(2,))), X),
    "x + 0 = x": (X + 0.0, X),
    "0 + x = x": (a.add(0.0, X), X),
    "x - 0 = x": (X - constant(np.zeros(2, "f")), X),
    "x ** 1 = x": (a.power(X, 1.0), X),
    "x * -1 = -x": (X * -1.0, a.negative(X)),
    "-1 * x = -x": (a.multiply(-1.0, X), a.negative(X)),
    "-(-x) = x": (a.negative(a.negative(X)), X),
    "x + (-y) = x - y": (X + a.negative(Y), X - Y),
    "(-y) + x = x - y": (a.negative(Y) + X, X - Y),
    "x - (-y) = x + y": (X - a.negative(Y), X + Y),
    "zeros_like(x) = 0": (shape.zeros_like(X), shape.broadcast_to(constant(0.0), shape=(B, 2))),
    "ones_like(x) = 1": (shape.ones_like(I), shape.broadcast_to(constant(1), shape=(B, 2))),
    "sum(0) = 0": (shape.sum(creation.full((B, 2), 0.0), axis=0), shape.broadcast_to(constant(0.0), shape=(2,))),
    "sum over no axes": (shape.sum(X, axis=()), X),
    "sum over axes of size 1": (shape.sum(ONE, axis=-1), shape.reshape(ONE, shape=(1,))),
    "cast to the same": (op("cast", X, dtype="float32"), X),
    "cast(cast(x))": (shape.cast(shape.cast(shape.cast(X, "float16"), "float32"), "int32"), shape.cast(shape.cast(X, "float16"), "int32")),
    "reshape to the same": (shape.reshape(X, shape=(-1, 2)), X),
    "reshape(reshape(x))": (shape.reshape(shape.reshape(X, shape=(1, B, 2)), shape=(B, 2, 1)), shape.reshape(X, shape=(B, 2, 1))),
    "repeat to the same": (shape.broadcast_to(X, shape=(B, 2)), X),
    "repeat(repeat(x))": (shape.broadcast_to(ROWS, shape=(3, B, 2)), shape.broadcast_to(ROW, shape=(3, B, 2))),
    "repeat(reshape(scalar))": (
        shape.broadcast_to(shape.reshape(SCALAR, shape=(1, 1)), shape=(B, 2)), shape.broadcast_to(SCALAR, shape=(B, 2))),
    "op(repeat(x), y) = op(x, y)": (a.divide(X, ROWS), a.divide(X, ROW)),
    "transpose to the same": (op("transpose", X, axes=(0, 1)), X),
    "transpose(transpose(x))": (
        shape.transpose(shape.transpose(THREE, (1, 2, 0)), (1, 0, 2)), shape.transpose(THREE, (2, 1, 0))),
    "stop_gradient(x) = x": (a.stop_gradient(X), X),
}  # fmt: skip

INPUTS = (X, Y, I, ROW, ONE, SCALAR, THREE)


def test_every_rule_has_a_case():
    assert list(CASES) == [rule.name for rule in RULES]


@pytest.mark.parametrize("name", CASES)
def test_rule(name, check):
    before, after = CASES[name]
    rule = next(r for r in RULES if r.name == name)
    assert rule.find(before) is not None
    graphs = [Graph(INPUTS, (a.tanh(n) if n.type.is_float else n,), ("y",)) for n in (before, after)]
    made = check(SimplifyAlgebra(), graphs[0], *map(_operations, graphs))
    assert made == graphs[1]


def _operations(graph):
    lines = [line.split(" = ", 1)[1] for line in print_graph(graph).splitlines() if line.startswith("%")]
    return [line for line in lines if not line.startswith(("input", "param"))]


def test_rules_apply_to_what_rules_made(check):
    y = a.negative(a.negative(X * 1.0) * -1.0) * -1.0 + shape.zeros_like(X)
    assert SimplifyAlgebra().run(Graph((X,), (y,), ("y",))).outputs == (X,)


def test_what_stays(untouched):
    one = SimplifyAlgebra()
    untouched(one, X * 2.0, X + 1.0, X - Y, a.subtract(0.0, X), inputs=(X, Y))
    untouched(
        one, a.add(ROW, shape.broadcast_to(constant(0.0), shape=(B, 2))), inputs=(ROW,)
    )  # the zero repeats the row
    untouched(one, shape.cast(shape.cast(X, "int32"), "float32"), inputs=(X,))  # the conversion truncates
    untouched(one, X * 0.0, inputs=(X,))  # NaN and infinity
    untouched(one, a.multiply(ROWS, ROW), inputs=(ROW,))


def test_the_pipeline_cleans_a_gradient_and_names_the_pass_that_breaks():
    from kerasoft.compiler.errors import VerifyError
    from kerasoft.compiler.gradient import gradient

    k = input_node("k", (2,), "float32")
    loss = shape.sum(a.square(X * k - Y))
    (dk,) = gradient({loss: constant(1.0)}, [k])
    graph = Graph((X, Y, k), (dk,), ("dk",))
    made = pipeline.optimise(graph, "train", check=True)
    assert len(made.nodes) < len(graph.nodes)
    assert pipeline.optimise(made, "train", check=True) is made

    class LoseInputs(SimplifyAlgebra):
        def run(self, graph):
            return Graph((), graph.outputs, graph.output_names)

    with pytest.raises(VerifyError, match="after pass LoseInputs: input 'x' is used but not among"):
        pipeline.run_passes(made, [LoseInputs()], check=True)
    with pytest.raises(ValueError, match="kind is one of train, test, predict, update, export, got 'fit'"):
        pipeline.optimise(made, "fit")

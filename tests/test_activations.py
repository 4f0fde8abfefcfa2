"""Activations, regularizers and constraints: numbers, configs and errors against Keras."""

import keras
import numpy as np
import pytest
from kerasoft.compiler.ir import Graph
from kerasoft.compiler.lower import function
from kerasoft.compiler.ops.registry import input_node

from kerasoft import activations, constraints, ops, regularizers

X = np.linspace(-7, 7, 24, dtype="float32").reshape(4, 6)
FUNCTIONS = [
    n for n in dir(keras.activations) if not n.startswith("_") and n not in ("get", "serialize", "deserialize")
]


@pytest.mark.parametrize("name", [n for n in FUNCTIONS if n != "sparsemax"])
def test_an_activation_gives_keras_numbers_on_arrays_and_in_graphs(name):
    arguments = (0.5, 2.0) if name == "threshold" else ()
    ours, theirs = getattr(activations, name), getattr(keras.activations, name)
    want = np.asarray(theirs(X, *arguments))
    np.testing.assert_allclose(np.asarray(ours(ops.convert_to_tensor(X), *arguments)), want, atol=2e-6)
    x = input_node("x", X.shape, "float32")
    graph = Graph((x,), (ours(x, *arguments),), ("y",))
    np.testing.assert_allclose(np.asarray(function(graph)(X)[0]), want, atol=2e-6)
    if name != "threshold":
        assert activations.serialize(ours) == keras.activations.serialize(theirs)
        assert activations.get(name) is ours


@pytest.mark.parametrize(
    "arguments",
    [
        {"max_value": 3.0},
        {"negative_slope": 0.2},
        {"threshold": 1.5},
        {"max_value": 6.0, "threshold": -2.0},
        {"max_value": 6.0, "negative_slope": 0.1},
        {"threshold": 1.0, "negative_slope": 0.1, "max_value": 2.0},
    ],
)
def test_relu_with_arguments(arguments):
    want = np.asarray(keras.activations.relu(X, **arguments))
    np.testing.assert_allclose(np.asarray(activations.relu(ops.convert_to_tensor(X), **arguments)), want, atol=1e-6)


def test_sparsemax_is_the_nearest_point_of_the_simplex():
    # Keras 3.15's rows do not even sum to 1 here, so the conditions of the projection are the oracle.
    p = np.asarray(activations.sparsemax(ops.convert_to_tensor(X)))
    np.testing.assert_allclose(p.sum(-1), 1.0, atol=1e-5)
    for row, result in zip(X, p, strict=True):
        threshold = (row - result)[result > 0]
        np.testing.assert_allclose(threshold, threshold[0], atol=1e-5)
        assert (row[result == 0] <= threshold[0] + 1e-5).all()


def test_every_activation_of_keras_is_here():
    assert [n for n in FUNCTIONS if not hasattr(activations, n)] == []


def test_activation_identifiers():
    assert activations.get(None) is activations.linear
    own = lambda x: x  # noqa: E731
    assert activations.get(own) is own
    assert activations.serialize(ops.relu) == "relu"
    with pytest.raises(ValueError, match="Could not interpret activation function identifier: rellu"):
        activations.get("rellu")


REGULARIZERS = [("L1", (0.3,)), ("L2", (0.2,)), ("L1L2", (0.1, 0.2)), ("OrthogonalRegularizer", (0.5, "rows")),
                ("OrthogonalRegularizer", (0.5, "columns")), ("L1L2", ())]  # fmt: skip


@pytest.mark.parametrize("name, arguments", REGULARIZERS)
def test_a_regularizer_gives_keras_numbers(name, arguments):
    ours, theirs = getattr(regularizers, name)(*arguments), getattr(keras.regularizers, name)(*arguments)
    want = float(theirs(keras.ops.convert_to_tensor(X)))
    assert float(ours(ops.convert_to_tensor(X))) == pytest.approx(want, rel=1e-5)
    x = input_node("x", X.shape, "float32")
    made = ours(x)
    if hasattr(made, "op"):
        assert float(function(Graph((x,), (made,), ("y",)))(X)[0]) == pytest.approx(want, rel=1e-5)
    config, expected = regularizers.serialize(ours), keras.regularizers.serialize(theirs)
    assert config["config"].pop("factor", 0) == pytest.approx(expected["config"].pop("factor", 0))
    assert {k: pytest.approx(v) if isinstance(v, float) else v for k, v in expected["config"].items()} == config[
        "config"
    ]
    assert type(regularizers.deserialize(regularizers.serialize(ours))) is type(ours)


CONSTRAINTS = [("MaxNorm", (1.5, 0)), ("MaxNorm", (2, [0, 1])), ("NonNeg", ()), ("UnitNorm", (1,)),
               ("MinMaxNorm", (0.5, 2.0, 0.25, 1)), ("MinMaxNorm", ())]  # fmt: skip


def test_every_regularizer_and_constraint_has_a_row():
    for module, table, base in (
        (keras.regularizers, REGULARIZERS, "Regularizer"),
        (keras.constraints, CONSTRAINTS, "Constraint"),
    ):
        public = {getattr(module, name).__name__ for name in dir(module) if isinstance(getattr(module, name), type)}
        assert {name for name, _ in table} == public - {base}


@pytest.mark.parametrize("name, arguments", CONSTRAINTS)
def test_a_constraint_gives_keras_numbers(name, arguments):
    ours, theirs = getattr(constraints, name)(*arguments), getattr(keras.constraints, name)(*arguments)
    want = np.asarray(theirs(keras.ops.convert_to_tensor(X)))
    np.testing.assert_allclose(np.asarray(ours(ops.convert_to_tensor(X))), want, rtol=1e-5)
    x = input_node("x", X.shape, "float32")
    np.testing.assert_allclose(np.asarray(function(Graph((x,), (ours(x),), ("y",)))(X)[0]), want, rtol=1e-5)
    assert constraints.serialize(ours) == keras.constraints.serialize(theirs)
    assert type(constraints.get(constraints.serialize(ours))) is type(ours)


@pytest.mark.parametrize(
    "make, text",
    [
        (lambda: regularizers.L2(-1.0), "Invalid value for argument l2: expected a non-negative float. .*l2=-1.0"),
        (lambda: regularizers.L1(float("nan")), "Invalid value for argument l1"),
        (lambda: regularizers.get("l3"), "Could not interpret regularizer identifier: l3"),
        (lambda: regularizers.OrthogonalRegularizer(mode="diagonal"), "Expected one of .* Received: mode=diagonal"),
        (lambda: regularizers.OrthogonalRegularizer()(np.zeros(3)), r"must have rank 2. Received: inputs.shape=\(3,\)"),
        (lambda: constraints.get("norm"), "Could not interpret constraint identifier: norm"),
    ],
)
def test_errors(make, text):
    with pytest.raises(ValueError, match=text):
        make()

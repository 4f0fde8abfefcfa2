"""Every loss against Keras 3: values and gradients, and the terms of a distributed step against the eager value."""

from __future__ import annotations

import inspect

import jax
import keras
import numpy as np
import pytest
from kerasoft.compiler.gradient import gradient
from kerasoft.compiler.ir import Graph, symbol
from kerasoft.compiler.lower import function
from kerasoft.compiler.ops.registry import constant, input_node

import kerasoft as ks

ROWS, CLASSES = 6, 4
rng = np.random.default_rng(7)
PROBABILITIES = rng.uniform(0.05, 0.95, (ROWS, CLASSES)).astype("float32")
LOGITS = rng.normal(0, 2, (ROWS, CLASSES)).astype("float32")
NUMBERS = rng.normal(0, 2, (ROWS, CLASSES)).astype("float32")
LABELS = np.array([1, 0, 2, 1, 3, 2], "int32")
ONE_HOT = np.eye(CLASSES, dtype="float32")[LABELS]
BITS = rng.integers(0, 2, (ROWS, CLASSES)).astype("float32")
UNIT = (LOGITS / np.linalg.norm(LOGITS, axis=1, keepdims=True)).astype("float32")
WEIGHTS = rng.uniform(0, 2, ROWS).astype("float32")

TABLE = [
    ("BinaryCrossentropy", {}, BITS, PROBABILITIES),
    ("BinaryCrossentropy", {"from_logits": True, "label_smoothing": 0.2}, BITS, LOGITS),
    ("BinaryFocalCrossentropy", {}, BITS, PROBABILITIES),
    ("BinaryFocalCrossentropy", {"apply_class_balancing": True, "from_logits": True, "gamma": 1.5}, BITS, LOGITS),
    ("CategoricalCrossentropy", {}, ONE_HOT, PROBABILITIES),
    ("CategoricalCrossentropy", {"from_logits": True, "label_smoothing": 0.1}, ONE_HOT, LOGITS),
    ("CategoricalFocalCrossentropy", {}, ONE_HOT, PROBABILITIES),
    ("CategoricalFocalCrossentropy", {"from_logits": True, "alpha": 0.5}, ONE_HOT, LOGITS),
    ("CategoricalGeneralizedCrossEntropy", {"q": 0.3}, LABELS, PROBABILITIES),
    ("CTC", {}, np.stack([LABELS, LABELS % 2, 0 * LABELS], 1), rng.normal(size=(ROWS, 7, 5)).astype("float32")),
    ("CategoricalHinge", {}, ONE_HOT, NUMBERS),
    ("Circle", {"gamma": 4.0}, LABELS, UNIT),
    ("CosineSimilarity", {}, NUMBERS, LOGITS),
    ("Dice", {"axis": -1}, BITS, PROBABILITIES),
    ("Hinge", {}, BITS, NUMBERS),
    ("Hinge", {}, 2 * BITS - 1, NUMBERS),
    ("Huber", {"delta": 0.7}, LOGITS, NUMBERS),
    ("KLDivergence", {}, ONE_HOT, PROBABILITIES),
    ("LogCosh", {}, LOGITS, NUMBERS),
    ("MeanAbsoluteError", {}, LOGITS, NUMBERS),
    ("MeanAbsolutePercentageError", {}, LOGITS, NUMBERS),
    ("MeanSquaredError", {}, LOGITS, NUMBERS),
    ("MeanSquaredError", {}, LOGITS[:, 0], NUMBERS[:, :1]),
    ("MeanSquaredLogarithmicError", {}, BITS, PROBABILITIES),
    ("Poisson", {}, BITS, PROBABILITIES),
    ("SparseCategoricalCrossentropy", {}, LABELS, PROBABILITIES),
    ("SparseCategoricalCrossentropy", {"from_logits": True}, LABELS[:, None], LOGITS),
    ("SparseCategoricalCrossentropy", {"from_logits": True, "ignore_class": 1}, LABELS, LOGITS),
    ("SquaredHinge", {}, BITS, NUMBERS),
    ("Tversky", {"axis": -1, "alpha": 0.3, "beta": 0.6}, BITS, PROBABILITIES),
]
NAMES = [thing.__name__ for thing in (*ks.losses.CLASSES, *ks.losses.FUNCTIONS)]


def named(value):
    return value if isinstance(value, str) else ""


def test_every_public_loss_has_a_row_and_keras_name():
    assert {name for name, *_ in TABLE} == {cls.__name__ for cls in ks.losses.CLASSES}
    public = {name for name in dir(keras.losses) if not name.startswith("_")}
    assert set(NAMES) == public - {"Loss", "get", "serialize", "deserialize"}


@pytest.mark.parametrize("name", NAMES)
def test_signatures_are_keras(name):
    def shown(thing):
        return [(p.name, p.default) for p in inspect.signature(thing).parameters.values()]

    assert shown(getattr(ks.losses, name)) == shown(getattr(keras.losses, name))


def traced_step(loss, y_true, y_pred):
    """``f(y_true, y_pred, weights, valid, rows, share) -> loss share, its gradient for y_pred``, jitted."""
    b = symbol("b")
    y = input_node("y", (b, *y_true.shape[1:]), y_true.dtype.name)
    p = input_node("p", (b, *y_pred.shape[1:]), "float32")
    w, v = (input_node(n, (b,), "float32") for n in ("w", "v"))
    rows, share = (input_node(n, (), "float32") for n in ("rows", "share"))
    value = loss.terms(y, p, w, valid=v).share(rows, share)
    (dp,) = gradient({value: constant(1.0)}, [p])
    return jax.jit(function(Graph((y, p, w, v, rows, share), (value, dp), ("value", "gradient"))))


@pytest.mark.parametrize(("name", "arguments", "y", "p"), TABLE, ids=named)
def test_value_and_gradient_are_keras(name, arguments, y, p):
    ours, theirs = getattr(ks.losses, name)(**arguments), getattr(keras.losses, name)(**arguments)
    expected, slope = jax.value_and_grad(lambda p: theirs(y, p, WEIGHTS))(jax.numpy.asarray(p))
    np.testing.assert_allclose(ours(y, p, WEIGHTS), expected, rtol=1e-5, atol=1e-6)
    value, dp = traced_step(ours, y, p)(y, p, WEIGHTS, np.ones(ROWS, "float32"), np.float32(ROWS), np.float32(1))
    np.testing.assert_allclose(value, expected, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(dp, slope, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("reduction", ["sum_over_batch_size", "mean", "sum", "mean_with_sample_weight", None, "none"])
@pytest.mark.parametrize("weights", [None, WEIGHTS, WEIGHTS[:, None]], ids=["unweighted", "row weights", "column"])
def test_reductions_are_keras(reduction, weights):
    ours, theirs = (module.losses.MeanSquaredError(reduction=reduction) for module in (ks, keras))
    if weights is not None and weights.ndim == 2:
        arguments = NUMBERS[:, :, None], LOGITS[:, :, None], np.repeat(weights, CLASSES, axis=1)
    else:
        arguments = NUMBERS, LOGITS, weights
    np.testing.assert_allclose(ours(*arguments), theirs(*arguments), rtol=1e-5)


SEQUENCES = rng.normal(size=(3, 5, 2)).astype("float32")
TARGETS = rng.normal(size=(3, 5, 2)).astype("float32")
MASK = np.array([[1, 1, 1, 0, 0], [1, 0, 0, 0, 0], [1, 1, 1, 1, 1]], bool)


class Masked(np.ndarray):
    """An array with a `_keras_mask`."""


@pytest.mark.parametrize("reduction", ["sum_over_batch_size", "sum", "mean_with_sample_weight"])
@pytest.mark.parametrize("weights", [None, np.arange(15, dtype="float32").reshape(3, 5)], ids=["", "weights"])
def test_masked_sequences_are_keras(reduction, weights):
    theirs = keras.ops.convert_to_tensor(SEQUENCES)
    theirs._keras_mask = keras.ops.convert_to_tensor(MASK)
    expected = keras.losses.MeanSquaredError(reduction=reduction)(TARGETS, theirs, weights)
    ours = SEQUENCES.copy().view(Masked)
    ours._keras_mask = MASK
    loss = ks.losses.MeanSquaredError(reduction=reduction)
    np.testing.assert_allclose(loss(TARGETS, ours, weights), expected, rtol=1e-5)


def test_row_weights_weigh_whole_sequences():
    """Keras refuses weights (batch,) for a loss (batch, steps); here they stand for each row's steps."""
    loss = ks.losses.MeanSquaredError()
    by_row = loss(TARGETS, SEQUENCES, np.array([1.0, 2.0, 0.0], "float32"))
    everywhere = loss(TARGETS, SEQUENCES, np.repeat([[1.0], [2.0], [0.0]], 5, axis=1).astype("float32"))
    np.testing.assert_allclose(by_row, everywhere, rtol=1e-6)


@pytest.mark.parametrize("reduction", ["sum_over_batch_size", "sum", "mean_with_sample_weight"])
@pytest.mark.parametrize("ignore", [None, 1], ids=["all", "ignore_class"])
def test_shares_of_padded_calls_add_up_to_the_whole(reduction, ignore):
    """Two calls of 3 rows, one padded, give the value and the gradient of the real rows at once."""
    loss = ks.losses.SparseCategoricalCrossentropy(True, ignore_class=ignore, reduction=reduction)
    keep = np.array([0, 1, 2, 4, 5])
    theirs = keras.losses.SparseCategoricalCrossentropy(True, ignore, reduction)
    whole = jax.value_and_grad(lambda p: theirs(LABELS[keep], p, WEIGHTS[keep]))
    expected, slope = whole(jax.numpy.asarray(LOGITS[keep]))
    y, p = input_node("y", (3,), "int32"), input_node("p", (3, CLASSES), "float32")
    w, v = (input_node(n, (3,), "float32") for n in ("w", "v"))
    numerator, denominator = loss.terms(y, p, w, valid=v)
    counted = not isinstance(denominator, tuple)
    outputs = (numerator, *((denominator,) if counted else ()), gradient({numerator: constant(1.0)}, [p])[0])
    step = jax.jit(function(Graph((y, p, w, v), outputs, tuple(map(str, range(len(outputs)))))))
    valid = np.array([1, 1, 1, 0, 1, 1], "float32")
    calls = [step(LABELS[i : i + 3], LOGITS[i : i + 3], WEIGHTS[i : i + 3], valid[i : i + 3]) for i in (0, 3)]
    assert counted == (reduction != "sum" and (ignore is not None or reduction == "mean_with_sample_weight"))
    divisor = float(sum(c[1] for c in calls)) if counted else 5.0 if reduction == "sum_over_batch_size" else 1.0
    np.testing.assert_allclose(sum(c[0] for c in calls) / divisor, expected, rtol=1e-5)
    slopes = np.concatenate([c[-1] for c in calls]) / divisor
    np.testing.assert_allclose(slopes[keep], slope, rtol=1e-4, atol=1e-6)
    assert np.all(slopes[3] == 0)


def test_terms_say_what_to_divide_by():
    b, n = symbol("b"), symbol("n1")
    y, p = (input_node(name, (b, 5, 2), "float32") for name in "yp")
    mse = ks.losses.MeanSquaredError
    assert mse().terms(y, p).denominator == ("rows", 5)
    assert mse(reduction="sum").terms(y, p).denominator == ("one",)
    assert mse(reduction="mean_with_sample_weight").terms(y, p).denominator == ("rows", 5)
    assert mse().terms(y, p, mask=input_node("m", (b, 5), "bool")).denominator.shape == ()
    unknown = [input_node(name, (b, n, 2), "float32") for name in "yp"]
    assert mse().terms(*unknown).denominator.shape == ()
    whole = ks.losses.Dice().terms(y, p)
    assert whole.denominator == ("share",) and whole.couples_rows


def test_unknown_lengths_and_masks_divide_by_counts_of_all_calls():
    b, n = symbol("b"), symbol("n1")
    y, p = (input_node(name, (b, n, 2), "float32") for name in "yp")
    v, m = input_node("v", (b,), "float32"), input_node("m", (b, n), "bool")
    share = ks.losses.MeanSquaredError().terms(y, p, mask=m, valid=v).share(None)
    graph = Graph((y, p, v, m), (share,), ("s",))
    assert any(node.op.name == "all_reduce" for node in graph.nodes)
    got = function(graph)(TARGETS, SEQUENCES, np.array([1, 1, 0], "float32"), MASK)[0]
    values = ((TARGETS - SEQUENCES) ** 2).mean(-1)[:2]
    np.testing.assert_allclose(got, values[MASK[:2]].mean(), rtol=1e-5)


def test_an_empty_mask_gives_zero():
    assert float(ks.losses.base.reduce_weighted_values(NUMBERS[:, 0], mask=np.zeros(ROWS))) == 0.0


def test_a_users_own_way_from_elements_to_a_number():
    class Total(ks.losses.Loss):
        def __call__(self, y_true, y_pred, sample_weight=None):
            return ks.ops.sum(y_pred * ks.ops.cast(y_true, "float32"))

    x, y = np.ones((2, 3), "float32"), np.array([[1.0], [2.0]], "float32")
    model = ks.Sequential([ks.Input((3,)), ks.layers.Dense(1, kernel_initializer="ones")])
    model.compile(ks.optimizers.SGD(0.1), loss=Total())
    assert model.train_on_batch(x, y) == 9.0
    np.testing.assert_allclose(model.get_weights()[0], np.full((3, 1), 0.7), rtol=1e-6)


def test_a_users_loss_and_functions():
    class Quartic(ks.losses.Loss):
        def call(self, y_true, y_pred):
            return ks.ops.mean((y_pred - y_true) ** 4, axis=-1)

    assert Quartic().name == "quartic"
    np.testing.assert_allclose(Quartic()(NUMBERS, LOGITS), np.mean((NUMBERS - LOGITS) ** 4), rtol=1e-5)
    wrapped = ks.losses.resolve(lambda y, p: ks.ops.mean(ks.ops.abs(y - p), axis=-1), (None, 4), (None, 4))
    np.testing.assert_allclose(wrapped(NUMBERS, LOGITS), np.mean(np.abs(NUMBERS - LOGITS)), rtol=1e-5)


@pytest.mark.parametrize("name", ["mse", "MAE", "mean_squared_error", "MeanSquaredError", "bce", "kld", "msle", "mape"])
def test_get_takes_keras_names(name):
    expected, found = keras.losses.get(name), ks.losses.get(name)
    assert getattr(found, "__name__", None) == getattr(expected, "__name__", None)
    assert type(found).__name__ == type(expected).__name__
    assert ks.losses.get(found) is found and ks.losses.get(None) is None


@pytest.mark.parametrize(("name", "arguments"), [row[:2] for row in TABLE], ids=named)
def test_configs_are_keras_and_round_trip(name, arguments):
    loss = getattr(ks.losses, name)(**arguments)
    config = ks.losses.serialize(loss)
    again = ks.losses.deserialize(config)
    assert type(again) is type(loss) and again.get_config() == loss.get_config()
    theirs = keras.losses.serialize(getattr(keras.losses, name)(**arguments))
    assert theirs["config"].items() <= config["config"].items()
    assert {k: v for k, v in theirs.items() if k != "config"} == {k: v for k, v in config.items() if k != "config"}
    keras.losses.deserialize(config)


def test_resolve_crossentropy_by_shapes():
    def chosen(y, p):
        return ks.losses.resolve("crossentropy", y, p).fn.__name__

    assert chosen((None,), (None, 1)) == "binary_crossentropy"
    assert chosen((None, 1), (None, 1)) == "binary_crossentropy"
    assert chosen((None,), (None, 5)) == "sparse_categorical_crossentropy"
    assert chosen((None, 1), (None, 5)) == "sparse_categorical_crossentropy"
    assert chosen((None, 5), (None, 5)) == "categorical_crossentropy"


def test_errors_say_what_to_do():
    with pytest.raises(ValueError, match="Could not interpret loss identifier: msee"):
        ks.losses.get("msee")
    with pytest.raises(ValueError, match="Invalid value for argument `reduction`.* Received: reduction=average"):
        ks.losses.MeanSquaredError(reduction="average")
    with pytest.raises(
        ValueError, match=r"target.shape=\(6,\), output.shape=\(6, 4\).* for integer labels use sparse_cat"
    ):
        ks.losses.categorical_crossentropy(LABELS, PROBABILITIES)
    with pytest.raises(
        ValueError, match=r"target.shape=\(6, 4\), output.shape=\(6, 4\).*needs integer labels of shape \(6,\)"
    ):
        ks.losses.sparse_categorical_crossentropy(ONE_HOT, PROBABILITIES)
    with pytest.raises(ValueError, match="must have the same shape. Received: .*binary_crossentropy"):
        ks.losses.binary_crossentropy(LABELS, PROBABILITIES)
    with pytest.raises(ValueError, match=r"q must be in \(0, 1\), got 1"):
        ks.losses.CategoricalGeneralizedCrossEntropy(q=1)
    p = input_node("p", (symbol("b"), 2), "float32")
    with pytest.raises(ValueError, match="loss 'mean_squared_error' has reduction=None.* Use reduction='sum_over"):
        ks.losses.MeanSquaredError(reduction=None).terms(p, p)
    with pytest.raises(NotImplementedError, match="loss Loss must override"):
        ks.losses.Loss()(NUMBERS, LOGITS)
    with pytest.warns(SyntaxWarning, match="Use binary_crossentropy for two classes"):
        ks.losses.categorical_crossentropy(BITS[:, :1], PROBABILITIES[:, :1])

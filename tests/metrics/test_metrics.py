"""Every metric against Keras 3, eagerly, and as sums measured over padded pieces of the rows."""

from __future__ import annotations

import functools
import inspect
import warnings

import jax
import keras
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from kerasoft.compiler.ir import Graph, symbol
from kerasoft.compiler.lower import function
from kerasoft.compiler.ops.registry import input_node

import kerasoft as ks

ROWS, CLASSES, CALL = 12, 4, 5
rng = np.random.default_rng(11)
PROBABILITIES = rng.uniform(0.05, 0.95, (ROWS, CLASSES)).astype("float32")
PROBABILITIES[0] = [0.0, 1.0, 0.5, 0.25]
NUMBERS = rng.normal(0, 2, (ROWS, CLASSES)).astype("float32")
OTHERS = rng.normal(0, 2, (ROWS, CLASSES)).astype("float32")
LABELS = rng.integers(0, CLASSES, ROWS).astype("int32")
GUESSES = rng.integers(0, CLASSES, ROWS).astype("int32")
ONE_HOT = np.eye(CLASSES, dtype="float32")[LABELS]
BITS = rng.integers(0, 2, (ROWS, CLASSES)).astype("float32")
BIT, CHANCE = BITS[:, 0], PROBABILITIES[:, 1]
WEIGHTS = rng.integers(0, 3, ROWS).astype("float32")

TABLE = [
    ("AUC", {}, BIT, CHANCE),
    ("AUC", {"curve": "PR", "num_thresholds": 9}, BITS, PROBABILITIES),
    ("AUC", {"curve": "PR", "summation_method": "minoring", "num_thresholds": 9}, BIT, CHANCE),
    ("AUC", {"curve": "PRGAIN", "summation_method": "majoring", "num_thresholds": 9}, BIT, CHANCE),
    ("AUC", {"multi_label": True, "label_weights": [1.0, 2.0, 0.5, 1.0], "num_thresholds": 9}, BITS, PROBABILITIES),
    ("AUC", {"thresholds": [0.2, 0.3, 0.9], "from_logits": True}, BITS, NUMBERS),
    ("Accuracy", {}, LABELS, GUESSES),
    ("BinaryAccuracy", {"threshold": 0.4}, BITS, PROBABILITIES),
    ("BinaryCrossentropy", {"label_smoothing": 0.1}, BITS, PROBABILITIES),
    ("BinaryIoU", {"threshold": 0.4}, BIT, CHANCE),
    ("CategoricalAccuracy", {}, ONE_HOT, PROBABILITIES),
    ("CategoricalCrossentropy", {"from_logits": True}, ONE_HOT, NUMBERS),
    ("CategoricalHinge", {}, ONE_HOT, NUMBERS),
    ("ConcordanceCorrelation", {}, NUMBERS, OTHERS),
    ("CosineSimilarity", {}, NUMBERS, OTHERS),
    ("F1Score", {"average": "weighted"}, ONE_HOT, PROBABILITIES),
    ("F1Score", {"average": "micro", "threshold": 0.5}, BITS, PROBABILITIES),
    ("FBetaScore", {"beta": 2.0, "threshold": 0.5}, BITS, PROBABILITIES),
    ("FBetaScore", {"beta": 0.5, "average": "macro"}, BITS, PROBABILITIES),
    ("FalseNegatives", {}, BITS, PROBABILITIES),
    ("FalsePositives", {"thresholds": [0.2, 0.7]}, BITS, PROBABILITIES),
    ("Hinge", {}, BITS, NUMBERS),
    ("IoU", {"num_classes": CLASSES, "target_class_ids": [0, 2]}, LABELS, GUESSES),
    ("KLDivergence", {}, ONE_HOT, PROBABILITIES),
    ("LogCoshError", {}, NUMBERS, OTHERS),
    ("MeanAbsoluteError", {}, NUMBERS, OTHERS),
    ("MeanAbsolutePercentageError", {}, NUMBERS, OTHERS),
    ("MeanIoU", {"num_classes": CLASSES, "ignore_class": 1}, LABELS, GUESSES),
    ("MeanSquaredError", {}, NUMBERS, OTHERS),
    ("MeanSquaredError", {}, NUMBERS[:, 0], OTHERS[:, :1]),
    ("MeanSquaredLogarithmicError", {}, BITS, PROBABILITIES),
    ("OneHotIoU", {"num_classes": CLASSES, "target_class_ids": [1, 3]}, ONE_HOT, PROBABILITIES),
    ("OneHotMeanIoU", {"num_classes": CLASSES}, ONE_HOT, PROBABILITIES),
    ("PearsonCorrelation", {}, NUMBERS, OTHERS),
    ("Poisson", {}, BITS, PROBABILITIES),
    ("Precision", {}, BITS, PROBABILITIES),
    ("Precision", {"top_k": 2, "class_id": 1}, BITS, PROBABILITIES),
    ("PrecisionAtRecall", {"recall": 0.4}, BIT, CHANCE),
    ("R2Score", {"class_aggregation": "variance_weighted_average"}, NUMBERS, OTHERS),
    ("R2Score", {"class_aggregation": None, "num_regressors": 2}, NUMBERS, OTHERS),
    ("Recall", {"thresholds": [0.3, 0.6]}, BITS, PROBABILITIES),
    ("RecallAtPrecision", {"precision": 0.5, "num_thresholds": 10}, BIT, CHANCE),
    ("RootMeanSquaredError", {}, NUMBERS, OTHERS),
    ("SensitivityAtSpecificity", {"specificity": 0.3, "num_thresholds": 10}, BIT, CHANCE),
    ("SparseCategoricalAccuracy", {}, LABELS, PROBABILITIES),
    ("SparseCategoricalAccuracy", {}, LABELS[:, None], PROBABILITIES),
    ("SparseCategoricalCrossentropy", {"from_logits": True}, LABELS, NUMBERS),
    ("SparseCategoricalCrossentropy", {"ignore_class": 2}, LABELS, PROBABILITIES),
    ("SparseTopKCategoricalAccuracy", {"k": 2}, LABELS, PROBABILITIES),
    ("SpecificityAtSensitivity", {"sensitivity": 0.4, "num_thresholds": 1}, BIT, CHANCE),
    ("SquaredHinge", {}, BITS, NUMBERS),
    ("TopKCategoricalAccuracy", {"k": 2}, ONE_HOT, PROBABILITIES),
    ("TrueNegatives", {}, BIT, CHANCE),
    ("TruePositives", {}, BIT, CHANCE),
]
OF_VALUES = {"Mean", "Sum", "MeanMetricWrapper"}  # tested by themselves below


def named(value):
    return value if isinstance(value, str) else ""


def test_every_public_metric_has_a_row_and_keras_name():
    assert {name for name, *_ in TABLE} | OF_VALUES == {cls.__name__ for cls in ks.metrics.CLASSES}
    ours = {thing.__name__ for thing in (*ks.metrics.CLASSES, *ks.metrics.FUNCTIONS)}
    public = {name for name in dir(keras.metrics) if not name.startswith("_")}
    assert ours == public - {"Metric", "get", "serialize", "deserialize"}


@pytest.mark.parametrize("name", sorted(cls.__name__ for cls in ks.metrics.CLASSES))
def test_signatures_are_keras(name):
    def shown(thing):
        return [(p.name, p.default) for p in inspect.signature(thing).parameters.values()]

    assert shown(getattr(ks.metrics, name)) == shown(getattr(keras.metrics, name))


@functools.cache
def measured(index: int, weighted: bool):
    """The metric of a row and ``f(y, p, w, valid) -> what it adds to each state``, for calls of CALL rows."""
    name, arguments, y, p = TABLE[index]
    metric = getattr(ks.metrics, name)(**arguments)
    b = symbol("b")
    nodes = [input_node(n, (b, *a.shape[1:]), a.dtype.name) for n, a in (("y", y), ("p", p))]
    nodes += [input_node(n, (b,), "float32") for n in ("w", "v")]
    added = metric.measure(*nodes[:2], nodes[2] if weighted else None, valid=nodes[3])
    return metric, jax.jit(function(Graph(tuple(nodes), tuple(added.values()), tuple(added)))), tuple(added)


def padded(array, rows):
    return np.concatenate([array[list(rows)], array[: CALL - len(rows)]])


def sums_over(index: int, weighted: bool, pieces) -> dict:
    _, run, names = measured(index, weighted)
    _, _, y, p = TABLE[index]
    sums = dict.fromkeys(names, 0.0)
    for rows in pieces:
        valid = np.array([1] * len(rows) + [0] * (CALL - len(rows)), "float32")
        for name, value in zip(names, run(padded(y, rows), padded(p, rows), padded(WEIGHTS, rows), valid), strict=True):
            sums[name] = sums[name] + np.asarray(value, np.float64)
    return sums


@pytest.mark.parametrize("weighted", [False, True], ids=["", "weighted"])
@pytest.mark.parametrize("index", range(len(TABLE)), ids=[row[0] for row in TABLE])
def test_results_are_keras(index, weighted):
    """Eagerly over three batches, and from sums over calls that are cut elsewhere and padded."""
    name, arguments, y, p = TABLE[index]
    ours, theirs = getattr(ks.metrics, name)(**arguments), getattr(keras.metrics, name)(**arguments)
    for rows in (slice(0, 4), slice(4, 8), slice(8, 12)):
        weights = WEIGHTS[rows] if weighted else None
        if "IoU" in name and weighted:
            weights = weights.astype("int32")
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # Keras asks JAX for int64 in its IoU metrics
            theirs.update_state(y[rows], p[rows], weights)
        ours.update_state(y[rows], p[rows], weights)
    expected = np.asarray(theirs.result())
    np.testing.assert_allclose(ours.result(), expected, rtol=2e-6, atol=1e-6)
    sums = sums_over(index, weighted, [range(0, 5), range(5, 6), range(6, 10), range(10, 12)])
    result = measured(index, weighted)[0].result_from(sums)
    np.testing.assert_allclose(result, expected, rtol=2e-6, atol=1e-6)
    assert isinstance(result, float if expected.ndim == 0 else np.ndarray)
    ours.reset_state()
    assert all(not v.numpy().any() for v in ours.variables)


@settings(max_examples=25, deadline=None)
@given(st.data())
def test_sums_over_any_split_of_the_rows_are_the_whole(data):
    index = data.draw(st.integers(0, len(TABLE) - 1))
    order = data.draw(st.permutations(range(ROWS)))
    cuts = sorted(data.draw(st.sets(st.integers(1, ROWS - 1))))
    pieces, start = [], 0
    for end in (*cuts, ROWS):
        while start < end:
            pieces.append(order[start : min(start + CALL, end)])
            start += len(pieces[-1])
    split = sums_over(index, False, pieces)
    whole = sums_over(index, False, [range(0, 5), range(5, 10), range(10, 12)])
    for name, value in whole.items():
        np.testing.assert_allclose(split[name], value, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize(("name", "arguments"), [row[:2] for row in TABLE], ids=named)
def test_configs_are_keras_and_round_trip(name, arguments):
    metric = getattr(ks.metrics, name)(**arguments, name="mine")
    config = ks.metrics.serialize(metric)
    again = ks.metrics.deserialize(config)
    assert type(again) is type(metric) and again.get_config() == metric.get_config()
    theirs = getattr(keras.metrics, name)(**arguments, name="mine").get_config()
    if isinstance(theirs.get("label_weights"), jax.Array):
        theirs["label_weights"] = theirs["label_weights"].tolist()
    ours = config["config"]
    assert {k: v for k, v in theirs.items() if k != "thresholds"}.items() <= ours.items()
    assert np.allclose(theirs.get("thresholds") or 0, ours.get("thresholds") or 0)


def test_mean_and_sum():
    values, weights = np.array([[1.0, 3.0], [5.0, 7.0]], "float32"), np.array([1.0, 3.0], "float32")
    for name in ("Mean", "Sum"):
        ours, theirs = getattr(ks.metrics, name)(), getattr(keras.metrics, name)()
        for arguments in ((values,), (values, weights), (values[:, 0], weights[:, None]), (np.float32(4.0),)):
            np.testing.assert_allclose(ours(*arguments), theirs(*arguments), rtol=1e-6)
    assert ks.metrics.Mean().result_from({"total": 3.0, "count": 0.0}) == 0.0


def test_a_mask_of_the_output_leaves_steps_out():
    y, p = (rng.normal(size=(2, 3, 2)).astype("float32") for _ in range(2))
    mask = np.array([[1, 1, 0], [1, 0, 0]], bool)
    theirs = keras.metrics.MeanSquaredError()
    masked = keras.ops.convert_to_tensor(p)
    masked._keras_mask = keras.ops.convert_to_tensor(mask)
    theirs.update_state(y, masked)
    nodes = [input_node("y", y.shape, "float32"), input_node("p", p.shape, "float32"), input_node("m", (2, 3), "bool")]
    ours = ks.metrics.MeanSquaredError()
    from kerasoft.scope import Scope

    with Scope() as scope:
        scope.masks[nodes[1]] = nodes[2]
        added = ours.measure(*nodes[:2])
    sums = function(Graph(tuple(nodes), tuple(added.values()), tuple(added)))(y, p, mask)
    np.testing.assert_allclose(ours.result_from(dict(zip(added, sums, strict=True))), theirs.result(), rtol=1e-6)


class Peak(ks.metrics.Metric):
    def __init__(self):
        super().__init__(name="peak")
        self.top = self.add_weight(name="top")

    def update_state(self, y_true, y_pred, sample_weight=None):
        self.top.assign(ks.ops.maximum(self.top, ks.ops.max(y_pred)))

    def result(self):
        return self.top


class Hits(ks.metrics.Metric):
    """Keras-style, without sample_weight, and with a metric inside."""

    def __init__(self, name="hits"):
        super().__init__(name=name)
        self.hits = self.add_weight(name="total", dtype="int32")
        self.misses = ks.Variable(0.0, name="misses", trainable=False)
        self.mean = ks.metrics.Mean()

    def update_state(self, y_true, y_pred):
        right = ks.ops.cast(ks.ops.equal(y_true, y_pred), "int32")
        self.hits.assign(ks.ops.sum(right) + self.hits)
        self.misses.assign(self.misses - (ks.ops.cast(ks.ops.sum(right), "float32") - 1.0))
        self.mean.update_state(y_pred)

    def result(self):
        return {"hits": ks.ops.cast(self.hits, "float32"), "mean": self.mean.result()}


def test_users_metrics_are_measured_as_written():
    y, p = (input_node(n, (symbol("b"),), "int32") for n in "yp")
    metric = Hits()
    from kerasoft.scope import Scope

    with Scope() as scope:
        added = metric.measure(y, p, valid=input_node("v", (symbol("b"),), "float32"))
    assert scope.exact_rows, "an update_state without sample_weight cannot leave padding out"
    assert list(added) == ["total", "misses", "total_1", "count"]
    assert all(node.dtype == "float32" for node in added.values())
    values = function(Graph((y, p), tuple(added.values()), tuple(added)))(LABELS, GUESSES)
    hits = (LABELS == GUESSES).sum()
    assert [float(v) for v in values] == [hits, 1 - hits, GUESSES.sum(), ROWS]
    result = metric.result_from(dict(zip(added, values, strict=True)))
    assert result == {"hits": float(hits), "mean": pytest.approx(GUESSES.mean())}
    assert all(not v.numpy().any() for v in metric.variables), "measuring and results leave the states alone"


def test_states_that_do_not_add_up_are_refused():
    y, p = (input_node(n, (symbol("b"),), "float32") for n in "yp")
    with pytest.raises(
        TypeError, match=r"metric 'peak' \(Peak\) assigns its state 'top' something else than its old va"
    ):
        Peak().measure(y, p)
    assert float(Peak()(None, CHANCE)) == 1.0, "eagerly anything goes"


def test_one_value_a_batch_needs_exact_rows():
    from kerasoft.scope import Scope

    y, p = (input_node(n, (symbol("b"), 2), "float32") for n in "yp")
    metric = ks.metrics.MeanMetricWrapper(lambda y, p: ks.ops.mean(ks.ops.square(y - p)), name="whole")
    with Scope() as scope:
        added = metric.measure(y, p, valid=input_node("v", (symbol("b"),), "float32"))
    assert scope.exact_rows and list(added) == ["total", "count"]


def test_a_loss_as_a_metric_is_the_mean_of_its_elements():
    metric = ks.metrics.resolve(ks.losses.MeanSquaredError(), (None, 4), (None, 4))
    assert metric.name == "mean_squared_error"
    for rows in (slice(0, 9), slice(9, 12)):
        metric.update_state(NUMBERS[rows], OTHERS[rows])
    np.testing.assert_allclose(metric.result(), ((NUMBERS - OTHERS) ** 2).mean(), rtol=1e-5)


@pytest.mark.parametrize(
    ("identifier", "shapes", "expected"),
    [
        ("accuracy", ((None,), (None, 1)), "BinaryAccuracy"),
        ("acc", ((None, 1), (None, 1)), "BinaryAccuracy"),
        ("accuracy", ((None,), (None, 3)), "SparseCategoricalAccuracy"),
        ("accuracy", ((None, 1), (None, 3)), "SparseCategoricalAccuracy"),
        ("accuracy", ((None, 5), (None, 5, 3)), "SparseCategoricalAccuracy"),
        ("accuracy", ((None, 3), (None, 3)), "CategoricalAccuracy"),
        ("crossentropy", ((None,), (None, 3)), "SparseCategoricalCrossentropy"),
        ("ce", ((None, 1), (None, 1)), "BinaryCrossentropy"),
        ("mae", ((None, 1), (None, 1)), "MeanAbsoluteError"),
        ("MSE", ((None, 1), (None, 1)), "MeanSquaredError"),
        ("mean_io_u", ((None, 1), (None, 1)), None),
        ("auc", ((None, 1), (None, 1)), "AUC"),
    ],
)
def test_resolve_by_name_and_shapes(identifier, shapes, expected):
    if expected is None:
        with pytest.raises(TypeError, match="num_classes"):
            ks.metrics.resolve(identifier, *shapes)
        return
    metric = ks.metrics.resolve(identifier, *shapes)
    assert type(metric).__name__ == expected and metric.name == identifier


def test_resolve_functions_and_instances():
    def nearness(y_true, y_pred):
        return -ks.ops.abs(y_true - y_pred)

    assert ks.metrics.resolve(nearness, (None, 1), (None, 1)).name == "nearness"
    own = ks.metrics.MeanAbsoluteError(name="own")
    assert ks.metrics.resolve(own, (None, 1), (None, 1)) is own and own.name == "own"
    wrapped = ks.metrics.serialize(ks.metrics.MeanMetricWrapper(ks.losses.mean_squared_error, name="x"))
    assert ks.metrics.deserialize(wrapped)._fn is ks.losses.mean_squared_error


def test_errors_say_what_is_wrong():
    with pytest.raises(ValueError, match="Could not interpret metric identifier: accurracy"):
        ks.metrics.resolve("accurracy", (None, 1), (None, 1))
    with pytest.raises(ValueError, match=r"Threshold values must be in \[0, 1\]. Received: \[1.5\]"):
        ks.metrics.Precision(thresholds=[0.5, 1.5])
    with pytest.raises(ValueError, match=r"`recall` must be in the range \[0, 1\]"):
        ks.metrics.PrecisionAtRecall(recall=2)
    with pytest.raises(ValueError, match='Invalid AUC curve value: "rac". Expected values are'):
        ks.metrics.AUC(curve="rac")
    with pytest.raises(ValueError, match="`num_labels` is needed only when `multi_label`"):
        ks.metrics.AUC(num_labels=3)
    with pytest.raises(ValueError, match="FBetaScore expects 2D inputs"):
        ks.metrics.F1Score()(BIT, CHANCE)
    with pytest.raises(ValueError, match="R2Score expects 2D inputs"):
        ks.metrics.R2Score()(BIT, CHANCE)
    with pytest.raises(ValueError, match="Target class id 4 is out of range"):
        ks.metrics.IoU(4, [4])
    with pytest.raises(ValueError, match=r"metric 'mean' has states \['total', 'count'\], got sums of \['total'\]"):
        ks.metrics.Mean().result_from({"total": 1.0})
    with pytest.raises(ValueError, match="When class_id is provided, y_pred must be a 2D array"):
        ks.metrics.Recall(class_id=1)(BIT, CHANCE)
    with pytest.raises(NotImplementedError, match="metric Metric must override `update_state`"):
        ks.metrics.Metric()(BIT, CHANCE)
    with pytest.warns(UserWarning, match="60 regressors for 48 samples give no adjusted score"):
        ks.metrics.R2Score(num_regressors=60)(NUMBERS, OTHERS)

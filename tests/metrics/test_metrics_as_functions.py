"""`stateless_*` of every metric against its own state, and metrics in the forms users write."""

from __future__ import annotations

import warnings

import jax
import keras
import numpy as np
import pytest

import kerasoft as ks
from tests.metrics.test_metrics import TABLE, WEIGHTS

COMPILED = {"AUC", "R2Score", "MeanIoU", "F1Score", "PrecisionAtRecall"}  # results that are more than a quotient


@pytest.mark.parametrize("row", {row[0]: row for row in TABLE}.values(), ids=lambda row: row[0])
def test_the_stateless_form_is_the_metric(row):
    name, arguments, y, p = row
    metric = getattr(ks.metrics, name)(**arguments)
    weights = WEIGHTS.astype("int32") if "IoU" in name else WEIGHTS
    metric.update_state(y[:5], p[:5], sample_weight=weights[:5])
    metric.reset_state()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        states = metric.stateless_update_state(metric.stateless_reset_state(), y[:5], p[:5], sample_weight=weights[:5])
        assert all(not np.any(v.numpy()) for v in metric.variables), "nothing changes outside"
        states = metric.stateless_update_state(states, y[5:], p[5:], sample_weight=weights[5:])
        result = (jax.jit(metric.stateless_result) if name in COMPILED else metric.stateless_result)(states)
        metric.update_state(y[:5], p[:5], sample_weight=weights[:5])
        metric.update_state(y[5:], p[5:], sample_weight=weights[5:])
        np.testing.assert_allclose(result, metric.result(), rtol=1e-5, atol=1e-6)
        for state, variable in zip(states, metric.variables, strict=True):
            np.testing.assert_allclose(state, variable.numpy(), rtol=1e-6, err_msg=variable.name)


def test_the_whole_stateless_form_compiles():
    metric = ks.metrics.SparseTopKCategoricalAccuracy(k=2)
    update = jax.jit(metric.stateless_update_state)
    states = metric.stateless_reset_state()
    for _ in range(2):
        states = update(states, np.array([0, 1, 2]), np.eye(3, dtype="float32")[[0, 2, 2]])
    assert [float(state) for state in states] == [6.0, 6.0] and float(metric.stateless_result(states)) == 1.0
    with pytest.raises(
        ValueError, match="corresponding 1:1 to SparseTopK.* Received list with length 1, but expected 2"
    ):
        metric.stateless_result(states[:1])


class Spread(ks.metrics.Metric):
    """A user's metric: a state, a metric inside, a dictionary as result."""

    def __init__(self, name="spread", **rest):
        super().__init__(name=name, **rest)
        self.inner = ks.metrics.Mean(name="inner")
        self.total = self.add_variable(shape=(2,), initializer="zeros", name="total")

    def update_state(self, y_true, y_pred, sample_weight=None):
        self.inner.update_state(y_pred - y_true, sample_weight=sample_weight)
        self.total.assign(self.total + ks.ops.sum(y_pred, axis=0))

    def result(self):
        return {"mean": self.inner.result(), "total": self.total}


def test_a_users_metric():
    metric, y, p = Spread(), np.zeros((3, 2), "float32"), np.arange(6, dtype="float32").reshape(3, 2)
    metric.update_state(y, p)
    result = metric.result()
    assert float(result["mean"]) == 2.5 and result["total"].numpy().tolist() == [6.0, 9.0]
    states = metric.stateless_update_state([v.value for v in metric.variables], y, p)
    found = metric.stateless_result(states)
    assert np.asarray(found["total"]).tolist() == [12.0, 18.0] and float(found["mean"]) == 2.5
    assert [v.name for v in metric.variables] == ["total", "total", "count"]
    metric.reset_state()
    assert not any(np.any(v.numpy()) for v in metric.variables)


LABELS = np.array([0, 1, 2, 3, 1, 0])
CHANCES = np.random.default_rng(0).dirichlet(np.ones(4), 6).astype("float32")
FORMS = [
    ("TopKCategoricalAccuracy", {}, np.eye(4, dtype="float32")[LABELS], CHANCES),  # k above the number of classes
    ("SparseTopKCategoricalAccuracy", {"k": 2}, LABELS[:, None], CHANCES),
    ("SparseCategoricalAccuracy", {}, LABELS.astype("float32"), CHANCES),
    ("BinaryAccuracy", {}, LABELS > 1, CHANCES[:, 0]),
    ("Accuracy", {}, LABELS[:, None], LABELS),
    ("MeanAbsoluteError", {"dtype": "float16"}, CHANCES, CHANCES[::-1]),
    ("Precision", {"thresholds": [0.0, 0.5, 1.0]}, CHANCES > 0.3, CHANCES),
    ("Recall", {"top_k": 2, "thresholds": 0.1}, CHANCES > 0.3, CHANCES),
    ("R2Score", {"num_regressors": 1}, CHANCES, CHANCES[::-1]),
    ("MeanIoU", {"num_classes": 4, "dtype": "float32"}, LABELS, LABELS[::-1]),
    ("MeanMetricWrapper", {"fn": "mean_squared_error"}, CHANCES, CHANCES[::-1]),
]


@pytest.mark.filterwarnings("ignore:Explicitly requested dtype:UserWarning")
@pytest.mark.parametrize("form", FORMS, ids=lambda form: form[0])
def test_other_forms_are_keras(form):
    name, arguments, y, p = form
    found = []
    for library in (keras, ks):
        given = {"name": "mine", **arguments}
        if "fn" in given:
            given["fn"] = getattr(library.losses, given["fn"])
        metric = getattr(library.metrics, name)(**given)
        metric.update_state(y[:4], p[:4])
        found.append((metric(y[4:], p[4:]), library.metrics.serialize(metric), [v.name for v in metric.variables]))
    (want, config, names), (got, ours, here) = found
    assert (np.shape(got), str(got.dtype)) == (np.shape(want), str(want.dtype)) and (ours, here) == (config, names)
    np.testing.assert_allclose(got, want, rtol=2e-3 if str(want.dtype) == "float16" else 1e-5, atol=1e-6)

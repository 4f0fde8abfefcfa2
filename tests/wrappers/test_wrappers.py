"""Models inside scikit-learn."""

import numpy as np
import pytest
from sklearn.base import clone
from sklearn.model_selection import cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

import kerasoft as ks

RANDOM = np.random.RandomState(0)
X = RANDOM.standard_normal((60, 4)).astype("float32")
LABELS = np.array(["no", "yes"])[(X[:, 0] > 0).astype(int)]


def classifier(X, y, units=2):
    model = ks.Sequential([ks.Input((X.shape[1],)), ks.layers.Dense(units, activation="softmax")])
    model.compile(ks.optimizers.Adam(0.1), "categorical_crossentropy")
    return model


def regressor(X, y):
    model = ks.Sequential([ks.Input((X.shape[1],)), ks.layers.Dense(1)])
    model.compile(ks.optimizers.Adam(0.1), "mse")
    return model


def test_classifier():
    ks.utils.set_random_seed(1)
    estimator = ks.wrappers.SKLearnClassifier(
        classifier, model_kwargs={"units": 2}, fit_kwargs={"verbose": 0, "epochs": 15}
    )
    pipeline = make_pipeline(StandardScaler(), estimator).fit(X, LABELS)
    assert pipeline.score(X, LABELS) > 0.9 and set(pipeline.predict(X)) == {"no", "yes"}
    fitted = pipeline[-1]
    assert fitted.classes_.tolist() == ["no", "yes"] and fitted.decision_function(X).shape == (60, 2)
    assert len(fitted.history_.history["loss"]) == 15
    assert cross_val_score(estimator, X, LABELS, cv=2).shape == (2,)
    with pytest.raises(ValueError, match="Only binary and multiclass target types are supported"):
        estimator.fit(X, X[:, 0])
    with pytest.raises(ValueError, match="only one class is present"):
        estimator.fit(X, np.zeros(60, int))


def test_regressor_and_transformer():
    ks.utils.set_random_seed(1)
    y = X @ np.array([1.0, 2.0, 0.0, 0.0], "float32")
    model = regressor(X, y)
    before = [w.copy() for w in model.get_weights()]
    estimator = ks.wrappers.SKLearnRegressor(model).fit(X, y, verbose=0, epochs=40)
    assert estimator.predict(X).shape == (60,) and estimator.score(X, y) > 0.9
    for a, b in zip(before, model.get_weights(), strict=True):
        np.testing.assert_array_equal(a, b)  # a copy was trained
    transformer = ks.wrappers.SKLearnTransformer(regressor).fit(X, y, verbose=0)
    assert transformer.transform(X).shape == (60, 1)


def test_cloning_and_errors():
    estimator = ks.wrappers.SKLearnRegressor(regressor, fit_kwargs={"epochs": 2})
    copied = clone(estimator)
    assert copied.model is regressor and copied.get_params()["fit_kwargs"] == {"epochs": 2}
    plain = ks.Sequential([ks.Input((4,)), ks.layers.Dense(1)])
    with pytest.raises(RuntimeError, match="needs to be compiled"):
        ks.wrappers.SKLearnRegressor(plain).fit(X, X[:, 0])

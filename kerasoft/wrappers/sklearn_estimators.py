"""SKLearnClassifier, SKLearnRegressor, SKLearnTransformer."""

from __future__ import annotations

import copy
from typing import Any

import numpy as np

from ..models import Model, clone_model

try:
    from sklearn.base import BaseEstimator, ClassifierMixin, RegressorMixin, TransformerMixin

    HAS_SKLEARN = True
except ImportError:  # the classes can then be imported, not made
    HAS_SKLEARN = False
    BaseEstimator = ClassifierMixin = RegressorMixin = TransformerMixin = type("Absent", (), {})


class Columns(TransformerMixin, BaseEstimator):
    """Targets as columns, and predictions in the targets' own rank again."""

    def fit(self, y: np.ndarray) -> Columns:
        self.ndim_ = y.ndim
        return self

    def transform(self, y: np.ndarray) -> np.ndarray:
        return y.reshape(-1, 1) if y.ndim == 1 else y

    def inverse_transform(self, y: np.ndarray) -> np.ndarray:
        return np.squeeze(y, axis=1) if self.ndim_ == 1 and y.ndim == 2 else y


class _Estimator(BaseEstimator):
    """What the three share.

    Args:
        model: a compiled model, which is copied in `fit`, or a function `(X, y, **model_kwargs)` that makes one.
        warm_start: accepted; every `fit` begins with a new copy.
        model_kwargs: arguments of the function.
        fit_kwargs: arguments of the model's `fit`.

    Attributes:
        model_: the trained model.
        history_: what its `fit` gave.
    """

    def __init__(self, model: Any, warm_start: bool = False, model_kwargs: Any = None, fit_kwargs: Any = None):
        if not HAS_SKLEARN:
            raise ImportError(
                f"{type(self).__name__} requires `scikit-learn` to be installed. Run `pip install scikit-learn` to "
                "install it."
            )
        self.model, self.warm_start = model, warm_start
        self.model_kwargs, self.fit_kwargs = model_kwargs, fit_kwargs

    def __sklearn_tags__(self):
        tags = super().__sklearn_tags__()
        tags.non_deterministic = True
        return tags

    def __sklearn_clone__(self):
        model = copy.deepcopy(self.model) if isinstance(self.model, Model) else self.model
        return type(self)(model, self.warm_start, self.model_kwargs, self.fit_kwargs)

    @property
    def epoch_(self) -> Any:
        """Epochs trained."""
        history = getattr(self, "history_", None)
        return getattr(history, "epoch", 0) if history is not None else 0

    def _new_model(self, X: Any, y: Any) -> Any:
        if not isinstance(self.model, Model):
            return self.model(X=X, y=y, **(self.model_kwargs or {}))
        model = clone_model(self.model)
        if self.model.compiled and not model.compiled:
            model.compile_from_config(self.model.get_compile_config())
        return model

    def fit(self, X: Any, y: Any, **kwargs: Any) -> Any:
        """Trains a new model on rows X and targets y.

        Raises:
            RuntimeError: the model is not compiled with a loss and an optimizer.
        """
        from sklearn.utils.validation import validate_data

        X, y = validate_data(self, X, y)
        y = self._targets(y, reset=True)
        model = self._new_model(X, y)
        if not model.compiled or not getattr(model, "loss", True) or not model.optimizer:
            raise RuntimeError("Given model needs to be compiled, and have a loss and an optimizer.")
        self.history_ = model.fit(X, y, **{**(self.fit_kwargs or {}), **kwargs})
        self.model_ = model
        return self

    def _raw(self, X: Any) -> np.ndarray:
        from sklearn.utils.validation import check_is_fitted, validate_data

        check_is_fitted(self)
        return self.model_.predict(validate_data(self, X, reset=False), verbose=0)

    def predict(self, X: Any) -> np.ndarray:
        """Predictions in the form of the targets."""
        raw = self._raw(X)
        return self._encoder.inverse_transform(raw)

    def _targets(self, y: np.ndarray, reset: bool = False) -> np.ndarray:
        _type_of(y)
        if reset:
            self._encoder: Any = Columns().fit(y)
        return self._encoder.transform(y)


def _type_of(y: Any) -> str:
    from sklearn.utils.multiclass import type_of_target

    kind = type_of_target(y)
    if kind == "unknown":
        raise ValueError(f"Unknown label type for data: {y!r}")
    return kind


class SKLearnClassifier(ClassifierMixin, _Estimator):
    """A classifier of scikit-learn; targets are one-hot for the model and class labels outside.

    `decision_function` gives the model's own outputs, `classes_` the labels.
    """

    def decision_function(self, X: Any) -> np.ndarray:
        """The model's outputs."""
        return self._raw(X)

    def _targets(self, y: np.ndarray, reset: bool = False) -> np.ndarray:
        from sklearn.pipeline import make_pipeline
        from sklearn.preprocessing import OneHotEncoder

        kind = _type_of(y)
        if kind not in ("binary", "multiclass"):
            raise ValueError(f"Only binary and multiclass target types are supported. Target type: {kind}")
        if reset:
            self._encoder = make_pipeline(Columns(), OneHotEncoder(sparse_output=False)).fit(y)
            self.classes_ = np.unique(y)
            if len(self.classes_) == 1:
                raise ValueError("Classifier can't train when only one class is present.")
        return self._encoder.transform(y)

    def __sklearn_tags__(self):
        tags = super().__sklearn_tags__()
        tags.classifier_tags.poor_score = True
        return tags


class SKLearnRegressor(RegressorMixin, _Estimator):
    """A regressor of scikit-learn."""

    def __sklearn_tags__(self):
        tags = super().__sklearn_tags__()
        tags.regressor_tags.poor_score = True
        return tags


class SKLearnTransformer(TransformerMixin, _Estimator):
    """A transformer of scikit-learn: `transform` gives the model's outputs."""

    def transform(self, X: Any) -> np.ndarray:
        """The model's outputs."""
        return self._raw(X)

    def __sklearn_tags__(self):
        tags = super().__sklearn_tags__()
        tags.transformer_tags.preserves_dtype = []
        return tags

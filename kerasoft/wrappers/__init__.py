"""Models as estimators of scikit-learn, for its pipelines, searches and scores."""

from .sklearn_estimators import SKLearnClassifier, SKLearnRegressor, SKLearnTransformer

__all__ = ["SKLearnClassifier", "SKLearnRegressor", "SKLearnTransformer"]

"""Metrics: states that add up over rows, and results computed from them; Keras' names, arguments and numbers."""

from __future__ import annotations

from typing import Any

from ..identifiers import Family
from ..losses import (
    binary_crossentropy,
    binary_focal_crossentropy,
    binary_or_sparse,
    categorical_crossentropy,
    categorical_focal_crossentropy,
    categorical_hinge,
    hinge,
    huber,
    kl_divergence,
    log_cosh,
    mean_absolute_error,
    mean_absolute_percentage_error,
    mean_squared_error,
    mean_squared_logarithmic_error,
    poisson,
    sparse_categorical_crossentropy,
    squared_hinge,
)
from .accuracy import (
    Accuracy,
    BinaryAccuracy,
    CategoricalAccuracy,
    SparseCategoricalAccuracy,
    SparseTopKCategoricalAccuracy,
    TopKCategoricalAccuracy,
    binary_accuracy,
    categorical_accuracy,
    sparse_categorical_accuracy,
    sparse_top_k_categorical_accuracy,
    top_k_categorical_accuracy,
)
from .auc import AUC
from .base import Metric
from .confusion import (
    FalseNegatives,
    FalsePositives,
    Precision,
    PrecisionAtRecall,
    Recall,
    RecallAtPrecision,
    SensitivityAtSpecificity,
    SpecificityAtSensitivity,
    TrueNegatives,
    TruePositives,
)
from .detection import MeanAveragePrecision
from .errors import (
    BinaryCrossentropy,
    CategoricalCrossentropy,
    CategoricalHinge,
    CosineSimilarity,
    Hinge,
    KLDivergence,
    LogCoshError,
    MeanAbsoluteError,
    MeanAbsolutePercentageError,
    MeanSquaredError,
    MeanSquaredLogarithmicError,
    Poisson,
    SparseCategoricalCrossentropy,
    SquaredHinge,
)
from .fscore import F1Score, FBetaScore
from .iou import BinaryIoU, IoU, MeanIoU, OneHotIoU, OneHotMeanIoU
from .ranking import NDCG, HitRate, MeanReciprocalRank
from .reduction import Mean, MeanMetricWrapper, Sum
from .regression import (
    ConcordanceCorrelation,
    PearsonCorrelation,
    R2Score,
    RootMeanSquaredError,
    concordance_correlation,
    pearson_correlation,
)

CLASSES: tuple[type[Metric], ...] = (
    AUC, Accuracy, BinaryAccuracy, BinaryCrossentropy, BinaryIoU, CategoricalAccuracy, CategoricalCrossentropy,
    CategoricalHinge, ConcordanceCorrelation, CosineSimilarity, F1Score, FBetaScore, FalseNegatives, FalsePositives,
    Hinge, IoU, KLDivergence, LogCoshError, Mean, MeanAbsoluteError, MeanAbsolutePercentageError, MeanIoU,
    MeanMetricWrapper, MeanSquaredError, MeanSquaredLogarithmicError, OneHotIoU, OneHotMeanIoU, PearsonCorrelation,
    Poisson, Precision, PrecisionAtRecall, R2Score, Recall, RecallAtPrecision, RootMeanSquaredError,
    SensitivityAtSpecificity, SparseCategoricalAccuracy, SparseCategoricalCrossentropy, SparseTopKCategoricalAccuracy,
    SpecificityAtSensitivity, SquaredHinge, Sum, TopKCategoricalAccuracy, TrueNegatives, TruePositives,
)  # fmt: skip
OURS: tuple[type[Metric], ...] = (HitRate, MeanAveragePrecision, MeanReciprocalRank, NDCG)
FUNCTIONS = (
    binary_accuracy, binary_crossentropy, binary_focal_crossentropy, categorical_accuracy, categorical_crossentropy,
    categorical_focal_crossentropy, categorical_hinge, concordance_correlation, hinge, huber, kl_divergence, log_cosh,
    mean_absolute_error, mean_absolute_percentage_error, mean_squared_error, mean_squared_logarithmic_error,
    pearson_correlation, poisson, sparse_categorical_accuracy, sparse_categorical_crossentropy,
    sparse_top_k_categorical_accuracy, squared_hinge, top_k_categorical_accuracy,
)  # fmt: skip
SHORT_NAMES = {
    "bce": BinaryCrossentropy,
    "mae": MeanAbsoluteError,
    "mape": MeanAbsolutePercentageError,
    "mse": MeanSquaredError,
    "msle": MeanSquaredLogarithmicError,
}
_FAMILY = Family(
    "metric",
    (*CLASSES, *OURS),
    {**SHORT_NAMES, **{name.upper(): cls for name, cls in SHORT_NAMES.items()}},
    FUNCTIONS,
)
__all__ = [
    "Metric", "deserialize", "get", "resolve", "serialize", *(thing.__name__ for thing in (*CLASSES, *OURS, *FUNCTIONS)),
]  # fmt: skip


def get(identifier: Any) -> Any:
    """The metric that `identifier` stands for: a name, a `serialize` config, a class, a function or a `Metric`.

    Raises:
        ValueError: nothing of that name.
    """
    return _FAMILY.get(identifier)


def serialize(metric: Any) -> Any:
    """The config of a metric, as Keras writes it."""
    return _FAMILY.serialize(metric)


def deserialize(config: Any, custom_objects: dict | None = None) -> Any:
    """The metric of a config made by `serialize`, or of a name."""
    return _FAMILY.deserialize(config, custom_objects)


def resolve(identifier: Any, y_true_shape: tuple, y_pred_shape: tuple) -> Metric:
    """The `Metric` for an output of these shapes, named as in Keras' logs.

    "accuracy", "acc", "crossentropy" and "ce" mean the binary kind when y_pred has one value a row, the sparse kind
    when y_true has an axis less or a last axis of 1, else the categorical kind. A string names the metric itself, a
    function gives its `__name__`.

    >>> import kerasoft as ks
    >>> ks.metrics.resolve("acc", (None,), (None, 10))
    <SparseCategoricalAccuracy name=acc>
    """
    if identifier is None:
        raise ValueError("expected a metric, got None")
    if isinstance(identifier, str) and identifier.lower() in ("accuracy", "acc", "crossentropy", "ce"):
        binary, sparse = binary_or_sparse(y_true_shape, y_pred_shape)
        kinds = (
            (BinaryAccuracy, SparseCategoricalAccuracy, CategoricalAccuracy)
            if identifier.lower() in ("accuracy", "acc")
            else (BinaryCrossentropy, SparseCategoricalCrossentropy, CategoricalCrossentropy)
        )
        return kinds[0 if binary else 1 if sparse else 2](name=identifier)
    found = get(identifier)
    if not isinstance(found, Metric):
        found = MeanMetricWrapper(found)
    if isinstance(identifier, str):
        found.name = identifier
    return found

"""Losses, as classes and as functions; Keras' names, arguments and numbers."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ..identifiers import Family
from .base import Loss, LossFunctionWrapper, Terms, reduce_terms, squeeze_or_expand_to_same_rank
from .ctc import CTC, ctc
from .hinge import CategoricalHinge, Hinge, SquaredHinge, categorical_hinge, hinge, squared_hinge
from .overlap import Circle, Dice, Tversky, circle, dice, tversky
from .probabilistic import (
    BinaryCrossentropy,
    BinaryFocalCrossentropy,
    CategoricalCrossentropy,
    CategoricalFocalCrossentropy,
    CategoricalGeneralizedCrossEntropy,
    KLDivergence,
    Poisson,
    SparseCategoricalCrossentropy,
    binary_crossentropy,
    binary_focal_crossentropy,
    categorical_crossentropy,
    categorical_focal_crossentropy,
    categorical_generalized_cross_entropy,
    kl_divergence,
    poisson,
    sparse_categorical_crossentropy,
)
from .regression import (
    CosineSimilarity,
    Huber,
    LogCosh,
    MeanAbsoluteError,
    MeanAbsolutePercentageError,
    MeanSquaredError,
    MeanSquaredLogarithmicError,
    cosine_similarity,
    huber,
    log_cosh,
    mean_absolute_error,
    mean_absolute_percentage_error,
    mean_squared_error,
    mean_squared_logarithmic_error,
)

CLASSES: tuple[type[Loss], ...] = (
    BinaryCrossentropy, BinaryFocalCrossentropy, CategoricalCrossentropy, CategoricalFocalCrossentropy,
    CTC, CategoricalGeneralizedCrossEntropy, CategoricalHinge, Circle, CosineSimilarity, Dice, Hinge, Huber, KLDivergence,
    LogCosh, MeanAbsoluteError, MeanAbsolutePercentageError, MeanSquaredError, MeanSquaredLogarithmicError, Poisson,
    SparseCategoricalCrossentropy, SquaredHinge, Tversky,
)  # fmt: skip
FUNCTIONS: tuple[Callable, ...] = (
    binary_crossentropy, binary_focal_crossentropy, categorical_crossentropy, categorical_focal_crossentropy,
    categorical_generalized_cross_entropy, categorical_hinge, circle, ctc, cosine_similarity, dice, hinge, huber,
    kl_divergence, log_cosh, mean_absolute_error, mean_absolute_percentage_error, mean_squared_error,
    mean_squared_logarithmic_error, poisson, sparse_categorical_crossentropy, squared_hinge, tversky,
)  # fmt: skip
SHORT_NAMES = {
    "bce": binary_crossentropy,
    "kld": kl_divergence,
    "mae": mean_absolute_error,
    "mse": mean_squared_error,
    "mape": mean_absolute_percentage_error,
    "msle": mean_squared_logarithmic_error,
}
_FAMILY = Family(
    "loss",
    (*CLASSES, LossFunctionWrapper),
    {
        **{function.__name__: function for function in FUNCTIONS},
        **SHORT_NAMES,
        **{name.upper(): function for name, function in SHORT_NAMES.items()},
    },
)
__all__ = [
    "Loss", "LossFunctionWrapper", "Terms", "deserialize", "get", "reduce_terms", "resolve", "serialize",
    "squeeze_or_expand_to_same_rank",
    *(thing.__name__ for thing in (*CLASSES, *FUNCTIONS)),
]  # fmt: skip


def get(identifier: Any) -> Any:
    """The loss that `identifier` stands for: a name, a `serialize` config, a class, a function or a `Loss` itself.

    Raises:
        ValueError: nothing of that name.

    >>> import kerasoft as ks
    >>> ks.losses.get("mse").__name__
    'mean_squared_error'
    """
    return _FAMILY.get(identifier)


def serialize(loss: Any) -> Any:
    """The config of a loss, as Keras writes it."""
    return _FAMILY.serialize(loss)


def deserialize(name: Any, custom_objects: dict | None = None) -> Any:
    """The loss of a config made by `serialize`, or of a name."""
    return _FAMILY.deserialize(name, custom_objects)


def resolve(identifier: Any, y_true_shape: tuple, y_pred_shape: tuple) -> Loss | None:
    """The `Loss` for an output of these shapes: as `get`, functions wrapped; "crossentropy" by the shapes."""
    if isinstance(identifier, str) and identifier.lower() in ("crossentropy", "ce"):
        binary, sparse = binary_or_sparse(y_true_shape, y_pred_shape)
        function = (
            binary_crossentropy if binary else sparse_categorical_crossentropy if sparse else categorical_crossentropy
        )
        return LossFunctionWrapper(function)
    found = get(identifier)
    return found if found is None or isinstance(found, Loss) else LossFunctionWrapper(found)


def binary_or_sparse(y_true_shape: tuple, y_pred_shape: tuple) -> tuple[bool, bool]:
    """Whether shapes mean one probability per row, and whether they mean integer class labels."""
    last_true, last_pred = (shape[-1] if len(shape) else None for shape in (y_true_shape, y_pred_shape))
    sparse = len(y_true_shape) < len(y_pred_shape) or (last_true == 1 and last_pred not in (None, 1))
    return last_pred == 1, bool(sparse)

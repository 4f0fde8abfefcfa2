"""Losses between distributions: cross entropies, their focal kinds, Kullback-Leibler, Poisson.

Probabilities are clipped to [1e-7, 1 - 1e-7]; the categorical losses first divide them by their sum.
"""

from __future__ import annotations

import warnings

from .. import ops
from .base import BuiltInLoss
from .regression import EPSILON, as_pair, fits


def _probabilities(y_pred, axis):
    return ops.clip(y_pred / ops.sum(y_pred, axis=axis, keepdims=True), EPSILON, 1.0 - EPSILON)


def _log_probabilities(y_pred, from_logits, axis):
    return ops.log_softmax(y_pred, axis=axis) if from_logits else ops.log(_probabilities(y_pred, axis))


def _check_categorical(name, y_true, y_pred, axis):
    if isinstance(axis, bool):
        raise ValueError(f"{name}: axis must be an int, got {axis!r}")
    if not fits(y_true.shape, y_pred.shape):
        raise ValueError(
            "Arguments `target` and `output` must have the same shape. Received: "
            f"target.shape={tuple(y_true.shape)}, output.shape={tuple(y_pred.shape)}. That is {name}; for integer labels use sparse_{name.removeprefix('sparse_')}."
        )
    if y_pred.shape[-1] == 1:
        warnings.warn(
            f"{name} got y_pred of shape {tuple(y_pred.shape)}: one class. Use binary_crossentropy for two classes.",
            SyntaxWarning,
            stacklevel=3,
        )


def _smoothed(y_true, label_smoothing):
    if not label_smoothing:
        return y_true
    return y_true * (1.0 - label_smoothing) + label_smoothing / y_true.shape[-1]


def categorical_crossentropy(y_true, y_pred, from_logits=False, label_smoothing=0.0, axis=-1):
    """-sum_c y_c log p_c, y one-hot or a distribution.

    >>> import kerasoft as ks
    >>> round(float(ks.losses.categorical_crossentropy([[0.0, 1.0]], [[0.5, 0.5]])[0]), 4)
    0.6931
    """
    y_true, y_pred = as_pair(y_true, y_pred, align=False)
    _check_categorical("categorical_crossentropy", y_true, y_pred, axis)
    return -ops.sum(_smoothed(y_true, label_smoothing) * _log_probabilities(y_pred, from_logits, axis), axis=axis)


def categorical_focal_crossentropy(
    y_true, y_pred, alpha=0.25, gamma=2.0, from_logits=False, label_smoothing=0.0, axis=-1
):
    """-sum_c alpha (1 - p_c)^gamma y_c log p_c.

    Source: Lin et al., Focal Loss for Dense Object Detection, equation 5.
    """
    y_true, y_pred = as_pair(y_true, y_pred, align=False)
    _check_categorical("categorical_focal_crossentropy", y_true, y_pred, axis)
    y_true = _smoothed(y_true, label_smoothing)
    p = _probabilities(ops.softmax(y_pred, axis=axis) if from_logits else y_pred, axis)
    weight = ops.convert_to_tensor(alpha, dtype=p.dtype) * ops.power(1.0 - p, gamma)
    return ops.sum(weight * (-y_true * ops.log(p)), axis=axis)


def sparse_categorical_crossentropy(y_true, y_pred, from_logits=False, ignore_class=None, axis=-1):
    """-log p_y for integer labels y; 0 where y is `ignore_class`.

    Shapes: y_true (batch, ...) or (batch, ..., 1), y_pred (batch, ..., classes) -> (batch, ...).
    """
    y_true, y_pred = _sparse_pair(y_true, y_pred, axis)
    valid = None
    if ignore_class is not None:
        valid = ops.not_equal(y_true, int(ignore_class))
        y_true = ops.where(valid, y_true, 0)
        y_pred = ops.where(ops.expand_dims(valid, axis=axis), y_pred, 0.0)
    log_p = _log_probabilities(y_pred, from_logits, axis)
    values = -ops.sum(ops.one_hot(y_true, y_pred.shape[axis], axis=axis, dtype=log_p.dtype) * log_p, axis=axis)
    return values if valid is None else ops.where(valid, values, 0.0)


def _sparse_pair(y_true, y_pred, axis):
    y_pred = ops.convert_to_tensor(y_pred)
    if "float" not in str(y_pred.dtype):
        y_pred = ops.cast(y_pred, "float32")
    y_true = ops.convert_to_tensor(y_true)
    if len(y_true.shape) == len(y_pred.shape) and y_true.shape[-1] == 1:
        y_true = ops.squeeze(y_true, axis=-1)
    expected = tuple(d for i, d in enumerate(y_pred.shape) if i != axis % len(y_pred.shape))
    if not fits(y_true.shape, expected):
        raise ValueError(
            "Arguments `target` and `output` must have the same shape up until the last dimension: "
            f"target.shape={tuple(y_true.shape)}, output.shape={tuple(y_pred.shape)}. That is "
            f"sparse_categorical_crossentropy, which needs integer labels of shape {expected}. For one-hot labels use categorical_crossentropy."
        )
    return ops.cast(y_true, "int32"), y_pred


def binary_crossentropy(y_true, y_pred, from_logits=False, label_smoothing=0.0, axis=-1):
    """mean of -y log p - (1 - y) log(1 - p) along `axis`."""
    y_true, y_pred = as_pair(y_true, y_pred, align=False)
    _check_binary("binary_crossentropy", y_true, y_pred)
    y_true = _smoothed_binary(y_true, label_smoothing)
    if from_logits:
        values = y_true * ops.softplus(-y_pred) + (1.0 - y_true) * ops.softplus(y_pred)
    else:
        values = _binary(y_true, y_pred)
    return ops.mean(values, axis=axis)


def binary_focal_crossentropy(
    y_true,
    y_pred,
    apply_class_balancing=False,
    alpha=0.25,
    gamma=2.0,
    from_logits=False,
    label_smoothing=0.0,
    axis=-1,
):
    """mean of (1 - p_t)^gamma times binary cross entropy, p_t the probability given to the right class.

    Source: Lin et al., Focal Loss for Dense Object Detection, equations 4 and 5.
    """
    y_true, y_pred = as_pair(y_true, y_pred, align=False)
    _check_binary("binary_focal_crossentropy", y_true, y_pred)
    y_true = _smoothed_binary(y_true, label_smoothing)
    if from_logits:
        y_pred = ops.sigmoid(y_pred)
    right = y_true * y_pred + (1.0 - y_true) * (1.0 - y_pred)
    values = ops.power(1.0 - right, gamma) * _binary(y_true, y_pred)
    if apply_class_balancing:
        values = (y_true * alpha + (1.0 - y_true) * (1.0 - alpha)) * values
    return ops.mean(values, axis=axis)


def _binary(y_true, p):
    p = ops.clip(p, EPSILON, 1.0 - EPSILON)
    return -(y_true * ops.log(p) + (1.0 - y_true) * ops.log(1.0 - p))


def _smoothed_binary(y_true, label_smoothing):
    return y_true * (1.0 - label_smoothing) + 0.5 * label_smoothing if label_smoothing else y_true


def _check_binary(name, y_true, y_pred):
    if not fits(y_true.shape, y_pred.shape):
        raise ValueError(
            "Arguments `target` and `output` must have the same shape. Received: "
            f"target.shape={tuple(y_true.shape)}, output.shape={tuple(y_pred.shape)}. That is {name}."
        )


def categorical_generalized_cross_entropy(y_true, y_pred, q):
    """(1 - p_y^q) / q for integer labels y: between cross entropy (q -> 0) and absolute error (q = 1).

    Source: Zhang and Sabuncu, Generalized Cross Entropy Loss for Training Deep Neural Networks with Noisy Labels.
    """
    y_pred = ops.convert_to_tensor(y_pred)
    labels = ops.cast(ops.convert_to_tensor(y_true), "int32")
    p = ops.sum(y_pred * ops.one_hot(labels, y_pred.shape[-1], dtype=y_pred.dtype), axis=-1)
    return (1.0 - ops.power(p, q)) / q


def kl_divergence(y_true, y_pred):
    """sum y log(y / p) over the last axis, both clipped to [1e-7, 1]."""
    y_true, y_pred = (ops.clip(x, EPSILON, 1.0) for x in as_pair(y_true, y_pred, align=False))
    return ops.sum(y_true * ops.log(y_true / y_pred), axis=-1)


def poisson(y_true, y_pred):
    """mean of p - y log(p + 1e-7) over the last axis."""
    y_true, y_pred = as_pair(y_true, y_pred, align=False)
    return ops.mean(y_pred - y_true * ops.log(y_pred + EPSILON), axis=-1)


class BinaryCrossentropy(BuiltInLoss):
    """Cross entropy for labels 0 and 1, one probability (or logit) each."""

    def __init__(
        self,
        from_logits=False,
        label_smoothing=0.0,
        axis=-1,
        reduction="sum_over_batch_size",
        name="binary_crossentropy",
        dtype=None,
    ):
        arguments = dict(from_logits=from_logits, label_smoothing=label_smoothing, axis=axis)
        super().__init__(binary_crossentropy, reduction, name, dtype, **arguments)


class BinaryFocalCrossentropy(BuiltInLoss):
    """Binary cross entropy that counts well-classified rows less."""

    def __init__(
        self,
        apply_class_balancing=False,
        alpha=0.25,
        gamma=2.0,
        from_logits=False,
        label_smoothing=0.0,
        axis=-1,
        reduction="sum_over_batch_size",
        name="binary_focal_crossentropy",
        dtype=None,
    ):
        arguments = dict(apply_class_balancing=apply_class_balancing, alpha=alpha, gamma=gamma)
        arguments.update(from_logits=from_logits, label_smoothing=label_smoothing, axis=axis)
        super().__init__(binary_focal_crossentropy, reduction, name, dtype, **arguments)


class CategoricalCrossentropy(BuiltInLoss):
    """Cross entropy for one-hot labels.

    >>> import kerasoft as ks
    >>> loss = ks.losses.CategoricalCrossentropy(from_logits=True)
    >>> round(float(loss([[0.0, 1.0]], [[0.0, 0.0]])), 4)
    0.6931
    """

    def __init__(
        self,
        from_logits=False,
        label_smoothing=0.0,
        axis=-1,
        reduction="sum_over_batch_size",
        name="categorical_crossentropy",
        dtype=None,
    ):
        arguments = dict(from_logits=from_logits, label_smoothing=label_smoothing, axis=axis)
        super().__init__(categorical_crossentropy, reduction, name, dtype, **arguments)


class CategoricalFocalCrossentropy(BuiltInLoss):
    """Categorical cross entropy that counts well-classified rows less."""

    def __init__(
        self,
        alpha=0.25,
        gamma=2.0,
        from_logits=False,
        label_smoothing=0.0,
        axis=-1,
        reduction="sum_over_batch_size",
        name="categorical_focal_crossentropy",
        dtype=None,
    ):
        arguments = dict(alpha=alpha, gamma=gamma, from_logits=from_logits, label_smoothing=label_smoothing, axis=axis)
        super().__init__(categorical_focal_crossentropy, reduction, name, dtype, **arguments)


class SparseCategoricalCrossentropy(BuiltInLoss):
    """Cross entropy for integer labels. Elements labelled `ignore_class` count neither above nor below the line."""

    left_out = (("axis", -1),)

    def __init__(
        self,
        from_logits=False,
        ignore_class=None,
        reduction="sum_over_batch_size",
        axis=-1,
        name="sparse_categorical_crossentropy",
        dtype=None,
    ):
        arguments = dict(from_logits=from_logits, ignore_class=ignore_class, axis=axis)
        super().__init__(sparse_categorical_crossentropy, reduction, name, dtype, **arguments)

    def element_mask(self, y_true, y_pred, values):
        if self.ignore_class is None:
            return None
        return ops.not_equal(_sparse_pair(y_true, y_pred, self.axis)[0], int(self.ignore_class))


class CategoricalGeneralizedCrossEntropy(BuiltInLoss):
    """(1 - p_y^q) / q for integer labels, 0 < q < 1: robust against wrong labels."""

    def __init__(
        self, q=0.5, reduction="sum_over_batch_size", name="categorical_generalized_cross_entropy", dtype=None
    ):
        if not 0 < q < 1:
            raise ValueError(f"CategoricalGeneralizedCrossEntropy: q must be in (0, 1), got {q}")
        super().__init__(categorical_generalized_cross_entropy, reduction, name, dtype, q=q)


class KLDivergence(BuiltInLoss):
    """sum y log(y / p)."""

    def __init__(self, reduction="sum_over_batch_size", name="kl_divergence", dtype=None):
        super().__init__(kl_divergence, reduction, name, dtype)


class Poisson(BuiltInLoss):
    """mean of p - y log p."""

    def __init__(self, reduction="sum_over_batch_size", name="poisson", dtype=None):
        super().__init__(poisson, reduction, name, dtype)

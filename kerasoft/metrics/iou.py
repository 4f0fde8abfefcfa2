"""Intersection over union of classes, from a confusion matrix."""

from __future__ import annotations

import warnings

import numpy as np

from .. import ops
from .arrays import xp
from .base import EPSILON, Metric, value_of


class IoU(Metric):
    """Mean over `target_class_ids` of true positives / (true positives + false positives + false negatives).

    Args:
        num_classes: labels and predictions are 0 ... num_classes - 1; others are left out.
        target_class_ids: classes that count; those never seen are left out of the mean.
        ignore_class: label whose elements are left out.
        sparse_y_true, sparse_y_pred: whether they hold class ids, or one value per class along `axis`.

    >>> import kerasoft as ks
    >>> round(float(ks.metrics.IoU(num_classes=2, target_class_ids=[0])([0, 0, 1, 1], [0, 1, 0, 1])), 4)
    0.3333
    """

    _direction = "up"

    def __init__(
        self,
        num_classes,
        target_class_ids,
        name=None,
        dtype=None,
        ignore_class=None,
        sparse_y_true=True,
        sparse_y_pred=True,
        axis=-1,
    ):
        super().__init__(name=name, dtype=dtype or "int32")
        if max(target_class_ids) >= num_classes:
            raise ValueError(f"Target class id {max(target_class_ids)} is out of range, which is [0, {num_classes}).")
        self.num_classes, self.target_class_ids = num_classes, list(target_class_ids)
        self.ignore_class, self.axis = ignore_class, axis
        self.sparse_y_true, self.sparse_y_pred = sparse_y_true, sparse_y_pred
        shape = (num_classes, num_classes)
        self.total_cm = self.add_variable(shape, dtype=self.dtype, name="total_confusion_matrix")

    def update_state(self, y_true, y_pred, sample_weight=None):
        y_true = self._ids(y_true, self.sparse_y_true)
        y_pred = self._ids(y_pred, self.sparse_y_pred)
        inside = [ops.greater_equal(y, 0) for y in (y_true, y_pred)]
        inside += [ops.less(y, self.num_classes) for y in (y_true, y_pred)]
        if self.ignore_class is not None:
            inside.append(ops.not_equal(y_true, self.ignore_class))
        counted = inside[0]
        for condition in inside[1:]:
            counted = ops.logical_and(counted, condition)
        weights = ops.cast(counted, self.dtype)
        if sample_weight is not None:
            traced = hasattr(sample_weight, "op")  # weights of rows, always float
            if "float" in str(getattr(sample_weight, "dtype", "")) and "int" in self.dtype and not traced:
                warnings.warn(
                    "You are passing weight as `float`, but dtype is `int`. This may result in an incorrect weight "
                    "due to type casting Consider using integer weights.",
                    stacklevel=2,
                )
            given = ops.cast(ops.convert_to_tensor(sample_weight), self.dtype)
            shape = tuple(given.shape) + (1,) * (len(y_true.shape) - len(given.shape))
            weights = ops.multiply(weights, ops.broadcast_to(ops.reshape(given, shape), y_true.shape))
        where = ops.where(counted, y_true * self.num_classes + y_pred, 0)
        n = self.num_classes
        cells = ops.segment_sum(ops.reshape(weights, (-1,)), ops.reshape(where, (-1,)), num_segments=n * n)
        self.total_cm.assign_add(ops.reshape(cells, (n, n)))

    def _ids(self, y, sparse):
        y = ops.convert_to_tensor(y)
        y = ops.cast(y if sparse else ops.argmax(y, axis=self.axis), "int32")
        return ops.squeeze(y, axis=-1) if len(y.shape) > 1 and y.shape[-1] == 1 else y

    def result(self):
        matrix = value_of(self.total_cm)
        matrix = matrix if matrix.dtype == np.float64 else matrix.astype(np.float32)
        chosen = np.asarray(self.target_class_ids)
        hits = xp.diag(matrix)[chosen]
        union = (matrix.sum(axis=0) + matrix.sum(axis=1) - xp.diag(matrix))[chosen]
        seen = union > 1e-9
        return xp.sum(xp.where(seen, hits / (union + EPSILON), 0.0)) / (xp.sum(seen, dtype=matrix.dtype) + EPSILON)

    def _config(self, *names) -> dict:
        return {**super().get_config(), **{name: getattr(self, name) for name in names}}

    def get_config(self) -> dict:
        names = ("num_classes", "target_class_ids", "ignore_class", "sparse_y_true", "sparse_y_pred", "axis")
        return self._config(*names)


class BinaryIoU(IoU):
    """IoU of the classes p < threshold and p >= threshold."""

    def __init__(self, target_class_ids=(0, 1), threshold=0.5, name=None, dtype=None):
        super().__init__(2, target_class_ids, name=name, dtype=dtype)
        self.threshold = threshold

    def update_state(self, y_true, y_pred, sample_weight=None):
        y_pred = ops.cast(ops.greater_equal(ops.convert_to_tensor(y_pred), self.threshold), "int32")
        super().update_state(y_true, y_pred, sample_weight)

    def get_config(self) -> dict:
        return self._config("target_class_ids", "threshold")


class MeanIoU(IoU):
    """Mean IoU of all classes seen."""

    def __init__(
        self,
        num_classes,
        name=None,
        dtype=None,
        ignore_class=None,
        sparse_y_true=True,
        sparse_y_pred=True,
        axis=-1,
    ):
        classes = range(num_classes)
        super().__init__(num_classes, classes, name, dtype, ignore_class, sparse_y_true, sparse_y_pred, axis)

    def get_config(self) -> dict:
        return self._config("num_classes", "ignore_class", "sparse_y_true", "sparse_y_pred", "axis")


class OneHotIoU(IoU):
    """IoU for one-hot labels."""

    def __init__(
        self, num_classes, target_class_ids, name=None, dtype=None, ignore_class=None, sparse_y_pred=False, axis=-1
    ):
        super().__init__(num_classes, target_class_ids, name, dtype, ignore_class, False, sparse_y_pred, axis)

    def get_config(self) -> dict:
        return self._config("num_classes", "target_class_ids", "ignore_class", "sparse_y_pred", "axis")


class OneHotMeanIoU(MeanIoU):
    """Mean IoU of all classes seen, for one-hot labels."""

    def __init__(self, num_classes, name=None, dtype=None, ignore_class=None, sparse_y_pred=False, axis=-1):
        super().__init__(num_classes, name, dtype, ignore_class, False, sparse_y_pred, axis)

    def get_config(self) -> dict:
        return self._config("num_classes", "ignore_class", "sparse_y_pred", "axis")

"""What a loss is, and how its elements become one number: eagerly, and as a share of a global batch.

A loss function gives one value per element of the outputs without their last axis: (batch, units) -> (batch,),
(batch, steps, units) -> (batch, steps). `reduction` makes one number of them:

    "sum_over_batch_size", "mean"   sum_i w_i l_i / number of elements (with a mask: / number of valid elements)
    "sum"                           sum_i w_i l_i
    "mean_with_sample_weight"       sum_i w_i l_i / sum_i w_i
    None, "none"                    the weighted elements
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from .. import ops
from ..naming import auto_name
from ..scope import get_mask
from ..tree import flatten, is_nested, map_structure

REDUCTIONS = ("sum_over_batch_size", "sum", None, "none", "mean", "mean_with_sample_weight")


class Terms(NamedTuple):
    """One call's part of a loss over a global batch, with what to divide it by.

    The loss of the global batch is the plain sum over calls of `share()`. Attributes:

    - numerator: float32[], sum of the weighted elements of this call's valid rows.
    - denominator: one of

      | value | loss of the global batch |
      |---|---|
      | ``("rows", k)`` | sum of numerators / (rows of the global batch x k), k elements a row |
      | ``("one",)`` | sum of numerators |
      | ``("share",)`` | mean of the numerators weighted by the calls' rows: the elements have no batch axis |
      | a node, float32[] | sum of numerators / sum of these over all calls (`all_reduce`), 0 when that is 0 |
    """

    numerator: Any
    denominator: Any

    @property
    def couples_rows(self) -> bool:
        """Whether rows enter other than by adding up, so that batches must not be padded."""
        return self.denominator == ("share",)

    def share(self, rows: Any, share: Any = None) -> Any:
        """This call's share of the loss of the global batch, float32[].

        Args:
            rows: float32[], real rows in the global batch.
            share: float32[], this call's real rows / `rows`; needed where `couples_rows`.
        """
        if not isinstance(self.denominator, tuple):
            from ..compiler.ops.collective import all_reduce

            return divide_no_nan(self.numerator, all_reduce(self.denominator))
        kind, *elements = self.denominator
        if kind == "rows":
            return ops.divide(self.numerator, ops.multiply(rows, float(elements[0])))
        return self.numerator if kind == "one" else ops.multiply(self.numerator, share)


class Loss:
    """Base of losses: override `call(y_true, y_pred)`, one value per element; or `__call__`, the loss of a batch.

    Args:
        name: name in logs; the class name in snake case by default.
        reduction: see the module's table.
        dtype: dtype of the computation, "float32" by default.

    >>> import kerasoft as ks
    >>> class Quartic(ks.losses.Loss):
    ...     def call(self, y_true, y_pred):
    ...         return ks.ops.mean((y_pred - y_true) ** 4, axis=-1)
    >>> float(Quartic()([[1.0]], [[3.0]]))
    16.0
    """

    def __init__(self, name: str | None = None, reduction: str | None = "sum_over_batch_size", dtype: Any = None):
        self.name = name or auto_name(type(self).__name__)
        self.reduction = checked_reduction(reduction)
        self.dtype = _dtype_name(dtype)

    def call(self, y_true, y_pred):
        raise NotImplementedError(f"loss {type(self).__name__} must override `call(y_true, y_pred)`")

    def element_mask(self, y_true, y_pred, values):
        """Which of `values` count, as bool of their shape; None for all."""
        return None

    def __call__(self, y_true, y_pred, sample_weight=None):
        mask = get_mask(y_pred)
        values, own = self.elements(y_true, y_pred)
        return reduce_weighted_values(values, sample_weight, _both(mask, own), self.reduction)

    def terms(self, y_true, y_pred, sample_weight=None, mask=None, valid=None) -> Terms:
        """This call's part of the loss of a global batch; for traced steps. See `reduce_terms`.

        Raises:
            ValueError: `reduction=None`: there is no one number to train on.
        """
        if type(self).__call__ is not Loss.__call__:  # a user's own way to one number, which may mix rows
            return Terms(ops.cast(self(y_true, y_pred, sample_weight), "float32"), ("share",))
        if self.reduction in (None, "none"):
            raise ValueError(
                f"loss '{self.name}' has reduction={self.reduction!r}, which gives one value per element; training "
                "needs one number. Use reduction='sum_over_batch_size' or 'sum'."
            )
        values, own = self.elements(y_true, y_pred)
        batch = flatten(_structure(y_pred))[0].shape[0]
        return reduce_terms(values, sample_weight, _both(mask, own), self.reduction, valid=valid, batch=batch)

    def elements(self, y_true, y_pred):
        """The values before weights and reduction, and which of them count (None: all)."""
        y_pred = map_structure(lambda x: ops.convert_to_tensor(x, dtype=self.dtype), _structure(y_pred))
        y_true = map_structure(lambda x: ops.convert_to_tensor(x, dtype=self.dtype), _structure(y_true))
        values = self.call(y_true, y_pred)
        return ops.convert_to_tensor(values, dtype=self.dtype), self.element_mask(y_true, y_pred, values)

    def get_config(self) -> dict:
        return {"name": self.name, "reduction": self.reduction}

    @classmethod
    def from_config(cls, config: dict) -> Loss:
        return cls(**config)

    def __repr__(self) -> str:
        return f"<{type(self).__name__} name={self.name}>"


class LossFunctionWrapper(Loss):
    """A loss from a function `fn(y_true, y_pred, **kwargs)`."""

    def __init__(self, fn: Callable, reduction="sum_over_batch_size", name=None, dtype=None, **kwargs):
        super().__init__(name or getattr(fn, "__name__", None), reduction, dtype)
        self.fn = fn
        self._fn_kwargs = kwargs

    def call(self, y_true, y_pred):
        if not is_nested(y_pred):
            y_true, y_pred = squeeze_or_expand_to_same_rank(y_true, y_pred)
        return self.fn(y_true, y_pred, **self._fn_kwargs)

    def get_config(self) -> dict:
        return {**super().get_config(), "fn": self.fn, **self._fn_kwargs}


class BuiltInLoss(LossFunctionWrapper):
    """A loss of this library: its configuration is its arguments, without the function."""

    left_out: tuple[tuple[str, Any], ...] = ()  # arguments that Keras leaves out of configs, and their defaults

    def __init__(self, fn, reduction, name, dtype, **kwargs):
        super().__init__(fn, reduction, name, dtype, **kwargs)
        self.__dict__.update(kwargs)

    def get_config(self) -> dict:
        config = {**Loss.get_config(self), **self._fn_kwargs}
        return {name: value for name, value in config.items() if (name, value) not in self.left_out}


def reduce_weighted_values(values, sample_weight=None, mask=None, reduction="sum_over_batch_size"):
    """The elements as one number (or, for None, the weighted elements); Keras' rules, on arrays or nodes.

    Shapes: values (batch, ...); sample_weight and mask of the same rank, or of the leading axes only.
    """
    checked_reduction(reduction)
    values, weights, mask = _aligned(values, sample_weight, mask)
    if reduction in (None, "none"):
        if mask is not None:
            weights = mask if weights is None else ops.multiply(weights, mask)
        return values if weights is None else ops.multiply(values, weights)
    if not values.shape or tuple(values.shape) == (0,):
        return _weighted(values, weights, mask)
    weighted = _weighted(values, weights, mask)
    total = ops.sum(weighted)
    if reduction == "sum":
        return total
    if (
        reduction == "mean_with_sample_weight"
        and mask is None
        and sample_weight is not None
        and not np.shape(sample_weight)
    ):
        return divide_no_nan(total, sample_weight)
    count = _local_count(values, weights, mask, reduction)
    if count is not None:
        return divide_no_nan(total, count)
    if all(isinstance(d, int) for d in weighted.shape):
        return total / max(_size(weighted.shape), 1)
    return ops.divide(
        total, ops.sum(ops.ones_like(weighted))
    )  # one number for the batch, times the weights of its rows


def reduce_terms(values, weights=None, mask=None, reduction="sum_over_batch_size", *, valid=None, batch=None) -> Terms:
    """`Terms` of one call: a numerator that adds up over calls, and what to divide the global sum by.

    Args:
        values: elements of the loss, (batch, ...).
        weights: sample weights, (batch,) or up to the shape of `values`.
        mask: which elements count, (batch,) or up to the shape of `values`; float or bool.
        reduction: one that gives a number.
        valid: float32[batch], 1 for real rows and 0 for padding; None when all are real.
        batch: the size of the batch axis of the outputs; when `values` have no such axis, they are reduced here and
            the denominator is ``("share",)``. None: `values` have it.
    """
    if not values.shape or (batch is not None and values.shape[0] is not batch and values.shape[0] != batch):
        return Terms(reduce_weighted_values(values, weights, mask, reduction), ("share",))
    values, weights, mask = _aligned(values, weights, mask)
    if valid is not None:
        valid = _expanded(valid, values)
    total = ops.sum(_weighted(values, weights, mask, valid))
    if reduction == "sum":
        return Terms(total, ("one",))
    inner = values.shape[1:]
    count = _local_count(values, weights, mask, reduction, valid)
    if count is not None:
        return Terms(total, count)
    if all(isinstance(d, int) for d in inner):
        return Terms(total, ("rows", _size(inner)))
    ones = ops.ones_like(values)
    return Terms(total, ops.sum(ones if valid is None else ops.multiply(ones, valid)))


def squeeze_or_expand_to_same_rank(x1, x2, expand_rank_1: bool = True):
    """Both with one rank where they differ by a last axis of size 1, so that (n,) against (n, 1) never gives (n, n)."""
    rank1, rank2 = len(x1.shape), len(x2.shape)
    if rank1 == rank2 + 1 and x1.shape[-1] == 1:
        if rank2 == 1 and expand_rank_1:
            return x1, ops.expand_dims(x2, axis=-1)
        return ops.squeeze(x1, axis=-1), x2
    if rank2 == rank1 + 1 and x2.shape[-1] == 1:
        if rank1 == 1 and expand_rank_1:
            return ops.expand_dims(x1, axis=-1), x2
        return x1, ops.squeeze(x2, axis=-1)
    return x1, x2


def divide_no_nan(a, b):
    """a / b, and 0 where b is 0."""
    zero = ops.equal(b, 0)
    return ops.where(zero, 0.0, ops.divide(a, ops.where(zero, 1.0, b)))


def checked_reduction(reduction):
    if reduction not in REDUCTIONS:
        raise ValueError(
            f"Invalid value for argument `reduction`. Expected one of {REDUCTIONS}. Received: reduction={reduction}"
        )
    return reduction


def apply_mask(sample_weight, mask, dtype="float32"):
    """Weights with 0 where the mask is off; either may be None."""
    if mask is None:
        return sample_weight
    mask = ops.cast(mask, dtype)
    if sample_weight is None:
        return mask
    sample_weight = ops.convert_to_tensor(sample_weight, dtype=dtype)
    mask, sample_weight = squeeze_or_expand_to_same_rank(mask, sample_weight)
    if len(sample_weight.shape) < len(mask.shape):
        sample_weight = _expanded(sample_weight, mask)
    return ops.multiply(sample_weight, mask)


def _aligned(values, weights, mask):
    """Values, weights and mask with shapes that broadcast row by row."""
    values = ops.convert_to_tensor(values)
    if not values.shape and (weights is not None or mask is not None):
        values = ops.broadcast_to(values, ops.convert_to_tensor(mask if weights is None else weights).shape)
    if mask is not None:
        mask = ops.cast(mask, values.dtype)
        values, mask = squeeze_or_expand_to_same_rank(values, mask)
        mask = _expanded(mask, values)
    if weights is not None:
        weights = ops.convert_to_tensor(weights, dtype=values.dtype)
        before = len(values.shape)
        values, weights = squeeze_or_expand_to_same_rank(values, weights)
        if mask is not None and len(values.shape) != before:
            mask = _expanded(mask, values) if len(values.shape) > before else ops.squeeze(mask, axis=-1)
        if len(weights.shape) < len(values.shape):
            weights = ops.broadcast_to(_expanded(weights, values), values.shape)
    return values, weights, mask


def _weighted(values, *factors):
    for factor in factors:
        if factor is not None:
            values = ops.multiply(values, factor)
    return values


def _local_count(values, weights, mask, reduction, valid=None):
    """The number to divide this call's sum by where the row count does not give it, else None."""
    if reduction == "mean_with_sample_weight":
        if weights is None and mask is None:
            return None
        counted = weights if mask is None else mask if weights is None else ops.multiply(weights, mask)
        return ops.sum(counted if valid is None else ops.multiply(counted, valid))
    if mask is None:
        return None
    counted = ops.broadcast_to(mask, values.shape)
    return ops.sum(counted if valid is None else ops.multiply(counted, valid))


def _expanded(x, like):
    """`x` with axes of size 1 appended up to the rank of `like`."""
    missing = len(like.shape) - len(x.shape)
    return ops.reshape(x, tuple(x.shape) + (1,) * missing) if missing > 0 else x


def _both(a, b):
    if a is None or b is None:
        return b if a is None else a
    return ops.logical_and(ops.cast(a, "bool"), ops.cast(b, "bool"))


def _size(shape) -> int:
    size = 1
    for dim in shape:
        size *= dim
    return size


def _structure(y):
    """A list of numbers is one array; a list of arrays is a structure of them."""
    if isinstance(y, (list, tuple)) and not any(hasattr(leaf, "shape") for leaf in flatten(y)):
        return np.asarray(y)
    return y


def _dtype_name(dtype) -> str:
    dtype = getattr(dtype, "compute_dtype", dtype)
    return str(getattr(dtype, "name", dtype) or "float32")

"""Metrics of rankings: one row is one query with its candidates. Not in Keras.

Shapes: y_true (batch, candidates) relevances, 0 for irrelevant, negative for padding; y_pred (batch, candidates) scores.
Larger scores rank first; equal scores rank by their place. Each row counts once (times its sample weight), so values over
workers add up exactly. For data with one row a pair, group the rows by query and pad to the longest.
"""

from __future__ import annotations

import numpy as np

from .. import ops
from .reduction import FunctionMetric

_LOWEST = -3.0e38


def _ranked(y_true, y_pred, k):
    """Relevances of the first k candidates in the order of the scores; padding has 0 and comes last."""
    y_true = ops.cast(ops.convert_to_tensor(y_true), "float32")
    y_pred = ops.cast(ops.convert_to_tensor(y_pred), "float32")
    if len(y_true.shape) != 2 or len(y_pred.shape) != 2:
        raise ValueError(
            "Ranking metrics expect y_true and y_pred of shape (batch, candidates), one query a row. Received: "
            f"y_true.shape={tuple(y_true.shape)} and y_pred.shape={tuple(y_pred.shape)}."
        )
    order = ops.top_k(ops.where(ops.less(y_true, 0.0), _LOWEST, y_pred), _at_most(k, y_pred))[1]
    relevance = ops.maximum(y_true, 0.0)
    return ops.take_along_axis(relevance, order, axis=1), relevance


def _at_most(k, y_pred) -> int:
    candidates = y_pred.shape[1]
    if not isinstance(candidates, int):
        raise ValueError("Ranking metrics need a known number of candidates; pad the rows to one length.")
    return candidates if k is None else min(k, candidates)


def hit_rate(y_true, y_pred, k=10):
    """1 where one of the first k candidates is relevant.

    >>> import kerasoft as ks
    >>> hit_rate([[0, 0, 1], [1, 0, 0]], [[0.9, 0.1, 0.2], [0.3, 0.2, 0.1]], k=1).tolist()
    [0.0, 1.0]
    """
    found, _ = _ranked(y_true, y_pred, k)
    return ops.cast(ops.any(ops.greater(found, 0.0), axis=1), "float32")


def normalized_discounted_cumulative_gain(y_true, y_pred, k=10):
    """DCG of the first k over the best possible; 0 for rows without relevant candidates.

    DCG is the sum of (2^relevance - 1) / log2(rank + 1).

    Source: Burges et al., Learning to Rank using Gradient Descent, section 3.
    """
    found, relevance = _ranked(y_true, y_pred, k)
    discount = (1.0 / np.log2(np.arange(found.shape[1]) + 2.0)).astype(np.float32)
    best = ops.top_k(relevance, found.shape[1])[0]
    gain, ideal = (ops.sum((ops.power(2.0, x) - 1.0) * discount, axis=1) for x in (found, best))
    return ops.where(ops.greater(ideal, 0.0), gain / ops.where(ops.greater(ideal, 0.0), ideal, 1.0), 0.0)


def mean_reciprocal_rank(y_true, y_pred, k=None):
    """1 / rank of the first relevant candidate; 0 where none is among the first k (None: all)."""
    found, _ = _ranked(y_true, y_pred, k)
    ranks = (np.arange(found.shape[1]) + 1.0).astype(np.float32)
    return ops.max(ops.cast(ops.greater(found, 0.0), "float32") / ranks, axis=1)


class _Ranking(FunctionMetric):
    _direction = "up"
    function = staticmethod(hit_rate)

    def __init__(self, k=10, name=None, dtype=None):
        if k is not None and k < 1:
            raise ValueError(f"Argument `k` must be a positive integer. Received: k={k}")
        super().__init__(self.function, name, dtype, k=k)


class HitRate(_Ranking):
    """Share of queries with a relevant candidate among the first k.

    >>> import kerasoft as ks
    >>> float(ks.metrics.HitRate(k=2)([[0, 0, 1, 0], [1, 0, 0, 0]], [[4.0, 3, 2, 1], [1.0, 4, 3, 2]]))
    0.0
    """

    def __init__(self, k=10, name="hit_rate", dtype=None):
        super().__init__(k, name, dtype)


class NDCG(_Ranking):
    """Mean normalised discounted cumulative gain of the first k candidates; relevances may be graded."""

    function = staticmethod(normalized_discounted_cumulative_gain)

    def __init__(self, k=10, name="ndcg", dtype=None):
        super().__init__(k, name, dtype)


class MeanReciprocalRank(_Ranking):
    """Mean of 1 / rank of the first relevant candidate; k=None looks at all candidates."""

    function = staticmethod(mean_reciprocal_rank)

    def __init__(self, k=None, name="mean_reciprocal_rank", dtype=None):
        super().__init__(k, name, dtype)

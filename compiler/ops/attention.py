"""Attention, composed of products and a softmax."""

from __future__ import annotations

import math
from typing import Any

from . import activations, creation, linalg
from . import arithmetic as a


def causal_mask(queries: Any, keys: Any) -> Any:
    """True where key position <= query position: -> bool (1, 1, queries, keys)."""
    from . import shape

    return shape.expand_dims(creation.tri(queries, keys, dtype="bool"), (0, 1))


def scaled_dot_product(
    query: Any,
    key: Any,
    value: Any,
    mask: Any = None,
    bias: Any = None,
    scale: float | None = None,
    is_causal: bool = False,
) -> Any:
    """softmax(scale * query key' + bias) value, for each head.

    Shapes: query (b, t, h, d), key (b, s, h, d), value (b, s, h, e) -> (b, t, h, e).

    Args:
        mask: bool, broadcast to (b, h, t, s): which keys a query sees; a query that sees none gets the mean of all.
        bias: added to the scores, broadcast to (b, h, t, s).
        scale: 1 / sqrt(d) by default.
        is_causal: a query sees no later position.
    """
    scale = 1 / math.sqrt(query.shape[-1]) if scale is None else scale
    scores = linalg.einsum("bthd,bshd->bhts", a.multiply(query, scale), key)
    if bias is not None:
        scores = a.add(scores, bias)
    if is_causal:
        causal = causal_mask(query.shape[1], key.shape[1])
        mask = causal if mask is None else a.logical_and(mask, causal)
    if mask is not None:
        scores = a.where(mask, scores, -3e4 if "float16" in str(scores.dtype) else -1e30)
    return linalg.einsum("bhts,bshe->bthe", activations.softmax(scores), value)

"""Cross entropies from logits, each one node with a stable gradient."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp

from ..ir import Node
from . import activations, shape
from . import arithmetic as a
from .indexing import one_hot
from .registry import op


def _sparse(logits: Any, labels: Any) -> jax.Array:
    """-log softmax(logits)[label] over the last axis: (..., n), int (...) -> (...)."""
    logits, labels = jnp.asarray(logits), jnp.asarray(labels)
    picked = jnp.take_along_axis(logits, labels[..., None].astype(jnp.int32), axis=-1)[..., 0]
    return jax.nn.logsumexp(logits, axis=-1) - picked


def _sparse_gradient(n: Node, dy: Node) -> tuple:
    logits, labels = n.inputs
    hit = one_hot(labels, logits.shape[-1], dtype=logits.dtype)
    return a.multiply(a.subtract(activations.softmax(logits), hit), shape.expand_dims(dy, -1)), None


sparse_softmax_cross_entropy = op("sparse_softmax_cross_entropy", lower=_sparse, gradient=_sparse_gradient)


def _dense_gradient(n: Node, dy: Node) -> tuple:
    logits, targets = n.inputs
    dy = shape.expand_dims(dy, -1)
    total = shape.sum(targets, axis=-1, keepdims=True)
    for_logits = a.multiply(a.subtract(a.multiply(activations.softmax(logits), total), targets), dy)
    for_targets = a.negative(a.multiply(activations.log_softmax(logits), dy)) if targets.type.is_float else None  # type: ignore[union-attr]
    return for_logits, for_targets


softmax_cross_entropy = op(
    "softmax_cross_entropy",
    lower=lambda logits, targets: -jnp.sum(targets * jax.nn.log_softmax(logits, axis=-1), axis=-1),
    gradient=_dense_gradient,
    doc="-sum(targets * log softmax(logits)) over the last axis: (..., n), (..., n) -> (...).",
)


def _sigmoid_gradient(n: Node, dy: Node) -> tuple:
    logits, targets = n.inputs
    for_logits = a.multiply(a.subtract(activations.sigmoid(logits), targets), dy)
    return shape.unbroadcast(for_logits, logits), (
        shape.unbroadcast(a.negative(a.multiply(logits, dy)), targets) if targets.type.is_float else None  # type: ignore[union-attr]
    )


sigmoid_cross_entropy = op(
    "sigmoid_cross_entropy",
    lower=lambda logits, targets: jnp.maximum(logits, 0) - logits * targets + jnp.log1p(jnp.exp(-jnp.abs(logits))),
    gradient=_sigmoid_gradient,
    doc="-(t log sigmoid(x) + (1 - t) log(1 - sigmoid(x))), element by element: (...), (...) -> (...).",
)

"""Sums over all replicas of a data-parallel step."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp

from .registry import op

all_reduce = op(
    "all_reduce",
    lower=lambda x: x,
    gradient=lambda n, dy: (all_reduce(dy),),
    has_effect=True,
    doc="The sum over all replicas of the step: (...) -> (...).",
)
"""The sum of `x` over all replicas (shards) of the step.

With one replica it is `x`. Otherwise `kerasoft.compiler.lower.split_stages` cuts the graph here: a stage ends with the
values to be summed, the runtime sums them over replicas and ranks, and the next stage goes on with the sums. Each
replica's objective is its own share of the loss, so the cotangent of a sum is the sum of the cotangents.
"""


def _part(x: Any, coordinate: Any, *, axis: int, count: int) -> jax.Array:
    """The part number `coordinate` of `count` equal ones along `axis`; zeros fill up the last."""
    x = jnp.asarray(x)
    size = -(-x.shape[axis] // count)
    short = size * count - x.shape[axis]
    if short:
        x = jnp.pad(x, [(0, short if k == axis else 0) for k in range(x.ndim)])
    return jax.lax.dynamic_slice_in_dim(x, jnp.asarray(coordinate) * size, size, axis)


part_of = op("part_of", lower=_part, gradient=None)
part_sum = op(
    "part_sum",
    lower=lambda x: x,
    has_effect=True,
    doc="The sum over the workers that share a model's tensors: (...) -> (...).",
)
part_stack = op(
    "part_stack",
    lower=lambda x, *, count: jnp.stack([x] * count),
    has_effect=True,
    doc="The values of all `count` workers that share a model's tensors: (...) -> (count, ...).",
)
"""Made by `kerasoft.compiler.parallel`, after gradients; a graph is cut at sums and stacks as at `all_reduce`."""

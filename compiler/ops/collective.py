"""Sums over all replicas of a data-parallel step."""

from __future__ import annotations

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

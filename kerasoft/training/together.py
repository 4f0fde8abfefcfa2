"""Several batches of `predict` or `evaluate` in one call, where nobody can tell and the values of a call are few.

A call costs tens of microseconds, and products of few rows run slower than products of many. Batches are put together as
long as what a call holds at once fits the processor's caches. Two sizes of calls are compiled at most: so many batches,
and one batch for the rest.
"""

from __future__ import annotations

from typing import Any

from ..compiler.costs import peak_bytes
from ..compiler.packing import unknown_sizes

CACHE_BYTES = 16 << 20  # inputs and temporaries of a call
MOST_ROWS = 1 << 15
LEAST_CALLS = 4  # the larger call is compiled when it will run so often


def batches_together(source: Any, kind: str, feed: Any) -> int:
    """How many batches of a feed go into one call: a power of two, 1 for batches alone.

    Rows must be independent of one another ("exact_rows" is false), and come from arrays.

    Args:
        source: a `StepSource`. kind: "test" or "predict". feed: an `ArrayFeed` or another one.
    """
    size, rows = getattr(feed, "batch_size", 0), getattr(feed, "rows", 0)
    graph = source.optimised(kind)
    if source.flags.exact_rows or source.flags.couples_rows or not size or unknown_sizes(graph) - {"b"}:
        return 1
    given = sum(array[:1].nbytes for array in feed.arrays.values()) * size
    held, count = given + peak_bytes(graph, {"b": size}), 1
    while (
        2 * count * max(held, 1) <= CACHE_BYTES
        and 2 * count * size <= MOST_ROWS
        and 2 * count * LEAST_CALLS * size <= rows
    ):
        count *= 2
    return count

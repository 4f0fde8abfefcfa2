"""Several training steps in one call: a loop inside one executable, for models whose steps are shorter than their dispatch."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp

from .calls import Compiled
from .costs import total_flops
from .fingerprint import Recipe
from .ir import Graph
from .kernels.choice import Choosers
from .packing import unknown_sizes

MOST_STEPS = 32
MOST_FLOPS = 1e9  # of a call: a few milliseconds, so that reports stay frequent
SHORT_FLOPS = 5e7  # of a step; longer ones hide their dispatch
MOST_BYTES = 4 << 20  # of the rows of a call
ONE_FOR_ALL = ("share", "iteration")  # inputs that are not stacked


def steps_together(graph: Graph, rows: int, batch_bytes: int) -> int:
    """How many steps of so many rows go into one call; 1 for steps alone."""
    if unknown_sizes(graph) - {"b"}:
        return 1
    flops = max(total_flops(graph, {"b": rows}), 1)
    if flops > SHORT_FLOPS:
        return 1
    return max(1, int(min(MOST_STEPS, MOST_FLOPS // flops, MOST_BYTES // max(batch_bytes, 1))))


def several(step: Callable, names: Sequence[str], choosers: Choosers, sums: int, recipe: Recipe) -> Callable:
    """``f(params, state, slots, stacked, count, iteration, learning_rate)``: `count` steps, one after another.

    Args:
        step: ``step(params, state, slots, arrays, iteration, learning_rate) -> (params, state, slots, sums)``.
        names: of `arrays`; those of `stacked` have the steps as their first axis, but for `ONE_FOR_ALL`.
        sums: M. recipe: what `step` is made of.

    `f` gives float32[steps, M] as its last result; rows of steps that were not made are zeros.
    """

    def whole(params, state, slots, stacked, count, iteration, learning_rate):
        steps = next(len(a) for name, a in zip(names, stacked) if name not in ONE_FOR_ALL)

        def body(i, held):
            params, state, slots, found = held
            arrays = tuple(
                {"share": a, "iteration": iteration + i}[name]
                if name in ONE_FOR_ALL
                else jax.lax.dynamic_index_in_dim(jnp.asarray(a), i, keepdims=False)
                for name, a in zip(names, stacked)
            )
            params, state, slots, mine = step(params, state, slots, arrays, iteration + i, learning_rate)
            return params, state, slots, found.at[i].set(mine)

        held = (params, state, slots, jnp.zeros((steps, sums), jnp.float32))
        return jax.lax.fori_loop(0, count, body, held)

    def single(stacked):
        return [
            a if name in ONE_FOR_ALL else jax.ShapeDtypeStruct(a.shape[1:], a.dtype) for name, a in zip(names, stacked)
        ]

    return Compiled(whole, choosers, 3, recipe, single, donate_argnums=(0, 1, 2))

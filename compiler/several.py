"""Several training steps in one call: a loop inside one executable, for models whose steps are shorter than their dispatch."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import jax
import jax.numpy as jnp

from .calls import Compiled, Making
from .costs import flops as flops_of
from .costs import total_flops
from .fingerprint import Recipe
from .kernels.choice import Choosers
from .packing import unknown_sizes

if TYPE_CHECKING:
    from .program import StepSource

MOST_STEPS = 32
MOST_FLOPS = 1e9  # of a call: a few milliseconds, so that reports stay frequent
SHORT_FLOPS = 5e7  # of a step; longer ones hide their dispatch
MOST_BYTES = 4 << 20  # of the rows of a call
ONE_FOR_ALL = ("share", "iteration")  # inputs that are not stacked


def steps_together(source: StepSource, rows: int, batch_bytes: int) -> int:
    """How many training steps of so many rows go into one call; 1 for steps alone."""
    forward = source.before("train")
    assert forward is not None
    sizes, known = {"b": rows}, 0
    if unknown_sizes(forward) - set(sizes):
        return 1
    for n in forward.nodes:  # known without gradients, and mostly by the first few layers
        known += flops_of(n, sizes)
        if known > SHORT_FLOPS:
            return 1
    flops = max(total_flops(source.optimised("train"), sizes), 1)
    if flops > SHORT_FLOPS:
        return 1
    return max(1, int(min(MOST_STEPS, MOST_FLOPS // flops, MOST_BYTES // max(batch_bytes, 1))))


def several(
    step: Callable[[], tuple[Callable, Choosers]],
    names: Sequence[str],
    sums: int,
    recipe: Callable[[], Recipe],
    before: Recipe | None,
) -> Callable:
    """``f(params, state, slots, stacked, count, iteration, learning_rate)``: `count` steps, one after another.

    Args:
        step: gives ``step(params, state, slots, arrays, iteration, learning_rate) -> (params, state, slots, sums)`` and the
            choosers of its graph.
        names: of `arrays`; those of `stacked` have the steps as their first axis, but for `ONE_FOR_ALL`.
        sums: M. recipe, before: what `step` is made of (`calls.Compiled`).

    `f` gives float32[steps, M] as its last result; rows of steps that were not made are zeros.
    """

    def make() -> Making:
        one, choosers = step()
        return Making(_repeated(one, names, sums), choosers, recipe())

    def single(stacked):
        return [
            a if name in ONE_FOR_ALL else jax.ShapeDtypeStruct(a.shape[1:], a.dtype) for name, a in zip(names, stacked)
        ]

    return Compiled(make, 3, before, single, donate_argnums=(0, 1, 2))


def _repeated(step: Callable, names: Sequence[str], sums: int) -> Callable:
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

    return whole

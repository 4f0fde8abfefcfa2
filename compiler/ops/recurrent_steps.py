"""What the recurrent ops share: steps along time, optional inputs, checks, and results that nobody wants."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp

from ..errors import ShapeError
from ..ir import Node
from .registry import REGISTRY, item


def activation_of(name: str) -> Callable:
    """The function of an activation's name: `linear` or an elementwise op without attributes."""
    if name == "linear":
        return lambda x: x
    found = REGISTRY.get({"relu": "relu", "swish": "silu"}.get(name, name))
    if found is None:
        raise ShapeError(f"unknown activation {name!r} of a recurrent op; use scan for a function of your own")
    return found.lower


def optional(given: Sequence[Any], *wanted: bool) -> list:
    """The optional inputs in their places, None where `wanted` is false."""
    rest = iter(given)
    return [next(rest) if there else None for there in wanted]


def over_time(
    step: Callable, x: Any, mask: Any, init: Sequence[Any], go_backwards: bool
) -> tuple[list[jax.Array], list[jax.Array]]:
    """``step(states, x_t) -> (states, extras)`` along time: the last states; all first states and extras, (t, b, ..)."""
    xs = jnp.swapaxes(jnp.asarray(x), 0, 1)
    masks = None if mask is None else jnp.swapaxes(jnp.asarray(mask).astype(bool), 0, 1)[..., None]

    def run(states: list, cells: Any) -> Any:
        x_t, m_t = cells
        new, extras = step(states, x_t)
        if m_t is not None:
            new = [jnp.where(m_t, n, o) for n, o in zip(new, states)]
        return new, [*new, *extras]

    if go_backwards:
        xs, masks = jnp.flip(xs, 0), None if masks is None else jnp.flip(masks, 0)
    return jax.lax.scan(run, [jnp.asarray(s) for s in init], (xs, masks))


def rows_of(x: jax.Array) -> jax.Array:
    """(t, b, n) -> (t * b, n)."""
    return x.reshape((x.shape[0] * x.shape[1], x.shape[2]))


def time_major(x: Any, go_backwards: bool) -> jax.Array:
    x = jnp.swapaxes(x, 0, 1)
    return jnp.flip(x, 0) if go_backwards else x


def check_of(name: str, gates: int) -> Callable:
    def check(types: Sequence[Any], attrs: Any) -> None:
        x = types[0]
        kernel, recurrent = types[3:5] if name == "lstm" else types[2:4]
        units = recurrent.shape[0]
        if x.rank != 3:
            raise ShapeError(f"{name} needs an input (batch, steps, features), got {x}")
        if kernel.shape != (x.shape[-1], gates * units) or recurrent.shape != (units, gates * units):
            raise ShapeError(
                f"{name} of {x}: a kernel ({x.shape[-1]}, {gates * units}) and a recurrent kernel "
                f"({units}, {gates * units}) are needed, got {kernel} and {recurrent}"
            )

    return check


def flops_of(name: str) -> Callable:
    def flops(types: Sequence[Any], attrs: Any, result: Any) -> int:
        steps = types[0].shape[1]
        kernel, recurrent = types[3:5] if name == "lstm" else types[2:4]
        products = kernel.shape[0] * kernel.shape[1] + recurrent.shape[0] * recurrent.shape[1]
        return 2 * products * (steps if isinstance(steps, int) else 1)

    return flops


def by_jax(n: Node, dy: tuple) -> tuple:
    from ..gradient import vjp

    return vjp(n, dy)


def cotangents(dy: tuple, count: int) -> tuple[list[Node], tuple[bool, ...]]:
    """The gradients of the first `count` results that there are, and which are."""
    return [d for d in dy[:count] if d is not None], tuple(d is not None for d in dy[:count])


def or_zeros(given: Any, like: Any) -> Any:
    return jnp.zeros_like(like) if given is None else given


def split_results(packed: Node, n: Node, has_bias: bool, fixed: int) -> tuple:
    """The gradients `packed` in the places of n's inputs; none for a mask."""
    out: list = [item(packed, i) for i in range(fixed + has_bias)]
    return (*out, *(None,) * (len(n.inputs) - len(out)))


def selecting(lower: Callable[..., tuple]) -> Callable[..., tuple]:
    """`lower` with an attribute `wanted`: which of its results it gives; None means all. See passes.DropUnusedResults."""

    @functools.wraps(lower)
    def run(*inputs: Any, wanted: tuple[int, ...] | None, **attrs: Any) -> tuple:
        results = lower(*inputs, **attrs)
        return results if wanted is None else tuple(results[i] for i in wanted)

    return run

"""Packed stages run in one process, and functions compiled with the options that their graph asks for."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax

from .kernels.choice import Choosers
from .lower import sizes_of
from .packing import PackedStage


def compiled(function: Callable, choosers: Choosers, position: int, **settings: Any) -> Callable:
    """``jax.jit(function)`` with the XLA options that its first batch asks for.

    Args:
        choosers: for the graph that `function` computes; argument number `position` holds an array for each of its inputs.
        settings: of `jax.jit`.
    """
    made: list[Callable] = []

    def call(*arguments):
        if not made:
            arrays = arguments[position]
            there = all(a is not None for a in arrays)  # else `function` says what is missing
            options = choosers(sizes_of(choosers.graph.inputs, arrays)).options if there else None
            made.append(jax.jit(function, compiler_options=options or None, **settings))
        return made[0](*arguments)

    return call


def run(stages: Sequence[PackedStage], named: Mapping[str, Any]) -> Any:
    """All stages one after another, sums being their own input."""
    return run_together([(stages, named)])[0]


def run_together(jobs: Sequence[tuple[Sequence[PackedStage], Mapping[str, Any]]]) -> list[Any]:
    """The same stages on several arguments, one after another; sums between stages are over all of them."""
    carried: list[tuple] = [()] * len(jobs)
    outs: list[Any] = []
    for k in range(len(jobs[0][0]) if jobs else 0):
        total = sum(outs) if k else None
        found = [
            stages[k].function([named[name] for name in stages[k].names], carried[i], total)
            for i, (stages, named) in enumerate(jobs)
        ]
        carried, outs = [c for c, _ in found], [o for _, o in found]
    return outs

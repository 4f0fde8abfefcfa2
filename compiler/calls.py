"""Packed stages run in one process, and functions compiled with the options that their graph asks for."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax

from . import stored
from .fingerprint import Recipe, fingerprint
from .kernels.choice import Choosers
from .lower import sizes_of
from .packing import PackedStage


class Compiled:
    """``jax.jit(function)`` with the XLA options that its first batch asks for, and executables kept on disk whole.

    Args:
        choosers: for the graph that `function` computes; argument number `position` holds an array for each of its inputs.
        recipe: what `function` is made of; None: JAX's own cache must do.
        single: gives the shapes of one step's arrays from those of a call; as they are by default.
        settings: of `jax.jit`.
    """

    def __init__(
        self,
        function: Callable,
        choosers: Choosers,
        position: int,
        recipe: Recipe | None = None,
        single: Callable[[Sequence[Any]], Sequence[Any]] = tuple,
        **settings: Any,
    ):
        self._function, self._choosers, self._position = function, choosers, position
        self._recipe, self._single, self._settings = recipe, single, settings
        self._jitted: Any = None
        self._made: dict[tuple, Callable] = {}

    def __call__(self, *arguments: Any) -> Any:
        arrays = arguments[self._position]
        if any(a is None for a in arrays):
            return jax.jit(self._function, **self._settings)(*arguments)  # it says what is missing
        key = tuple([(a.shape, a.dtype) for a in arrays])
        made = self._made.get(key)
        if made is None:
            made = self._made[key] = self._for(arrays, arguments)
        if made is self._jitted:
            return made(*arguments)
        try:
            return made(*arguments)
        except TypeError:  # arguments of other types than those of the first call: nothing has run yet
            return self._jitted(*arguments)

    def _for(self, arrays: Sequence[Any], arguments: tuple) -> Callable:
        chooser = self._choosers(sizes_of(self._choosers.graph.inputs, self._single(arrays)))
        if self._jitted is None:
            options = chooser.options or None
            self._jitted = jax.jit(self._function, compiler_options=options, keep_unused=True, **self._settings)
        if self._recipe is None or not stored.usable(arguments):
            return self._jitted
        name = fingerprint(self._recipe, chooser, arguments, self._settings)
        return self._jitted if name is None else stored.kept_or_made(name, self._jitted, arguments)


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

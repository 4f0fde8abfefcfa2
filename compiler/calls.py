"""Packed stages run in one process, and functions compiled with the options that their graph asks for."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax

from . import plans, stored
from .fingerprint import Recipe, fingerprint
from .kernels.choice import Chooser, Choosers
from .lower import sizes_of
from .packing import PackedStage


@dataclasses.dataclass(frozen=True)
class Making:
    """A function to be compiled.

    Attributes:
        function: of positional arguments. choosers: for the graph that it computes.
        recipe: what it is made of; None: JAX's own cache must do.
    """

    function: Callable
    choosers: Choosers
    recipe: Recipe | None = None


class Compiled:
    """``jax.jit`` of a function, with the XLA options that its first batch asks for, and executables kept on disk whole.

    Args:
        make: gives the function. It is not asked as long as every executable is found by `before` (`plans`).
        position: of the argument that holds an array for each input of the function's graph.
        before: what the function is made of before the passes, as far as it is known; None: it is not looked for by that.
        single: gives the shapes of one step's arrays from those of a call; as they are by default.
        settings: of `jax.jit`.
    """

    def __init__(
        self,
        make: Callable[[], Making],
        position: int,
        before: Recipe | None = None,
        single: Callable[[Sequence[Any]], Sequence[Any]] = tuple,
        **settings: Any,
    ):
        self._make, self._position, self._before = make, position, before
        self._single, self._settings = single, settings
        self._variant: str | None = None  # of XLA's lowerings: that of the first batch holds for all
        self._jitted: Any = None
        self._made: dict[tuple, Callable] = {}

    @functools.cached_property
    def _making(self) -> Making:
        made = self._make()
        made.choosers.variant = self._variant
        return made

    def __call__(self, *arguments: Any) -> Any:
        arrays = arguments[self._position]
        if any(a is None for a in arrays):
            return jax.jit(self._making.function, **self._settings)(*arguments)  # it says what is missing
        key = tuple([(a.shape, a.dtype) for a in arrays])
        made = self._made.get(key)
        if made is None:
            made = self._made[key] = self._for(arrays, arguments)
        if made is self._jitted:
            return made(*arguments)
        try:
            return made(*arguments)
        except TypeError:  # arguments of other types than those of the first call: nothing has run yet
            return self._jit(self._chooser(arrays))(*arguments)

    def _for(self, arrays: Sequence[Any], arguments: tuple) -> Callable:
        keeps, before = stored.usable(arguments), None
        if keeps and self._before is not None:
            before = plans.name(self._before, self._variant, arguments, self._settings)
            found = None if before is None else plans.find(before, arguments)
            if found is not None:
                self._variant = found.variant
                return found.executable
        chooser = self._chooser(arrays)
        jitted = self._jit(chooser)
        if self._making.recipe is None or not keeps:
            return jitted
        name = fingerprint(self._making.recipe, chooser, arguments, self._settings)
        if name is None:
            return jitted
        made = stored.kept_or_made(name, jitted, arguments)
        if before is not None:
            plans.keep(before, name, chooser)
        return made

    def _chooser(self, arrays: Sequence[Any]) -> Chooser:
        choosers = self._making.choosers
        chooser = choosers(sizes_of(choosers.graph.inputs, self._single(arrays)))
        self._variant = choosers.variant
        return chooser

    def _jit(self, chooser: Chooser) -> Any:
        if self._jitted is None:
            options = chooser.options or None
            self._jitted = jax.jit(self._making.function, compiler_options=options, keep_unused=True, **self._settings)
        return self._jitted


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

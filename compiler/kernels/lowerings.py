"""Further lowerings of ops. An op's own lowering (`Op.lower`) is always the first candidate and is called "xla"."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from . import bridge, settings


@dataclasses.dataclass(frozen=True)
class Lowering:
    """Another way to compute an op.

    Attributes:
        name: as shown by `explain()` and taken by overrides, e.g. "onednn".
        run: ``run(*arrays, **attrs)``, as `Op.lower`: same arguments, same results to rounding.
        fits: ``fits(types, attrs) -> bool``: whether it can compute these. `types` have `shape` (numbers only) and `dtype`.
        needs: the native library that it calls, or None.
        tried: ``tried() -> bool``: whether it is a candidate on this machine without being asked for by name.
        prefer: ``prefer(types, attrs, threads) -> bool``: the shipped rule: whether it is taken without a measurement.
            Write down in docs/design/0004-kernel-choice.md what was measured for it.
        timed: False where the rule is right on every machine, so that nothing is measured.
        any_size: whether it can compute types with unknown sizes too, in a program that is compiled when they are known.
    """

    name: str
    run: Callable[..., Any]
    fits: Callable[[Sequence[Any], Mapping[str, Any]], bool]
    needs: str | None = None
    tried: Callable[[], bool] = lambda: True
    prefer: Callable[[Sequence[Any], Mapping[str, Any], int], bool] = lambda types, attrs, threads: True
    timed: bool = True
    any_size: bool = False

    @property
    def is_there(self) -> bool:
        left_out = settings.left_out()
        if self.name in left_out or self.needs in left_out:
            return False
        return self.needs is None or bridge.loaded(self.needs)


_TABLE: dict[str, list[Lowering]] = {}


def lowering(op: str, name: str, **parts: Any) -> Callable[[Callable], Callable]:
    """Registers the decorated function as the lowering `name` of `op`; earlier ones are preferred to later ones."""

    def register(run: Callable) -> Callable:
        table = _TABLE.setdefault(op, [])
        if any(known.name == name for known in table):
            raise ValueError(f"op {op!r} has a lowering {name!r} already")
        table.append(Lowering(name, run, **parts))
        return run

    return register


_EXAMPLES: dict[str, Callable[[Sequence[Any], Mapping[str, Any]], Sequence[Any]]] = {}


def example_of(op: str) -> Callable[[Callable], Callable]:
    """Registers the decorated ``f(types, attrs) -> arrays`` as the maker of arrays that candidates of `op` are timed on.

    Needed where random ones will not do, e.g. where an input holds row numbers or lengths.
    """

    def register(make: Callable) -> Callable:
        if op in _EXAMPLES:
            raise ValueError(f"op {op!r} has an example already")
        _EXAMPLES[op] = make
        return make

    return register


def example(op: str, types: Sequence[Any], attrs: Mapping[str, Any]) -> Sequence[Any]:
    """Arrays of `types` to time candidates of `op` on: normal floats; whole numbers of 0 and 1; or its `example_of`."""
    if op in _EXAMPLES:
        return _EXAMPLES[op](types, attrs)
    return random_arrays(types)


def random_arrays(types: Sequence[Any], scale: float = 1.0) -> list[np.ndarray]:
    """Normal floats, times `scale`; whole numbers of 0 and 1."""
    random = np.random.default_rng(0)

    def one(t: Any) -> np.ndarray:
        if np.dtype(t.dtype).kind in "biu":
            return random.integers(0, 2, t.shape).astype(t.dtype)
        return (scale * random.standard_normal(t.shape, np.float32)).astype(t.dtype)

    return [one(t) for t in types]


def names_of(op: str) -> tuple[str, ...]:
    """The further lowerings registered for `op`, there or not; for "*" those of all ops."""
    found = (one.name for known, table in _TABLE.items() if op in ("*", known) for one in table)
    return tuple(dict.fromkeys(found))


def candidates(
    op: str, types: Sequence[Any], attrs: Mapping[str, Any], asked: str | None = None, all_: bool = False
) -> list[Lowering]:
    """The further lowerings of `op` that are there and can compute these types.

    Args:
        asked: the name of one that the user asked for. all_: also those that are not tried on this machine.
    """
    known = all(isinstance(d, int) for t in types for d in t.shape) if op in _TABLE else False
    wanted = [one for one in _TABLE.get(op, ()) if known or one.any_size]
    wanted = [one for one in wanted if all_ or one.name == asked or one.tried()]
    return [one for one in wanted if one.is_there and one.fits(types, attrs)]

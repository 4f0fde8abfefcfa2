"""Further lowerings of ops. An op's own lowering (`Op.lower`) is always the first candidate and is called "xla"."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from . import bridge


@dataclasses.dataclass(frozen=True)
class Lowering:
    """Another way to compute an op.

    Attributes:
        name: as shown by `explain()` and taken by overrides, e.g. "onednn".
        run: ``run(*arrays, **attrs)``, as `Op.lower`: same arguments, same results to rounding.
        fits: ``fits(types, attrs) -> bool``: whether it can compute these. `types` have `shape` (numbers only) and `dtype`.
        needs: the native library that it calls, or None.
        prefer: ``prefer(types, attrs, threads) -> bool``: the shipped rule: whether it is taken without a measurement.
    """

    name: str
    run: Callable[..., Any]
    fits: Callable[[Sequence[Any], Mapping[str, Any]], bool]
    needs: str | None = None
    prefer: Callable[[Sequence[Any], Mapping[str, Any], int], bool] = lambda types, attrs, threads: True

    @property
    def is_there(self) -> bool:
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


def candidates(op: str, types: Sequence[Any], attrs: Mapping[str, Any]) -> list[Lowering]:
    """The further lowerings of `op` that are there and can compute these types."""
    if op not in _TABLE or not all(isinstance(d, int) for t in types for d in t.shape):
        return []
    return [one for one in _TABLE[op] if one.is_there and one.fits(types, attrs)]

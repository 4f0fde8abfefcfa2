"""Result types under unknown sizes that JAX cannot reason about, found by trying numbers.

Two trials give every unknown size a number of its own. A result size that is the same in both is known; one that
changes is the size among the inputs (or that size plus or times a known number) that changes likewise. Where no large
number fits (an unknown size meets a known one, as in ``(b, 3) + (2, 3)``), unknown sizes take the known ones. What was
assumed is checked when the graph is lowered, with the numbers of the real arrays.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from ..ir.types import Dim, TensorType, TupleType, Type, bind, is_static

_TRIALS = ((61, 67, 71, 73, 79, 83), (101, 103, 107, 109, 113, 127))


def infer(run: Callable[[list[Type], dict], Type], types: list[Type], attrs: Mapping[str, Any]) -> Type | None:
    """The type of ``run(types, attrs)`` (which takes known sizes only); None where no trial succeeds."""
    dims = [d for t in types for d in _dims(t)]
    unknown = [d for d in (*dims, *_flat(tuple(attrs.values()))) if not is_static(d)]
    names = sorted({name for d in unknown for name in d._get_vars()})
    if not names or len(names) > len(_TRIALS[0]):
        return None

    def attempt(sizes: Mapping[str, int]) -> Type | None:
        try:
            return run([_bound(t, sizes) for t in types], {k: bind(v, sizes) for k, v in attrs.items()})
        except Exception:  # whatever JAX says of these sizes: the next trial, or the error of the symbolic run
            return None

    known = sorted({d for d in (*dims, *_flat(tuple(attrs.values()))) if is_static(d) and d > 1})[:4]
    choices = sorted(itertools.product((None, *known), repeat=len(names)), key=lambda c: len(names) - c.count(None))
    for choice in choices[:24]:
        trials = [dict(zip(names, (c or n for c, n in zip(choice, t)), strict=True)) for t in _TRIALS]
        first = attempt(trials[0])
        second = first if trials[0] == trials[1] else attempt(trials[1])
        if first is not None and second is not None:
            seen = {tuple(bind(d, sizes) for sizes in trials): d for d in unknown}
            return _general(first, second, {k: d for k, d in seen.items() if k[0] != k[1]})
    return None


def _dims(type: Type) -> Iterator[Dim]:
    if isinstance(type, TupleType):
        for item in type.items:
            yield from _dims(item)
    else:
        yield from type.shape


def _flat(value: Any) -> Iterator[Any]:
    if isinstance(value, tuple):
        for item in value:
            yield from _flat(item)
    elif hasattr(value, "_evaluate") or (isinstance(value, int) and not isinstance(value, bool)):
        yield value


def _bound(type: Type, sizes: Mapping[str, int]) -> Type:
    if isinstance(type, TupleType):
        return TupleType(tuple(_bound(t, sizes) for t in type.items))  # type: ignore
    return TensorType(bind(type.shape, sizes), type.dtype)


def _general(first: Type, second: Type, unknown: Mapping[tuple, Dim]) -> Type | None:
    if isinstance(first, TupleType) and isinstance(second, TupleType):
        items = [_general(a, b, unknown) for a, b in zip(first.items, second.items, strict=True)]
        return None if None in items else TupleType(tuple(items))  # type: ignore
    assert isinstance(first, TensorType) and isinstance(second, TensorType)
    shape = [_size(a, b, unknown) for a, b in zip(first.shape, second.shape, strict=True)]
    return None if None in shape else TensorType(tuple(shape), first.dtype)


def _size(a: int, b: int, unknown: Mapping[tuple, Dim]) -> Dim | None:
    """The size that was `a` in the first trial and `b` in the second."""
    if a == b:
        return a
    for (x, y), dim in unknown.items():
        if a - x == b - y:
            return dim + (a - x)
        if a % x == 0 and b % y == 0 and a // x == b // y:
            return dim * (a // x)
    for ((x, y), dim), ((z, w), other) in itertools.combinations(unknown.items(), 2):
        if (a, b) == (x + z, y + w):
            return dim + other
        if (a, b) == (x * z, y * w):
            return dim * other
    return None

"""Nested structures of lists, tuples and dicts. Dict items are visited in sorted key order, as in Keras."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any


def is_namedtuple(value: Any) -> bool:
    return isinstance(value, tuple) and hasattr(value, "_fields")


def is_nested(value: Any) -> bool:
    """Whether `value` is a structure and not a leaf."""
    return isinstance(value, (list, tuple, dict))


def flatten(structure: Any) -> list:
    """The leaves, in order; None is a leaf.

    >>> flatten({"b": [1, 2], "a": (3,)})
    [3, 1, 2]
    """
    return list(_leaves(structure))


def _leaves(structure: Any) -> Iterator[Any]:
    if isinstance(structure, dict):
        for key in _keys(structure):
            yield from _leaves(structure[key])
    elif isinstance(structure, (list, tuple)):
        for item in structure:
            yield from _leaves(item)
    else:
        yield structure


def _keys(mapping: dict) -> list:
    try:
        return sorted(mapping)
    except TypeError:
        return list(mapping)


def map_structure(function: Callable, *structures: Any) -> Any:
    """`function` applied leaf by leaf to structures of one shape; the result has that shape.

    >>> map_structure(lambda a, b: a + b, [1, {"k": 2}], [10, {"k": 20}])
    [11, {'k': 22}]
    """
    first = structures[0]
    if isinstance(first, dict):
        for other in structures[1:]:
            if not isinstance(other, dict) or set(other) != set(first):
                raise ValueError(f"structures differ: {first!r} and {other!r}")
        mapped = {key: map_structure(function, *(s[key] for s in structures)) for key in _keys(first)}
        return {key: mapped[key] for key in first}
    if isinstance(first, (list, tuple)):
        for other in structures[1:]:
            if not isinstance(other, (list, tuple)) or len(other) != len(first):
                raise ValueError(f"structures differ: {first!r} and {other!r}")
        items = [map_structure(function, *parts) for parts in zip(*structures, strict=True)]
        return type(first)(*items) if is_namedtuple(first) else tuple(items) if isinstance(first, tuple) else items
    return function(*structures)


def pack_as(structure: Any, leaves: list) -> Any:
    """`leaves` in the shape of `structure`.

    Raises:
        ValueError: too few or too many leaves.
    """
    if len(leaves) != len(flatten(structure)):
        raise ValueError(f"{len(leaves)} values do not fit a structure of {len(flatten(structure))}")
    remaining = iter(leaves)
    return map_structure(lambda _: next(remaining), structure)


def flatten_with_path(structure: Any, path: tuple = ()) -> list[tuple[tuple, Any]]:
    """`(path, leaf)` pairs; a path holds the keys and indices that lead to its leaf."""
    if isinstance(structure, dict):
        return [p for key in _keys(structure) for p in flatten_with_path(structure[key], (*path, key))]
    if isinstance(structure, (list, tuple)):
        return [p for i, item in enumerate(structure) for p in flatten_with_path(item, (*path, i))]
    return [(path, structure)]


def same_structure(a: Any, b: Any) -> bool:
    """Whether two structures have one shape; a list and a tuple count as equal."""
    if isinstance(a, dict) or isinstance(b, dict):
        return (
            isinstance(a, dict)
            and isinstance(b, dict)
            and set(a) == set(b)
            and all(same_structure(a[k], b[k]) for k in a)
        )
    if isinstance(a, (list, tuple)) or isinstance(b, (list, tuple)):
        both = isinstance(a, (list, tuple)) and isinstance(b, (list, tuple))
        return both and len(a) == len(b) and all(same_structure(x, y) for x, y in zip(a, b, strict=True))
    return True

"""Nested structures of lists, tuples, namedtuples, deques and dicts, with Keras's `tree` functions.

Items of a dict are visited in the order of its sorted keys, those of an OrderedDict in its own order. None is a leaf.
"""

from __future__ import annotations

import collections
import warnings
from collections.abc import Callable, Iterator
from typing import Any

__all__ = [
    "MAP_TO_NONE", "assert_same_paths", "assert_same_structure", "flatten", "flatten_with_path", "is_nested",
    "lists_to_tuples", "map_shape_structure", "map_structure", "map_structure_up_to", "pack_sequence_as", "traverse",
]  # fmt: skip

_DIFFERENT = "Structures don't have the same nested structure."


class MAP_TO_NONE:
    """What a function given to `traverse` returns to put None in a place."""


def is_namedtuple(value: Any) -> bool:
    return isinstance(value, tuple) and hasattr(value, "_fields")


def is_nested(structure: Any) -> bool:
    """Whether it is a structure and not a leaf.

    >>> is_nested(42), is_nested({"a": 42})
    (False, True)
    """
    return isinstance(structure, (list, tuple, dict, collections.deque))


# --- taking apart -------------------------------------------------------------------------------------------------


def flatten(structure: Any) -> list:
    """The leaves, in order; None is a leaf.

    >>> flatten({"b": [1, 2], "a": (3,)})
    [3, 1, 2]
    """
    if not isinstance(structure, (list, tuple, dict, collections.deque)):
        return [structure]
    leaves: list = []
    stack = [structure]
    while stack:  # no recursion: this runs in every call of a layer
        item = stack.pop()
        if isinstance(item, (list, tuple, collections.deque)):
            stack.extend(reversed(item))
        elif isinstance(item, dict):
            stack.extend([item[key] for key in reversed(_keys(item))] if item else ())
        else:
            leaves.append(item)
    return leaves


def _keys(mapping: dict) -> list:
    if isinstance(mapping, collections.OrderedDict):
        return list(mapping)
    try:
        return sorted(mapping)
    except TypeError:
        return list(mapping)


def flatten_with_path(structure: Any) -> list[tuple[tuple, Any]]:
    """`(path, leaf)` pairs; a path holds the keys and indices that lead to its leaf.

    >>> flatten_with_path([{"a": 42}])
    [((0, 'a'), 42)]
    """
    return list(_paths(structure, ()))


def _paths(structure: Any, path: tuple) -> Iterator[tuple[tuple, Any]]:
    if isinstance(structure, dict):
        for key in _keys(structure):
            yield from _paths(structure[key], (*path, key))
    elif is_nested(structure):
        for i, item in enumerate(structure):
            yield from _paths(item, (*path, i))
    else:
        yield path, structure


# --- putting together ---------------------------------------------------------------------------------------------


def _children(structure: Any) -> list:
    return [structure[k] for k in _keys(structure)] if isinstance(structure, dict) else list(structure)


def _rebuilt(structure: Any, items: list) -> Any:
    """A structure of one's kind with other items, given in the order of `_children`."""
    if isinstance(structure, dict):
        found = dict(zip(_keys(structure), items, strict=True))
        found = {key: found[key] for key in structure}
        if isinstance(structure, collections.OrderedDict):
            return collections.OrderedDict(found)
        if isinstance(structure, collections.defaultdict):
            return collections.defaultdict(structure.default_factory, found)
        return found
    if isinstance(structure, collections.deque):
        return collections.deque(items, structure.maxlen)
    if isinstance(structure, list):
        return list(items)
    return type(structure)(*items) if is_namedtuple(structure) else tuple(items)


def map_structure(func: Callable, *structures: Any, none_is_leaf: bool = True) -> Any:
    """`func` applied leaf by leaf to structures of one shape; the result has that shape.

    With `none_is_leaf=False` a None is not given to `func` but stays.

    >>> map_structure(lambda a, b: a + b, [1, {"k": 2}], [10, {"k": 20}])
    [11, {'k': 22}]

    Raises:
        ValueError: no structures, or of different shapes. A list and a tuple count as equal.
        TypeError: `func` cannot be called.
    """
    if not callable(func):
        raise TypeError(f"`func` must be callable. Received: func={func}")
    if not structures:
        raise ValueError("Must provide at least one structure")
    first = structures[0]
    if len(structures) == 1 and none_is_leaf and type(first) in (list, tuple):  # the usual case, without recursion
        return type(first)([_map(func, (x,), True) if is_nested(x) else func(x) for x in first])
    return _map(func, structures, none_is_leaf)


def _map(func: Callable, structures: tuple, none_is_leaf: bool) -> Any:
    first = structures[0]
    if isinstance(first, dict):
        for other in structures[1:]:
            if not isinstance(other, dict) or set(other) != set(first):
                raise ValueError(f"{_DIFFERENT} {first!r} and {other!r}")
        keys = _keys(first)
        items = [_map(func, tuple(s[key] for s in structures), none_is_leaf) for key in keys]
        return _rebuilt(first, items)
    if is_nested(first):
        for other in structures[1:]:
            if isinstance(other, dict) or not is_nested(other) or len(other) != len(first):
                raise ValueError(f"{_DIFFERENT} {first!r} and {other!r}")
        return _rebuilt(first, [_map(func, parts, none_is_leaf) for parts in zip(*structures, strict=True)])
    if any(is_nested(other) for other in structures[1:]):
        raise ValueError(f"{_DIFFERENT} {first!r} and {structures[1:]!r}")
    if first is None and not none_is_leaf:
        return None
    return func(*structures)


def map_structure_up_to(shallow_structure: Any, func: Callable, *structures: Any) -> Any:
    """`func` applied to what stands in `structures` in the places of the leaves of `shallow_structure`.

    >>> map_structure_up_to([None, None], len, [[1, 1], [2, 2, 2]])
    [2, 3]
    """
    if not structures:
        raise ValueError("Must provide at least one structure")
    if not is_nested(shallow_structure):
        return func(*structures)
    for other in structures:
        same = isinstance(other, dict) == isinstance(shallow_structure, dict) and is_nested(other)
        if not same or len(other) != len(shallow_structure):
            raise ValueError(f"{_DIFFERENT} {shallow_structure!r} and {other!r}")
        if isinstance(other, dict) and set(other) != set(shallow_structure):
            raise ValueError(f"{_DIFFERENT} {shallow_structure!r} and {other!r}")
    parts = zip(_children(shallow_structure), *map(_children, structures), strict=True)
    return _rebuilt(shallow_structure, [map_structure_up_to(first, func, *rest) for first, *rest in parts])


def map_shape_structure(func: Callable, structure: Any) -> Any:
    """`func` applied to the shapes of a structure: tuples or lists that hold ints and Nones only are shapes.

    >>> map_shape_structure(len, [(2, None), {"a": (3,)}])
    [2, {'a': 1}]
    """
    if isinstance(structure, (list, tuple)) and all(isinstance(e, (int, type(None))) for e in structure):
        return func(structure)
    if not is_nested(structure):
        return func(structure)
    return _rebuilt(structure, [map_shape_structure(func, item) for item in _children(structure)])


def pack_sequence_as(structure: Any, flat_sequence: Any) -> Any:
    """The leaves `flat_sequence` in the shape of `structure`.

    >>> pack_sequence_as({"b": 0, "a": [0, 0]}, [1, 2, 3])
    {'b': 3, 'a': [1, 2]}

    Raises:
        ValueError: too few or too many leaves.
        TypeError: the leaves are not a sequence.
    """
    if isinstance(flat_sequence, str) or not hasattr(flat_sequence, "__iter__"):
        raise TypeError(f"`flat_sequence` must be iterable. Received: {flat_sequence!r}")
    leaves = list(flat_sequence)
    count = len(flatten(structure))
    if len(leaves) != count:
        few = "Too few" if len(leaves) < count else "Too many"
        raise ValueError(f"{few} leaves for the structure; expected: {count}, got: {len(leaves)}.")
    remaining = iter(leaves)
    return _map(lambda _: next(remaining), (structure,), True)


def pack_as(structure: Any, leaves: list) -> Any:
    """`leaves` in the shape of `structure`."""
    return pack_sequence_as(structure, leaves)


def traverse(func: Callable, structure: Any, top_down: bool = True) -> Any:
    """`func` applied to a structure, its sub-structures and leaves, parents first (or last).

    Where it gives None the structure stays (top down: its parts are visited), `MAP_TO_NONE` puts None, anything else
    takes the place of the part.

    >>> traverse(lambda x: "pair" if isinstance(x, tuple) else None, [(1, 2), [3]])
    ['pair', [3]]
    """
    if not callable(func):
        raise TypeError(f"`func` must be callable. Received: func={func}")

    def inside() -> Any:
        if not is_nested(structure):
            return structure
        return _rebuilt(structure, [traverse(func, item, top_down) for item in _children(structure)])

    if top_down:
        result = func(structure)
        if result is None:
            return inside()
    else:
        structure = inside()
        result = func(structure)
        if result is None:
            return structure
    return None if result is MAP_TO_NONE else result


def lists_to_tuples(structure: Any) -> Any:
    """The structure with tuples in the place of lists."""
    return traverse(lambda x: tuple(x) if isinstance(x, list) else None, structure, top_down=False)


# --- comparing ----------------------------------------------------------------------------------------------------


def assert_same_structure(a: Any, b: Any, check_types: Any = None) -> None:
    """Checks that two structures are nested alike, with the same kinds of containers.

    Raises:
        ValueError: they are not.
    """
    if check_types is not None:
        hint = "" if check_types else " For a looser check, use `kerasoft.tree.assert_same_paths()`."
        warnings.warn(
            f"The `check_types` argument is deprecated and no longer has any effect.{hint}",
            DeprecationWarning,
            stacklevel=2,
        )
    _check_same(a, b)


def _check_same(a: Any, b: Any) -> None:
    if is_nested(a) != is_nested(b) or (is_nested(a) and (_kind(a) != _kind(b) or len(a) != len(b))):
        raise ValueError(f"{_DIFFERENT} {a!r} and {b!r}. Expected an instance of {type(a)}, got {type(b)}.")
    if not is_nested(a):
        return
    if isinstance(a, dict):
        if set(a) != set(b):
            raise ValueError(f"{_DIFFERENT} Their keys are {list(a)} and {list(b)}")
        for key in a:
            _check_same(a[key], b[key])
        return
    for x, y in zip(a, b, strict=True):
        _check_same(x, y)


def _kind(structure: Any) -> Any:
    if is_namedtuple(structure):
        return type(structure)
    return next(kind for kind in (dict, list, tuple, collections.deque) if isinstance(structure, kind))


def assert_same_paths(a: Any, b: Any) -> None:
    """Checks that the leaves of two structures have the same paths; lists and tuples count as equal.

    Raises:
        ValueError: they have not; names the paths.
    """
    first, second = ({path for path, _ in flatten_with_path(x)} for x in (a, b))
    if first == second:
        return
    text = "`a` and `b` don't have the same paths."
    if first - second:
        text += f"\nPaths in `a` missing in `b`:\n{first - second}"
    if second - first:
        text += f"\nPaths in `b` missing in `a`:\n{second - first}"
    raise ValueError(text)


def same_structure(a: Any, b: Any) -> bool:
    """Whether two structures have one shape; a list and a tuple count as equal."""
    if isinstance(a, dict) or isinstance(b, dict):
        both = isinstance(a, dict) and isinstance(b, dict) and set(a) == set(b)
        return both and all(same_structure(a[k], b[k]) for k in a)
    if is_nested(a) or is_nested(b):
        both = is_nested(a) and is_nested(b)
        return both and len(a) == len(b) and all(same_structure(x, y) for x, y in zip(a, b, strict=True))
    return True

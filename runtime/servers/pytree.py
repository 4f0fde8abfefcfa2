"""Nested dicts, lists and tuples of arrays and plain values as messages, without pickle.

A tree becomes a JSON description and arrays: ``{"d": [[key, tree], ...]}``, ``{"l": [...]}``, ``{"t": [...]}``,
``{"a": array's name}`` and ``{"v": plain value}``.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from ..errors import WireError
from ..wire import DTYPES

_DEEPEST = 64


def pack(tree: Any) -> tuple[Any, dict[str, np.ndarray]]:
    """The description of `tree` and its arrays.

    Raises:
        TypeError: something in it is no array, number, text, None, dict with text keys, list or tuple; says where.
    """
    arrays: dict[str, np.ndarray] = {}
    return _pack(tree, arrays, ""), arrays


def _pack(tree: Any, arrays: dict[str, np.ndarray], where: str) -> Any:
    if tree is None or isinstance(tree, (bool, int, float, str)):
        return {"v": tree}
    if isinstance(tree, dict):
        if not all(isinstance(k, str) for k in tree):
            raise TypeError(f"keys of {where or 'the tree'} must be texts, got {sorted(map(repr, tree))[:4]}")
        return {"d": [[k, _pack(v, arrays, f"{where}/{k}")] for k, v in tree.items()]}
    if isinstance(tree, (list, tuple)):
        items = [_pack(v, arrays, f"{where}/{i}") for i, v in enumerate(tree)]
        return {"l" if isinstance(tree, list) else "t": items}
    array = np.asarray(tree)
    if array.dtype.name not in DTYPES:
        raise TypeError(
            f"{where or 'the tree'} is a {type(tree).__name__} of dtype {array.dtype}; trees hold arrays of numbers, plain "
            "numbers and texts, None, dicts, lists and tuples"
        )
    name = f"a/{len(arrays)}"
    arrays[name] = array
    return {"a": name}


def unpack(described: Any, arrays: dict[str, np.ndarray]) -> Any:
    """The tree that `pack` described.

    Raises:
        WireError: it is no such description.
    """
    try:
        return _unpack(described, arrays, 0)
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise WireError(f"a tree is described wrongly: {error!r}.") from error


def _unpack(described: Any, arrays: dict[str, np.ndarray], depth: int) -> Any:
    if depth > _DEEPEST:
        raise ValueError("it is too deep")
    ((kind, value),) = described.items()
    if kind == "v":
        if not (value is None or isinstance(value, (bool, int, float, str))):
            raise ValueError("a plain value is none")
        return value
    if kind == "a":
        return arrays[value]
    if kind == "d":
        return {str(k): _unpack(v, arrays, depth + 1) for k, v in value}
    items = [_unpack(v, arrays, depth + 1) for v in value]
    return {"l": items, "t": tuple(items)}[kind]


def copied(tree: Any) -> Any:
    """A copy whose arrays nobody else writes to."""
    if isinstance(tree, dict):
        return {k: copied(v) for k, v in tree.items()}
    if isinstance(tree, (list, tuple)):
        return type(tree)(copied(v) for v in tree)
    return np.array(tree) if hasattr(tree, "__array__") else tree

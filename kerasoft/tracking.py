"""Finding the variables, layers and metrics that an object is given as attributes, also inside lists and dicts."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any


class TrackedList(list):
    """A list that reports what is put into it."""

    def __init__(self, items: Iterable = (), track: Callable[[Any], Any] = lambda x: x):
        self._track = track
        super().__init__(track(x) for x in items)

    def append(self, item: Any) -> None:
        super().append(self._track(item))

    def insert(self, index: Any, item: Any) -> None:
        super().insert(index, self._track(item))

    def extend(self, items: Iterable) -> None:
        super().extend([self._track(x) for x in items])

    def __iadd__(self, items: Iterable):
        self.extend(items)
        return self

    def __setitem__(self, index: Any, item: Any) -> None:
        super().__setitem__(index, [self._track(x) for x in item] if isinstance(index, slice) else self._track(item))

    def __reduce__(self):
        return list, (list(self),)

    def __deepcopy__(self, memo: dict):
        import copy

        return [copy.deepcopy(x, memo) for x in self]


class TrackedDict(dict):
    """A dict that reports the values put into it."""

    def __init__(self, items: dict, track: Callable[[Any], Any]):
        self._track = track
        super().__init__({k: track(v) for k, v in items.items()})

    def __setitem__(self, key: Any, value: Any) -> None:
        super().__setitem__(key, self._track(value))

    def update(self, *args: Any, **kwargs: Any) -> None:
        for key, value in dict(*args, **kwargs).items():
            self[key] = value

    def setdefault(self, key: Any, default: Any = None) -> Any:
        if key not in self:
            self[key] = default
        return self[key]

    def __reduce__(self):
        return dict, (dict(self),)

    def __deepcopy__(self, memo: dict):
        import copy

        return {k: copy.deepcopy(v, memo) for k, v in self.items()}


def tracked(value: Any, track: Callable[[Any], Any]) -> Any:
    """`value` with its lists and dicts watched; everything in them is reported to `track`."""

    def visit(item: Any) -> Any:
        return tracked(item, track)

    if type(value) in (list, TrackedList):
        return TrackedList(value, visit)
    if type(value) in (dict, TrackedDict):
        return TrackedDict(value, visit)
    if isinstance(value, tuple):
        items = [visit(x) for x in value]
        return type(value)(*items) if hasattr(value, "_fields") else tuple(items)
    track(value)
    return value

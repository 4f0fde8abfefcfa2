"""HostPlan: the part of a model that runs in NumPy before the compiled step, as plain functions of arrays."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import numpy as np

from .. import tree
from ..errors import DataError
from .lookup import as_texts
from .sparse import SparseRows


@dataclasses.dataclass(frozen=True)
class Slot:
    """The place of an array in a plan."""

    index: int


@dataclasses.dataclass
class HostPlan:
    """What runs on the host, ready to be shipped.

    Attributes:
        model: what errors call it.
        inputs: name, dtype and number of axes of each raw input.
        by_name: whether x is a dict with these names.
        steps: function, its argument (a `Slot` or a list of them) and the slot of its result.
        cuts: name, slot and dtype of each result.
    """

    model: str
    inputs: list[tuple[str, str, int]]
    steps: list[tuple[Callable, Any, int]]
    cuts: list[tuple[str, int, str]]

    def __call__(self, x: Any) -> dict[str, np.ndarray]:
        """Arrays by the names of the cut.

        Raises:
            DataError: an input is missing, or is no text where text is expected.
        """
        values: dict[int, Any] = dict(enumerate(self._raw(x)))
        for function, argument, result in self.steps:
            values[result] = function(tree.map_structure(lambda slot: _dense(values[slot.index]), argument))
        return {name: _cut(values[slot], dtype) for name, slot, dtype in self.cuts}

    def _raw(self, x: Any) -> list[np.ndarray]:
        names = [name for name, _, _ in self.inputs]
        if isinstance(x, dict):
            missing = [name for name in names if name not in x]
            if missing:
                raise DataError(
                    f"{self.model} takes the inputs {names}, but x has no {missing[0]!r}; it holds {list(x)}."
                )
            given = [x[name] for name in names]
        elif len(names) == 1:
            single = isinstance(x, (list, tuple)) and len(x) == 1 and np.ndim(x[0]) > 0
            given = [x[0] if single else x]
        else:
            given = list(x)
            if len(given) != len(names):
                raise DataError(f"{self.model} takes {len(names)} inputs {names}, but x holds {len(given)} array(s).")
        return [_typed(value, *spec) for value, spec in zip(given, self.inputs, strict=True)]


def _dense(value: Any) -> Any:
    return value.toarray() if isinstance(value, SparseRows) else value


def _cut(value: Any, dtype: str) -> Any:
    return value if isinstance(value, SparseRows) else np.asarray(value).astype(dtype, copy=False)


def _typed(value: Any, name: str, dtype: str, axes: int) -> np.ndarray:
    """A raw input in its dtype, a last axis of 1 added or dropped where the input has it or not."""
    if type(value).__module__.startswith("pandas"):
        value = value.to_numpy()
    if dtype == "string":
        array = as_texts(value, f"input '{name}'")
    else:
        array = np.asarray(value)
        if array.dtype.kind not in "fiub":
            raise DataError(f"input '{name}' holds {array.dtype.name} values; expected {dtype}")
        array = array.astype(dtype, copy=False)
    if array.ndim == axes - 1:
        return array[..., None]
    if array.ndim == axes + 1 and array.shape[-1] == 1:
        return array[..., 0]
    if array.ndim != axes:
        raise DataError(f"input '{name}' has {array.ndim} axes, got shape {array.shape}; expected {axes} axes")
    return array

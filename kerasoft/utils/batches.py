"""Batches: a data set made of functions of an index, which can be read any number of times."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from .. import tree
from .py_dataset import PyDataset


class Batches(PyDataset):
    """A data set whose element `index` is `get(index)`: samples, or, after `batch`, batches of them.

    Elements are arrays, or tuples (x, y) of arrays, in NumPy. `fit`, `evaluate` and `predict` take it; a `for` loop
    reads one epoch. `shuffle`, `batch`, `map`, `take`, `skip`, `cache` and `unbatch` give new data sets, as the methods of
    the same names do for `tf.data`.

    Args:
        count: elements.
        get: the element at an index below `count`.
        parent: told about the end of every epoch.

    >>> data = Batches(5, lambda i: np.float32(i)).batch(2)
    >>> [x.tolist() for x in data.map(lambda x: x * 10)]
    [[0.0, 10.0], [20.0, 30.0], [40.0]]
    """

    class_names: list[str] | None = None
    file_paths: list[str] | None = None

    def __init__(self, count: int, get: Callable[[int], Any], parent: Batches | None = None):
        super().__init__()
        self._count, self._get, self._parent = int(count), get, parent
        if parent is not None:
            self.class_names, self.file_paths = parent.class_names, parent.file_paths

    def __len__(self) -> int:
        return self._count

    def __getitem__(self, index: int) -> Any:
        if not -self._count <= index < self._count:
            raise IndexError(f"index {index} of a data set of {self._count} elements")
        return self._get(index % self._count)

    def __iter__(self) -> Iterator[Any]:
        for index in range(self._count):
            yield self._get(index)
        self.on_epoch_end()

    def on_epoch_end(self) -> None:
        if self._parent is not None:
            self._parent.on_epoch_end()

    def cardinality(self) -> int:
        """The number of elements."""
        return self._count

    def batch(self, batch_size: int, drop_remainder: bool = False, collate: Callable | None = None) -> Batches:
        """Elements stacked `batch_size` at a time."""
        collate, rows = collate or stack, self._count
        count = rows // batch_size if drop_remainder else -(-rows // batch_size)

        def get(index: int) -> Any:
            return collate([self[i] for i in range(index * batch_size, min((index + 1) * batch_size, rows))])

        return Batches(count, get, self)

    def shuffle(self, buffer_size: int | None = None, seed: int | None = None) -> Batches:
        """The elements in a random order, another one in every epoch; `buffer_size` is accepted, all are shuffled."""
        return Shuffled(self, seed)

    def map(self, function: Callable, **_: Any) -> Batches:
        """`function` of each element; a tuple's parts are its arguments."""

        def get(index: int) -> Any:
            element = self[index]
            return function(*element) if isinstance(element, tuple) else function(element)

        return Batches(self._count, get, self)

    def take(self, count: int) -> Batches:
        """The first `count` elements."""
        return Batches(self._count if count < 0 else min(count, self._count), self._get, self)

    def skip(self, count: int) -> Batches:
        """All but the first `count` elements."""
        return Batches(max(self._count - count, 0), lambda index: self[index + count], self)

    def cache(self, filename: str = "") -> Batches:
        """Every element is made once and kept in memory."""
        kept: dict[int, Any] = {}

        def get(index: int) -> Any:
            if index not in kept:
                kept[index] = self[index]
            return kept[index]

        return Batches(self._count, get, self)

    def prefetch(self, buffer_size: int | None = None) -> Batches:
        """The same data set: `fit` prepares batches ahead by itself."""
        return self

    def unbatch(self) -> Batches:
        """The rows of all batches, one by one; reads them once to count them."""
        sizes = [len(tree.flatten(element)[0]) for element in (self[i] for i in range(self._count))]
        ends = np.cumsum(sizes)

        def get(index: int) -> Any:
            batch = int(np.searchsorted(ends, index, side="right"))
            row = index - int(ends[batch] - sizes[batch])
            return tree.map_structure(lambda x: x[row], self[batch])

        return Batches(int(ends[-1]) if len(ends) else 0, get, self)

    def as_numpy_iterator(self) -> Iterator[Any]:
        """The elements of one epoch."""
        return iter(self)

    def to_rdd(self, spark: Any, partitions: int | None = None) -> Any:
        """An RDD of the rows (x, y) of all batches, to fit on a cluster; `spark` is a SparkSession or SparkContext."""
        context = getattr(spark, "sparkContext", spark)
        rows = [row for batch in self for row in _rows(batch)]
        return context.parallelize(rows, partitions)


class Shuffled(Batches):
    """The elements of `source` in an order that changes after each epoch."""

    def __init__(self, source: Batches, seed: int | None):
        super().__init__(len(source), lambda index: source[int(self._order[index])], source)
        self._random = np.random.RandomState(seed)
        self._order = self._random.permutation(len(source))

    def on_epoch_end(self) -> None:
        self._order = self._random.permutation(self._count)
        super().on_epoch_end()


def stack(elements: list) -> Any:
    """One element of equal elements: each array with a new first axis."""
    return tree.map_structure(lambda *parts: _stacked(parts), *elements)


def _stacked(parts: tuple) -> Any:
    return np.asarray(parts, object) if isinstance(parts[0], (str, bytes)) else np.stack(parts)


def _rows(batch: Any) -> Iterator[Any]:
    flat = tree.flatten(batch)
    for row in range(len(flat[0])):
        yield tree.map_structure(lambda x: x[row], batch)  # noqa: B023


def slices(arrays: Any) -> Batches:
    """A data set of the rows of arrays of equal lengths (a structure of them)."""
    return Batches(len(tree.flatten(arrays)[0]), lambda index: tree.map_structure(lambda x: x[index], arrays))

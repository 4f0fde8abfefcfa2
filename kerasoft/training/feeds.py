"""Feeds: arrays and generators as batches of one number of rows, epoch by epoch."""

from __future__ import annotations

import contextlib
import itertools
import warnings
from collections.abc import Callable, Iterable, Iterator

import numpy as np

from ..errors import DataError
from ..host.sparse import SparseRows, next_width
from ..runtime.local import Batch, Batches, on_device
from ..runtime.shards import permutation
from .inputs import Arrays, unpack


class ArrayFeed:
    """Batches of arrays, in order or in a new order each epoch.

    Args:
        arrays: the rows.
        batch_size: rows of a batch; the last one is padded with copies of its first row.
        shuffle: a new order each epoch, the same for the same (seed, epoch).
        exact: no padding; the last batch is smaller.
        steps: batches an epoch; the next epoch goes on behind them, and one in which the rows run out ends early. None =
            all rows.
    """

    def __init__(
        self, arrays: Arrays, batch_size: int, shuffle: bool = False, seed: int = 0, exact: bool = False, steps=None
    ):
        self.arrays, self.batch_size = arrays.arrays, min(batch_size, arrays.rows)
        self.rows, self.shuffle, self.seed, self.exact = arrays.rows, shuffle, seed, exact
        self.available = -(-arrays.rows // batch_size)
        self.steps = self.available if steps is None else steps
        self._next, self._pass = 0, 0  # where the next epoch begins, and the epoch that gives the order of the rows
        self._ones = on_device(np.ones(self.batch_size, np.float32))
        self._sparse = {k: v.widest for k, v in self.arrays.items() if isinstance(v, SparseRows)}
        self.batch_bytes = sum(v[:1].nbytes for v in self.arrays.values()) * self.batch_size

    def epoch(self, epoch: int, first: int = 0) -> Iterator[Batch]:
        size, total = self.batch_size, self.rows
        arrays, valid = self.arrays, None if self.exact else self._ones
        order, ids, begin, end = self._begin(epoch, first)
        for start in range(begin * size, end * size, size):
            stop = start + size
            if stop <= total:
                rows = ids[start:stop]
                if self._sparse:
                    yield Batch(self._taken(rows), valid, rows, size)
                elif order is None:
                    yield Batch({k: v[start:stop] for k, v in arrays.items()}, valid, rows, size)
                else:
                    yield Batch({k: v.take(rows, axis=0) for k, v in arrays.items()}, valid, rows, size)
            else:
                rows = ids[start:total]
                yield self._last(rows)

    def several(self, epoch: int, first: int, count: int) -> Iterator[Batch | Batches]:
        """The rows of `epoch`, `count` batches at once. An exact feed's smaller batch comes by itself."""
        size, steps = self.batch_size, count
        _, ids, begin, end = self._begin(epoch, first)
        whole = min(end, self.rows // size) if self.exact else end
        full = None if self.exact else on_device(np.ones((count, size), np.float32))
        for step in range(begin, whole, count):
            steps = min(count, whole - step)
            rows = ids[step * size : (step + steps) * size]
            real, valid = len(rows), full
            if real < count * size:
                rows = np.concatenate([rows, np.full(count * size - real, rows[0], rows.dtype)])
                valid = None if self.exact else (np.arange(count * size) < real).astype(np.float32).reshape(count, size)
            taken = self._taken(rows)
            stacked = {k: v.reshape(count, size, *v.shape[1:]) for k, v in taken.items()}
            of_steps = tuple(min(size, real - i * size) for i in range(steps))
            yield Batches(stacked, valid, rows.reshape(count, size), of_steps)
        if whole < end:
            yield self._last(ids[whole * size :])

    def _begin(self, epoch: int, first: int) -> tuple[np.ndarray | None, np.ndarray, int, int]:
        """The order of the rows if they are shuffled, their numbers, and the epoch's first batch and end."""
        if not self._next:
            self._pass = epoch
        order = permutation(self.rows, self.seed, self._pass, 0) if self.shuffle else None
        begin, end = self._next, min(self._next + self.steps, self.available)
        self._next = end % self.available
        if end - begin < self.steps:
            ran_out()
        return order, np.arange(self.rows, dtype=np.uint32) if order is None else order, begin + first, end

    def together(self, count: int) -> Iterator[Batch]:
        """All rows in order, `count` batches in one while there are so many, then batch by batch."""
        size = count * self.batch_size
        whole = self.rows // size if count > 1 and self.steps >= self.available else 0
        if whole:
            valid = None if self.exact else on_device(np.ones(size, np.float32))
            ids = np.arange(self.rows, dtype=np.uint32)
            for start in range(0, whole * size, size):
                part = slice(start, start + size)
                yield Batch({k: v[part] for k, v in self.arrays.items()}, valid, ids[part], size)
        if whole * size < self.rows:
            yield from self.epoch(0, whole * count)

    def _taken(self, rows: np.ndarray) -> dict[str, np.ndarray]:
        """The rows of these numbers, sparse ones packed."""
        taken: dict[str, np.ndarray] = {}
        for k, v in self.arrays.items():
            if k not in self._sparse:
                taken[k] = v.take(rows, axis=0)
            elif v.piece is None:
                taken[k] = v.packed(rows, widest=self._sparse[k])
            else:
                taken[k], taken[f"{k}/pieces"] = v.cut(rows)
        return taken

    def _last(self, rows: np.ndarray) -> Batch:
        real = len(rows)
        if self.exact:
            return Batch(self._taken(rows), None, rows, real)
        padded = np.concatenate([rows, np.full(self.batch_size - real, rows[0], rows.dtype)])
        valid = (np.arange(self.batch_size) < real).astype(np.float32)
        return Batch(self._taken(padded), valid, padded, real)


class GeneratorFeed:
    """Batches that a generator or another iterable yields, as ``x``, ``(x,)``, ``(x, y)`` or ``(x, y, sample_weight)``.

    Args:
        model: whose inputs they are for.
        data: a generator goes on from epoch to epoch; an iterable such as a list of batches starts again each epoch.
        steps: batches an epoch; None = until the data ends.
        prepare: makes `Arrays` of one batch.
        predicting: a batch that is no tuple, or a tuple of one, is x.

    Batches smaller than the largest so far are padded, unless `exact`.
    """

    def __init__(self, data: Iterable, steps: int | None, prepare: Callable[[tuple], Arrays], shuffle: bool = False):
        self.steps, self.exact = steps, False
        self.rows: int | None = None
        self._data, self._prepare = data, prepare
        self._by_index = hasattr(data, "num_batches") and hasattr(data, "__getitem__")
        self._once = not self._by_index and iter(data) is data
        self.shuffle, self.seed = shuffle, 0
        self._iterator: Iterator | None = None
        self._ahead: list[Arrays] = []
        self._first: Arrays | None = None
        self._given_steps, self._passes = steps, 0
        self._largest = 0
        self._seen = 0
        self.known_steps: int | None = data.num_batches if self._by_index else None
        with contextlib.suppress(TypeError):  # an iterable may have a length that it does not know
            self.known_steps = len(data)  # type: ignore[arg-type]
        if steps is None and self.known_steps is not None:
            self.steps = self.known_steps

    def peek(self) -> Arrays:
        """The first batch, which stays the first.

        Raises:
            DataError: there is none.
        """
        if self._by_index:
            if self.known_steps == 0:
                raise DataError("there is no data: the data set has no batches")
            if self._first is None:
                self._first = self._prepare(unpack(self._data[0]))
            return self._first
        if not self._ahead:
            arrays = self._pull()
            if arrays is None:
                raise DataError(
                    "When passing a Python generator to a Keras model, the generator must yield at least one batch. "
                    "Received an empty generator."
                )
            self._ahead.append(arrays)
        return self._ahead[0]

    def epoch(self, epoch: int, first: int = 0) -> Iterator[Batch]:
        self.tell("on_epoch_begin")
        number = first
        while self.steps is None or number < self.steps:
            arrays = self._ahead.pop() if self._ahead else self._pull()
            if arrays is None:
                if self.steps is not None or number == first:
                    ran_out()
                break
            yield self._batch(arrays)
            number += 1
        if not self._once and (self._given_steps is None or self.steps == self.known_steps):
            self._iterator = None
        self.tell("on_epoch_end")

    def tell(self, hook: str) -> None:
        """Calls a hook of a `PyDataset`."""
        if self._by_index and hasattr(self._data, hook):
            getattr(self._data, hook)()

    def _batches(self) -> Iterator:
        if not self._by_index:
            return iter(self._data)
        count = self.known_steps
        if count is None:
            return (self._data[i] for i in itertools.count())
        order = np.random.default_rng([self.seed, self._passes]).permutation(count) if self.shuffle else range(count)
        self._passes += 1
        return (self._data[int(i)] for i in order)

    def _pull(self) -> Arrays | None:
        if self._iterator is None:
            self._iterator = self._batches()
        item = next(self._iterator, None)
        return None if item is None else self._prepare(unpack(item))

    def _batch(self, arrays: Arrays) -> Batch:
        rows = arrays.rows
        ids = np.arange(self._seen, self._seen + rows, dtype=np.uint32)
        self._seen += rows
        given = {
            k: v.packed(width=next_width(v.widest)) if isinstance(v, SparseRows) else v
            for k, v in arrays.arrays.items()
        }
        if self.exact:
            return Batch(given, None, ids, rows)
        self._largest = max(self._largest, rows)
        missing = self._largest - rows
        valid = np.ones(self._largest, np.float32)
        if not missing:
            return Batch(given, valid, ids, rows)
        valid[rows:] = 0
        padded = {k: np.concatenate([v, np.repeat(v[:1], missing, axis=0)]) for k, v in given.items()}
        return Batch(padded, valid, np.concatenate([ids, np.full(missing, ids[0])]), rows)


def ran_out() -> None:
    """Warns that an epoch ends early."""
    warnings.warn(
        "Your input ran out of data; interrupting training. Make sure that your dataset or generator can generate at "
        "least `steps_per_epoch * epochs` batches. You may need to use the `.repeat()` function when building your "
        "dataset.",
        stacklevel=3,
    )

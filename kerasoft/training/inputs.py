"""Inputs: what users give as x, y and sample weights becomes named NumPy arrays and batches of them."""

from __future__ import annotations

import contextlib
import itertools
import math
import warnings
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import numpy as np

from .. import dtypes, tree
from ..errors import DataError
from ..host.sparse import SparseRows, next_width
from ..runtime.local import Batch, Batches
from ..runtime.shards import permutation
from . import checks
from .signature import Leaf, Signature
from .targets import named

_MOST_INT32 = 2**31 - 1


class Arrays:
    """x, y and sample weights as named arrays of one number of rows.

    Attributes:
        signature: their structure.
        arrays: {name: array}, C-contiguous, in the dtypes that the step takes; of sparse rows `SparseRows`.
        rows: their leading size.
    """

    def __init__(self, signature: Signature, arrays: dict[str, np.ndarray], rows: int):
        self.signature, self.arrays, self.rows = signature, arrays, rows

    def part(self, first: int, last: int) -> Arrays:
        """Rows `first` to `last`, views."""
        return Arrays(self.signature, {k: v[first:last] for k, v in self.arrays.items()}, last - first)

    def without_weights(self) -> Arrays:
        """The same rows, all of one weight."""
        kept = {k: v for k, v in self.arrays.items() if not k.startswith("sample_weight/")}
        return Arrays(Signature(self.signature.x, self.signature.y), kept, self.rows)


def to_arrays(model: Any, x: Any, y: Any = None, sample_weight: Any = None, pieces: bool = False) -> Arrays:
    """The arrays that a model's step takes.

    Args:
        pieces: whether sparse rows of very different fullness are cut into pieces.

    Raises:
        DataError: nothing there, ragged rows, text, sizes that differ, or shapes that the model's inputs cannot take.
    """
    wanted = checks.input_tensors(model)
    x = _standard(as_structure(x, "x", len(wanted)), "x")
    x = checks.fit_inputs(model, x, wanted)
    y = None if y is None else _standard(as_structure(y, "y", _label_count(model, y)), "y")
    weights = (
        None
        if sample_weight is None
        else _standard(
            as_structure(sample_weight, "sample_weight", _label_count(model, sample_weight)), "sample_weight"
        )
    )
    rows = checks.same_rows(x, y, weights)
    unknown = _unknown_sizes(x, wanted)
    arrays: dict[str, Any] = {}

    def leaves(structure: Any, kind: str, names: Callable[[tuple, int], str]) -> Any:
        made: list[Leaf | None] = []
        for i, (path, array) in enumerate(tree.flatten_with_path(structure)):
            if array is None:
                made.append(None)
                continue
            if kind == "sample_weight" and array.dtype != np.float32:
                array = array.astype(np.float32)
            name = f"{kind}/{names(path, i)}"
            if isinstance(array, SparseRows):
                arrays[name], leaf = _sparse_leaf(array, name, i, pieces)
                made.append(leaf)
                continue
            sizes = unknown.get(id(array), array.shape[1:]) if kind == "x" else _written(array, unknown["sizes"])
            arrays[name] = np.ascontiguousarray(array)
            made.append(Leaf(name, tuple(sizes), array.dtype.name))
        return tree.pack_as(structure, made)

    input_names = checks.names_of_inputs(model, wanted)
    outputs = getattr(model, "output_names", None) or ()
    signature = Signature(
        leaves(x, "x", lambda path, i: input_names[i] if i < len(input_names) else _path_name(path, "input")),
        None if y is None else leaves(y, "y", lambda path, i: _label_name(path, i, y, outputs)),
        None
        if weights is None
        else leaves(weights, "sample_weight", lambda path, i: _label_name(path, i, weights, outputs)),
    )
    return Arrays(signature, arrays, rows)


def _sparse_leaf(array: SparseRows, name: str, i: int, pieces: bool) -> tuple[SparseRows, Leaf]:
    """Sparse rows in the form that they will travel in, and their leaf."""
    width = array.piece_width() if pieces else None
    if width is None:
        return array, Leaf(name, (2, f"s{i}"), "int32", array.shape[1])
    cut = Leaf(f"{name}/pieces", (2, width), "int32", rows=f"v{i}")
    return array.in_pieces(width), Leaf(name, (), "int32", array.shape[1], cut)


def as_structure(value: Any, what: str, count: int) -> Any:
    """`value` with NumPy arrays at its leaves.

    Lists and tuples of arrays are structures; lists of numbers or of lists of numbers are one array.

    Args:
        count: leaves expected, 0 when that is not known.
    """
    if isinstance(value, dict):
        return {key: None if item is None else as_structure(item, f"{what}[{key!r}]", 0) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        is_structure = any(_is_array(item) or isinstance(item, dict) for item in value) and (
            len(value) == count or count != 1 or any(np.ndim(item) > 0 for item in value if _is_array(item))
        )
        is_structure = is_structure or (len(value) == count and any(item is None for item in value))
        if count == 1 and len(value) != 1 and is_structure and all(_is_array(item) for item in value):
            is_structure = False  # rows given as a list of arrays
        if is_structure or any(isinstance(item, (list, tuple)) and _has_arrays(item) for item in value):
            items = [None if v is None else as_structure(v, f"{what}[{i}]", 1) for i, v in enumerate(value)]
            return items
    return _array(value, what)


def _has_arrays(value: Any) -> bool:
    return isinstance(value, (list, tuple)) and any(_is_array(item) for item in value)


def _is_array(value: Any) -> bool:
    return hasattr(value, "shape") and hasattr(value, "dtype")


def _array(value: Any, what: str) -> Any:
    if type(value).__module__.startswith("pandas"):
        value = value.to_numpy()
    if hasattr(value, "tocsr"):
        return SparseRows.of(value)
    if isinstance(value, SparseRows):
        return value
    try:
        array = np.asarray(value)
    except ValueError as error:
        raise checks.ragged(value, what) from error
    if array.dtype == object:
        array = checks.from_objects(array, what)
    if array.dtype.name in dtypes.FLOATS and array.dtype.kind not in "fiub":
        array = array.astype(np.float32)  # NumPy has no bfloat16 of its own
    if array.dtype.kind not in "fiub":
        raise DataError(
            f"{what} holds {array.dtype.name} values; expected numbers. Encode text or dates as numbers first, or begin the "
            "model with ks.Input((), dtype='string') and a TextVectorization or StringLookup layer."
        )
    if array.ndim == 0:
        raise DataError(f"{what} is the single number {array}; expected an array with one row a sample")
    return array


def _standard(structure: Any, what: str) -> Any:
    """64-bit arrays as 32-bit ones, native byte order."""

    def narrow(array: Any) -> Any:
        if array is None:
            return None
        if isinstance(array, SparseRows):
            return array if what == "x" else array.toarray()
        wanted = dtypes.narrowed(array.dtype)
        if array.dtype.kind in "iu" and array.dtype.itemsize == 8 and array.size:
            largest = max(abs(int(array.min())), abs(int(array.max())))
            if largest > _MOST_INT32:
                raise DataError(
                    f"{what} holds the whole number {largest}, above {_MOST_INT32}, the largest that is computed with"
                )
        return array if array.dtype.name == wanted else array.astype(wanted)

    return tree.map_structure(narrow, structure)


def _label_count(model: Any, y: Any) -> int:
    own = getattr(type(model), "compute_loss", None)
    if own is not None and not own.__module__.startswith("kerasoft."):
        return 0  # it may make any labels of the outputs
    names = getattr(model, "output_names", None)
    if names:
        return len(names)
    return 1 if not isinstance(y, (list, tuple)) or not any(map(_is_array, y)) else 0


def _label_name(path: tuple, index: int, structure: Any, outputs: Any) -> str:
    flat = tree.flatten(structure)
    if not isinstance(structure, dict) and len(flat) == len(outputs):
        return outputs[index]
    if len(path) == 1 and not isinstance(path[0], int):
        return str(path[0])
    return outputs[0] if len(flat) == 1 and len(outputs) >= 1 else _path_name(path, "output")


def _path_name(path: tuple, default: str) -> str:
    return "/".join(map(str, path)) or default


def _unknown_sizes(x: Any, wanted: list) -> dict:
    """For the id of each input array its sizes without the batch axis, unknown ones as text; and text by (axis, size).

    Two inputs share an unknown size if it has one number here: what is equal in the data may be equal in the model.
    """
    sizes: dict[tuple[int, int], str] = {}
    found: dict[Any, Any] = {"sizes": sizes}
    if not wanted:
        return found
    for array, tensor in zip(tree.flatten(x), wanted, strict=True):
        if array is None:
            continue
        written = []
        for axis, (size, known) in enumerate(zip(array.shape[1:], tensor.shape[1:], strict=True), 1):
            if known is None:
                taken = sum(1 for a, _ in sizes if a == axis)
                written.append(sizes.setdefault((axis, size), f"n{axis}" if not taken else f"n{axis}_{taken}"))
            else:
                written.append(size)
        found[id(array)] = tuple(written)
    return found


def _written(array: np.ndarray, sizes: dict[tuple[int, int], str]) -> tuple:
    return tuple(sizes.get((axis, size), size) for axis, size in enumerate(array.shape[1:], 1))


# --- weights --------------------------------------------------------------------------------------------------------


def class_weights(y: Any, class_weight: dict) -> np.ndarray:
    """float32[rows]: the weight of each row's class, 1 for classes without one.

    Labels are class numbers, (rows,) or (rows, 1), or one-hot rows.

    >>> class_weights(np.array([0, 1, 2]), {1: 3.0}).tolist()
    [1.0, 3.0, 1.0]
    """
    if isinstance(y, (dict, list, tuple)) and len(tree.flatten(y)) != 1 and any(map(_is_array, tree.flatten(y))):
        raise DataError(
            "`class_weight` is only supported for models with a single output; use `sample_weight` instead."
        )
    labels = np.asarray(tree.flatten(y)[0] if isinstance(y, dict) else y)
    if labels.ndim > 1:
        labels = labels.argmax(axis=-1) if labels.shape[-1] != 1 else labels[..., 0]
    labels = np.round(labels).astype(np.int64)
    values, places = np.unique(labels, return_inverse=True)
    return np.array([class_weight.get(int(v), 1.0) for v in values], np.float32)[places.reshape(labels.shape)]


def split_validation(arrays: Arrays, fraction: float) -> tuple[Arrays, Arrays]:
    """Training and validation rows: validation is the last `fraction`.

    Raises:
        ValueError: a fraction outside (0, 1), or one side would be empty.
    """
    if not 0 < fraction < 1:
        raise ValueError(
            f"`validation_split` must be a fraction between 0 and 1. Received: validation_split={fraction}"
        )
    at = math.floor(arrays.rows * (1.0 - fraction))
    if at == 0 or at == arrays.rows:
        raise ValueError(
            f"Training data contains {arrays.rows} samples, which is not sufficient to split it into a validation and "
            f"training set as specified by `validation_split={fraction}`. Either provide more data, or a different value "
            "for the `validation_split` argument."
        )
    return arrays.part(0, at), arrays.part(at, arrays.rows)


# --- batches --------------------------------------------------------------------------------------------------------


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
        self._ones = _on_device(np.ones(self.batch_size, np.float32))
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
        full = None if self.exact else _on_device(np.ones((count, size), np.float32))
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
            valid = None if self.exact else _on_device(np.ones(size, np.float32))
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


def unpack(item: Any) -> tuple[Any, Any, Any]:
    """x, y and sample weight of ``x``, ``(x,)``, ``(x, y)`` or ``(x, y, sample_weight)``.

    Raises:
        ValueError: a longer tuple.
    """
    if isinstance(item, list):
        item = tuple(item)
    if not isinstance(item, tuple):
        return item, None, None
    if not 1 <= len(item) <= 3:
        raise ValueError(
            f"Data is expected to be in format `x`, `(x,)`, `(x, y)`, or `(x, y, sample_weight)`, found: {named(item)}"
        )
    x, y, sample_weight = (*item, None, None)[:3]
    return x, y, sample_weight


def is_arrays(x: Any) -> bool:
    """Whether x is (a structure of) arrays, and no iterable of batches."""
    if isinstance(x, (dict, list, tuple)) or _is_array(x) or type(x).__module__.startswith("pandas"):
        return True
    return not isinstance(x, Iterable) or hasattr(x, "__array__")


def _on_device(array: np.ndarray) -> Any:
    from ..runtime.local import on_device

    return on_device(array)

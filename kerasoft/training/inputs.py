"""Inputs: what users give as x, y and sample weights becomes named NumPy arrays; `feeds.py` makes batches of them."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from typing import Any

import numpy as np

from .. import dtypes, tree
from ..errors import DataError
from ..host.sparse import SparseRows
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


# --- what kind ---------------------------------------------------------------------------------------------------


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

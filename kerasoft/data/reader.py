"""Rows become blocks: contiguous NumPy arrays of a few megabytes, every row checked on the way.

A row is one of

- ``(x, y)`` or ``(x, y, weight)``: x, y and weight an array-like each, or several of them as a dict by name or a list;
- a dict or a Spark ``Row``: columns named like the model's inputs and outputs, or ``x``, ``y``, ``sample_weight``,
  or chosen by `feature_cols` and `label_cols`;
- a ready block: any of the above whose arrays have one more leading axis, rows.

This file runs in executors: NumPy only.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import numpy as np

from ..errors import DataError
from ..host.sparse import packed_rows, row_numbers
from .columns import Column, check_block, of_kind

BLOCK_BYTES = 4 << 20
MOST_ROWS = 8192
Block = dict[str, np.ndarray]


class RowReader:
    """Turns rows into blocks of the given columns.

    Args:
        columns: what the step takes; only these are read from a row (predicting reads the ``x/`` ones).
        feature_cols, label_cols: for dict-like rows, the keys that make up x and y.
        block_bytes: size of a block's arrays, at most; a block holds at least one row.
    """

    def __init__(
        self,
        columns: Sequence[Column],
        feature_cols: Sequence[str] | None = None,
        label_cols: Sequence[str] | None = None,
        block_bytes: int = BLOCK_BYTES,
    ):
        self.columns = tuple(columns)
        self.feature_cols = tuple(feature_cols) if feature_cols else None
        self.label_cols = tuple(label_cols) if label_cols else None
        row_bytes = sum(c.row_bytes for c in self.columns)
        self.rows_in_block = int(max(1, min(MOST_ROWS, block_bytes // max(row_bytes, 1))))

    def blocks(self, rows: Iterable[Any], where: str) -> Iterator[Block]:
        """Blocks of all rows, in order.

        Args:
            rows: of one partition.
            where: what errors call them, e.g. ``partition 3``.

        Raises:
            DataError: a row that does not fit, named by its ordinal.
        """
        rows = iter(rows)
        first = next(rows, None)
        if first is None:
            return
        split = self.splitter(first, f"row 0 of {where}")
        values = self._taken(split, first, 0, where)
        rows = itertools.chain((first,), rows)
        start = 0
        if self._is_block(values):
            yield from self._one_by_one(rows, split, start, where)
            return
        while chunk := list(itertools.islice(rows, self.rows_in_block)):
            block = self._stacked(chunk, split)
            if block is not None:
                yield self._checked(block, start, where)
                start += len(chunk)
            else:
                for block in self._one_by_one(chunk, split, start, where):
                    yield block
                    start += len(next(iter(block.values())))

    def _stacked(self, chunk: list, split: Callable) -> Block | None:
        """All rows of a chunk at once; None when they need a closer look."""
        try:
            values = list(zip(*map(split, chunk), strict=True))
            made = {c.name: stacked(c, v) for c, v in zip(self.columns, values, strict=True)}
        except Exception:  # whatever it is, the closer look names the row
            return None
        return made if all(a is not None for a in made.values()) else None  # type: ignore[return-value]

    def _taken(self, split: Callable, row: Any, ordinal: int, where: str) -> Sequence[Any]:
        try:
            return split(row)
        except DataError as error:
            raise DataError(f"{error} (row {ordinal} of {where})") from error
        except Exception as error:
            raise DataError(
                f"row {ordinal} of {where} is not like the first one: {type(error).__name__}: {error}. "
                "Every row needs the same structure."
            ) from error

    def _one_by_one(self, rows: Iterable[Any], split: Callable, start: int, where: str) -> Iterator[Block]:
        """Blocks of rows looked at one at a time: ready blocks, mixed kinds of values, and bad rows, which are named."""
        count = 0
        block = self._empty()
        for row in rows:
            values = self._taken(split, row, start + count, where)
            if self._is_block(values):
                if count:
                    yield self._checked(self._cut_off(block, count), start, where)
                    start, count = start + count, 0
                    block = self._empty()
                ready = self._ready(values, start, where)
                yield from self._cut(ready, start, where)
                start += len(next(iter(ready.values())))
                continue
            for column, value in zip(self.columns, values, strict=True):
                try:
                    block[column.name][count] = fitted(column, value)
                except DataError as error:
                    raise DataError(f"{error} (row {start + count} of {where})") from None
            count += 1
            if count == self.rows_in_block:
                yield self._checked(self._cut_off(block, count), start, where)
                start, count = start + count, 0
                block = self._empty()
        if count:
            yield self._checked(self._cut_off(block, count), start, where)

    def splitter(self, row: Any, where: str) -> Callable[[Any], list]:
        """The function that takes rows like `row` apart into one value for each column.

        Raises:
            DataError: the row's structure does not hold the columns.
        """
        columns = self.columns
        if hasattr(row, "asDict"):
            inner = self._from_dict(row.asDict(), where)
            return lambda r: inner(r.asDict())
        if isinstance(row, dict):
            return self._from_dict(row, where)
        kinds = {c.kind for c in columns}
        if kinds == {"x"}:
            return self._features_only(row)
        needs = 3 if "sample_weight" in kinds else 2
        if not isinstance(row, (tuple, list)) or len(row) not in (2, 3) or len(row) < needs:
            tuples = "(x, y, weight)" if needs == 3 else "(x, y) or (x, y, weight)"
            raise DataError(
                f"{where} is {described(row)}; expected {tuples}, a dict or a Row. Map the RDD to such rows first."
            )
        parts = [
            self._part(row[i], of_kind(columns, kind), where)
            for i, kind in enumerate(("x", "y", "sample_weight")[:needs])
        ]
        if len(columns) == needs and all(p is _itself for p in parts):
            return (lambda r: (r[0], r[1])) if needs == 2 else (lambda r: (r[0], r[1], r[2]))
        positions = [of_kind(columns, kind) for kind in ("x", "y", "sample_weight")[:needs]]

        def split(r):
            values: list = [None] * len(columns)
            for part, places, value in zip(parts, positions, r, strict=False):
                for place, v in zip(places, part(value), strict=True):
                    values[place] = v
            return values

        return split

    def _features_only(self, row: Any) -> Callable[[Any], list]:
        """For predicting: a row is x, or (x, y[, weight]) as in training."""
        columns = self.columns

        def fits(value):
            try:
                part = self._part(value, list(range(len(columns))), "")
                return all(matches(c, v) for c, v in zip(columns, part(value), strict=True))
            except (DataError, ValueError, TypeError, KeyError):
                return False

        if isinstance(row, (tuple, list)) and len(row) in (2, 3) and fits(row[0]):
            part = self._part(row[0], list(range(len(columns))), "")
            return lambda r: part(r[0])
        part = self._part(row, list(range(len(columns))), "the row")
        return part

    def _part(self, value: Any, places: Sequence[int], where: str) -> Callable[[Any], Sequence]:
        """How to take the columns at `places` out of one x, y or weight."""
        columns = [self.columns[i] for i in places]
        if isinstance(value, dict):
            keys = [c.key for c in columns]
            missing = [k for k in keys if k not in value]
            if missing:
                raise DataError(f"{where} has no {missing[0]!r}, only {sorted(value)}; expected the names {keys}.")
            return lambda v: [v[k] for k in keys]
        if len(columns) == 1:
            if isinstance(value, (tuple, list)) and len(value) == 1 and not matches(columns[0], value):
                return lambda v: [v[0]]
            return _itself
        if not isinstance(value, (tuple, list)) or len(value) != len(columns):
            raise DataError(
                f"{where} holds {described(value)} for the {len(columns)} arrays {[c.key for c in columns]}; "
                "expected a dict by name, or a list in this order."
            )
        return list

    def _from_dict(self, row: dict, where: str) -> Callable[[dict], list]:
        columns = self.columns
        takers: list[Callable] = []
        for kind, chosen in (("x", self.feature_cols), ("y", self.label_cols), ("sample_weight", None)):
            wanted = [columns[i] for i in of_kind(columns, kind)]
            if not wanted:
                continue
            keys = [c.key for c in wanted]
            if chosen is not None:
                _require(chosen, row, where)
                if len(chosen) == len(wanted):
                    by_name = set(chosen) == set(keys)
                    takers.append(_picker(keys if by_name else chosen))
                elif len(wanted) == 1:
                    takers.append(_joiner(chosen))
                else:
                    raise DataError(
                        f"{len(chosen)} columns {list(chosen)} were given for the {len(wanted)} arrays {keys}."
                    )
            elif all(k in row for k in keys):
                takers.append(_picker(keys))
            elif kind in row:
                inner = self._part(row[kind], of_kind(columns, kind), where)
                takers.append(lambda r, kind=kind, inner=inner: inner(r[kind]))
            elif kind == "y" and len(wanted) == 1 and "label" in row:
                takers.append(_picker(["label"]))
            elif kind == "x" and len(wanted) == 1 and "features" in row:
                takers.append(_picker(["features"]))
            else:
                raise DataError(
                    f"{where} has the keys {sorted(map(str, row))}; expected {keys} for the model's {_called(kind)}, "
                    f"or {kind!r}. Name them with {'feature_cols' if kind == 'x' else 'label_cols'}=[...]."
                )
        return lambda r: [v for take in takers for v in take(r)]

    def _is_block(self, values: Sequence[Any]) -> bool:
        """Whether the arrays have a leading axis of rows more than the columns say."""
        return all(
            isinstance(v, np.ndarray)
            and v.ndim == len(c.shape) + 1
            and v.shape[1:] == c.shape
            or isinstance(v, np.ndarray)
            and v.ndim == 1
            and c.shape == (1,)
            and len(values) > 1
            for c, v in zip(self.columns, values, strict=True)
        ) and not all(matches(c, v) for c, v in zip(self.columns, values, strict=True))

    def _ready(self, values: Sequence[np.ndarray], start: int, where: str) -> Block:
        sizes = {len(v) for v in values}
        if len(sizes) != 1:
            raise DataError(
                f"the arrays of a block have {sorted(sizes)} rows; expected equal numbers (row {start} of {where})"
            )
        made = {}
        for column, value in zip(self.columns, values, strict=True):
            whole = Column(
                column.name,
                value.shape if value.ndim > len(column.shape) else (len(value), *column.shape),
                column.dtype,
                None,
                column.owner,
            )
            made[column.name] = np.ascontiguousarray(fitted(whole, value.reshape(whole.shape)), dtype=column.dtype)
        return made

    def _cut(self, block: Block, start: int, where: str) -> Iterator[Block]:
        rows = len(next(iter(block.values())))
        for i in range(0, rows, self.rows_in_block):
            yield self._checked({k: v[i : i + self.rows_in_block] for k, v in block.items()}, start + i, where)

    def _checked(self, block: Block, start: int, where: str) -> Block:
        check_block(self.columns, block, start, where)
        return block

    def _empty(self) -> dict[str, Any]:
        rows = self.rows_in_block
        return {
            c.name: np.empty((rows, *c.shape), c.dtype) if c.columns is None else [None] * rows for c in self.columns
        }

    def _cut_off(self, block: dict[str, Any], count: int) -> Block:
        """The first rows of what `_empty` gave."""
        return {
            c.name: np.ascontiguousarray(block[c.name][:count])
            if c.columns is None
            else packed_rows(block[c.name][:count], c.columns)
            for c in self.columns
        }


_KINDS = {"f": "fiub", "i": "iub", "u": "iub", "b": "b"}


def fitted(column: Column, value: Any) -> Any:
    """`value` as an array-like that can be written into a row of `column`.

    Raises:
        DataError: another shape (ragged rows among them), text, None, or a fraction for an integer column.
    """
    if column.columns is not None:
        return sparse_row(column, value)
    if type(value) in (int, float, bool):
        shape: tuple = ()
        kind = "f" if type(value) is float else "i"
    else:
        if hasattr(value, "toArray"):
            value = value.toArray()
        if type(value) is not np.ndarray:
            try:
                value = np.asarray(value)
            except ValueError:
                raise DataError(f"{column} is a ragged list; expected the shape {column.shape}") from None
        shape, kind = value.shape, value.dtype.kind
    if kind not in "fiub":
        raise DataError(f"{column} is {described(value)}; expected numbers of shape {column.shape}")
    if shape != column.shape:
        if (shape == () and column.shape == (1,)) or (shape == (1,) and column.shape == ()):
            return value if shape == () else value[0]
        raise DataError(f"{column} has shape {shape}; expected {column.shape}")
    if kind not in _KINDS.get(np.dtype(column.dtype).kind, "fiub"):
        if np.any(np.asarray(value) != np.trunc(value)):
            raise DataError(f"{column} is {described(value)}; expected whole numbers ({column.dtype})")
    return value


def sparse_row(column: Column, value: Any) -> tuple[np.ndarray, np.ndarray]:
    """Columns and values of a row of a sparse column.

    Raises:
        DataError: no row of numbers, or one of another size.
    """
    try:
        size, ids, values = row_numbers(value)
    except (ValueError, TypeError, AttributeError) as error:
        raise DataError(f"{column} is {described(value)}; expected a sparse vector of size {column.columns}") from error
    if size != column.columns:
        raise DataError(f"{column} is a vector of size {size}; expected {column.columns}")
    return ids, values


def stacked(column: Column, values: Sequence[Any]) -> np.ndarray | None:
    """The values of many rows as one array, or None when they are not all of one plain kind that fits."""
    if column.columns is not None:
        return packed_rows([sparse_row(column, v) for v in values], column.columns)
    rows, dtype = len(values), np.dtype(column.dtype)
    kinds = {type(v) for v in values}
    if kinds == {np.ndarray} and column.shape:
        if {v.shape for v in values} != {column.shape}:
            return None
        if not all(d.kind in _KINDS[dtype.kind] for d in {v.dtype for v in values}):
            return None
        made = np.empty((rows, *column.shape), dtype)
        np.concatenate(values, out=made.reshape(-1, *column.shape[1:]), casting="unsafe")
        return made
    found = np.asarray(values)
    shape = (rows, *column.shape)
    if found.dtype.kind not in _KINDS[dtype.kind] or not (found.shape == shape or found.size == rows == np.prod(shape)):
        return None
    return np.ascontiguousarray(found.reshape(shape), dtype)


def matches(column: Column, value: Any) -> bool:
    """Whether `value` has the shape of one row of `column`."""
    if isinstance(value, (dict, str, bytes)) or value is None:
        return False
    if column.columns is not None:
        try:
            return row_numbers(value)[0] == column.columns
        except (ValueError, TypeError, AttributeError):
            return False
    if hasattr(value, "toArray"):
        value = value.toArray()
    try:
        shape = np.shape(value)
    except ValueError:
        return False
    return shape == column.shape or (shape == () and column.shape == (1,))


def described(value: Any) -> str:
    """What a value is, short enough for an error."""
    if isinstance(value, np.ndarray):
        return f"an array of shape {value.shape} and dtype {value.dtype}"
    text = repr(value)
    return f"a {type(value).__name__} {text if len(text) < 60 else text[:57] + '...'}"


def _itself(value: Any) -> tuple:
    return (value,)


def _picker(keys: Sequence[str]) -> Callable[[dict], list]:
    keys = tuple(keys)
    return lambda r: [r[k] for k in keys]


def _joiner(keys: Sequence[str]) -> Callable[[dict], list]:
    keys = tuple(keys)

    def join(r):
        parts = [r[k] for k in keys]
        return [np.concatenate([np.ravel(p.toArray() if hasattr(p, "toArray") else p) for p in parts])]

    return join


def _require(chosen: Sequence[str], row: dict, where: str) -> None:
    missing = [k for k in chosen if k not in row]
    if missing:
        raise DataError(f"{where} has no column {missing[0]!r}; it has {sorted(map(str, row))}.")


def _called(kind: str) -> str:
    return {"x": "inputs", "y": "outputs", "sample_weight": "sample weights"}[kind]

"""SparseRows: a matrix of which each row holds a few numbers, and the arrays in which its rows travel.

A batch of sparse rows is one array int32[rows, 2, k], "packed": columns, and the bits of float32 values. A row of fewer than
k numbers repeats its last column with the value 0, so that it reads no row of a table that it would not read anyway; an empty
row reads column 0. The largest row of a batch decides its k, and is rounded up to one of a few sizes (`width_for`), so that
the step compiles a few times, not for each k.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

PIECES_FROM = 1024  # rows; fewer are never cut into pieces
UNEVEN = 3  # times the mean: rows with more numbers make it worth cutting
LEAST_WIDTH = 16  # numbers of the fullest row, for that
LADDER = 4  # the narrowest batch has 1 / 2**LADDER of the width of the widest one


class SparseRows:
    """A matrix float32[rows, columns] by the numbers of its rows, as in SciPy's CSR; NumPy only.

    Attributes:
        starts: int64[rows + 1]; row i holds ids and values from ``starts[i]`` to ``starts[i + 1]``.
        ids: int32, columns; one that comes twice in a row counts as the sum. values: float32.
        shape: (rows, columns).
        piece: the numbers of a piece, if they travel in pieces.
    """

    ndim = 2
    dtype = np.dtype(np.float32)

    def __init__(self, starts: np.ndarray, ids: np.ndarray, values: np.ndarray, columns: int, piece: int | None = None):
        self.starts, self.ids, self.values, self.piece = starts, ids, values, piece
        self.shape = (len(starts) - 1, columns)

    @classmethod
    def of(cls, value: Any) -> SparseRows:
        """The rows of a SciPy matrix in any format, or the numbers of a dense one that are not 0.

        Raises:
            ValueError: it has no two axes, or holds no real numbers.
        """
        if isinstance(value, SparseRows):
            return value
        if len(value.shape) != 2 or np.dtype(value.dtype).kind not in "fiub":
            raise ValueError(
                f"sparse rows are a matrix of real numbers, got shape {tuple(value.shape)} and dtype {value.dtype}"
            )
        if hasattr(value, "tocsr"):
            csr = value.tocsr()
            starts, ids, values = csr.indptr, csr.indices, csr.data
        else:
            dense = np.asarray(value)
            row, ids = np.nonzero(dense)
            values = dense[row, ids]
            starts = np.searchsorted(row, np.arange(len(dense) + 1))
        return cls(starts.astype(np.int64), ids.astype(np.int32), values.astype(np.float32), int(value.shape[1]))

    @classmethod
    def of_ids(cls, ids: np.ndarray, mode: str, columns: int, idf: np.ndarray | None = None) -> SparseRows:
        """One sample a row of `ids`, (rows, k) or (rows,), as `encoding.encoded` gives it.

        Args:
            mode: ``one_hot`` or ``multi_hot`` (1 in each of its columns), ``count`` (how often it comes) or ``tf_idf`` (times
                `idf`, float32[columns]). An id outside of [0, columns) leaves no trace.
        """
        ids = ids.reshape(len(ids), -1)
        row, place = np.nonzero((ids >= 0) & (ids < columns))
        found = ids[row, place].astype(np.int64)
        if mode not in ("count", "tf_idf") and ids.shape[1] > 1:
            row, found = np.divmod(np.unique(row * columns + found), columns)
        starts = np.searchsorted(row, np.arange(len(ids) + 1))
        values = np.ones(len(found), np.float32) if idf is None else idf[found].astype(np.float32)
        return cls(starts.astype(np.int64), found.astype(np.int32), values, columns)

    __iter__ = None  # NumPy would take it for a sequence

    def __len__(self) -> int:
        return self.shape[0]

    def __repr__(self) -> str:
        return f"<SparseRows {self.shape}, {self.starts[-1] - self.starts[0]} numbers>"

    @property
    def counts(self) -> np.ndarray:
        """int64[rows]: the numbers of each row."""
        return np.diff(self.starts)

    @property
    def widest(self) -> int:
        """The numbers of the fullest row, at least 1."""
        return max(int(self.counts.max(initial=0)), 1)

    @property
    def nbytes(self) -> int:
        """Of the packed rows, about."""
        return 8 * int(self.starts[-1] - self.starts[0])

    def __getitem__(self, rows: slice | int) -> SparseRows:
        """Some rows in their order, which share the memory of this matrix."""
        first, last, _ = rows.indices(len(self)) if isinstance(rows, slice) else (rows, rows + 1, 1)
        return SparseRows(self.starts[first : max(first, last) + 1], self.ids, self.values, self.shape[1], self.piece)

    def packed(self, rows: np.ndarray | None = None, width: int | None = None, widest: int | None = None) -> np.ndarray:
        """int32[rows, 2, width]: the rows with these numbers, all by default.

        Args:
            width: at least the numbers of the fullest of them; None: `width_for` it, out of `widest` (of all rows).
        """
        first, last = (
            (self.starts[:-1], self.starts[1:]) if rows is None else (self.starts[rows], self.starts[rows + 1])
        )
        if width is None:
            need = max(int((last - first).max(initial=0)), 1)
            width = need if widest is None else width_for(need, widest)
        return self._filled(first, last, width)

    def piece_width(self) -> int | None:
        """The numbers of a piece if rows should be cut: they are many, and some are much fuller than most."""
        mean = (self.starts[-1] - self.starts[0]) / max(len(self), 1)
        if len(self) < PIECES_FROM or self.widest <= max(UNEVEN * mean, LEAST_WIDTH):
            return None
        return max(next_width(int(mean / 2)), 4)

    def in_pieces(self, piece: int) -> SparseRows:
        """The same rows, to travel in pieces."""
        return SparseRows(self.starts, self.ids, self.values, self.shape[1], piece)

    def cut(self, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """int32[rows], the pieces of each row, and int32[v, 2, piece], all pieces, some empty ones behind them."""
        assert self.piece is not None
        first, last = self.starts[rows], self.starts[rows + 1]
        counts = np.maximum(-(-(last - first) // self.piece), 1)
        quarter = max(len(rows) // 4, 1)
        room = -(-int(counts.sum()) // quarter) * quarter
        owner = np.repeat(np.arange(len(rows)), counts)
        at = np.arange(len(owner)) - np.repeat(np.cumsum(counts) - counts, counts)  # which piece of its row
        starts = first[owner] + at * self.piece
        ends = np.minimum(starts + self.piece, last[owner])
        spare = np.full(room - len(owner), starts[-1] if len(starts) else 0)
        made = self._filled(np.concatenate([starts, spare]), np.concatenate([ends, spare]), self.piece)
        made[len(owner) :, 0] = made[len(owner) - 1, 0, 0]
        return counts.astype(np.int32), made

    def _filled(self, first: np.ndarray, last: np.ndarray, width: int) -> np.ndarray:
        """Packed runs of numbers, each from its first to its last."""
        made = np.zeros((len(first), 2, width), np.int32)
        if not len(self.ids):
            return made
        places = first[:, None] + np.arange(width)
        real = places < last[:, None]
        np.minimum(places, np.maximum(last - 1, 0)[:, None], out=places)
        np.take(self.ids, places, out=made[:, 0], mode="clip")
        np.take(self.values, places, out=made[:, 1].view(np.float32), mode="clip")
        made[:, 1][~real] = 0
        made[last == first, 0] = 0
        return made

    def toarray(self) -> np.ndarray:
        """float32[rows, columns]."""
        made = np.zeros(self.shape, np.float32)
        row = np.repeat(np.arange(len(self)), self.counts)
        own = slice(int(self.starts[0]), int(self.starts[-1]))
        np.add.at(made, (row, self.ids[own]), self.values[own])
        return made


def encoded_rows(ids_of: Callable, mode: str, columns: int, idf: np.ndarray | None, values: Any) -> SparseRows:
    """`SparseRows.of_ids` of the ids that a function gives for values."""
    return SparseRows.of_ids(ids_of(values), mode, columns, idf)


def width_for(need: int, widest: int) -> int:
    """The packed width for rows of at most `need` numbers: `widest`, or a half, a quarter, ... of it.

    >>> [width_for(n, 100) for n in (1, 20, 50, 51)]
    [7, 25, 50, 100]
    """
    width = max(need, widest)
    for _ in range(LADDER):
        if -(-width // 2) < need:
            break
        width = -(-width // 2)
    return width


def next_width(need: int) -> int:
    """The packed width where nothing is known of other batches: the next power of two."""
    return 1 << max(need - 1, 0).bit_length()


# --- rows one by one, and packed rows -------------------------------------------------------------------------------------


def row_numbers(value: Any) -> tuple[int, np.ndarray, np.ndarray]:
    """The size, columns and values of one row: a `SparseVector` or `DenseVector` of Spark, a SciPy matrix of one row, one of
    `SparseRows`, or a dense vector.

    Raises:
        ValueError: none of these.
    """
    if hasattr(value, "tocsr"):
        value = value.tocsr()
        if len(value.shape) == 2 and value.shape[0] != 1:
            raise ValueError(f"a matrix of shape {value.shape}; expected one row")
        return int(value.shape[-1]), value.indices, value.data
    if isinstance(value, SparseRows):
        if len(value) != 1:
            raise ValueError(f"sparse rows of shape {value.shape}; expected one row")
        own = slice(int(value.starts[0]), int(value.starts[1]))
        return value.shape[1], value.ids[own], value.values[own]
    if hasattr(value, "indices") and hasattr(value, "values"):
        return int(value.size), value.indices, value.values
    dense = np.asarray(value.toArray() if hasattr(value, "toArray") else value)
    if dense.ndim != 1 or dense.dtype.kind not in "fiub":
        raise ValueError(f"an array of shape {dense.shape} and dtype {dense.dtype}; expected a vector of numbers")
    ids = np.flatnonzero(dense)
    return len(dense), ids, dense[ids]


def one_row(value: Any) -> SparseRows:
    """`row_numbers` as a matrix of one row."""
    columns, ids, values = row_numbers(value)
    starts = np.array([0, len(ids)], np.int64)
    return SparseRows(starts, np.asarray(ids, np.int32), np.asarray(values, np.float32), columns)


def packed_rows(rows: Sequence[tuple[np.ndarray, np.ndarray]], columns: int) -> np.ndarray:
    """int32[rows, 2, k] of the columns and values of each row."""
    starts = np.cumsum([0, *(len(ids) for ids, _ in rows)])
    ids = np.concatenate([ids for ids, _ in rows]) if rows else np.zeros(0, np.int32)
    values = np.concatenate([values for _, values in rows]) if rows else np.zeros(0, np.float32)
    return SparseRows(starts, ids.astype(np.int32), values.astype(np.float32), columns).packed()


def widened(packed: np.ndarray, width: int) -> np.ndarray:
    """int32[rows, 2, width]: packed rows with room for more numbers."""
    more = width - packed.shape[2]
    if more <= 0:
        return packed
    last = packed[:, :, -1:].copy()
    last[:, 1] = 0
    return np.concatenate([packed, np.repeat(last, more, axis=2)], axis=2)


def joined(parts: Sequence[np.ndarray]) -> np.ndarray:
    """Packed rows, or other arrays, one after another."""
    if parts[0].ndim == 3 and parts[0].shape[1] == 2 and parts[0].dtype == np.int32:
        width = max(p.shape[2] for p in parts)
        parts = [widened(p, width) for p in parts]
    return np.concatenate(parts)

"""What a data row must look like: one `Column` for each array that the compiled step takes."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np

from ..errors import DataError


@dataclasses.dataclass(frozen=True)
class Column:
    """One named array of a batch.

    Attributes:
        name: ``x/<input>``, ``y/<output>`` or ``sample_weight/<output>``.
        shape: of one row.
        dtype: NumPy name of the dtype that the step takes.
        classes: for class labels and for ids that are looked up, their number: values must lie in [0, classes).
        owner: what an error calls it, e.g. ``input 'image'``.
        limit: what an error says about `classes`: why, and what to do.
        columns: of a sparse input, the size of its rows, which are packed (`kerasoft.host.sparse`): `shape` is then (2, k)
            with any k, which may differ from block to block.
    """

    name: str
    shape: tuple[int, ...]
    dtype: str
    classes: int | None = None
    owner: str = ""
    limit: str = ""
    columns: int | None = None

    def __str__(self) -> str:
        return self.owner or self.name

    @property
    def row_bytes(self) -> int:
        return int(np.prod(self.shape, dtype=np.int64)) * np.dtype(self.dtype).itemsize

    @property
    def kind(self) -> str:
        """``x``, ``y`` or ``sample_weight``."""
        return self.name.partition("/")[0]

    @property
    def key(self) -> str:
        """The name without its kind."""
        return self.name.partition("/")[2]


def of_kind(columns: Sequence[Column], kind: str) -> list[int]:
    """Positions of the columns of a kind."""
    return [i for i, column in enumerate(columns) if column.kind == kind]


def check_block(columns: Sequence[Column], block: dict[str, np.ndarray], first_row: int, where: str) -> None:
    """Looks at the values of a block.

    Args:
        block: arrays by column name, leading axis rows.
        first_row: ordinal of the block's first row in `where`.
        where: what the rows belong to, e.g. ``partition 3``.

    Raises:
        DataError: NaN or infinite values, labels outside their classes, negative weights; names the row and the value.
    """
    for column in columns:
        array = block[column.name]
        if column.columns is not None:
            array = array[:, 1].view(np.float32)
        if array.dtype.kind == "f" and not np.isfinite(array).all():
            row = int(np.flatnonzero(~np.isfinite(array.reshape(len(array), -1)).all(axis=1))[0])
            bad = array[row][~np.isfinite(array[row])].ravel()[0]
            raise DataError(
                f"{column} holds {bad} in row {first_row + row} of {where}; expected finite numbers. "
                "Drop or fill such rows before training, e.g. rdd.filter(lambda row: np.isfinite(row[0]).all())."
            )
        if column.classes is not None and array.size:
            low, high = array.min(), array.max()
            if low < 0 or high >= column.classes:
                flat = array.reshape(len(array), -1)
                row = int(np.flatnonzero(((flat < 0) | (flat >= column.classes)).any(axis=1))[0])
                bad = flat[row][(flat[row] < 0) | (flat[row] >= column.classes)][0]
                raise DataError(
                    f"{column} is {bad} in row {first_row + row} of {where}; expected "
                    f"{column.limit or f'a number from 0 to {column.classes - 1}'}"
                )
        if column.kind == "sample_weight" and array.size and array.min() < 0:
            row = int(np.flatnonzero((array.reshape(len(array), -1) < 0).any(axis=1))[0])
            raise DataError(
                f"{column} is {array[row].min()} in row {first_row + row} of {where}; expected a weight of at least 0."
            )

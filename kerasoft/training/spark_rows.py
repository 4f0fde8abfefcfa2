"""Rows of RDDs and DataFrames as a model reads them: columns settled by the first row, records, persisted blocks."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from .. import tree
from ..data.blocks import BlockRDD, evened, first_row, kept, persisted, records_of_rdd, widest_rows
from ..data.columns import Column
from ..data.kinds import is_dataframe
from ..data.reader import RowReader
from ..errors import DataError
from ..host.sparse import SparseRows, one_row
from . import checks, label_checks
from .inputs import to_arrays


class Rows:
    """The rows of an RDD or DataFrame, and the columns that a model reads from them.

    Attributes:
        columns: settled by `settle` or `like`.
        lengths: numbers for the variable sizes of the inputs.
        symbols: by the name of each sparse array its variable size, the numbers of a row.
    """

    def __init__(self, model: Any, data: Any, feature_cols: Any, label_cols: Any, labels: bool = True):
        data, feature_cols = _on_host(model, data, feature_cols, labels)
        self.model, self.data = model, data
        self.feature_cols = [feature_cols] if isinstance(feature_cols, str) else feature_cols
        self.label_cols = [label_cols] if isinstance(label_cols, str) else label_cols
        self.labels = labels
        self.columns: tuple[Column, ...] = ()
        self.lengths: dict[str, int] = {}
        self.symbols: dict[str, str] = {}
        self._measured: Any = None
        self._blocks: BlockRDD | None = data if isinstance(data, BlockRDD) else None

    def settle(self, parts: tuple[str, ...]) -> Any:
        """Traces the model for rows like the first one; returns its `Program`."""
        x, y, weight = self._sample()
        arrays = to_arrays(self.model, x, y, weight)
        program = self.model._program(arrays.signature, *parts)
        limits: dict[str, tuple[int, str]] = label_checks.id_limits(program.traced)
        if y is not None and program.traced.targets is not None:
            found = label_checks.label_columns(program.traced)
            if not found and arrays.signature.y is None and program.traced.targets.losses:
                raise DataError("the model has a loss, but the rows hold no labels: give rows of (x, y)")
            fractions = {leaf.name for term, leaf, n, _ in found if n is None and _is_ours(term.loss)}
            if any(arrays.arrays[name].dtype.kind in "iu" for name in fractions):  # later rows may hold fractions
                y = tree.map_structure(lambda a: a.astype(np.float32) if a.dtype.kind in "iu" else a, y)
                arrays = to_arrays(self.model, x, y, weight)
                program = self.model._program(arrays.signature, *parts)
                found = label_checks.label_columns(program.traced)
            limits |= {
                leaf.name: (n, label_checks.class_limit(n))
                for term, leaf, n, _ in found
                if n is not None and getattr(term.loss, "ignore_class", None) is None
            }
            label_checks.check_labels(program.traced, _zeros(arrays.arrays))
        for leaf in arrays.signature.leaves:
            shape = _packed_shape(leaf, arrays.arrays[leaf.name])
            self.lengths |= {d: n for d, n in zip(leaf.shape, shape, strict=True) if isinstance(d, str)}
        self.symbols = {leaf.name: leaf.shape[1] for leaf in arrays.signature.leaves if leaf.columns is not None}
        self.columns = tuple(
            Column(
                leaf.name,
                _packed_shape(leaf, arrays.arrays[leaf.name]),
                leaf.dtype,
                limits.get(leaf.name, (None, ""))[0],
                _owner(leaf.name),
                limits.get(leaf.name, (None, ""))[1],
                leaf.columns,
            )
            for leaf in arrays.signature.leaves
        )
        return program

    def like(self, other: Rows) -> None:
        """Takes the columns of other rows."""
        self.columns, self.lengths, self.symbols = other.columns, other.lengths, other.symbols

    def records(self) -> Any:
        """A lazy RDD of the rows as checked blocks."""
        from ..data.dataframe import records_of_dataframe

        if self._blocks is not None:
            return self._blocks.rdd
        if is_dataframe(self.data):
            return records_of_dataframe(self.data, self.columns, self.feature_cols, self.label_cols)
        return records_of_rdd(self.data, RowReader(self.columns, self.feature_cols, self.label_cols))

    def widths(self) -> dict[str, int]:
        """By the name of each sparse array the numbers of its fullest row, by one job; keeps the records for `blocks`."""
        if not self.symbols or self._blocks is not None:
            return {}
        self._measured = kept(self.records())
        return widest_rows(self._measured, list(self.symbols))

    def forget(self) -> None:
        """Frees what `widths` kept."""
        if self._measured is not None:
            self._measured.unpersist()
            self._measured = None

    def blocks(self, shards: int | None, widths: dict[str, int]) -> BlockRDD:
        """The rows as persisted blocks, every row looked at; packed sparse rows have these `widths`."""
        if self._blocks is not None:
            return self._blocks
        return persisted(self.records() if self._measured is None else evened(self._measured, widths), shards)

    def _sample(self) -> tuple[Any, Any, Any]:
        """x, y and weight of one row as arrays with a batch axis of 1."""
        if not self.labels and (zeros := self._declared()) is not None:
            return zeros, None, None
        if self._blocks is not None:
            block = self._blocks.rdd.first()[2]
            return tuple(_of_kind(block, kind) for kind in ("x", "y", "sample_weight"))  # type: ignore[return-value]
        row = first_row(self.data)
        if hasattr(row, "asDict"):
            row = row.asDict()
        if isinstance(row, dict):
            return self._of_dict(row)
        if not self.labels:
            reader = RowReader([Column(f"x/{n}", (), "float32") for n in self._input_names()])
            is_pair = isinstance(row, tuple) and len(row) in (2, 3) and not _is_number(row[0])
            values = reader._part(row[0] if is_pair else row, list(range(len(reader.columns))), "the row")(
                row[0] if is_pair else row
            )
            return self._x(list(values)), None, None
        if not isinstance(row, (tuple, list)) or len(row) not in (2, 3):
            reader = RowReader([Column("x/x", (), "float32"), Column("y/y", (), "float32")])
            reader.splitter(row, "the first row")  # says what is wrong with it
        x, y = self._x(row[0]), row[1]
        weight = row[2] if len(row) == 3 else None
        if self._is_block(x):
            return tuple(_map(lambda a: a[:1], part) for part in (x, _arrays(y), _arrays(weight)))  # type: ignore[return-value]
        return _batched(x), _batched(y), _batched(weight)

    def _declared(self) -> Any | None:
        """Zeros in the shapes of the model's own inputs; None when it does not say them all."""
        wanted = checks.input_tensors(self.model)
        if not wanted or any(d is None for t in wanted for d in t.shape[1:]):
            return None
        names = checks.names_of_inputs(self.model, wanted)
        zeros = {n: np.zeros((1, *t.shape[1:]), t.dtype) for n, t in zip(names, wanted, strict=True)}
        return zeros if len(zeros) > 1 else next(iter(zeros.values()))

    def _input_names(self) -> list[str]:
        wanted = checks.input_tensors(self.model)
        return checks.names_of_inputs(self.model, wanted) if wanted else ["input"]

    def _x(self, value: Any) -> Any:
        """x in the model's structure, integers as floats where the model declares a float input (but for images)."""
        wanted = checks.input_tensors(self.model)
        names = self._input_names()
        kinds = {n: one_row if t.sparse else _as_array for n, t in zip(names, wanted, strict=False)}
        leaves: dict[str, Any]
        if isinstance(value, dict):
            leaves = {k: kinds.get(k, _as_array)(v) for k, v in value.items()}
        elif len(names) > 1:
            if not isinstance(value, (list, tuple)) or len(value) != len(names):
                raise DataError(
                    f"the first row holds {type(value).__name__} for the {len(names)} inputs {names}; expected a dict by "
                    "these names or a list in this order."
                )
            leaves = {n: kinds.get(n, _as_array)(v) for n, v in zip(names, value, strict=True)}
        else:
            inner = value[0] if isinstance(value, (list, tuple)) and len(value) == 1 and _ndim(value[0]) else value
            leaves = {names[0]: kinds.get(names[0], _as_array)(inner)}
        for name, tensor in zip(names, wanted, strict=False):
            array = leaves.get(name)
            if array is not None and array.dtype.kind in "iub" and array.dtype != np.uint8 and "float" in tensor.dtype:
                leaves[name] = array.astype(np.float32)
        return leaves if isinstance(value, dict) or len(names) > 1 else leaves[names[0]]

    def _is_block(self, x: Any) -> bool:
        wanted = checks.input_tensors(self.model)
        leaves = [x] if not isinstance(x, dict) else [x.get(n) for n in self._input_names()]
        return bool(wanted) and all(
            a is not None and not isinstance(a, SparseRows) and a.ndim == len(t.shape) and (len(t.shape) > 1)
            for a, t in zip(leaves, wanted, strict=False)
        )

    def _of_dict(self, row: dict[str, Any]) -> tuple[Any, Any, Any]:
        names = self._input_names()
        outputs = list(getattr(self.model, "output_names", None) or [])
        x = self._chosen(row, self.feature_cols, names, "x", "features", "feature_cols")
        x = self._x(
            x if isinstance(x, dict) and len(names) > 1 else next(iter(x.values())) if isinstance(x, dict) else x
        )
        if not self.labels:
            return _batched(x), None, None
        y = self._chosen(row, self.label_cols, outputs or ["y"], "y", "label", "label_cols")
        weight = row.get("sample_weight")
        if self._is_block(x):
            return tuple(_map(lambda a: a[:1], _arrays(part)) for part in (x, y, weight))  # type: ignore[return-value]
        return _batched(x), _batched(y), _batched(weight)

    @staticmethod
    def _chosen(row: dict, chosen: Any, names: list[str], kind: str, classic: str, word: str) -> Any:
        if chosen:
            missing = [c for c in chosen if c not in row]
            if missing:
                raise DataError(f"{word} names {missing[0]!r}, but the rows have {sorted(map(str, row))}.")
            if len(chosen) == len(names):
                keys = names if set(names) == set(chosen) else chosen
                found = {n: _plain(row[k]) for n, k in zip(names, keys, strict=True)}
                return found if len(names) > 1 else found[names[0]]
            return np.concatenate([np.ravel(_plain(row[c])) for c in chosen])
        if all(n in row for n in names):
            return {n: _plain(row[n]) for n in names} if len(names) > 1 else _plain(row[names[0]])
        for key in (kind, classic):
            if key in row:
                return row[key] if isinstance(row[key], dict) else _plain(row[key])
        raise DataError(
            f"the rows have the columns {sorted(map(str, row))}; expected {names} for the model's "
            f"{'inputs' if kind == 'x' else 'outputs'}, or {classic!r}. Name them with {word}=[...]."
        )


def common_widths(several: Sequence[Rows]) -> dict[str, int]:
    """By the name of each sparse array the numbers of its fullest row in all data sets; they are persisted for that."""
    found: dict[str, int] = {}
    for rows in several:
        for name, width in rows.widths().items():
            found[name] = max(width, found.get(name, 1))
    return found


def _of_kind(block: dict[str, np.ndarray], kind: str) -> Any:
    found = {n.partition("/")[2]: a[:1] for n, a in block.items() if n.startswith(f"{kind}/")}
    if not found:
        return None
    return found if len(found) > 1 else next(iter(found.values()))


def _plain(value: Any) -> Any:
    """Spark's ML vectors as arrays."""
    return value.toArray().astype(np.float32) if hasattr(value, "toArray") else value


def _as_array(value: Any) -> np.ndarray:
    """A row's part; SciPy's as a dense vector."""
    return value.toarray().reshape(-1) if hasattr(value, "tocsr") else np.asarray(_plain(value))


def _ndim(value: Any) -> int:
    return 1 if hasattr(value, "tocsr") else np.ndim(value)


def _zeros(arrays: dict[str, Any]) -> dict[str, np.ndarray]:
    return {n: np.zeros_like(a) for n, a in arrays.items() if not isinstance(a, SparseRows)}


def _packed_shape(leaf: Any, array: Any) -> tuple[int, ...]:
    """The shape of one row as it travels."""
    return (2, array.widest) if isinstance(array, SparseRows) else array.shape[1:]


def _arrays(part: Any) -> Any:
    return None if part is None else _map(np.asarray, part)


def _batched(part: Any) -> Any:
    """With a batch axis of 1; a list of arrays is a structure, a list of numbers one array."""
    if part is None:
        return None
    if isinstance(part, (list, tuple)) and not any(np.ndim(p) for p in part):
        part = np.asarray(part)
    return _map(lambda leaf: leaf if isinstance(leaf, SparseRows) else np.asarray(_plain(leaf))[None], part)


def _map(function: Any, part: Any) -> Any:
    if part is None:
        return None
    if isinstance(part, dict):
        return {k: _map(function, v) for k, v in part.items()}
    if isinstance(part, (list, tuple)):
        return [_map(function, v) for v in part]
    return function(part)


def _on_host(model: Any, data: Any, feature_cols: Any, labels: bool) -> tuple[Any, Any]:
    """The data with the model's raw columns (text, say) turned into what its compiled part takes, on the executors.

    Raises:
        DataError: an array whose rows differ in length.
    """
    part = checks.entry(model)
    if part is model or isinstance(data, BlockRDD):
        return data, feature_cols
    from ..data.host_rows import with_cuts_dataframe, with_cuts_rdd

    shapes = {name: tensor.shape[1:] for name, tensor in zip(part.input_names, part.inputs, strict=True)}
    for name, shape in shapes.items():
        if None in shape:
            raise DataError(
                f"layer '{name}' gives rows of shape {shape}, whose length depends on the rows beside them. Rows of an RDD or "
                "a DataFrame need one length: give the TextVectorization layer output_sequence_length=."
            )
    if is_dataframe(data):
        sparse = {name for name, tensor in zip(part.input_names, part.inputs, strict=True) if tensor.sparse}
        return with_cuts_dataframe(data, part.plan(), shapes, feature_cols, sparse)
    return with_cuts_rdd(data, part.plan(), feature_cols, labels), None


def _is_number(value: Any) -> bool:
    return np.ndim(value) == 0


def _is_ours(loss: Any) -> bool:
    return type(loss).__module__.startswith("kerasoft.")


def _owner(name: str) -> str:
    kind, _, key = name.partition("/")
    return {"x": f"input '{key}'", "y": f"label of output '{key}'"}.get(kind, f"sample weight of output '{key}'")

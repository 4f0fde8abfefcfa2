"""Checks: what is wrong with the data or the call, said before the first step. Each looks at whole arrays at once."""

from __future__ import annotations

import difflib
import warnings
from typing import Any

import numpy as np

from .. import config, naming, tree
from ..data.kinds import is_distributed
from ..errors import DataError, NotCompiledError, UnknownNameError
from ..host.sparse import SparseRows

MOST_DENSE = 1 << 30  # elements of a sparse matrix that is made dense for a dense input

# --- structure and shape of inputs ------------------------------------------------------------------------------------


def entry(model: Any) -> Any:
    """What is traced for a model: itself, or its compiled part if it begins with layers that run on the host."""
    from ..models import host_part

    return host_part.entry(model)


def input_tensors(model: Any) -> list:
    """The model's flattened symbolic inputs (behind the layers that run on the host, if it has such); empty for a
    subclassed model or one that is not built.
    """
    inputs = getattr(entry(model), "inputs", None)
    return [] if inputs is None else tree.flatten(inputs)


def names_of_inputs(model: Any, wanted: list) -> list[str]:
    """Names of the flattened inputs."""
    names = getattr(entry(model), "input_names", None)
    return list(names) if names is not None and len(names) == len(wanted) else [tensor.name for tensor in wanted]


def fit_inputs(model: Any, x: Any, wanted: list) -> Any:
    """x in the structure that the model takes, with the ranks of its inputs.

    Raises:
        DataError: an input is missing or has another shape; names it.
    """
    if not wanted:
        return x
    structure = getattr(entry(model), "_inputs_struct", None)
    structure = model.inputs if structure is None else structure
    names = names_of_inputs(model, wanted)
    if isinstance(x, dict):
        keys = sorted(structure) if isinstance(structure, dict) else names
        missing = [key for key in keys if key not in x]
        if missing:
            raise DataError(
                f"{_called(model)} takes the inputs {keys}, but x has no {missing[0]!r}; it holds {list(x)}."
            )
        leaves = [leaf for key in keys for leaf in tree.flatten(x[key])]
    else:
        leaves = tree.flatten(x)
    if len(leaves) != len(wanted):
        raise DataError(
            f"{_called(model)} takes {len(wanted)} input(s) {names}, but x holds {len(leaves)} array(s). "
            "Give a list in this order or a dict by these names."
        )
    fitted = [None if a is None else _of_kind(a, t, model) for a, t in zip(leaves, wanted, strict=True)]
    for array, tensor, name in zip(fitted, wanted, names, strict=True):
        if array is not None:
            shape = (None,) * len(tensor.shape) if getattr(entry(model), "_sizes_of_data", False) else tensor.shape
            _check_shape(model, array, shape, name)
        elif not getattr(tensor.history.operation, "optional", False):
            raise DataError(
                f"The input '{tensor.name}' is not optional, but None was passed. Please provide a valid tensor."
            )
    return (
        tree.pack_as(structure, fitted) if tree.is_nested(structure) and len(wanted) > 1 else _like(structure, fitted)
    )


def _of_kind(array: Any, tensor: Any, model: Any) -> Any:
    """An array as the input wants it: sparse rows or not, and with its rank."""
    if tensor.sparse:
        if not isinstance(array, SparseRows) and array.ndim == 2 and array.shape[1:] == tensor.shape[1:]:
            return SparseRows.of(array)
        return array
    if isinstance(array, SparseRows):
        if array.shape[0] * array.shape[1] > MOST_DENSE:
            raise DataError(
                f"input '{tensor.name}' of {_called(model)} is dense, and x is a sparse matrix of shape {array.shape}, too "
                f"large for a dense copy. Declare it so: Input(shape=({array.shape[1]},), sparse=True)."
            )
        array = array.toarray()
    return _with_rank(array, tensor.shape)


def _like(structure: Any, leaves: list) -> Any:
    return tree.pack_as(structure, leaves) if isinstance(structure, dict) else leaves[0]


def _with_rank(array: np.ndarray, shape: tuple) -> np.ndarray:
    """Keras's leniency: a last axis of 1 is added or dropped where the input has it or not."""
    if array.ndim == len(shape) - 1 and shape[-1] == 1:
        return array[..., None]
    if array.ndim == len(shape) + 1 and array.shape[-1] == 1:
        return array[..., 0]
    return array


def _check_shape(model: Any, array: np.ndarray, shape: tuple, name: str) -> None:
    fits = array.ndim == len(shape) and all(
        w is None or w == g for w, g in zip(shape[1:], array.shape[1:], strict=True)
    )
    if not fits:
        raise DataError(
            f"input '{name}' of {_called(model)} needs shape {shape}, got {('rows', *array.shape[1:])!r} "
            f"(an array of shape {array.shape}). ".replace("'rows'", "None")
            + _reshape_hint(array.shape, shape)
        )


def _reshape_hint(got: tuple, wanted: tuple) -> str:
    if all(isinstance(d, int) for d in wanted[1:]) and np.prod(got[1:], dtype=int) == np.prod(wanted[1:], dtype=int):
        return f"The rows have as many numbers as needed: x.reshape({('-1', *wanted[1:])!r}) would do.".replace("'", "")
    return "Give the model's Input this shape, or change the array."


def _called(model: Any) -> str:
    return f"{type(model).__name__} '{getattr(model, 'name', '')}'"


# --- rows -------------------------------------------------------------------------------------------------------------


def same_rows(x: Any, y: Any, weights: Any) -> int:
    """The number of rows of all arrays.

    Raises:
        DataError: none, or numbers that differ; lists the sizes.
    """
    parts = {"x": x, "y": y, "sample_weight": weights}
    sizes = {what: [len(a) for a in tree.flatten(part) if a is not None] for what, part in parts.items()}
    numbers = {n for part in sizes.values() for n in part}
    if len(numbers) > 1:
        listed = ", ".join(f"'{what}' sizes: {', '.join(map(str, part))}" for what, part in sizes.items() if part)
        raise DataError(
            f"Data cardinality is ambiguous. Make sure all arrays contain the same number of samples. {listed}"
        )
    if not numbers:
        raise DataError("there is no data: x holds no array")
    (rows,) = numbers
    if rows == 0:
        raise DataError("there is no data: the arrays have 0 rows")
    return rows


def ragged(value: Any, what: str) -> DataError:
    """The error for rows of different lengths; names the first that differs."""
    first = np.shape(_or_object(value[0]))
    for i, row in enumerate(value):
        shape = np.shape(_or_object(row))
        if shape != first:
            return DataError(
                f"{what} is ragged: row {i} has shape {shape}, row 0 has {first}. Rows need one shape: pad or cut them, "
                "e.g. with kerasoft.utils.pad_sequences."
            )
    return DataError(f"{what} is no array of numbers: its rows have parts of different lengths")


def _or_object(row: Any) -> np.ndarray:
    try:
        return np.asarray(row)
    except ValueError:
        return np.asarray(row, object)


def from_objects(array: np.ndarray, what: str) -> np.ndarray:
    """An array of objects (rows that are arrays, or numbers in disguise) as an array of numbers.

    Raises:
        DataError: ragged rows, or values that are no numbers.
    """
    rows = [np.asarray(row) for row in array] if array.ndim else []
    if rows and any(r.shape != rows[0].shape for r in rows):
        raise ragged(rows, what)
    try:
        stacked = np.stack(rows)
        return stacked if stacked.dtype != object else stacked.astype(np.float32)
    except (ValueError, TypeError) as error:
        bad = next((i for i, r in enumerate(rows) if r.dtype.kind not in "fiub"), 0)
        raise DataError(f"{what} holds {array[bad]!r} in row {bad}; expected numbers") from error


def check_finite(arrays: dict[str, np.ndarray]) -> None:
    """
    Raises:
        DataError: NaN or infinity in a float array; names the array and the row.
    """
    for name, array in arrays.items():
        if isinstance(array, SparseRows):
            _check_finite_sparse(name, array)
            continue
        if array.dtype.kind != "f":
            continue
        with np.errstate(over="ignore", invalid="ignore"):
            if np.isfinite(array.sum(dtype=np.float32)):
                continue
        for start in range(0, len(array), 4096):
            finite = np.isfinite(array[start : start + 4096].reshape(min(4096, len(array) - start), -1))
            if not finite.all():
                row = int(np.flatnonzero(~finite.all(axis=1))[0])
                values = array[start + row].ravel()
                kind, _, key = name.partition("/")
                what = {"x": "input", "y": "labels"}.get(kind, kind)
                raise DataError(
                    f"{what} '{key}' holds {values[~np.isfinite(values)][0]} in row {start + row}; expected finite "
                    "numbers. Drop or fill such rows before training."
                )


def _check_finite_sparse(name: str, rows: SparseRows) -> None:
    wrong = np.flatnonzero(~np.isfinite(rows.values))
    wrong = wrong[(wrong >= rows.starts[0]) & (wrong < rows.starts[-1])]
    if len(wrong):
        row = int(np.searchsorted(rows.starts, wrong[0], side="right")) - 1
        raise DataError(
            f"input '{name.partition('/')[2]}' holds {rows.values[wrong[0]]} in row {row}, column {rows.ids[wrong[0]]}; "
            "expected finite numbers. Drop or fill such rows before training."
        )


def check_weights(arrays: dict[str, np.ndarray]) -> None:
    """
    Raises:
        DataError: a sample weight below 0; names the row.
    """
    for name, array in arrays.items():
        if name.startswith("sample_weight/") and array.size and array.min() < 0:
            row = int(np.flatnonzero((array.reshape(len(array), -1) < 0).any(axis=1))[0])
            raise DataError(
                f"{name.replace('/', ' of ')!s} is {array[row].min()} in row {row}; expected a weight of at least 0"
            )


# --- the call ---------------------------------------------------------------------------------------------------------


def require_compiled(model: Any) -> None:
    """
    Raises:
        NotCompiledError: `compile` was not called.
    """
    if not getattr(model, "compiled", False):
        raise NotCompiledError("You must call `compile()` before using the model.")


def refuse_own_prediction(model: Any) -> None:
    """
    Raises:
        NotImplementedError: the model has a `predict_step` of its own, which runs in one process only.
    """
    from .steps import Steps

    cls = type(model)
    if cls.predict_step is not Steps.predict_step:
        raise NotImplementedError(
            f"{cls.__name__} overrides `predict_step`, which runs in one process only: predict on arrays, or put the "
            "formula into `call`."
        )


def check_names(given: Any, module: Any, kind: str, special: tuple[str, ...] = ()) -> None:
    """
    Args:
        given: of `compile`, any structure; only strings are looked at.
        module: whose `get` must know them.
        kind: what they name, for the error.
        special: names with a meaning of their own.

    Raises:
        UnknownNameError: a string names nothing; gives close names.
    """
    for leaf in tree.flatten(given):
        if not isinstance(leaf, str) or leaf.lower() in special:
            continue
        try:
            with naming.unchanged():
                module.get(leaf)
        except ValueError as error:
            known = {
                *module.__all__,
                *(n.lower() for n in module.__all__),
                *getattr(module, "SHORT_NAMES", ()),
                *special,
            }
            close = difflib.get_close_matches(leaf, sorted(known), 3)
            place = "losses" if kind == "loss" else f"{kind}s"
            hint = f"Did you mean {' or '.join(map(repr, close))}?" if close else f"See kerasoft.{place}."
            raise UnknownNameError(f"Could not interpret {kind} identifier: {leaf!r}. {hint}") from error


def check_strategy(strategy: Any, x: Any, doing: str) -> None:
    """
    Args:
        doing: "train" or "score"; only a strategy that cuts models can do the latter.

    Raises:
        ValueError: a strategy with data that is in this process, or one that only trains.
    """
    if strategy is None:
        return
    if not is_distributed(x):
        raise ValueError(
            f"strategy={strategy!r} needs an RDD or a Spark DataFrame as x, got {type(x).__name__}; leave it out to "
            f"{doing} in this process."
        )
    if doing == "score" and not hasattr(strategy, "scoring"):
        raise ValueError(
            f"strategy={strategy!r} trains whole models only; leave it out (each executor then holds the model), or give a "
            "Parallel."
        )


def refuse_for_spark(**given: Any) -> None:
    """
    Raises:
        ValueError: an argument that says nothing for an RDD or a DataFrame.
    """
    reasons = {
        "validation_split": "split the data yourself: train, validation = data.randomSplit([0.8, 0.2], seed)",
        "y": "the rows of x hold the labels, as (x, y)",
        "class_weight": "add the weight to the rows, as (x, y, weight)",
    }
    for name, value in given.items():
        if value is not None and (name != "validation_split" or value):
            raise ValueError(f"`{name}` cannot be given with an RDD or a DataFrame: {reasons[name]}.")


def refuse_in_cluster(callbacks: list) -> None:
    """
    Raises:
        ValueError: a callback that works in one process only.
    """
    for callback in callbacks:
        reason = getattr(callback, "one_process", None)
        if reason:
            raise ValueError(f"{type(callback).__name__} cannot be used in a distributed fit: {reason}.")


def check_weights_of_classes(class_weight: Any, sample_weight: Any) -> None:
    """
    Raises:
        ValueError: both are given.
    """
    if class_weight is not None and sample_weight is not None:
        raise ValueError(
            "Arguments `sample_weight` and `class_weight` cannot be specified at the same time. "
            f"Received: sample_weight={np.shape(sample_weight)}, class_weight={class_weight}"
        )


def refuse_with_batches(**given: Any) -> None:
    """
    Raises:
        ValueError: labels or weights beside a generator, whose batches hold them.
    """
    words = {"y": "the targets", "sample_weight": "the sample weights"}
    for name, value in given.items():
        if value is not None:
            raise ValueError(
                f"When providing `x` as a generator, `{name}` should not be passed. Instead, {words[name]} should be "
                "included as part of the generator."
            )


def check_validation_freq(validation_freq: Any) -> None:
    """
    Raises:
        ValueError: no number of at least 1 and no list of epochs.
    """
    is_count = isinstance(validation_freq, int) and not isinstance(validation_freq, bool) and validation_freq >= 1
    if not is_count and not isinstance(validation_freq, (list, tuple, set)):
        raise ValueError(
            f"Expected `validation_freq` to be a list or int. Received: validation_freq={validation_freq!r}"
        )


def check_epochs(epochs: Any, initial_epoch: Any) -> None:
    """
    Raises:
        ValueError: no whole number of at least 0.
    """
    for name, value in (("epochs", epochs), ("initial_epoch", initial_epoch)):
        if isinstance(value, bool) or not hasattr(value, "__index__") or value < 0:
            raise ValueError(f"{name} must be a whole number of at least 0. Received: {name}={value}")


def limited_epochs(epochs: int) -> int:
    """`epochs`, or fewer with a warning: `kerasoft.config.set_max_epochs`."""
    most = config.max_epochs()
    if most and most < epochs:
        warnings.warn(f"Limiting epochs to {most}", stacklevel=3)
        return most
    return epochs


def limited_steps(steps: int | None) -> int | None:
    """Steps of an epoch, or fewer with a warning: `kerasoft.config.set_max_steps_per_epoch`."""
    most = config.max_steps_per_epoch()
    if most and (not steps or most < steps):
        warnings.warn(f"Limiting steps_per_epoch to {most}", stacklevel=3)
        return most
    return steps


def batch_size_of(batch_size: Any) -> int:
    """`batch_size`, 32 for None.

    Raises:
        ValueError: no whole number of at least 1.
    """
    if batch_size is None:
        return 32
    if isinstance(batch_size, bool) or int(batch_size) != batch_size or batch_size < 1:
        raise ValueError(f"batch_size must be a whole number of at least 1. Received: batch_size={batch_size}")
    return int(batch_size)


def check_no_kept_states(model: Any) -> None:
    """Refuses recurrent layers that keep states between batches.

    Raises:
        ValueError: names the layer: which row follows which is not known when rows are spread over workers.
    """
    for layer in model._flatten_layers():
        if getattr(layer, "stateful", False) is True:
            raise ValueError(
                f"Layer '{layer.name}' is stateful, which a distributed fit cannot do: rows are spread over workers, so "
                "row i of the next batch does not follow row i of this one. Pass `initial_state` and use `return_state`, "
                "or fit on arrays."
            )

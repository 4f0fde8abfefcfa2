"""Checks of labels against the outputs that they are compared with, and of ids against the tables they are looked up in."""

from __future__ import annotations

from typing import Any

import numpy as np

from ..errors import DataError

OTHER_LABELS = ("Circle", "circle", "CTC", "ctc")  # losses whose labels have a shape of their own

# --- labels against outputs -------------------------------------------------------------------------------------------


def label_columns(traced: Any) -> list[tuple[Any, Any, int | None, tuple]]:
    """For each loss with labels: the term, its label leaf, its number of classes (or None), the output's shape."""
    columns = []
    for term in traced.targets.losses:
        leaf, shape = traced.labels[term.index], traced.output_shapes[term.index]
        if leaf is not None and term.part is None:
            columns.append((term, leaf, classes_of(term.loss, shape), shape))
    return columns


def classes_of(loss: Any, shape: tuple) -> int | None:
    """The number of classes if `loss` takes class numbers, else None."""
    function = getattr(loss, "fn", None)
    is_sparse = type(loss).__name__ == "SparseCategoricalCrossentropy" or (
        getattr(function, "__name__", "") == "sparse_categorical_crossentropy"
    )
    return shape[-1] if is_sparse and shape else None


def check_labels(traced: Any, arrays: dict[str, np.ndarray]) -> None:
    """Labels against the outputs of the losses that this library knows.

    Raises:
        DataError: a shape that the loss cannot take, or class numbers outside the output's classes; names row and value.
    """
    for term, leaf, classes, shape in label_columns(traced):
        array = arrays.get(leaf.name)
        if array is None or not _is_ours(term.loss):
            continue
        output = traced.output_names[term.index]
        check_label_shape(term.loss, array.shape, shape, output)
        if classes is not None:
            _check_classes(array, classes, getattr(term.loss, "ignore_class", None), output)


def _is_ours(loss: Any) -> bool:
    """Whether it is a loss of this library that compares labels and outputs element by element or class by class."""
    function = getattr(loss, "fn", None)
    own = type(loss).__module__.startswith("kerasoft.") and (
        function is None or str(getattr(function, "__module__", "")).startswith("kerasoft.")
    )
    return own and type(loss).__name__ not in OTHER_LABELS and getattr(function, "__name__", "") not in OTHER_LABELS


def check_label_shape(loss: Any, labels: tuple, shape: tuple, output: str) -> None:
    """Shapes of labels and output, both with the batch axis and None for unknown sizes, for a loss of this library.

    Raises:
        DataError: the loss cannot take them; names the output and both shapes.
    """
    if not _is_ours(loss) or not shape:
        return
    classes = classes_of(loss, shape)
    got = tuple(labels[1:])
    wanted = shape[1:-1] if classes is not None else shape[1:]
    if got and got[-1] == 1 and len(got) == len(wanted) + 1:
        got = got[:-1]
    elif wanted and wanted[-1] == 1 and len(wanted) == len(got) + 1:
        wanted = wanted[:-1]
    if len(got) != len(wanted) or any(
        w is not None and g is not None and w != g for w, g in zip(wanted, got, strict=True)
    ):
        name = getattr(loss, "name", type(loss).__name__)
        if classes is not None:
            need = f"class numbers of shape {(None, *shape[1:-1])}"
            hint = "For one-hot labels use categorical_crossentropy." if labels[-1] == classes else ""
        else:
            need = f"labels of shape {(None, *shape[1:])}"
            one_hot = "categorical_crossentropy" in name and len(got) == len(wanted) - 1
            hint = "For class numbers use sparse_categorical_crossentropy." if one_hot else ""
        hint = hint or "Change the labels or the output layer."
        raise DataError(
            f"loss '{name}' of output '{output}', whose shape is {shape}, needs {need}, got {(None, *labels[1:])}. {hint}"
        )


def _check_classes(array: np.ndarray, classes: int, ignored: int | None, output: str) -> None:
    flat = array.reshape(len(array), -1)
    wrong = (flat < 0) | (flat >= classes)
    if array.dtype.kind == "f":
        wrong |= flat != np.floor(flat)
    if ignored is not None:
        wrong &= flat != ignored
    if wrong.any():
        row = int(np.flatnonzero(wrong.any(axis=1))[0])
        value = flat[row][wrong[row]][0]
        raise DataError(f"label of output '{output}' is {value} in row {row}; expected {class_limit(classes)}")


def class_limit(classes: int) -> str:
    """What is expected of class labels, and why."""
    return (
        f"a class from 0 to {classes - 1}, because the output has {classes} units. "
        "Labels count from 0; give the output layer as many units as there are classes."
    )


# --- ids against tables -----------------------------------------------------------------------------------------------


def id_limits(traced: Any) -> dict[str, tuple[int, str]]:
    """For each input whose values an Embedding looks up: the table's number of rows, and what is expected and why."""
    from ..compiler.ir import topological

    found: dict[str, tuple[int, str]] = {}
    graph = next(g for g in map(traced.source.before, ("predict", "test", "train")) if g is not None)
    for node in topological(graph.outputs):
        if node.op.name != "embedding_lookup":
            continue
        table, ids = node.inputs
        while ids.op.name == "cast":
            ids = ids.inputs[0]
        name = ids.attrs.get("name", "") if ids.op.name == "input" else ""
        count = table.shape[0]
        if name.startswith("x/") and isinstance(count, int) and count < found.get(name, (count + 1,))[0]:
            layer = str(node.source).rpartition("/")[2]
            text = (
                f"an id from 0 to {count - 1}, because Embedding '{layer}' has input_dim={count}. Give it a larger "
                "input_dim, or map unknown ids to one of its own before."
            )
            found[name] = (count, text)
    return found


def check_ids(traced: Any, arrays: dict[str, np.ndarray]) -> None:
    """
    Raises:
        DataError: an id outside the table that it is looked up in; names the input, the row and the layer.
    """
    for name, (count, text) in id_limits(traced).items():
        array = arrays.get(name)
        if array is None or not array.size or (array.min() >= 0 and array.max() < count):
            continue
        flat = array.reshape(len(array), -1)
        wrong = (flat < 0) | (flat >= count)
        row = int(np.flatnonzero(wrong.any(axis=1))[0])
        value = flat[row][wrong[row]][0]
        raise DataError(f"input '{name.partition('/')[2]}' holds {value} in row {row}; expected {text}")

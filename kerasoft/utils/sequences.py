"""Sequences of several lengths as one array."""

from __future__ import annotations

from typing import Any

import numpy as np


def pad_sequences(
    sequences: Any,
    maxlen: int | None = None,
    dtype: Any = "int32",
    padding: str = "pre",
    truncating: str = "pre",
    value: Any = 0.0,
) -> np.ndarray:
    """One array of all sequences, filled up or cut to one length.

    Shapes: list of (steps, ...) -> (sequences, maxlen, ...).

    Args:
        sequences: lists of numbers, strings or equally shaped items.
        maxlen: steps of the result; the longest sequence's by default.
        dtype: of the result; `object` for strings of several lengths.
        padding, truncating: "pre" or "post": where to fill and where to cut.
        value: what to fill with.

    Raises:
        ValueError: not a list of sequences, items of several shapes, an unknown `truncating` or `padding`.

    >>> pad_sequences([[1], [2, 3], [4, 5, 6]], maxlen=2).tolist()
    [[0, 1], [2, 3], [5, 6]]
    """
    if not hasattr(sequences, "__len__"):
        raise ValueError("`sequences` must be iterable.")
    for x in sequences:
        if not hasattr(x, "__len__"):
            raise ValueError(f"`sequences` must be a list of iterables. Found non-iterable: {x!s}")
    if maxlen is None:
        maxlen = int(np.max([len(x) for x in sequences]))
    holds_strings = np.issubdtype(dtype, np.str_) or np.issubdtype(dtype, np.bytes_)
    if isinstance(value, str) and dtype is not object and not holds_strings:
        raise ValueError(
            f"`dtype` {dtype} is not compatible with `value`'s type: {type(value)}\n"
            "You should set `dtype=object` for variable length strings."
        )
    first = next((x for x in sequences if len(x)), None)
    item_shape = () if first is None else np.asarray(first).shape[1:]
    result = np.full((len(sequences), maxlen, *item_shape), value, dtype=dtype)
    for row, sequence in enumerate(sequences):
        if not len(sequence):
            continue
        if truncating not in ("pre", "post"):
            raise ValueError(f'Truncating type "{truncating}" not understood')
        if padding not in ("pre", "post"):
            raise ValueError(f'Padding type "{padding}" not understood')
        kept = np.asarray(sequence[-maxlen:] if truncating == "pre" else sequence[:maxlen], dtype=dtype)
        if kept.shape[1:] != item_shape:
            raise ValueError(
                f"Shape of sample {kept.shape[1:]} of sequence at position {row} is different from expected shape "
                f"{item_shape}"
            )
        if padding == "post":
            result[row, : len(kept)] = kept
        else:
            result[row, -len(kept) :] = kept
    return result

"""A data set in two parts."""

from __future__ import annotations

import random
from typing import Any

import numpy as np

from .batches import Batches, slices, stack
from .py_dataset import PyDataset


def split_dataset(
    dataset: Any,
    left_size: Any = None,
    right_size: Any = None,
    shuffle: bool = False,
    seed: int | None = None,
    preferred_backend: str | None = None,
) -> tuple[Batches, Batches]:
    """Two data sets of samples: the first rows and the last rows of `dataset`.

    Args:
        dataset: an array, a list or tuple of arrays of equal lengths, or a data set of batches, which stays batched.
        left_size, right_size: a number of samples, or a fraction in (0, 1); the rest when only one is given.
        shuffle: whether to shuffle first, with `seed`.
        preferred_backend: accepted, changes nothing.

    Raises:
        TypeError: another data set, or sizes that are not numbers.
        ValueError: neither size is given, or they do not fit.

    >>> left, right = split_dataset(np.arange(10.0), left_size=0.8)
    >>> len(left), [float(x) for x in right]
    (8, [8.0, 9.0])
    """
    if left_size is None and right_size is None:
        raise ValueError(
            "At least one of the `left_size` or `right_size` must be specified. Received: left_size=None and "
            "right_size=None"
        )
    samples, batch_size = _samples(dataset)
    if shuffle:
        random.seed(random.randint(0, int(1e6)) if seed is None else seed)
        random.shuffle(samples)
    left, right = _sizes(left_size, right_size, len(samples))
    parts = [slices(stack(part)) for part in (samples[:left], samples[len(samples) - right :])]
    return tuple(part if batch_size is None else part.batch(batch_size) for part in parts)  # type: ignore[return-value]


def _samples(dataset: Any) -> tuple[list, int | None]:
    if isinstance(dataset, np.ndarray):
        return list(dataset), None
    if isinstance(dataset, (list, tuple)):
        kind = type(dataset).__name__
        if not dataset:
            raise ValueError(f"Received an empty list dataset. Please provide a non-empty {kind} of arrays.")
        for i, x in enumerate(dataset):
            if not isinstance(x, np.ndarray):
                raise ValueError(f"Expected a {kind} of `numpy.ndarray` objects,Received: {type(x)} at index {i}.")
            if len(x) != len(dataset[0]):
                raise ValueError(
                    f"Received a {kind} of NumPy arrays with different lengths. Mismatch found at index {i}, Expected "
                    f"shape={dataset[0].shape} Received shape={x.shape}. Please provide a {kind} of NumPy arrays of the "
                    "same length."
                )
        return list(zip(*dataset, strict=True)), None
    if isinstance(dataset, PyDataset):
        batches = dataset if isinstance(dataset, Batches) else Batches(len(dataset), dataset.__getitem__)  # type: ignore[arg-type]
        first = batches[0]
        first = first[0] if isinstance(first, tuple) else first
        if np.ndim(first) == 0:
            return list(batches), None
        rows = batches.unbatch()
        return [rows[i] for i in range(len(rows))], len(first)
    raise TypeError(f"Unsupported dataset type: {type(dataset)}")


def _sizes(left: Any, right: Any, total: int) -> tuple[int, int]:
    for name, size in (("left_size", left), ("right_size", right)):
        if size is not None and type(size) not in (int, float):
            raise TypeError(
                f"Invalid `{name}` Type. Expected: int or float or None, Received: type({name})={type(size)}."
            )
    if left == 0 and right == 0:
        raise ValueError(
            "Both `left_size` and `right_size` are zero. At least one of the split sizes must be non-zero."
        )
    for name, size in (("left_size", left), ("right_size", right)):
        limit = total if type(size) is int else 1
        if size is not None and not 0 < size < limit:
            raise ValueError(
                f"`{name}` should be either a positive integer smaller than {total}, or a float within the range `[0, 1]`. "
                f"Received: {name}={size}"
            )
    if type(left) is type(right) is float and left + right > 1:
        raise ValueError(
            "The sum of `left_size` and `right_size` is greater than 1. It must be less than or equal to 1."
        )
    counts = [round(size * total) if type(size) is float else size for size in (left, right)]
    left_count = total - counts[1] if counts[0] is None else counts[0]
    right_count = total - counts[0] if counts[1] is None else counts[1]
    if left_count + right_count > total:
        raise ValueError(
            f"The sum of `left_size` and `right_size` should be smaller than the {total}. Received: left_size + "
            f"right_size = {left_count + right_count} and total_length = {total}"
        )
    for name, count in (("left", left_count), ("right", right_count)):
        if count == 0:
            raise ValueError(
                f"With `dataset` of length={total}, `left_size`={left} and `right_size`={right}, resulting {name} side "
                "of the split will be empty. Adjust any of the aforementioned parameters"
            )
    return left_count, right_count

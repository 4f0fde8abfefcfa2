"""Sliding windows over a series."""

from __future__ import annotations

from typing import Any

import numpy as np

from .batches import Batches


def timeseries_dataset_from_array(
    data: Any,
    targets: Any,
    sequence_length: int,
    sequence_stride: int = 1,
    sampling_rate: int = 1,
    batch_size: int | None = 128,
    shuffle: bool = False,
    seed: int | None = None,
    start_index: int | None = None,
    end_index: int | None = None,
    format: str = "tf",
) -> Batches:
    """Batches of windows of a series, each with the target at its first step.

    Shapes: data (steps, ...) -> (batch, sequence_length, ...); targets (steps, ...) -> (batch, ...).

    Args:
        data: array, time first.
        targets: array whose row i belongs to the window that begins at step i; None gives windows alone.
        sequence_length: steps of a window.
        sequence_stride: steps between the beginnings of two windows.
        sampling_rate: steps between two steps of a window.
        batch_size: windows a batch; None gives single windows.
        shuffle, seed: whether windows come in a random order.
        start_index, end_index: the part of the series to use, without `end_index` itself.
        format: accepted, "tf" or "grain"; the batches are NumPy arrays in both cases.

    Raises:
        ValueError: an index, rate or stride outside of the series.

    >>> windows = timeseries_dataset_from_array(np.arange(6), None, sequence_length=3, sequence_stride=2)
    >>> [x.tolist() for x in windows]
    [[[0, 1, 2], [2, 3, 4]]]
    """
    steps = len(data)
    _check_range(start_index, end_index, steps)
    for name, value in (("sampling_rate", sampling_rate), ("sequence_stride", sequence_stride)):
        if value <= 0:
            raise ValueError(f"`{name}` must be higher than 0. Received: {name}={value}")
        if value >= steps:
            raise ValueError(
                f"`{name}` must be lower than the length of the data. Received: {name}={value}, for data of length {steps}"
            )
    if format not in ("tf", "grain"):
        raise ValueError(f'`format` should be either "tf" or "grain". Received: format={format}')
    start, end = start_index or 0, steps if end_index is None else end_index
    windows = end - start - (sequence_length - 1) * sampling_rate
    if targets is not None:
        windows = min(windows, len(targets))
    begins = np.arange(0, windows, sequence_stride)
    if shuffle:
        seed = np.random.randint(1_000_000) if seed is None else seed
        np.random.RandomState(seed).shuffle(begins)
    series = np.asarray(data)[start:end]
    wanted = None if targets is None else np.asarray(targets)[start:end]
    offsets = np.arange(0, sequence_length * sampling_rate, sampling_rate)

    def window(index: int) -> Any:
        begin = begins[index]
        x = series[begin + offsets]
        return x if wanted is None else (x, wanted[begin])

    dataset = Batches(len(begins), window)
    dataset = dataset.shuffle(seed=seed) if shuffle else dataset
    return dataset if batch_size is None else dataset.batch(batch_size)


def _check_range(start: int | None, end: int | None, steps: int) -> None:
    if start:
        if start < 0:
            raise ValueError(f"`start_index` must be 0 or greater. Received: start_index={start}")
        if start >= steps:
            raise ValueError(
                "`start_index` must be lower than the length of the data. Received: "
                f"start_index={start}, for data of length {steps}"
            )
    if end:
        if start and end <= start:
            raise ValueError(
                f"`end_index` must be higher than `start_index`. Received: start_index={start}, and end_index={end} "
            )
        if end >= steps:
            raise ValueError(
                "`end_index` must be lower than the length of the data. Received: "
                f"end_index={end}, for data of length {steps}"
            )
        if end <= 0:
            raise ValueError(f"`end_index` must be higher than 0. Received: end_index={end}")

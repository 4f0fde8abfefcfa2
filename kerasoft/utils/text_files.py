"""Batches of the texts in a folder."""

from __future__ import annotations

from typing import Any

import numpy as np

from .directories import dataset_of_files


def text_dataset_from_directory(
    directory: Any,
    labels: Any = "inferred",
    label_mode: str | None = "int",
    class_names: Any = None,
    batch_size: int | None = 32,
    max_length: int | None = None,
    shuffle: bool = True,
    seed: int | None = None,
    validation_split: float | None = None,
    subset: str | None = None,
    follow_links: bool = False,
    format: str = "tf",
    verbose: bool = True,
) -> Any:
    """Batches of the contents of `.txt` files, and their classes, from folders named like the classes.

    Shapes: texts (batch,), Python strings in an array of objects; labels as in `image_dataset_from_directory`.

    Args:
        max_length: characters kept of each text.
        format: accepted, "tf" or "grain".
        the others: as in `image_dataset_from_directory`.
    """
    if format not in ("tf", "grain"):
        raise ValueError(f'`format` should be either "tf" or "grain". Received: format={format}')

    def read(path: str) -> Any:
        with open(path, encoding="utf-8", newline="") as file:
            return np.asarray(file.read(max_length if max_length is not None else -1), object)

    return dataset_of_files(
        directory,
        read,
        "text",
        (".txt",),
        labels=labels,
        label_mode=label_mode,
        class_names=class_names,
        batch_size=batch_size,
        shuffle=shuffle,
        seed=seed,
        validation_split=validation_split,
        subset=subset,
        follow_links=follow_links,
        verbose=verbose,
    )

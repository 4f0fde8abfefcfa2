"""Labelled files in folders: one folder a class."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from .batches import Batches
from .progress import print_msg


def dataset_of_files(
    directory: Any,
    read: Callable[[str], Any],
    what: str,
    formats: tuple[str, ...],
    *,
    labels: Any,
    label_mode: str | None,
    class_names: Any,
    batch_size: int | None,
    shuffle: bool,
    seed: int | None,
    validation_split: float | None,
    subset: str | None,
    follow_links: bool,
    verbose: bool,
    collate: Callable | None = None,
) -> Any:
    """What `image_dataset_from_directory` and its sisters share.

    Args:
        directory: its folders are the classes when `labels` is "inferred".
        read: the sample in a file.
        what: is read, for messages: "image", "text", "audio".
        formats: endings of file names.
        collate: a batch from samples.

    Returns:
        A data set with `class_names` and `file_paths`; for `subset="both"` a list of two.
    """
    directory = os.fspath(directory)
    check_labels(labels, label_mode, class_names, what)
    if labels is None or label_mode is None:
        labels = label_mode = None
    check_validation_split(validation_split, subset, shuffle, seed)
    if seed is None:
        seed = int(np.random.randint(1_000_000))
    paths, labels, class_names = index_directory(
        directory, labels, formats, class_names, shuffle, seed, follow_links, verbose
    )
    if label_mode == "binary" and len(class_names) != 2:
        raise ValueError(
            f'When passing `label_mode="binary"`, there must be exactly 2 class_names. Received: class_names={class_names}'
        )
    made = []
    for part in ("training", "validation") if subset == "both" else (subset,):
        some_paths, some_labels = split_part(paths, labels, validation_split, part)
        if not some_paths:
            kind = f"{part} " if subset == "both" else ""
            raise ValueError(f"No {kind}{what} files found in directory {directory}. Allowed formats: {formats}")
        shuffled = shuffle and not (subset == "both" and part == "validation")
        samples = _samples(some_paths, some_labels, read, label_mode, len(class_names or ()))
        samples.class_names, samples.file_paths = class_names, some_paths
        samples = samples.shuffle(seed=seed) if shuffled else samples
        made.append(samples if batch_size is None else samples.batch(batch_size, collate=collate))
    return made if subset == "both" else made[0]


def _samples(paths: list[str], labels: Any, read: Callable, label_mode: str | None, classes: int) -> Batches:
    encode: dict[str, Callable] = {
        "int": np.int32,
        "binary": lambda label: np.asarray([label], "float32"),
        "categorical": lambda label: np.eye(classes, dtype="float32")[label],
    }

    def sample(index: int) -> Any:
        x = read(paths[index])
        return x if label_mode is None else (x, encode[label_mode](labels[index]))

    return Batches(len(paths), sample)


def check_labels(labels: Any, label_mode: Any, class_names: Any, what: str) -> None:
    """Raises ValueError for labels, a label mode or class names that do not fit together."""
    if labels not in ("inferred", None):
        if not isinstance(labels, (list, tuple)):
            raise ValueError(
                f"`labels` argument should be a list/tuple of integer labels, of the same size as the number of {what} "
                "files in the target directory. If you wish to infer the labels from the subdirectory names in the "
                'target directory, pass `labels="inferred"`. If you wish to get a dataset that only contains '
                f"{what} samples (no labels), pass `labels=None`. Received: labels={labels}"
            )
        if class_names:
            raise ValueError(
                f'You can only pass `class_names` if `labels="inferred"`. Received: labels={labels}, and '
                f"class_names={class_names}"
            )
    if label_mode not in ("int", "categorical", "binary", None):
        raise ValueError(
            '`label_mode` argument must be one of "int", "categorical", "binary", or None. '
            f"Received: label_mode={label_mode}"
        )


def check_validation_split(validation_split: Any, subset: Any, shuffle: bool, seed: Any) -> None:
    """Raises ValueError for a split that is not possible."""
    if validation_split and not 0 < validation_split < 1:
        raise ValueError(f"`validation_split` must be between 0 and 1, received: {validation_split}")
    if bool(validation_split) != bool(subset):
        raise ValueError("If `subset` is set, `validation_split` must be set, and inversely.")
    if subset not in ("training", "validation", "both", None):
        raise ValueError(f'`subset` must be either "training", "validation" or "both", received: {subset}')
    if validation_split and shuffle and seed is None:
        raise ValueError(
            "If using `validation_split` and shuffling the data, you must provide a `seed` argument, to make sure that "
            "there is no overlap between the training and validation subset."
        )


def index_directory(
    directory: str,
    labels: Any,
    formats: tuple[str, ...],
    class_names: Any = None,
    shuffle: bool = True,
    seed: int | None = None,
    follow_links: bool = False,
    verbose: bool = True,
) -> tuple[list[str], Any, list[str] | None]:
    """Paths, labels and class names of the files of a folder, in the order that Keras gives them for this seed."""
    if labels == "inferred":
        there = sorted(
            name
            for name in os.listdir(directory)
            if os.path.isdir(os.path.join(directory, name)) and not name.startswith(".")
        )
        if class_names is not None and not set(class_names) <= set(there):
            raise ValueError(
                "The `class_names` passed did not match the names of the subdirectories of the target directory. "
                f"Expected: {there} (or a subset of it), but received: class_names={class_names}"
            )
        class_names = there if class_names is None else list(class_names)
        found = [
            (path, index)
            for index, name in enumerate(class_names)
            for path in _files(os.path.join(directory, name), formats, follow_links)
        ]
        paths, labels = [path for path, _ in found], np.asarray([label for _, label in found], "int32")
    else:
        if class_names is not None:
            raise ValueError(
                "When `labels=None` (no labels), argument `class_names` cannot be specified."
                if labels is None
                else "When argument `labels` is specified, argument `class_names` cannot be specified (the "
                "`class_names` will be the sorted list of labels)."
            )
        paths = list(_files(directory, formats, follow_links))
        if labels is not None:
            if len(labels) != len(paths):
                raise ValueError(
                    "Expected the lengths of `labels` to match the number of files in the target directory. len(labels) "
                    f"is {len(labels)} while we found {len(paths)} files in directory {directory}."
                )
            labels, class_names = list(labels), [str(label) for label in sorted(set(labels))]
    if verbose:
        classes = "" if labels is None else f" belonging to {len(class_names)} classes"
        print_msg(f"Found {len(paths)} files{classes}.")
    if shuffle:
        np.random.RandomState(seed).shuffle(paths)
        if labels is not None:
            np.random.RandomState(seed).shuffle(labels)
    return paths, labels, class_names


def _files(folder: str, formats: tuple[str, ...], follow_links: bool) -> Iterator[str]:
    for root, _, names in sorted(os.walk(folder, followlinks=follow_links), key=lambda entry: entry[0]):
        for name in sorted(names):
            if name.lower().endswith(formats):
                yield os.path.join(root, name)


def split_part(paths: list, labels: Any, validation_split: float | None, part: str | None) -> tuple[list, Any]:
    """The part "training" (first) or "validation" (last) of the files."""
    if not validation_split:
        return paths, labels
    held_out = int(validation_split * len(paths))
    cut = len(paths) - held_out
    if part == "training":
        print_msg(f"Using {cut} files for training.")
        return paths[:cut], None if labels is None else labels[:cut]
    print_msg(f"Using {held_out} files for validation.")
    return paths[cut:], None if labels is None else labels[cut:]

"""What several data sets share: addresses, `.npz` files with lists in them, shuffled splits, word numbers."""

from __future__ import annotations

import io
import pickle
import zipfile
from typing import Any, BinaryIO

import numpy as np

from ..utils.downloads import get_file

FOLDER = "https://storage.googleapis.com/tensorflow/tf-keras-datasets/"
Split = tuple[tuple[np.ndarray, np.ndarray], tuple[np.ndarray, np.ndarray]]


def fetch(path: str, name: str, file_hash: str) -> str:
    """The path of a file of Keras' folder; `path` is its name in the cache."""
    return get_file(path, origin=FOLDER + name, file_hash=file_hash)


def arrays(path: str) -> dict[str, np.ndarray]:
    """The arrays of an `.npz` file; Python objects in it are refused."""
    with np.load(path, allow_pickle=False) as file:
        return dict(file)


class ListsOnly(pickle.Unpickler):
    """Reads pickled NumPy arrays, lists, dicts, numbers and strings, and nothing that runs code.

    The files of imdb, reuters and cifar hold such pickles. The only names that may be looked up are NumPy's array, its
    dtype and the function that makes an empty array; everything else is an error.
    """

    _allowed = {("numpy", "ndarray"): np.ndarray, ("numpy", "dtype"): np.dtype}

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) in self._allowed:
            return self._allowed[module, name]
        if module in ("numpy.core.multiarray", "numpy._core.multiarray") and name == "_reconstruct":
            return np._core.multiarray._reconstruct  # type: ignore[attr-defined]
        raise pickle.UnpicklingError(
            f"Refusing to deserialize `{module}.{name}` while loading a dataset. The file may be corrupted or malicious."
        )


def arrays_of_lists(path: str) -> dict[str, np.ndarray]:
    """The arrays of an `.npz` file, among them arrays of lists of numbers."""
    made = {}
    with zipfile.ZipFile(path) as archive:
        for member in archive.namelist():
            if member.endswith(".npy"):
                made[member.removesuffix(".npy")] = _array(io.BytesIO(archive.read(member)))
    return made


def _array(file: BinaryIO) -> np.ndarray:
    version = np.lib.format.read_magic(file)
    read = np.lib.format.read_array_header_1_0 if version[0] == 1 else np.lib.format.read_array_header_2_0
    _, _, dtype = read(file)
    if dtype.hasobject:
        return ListsOnly(file).load()
    file.seek(0)
    return np.lib.format.read_array(file, allow_pickle=False)


def shuffled_split(x: np.ndarray, y: np.ndarray, test_split: float, seed: int) -> Split:
    """The rows in a random order, the last ones for testing.

    Raises:
        ValueError: `test_split` is not in [0, 1).
    """
    order = np.arange(len(x))
    np.random.RandomState(seed).shuffle(order)
    x, y = x[order], y[order]
    cut = int(len(x) * (1 - test_split))
    return (np.array(x[:cut]), np.array(y[:cut])), (np.array(x[cut:]), np.array(y[cut:]))


def check_test_split(test_split: float) -> None:
    """Raises ValueError for a fraction outside of [0, 1)."""
    if not 0 <= test_split < 1:
        raise ValueError(f"Invalid `test_split` argument: {test_split}. It must be between 0 and 1 (exclusive of 1).")


def numbered(sequences: Any, start_char: int | None, index_from: int) -> list[list[int]]:
    """Word numbers raised by `index_from`, after the number that begins every text."""
    if start_char is not None:
        return [[start_char] + [w + index_from for w in x] for x in sequences]
    return [[w + index_from for w in x] for x in sequences] if index_from else [list(x) for x in sequences]


def no_longer_than(maxlen: int | None, sequences: list, labels: np.ndarray) -> tuple[list, np.ndarray]:
    """The sequences of fewer than `maxlen` words.

    Raises:
        ValueError: none is left.
    """
    if not maxlen:
        return sequences, labels
    kept = [i for i, x in enumerate(sequences) if len(x) < maxlen]
    if not kept:
        raise ValueError(
            f"After filtering for sequences shorter than maxlen={maxlen}, no sequence was kept. Increase maxlen."
        )
    return [sequences[i] for i in kept], np.asarray(labels)[kept]


def within(sequences: list, num_words: int | None, skip_top: int, oov_char: int | None) -> list[list[int]]:
    """Words numbered from `skip_top` up to `num_words`; others become `oov_char`, or are left out when it is None."""
    limit = num_words or max(max(x) for x in sequences)
    if oov_char is None:
        return [[w for w in x if skip_top <= w < limit] for x in sequences]
    return [[w if skip_top <= w < limit else oov_char for w in x] for x in sequences]


def array_of_lists(sequences: list) -> np.ndarray:
    """An array whose elements are the lists, whatever their lengths."""
    result = np.empty(len(sequences), dtype=object)
    result[:] = sequences
    return result

"""IMDB: film reviews as word numbers, liked or not."""

from __future__ import annotations

import json
from typing import Any

import numpy as np

from .reading import Split, array_of_lists, arrays_of_lists, fetch, no_longer_than, numbered, within


def load_data(
    path: str = "imdb.npz",
    num_words: int | None = None,
    skip_top: int = 0,
    maxlen: int | None = None,
    seed: int = 113,
    start_char: int | None = 1,
    oov_char: int | None = 2,
    index_from: int = 3,
    **kwargs: Any,
) -> Split:
    """(x_train, y_train), (x_test, y_test): 25,000 reviews each, as lists of word numbers, and 0 or 1.

    Args:
        path: name of the file in the cache.
        num_words: only words of smaller numbers (more frequent ones) are kept.
        skip_top: words of smaller numbers (the most frequent ones) are left out.
        maxlen: longer reviews are left out.
        seed: of the order of the reviews.
        start_char: the number before every review; None for none.
        oov_char: the number of words that are left out; None drops them.
        index_from: what is added to the number of a word in the word index.
    """
    if "nb_words" in kwargs:
        num_words = kwargs.pop("nb_words")
    if kwargs:
        raise TypeError(f"Unrecognized keyword arguments: {kwargs}.")
    file = fetch(path, "imdb.npz", "69664113be75683a8fe16e3ed0ab59fda8886cb3cd7ada244f7d9544e4676b9f")
    data, random = arrays_of_lists(file), np.random.RandomState(seed)
    parts: list[tuple[list, np.ndarray]] = []
    for part in ("train", "test"):
        x, labels = data[f"x_{part}"], data[f"y_{part}"]
        order = np.arange(len(x))
        random.shuffle(order)
        parts.append(no_longer_than(maxlen, numbered(x[order], start_char, index_from), labels[order]))
    (x_train, y_train), (x_test, y_test) = parts
    sequences = within(x_train + x_test, num_words, skip_top, oov_char)
    cut = len(x_train)
    return (array_of_lists(sequences[:cut]), y_train), (array_of_lists(sequences[cut:]), y_test)


def get_word_index(path: str = "imdb_word_index.json") -> dict[str, int]:
    """The number of each word, before `index_from` is added."""
    with open(fetch(path, "imdb_word_index.json", "bfafd718b763782e994055a2d397834f")) as file:
        return json.load(file)


__all__ = ["get_word_index", "load_data"]

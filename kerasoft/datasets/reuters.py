"""Reuters: newswires as word numbers, in 46 topics."""

from __future__ import annotations

import json

import numpy as np

from .reading import Split, array_of_lists, arrays_of_lists, fetch, no_longer_than, numbered, within


def load_data(
    path: str = "reuters.npz",
    num_words: int | None = None,
    skip_top: int = 0,
    maxlen: int | None = None,
    test_split: float = 0.2,
    seed: int = 113,
    start_char: int | None = 1,
    oov_char: int | None = 2,
    index_from: int = 3,
) -> Split:
    """(x_train, y_train), (x_test, y_test): 11,228 newswires as lists of word numbers, and topics 0 .. 45.

    Args:
        test_split: the fraction for testing.
        the others: as for imdb.
    """
    file = fetch(path, "reuters.npz", "d6586e694ee56d7a4e65172e12b3e987c03096cb01eab99753921ef915959916")
    data = arrays_of_lists(file)
    order = np.arange(len(data["x"]))
    np.random.RandomState(seed).shuffle(order)
    x, y = no_longer_than(maxlen, numbered(data["x"][order], start_char, index_from), data["y"][order])
    x = within(x, num_words, skip_top, oov_char)
    cut = int(len(x) * (1 - test_split))
    return (array_of_lists(x[:cut]), np.array(y[:cut])), (array_of_lists(x[cut:]), np.array(y[cut:]))


def get_word_index(path: str = "reuters_word_index.json") -> dict[str, int]:
    """The number of each word, before `index_from` is added."""
    with open(fetch(path, "reuters_word_index.json", "4d44cc38712099c9e383dc6e5f11a921")) as file:
        return json.load(file)


def get_label_names() -> tuple[str, ...]:
    """The topics in the order of their numbers."""
    names = (
        "cocoa grain veg-oil earn acq wheat copper housing money-supply coffee sugar trade reserves ship cotton carcass "
        "crude nat-gas cpi money-fx interest gnp meal-feed alum oilseed gold tin strategic-metal livestock retail ipi "
        "iron-steel rubber heat jobs lei bop zinc orange pet-chem dlr gas silver wpi hog lead"
    )
    return tuple(names.split())


__all__ = ["get_label_names", "get_word_index", "load_data"]

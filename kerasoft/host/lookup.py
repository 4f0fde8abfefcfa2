"""Lookup tables: strings or whole numbers to indices, and back."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np

from ..errors import DataError
from .encoding import DROPPED
from .fingerprints import buckets


def as_texts(values: Any, what: str = "the input") -> np.ndarray:
    """Strings, bytes (UTF-8), arrays or nested lists of them as an object array of str.

    Raises:
        DataError: something else than text among them, or lists of different lengths.

    >>> as_texts([["a", b"b"]]).tolist()
    [['a', 'b']]
    """
    if isinstance(values, (str, bytes)):
        array = np.empty((), object)
        array[()] = values
    elif isinstance(values, np.ndarray):
        array = values
    else:
        try:
            array = np.asarray(values)
        except ValueError as error:
            raise DataError(f"{what} is a ragged list; expected strings in lists of equal lengths") from error
        if array.dtype.kind in "US":  # a list of str and bytes would have become one of both
            array = np.asarray(values, object)
    if array.dtype.kind == "U":
        return array.astype(object)
    if array.dtype.kind == "S" or (array.dtype.kind not in "OT" and array.size == 0):
        array = array.astype(object)
    elif array.dtype.kind not in "OT":
        raise DataError(f"{what} holds {array.dtype.name} values; expected strings")
    flat = [x.decode("utf-8", "surrogateescape") if isinstance(x, bytes) else x for x in array.reshape(-1).tolist()]
    for x in flat:
        if not isinstance(x, str):
            raise DataError(f"{what} holds {x!r} ({type(x).__name__}); expected strings. Fill missing values with ''.")
    result = np.empty(len(flat), object)
    result[:] = flat
    return result.reshape(array.shape)


def as_integers(values: Any, what: str = "the input") -> np.ndarray:
    """Whole numbers (floats are cut, as Keras does; numbers written as strings are read) as int64.

    Raises:
        DataError: something else.
    """
    try:
        array = np.asarray(values)
        if array.dtype.kind in "OUS":
            array = array.astype(np.int64)
    except (ValueError, TypeError) as error:
        raise DataError(f"{what} holds {values!r}; expected whole numbers") from error
    if array.dtype.kind not in "fiub":
        raise DataError(f"{what} holds {array.dtype.name} values; expected whole numbers")
    return array.astype(np.int64)


@dataclasses.dataclass
class Lookup:
    """Tokens to indices: special ones first, then the tokens in their order.

    Attributes:
        kind: ``"string"`` or ``"int64"``.
        tokens: the vocabulary without mask and out-of-vocabulary (OOV) tokens.
        mask_token, mask_index: a token of its own index; None for none.
        first_oov, oov_count: OOV tokens get the indices [first_oov, first_oov + oov_count), by their hash; with a count of
            0 they are refused.
        oov_method: for numbers, ``"floormod"`` or ``"farmhash"``; salt: of SipHash.
        owner: what errors call it.
    """

    kind: str
    tokens: list
    mask_token: Any = None
    mask_index: int = 0
    first_oov: int = 0
    oov_count: int = 1
    oov_method: str = "floormod"
    salt: Any = None
    owner: str = "the layer"

    def __post_init__(self) -> None:
        start = self.first_oov + self.oov_count
        self._index = {token: start + i for i, token in enumerate(self.tokens)}
        if self.mask_token is not None:
            self._index[self.mask_token] = self.mask_index

    def standardized(self, values: Any) -> np.ndarray:
        return as_texts(values, self.owner) if self.kind == "string" else as_integers(values, self.owner)

    def __call__(self, values: Any) -> np.ndarray:
        """int64 indices in the shape of `values`.

        Raises:
            DataError: an OOV token while none are allowed.
        """
        array = self.standardized(values)
        return self.of_flat(array.reshape(-1).tolist()).reshape(array.shape)

    def of_flat(self, tokens: list) -> np.ndarray:
        """int64[n] indices of a list of tokens."""
        if self.oov_count == 1:
            default = self.first_oov
            get = self._index.get
            return np.fromiter((get(t, default) for t in tokens), np.int64, len(tokens))
        get = self._index.get
        found = np.fromiter((get(t, -1) for t in tokens), np.int64, len(tokens))
        missing = np.flatnonzero(found == -1)
        if not missing.size:
            return found
        strangers = [tokens[i] for i in missing]
        if self.oov_count == 0:
            raise DataError(
                f"{self.owner}: When `num_oov_indices=0` all inputs should be in vocabulary, found OOV values "
                f"{strangers[:10]}, consider setting `num_oov_indices=1`."
            )
        found[missing] = self.first_oov + self._oov_buckets(strangers)
        return found

    def _oov_buckets(self, tokens: list) -> np.ndarray:
        if self.kind == "int64" and self.oov_method != "farmhash":
            return np.asarray(tokens, np.int64) % self.oov_count
        return buckets(map(str, tokens), self.oov_count, self.salt)


@dataclasses.dataclass
class InverseLookup:
    """Indices to tokens; `default` for those that have none, the mask token for index 0 if there is one."""

    kind: str
    tokens: list
    start: int
    default: Any
    mask_token: Any = None

    def __call__(self, indices: Any) -> np.ndarray:
        array = as_integers(indices)
        table = {self.start + i: token for i, token in enumerate(self.tokens)}
        if self.mask_token is not None:
            table[0] = self.mask_token
        found = [table.get(i, self.default) for i in array.reshape(-1).tolist()]
        if self.kind != "string":
            return np.asarray(found, np.int64).reshape(array.shape)
        result = np.empty(len(found), object)
        result[:] = found
        return result.reshape(array.shape)


__all__ = ["DROPPED", "InverseLookup", "Lookup", "as_integers", "as_texts"]

"""Text to tokens: standardize, split, join to n-grams; and tokens to padded rows of indices."""

from __future__ import annotations

import dataclasses
import itertools
import re
import string
from collections.abc import Callable
from typing import Any

import numpy as np

from .encoding import DROPPED, encoded
from .lookup import Lookup, as_texts
from .states import TokenCounts

PUNCTUATION = "!\"#$%&()*+,-./:;<=>?@[\\]^_`{|}~'"
_NOT_SPACE = re.compile(r"[^ \t\n\v\f\r]+")
_LOWER = str.maketrans(string.ascii_uppercase, string.ascii_lowercase)
_STRIP = str.maketrans("", "", PUNCTUATION)
_TABLES = {"lower": _LOWER, "strip_punctuation": _STRIP, "lower_and_strip_punctuation": {**_LOWER, **_STRIP}}


@dataclasses.dataclass
class Tokens:
    """Lists of tokens.

    Attributes:
        rows: one list a text.
        shape: of the texts: () for a single one.
    """

    rows: list[list[str]]
    shape: tuple


@dataclasses.dataclass
class Tokenizer:
    """Texts to tokens.

    Attributes:
        standardize: None, "lower", "strip_punctuation", "lower_and_strip_punctuation" (ASCII letters, as TensorFlow), or a
            function of a NumPy array of str.
        split: None, "whitespace", "character", or a function from an array of str to lists of str.
        ngrams: sizes of the n-grams made of the tokens; None for none.

    >>> Tokenizer("lower_and_strip_punctuation", "whitespace", (1, 2))(["It's me!"]).rows
    [['its', 'me', 'its me']]
    """

    standardize: Any = "lower_and_strip_punctuation"
    split: Any = "whitespace"
    ngrams: tuple[int, ...] | None = None
    encoding: str = "utf-8"
    owner: str = "the layer"

    def __call__(self, texts: Any) -> Tokens:
        """
        Raises:
            DataError: not text. ValueError: more than one text a row.
        """
        array = as_texts(texts, self.owner)
        if callable(self.standardize):
            array = as_texts(np.asarray(self.standardize(array.astype(str))), self.owner)
        elif self.standardize is not None:
            table = _TABLES[self.standardize]
            array = _mapped(lambda text: text.translate(table), array)
        if self.split is None:
            return self._unsplit(array)
        if array.ndim > 1:
            if array.shape[-1] != 1:
                raise ValueError(
                    "When using `TextVectorization` to tokenize strings, the input rank must be 1 or the last shape "
                    f"dimension must be 1. Received: inputs.shape={array.shape} with rank={array.ndim}"
                )
            array = array[..., 0]
        flat = array.reshape(-1).tolist()
        if self.split == "whitespace":
            rows = [_NOT_SPACE.findall(text) for text in flat]
        elif self.split == "character":
            rows = [list(text) for text in flat]
        else:
            found = self.split(array.astype(str))
            found = found.to_list() if hasattr(found, "to_list") else found
            rows = [as_texts(row, self.owner).tolist() for row in ([found] if array.ndim == 0 else found)]
        return Tokens([self._joined(row) for row in rows], array.shape)

    def _unsplit(self, array: np.ndarray) -> Tokens:
        rows = array.reshape(-1, array.shape[-1]).tolist() if array.ndim else [[array.item()]]
        return Tokens([self._joined(row) for row in rows], array.shape[:-1])

    def _joined(self, tokens: list[str]) -> list[str]:
        if self.ngrams is None:
            return tokens
        return [" ".join(tokens[i : i + size]) for size in self.ngrams for i in range(len(tokens) - size + 1)]


def _mapped(function: Callable[[str], str], array: np.ndarray) -> np.ndarray:
    result = np.empty(array.size, object)
    result[:] = [function(text) for text in array.reshape(-1).tolist()]
    return result.reshape(array.shape)


@dataclasses.dataclass
class Vectorizer:
    """Texts to padded rows of indices (mode ``int``; ``ids``: padded with `DROPPED`), or to encoded rows.

    Attributes:
        length: of the rows of mode ``int``: longer ones are cut, shorter ones padded with 0; None for the longest.
        depth: of encoded rows. idf: float32[depth], factors of ``tf_idf``.
    """

    tokenizer: Tokenizer
    lookup: Lookup
    mode: str = "int"
    length: int | None = None
    depth: int = 0
    idf: np.ndarray | None = None

    def __call__(self, texts: Any) -> np.ndarray:
        tokens = self.tokenizer(texts)
        lengths = [len(row) for row in tokens.rows]
        flat = self.lookup.of_flat(list(itertools.chain.from_iterable(tokens.rows)))
        width = max(lengths, default=0)
        if self.mode == "int" and self.length is not None:
            width = self.length
        padding = 0 if self.mode == "int" else DROPPED
        padded = np.full((len(lengths), width), padding, np.int64)
        ends = np.cumsum([0, *lengths])
        for i, length in enumerate(lengths):
            kept = min(length, width)
            padded[i, :kept] = flat[ends[i] : ends[i] + kept]
        if self.mode in ("int", "ids"):
            return padded.reshape(*tokens.shape, width)
        return encode_with_idf(padded.reshape(*tokens.shape, width), self.mode, self.depth, self.idf)


def encode_with_idf(indices: np.ndarray, mode: str, depth: int, idf: np.ndarray | None) -> np.ndarray:
    """`encoding.encoded`, where ``tf_idf`` is the counts times float32[depth] factors."""
    if mode != "tf_idf":
        return encoded(indices, mode, depth)
    return encoded(indices, "count", depth).astype(np.float32) * idf


def looked_up(table: Any, mode: str, depth: int, idf: np.ndarray | None, values: Any) -> np.ndarray:
    """The indices that a table gives for values, encoded."""
    indices = table(values)
    return indices if mode == "int" else encode_with_idf(indices, mode, depth, idf)


def count_rows(lookup: Lookup, state: TokenCounts, rows: list) -> None:
    """Counts rows that are tokens or lists of tokens, each a document."""
    if any(isinstance(row, (list, np.ndarray)) for row in rows):
        state.update([lookup.standardized(row).reshape(-1).tolist() for row in rows])
    else:
        state.update(lookup.standardized(rows)[:, None].tolist())


def count_texts(tokenizer: Tokenizer, state: TokenCounts, rows: list) -> None:
    """Counts the tokens of rows that are texts, or lists of one text."""
    state.update(tokenizer(np.asarray(as_texts(rows, tokenizer.owner), object)).rows)

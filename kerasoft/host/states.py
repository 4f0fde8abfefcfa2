"""What `adapt` counts: states that are filled from batches and merged, in any grouping, on any machine."""

from __future__ import annotations

import collections
import dataclasses
from collections.abc import Callable, Iterable
from typing import Any

import numpy as np

from ..errors import DataError

EXACT_VALUES = 1 << 18  # so many numbers are kept before a distributed quantile state becomes a summary


@dataclasses.dataclass
class TokenCounts:
    """How often each token came, and in how many documents.

    >>> state = TokenCounts(with_documents=True)
    >>> state.update([["a", "b", "a"], ["a"]])
    >>> state.counts["a"], state.documents["a"], state.document_count
    (3, 2, 2)
    """

    with_documents: bool = False
    counts: collections.Counter = dataclasses.field(default_factory=collections.Counter)
    documents: collections.Counter = dataclasses.field(default_factory=collections.Counter)
    document_count: int = 0

    def update(self, rows: Iterable[list]) -> None:
        """Counts rows of tokens; each row is a document."""
        for row in rows:
            self.counts.update(row)
            if self.with_documents:
                self.documents.update(set(row))
                self.document_count += 1

    def merge(self, other: TokenCounts) -> TokenCounts:
        """The counts of both, kept in self."""
        self.counts.update(other.counts)
        self.documents.update(other.documents)
        self.document_count += other.document_count
        return self

    def tokens(self, without: Iterable = (), most: int | None = None) -> list:
        """The tokens by falling count, ties by falling token; at most so many."""
        left_out = set(without)
        found = sorted(((n, t) for t, n in self.counts.items() if t not in left_out), reverse=True)
        return [token for _, token in found[:most]]

    def idf(self, tokens: list) -> np.ndarray:
        """float32[n]: log(1 + documents / (1 + documents that hold the token))."""
        within = np.array([self.documents[t] for t in tokens], np.float64)
        return np.log(1 + self.document_count / (1 + within)).astype(np.float32)


@dataclasses.dataclass
class Moments:
    """Mean and variance, in float64, over all axes but some.

    Source: Chan, Golub, LeVeque, 1979: merging of partial means and sums of squares.

    Attributes:
        kept: axes, batch axis included, that have a mean each; of arrays of `shape`.
    """

    kept: tuple[int, ...]
    shape: tuple = ()
    count: int = 0
    mean: Any = 0.0
    squares: Any = 0.0

    def update(self, batch: np.ndarray) -> None:
        """
        Raises:
            ValueError: a batch of another shape.
        """
        batch = np.asarray(batch, np.float64)
        if self.count and batch.shape[1:] != self.shape:
            raise ValueError(f"a batch of rows of shape {batch.shape[1:]} after rows of shape {self.shape}")
        if not batch.size:
            return
        kept = tuple(a % batch.ndim for a in self.kept)
        reduced = tuple(a for a in range(batch.ndim) if a not in kept)
        count = int(np.prod([batch.shape[a] for a in reduced], dtype=np.int64))
        mean = batch.mean(axis=reduced, keepdims=True)
        squares = np.square(batch - mean).sum(axis=reduced)
        self.merge(Moments(self.kept, batch.shape[1:], count, mean.reshape(squares.shape), squares))

    def merge(self, other: Moments) -> Moments:
        if other.count:
            total = self.count + other.count
            apart = other.mean - self.mean
            self.mean = self.mean + apart * (other.count / total)
            self.squares = self.squares + other.squares + apart**2 * (self.count * other.count / total)
            self.count, self.shape = total, other.shape
        return self

    @property
    def variance(self) -> Any:
        return self.squares / max(self.count, 1)


@dataclasses.dataclass
class Quantiles:
    """A summary of the distribution of numbers: (value, weight) columns, or all values while they are few.

    Source: Keras' `Discretization`; a streaming variant of Greenwald and Khanna, 2001.
    """

    epsilon: float = 0.01
    values: list[np.ndarray] = dataclasses.field(default_factory=list)
    summary: np.ndarray | None = None

    def update(self, batch: Any) -> None:
        self.values.append(np.asarray(batch, np.float32).reshape(-1))
        if sum(v.size for v in self.values) > EXACT_VALUES:
            self._condense()

    def merge(self, other: Quantiles) -> Quantiles:
        self.values += other.values
        if other.summary is not None:
            self.summary = other.summary if self.summary is None else merged(other.summary, self.summary, self.epsilon)
        if sum(v.size for v in self.values) > EXACT_VALUES:
            self._condense()
        return self

    def _condense(self) -> None:
        fresh = summarized(np.concatenate(self.values), self.epsilon)
        self.values = []
        self.summary = merged(fresh, empty() if self.summary is None else self.summary, self.epsilon)

    def result(self) -> np.ndarray:
        """float32[2, k]: the summary."""
        if self.values:
            self._condense()
        return empty() if self.summary is None else self.summary


def empty() -> np.ndarray:
    return np.zeros((2, 0), np.float32)


def summarized(values: np.ndarray, epsilon: float) -> np.ndarray:
    """About 1 / epsilon of the sorted values, with the number of values that each stands for."""
    values = np.sort(np.reshape(values, [-1]))
    step = max(values.size / (1.0 / epsilon), 1)
    boundaries = values[int(step - 1) :: int(step)]
    return np.stack([boundaries, np.ones_like(boundaries) * step])


def merged(one: np.ndarray, other: np.ndarray, epsilon: float) -> np.ndarray:
    """The summary of both summaries."""
    both = np.concatenate((one, other), axis=1)
    return compressed(np.take(both, np.argsort(both[0]), axis=1), epsilon)


def compressed(summary: np.ndarray, epsilon: float) -> np.ndarray:
    """A summary interpolated at multiples of epsilon; the same if it is short already."""
    if summary.shape[1] * epsilon < 1:
        return summary
    percents = epsilon + np.arange(0.0, 1.0, epsilon)
    weights = summary[1].cumsum()
    shares = weights / weights[-1]
    bins = np.interp(percents, shares, summary[0])
    weights = np.interp(percents, shares, weights)
    return np.stack((bins, weights - np.concatenate(([0], weights[:-1])))).astype("float32")


def boundaries(summary: np.ndarray, bins: int) -> list[float]:
    """The borders between so many bins of equal weight."""
    return compressed(summary, 1.0 / bins)[0, :-1].tolist()


# --- on executors: lists of rows into a state ---


def filled(fill: Callable[[Any, list], None], start: Any, chunks: Iterable[list]) -> Any:
    """`start` with all chunks of rows put into it by `fill`."""
    for rows in chunks:
        fill(start, rows)
    return start


def same_shapes(rows: list) -> np.ndarray:
    """Rows of numbers as one float array with a feature axis.

    Raises:
        DataError: rows of different shapes, or no numbers.
    """
    try:
        array = np.asarray([np.asarray(r.toArray() if hasattr(r, "toArray") else r) for r in rows])
    except ValueError as error:
        raise DataError("adapt() got rows of different shapes; expected numbers of one shape") from error
    if array.dtype.kind not in "fiub":
        raise DataError(f"adapt() got rows such as {rows[0]!r}; expected numbers")
    return array[:, None] if array.ndim == 1 else array


def fill_quantiles(state: Quantiles, rows: list) -> None:
    state.update(same_shapes(rows))


def fill_moments(state: Moments, rows: list) -> None:
    state.update(same_shapes(rows))


@dataclasses.dataclass
class Several:
    """States by name, filled from the columns of a table in one pass."""

    states: dict[str, Any]

    def merge(self, other: Several) -> Several:
        self.states = {name: state.merge(other.states[name]) for name, state in self.states.items()}
        return self


def fill_several(fills: dict[str, Callable[[Any, list], None]], state: Several, rows: list[dict]) -> None:
    """Puts each column of the rows into its state.

    Raises:
        DataError: a row without a column.
    """
    for name, fill in fills.items():
        if any(name not in row for row in rows):
            raise DataError(f"adapt(): a row has the keys {sorted(map(str, rows[0]))}; there is no {name!r}")
        fill(state.states[name], [row[name] for row in rows])

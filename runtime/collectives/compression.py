"""Gradients in few bytes: what is sent now, and what is kept for later (error feedback).

Each way takes from a residual vector what it sends, and leaves the rest there for the next step:

    residual += gradient;  words = encode(residual);  (all ranks)  total += decode(words)

Words are uint32, little endian like everything on the wire. Pure functions of the vector: no state, no randomness.
"""

from __future__ import annotations

import abc
import dataclasses
from typing import Any

import numpy as np

_SAMPLE = 1 << 16


class Compression(abc.ABC):
    """A way of sending a gradient in few bytes."""

    @abc.abstractmethod
    def encode(self, residual: np.ndarray) -> np.ndarray:
        """Words (uint32) for the largest part of `residual` (float32, changed in place: what is sent is taken away)."""

    @abc.abstractmethod
    def add(self, words: np.ndarray, total: np.ndarray) -> None:
        """Adds to `total` what `words` say."""

    def identity(self) -> list[Any]:
        """Name and settings, as JSON values."""
        return [type(self).__name__, *dataclasses.astuple(self)]  # type: ignore[call-overload]


def _positive(who: str, name: str, value: Any, most: float = np.inf) -> None:
    if not (isinstance(value, (int, float)) and 0 < value <= most):
        what = "a number above 0" + (f", at most {most:g}" if np.isfinite(most) else "")
        raise ValueError(f"{who}: {name} needs {what}, got {value!r}")


def _magnitude(residual: np.ndarray, density: float) -> np.float32:
    """The magnitude that about `density` of the elements reach, read off at most 65,536 of them."""
    sample = np.abs(residual[:: max(1, residual.size // _SAMPLE)])
    count = max(1, int(sample.size * density))
    return np.partition(sample, sample.size - count)[sample.size - count]


@dataclasses.dataclass(frozen=True)
class Threshold(Compression):
    """Sends sign and place of the elements that reach a threshold: 4 bytes each, whatever the number of others.

    Args:
        threshold: what is sent for an element (with its sign) whose residual is at least as large. None: chosen in each
            step so that about `density` of the elements reach it; each then counts as the mean of them.
        density: share of the elements that is sent, above 0, at most 1.

    Source: N. Strom, Scalable distributed DNN training using commodity GPU cloud computing (2015); DL4J's SharedTrainingMaster
    (fixed threshold 1e-3, target densities from 1e-4 to 1e-2).

    >>> residual = np.array([0.5, -0.1, -0.7], np.float32)
    >>> words = Threshold(0.4).encode(residual)
    >>> residual.tolist(), len(words)
    ([0.09999999403953552, -0.10000000149011612, -0.29999998211860657], 3)
    """

    threshold: float | None = None
    density: float = 1e-3

    def __post_init__(self) -> None:
        _positive("Threshold", "density", self.density, 1)
        if self.threshold is not None:
            _positive("Threshold", "threshold", self.threshold)

    def encode(self, residual: np.ndarray) -> np.ndarray:
        size = np.float32(_magnitude(residual, self.density) if self.threshold is None else self.threshold)
        places = np.flatnonzero(np.abs(residual) >= size) if size > 0 else np.zeros(0, np.int64)
        found = residual[places]
        if self.threshold is None and places.size:
            size = np.float32(np.abs(found).mean(dtype=np.float64))
        residual[places] = found - np.copysign(size, found)
        words = np.empty(1 + places.size, np.uint32)
        words[:1] = np.array([size], np.float32).view(np.uint32)
        words[1:] = places.astype(np.uint32) << 1 | np.signbit(found)
        return words

    def add(self, words: np.ndarray, total: np.ndarray) -> None:
        size = words[:1].view(np.float32)[0]
        total[words[1:] >> 1] += np.where(words[1:] & 1, -size, size)


@dataclasses.dataclass(frozen=True)
class TopK(Compression):
    """Sends the largest elements as they are: place and value, 8 bytes each.

    Args:
        fraction: of the elements, above 0, at most 1.

    Source: A. F. Aji and K. Heafield, Sparse communication for distributed gradient descent (2017).
    """

    fraction: float = 1e-3

    def __post_init__(self) -> None:
        _positive("TopK", "fraction", self.fraction, 1)

    def encode(self, residual: np.ndarray) -> np.ndarray:
        count = max(1, int(residual.size * self.fraction))
        places = np.sort(np.argpartition(np.abs(residual), residual.size - count)[residual.size - count :])
        words = np.empty(2 * count, np.uint32)
        words[:count] = places
        words[count:] = residual[places].view(np.uint32)
        residual[places] = 0
        return words

    def add(self, words: np.ndarray, total: np.ndarray) -> None:
        count = words.size // 2
        total[words[:count]] += words[count:].view(np.float32)


_VALUES = np.array([[(0, 1, -1, 0)[byte >> 2 * i & 3] for i in range(4)] for byte in range(256)], np.float32)


@dataclasses.dataclass(frozen=True)
class TwoBit(Compression):
    """Every element as 0, plus or minus a threshold, in two bits: a sixteenth of the bytes.

    Args:
        threshold: None: in each step the mean magnitude of the largest tenth.

    Source: MXNet's gradient compression "2bit" (there the threshold is fixed, 0.5 by default).
    """

    threshold: float | None = None

    def __post_init__(self) -> None:
        if self.threshold is not None:
            _positive("TwoBit", "threshold", self.threshold)

    def encode(self, residual: np.ndarray) -> np.ndarray:
        reach = np.float32(_magnitude(residual, 0.1) if self.threshold is None else self.threshold)
        size = reach
        above, below = residual >= reach, residual <= -reach
        if self.threshold is None:
            reached = np.abs(residual[above | below])
            size = np.float32(reached.mean(dtype=np.float64)) if reach > 0 else reach
        if not size > 0:
            above, below = np.zeros_like(above), np.zeros_like(below)
        codes = np.zeros(-(-residual.size // 16) * 16, np.uint8)
        codes[: residual.size] = above + 2 * below.view(np.uint8)
        residual[above] -= size
        residual[below] += size
        quads = codes.reshape(-1, 4)
        packed = quads[:, 0] | quads[:, 1] << 2 | quads[:, 2] << 4 | quads[:, 3] << 6
        return np.concatenate([np.array([size], np.float32).view(np.uint32), packed.view(np.uint32)])

    def add(self, words: np.ndarray, total: np.ndarray) -> None:
        values = _VALUES[words[1:].view(np.uint8)].reshape(-1)[: total.size]
        total += values * words[:1].view(np.float32)[0]


NAMES = {"threshold": Threshold, "top_k": TopK, "2bit": TwoBit}


def compression_of(given: Any) -> Compression | None:
    """What ``AllReduce(compression=...)`` names: None, one of `NAMES`, or a `Compression` itself.

    Raises:
        ValueError: neither.
    """
    if given is None or isinstance(given, Compression):
        return given
    if isinstance(given, str) and given in NAMES:
        return NAMES[given]()
    raise ValueError(
        f"AllReduce: compression needs None, one of {', '.join(map(repr, NAMES))}, or a Threshold, TopK or TwoBit, "
        f"got {given!r}"
    )

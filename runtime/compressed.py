"""Steps whose gradients travel compressed, what was not sent is kept for the next step."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from .collectives import ALIGNMENT
from .collectives.compression import Compression
from .feed import Call
from .reports import Stopwatch
from .step import DistributedStep
from .worker import Method, Settings


@dataclasses.dataclass(frozen=True)
class Compressed(Method):
    """What the workers of ``AllReduce(compression=...)`` do."""

    compression: Compression

    def step(self, settings: Settings, rank: int, program: Any, watch: Stopwatch) -> CompressedStep:
        return CompressedStep(
            self.compression,
            program,
            rank,
            settings.bounds(),
            settings.train_sizes,
            settings.test_sizes,
            settings.deterministic,
            watch,
        )

    def identity(self) -> dict[str, Any]:
        return {"compression": self.compression.identity()}


class CompressedStep(DistributedStep):
    """Steps with compressed gradients; arguments as of `DistributedStep`, and the compression.

    1. The worker's gradient (each shard's, if deterministic) is added to what was not sent before: the residual.
    2. The compression takes from the residual what is sent; everybody gets it, with states and sums as they are.
    3. Everybody adds what came, in the order of shards, and makes the same optimizer step on whole vectors.

    A message, in uint32 words: for each contribution its shard, its number of words, the words, states and sums.
    """

    def __init__(self, compression: Compression, *args: Any):
        super().__init__(*args)
        self.compression = compression
        self._residuals: dict[int, np.ndarray] = {}  # by shard; by the worker's first one if not deterministic

    def _update_call(self) -> tuple[Any, bool]:
        return self.program.update(self.P), True

    def load(
        self,
        collective: Any,
        params: np.ndarray,
        slots: Sequence[np.ndarray],
        state: np.ndarray,
        iteration: int,
        kept: Mapping[str, np.ndarray] | None = None,
    ) -> None:
        super().load(collective, params, slots, state, iteration, kept)
        self._residuals = {}
        for name, array in sorted((kept or {}).items()):
            shard = int(name.split("/")[1])
            self._residual(shard if self.deterministic else self.bounds[self.rank])[...] += array

    def kept(self) -> dict[str, np.ndarray]:
        return {f"shard/{s}/residual": residual for s, residual in self._residuals.items()}

    def _residual(self, shard: int) -> np.ndarray:
        if shard not in self._residuals:
            self._residuals[shard] = np.zeros(self.P, np.float32)
        return self._residuals[shard]

    def _reduce_and_update(
        self, results: Iterable[tuple[Call, np.ndarray]], learning_rate: float, note: int
    ) -> tuple[np.ndarray, tuple[int, ...]]:
        message = [part for shard, vector in self._vectors(results) for part in self._contribution(shard, vector)]
        mine = np.concatenate(message) if message else np.zeros(0, np.uint32)
        self.watch.lap("compute")
        messages, notes = self._exchange(mine, note)
        self._charge_sync()
        total, rest = np.zeros(self.P, np.float32), np.zeros(self.S + self.M, np.float32)
        for words in messages:
            self._add(words, total, rest)
        self._apply(total, learning_rate, self.iteration)
        self.params = np.asarray(self._master)
        self.state, sums = rest[: self.S], rest[self.S :]
        self.iteration += 1
        self.watch.lap("update")
        return sums, notes

    def _vectors(self, results: Iterable[tuple[Call, np.ndarray]]) -> Iterator[tuple[int, np.ndarray]]:
        """What is compressed as one: each shard's vector, or the worker's sum."""
        if self.deterministic:
            for call, vector in results:
                yield call.shard, vector
            return
        total = None
        for _, vector in results:
            total = vector if total is None else total + vector
        if total is not None:
            yield self.bounds[self.rank], total

    def _contribution(self, shard: int, vector: np.ndarray) -> tuple[np.ndarray, ...]:
        residual = self._residual(shard)
        residual += vector[: self.P]
        words = self.compression.encode(residual)
        return np.array([shard, words.size], np.uint32), words, vector[self.P :].view(np.uint32)

    def _exchange(self, mine: np.ndarray, note: int) -> tuple[list[np.ndarray], tuple[int, ...]]:
        """Everybody's message, in the order of ranks: first the lengths, then all padded to the longest."""
        world = self.collective.world_size
        lengths = np.zeros(world, np.float64)
        lengths[self.rank] = mine.size
        sizes = self.collective.all_reduce_small(lengths).astype(int).tolist()
        longest = -(-max(*sizes, 1) // ALIGNMENT) * ALIGNMENT
        padded = np.zeros(longest, np.uint32)
        padded[: mine.size] = mine
        gathered = self.collective.all_gather(padded.view(np.float32), world * longest, note=note, exact=True)
        words = gathered.vector.view(np.uint32).reshape(world, longest)
        return [words[rank, :size] for rank, size in enumerate(sizes)], gathered.notes

    def _add(self, words: np.ndarray, total: np.ndarray, rest: np.ndarray) -> None:
        at = 0
        while at < words.size:
            count = int(words[at + 1])
            self.compression.add(words[at + 2 : at + 2 + count], total)
            at += 2 + count
            rest += words[at : at + rest.size].view(np.float32)
            at += rest.size

"""Carries `DriverReduce`: `ShuffleFit`'s loop with weights on the driver instead of on the executors."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from .checkpoint import Checkpoint
from .shuffle_tasks import shard_task, updated
from .spark_shuffle import ShuffleFit


class DriverFit(ShuffleFit):
    """One fit by `DriverReduce`: a broadcast and a tree of sums each step."""

    def _spread(self, at: Checkpoint) -> None:
        vector = np.concatenate([at.params, at.state, np.zeros(self.layout.M, np.float32)]).astype(np.float32)
        self._own: dict[str, Any] = {"vector": vector, "slots": list(at.slots), "start": 0}

    def _collect(self, epoch: int, step: int, iteration: int, rate: float, sums: np.ndarray) -> Checkpoint:
        params, state, _ = self.layout.split(self._own["vector"])
        return Checkpoint(
            epoch, step, iteration, rate, np.array(params), np.array(state), tuple(self._own["slots"]), sums.copy(),
            self._seed, self.checkpoints.fit,
        )  # fmt: skip

    def _forget_old(self) -> None:
        pass

    def _cut_lineage(self, step: int) -> None:
        pass

    def _step(self, epoch: int, step: int, iteration: int, rate: float) -> np.ndarray:
        """One step; float32[M], its sums."""
        shipped, at = self.shipped, (epoch, step, iteration)
        weights = self.context.broadcast(self._own["vector"])
        reduced: list[np.ndarray] = []

        def gradient(shard: int, part: Iterator[tuple]) -> Iterator[np.ndarray | None]:
            task = shard_task(shipped.value, shard, (value[1] for _, value in part))
            yield task.gradient(at, weights.value, reduced)[1]

        try:
            for _ in range(self._stages() - 1):
                reduced.append(np.array(self.rows.mapPartitionsWithIndex(gradient).treeReduce(_add)))
            total = self.rows.mapPartitionsWithIndex(gradient).treeReduce(_add)
        finally:
            weights.destroy()
        self._own = updated(self.shipped.value, self._own, np.array(total), rate, iteration)
        return np.array(self._own["vector"][self.layout.P + self.layout.S :])

    def _validate(self) -> np.ndarray:
        shipped, weights = self.test_shipped, self.context.broadcast(self._own["vector"])

        def test(shard: int, part: Iterator[tuple]) -> Iterator[tuple[int, np.ndarray]]:
            yield shard, shard_task(shipped.value, shard, (value[1] for _, value in part)).sums(weights.value)

        try:
            found = self.test_rows.mapPartitionsWithIndex(test).collect()
        finally:
            weights.destroy()
        return np.sum([sums for _, sums in sorted(found, key=lambda f: f[0])], axis=0)


def _add(left: np.ndarray | None, right: np.ndarray | None) -> np.ndarray | None:
    """The sum of two gradients; None stands for a shard without rows in this step."""
    if left is None or right is None:
        return right if left is None else left
    return left + right

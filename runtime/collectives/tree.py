"""One fixed binary tree over the shards, so that a sum's bits do not depend on who adds which part.

Node (level, index) stands for the shards `index * 2**level .. (index + 1) * 2**level - 1` that exist. Its sum is its left
child's plus its right child's, or just the left one's where no shard lies to the right. A rank that owns contiguous
shards can add every node that lies wholly inside its range; `cover` names the largest ones.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TypeVar

import numpy as np

Node = tuple[int, int]
T = TypeVar("T")


def height(shards: int) -> int:
    """The level of the root."""
    return max(0, shards - 1).bit_length()


def cover(start: int, stop: int, shards: int) -> list[Node]:
    """The fewest nodes that make up the shards `start .. stop - 1` of `shards`, in order.

    >>> from kerasoft.runtime.collectives.tree import cover
    >>> cover(1, 6, 6)
    [(0, 1), (1, 1), (2, 1)]
    """
    nodes = []
    while start < stop:
        level = 0
        while level < height(shards):
            width = 2 << level
            if start % width or min(start + width, shards) > stop:
                break
            level += 1
        nodes.append((level, start >> level))
        start = min(start + (1 << level), shards)
    return nodes


def covers(bounds: Sequence[int]) -> list[list[Node]]:
    """What each rank contributes: `cover` of its range. `bounds` as in `Collective.reduce_scatter_tree`."""
    if bounds[0] != 0 or bounds[-1] < 1 or any(a > b for a, b in zip(bounds[:-1], bounds[1:], strict=True)):
        raise ValueError(f"bounds start at 0, never fall and end at the number of shards, got {list(bounds)}.")
    return [cover(start, stop, bounds[-1]) for start, stop in zip(bounds[:-1], bounds[1:], strict=True)]


def finish(nodes: Mapping[Node, T], shards: int, add: Callable[[T, T], T]) -> T:
    """The root's value from nodes that make up all shards.

    Args:
        add: makes left + right; may reuse the left value, which is not used again.
    """

    def value(level: int, index: int) -> T:
        if (level, index) in nodes:
            return nodes[level, index]
        left = value(level - 1, 2 * index)
        if (2 * index + 1) << (level - 1) >= shards:
            return left
        return add(left, value(level - 1, 2 * index + 1))

    return value(height(shards), 0)


PLAIN: Node = (-1, 0)
"""The one node of a sum whose order is not fixed."""


def merged(nodes: Sequence[Node], shards: int) -> list[Node]:
    """Nodes of the tree over `shards`, with siblings put together as far as they go, in order.

    >>> from kerasoft.runtime.collectives.tree import merged
    >>> merged([(0, 0), (0, 1), (0, 2)], 3)
    [(2, 0)]
    """
    found = set(nodes)
    level = 0
    while 1 << level < 2 * shards:
        for index in sorted(i for at, i in found if at == level and i % 2 == 0):
            alone = (index + 1) << level >= shards  # nothing to the right
            if (level, index + 1) in found or (alone and level < height(shards)):
                found -= {(level, index), (level, index + 1)}
                found.add((level + 1, index // 2))
        level += 1
    return sorted(found, key=lambda n: n[1] << n[0])


def put(held: dict[Node, np.ndarray], node: Node, value: np.ndarray, shards: int, ours: set[int]) -> None:
    """Puts a partial sum to those at hand, and siblings together: left + right, as `finish` adds.

    Args:
        ours: addresses of arrays that may be added to; sums that are made here join them.
    """
    if node == PLAIN:
        held[node] = _sum(held[node], value, ours) if node in held else value
        return
    held[node] = value
    for target in merged(list(held), shards):
        if target not in held:
            held[target] = _joined(held, target, shards, ours)


def _joined(held: dict[Node, np.ndarray], node: Node, shards: int, ours: set[int]) -> np.ndarray:
    """Takes the parts of `node` out of `held`."""
    if node in held:
        return held.pop(node)
    level, index = node
    left = _joined(held, (level - 1, 2 * index), shards, ours)
    if (2 * index + 1) << (level - 1) >= shards:
        return left
    return _sum(left, _joined(held, (level - 1, 2 * index + 1), shards, ours), ours)


def _sum(left: np.ndarray, right: np.ndarray, ours: set[int]) -> np.ndarray:
    total = np.add(left, right, out=next((v for v in (left, right) if v.ctypes.data in ours), None))
    ours.add(total.ctypes.data)
    return total


class TreeSum:
    """Adds the vectors of a rank's contiguous shards as they come, along the tree.

    Keeps at most log2(shards) + 1 vectors per open subtree; buffers are used again in the next step.

    >>> import numpy as np
    >>> from kerasoft.runtime.collectives.tree import TreeSum
    >>> total = TreeSum(0, 3, 3)
    >>> for shard in range(3):
    ...     total.add(np.full(2, shard, np.float32))
    >>> total.partials()
    {(2, 0): array([3., 3.], dtype=float32)}
    """

    def __init__(self, start: int, stop: int, shards: int):
        self.start, self.stop, self.shards = start, stop, shards
        self._nodes = set(cover(start, stop, shards))
        self._free: list[np.ndarray] = []
        self._next = start
        self._open: list[tuple[Node, np.ndarray]] = []
        self._done: dict[Node, np.ndarray] = {}

    def add(self, vector: np.ndarray) -> None:
        """Takes the next shard's vector (copied: the caller may reuse its memory)."""
        if self._next >= self.stop:
            raise ValueError(f"all {self.stop - self.start} shards have been added; call `partials` first.")
        kept = self._free.pop() if self._free else np.empty_like(vector)
        kept[...] = vector
        node = (0, self._next)
        self._next += 1
        self._settle(node, kept)

    def _settle(self, node: Node, value: np.ndarray) -> None:
        while node not in self._nodes:
            level, index = node
            if index % 2:
                (_, left) = self._open.pop()
                np.add(left, value, out=left)
                self._free.append(value)
                value = left
            elif (index + 1) << level < self.shards:
                self._open.append((node, value))
                return
            node = (level + 1, index // 2)
        self._done[node] = value

    def partials(self) -> dict[Node, np.ndarray]:
        """The sums of the nodes of `cover`; their memory is used again after the next first `add`.

        Raises:
            ValueError: not all shards have been added.
        """
        if self._next != self.stop:
            raise ValueError(f"{self.stop - self._next} of {self.stop - self.start} shards have not been added yet.")
        done, self._done, self._next = self._done, {}, self.start
        self._free.extend(done.values())
        return done

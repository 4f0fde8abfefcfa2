"""Signature: names, shapes and dtypes of the arrays that a step takes; what a compiled step is kept under."""

from __future__ import annotations

import dataclasses
from typing import Any

from .. import tree


@dataclasses.dataclass(frozen=True)
class Leaf:
    """One array of a batch.

    Attributes:
        name: ``x/<input>``, ``y/<output>`` or ``sample_weight/<output>``.
        shape: without the batch axis; an unknown size is the text of its symbol, e.g. "n1".
        dtype: as the step takes it.
        columns: of sparse rows, which are packed (`kerasoft.host.sparse`): their size; None for others.
        rows: the symbol of its first axis.
        pieces: of sparse rows that are cut into pieces: the packed pieces, this array being the number of each row's.
    """

    name: str
    shape: tuple
    dtype: str
    columns: int | None = None
    pieces: Leaf | None = None
    rows: str = "b"

    @property
    def known_shape(self) -> tuple:
        """With the batch axis; None where a size is unknown. Of sparse rows the one that layers see."""
        if self.columns is not None:
            return (None, self.columns)
        return (None, *(d if isinstance(d, int) else None for d in self.shape))


class Signature:
    """The structures of x, y and sample weights with a `Leaf` for each array (None where there is nothing).

    Hashable: two of the same structures and leaves are equal.
    """

    def __init__(self, x: Any, y: Any = None, sample_weight: Any = None):
        self.x, self.y, self.sample_weight = x, y, sample_weight
        self._key = (_frozen(x), _frozen(y), _frozen(sample_weight))

    @property
    def leaves(self) -> list[Leaf]:
        """All arrays, x then y then sample weights then pieces of sparse rows."""
        given = [
            leaf for part in (self.x, self.y, self.sample_weight) for leaf in tree.flatten(part) if leaf is not None
        ]
        return given + [leaf.pieces for leaf in given if leaf.pieces is not None]

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Signature) and self._key == other._key

    def __hash__(self) -> int:
        return hash(self._key)

    def __repr__(self) -> str:
        return f"Signature({', '.join(f'{leaf.name}: {leaf.dtype}{list(leaf.shape)}' for leaf in self.leaves)})"


def _frozen(structure: Any) -> Any:
    if isinstance(structure, dict):
        return ("dict", *((k, _frozen(structure[k])) for k in sorted(structure)))
    if isinstance(structure, (list, tuple)):
        return ("list", *map(_frozen, structure))
    return structure

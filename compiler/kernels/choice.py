"""Which lowering computes a node: the one place where that is decided."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from ..ir import Node
from ..threads import threads
from . import convolution, lowerings  # noqa: F401  (the families register their lowerings)


class Chooser:
    """Picks the lowering of each node of one executable, and remembers what it picked.

    Attributes:
        picked: {node: name of its lowering} for nodes that had a choice.
        needs: the native libraries that the executable calls.
    """

    def __init__(self) -> None:
        self.picked: dict[Node, str] = {}
        self.needs: set[str] = set()
        self._forced = _forced()

    def __call__(self, n: Node, inputs: Sequence[Any], attrs: Mapping[str, Any]) -> Callable[..., Any]:
        """The function that computes `n` from `inputs` (arrays or tracers)."""
        found = lowerings.candidates(n.op.name, inputs, attrs)
        if not found:
            return n.op.lower
        forced = self._forced.get(n.op.name, self._forced.get("*"))
        for one in found:
            wanted = one.name == forced if forced is not None else one.prefer(inputs, attrs, threads())
            if wanted:
                self.picked[n] = one.name
                if one.needs is not None:
                    self.needs.add(one.needs)
                return one.run
        self.picked[n] = "xla"
        return n.op.lower


def _forced() -> dict[str, str]:
    """KERASOFT_KERNELS, e.g. ``conv=xla,lstm=native`` or ``*=xla``: lowerings that the user wants."""
    text = os.environ.get("KERASOFT_KERNELS", "")
    return dict(part.strip().split("=", 1) for part in text.split(",") if "=" in part)

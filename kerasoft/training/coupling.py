"""Which nodes of a forward graph make rows of a batch depend on one another, so that padding rows would matter."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

ALONG_AXIS = {
    "softmax", "log_softmax", "cumsum", "cumprod", "flip", "reverse", "sort", "argsort", "roll", "top_k", "concatenate",
    "logsumexp", "associative_scan", "scan",
}  # fmt: skip
"""Ops whose result at one place depends on other places along their axis, without the axis vanishing."""


def coupling_node(outputs: Sequence[Any], valid: Any) -> Any:
    """The first node that mixes rows, None if there is none.

    A node mixes rows when the batch axis of an input is gone from its result, stands in its result twice, or is the axis
    that the op works along. Nodes that depend on `valid` are taken to leave padding out by themselves.

    Args:
        outputs: nodes; valid: the graph's `valid` input, or None.
    """
    from ..compiler.ir import topological

    handled: set[Any] = set()
    for n in topological(outputs):
        if n is valid or any(i in handled for i in n.inputs):
            handled.add(n)
        elif n.inputs and _mixes_rows(n):
            return n
    return None


def _mixes_rows(n: Any) -> bool:
    before = max((_batch_axes(t) for i in n.inputs for t in _types(i.type)), key=len, default=[])
    if not before:
        return False
    after = [_batch_axes(t) for t in _types(n.type)]
    if any(len(axes) == 0 for axes in after) or any(len(axes) > 1 for axes in after):
        return True
    return n.op.name in ALONG_AXIS and any(axis in before for axis in _axes(n))


def _types(type_: Any) -> Iterable[Any]:
    return getattr(type_, "items", None) or (type_,)


def _batch_axes(type_: Any) -> list[int]:
    """Axes whose size grows with the batch."""
    return [i for i, d in enumerate(type_.shape) if not isinstance(d, int) and "b" in _names(d)]


def _names(dim: Any) -> set[str]:
    """Names of the unknown sizes in a size such as ``4*b``."""
    text = "".join(c if c.isalnum() or c == "_" else " " for c in str(dim))
    return set(text.split())


def _axes(n: Any) -> list[int]:
    rank = len(n.inputs[0].type.shape)
    axis = n.attrs.get("axis", n.attrs.get("axes", n.attrs.get("dimension")))
    if axis is None:
        return []
    return [a % rank for a in (axis if isinstance(axis, tuple) else (axis,)) if isinstance(a, int)]

"""Rules for attention and layer normalisation, each one op of the compiler."""

from __future__ import annotations

from typing import Any

import numpy as np

from ...compiler.ops.attention import HIDDEN
from .builder import Builder, rule


@rule("layer_norm")
def layer_norm(b: Builder, n: Any, inputs: list[str]) -> tuple:
    made = b.make("LayerNormalization", *inputs, axis=-1, epsilon=float(n.attrs["epsilon"]))
    return made, None  # what is saved for the gradient


@rule("attention")
def attention(b: Builder, n: Any, inputs: list[str]) -> tuple:
    query, key, value = n.inputs[:3]
    (t, heads), s = query.shape[1:3], key.shape[1]
    rest = list(inputs[3:])
    mask, bias = (rest.pop(0) if n.attrs[f"has_{name}"] else None for name in ("mask", "bias"))
    scaled = b.make("Mul", inputs[0], b.constant(n.attrs["scale"], n.inputs[0].dtype))
    scores = b.make(
        "MatMul",
        b.transpose(scaled, (0, 2, 1, 3)),
        b.transpose(_every_head(b, key, inputs[1], heads), (0, 2, 3, 1)),
    )
    if bias is not None:
        scores = b.make("Add", scores, bias)
    hidden = b.constant(HIDDEN, query.dtype)
    if mask is not None:
        scores = b.make("Where", mask, scores, hidden)
    if n.attrs["is_causal"]:
        ones = b.make("Expand", b.constant(np.ones((1, 1), np.int64)), b.vector((t, s)))
        scores = b.make("Where", b.cast(b.make("Trilu", ones, upper=0), "int64", "bool"), scores, hidden)
    weights = b.make("Softmax", scores, axis=-1)
    made = b.make("MatMul", weights, b.transpose(_every_head(b, value, inputs[2], heads), (0, 2, 1, 3)))
    return b.transpose(made, (0, 2, 1, 3)), None


def _every_head(b: Builder, x: Any, name: str, heads: int) -> str:
    """(b, s, g, n) -> (b, s, heads, n): neighbouring heads of queries share one of keys."""
    batch, steps, groups, size = x.shape
    if groups == heads:
        return name
    apart = b.make("Unsqueeze", name, b.ints([3]))
    shared = b.make("Expand", apart, b.vector((1, 1, 1, heads // groups, 1)))
    return b.make("Reshape", shared, b.constant([0, 0, heads, size], np.int64))

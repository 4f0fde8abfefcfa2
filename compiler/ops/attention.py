"""Attention as one op: a softmax over blocks of keys, so that no matrix of all scores stands in memory.

Forward keeps, of each query, the largest score and 1 / the sum of its weights; the gradient computes the scores of a block
again from these two. The logarithm of the sum would not do for both: a query that sees nothing has scores of -1e30, in
which it is lost.

Source: Milakov and Gimelshein 2018 (online softmax); Dao 2023, "FlashAttention-2", algorithms 1 and 2.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp

from ..errors import ShapeError
from ..ir import Node, TensorType, TupleType
from . import creation, shape
from .registry import VJP, item, op

BLOCK = 256  # keys of a block in XLA's lowering
HIDDEN = -1e30  # the score of a key that a mask hides


def causal_mask(queries: Any, keys: Any) -> Any:
    """True where key position <= query position: -> bool (1, 1, queries, keys)."""
    return shape.expand_dims(creation.tri(queries, keys, dtype="bool"), (0, 1))


# --- the lowering by XLA --------------------------------------------------------------------------------------------


class _Blocks:
    """Keys, values, mask and bias in blocks of keys; queries and key heads side by side: (b, g, r, t, d), (b, g, s, d)."""

    def __init__(self, query, key, value, rest, *, has_mask, has_bias, scale, is_causal):
        more = list(rest)
        mask, bias = (more.pop(0) if there else None for there in (has_mask, has_bias))
        self.kind = jnp.promote_types(query.dtype, jnp.float32)
        self.scale, self.is_causal = scale, is_causal
        self.t, self.s, self.groups = query.shape[1], key.shape[1], key.shape[2]
        self.repeats = query.shape[2] // key.shape[2]
        self.size = min(BLOCK, self.s) if isinstance(self.s, int) else self.s
        self.count = -(-self.s // self.size) if isinstance(self.s, int) and self.size else 1
        self.query = self.by_head(query)
        self.key, self.value = self.by_key_head(key), self.by_key_head(value)
        self.mask = None if mask is None else self.grouped(mask)
        self.bias = None if bias is None else self.grouped(bias.astype(self.kind))

    def by_head(self, x: Any) -> jax.Array:
        """(b, t, h, n) -> (b, g, r, t, n)."""
        b, t, _, n = x.shape
        return jnp.transpose(x.astype(self.kind).reshape((b, t, self.groups, self.repeats, n)), (0, 2, 3, 1, 4))

    def by_key_head(self, x: Any) -> jax.Array:
        """(b, s, g, n) -> (b, g, s, n), with zeros up to whole blocks."""
        x = jnp.swapaxes(x.astype(self.kind), 1, 2)
        return self.padded(x, 2)

    def padded(self, x: jax.Array, axis: int) -> jax.Array:
        missing = self.count * self.size - self.s if self.count > 1 else 0
        return jnp.pad(x, [(0, missing if i == axis else 0) for i in range(x.ndim)]) if missing else x

    def grouped(self, x: Any) -> jax.Array:
        """(b | 1, h | 1, t | 1, s | 1) -> (b | 1, g | 1, r | 1, t | 1, whole blocks | 1)."""
        b, h, t, s = x.shape
        heads = (1, 1) if h == 1 else (self.groups, self.repeats)
        return self.padded(jnp.reshape(x, (b, *heads, t, s)), 4 if s != 1 else -1)

    def heads_last(self, x: jax.Array) -> jax.Array:
        """(b, g, r, t, n) -> (b, t, h, n)."""
        b, g, r, t, n = x.shape
        return jnp.transpose(x, (0, 3, 1, 2, 4)).reshape((b, t, g * r, n))

    def part(self, x: jax.Array, i: Any, axis: int) -> jax.Array:
        return (
            x
            if self.count == 1 or x.shape[axis] == 1
            else jax.lax.dynamic_slice_in_dim(x, i * self.size, self.size, axis)
        )

    def scores(self, i: Any) -> tuple[jax.Array, jax.Array | None]:
        """Of block `i`: scores (b, g, r, t, block), and which of them count, or None for all."""
        made = jnp.einsum("bgrtd,bgsd->bgrts", self.query * self.scale, self.part(self.key, i, 2))
        if self.bias is not None:
            made = made + self.part(self.bias, i, 4)
        keys = i * self.size + jnp.arange(self.size)
        seen = None if self.mask is None else self.part(self.mask, i, 4)
        if self.is_causal:
            causal = keys <= jnp.arange(self.t)[:, None]
            seen = causal if seen is None else jnp.logical_and(seen, causal)
        if seen is not None:
            made = jnp.where(seen, made, HIDDEN)
        if self.count * self.size != self.s and self.count > 1:
            made = jnp.where(keys < self.s, made, -jnp.inf)
        return made, seen

    def over(self, step: Any, carry: Any) -> tuple:
        """``step(carry, block number)`` for each block: the last carry and the stacked results."""
        if self.count == 1:
            carry, made = step(carry, 0)
            return carry, jax.tree.map(lambda x: x[None], made)
        return jax.lax.scan(jax.checkpoint(step), carry, jnp.arange(self.count))

    def joined(self, x: jax.Array, axis: int) -> jax.Array:
        """Stacked blocks (blocks, ...), one after another along `axis` of a block; without what was padded."""
        if self.count == 1:
            return x[0]
        x = jnp.moveaxis(x, 0, axis)
        whole = (*x.shape[:axis], self.count * self.size, *x.shape[axis + 2 :])
        return jax.lax.slice_in_dim(x.reshape(whole), 0, self.s, axis=axis)


def _attention(query: Any, key: Any, value: Any, *rest: Any, **attrs: Any) -> tuple:
    """softmax(scale * query key' + bias) value: (b, t, h, d), (b, s, g, d), (b, s, g, e)[, bool mask][, bias]
    -> (b, t, h, e), and (b, h, t, 2): of each query the largest score and 1 / the sum of exp(score - largest)."""
    query, key, value, *others = map(jnp.asarray, (query, key, value, *rest))
    blocks = _Blocks(query, key, value, others, **attrs)

    def step(carry, i):
        made, most, total = carry
        scores, _ = blocks.scores(i)
        next_most = jnp.maximum(most, jax.lax.stop_gradient(jnp.max(scores, axis=-1)))
        base = jnp.where(next_most == -jnp.inf, 0, next_most)
        weights = jnp.exp(scores - base[..., None])
        less = jnp.exp(most - base)
        product = jnp.einsum("bgrts,bgse->bgrte", weights, blocks.part(blocks.value, i, 2))
        return (made * less[..., None] + product, next_most, total * less + jnp.sum(weights, axis=-1)), ()

    rows = blocks.query.shape[:4]
    start = (
        jnp.zeros((*rows, value.shape[-1]), blocks.kind),
        jnp.full(rows, -jnp.inf, blocks.kind),
        jnp.zeros(rows, blocks.kind),
    )
    (made, most, total), _ = blocks.over(step, start)
    saved = jnp.stack([most, 1 / total], axis=-1)
    saved = saved.reshape((rows[0], query.shape[2], rows[3], 2))
    return blocks.heads_last(made / total[..., None]).astype(query.dtype), saved


def _attention_grad(query: Any, key: Any, value: Any, *rest: Any, of_bias: bool = False, **attrs: Any) -> tuple:
    """Inputs of attention, its two results and the gradient of the first -> gradients of query, key and value, or of bias."""
    query, key, value, *others, out, saved, d_out = map(jnp.asarray, (query, key, value, *rest))
    blocks = _Blocks(query, key, value, others, **attrs)
    aligned: Any = blocks.bias  # to the scores; there if of_bias
    d_out, out = blocks.by_head(d_out), blocks.by_head(out)
    level = jnp.sum(d_out * out, axis=-1, keepdims=True)
    saved = saved.astype(blocks.kind).reshape((*blocks.query.shape[:4], 2))
    most, share = saved[..., :1], saved[..., 1:]

    def step(dq, i):
        scores, seen = blocks.scores(i)
        weights = jnp.exp(scores - most) * share
        slopes = weights * (jnp.einsum("bgrte,bgse->bgrts", d_out, blocks.part(blocks.value, i, 2)) - level)
        slopes = slopes if seen is None else jnp.where(seen, slopes, 0)
        if of_bias:
            axes = [k for k in range(4) if aligned.shape[k] == 1]
            if aligned.shape[4] != 1:
                return dq, jnp.sum(slopes, axis=axes, keepdims=True)
            return dq + jnp.sum(slopes, axis=[*axes, 4], keepdims=True), ()
        dq = dq + jnp.einsum("bgrts,bgsd->bgrtd", slopes, blocks.part(blocks.key, i, 2)) * blocks.scale
        dk = jnp.einsum("bgrts,bgrtd->bgsd", slopes, blocks.query) * blocks.scale
        return dq, (dk, jnp.einsum("bgrts,bgrte->bgse", weights, d_out))

    if of_bias:
        bias = others[-1]
        start = jnp.zeros(aligned.shape, blocks.kind) if aligned.shape[4] == 1 else jnp.zeros((), blocks.kind)
        total, parts = blocks.over(step, start)
        made = total if aligned.shape[4] == 1 else blocks.joined(parts, 4)
        return (made.reshape(bias.shape).astype(bias.dtype),)
    dq, (dk, dv) = blocks.over(step, jnp.zeros_like(blocks.query))
    dk, dv = (jnp.swapaxes(blocks.joined(d, 2), 1, 2) for d in (dk, dv))
    return blocks.heads_last(dq).astype(query.dtype), dk.astype(key.dtype), dv.astype(value.dtype)


# --- the ops --------------------------------------------------------------------------------------------------------


def _check(types: Sequence[Any], attrs: Mapping[str, Any]) -> None:
    query, key, value = types[:3]
    if not query.rank == key.rank == value.rank == 4:
        raise ShapeError(f"attention takes (batch, steps, heads, features) three times, got {query}, {key} and {value}")
    sizes = (query.shape[-1], key.shape[-1]), (key.shape[1], value.shape[1]), (key.shape[2], value.shape[2])
    for name, (one, other) in zip(("features of query and key", "steps of key and value", "their heads"), sizes):
        if isinstance(one, int) and isinstance(other, int) and one != other:
            raise ShapeError(
                f"attention of {query}, {key} and {value}: the {name} must be equal, got {one} and {other}"
            )
    if query.shape[2] % key.shape[2]:
        raise ShapeError(f"attention: {query.shape[2]} heads of query cannot share {key.shape[2]} heads of key evenly")
    whole = (query.shape[0], query.shape[2], query.shape[1], key.shape[1])
    for name, t in zip([n for n in ("mask", "bias") if attrs[f"has_{n}"]], types[3:]):
        if t.rank != 4 or any(
            isinstance(d, int) and isinstance(w, int) and d not in (1, w) for d, w in zip(t.shape, whole)
        ):
            raise ShapeError(f"attention: the {name} must broadcast to (batch, heads, queries, keys) {whole}, got {t}")


def _result(types: Sequence[Any], attrs: Mapping[str, Any]) -> Any:
    query, value = types[0], types[2]
    b, t, h, _ = query.shape
    return TupleType(
        (
            TensorType((b, t, h, value.shape[-1]), query.dtype),
            TensorType((b, h, t, 2), "float64" if query.dtype == "float64" else "float32"),
        )
    )


def _flops(products: int) -> Any:
    def flops(types: Sequence[Any], attrs: Mapping[str, Any], result: Any) -> int:
        known = [d if isinstance(d, int) else 1 for d in (*types[0].shape[1:3], types[1].shape[1])]
        features = sum(t.shape[-1] if isinstance(t.shape[-1], int) else 1 for t in (types[0], types[2]))
        return products * math.prod(known) * features

    return flops


def _gradient(n: Node, dy: tuple) -> tuple:
    if dy[1] is not None:  # what is saved is read by gradients; theirs are JAX's
        from ..gradient import vjp

        return vjp(n, dy)
    d_out = dy[0] if dy[0] is not None else shape.zeros_like(item(n, 0))
    given = (*n.inputs, item(n, 0), item(n, 1), d_out)
    main = attention_grad_op(*given, of_bias=False, **n.attrs)
    out = [item(main, i) for i in range(3)] + [None] * (len(n.inputs) - 3)
    if n.attrs["has_bias"]:
        out[-1] = item(attention_grad_op(*given, of_bias=True, **n.attrs), 0)
    return tuple(out)


def _grad_result(types: Sequence[Any], attrs: Mapping[str, Any]) -> Any:
    return TupleType((types[-4],)) if attrs["of_bias"] else TupleType(tuple(types[:3]))


attention_op = op("attention", lower=_attention, gradient=_gradient, check=_check, result=_result, flops=_flops(2))
attention_grad_op = op("attention_grad", lower=_attention_grad, gradient=VJP, result=_grad_result, flops=_flops(5))


def scaled_dot_product(
    query: Any,
    key: Any,
    value: Any,
    mask: Any = None,
    bias: Any = None,
    scale: float | None = None,
    is_causal: bool = False,
) -> Any:
    """softmax(scale * query key' + bias) value, for each head.

    Shapes: query (b, t, h, d), key (b, s, g, d), value (b, s, g, e) -> (b, t, h, e); h is a multiple of g, and heads of
        query that stand next to one another share a head of key and value.

    Args:
        mask: bool, broadcast to (b, h, t, s): which keys a query sees; a query that sees none gets the mean of all.
        bias: added to the scores, broadcast to (b, h, t, s).
        scale: 1 / sqrt(d) by default.
        is_causal: a query sees no later position.

    Raises:
        ShapeError: sizes that do not fit.
    """
    extra = [x for x in (mask, bias) if x is not None]
    made = attention_op(
        query,
        key,
        value,
        *extra,
        has_mask=mask is not None,
        has_bias=bias is not None,
        scale=float(1 / math.sqrt(query.shape[-1]) if scale is None else scale),
        is_causal=bool(is_causal),
    )
    return item(made, 0)

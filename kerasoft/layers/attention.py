"""Attention: weights = softmax(scores(query, key)), output = weights @ value; MultiHeadAttention."""

from __future__ import annotations

import math

from .. import initializers, ops
from .configured import Configured, build_inner, known, positive, refuse
from .einsum_dense import EinsumDense
from .noise import dropout_mask


class Attention(Configured):
    """Dot-product attention; called on [query, value] or [query, value, key].

    Shapes: query (batch, T, d), value (batch, S, v), key (batch, S, d) -> (batch, T, v).
    Masks: steps of value that are masked get no weight; masked steps of query give zeros.

    Args:
        use_scale: whether the scores are multiplied by a learnt number.
        score_mode: ``"dot"``, or ``"concat"`` (the sum of tanh(query + key), times a learnt number).
        dropout: fraction of the weights dropped in training.

    Source: Luong et al. 2015.
    """

    def __init__(self, use_scale=False, score_mode="dot", dropout=0.0, seed=None, **kwargs):
        super().__init__(**kwargs)
        if score_mode not in ("dot", "concat"):
            raise ValueError(
                "Invalid value for argument score_mode. Expected one of {'dot', 'concat'}. "
                f"Received: score_mode={score_mode}"
            )
        self.keep(use_scale=use_scale, score_mode=score_mode, dropout=dropout, seed=seed)
        self.supports_masking = True

    def build(self, input_shape):
        self.check(input_shape)
        self.scale = self.add_weight(name="scale", shape=(), initializer="ones") if self.use_scale else None
        if self.score_mode == "concat":
            self.concat_score_weight = self.add_weight(name="concat_score_weight", shape=(), initializer="ones")

    def check(self, inputs):  # the shapes
        nested = isinstance(inputs, (list, tuple)) and all(isinstance(x, (list, tuple)) for x in inputs)
        if not nested or not 2 <= len(inputs) <= 3:
            raise ValueError(
                f"{type(self).__name__} layer must be called on a list of 2 or 3 inputs, namely [query, value] or "
                f"[query, value, key]. Received: inputs={inputs}."
            )

    def scores(self, query, key):
        """How much each step of query attends to each of key: (batch, T, S)."""
        if self.score_mode == "dot":
            scores = ops.matmul(query, ops.transpose(key, (0, 2, 1)))
            return scores if self.scale is None else ops.multiply(scores, self.scale)
        both = ops.add(ops.expand_dims(query, -2), ops.expand_dims(key, -3))
        both = both if self.scale is None else ops.multiply(both, self.scale)
        return ops.multiply(ops.sum(ops.tanh(both), axis=-1), self.concat_score_weight)

    def call(self, inputs, mask=None, training=False, return_attention_scores=False, use_causal_mask=False):
        query, value = inputs[0], inputs[1]
        key = inputs[2] if len(inputs) > 2 else value
        query_mask, value_mask = (mask[0], mask[1]) if mask else (None, None)
        scores = self.scores(query, key)
        allowed = None if value_mask is None else ops.expand_dims(value_mask, -2)
        if use_causal_mask:
            causal = causal_mask(scores.shape[-2], scores.shape[-1])
            allowed = causal if allowed is None else ops.logical_and(allowed, causal)
        if allowed is not None:
            scores = ops.where(allowed, scores, ops.subtract(scores, 1e9))
        weights = ops.softmax(scores, axis=-1)
        used = weights
        if training and self.dropout > 0:
            used = ops.multiply(weights, dropout_mask(weights, self.dropout, self.seed))
        output = ops.matmul(used, value)
        if query_mask is not None:
            output = ops.where(ops.expand_dims(query_mask, -1), output, ops.zeros_like(output))
        return (output, used) if return_attention_scores else output

    def compute_mask(self, inputs, mask=None):
        return mask[0] if mask else None


class AdditiveAttention(Attention):
    """Attention with scores sum(scale * tanh(query + key)), scale learnt, one number a feature.

    Source: Bahdanau, Cho & Bengio 2015.
    """

    def __init__(self, use_scale=True, dropout=0.0, **kwargs):
        super().__init__(use_scale=use_scale, dropout=dropout, **kwargs)

    def build(self, input_shape):
        self.check(input_shape)
        features = known(self, input_shape[0], -1)
        self.scale = None
        if self.use_scale:
            self.scale = self.add_weight(name="scale", shape=(features,), initializer="glorot_uniform")

    def scores(self, query, key):
        both = ops.tanh(ops.add(ops.expand_dims(query, -2), ops.expand_dims(key, -3)))
        return ops.sum(both if self.scale is None else ops.multiply(both, self.scale), axis=-1)

    def get_config(self):
        config = super().get_config()
        del config["score_mode"]
        return config


def causal_mask(queries, keys):
    """bool (1, T, S): step t may see steps up to t."""
    rows, columns = ops.arange(queries), ops.arange(keys)
    return ops.expand_dims(ops.greater_equal(ops.expand_dims(rows, 1), ops.expand_dims(columns, 0)), 0)


class MultiHeadAttention(Configured):
    """Several attentions side by side, each on its own projection of query, key and value.

    Shapes: query (batch, T, d), value (batch, S, v) -> (batch, T, d), or the size `output_shape`.

    Args:
        num_heads: number of attentions.
        key_dim: size of a projected query and key; `value_dim` of a projected value (the same by default).
        dropout: fraction of the attention weights dropped in training.

    Called as ``layer(query, value, key=None, attention_mask=None, use_causal_mask=False)``, with `attention_mask` bool
    (batch, T, S). Padding masks of query, value and key are respected.

    Source: Vaswani et al. 2017.
    """

    def __init__(
        self,
        num_heads,
        key_dim,
        value_dim=None,
        dropout=0.0,
        use_bias=True,
        output_shape=None,
        attention_axes=None,
        sliding_window=None,
        flash_attention=None,
        kernel_initializer="glorot_uniform",
        bias_initializer="zeros",
        kernel_regularizer=None,
        bias_regularizer=None,
        activity_regularizer=None,
        kernel_constraint=None,
        bias_constraint=None,
        use_gate=False,
        seed=None,
        **kwargs,
    ):
        super().__init__(activity_regularizer=activity_regularizer, **kwargs)
        refuse(self, sliding_window=sliding_window, use_gate=use_gate, flash_attention=flash_attention)
        if attention_axes not in (None, 1, (1,), [1]):
            raise ValueError(
                f"MultiHeadAttention attends over axis 1 of (batch, steps, features) only. "
                f"Received: attention_axes={attention_axes}"
            )
        if output_shape is not None:
            output_shape = (output_shape,) if isinstance(output_shape, int) else tuple(output_shape)
            if len(output_shape) != 1:
                raise ValueError(f"`output_shape` must be one size. Received: output_shape={output_shape}")
        self.keep(
            num_heads=positive(self, "num_heads", num_heads),
            key_dim=positive(self, "key_dim", key_dim),
            value_dim=key_dim if value_dim is None else positive(self, "value_dim", value_dim),
            dropout=dropout,
            use_bias=use_bias,
            use_gate=False,
            output_shape=output_shape,
            attention_axes=attention_axes,
            sliding_window=None,
            kernel_initializer=kernel_initializer,
            bias_initializer=bias_initializer,
            kernel_regularizer=kernel_regularizer,
            bias_regularizer=bias_regularizer,
            kernel_constraint=kernel_constraint,
            bias_constraint=bias_constraint,
            seed=seed,
        )
        self.supports_masking = True

    def build(self, query_shape, value_shape, key_shape=None):
        key_shape = key_shape or value_shape
        for name, shape in (("query", query_shape), ("value", value_shape), ("key", key_shape)):
            if len(shape) != 3:
                raise ValueError(
                    f"MultiHeadAttention '{self.name}' needs {name} of shape (batch, steps, features), got {shape}."
                )
        heads = self.num_heads
        self.query_dense = self.projection("query", "abc,cde->abde", (None, heads, self.key_dim), "de")
        self.key_dense = self.projection("key", "abc,cde->abde", (None, heads, self.key_dim), "de")
        self.value_dense = self.projection("value", "abc,cde->abde", (None, heads, self.value_dim), "de")
        size = self.output_shape[0] if self.output_shape else known(self, query_shape, -1)
        self.output_dense = self.projection("attention_output", "abcd,cde->abe", (None, size), "e")
        build_inner(self.query_dense, query_shape)
        build_inner(self.key_dense, key_shape)
        build_inner(self.value_dense, value_shape)
        build_inner(self.output_dense, (query_shape[0], query_shape[1], heads, self.value_dim))

    def projection(self, name, equation, output_shape, bias_axes):
        def again(initializer):  # its own values for each projection
            return initializer.clone() if isinstance(initializer, initializers.Initializer) else initializer

        return EinsumDense(
            equation,
            output_shape,
            bias_axes=bias_axes if self.use_bias else None,
            kernel_initializer=again(self.kernel_initializer),
            bias_initializer=again(self.bias_initializer),
            kernel_regularizer=self.kernel_regularizer,
            bias_regularizer=self.bias_regularizer,
            kernel_constraint=self.kernel_constraint,
            bias_constraint=self.bias_constraint,
            dtype=self.dtype_policy,
            name=name,
        )

    def call(
        self,
        query,
        value,
        key=None,
        query_mask=None,
        value_mask=None,
        key_mask=None,
        attention_mask=None,
        return_attention_scores=False,
        training=None,
        use_causal_mask=False,
    ):
        key = value if key is None else key
        allowed = None if attention_mask is None else ops.cast(attention_mask, "bool")
        parts = [
            None if query_mask is None else ops.expand_dims(query_mask, -1),
            None if value_mask is None else ops.expand_dims(value_mask, -2),
            None if key_mask is None else ops.expand_dims(key_mask, -2),
            causal_mask(query.shape[1], key.shape[1]) if use_causal_mask else None,
        ]
        for part in parts:
            if part is not None:
                part = ops.cast(part, "bool")
                allowed = part if allowed is None else ops.logical_and(allowed, part)
        q = ops.multiply(self.query_dense(query), 1.0 / math.sqrt(self.key_dim))
        k, v = self.key_dense(key), self.value_dense(value)
        scores = ops.einsum("bthd,bshd->bhts", q, k)
        if allowed is not None:
            scores = ops.where(ops.expand_dims(allowed, 1), scores, ops.full_like(scores, -1e9))
        weights = ops.softmax(scores, axis=-1)
        used = weights
        if training and self.dropout > 0:
            used = ops.multiply(weights, dropout_mask(weights, self.dropout, self.seed))
        output = self.output_dense(ops.einsum("bhts,bshd->bthd", used, v))
        return (output, weights) if return_attention_scores else output

    def compute_mask(self, inputs, mask=None):
        return mask

    def get_config(self):
        return {"activity_regularizer": None, **super().get_config()}

"""Attention: weights = softmax(scores(query, key)), output = weights @ value."""

from __future__ import annotations

from .. import ops
from ..ops.nn import fused_attention
from .configured import Configured, known
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
        if not nested:
            raise ValueError(
                f"{type(self).__name__} layer must be called on a list of inputs, namely [query, value] or "
                f"[query, value, key]. Received: inputs={inputs}."
            )
        if not 2 <= len(inputs) <= 3:
            raise ValueError(
                f"{type(self).__name__} layer accepts inputs list of length 2 or 3, namely [query, value] or "
                f"[query, value, key]. Received length: {len(inputs)}."
            )

    def scores(self, query, key):
        """How much each step of query attends to each of key: (batch, T, S)."""
        if self.score_mode == "dot":
            scores = ops.matmul(query, ops.swapaxes(key, -1, -2))
            return scores if self.scale is None else ops.multiply(scores, self.scale)
        both = ops.add(ops.expand_dims(query, -2), ops.expand_dims(key, -3))
        both = both if self.scale is None else ops.multiply(both, self.scale)
        return ops.multiply(ops.sum(ops.tanh(both), axis=-1), self.concat_score_weight)

    def call(self, inputs, mask=None, training=False, return_attention_scores=False, use_causal_mask=False):
        if mask is not None and not isinstance(mask, (list, tuple)):
            raise ValueError(
                f"{type(self).__name__} layer mask must be a list, namely [query_mask, value_mask]. Received: mask={mask}."
            )
        if mask is not None and not 2 <= len(mask) <= 3:
            raise ValueError(
                f"{type(self).__name__} layer accepts mask list of length 2 or 3. Received: inputs={inputs}, mask={mask}."
            )
        query, value = inputs[0], inputs[1]
        key = inputs[2] if len(inputs) > 2 else value
        query_mask, value_mask = (mask[0], mask[1]) if mask else (None, None)
        if self._may_fuse(query, value_mask, training, return_attention_scores, use_causal_mask):
            return self._cleared(self._fused(query, key, value, value_mask, use_causal_mask), query_mask)
        scores = self.scores(query, key)
        allowed = None if value_mask is None else ops.expand_dims(value_mask, -2)
        if use_causal_mask:
            causal = causal_mask(scores.shape[-2], scores.shape[-1])
            allowed = causal if allowed is None else ops.logical_and(allowed, causal)
        if allowed is not None:
            scores = ops.where(allowed, scores, ops.subtract(scores, 65504.0 if scores.dtype == "float16" else 1e9))
        weights = ops.softmax(scores, axis=-1)
        used = weights
        if training and self.dropout > 0:
            used = ops.multiply(weights, dropout_mask(weights, self.dropout, self.seed))
        output = self._cleared(ops.matmul(used, value), query_mask)
        return (output, used) if return_attention_scores else output

    def _may_fuse(self, query, value_mask, training, scores_wanted, use_causal_mask):
        """Whether the compiler's attention gives the numbers that are wanted: products as scores, no weights to return or
        drop, no step that two masks together may keep from seeing anything."""
        products = self.score_mode == "dot" and type(self).scores is Attention.scores
        dropping = training and self.dropout > 0
        both = value_mask is not None and use_causal_mask
        return products and len(query.shape) == 3 and not (scores_wanted or dropping or both)

    def _fused(self, query, key, value, value_mask, use_causal_mask):
        query = query if self.scale is None else ops.multiply(query, self.scale)
        heads = [ops.expand_dims(x, 2) for x in (query, key, value)]
        bias = None
        if value_mask is not None:
            low = -65504.0 if query.dtype == "float16" else -1e9
            bias = ops.multiply(ops.cast(ops.logical_not(value_mask), query.dtype), low)[:, None, None, :]
        return ops.squeeze(fused_attention(*heads, None, bias, 1.0, bool(use_causal_mask)), 2)

    def _cleared(self, output, query_mask):
        return (
            output if query_mask is None else ops.where(ops.expand_dims(query_mask, -1), output, ops.zeros_like(output))
        )

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

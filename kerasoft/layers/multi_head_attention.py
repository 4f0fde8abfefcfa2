"""MultiHeadAttention and GroupQueryAttention: several attentions side by side on projections of query, key and value."""

from __future__ import annotations

import math
import string

from .. import initializers, ops
from ..ops.nn import fused_attention
from ..scope import get_mask, set_mask
from .attention import causal_mask
from .configured import Configured, build_inner, positive
from .einsum_dense import EinsumDense
from .noise import dropout_mask

_HIDDEN = -0.7 * 3.4028235e38  # what takes the place of a masked score


class HeadedAttention(Configured):
    """Base of the attentions with heads: projections, masks and the attention itself."""

    _policy_for_sublayers = True

    attention_axes: tuple[int, ...] | None = (1,)

    def keep_window(self, sliding_window, flash_attention, dropout):
        """Checks and keeps what the attention sees.

        Raises:
            ValueError: `sliding_window` is no positive int; flash attention together with dropout.
        """
        if sliding_window is not None and (not isinstance(sliding_window, int) or sliding_window <= 0):
            raise ValueError(
                f"`sliding_window` must be `None` or a positive integer. Received: sliding_window={sliding_window}"
            )
        if flash_attention and dropout > 0.0:
            raise ValueError(
                "Dropout is not supported when flash attention is enabled. Please set dropout to 0.0 to use flash "
                "attention."
            )
        self.keep(sliding_window=sliding_window, dropout=dropout)
        self._flash_attention = bool(flash_attention)  # the same numbers: fused where that is possible in any case
        self.supports_masking = True

    def projection(self, name, equation, output_shape, bias_axes, activation=None):
        def again(initializer):  # its own values for each projection
            return initializer.clone() if isinstance(initializer, initializers.Initializer) else initializer

        made = EinsumDense(
            equation,
            output_shape,
            activation=activation,
            bias_axes=bias_axes if self.use_bias else None,
            kernel_initializer=again(self.kernel_initializer),
            bias_initializer=again(self.bias_initializer),
            kernel_regularizer=self.kernel_regularizer,
            bias_regularizer=self.bias_regularizer,
            activity_regularizer=self.activity_regularizer,
            kernel_constraint=self.kernel_constraint,
            bias_constraint=self.bias_constraint,
            dtype=self.dtype_policy,
            name=name,
        )
        made.supports_masking = True  # the masks of query, key and value are this layer's business
        return made

    def allowed(self, query, key, masks, attention_mask):
        """Which steps of query may see which of key, bool (batch or 1, T or 1, S or 1), or None: all masks together but
        the causal one."""
        query_mask, value_mask, key_mask = masks
        parts = [
            None if query_mask is None else ops.expand_dims(query_mask, -1),
            None if value_mask is None else ops.expand_dims(value_mask, -2),
            None if key_mask is None else ops.expand_dims(key_mask, -2),
            None if self.sliding_window is None else _band(query.shape[1], key.shape[1], self.sliding_window),
            attention_mask,
        ]
        allowed = None
        for part in parts:
            if part is not None:
                part = ops.cast(part, "bool")
                allowed = part if allowed is None else ops.logical_and(allowed, part)
        return allowed

    def attend(self, query, key, value, equations, allowed, is_causal, training, scores_wanted):
        """The heads' outputs, and the weights given to each step; no weights (None) where they are not wanted.

        Raises:
            ValueError: the weights are wanted of flash attention.
        """
        if self._flash_attention and scores_wanted:
            raise ValueError(
                "Returning attention scores is not supported when flash attention is enabled. Please disable flash "
                "attention to access attention scores."
            )
        products, combination = equations
        axes = len(self.attention_axes)
        if self._may_fuse(query, allowed, training, scores_wanted):
            mask = None if allowed is None else ops.expand_dims(allowed, 1)
            return fused_attention(query, key, value, mask, None, 1.0 / math.sqrt(query.shape[-1]), is_causal), None
        if is_causal:
            causal = causal_mask(query.shape[1], key.shape[1])
            allowed = causal if allowed is None else ops.logical_and(allowed, causal)
        key, value = self.for_each_head(key), self.for_each_head(value)
        query = ops.multiply(query, 1.0 / math.sqrt(query.shape[-1]))
        scores = ops.einsum(products, key, query)
        if allowed is not None:
            while len(allowed.shape) < len(scores.shape):
                allowed = ops.expand_dims(allowed, -2 * axes - 1)
            low = _HIDDEN if scores.dtype != "float16" else -3e4
            scores = ops.where(allowed, scores, ops.full_like(scores, low))
        over = tuple(range(len(scores.shape) - axes, len(scores.shape)))
        weights = _softmax(scores, over)
        # As in Keras: where a step may see nothing, its weights are even, unless weights or dropout were asked for.
        if allowed is not None and (scores_wanted or self.dropout > 0 or len(query.shape) != 4):
            weights = ops.where(allowed, weights, ops.zeros_like(weights))
        used = weights
        if training and self.dropout > 0:
            used = ops.multiply(weights, dropout_mask(weights, self.dropout, self.seed))
        return ops.einsum(combination, used, value), weights

    def _may_fuse(self, query, allowed, training, scores_wanted):
        """Whether the compiler's attention gives the numbers that are wanted: no weights to return, drop or clear."""
        if scores_wanted or (training and self.dropout > 0):
            return False
        return len(query.shape) == 4 and self.attention_axes == (1,) and (allowed is None or self.dropout == 0)

    def for_each_head(self, x):
        """Keys or values (batch, S, heads, size) for every head of the query."""
        return x

    def compute_mask(self, inputs, mask=None):
        return None  # set in `call`

    def get_config(self):
        return {"activity_regularizer": None, **super().get_config()}


class MultiHeadAttention(HeadedAttention):
    """Several attentions side by side, each on its own projection of query, key and value.

    Shapes: query (batch, T, d), value (batch, S, v) -> (batch, T, d), or (batch, T, *output_shape); any number of axes
    between batch and features, of which those of `attention_axes` are attended over.

    Args:
        num_heads: number of attentions.
        key_dim: size of a projected query and key; `value_dim` of a projected value (the same by default).
        dropout: fraction of the attention weights dropped in training.
        output_shape: sizes of the output after its steps; query's last size by default.
        attention_axes: axes attended over; all but batch and features by default.
        sliding_window: how many steps away a step sees at most, itself counted.
        flash_attention: accepted; attention is fused in any case, but where weights are dropped or returned.
        use_gate: whether a sigmoid of another projection of query multiplies the heads' outputs.

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
        self.keep_window(sliding_window, flash_attention, dropout)
        if isinstance(attention_axes, int):
            attention_axes = (attention_axes,)
        elif attention_axes and not isinstance(attention_axes, (list, tuple)):
            raise ValueError(
                f"`attention_axes` must be an int, list, or tuple. Received: attention_axes={attention_axes}"
            )
        if output_shape:
            output_shape = (output_shape,) if isinstance(output_shape, int) else output_shape
            if not isinstance(output_shape, (list, tuple)):
                raise ValueError(
                    f"Invalid `output_shape`: {output_shape}. When specified, the `output_shape` should be of type "
                    "tuple, list, or int."
                )
            output_shape = tuple(output_shape)
        self.keep(
            num_heads=positive(self, "num_heads", num_heads),
            key_dim=positive(self, "key_dim", key_dim),
            value_dim=key_dim if value_dim is None else positive(self, "value_dim", value_dim),
            use_bias=use_bias,
            use_gate=use_gate,
            output_shape=output_shape,
            attention_axes=attention_axes,
            kernel_initializer=kernel_initializer,
            bias_initializer=bias_initializer,
            kernel_regularizer=kernel_regularizer,
            bias_regularizer=bias_regularizer,
            kernel_constraint=kernel_constraint,
            bias_constraint=bias_constraint,
            seed=seed,
        )

    def build(self, query_shape, value_shape, key_shape=None):
        key_shape = value_shape if key_shape is None else key_shape
        if tuple(value_shape[1:-1]) != tuple(key_shape[1:-1]):
            raise ValueError(
                "All dimensions of `value` and `key`, except the last one, must be equal. Received: "
                f"value_shape={value_shape} and key_shape={key_shape}"
            )
        heads = self.num_heads
        self.query_dense = self.into_heads("query", query_shape, (heads, self.key_dim))
        self.key_dense = self.into_heads("key", key_shape, (heads, self.key_dim))
        if self.use_gate:
            self._gate_dense = self.into_heads("gate", query_shape, (heads, self.value_dim), "sigmoid")
        self.value_dense = self.into_heads("value", value_shape, (heads, self.value_dim))
        rank = len(value_shape) + 1
        axes = self.attention_axes
        self.attention_axes = (
            tuple(range(1, rank - 2)) if axes is None else tuple(a if a >= 0 else rank - 1 + a for a in axes)
        )
        sizes = list(self.output_shape) if self.output_shape else [query_shape[-1]]
        equation, bias_axes, free = _projection_equation(len(query_shape) - 1, 2, len(sizes))
        self.output_dense = self.projection("attention_output", equation, [None] * free + sizes, bias_axes)
        build_inner(self.output_dense, (*query_shape[:-1], heads, self.value_dim))

    # What Keras calls its projections inside.
    _query_dense = property(lambda self: self.query_dense)
    _key_dense = property(lambda self: self.key_dense)
    _value_dense = property(lambda self: self.value_dense)
    _output_dense = property(lambda self: self.output_dense)

    def into_heads(self, name, shape, sizes, activation=None):
        equation, bias_axes, free = _projection_equation(len(shape) - 1, 1, 2)
        made = self.projection(name, equation, [None] * free + list(sizes), bias_axes, activation)
        build_inner(made, shape)
        return made

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
        query_mask = get_mask(query)  # Keras looks at the tensor's own mask only
        masks = (query_mask, value_mask, key_mask)
        allowed = self.allowed(query, key, masks, attention_mask)
        gate = self._gate_dense(query) if self.use_gate else None
        q, k, v = self.query_dense(query), self.key_dense(key), self.value_dense(value)
        equations = _attention_equations(len(q.shape), self.attention_axes)
        causal = bool(use_causal_mask)
        heads, weights = self.attend(q, k, v, equations, allowed, causal, training, return_attention_scores)
        output = self.output_dense(heads if gate is None else ops.multiply(heads, gate))
        if query_mask is not None:
            set_mask(output, query_mask)
        return (output, weights) if return_attention_scores else output


class GroupedQueryAttention(HeadedAttention):
    """Attention in which several heads of query share one head of key and value (`GroupQueryAttention`).

    Shapes: query (batch, T, d), value (batch, S, v) -> (batch, T, d).

    Args:
        head_dim: size of a projected query, key and value.
        num_query_heads: a multiple of `num_key_value_heads`.
        dropout, use_bias, sliding_window, flash_attention, use_gate: as for `MultiHeadAttention`.

    Raises:
        ValueError: the query heads cannot be shared out evenly.

    Source: Ainslie et al. 2023.
    """

    def __init__(
        self,
        head_dim,
        num_query_heads,
        num_key_value_heads,
        dropout=0.0,
        use_bias=True,
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
        if num_query_heads % num_key_value_heads:
            raise ValueError("`num_query_heads` must be divisible by `num_key_value_heads`.")
        self.keep_window(sliding_window, flash_attention, dropout)
        self.keep(
            head_dim=head_dim,
            num_query_heads=num_query_heads,
            num_key_value_heads=num_key_value_heads,
            use_bias=use_bias,
            use_gate=use_gate,
            kernel_initializer=kernel_initializer,
            bias_initializer=bias_initializer,
            kernel_regularizer=kernel_regularizer,
            bias_regularizer=bias_regularizer,
            kernel_constraint=kernel_constraint,
            bias_constraint=bias_constraint,
            seed=seed,
        )

    def build(self, query_shape, value_shape, key_shape=None):
        key_shape = value_shape if key_shape is None else key_shape
        many, few, size = self.num_query_heads, self.num_key_value_heads, self.head_dim
        self._query_dense = self.projection("query", "bqm,muh->bquh", (None, many, size), "uh")
        self._key_dense = self.projection("key", "bkm,mvh->bkvh", (None, few, size), "vh")
        build_inner(self._query_dense, query_shape)
        build_inner(self._key_dense, key_shape)
        if self.use_gate:
            self._gate_dense = self.projection("gate", "bqm,muh->bquh", (None, many, size), "uh", "sigmoid")
            build_inner(self._gate_dense, query_shape)
        self._value_dense = self.projection("value", "bkm,mvh->bkvh", (None, few, size), "vh")
        build_inner(self._value_dense, value_shape)
        self._output_dense = self.projection("attention_output", "bquh,uhm->bqm", (None, query_shape[-1]), "m")
        build_inner(self._output_dense, (None, None, many, size))

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
        allowed = self.allowed(query, key, (query_mask, value_mask, key_mask), attention_mask)
        gate = self._gate_dense(query) if self.use_gate else None
        q, k, v = self._query_dense(query), self._key_dense(key), self._value_dense(value)
        equations, causal = _attention_equations(4, (1,)), bool(use_causal_mask)
        heads, weights = self.attend(q, k, v, equations, allowed, causal, training, return_attention_scores)
        output = self._output_dense(heads if gate is None else ops.multiply(heads, gate))
        return (output, weights) if return_attention_scores else output

    def for_each_head(self, x):
        return ops.repeat(x, self.num_query_heads // self.num_key_value_heads, axis=2)

    def compute_mask(self, inputs, mask=None):
        return mask


GroupQueryAttention = GroupedQueryAttention


def _band(queries, keys, width):
    """bool (1, T, S): step t may see the steps less than `width` away."""
    away = ops.subtract(ops.expand_dims(ops.arange(queries), 1), ops.expand_dims(ops.arange(keys), 0))
    return ops.expand_dims(ops.less(ops.absolute(away), width), 0)


def _softmax(scores, axes):
    if len(axes) == 1:
        return ops.softmax(scores, axis=axes[0])
    return ops.exp(ops.subtract(scores, ops.logsumexp(scores, axis=axes, keepdims=True)))


def _projection_equation(free, bound, made):
    """Equation and bias axes of a projection that keeps `free` axes, contracts `bound` and makes `made`; kept axes."""
    letters = string.ascii_lowercase
    kept, gone, new = letters[:free], letters[free : free + bound], letters[free + bound : free + bound + made]
    return f"{kept}{gone},{gone}{new}->{kept}{new}", new, free - 1


def _attention_equations(rank, axes):
    """The einsums of scores (of key, query) and of outputs (of scores, value) for projections of `rank` axes."""
    target = string.ascii_lowercase[:rank]
    others = iter(string.ascii_lowercase[rank:])
    source = "".join(next(others) if i in axes else letter for i, letter in enumerate(target))
    batch = [target[i] for i in range(rank - 1) if i not in axes]
    product = "".join(batch + [target[i] for i in axes] + [source[i] for i in axes])
    return f"{source},{target}->{product}", f"{product},{source}->{target}"

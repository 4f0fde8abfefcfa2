"""Embedding: a learnt row for each integer; Masking: steps to be skipped."""

from __future__ import annotations

from .. import ops
from ..compiler.ops.indexing import embedding_lookup
from ..scope import set_mask
from .configured import Configured
from .lora import LowRank, low_rank


class Embedding(LowRank, Configured):
    """The row of a learnt table for each integer.

    Shapes: ints (batch, ...) -> (batch, ..., output_dim).

    Args:
        input_dim: number of rows; inputs are 0 ... input_dim - 1.
        output_dim: size of a row.
        mask_zero: whether input 0 means "no step here": later layers skip it.
        weights: first values of the table, (input_dim, output_dim).

    >>> import kerasoft as ks
    >>> ks.layers.Embedding(1000, 16)(ks.Input((20,), dtype="int32")).shape
    (None, 20, 16)
    """

    def __init__(
        self,
        input_dim,
        output_dim,
        embeddings_initializer="uniform",
        embeddings_regularizer=None,
        embeddings_constraint=None,
        mask_zero=False,
        weights=None,
        lora_rank=None,
        lora_alpha=None,
        quantization_config=None,
        **kwargs,
    ):
        if "input_length" in kwargs:  # Keras 2; nothing needs it
            kwargs.pop("input_length")
        super().__init__(**kwargs)
        self.keep_lora(lora_rank, lora_alpha)
        self.keep(
            input_dim=_positive("input_dim", input_dim),
            output_dim=_positive("output_dim", output_dim),
            embeddings_initializer=embeddings_initializer,
            embeddings_regularizer=embeddings_regularizer,
            embeddings_constraint=embeddings_constraint,
            mask_zero=mask_zero,
            quantization_config=quantization_config,
        )
        self.supports_masking = mask_zero
        self.autocast = False
        if weights is not None:
            self.build()
            self.built = True
            self.set_weights(weights if isinstance(weights, list) and len(weights) == 1 else [weights])

    lora_kernel = "embeddings"
    embeddings = low_rank("embeddings")

    def build(self, input_shape=None):
        shape = (self.input_dim, self.output_dim)
        if self.quantization_mode:
            self.quantized_build(shape, mode=self.quantization_mode, config=self.quantization_config)
        else:
            self.embeddings = self.weight("embeddings", shape)
        self.build_lora()

    def call(self, inputs):
        if inputs.dtype != "int32":
            inputs = ops.cast(inputs, "int32")
        rows = embedding_lookup(ops.convert_to_tensor(self._embeddings), inputs)
        if self.lora_enabled:
            thin = embedding_lookup(ops.convert_to_tensor(self.lora_embeddings_a), inputs)
            rows = ops.add(
                rows, ops.multiply(ops.matmul(thin, self.lora_embeddings_b), self.lora_alpha / self.lora_rank)
            )
        return ops.cast(rows, self.compute_dtype)

    def compute_mask(self, inputs, mask=None):
        return ops.not_equal(inputs, 0) if self.mask_zero else None

    def mask_sources(self, inputs, previous):
        return [(inputs, 1)]

    def get_config(self):
        return {"activity_regularizer": None, **super().get_config()}


class ReversibleEmbedding(Embedding):
    """An embedding that also goes back: from vectors to a score for each integer, with ``reverse=True``.

    Args:
        tie_weights: whether the way back uses the same table, transposed; else a second one.
        reverse_dtype: the dtype of the way back.
        logit_soft_cap: a bound on the scores, kept smoothly with tanh.
    """

    def __init__(
        self,
        input_dim,
        output_dim,
        tie_weights=True,
        embeddings_initializer="uniform",
        embeddings_regularizer=None,
        embeddings_constraint=None,
        mask_zero=False,
        reverse_dtype=None,
        logit_soft_cap=None,
        **kwargs,
    ):
        super().__init__(
            input_dim,
            output_dim,
            embeddings_initializer=embeddings_initializer,
            embeddings_regularizer=embeddings_regularizer,
            embeddings_constraint=embeddings_constraint,
            mask_zero=mask_zero,
            **kwargs,
        )
        self.keep(tie_weights=tie_weights, reverse_dtype=reverse_dtype, logit_soft_cap=logit_soft_cap)

    def build(self, input_shape=None):
        super().build(input_shape)
        if not self.tie_weights and not self.quantization_mode:
            self.reverse_embeddings = self.weight("reverse_embeddings", (self.output_dim, self.input_dim), "embeddings")

    def call(self, inputs, reverse=False):
        if not reverse:
            result = super().call(inputs)
            if self.mask_zero:
                set_mask(result, ops.not_equal(inputs, 0))
            return result
        kernel = ops.transpose(self.embeddings) if self.tie_weights else self.reverse_embeddings
        if self.reverse_dtype is not None:
            inputs, kernel = ops.cast(inputs, self.reverse_dtype), ops.cast(kernel, self.reverse_dtype)
        scores = ops.matmul(inputs, kernel)
        cap = self.logit_soft_cap
        return scores if cap is None else ops.multiply(ops.tanh(ops.divide(scores, cap)), cap)

    def compute_mask(self, inputs, mask=None):
        return None  # set in `call`


def _positive(name, value):
    if isinstance(value, bool) or not hasattr(value, "__index__") or int(value) <= 0:
        raise ValueError(
            f"`{name}` must be a positive integer. Received: {name}={value} (of type {type(value).__name__})."
        )
    return int(value)


class Masking(Configured):
    """Steps whose features all equal `mask_value` are zeroed and skipped by later layers.

    Shapes: (batch, steps, features) -> the same.
    """

    _stateless = True

    def __init__(self, mask_value=0.0, **kwargs):
        super().__init__(**kwargs)
        self.keep(mask_value=mask_value)
        self.supports_masking = True

    def compute_mask(self, inputs, mask=None):
        return ops.any(ops.not_equal(inputs, self.mask_value), axis=-1)

    def mask_sources(self, inputs, previous):
        return [(inputs, 2)]

    def call(self, inputs):
        keep = ops.any(ops.not_equal(inputs, self.mask_value), axis=-1, keepdims=True)
        return ops.where(keep, inputs, ops.zeros_like(inputs))

"""CategoryEncoding: class numbers to one-hot, multi-hot or counted rows."""

from __future__ import annotations

from ... import ops
from ...tensors import KerasTensor
from ..configured import Configured
from .encoding import encode


class CategoryEncoding(Configured):
    """Whole numbers from 0 to `num_tokens` - 1 as rows of `num_tokens`.

    Args:
        num_tokens: columns of the result.
        output_mode: ``one_hot`` (each element a row), ``multi_hot`` or ``count`` (each sample a row).
        sparse: in a model the result is sparse rows, for SparseDense; in calls on arrays it is dense.

    `count_weights` of the call, for ``count``, says how much each element counts.

    >>> import kerasoft as ks
    >>> ks.layers.CategoryEncoding(3, "count")([[0, 2, 2]]).tolist()
    [[1.0, 0.0, 2.0]]
    """

    def __init__(self, num_tokens=None, output_mode="multi_hot", sparse=False, **kwargs):
        super().__init__(**kwargs)
        output_mode = "multi_hot" if output_mode == "binary" else output_mode
        if output_mode not in ("count", "one_hot", "multi_hot"):
            raise ValueError(f"Unknown arg for output_mode: {output_mode}")
        if num_tokens is None:
            raise ValueError(
                "num_tokens must be set to use this layer. If the number of tokens is not known beforehand, use the "
                "IntegerLookup layer instead."
            )
        if num_tokens < 1:
            raise ValueError(f"`num_tokens` must be >= 1. Received: num_tokens={num_tokens}.")
        self.keep(num_tokens=num_tokens, output_mode=output_mode)
        self.sparse = sparse

    def compute_output_shape(self, input_shape):
        shape = tuple(input_shape)
        if self.output_mode == "one_hot" and (len(shape) == 1 or shape[-1:] != (1,)):
            return (*shape, self.num_tokens)
        return (*shape[:-1], self.num_tokens)

    def compute_output_spec(self, inputs, count_weights=None):
        shape = self.compute_output_shape(inputs.shape)
        return KerasTensor(shape, dtype=self.compute_dtype, sparse=self.sparse and len(shape) == 2)

    def get_config(self):
        return {**super().get_config(), **({"sparse": True} if self.sparse else {})}

    def call(self, inputs, count_weights=None):
        if count_weights is not None:
            if self.output_mode != "count":
                raise ValueError(
                    "`count_weights` is not used when `output_mode` is not `'count'`. "
                    f"Received `count_weights={count_weights}`."
                )
            count_weights = ops.cast(count_weights, self.compute_dtype)
        return encode(
            ops.cast(inputs, "int32"), self.output_mode, self.num_tokens, self.dtype, count_weights, self.sparse
        )

"""IntegerLookup: whole numbers to indices of a vocabulary."""

from __future__ import annotations

import numpy as np

from ... import ops
from ...errors import LayerError
from ...ops.dispatch import kernel
from .encoding import encode
from .index_lookup import IndexLookup


class IntegerLookup(IndexLookup):
    """Whole numbers to indices, or back. Arguments as StringLookup's, and:

    Args:
        vocabulary_dtype: ``"int64"``.
        oov_method: how one of several OOV indices is chosen: ``"floormod"`` (the number modulo their count) or
            ``"farmhash"``; `salt` belongs to the latter.

    >>> import kerasoft as ks
    >>> ks.layers.IntegerLookup(vocabulary=[12, 36])([36, 7]).tolist()
    [2, 0]
    """

    def __init__(
        self,
        max_tokens=None,
        num_oov_indices=1,
        mask_token=None,
        oov_token=-1,
        vocabulary=None,
        vocabulary_dtype="int64",
        idf_weights=None,
        invert=False,
        output_mode="int",
        sparse=False,
        pad_to_max_tokens=False,
        oov_method="floormod",
        salt=None,
        name=None,
        **kwargs,
    ):
        if max_tokens is not None and max_tokens <= 1:
            raise ValueError(
                "If `max_tokens` is set for `IntegerLookup`, it must be greater than 1. "
                f"Received: max_tokens={max_tokens}"
            )
        if num_oov_indices < 0:
            raise ValueError(
                "The value of `num_oov_indices` argument for `IntegerLookup` must >= 0. "
                f"Received: num_oov_indices={num_oov_indices}"
            )
        if vocabulary_dtype != "int64":
            raise ValueError(
                "Only `vocabulary_dtype='int64'` is supported at this time. "
                f"Received: vocabulary_dtype={vocabulary_dtype}"
            )
        super().__init__(
            max_tokens=max_tokens,
            num_oov_indices=num_oov_indices,
            mask_token=mask_token,
            oov_token=oov_token,
            vocabulary=vocabulary,
            vocabulary_dtype=vocabulary_dtype,
            idf_weights=idf_weights,
            invert=invert,
            output_mode=output_mode,
            sparse=sparse,
            pad_to_max_tokens=pad_to_max_tokens,
            oov_method=oov_method,
            salt=salt,
            name=name,
            **kwargs,
        )

    def get_config(self):
        config = super().get_config()
        for name in ("oov_token", "mask_token"):
            config[name] = None if config[name] is None else int(config[name])
        if config["vocabulary"] is not None:
            config["vocabulary"] = [int(v) for v in config["vocabulary"]]
        return config

    @property
    def has_device_call(self):
        hashed = self.num_oov_indices > 1 and self.oov_method == "farmhash"
        return not (self.invert or hashed or self.num_oov_indices == 0)

    def device_call(self, inputs):
        """A binary search in the sorted vocabulary, for numbers that the compiled step makes."""
        if not self.has_device_call:
            return super().device_call(inputs)
        self._ensure_vocabulary()
        x = ops.cast(inputs, "int32")
        if self.num_oov_indices > 1:
            found = ops.add(ops.mod(x, self.num_oov_indices), self._oov_start())
        else:
            found = ops.full_like(x, self._oov_start())
        if self._tokens:
            found = self._search(x, found)
        dropped = np.int32(2**31 - 1)
        if self.mask_token is not None:
            found = ops.where(ops.equal(x, int(self.mask_token)), 0 if self.output_mode == "int" else dropped, found)
        if self.output_mode == "int":
            return found
        if self.output_mode == "tf_idf":
            return ops.multiply(encode(found, "count", self._depth(), "float32"), self.idf_weights)
        return encode(found, self.output_mode, self._depth(), "float32", sparse=self.sparse)

    def _search(self, x, default):
        tokens = np.asarray(self._tokens, np.int64)
        if np.abs(tokens).max() > 2**31 - 1:
            raise LayerError(f"IntegerLookup '{self.name}': its vocabulary has numbers above {2**31 - 1}")
        order = np.argsort(tokens)
        ordered = tokens[order].astype(np.int32)
        place = ops.minimum(kernel("searchsorted")(ordered, x), len(ordered) - 1)
        index = ops.take((order + self._token_start()).astype(np.int32), place)
        return ops.where(ops.equal(ops.take(ordered, place), x), index, default)

"""Hashing and HashedCrossing: values to bins by the hash of their text, without a vocabulary."""

from __future__ import annotations

import functools

from ... import dtypes
from ...host.bins import crossed, hashed
from ...host.sparse import encoded_rows
from ...tensors import KerasTensor
from .host_layer import HostLayer, as_host, on_device, one_of, salt_of


class Hashing(HostLayer):
    """Strings or whole numbers to bins: FarmHash64 (SipHash64 with a salt) modulo the number of bins.

    Args:
        num_bins: bins, the one of `mask_value` included.
        mask_value: gets bin 0 for itself alone.
        salt: a number or a pair of numbers.
        output_mode: ``int``, ``one_hot``, ``multi_hot`` or ``count``.
        sparse: in a model the result is sparse rows, for SparseDense; in calls on arrays it is dense.

    >>> import kerasoft as ks
    >>> ks.layers.Hashing(3)([["A"], ["B"], ["C"], ["D"]]).tolist()
    [[1], [0], [1], [1]]
    """

    def __init__(self, num_bins, mask_value=None, salt=None, output_mode="int", sparse=False, **kwargs):
        if kwargs.get("dtype") is None:
            kwargs["dtype"] = "int64" if output_mode == "int" else dtypes.floatx()
        super().__init__(**kwargs)
        if num_bins is None or num_bins <= 0:
            raise ValueError(
                f"The `num_bins` for `Hashing` cannot be `None` or non-positive values. Received: num_bins={num_bins}."
            )
        if output_mode == "int" and self.dtype_policy.name not in ("int32", "int64"):
            raise ValueError(
                "When `output_mode=\"int\"`, `dtype` should be an integer type, 'int32' or 'in64'. "
                f"Received: dtype={kwargs['dtype']}"
            )
        modes = ("int", "one_hot", "multi_hot", "count")
        if output_mode not in modes:
            raise ValueError(
                f"Invalid value for argument `output_mode`. Expected one of {modes}. "
                f"Received: output_mode={output_mode}"
            )
        if sparse and output_mode == "int":
            raise ValueError(
                '`sparse` may only be true if `output_mode` is `"one_hot"`, `"multi_hot"`, or `"count"`. '
                f"Received: sparse={sparse} and output_mode={output_mode}"
            )
        self.num_bins, self.salt, self.mask_value = num_bins, salt_of(self, salt), mask_value
        self.output_mode, self.sparse = output_mode, sparse
        self.strong_hash = salt is not None

    def compute_output_shape(self, input_shape):
        if self.output_mode == "int":
            return tuple(input_shape)
        return (*tuple(input_shape)[:-1], self.num_bins)

    def compute_output_spec(self, inputs):
        shape = tuple(inputs.shape)
        if self.output_mode == "one_hot" and shape and shape[-1] != 1:  # one more axis, as the call gives
            shape = (*shape, self.num_bins)
        else:
            shape = self.compute_output_shape(shape)
        return KerasTensor(shape, dtype=self.dtype, sparse=self.sparse and len(shape) == 2)

    def get_config(self):
        return {
            **super().get_config(),
            "num_bins": self.num_bins,
            "salt": self.salt,
            "mask_value": self.mask_value,
            "output_mode": self.output_mode,
            "sparse": self.sparse,
        }

    def host_function(self):
        dtype = self.dtype if self.dtype != "bfloat16" else "float32"
        return functools.partial(hashed, self.num_bins, self.mask_value, self.salt, self.output_mode, dtype)

    def sparse_function(self):
        ids = functools.partial(hashed, self.num_bins, self.mask_value, self.salt, "int", "int64")
        return functools.partial(encoded_rows, ids, self.output_mode, self.num_bins, None)


class HashedCrossing(HostLayer):
    """Combinations of several columns, strings or whole numbers, to bins.

    Shapes: a list or tuple of arrays, each (), (batch,) or (batch, 1) -> the same; with ``one_hot`` (batch, bins).

    Args:
        num_bins: bins.
        output_mode: ``int`` or ``one_hot``.
        sparse: in a model the result of ``one_hot`` is sparse rows, for SparseDense; in calls on arrays it is dense.

    >>> import kerasoft as ks
    >>> ks.layers.HashedCrossing(5)((["A", "B"], [101, 101])).tolist()
    [1, 4]
    """

    def __init__(self, num_bins, output_mode="int", sparse=False, name=None, dtype=None, **kwargs):
        super().__init__(name=name, dtype="int64" if output_mode == "int" and dtype is None else dtype)
        one_of(self, "output_mode", output_mode, ("int", "one_hot"))
        if sparse and output_mode == "int":
            raise ValueError(
                "`sparse` may only be true if `output_mode` is `'one_hot'`. "
                f"Received: sparse={sparse} and output_mode={output_mode}"
            )
        self.num_bins, self.output_mode, self.sparse = num_bins, output_mode, sparse

    def compute_output_shape(self, input_shape):
        if len(input_shape) < 2 or not all(isinstance(s, (tuple, list)) for s in input_shape):
            raise ValueError(f"Expected as input a list/tuple of 2 tensors. Received input_shape={input_shape}")
        first = tuple(input_shape[0])
        if any(tuple(s)[-1:] != first[-1:] for s in input_shape):
            raise ValueError(
                f"Expected the two input tensors to have identical shapes. Received input_shape={input_shape}"
            )
        if self.output_mode == "int":
            return first
        return (*(first[:-1] if len(first) > 1 and first[-1] == 1 else first), self.num_bins)

    def compute_output_spec(self, inputs):
        shape = self.compute_output_shape(tuple(x.shape for x in inputs))
        return KerasTensor(shape, dtype=self.dtype, sparse=self.sparse and len(shape) == 2)

    def call(self, inputs):
        if not isinstance(inputs, (list, tuple)):
            raise ValueError(
                f"`HashedCrossing` should be called on a list or tuple of inputs. Received: inputs={inputs}"
            )
        if len(inputs) < 2:
            raise ValueError(f"`HashedCrossing` should be called on at least two inputs. Received: inputs={inputs}")
        return on_device(self.host_function()(as_host(inputs)))

    def host_function(self):
        return functools.partial(crossed, self.num_bins, self.output_mode, self.dtype)

    def sparse_function(self):
        ids = functools.partial(crossed, self.num_bins, "int", "int64")
        return functools.partial(encoded_rows, ids, self.output_mode, self.num_bins, None)

    def get_config(self):
        return {
            "num_bins": self.num_bins,
            "output_mode": self.output_mode,
            "sparse": self.sparse,
            "name": self.name,
            "dtype": self.dtype,
        }

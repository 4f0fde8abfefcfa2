"""Input: where a functional model begins."""

from __future__ import annotations

import warnings
from typing import Any

from .. import dtypes
from ..tensors import Call, KerasTensor, standardize_shape
from .layer import Layer


class InputLayer(Layer):
    """The layer behind `Input`; its `output` is the symbolic tensor.

    Args:
        shape: sizes without the batch axis.
        batch_size: size of the batch axis, None for any.
        dtype: float32 by default.
        sparse: rows hold few numbers: they are given as SciPy matrices or, on Spark, as vectors of `pyspark.ml.linalg`.
        batch_shape: sizes with the batch axis, in place of `shape` and `batch_size`.
        input_tensor: a KerasTensor whose shape and dtype to take.
        optional: whether None may be given in its place.
    """

    def __init__(
        self,
        shape: Any = None,
        batch_size: int | None = None,
        dtype: Any = None,
        sparse: Any = None,
        ragged: Any = None,
        batch_shape: Any = None,
        input_tensor: Any = None,
        optional: bool = False,
        name: str | None = None,
        **kwargs: Any,
    ):
        super().__init__(name=name)
        if "input_shape" in kwargs:
            warnings.warn("Argument `input_shape` is deprecated. Use `shape` instead.", stacklevel=2)
            shape = kwargs.pop("input_shape")
        batch_shape = kwargs.pop("batch_input_shape", batch_shape)
        if kwargs:
            raise ValueError(f"Unrecognized keyword arguments passed to InputLayer: {kwargs}")
        if ragged:
            raise ValueError(f"`ragged=True` is not supported (Input '{self.name}'); give dense arrays")
        if input_tensor is not None:
            _check_tensor(input_tensor, shape, batch_size, batch_shape, dtype)
            batch_shape, dtype, sparse = input_tensor.shape, input_tensor.dtype, input_tensor.sparse
        else:
            for option, given in (("shape", shape), ("batch_size", batch_size)):
                if given is not None and batch_shape is not None:
                    raise ValueError(f"You cannot pass both `{option}` and `batch_shape` at the same time.")
            if shape is None and batch_shape is None:
                raise ValueError("You must pass a `shape` argument.")
            batch_shape = (batch_size, *standardize_shape(shape)) if batch_shape is None else batch_shape
        self._batch_shape = standardize_shape(batch_shape)
        self._input_dtype = dtypes.standardize(dtype)
        self.optional, self.sparse, self.ragged = optional, bool(sparse), False
        if self.sparse:
            _check_sparse(self)
        self.built = True
        output = (
            input_tensor
            if input_tensor is not None
            else KerasTensor(self._batch_shape, self._input_dtype, self.sparse, name=name)
        )
        Call(self, (), {}, output)

    def call(self) -> Any:
        """Nothing is computed."""

    @property
    def batch_shape(self) -> tuple:
        return self._batch_shape

    @property
    def dtype(self) -> str:
        return self._input_dtype

    @property
    def input_dtype(self) -> str:
        return self._input_dtype

    def get_config(self) -> dict[str, Any]:
        return {
            "batch_shape": self._batch_shape,
            "dtype": self._input_dtype,
            "sparse": self.sparse,
            "ragged": False,
            "name": self.name,
            "optional": self.optional,
        }


def _check_sparse(layer: InputLayer) -> None:
    """
    Raises:
        ValueError: sparse rows of another kind than vectors of float32.
    """
    shape, dtype = layer.batch_shape, layer.dtype
    if len(shape) != 2 or shape[1] is None or dtype != "float32" or layer.optional:
        raise ValueError(
            f"`sparse=True` needs rows of one known size, float32 and not optional: Input(shape=(n,), sparse=True). Received "
            f"(Input '{layer.name}'): batch_shape={shape}, dtype={dtype}, optional={layer.optional}. Give dense arrays instead."
        )


def _check_tensor(tensor: Any, shape: Any, batch_size: Any, batch_shape: Any, dtype: Any) -> None:
    """
    Raises:
        ValueError: no KerasTensor, or another argument says something else than it.
    """
    if not isinstance(tensor, KerasTensor):
        raise ValueError(
            "Argument `input_tensor` must be a KerasTensor. "
            f"Received invalid type: input_tensor={tensor} (of type {type(tensor)})"
        )
    other = {
        "batch_size": batch_size is not None and tensor.shape[:1] != (batch_size,),
        "shape": shape is not None and tuple(shape) != tensor.shape[1:],
        "batch_shape": batch_shape is not None and tuple(batch_shape) != tensor.shape,
        "dtype": dtype is not None and tensor.dtype != dtypes.standardize(dtype),
    }
    for name, wrong in other.items():
        if wrong:
            raise ValueError(
                f"When providing the `input_tensor` argument, you cannot provide an incompatible `{name}` argument."
            )


def Input(
    shape: Any = None,
    batch_size: int | None = None,
    dtype: Any = None,
    sparse: Any = None,
    ragged: Any = None,
    batch_shape: Any = None,
    name: str | None = None,
    tensor: Any = None,
    optional: bool = False,
) -> KerasTensor:
    """A symbolic tensor where a functional model begins.

    Args:
        shape: sizes without the batch axis; None for sizes that vary.
        batch_size: size of the batch axis, None for any.
        dtype: float32 by default.
        sparse: rows of shape (n,) hold few numbers: they are given as SciPy matrices or, on Spark, as vectors of
            `pyspark.ml.linalg` (dense ones do too). `SparseDense` and `Dense` never make the whole row of them.
        name: the key of this input when data are given as a dict.

    >>> Input((28, 28, 1)).shape
    (None, 28, 28, 1)
    """
    layer = InputLayer(shape, batch_size, dtype, sparse, ragged, batch_shape, tensor, optional, name)
    return layer.output

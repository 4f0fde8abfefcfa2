"""Symmetric quantisation: q = round(x · s) with s = (largest q) / (largest |x|), one s for each slice."""

from __future__ import annotations

from typing import Any

import numpy as np

from .. import dtypes, ops

EPSILON = 1e-7


class Quantizer:
    """The base of quantizers: ``quantizer(x) -> (q, scale)``."""

    def __init__(self, output_dtype: str = "int8"):
        self.output_dtype = output_dtype

    def __call__(self, x: Any) -> Any:
        return x

    @classmethod
    def from_config(cls, config: dict) -> Any:
        return cls(**config)

    def get_config(self) -> dict[str, Any]:
        raise NotImplementedError(f"{self} does not implement get_config()")


def abs_max_quantize(
    inputs: Any,
    axis: Any,
    value_range: tuple = (-127, 127),
    dtype: str = "int8",
    epsilon: float = EPSILON,
    to_numpy: bool = False,
) -> tuple[Any, Any]:
    """``(q, scale)`` with ``x ≈ q / scale``.

    Shapes: x (...) -> q like x, scale like x with size 1 along `axis`.

    Args:
        axis: the axes over which one scale holds.
        value_range: smallest and largest q.
        epsilon: added to the largest \\|x\\|, so that zeros divide nothing by zero.
        to_numpy: compute in NumPy.

    >>> q, scale = abs_max_quantize([[1.0, -2.0]], axis=-1)
    >>> q.tolist(), round(float(scale[0, 0]), 3)
    ([[64, -127]], 63.5)
    """
    if to_numpy:
        x = np.asarray(ops.convert_to_numpy(inputs))
        axes = tuple(axis) if isinstance(axis, (list, tuple)) else axis
        scale = np.divide(value_range[1], np.add(np.max(np.abs(x), axis=axes, keepdims=True), epsilon))
        q = np.clip(np.round(np.multiply(x, scale)), *value_range).astype(dtype)
        return ops.convert_to_tensor(q), ops.convert_to_tensor(scale, dtype=dtypes.standardize(x.dtype))
    x = ops.convert_to_tensor(inputs)
    largest = ops.max(ops.abs(x), axis=axis, keepdims=True)
    scale = ops.cast(ops.divide(value_range[1], ops.add(largest, epsilon)), dtypes.standardize(x.dtype))
    q = ops.clip(ops.round(ops.multiply(x, scale)), value_range[0], value_range[1])
    return ops.cast(q, dtype), scale


class AbsMaxQuantizer(Quantizer):
    """`abs_max_quantize` with settings.

    Args:
        axis: the axes over which one scale holds; may be given in the call.

    Raises:
        ValueError: int8 with a range beyond [-128, 127].
    """

    def __init__(
        self, axis: Any = None, value_range: Any = (-127, 127), epsilon: float = EPSILON, output_dtype: str = "int8"
    ):
        super().__init__(output_dtype)
        self.axis = None if axis is None else (axis,) if isinstance(axis, int) else tuple(axis)
        self.value_range, self.epsilon = value_range, epsilon
        if output_dtype == "int8" and (value_range[0] < -128 or value_range[1] > 127):
            raise ValueError(
                "Quantizer with output_dtype='int8' requires value_range to be within the interval [-128, 127]. "
                f"Received: value_range={value_range}"
            )

    def __call__(self, x: Any, axis: Any = None, to_numpy: bool = False) -> tuple[Any, Any]:
        axis = next(a for a in (axis, self.axis, -1) if a is not None)
        return abs_max_quantize(x, axis, self.value_range, self.output_dtype, self.epsilon, to_numpy)

    def get_config(self) -> dict[str, Any]:
        config = {"value_range": self.value_range, "epsilon": self.epsilon, "output_dtype": self.output_dtype}
        return config if self.axis is None else {**config, "axis": self.axis}

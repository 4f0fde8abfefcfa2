"""Floats rounded to what a quantised form could hold, for training with quantisation in mind."""

from __future__ import annotations

from typing import Any

from .. import dtypes, ops


def _through(rounded: Any, x: Any) -> Any:
    """The value of `rounded` with the gradient of `x`."""
    return ops.add(x, ops.stop_gradient(ops.subtract(rounded, x)))


def fake_quant_with_min_max_vars(
    inputs: Any, min_vals: Any, max_vals: Any, num_bits: int = 8, narrow_range: bool = False, axis: int | None = None
) -> Any:
    """`inputs` clamped to [min, max] and rounded to 2^num_bits levels; gradients flow inside the range and to its ends.

    Args:
        min_vals, max_vals: a number, or one for each slice along `axis`.
        narrow_range: leaves out the lowest level.

    >>> fake_quant_with_min_max_vars([0.1, 0.6, 2.0], 0.0, 1.0, num_bits=1).tolist()
    [0.0, 1.0, 1.0]
    """
    x = ops.convert_to_tensor(inputs)
    kind = dtypes.standardize(x.dtype)
    lowest, highest = ops.convert_to_tensor(min_vals, "float32"), ops.convert_to_tensor(max_vals, "float32")
    if axis is not None:
        shape = [1] * len(x.shape)
        shape[axis] = -1
        lowest, highest = ops.reshape(lowest, shape), ops.reshape(highest, shape)
    elif len(lowest.shape) or len(highest.shape):
        lowest, highest = ops.reshape(lowest, ()), ops.reshape(highest, ())
    top, bottom = (1 << int(num_bits)) - 1, int(narrow_range)
    span = ops.subtract(highest, lowest)
    scale, inverse = ops.divide(span, float(top - bottom)), ops.divide(float(top - bottom), span)
    zero = ops.round(ops.clip(ops.subtract(float(bottom), ops.divide(lowest, scale)), bottom, top))
    low = ops.multiply(ops.subtract(float(bottom), zero), scale)
    high = ops.multiply(ops.subtract(float(top), zero), scale)
    wide = ops.cast(x, "float32")
    inside = ops.minimum(ops.maximum(wide, low), high)
    level_of_zero = ops.floor(ops.add(ops.multiply(ops.negative(low), inverse), 0.5))
    steps = ops.subtract(ops.multiply(ops.subtract(inside, low), inverse), level_of_zero)
    rounded = ops.multiply(ops.floor(ops.add(steps, 0.5)), scale)
    # What the gradient sees: x inside the nudged range, the given ends outside.
    lower, higher = ops.less_equal(wide, low), ops.greater_equal(wide, high)
    kept = ops.logical_and(ops.greater_equal(wide, low), ops.less_equal(wide, high))
    seen = ops.add(
        ops.where(kept, wide, ops.zeros_like(wide)),
        ops.add(
            ops.where(lower, ops.broadcast_to(lowest, ops.shape(wide)), ops.zeros_like(wide)),
            ops.where(higher, ops.broadcast_to(highest, ops.shape(wide)), ops.zeros_like(wide)),
        ),
    )
    return ops.cast(_through(rounded, seen), kind)


def compute_float8_scale(amax: Any, scale: Any, dtype_max: Any, margin: int = 0) -> Any:
    """The scale with which values up to `amax` fill a float8 type; the old one where `amax` says nothing."""
    old = ops.reciprocal(scale)
    new = ops.divide(ops.divide(dtype_max, amax), 2**margin)
    new = ops.where(ops.greater(amax, 0.0), new, old)
    return ops.reciprocal(ops.where(ops.isfinite(amax), new, old))


def compute_float8_amax_history(x: Any, amax_history: Any) -> Any:
    """The history moved by one, the largest \\|x\\| in its first place."""
    newest = ops.cast(ops.max(ops.abs(x)), amax_history.dtype)
    return ops.scatter_update(ops.roll(amax_history, shift=-1), [[0]], ops.reshape(newest, [1]))


def quantize_and_dequantize(inputs: Any, scale: Any, quantized_dtype: str, compute_dtype: str) -> Any:
    """`inputs` as they would be after a float8 type.

    >>> quantize_and_dequantize([1.06, 500.0], 1.0, "float8_e4m3fn", "float32").tolist()
    [1.0, 448.0]
    """
    import jax.numpy as jnp

    scale = ops.cast(ops.convert_to_tensor(scale), compute_dtype)
    largest = float(jnp.finfo(quantized_dtype).max)
    x = ops.clip(ops.divide(ops.convert_to_tensor(inputs), scale), -largest, largest)
    rounded = ops.cast(ops.cast(x, quantized_dtype), compute_dtype)
    return ops.multiply(rounded, scale)

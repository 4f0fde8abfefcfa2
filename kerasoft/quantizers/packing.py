"""Two 4-bit numbers in a byte: the first in the low half, the second in the high half."""

from __future__ import annotations

from typing import Any

import numpy as np

from .. import dtypes, ops


def _known(dtype: str) -> None:
    if dtype not in ("int8", "uint8"):
        raise ValueError(f"Expected dtype to be 'int8' or 'uint8', but got '{dtype}'.")


def pack_int4(arr: Any, axis: int = 0, dtype: str = "int8") -> tuple[Any, tuple, int]:
    """``(packed, its shape, size of the axis before)``; an odd axis is filled with a zero.

    Args:
        arr: int8 (or uint8, by `dtype`) values of -8 ... 7.

    Raises:
        TypeError: `arr` is of another dtype.

    >>> import numpy as np
    >>> pack_int4(np.array([[-3, 7], [2, -8], [1, 0]], "int8"))[0].tolist()
    [[45, -121], [1, 0]]
    """
    _known(dtype)
    given = dtypes.standardize(arr.dtype)
    if given != dtype:
        raise TypeError(f"Expected {dtype} tensor for packing, got {given}.")
    values = np.moveaxis(np.asarray(ops.convert_to_numpy(arr)), axis, 0)
    count = values.shape[0]
    if count % 2:
        values = np.concatenate([values, np.zeros((1, *values.shape[1:]), values.dtype)])
    low, high = values[::2].view("uint8") & 15, values[1::2].view("uint8") & 15
    packed = np.moveaxis((low | (high << 4)).astype("uint8").view(dtype), 0, axis)
    return ops.convert_to_tensor(np.ascontiguousarray(packed)), tuple(packed.shape), count


def unpack_int4(packed: Any, orig_len: int, axis: int = 0, dtype: str = "int8") -> Any:
    """What `pack_int4` packed: -8 ... 7 for int8, 0 ... 15 for uint8.

    Args:
        orig_len: size of the axis before packing.

    Raises:
        TypeError: `packed` is neither int8 nor uint8.

    >>> import numpy as np
    >>> unpack_int4(np.array([[45, -121], [1, 0]], "int8"), 3).tolist()
    [[-3, 7], [2, -8], [1, 0]]
    """
    _known(dtype)
    given = dtypes.standardize(packed.dtype)
    if given not in ("int8", "uint8"):
        raise TypeError(f"Expected int8 or uint8 tensor for unpacking, got {packed.dtype}")
    rank = len(packed.shape)
    axis = axis % rank
    whole = ops.cast(packed, "int32")
    high = ops.floor_divide(whole, 16)
    halves = []
    for half in (ops.subtract(whole, ops.multiply(high, 16)), high):
        unsigned = ops.where(ops.less(half, 0), ops.add(half, 16), half)
        signed = ops.where(ops.greater(unsigned, 7), ops.subtract(unsigned, 16), unsigned)
        halves.append(ops.cast(signed if dtype == "int8" else unsigned, dtype))
    shape = list(packed.shape)
    shape[axis] *= 2
    both = ops.reshape(ops.stack(halves, axis=axis + 1), shape)
    return both[(slice(None),) * axis + (slice(0, orig_len),)]

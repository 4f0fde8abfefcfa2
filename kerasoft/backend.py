"""What Keras offers about its backend: default dtypes, names, kinds of tensors."""

from __future__ import annotations

from typing import Any

from . import dtypes
from .config import (
    backend,
    epsilon,
    floatx,
    image_data_format,
    set_epsilon,
    set_floatx,
    set_image_data_format,
)  # fmt: skip
from .naming import clear_session, get_uid

__all__ = [
    "backend", "clear_session", "epsilon", "floatx", "get_uid", "image_data_format", "is_float_dtype", "is_int_dtype",
    "is_keras_tensor", "result_type", "set_epsilon", "set_floatx", "set_image_data_format", "standardize_dtype",
]  # fmt: skip


def is_float_dtype(dtype: Any) -> bool:
    """Whether a dtype is a float.

    >>> is_float_dtype("bfloat16"), is_float_dtype(int)
    (True, False)
    """
    name = standardize_dtype(dtype)
    return name.startswith("float") or name == "bfloat16"


def is_int_dtype(dtype: Any) -> bool:
    """Whether a dtype is a whole number, signed or not."""
    return standardize_dtype(dtype).startswith(("int", "uint"))


def is_keras_tensor(x: Any) -> bool:
    """Whether `x` is a symbolic `KerasTensor`."""
    from .tensors import KerasTensor

    return isinstance(x, KerasTensor)


def standardize_dtype(dtype: Any) -> str:
    """The name of a dtype; None is `floatx()`.

    Raises:
        ValueError: no dtype.

    >>> standardize_dtype(int), standardize_dtype(None)
    ('int32', 'float32')
    """
    return dtypes.standardize(dtype)


def result_type(*dtypes: Any) -> str:
    """The dtype that an operation on values of these dtypes gives; Python's `int` and `float` adapt to the others.

    >>> result_type("bfloat16", int), result_type("int32", "float32"), result_type(float)
    ('bfloat16', 'float32', 'float32')
    """
    import jax
    import jax.numpy as jnp

    names = [floatx() if d is None else d for d in dtypes]
    if not names:
        return floatx()
    if any("float8" in str(d) for d in names):
        raise ValueError(
            "There is no implicit conversions from float8 dtypes to others. You must cast it internally. "
            f"Received: {dtypes}"
        )
    standard = [d if d in (int, float) else standardize_dtype(d) for d in names]
    bits = floatx()[-2:].replace("64", "32")
    if float in standard and not any(d not in (int, float) and d.startswith(("float", "bf", "comp")) for d in standard):
        return f"float{bits}"
    if int in standard and all(d in (int, "bool") for d in standard):
        return f"int{bits}"
    weak = {int: 0, float: 0.0}
    values = [weak[d] if d in weak else jax.dtypes.canonicalize_dtype(_numpy(d)) for d in standard]
    return jnp.result_type(*values).name


def _numpy(name: str) -> Any:
    from .variables import dtypes_of

    return dtypes_of(name)

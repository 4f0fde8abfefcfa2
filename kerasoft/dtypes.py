"""Dtypes: their names, and what is computed in what."""

from __future__ import annotations

from typing import Any

from .config import floatx

FLOATS = ("float16", "bfloat16", "float32", "float64")
_NARROW = {"float64": "float32", "int64": "int32", "uint64": "uint32"}
_ALLOWED = {
    *FLOATS, "uint8", "uint16", "uint32", "uint64", "int8", "int16", "int32", "int64", "bool", "string",
    "float8_e4m3fn", "float8_e5m2", "complex64", "complex128",
}  # fmt: skip
_PYTHON = {bool: "bool", int: "int32", float: "float32", str: "string", complex: "complex64", "int": "int32"}


def standardize(dtype: Any) -> str:
    """The name of a dtype; ``None`` is the default float dtype.

    >>> standardize(None), standardize(float), standardize(np.int8)
    ('float32', 'float32', 'int8')
    """
    if dtype is None:
        return floatx()
    try:
        found = _known.get(dtype)
        if found is None:
            _known[dtype] = found = _name(dtype)
        return found
    except TypeError:  # not hashable
        return _name(dtype)


_known: dict[Any, str] = {}


def _name(dtype: Any) -> str:
    try:
        name = _PYTHON.get(dtype, dtype)
    except TypeError:
        name = dtype
    if not isinstance(name, str):
        found = getattr(name, "name", None) or getattr(name, "__name__", None) or str(name).rsplit(".", 1)[-1]
        name = {"bool_": "bool", "str_": "string"}.get(found, found)
    if name not in _ALLOWED:
        raise ValueError(f"Invalid dtype: {dtype}")
    return name


def narrowed(dtype: Any) -> str:
    """The dtype in which values of `dtype` are computed: 64-bit values become 32-bit."""
    name = standardize(dtype)
    return _NARROW.get(name, name)


def is_float(dtype: Any) -> bool:
    return standardize(dtype) in FLOATS


def policy(identifier: Any) -> Any:
    """A `DTypePolicy` from a policy, a dtype, a name, a config, or None (the default)."""
    from . import dtype_policies

    return dtype_policies.get(identifier)


def __getattr__(name: str):
    if name == "DTypePolicy":
        from .dtype_policies import DTypePolicy

        return DTypePolicy
    raise AttributeError(f"module 'kerasoft.dtypes' has no attribute {name!r}")

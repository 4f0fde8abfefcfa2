"""Dtypes and dtype policies: in what a layer keeps its weights and in what it computes."""

from __future__ import annotations

from typing import Any

import numpy as np

FLOATS = ("float16", "bfloat16", "float32", "float64")
_NARROW = {"float64": "float32", "int64": "int32", "uint64": "uint32"}
_default = "float32"


def floatx() -> str:
    """The dtype of weights and of Python floats."""
    return _default


def standardize(dtype: Any) -> str:
    """The name of a dtype; ``None`` is the default float dtype.

    >>> standardize(None), standardize(float), standardize(np.int8)
    ('float32', 'float32', 'int8')
    """
    if dtype is None:
        return _default
    if isinstance(dtype, str):
        name = {"float": "float32", "int": "int32"}.get(dtype, dtype)
        if name == "bfloat16":
            return name
        try:
            return np.dtype(name).name
        except TypeError as error:
            raise ValueError(f"Invalid dtype: {dtype!r}") from error
    if isinstance(dtype, type) and dtype in (float, int, bool):
        return {float: "float32", int: "int32", bool: "bool"}[dtype]
    try:
        return np.dtype(dtype).name
    except TypeError as error:
        raise ValueError(f"Invalid dtype: {dtype!r}") from error


def narrowed(dtype: Any) -> str:
    """The dtype in which values of `dtype` are computed: 64-bit values become 32-bit."""
    name = standardize(dtype)
    return _NARROW.get(name, name)


def is_float(dtype: Any) -> bool:
    return standardize(dtype) in FLOATS


class DTypePolicy:
    """What a layer computes in and what its weights are kept in.

    Args:
        name: a dtype (both the same), or ``mixed_float16`` / ``mixed_bfloat16`` (weights in float32).

    >>> policy = DTypePolicy("mixed_bfloat16")
    >>> policy.compute_dtype, policy.variable_dtype
    ('bfloat16', 'float32')
    """

    def __init__(self, name: str | None = None):
        name = _default if name is None else name
        if not isinstance(name, str):
            raise TypeError(f"'name' must be a string, such as 'mixed_float16'. Received: name={name!r}")
        if name in ("mixed_float16", "mixed_bfloat16"):
            self.compute_dtype, self.variable_dtype = name.removeprefix("mixed_"), "float32"
        else:
            self.compute_dtype = self.variable_dtype = standardize(name)
        self.name = name

    def __repr__(self) -> str:
        return f'<DTypePolicy "{self.name}">'

    def __eq__(self, other: object) -> bool:
        return isinstance(other, DTypePolicy) and other.name == self.name

    def __hash__(self) -> int:
        return hash(self.name)

    def get_config(self) -> dict:
        return {"name": self.name}

    @classmethod
    def from_config(cls, config: dict) -> DTypePolicy:
        return cls(**config)


def policy(identifier: Any) -> DTypePolicy:
    """A policy from a policy, a dtype, a name, a config, or None (the default)."""
    if isinstance(identifier, DTypePolicy):
        return identifier
    if isinstance(identifier, dict):
        if identifier.get("class_name") != "DTypePolicy":
            raise ValueError(f"Cannot interpret `dtype` argument. Received: dtype={identifier}")
        return DTypePolicy(identifier["config"]["name"])
    if identifier is None or isinstance(identifier, str):
        return DTypePolicy(identifier)
    return DTypePolicy(standardize(identifier))

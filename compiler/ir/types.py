"""Types of graph values: element type and shape, where a size may be a named unknown such as `b`.

Unknown sizes are JAX's symbolic dimensions in one scope, so arithmetic on them (`b*10`, `floordiv(n1, 2)`) and the
abstract evaluation of any JAX function over them work without shape rules of our own.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Mapping
from typing import Any

import numpy as np
from jax import export

_SCOPE = export.SymbolicScope()
Dim = Any  # an int, or a symbolic dimension made by `symbol`


@functools.cache
def symbol(text: str) -> Dim:
    """The unknown size written `text`: a name such as ``b``, or an expression of names such as ``4*b``."""
    return export.symbolic_shape(text, scope=_SCOPE)[0]


def is_static(dim: Dim) -> bool:
    """Whether a size is known."""
    return isinstance(dim, (int, np.integer))


def bind(value: Any, sizes: Mapping[str, Dim]) -> Any:
    """`value` (a size, or tuples of anything) with every unknown size replaced by what `sizes` holds for its name.

    `sizes` maps names to numbers; a name may also map to a symbolic size, which then stays symbolic.

    Raises:
        KeyError: `value` holds a name that `sizes` does not.
    """
    if isinstance(value, tuple):
        return tuple(bind(item, sizes) for item in value)
    if export.is_symbolic_dim(value):
        try:
            bound = value._evaluate(dict(sizes))
        except Exception as error:  # JAX raises kinds of its own
            missing = sorted(set(value._get_vars()) - set(sizes))
            raise KeyError(", ".join(missing) or str(value)) from error
        return bound if export.is_symbolic_dim(bound) else int(bound)
    return value


@dataclasses.dataclass(frozen=True)
class TensorType:
    """Shape and dtype of an array value, printed ``float32[b, 28, 28, 1]``."""

    shape: tuple[Dim, ...]
    dtype: str

    @property
    def rank(self) -> int:
        return len(self.shape)

    @property
    def is_float(self) -> bool:
        return self.dtype in ("float16", "bfloat16", "float32", "float64")

    @property
    def is_inexact(self) -> bool:
        """Whether gradients flow through it: floats and complex numbers."""
        return self.is_float or self.dtype.startswith("complex")

    def __str__(self) -> str:
        return f"{self.dtype}[{', '.join(map(str, self.shape))}]"


@dataclasses.dataclass(frozen=True)
class TupleType:
    """Types of the several results of one node, printed ``(float32[b], float32[])``."""

    items: tuple[TensorType, ...]

    def __str__(self) -> str:
        return f"({', '.join(map(str, self.items))})"


Type = TensorType | TupleType

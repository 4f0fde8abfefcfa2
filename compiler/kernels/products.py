"""Products by MKL, where the package mkl is installed: float32, a matrix on the right.

Never by rule: they are taken where they measure faster. The compiler measures them by itself on Intel's processors only;
elsewhere MKL does not use all of the processor's instructions (docs/design/0011-choosing-by-measuring.md).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from .lowerings import lowering
from .processor import vendor

_MOST = 2**31 - 1  # MKL is called with 32-bit sizes


def _fits(types: Sequence[Any], attrs: Mapping[str, Any]) -> bool:
    x, y = types
    return (
        all(np.dtype(t.dtype) == np.float32 for t in types)
        and len(x.shape) >= 2
        and len(y.shape) == 2
        and 0 < min(*x.shape, *y.shape)
        and max(math.prod(x.shape[:-1]), x.shape[-1], y.shape[-1]) <= _MOST
    )


@lowering("matmul", "mkl", fits=_fits, needs="mkl", prefer=lambda *_: False, tried=lambda: vendor() == "GenuineIntel")
def product(x: Any, y: Any) -> Any:
    rows = math.prod(x.shape[:-1])
    result = jax.ShapeDtypeStruct((rows, y.shape[1]), np.float32)
    made = jax.ffi.ffi_call("kerasoft.mkl_product", result)(jnp.reshape(x, (rows, x.shape[-1])), jnp.asarray(y))
    return made.reshape((*x.shape[:-1], y.shape[1]))

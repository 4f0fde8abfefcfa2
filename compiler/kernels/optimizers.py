"""Steps of optimizers in one pass over memory: float32. See compiler/kernels/cpp/adam.cpp."""

from __future__ import annotations

import contextlib
import contextvars
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from . import bridge
from .lowerings import lowering

_apart: contextvars.ContextVar[bool] = contextvars.ContextVar("apart", default=False)


@contextlib.contextmanager
def apart() -> Iterator[None]:
    """Steps traced within write into memory of their own.

    For programs that do not own their arguments, as an executor's: to work in place they would copy them first.
    """
    token = _apart.set(True)
    try:
        yield
    finally:
        _apart.reset(token)


def _fits(types: Sequence[Any], attrs: Mapping[str, Any]) -> bool:
    return all(np.dtype(t.dtype) == np.float32 for t in types)


@lowering("adam", "native", fits=_fits, needs="native", timed=False, any_size=True)
def adam(
    param: Any, gradient: Any, m: Any, v: Any, alpha: Any, *, beta_1: float, beta_2: float, epsilon: float
) -> tuple:
    # Whatever the size: slices of a vector must give the bits of the whole.
    results = [jax.ShapeDtypeStruct(param.shape, np.float32)] * 3
    in_place = None if _apart.get() else {0: 0, 2: 1, 3: 2}
    call = jax.ffi.ffi_call("kerasoft.adam", results, input_output_aliases=in_place)
    arrays = (jnp.asarray(a) for a in (param, gradient, m, v, alpha))
    return tuple(
        call(*arrays, keep_1=np.float32(1 - beta_1), keep_2=np.float32(1 - beta_2), epsilon=np.float32(epsilon))
    )


def after(value: Any, others: Sequence[Any]) -> Any:
    """`value` (), once all `others` are there.

    A weight that is updated in place must not be read any more. XLA copies it unless what is computed with the weight comes
    before the update by its inputs; the update of one weight needs no more than its own gradient, so it is told of all.
    """
    if not bridge.loaded("native"):
        return value
    value = jnp.asarray(value)
    call = jax.ffi.ffi_call("kerasoft.after", jax.ShapeDtypeStruct(value.shape, value.dtype))
    return call(value, *map(jnp.asarray, others))

"""Conversion, shapes, and JAX functions as ops."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import numpy as np

from .. import dtypes, tree
from ..compiler.ops import control
from ..scope import read
from ..tensors import Call, KerasTensor, Operation, any_symbolic, infer
from ..variables import Variable
from . import elementwise as e
from .dispatch import dtype_of, kernel, public, shape_of, tensor

__all__ = [
    "convert_to_numpy", "convert_to_tensor", "custom_gradient", "dtype", "is_tensor", "jax", "ndim", "shape",
    "size", "stop_gradient",
]  # fmt: skip


def shape(x: Any) -> tuple:
    """The sizes of x; None (symbolic tensors) or a named unknown (in a trace) for those that are not known."""
    return x.shape if isinstance(x, KerasTensor) else shape_of(x)


def ndim(x: Any) -> int:
    """The number of axes."""
    return len(shape(x))


def size(x: Any) -> Any:
    """The number of elements; of a symbolic tensor of unknown size, a symbolic number."""
    if isinstance(x, KerasTensor) and None in x.shape:
        return _size(x)
    total: Any = 1
    for s in shape_of(x):
        total = s * total
    return total


@public("numpy", "Size")
def _size(x: Any) -> Any:
    from ..compiler.ops import reduce

    return reduce.dimension(size(x))


def dtype(x: Any) -> str:
    """The name of x's dtype."""
    return dtypes.standardize(x.dtype) if hasattr(x, "dtype") else dtype_of(x)


def is_tensor(x: Any) -> bool:
    """Whether x is a tensor with a value: a JAX array, or what stands for one while a graph is traced.

    >>> is_tensor(convert_to_tensor([1.0])), is_tensor([1.0]), is_tensor(np.ones(2))
    (True, False, False)
    """
    import jax

    return isinstance(x, jax.Array) or hasattr(x, "op")


def convert_to_tensor(x: Any, dtype: Any = None, sparse: Any = None, ragged: Any = None) -> Any:
    """x as a tensor of `dtype`; symbolic tensors stay symbolic."""
    if isinstance(x, KerasTensor):
        return x if dtype is None or dtypes.standardize(dtype) == x.dtype else e.cast(x, dtype)
    x = read(x) if isinstance(x, Variable) else tensor(x)
    if hasattr(x, "op"):
        return x if dtype is None or x.dtype == dtypes.narrowed(dtype) else e.cast(x, dtype)
    import jax.numpy as jnp

    return jnp.asarray(x, dtypes.narrowed(dtype) if dtype is not None else dtype_of(x))


def convert_to_numpy(x: Any) -> np.ndarray:
    """x as a NumPy array that can be written to.

    Raises:
        ValueError: x is symbolic.
    """
    return np.array(x.numpy() if isinstance(x, Variable) else x)


@public("core", "StopGradient", "variable")
def stop_gradient(variable: Any) -> Any:
    """The value, as a constant for gradients."""
    return kernel("stop_gradient")(tensor(variable))


# --- JAX ----------------------------------------------------------------------------------------------------------


def jax(function: Callable) -> Callable:
    """A JAX function as an op, with JAX's own gradient.

    Positional arguments are tensors, keyword arguments are settings (hashable). Arrays that the function closes over
    are constants; give weights as arguments.

    >>> import kerasoft as ks
    >>> import jax.numpy as jnp
    >>> softclip = ks.ops.jax(lambda x, limit: limit * jnp.tanh(x / limit))
    >>> softclip(ks.Input((3,)), 2.0).shape
    (None, 3)
    >>> round(float(softclip(100.0, 2.0)), 3)
    2.0
    """

    def op(*args: Any, **settings: Any) -> Any:
        return _JaxCall(function, settings)(*args) if any_symbolic(args) else _run_jax(function, args, settings)

    op.__name__, op.__doc__ = getattr(function, "__name__", "jax"), function.__doc__
    return op


def _run_jax(function: Callable, args: tuple, settings: dict) -> Any:
    values = [read(a) if isinstance(a, Variable) else a for a in args]
    return control.from_jax(functools.partial(function, **settings) if settings else function)(*values)


class _JaxCall(Operation):
    """A JAX function in a functional model."""

    def __init__(self, function: Callable, settings: dict):
        super().__init__()
        self.function, self.settings = function, settings

    def __call__(self, *args: Any) -> Any:
        if not any_symbolic(args):
            return _run_jax(self.function, args, self.settings)
        outputs = infer(lambda *a: _run_jax(self.function, a, self.settings), args, {})
        Call(self, args, {}, outputs)
        return outputs

    def get_config(self) -> dict[str, Any]:
        from ..errors import SerializationError

        raise SerializationError(
            f"'{self.name}' is a JAX function in a functional model, which cannot be saved. "
            "Put it into the `call` of a layer of your own and register that layer."
        )


def custom_gradient(f: Callable) -> Callable:
    """A function with a gradient of its own: ``f(*args) -> (result, function from its gradient to the arguments')``.

    >>> import kerasoft as ks
    >>> import jax
    >>> @ks.ops.custom_gradient
    ... def twice(x):
    ...     return 2 * x, lambda upstream: 10 * upstream
    >>> float(twice(3.0)), float(jax.grad(twice)(3.0))
    (6.0, 10.0)
    """
    import jax as _jax

    inner = _jax.custom_gradient(f)
    op = jax(inner)

    def call(*args: Any, **kwargs: Any) -> Any:
        if any(hasattr(x, "op") or isinstance(x, KerasTensor) for x in tree.flatten((args, kwargs))):
            return op(*args, **kwargs)
        args, kwargs = tree.map_structure(lambda x: read(x) if isinstance(x, Variable) else x, (args, kwargs))
        return inner(*args, **kwargs)

    call.__name__, call.__doc__ = getattr(f, "__name__", "custom_gradient"), f.__doc__
    return call

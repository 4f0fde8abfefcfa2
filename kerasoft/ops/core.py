"""Conversion, shapes, control flow, and JAX functions as ops."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import numpy as np

from .. import dtypes, tree
from ..compiler.ops import control
from ..scope import read
from ..tensors import Call, KerasTensor, Operation, any_symbolic, infer, is_tensor
from ..variables import Variable
from . import elementwise as e
from .dispatch import dtype_of, kernel, public, shape_of, tensor

__all__ = [
    "cond", "convert_to_numpy", "convert_to_tensor", "dtype", "fori_loop", "is_tensor", "jax", "map", "ndim", "scan",
    "select", "shape", "size", "stop_gradient", "switch", "vectorized_map", "while_loop",
]  # fmt: skip


def shape(x: Any) -> tuple:
    """The sizes of x; None (symbolic tensors) or a named unknown (in a trace) for those that are not known."""
    return x.shape if isinstance(x, KerasTensor) else shape_of(x)


def ndim(x: Any) -> int:
    """The number of axes."""
    return len(shape(x))


def size(x: Any) -> Any:
    """The number of elements."""
    total: Any = 1
    for s in shape_of(x):
        total = s * total
    return total


def dtype(x: Any) -> str:
    """The name of x's dtype."""
    return dtypes.standardize(x.dtype) if hasattr(x, "dtype") else dtype_of(x)


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
    """x as a NumPy array.

    Raises:
        TypeError: x is symbolic.
    """
    return np.asarray(x.numpy() if isinstance(x, Variable) else x)


@public("core", "StopGradient", "variable")
def stop_gradient(variable: Any) -> Any:
    """The value, as a constant for gradients."""
    return kernel("stop_gradient")(tensor(variable))


# --- control flow -------------------------------------------------------------------------------------------------


def _is_traced(x: Any) -> bool:
    return hasattr(x, "op") or isinstance(x, KerasTensor)


def cond(pred: Any, true_fn: Callable, false_fn: Callable) -> Any:
    """``true_fn()`` if `pred`, else ``false_fn()``; both give one tensor or a tuple of them."""
    pred = read(pred) if isinstance(pred, Variable) else pred
    if isinstance(pred, KerasTensor):
        return tree.map_structure(lambda a, b: e.where(pred, a, b), true_fn(), false_fn())
    return control.cond(pred, true_fn, false_fn)


def switch(index: Any, branches: list, *operands: Any) -> Any:
    """``branches[index](*operands)``, the index cut to the branches there are."""
    index = read(index) if isinstance(index, Variable) else index
    if not _is_traced(index):
        return branches[int(np.clip(int(index), 0, len(branches) - 1))](*operands)
    result = branches[0](*operands)
    for i, branch in enumerate(branches[1:], 1):
        result = tree.map_structure(
            lambda a, b, i=i: e.where(e.greater_equal(index, i), b, a), result, branch(*operands)
        )
    return result


def select(condlist: list, choicelist: list, default: Any = 0) -> Any:
    """Element by element the choice of the first condition that is true."""
    result = default
    for condition, choice in zip(reversed(condlist), reversed(choicelist), strict=True):
        result = e.where(condition, choice, result)
    return result


def fori_loop(lower: Any, upper: Any, body_fun: Callable, init_val: Any) -> Any:
    """``body_fun(i, value)`` for each i from `lower` up to but not `upper`, one after the other."""
    leaves = tree.flatten(init_val)
    if not any(_is_traced(v) for v in (lower, upper, *leaves)):
        for i in range(int(lower), int(upper)):
            init_val = body_fun(i, init_val)
        return init_val

    def step(i: Any, *values: Any) -> list:
        return [e.add(i, 1), *tree.flatten(body_fun(i, tree.pack_as(init_val, list(values))))]

    start = lower if _is_traced(lower) else np.int32(lower)
    results = control.while_loop(lambda i, *_: e.less(i, upper), step, [start, *_tensors(leaves)])
    return tree.pack_as(init_val, list(results[1:]))


def _tensors(values: list) -> list:
    return [tensor(v) for v in values]


def while_loop(cond: Callable, body: Callable, loop_vars: Any, maximum_iterations: int | None = None) -> Any:
    """``body(*loop_vars)`` as long as ``cond(*loop_vars)``. There is no gradient through it in a trace."""
    single = not isinstance(loop_vars, (list, tuple))
    start = _tensors([loop_vars] if single else list(loop_vars))

    def rounds(i: Any, *values: Any) -> Any:
        going = cond(*values)
        return going if maximum_iterations is None else e.logical_and(going, e.less(i, maximum_iterations))

    def step(i: Any, *values: Any) -> list:
        new = body(*values)
        return [e.add(i, 1), *(new if isinstance(new, (list, tuple)) else [new])]

    results = list(control.while_loop(rounds, step, [np.int32(0), *start]))[1:]
    return results[0] if single else tuple(results) if isinstance(loop_vars, tuple) else results


def scan(
    f: Callable, init: Any, xs: Any = None, length: int | None = None, reverse: bool = False, unroll: int = 1
) -> Any:
    """``carry, y = f(carry, x)`` along the first axis of `xs`: the last carry, and the ys stacked.

    >>> carry, sums = scan(lambda c, x: (c + x, c + x), 0.0, np.array([1.0, 2.0, 3.0], "float32"))
    >>> float(carry), sums.tolist()
    (6.0, [1.0, 3.0, 6.0])
    """
    leaves = [] if xs is None else _tensors(tree.flatten(xs))
    last_y: list[Any] = []

    def step(carry: list, cells: list) -> tuple[list, list]:
        new, y = f(tree.pack_as(init, carry), None if xs is None else tree.pack_as(xs, cells))
        last_y[:] = [y]
        return tree.flatten(new), [] if y is None else tree.flatten(y)

    last, ys = control.scan(step, _tensors(tree.flatten(init)), leaves, length, reverse)
    y = last_y[0] if last_y else None
    return tree.pack_as(init, last), None if y is None else tree.pack_as(y, ys)


def map(f: Callable, xs: Any) -> Any:
    """``f(x)`` for each x along the first axis, stacked."""
    return scan(lambda carry, x: (carry, f(x)), 0, xs)[1]


def vectorized_map(function: Callable, elements: Any) -> Any:
    """``function(x)`` for each x along the first axis, stacked."""
    return map(function, elements)


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

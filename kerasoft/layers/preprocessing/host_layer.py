"""HostLayer: a layer that computes in NumPy on the host, because XLA knows neither strings nor 64-bit numbers."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any

import numpy as np

from ... import dtypes, tree
from ...errors import LayerError
from ...tensors import KerasTensor, any_symbolic, is_tensor
from ..errors_in_calls import located
from ..layer import Layer


class HostLayer(Layer):
    """A layer of raw columns: strings, or whole numbers of 64 bits.

    Called on arrays, it computes in NumPy. In a model it must come before all that is compiled: `training/host.py` runs
    it on each block of rows, on the driver or on the executors, and compiles the rest.

    A subclass gives `host_function` and `compute_output_spec`.
    """

    has_device_call = False
    """Whether `device_call` has a formula too."""

    def host_function(self) -> Callable[[Any], np.ndarray]:
        """What the layer computes, as a function of arrays that holds no layer, so that executors can run it."""
        raise NotImplementedError

    def sparse_function(self) -> Callable[[Any], Any]:
        """As `host_function`, giving `SparseRows`; of layers with ``sparse=True`` whose result is a matrix."""
        raise NotImplementedError

    def device_call(self, inputs: Any) -> Any:
        """The same on graph nodes.

        Raises:
            LayerError: there is no such formula.
        """
        raise LayerError(
            f"{type(self).__name__} '{self.name}' works on strings or 64-bit numbers before the compiled step; here its "
            "input is computed inside it. In a functional or Sequential model put it directly behind an Input; otherwise "
            "apply it to the data: rdd.map(lambda row: (layer(row.text), row.label))."
        )

    def __call__(self, inputs: Any, *args: Any, **kwargs: Any) -> Any:
        kwargs.pop("training", None)
        if any_symbolic(inputs):
            return self._symbolic_call((inputs, *args), kwargs)
        with located(self, (inputs,), {}):
            self.built = True
            if any(hasattr(x, "op") or _is_traced(x) for x in tree.flatten(inputs)):
                return self.device_call(inputs)
            return self.call(inputs)

    def call(self, inputs: Any) -> Any:
        return on_device(self.host_function()(as_host(inputs)))

    @property
    def input_dtype(self) -> str:
        return "string"

    def compute_output_shape(self, input_shape: Any) -> tuple:
        raise NotImplementedError


def _is_traced(x: Any) -> bool:
    """Whether `x` is an array under `jax.jit` or `jax.grad`, which has no values yet."""
    jax = sys.modules.get("jax")
    return jax is not None and isinstance(x, jax.core.Tracer)


def as_host(inputs: Any) -> Any:
    """JAX arrays among `inputs` as NumPy's; the rest as it is."""

    def convert(x: Any) -> Any:
        return np.asarray(x) if is_tensor(x) and not isinstance(x, (np.ndarray, np.generic, KerasTensor)) else x

    return tree.map_structure(convert, inputs)


def on_device(result: np.ndarray) -> Any:
    """A result as the array that other layers return; text stays in NumPy."""
    if result.dtype == object:
        return result
    import jax.numpy as jnp

    return jnp.asarray(result.astype(dtypes.narrowed(result.dtype)))


def one_of(layer: Any, name: str, value: Any, allowed: tuple, none: bool = False, function: bool = False) -> Any:
    """`value` if it is one of the allowed strings.

    Raises:
        ValueError: it is not; in Keras's words.
    """
    if (value is None and none) or (callable(value) and function) or (isinstance(value, str) and value in allowed):
        return value
    raise ValueError(
        f"Unknown value for `{name}` argument of {type(layer).__name__}. Allowed values are: {allowed}. "
        f"Received: {name}={value}"
    )


def salt_of(layer: Any, salt: Any) -> list[int] | None:
    """Two numbers of a salt that is a number, a pair, or None.

    Raises:
        ValueError: something else.
    """
    if salt is None:
        return None
    if isinstance(salt, (tuple, list)) and len(salt) == 2:
        return list(salt)
    if isinstance(salt, int):
        return [salt, salt]
    raise ValueError(
        f"The `salt` argument for `{type(layer).__name__}` can only be a tuple of size 2 integers, or a single integer. "
        f"Received: salt={salt}."
    )

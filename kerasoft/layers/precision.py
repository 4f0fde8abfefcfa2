"""Precision: in which dtypes a layer keeps its weights, takes its inputs and computes; and its quantised form."""

from __future__ import annotations

from typing import Any

import numpy as np

from .. import dtypes, tree
from ..dtype_policies import DTypePolicyMap
from ..errors import LayerError
from ..scope import get_mask, set_mask
from ..tensors import KerasTensor
from ..variables import Variable
from .state import State


class Precision(State):
    """The part of `Layer` that knows its dtype policy."""

    _policy_for_sublayers = False  # True: sublayers are made with this layer's policy and not kept in its config

    _dtype_policy: Any
    autocast: bool
    path: str | None
    _is_quantized: bool

    @property
    def dtype_policy(self) -> dtypes.DTypePolicy:
        return self._dtype_policy

    @dtype_policy.setter
    def dtype_policy(self, value: Any) -> None:
        found = dtypes.policy(value)
        if isinstance(self._dtype_policy, DTypePolicyMap) and self.path:
            if self.path in self._dtype_policy:
                del self._dtype_policy[self.path]
            self._dtype_policy[self.path] = found
        else:
            self._dtype_policy = found
        if found.quantization_mode is not None and self.built and not self._is_quantized:
            self.quantize(found.quantization_mode)

    def _saved_policy(self) -> Any:
        """The policy for a config: one a path when sublayers that the config does not hold are quantised."""
        if not self._policy_for_sublayers:
            return self._dtype_policy
        quantized = {layer.path: layer.dtype_policy for layer in self._flatten_layers()[1:] if layer._is_quantized}
        plain = isinstance(self._dtype_policy, DTypePolicyMap) or not quantized
        return self._dtype_policy if plain else DTypePolicyMap(self._dtype_policy, quantized)

    @property
    def _own_policy(self) -> Any:
        """The policy, that of this layer's path where there is one a path."""
        policy = self._dtype_policy
        return policy[self.path] if isinstance(policy, DTypePolicyMap) and self.path else policy

    @property
    def dtype(self) -> str:
        return self._own_policy.variable_dtype

    @property
    def variable_dtype(self) -> str:
        return self._own_policy.variable_dtype

    @property
    def compute_dtype(self) -> str:
        return self._own_policy.compute_dtype

    @property
    def quantization_mode(self) -> str | None:
        """How the weights are quantised, such as ``"int8"``; None where they are not."""
        return self._own_policy.quantization_mode

    @property
    def input_dtype(self) -> str:
        return self.compute_dtype

    # --- inputs ---

    def _as_tensors(self, structure: Any) -> Any:
        """Arrays of `structure` as JAX arrays, floats in the compute dtype; lists of numbers become arrays."""
        if not structure:
            return structure
        import jax.numpy as jnp

        def convert(x: Any) -> Any:
            if x is None or isinstance(x, (str, bool, KerasTensor, Variable)) or hasattr(x, "op"):
                return x
            if is_text(x):
                return self._text(x)
            if isinstance(x, np.ndarray) and x.dtype == object:
                raise LayerError(f"Layer '{self.name}' got an array of Python objects; give numbers of equal shapes")
            if hasattr(x, "tocsr"):  # a SciPy matrix
                x = x.toarray()
            if isinstance(x, (int, float)):
                return jnp.asarray(x)
            if hasattr(x, "shape") and hasattr(x, "dtype"):
                return x if isinstance(x, jax_array) else jnp.asarray(x, dtypes.narrowed(x.dtype))
            return x

        jax_array = jnp.ndarray
        return tree.map_structure(convert, _numbers_as_arrays(structure))

    def _text(self, x: np.ndarray) -> Any:
        """What an array of strings becomes at the call: here, an error."""
        raise LayerError(
            f"Layer '{self.name}' ({type(self).__name__}) got text, such as {str(x.reshape(-1)[0])!r}; it takes numbers. Put a "
            "TextVectorization, StringLookup or Hashing layer before it."
        )

    def _cast_inputs(self, structure: Any) -> Any:
        """`structure` with its float tensors in the compute dtype, if the layer casts."""
        if not (self.autocast and structure):
            return structure
        wanted = self.input_dtype

        def cast(x: Any) -> Any:
            if not hasattr(x, "dtype") or not hasattr(x, "shape") or isinstance(x, KerasTensor) or is_text(x):
                return x
            kind = dtypes.standardize(x.dtype)
            if kind == wanted or kind not in dtypes.FLOATS or wanted not in dtypes.FLOATS:
                return x
            from .. import ops

            mask = get_mask(x)
            x = ops.cast(x, wanted)
            if mask is not None:
                set_mask(x, mask)
            return x

        return tree.map_structure(cast, structure)

    def _cast_dtype(self) -> str | None:
        if not self.autocast:
            return None
        policy = self._own_policy
        return policy.compute_dtype if policy.compute_dtype != policy.variable_dtype else None

    # --- quantisation (layers that can: see kerasoft.quantizers.layers) ---

    def quantize(self, mode: Any = None, type_check: bool = True, config: Any = None) -> None:
        """Replaces the weights by ``"int8"`` or ``"int4"`` numbers and scales.

        Raises:
            NotImplementedError: a layer that has no quantised form, or a mode that it does not have.
            ValueError: the layer is not built, or is quantised already.
        """
        from ..quantizers.layers import quantize_layer

        quantize_layer(self, mode, type_check, config)

    def quantized_build(self, input_shape: Any, mode: Any = None, **options: Any) -> None:
        """Makes the weights of the quantised form."""
        from ..quantizers.layers import build_quantized

        build_quantized(self, input_shape, mode, **options)

    def quantized_call(self, *args: Any, **kwargs: Any) -> Any:
        """`call` with quantised weights."""
        from ..quantizers.layers import call_quantized

        return call_quantized(self, *args, **kwargs)

    @property
    def _stored_variables(self) -> list[Variable]:
        if not self._is_quantized:
            return self._own_variables
        from ..quantizers.layers import stored_variables

        return stored_variables(self)


def is_text(x: Any) -> bool:
    """Whether `x` is an array of strings."""
    if not isinstance(x, np.ndarray) or not x.size:
        return False
    return x.dtype.kind in "UST" or (x.dtype == object and isinstance(x.reshape(-1)[0], (str, bytes)))


def _numbers_as_arrays(value: Any) -> Any:
    """Lists of numbers (of lists of numbers) as arrays; lists of tensors stay lists."""
    if isinstance(value, dict):
        return {k: _numbers_as_arrays(v) for k, v in value.items()}
    if isinstance(value, list):
        leaves = tree.flatten(value)
        if leaves and all(isinstance(x, (int, float, np.number)) and not isinstance(x, bool) for x in leaves):
            array = np.asarray(value)
            return array.astype(dtypes.narrowed(array.dtype))
        return [_numbers_as_arrays(v) for v in value]
    if isinstance(value, tuple):
        items = [_numbers_as_arrays(v) for v in value]
        return type(value)(*items) if tree.is_namedtuple(value) else tuple(items)
    return value

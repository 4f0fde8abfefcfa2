"""What a front-end op is: one function that takes KerasTensors, variables, graph nodes and arrays.

    @public("numpy", "Multiply", "x1 x2")
    def multiply(x1, x2):
        \"\"\"x1 * x2.\"\"\"
        return kernel("multiply")(x1, x2)

With a KerasTensor among its arguments the call is recorded (as an `OpCall` with Keras's class name, so that functional
models holding ops are saved and loaded as Keras's are) and its shape inferred. Otherwise variables are read, and the
compiler's op makes a node or computes at once.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from typing import Any

import numpy as np

from .. import tree
from ..scope import read
from ..tensors import Call, KerasTensor, Operation, any_symbolic, infer
from ..variables import Variable

ENTRIES: dict[str, Entry] = {}
"""Front-end ops by Keras's class name."""


class Entry:
    """A front-end op: its function, how Keras calls it, and which arguments are tensors."""

    def __init__(self, function: Callable, module: str, class_name: str, tensors: str, spec: Callable | None = None):
        self.function, self.spec = function, spec
        self.module, self.class_name = f"keras.src.ops.{module}", class_name
        self.signature = inspect.signature(function)
        self.tensors = tensors.split()
        self.variadic = next((n for n, p in self.signature.parameters.items() if p.kind is p.VAR_POSITIONAL), None)
        self.named = next((n for n, p in self.signature.parameters.items() if p.kind is p.VAR_KEYWORD), None)
        others = (*self.tensors, self.variadic, self.named)
        self.settings = [n for n in self.signature.parameters if n not in others]
        self.operation = type(class_name, (OpCall,), {"entry": self, "__doc__": function.__doc__})

    def split(self, args: tuple, kwargs: dict) -> tuple[list, dict, dict]:
        """Tensor arguments in order without trailing Nones, ``**kwargs`` of the function, and the settings by name."""
        bound = self.signature.bind(*args, **kwargs)
        bound.apply_defaults()
        if self.variadic:
            positional = list(bound.arguments[self.variadic])
        else:
            positional = [bound.arguments[name] for name in self.tensors]
            while positional and positional[-1] is None:
                positional.pop()
        named = bound.arguments[self.named] if self.named else {}
        return positional, named, {name: bound.arguments[name] for name in self.settings}

    def compute(self, args: tuple, kwargs: dict, settings: dict) -> Any:
        """The function on tensor arguments and settings."""
        if self.variadic:
            kinds = self.signature.parameters
            first = [v for n, v in settings.items() if kinds[n].kind is not inspect.Parameter.KEYWORD_ONLY]
            named = {n: v for n, v in settings.items() if kinds[n].kind is inspect.Parameter.KEYWORD_ONLY}
            return self.function(*first, *args, **named, **kwargs)
        return self.function(**dict(zip(self.tensors, args, strict=False)), **kwargs, **settings)


class OpCall(Operation):
    """An op in a functional model: the op with its settings, to be called on tensors."""

    entry: Entry

    def __init__(self, *args: Any, name: str | None = None, **settings: Any):
        super().__init__(name=name)
        self.settings = {**dict(zip(self.entry.settings, args, strict=False)), **settings}
        unknown = set(self.settings) - set(self.entry.settings)
        if unknown:
            raise TypeError(f"{type(self).__name__} has no settings {sorted(unknown)}; it has {self.entry.settings}")

    def get_config(self) -> dict[str, Any]:
        return {"name": self.name, **self.settings}

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        if any_symbolic(args, kwargs):
            spec = self.entry.spec
            outputs = infer(self._compute, args, kwargs) if spec is None else spec(*args, **kwargs, **self.settings)
            Call(self, args, kwargs, outputs)
            return outputs
        return self._compute(*args, **kwargs)

    def _compute(self, *args: Any, **kwargs: Any) -> Any:
        args, kwargs = _read((args, kwargs))
        return as_results(self.entry.compute(args, kwargs, self.settings))

    def __repr__(self) -> str:
        return f"<{type(self).__name__} name={self.name}>"


def _read(structure: Any) -> Any:
    """`structure`, a pair of positional and named arguments, with the variables in it read."""
    for part in structure:
        for x in part.values() if isinstance(part, dict) else part:
            if isinstance(x, (Variable, list, tuple, dict)):
                return tree.map_structure(lambda x: read(x) if isinstance(x, Variable) else x, structure)
    return structure


def as_results(results: Any) -> Any:
    """NumPy arrays and Python numbers among results as JAX arrays."""
    if isinstance(results, (np.ndarray, np.generic, bool, int, float)):
        import jax.numpy as jnp

        return jnp.asarray(results)
    if isinstance(results, (list, tuple)):
        return type(results)(as_results(r) for r in results)
    return results


def public(module: str, class_name: str, tensors: str = "x", spec: Callable | None = None) -> Callable:
    """Makes a function an op. `tensors` names the arguments that are tensors or lists of them; the rest are settings.

    `spec` gives the results for KerasTensors where tracing the function cannot: sizes that depend on values.
    """

    def decorate(function: Callable) -> Callable:
        entry = Entry(function, module, class_name, tensors, spec)
        ENTRIES[class_name] = entry

        @functools.wraps(function)
        def op(*args: Any, **kwargs: Any) -> Any:
            if any_symbolic(args, kwargs):
                positional, named, settings = entry.split(args, kwargs)
                return entry.operation(**settings)(*positional, **named)
            args, kwargs = _read((args, kwargs))
            return as_results(function(*args, **kwargs))

        op.entry = entry  # type: ignore[attr-defined]
        return op

    return decorate


def kernel(name: str, lower: Callable | None = None) -> Callable:
    """The compiler's op `name`; if there is none, one made of `lower` (or ``jax.numpy``'s `name`) and JAX's gradient."""
    from ..compiler.ops import registry

    found = registry.REGISTRY.get(name)
    if found is None:
        if lower is None:
            import jax.numpy as jnp

            lower = getattr(jnp, name)
        found = registry.op(name, lower=lower, gradient=registry.VJP)
    return found


def lowered(function: Callable) -> Callable:
    """A JAX function (arrays by position, settings by keyword) as an op of the compiler, with JAX's gradient.

    It is registered at first use, under its module's and its own name. A tuple comes back as a tuple.
    """
    name = f"{function.__module__.rpartition('.')[2]}_{function.__name__.strip('_')}"

    @functools.wraps(function)
    def op(*arrays: Any, **settings: Any) -> Any:
        from ..compiler.ops.registry import items

        result = kernel(name, function)(*arrays, **settings)
        several = isinstance(result, tuple) or (hasattr(result, "op") and hasattr(result.type, "items"))
        return items(result) if several else result

    return op


def tensor(value: Any) -> Any:
    """`value` as something that an op computes with: Python sequences become arrays, the rest stays."""
    if isinstance(value, (list, tuple)):
        import jax.numpy as jnp

        if any(hasattr(x, "shape") for x in tree.flatten(value)):
            from ..compiler.ops import shape

            return shape.stack([x if hasattr(x, "shape") else jnp.asarray(x) for x in map(tensor, value)])
        return jnp.asarray(value)
    return value


def fixed(axis: Any) -> Any:
    """`axis` as an attribute: lists become tuples, NumPy integers numbers."""
    if isinstance(axis, (list, tuple)):
        return tuple(int(a) for a in axis)
    return None if axis is None else int(axis)


def rank(value: Any) -> int:
    return len(value.shape) if hasattr(value, "shape") else np.ndim(value)


def shape_of(value: Any) -> tuple:
    """Sizes of an array or node; symbolic sizes stay symbolic."""
    return tuple(value.shape) if hasattr(value, "shape") else np.shape(value)


def dtype_of(value: Any) -> str:
    """The dtype in which `value` is computed."""
    from .. import dtypes

    if hasattr(value, "dtype"):
        return dtypes.narrowed(value.dtype)
    return {bool: "bool", int: "int32", float: "float32"}.get(type(value)) or dtypes.narrowed(np.asarray(value).dtype)


def is_static(size: Any) -> bool:
    return isinstance(size, (int, np.integer))


__all__ = [
    "ENTRIES",
    "Entry",
    "KerasTensor",
    "OpCall",
    "dtype_of",
    "fixed",
    "is_static",
    "kernel",
    "lowered",
    "public",
    "rank",
    "shape_of",
    "tensor",
]

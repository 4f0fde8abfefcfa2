"""ValueScope: variables stand for given values, and what is assigned to them is kept aside.

`update_step` and `stateless_apply` run the ordinary code in such a scope, so that it works on arrays, on JAX's tracers
and, unlike in a `kerasoft.StatelessScope`, on graph nodes; no variable changes.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from ..compiler.ir import Node
from ..scope import Scope, current_scope


class ValueScope(Scope):
    """A scope in which variables have other values.

    Args:
        mapping: pairs ``(variable, value)``; other variables keep their own value.

    >>> import kerasoft as ks
    >>> v = ks.Variable([1.0])
    >>> with ValueScope([(v, ks.ops.ones((1,)) * 5.0)]) as values:
    ...     _ = v.assign_add([1.0])
    >>> float(values.value(v)[0]), float(v.numpy()[0])
    (6.0, 1.0)
    """

    def __init__(self, mapping: Iterable[tuple[Any, Any]] = (), training: bool | None = True):
        super().__init__(training)
        self.values: dict[int, tuple[Any, Any]] = {id(variable): (variable, value) for variable, value in mapping}
        self.given = set(self.values)
        self.tracing = any(isinstance(value, Node) for _, value in self.values.values())

    def __enter__(self):
        outer = current_scope()
        if outer is not None:
            self.outer = outer
            self.tracing = self.tracing or outer.tracing
        return super().__enter__()

    outer: Any = None

    def value(self, variable: Any) -> Any:
        """The variable's value now."""
        if id(variable) in self.values:
            return self.values[id(variable)][1]
        if self.outer is not None and self.outer.holds_values:
            return self.outer.param(variable)
        return variable.numpy()

    param = value

    def assign(self, variable: Any, value: Any) -> None:
        """Keeps `value`, in the variable's dtype.

        Raises:
            ValueError: another shape.
        """
        from .. import ops

        value = ops.cast(ops.convert_to_tensor(value), variable.dtype)
        if tuple(value.shape) != tuple(variable.shape):
            raise ValueError(
                "The shape of the target variable and the shape of the target value in `variable.assign(value)` must "
                f"match. variable.shape={variable.shape}, Received: value.shape={tuple(value.shape)}. "
                f"Target variable: {variable!r}"
            )
        self.values[id(variable)] = (variable, value)

    def assigned_besides(self) -> list[tuple[Any, Any]]:
        """Variables that were assigned without having been given, and their values."""
        return [pair for key, pair in self.values.items() if key not in self.given]

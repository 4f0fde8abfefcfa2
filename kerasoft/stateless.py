"""Stateless scopes: running layers, optimizers and metrics as pure functions of the values of their variables."""

from __future__ import annotations

import contextlib
import contextvars
from collections.abc import Iterable, Iterator
from typing import Any

from .scope import EagerScope, Masks, current_scope

_step_key: contextvars.ContextVar[Any] = contextvars.ContextVar("step_key", default=None)
_step_masks: contextvars.ContextVar[Any] = contextvars.ContextVar("step_masks", default=None)


@contextlib.contextmanager
def step_key(key: Any) -> Iterator[None]:
    """Stateless scopes inside draw random numbers from `key` (uint32[2], perhaps a tracer) and share masks."""
    token, masks = _step_key.set(key), _step_masks.set(Masks())
    try:
        yield
    finally:
        _step_key.reset(token)
        _step_masks.reset(masks)


class StatelessScope(EagerScope):
    """Variables inside have the given values; assignments are kept in the scope and change no variable.

    The values may be tracers of JAX, so that what runs inside can be differentiated and compiled by JAX.

    Args:
        state_mapping: pairs of a variable and its value.
        collect_losses: whether `losses` collects what `add_loss` is given.
        initialize_variables: accepted; variables have values from the start.

    Raises:
        ValueError: a key that is no variable, or a value of another shape.

    >>> import kerasoft as ks
    >>> gain = ks.Variable([2.0], name="gain")
    >>> with ks.StatelessScope([(gain, ks.ops.array([3.0]))]) as scope:
    ...     _ = gain.assign(gain * 2.0)
    >>> scope.get_current_value(gain).tolist(), gain.numpy().tolist()
    ([6.0], [2.0])
    """

    holds_values = True

    def __init__(
        self, state_mapping: Iterable | None = None, collect_losses: bool = False, initialize_variables: bool = True
    ):
        super().__init__(training=None)
        shared = _step_masks.get()
        if shared is not None:
            self.masks = shared
        self.collect_losses, self.initialize_variables = collect_losses, initialize_variables
        self.state_mapping: dict[int, Any] = {}
        self.counts_rows = True
        for variable, value in state_mapping or ():
            self._put(variable, value)

    def _put(self, variable: Any, value: Any) -> None:
        import jax.numpy as jnp

        from .variables import Variable

        if not isinstance(variable, Variable):
            raise ValueError(
                "Invalid reference variable in StatelessScope: all keys in argument `mapping` must be Variable "
                f"instances. Received instead: {variable}"
            )
        value = value.numpy() if isinstance(value, Variable) else value
        value = jnp.asarray(value, variable.dtype)
        if tuple(variable.shape) != tuple(value.shape):
            raise ValueError(
                "Invalid variable value in StatelessScope: all values in argument `mapping` must be tensors with a shape "
                f"that matches the corresponding variable shape. For variable {variable}, received invalid value {value} "
                f"with shape {value.shape}."
            )
        self.state_mapping[id(variable)] = value

    # --- what traced code asks of a scope ---

    def param(self, variable: Any) -> Any:
        found = self.state_mapping.get(id(variable))
        return variable._value if found is None else found

    def assign(self, variable: Any, value: Any) -> None:
        import jax.numpy as jnp

        value = jnp.asarray(self.param(value) if hasattr(value, "assign") else value, variable.dtype)
        if tuple(value.shape) != tuple(variable.shape):
            raise ValueError(
                "The shape of the target variable and the shape of the target value in `variable.assign(value)` must "
                f"match. variable.shape={variable.shape}, Received: value.shape={value.shape}. Target variable: "
                f"{variable!r}"
            )
        self.state_mapping[id(variable)] = value

    @property
    def key(self) -> Any:
        """The step's key; outside of a step one that is drawn from the global seed."""
        given = _step_key.get()
        if given is not None:
            return given
        if self._key is None:
            from . import random

            self._key = random.global_seed_generator().next()
        return self._key

    @key.setter
    def key(self, value: Any) -> None:
        self._key = value

    def add_loss(self, loss: Any) -> None:
        self.losses.append(loss)

    def add_update(self, update: tuple[Any, Any]) -> None:
        """Takes a pair of a variable and its new value."""
        self.assign(*update)

    def get_current_value(self, variable: Any) -> Any:
        """The value given or assigned; None if there is none."""
        return self.state_mapping.get(id(variable))

    def value_of(self, variable: Any) -> Any:
        """As `get_current_value`, with the variable's own value where nothing is known."""
        return self.param(variable)


class SymbolicScope:
    """Accepted: shapes are inferred by tracing, which needs no stage of its own."""

    def __enter__(self) -> SymbolicScope:
        return self

    def __exit__(self, *_: Any) -> None:
        pass


def stateless_scope() -> StatelessScope | None:
    """The innermost scope if it is a stateless one."""
    found = current_scope()
    return found if isinstance(found, StatelessScope) else None

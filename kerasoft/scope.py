"""Scope: what a trace collects, and what traced code may read about the step.

A layer's `call` runs in three ways: on graph nodes (a trace), on symbolic tensors (which is a trace on nodes with
unknown sizes) and on arrays (eager). In a trace `current_scope()` is a `Scope`; in an eager call it is an `EagerScope`,
which has the same attributes with arrays in them, so that a layer is written once.
"""

from __future__ import annotations

import contextlib
import contextvars
from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np

from . import dtypes, naming

_current: contextvars.ContextVar[Any] = contextvars.ContextVar("scope", default=None)
_autocast: contextvars.ContextVar[str | None] = contextvars.ContextVar("autocast", default=None)


def current_scope() -> Any:
    """The innermost open `Scope` or `EagerScope`; None outside of any call."""
    return _current.get()


class Masks:
    """Masks of values, by the identity of the value (arrays cannot be dict keys)."""

    def __init__(self) -> None:
        self._entries: dict[int, tuple[Any, Any]] = {}

    def __setitem__(self, value: Any, mask: Any) -> None:
        self._entries[id(value)] = (value, mask)

    def __getitem__(self, value: Any) -> Any:
        return self._entries[id(value)][1]

    def __contains__(self, value: Any) -> bool:
        return id(value) in self._entries

    def __len__(self) -> int:
        return len(self._entries)

    def get(self, value: Any, default: Any = None) -> Any:
        entry = self._entries.get(id(value))
        return default if entry is None else entry[1]

    def pop(self, value: Any, default: Any = None) -> Any:
        entry = self._entries.pop(id(value), None)
        return default if entry is None else entry[1]


class Scope:
    """One trace of a model or a function into a graph.

    Args:
        training: whether layers behave as in training.
        variables: variables whose node names are fixed beforehand, in this order, so that several traces of one model
            (train, test, predict) agree on the names. Others get theirs at first use.
        valid: float32[b], 1 for real rows and 0 for padding; None when there is no padding.
        row_id: uint32[b], the rows' ordinals in the data set.
        key: uint32[2], the step's random key.
        rows: float32[], real rows in the global batch.
        share: float32[], this call's real rows / `rows`; None when the call is the whole batch.
        iteration: int32[], steps made so far.

    Attributes:
        params: variable of each `param` node, by the node's name.
        updates: latest assigned node of each variable that was assigned.
        masks: mask of each value that has one.
        segments: what is computed again for the gradient (rematerialization.py).
        losses: nodes added by `add_loss` and `add_share`; each is a share that adds up over calls.
        exact_rows: whether rows influence one another without `valid`, so that padding rows would change results.
        couples_rows: whether each shard must be computed alone (batch statistics).

    >>> from kerasoft import Variable, ops
    >>> gain = Variable([2.0], name="gain")
    >>> with Scope() as scope:
    ...     result = ops.multiply(gain, 3.0)
    >>> result
    <multiply : float32[1]>
    >>> list(scope.params)
    ['gain']
    """

    tracing = True
    holds_values = True  # whether variables have other values inside than their own

    def __init__(
        self,
        training: bool | None = False,
        *,
        variables: Iterable = (),
        valid: Any = None,
        row_id: Any = None,
        key: Any = None,
        rows: Any = None,
        share: Any = None,
        iteration: Any = None,
    ):
        self.training = training
        self.valid, self.row_id, self.key = valid, row_id, key
        self.rows, self.share, self.iteration = rows, share, iteration
        self.params: dict[str, Any] = {}
        self.updates: dict[Any, Any] = {}
        self.masks = Masks()
        self.segments: list[Any] = []
        self.losses: list[Any] = []
        self.exact_rows = False
        self.couples_rows = False
        self._nodes: dict[int, Any] = {}
        self._names: dict[str, int] = {}
        self._salt = 0
        self._tokens: list[Any] = []
        for variable in variables:
            self.node_of(variable)

    def __enter__(self):
        self._tokens.append(_current.set(self))
        return self

    def __exit__(self, *_):
        _current.reset(self._tokens.pop())

    # --- variables ---

    def node_of(self, variable: Any) -> Any:
        """The `param` node of a variable: its value at the start of the step."""
        node = self._nodes.get(id(variable))
        if node is None:
            from .compiler.ops.registry import param_node

            name = naming.unique(variable.path, self._names)
            while name in self.params:
                name = naming.unique(variable.path, self._names)
            node = param_node(name, variable.shape, variable.dtype, variable.trainable)
            self._nodes[id(variable)] = node
            self.params[name] = variable
        return node

    def param(self, variable: Any) -> Any:
        """The node of a variable's value now: the latest assigned one, else its `param` node."""
        assigned = self.updates.get(variable)
        return self.node_of(variable) if assigned is None else assigned

    def assign(self, variable: Any, value: Any) -> None:
        """Records a new value of a variable.

        Raises:
            ValueError: another shape.
        """
        from .compiler.ir import Node
        from .compiler.ops.registry import constant

        node = value if isinstance(value, Node) else constant(np.asarray(value))
        if tuple(node.shape) != tuple(variable.shape):
            raise ValueError(
                f"variable '{variable.path}' has shape {tuple(variable.shape)}, cannot assign a value of shape "
                f"{tuple(node.shape)}"
            )
        if node.dtype != variable.dtype:
            from . import ops

            node = ops.cast(node, variable.dtype)
        self.node_of(variable)
        self.updates[variable] = node

    # --- losses ---

    def add_loss(self, loss: Any) -> None:
        """Adds a loss of this call's rows; it is weighted by their share of the global batch."""
        from . import ops

        self.exact_rows = True
        loss = ops.sum(loss) if len(loss.shape) else loss
        self.losses.append(loss if self.share is None else ops.multiply(loss, self.share))

    def add_share(self, loss: Any) -> None:
        """Adds a loss that is this call's share already: summed over rows without padding, divided by `rows`."""
        self.losses.append(loss)

    def row_count(self, like: Any) -> Any:
        """Real rows in the global batch as a float: `rows`, or the leading size of `like` when it is not given."""
        if self.rows is not None:
            return self.rows
        from . import ops

        return ops.sum(ops.ones((like.shape[0],)))

    # --- randomness ---

    def next_salt(self) -> int:
        """A number that no other random draw of this trace has."""
        self._salt += 1
        return self._salt - 1


class EagerScope(Scope):
    """The scope of a call on arrays: variables are read and assigned at once."""

    tracing = False
    holds_values = False
    counts_rows = False  # whether the number of rows is not known before the first call

    def __init__(self, training: bool | None = None, batch: int = 0):
        super().__init__(training)
        self._key: Any = None
        self.iteration = np.int32(0)
        self.count_rows(batch)

    def count_rows(self, batch: int) -> None:
        """The call that begins now is of so many rows."""
        self.rows = np.float32(max(batch, 1))
        self.row_id = np.arange(batch, dtype=np.uint32)

    @property
    def key(self) -> Any:
        """A key drawn from the global seed at first use."""
        if self._key is None:
            from . import random

            self._key = np.asarray(random.global_seed_generator().next())
        return self._key

    @key.setter
    def key(self, value: Any) -> None:
        self._key = value

    def param(self, variable: Any) -> Any:
        return variable._value

    def assign(self, variable: Any, value: Any) -> None:
        variable.assign(value)

    def add_loss(self, loss: Any) -> None:
        self.losses.append(loss)


def read(variable: Any) -> Any:
    """What stands for a variable in an op: its node in a trace, its array otherwise; cast if the layer casts."""
    current = _current.get()
    value = variable._value if current is None else current.param(variable)
    wanted = _autocast.get()
    if wanted is not None and variable.autocast and dtypes.is_float(variable.dtype) and variable.dtype != wanted:
        from . import ops

        return ops.cast(value, wanted)
    return value


enter_autocast, leave_autocast = _autocast.set, _autocast.reset  # `autocast` without a `with`


@contextlib.contextmanager
def autocast(dtype: str | None) -> Iterator[None]:
    """Float variables read inside are cast to `dtype`; None stops casting."""
    token = _autocast.set(dtype)
    try:
        yield
    finally:
        _autocast.reset(token)


def get_mask(value: Any) -> Any:
    """The mask that goes with a tensor, or None."""
    found = getattr(value, "_keras_mask", None)
    current = _current.get()
    return current.masks.get(value) if found is None and current is not None else found


def set_mask(value: Any, mask: Any) -> None:
    """Attaches a mask to a tensor, for the layers that take it next; to arrays also beyond this call."""
    current = _current.get()
    if current is None or not current.tracing or hasattr(value, "_keras_mask"):
        try:
            value._keras_mask = mask
            return
        except AttributeError:  # not all arrays take attributes
            pass
    if current is not None:
        current.masks[value] = mask

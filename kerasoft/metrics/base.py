"""What a metric is: named states that add up over rows, and a result computed from them.

A metric is written once, Keras-style: `update_state` adds to its variables, `result` reads them. It is used

- eagerly: ``m.update_state(y, p); m.result()``, states in the metric's own variables;
- in a traced step: `measure` gives what one call adds to each state, as graph nodes; the runtime sums these over calls,
  workers and steps in float64, and `result_from` computes the result of the sums.

So states must be sums: an `update_state` that assigns anything but "old value plus something" is refused when traced.
"""

from __future__ import annotations

import contextlib
import contextvars
import inspect
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from .. import dtypes, ops, scope
from ..initializers import get as get_initializer
from ..naming import auto_name, name_scope, unique
from ..stateless import StatelessScope
from ..tree import flatten, map_structure
from ..variables import Variable

EPSILON = 1e-7


class Recording:
    """What `measure` knows of the call being traced.

    Attributes:
        valid: float32[batch], 1 for real rows; None when all are real.
        weighted: whether the user gave sample weights (else weights only say which rows are real).
        outer: the scope of the step being traced.
    """

    def __init__(self, valid: Any, weighted: bool, outer: Any):
        self.valid, self.weighted, self.outer = valid, weighted, outer

    def needs_exact_rows(self) -> None:
        """Marks the step: padding rows would change this metric."""
        if self.outer is not None:
            self.outer.exact_rows = True


_recording: contextvars.ContextVar[Recording | None] = contextvars.ContextVar("recording", default=None)


def recording() -> Recording | None:
    """The recording under way, None in eager use."""
    return _recording.get()


class Metric:
    """Base of metrics: override `update_state` and `result`.

    Args:
        dtype: dtype of the states, "float32" by default.
        name: name in logs; the class name in snake case by default.

    >>> import kerasoft as ks
    >>> class Positives(ks.metrics.Metric):
    ...     def __init__(self):
    ...         super().__init__(name="positives")
    ...         self.total = self.add_weight(name="total")
    ...     def update_state(self, y_true, y_pred, sample_weight=None):
    ...         hits = ks.ops.cast(y_pred > 0.5, "float32")
    ...         self.total.assign_add(ks.ops.sum(hits if sample_weight is None else hits * sample_weight))
    ...     def result(self):
    ...         return self.total
    >>> metric = Positives()
    >>> float(metric(None, ks.ops.convert_to_tensor([0.1, 0.7, 0.9])))
    2.0
    """

    _direction: str | None = None  # whether "up" or "down" is better, for callbacks

    def __init__(self, dtype: Any = None, name: str | None = None):
        self._variables: list[Variable] = []
        self.name = name or auto_name(type(self).__name__)
        self.dtype = dtypes.standardize(getattr(dtype, "compute_dtype", dtype))

    def __setattr__(self, name: str, value: Any) -> None:
        if isinstance(value, Variable):
            if "_variables" not in self.__dict__:
                raise RuntimeError("You forgot to call `super().__init__()` in the `__init__()` method. Go add it!")
            if all(value is not known for known in self._variables):
                self._variables.append(value)
        super().__setattr__(name, value)

    def add_variable(self, shape, initializer=None, dtype=None, aggregation="sum", name=None) -> Variable:
        """A state of known shape, zeros by default; a sum over rows, so it starts at 0 in a traced step."""
        if "_variables" not in self.__dict__:
            raise RuntimeError("You forgot to call `super().__init__()` in the `__init__()` method. Go add it!")
        first = get_initializer("zeros" if initializer is None else initializer)
        with name_scope(self.name.replace("/", ">")):
            variable = Variable(first, shape=tuple(shape), dtype=dtype or "float32", trainable=False, name=name)
        self._variables.append(variable)
        return variable

    def add_weight(self, shape=(), initializer=None, dtype=None, name=None) -> Variable:
        """As `add_variable`."""
        return self.add_variable(shape, initializer, dtype, name=name)

    @property
    def variables(self) -> list[Variable]:
        """Its own states, then those of the metrics among its attributes."""
        inner = [m for value in self.__dict__.values() for m in flatten(value) if isinstance(m, Metric)]
        return [*self._variables, *(variable for metric in inner for variable in metric.variables)]

    def update_state(self, *args, **kwargs):
        raise NotImplementedError(f"metric {type(self).__name__} must override `update_state`")

    def result(self):
        raise NotImplementedError(f"metric {type(self).__name__} must override `result`")

    def reset_state(self) -> None:
        """All states 0."""
        for variable in self.variables:
            variable.assign(np.zeros(variable.shape, variable.numpy().dtype))

    def __call__(self, *args, **kwargs):
        self.update_state(*args, **kwargs)
        return self.result()

    # --- as functions of the states ---

    def stateless_update_state(self, metric_variables: Sequence[Any], *args, **kwargs) -> list:
        """The values of `variables` after `update_state`, given those before. Works under `jax.jit`."""
        with self._holding(metric_variables) as inner:
            self.update_state(*args, **kwargs)
        return [inner.value_of(variable) for variable in self.variables]

    def stateless_result(self, metric_variables: Sequence[Any]) -> Any:
        """The result for these values of `variables`."""
        with self._holding(metric_variables):
            return map_structure(lambda x: x.value if isinstance(x, Variable) else x, self.result())

    def stateless_reset_state(self) -> list:
        """The values of `variables` that `reset_state` gives."""
        with StatelessScope() as inner:
            self.reset_state()
        return [inner.value_of(variable) for variable in self.variables]

    def _holding(self, values: Sequence[Any]) -> StatelessScope:
        variables = self.variables
        if len(values) != len(variables):
            raise ValueError(
                "Argument `metric_variables` must be a list of tensors corresponding 1:1 to "
                f"{type(self).__name__}().variables. Received list with length {len(values)}, but expected "
                f"{len(variables)} variables."
            )
        return StatelessScope(zip(variables, values, strict=True))

    # --- traced steps ---

    def states(self) -> dict[str, Variable]:
        """Its states by name, as in `measure` and `result_from`; repeated names get a number."""
        counts: dict[str, int] = {}
        return {unique(variable.name, counts): variable for variable in self.variables}

    def measure(self, y_true, y_pred, sample_weight=None, valid=None) -> dict[str, Any]:
        """What one call adds to each state, float32 nodes of the states' shapes.

        Args:
            y_true, y_pred: nodes, (batch, ...).
            sample_weight: node of weights, (batch,) or more axes; None for unweighted metrics.
            valid: float32[batch], 1 for real rows, 0 for padding; None when all are real. Where padding rows would
                change the metric all the same (an `update_state` without `sample_weight`, a function with one value a
                batch), the open scope's `exact_rows` becomes True.

        Raises:
            TypeError: a state is assigned something else than itself plus a value.
        """
        outer = scope.current_scope()
        record = Recording(valid, sample_weight is not None, outer)
        weights = sample_weight
        if valid is not None:
            weights = valid if sample_weight is None else _times_rows(sample_weight, valid)
        with _recorded(record) as inner:
            if outer is not None:
                inner.masks = outer.masks
            if weights is None:
                self.update_state(y_true, y_pred)
            elif _takes_weights(self.update_state):
                self.update_state(y_true, y_pred, sample_weight=weights)
            else:
                record.needs_exact_rows()
                self.update_state(y_true, y_pred)
            start = {variable: inner.node_of(variable) for variable in self.variables}
        added = {}
        for name, variable in self.states().items():
            new = inner.updates.get(variable)
            delta = None if new is None else _added(new, start[variable], set(start.values()), self, name)
            delta = np.zeros(variable.shape, "float32") if delta is None else delta
            delta = ops.cast(ops.convert_to_tensor(delta), "float32")
            added[name] = delta if delta.shape == variable.shape else ops.broadcast_to(delta, variable.shape)
        return added

    def result_from(self, sums: Mapping[str, Any]) -> Any:
        """The result for states summed on the host, float64: a float, or an array if the metric has several values.

        >>> import kerasoft as ks
        >>> ks.metrics.Mean().result_from({"total": 3.0, "count": 4.0})
        0.75
        """
        states = self.states()
        kept = [(variable, variable._value) for variable in states.values()]
        try:
            for name, variable in states.items():
                variable._value = np.asarray(sums[name], np.float64)
            result = self.result()
        except KeyError as error:
            raise ValueError(f"metric '{self.name}' has states {list(states)}, got sums of {list(sums)}") from error
        finally:
            for variable, value in kept:
                variable._value = value
        if isinstance(result, dict):
            return {name: _plain(value) for name, value in result.items()}
        return _plain(result)

    # --- configuration ---

    def get_config(self) -> dict:
        return {"name": self.name, "dtype": self.dtype}

    @classmethod
    def from_config(cls, config: dict) -> Metric:
        return cls(**config)

    def __repr__(self) -> str:
        return f"<{type(self).__name__} name={self.name}>"


def value_of(variable: Variable) -> Any:
    """The array of a state, for results: float32 in eager use, float64 in `result_from`, JAX's in `stateless_result`."""
    value = variable.value
    return value.astype("float32") if variable.dtype == "float64" else value


@contextlib.contextmanager
def _recorded(record: Recording) -> Iterator[scope.Scope]:
    token = _recording.set(record)
    try:
        with scope.Scope(training=False) as inner:
            yield inner
    finally:
        _recording.reset(token)


def _takes_weights(update_state) -> bool:
    parameters = inspect.signature(update_state).parameters
    return "sample_weight" in parameters or any(p.kind is p.VAR_KEYWORD for p in parameters.values())


def _times_rows(weights, valid):
    missing = len(weights.shape) - 1
    return ops.multiply(weights, ops.reshape(valid, tuple(valid.shape) + (1,) * missing) if missing else valid)


def _added(new, start, starts: set, metric: Metric, name: str):
    """d where `new` is start + d; None where it is start itself.

    Raises:
        TypeError: `new` has another form, or d reads a state.
    """
    parts = []
    while new is not start:
        op, inputs = new.op.name, new.inputs
        if op == "add" and _reads(inputs[0], {start}) != _reads(inputs[1], {start}):
            here = _reads(inputs[1], {start})
            new, part = inputs[here], inputs[not here]
            parts.append(part)
        elif op == "subtract" and _reads(inputs[0], {start}) and not _reads(inputs[1], {start}):
            new, part = inputs
            parts.append(ops.negative(part))
        elif op in ("cast", "reshape", "broadcast_to") and _reads(inputs[0], {start}):
            new = inputs[0]
        else:
            new = None
            break
    if new is None or any(_reads(part, starts) for part in parts):
        raise TypeError(
            f"metric '{metric.name}' ({type(metric).__name__}) assigns its state '{name}' something else than its old "
            "value plus a sum over rows. In a training step the rows are spread over workers, and only sums add up: "
            "use `self.state.assign_add(...)` and do the rest in `result()`."
        )
    total = None
    for part in parts:
        total = part if total is None else ops.add(total, part)
    return total


def _reads(node, states: set) -> bool:
    seen, stack = set(), [node]
    while stack:
        current = stack.pop()
        if current in states:
            return True
        if current not in seen:
            seen.add(current)
            stack.extend(current.inputs)
    return False


def _plain(value: Any) -> Any:
    array = np.asarray(value.numpy() if isinstance(value, Variable) else value)
    return float(array) if array.ndim == 0 else array

"""Variable: a named array that a layer keeps between calls."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from . import dtypes, naming, scope
from .errors import SymbolicValueError
from .operators import with_operators


@with_operators
class Variable:
    """A weight or a state.

    Args:
        initializer: an array, or a callable ``(shape, dtype) -> array`` (then `shape` is needed), or the name of one.
        shape: sizes, all known.
        dtype: as NumPy's; None is the array's own dtype (float32 for a callable).
        trainable: whether an optimizer moves it.
        autocast: whether a layer with a lower compute dtype reads it in that dtype.
        aggregation, synchronization: accepted for Keras's sake; every state is summed over replicas by its share.
        name: the last part of its path.

    Raises:
        ValueError: no shape for a callable initializer, an unknown size, or a name with a slash.

    >>> import kerasoft as ks
    >>> v = ks.Variable([1.0, 2.0], name="gain")
    >>> v.assign_add([1.0, 1.0]).tolist()
    [2.0, 3.0]
    >>> v.numpy().tolist(), v.shape, v.dtype
    ([2.0, 3.0], (2,), 'float32')
    """

    __array_priority__ = 900

    def __init__(
        self,
        initializer: Any,
        shape: Any = None,
        dtype: Any = None,
        trainable: bool = True,
        autocast: bool = True,
        aggregation: str = "none",
        synchronization: str = "auto",
        name: str | None = None,
        layout: Any = None,
    ):
        self.name = name if name is not None else naming.auto_name(type(self).__name__)
        if not isinstance(self.name, str) or "/" in self.name:
            raise ValueError(
                f"Argument `name` must be a string and cannot contain character `/`. Received: name={name}"
            )
        _one_of("aggregation", aggregation, (None, "none", "mean", "sum", "only_first_replica"))
        _one_of("synchronization", synchronization, (None, "none", "on_read", "on_write", "auto"))
        parents = naming.current_path()
        self.path = f"{parents}/{self.name}" if parents else self.name
        self._trainable = bool(trainable)
        self.autocast = bool(autocast)
        self.aggregation, self.synchronization = aggregation or "none", synchronization or "none"
        self._regularizer: Any = None
        self._constraint: Any = None
        self._overwrite_with_gradient = False
        self.initializer = initializer if callable(initializer) or isinstance(initializer, str) else None
        if isinstance(initializer, str):
            from . import initializers

            self.initializer = initializer = initializers.get(initializer)
        if callable(initializer):
            if shape is None:
                raise ValueError(
                    "When creating a Variable from an initializer, the `shape` argument should be specified. "
                    f"Received: initializer={initializer} and shape={shape}"
                )
            shape = tuple(shape)
            if not all(isinstance(d, (int, np.integer)) and d >= 0 for d in shape):
                raise ValueError(
                    f"Variable '{self.path}' needs a shape of known sizes, got {shape}. "
                    "Give the input the missing size."
                )
            self._shape, self._dtype = shape, dtypes_of(dtypes.standardize(dtype))
            self._array: np.ndarray | None = None
            if not getattr(initializer, "may_wait", False):
                self._draw()
        else:
            array = np.asarray(initializer)
            dtype = dtypes.standardize(dtype) if dtype is not None else dtypes.narrowed(array.dtype)
            self._hold(np.array(array, dtypes_of(dtype)))

    def _hold(self, array: np.ndarray) -> None:
        array.setflags(write=False)
        self._array, self._shape, self._dtype = array, array.shape, array.dtype

    def _draw(self) -> np.ndarray:
        """Calls the initializer; for one that may wait, when the value is read first."""
        array = self.drawn()
        self._hold(array)
        return array

    def drawn(self) -> np.ndarray:
        """What its initializer gives; nothing is kept."""
        array = np.asarray(self.initializer(self._shape, dtype=self._dtype.name), self._dtype)
        if array.shape != self._shape:
            raise ValueError(
                f"The initializer of variable '{self.path}' gave shape {array.shape}, expected {self._shape}."
            )
        return array

    @property
    def waits(self) -> bool:
        """Whether nobody has read or set it, so that its initializer is still to be called."""
        return self._array is None

    @property
    def _value(self) -> np.ndarray:
        return self._draw() if self._array is None else self._array

    @property
    def fill(self) -> float | None:
        """The number that every element is, of a variable that nobody has read or set; else None."""
        return getattr(self.initializer, "fill", None) if self._array is None else None

    @_value.setter
    def _value(self, array: Any) -> None:
        self._array, self._shape, self._dtype = array, tuple(array.shape), np.dtype(array.dtype)

    # --- what it holds ---

    @property
    def value(self) -> Any:
        """The NumPy array; while a graph is traced, the node that stands for it."""
        current = scope.current_scope()
        return self._value if current is None or not current.holds_values else current.param(self)

    def numpy(self) -> np.ndarray:
        """The array (read-only)."""
        return self._value

    @property
    def shape(self) -> tuple[int, ...]:
        return self._shape

    @property
    def ndim(self) -> int:
        return len(self._shape)

    @property
    def dtype(self) -> str:
        return dtypes.standardize(self._dtype)

    @property
    def size(self) -> int:
        return math.prod(self._shape)

    @property
    def trainable(self) -> bool:
        """Whether an optimizer moves it."""
        return self._trainable

    @trainable.setter
    def trainable(self, value: Any) -> None:
        self._trainable = bool(value)

    @property
    def regularizer(self) -> Any:
        """What is added to the loss for its value: a callable, or None."""
        return self._regularizer

    @regularizer.setter
    def regularizer(self, value: Any) -> None:
        self._regularizer = _callable("regularizer", value)

    @property
    def constraint(self) -> Any:
        """What an optimizer's step makes of its value: a callable, or None."""
        return self._constraint

    @constraint.setter
    def constraint(self, value: Any) -> None:
        self._constraint = _callable("constraint", value)

    @property
    def overwrite_with_gradient(self) -> bool:
        """Whether an optimizer puts the gradient in the place of the value."""
        return self._overwrite_with_gradient

    @overwrite_with_gradient.setter
    def overwrite_with_gradient(self, value: bool) -> None:
        if not isinstance(value, bool):
            raise TypeError(f"`overwrite_with_gradient` must be a boolean. Received: {value}")
        self._overwrite_with_gradient = value

    def assign(self, value: Any) -> Any:
        """Sets the value and returns it; while a graph is traced, records the new value as a state update.

        Raises:
            ValueError: another shape.
        """
        current = scope.current_scope()
        if current is not None and current.holds_values:
            current.assign(self, value)
            return self.value
        array = np.asarray(value.numpy() if isinstance(value, Variable) else value)
        if array.shape != self.shape:
            raise ValueError(
                "The shape of the target variable and the shape of the target value in `variable.assign(value)` must "
                f"match. variable.shape={self.shape}, Received: value.shape={array.shape}. Target variable: {self!r}"
            )
        self._hold(np.array(array, self._dtype))
        return self._array

    def adopt(self, array: np.ndarray) -> None:
        """As `assign`, but holds `array` itself where it can: nobody may write to it afterwards."""
        if array.shape == self._shape and array.dtype == self._dtype:
            self._hold(array)
        else:
            self.assign(array)

    def assign_add(self, value: Any) -> Any:
        return self.assign(self + value)

    def assign_sub(self, value: Any) -> Any:
        return self.assign(self - value)

    def __repr__(self) -> str:
        return f"<Variable path={self.path}, shape={self.shape}, dtype={self.dtype}>"

    # --- as an array ---

    def __graph_value__(self) -> Any:
        """What stands for it in an op: its node while a graph is traced, its array otherwise."""
        return scope.read(self)

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        current = scope.current_scope()
        if current is not None and current.tracing:
            raise SymbolicValueError(
                f"the value of variable '{self.path}' would be frozen into the graph as a constant. "
                "Use kerasoft.ops on the variable itself, or `variable.numpy()` if the constant is meant."
            )
        value = self.value
        return np.asarray(value, dtype) if dtype is not None or copy or value is not self._value else value

    def __jax_array__(self) -> Any:
        import jax.numpy

        current = scope.current_scope()
        if current is not None and current.tracing:
            self.__array__()  # refuses
        return jax.numpy.asarray(scope.read(self))

    def _scalar(self) -> Any:
        if self._shape:
            raise TypeError(f"Only scalar arrays can be converted to Python scalars. Got: shape={self._shape}")
        return self.__array__()

    def __float__(self) -> float:
        return float(self._scalar())

    def __int__(self) -> int:
        return int(self._scalar())

    def __pos__(self) -> Any:
        return self.value

    def __eq__(self, other: object) -> Any:
        """Element by element with numbers and arrays; of two variables, whether they are the same one."""
        if isinstance(other, Variable) or not (hasattr(other, "shape") or isinstance(other, (bool, int, float, list))):
            return self is other
        from . import ops

        return ops.equal(self, other)

    def __ne__(self, other: object) -> Any:
        if isinstance(other, Variable) or not (hasattr(other, "shape") or isinstance(other, (bool, int, float, list))):
            return self is not other
        from . import ops

        return ops.not_equal(self, other)

    __hash__ = object.__hash__

    def __bool__(self) -> bool:
        raise TypeError("A Keras Variable cannot be used as a boolean.")

    def __len__(self) -> int:
        if not self._shape:
            raise TypeError("len() of unsized object")
        return self._shape[0]

    def __iter__(self):
        return (self[i] for i in range(len(self)))


def _one_of(name: str, value: Any, known: tuple) -> None:
    if value not in known:
        listed = ", ".join(f"`{v!r}`" if v is not None else "`None`" for v in known)
        raise ValueError(f"Invalid value for argument `{name}`. Expected one of {listed}. Received: {name}={value}")


def _callable(name: str, value: Any) -> Any:
    if value is not None and not callable(value):
        raise ValueError(
            f"Invalid value for attribute `{name}`. Expected a callable (such as a `kerasoft.{name}s` instance) or "
            f"`None`. Received: {name}={value}"
        )
    return value


def dtypes_of(name: str) -> Any:
    """The NumPy dtype of a dtype name, bfloat16 too."""
    if name == "bfloat16":
        import ml_dtypes

        return np.dtype(ml_dtypes.bfloat16)
    return np.dtype(name)


def frozen(vector: Any) -> np.ndarray:
    """The vector as read-only memory that nobody else can write to: itself if it owns its memory, or a copy."""
    vector = np.asarray(vector, np.float32)
    if vector.flags.writeable and not vector.flags.owndata:
        vector = vector.copy()
    vector.setflags(write=False)
    return vector

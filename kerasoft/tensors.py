"""KerasTensor, the operations that made it, and shape inference by tracing.

A functional model is built by calling operations (layers, and ops such as `kerasoft.ops.add`) on `KerasTensor`s. Each
call is kept as a `Call` by its operation, and each result knows where it came from (`history`). Shapes are inferred by
running the operation on graph nodes whose unknown sizes are symbols.
"""

from __future__ import annotations

import functools
import inspect
import sys
from collections import namedtuple
from collections.abc import Callable
from typing import Any

import numpy as np

from . import dtypes, naming, tree
from .errors import LayerError, SymbolicValueError
from .operators import with_operators
from .rematerialization import get_current_remat_mode, rematerialized
from .scope import EagerScope, Masks, Scope, autocast, current_scope, get_mask, set_mask
from .variables import Variable

__all__ = [
    "Call", "EagerScope", "History", "KerasTensor", "Masks", "Operation", "Scope", "Variable", "any_symbolic",
    "autocast", "current_scope", "get_mask", "infer", "is_tensor", "known_shape", "set_mask", "user_line",
]  # fmt: skip

History = namedtuple("History", ["operation", "node_index", "tensor_index"])
"""Which result (`tensor_index`) of which call (`node_index`) of which operation a tensor is."""


@with_operators
class KerasTensor:
    """A tensor without a value: shape (None for unknown sizes), dtype, and the call that makes it.

    `sparse` says that its rows hold few numbers and will be given as such; every layer takes it as any other tensor.

    >>> import kerasoft as ks
    >>> x = ks.Input((3,))
    >>> (x * 2 + 1).shape
    (None, 3)
    """

    __array_priority__ = 1000

    def __init__(
        self,
        shape: Any,
        dtype: Any = "float32",
        sparse: bool = False,
        ragged: bool = False,
        record_history: bool = True,
        name: str | None = None,
        *,
        ragged_rank: int | None = None,
        row_splits_dtype: Any = None,
    ):
        if ragged:
            raise ValueError("ragged tensors are not supported; give a dense one")
        self._shape = standardize_shape(shape)
        self._dtype = dtypes.standardize(dtype)
        self._sparse = bool(sparse)
        self.name = name or naming.auto_name(type(self).__name__)
        self.record_history = record_history
        self._keras_history: Any = None
        self._keras_mask: Any = None
        self.mask_sources: tuple[tuple[KerasTensor, int], ...] = ()  # of a mask: see Masks.mask_sources

    @property
    def history(self) -> Any:
        """`(operation, node_index, tensor_index)`; None for a tensor that no call made."""
        return self._keras_history

    # What cannot be changed; ragged tensors do not exist here.
    shape = property(lambda self: self._shape)
    dtype = property(lambda self: self._dtype)
    sparse = property(lambda self: self._sparse)
    ragged = property(lambda self: False)
    ragged_rank = property(lambda self: None)
    row_splits_dtype = property(lambda self: None)

    @property
    def ndim(self) -> int:
        return len(self._shape)

    def reshape(self, newshape: Any) -> Any:
        from . import ops

        return ops.reshape(self, newshape)

    def squeeze(self, axis: Any = None) -> Any:
        from . import ops

        return ops.squeeze(self, axis)

    def __repr__(self) -> str:
        return f"<KerasTensor shape={self.shape}, dtype={self.dtype}, name={self.name}>"

    def __bool__(self) -> bool:
        raise SymbolicValueError(
            "A symbolic KerasTensor cannot be used as a boolean. Choose by values with kerasoft.ops.where or ops.cond."
        )

    def __array__(self, *_: Any, **__: Any) -> Any:
        raise SymbolicValueError(
            "A KerasTensor is symbolic: it's a placeholder for a shape an a dtype. It doesn't have any actual numerical "
            f"value. You cannot convert it to a NumPy array. Use kerasoft.ops or layers on {self!r}, or call the "
            "finished model on an array."
        )

    def __iter__(self):
        raise SymbolicValueError("Iterating over a symbolic KerasTensor is not supported.")

    def __len__(self) -> int:
        raise SymbolicValueError("A symbolic KerasTensor has no length; see its `shape`.")

    def __float__(self) -> float:
        raise SymbolicValueError("A KerasTensor is symbolic: it has no value. You cannot convert it to a float.")

    def __int__(self) -> int:
        raise SymbolicValueError("A KerasTensor is symbolic: it has no value. You cannot convert it to an int.")

    def __jax_array__(self) -> Any:
        raise SymbolicValueError(
            "A KerasTensor cannot be used as input to a JAX function. Make an op of the function with "
            "kerasoft.ops.jax(function), or call it in the `call` of a layer of your own."
        )

    def __ne__(self, other: object) -> Any:
        from . import ops

        return ops.not_equal(self, other)

    __hash__ = object.__hash__


class Call:
    """One call of an operation on symbolic tensors (Keras calls it a node).

    Attributes:
        args, kwargs: as given, structures that hold KerasTensors.
        inputs: the KerasTensors among them; outputs: the results, flat.
        line: the user's ``file:line`` of the call.
        mask_sources: tensors that the masks are computed from which the operation takes by itself, and by how many ops.
    """

    mask_sources: tuple[tuple[KerasTensor, int], ...] = ()

    def __init__(self, operation: Operation, args: tuple = (), kwargs: dict | None = None, outputs: Any = None):
        self.operation = operation
        self.args, self.kwargs = tuple(args), dict(kwargs or {})
        self.inputs = [x for x in tree.flatten((self.args, self.kwargs)) if isinstance(x, KerasTensor)]
        self.outputs = tree.flatten(outputs)
        self.line = user_line()
        for x in self.outputs:
            if not isinstance(x, KerasTensor):
                raise ValueError(
                    f"All operation outputs must be tensors. Operation {operation!r} returned a non-tensor. "
                    f"Non-tensor received: {x!r}"
                )
        index = len(operation._inbound_nodes)
        operation._inbound_nodes.append(self)
        for parent in self.parents if self.inputs else ():
            parent.operation._outbound_nodes.append(self)
        for i, x in enumerate(self.outputs):
            x._keras_history = History(operation, index, i)

    @property
    def is_input(self) -> bool:
        """Whether this call has no tensors before it."""
        return not self.inputs

    @property
    def parents(self) -> list[Call]:
        """The calls that made the inputs."""
        made = [x._keras_history for x in self.inputs if x._keras_history is not None]
        return [h.operation._inbound_nodes[h.node_index] for h in made]

    # Keras's names.
    input_tensors = property(lambda self: self.inputs)
    output_tensors = property(lambda self: self.outputs)
    parent_nodes = property(lambda self: self.parents)

    def __repr__(self) -> str:
        return f"<Call of {self.operation.name}>"


class Operation:
    """What can be called on tensors and keeps its calls: a layer, or an op of `kerasoft.ops`.

    The arguments of the constructor are captured, so that `get_config` needs to be written only when they do not
    suffice.
    """

    _captured: dict[str, Any]

    def __new__(cls, *args: Any, **kwargs: Any):
        instance = super().__new__(cls)
        object.__setattr__(instance, "_captured", _captured_arguments(cls, args, kwargs))
        return instance

    def __init__(self, name: str | None = None):
        if name is None:
            name = naming.auto_name(type(self).__name__)
        if not isinstance(name, str) or "/" in name:
            raise ValueError(
                "Argument `name` must be a string and cannot contain character `/`. "
                f"Received: name={name!r} (of type {type(name)})"
            )
        self.name = name
        self._inbound_nodes: list[Call] = []
        self._outbound_nodes: list[Call] = []
        self._remat_mode = get_current_remat_mode()

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        if any_symbolic(args, kwargs):
            return self.symbolic_call(*args, **kwargs)
        run = self.call if self._remat_mode is None else rematerialized(self, self.call, self._remat_mode)
        return run(*args, **kwargs)

    def symbolic_call(self, *args: Any, **kwargs: Any) -> Any:
        """The outputs as KerasTensors that remember this call."""
        outputs = self.compute_output_spec(*args, **kwargs)
        Call(self, args, kwargs, outputs)
        return outputs

    def call(self, *args: Any, **kwargs: Any) -> Any:
        raise NotImplementedError(f"Operation {type(self).__name__} does not have a `call()` method implemented.")

    def compute_output_spec(self, *args: Any, **kwargs: Any) -> Any:
        """KerasTensors like the outputs of `call` for KerasTensors."""
        return infer(self.call, args, kwargs)

    @property
    def input(self) -> Any:
        """The symbolic input of the first call."""
        return _singleton(self._first_call("input").inputs)

    @property
    def output(self) -> Any:
        """The symbolic output of the first call."""
        return _singleton(self._first_call("output").outputs)

    def _first_call(self, what: str) -> Call:
        if not self._inbound_nodes:
            raise AttributeError(
                f"The layer {self.name} has never been called and thus has no defined {what}. Note that the `{what}` "
                f"property is only available for Functional and Sequential models."
            )
        return self._inbound_nodes[0]

    def get_config(self) -> dict[str, Any]:
        return {"name": self.name, **self._captured}

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> Any:
        return cls(**config)


@functools.lru_cache(1024)
def _signature_of(function: Callable) -> inspect.Signature:
    return inspect.signature(function)


def _captured_arguments(cls: type, args: tuple, kwargs: dict) -> dict[str, Any]:
    """The constructor's arguments by name, defaults filled in; ``*args`` are left out."""
    try:
        signature = _signature_of(cls.__init__)
        bound = signature.bind(None, *args, **kwargs)
    except (TypeError, ValueError):
        return {}
    bound.apply_defaults()
    captured: dict[str, Any] = {}
    for index, (name, parameter) in enumerate(signature.parameters.items()):
        if index == 0 or parameter.kind is parameter.VAR_POSITIONAL:
            continue
        if parameter.kind is parameter.VAR_KEYWORD:
            captured.update(bound.arguments.get(name, {}))
        else:
            captured[name] = bound.arguments[name]
    return captured


def _singleton(values: list) -> Any:
    return values[0] if len(values) == 1 else values


# --- shapes -------------------------------------------------------------------------------------------------------


def standardize_shape(shape: Any) -> tuple:
    """A tuple of sizes and Nones.

    Raises:
        ValueError: not a shape, or a negative size.
    """
    if isinstance(shape, (int, np.integer)) or shape is None:
        raise ValueError(
            f"a shape is a tuple of sizes, received {shape!r}"
            + ("" if shape is None else f"; did you mean ({shape},)?")
        )
    shape = tuple(shape)
    plain = True
    for size in shape:
        if size is None or (type(size) is int and size >= 0):
            continue
        if isinstance(size, bool) or not isinstance(size, (int, np.integer)) or size < 0:
            raise ValueError(f"Cannot convert '{shape}' to a shape. Found invalid dimension '{size}'.")
        plain = False
    return shape if plain else tuple([None if size is None else int(size) for size in shape])


def known_shape(value: Any) -> tuple:
    """The shape of any tensor, with None for sizes that are not known numbers."""
    shape = value.shape
    for d in shape:
        if type(d) is not int:
            return tuple([int(d) if isinstance(d, (int, np.integer)) else None for d in shape])
    return tuple(shape)


def symbolic_sizes(shape: tuple) -> tuple:
    """`shape` with its unknown sizes named: `b` on axis 0, `n<i>` on axis i."""
    from .compiler.ir import symbol

    return tuple(symbol("b" if i == 0 else f"n{i}") if size is None else size for i, size in enumerate(shape))


def is_tensor(value: Any) -> bool:
    """Whether `value` is an array, a variable, a graph node or a KerasTensor."""
    return hasattr(value, "shape") and hasattr(value, "dtype") and not isinstance(value, type)


def any_symbolic(*structures: Any) -> bool:
    """Whether there is a KerasTensor among the leaves."""
    for structure in structures:
        if isinstance(structure, dict):
            structure = structure.values()
        elif not isinstance(structure, (list, tuple)):
            structure = (structure,)
        for x in structure:
            if isinstance(x, KerasTensor):
                return True
            if isinstance(x, (list, tuple, dict)):
                for leaf in tree.flatten(x):
                    if isinstance(leaf, KerasTensor):
                        return True
    return False


# --- inference ----------------------------------------------------------------------------------------------------


def infer(function: Callable, args: tuple, kwargs: dict) -> Any:
    """What `function` would give for these KerasTensors: the structure of its results as new KerasTensors.

    `function` is run on graph nodes. Masks go in and come out.
    """
    from .compiler.ir import symbol
    from .compiler.ops.registry import input_node
    from .compiler.ops.sparse import is_sparse, unpacked

    scope = inference_scope()
    nodes: dict[int, Any] = {}

    def to_node(x: Any) -> Any:
        if not isinstance(x, KerasTensor):
            return x
        if x.dtype == "string":
            raise LayerError(
                f"{x!r} is text, which cannot be computed with: put a TextVectorization, StringLookup or Hashing layer "
                "behind the Input, or encode the data before."
            )
        if id(x) not in nodes:
            i = len(nodes)
            if x.sparse and x.ndim == 2 and x.shape[1] is not None:
                packed = input_node(f"x{i}", (*symbolic_sizes((x.shape[0],)), 2, symbol(f"s{i}")), "int32")
                made = unpacked(packed, x.shape[1])
            else:
                made = input_node(f"x{i}", symbolic_sizes(x.shape), dtypes.narrowed(x.dtype))
            nodes[id(x)] = made
            if x._keras_mask is not None:
                mask = x._keras_mask
                scope.masks[made] = input_node(f"mask{i}", symbolic_sizes(mask.shape), mask.dtype)
        return nodes[id(x)]

    def to_tensor(value: Any) -> Any:
        if value is None:
            return None
        if not is_tensor(value):
            value = np.asarray(value)
        made = KerasTensor(known_shape(value), dtypes.narrowed(value.dtype), sparse=is_sparse(value))
        mask = scope.masks.get(value)
        if mask is not None:
            made._keras_mask = KerasTensor(known_shape(mask), mask.dtype, name="mask", record_history=False)
        return made

    with scope:
        outputs = function(*tree.map_structure(to_node, args), **tree.map_structure(to_node, kwargs))
        return tree.map_structure(to_tensor, outputs)


def inference_scope() -> Scope:
    """A scope whose step values are inputs of unknown origin."""
    from .compiler.ir import symbol
    from .compiler.ops.registry import input_node

    batch = symbol("b")
    return Scope(
        training=None,
        row_id=input_node("row_id", (batch,), "uint32"),
        key=input_node("key", (2,), "uint32"),
        rows=input_node("rows", (), "float32"),
        share=input_node("share", (), "float32"),
        iteration=input_node("iteration", (), "int32"),
    )


# --- the user's line ----------------------------------------------------------------------------------------------


_LIBRARIES = {"kerasoft", "jax", "jaxlib", "numpy", "contextlib", "functools"}


def is_user_frame(frame: Any) -> bool:
    """Whether a frame runs code that is neither kerasoft's nor of a library under it."""
    return frame.f_globals.get("__name__", "").partition(".")[0] not in _LIBRARIES


def user_line(traceback: Any = None) -> str | None:
    """``file:line`` of the innermost user code: in `traceback` if it has some, else on the stack."""
    found = None
    while traceback is not None:
        if is_user_frame(traceback.tb_frame):
            found = f"{traceback.tb_frame.f_code.co_filename}:{traceback.tb_lineno}"
        traceback = traceback.tb_next
    if found:
        return found
    frame = sys._getframe(1)
    while frame is not None:
        top = frame.f_globals.get("__name__", "").partition(".")[0]
        if top not in _LIBRARIES:
            return f"{frame.f_code.co_filename}:{frame.f_lineno}"
        frame = frame.f_back
    return None

"""What an op is: one entry with its lowering, gradient and checks.

    softplus = op("softplus", lower=jax.nn.softplus, gradient=lambda n, dy: (multiply(dy, sigmoid(n.inputs[0])),))

An op is called like a function. With a graph node among its inputs it makes a node; with arrays only it computes at
once (so eager code and traced code are the same code). The shape rule is the abstract evaluation of `lower`; `check`
may give a better error first.
"""

from __future__ import annotations

import functools
import numbers
import sys
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import numpy as np

from ..errors import CompilerError, ShapeError
from ..ir import Constant, Node, TensorType, TupleType, Type, node
from . import rules, trials

REGISTRY: dict[str, Op] = {}
VJP = object()  # gradient=VJP: JAX's own vector-Jacobian product of the lowering


class Op:
    """One op of the graph language.

    Attributes:
        name: unique name, as printed.
        lower: ``lower(*arrays, **attrs) -> array | tuple`` in JAX.
        gradient: ``gradient(node, dy) -> tuple`` with one node or None per input (for a tuple type `dy` is a tuple of
            nodes or None); `VJP`; or None where no gradient exists (integer results, comparisons).
        check: ``check(types, attrs)`` raises ShapeError with a better text than JAX's, before inference.
        flops: ``flops(types, attrs, result_type) -> int`` multiply-adds counted as two; None means one per element.
        has_effect: never removed, merged or moved (collectives, callbacks).
        home: the module that defined it.
        result: ``result(types, attrs) -> type`` where abstract evaluation cannot tell (sizes that JAX cannot reason
            about) or takes long (`rules`); None, also as what it gives, means abstract evaluation.
    """

    def __init__(self, name, lower, gradient, check, flops, has_effect, doc=None, result=None):
        self.name, self.lower, self.gradient = name, lower, gradient
        self.check, self.flops, self.has_effect = check, flops, has_effect
        self.result = result
        self.home = ""
        self.__name__, self.__doc__ = name, doc or lower.__doc__

    def __repr__(self) -> str:
        return f"<op {self.name}>"

    def __call__(self, *inputs: Any, **attrs: Any) -> Any:
        """A node if an input is a node, else the computed array(s). Variables stand for their node or value."""
        given, graph = [], False
        for i in inputs:
            if hasattr(i, "__graph_value__"):
                i = i.__graph_value__()
            graph = graph or isinstance(i, Node)
            given.append(i)
        return node(self, as_nodes(given), attrs) if graph else self.lower(*given, **attrs)

    def infer(self, inputs: Sequence[Node], attrs: Mapping[str, Any]) -> Type:
        types = [i.type for i in inputs]
        if self.check is not None:
            self.check(types, attrs)
        known = self.result(types, attrs) if self.result is not None else None
        if known is not None:
            return known
        return _infer(self, tuple(types), _Attrs(attrs))


class _Attrs:
    """Attributes as a cache key."""

    def __init__(self, attrs):
        from ..ir.graph import _identity

        self.attrs = attrs
        self._key = tuple((k, _identity(v)) for k, v in attrs.items())

    def __eq__(self, other):
        return self._key == other._key

    def __hash__(self):
        return hash(self._key)


@functools.lru_cache(maxsize=65536)
def _infer(op: Op, types: tuple[Type, ...], attrs: _Attrs) -> Type:
    def struct(t):
        if isinstance(t, TupleType):
            return tuple(struct(i) for i in t.items)
        return jax.ShapeDtypeStruct(t.shape, t.dtype)

    def run(types, attrs):
        return _type_of(jax.eval_shape(functools.partial(op.lower, **attrs), *map(struct, types)))

    try:
        return run(types, attrs.attrs)
    except CompilerError:
        raise
    except Exception as error:
        found = trials.infer(run, list(types), attrs.attrs)
        if found is not None:
            return found
        got = ", ".join(map(str, types))
        reason = str(error).strip().splitlines()
        raise ShapeError(
            f"{op.name} cannot take ({got}){_shown(attrs.attrs)}: {reason[0] if reason else error!r}"
        ) from error


def _shown(attrs: Mapping[str, Any]) -> str:
    return " with " + ", ".join(f"{k}={v!r}" for k, v in attrs.items()) if attrs else ""


def _type_of(out: Any) -> Type:
    if isinstance(out, (tuple, list)):
        return TupleType(tuple(_type_of(o) for o in out))  # type: ignore
    return TensorType(tuple(out.shape), np.dtype(out.dtype).name)


def op(
    name: str,
    *,
    lower: Callable,
    gradient: Any = None,
    check: Callable | None = None,
    flops: Callable | None = None,
    has_effect: bool = False,
    doc: str | None = None,
    result: Callable | None = None,
) -> Op:
    """Registers and returns the op `name`. See `Op` for the arguments; `doc` replaces the lowering's docstring."""
    if name in REGISTRY:
        raise ValueError(f"op {name!r} is defined twice")
    REGISTRY[name] = made = Op(name, lower, gradient, check, flops, has_effect, doc, result)
    made.home = sys._getframe(1).f_globals["__name__"]
    return made


# --- leaves -------------------------------------------------------------------------------------------------------


def _no_lowering(*_, **__):
    raise CompilerError("inputs and parameters are bound by the caller, never lowered")


input_op = op("input", lower=_no_lowering)
param_op = op("param", lower=_no_lowering)
constant_op = op("constant", lower=lambda *, value: jax.numpy.asarray(value.value))
item_op = op(
    "item",
    lower=lambda x, *, index: x[index],
    gradient=lambda n, dy: (tuple(dy if i == n.attrs["index"] else None for i in range(len(n.inputs[0].type.items))),),
    result=rules.element,
)


def input_node(name: str, shape: Sequence, dtype: str) -> Node:
    """A value given at each call."""
    return node(input_op, (), {"name": name}, TensorType(tuple(shape), np.dtype(dtype).name))


def param_node(name: str, shape: Sequence[int], dtype: str = "float32", trainable: bool = True) -> Node:
    """A value kept between calls: a weight (trainable) or a state such as a moving mean."""
    return node(param_op, (), {"name": name, "trainable": trainable}, TensorType(tuple(shape), np.dtype(dtype).name))


def constant(value: Any, dtype: str | None = None) -> Node:
    """A value known now; 64-bit values become 32-bit."""
    array = np.asarray(value, dtype)
    narrow = {"float64": "float32", "int64": "int32", "uint64": "uint32"}.get(array.dtype.name, array.dtype.name)
    array = array.astype(narrow)
    return node(constant_op, (), {"value": Constant(array)}, TensorType(array.shape, narrow))


def item(value: Any, index: int) -> Any:
    """Result `index` of a value of tuple type."""
    return item_op(value, index=index) if isinstance(value, Node) else value[index]


def items(value: Any) -> tuple:
    """All results of a value of tuple type, as a tuple."""
    if isinstance(value, Node):
        return tuple(item(value, i) for i in range(len(value.type.items)))  # type: ignore[union-attr]
    return tuple(value)


def as_nodes(inputs: Sequence[Any]) -> list[Node]:
    """Arrays and Python numbers among `inputs` as constants; a number takes the dtype of the first float node."""
    nodes = [i for i in inputs if isinstance(i, Node) and isinstance(i.type, TensorType)]
    floats = [i.dtype for i in nodes if i.type.is_float]  # type: ignore[union-attr]
    made = []
    for i in inputs:
        if isinstance(i, Node):
            made.append(i)
        elif isinstance(i, bool):
            made.append(constant(i, "bool"))
        elif isinstance(i, numbers.Integral):
            made.append(
                constant(i, floats[0] if floats else nodes[0].dtype if nodes and nodes[0].dtype != "bool" else "int32")
            )
        elif isinstance(i, numbers.Real) and not isinstance(i, np.generic):
            made.append(constant(i, floats[0] if floats else "float32"))
        else:
            made.append(_array_node(i))
    return made


def _array_node(value: Any) -> Node:
    """An array as a constant, or as one number and a shape where a larger one holds nothing else (zeros, ones)."""
    array = np.asarray(value)
    if array.size <= 64 or not (array == array.flat[0]).all():
        return constant(array)
    number = constant(array.flat[0])
    return node(REGISTRY["full"], (), {"shape": array.shape, "value": array.flat[0].item(), "dtype": number.dtype})


# --- the vector-Jacobian product of any op by JAX ------------------------------------------------------------------


def _vjp_lower(*inputs, of, attrs, wrt, count):
    """Gradients of op `of` for its inputs `wrt`, by JAX; the last inputs are the cotangents."""
    primals, cotangents = inputs[:count], inputs[count:]
    target, given = REGISTRY[of], dict(attrs)

    def function(*chosen):
        full = list(primals)
        for position, value in zip(wrt, chosen):
            full[position] = value
        return target.lower(*full, **given)

    out, pull = jax.vjp(function, *(primals[i] for i in wrt))
    if isinstance(out, (tuple, list)):
        return pull(type(out)(cotangents))
    return pull(cotangents[0])


vjp_op = op(
    "vjp",
    lower=_vjp_lower,
    gradient=VJP,
    result=lambda types, attrs: TupleType(tuple(types[i] for i in attrs["wrt"])),
)

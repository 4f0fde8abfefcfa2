"""Operators of symbolic tensors and variables: `+`, `@`, `<`, `~`, `[...]` are the ops of that meaning.

The ops are loaded at the first use of an operator, so that making a tensor stays cheap.
"""

from __future__ import annotations

from typing import Any

BINARY = {
    "add": "add", "sub": "subtract", "mul": "multiply", "truediv": "true_divide", "floordiv": "floor_divide",
    "mod": "mod", "pow": "power", "matmul": "matmul", "and": "logical_and", "or": "logical_or", "xor": "logical_xor",
}  # fmt: skip
COMPARISONS = {"lt": "less", "le": "less_equal", "gt": "greater", "ge": "greater_equal"}
UNARY = {"neg": "negative", "abs": "absolute"}


def _op(name: str) -> Any:
    from . import ops

    return getattr(ops, name)


def _forward(name: str) -> Any:
    return lambda *args: _op(name)(*args)


def _backward(name: str) -> Any:
    return lambda a, b: _op(name)(b, a)


def _inverted(x: Any) -> Any:
    """Not; of the whole numbers of a variable or node all bits exchanged. A KerasTensor is true or false, as in Keras."""
    numbers = "int" in x.dtype and not hasattr(x, "record_history")
    return _op("bitwise_not" if numbers else "logical_not")(x)


def with_operators(cls: type) -> type:
    """Gives a class all operators that it does not define itself."""
    methods = {f"__{name}__": _forward(op) for name, op in {**BINARY, **COMPARISONS, **UNARY}.items()}
    methods |= {f"__r{name}__": _backward(op) for name, op in BINARY.items()}
    methods["__invert__"] = _inverted
    methods["__round__"] = lambda x, digits=None: _op("round")(x, digits or 0)
    methods["__getitem__"] = _forward("get_item")
    for name, method in methods.items():
        if name not in vars(cls):
            setattr(cls, name, method)
    return cls

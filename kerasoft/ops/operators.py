"""Attaches `+`, `*`, `@`, `[...]` to KerasTensor and Variable, and to graph nodes where the compiler left them out."""

from __future__ import annotations

from collections.abc import Callable

from ..compiler.ir import Node
from ..tensors import KerasTensor
from ..variables import Variable
from . import elementwise as e
from .linear import matmul
from .manipulation import get_item

BINARY: dict[str, Callable] = {
    "add": e.add, "sub": e.subtract, "mul": e.multiply, "truediv": e.divide, "floordiv": e.floor_divide, "mod": e.mod,
    "pow": e.power, "matmul": matmul,
}  # fmt: skip
COMPARISONS: dict[str, Callable] = {"lt": e.less, "le": e.less_equal, "gt": e.greater, "ge": e.greater_equal}
LOGIC: dict[str, Callable] = {"and": e.logical_and, "or": e.logical_or, "xor": e.logical_xor}
UNARY: dict[str, Callable] = {"neg": e.negative, "abs": e.abs, "invert": e.logical_not}


def _attach(cls: type) -> None:
    for name, function in {**BINARY, **LOGIC}.items():
        _set(cls, f"__{name}__", lambda a, b, f=function: f(a, b))
        _set(cls, f"__r{name}__", lambda a, b, f=function: f(b, a))
    for name, function in COMPARISONS.items():
        _set(cls, f"__{name}__", lambda a, b, f=function: f(a, b))
    for name, function in UNARY.items():
        _set(cls, f"__{name}__", lambda a, f=function: f(a))
    _set(cls, "__getitem__", lambda a, key: get_item(a, key))


def _set(cls: type, name: str, method: Callable) -> None:
    if name not in vars(cls):
        setattr(cls, name, method)


for cls in (KerasTensor, Variable, Node):
    _attach(cls)

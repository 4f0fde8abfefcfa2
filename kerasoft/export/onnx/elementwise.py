"""Rules for elementwise ops."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from .builder import Builder, rule

_UNARY = {
    "absolute": "Abs", "acos": "Acos", "acosh": "Acosh", "asin": "Asin", "asinh": "Asinh", "atan": "Atan",
    "atanh": "Atanh", "ceil": "Ceil", "cos": "Cos", "cosh": "Cosh", "erf": "Erf", "exp": "Exp", "floor": "Floor",
    "isnan": "IsNaN", "isinf": "IsInf", "log": "Log", "logical_not": "Not", "negative": "Neg", "reciprocal": "Reciprocal",
    "relu": "Relu", "round": "Round", "sigmoid": "Sigmoid", "sign": "Sign", "sin": "Sin", "sinh": "Sinh",
    "softplus": "Softplus", "softsign": "Softsign", "sqrt": "Sqrt", "stop_gradient": "Identity", "tan": "Tan",
    "tanh": "Tanh", "hard_silu": "HardSwish", "mish": "Mish",
}  # fmt: skip
_BINARY = {
    "add": "Add", "subtract": "Sub", "multiply": "Mul", "divide": "Div", "maximum": "Max", "minimum": "Min",
    "power": "Pow",
}  # fmt: skip
_COMPARE = {
    "equal": "Equal", "greater": "Greater", "greater_equal": "GreaterOrEqual", "less": "Less",
    "less_equal": "LessOrEqual",
}  # fmt: skip
_LOGIC = {"logical_and": "And", "logical_or": "Or", "logical_xor": "Xor"}


def wide(dtype: str) -> str:
    """A dtype that ONNX Runtime computes in, for integers and booleans that it has no kernels for."""
    return dtype if dtype in ("float16", "float32", "float64", "int32", "int64") else "int32"


@rule(*_UNARY)
def unary(b: Builder, n: Any, inputs: list[str]) -> str:
    op = _UNARY[n.op.name]
    have = n.inputs[0].dtype
    if op in ("Identity", "Not", "IsNaN", "IsInf"):
        return b.make(op, b.cast(inputs[0], have, "bool") if op == "Not" else inputs[0])
    compute = wide(n.dtype)
    return b.cast(b.make(op, b.cast(inputs[0], have, compute)), compute, n.dtype)


@rule(*_BINARY)
def binary(b: Builder, n: Any, inputs: list[str]) -> str:
    compute = wide(n.dtype)
    return b.cast(b.make(_BINARY[n.op.name], *b.inputs_as(n, inputs, compute)), compute, n.dtype)


def common(n: Any) -> str:
    import jax.numpy as jnp

    return wide(np.dtype(jnp.result_type(*(np.dtype(i.dtype) for i in n.inputs))).name)


@rule(*_COMPARE, "not_equal")
def compare(b: Builder, n: Any, inputs: list[str]) -> str:
    given = b.inputs_as(n, inputs, common(n))
    if n.op.name == "not_equal":
        return b.make("Not", b.make("Equal", *given))
    return b.make(_COMPARE[n.op.name], *given)


@rule(*_LOGIC)
def logic(b: Builder, n: Any, inputs: list[str]) -> str:
    return b.make(_LOGIC[n.op.name], *b.inputs_as(n, inputs, "bool"))


def number(b: Builder, value: float, dtype: str) -> str:
    return b.constant(value, dtype)


@rule("square")
def square(b: Builder, n: Any, inputs: list[str]) -> str:
    return b.make("Mul", inputs[0], inputs[0])


@rule("rsqrt")
def rsqrt(b: Builder, n: Any, inputs: list[str]) -> str:
    return b.make("Reciprocal", b.make("Sqrt", inputs[0]))


@rule("log1p", "log2", "log10", "expm1", "exp2")
def logarithms(b: Builder, n: Any, inputs: list[str]) -> str:
    x = b.cast(inputs[0], n.inputs[0].dtype, n.dtype)
    one = number(b, 1, n.dtype)
    if n.op.name == "log1p":
        return b.make("Log", b.make("Add", x, one))
    if n.op.name == "expm1":
        return b.make("Sub", b.make("Exp", x), one)
    if n.op.name == "exp2":
        return b.make("Pow", number(b, 2, n.dtype), x)
    base = math.log(2 if n.op.name == "log2" else 10)
    return b.make("Div", b.make("Log", x), number(b, base, n.dtype))


@rule("floor_divide", "mod")
def floored(b: Builder, n: Any, inputs: list[str]) -> str:
    compute = n.dtype if n.dtype.startswith("float") else "float64"
    x, y = b.inputs_as(n, inputs, compute)
    whole = b.make("Floor", b.make("Div", x, y))
    result = whole if n.op.name == "floor_divide" else b.make("Sub", x, b.make("Mul", whole, y))
    return b.cast(result, compute, n.dtype)


@rule("divide_no_nan")
def divide_no_nan(b: Builder, n: Any, inputs: list[str]) -> str:
    x, y = b.inputs_as(n, inputs, n.dtype)
    zero = b.make("Equal", y, number(b, 0, n.dtype))
    safe = b.make("Where", zero, number(b, 1, n.dtype), y)
    return b.make("Where", zero, number(b, 0, n.dtype), b.make("Div", x, safe))


@rule("isfinite")
def isfinite(b: Builder, n: Any, inputs: list[str]) -> str:
    return b.make("Not", b.make("Or", b.make("IsNaN", inputs[0]), b.make("IsInf", inputs[0])))


@rule("where")
def where(b: Builder, n: Any, inputs: list[str]) -> str:
    test = b.cast(inputs[0], n.inputs[0].dtype, "bool")
    x, y = (b.cast(name, i.dtype, n.dtype) for name, i in zip(inputs[1:], n.inputs[1:], strict=True))
    return b.make("Where", test, x, y)


@rule("cast")
def cast(b: Builder, n: Any, inputs: list[str]) -> str:
    return (
        b.make("Identity", inputs[0]) if n.inputs[0].dtype == n.dtype else b.cast(inputs[0], n.inputs[0].dtype, n.dtype)
    )


@rule("clip")
def clip(b: Builder, n: Any, inputs: list[str]) -> str:
    bounds = [n.attrs["low"], n.attrs["high"]]
    return b.make("Clip", inputs[0], *["" if v is None else number(b, v, n.dtype) for v in bounds])


@rule("relu6", "hard_tanh")
def clipped(b: Builder, n: Any, inputs: list[str]) -> str:
    low, high = (0, 6) if n.op.name == "relu6" else (-1, 1)
    return b.make("Clip", inputs[0], number(b, low, n.dtype), number(b, high, n.dtype))


@rule("elu", "celu")
def elu(b: Builder, n: Any, inputs: list[str]) -> str:
    return b.make(n.op.name.title(), inputs[0], alpha=float(n.attrs["alpha"]))


@rule("leaky_relu")
def leaky_relu(b: Builder, n: Any, inputs: list[str]) -> str:
    return b.make("LeakyRelu", inputs[0], alpha=float(n.attrs["negative_slope"]))


@rule("selu")
def selu(b: Builder, n: Any, inputs: list[str]) -> str:
    return b.make("Selu", inputs[0])


@rule("silu")
def silu(b: Builder, n: Any, inputs: list[str]) -> str:
    return b.make("Mul", inputs[0], b.make("Sigmoid", inputs[0]))


@rule("log_sigmoid")
def log_sigmoid(b: Builder, n: Any, inputs: list[str]) -> str:
    return b.make("Neg", b.make("Softplus", b.make("Neg", inputs[0])))


@rule("gelu")
def gelu(b: Builder, n: Any, inputs: list[str]) -> str:
    return b.make("Gelu", inputs[0], approximate="tanh" if n.attrs["approximate"] else "none")


@rule("hard_sigmoid")
def hard_sigmoid(b: Builder, n: Any, inputs: list[str]) -> str:
    return b.make("HardSigmoid", inputs[0], alpha=1 / 6, beta=0.5)

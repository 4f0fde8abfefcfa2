"""Ops element by element: arithmetic, functions, comparisons, logic."""

from __future__ import annotations

from typing import Any

import numpy as np

from .. import dtypes
from .dispatch import dtype_of, kernel, public, tensor


def _unary(
    name: str, class_name: str, text: str, module: str = "numpy", kernel_name: str | None = None, floats: bool = True
):
    def function(x: Any) -> Any:
        x = tensor(x)
        return kernel(kernel_name or name)(_as_float(x) if floats else x)

    function.__name__ = function.__qualname__ = name
    function.__doc__ = text
    function.__module__ = __name__
    return public(module, class_name)(function)


def _binary(name: str, class_name: str, text: str, kernel_name: str | None = None, strong: bool = False):
    """`strong`: a Python float is a float32 tensor, not a number that takes the other one's dtype."""

    def function(x1: Any, x2: Any) -> Any:
        if strong:
            x1, x2 = (np.float32(x) if type(x) is float else x for x in (x1, x2))
        return kernel(kernel_name or name)(tensor(x1), tensor(x2))

    function.__name__ = function.__qualname__ = name
    function.__doc__ = text
    function.__module__ = __name__
    return public("numpy", class_name, "x1 x2")(function)


def _as_float(x: Any) -> Any:
    if dtype_of(x) in dtypes.FLOATS or dtype_of(x).startswith("complex"):
        return x
    return kernel("cast")(x, dtype="float32")


def _as_bool(x: Any) -> Any:
    x = tensor(x)
    return x if dtype_of(x) == "bool" else kernel("cast")(x, dtype="bool")


def _size(x: Any) -> Any:
    x = tensor(x)
    return kernel("complex_size", _complex_size)(x) if dtype_of(x).startswith("complex") else kernel("absolute")(x)


def _complex_size(x: Any) -> Any:
    import jax.numpy as jnp

    return jnp.absolute(x)


@public("numpy", "Absolute")
def absolute(x: Any) -> Any:
    """|x|."""
    return _size(x)


@public("numpy", "Abs")
def abs(x: Any) -> Any:
    """|x|."""
    return _size(x)


negative = _unary("negative", "Negative", "-x.", floats=False)
square = _unary("square", "Square", "x * x.", floats=False)
sign = _unary("sign", "Sign", "-1, 0 or 1.", floats=False)
exp = _unary("exp", "Exp", "e to the power of x.")
exp2 = _unary("exp2", "Exp2", "2 to the power of x.")
expm1 = _unary("expm1", "Expm1", "exp(x) - 1, exact near 0.")
log = _unary("log", "Log", "Natural logarithm.")
log1p = _unary("log1p", "Log1p", "log(1 + x), exact near 0.")
log2 = _unary("log2", "Log2", "Logarithm to base 2.")
log10 = _unary("log10", "Log10", "Logarithm to base 10.")
sqrt = _unary("sqrt", "Sqrt", "Square root.")
cbrt = _unary("cbrt", "Cbrt", "Cube root.")
sin = _unary("sin", "Sin", "Sine of radians.")
cos = _unary("cos", "Cos", "Cosine of radians.")
tan = _unary("tan", "Tan", "Tangent of radians.")
arcsin = _unary("arcsin", "Arcsin", "Inverse sine.", kernel_name="asin")
arccos = _unary("arccos", "Arccos", "Inverse cosine.", kernel_name="acos")
arctan = _unary("arctan", "Arctan", "Inverse tangent.", kernel_name="atan")
sinh = _unary("sinh", "Sinh", "Hyperbolic sine.")
cosh = _unary("cosh", "Cosh", "Hyperbolic cosine.")
tanh = _unary("tanh", "Tanh", "Hyperbolic tangent.")
arcsinh = _unary("arcsinh", "Arcsinh", "Inverse hyperbolic sine.", kernel_name="asinh")
arccosh = _unary("arccosh", "Arccosh", "Inverse hyperbolic cosine.", kernel_name="acosh")
arctanh = _unary("arctanh", "Arctanh", "Inverse hyperbolic tangent.", kernel_name="atanh")
ceil = _unary("ceil", "Ceil", "Smallest integer not below x, as a float.")
floor = _unary("floor", "Floor", "Largest integer not above x, as a float.")
trunc = _unary("trunc", "Trunc", "x without its fraction.", floats=False)
reciprocal = _unary("reciprocal", "Reciprocal", "1 / x.")
isfinite = _unary("isfinite", "Isfinite", "Whether neither infinite nor NaN.")
isinf = _unary("isinf", "Isinf", "Whether infinite.")
isnan = _unary("isnan", "Isnan", "Whether NaN.")
deg2rad = _unary("deg2rad", "Deg2rad", "Degrees to radians.")
rad2deg = _unary("rad2deg", "Rad2deg", "Radians to degrees.")

add = _binary("add", "Add", "x1 + x2.")
subtract = _binary("subtract", "Subtract", "x1 - x2.")
multiply = _binary("multiply", "Multiply", "x1 * x2.")
power = _binary("power", "Power", "x1 to the power of x2.")
mod = _binary("mod", "Mod", "Remainder with the sign of the divisor.")
floor_divide = _binary("floor_divide", "FloorDivide", "Largest integer not above x1 / x2.")
maximum = _binary("maximum", "Maximum", "The greater one.")
minimum = _binary("minimum", "Minimum", "The smaller one.")
arctan2 = _binary("arctan2", "Arctan2", "Angle of the point (x2, x1), in radians.", kernel_name="atan2", strong=True)
hypot = _binary("hypot", "Hypot", "sqrt(x1^2 + x2^2).")
logaddexp = _binary("logaddexp", "Logaddexp", "log(exp(x1) + exp(x2)).", strong=True)
equal = _binary("equal", "Equal", "x1 == x2.")
not_equal = _binary("not_equal", "NotEqual", "x1 != x2.")
greater = _binary("greater", "Greater", "x1 > x2.")
greater_equal = _binary("greater_equal", "GreaterEqual", "x1 >= x2.")
less = _binary("less", "Less", "x1 < x2.")
less_equal = _binary("less_equal", "LessEqual", "x1 <= x2.")


@public("numpy", "Divide", "x1 x2")
def divide(x1: Any, x2: Any) -> Any:
    """x1 / x2, a float."""
    return kernel("divide")(tensor(x1), tensor(x2))


@public("numpy", "TrueDivide", "x1 x2")
def true_divide(x1: Any, x2: Any) -> Any:
    """x1 / x2, a float."""
    return divide(x1, x2)


@public("numpy", "DivideNoNan", "x1 x2")
def divide_no_nan(x1: Any, x2: Any) -> Any:
    """x1 / x2, and 0 where x2 is 0.

    >>> divide_no_nan([1.0, 2.0], [0.0, 4.0]).tolist()
    [0.0, 0.5]
    """
    return kernel("divide_no_nan")(tensor(x1), tensor(x2))


@public("numpy", "LogicalAnd", "x1 x2")
def logical_and(x1: Any, x2: Any) -> Any:
    """Whether both are true."""
    return kernel("logical_and")(_as_bool(x1), _as_bool(x2))


@public("numpy", "LogicalOr", "x1 x2")
def logical_or(x1: Any, x2: Any) -> Any:
    """Whether one is true."""
    return kernel("logical_or")(_as_bool(x1), _as_bool(x2))


@public("numpy", "LogicalXor", "x1 x2")
def logical_xor(x1: Any, x2: Any) -> Any:
    """Whether exactly one is true."""
    return kernel("logical_xor")(_as_bool(x1), _as_bool(x2))


@public("numpy", "LogicalNot")
def logical_not(x: Any) -> Any:
    """Whether false."""
    return kernel("logical_not")(_as_bool(x))


@public("numpy", "Where", "condition x1 x2")
def where(condition: Any, x1: Any = None, x2: Any = None) -> Any:
    """x1 where `condition`, else x2. Without both, the places where `condition` is true (on arrays only).

    Raises:
        ValueError: only one of x1 and x2 is given.
    """
    if (x1 is None) != (x2 is None):
        raise ValueError("`x1` and `x2` either both should be `None` or both should have non-None value.")
    if x1 is None:
        from .sorting import nonzero

        return nonzero(condition)
    return kernel("where")(_as_bool(condition), tensor(x1), tensor(x2))


@public("numpy", "Clip")
def clip(x: Any, x_min: Any, x_max: Any) -> Any:
    """x, at least `x_min` and at most `x_max` (None is no bound)."""
    from ..compiler.ops import arithmetic

    return arithmetic.clip(tensor(x), tensor(x_min), tensor(x_max))


@public("numpy", "Round")
def round(x: Any, decimals: int = 0) -> Any:
    """x to the nearest multiple of ``10**-decimals``, halves to even."""
    x, decimals = tensor(x), int(decimals)
    kind = dtype_of(x)
    if dtypes.is_float(kind):
        return kernel("round")(x, decimals=decimals)
    if decimals >= 0 or kind == "bool":
        return x
    return cast(
        multiply(kernel("round")(multiply(cast(x, "float32"), 10.0**decimals), decimals=0), 10.0**-decimals), kind
    )


@public("numpy", "NanToNum")
def nan_to_num(x: Any, nan: float = 0.0, posinf: float | None = None, neginf: float | None = None) -> Any:
    """x with NaN replaced by `nan`, infinities by `posinf` and `neginf` (None: the largest finite values)."""
    x = tensor(x)
    kind = dtype_of(x)
    if kind not in dtypes.FLOATS:
        return x
    import ml_dtypes

    limits = ml_dtypes.finfo(kind)
    x = where(isnan(x), nan, x)
    x = where(equal(x, float("inf")), float(limits.max) if posinf is None else posinf, x)
    return where(equal(x, float("-inf")), float(limits.min) if neginf is None else neginf, x)


@public("numpy", "Isclose", "x1 x2 rtol atol")
def isclose(x1: Any, x2: Any, rtol: float = 1e-5, atol: float = 1e-8, equal_nan: bool = False) -> Any:
    """Whether |x1 - x2| <= atol + rtol * |x2|."""
    x1, x2 = _as_float(tensor(x1)), _as_float(tensor(x2))
    close = less_equal(abs(subtract(x1, x2)), add(atol, multiply(rtol, abs(x2))))
    close = logical_or(logical_and(close, isfinite(x2)), equal(x1, x2))
    return logical_or(close, logical_and(isnan(x1), isnan(x2))) if equal_nan else close


@public("core", "Cast")
def cast(x: Any, dtype: Any) -> Any:
    """x in another dtype.

    >>> cast([1.7, -1.7], "int32").tolist()
    [1, -1]
    """
    x, dtype = tensor(x), dtypes.narrowed(dtype)
    return x if hasattr(x, "op") and x.dtype == dtype else kernel("cast")(x, dtype=dtype)


rsqrt = _unary("rsqrt", "Rsqrt", "1 / sqrt(x).", "math")
erf = _unary("erf", "Erf", "The error function.", "math")

"""Rows of the op contract: arithmetic and activations."""

from __future__ import annotations

import numpy as np
import scipy.linalg
import scipy.special
from kerasoft.compiler.ops import (
    activations,
    arithmetic,
)
from op_contract import (
    ROWS,
    apart,
    b,
    bools,
    ints,
    positive,
    real,
    row,
    sigmoid,
    softplus,
    unit,
)

# --- arithmetic ---------------------------------------------------------------------------------------------------

a = arithmetic
for _name in ("add", "subtract", "multiply", "divide", "maximum", "minimum", "logaddexp"):
    _want = getattr(np, _name)
    row(_name, getattr(a, _name), real(b, 3), positive(b, 3), want=_want)
    row(_name, getattr(a, _name), real(b, 1, 4), positive(3, 1), want=_want, label="broadcast")
row("add", lambda x, y: x + y, real(b, 3), ints(5, 3), want=np.add, label="mixed dtypes")
row("subtract", lambda x: 2 - x, real(b, 3), want=lambda x: 2 - x, label="number")
row("multiply", lambda x: x * x, real(b, 3), want=np.square, label="same input twice")
row("atan2", a.atan2, real(b, 3), positive(3), want=np.arctan2)
row("divide_no_nan", a.divide_no_nan, real(b, 3), positive(3), want=np.divide)
row(
    "divide_no_nan",
    lambda x, y: a.divide_no_nan(x, a.where(a.greater(y, 1.0), y, 0.0)),
    real(b, 3),
    positive(3),
    want=lambda x, y: np.where(y > 1, x / y, 0),
    label="by zero",
)
row("power", a.power, positive(b, 3), real(b, 3), want=np.power)
row("power", lambda x: x**3, real(b, 3), want=lambda x: x**3, label="cube of negatives")
row("power", lambda x: a.power(x, 0), real(b, 3), want=np.ones_like, label="zero")
row("power", lambda x: 2.0**x, real(b, 3), want=lambda x: 2.0**x, label="of a number")
row("mod", a.mod, apart(b, 3), positive(b, 3), want=np.mod)
row("floor_divide", a.floor_divide, apart(b, 3), positive(b, 3), want=np.floor_divide)
for _name in ("equal", "not_equal", "greater", "greater_equal", "less", "less_equal"):
    row(_name, getattr(a, _name), ints(3, b, 4), ints(3, 4), want=getattr(np, _name))
for _name in ("logical_and", "logical_or", "logical_xor"):
    row(_name, getattr(a, _name), bools(b, 4), bools(4), want=getattr(np, _name))
row("logical_not", a.logical_not, bools(b, 4), want=np.logical_not)
for _name in ("bitwise_and", "bitwise_or", "bitwise_xor", "left_shift", "right_shift"):
    row(_name, getattr(a, _name), ints(9, b, 4), ints(4, 4), want=getattr(np, _name))
for _name, _f, _want in (
    ("isnan", a.isnan, np.isnan),
    ("isinf", a.isinf, np.isinf),
    ("isfinite", a.isfinite, np.isfinite),
):
    row(
        _name,
        lambda x, f=_f: f(x / a.cast(x > 0, "float32")),
        real(b, 4),
        want=lambda x, f=_want: f(np.divide(x, x > 0, out=np.full_like(x, -np.inf), where=x > 0)),
    )
for _name, _want in {
    "negative": np.negative,
    "absolute": np.abs,
    "sign": np.sign,
    "square": np.square,
    "exp": np.exp,
    "exp2": np.exp2,
    "expm1": np.expm1,
    "sin": np.sin,
    "cos": np.cos,
    "sinh": np.sinh,
    "cosh": np.cosh,
    "tanh": np.tanh,
    "atan": np.arctan,
    "asinh": np.arcsinh,
    "erf": scipy.special.erf,
    "trunc": np.trunc,
    "floor": np.floor,
    "ceil": np.ceil,
    "round": np.round,
}.items():
    row(_name, getattr(a, _name), apart(b, 4), want=_want, tolerance=1e-4)
row(
    "round",
    lambda x: a.round(x, decimals=1),
    real(b, 3),
    want=lambda x: np.round(x, 1),
    label="decimals",
    differences=False,
)
for _name, _want in {"tan": np.tan, "asin": np.arcsin, "acos": np.arccos, "atanh": np.arctanh}.items():
    row(_name, getattr(a, _name), unit(b, 4), want=_want)
row("erfinv", a.erfinv, unit(b, 4), want=scipy.special.erfinv, differences=False)
for _name, _want in {
    "sqrt": np.sqrt,
    "rsqrt": lambda x: 1 / np.sqrt(x),
    "reciprocal": np.reciprocal,
    "log": np.log,
    "log1p": np.log1p,
    "log2": np.log2,
    "log10": np.log10,
}.items():
    row(_name, getattr(a, _name), positive(b, 4), want=_want)
row("acosh", lambda x: a.acosh(x + 1.0), positive(b, 4), want=lambda x: np.arccosh(x + 1))
row("stop_gradient", lambda x: a.stop_gradient(x) * x, real(b, 3), want=np.square, differences=False)
row("where", a.where, bools(b, 1), real(b, 3), real(3), want=np.where)
row("clip", lambda x: a.clip(x, -1.0, 1.0), apart(b, 3), want=lambda x: np.clip(x, -1, 1))
row("clip", lambda x: a.clip(x, high=1), apart(b, 3), want=lambda x: np.minimum(x, 1), label="one side")
row(
    "minimum",
    lambda x, h: a.clip(x, 0.0, h),
    apart(b, 3),
    positive(3),
    want=lambda x, h: np.clip(x, 0, h),
    label="clip by array",
)

# --- activations --------------------------------------------------------------------------------------------------

v = activations


def _hard_sigmoid(x):
    return np.clip(x / 6 + 0.5, 0, 1)


def _tanh_gelu(x):
    return 0.5 * x * (1 + np.tanh(np.sqrt(2 / np.pi) * (x + 0.044715 * x**3)))


_SELU = 1.0507009873554805, 1.6732632423543772  # Klambauer et al. (2017): scale, alpha
for _name, _call, _want in [
    ("relu", v.relu, lambda x: np.maximum(x, 0)),
    ("relu6", v.relu6, lambda x: np.clip(x, 0, 6)),
    ("sigmoid", v.sigmoid, sigmoid),
    ("softplus", v.softplus, softplus),
    ("softsign", v.softsign, lambda x: x / (1 + np.abs(x))),
    ("log_sigmoid", v.log_sigmoid, lambda x: -softplus(-x)),
    ("silu", v.silu, lambda x: x * sigmoid(x)),
    ("mish", v.mish, lambda x: x * np.tanh(softplus(x))),
    ("hard_sigmoid", v.hard_sigmoid, _hard_sigmoid),
    ("hard_tanh", v.hard_tanh, lambda x: np.clip(x, -1, 1)),
    ("hard_silu", v.hard_silu, lambda x: x * _hard_sigmoid(x)),
    ("gelu", v.gelu, lambda x: 0.5 * x * (1 + scipy.special.erf(x / np.sqrt(2)))),
    ("gelu", lambda x: v.gelu(x, approximate=True), _tanh_gelu),
    ("elu", lambda x: v.elu(x, 1.3), lambda x: np.where(x > 0, x, 1.3 * np.expm1(x))),
    ("celu", lambda x: v.celu(x, 1.3), lambda x: np.where(x > 0, x, 1.3 * np.expm1(x / 1.3))),
    ("selu", v.selu, lambda x: _SELU[0] * np.where(x > 0, x, _SELU[1] * np.expm1(x))),
    ("leaky_relu", v.leaky_relu, lambda x: np.where(x > 0, x, 0.2 * x)),
    ("softmax", v.softmax, lambda x: scipy.special.softmax(x, -1)),
    ("softmax", lambda x: v.softmax(x, axis=1), lambda x: scipy.special.softmax(x, 1)),
    ("log_softmax", v.log_softmax, lambda x: scipy.special.log_softmax(x, -1)),
]:
    row(_name, _call, apart(b, 2, 5), want=_want, label=str(len(ROWS)))
row(
    "softmax",
    lambda x: v.softmax(x, axis=(1, 2)),
    real(b, 2, 5),
    want=lambda x: scipy.special.softmax(x, axis=(1, 2)),
    label="two axes",
)
row("sparsemax", v.sparsemax, apart(b, 5), want=lambda x: np.stack([_project(r) for r in x]), tolerance=1e-4)


def _project(x):
    """The point of the simplex nearest to x, by bisection on the threshold."""
    lo, hi = x.min() - 1, x.max()
    for _ in range(100):
        mid = (lo + hi) / 2
        lo, hi = (mid, hi) if np.maximum(x - mid, 0).sum() > 1 else (lo, mid)
    return np.maximum(x - lo, 0).astype(np.float32)

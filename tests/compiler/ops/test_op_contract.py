"""Each op of the registry against independent answers: one table, one row or more for each op.

A row gives the op on nodes whose first axis may be the unknown size `b`. Checked are: the inferred type against the
computed one, values against NumPy, SciPy or PyTorch, graph values against eager ones, the gradient graph against
JAX's gradient of the lowered forward graph, and against finite differences in double precision.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.linalg
import scipy.special
from kerasoft.compiler.gradient import gradient
from kerasoft.compiler.ir import Node, bind, symbol
from kerasoft.compiler.ops import (
    activations,
    arithmetic,
    attention,
    barrier,
    collective,
    control,
    conv_lstm,
    convolution,
    creation,
    dense,
    indexing,
    layer_normalization,
    linalg,
    losses,
    normalization,
    optimizers,
    pooling,
    quantised,
    random,
    recurrent,
    reduce,
    shape,
    sparse,
)
from kerasoft.compiler.ops.registry import REGISTRY, constant, input_node, item, items

b = symbol("b")
B = 3  # the number put in for b


@dataclasses.dataclass(frozen=True)
class Input:
    """A shape and how its values are drawn."""

    shape: tuple
    draw: Callable[[np.random.Generator, tuple], np.ndarray]

    def node(self, i: int) -> Node:
        return input_node(f"in{i}", self.shape, self.array(np.random.default_rng(0)).dtype)

    def array(self, rng: np.random.Generator) -> np.ndarray:
        return self.draw(rng, bind(self.shape, {"b": B}))


def real(*shape):
    return Input(shape, lambda rng, s: rng.normal(size=s).astype(np.float32))


def positive(*shape):
    return Input(shape, lambda rng, s: rng.uniform(0.5, 2.5, s).astype(np.float32))


def unit(*shape):
    return Input(shape, lambda rng, s: rng.uniform(-0.9, 0.9, s).astype(np.float32))


def apart(*shape):
    """Values at least 0.3 from one another and 0.1 from whole numbers' halves, in random order: no ties, no kinks."""
    return Input(
        shape, lambda rng, s: ((rng.permutation(math.prod(s)) - math.prod(s) // 2) * 0.3 + 0.13).reshape(s).astype("f")
    )


def ints(n, *shape):
    return Input(shape, lambda rng, s: rng.integers(0, n, s).astype(np.int32))


def bools(*shape):
    return Input(shape, lambda rng, s: rng.random(s) < 0.5)


def words(*shape):
    return Input(shape, lambda rng, s: rng.integers(0, 2**32, s, dtype=np.uint32))


def definite(n, *lead):
    def draw(rng, s):
        m = rng.normal(size=s)
        return (m @ np.swapaxes(m, -1, -2) + n * np.eye(n)).astype(np.float32)

    return Input((*lead, n, n), draw)


@dataclasses.dataclass(frozen=True)
class Row:
    op: str
    call: Callable
    inputs: tuple[Input, ...]
    want: Callable | None
    gradient: bool
    differences: bool
    eager: bool
    tolerance: float
    label: str


ROWS: list[Row] = []


def row(op, call, *inputs, want=None, gradient=True, differences=True, eager=True, tolerance=2e-5, label=""):
    """`want` gives the values from NumPy arrays; None where a special test of the family checks them."""
    name = f"{op}-{label}" if label else op
    ROWS.append(Row(op, call, inputs, want, gradient, differences, eager, tolerance, name))


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
_sigmoid = scipy.special.expit


def _softplus(x):
    return np.logaddexp(x, 0)


def _hard_sigmoid(x):
    return np.clip(x / 6 + 0.5, 0, 1)


def _tanh_gelu(x):
    return 0.5 * x * (1 + np.tanh(np.sqrt(2 / np.pi) * (x + 0.044715 * x**3)))


_SELU = 1.0507009873554805, 1.6732632423543772  # Klambauer et al. (2017): scale, alpha
for _name, _call, _want in [
    ("relu", v.relu, lambda x: np.maximum(x, 0)),
    ("relu6", v.relu6, lambda x: np.clip(x, 0, 6)),
    ("sigmoid", v.sigmoid, _sigmoid),
    ("softplus", v.softplus, _softplus),
    ("softsign", v.softsign, lambda x: x / (1 + np.abs(x))),
    ("log_sigmoid", v.log_sigmoid, lambda x: -_softplus(-x)),
    ("silu", v.silu, lambda x: x * _sigmoid(x)),
    ("mish", v.mish, lambda x: x * np.tanh(_softplus(x))),
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


# --- shape --------------------------------------------------------------------------------------------------------

s = shape
row("cast", lambda x: s.cast(x, "int32"), apart(b, 3), want=lambda x: x.astype(np.int32))
row("cast", lambda x: s.cast(s.cast(x, "bfloat16"), "float32"), ints(9, b, 3), want=np.float32, label="bfloat16")
row("zeros_like", lambda x: s.zeros_like(x), real(b, 3), want=np.zeros_like)
row("ones_like", lambda x: s.ones_like(x, dtype="int32"), real(b, 3), want=lambda x: np.ones_like(x, np.int32))
row("reshape", lambda x: x.reshape(-1, 2), real(b, 4, 3), want=lambda x: x.reshape(-1, 2))
row("reshape", lambda x: s.squeeze(s.expand_dims(x, (0, -1)), 0), real(b, 3), want=lambda x: x[..., None], label="thin")
row("broadcast_to", lambda x: s.broadcast_to(x, shape=(2, *x.shape[:1], 4)), real(b, 1), want=lambda x: np.stack([np.tile(x, (1, 4))] * 2))  # fmt: skip
row("sum", lambda x: s.sum(x), real(b, 3), want=np.sum)
row("sum", lambda x: s.sum(x, axis=(0, -1), keepdims=True), real(b, 2, 3), want=lambda x: x.sum((0, 2), keepdims=True), label="axes")  # fmt: skip
row("transpose", lambda x: s.transpose(x, (2, 0, 1)), real(b, 2, 3), want=lambda x: x.transpose(2, 0, 1))
row("transpose", lambda x: s.moveaxis(x, (0, 1), (-1, 0)), real(b, 2, 3), want=lambda x: np.moveaxis(x, (0, 1), (-1, 0)), label="moveaxis")  # fmt: skip
row("transpose", lambda x: s.swapaxes(x, 0, -1), real(b, 2, 3), want=lambda x: x.swapaxes(0, 2), label="swapaxes")
row("concatenate", lambda x, y: s.concatenate([x, y, x], axis=-1), real(b, 2), real(b, 3), want=lambda x, y: np.hstack([x, y, x]))  # fmt: skip
row("concatenate", lambda x, y: s.stack([x, y], axis=-1), real(b, 2), real(b, 2), want=lambda x, y: np.stack([x, y], -1), label="stack")  # fmt: skip
row("concatenate", lambda x, y: s.concatenate([x, y]), real(b, 2), real(2, 2), want=lambda x, y: np.vstack([x, y]), label="unknown size")  # fmt: skip
row("strided_slice", lambda x: x[1:, ::2], real(b, 5), want=lambda x: x[1:, ::2])
row("strided_slice", lambda x: x[:-1, 1:4:2], real(b, 6), want=lambda x: x[:-1, 1:4:2], label="unused cells after")
row("strided_slice", lambda x: s.split(x, [1, 4], axis=1)[1], real(b, 6), want=lambda x: x[:, 1:4], label="split at")
row("strided_slice", lambda x: s.split(x, 3, axis=-1)[2], real(b, 6), want=lambda x: x[:, 4:], label="split in")
row("strided_slice", lambda x: s.slice(x, (0, 1), (2, 3)), real(4, 6), want=lambda x: x[:2, 1:4], label="slice")
row("pad", lambda x: s.pad(x, ((0, 0), (1, 2)), constant_values=7), real(b, 3), want=lambda x: np.pad(x, ((0, 0), (1, 2)), constant_values=7))  # fmt: skip
row("pad", lambda x: s.pad_op(x, config=((1, 0, 0), (0, 2, 1)), value=0.0), real(b, 3), want=lambda x: np.pad(np.insert(x, [1, 2], 0, 1), ((1, 0), (0, 2))), label="between")  # fmt: skip
for _mode in ("reflect", "symmetric", "edge", "wrap"):
    row("pad_mirror", lambda x, m=_mode: s.pad(x, ((0, 0), (2, 1)), m), real(b, 4), want=lambda x, m=_mode: np.pad(x, ((0, 0), (2, 1)), m), label=_mode)  # fmt: skip
row("flip", lambda x: s.flip(x, axis=1), real(b, 3), want=lambda x: x[:, ::-1])
row("flip", lambda x: s.flip(x), real(b, 3), want=lambda x: x[::-1, ::-1], label="all")
row("roll", lambda x: s.roll(x, shift=2, axis=1), real(b, 5), want=lambda x: np.roll(x, 2, 1))
row("roll", lambda x: s.roll(x, shift=(1, -1), axis=(0, 1)), real(3, 5), want=lambda x: np.roll(x, (1, -1), (0, 1)), label="two")  # fmt: skip
row("broadcast_to", lambda x: s.repeat(x, 2, axis=0), real(b, 3), want=lambda x: np.repeat(x, 2, 0), label="repeat")
row("broadcast_to", lambda x: s.tile(x, (2, 1, 3)), real(b, 3), want=lambda x: np.tile(x, (2, 1, 3)), label="tile")

# --- creation -----------------------------------------------------------------------------------------------------

c = creation
row("full", lambda x: x + c.full((x.shape[0], 2), 3), real(b, 1), want=lambda x: np.tile(x + 3, 2))
row("iota", lambda x: x * c.arange(x.shape[1]), real(2, b), want=lambda x: x * np.arange(x.shape[1]))
row("iota", lambda x: x + c.arange(1, 2 * x.shape[1] + 1, 2), real(2, b), want=lambda x: x + 1 + 2 * np.arange(x.shape[1]), label="step")  # fmt: skip
row("iota", lambda x: x * c.eye(x.shape[1], k=1), real(b, b), want=lambda x: x * np.eye(B, k=1), label="eye")
row("tril", lambda x: c.tril(x, -1), real(b, 3, 4), want=lambda x: np.tril(x, -1))
row("triu", lambda x: c.triu(x, 1), real(b, 3, 4), want=lambda x: np.triu(x, 1))
row("diagonal", lambda x: c.diagonal(x, 1, 1, 2), real(b, 3, 4), want=lambda x: np.diagonal(x, 1, 1, 2))
row("diag", lambda x: c.diag(x, -1), real(3), want=lambda x: np.diag(x, -1))

# --- reduce -------------------------------------------------------------------------------------------------------

r = reduce
for _name in ("mean", "max", "min", "prod"):
    _f, _want = getattr(r, _name), getattr(np, _name)
    row(_name, _f, apart(b, 3), want=_want, tolerance=1e-4)
    row(_name, lambda x, f=_f: f(x, axis=0), apart(b, 3), want=lambda x, f=_want: f(x, 0), label="rows", tolerance=1e-4)  # fmt: skip
    row(_name, lambda x, f=_f: f(x, axis=(-1, 1), keepdims=True), apart(b, 2, 3), want=lambda x, f=_want: f(x, (1, 2), keepdims=True), label="axes", tolerance=1e-4)  # fmt: skip
row("max", lambda x: r.max(v.relu(x), axis=1), real(b, 6), want=lambda x: np.maximum(x, 0).max(1), label="of relu")  # fmt: skip
for _name, _f, _want in (("all", r.all, np.all), ("any", r.any, np.any)):
    row(_name, lambda x, f=_f: f(x, axis=1), bools(b, 2), want=lambda x, f=_want: f(x, 1))
row("count_nonzero", lambda x: r.count_nonzero(x, axis=1), ints(2, b, 4), want=lambda x: np.count_nonzero(x, 1).astype("i"))  # fmt: skip
for _name, _f, _want in (("argmax", r.argmax, np.argmax), ("argmin", r.argmin, np.argmin)):
    row(_name, lambda x, f=_f: f(x, axis=-1), ints(3, b, 6), want=lambda x, f=_want: f(x, -1).astype("i"))  # fmt: skip
row("logsumexp", lambda x: r.logsumexp(x, axis=1), real(b, 4), want=lambda x: scipy.special.logsumexp(x, 1))
row("mean", lambda x: r.var(x, axis=(0, 1)), real(b, 2, 3), want=lambda x: x.var((0, 1)), label="var")
row("mean", lambda x: r.std(x, axis=-1, keepdims=True), real(b, 5), want=lambda x: x.std(-1, keepdims=True), label="std")  # fmt: skip
row("cumsum", lambda x: r.cumsum(x, axis=1), real(b, 4), want=lambda x: x.cumsum(1))
row("cumsum", lambda x: r.cumsum(x, axis=0, reverse=True), real(b, 4), want=lambda x: x[::-1].cumsum(0)[::-1], label="back")  # fmt: skip
row("cumprod", lambda x: r.cumprod(x, axis=-1), real(b, 4), want=lambda x: x.cumprod(-1))
row("cummax", lambda x: r.cummax(x, axis=-1), apart(b, 4), want=lambda x: np.maximum.accumulate(x, -1))
row("sort", lambda x: r.sort(x, axis=0), apart(b, 4), want=lambda x: np.sort(x, 0))
row("argsort", lambda x: r.argsort(x), ints(3, b, 5), want=lambda x: np.argsort(x, -1, kind="stable").astype("i"))
row("top_k", lambda x: r.top_k(x, 2), apart(b, 5), want=lambda x: (-np.sort(-x)[:, :2], np.argsort(-x)[:, :2].astype("i")))  # fmt: skip
row("in_top_k", lambda t, p: r.in_top_k(t, p, k=2), ints(5, b), apart(b, 5), want=lambda t, p: np.array([k in np.argsort(-q)[:2] for k, q in zip(t, p)]))  # fmt: skip
_ids = Input((b,), lambda rng, s: np.array([2, 0, 2], np.int32))


def _segments(x, ids, count):
    out = np.zeros((count, *x.shape[1:]), x.dtype)
    np.add.at(out, ids, x)
    return out


row("segment_sum", lambda x, i: r.segment_sum(x, i, count=4), real(b, 2), _ids, want=lambda x, i: _segments(x, i, 4))
row("segment_sum", lambda x, i: r.segment_sum(x, i, count=2), real(b, 2), _ids, want=lambda x, i: _segments(x, i, 4)[:2], label="outside")  # fmt: skip
row("segment_max", lambda x, i: r.segment_max(x, i, count=3), apart(b, 2), _ids, want=lambda x, i: np.stack([x[1], [-np.inf] * 2, np.maximum(x[0], x[2])]), differences=False)  # fmt: skip
row("bincount", lambda x: r.bincount(x, length=5), ints(4, b), want=lambda x: np.bincount(x, minlength=5).astype("i"))
row("dimension", lambda x: x * a.cast(r.dimension(x.shape[0]), "float32") if isinstance(x, Node) else x * float(x.shape[0]), real(b, 2), want=lambda x: x * len(x))  # fmt: skip

# --- linalg -------------------------------------------------------------------------------------------------------

m = linalg
row("matmul", m.matmul, real(b, 3), real(3, 4), want=np.matmul)
row("matmul", m.matmul, real(b, 2, 3), real(3, 4), want=np.matmul, label="rows of a batch")
row("matmul", m.matmul, real(b, 2, 3), real(b, 3, 4), want=np.matmul, label="batch")
row("matmul", lambda x, y: x @ y, real(2, b, 1, 2, 3), real(1, 3, 4), want=np.matmul, label="broadcast batch")
row("matmul", m.matmul, real(3), real(b, 3, 4), want=np.matmul, label="vector left")
row("matmul", m.matmul, real(b, 2, 3), real(3), want=np.matmul, label="vector right")
row("matmul", m.dot, real(3), real(3), want=np.dot, label="dot of vectors")
for _equation, _x, _y in [
    ("bij,jk->bik", real(b, 2, 3), real(3, 4)),
    ("bthd,bshd->bhts", real(b, 2, 2, 3), real(b, 4, 2, 3)),
    ("ij,kj->k", real(b, 3), real(2, 3)),  # i summed within the first operand alone
    ("...i,i...->...", real(b, 3), real(3, 1)),
    ("ab,bc", real(b, 3), real(3, 2)),
]:
    row("einsum", lambda x, y, e=_equation: m.einsum(e, x, y), _x, _y, want=lambda x, y, e=_equation: np.einsum(e, x, y), label=_equation)  # fmt: skip
row("einsum", lambda x, y: m.tensordot(x, y, axes=([2, 1], [0, 1])), real(b, 2, 3), real(3, 2, 4), want=lambda x, y: np.tensordot(x, y, ([2, 1], [0, 1])), label="tensordot")  # fmt: skip
row("einsum_diagonal", lambda x: m.einsum("bii->bi", x), real(b, 3, 3), want=lambda x: np.einsum("bii->bi", x))
row("sqrt", lambda x: m.norm(x, axis=1), real(b, 3), want=lambda x: np.linalg.norm(x, axis=1), label="norm")
row(
    "power", lambda x: m.norm(x, ord=3, axis=1), real(b, 3), want=lambda x: np.linalg.norm(x, 3, axis=1), label="norm 3"
)
row("cholesky", m.cholesky, definite(3, b), want=np.linalg.cholesky, differences=False)
row("inv", m.inv, definite(3, b), want=np.linalg.inv)
row("det", m.det, definite(3, b), want=np.linalg.det, tolerance=1e-3)
row("solve", m.solve, definite(3, b), real(b, 3, 2), want=np.linalg.solve)
row("solve_triangular", lambda x, y: m.solve_triangular(x, y, lower=True), definite(3), real(3, 2), want=lambda x, y: scipy.linalg.solve_triangular(x, y, lower=True))  # fmt: skip
row("qr", lambda x: a.absolute(m.qr(x)[1]), real(b, 4, 3), want=lambda x: np.abs(np.stack([np.linalg.qr(k)[1] for k in x])))  # fmt: skip
row("svd", lambda x: m.svd(x, full_matrices=False)[1], real(b, 3, 2), want=lambda x: np.linalg.svd(x)[1])
row("eigh", lambda x: m.eigh(x)[0], definite(3, b), want=lambda x: np.linalg.eigh(x)[0], tolerance=1e-4, differences=False)  # fmt: skip

# --- indexing -----------------------------------------------------------------------------------------------------

i = indexing
row("take", lambda x, k: i.take(x, k, axis=1), real(b, 4), ints(4, 2, 3), want=lambda x, k: np.take(x, k, 1))
row("take", lambda x, k: i.take(x, k), real(3, 4), ints(12, b), want=np.take, label="flat")
row("embedding_lookup", i.embedding_lookup, real(5, 2), ints(5, b, 3), want=lambda t, k: t[k])
row("scatter_rows", lambda x, k: i.scatter_rows(x, k, count=4), real(b, 2), _ids, want=lambda x, k: _segments(x, k, 4))
row("take_along_axis", lambda x, k: i.take_along_axis(x, k, axis=1), real(b, 4), ints(4, b, 2), want=lambda x, k: np.take_along_axis(x, k, 1))  # fmt: skip


def _placed(dy, k):
    out = np.zeros((B, 5), np.float32)
    np.add.at(out, (np.arange(B)[:, None], k), dy)
    return out


row("scatter_along_axis", lambda d, k: i.scatter_along_axis(d, k, axis=1, shape=(d.shape[0], 5)), real(b, 4), ints(5, b, 4), want=_placed)  # fmt: skip
_pairs = Input((2, 2), lambda rng, s: np.array([[0, 1], [2, 0]], np.int32))


def _at(x, k, u, add):
    out = x.copy()
    out[k[:, 0], k[:, 1]] = u + (out[k[:, 0], k[:, 1]] if add else 0)
    return out


def _gathered(x):
    out = np.zeros((B, x.shape[1]), np.float32)
    np.add.at(out, _of, x)
    return out


_packed = Input((b, 2, 3), lambda rng, s: np.stack([rng.integers(0, 5, (s[0], s[2])), rng.normal(size=(s[0], s[2])).astype("f").view("i")], 1).astype("i"))  # fmt: skip
row("sparse_ids", sparse.sparse_ids, _packed, want=lambda p: p[:, 0])
row("sparse_values", sparse.sparse_values, _packed, want=lambda p: np.ascontiguousarray(p[:, 1]).view("f"))
row(
    "sparse_dot",
    sparse.sparse_dot,
    ints(5, b, 4),
    real(b, 4),
    real(5, 3),
    want=lambda k, v, t: np.einsum("bk,bkd->bd", v, t[k]),
)
row("sparse_rows", lambda k, v: sparse.sparse_rows(k, v, columns=5), ints(5, b, 4), real(b, 4), want=lambda k, v: _placed(v, k))  # fmt: skip
_counts, _of = Input((b,), lambda rng, s: np.array([2, 1, 2], np.int32)), np.array([0, 0, 1, 2, 2, 2])
row("sparse_rows", lambda k, v, c: sparse.sparse_rows(k, v, c, columns=5), ints(5, 6, 4), real(6, 4), _counts, want=lambda k, v, c: _gathered(np.stack([np.bincount(i, w, 5) for i, w in zip(k, v)])), label="pieces")  # fmt: skip
row("sum_pieces", sparse.sum_pieces, real(6, 2), _counts, want=lambda x, c: _gathered(x))
row("rows_of_pieces", sparse.rows_of_pieces, real(b, 2), _counts, real(6, 4), want=lambda x, c, like: x[_of])
row("all_columns", sparse.all_columns, real(b, 4), want=lambda x: np.tile(np.arange(4, dtype="i"), (B, 1)))
row("scatter_add", i.scatter_add, real(3, 4), _pairs, real(2), want=lambda x, k, u: _at(x, k, u, True))
row("scatter_update", i.scatter_update, real(3, 4), _pairs, real(2), want=lambda x, k, u: _at(x, k, u, False))
row("dynamic_slice", lambda x, k: i.dynamic_slice(x, (k, 0), (2, 3)), real(4, 5), ints(2), want=lambda x, k: x[k : k + 2, :3])  # fmt: skip
row("dynamic_update_slice", lambda x, y, k: i.dynamic_update_slice(x, y, (0, k)), real(2, 5), real(2, 2), ints(3), want=lambda x, y, k: np.hstack([x[:, :k], y, x[:, k + 2 :]]))  # fmt: skip
row("one_hot", lambda k: i.one_hot(k, 4), ints(6, b, 2), want=lambda k: (k[..., None] == np.arange(4)).astype("f"))
row("one_hot", lambda k: i.one_hot(k, 4, "int32", axis=1), ints(4, b, 2), want=lambda k: (k[:, None] == np.arange(4)[:, None]).astype("i"), label="axis")  # fmt: skip
row("index_arrays", lambda x, k, j: i.getitem(x, (k, slice(None), j)), real(4, 2, 5), ints(4, b), ints(5, b), want=lambda x, k, j: np.moveaxis(x, 1, 2)[k, j])  # fmt: skip

# --- convolution and pooling --------------------------------------------------------------------------------------


def _same(n, k, stride, dilation):
    total = max((math.ceil(n / stride) - 1) * stride + (k - 1) * dilation + 1 - n, 0)
    return total // 2, total - total // 2


def _conv_by_numpy(x, kernel, strides=1, padding="valid", dilation_rate=1, groups=1):
    """The sum over the kernel's cells of shifted inputs times that cell's matrix."""
    rank = x.ndim - 2
    strides, dilation = (n if isinstance(n, tuple) else (n,) * rank for n in (strides, dilation_rate))
    if padding == "same":
        widths = [_same(n, k, s, d) for n, k, s, d in zip(x.shape[1:-1], kernel.shape, strides, dilation)]
        x = np.pad(x, [(0, 0), *widths, (0, 0)])
    elif padding != "valid":
        x = np.pad(x, [(0, 0), *padding, (0, 0)])
    sizes = [(n - (k - 1) * d - 1) // s + 1 for n, k, s, d in zip(x.shape[1:-1], kernel.shape, strides, dilation)]
    out = 0
    for cell in np.ndindex(*kernel.shape[:rank]):
        cut = tuple(slice(i * d, i * d + (o - 1) * s + 1, s) for i, d, o, s in zip(cell, dilation, sizes, strides))
        parts = np.split(x[(slice(None), *cut)], groups, axis=-1)
        out = out + np.concatenate([p @ k for p, k in zip(parts, np.split(kernel[cell], groups, axis=-1))], axis=-1)
    return out


for _label, _x, _k, _kw in [
    ("1d", real(b, 7, 2), real(3, 2, 3), {"strides": 2, "padding": "same"}),
    ("2d valid", real(b, 5, 6, 2), real(3, 2, 2, 3), {}),
    ("2d same strides", real(b, 5, 6, 2), real(3, 2, 2, 3), {"strides": 2, "padding": "same"}),
    ("2d dilation", real(b, 6, 6, 2), real(2, 3, 2, 3), {"dilation_rate": 2, "padding": "same"}),
    ("2d groups", real(b, 4, 4, 4), real(2, 2, 2, 6), {"groups": 2}),
    ("2d depthwise", real(b, 4, 4, 3), real(3, 3, 1, 6), {"groups": 3, "padding": "same"}),
    ("2d explicit", real(b, 4, 4, 2), real(3, 3, 2, 2), {"padding": ((1, 2), (0, 1))}),
    ("3d", real(b, 3, 4, 3, 2), real(2, 2, 2, 2, 2), {"padding": "same"}),
]:
    row("conv", lambda x, k, kw=_kw: convolution.conv(x, k, **kw), _x, _k, want=lambda x, k, kw=_kw: _conv_by_numpy(x, k, **kw), label=_label)  # fmt: skip
row("conv", lambda x, k: convolution.conv(x, k, data_format="channels_first"), real(b, 2, 5, 5), real(3, 3, 2, 3), want=lambda x, k: np.moveaxis(_conv_by_numpy(np.moveaxis(x, 1, -1), k), -1, 1), label="channels first")  # fmt: skip


def _conv_pull(which):
    def want(first, second):
        if which == 0:  # dy, kernel -> dx
            dy, kernel = first, second
            forward = lambda x: _linear(x, kernel)
            like = (B, 5, 5, 2)
        else:
            x, dy = first, second
            forward = lambda k: _linear(x, k)
            like = (3, 3, 2, 4)
        out = np.zeros(like, np.float32)  # the transpose of a linear map, column by column
        for at in np.ndindex(*like):
            basis = np.zeros(like, np.float32)
            basis[at] = 1
            out[at] = (forward(basis) * dy).sum()
        return out

    return want


def _linear(x, kernel):
    return _conv_by_numpy(x, kernel, strides=2, padding="same")


_attrs = {"strides": (2, 2), "padding": "same", "dilation": (1, 1), "groups": 1}
row("conv_grad_input", lambda dy, k: convolution.conv_grad_input(dy, k, input_shape=(dy.shape[0], 5, 5, 2), **_attrs), real(b, 3, 3, 4), real(3, 3, 2, 4), want=_conv_pull(0))  # fmt: skip
row("conv_grad_kernel", lambda x, dy: convolution.conv_grad_kernel(x, dy, kernel_shape=(3, 3, 2, 4), **_attrs), real(b, 5, 5, 2), real(b, 3, 3, 4), want=_conv_pull(1))  # fmt: skip
row(
    "conv_grad_kernel_bias",
    lambda x, dy: items(convolution.conv_grad_kernel_bias(x, dy, kernel_shape=(3, 3, 2, 4), **_attrs)),
    real(b, 5, 5, 2),
    real(b, 3, 3, 4),
    want=lambda x, dy: (_conv_pull(1)(x, dy), dy.sum((0, 1, 2))),
)
row(
    "conv_fused",
    lambda x, k, bias, y: convolution.conv_fused(x, k, bias, y, has_bias=True, has_sum=True, relu=True, **_attrs),
    real(b, 5, 5, 2),
    real(3, 3, 2, 4),
    real(4),
    real(b, 3, 3, 4),
    want=lambda x, k, bias, y: np.maximum(_linear(x, k) + bias + y, 0),
    differences=False,
)


def _windows(f, x, size, stride, padding):
    """f over the real cells of each window, by loops."""
    rank = x.ndim - 2
    pads = [_same(n, size, stride, 1) if padding == "same" else (0, 0) for n in x.shape[1:-1]]
    counts = [(n + sum(p) - size) // stride + 1 for n, p in zip(x.shape[1:-1], pads)]
    out = np.zeros((x.shape[0], *counts, x.shape[-1]), np.float32)
    for at in np.ndindex(*counts):
        cut = tuple(slice(max(q * stride - p[0], 0), q * stride - p[0] + size) for q, p in zip(at, pads))
        out[(slice(None), *at)] = f(x[(slice(None), *cut)], axis=tuple(range(1, rank + 1)))
    return out


for _op, _f, _want in (("max_pool", pooling.max_pool, np.max), ("average_pool", pooling.average_pool, np.mean)):
    for _label, _x, _kw in [
        ("1d", apart(b, 7, 2), (3, 2, "same")),
        ("2d", apart(b, 4, 6, 2), (2, 2, "valid")),
        ("2d same overlap", apart(b, 5, 4, 2), (3, 2, "same")),
        ("2d stride 1", apart(b, 4, 4, 1), (3, 1, "same")),
        ("2d gaps", apart(b, 7, 8, 1), (2, 3, "valid")),
        ("3d", apart(b, 3, 4, 3, 1), (2, 1, "valid")),
    ]:
        row(_op, lambda x, f=_f, kw=_kw: f(x, *kw), _x, want=lambda x, f=_want, kw=_kw: _windows(f, x, *kw), label=_label)  # fmt: skip
_pool = {"window": (2, 2), "strides": (2, 2), "padding": "valid"}


def _max_pull(x, dy):
    out = np.zeros_like(x)
    for n, p, q, k in np.ndindex(*dy.shape):
        block = x[n, 2 * p : 2 * p + 2, 2 * q : 2 * q + 2, k]
        at = np.unravel_index(block.argmax(), (2, 2))
        out[n, 2 * p + at[0], 2 * q + at[1], k] += dy[n, p, q, k]
    return out


row("max_pool_grad", lambda x, dy: pooling.max_pool_grad(x, dy, **_pool), apart(b, 4, 4, 2), real(b, 2, 2, 2), want=_max_pull)  # fmt: skip
row("average_pool_grad", lambda dy: pooling.average_pool_grad(dy, input_shape=(dy.shape[0], 4, 4, 2), **_pool), real(b, 2, 2, 2), want=lambda dy: np.repeat(np.repeat(dy / 4, 2, 1), 2, 2))  # fmt: skip

# --- normalization, losses ----------------------------------------------------------------------------------------


def _pulled(f, *inputs):
    y = f(*inputs)
    return gradient({y: y}, inputs)[0]


def _standard(x, axis):
    mean, variance = x.mean(axis, keepdims=True), x.var(axis, keepdims=True)
    return (x - mean) / np.sqrt(variance + 1e-3), mean, variance


row("standardize", lambda x: normalization.standardize(x, (0, 1), 1e-3), real(b, 4, 2), want=lambda x: _standard(x, (0, 1)))  # fmt: skip
row("standardize", lambda x, g: normalization.layer_norm(x, g), real(b, 4), positive(4), want=lambda x, g: _standard(x, -1)[0] * g, label="layer")  # fmt: skip


def _batch_normal(x, gamma, beta, valid):
    """In float64, with each row weighted."""
    x, weight = x.astype(float), np.broadcast_to(valid.reshape(-1, 1, 1).astype(float), x.shape)
    mean = np.average(x, (0, 1), weight)
    variance = np.average((x - mean) ** 2, (0, 1), weight)
    return (x - mean) / np.sqrt(variance + 1e-3) * gamma + beta, mean, variance


def _batch_norm_pull(x, dy, gamma, beta, valid):
    """Ioffe and Szegedy (2015), section 3, with weighted rows."""
    y, _, variance = _batch_normal(x, np.ones_like(gamma), np.zeros_like(beta), valid)
    weight = valid.reshape(-1, 1, 1) / (valid.sum() * x.shape[1])
    dbeta, dgamma = dy.sum((0, 1)), (dy * y).sum((0, 1))
    return gamma / np.sqrt(variance + 1e-3) * (dy - weight * (dbeta + y * dgamma)), dgamma, dbeta


def _norm_grad(x, dy, gamma, beta, valid):
    _, mean, variance = normalization.batch_norm(x, gamma, beta, valid)
    attrs = {"epsilon": 1e-3, "relu": False, "has_valid": True}
    return items(normalization.batch_norm_grad(x, dy, gamma, beta, mean, variance, valid, **attrs))


row("batch_norm", lambda x, g, beta, v: normalization.batch_norm(x, g, beta, v), real(b, 4, 3), positive(3), real(3), positive(b), want=_batch_normal, gradient=False)  # fmt: skip
row("batch_norm", lambda x, g, beta: normalization.batch_norm(x, g, beta)[0], real(b, 4, 3), positive(3), real(3), want=lambda x, g, beta: _batch_normal(x, g, beta, np.ones(len(x)))[0], label="all rows")  # fmt: skip
row("batch_norm_grad", _norm_grad, real(b, 4, 3), real(b, 4, 3), positive(3), real(3), positive(b), want=_batch_norm_pull, gradient=False)  # fmt: skip
row("layer_norm", lambda *v: layer_normalization.layer_norm(*v, 1e-3), real(b, 3, 5), positive(5), real(5), want=lambda x, g, h: _standard(x, -1)[0] * g + h)  # fmt: skip
row("layer_norm_grad", lambda *v: _pulled(lambda *w: layer_normalization.layer_norm(*w, 1e-3), *v), real(b, 5), positive(5), real(5), eager=False)  # fmt: skip
row(
    "sparse_softmax_cross_entropy",
    losses.sparse_softmax_cross_entropy,
    real(b, 4),
    ints(4, b),
    want=lambda x, k: -scipy.special.log_softmax(x, -1)[np.arange(len(k)), k],
)


def _adam(w, g, m, v, alpha):
    m, v = 0.9 * m + 0.1 * g, 0.99 * v + 0.01 * g * g
    return [w - alpha * m / (np.sqrt(v) + 1e-7), m, v]


row("adam", lambda *a: optimizers.adam(*a, 0.9, 0.99, 1e-7), real(b), real(b), real(b), positive(b), positive(), want=_adam, gradient=False)  # fmt: skip
row("softmax_cross_entropy", losses.softmax_cross_entropy, real(b, 4), unit(b, 4), want=lambda x, t: -(t * scipy.special.log_softmax(x, -1)).sum(-1))  # fmt: skip
row(
    "sigmoid_cross_entropy",
    losses.sigmoid_cross_entropy,
    real(b, 4),
    unit(b, 4),
    want=lambda x, t: _softplus(x) - x * t,
)

# --- integers ------------------------------------------------------------------------------------------------------


def bytes_of(dtype, *shape):
    low, high = (0, 256) if dtype == "uint8" else (-127, 128)
    return Input(shape, lambda rng, s: rng.integers(low, high, s).astype(dtype))


def _by_integers(total, m, t, addend=None, relu=False, upper=None, add_scale=0.0, dtype="float32"):
    y = total * m.astype(np.float64) + t + (0 if addend is None else addend * np.float64(add_scale))
    y = np.maximum(y, 0) if relu else y
    y = y if upper is None else np.minimum(y, upper)
    return (
        y
        if dtype == "float32"
        else np.clip(np.round(y), *((0, 255) if dtype == "uint8" else (-128, 127))).astype(dtype)
    )


_plain = {"relu": False, "upper": None, "add_scale": 0.0, "dtype": "float32"}
_relu = {"relu": True, "upper": 90.0, "add_scale": 0.25, "dtype": "uint8"}
_window = {"strides": (2, 1), "padding": "same", "dilation": (1, 1), "groups": 1}
_small = Input((4,), lambda rng, s: rng.uniform(1e-3, 3e-3, s).astype("f"))
row("quantize", lambda x: quantised.quantize_op(x, scale=0.01, dtype="int8"), real(b, 5), want=lambda x: np.clip(np.round(x / 0.01), -127, 127).astype("int8"), gradient=False)  # fmt: skip
row("quantize", lambda x: quantised.quantize_op(x, scale=0.01, dtype="uint8"), real(b, 5), want=lambda x: np.clip(np.round(x / 0.01), 0, 255).astype("uint8"), gradient=False, label="uint8")  # fmt: skip
row(
    "dequantize",
    lambda q: quantised.dequantize_op(q, scale=0.01),
    bytes_of("uint8", b, 5),
    want=lambda q: q * 0.01,
    gradient=False,
)
row("quantised_dense", lambda *v: quantised.quantised_dense(*v, **_plain), bytes_of("uint8", b, 3, 7), bytes_of("int8", 7, 4), _small, real(4), want=lambda x, k, m, t: _by_integers(x.astype(int) @ k.astype(int), m, t), gradient=False)  # fmt: skip
row("quantised_dense", lambda *v: quantised.quantised_dense(*v, **_relu), bytes_of("int8", b, 7), bytes_of("int8", 7, 4), _small, real(4), bytes_of("uint8", b, 4), want=lambda x, k, *v: _by_integers(x.astype(int) @ k.astype(int), *v, **_relu), gradient=False, label="addend")  # fmt: skip
row("quantised_conv", lambda *v: quantised.quantised_conv(*v, **_window, **_plain), bytes_of("int8", b, 5, 5, 3), bytes_of("int8", 3, 2, 3, 4), _small, real(4), want=lambda x, k, m, t: _by_integers(_conv_by_numpy(x.astype(float), k.astype(float), strides=(2, 1), padding="same"), m, t), gradient=False)  # fmt: skip
row("quantised_conv", lambda *v: quantised.quantised_conv(*v, **_window, **_relu), bytes_of("uint8", b, 5, 5, 300), bytes_of("int8", 3, 2, 300, 4), _small, real(4), bytes_of("int8", b, 3, 5, 4), want=lambda x, k, *v: _by_integers(_conv_by_numpy(x.astype(float), k.astype(float), strides=(2, 1), padding="same"), *v, **_relu), gradient=False, label="sums beyond 2^24")  # fmt: skip

# --- random: values are checked in test_random.py -----------------------------------------------------------------

row("fold_in", lambda k: random.fold_in(k, 3), words(2))
row("random_bits_rows", lambda k, n: random.random_bits_rows(k, n, salt=1, shape=(2, 3)), words(2), words(b))
row("random_bits", lambda k: random.random_bits(k, salt=1, shape=(2, 3)), words(2))
row("bits_to_uniform", random.bits_to_uniform, words(b, 3), want=lambda k: (k >> 8) / np.float32(2**24))
row("bits_to_normal", random.bits_to_normal, words(b, 3), want=lambda k: scipy.special.ndtri(((k >> 8) + 0.5) / 2**24), tolerance=1e-4)  # fmt: skip
_tail = scipy.special.ndtr(-2)
row("bits_to_truncated_normal", random.bits_to_truncated_normal, words(b, 3), want=lambda k: scipy.special.ndtri(_tail + ((k >> 8) + 0.5) / 2**24 * (1 - 2 * _tail)), tolerance=1e-4)  # fmt: skip

# --- recurrent: loops in NumPy ------------------------------------------------------------------------------------


def _lstm_loop(x, h, c, w, u, bias, mask=None, back=False):
    ys = []
    for t in reversed(range(x.shape[1])) if back else range(x.shape[1]):
        zi, zf, zc, zo = np.split(x[:, t] @ w + h @ u + bias, 4, -1)
        new_c = _sigmoid(zf) * c + _sigmoid(zi) * np.tanh(zc)
        new_h = _sigmoid(zo) * np.tanh(new_c)
        keep = np.ones((B, 1), bool) if mask is None else mask[:, t : t + 1]
        h, c = np.where(keep, new_h, h), np.where(keep, new_c, c)
        ys.append(h)
    return np.stack(ys, 1), h, c


def _gru_loop(x, h, w, u, bias, mask=None, after=True):
    ys, n = [], h.shape[-1]
    outer, inner = (bias[0], bias[1]) if after else (bias, np.zeros_like(bias))
    for t in range(x.shape[1]):
        zx, zh = x[:, t] @ w + outer, h @ u + inner
        z, g = _sigmoid((zx + zh)[:, :n]), _sigmoid((zx + zh)[:, n : 2 * n])
        new = np.tanh(zx[:, 2 * n :] + (g * zh[:, 2 * n :] if after else (g * h) @ u[:, 2 * n :]))
        keep = np.ones((B, 1), bool) if mask is None else mask[:, t : t + 1]
        h = np.where(keep, z * h + (1 - z) * new, h)
        ys.append(h)
    return np.stack(ys, 1), h


_lstm_in = (real(b, 4, 2), unit(b, 3), unit(b, 3), unit(2, 12), unit(3, 12), unit(12))
_gru_in = (real(b, 4, 2), unit(b, 3), unit(2, 9), unit(3, 9))
_rnn_in = (real(b, 4, 2), unit(b, 3), unit(2, 3), unit(3, 3), unit(3))
row("lstm", recurrent.lstm, *_lstm_in, want=_lstm_loop)
row("lstm", recurrent.lstm, *_lstm_in, bools(b, 4), want=_lstm_loop, label="mask")
row("lstm", lambda *v: recurrent.lstm(*v, go_backwards=True), *_lstm_in, bools(b, 4), want=lambda *v: _lstm_loop(*v, back=True), label="backwards mask")  # fmt: skip
row("lstm", lambda *v: recurrent.lstm(*v[:6], None, v[6]), *_lstm_in, Input((4, b, 3), lambda rng, s: np.ones(s, "f")), want=lambda *v: _lstm_loop(*v[:6]), label="recurrent dropout")  # fmt: skip
row("lstm", lambda *v: recurrent.lstm(*v, activation="softsign", recurrent_activation="hard_sigmoid")[0], *_lstm_in, label="activations", differences=False)  # fmt: skip
row("lstm_grad", lambda *v: jax.tree.leaves(recurrent.lstm(*v))[0], *_lstm_in, want=lambda *v: _lstm_loop(*v)[0])
row("gru", recurrent.gru, *_gru_in, unit(2, 9), bools(b, 4), want=_gru_loop, label="mask")
row("gru", lambda *v: recurrent.gru(*v)[0], *_gru_in, unit(2, 9), want=lambda *v: _gru_loop(*v)[0])
row("gru", lambda *v: recurrent.gru(*v, reset_after=False), *_gru_in, unit(9), want=lambda *v: _gru_loop(*v, after=False), label="reset before")  # fmt: skip
row("gru_grad", lambda *v: recurrent.gru(*v)[1], *_gru_in, unit(2, 9), want=lambda *v: _gru_loop(*v)[1])


def _rnn_loop(x, h, w, u, bias):
    ys = []
    for t in range(x.shape[1]):
        h = np.tanh(x[:, t] @ w + h @ u + bias)
        ys.append(h)
    return np.stack(ys, 1), h


row("simple_rnn", recurrent.simple_rnn, *_rnn_in, want=_rnn_loop)
row("simple_rnn", lambda *v: recurrent.simple_rnn(*v, activation="softsign")[0], *_rnn_in, label="activation")
row("simple_rnn_grad", lambda *v: recurrent.simple_rnn(*v)[1], *_rnn_in, want=lambda *v: _rnn_loop(*v)[1])

# --- dense --------------------------------------------------------------------------------------------------------

_dense_in = (real(b, 5, 3), real(3, 4), real(4))
row("dense", lambda x, k, r: dense.dense_op(x, k, r, has_bias=True, relu=False), *_dense_in, want=lambda x, k, r: x @ k + r)  # fmt: skip
row("dense", lambda x, k, r: dense.dense_op(x, k, r, has_bias=True, relu=True), *_dense_in, want=lambda x, k, r: np.maximum(x @ k + r, 0), label="relu")  # fmt: skip
row("dense_grad_input", lambda dy, k: dense.dense_grad_input(dy, k, gated=False), real(b, 4), real(3, 4), want=lambda dy, k: dy @ k.T)  # fmt: skip
row("dense_grad_input", lambda dy, k, g: dense.dense_grad_input(dy, k, g, gated=True), real(b, 4), real(3, 4), apart(b, 3), want=lambda dy, k, g: np.where(g > 0, dy @ k.T, 0), label="gated")  # fmt: skip
row("dense_grad_kernel", lambda x, dy: tuple(item(dense.dense_grad_kernel(x, dy), i) for i in (0, 1)), real(b, 5, 3), real(b, 5, 4), want=lambda x, dy: (np.einsum("bti,btj->ij", x, dy), dy.sum((0, 1))))  # fmt: skip

_two_tables = (real(5, 2), ints(5, b), real(6, 3), ints(6, b))


def _gradients_of_rows(t, i, u, j, dy, k):
    x, dx = np.concatenate([t[i], u[j]], axis=1), dy @ k.T
    found = []
    for ids, part in ((i, dx[:, :2]), (j, dx[:, 2:])):
        rows = np.zeros_like(part)
        np.add.at(rows, [list(ids).index(one) for one in ids], part)
        found.append(rows)
    return (x.T @ dy, dy.sum(0), *found)


row("dense_of_rows", lambda *x: dense.dense_of_rows(*x, tables=2, has_bias=True, relu=False), *_two_tables, real(5, 4), real(4), want=lambda t, i, u, j, k, r: np.concatenate([t[i], u[j]], axis=1) @ k + r, gradient=False)  # fmt: skip
row("dense_of_rows_gradients", lambda *x: tuple(item(dense.dense_of_rows_gradients(*x, tables=2), i) for i in range(4)), *_two_tables, real(b, 4), real(5, 4), want=_gradients_of_rows, gradient=False)  # fmt: skip

# --- attention ----------------------------------------------------------------------------------------------------


def _attend(q, k, v, mask=None, bias=0.0, scale=0.5):
    scores = scale * np.einsum("bthd,bshd->bhts", q, np.repeat(k, q.shape[2] // k.shape[2], 2)) + bias
    weights = scipy.special.softmax(scores if mask is None else np.where(mask, scores, -1e30), -1)
    return np.einsum("bhts,bshe->bthe", weights, np.repeat(v, q.shape[2] // k.shape[2], 2))


_attention_in = (unit(b, 3, 2, 4), unit(b, 5, 2, 4), unit(b, 5, 2, 3))
row("attention", attention.scaled_dot_product, *_attention_in, want=_attend)
row("attention", attention.scaled_dot_product, *_attention_in, bools(b, 1, 3, 5), real(1, 2, 3, 5), want=_attend, label="mask and bias")  # fmt: skip
row("attention", lambda *v: attention.scaled_dot_product(*v, scale=1.0, is_causal=True), unit(b, 4, 4, 2), unit(b, 4, 2, 2), unit(b, 4, 2, 2), want=lambda *v: _attend(*v, np.tri(4, dtype=bool), scale=1.0), label="causal, shared heads")  # fmt: skip
row("attention_grad", lambda *v: attention.scaled_dot_product(*v, scale=0.5), *_attention_in, want=_attend)
row(
    "attention_grad",
    lambda *v: _pulled(lambda *w: attention.scaled_dot_product(*w, scale=0.5), *v),
    *_attention_in,
    eager=False,
    label="of the gradient",
)


def _conv_lstm_loop(z, h, c, kernel, mask=None):
    """Over one axis, window 3, padding "same"."""
    ys = []
    for t in range(z.shape[1]):
        wide = np.pad(h, ((0, 0), (1, 1), (0, 0)))
        sums = z[:, t] + np.stack([np.einsum("bkc,kcn->bn", wide[:, p : p + 3], kernel) for p in range(h.shape[1])], 1)
        i, f, g, o = np.split(sums, 4, -1)
        new_c = _sigmoid(f) * c + _sigmoid(i) * np.tanh(g)
        new_h = _sigmoid(o) * np.tanh(new_c)
        keep = np.ones((B, 1, 1), bool) if mask is None else mask[:, t, None, None]
        h, c = np.where(keep, new_h, h), np.where(keep, new_c, c)
        ys.append(h)
    return np.stack(ys, 1), h, c


_conv_lstm_in = (real(b, 3, 4, 8), unit(b, 4, 2), unit(b, 4, 2), unit(3, 2, 8))
row("conv_lstm", conv_lstm.conv_lstm, *_conv_lstm_in, want=_conv_lstm_loop)
row("conv_lstm", conv_lstm.conv_lstm, *_conv_lstm_in, bools(b, 3), want=_conv_lstm_loop, label="mask")
row("conv_lstm_grad", lambda *v: conv_lstm.conv_lstm(*v)[1], *_conv_lstm_in, want=lambda *v: _conv_lstm_loop(*v)[1])

# --- control, leaves, collective ----------------------------------------------------------------------------------


def _running(x, w):
    (last,), (ys,) = control.scan(lambda c, xs: ([c[0] * w + xs[0]], [c[0]]), [x[0] * 0.0], [x])
    return last, ys


def _running_loop(x, w):
    c, ys = np.zeros_like(x[0]), []
    for cell in x:
        ys.append(c)
        c = c * w + cell
    return c, np.stack(ys)


row("scan", _running, real(b, 2), unit(2), want=_running_loop)
row("cond", lambda p, x, y: control.cond(p, lambda: x * y, lambda: x - 1.0), bools(), real(b, 2), real(2), want=lambda p, x, y: x * y if p else x - 1)  # fmt: skip
row("while_loop", lambda x: control.while_loop(lambda n, v: n < 3, lambda n, v: (n + 1, v * 2.0), (np.int32(0), x))[1], real(b, 2), want=lambda x: x * 8, gradient=False)  # fmt: skip
_sin_and_square = control.from_jax(lambda x: (jnp.sin(x), x * x))
row("jax_call", _sin_and_square, real(b, 2), want=lambda x: (np.sin(x), x * x))
row("input", lambda x: x, real(b, 2), want=lambda x: x)
row("constant", lambda x: x + np.arange(3.0), real(b, 3), want=lambda x: x + np.arange(3))
row("constant", lambda x: x + constant(2.5) if isinstance(x, Node) else x + 2.5, real(b, 3), want=lambda x: x + 2.5, label="scalar")  # fmt: skip
row("item", lambda x: item(reduce.top_k_op(x, k=1), 0), apart(b, 3), want=lambda x: x.max(1, keepdims=True))
row("vjp", lambda x: _once(reduce.cumprod, x), positive(b, 3), eager=False)
row("barrier", barrier.barrier, real(b, 2), real(b, 3), want=lambda x, after: x)
row("barrier", barrier.barrier, ints(5, b, 2), real(), want=lambda x, after: x, label="whole numbers")
row("all_reduce", lambda x: collective.all_reduce(x), real(b, 2), want=lambda x: x)
row("part_sum", lambda x: collective.part_sum(x), real(b, 2), want=lambda x: x, gradient=False)
row(
    "part_stack",
    lambda x: collective.part_stack(x, count=2),
    real(b, 2),
    want=lambda x: np.stack([x, x]),
    gradient=False,
)
row(
    "part_of",
    lambda x: collective.part_of(x, np.asarray(1, np.int32), axis=1, count=2),
    real(b, 4),
    want=lambda x: x[:, 2:],
    gradient=False,
)
row("part_of", lambda x: collective.part_of(x, np.asarray(1, np.int32), axis=1, count=2), real(b, 3), want=lambda x: np.pad(x[:, 2:], ((0, 0), (0, 1))), gradient=False, label="filled up")  # fmt: skip


def _once(f, x):
    y = f(x, axis=1)
    return gradient({y: y}, [x])[0]


# --- checks -------------------------------------------------------------------------------------------------------


def test_every_op_has_a_row():
    rows = {r.op for r in ROWS} | {"param"}  # params are inputs with another name; every train graph holds some
    rows |= {"trial_root"}  # stands for a graph while its sizes are tried; tests/compiler/ops/test_trials.py
    ours = {name for name, op in REGISTRY.items() if op.home.startswith("kerasoft.compiler")}  # not the front-end's
    assert len(ours) > 150 and ours - rows == set()


@pytest.mark.parametrize("case", ROWS, ids=lambda r: r.label)
def test_op(case: Row, check_op):
    check_op(case)

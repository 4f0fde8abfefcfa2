"""Gradients of ops: those of the compiler and those of jax.grad through the eager call, against jax.grad through Keras."""

import jax
import keras
import numpy as np
import pytest
from kerasoft.compiler import lower
from kerasoft.compiler.gradient import gradient
from kerasoft.compiler.ir import Graph
from kerasoft.compiler.ops.registry import constant, input_node

import kerasoft as ks
from kerasoft.tensors import Scope

rng = np.random.default_rng(9)
A, B = (rng.normal(size=(3, 4)).astype("float32") for _ in range(2))
BOOL = A * B > 0
SINGLE = """absolute fabs negative square exp exp2 expm1 sin cos tan arctan sinh cosh tanh arcsinh sinc i0 erf erfc deg2rad
sum mean max min prod var std cumsum cumprod sort logsumexp ravel transpose flip fliplr flipud tril triu median nan_to_num
ptp diff trapezoid average rot90 trace diagonal nansum nanmean nanmax nanmin nanprod nanstd nanvar nanmedian nancumsum
nancumprod corrcoef round floor sign cbrt stop_gradient copy diagflat diag vander_self norm normalize""".split()
POSITIVE = "log log2 log10 log1p sqrt rsqrt reciprocal arccosh".split()
UNIT = "arcsin arccos arctanh erfinv".split()
DOUBLE = """add subtract multiply divide maximum minimum fmax fmin fmod mod arctan2 hypot logaddexp logaddexp2
divide_no_nan vdot outer inner kron cdist""".split()
CALLS = {
    **{name: lambda o, a, b, n=name: getattr(o, n)(a) for name in SINGLE if name != "vander_self"},
    **{name: lambda o, a, b, n=name: getattr(o, n)(o.abs(a) + 1.5) for name in POSITIVE},
    **{name: lambda o, a, b, n=name: getattr(o, n)(o.tanh(a) * 0.9) for name in UNIT},
    **{name: lambda o, a, b, n=name: getattr(o, n)(a, b) for name in DOUBLE},
    "power": lambda o, a, b: o.power(o.abs(a) + 0.5, b),
    "power of a number": lambda o, a, b: o.power(a, 3),
    "where": lambda o, a, b: o.where(BOOL, a, b),
    "clip": lambda o, a, b: o.clip(a, -0.5, 0.5),
    "max axis": lambda o, a, b: o.max(a, axis=1),
    "std axis": lambda o, a, b: o.std(a, axis=0, keepdims=True),
    "quantile": lambda o, a, b: o.quantile(a, 0.3, axis=1),
    "percentile": lambda o, a, b: o.percentile(a, 60.0),
    "nanquantile": lambda o, a, b: o.nanquantile(a, 0.3, axis=0),
    "cumsum": lambda o, a, b: o.cumsum(a, axis=1),
    "cumprod": lambda o, a, b: o.cumprod(a, axis=0),
    "sort": lambda o, a, b: o.sort(a, axis=0),
    "top_k": lambda o, a, b: o.top_k(a, 2)[0],
    "take": lambda o, a, b: o.take(a, [2, 0, 2], axis=1),
    "take_along_axis": lambda o, a, b: o.take_along_axis(a, o.argsort(b, axis=1), axis=1),
    "getitem": lambda o, a, b: a[1:, ::2] * b[:2, None, 0],
    "repeat": lambda o, a, b: o.repeat(a, 2, axis=0),
    "tile": lambda o, a, b: o.tile(a, (2, 1)),
    "roll": lambda o, a, b: o.roll(a, 1, axis=1),
    "pad": lambda o, a, b: o.pad(a, ((1, 1), (0, 2)), mode="reflect"),
    "pad edge": lambda o, a, b: o.pad(a, 1, mode="edge"),
    "concatenate": lambda o, a, b: o.concatenate([a, b], 1),
    "stack": lambda o, a, b: o.stack([a, b], -1),
    "split": lambda o, a, b: o.split(a, 2, axis=1)[1],
    "array_split": lambda o, a, b: o.array_split(a, 3, axis=1)[0],
    "matmul": lambda o, a, b: o.matmul(a, o.transpose(b)),
    "einsum": lambda o, a, b: o.einsum("ij,kj->ik", a, b),
    "tensordot": lambda o, a, b: o.tensordot(a, b, axes=2),
    "cross": lambda o, a, b: o.cross(a[:, :3], b[:, :3]),
    "correlate": lambda o, a, b: o.correlate(a[0], b[0], mode="full"),
    "vander": lambda o, a, b: o.vander(a[0], 3),
    "linspace": lambda o, a, b: o.linspace(a, b, 3),
    "logspace": lambda o, a, b: o.logspace(a, b, 3, base=2),
    "ldexp": lambda o, a, b: o.ldexp(a, 2),
    "scatter": lambda o, a, b: o.scatter(np.array([[0], [0], [3]]), a, (4, 4)),
    "scatter_update": lambda o, a, b: o.scatter_update(a, np.array([[0], [2]]), b[:2]),
    "scatter add": lambda o, a, b: o.scatter_update(a, np.array([[0], [0]]), b[:2], reduction="add"),
    "slice": lambda o, a, b: o.slice(a, (1, 1), (2, 2)),
    "slice_update": lambda o, a, b: o.slice_update(a, (1, 1), b[:2, :2]),
    "rearrange": lambda o, a, b: o.rearrange(a, "a (b c) -> b (a c)", b=2, c=2),
    "select": lambda o, a, b: o.select([a > 0.5, a > 0], [a, b], 0.0),
    "average": lambda o, a, b: o.average(a, axis=1, weights=o.abs(b)),
    "heaviside": lambda o, a, b: o.heaviside(a, 0.5) * b,
    "complex": lambda o, a, b: o.absolute(o.view_as_complex(o.stack([a, b], -1))),
    "scan": lambda o, a, b: o.scan(lambda c, x: (c * 0.5 + x, c * x), b[0], a)[1],
    "map": lambda o, a, b: o.map(lambda x: x * o.sum(x), a),
    "vectorized_map": lambda o, a, b: o.vectorized_map(lambda x: x * o.sum(x), a),
    "associative_scan": lambda o, a, b: o.associative_scan(lambda x, y: x * y, a),
    "fori_loop": lambda o, a, b: o.fori_loop(0, 3, lambda i, x: x * 0.5 + 1.0, a) if o is keras.ops else a * 0.125 + 1.75,
    "cond": lambda o, a, b: o.cond(o.sum(a) > 100.0, lambda: a * 2, lambda: a * a),
    "switch": lambda o, a, b: o.switch(1, [lambda x: x, lambda x: x * x], a),
}  # fmt: skip


def total(ops, pairs):
    """One number: the sum of all ops' results, each element with a weight of its own. Each op has inputs of its own."""
    totals = []
    for function, (a, b) in zip(CALLS.values(), pairs, strict=True):
        result = function(ops, a, b)
        weights = np.cos(np.arange(np.prod(result.shape, dtype=int)) + 0.5).reshape(result.shape).astype("float32")
        totals.append(ops.sum(ops.multiply(result, weights)))
    return ops.sum(ops.stack(totals))


PAIRS = [(A, B)] * len(CALLS)


@pytest.fixture(scope="module")
def expected():
    return jax.jit(jax.grad(lambda pairs: total(keras.ops, pairs)))(PAIRS)


def compare(got, expected):
    for name, mine, theirs in zip(CALLS, got, expected, strict=True):
        for letter, g, w in zip("ab", mine, theirs, strict=True):
            np.testing.assert_allclose(g, w, rtol=2e-4, atol=2e-5, err_msg=f"d {name} / d {letter}")


def test_gradients_under_jax_are_those_of_keras(expected):
    compare(jax.jit(jax.grad(lambda pairs: total(ks.ops, pairs)))(PAIRS), expected)


def test_gradients_of_the_compiler_are_those_of_keras(expected):
    pairs = [tuple(input_node(f"{x}{i}", A.shape, "float32") for x in "ab") for i in range(len(CALLS))]
    inputs = [node for pair in pairs for node in pair]
    with Scope():
        found = gradient({total(ks.ops, pairs): constant(1.0)}, inputs)
    used = [i for i, d in enumerate(found) if d is not None]
    graph = Graph(tuple(inputs), tuple(found[i] for i in used), tuple(f"o{i}" for i in used))
    results = [np.zeros_like(A)] * len(inputs)
    for i, value in zip(used, jax.jit(lower.function(graph))(*[v for pair in PAIRS for v in pair]), strict=True):
        results[i] = value
    compare(list(zip(results[::2], results[1::2], strict=True)), expected)

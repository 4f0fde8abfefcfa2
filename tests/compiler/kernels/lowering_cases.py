"""Calls of ops that have several lowerings, drawn at random: odd sizes, strides, dilation, groups, empty batches.

`ROWS` needs a row for each such op; ops of gradients are found in the gradient of the forward op's row.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from kerasoft.compiler.ir import Node, TupleType
from kerasoft.compiler.kernels.quantised import has_vnni
from kerasoft.compiler.ops import recurrent
from kerasoft.compiler.ops.conv_lstm import conv_lstm
from kerasoft.compiler.ops.registry import REGISTRY, item

from kerasoft.ops import fourier


@dataclasses.dataclass(frozen=True)
class Call:
    """Drawn arrays, and what is computed of them.

    Attributes:
        arrays: what is given. make: the results of which there are gradients, from a node for each array.
        attrs: what an error shows.
    """

    arrays: tuple[np.ndarray, ...]
    make: Callable[..., Sequence[Node]]
    attrs: dict[str, Any]


def call_of(op: str, arrays: Sequence[np.ndarray], attrs: dict[str, Any], outputs: int = 1) -> Call:
    """The first `outputs` results of the op `op`."""

    def make(*nodes: Node) -> list[Node]:
        made = REGISTRY[op](*nodes, **attrs)
        return [item(made, i) for i in range(outputs)] if isinstance(made.type, TupleType) else [made]

    return Call(tuple(arrays), make, attrs)


@dataclasses.dataclass(frozen=True)
class Row:
    """
    Attributes:
        draw: random -> Call.
        bound: "terms": |error| <= (terms + 2) * epsilon * the same sum of absolute values, whatever the order of summation
            (ops linear in each input); or a number: |error| <= so many epsilons of the largest element of all
            results.
        gradients: whether gradients are compared too, and checked by finite differences.
        nonfinite: of which calls NaN and Inf must come out where they do in float64.
        smooth: of which calls finite differences are gradients.
        draws: how many calls are drawn. skipped: lowerings, or pairs (op, lowering), that no call of this row has to reach.
    """

    draw: Callable[[np.random.Generator], Call]
    bound: str | float = "terms"
    gradients: bool = True
    nonfinite: Callable[[Call], bool] = lambda call: True
    smooth: Callable[[Call], bool] = lambda call: True
    draws: int = 8
    skipped: frozenset[Any] = frozenset()


def floats(random: np.random.Generator, *shape: int) -> np.ndarray:
    return random.standard_normal(shape).astype(np.float32)


def _window(random: np.random.Generator, rank: int) -> dict[str, Any]:
    """Sizes, window and attributes of a convolution."""
    window = tuple(int(k) for k in random.integers(1, 4, rank))
    dilation = tuple(int(d) for d in random.integers(1, 3, rank))
    strides = (1,) * rank if random.random() < 0.4 else tuple(int(s) for s in random.integers(1, 4, rank))
    sizes = tuple(int(n) + d * (k - 1) for n, d, k in zip(random.integers(1, 9, rank), dilation, window))
    padding = random.choice(["same", "valid", "explicit"])
    if padding == "explicit":
        padding = tuple((int(lo), int(hi)) for lo, hi in random.integers(0, 3, (rank, 2)))
    return {
        "sizes": sizes,
        "window": window,
        "attrs": {
            "strides": strides,
            "padding": padding if isinstance(padding, tuple) else str(padding),
            "dilation": dilation,
        },
    }


def square_convolution(random: np.random.Generator) -> Call:
    """What Winograd's transforms take: 3 x 3 or 5 x 5 windows, strides of 1, more channels than a vector has lanes."""
    side = int(random.choice([3, 3, 5]))
    sizes = tuple(int(n) for n in random.integers(1, 15, 2))
    fits = min(sizes) >= side
    padding = random.choice(["same", "valid", "explicit"]) if fits else "same"
    if padding == "explicit":
        padding = tuple((int(lo), int(hi)) for lo, hi in random.integers(0, side + 1, (2, 2)))
    x = floats(random, int(random.choice([0, 1, 2, 3])), *sizes, int(random.integers(1, 40)))
    kernel = floats(random, side, side, x.shape[-1], int(random.integers(1, 70)))
    attrs = {"strides": (1, 1), "dilation": (1, 1), "groups": 1}
    return call_of("conv", (x, kernel), attrs | {"padding": padding if isinstance(padding, tuple) else str(padding)})


def stem_convolution(random: np.random.Generator) -> Call:
    """Strides, few channels in."""
    strides = tuple(int(s) for s in random.integers(2, 4, 2))
    window = tuple(int(k) * s for k, s in zip(random.integers(1, 4, 2), strides))
    sizes = tuple(int(n) + k for n, k in zip(random.integers(0, 12, 2), window))
    padding = [tuple((int(lo), int(hi)) for lo, hi in random.integers(0, 2, (2, 2))), "same", "valid"]
    x = floats(random, int(random.integers(1, 4)), *sizes, int(random.integers(1, 5)))
    kernel = floats(random, *window, x.shape[-1], int(random.integers(1, 20)))
    attrs = {"strides": strides, "padding": padding[int(random.integers(3))], "dilation": (1, 1), "groups": 1}
    return call_of("conv", (x, kernel), attrs)


def convolution(random: np.random.Generator) -> Call:
    kind = random.choice(["square", "pointwise", "stem", "any", "any"])
    if kind == "stem":
        return stem_convolution(random)
    if kind == "square":
        return square_convolution(random)
    rank = int(random.choice([1, 2, 2, 2, 3]))
    made = _window(random, rank)
    groups = int(random.choice([1, 1, 2, 3]))
    if kind == "pointwise":  # windows of one element, which are products
        made["window"], groups = (1,) * rank, 1
        made["attrs"] |= {"strides": (1,) * rank, "padding": "same", "dilation": (1,) * rank}
    channels, filters = groups * int(random.integers(1, 6)), groups * int(random.integers(1, 8))
    if kind == "any" and random.random() < 0.3:  # depthwise
        groups = channels = filters = int(random.integers(2, 20))
    x = floats(random, int(random.choice([0, 1, 2, 3, 5])), *made["sizes"], channels)
    kernel = floats(random, *made["window"], channels // groups, filters)
    return call_of("conv", (x, kernel), made["attrs"] | {"groups": groups})


def fused_convolution(random: np.random.Generator) -> Call:
    call = convolution(random)
    x, kernel = call.arrays
    shape = np.shape(REGISTRY["conv"].lower(x, kernel, **call.attrs))
    has_bias, has_sum, relu = (bool(v) for v in random.integers(0, 2, 3))
    rest = [floats(random, shape[-1])] * has_bias + [floats(random, *shape)] * has_sum
    more = {"has_bias": has_bias, "has_sum": has_sum, "relu": relu}
    return call_of("conv_fused", (x, kernel, *rest), call.attrs | more)


def convolution_kernel_and_bias(random: np.random.Generator) -> Call:
    call = convolution(random)
    x, kernel = call.arrays
    shape = np.shape(REGISTRY["conv"].lower(x, kernel, **call.attrs))
    more = {"kernel_shape": kernel.shape}
    return call_of("conv_grad_kernel_bias", (x, floats(random, *shape)), call.attrs | more, outputs=2)


def _quantised(
    random: np.random.Generator, op: str, x: np.ndarray, kernel: np.ndarray, shape: tuple, attrs: dict
) -> Call:
    """A call on integers whose results spread over their range: sums have the size of the square root of their terms."""
    signed = bool(random.integers(0, 2))
    x = random.integers(-127 if signed else 0, 128 if signed else 256, x.shape).astype("int8" if signed else "uint8")
    kernel = random.integers(-127, 128, kernel.shape).astype("int8")
    unit = 40 / (128 * 73 * np.sqrt(max(np.prod(kernel.shape[:-1]), 1)))
    arrays = [x, kernel, (random.uniform(0.5, 1.5, shape[-1]) * unit).astype("f"), floats(random, shape[-1]) * 9]
    dtype = str(random.choice(["uint8", "int8", "float32"]))
    if random.random() < 0.4:
        arrays.append(
            random.integers(0, 127, shape).astype("float32" if dtype == "float32" else random.choice(["uint8", "int8"]))
        )
    more = {"relu": bool(random.integers(0, 2)), "upper": 77.5 if random.random() < 0.3 else None, "add_scale": 0.37}
    return call_of(op, arrays, attrs | more | {"dtype": dtype})


def quantised_convolution(random: np.random.Generator) -> Call:
    call = convolution(random)
    shape = np.shape(REGISTRY["conv"].lower(*call.arrays, **call.attrs))
    return _quantised(random, "quantised_conv", *call.arrays, shape, call.attrs)


def quantised_product(random: np.random.Generator) -> Call:
    size, units = (int(n) for n in random.integers(1, 70, 2))
    lead = tuple(int(n) for n in random.integers(0, 5, random.integers(1, 3)))
    return _quantised(
        random, "quantised_dense", floats(random, *lead, size), floats(random, size, units), (*lead, units), {}
    )


def largest_of_windows(random: np.random.Generator) -> Call:
    rank = int(random.choice([1, 2, 2]))
    window = tuple(int(k) for k in random.integers(1, 4, rank))
    strides = tuple(int(s) for s in random.integers(1, 4, rank))
    sizes = tuple(int(n) + k for n, k in zip(random.integers(0, 9, rank), window))
    shape = (int(random.choice([0, 1, 2, 3])), *sizes, int(random.integers(1, 20)))
    x = floats(random, *shape) if random.random() < 0.5 else random.integers(-2, 3, shape).astype(np.float32)  # ties
    padding = str(random.choice(["same", "valid"]))
    return call_of("max_pool", (x,), {"window": window, "strides": strides, "padding": padding})


def mean_of_windows(random: np.random.Generator) -> Call:
    call = largest_of_windows(random)
    return call_of("average_pool", (floats(random, *call.arrays[0].shape),), call.attrs)


def sparse_rows_by_matrix(random: np.random.Generator) -> Call:
    rows, k, count, width = (int(random.choice(s)) for s in ([0, 1, 7, 300], [1, 3, 20], [1, 7, 90], [1, 16, 67, 300]))
    ids = random.integers(-count - 1, count + 1, (rows, k)).astype(np.int32)
    return call_of("sparse_dot", [ids, floats(random, rows, k), floats(random, count, width)], {})


def batch_normalisation(random: np.random.Generator) -> Call:
    rank = int(random.integers(0, 3))
    channels = int(random.integers(1, 40))
    x = floats(random, int(random.integers(2, 7)), *map(int, random.integers(1, 6, rank)), channels) * 3 + 1
    has_valid = bool(random.integers(0, 2))
    valid = [np.array([1.0] + [float(v) for v in random.integers(0, 2, len(x) - 1)], np.float32)] * has_valid
    arrays = (x, floats(random, channels), floats(random, channels), *valid)
    attrs = {"epsilon": 1e-3, "relu": bool(random.integers(0, 2)), "has_valid": has_valid}
    return call_of("batch_norm", arrays, attrs)


def attention(random: np.random.Generator) -> Call:
    batch, queries, keys, groups = (int(v) for v in random.integers(1, 6, 4))
    queries, keys = queries + int(random.choice([0, 30])), keys + int(random.choice([0, 70]))
    heads, size, value_size = groups * int(random.integers(1, 3)), *(int(v) for v in random.integers(1, 40, 2))
    has_mask, has_bias, is_causal = (bool(v) for v in random.integers(0, 2, 3))
    shape = [int(n) if random.random() < 0.6 else 1 for n in (batch, heads, queries, keys)]
    arrays = [floats(random, batch, queries, heads, size), floats(random, batch, keys, groups, size)]
    arrays.append(floats(random, batch, keys, groups, value_size))
    arrays += [random.random(shape) < 0.7] * has_mask + [floats(random, *shape)] * has_bias
    attrs = {"has_mask": has_mask, "has_bias": has_bias, "scale": 0.5, "is_causal": is_causal}
    return call_of("attention", arrays, attrs)


def rows_by_matrix(random: np.random.Generator) -> Call:
    rows, k, n = (int(random.choice([1, 3, 33, 70, 256, 300])) for _ in range(3))
    has_bias = bool(random.integers(0, 2))
    arrays = [floats(random, *(2, rows)[random.integers(0, 2) :], k), floats(random, k, n)]
    arrays += [floats(random, n)] * has_bias
    return call_of("dense", arrays, {"has_bias": has_bias, "relu": False})


def rows_by_matrix_relu(random: np.random.Generator) -> Call:
    call = rows_by_matrix(random)
    return call_of("dense", call.arrays, {**call.attrs, "relu": True})


def gated_rows(random: np.random.Generator) -> Call:
    x, kernel = rows_by_matrix(random).arrays[:2]
    dy = floats(random, *x.shape[:-1], kernel.shape[1])
    return call_of("dense_grad_input", (dy, kernel, x), {"gated": True})


def layer_normalisation(random: np.random.Generator) -> Call:
    n = int(random.choice([1, 7, 16, 33, 300]))
    x = floats(random, *map(int, random.integers(1, 50, int(random.integers(1, 3)))), n) * 3 + 1
    return call_of("layer_norm", (x, floats(random, n), floats(random, n)), {"epsilon": 1e-3})


def adam_step(random: np.random.Generator) -> Call:
    n = int(random.choice([0, 1, 15, 16, 33, 16384, 40000]))
    weights, slope, m, v = (floats(random, n) for _ in range(4))
    attrs = {"beta_1": 0.9, "beta_2": 0.999, "epsilon": 1e-7}
    return call_of("adam", (weights, slope, m, v * v, np.float32(1e-3)), attrs, outputs=3)


def _recurrent(random: np.random.Generator, op: str, gates: int) -> Call:
    batch, steps, size, units = (int(v) for v in random.integers(1, 9, 4))
    units += int(random.choice([0, 30]))
    states = [floats(random, batch, units) for _ in range(2 if op == "lstm" else 1)]
    arrays = [floats(random, batch, steps, size), *states]
    arrays += [floats(random, n, gates * units) / np.float32(np.sqrt(n)) for n in (size, units)]
    has_bias, has_mask, backwards = (bool(v) for v in random.integers(0, 2, 3))
    arrays += [floats(random, *((2,) if op == "gru" else ()), gates * units)] * has_bias
    arrays += [random.random((batch, steps)) < 0.7] * has_mask

    def make(*nodes: Node) -> list[Node]:
        given = list(nodes)
        mask = given.pop() if has_mask else None
        bias = given.pop() if has_bias else None
        made = getattr(recurrent, op)(*given, bias, mask, go_backwards=backwards)
        return list(made)

    return Call(tuple(arrays), make, {"op": op, "bias": has_bias, "mask": has_mask, "go_backwards": backwards})


def _predicting(random: np.random.Generator, op: str, gates: int) -> Call:
    """Without what the gradient reads, as DropUnusedResults leaves it in a prediction."""
    call = _recurrent(random, op, gates)

    def make(*nodes: Node) -> list[Node]:
        made = call.make(*nodes)
        (n,) = {m.inputs[0] for m in made}
        few = REGISTRY[op](*n.inputs, **{**n.attrs, "wanted": tuple(range(len(made)))})
        return [item(few, i) for i in range(len(made))]

    return Call(call.arrays, make, call.attrs)


def _is_whole(call: Call) -> bool:
    """XLA computes grouped convolutions in float64 with zeros between the groups, and NaN times 0 is NaN."""
    return call.attrs["groups"] == 1


def _has_no_ties(call: Call) -> bool:
    return len(np.unique(call.arrays[0])) == call.arrays[0].size


def product(random: np.random.Generator) -> Call:
    m, k, n = (int(v) for v in random.integers(1, 90, 3))
    front = (int(random.integers(1, 4)),) * int(random.integers(0, 2))
    return call_of("matmul", (floats(random, *front, m, k), floats(random, k, n)), {})


def _convolutional_lstm(random: np.random.Generator) -> Call:
    batch, filters, height, width = (int(v) for v in random.integers(1, 6, 4))
    steps = int(random.integers(1, 4))  # XLA writes each out
    z = floats(random, batch, steps, height, width, 4 * filters)
    states = [floats(random, batch, height, width, filters) for _ in range(2)]
    kernel = floats(random, *map(int, random.integers(1, 4, 2)), filters, 4 * filters) / 3
    has_mask = bool(random.integers(0, 2))
    arrays = [z, *states, kernel.astype(np.float32)] + [random.random((batch, steps)) < 0.7] * has_mask
    return Call(tuple(arrays), lambda *nodes: list(conv_lstm(*nodes)), {"mask": has_mask})


def convolutional_lstm_of_input(random: np.random.Generator) -> Call:
    batch, steps, channels, filters = (int(v) for v in random.integers(1, 6, 4))
    sizes, window = [int(v) for v in random.integers(1, 10, 2)], [int(v) for v in random.integers(1, 4, 2)]
    has_bias, has_mask = (bool(v) for v in random.integers(0, 2, 2))
    kernels = [(floats(random, *window, c, 4 * filters) / 3).astype(np.float32) for c in (channels, filters)]
    arrays = [floats(random, batch, steps, *sizes, channels), kernels[0]] + [floats(random, 4 * filters)] * has_bias
    arrays += [floats(random, batch, *sizes, filters) for _ in range(2)] + kernels[1:]
    arrays += [random.random((batch, steps)) < 0.7] * has_mask
    attrs = {"has_bias": has_bias, "has_mask": has_mask, "wanted": (0, 1, 2)}
    return call_of("conv_lstm_of_input", arrays, attrs, outputs=3)


def lookup(random: np.random.Generator) -> Call:
    count, width = int(random.choice([1, 7, 90])), int(random.choice([1, 16, 67]))
    ids = random.integers(-count - 1, count + 1, (5, 300)[: random.integers(1, 3)]).astype(np.int32)
    return call_of("embedding_lookup", [floats(random, count, width), ids], {})


def rows_looked_up_by_matrix(random: np.random.Generator) -> Call:
    tables, rows, n = (int(random.choice(s)) for s in ([1, 2, 3], [1, 70, 900], [3, 33, 70]))
    counts, widths = (random.choice([1, 20, 300], tables) for _ in range(2))
    arrays = []
    for count, width in zip(counts, widths):
        arrays += [floats(random, count, width), random.integers(-count - 1, count + 1, rows).astype(np.int32)]
    has_bias, relu = (bool(v) for v in random.integers(0, 2, 2))
    arrays += [floats(random, widths.sum(), n)] + [floats(random, n)] * has_bias
    return call_of("dense_of_rows", arrays, {"tables": tables, "has_bias": has_bias, "relu": relu})


def gradients_of_rows_looked_up(random: np.random.Generator) -> Call:
    tables, rows, n = (int(random.choice(s)) for s in ([1, 2, 3], [1, 70, 900], [3, 33, 70]))
    counts, widths = (random.choice([1, 20, 300], tables) for _ in range(2))
    arrays = []
    for count, width in zip(counts, widths):
        arrays += [floats(random, count, width), random.integers(0, count, rows).astype(np.int32)]
    arrays += [floats(random, rows, n), floats(random, widths.sum(), n)]
    return call_of("dense_of_rows_gradients", arrays, {"tables": tables}, 2 + tables)


def element_function(op: str, low: float, high: float) -> Callable[[np.random.Generator], Call]:
    def draw(random: np.random.Generator) -> Call:
        size = int(random.choice([1, 7, 300, 20000]))
        return call_of(op, [random.uniform(low, high, (2, size)).astype(np.float32)], {})

    return draw


def transform(op: str, axes: int = 1) -> Callable[[np.random.Generator], Call]:
    """Fourier transforms; of real numbers, and back to them, also of another length."""

    def draw(random: np.random.Generator) -> Call:
        getattr(fourier, op)  # is registered at its first use
        shape = tuple(int(n) for n in random.integers(2, 70, axes))
        front = tuple(int(n) for n in random.integers(1, 7, random.integers(0, 3)))
        arrays = [floats(random, *front, *shape) for _ in range(1 if op == "rfft" else 2)]
        length = int(random.integers(1, 90)) if random.random() < 0.5 else None

        def make(*nodes: Node) -> list[Node]:
            if op in ("rfft", "irfft"):
                made = getattr(fourier, op)(nodes[0] if op == "rfft" else nodes, length)
            else:
                made = getattr(fourier, op)(nodes)
            return list(made) if isinstance(made, tuple) else [made]

        return Call(tuple(arrays), make, {"length": length})

    return draw


HALF = frozenset({"onednn-float32", "onednn-bfloat16"})  # test_half.py
VNNI: frozenset[Any] = frozenset() if has_vnni() else frozenset({"onednn"})  # else only XLA's sums are exact

FUNCTIONS = {
    "exp": (-20, 20),
    "expm1": (-2, 20),
    "log": (0.01, 900),
    "log1p": (-0.9, 90),
    "tanh": (-9, 9),
    "erf": (-4, 4),
    "sin": (-90, 90),
    "cos": (-90, 90),
}
TRANSFORMS = {"fft": 1, "fft2": 2, "ifft2": 2, "rfft": 1, "irfft": 1}

ROWS: dict[str, Row] = {
    "dense_of_rows_gradients": Row(
        gradients_of_rows_looked_up, bound=100.0, gradients=False, nonfinite=lambda call: False
    ),
    "embedding_lookup": Row(lookup, bound=0.0, gradients=False),
    "dense_of_rows": Row(rows_looked_up_by_matrix, bound=100.0, gradients=False, nonfinite=lambda call: False),
    "conv_lstm": Row(
        _convolutional_lstm,
        bound=500.0,
        nonfinite=lambda call: False,
        draws=3,
        skipped=frozenset({"winograd", "space-to-depth", "dot"}) | HALF,
    ),
    "conv_lstm_of_input": Row(
        convolutional_lstm_of_input, bound=500.0, gradients=False, nonfinite=lambda call: False, draws=6
    ),
    "adam": Row(adam_step, bound=8.0, gradients=False),
    "matmul": Row(product),
    "conv": Row(convolution, nonfinite=_is_whole, draws=16, skipped=HALF),
    "conv_fused": Row(fused_convolution, gradients=False, nonfinite=_is_whole, draws=16),
    "conv_grad_kernel_bias": Row(convolution_kernel_and_bias, gradients=False, nonfinite=_is_whole, draws=12),
    "quantised_conv": Row(
        quantised_convolution, 16.0, gradients=False, nonfinite=lambda call: False, draws=12, skipped=VNNI
    ),
    "quantised_dense": Row(quantised_product, 16.0, gradients=False, nonfinite=lambda call: False, skipped=VNNI),
    "max_pool": Row(largest_of_windows, bound=4.0, smooth=_has_no_ties),
    "average_pool": Row(mean_of_windows, bound=8.0),
    "sparse_dot": Row(sparse_rows_by_matrix, bound=30.0, gradients=False, nonfinite=lambda call: False),
    "batch_norm": Row(batch_normalisation, bound=2000.0, nonfinite=lambda call: False),
    "attention": Row(attention, bound=500.0, nonfinite=lambda call: False, draws=6),
    "layer_norm": Row(layer_normalisation, bound=2000.0, draws=6),
    "dense": Row(rows_by_matrix, skipped=HALF),
    "dense, relu": Row(rows_by_matrix_relu, gradients=False, skipped=HALF),
    "dense_grad_input": Row(gated_rows, gradients=False, skipped=HALF),
    "lstm": Row(
        lambda random: _recurrent(random, "lstm", 4),
        bound=500.0,
        nonfinite=lambda call: False,
        draws=4,
        skipped=frozenset({("lstm", "onednn")}),
    ),
    "lstm, predicting": Row(
        lambda random: _predicting(random, "lstm", 4),
        bound=500.0,
        gradients=False,
        nonfinite=lambda call: False,
        draws=4,
    ),
    "gru": Row(
        lambda random: _recurrent(random, "gru", 3),
        bound=500.0,
        nonfinite=lambda call: False,
        draws=4,
        skipped=frozenset({("gru", "onednn")}),
    ),
    "gru, predicting": Row(
        lambda random: _predicting(random, "gru", 3),
        bound=500.0,
        gradients=False,
        nonfinite=lambda call: False,
        draws=4,
    ),
    "simple_rnn": Row(
        lambda random: _recurrent(random, "simple_rnn", 1), bound=500.0, nonfinite=lambda call: False, draws=4
    ),
}
ROWS |= {op: Row(element_function(op, *ends), bound=8.0, gradients=False) for op, ends in FUNCTIONS.items()}
ROWS |= {
    f"fourier_{op}": Row(transform(op, axes), bound=60.0, gradients=False, nonfinite=lambda call: False)
    for op, axes in TRANSFORMS.items()
}

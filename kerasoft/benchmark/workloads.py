"""Typical shapes of each kind of op, as graphs whose nodes are timed."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from ..compiler.gradient import gradient
from ..compiler.ir import Graph, Node
from ..compiler.ops import (
    activations,
    attention,
    indexing,
    linalg,
    normalization,
    pooling,
    quantised,
    recurrent,
    sparse,
)
from ..compiler.ops.convolution import conv, depthwise_conv
from ..compiler.ops.registry import REGISTRY, input_node
from ..compiler.passes import DropUnusedResults

Rows = Iterator[tuple[str, Graph]]


def _in(name: str, *shape: int, dtype: str = "float32") -> Node:
    return input_node(name, shape, dtype)


def _graph(*outputs: Node) -> Graph:
    return Graph((), outputs, tuple(f"out{i}" for i in range(len(outputs))))


def _with_gradients(y: Node, *wrt: Node) -> Graph:
    """`y` and the gradients of `wrt` for a given gradient of `y`."""
    dy = _in("dy", *y.shape, dtype=y.dtype)
    return _graph(y, *gradient({y: dy}, list(wrt)))


def products() -> Rows:
    for m, k, n in ((128, 784, 512), (2048, 1024, 1024), (4096, 256, 1024), (8, 2048, 1000)):
        yield f"{m}x{k} by {k}x{n}", _graph(linalg.matmul(_in("x", m, k), _in("k", k, n)))


def products_bfloat16() -> Rows:
    for m, k, n in ((128, 784, 512), (2048, 1024, 1024), (4096, 256, 1024)):
        yield (
            f"{m}x{k} by {k}x{n}",
            _graph(linalg.matmul(_in("x", m, k, dtype="bfloat16"), _in("k", k, n, dtype="bfloat16"))),
        )


def _convolution(
    rows: int, size: int, channels: int, filters: int, window: int, strides: int = 1, dtype: str = "float32"
) -> tuple[str, Graph]:
    x = _in("x", rows, size, size, channels, dtype=dtype)
    kernel = _in("k", window, window, channels, filters, dtype=dtype)
    y = conv(x, kernel, strides=strides, padding="same")
    step = f"/{strides}" if strides > 1 else ""
    return f"{rows} of {size}x{size}x{channels} to {filters}, {window}x{window}{step}", _with_gradients(y, x, kernel)


def convolutions() -> Rows:
    yield _convolution(8, 224, 3, 64, 7, 2)
    yield _convolution(128, 28, 1, 32, 5)
    yield _convolution(8, 56, 64, 192, 3)
    yield _convolution(8, 28, 192, 64, 1)
    yield _convolution(8, 14, 256, 256, 3, 2)
    yield _convolution(8, 7, 512, 512, 3)
    x, kernel = _in("x", 8, 56, 56, 96), _in("k", 3, 3, 96, 1)
    yield "8 of 56x56x96, 3x3 depthwise", _with_gradients(depthwise_conv(x, kernel, padding="same"), x, kernel)


def convolutions_bfloat16() -> Rows:
    yield _convolution(8, 56, 64, 192, 3, dtype="bfloat16")
    yield _convolution(8, 28, 192, 64, 1, dtype="bfloat16")


def _integers(x: Node, kernel: Node) -> list[Node]:
    """An activation, a kernel, and a factor and an offset for each channel."""
    return [x, kernel, *(_in(name, kernel.shape[-1]) for name in ("factor", "offset"))]


def products_int8() -> Rows:
    settings = {"relu": True, "upper": None, "add_scale": 1.0, "dtype": "uint8"}
    for m, k, n in ((128, 784, 512), (2048, 1024, 1024)):
        arrays = _integers(_in("x", m, k, dtype="uint8"), _in("k", k, n, dtype="int8"))
        yield f"{m}x{k} by {k}x{n}", _graph(quantised.quantised_dense(*arrays, **settings))


def convolutions_int8() -> Rows:
    settings = {"relu": True, "upper": None, "add_scale": 1.0, "dtype": "uint8"}
    for rows, size, channels, filters, window in ((8, 56, 64, 64, 3), (8, 28, 192, 64, 1)):
        x = _in("x", rows, size, size, channels, dtype="uint8")
        kernel = _in("k", window, window, channels, filters, dtype="int8")
        place = {"strides": (1, 1), "padding": "same", "dilation": (1, 1), "groups": 1}
        y = quantised.quantised_conv(*_integers(x, kernel), **settings, **place)
        yield f"{rows} of {size}x{size}x{channels} to {filters}, {window}x{window}", _graph(y)


def sparse_products() -> Rows:
    for rows, places, columns, units in ((1024, 50, 100_000, 64), (2048, 30, 1_000_000, 1)):
        ids, values = _in("ids", rows, places, dtype="int32"), _in("values", rows, places)
        y = sparse.sparse_dot(ids, values, _in("table", columns, units))
        yield f"{rows} rows of {places} in {columns} columns, by {columns}x{units}", _graph(y)


def pools() -> Rows:
    for rows, size, channels, window, strides in ((8, 112, 64, 3, 2), (8, 28, 192, 3, 1), (128, 28, 32, 2, 2)):
        x = _in("x", rows, size, size, channels)
        y = pooling.max_pool(x, window, strides, "same")
        yield f"{rows} of {size}x{size}x{channels}, largest of {window}x{window}/{strides}", _with_gradients(y, x)
    for rows, size, channels, window, strides, padding in ((8, 28, 192, 3, 1, "same"), (8, 56, 128, 2, 2, "valid")):
        x = _in("x", rows, size, size, channels)
        y = pooling.average_pool(x, window, strides, padding)
        yield f"{rows} of {size}x{size}x{channels}, mean of {window}x{window}/{strides}", _with_gradients(y, x)


def normalisations() -> Rows:
    x, gamma, beta = _in("x", 8, 56, 56, 64), _in("gamma", 64), _in("beta", 64)
    y = normalization.batch_norm(x, gamma, beta)[0]
    yield "8 of 56x56x64, over the batch", _with_gradients(y, x, gamma, beta)
    x = _in("x", 4096, 256)
    yield "4096 rows of 256", _with_gradients(normalization.standardize(x, -1, 1e-3)[0], x)


def recurrent_nets() -> Rows:
    for name, made, gates in (("LSTM", recurrent.lstm, 4), ("GRU", recurrent.gru, 3)):
        rows, steps, size, units = 64, 200, 128, 128
        x = _in("x", rows, steps, size)
        states = [_in(f"h{i}", rows, units) for i in range(2 if gates == 4 else 1)]
        kernels = [_in("k", size, gates * units), _in("r", units, gates * units)]
        bias = _in("b", gates * units) if gates == 4 else _in("b", 2, gates * units)
        y = made(x, *states, *kernels, bias)[0]
        label = f"{name}, {rows} rows, {steps} steps, {size} to {units}"
        yield label, _with_gradients(y, x, *kernels, bias)
        yield f"{label}, predicting", DropUnusedResults().run(_graph(y))


def attentions() -> Rows:
    for rows, steps, heads, size, causal in ((32, 128, 8, 32, False), (4, 512, 8, 64, True)):
        q, k, v = (_in(name, rows, steps, heads, size) for name in "qkv")
        y = attention.scaled_dot_product(q, k, v, is_causal=causal)
        label = f"{rows} rows, {steps} steps, {heads} heads of {size}{', causal' if causal else ''}"
        yield label, _with_gradients(y, q, k, v)


def tables() -> Rows:
    table, ids = _in("table", 20000, 128), _in("ids", 64, 200, dtype="int32")
    y = indexing.embedding_lookup(table, ids)
    yield "12800 rows of a table of 20000x128", _graph(y)
    yield "their gradient", _graph(gradient({y: _in("dy", *y.shape)}, [table])[0])


def vector_functions() -> Rows:
    for name in ("exp", "log", "tanh", "erf", "sin"):
        yield f"{name} of 4096x1024", _graph(REGISTRY[name](_in("x", 4096, 1024)))


def transforms() -> Rows:
    from ..ops import fourier

    for rows, n in ((4000, 512), (64, 4000)):
        parts = _in("real", rows, n), _in("imaginary", rows, n)
        yield f"{rows} complex rows of {n}", _graph(*fourier.fft(parts))
        yield f"{rows} real rows of {n}", _graph(*fourier.rfft(parts[0]))
        half = _in("real", rows, n // 2 + 1), _in("imaginary", rows, n // 2 + 1)
        yield f"{rows} rows of {n}, back", _graph(fourier.irfft(half))


def activation_functions() -> Rows:
    x = _in("x", 4096, 1024)
    yield "softmax of 4096x1024", _graph(activations.softmax(x))
    yield "gelu of 4096x1024", _graph(activations.gelu(x))


GROUPS: dict[str, Callable[[], Rows]] = {
    "products": products,
    "products in bfloat16": products_bfloat16,
    "products in int8": products_int8,
    "sparse products": sparse_products,
    "convolutions": convolutions,
    "convolutions in bfloat16": convolutions_bfloat16,
    "convolutions in int8": convolutions_int8,
    "pooling": pools,
    "normalisation": normalisations,
    "recurrent": recurrent_nets,
    "attention": attentions,
    "embedding": tables,
    "activations": activation_functions,
    "vector functions": vector_functions,
    "Fourier transforms": transforms,
}


def all_rows(only: str = "") -> Iterator[tuple[str, str, Graph]]:
    """(group, label, graph) of the groups whose name holds `only`."""
    for group, rows in GROUPS.items():
        if only in group:
            for label, graph in rows():
                yield group, label, graph


def inputs_of(graph: Graph) -> list[Any]:
    """The input nodes that the graph reads."""
    return [n for n in graph.nodes if n.op.name == "input"]

"""Times what docs/design/0004-kernel-choice.md states: convolution options, passes, the cost of a call.

    python tests/benchmarks/kernels.py

Variants of one row run in turn, in one process; a cell is the shortest time in milliseconds.
"""

from __future__ import annotations

import os
import time

import jax
import numpy as np
from kerasoft.compiler.gradient import gradient
from kerasoft.compiler.ir import Graph, symbol
from kerasoft.compiler.lower import function
from kerasoft.compiler.ops import activations
from kerasoft.compiler.ops import arithmetic as a
from kerasoft.compiler.ops.convolution import conv
from kerasoft.compiler.ops.registry import input_node, param_node
from kerasoft.compiler.options import CONVOLUTIONS_BY_EIGEN
from kerasoft.compiler.passes import FoldBatchNormalization
from kerasoft.compiler.program import InputSpec, Layout, SlotSpec, StepSource

B = symbol("b")
REPEATS = 20


def compiled(graph, options, rows):
    """A call of `graph` on random arrays."""
    random = np.random.default_rng(0)
    bound = [*graph.inputs, *graph.params]
    shapes = [tuple(d if isinstance(d, int) else rows for d in n.shape) for n in bound]
    arrays = [jax.numpy.asarray(random.normal(size=s).astype("f")) for s in shapes]
    run = jax.jit(function(graph, bound), compiler_options=options or None)
    return lambda: run(*arrays)


def shortest(calls):
    best = dict.fromkeys(calls, float("inf"))
    for call in calls.values():
        jax.block_until_ready(call())
    for _ in range(REPEATS):
        for name, call in calls.items():
            start = time.perf_counter()
            jax.block_until_ready(call())
            best[name] = min(best[name], time.perf_counter() - start)
    return "  ".join(f"{name} {1e3 * t:7.2f}" for name, t in best.items())


def convolutions():
    for rows, size, channels, filters, window in [
        (16, 56, 64, 64, 3), (16, 28, 16, 32, 5), (128, 28, 1, 32, 5), (128, 14, 32, 64, 5),
        (16, 28, 192, 64, 1), (16, 14, 512, 112, 1),
    ]:  # fmt: skip
        x = input_node("x", (B, size, size, channels), "float32")
        dy = input_node("dy", (B, size, size, filters), "float32")
        y = conv(x, param_node("k", (window, window, channels, filters)), padding="same")
        dx, dk = gradient({y: dy}, list(y.inputs))
        graphs = {
            "forward": Graph((x,), (y,), ("y",)),
            "x": Graph((dy,), (dx,), ("dx",)),
            "kernel": Graph((x, dy), (dk,), ("dk",)),
        }
        for name, graph in graphs.items():
            calls = {"default": compiled(graph, {}, rows), "eigen": compiled(graph, CONVOLUTIONS_BY_EIGEN, rows)}
            print(f"{rows}, {size}, {channels} -> {filters}, {window}x{window} {name:8}", shortest(calls), flush=True)


def batch_normalisation():
    x = input_node("x", (B, 28, 28, 64), "float32")
    gain, beta, mean, variance = (param_node(n, (64,)) for n in ("gain", "beta", "mean", "variance"))
    y = conv(x, param_node("k", (3, 3, 64, 64)), padding="same")
    y = activations.relu((y - mean) * (a.rsqrt(a.square(variance) + 1e-3) * gain) + beta)
    graph = Graph((x,), (y,), ("y",))
    folded = FoldBatchNormalization().run(graph)
    for name, options in (("default", {}), ("eigen", CONVOLUTIONS_BY_EIGEN)):
        calls = {"plain": compiled(graph, options, 16), "folded": compiled(folded, options, 16)}
        print(f"batch normalisation {name:8}", shortest(calls), flush=True)


def cost_of_a_call():
    x, w = input_node("x/0", (B, 8), "float32"), param_node("w", (8,))
    (dw,) = gradient({x * w: x}, [w])
    p, g, m = (input_node(n, (symbol("n"),), "float32") for n in ("param", "gradient", "slot/m"))
    source = StepSource(
        Layout.of(params={"w": (8,)}),
        (InputSpec("x/0", (8,), "float32"),),
        train=Graph((x,), (dw,), ("grad/w",)),
        update=Graph((p, g, m), (p - (m * 0.9 + g), m * 0.9 + g), ("param", "slot/m")),
        slots=(SlotSpec("m"),),
    )
    step, batch = source.local(), {"x/0": np.ones((32, 8), "f")}
    params, state, slots, best = np.zeros(8, "f"), np.zeros(0, "f"), source.slot_vectors(), float("inf")
    for _ in range(REPEATS):
        start = time.perf_counter()
        for i in range(300):
            params, state, slots, _ = step.train(params, state, slots, batch, None, None, None, 32, i, 0.1)
        params.block_until_ready()
        best = min(best, (time.perf_counter() - start) / 300)
    print(f"LocalStep.train of 8 parameters: {1e6 * best:.1f} microseconds")


if __name__ == "__main__":
    print("load", os.getloadavg())
    cost_of_a_call()
    batch_normalisation()
    convolutions()
    print("load", os.getloadavg())

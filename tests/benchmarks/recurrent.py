"""Native recurrent kernels against XLA's lowering of the same ops, in one process, in turns; best of rounds.

python tests/benchmarks/recurrent.py [batch steps features units]

Prints milliseconds and GFLOP/s (products only) of the forward pass and of forward and backward.
"""

import sys
import time

import jax
import numpy as np
from kerasoft.compiler.gradient import gradient
from kerasoft.compiler.ir import Graph
from kerasoft.compiler.kernels.choice import Chooser
from kerasoft.compiler.lower import function
from kerasoft.compiler.ops import arithmetic, conv_lstm, recurrent, shape
from kerasoft.compiler.ops.registry import constant, input_node
from kerasoft.compiler.passes import optimise

ROUNDS = 10


def cases(b, t, d, u):
    """Name, op, shapes of its inputs, FLOPs of its products."""
    for kind, gates, states in (("lstm", 4, 2), ("gru", 3, 1), ("simple_rnn", 1, 1)):
        bias = (2, 3 * u) if kind == "gru" else (gates * u,)
        shapes = [(b, t, d), *[(b, u)] * states, (d, gates * u), (u, gates * u), bias]
        yield f"{kind} {b}, {t}, {d}, {u}", getattr(recurrent, kind), shapes, 2 * b * t * (d + u) * gates * u
    grid = [(4, 8, 64, 64, 64), (4, 64, 64, 16), (4, 64, 64, 16), (3, 3, 16, 64)]
    yield "conv_lstm 4, 8, 64x64, 16 filters 3x3", conv_lstm.conv_lstm, grid, 2 * 4 * 8 * 64 * 64 * 9 * 16 * 64


def functions(op, shapes):
    """(forward, forward and backward) by native kernels and by XLA."""
    nodes = [input_node(f"x{k}", s, "float32") for k, s in enumerate(shapes)]
    loss = shape.sum(arithmetic.sin(op(*nodes)[1]))
    grads = gradient({loss: constant(1.0)}, nodes)
    for outputs, kind in (((loss,), "predict"), ((loss, *grads), "train")):
        graph = optimise(Graph(tuple(nodes), outputs, tuple(map(str, range(len(outputs))))), kind)
        yield jax.jit(function(graph, lowerer=Chooser())), jax.jit(function(graph))


def seconds(run, arrays):
    start = time.perf_counter()
    jax.block_until_ready(run(*arrays))
    return time.perf_counter() - start


def main():
    sizes = tuple(map(int, sys.argv[1:])) or (64, 200, 128, 128)
    rng = np.random.default_rng(0)
    print("| op | forward native | xla | forward and backward native | xla |\n|---|---|---|---|---|")
    for name, op, shapes, flops in cases(*sizes):
        arrays = [jax.numpy.asarray(rng.normal(size=s).astype(np.float32) * 0.1) for s in shapes]
        cells = []
        for pair, times in zip(functions(op, shapes), (1, 3)):
            best = [min(seconds(run, arrays) for _ in range(2)) for run in pair]
            for _ in range(ROUNDS):
                best = [min(old, seconds(run, arrays)) for old, run in zip(best, pair)]
            cells += [f"{s * 1e3:.1f} ms, {times * flops / s / 1e9:.0f} GF/s" for s in best]
        print(f"| {name} | {' | '.join(cells)} |", flush=True)


if __name__ == "__main__":
    main()

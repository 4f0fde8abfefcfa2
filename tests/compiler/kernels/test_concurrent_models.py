"""Two models at once in one process: native kernels give the same bits as alone, whoever's threads run the parts."""

import threading

import jax
import numpy as np
from kerasoft.compiler.gradient import gradient
from kerasoft.compiler.ir import Graph
from kerasoft.compiler.kernels import choice
from kerasoft.compiler.lower import function
from kerasoft.compiler.ops import activations, pooling, recurrent, shape
from kerasoft.compiler.ops.convolution import conv
from kerasoft.compiler.ops.registry import constant, input_node

ROUNDS = 12


def images(rows, filters):
    x = input_node("x", (rows, 20, 20, 8), "float32")
    kernels = [input_node(f"k{i}", s, "float32") for i, s in enumerate(((3, 3, 8, filters), (3, 3, filters, filters)))]
    h = activations.relu(conv(x, kernels[0], padding="same"))
    h = pooling.max_pool(conv(h, kernels[1], padding="same"), 2, 2)
    return step([x, *kernels], h)


def sequences(rows, units):
    x = input_node("x", (rows, 12, 16), "float32")
    states = [input_node(f"h{i}", (rows, units), "float32") for i in range(2)]
    weights = [input_node(f"k{i}", (n, 4 * units), "float32") for i, n in enumerate((16, units))]
    return step([x, *states, *weights], recurrent.lstm(x, *states, *weights)[0])


def step(inputs, y):
    """A compiled call that gives `y` and the gradients of all inputs, on arrays of its own."""
    grads = gradient({shape.sum(y): constant(1.0)}, inputs)
    graph = Graph(tuple(inputs), (y, *grads), tuple(map(str, range(1 + len(grads)))))
    chooser = choice.Chooser(graph, {})
    random = np.random.default_rng(len(inputs))
    arrays = [0.1 * random.standard_normal(n.shape).astype(np.float32) for n in inputs]
    compiled = jax.jit(function(graph, lowerer=chooser)).lower(*arrays).compile()
    return lambda: [np.asarray(out) for out in compiled(*arrays)]


def test_the_same_bits_as_alone():
    calls = [
        images(7, 16),
        images(7, 16),
        sequences(9, 24),
        images(3, 24),
    ]  # the first two are the same executable twice
    alone = [call() for call in calls]
    wrong = []

    def work(call, wanted):
        for _ in range(ROUNDS):
            wrong.extend(i for i, (a, b) in enumerate(zip(call(), wanted)) if a.tobytes() != b.tobytes())

    workers = [threading.Thread(target=work, args=pair) for pair in zip(calls, alone)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join(60)
        assert not worker.is_alive(), "a kernel waits for ever"
    assert not wrong

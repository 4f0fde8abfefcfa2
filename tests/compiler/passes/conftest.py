"""What the tests of passes share: numbers before and after, text before and after, and the same object."""

import jax
import numpy as np
import pytest
from kerasoft.compiler.ir.text import print_graph
from kerasoft.compiler.ir.verify import verify, verify_same_interface
from kerasoft.compiler.lower import function


@pytest.fixture
def check():
    return check_pass


def check_pass(one, graph, before, after, rows=3, exact=True, **values):
    """Runs pass `one` on `graph`: texts (from the line that differs), equal numbers, idempotent; the new graph."""
    made = one.run(verify(graph))
    verify(made, after=one.name)
    verify_same_interface(graph, made, one.name)
    assert one.run(made) is made, "the pass finds something in its own result"
    for text, lines in ((print_graph(graph), before), (print_graph(made), after)):
        found = [line.split(" = ", 1)[1] for line in text.splitlines() if line.startswith("%")]
        operations = [line for line in found if not line.startswith(("input", "param"))]
        assert operations == lines, "\n".join(operations)
    bound = [*graph.inputs, *graph.params]
    r = np.random.default_rng(0)
    arrays = []
    for n in bound:
        shape = tuple(d if isinstance(d, int) else rows for d in n.shape)
        drawn = values.get(n.attrs["name"], r.normal(size=shape) if n.type.is_float else r.integers(0, 5, shape))
        arrays.append(np.asarray(drawn, n.dtype))
    old, new = (jax.jit(function(g, bound))(*arrays) for g in (graph, made))
    for x, y in zip(old, new):
        if exact:
            np.testing.assert_array_equal(x, y)
        else:
            np.testing.assert_allclose(x, y, rtol=2e-5, atol=2e-5)
    return made


@pytest.fixture
def untouched():
    def untouched_by(one, *outputs, inputs=()):
        from kerasoft.compiler.ir import Graph

        graph = Graph(tuple(inputs), outputs, tuple(f"y{i}" for i in range(len(outputs))))
        assert one.run(graph) is graph

    return untouched_by

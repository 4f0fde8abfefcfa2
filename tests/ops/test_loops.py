"""Branches and loops: on arrays as Keras's, compiled in graphs, as parts of functional models, under JAX."""

import jax
import jax.numpy as jnp
import keras
import numpy as np
import pytest
from kerasoft.compiler import lower
from kerasoft.compiler.ir import Graph
from kerasoft.compiler.ops.registry import constant, input_node

import kerasoft as ks
from kerasoft.tensors import Scope

X = np.arange(12, dtype="float32").reshape(3, 4) / 4
CALLS = {
    "cond": lambda o, x: o.cond(o.sum(x) > 0, lambda: x * 2, lambda: x),
    "cond structure": lambda o, x: o.cond(o.sum(x) < 0, lambda: {"a": x, "b": (x,)}, lambda: {"a": -x, "b": (x * x,)}),
    "switch": lambda o, x: o.switch(1, [lambda a, b: a, lambda a, b: a * b, lambda a, b: b], x, x + 1),
    "switch beyond": lambda o, x: o.switch(7, [lambda a: a, lambda a: a * 3], x),
    "fori_loop": lambda o, x: o.fori_loop(1, 5, lambda i, v: v * 0.5 + o.cast(i, "float32"), x),
    "fori_loop pair": lambda o, x: o.fori_loop(0, 3, lambda i, v: (v[1], v[0] + v[1]), (x, x + 1)),
    "while_loop": lambda o, x: o.while_loop(lambda i, v: i < 4, lambda i, v: (i + 1, v * 2), (0, x)),
    "while_loop list": lambda o, x: o.while_loop(lambda i, v: i < 4, lambda i, v: [i + 1, v * 2], [0, x]),
    "while_loop single": lambda o, x: o.while_loop(lambda v: o.sum(v) < 100.0, lambda v: v * 2, x),
    "while_loop at most": lambda o, x: o.while_loop(lambda i, v: i < 40, lambda i, v: (i + 1, v + 1), (0, x), 3),
    "scan": lambda o, x: o.scan(lambda c, v: (c + v, c * v), x[0], x),
    "scan reverse": lambda o, x: o.scan(lambda c, v: (c + o.sum(v), c), 0.0, x, reverse=True, unroll=2),
    "scan length": lambda o, x: o.scan(lambda c, _: (c * 2, c[0]), x, length=3),
    "scan structure": lambda o, x: o.scan(lambda c, v: ({"s": c["s"] + v[0]}, v[1]), {"s": x[0]}, (x, x * 2)),
    "map": lambda o, x: o.map(lambda v: v * o.sum(v), x),
    "map structure": lambda o, x: o.map(lambda v: (v["a"] + 1, v["b"]), {"a": x, "b": x * 2}),
    "vectorized_map": lambda o, x: o.vectorized_map(lambda v: o.max(v) - v, x),
    "vectorized_map pair": lambda o, x: o.vectorized_map(lambda v: v[0] * v[1][0], (x, x + 1)),
    "associative_scan": lambda o, x: o.associative_scan(lambda a, b: a + b, x, axis=1),
    "associative_scan reverse": lambda o, x: o.associative_scan(lambda a, b: a * b, x, reverse=True),
}


def close(got, want):
    got, want = jax.tree.leaves(got), jax.tree.leaves(want)
    assert len(got) == len(want)
    for g, w in zip(got, want, strict=True):
        assert np.asarray(g).dtype == np.asarray(w).dtype
        np.testing.assert_allclose(g, w, rtol=1e-6)


@pytest.mark.parametrize("case", CALLS)
def test_results_are_those_of_keras(case):
    call = CALLS[case]
    want = call(keras.ops, jnp.asarray(X))
    got = call(ks.ops, jnp.asarray(X))
    assert jax.tree.structure(got) == jax.tree.structure(want)
    close(got, want)
    close(jax.jit(lambda x: call(ks.ops, x))(X), want)


def test_results_of_a_graph_are_those_of_keras():
    x = input_node("x", X.shape, "float32")
    with Scope():
        nodes = [jax.tree.leaves(call(ks.ops, x), is_leaf=lambda v: hasattr(v, "op")) for call in CALLS.values()]
    outputs = [n if hasattr(n, "op") else constant(np.asarray(n)) for group in nodes for n in group]
    graph = Graph((x,), tuple(outputs), tuple(f"o{i}" for i in range(len(outputs))))
    want = jax.tree.leaves([call(keras.ops, jnp.asarray(X)) for call in CALLS.values()])
    close(list(jax.jit(lower.function(graph))(X)), want)


def test_loops_are_parts_of_functional_models():
    skipped = ("cond structure",)
    calls = {name: call for name, call in CALLS.items() if name not in skipped}
    x = ks.Input((4,), batch_size=3)
    outputs = [call(ks.ops, x) for call in calls.values()]
    flat = [t for t in jax.tree.leaves(outputs, is_leaf=lambda v: isinstance(v, ks.KerasTensor))]
    symbolic = [i for i, t in enumerate(flat) if isinstance(t, ks.KerasTensor) and t._keras_history is not None]
    want = jax.tree.leaves([call(keras.ops, jnp.asarray(X)) for call in calls.values()])
    close(ks.Model(x, [flat[i] for i in symbolic])(X), [want[i] for i in symbolic])
    assert len(symbolic) == len(flat)


def test_loops_of_unknown_batch_size():
    x = ks.Input((4,))
    assert ks.ops.vectorized_map(lambda v: v * 2, x).shape == (None, 4)
    assert ks.ops.map(lambda v: ks.ops.sum(v), x).shape == (None,)
    carry, ys = ks.ops.scan(lambda c, v: (c + v, c), np.zeros(4, "float32"), x)
    assert (carry.shape, ys.shape) == ((4,), (None, 4))
    assert ks.ops.fori_loop(0, 3, lambda i, v: v * 2, x).shape == (None, 4)


def test_branches_that_hang_on_a_traced_number():
    def run(o):
        return jax.jit(
            lambda n, x: (o.cond(n > 1, lambda: x, lambda: -x), o.switch(n, [lambda v: v, lambda v: v * 2], x))
        )

    for n in (0, 1, 2):
        close(run(ks.ops)(n, X), run(keras.ops)(n, X))


def test_custom_gradients_hold_under_jax_and_in_models():
    def make(o):
        @o.custom_gradient
        def softplus(x):
            e = o.exp(x)

            def grad(*args, upstream=None):
                if upstream is None:
                    (upstream,) = args
                return o.multiply(upstream, 7.0 - 1.0 / o.add(1, e))

            return o.log(1 + e), grad

        return softplus

    mine, theirs = make(ks.ops), make(keras.ops)
    close(mine(X), theirs(jnp.asarray(X)))
    close(jax.grad(lambda x: mine(x).sum())(X), jax.grad(lambda x: theirs(x).sum())(X))
    x = ks.Input((4,))
    close(ks.Model(x, mine(x))(X), theirs(jnp.asarray(X)))


def test_vectorize_is_that_of_keras():
    def pair(a, b):
        return a + 2 * b

    close(ks.ops.vectorize(pair)(X, 3.0), keras.ops.vectorize(pair)(X, 3.0))
    inner = "(n),(n)->()"
    dot = lambda a, b: (a * b).sum()  # noqa: E731
    close(ks.ops.vectorize(dot, signature=inner)(X, X), keras.ops.vectorize(dot, signature=inner)(X, X))
    with pytest.raises(ValueError, match="Expected argument `pyfunc` to be a callable"):
        ks.ops.vectorize(3)


def test_conversions_are_those_of_keras():
    for o in (keras.ops, ks.ops):
        assert o.is_tensor(jnp.ones(2)) and not any(map(o.is_tensor, ([1.0], np.ones(2), 3, None)))
        assert o.convert_to_numpy(jnp.ones(2)).tolist() == [1.0, 1.0]
        assert o.dtype(jnp.ones(2, "int8")) == "int8"
        assert o.convert_to_tensor([1, 2.5]).dtype == "float32"
        assert o.convert_to_tensor(1).dtype == "int32"
    with pytest.raises(ValueError, match="`unroll` must be an positive integer or boolean"):
        ks.ops.scan(lambda c, x: (c, x), 0.0, X, unroll=0)
    with pytest.raises(ValueError, match="must have the same first dimension"):
        ks.ops.associative_scan(lambda a, b: a, [X, X[:2]])

"""Gradients on the graph against jax.grad of the lowered forward, whole and split over replicas."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from kerasoft.compiler.errors import GradientError
from kerasoft.compiler.gradient import gradient
from kerasoft.compiler.ir import Graph, source, symbol
from kerasoft.compiler.lower import function, sizes_of, split_stages, stage_function, stage_leaves
from kerasoft.compiler.ops import activations, convolution, indexing, linalg, pooling, reduce, shape
from kerasoft.compiler.ops import arithmetic as a
from kerasoft.compiler.ops.collective import all_reduce
from kerasoft.compiler.ops.registry import REGISTRY, VJP, constant, input_node, param_node

B = symbol("b")


def arrays(nodes, rows, seed=0):
    r = np.random.default_rng(seed)
    shapes = [tuple(d if isinstance(d, int) else rows for d in n.shape) for n in nodes]
    return [
        r.integers(0, 3, s).astype(n.dtype) if not n.type.is_float else r.normal(size=s).astype(n.dtype)
        for n, s in zip(nodes, shapes)
    ]


def against_jax(inputs, params, loss, rows=5, rtol=2e-5):
    """Gradients for params of the scalar node `loss`, against jax.grad."""
    bound = [*inputs, *params]
    grads = gradient({loss: constant(1.0)}, params)
    given = arrays(bound, rows)
    graph = Graph(tuple(inputs), tuple(grads), tuple(f"g{i}" for i in range(len(grads))))
    forward = function(Graph(tuple(inputs), (loss,), ("loss",)), bound)
    got = jax.jit(function(graph, bound))(*given)
    want = jax.grad(lambda p: forward(*given[: len(inputs)], *p)[0])(given[len(inputs) :])
    for g, w in zip(got, want):
        np.testing.assert_allclose(g, w, rtol=rtol, atol=2e-5)


def test_mlp_with_softmax_and_shared_weights():
    x, k, c = input_node("x", (B, 6), "float32"), param_node("k", (6, 6)), param_node("c", (6,))
    h = a.tanh(linalg.matmul(x, k) + c)
    h = activations.relu(linalg.matmul(h, shape.transpose(k)) - c)
    p = activations.log_softmax(h, axis=-1)
    against_jax([x], [k, c], a.negative(reduce.mean(p * a.square(x))))


def test_convolutions_pooling_and_branches():
    x = input_node("x", (B, 8, 8, 2), "float32")
    k1, k2, gain = param_node("k1", (3, 3, 2, 4)), param_node("k2", (1, 1, 4, 4)), param_node("gain", (4,))
    y = activations.relu(convolution.conv(x, k1, padding="same"))
    left = convolution.conv(y, k2, strides=2)
    right = pooling.max_pool(y, 2, 2) * gain
    both = shape.concatenate([left, right], axis=-1)
    against_jax([x], [k1, k2, gain], reduce.mean(a.square(both)), rtol=1e-4)


def test_lookup_normalisation_and_tuples():
    tokens, table = input_node("t", (B, 4), "int32"), param_node("table", (3, 5))
    gain = param_node("gain", (5,))
    e = indexing.embedding_lookup(table, tokens)
    centred = e - reduce.mean(e, axis=-1, keepdims=True)
    scaled = centred * a.rsqrt(reduce.mean(a.square(centred), axis=-1, keepdims=True) + 1e-3) * gain
    values, _ = reduce.top_k(shape.reshape(scaled, shape=(-1, 20)), k=7)
    against_jax([tokens], [table, gain], shape.sum(a.sin(values)), rtol=1e-4)


def test_paths_that_meet_and_unreached_weights():
    x, w, unused = input_node("x", (B,), "float32"), param_node("w", ()), param_node("unused", ())
    y = x * w
    loss = shape.sum(y * a.exp(a.negative(y)) + a.stop_gradient(y) * w)
    against_jax([x], [w], loss)
    assert gradient({loss: constant(1.0)}, [w, unused])[1] is None


def test_several_outputs_with_cotangents_of_their_own():
    x, dy = param_node("x", (3,)), param_node("dy", (3,))
    y, z = a.sin(x), a.exp(x)
    (dx,) = gradient({y: dy, z: z}, [x])
    given = arrays([x, dy], 1)
    got = function(Graph((), (dx,), ("dx",)), [x, dy])(*given)[0]
    np.testing.assert_allclose(got, given[1] * np.cos(given[0]) + np.exp(2 * given[0]), rtol=1e-5)


def test_second_derivatives_through_a_vjp_node(new_op):
    cube = new_op("test_cube", lower=lambda x: x**3, gradient=VJP)
    x = param_node("x", (4,))
    (first,) = gradient({shape.sum(cube(x)): constant(1.0)}, [x])
    against_jax([], [x], shape.sum(a.square(first)), rtol=1e-4)


# --- replicas --------------------------------------------------------------------------------------------------------


def on_replicas(graph, bound, per_replica):
    """Outputs of each replica when `all_reduce` really sums over replicas, stage by stage."""
    stages = split_stages(graph)
    carries, total = [()] * len(per_replica), None
    for k in range(len(stages)):
        outs = []
        for given, carry in zip(per_replica, carries):
            known = dict(zip(bound, given))
            leaves = {n: known[n] for n in stage_leaves(graph, stages, k)}
            outs.append(
                jax.jit(stage_function(graph, stages, k, sizes_of(bound, given)))(*_by_name(leaves), carry, total)
            )
        carries = [carry for carry, _ in outs]
        if k < len(stages) - 1:
            total = sum(np.asarray(v) for _, v in outs)
    return [out for _, out in outs]


class _Leaves(dict):
    """Leaves as a pytree: nodes are no sortable keys."""


jax.tree_util.register_pytree_node(_Leaves, lambda d: (list(d.values()), list(d)), lambda k, v: _Leaves(zip(k, v)))


def _by_name(leaves):
    return (_Leaves(leaves),)


def synchronised_network(reduced):
    """Batch normalisation over the global batch, a masked mean, and a norm of the gradients: three kinds of sums."""
    x, y, valid = (
        input_node("x", (B, 3), "float32"),
        input_node("y", (B,), "float32"),
        input_node("valid", (B,), "float32"),
    )
    k, gain, w = param_node("k", (3, 4)), param_node("gain", (4,)), param_node("w", (4, 1))
    v = shape.reshape(valid, shape=(B, 1))
    rows = reduced(shape.sum(valid))
    h = linalg.matmul(x, k)
    mean = reduced(shape.sum(h * v, axis=0)) / rows
    centred = h - mean
    variance = reduced(shape.sum(a.square(centred) * v, axis=0)) / rows
    z = activations.relu(centred * a.rsqrt(variance + 1e-3) * gain)
    p = shape.reshape(linalg.matmul(z, w), shape=(B,))
    loss = shape.sum(valid * a.square(p - y)) / rows
    return [x, y, valid], [k, gain, w], loss


@pytest.mark.parametrize("cuts", [(3, 8), (0, 5, 11)])
def test_replicas_sum_to_the_gradient_of_the_whole_batch(cuts):
    inputs, params, loss = synchronised_network(all_reduce)
    grads = gradient({loss: constant(1.0)}, params)
    norm = a.sqrt(
        shape.sum(
            shape.concatenate([shape.reshape(all_reduce(a.square(g) * 0 + g), shape=(-1,)) for g in grads]) ** 2.0
        )
    )
    graph = Graph(tuple(inputs), (loss, norm, *grads), ("loss", "norm", "g0", "g1", "g2"))
    assert len(split_stages(graph)) > 3
    bound = [*inputs, *params]
    rows = cuts[-1] + 1
    given = arrays(bound, rows)
    given[2] = (np.arange(rows) % 4 != 1).astype("f")  # padding in the middle
    weights = given[3:]
    edges = [0, *[c for c in cuts[:-1] if c], rows] if cuts[0] else [0, 0, *cuts[1:-1], rows]
    parts = [[*(v[i:j] for v in given[:3]), *weights] for i, j in zip(edges, edges[1:])]
    parts = [p if len(p[0]) else [*(np.zeros((1, *v.shape[1:]), "f") for v in given[:3]), *weights] for p in parts]
    outs = on_replicas(graph, bound, parts)

    plain_inputs, plain_params, plain = synchronised_network(lambda x: x)
    forward = function(Graph(tuple(plain_inputs), (plain,), ("loss",)), bound)
    want, dwant = jax.value_and_grad(lambda p: forward(*given[:3], *p)[0])(weights)
    np.testing.assert_allclose(sum(o[0] for o in outs), want, rtol=1e-5)
    for i, w in enumerate(dwant):
        np.testing.assert_allclose(sum(np.asarray(o[2 + i]) for o in outs), w, rtol=1e-4, atol=1e-5)
    for o in outs:
        np.testing.assert_allclose(o[1], jnp.sqrt(sum(jnp.sum(w**2) for w in dwant)), rtol=1e-4)


# --- errors ----------------------------------------------------------------------------------------------------------


def test_errors(new_op):
    for name, rule in {
        "test_none": None,
        "test_count": lambda n, dy: (dy, dy),
        "test_type": lambda n, dy: (shape.sum(dy),),
    }.items():
        new_op(name, lower=lambda x: x * 2, gradient=rule)
    x, i = param_node("x", (3,)), input_node("i", (3,), "int32")

    def message(name=None, cotangents=None, wrt=(x,)):
        with pytest.raises(GradientError) as caught:
            with source("head"):
                y = REGISTRY[name](a.sinh(x) + len(name)) if name else None
            gradient(cotangents or {shape.sum(y): constant(1.0)}, list(wrt))
        return str(caught.value)

    assert message("test_none") == (
        "op 'test_none' of 'head' has no gradient, and a weight is reached only through it; "
        "if that weight should not learn, wrap the value in stop_gradient"
    )
    assert message("test_count") == "the gradient of op 'test_count' of 'head' gave 2 results for 1 inputs"
    assert message("test_type") == (
        "the gradient of op 'test_type' of 'head' for input 0 has type float32[], expected float32[3]"
    )
    assert "has type float32[], expected float32[3]" in message(cotangents={x: constant(1.0)})
    assert (
        message(cotangents={x: x}, wrt=[i]) == "gradients exist for floating-point arrays only, got <input : int32[3]>"
    )
    assert gradient({shape.sum(REGISTRY["test_none"](i)): constant(1, "int32")}, [x]) == [None]

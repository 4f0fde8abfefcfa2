"""BatchNormalization: moving statistics step by step, padding rows, masks, synchronised shards."""

import jax
import keras
import numpy as np
import pytest
from kerasoft.compiler.gradient import gradient
from kerasoft.compiler.ir import Graph, symbol
from kerasoft.compiler.lower import function, split_stages, stage_function
from kerasoft.compiler.ops.registry import constant, input_node
from kerasoft.compiler.passes.fold_batch_normalization import FoldBatchNormalization

import kerasoft as ks
from kerasoft import layers
from kerasoft.scope import Scope

B = symbol("b")


def traced(layer, x_shape, mask_shape=None, padded=False):
    """The layer in training as a graph: x[, mask][, valid] -> y, moving_mean, moving_variance, gradients of sum(y² valid)."""
    from kerasoft import ops

    x = input_node("x", (B, *x_shape), "float32")
    mask = input_node("mask", (B, *mask_shape), "bool") if mask_shape else None
    valid = input_node("valid", (B,), "float32") if padded else None
    inputs = tuple(n for n in (x, mask, valid) if n is not None)
    with Scope(training=True, valid=valid) as scope:
        y = layer(x, mask=mask)
        loss = ops.multiply(y, ops.add(ops.square(y), 1.0))
        if padded:
            loss = ops.multiply(loss, ops.reshape(valid, (B,) + (1,) * len(x_shape)))
        loss = ops.sum(loss)
        states = [scope.param(v) for v in (layer.moving_mean, layer.moving_variance)]
    grads = gradient({loss: constant(1.0)}, [x, scope.node_of(layer.gamma)])
    outputs = (y, *states, *grads)
    return scope, Graph(inputs, outputs, tuple("ymvxg")), [p for p in scope.params.values()]


def run(graph, scope, *arrays):
    values = [scope.params[n.attrs["name"]].numpy() for n in graph.params]
    return [np.asarray(v) for v in quick(function(graph), *arrays, *values)]


def quick(f, *arguments):
    options = {"xla_backend_optimization_level": 0, "xla_llvm_disable_expensive_passes": True}
    return jax.jit(f).lower(*arguments).compile(compiler_options=options)(*arguments)


def built(shape, **options):
    layer = layers.BatchNormalization(**options)
    layer.build((None, *shape))
    layer.built = True
    rng = np.random.default_rng(1)
    c = layer.moving_mean.shape[0]
    layer.set_weights([rng.normal(size=c) + 1, rng.normal(size=c), rng.normal(size=c), rng.uniform(0.5, 2, c)])
    return layer


def test_moving_statistics_follow_keras_over_three_steps():
    ours = layers.BatchNormalization(momentum=0.7)
    theirs = keras.layers.BatchNormalization(momentum=0.7)
    rng = np.random.default_rng(0)
    for step in range(3):
        x = rng.normal(step, 2, (4, 3, 5)).astype("float32")
        np.testing.assert_allclose(ours(x, training=True), theirs(x, training=True), atol=1e-5)
        np.testing.assert_allclose(ours.moving_mean.numpy(), np.asarray(theirs.moving_mean.value), atol=1e-6)
        np.testing.assert_allclose(ours.moving_variance.numpy(), np.asarray(theirs.moving_variance.value), rtol=1e-5)
    np.testing.assert_allclose(ours(x), theirs(x), atol=1e-5)


def test_a_frozen_layer_uses_and_keeps_its_moving_statistics():
    layer = built((3,))
    x = np.random.default_rng(0).normal(size=(6, 3)).astype("float32")
    want, before = layer(x), layer.get_weights()
    layer.trainable = False
    np.testing.assert_array_equal(layer(x, training=True), want)
    for a, b in zip(layer.get_weights(), before, strict=True):
        np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize("synchronized", [False, True])
def test_padding_rows_count_for_nothing(synchronized):
    layer = built((4, 3), synchronized=synchronized)
    rng = np.random.default_rng(2)
    x = rng.normal(3, 2, (5, 4, 3)).astype("float32")
    padded = np.concatenate([x, 1e3 * np.ones((3, 4, 3), "float32")])
    scope, graph, _ = traced(layer, (4, 3))
    assert scope.couples_rows is not synchronized
    y, mean, variance, dx, dgamma = run(graph, scope, x)
    scope, graph, _ = traced(layer, (4, 3), padded=True)
    valid = np.float32([1] * 5 + [0] * 3)
    got = run(graph, scope, padded, valid)
    np.testing.assert_allclose(got[0][:5], y, atol=1e-5)
    np.testing.assert_allclose(got[1], mean, atol=1e-5)
    np.testing.assert_allclose(got[2], variance, rtol=1e-5)
    np.testing.assert_allclose(got[3][:5], dx, atol=2e-4)
    np.testing.assert_allclose(got[3][5:], 0, atol=1e-6)
    np.testing.assert_allclose(got[4], dgamma, rtol=1e-4)
    assert not scope.exact_rows


def test_a_mask_counts_valid_steps_only_as_in_keras():
    ours = built((4, 3))
    theirs = keras.layers.BatchNormalization()
    theirs.build((None, 4, 3))
    theirs.set_weights(ours.get_weights())
    rng = np.random.default_rng(3)
    x = rng.normal(2, 1, (5, 4, 3)).astype("float32")
    mask = rng.random((5, 4)) < 0.6
    scope, graph, _ = traced(ours, (4, 3), mask_shape=(4,))
    y, mean, variance, *_ = run(graph, scope, x, mask)
    np.testing.assert_allclose(y, theirs(x, training=True, mask=mask), atol=1e-5)
    np.testing.assert_allclose(mean, np.asarray(theirs.moving_mean.value), atol=1e-6)
    np.testing.assert_allclose(variance, np.asarray(theirs.moving_variance.value), rtol=1e-5)


def test_synchronised_shards_equal_the_whole_batch():
    layer = built((3,), synchronized=True)
    scope, graph, _ = traced(layer, (3,))
    x = np.random.default_rng(4).normal(5, 3, (9, 3)).astype("float32")
    whole = run(graph, scope, x)
    params = {n: scope.params[n.attrs["name"]].numpy() for n in graph.params}
    stages = split_stages(graph)
    assert len(stages) == 3  # the statistics, and on the way back their gradients
    shards = [x[:3], x[3:6], x[6:]]
    carried, reduced = [()] * 3, None
    for k in range(len(stages)):
        stage = stage_function(graph, stages, k, {"b": 3})
        results = [stage({graph.inputs[0]: s, **params}, c, reduced) for s, c in zip(shards, carried, strict=True)]
        carried = [r[0] for r in results]
        if k < len(stages) - 1:
            reduced = np.sum([np.asarray(r[1]) for r in results], axis=0)
    parts = [r[1] for r in results]
    np.testing.assert_allclose(np.concatenate([p[0] for p in parts]), whole[0], atol=1e-5)
    np.testing.assert_allclose(np.concatenate([p[3] for p in parts]), whole[3], atol=1e-4)
    for p in parts:
        np.testing.assert_allclose(p[1], whole[1], atol=1e-6)
        np.testing.assert_allclose(p[2], whole[2], rtol=1e-5)
    np.testing.assert_allclose(sum(np.asarray(p[4]) for p in parts), whole[4], rtol=1e-4)


def test_inference_after_a_convolution_folds_into_its_kernel():
    convolution, layer = layers.Conv2D(3, 3), built((6, 6, 3))
    x = input_node("x", (B, 8, 8, 2), "float32")
    with Scope(training=False) as scope:
        y = layer(convolution(x))
    graph = Graph((x,), (y,), ("y",))
    folding = FoldBatchNormalization()
    (chain,) = folding.find(graph)
    assert chain.root is y and chain.linear.op.name == "conv"
    value = np.random.default_rng(0).normal(size=(2, 8, 8, 2)).astype("float32")
    folded = folding.run(graph)
    np.testing.assert_allclose(run(folded, scope, value)[0], run(graph, scope, value)[0], atol=1e-5)


def test_errors():
    with pytest.raises(ValueError, match=r"Axis 3 is out of bounds for input shape \(None, 4\). Received: axis=3"):
        layers.BatchNormalization(axis=3)(ks.Input((4,)))
    with pytest.raises(ValueError, match="Received invalid keys for `renorm_clipping` argument: {'max': 1}"):
        layers.BatchNormalization(renorm=True, renorm_clipping={"max": 1})
    with pytest.raises(ValueError, match="mask provided should be one dimension less than the inputs"):
        layers.BatchNormalization()(np.ones((2, 3), "float32"), mask=np.ones((2, 3), bool))
    with pytest.raises(ValueError, match=r"needs a known size of axis -1, got input shape \(None, 5, None\)"):
        layers.BatchNormalization(name="bn")(ks.Input((5, None)))

"""Random layers: rates and moments, the same draws wherever a row is computed, other draws for other calls."""

import jax
import numpy as np
import pytest
from kerasoft.compiler.ir import Graph, symbol
from kerasoft.compiler.lower import function
from kerasoft.compiler.ops.registry import input_node

from kerasoft import layers, utils
from kerasoft.scope import Scope

B = symbol("b")
KEY = np.array([3, 5], "uint32")
FAST = {"xla_backend_optimization_level": 0, "xla_llvm_disable_expensive_passes": True}


def traced(run, *shape):
    """``f(x, row_id, key)`` of a computation in training."""
    x = input_node("x", (B, *shape), "float32")
    row_id, key = input_node("row_id", (B,), "uint32"), input_node("key", (2,), "uint32")
    with Scope(training=True, row_id=row_id, key=key) as scope:
        y = run(x)
    graph = Graph((x, row_id, key), (y,), ("y",))
    assert not (scope.exact_rows or scope.couples_rows)
    values = [scope.params[n.attrs["name"]].numpy() for n in graph.params]

    def compute(x, ids, k=KEY):
        arrays = (x, np.asarray(ids, "uint32"), k, *values)
        if x.shape not in compiled:
            compiled[x.shape] = jax.jit(function(graph)).lower(*arrays).compile(compiler_options=FAST)
        return np.asarray(compiled[x.shape](*arrays)[0])

    compiled = {}
    return compute


@pytest.mark.parametrize(
    "make, shape",
    [
        (lambda: layers.Dropout(0.4), (6,)),
        (lambda: layers.Dropout(0.4, noise_shape=(None, 1, None)), (3, 4)),
        (lambda: layers.SpatialDropout2D(0.4), (2, 3, 5)),
        (lambda: layers.GaussianNoise(0.7), (5,)),
        (lambda: layers.AlphaDropout(0.3), (4,)),
        (lambda: layers.TimeDistributed(layers.Dropout(0.5)), (4, 3)),
        (lambda: layers.LSTM(3, dropout=0.5, recurrent_dropout=0.5), (4, 2)),
        (lambda: layers.GRU(3, dropout=0.5), (4, 2)),
    ],
)  # fmt: skip
def test_a_row_draws_the_same_in_any_company(make, shape):
    run = traced(make(), *shape)
    x = np.random.default_rng(0).normal(size=(6, *shape)).astype("float32")
    whole = run(x, range(6))
    parts = [run(x[[4, 1]], [4, 1]), run(x[[5, 0, 2]], [5, 0, 2])]
    np.testing.assert_allclose(parts[0], whole[[4, 1]], atol=1e-6)
    np.testing.assert_allclose(parts[1], whole[[5, 0, 2]], atol=1e-6)
    assert not np.allclose(run(x, range(6), np.array([3, 6], "uint32")), whole)
    assert not np.allclose(run(x, range(10, 16)), whole)


def test_dropout_drops_its_rate_and_keeps_the_mean():
    run = traced(layers.Dropout(0.3), 50)
    y = run(np.ones((400, 50), "float32"), range(400))
    assert set(np.unique(y.round(5))) == {0.0, np.float32(1 / 0.7).round(5)}
    assert (y == 0).mean() == pytest.approx(0.3, abs=0.01)
    assert np.ptp((y == 0).mean(axis=1)) > 0.2  # rows differ


def test_spatial_dropout_drops_whole_channels():
    y = traced(layers.SpatialDropout1D(0.5), 6, 9)(np.ones((20, 6, 9), "float32"), range(20))
    assert np.array_equal(y, np.broadcast_to(y[:, :1], y.shape)) and 0 < (y == 0).mean() < 1


def test_two_layers_and_two_seeds_draw_different_masks():
    twice = traced(lambda x: layers.Dropout(0.5)(x) - layers.Dropout(0.5)(x), 40)
    ones = np.ones((3, 40), "float32")
    assert (twice(ones, range(3)) != 0).any()
    a, b = (traced(layers.Dropout(0.5, seed=s), 40)(ones, range(3)) for s in (1, 2))
    assert (a != b).any()


def test_gaussian_noise_and_dropout_have_their_moments():
    x = np.full((300, 40), 2.0, "float32")
    y = traced(layers.GaussianNoise(0.5), 40)(x, range(300))
    assert y.mean() == pytest.approx(2, abs=0.02) and y.std() == pytest.approx(0.5, rel=0.03)
    y = traced(layers.GaussianDropout(0.2), 40)(x, range(300))
    assert y.mean() == pytest.approx(2, abs=0.05) and y.std() == pytest.approx(2 * 0.5, rel=0.03)


def test_alpha_dropout_keeps_mean_and_variance():
    x = np.random.default_rng(0).normal(size=(500, 40)).astype("float32")
    y = traced(layers.AlphaDropout(0.2), 40)(x, range(500))
    assert y.mean() == pytest.approx(0, abs=0.03) and y.std() == pytest.approx(1, abs=0.03)


def test_recurrent_dropout_draws_once_per_sequence():
    layer = layers.SimpleRNN(30, dropout=0.5, return_sequences=True, activation="linear", use_bias=False)
    layer.build((None, 4, 30))
    layer.built = True
    layer.set_weights([np.eye(30), np.zeros((30, 30))])
    y = traced(layer, 4, 30)(np.ones((3, 4, 30), "float32"), range(3))
    assert np.array_equal(y, np.broadcast_to(y[:, :1], y.shape))
    assert set(np.unique(y)) == {0.0, 2.0}


def test_eager_calls_draw_anew_and_the_seed_governs_them():
    x, layer = np.ones((4, 30), "float32"), layers.Dropout(0.5)
    utils.set_random_seed(3)
    first, second = layer(x, training=True), layer(x, training=True)
    utils.set_random_seed(3)
    assert np.array_equal(layer(x, training=True), first) and not np.array_equal(first, second)
    assert np.array_equal(layer(x), x) and np.array_equal(layer(x, training=False), x)


@pytest.mark.parametrize(
    "make, text",
    [
        (lambda: layers.Dropout(1.5), "argument `rate`. Expected a float value between 0 and 1. Received: rate=1.5"),
        (lambda: layers.Dropout(0.5, noise_shape=(0, 1)), r"argument `noise_shape`.*positive integers or None. Received negative or zero value at index 0: 0"),
        (lambda: layers.GaussianNoise(-1.0), "argument `stddev`.* Received: stddev=-1.0"),
        (
            lambda: layers.Dropout(0.5, noise_shape=(None, 1), name="d")(np.ones((2, 3, 4), "float32"), training=True),
            r"`noise_shape` of Dropout 'd' must have one entry for each axis of the input, 3. Received: .*\(None, 1\)",
        ),
    ],
)  # fmt: skip
def test_errors(make, text):
    with pytest.raises(ValueError, match=text):
        make()

"""kerasoft.random: Keras's numbers for a seed, moments, and draws inside of compiled steps."""

import random as python_random

import jax
import keras
import numpy as np
import pytest
from kerasoft.compiler import lower
from kerasoft.compiler.ir import Graph, symbol
from kerasoft.compiler.ops.registry import input_node

import kerasoft as ks
from kerasoft.tensors import Scope

X = np.arange(12, dtype="float32").reshape(4, 3) + 1
LOGITS = np.log(np.array([[0.1, 0.2, 0.7], [0.5, 0.25, 0.25]], "float32"))
CALLS = {
    "normal": lambda r, seed: r.normal((3, 4), mean=1.0, stddev=2.0, seed=seed),
    "normal half": lambda r, seed: r.normal((5,), dtype="float16", seed=seed),
    "uniform": lambda r, seed: r.uniform((3, 4), -1.0, 2.0, seed=seed),
    "uniform bfloat16": lambda r, seed: r.uniform((3,), dtype="bfloat16", seed=seed),
    "truncated_normal": lambda r, seed: r.truncated_normal((3, 4), 0.5, 2.0, seed=seed),
    "randint": lambda r, seed: r.randint((3, 4), 2, 9, seed=seed),
    "randint uint8": lambda r, seed: r.randint((7,), 0, 5, dtype="uint8", seed=seed),
    "categorical": lambda r, seed: r.categorical(LOGITS, 5, seed=seed),
    "categorical int8": lambda r, seed: r.categorical(LOGITS, 2, dtype="int8", seed=seed),
    "shuffle": lambda r, seed: r.shuffle(X, seed=seed),
    "shuffle axis": lambda r, seed: r.shuffle(X, axis=1, seed=seed),
    "gamma": lambda r, seed: r.gamma((3, 2), 1.5, seed=seed),
    "beta": lambda r, seed: r.beta((4,), 2.0, 3.0, seed=seed),
    "beta of lists": lambda r, seed: r.beta((2,), [1.0, 2.0], [3.0, 1.0], seed=seed),
    "binomial": lambda r, seed: r.binomial((4,), 10.0, 0.3, seed=seed),
    "dropout": lambda r, seed: r.dropout(X, 0.4, seed=seed),
    "dropout noise shape": lambda r, seed: r.dropout(X, 0.5, noise_shape=(None, 1), seed=seed),
    "dropout nothing": lambda r, seed: r.dropout(X, 0.0, seed=seed),
    "dropout all": lambda r, seed: r.dropout(X, 1.0, seed=seed),
}


@pytest.mark.parametrize("case", CALLS)
def test_numbers_of_a_seed_are_those_of_keras(case):
    call = CALLS[case]
    for make in (lambda m: 1337, lambda m: m.random.SeedGenerator(42), lambda m: jax.numpy.array([3, 9], "uint32")):
        mine, theirs = call(ks.random, make(ks)), call(keras.random, make(keras))
        assert mine.dtype == theirs.dtype
        assert isinstance(mine, jax.Array) or case.startswith("dropout")
        np.testing.assert_allclose(np.asarray(mine, "float32"), np.asarray(theirs, "float32"), rtol=1e-6)


def test_a_generator_counts_like_that_of_keras():
    mine, theirs = ks.random.SeedGenerator(7, name="s"), keras.random.SeedGenerator(7, name="s")
    for ordered in (True, True, False, False, True):
        assert np.asarray(mine.next(ordered)).tolist() == np.asarray(theirs.next(ordered)).tolist()
    assert mine.get_config() == theirs.get_config() == {"seed": 7, "name": "s"}
    assert ks.random.SeedGenerator.from_config(mine.get_config()).next().tolist() == [7, 0]
    assert ks.random.SeedGenerator().get_config()["seed"] is None
    assert mine.state.path == theirs.state.path == "s/seed_generator_state"


def test_draws_without_a_seed_follow_the_global_one_as_in_keras():
    draws = []
    for module in (keras, ks):
        module.utils.set_random_seed(5)
        draws.append([np.asarray(module.random.normal((2,))) for _ in range(3)])
    np.testing.assert_allclose(draws[1], draws[0], rtol=1e-6)
    python_random.seed()


def test_moments():
    n = 20000
    for drawn, mean, std in [
        (ks.random.normal((n,), 2.0, 3.0, seed=1), 2.0, 3.0),
        (ks.random.uniform((n,), 1.0, 3.0, seed=1), 2.0, 2 / 12**0.5),
        (ks.random.truncated_normal((n,), 0.0, 1.0, seed=1), 0.0, 0.8796),
        (ks.random.gamma((n,), 4.0, seed=1), 4.0, 2.0),
        (ks.random.beta((n,), 2.0, 2.0, seed=1), 0.5, 0.2236),
        (ks.random.binomial((n,), 10.0, 0.5, seed=1), 5.0, 10**0.5 / 2),
    ]:
        assert abs(float(np.mean(drawn)) - mean) < 5 * std / n**0.5
        assert abs(float(np.std(drawn)) / std - 1) < 0.05


def graph_of(function):
    """A function of (key, row ids, x) from what draws in a traced step of unknown batch size."""
    rows = symbol("b")
    inputs = [
        input_node("key", (2,), "uint32"),
        input_node("row_id", (rows,), "uint32"),
        input_node("x", (rows, 3), "float32"),
    ]
    scope = Scope(training=True, key=inputs[0], row_id=inputs[1])
    with scope:
        outputs = function(inputs[2])
    graph = Graph(tuple(inputs), tuple(outputs), tuple(f"o{i}" for i in range(len(outputs))))
    return jax.jit(lower.function(graph)), scope


def test_draws_of_a_step_hang_on_its_key_and_the_rows_ids():
    seed = ks.random.SeedGenerator(3)

    def layer(x):
        shape = ks.ops.shape(x)
        return [
            ks.random.normal(shape, 1.0, 2.0, seed=seed),
            ks.random.uniform((shape[0], 2), -1.0, 1.0),
            ks.random.truncated_normal(shape),
            ks.random.dropout(x, 0.5, seed=seed),
        ]

    run, scope = graph_of(layer)
    assert not scope.exact_rows
    key, ids, x = np.array([1, 2], "uint32"), np.arange(4, dtype="uint32"), np.ones((4, 3), "float32")
    first = run(key, ids, x)
    parts = [run(key, ids[i : i + 2], x[i : i + 2]) for i in (0, 2)]
    for whole, a, b in zip(first, *parts, strict=True):
        np.testing.assert_array_equal(whole, np.concatenate([a, b]))
    assert all(not np.array_equal(a, b) for a, b in zip(first, run(np.array([1, 3], "uint32"), ids, x), strict=True))
    assert set(np.unique(first[3])) <= {0.0, 2.0}


def test_other_draws_of_a_step():
    def layer(x):
        return [
            ks.random.categorical(x, 2),
            ks.random.shuffle(x),
            ks.random.randint((ks.ops.shape(x)[0], 2), 0, 5),
            ks.random.gamma((3,), 2.0),
            ks.random.normal(ks.ops.shape(x), seed=11),
        ]

    run, scope = graph_of(layer)
    assert scope.exact_rows
    x = np.arange(12, dtype="float32").reshape(4, 3)
    classes, shuffled, integers, gammas, fixed = run(np.array([1, 2], "uint32"), np.arange(4, dtype="uint32"), x)
    assert classes.shape == integers.shape == (4, 2)
    np.testing.assert_array_equal(np.sort(shuffled, 0), x)
    assert 0 <= integers.min() <= integers.max() < 5 and (np.asarray(gammas) > 0).all()
    np.testing.assert_allclose(fixed, keras.random.normal((4, 3), seed=11), rtol=1e-6)


def test_a_sampling_layer_of_ones_own_trains_and_predicts():
    ks.utils.set_random_seed(3)
    x = X / 12  # exp of larger numbers may leave no noise to see

    class Sampling(ks.layers.Layer):
        def __init__(self, **kwargs):
            super().__init__(**kwargs)
            self.seed_generator = ks.random.SeedGenerator(1337)

        def call(self, inputs):
            mean, log_var = inputs
            shape = ks.ops.shape(mean)
            epsilon = ks.random.normal(shape=(shape[0], shape[1]), seed=self.seed_generator)
            return mean + ks.ops.exp(0.5 * log_var) * epsilon

    inputs = ks.Input((3,))
    outputs = Sampling()([ks.layers.Dense(2)(inputs), ks.layers.Dense(2)(inputs)])
    model = ks.Model(inputs, outputs)
    assert outputs.shape == (None, 2)
    model.compile("sgd", "mse")
    history = model.fit(x, np.zeros((4, 2), "float32"), epochs=2, batch_size=2, verbose=0)
    assert np.isfinite(history.history["loss"]).all()
    assert model.predict(x, verbose=0).shape == (4, 2)
    assert not np.array_equal(model(x), model(x))


@pytest.mark.parametrize(
    "call, text",
    [
        (lambda m: m.random.uniform((2,), dtype="int32"), "requires a floating point `dtype`"),
        (lambda m: m.random.randint((2,), 0, 3, dtype="float32"), "requires an integer `dtype`"),
        (lambda m: m.random.categorical(X[0], 2), "`logits` should be a 2-D tensor"),
        (lambda m: m.random.normal((2,), seed="a"), "Argument `seed` must be either an integer or an instance of"),
        (lambda m: m.random.SeedGenerator(seed=1.5), "Argument `seed` must be an integer"),
        (lambda m: m.random.SeedGenerator(seed=1, color="red"), "Unrecognized keyword arguments"),
    ],
)
def test_mistakes_are_explained_as_by_keras(call, text):
    for module in (keras, ks):
        with pytest.raises(ValueError, match=text):
            call(module)

"""Optimizers that need norms or whole matrices, on two executor processes: the bits of one, the numbers of a local fit."""

import numpy as np
import pytest
from kerasoft.runtime import AllReduce

import kerasoft as ks

pytestmark = pytest.mark.spark
rng = np.random.default_rng(1)
X = rng.normal(size=(12, 3)).astype("float32")
Y = (X @ np.array([[1.0], [-2.0], [0.5]])).astype("float32")


class Heavy(ks.optimizers.Optimizer):
    """A user's optimizer: momentum, and a count of its own."""

    def build(self, variables):
        super().build(variables)
        self.momentums = [self.add_variable_from_reference(v, name="momentum") for v in variables]
        self.calls = self.add_variable((), name="calls")

    def update_step(self, gradient, variable, learning_rate):
        m = self.momentums[self._get_variable_index(variable)]
        self.assign(m, 0.9 * m - learning_rate * gradient)
        self.assign_add(variable, m)
        self.assign_add(self.calls, 1.0)


def all_kinds(o):
    """An optimizer for each weight of the model."""
    kinds = {
        "dense/kernel": o.Muon(0.02),
        "dense/bias": o.Nadam(0.01, use_ema=True),
        "dense_1/kernel": o.Adafactor(0.02),
        "dense_1/bias": Heavy(0.02),
        "dense_2/kernel": o.LARS(0.5, weight_decay=0.01),
    }
    return o.MultiOptimizer(o.OptimizerMap(o.SGD(0.05), {f".*/{path}": kind for path, kind in kinds.items()}))


OPTIMIZERS = {
    "in slices": lambda o: o.Lamb(0.02, clipnorm=1.0, weight_decay=0.01, gradient_accumulation_steps=2),
    "whole": all_kinds,
}


def build(make):
    ks.utils.clear_session(free_memory=False)
    ks.utils.set_random_seed(3)
    model = ks.Sequential([ks.Input((3,)), *(ks.layers.Dense(n, "tanh") for n in (5, 4)), ks.layers.Dense(1)])
    model.compile(make(ks.optimizers), "mse")
    return model


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_two_executors_give_the_bits_of_one_and_the_numbers_of_arrays(context, name):
    here, one, two = (build(OPTIMIZERS[name]) for _ in range(3))
    rdd = context.parallelize(list(zip(X, Y, strict=True)), 2)
    options = dict(batch_size=12, epochs=4, verbose=0, seed=5, shuffle=False)
    here.fit(X, Y, **options)
    one.fit(rdd, strategy=AllReduce(1, deterministic=True), **options)
    two.fit(rdd, strategy=AllReduce(2, deterministic=True), **options)
    pairs = [
        ([*one.weights, *one.optimizer.variables], [*two.weights, *two.optimizer.variables]),
        ([*here.weights, *here.optimizer.variables], [*two.weights, *two.optimizer.variables]),
    ]
    assert all(a.numpy().tobytes() == b.numpy().tobytes() for a, b in zip(*pairs[0], strict=True))
    for a, b in zip(*pairs[1], strict=True):
        np.testing.assert_allclose(a.numpy(), b.numpy(), rtol=1e-4, atol=1e-5, err_msg=a.path)

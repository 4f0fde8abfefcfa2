"""Every learning-rate schedule against Keras 3, traced from the iteration."""

from __future__ import annotations

import jax
import keras
import numpy as np
import pytest
from kerasoft.compiler.ir import Graph
from kerasoft.compiler.lower import function
from kerasoft.compiler.ops.registry import input_node

import kerasoft as ks

STEPS = np.arange(0, 130, dtype="int32")
TABLE = [
    ("ExponentialDecay", {"initial_learning_rate": 0.1, "decay_steps": 7, "decay_rate": 0.9}),
    ("ExponentialDecay", {"initial_learning_rate": 0.1, "decay_steps": 7, "decay_rate": 0.9, "staircase": True}),
    ("PiecewiseConstantDecay", {"boundaries": [10, 30, 31], "values": [0.5, 0.25, 0.1, 0.01]}),
    ("PolynomialDecay", {"initial_learning_rate": 0.1, "decay_steps": 50, "power": 2.0}),
    ("PolynomialDecay", {"initial_learning_rate": 0.1, "decay_steps": 20, "cycle": True, "end_learning_rate": 0.01}),
    ("InverseTimeDecay", {"initial_learning_rate": 0.1, "decay_steps": 7, "decay_rate": 0.5}),
    ("InverseTimeDecay", {"initial_learning_rate": 0.1, "decay_steps": 7, "decay_rate": 0.5, "staircase": True}),
    ("CosineDecay", {"initial_learning_rate": 0.1, "decay_steps": 60, "alpha": 0.1}),
    ("CosineDecay", {
        "initial_learning_rate": 0.0, "decay_steps": 60, "warmup_target": 0.2, "warmup_steps": 15,
    }),
    ("CosineDecayRestarts", {"initial_learning_rate": 0.1, "first_decay_steps": 13, "m_mul": 0.8, "alpha": 0.01}),
    ("CosineDecayRestarts", {"initial_learning_rate": 0.1, "first_decay_steps": 13, "t_mul": 1.0}),
]  # fmt: skip


def named(value):
    return value if isinstance(value, str) else ""


def test_every_public_schedule_has_a_row_and_keras_name():
    public = {name for name in dir(keras.optimizers.schedules) if name[0].isupper()}
    assert {name for name, _ in TABLE} == public - {"LearningRateSchedule"}
    assert public <= set(ks.optimizers.schedules.__all__)


@pytest.mark.parametrize(("name", "arguments"), TABLE, ids=named)
def test_rates_are_keras(name, arguments):
    ours, theirs = (getattr(m.optimizers.schedules, name)(**arguments) for m in (ks, keras))
    step = input_node("iteration", (), "int32")
    rate = function(Graph((step,), (ours(step),), ("rate",)))
    got = jax.jit(jax.vmap(lambda i: rate(i)[0]))(STEPS)
    expected = jax.jit(jax.vmap(theirs))(STEPS)
    np.testing.assert_allclose(got, expected, rtol=1e-4, atol=1e-7)
    np.testing.assert_allclose(float(ours(17)), got[17], rtol=1e-5)


@pytest.mark.parametrize(("name", "arguments"), TABLE, ids=named)
def test_configs_are_keras_and_round_trip(name, arguments):
    ours, theirs = (getattr(m.optimizers.schedules, name)(**arguments) for m in (ks, keras))
    config = ks.optimizers.schedules.serialize(ours)
    assert config == keras.optimizers.schedules.serialize(theirs)
    assert ks.optimizers.schedules.deserialize(config).get_config() == ours.get_config()


def test_errors_say_what_is_wrong():
    schedules = ks.optimizers.schedules
    with pytest.raises(ValueError, match="Argument `decay_steps` must be > 0. Received: decay_steps=0"):
        schedules.CosineDecay(0.1, 0)
    with pytest.raises(ValueError, match="Argument `first_decay_steps` must be > 0"):
        schedules.CosineDecayRestarts(0.1, -1)
    with pytest.raises(ValueError, match="length of boundaries should be 1 less than the length of values"):
        schedules.PiecewiseConstantDecay([1, 2], [0.1])
    with pytest.raises(NotImplementedError, match=r"'LearningRateSchedule' must override `__call__\(self, step\)`"):
        schedules.LearningRateSchedule()(0)
    with pytest.raises(NotImplementedError, match="must override `get_config"):
        schedules.LearningRateSchedule().get_config()


def test_warm_up_rises_to_a_rate_or_a_schedule():
    made = ks.optimizers.schedules
    rise = made.WarmUp(made.ExponentialDecay(0.5, 4, 0.5), warmup_steps=4, warmup_start=0.1)
    got = [float(rise(step)) for step in (0, 1, 2, 4, 8, 12)]
    np.testing.assert_allclose(got, [0.1, 0.2, 0.3, 0.5, 0.25, 0.125], rtol=1e-6)
    assert made.deserialize(made.serialize(rise)).get_config() == rise.get_config()
    optimizer = ks.optimizers.SGD(rise)
    assert ks.optimizers.deserialize(ks.optimizers.serialize(optimizer)).get_config() == optimizer.get_config()
    with pytest.raises(ValueError, match="Argument `warmup_steps` must be > 0. Received: warmup_steps=0"):
        made.WarmUp(0.1, 0)

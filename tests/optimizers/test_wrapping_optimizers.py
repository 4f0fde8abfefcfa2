"""Optimizers of optimizers, LARS and the stateless form: against Keras, NumPy, and between `apply` and the graph."""

from __future__ import annotations

import jax
import keras
import numpy as np
import pytest
from kerasoft.compiler.layout import Layout
from kerasoft.compiler.lower import split_stages, stage_function

import kerasoft as ks

pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")  # Keras' Variable.numpy
SHAPES = [(3, 4), (4,), (), (2, 2, 2)]
rng = np.random.default_rng(0)
START = [rng.normal(size=shape).astype("float32") for shape in SHAPES]
GRADIENTS = [[rng.normal(size=shape).astype("float32") for shape in SHAPES] for _ in range(20)]
LAYOUT = Layout.of([(f"v{i}", shape) for i, shape in enumerate(SHAPES)], sums={"loss/total": ()})


def scaled(library):
    inner = library.optimizers.AdamW(0.05, use_ema=True, clipnorm=1.0, name="inner")
    return library.optimizers.LossScaleOptimizer(inner, initial_scale=8.0, dynamic_growth_steps=3, name="outer")


def mapped(library):
    o = library.optimizers
    chosen = {"v[01]": o.Adam(0.01, clipnorm=1.0, name="a"), "v3": o.Lamb(0.02, name="b")}
    return o.MultiOptimizer(o.OptimizerMap(o.SGD(0.1, momentum=0.9, name="c"), chosen), name="all")


def chosen_by_rank(library):
    o = library.optimizers
    high, low = o.AdamW(0.1, name="a"), o.RMSprop(o.schedules.ExponentialDecay(0.1, 3, 0.5), name="b")
    return o.MultiOptimizer(lambda v: high if len(v.shape) > 1 else low, name="all")


def variables(library):
    return [library.Variable(value, name=f"v{i}") for i, value in enumerate(START)]


def values(things):
    return [np.asarray(v.value) for v in things]


def steps(kind):
    """Gradients as a loss scale of 8 makes them; the third overflows for `scaled`."""
    for k, gradients in enumerate(GRADIENTS):
        factor = 8.0 if kind is scaled else 1.0
        yield [
            np.float32(np.inf) * g if kind is scaled and k == 2 and not i else factor * g
            for i, g in enumerate(gradients)
        ]


@pytest.mark.parametrize("kind", [scaled, mapped, chosen_by_rank])
def test_20_steps_are_keras(kind):
    theirs, weights = kind(keras), variables(keras)
    theirs.build(weights)
    step, expected, own = jax.jit(theirs.stateless_apply), values(weights), values(theirs.variables)
    ours, here = kind(ks), variables(ks)
    for gradients in steps(kind):
        expected, own = step(own, gradients, expected)
        ours.apply(gradients, here)
    for got, want in zip(values([*here, *ours.variables]), [*expected, *own], strict=True):
        np.testing.assert_allclose(got, want, rtol=1e-4, atol=1e-5)
    assert [(v.path, v.dtype) for v in ours.variables] == [(v.path, v.dtype) for v in theirs.variables]
    if kind is not chosen_by_rank:
        assert ks.optimizers.serialize(kind(ks)) == keras.optimizers.serialize(kind(keras))
        again = ks.optimizers.deserialize(ks.optimizers.serialize(ours))
        assert again.get_config() == ours.get_config()


@pytest.mark.parametrize("kind", [scaled, mapped, chosen_by_rank])
def test_graph_and_stateless_form_are_apply(kind):
    """The graph counts a skipped step, as `fit` does; so no gradient overflows here."""
    eager, weights = kind(ks), variables(ks)
    stateless = kind(ks)
    stateless.build(variables(ks))
    step, after, own = jax.jit(stateless.stateless_apply), START, values(stateless.variables)
    traced = kind(ks)
    traced.build(variables(ks))
    graph, mode, specs = traced.trace_update(LAYOUT)
    stages = split_stages(graph)
    run = jax.jit(
        lambda arrays: stage_function(graph, stages, 0, {})(dict(zip(graph.inputs, arrays, strict=True)), (), None)
    )
    param, slots = np.concatenate([np.ravel(s) for s in START]), traced.variables_to_slots(LAYOUT)
    assert mode == "replicated" and len(stages) == 1
    scale = 8.0
    for k, gradients in enumerate(GRADIENTS[:5]):
        times = scale * (2.0 if k >= 3 else 1.0) if kind is scaled else 1.0
        eager.apply([times * g for g in gradients], weights)
        after, own = step(own, [times * g for g in gradients], after)
        known = {"param": param, "gradient": np.concatenate([np.ravel(g) for g in gradients])}
        known |= {"learning_rate": np.float32(0.05), "iteration": np.int32(k), "segment": LAYOUT.segments()}
        known |= {f"slot/{name}": slot for (name, _), slot in zip(specs, slots, strict=True)}
        param, *slots = run([known[n.attrs["name"]] for n in graph.inputs])[1]
    traced.slots_to_variables(LAYOUT, slots, 5)
    for got, want in zip([*after, *own], values([*weights, *eager.variables]), strict=True):
        np.testing.assert_allclose(got, want, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(param, np.concatenate([np.ravel(w) for w in values(weights)]), rtol=1e-5, atol=1e-6)
    for got, want in zip(values(traced.variables), values(eager.variables), strict=True):
        np.testing.assert_allclose(got, want, rtol=1e-5, atol=1e-6)


def test_lars_is_the_paper():
    weights, gradients = variables(ks), GRADIENTS[:6]
    ours = ks.optimizers.LARS(0.5, momentum=0.9, trust_coefficient=0.02, weight_decay=0.1)
    ours.exclude_from_weight_decay(var_names=["v1"])
    w, v = [s.astype("float64") for s in START], [np.zeros(s) for s in SHAPES]
    for step in gradients:
        ours.apply(step, weights)
        for i, g in enumerate(step):
            decay = 0.0 if i == 1 else 0.1
            rate = 0.02 * np.linalg.norm(w[i]) / (np.linalg.norm(g) + decay * np.linalg.norm(w[i]))
            v[i] = 0.9 * v[i] + 0.5 * rate * (g + decay * w[i])
            w[i] = w[i] - v[i]
    for got, want in zip(values(weights), w, strict=True):
        np.testing.assert_allclose(got, want, rtol=1e-5, atol=1e-6)
    assert ks.optimizers.deserialize(ks.optimizers.serialize(ours)).get_config() == ours.get_config()
    zero = ks.Variable([0.0, 0.0])
    ks.optimizers.LARS(0.5, momentum=0.0).apply([[1.0, 2.0]], [zero])
    np.testing.assert_allclose(zero.numpy(), [-0.5, -1.0])


class Signed(ks.optimizers.Optimizer):
    """A user's optimizer with its own update_step."""

    def build(self, variables):
        super().build(variables)
        self.m = [self.add_variable_from_reference(v, name="m") for v in variables]

    def update_step(self, gradient, variable, learning_rate):
        m = self.m[self._get_variable_index(variable)]
        self.assign(m, 0.5 * m + gradient)
        self.assign_sub(variable, learning_rate * ks.ops.sign(m))


def test_a_users_optimizer_has_a_stateless_form():
    ours, weights = Signed(0.25), variables(ks)
    ours.build(weights)
    before = values(weights)
    after, own = jax.jit(ours.stateless_apply)(values(ours.variables), GRADIENTS[0], before)
    for got, start, g in zip(after, START, GRADIENTS[0], strict=True):
        np.testing.assert_allclose(got, start - 0.25 * np.sign(g), rtol=1e-6)
    assert int(own[0]) == 1 and all((v == b).all() for v, b in zip(values(weights), before, strict=True))
    with pytest.raises(
        ValueError, match="must be a list of tensors corresponding 1:1 to Signed.* length 1, but expected 6"
    ):
        ours.stateless_apply(own[:1], GRADIENTS[0], after)
    with pytest.raises(ValueError, match="To call `stateless_apply`, SGD must be built"):
        ks.optimizers.SGD().stateless_apply([], [], [])


def test_errors_say_what_is_wrong():
    o = ks.optimizers
    with pytest.raises(TypeError, match="default_optimizer must be a Keras Optimizer instance. Received: sgd"):
        o.OptimizerMap("sgd")
    table = o.OptimizerMap(o.SGD(), {"a.*": o.Adam(), ".*b": o.Adam()})
    with pytest.raises(ValueError, match="Multiple optimizers assigned to variable ab"):
        table["ab"]
    with pytest.raises(ValueError, match="'a.*' already exists in the OptimizerMap"):
        table["a.*"] = o.SGD()
    with pytest.raises(ValueError, match="optimizer cannot be MultiOptimizer"):
        table["c"] = mapped(ks)
    with pytest.raises(AttributeError, match="Learning rate cannot be accessed on a MultiOptimizer"):
        _ = mapped(ks).learning_rate
    with pytest.raises(ValueError, match="does not support `weight_decay`. Instead, set `weight_decay` on"):
        o.LossScaleOptimizer(o.SGD(), weight_decay=0.1)
    with pytest.raises(ValueError, match="no longer supports `dynamic=False`"):
        o.LossScaleOptimizer(o.SGD(), dynamic=False)
    with pytest.raises(ValueError, match="has not yet been built"):
        o.SGD().set_weights([])


@pytest.mark.parametrize("name", ["Adafactor", "Lamb", "Muon", "mapped", "scaled"])
def test_fit_is_keras(name):
    """Ten steps of `fit`, weights and the optimizer's variables."""
    x = rng.normal(size=(16, 3)).astype("float32")
    y = (x @ np.asarray([[1.0], [-2.0], [0.5]])).astype("float32")
    found = []
    for library in (keras, ks):
        o = library.optimizers
        if name == "mapped":
            optimizer = o.MultiOptimizer(o.OptimizerMap(o.SGD(0.1), {".*bias": o.Adam(0.01)}))
        elif name == "scaled":
            optimizer = o.LossScaleOptimizer(o.Adam(0.01), initial_scale=4.0, dynamic_growth_steps=4)
        else:
            optimizer = getattr(o, name)(0.01)
        model = library.Sequential([library.Input((3,)), library.layers.Dense(4, "tanh"), library.layers.Dense(1)])
        shapes = [(3, 4), (4,), (4, 1), (1,)]
        model.set_weights([np.linspace(-1.0, 0.9, int(np.prod(s)), dtype="float32").reshape(s) for s in shapes])
        model.compile(optimizer, "mse")
        model.fit(x, y, batch_size=8, epochs=5, shuffle=False, verbose=0)
        found.append([*values(model.weights), *values(optimizer.variables)])
    for got, want in zip(*reversed(found), strict=True):
        np.testing.assert_allclose(got, want, rtol=1e-4, atol=1e-5)


def test_variables_of_a_users_optimizer_travel_or_are_named():
    class Counting(Signed):
        def build(self, variables):
            super().build(variables)
            self.count = ks.Variable(0.0, name="count", trainable=False)  # tracked as an attribute, as in Keras

        def update_step(self, gradient, variable, learning_rate):
            super().update_step(gradient, variable, learning_rate)
            self.count.assign_add(1.0)

    ours, weights = Counting(0.25), variables(ks)
    ours.apply(GRADIENTS[0], weights)
    assert float(ours.count) == 4.0 and [v.name for v in ours.variables][-1] == "count"
    assert dict(ours.trace_update(LAYOUT)[2]).keys() == {"m", "extra_0"}
    stray = ks.Variable(0.0, name="stray")

    class Stray(Signed):
        def update_step(self, gradient, variable, learning_rate):
            stray.assign_add(1.0)

    lost = Stray(0.25, name="lost")
    lost.apply(GRADIENTS[0], variables(ks))
    assert float(stray) == 4.0, "outside a graph any variable can be assigned"
    with pytest.raises(
        ValueError, match=r"optimizer 'lost' \(Stray\) assigns variables \['stray'\] in its `update_step`"
    ):
        lost.trace_update(LAYOUT)
    with pytest.raises(RuntimeError, match="you forgot to call `super"):
        type("Late", (Signed,), {"__init__": lambda self: setattr(self, "early", stray)})()


def test_callbacks_set_the_rates_of_several_optimizers_but_not_within_fit():
    o = ks.optimizers
    model = ks.Sequential([ks.Input((2,)), ks.layers.Dense(1)])
    inner = o.SGD(0.1, name="one"), o.SGD(0.01, name="two")
    model.compile(o.MultiOptimizer(o.OptimizerMap(inner[0], {".*bias": inner[1]}), name="all"), "mse")
    halve = ks.callbacks.LearningRateScheduler(lambda epoch, rate: rate / 2)
    halve.set_model(model)
    halve.on_epoch_begin(1)
    logs = {}
    halve.on_epoch_end(1, logs)
    assert logs == {"learning_rate_one": np.float32(0.05), "learning_rate_two": np.float32(0.005)}
    with pytest.raises(ValueError, match="those of a MultiOptimizer cannot be changed within `fit`"):
        model.fit(np.ones((4, 2)), np.ones((4, 1)), callbacks=[halve], verbose=0)

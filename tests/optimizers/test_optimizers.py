"""Every optimizer against Keras 3: 20 steps of the traced update graph, whole and in slices, and eagerly."""

from __future__ import annotations

import inspect

import jax
import keras
import numpy as np
import pytest
from kerasoft.compiler.layout import Layout
from kerasoft.compiler.lower import split_stages, stage_function

import kerasoft as ks

SHAPES = [(3, 4), (4,), (7,), (), (2, 2, 1, 2)]
P, STEPS, RATE = 32, 20, 0.05
rng = np.random.default_rng(5)
START = [rng.normal(size=shape).astype("float32") for shape in SHAPES]
GRADIENTS = [[rng.normal(size=shape).astype("float32") for shape in SHAPES] for _ in range(STEPS)]

TABLE = [
    ("SGD", {}),
    ("SGD", {"momentum": 0.9}),
    ("SGD", {"momentum": 0.9, "nesterov": True}),
    ("Adadelta", {}),
    ("Adagrad", {}),
    ("Adam", {}),
    ("Adam", {"amsgrad": True, "epsilon": 0.1}),
    ("AdamW", {"weight_decay": 0.05}),
    ("Adamax", {}),
    ("Ftrl", {}),
    (
        "Ftrl",
        {
            "l1_regularization_strength": 0.01,
            "l2_regularization_strength": 0.02,
            "beta": 0.1,
            "l2_shrinkage_regularization_strength": 0.01,
        },
    ),
    ("Lion", {}),
    ("Nadam", {}),
    ("RMSprop", {}),
    ("RMSprop", {"momentum": 0.5, "centered": True}),
    ("Adam", {"clipnorm": 0.5}),
    ("Adam", {"global_clipnorm": 0.7}),
    ("SGD", {"clipvalue": 0.1, "momentum": 0.5}),
    ("SGD", {"weight_decay": 0.1}),
    ("SGD", {"use_ema": True, "ema_momentum": 0.8, "ema_overwrite_frequency": 3}),
    ("Adam", {"gradient_accumulation_steps": 3}),
    ("Adagrad", {"gradient_accumulation_steps": 2, "use_ema": True, "weight_decay": 0.01, "clipnorm": 0.3}),
    ("RMSprop", {"schedule": True}),
    ("Nadam", {"gradient_accumulation_steps": 2, "schedule": True}),
    ("Lamb", {}),
    ("Lamb", {"weight_decay": 0.1, "epsilon": 0.01, "clipnorm": 1.0}),
    ("ScheduleFreeAdamW", {"weight_decay": 0.01}),
    ("ScheduleFreeAdamW", {"warmup_steps": 6, "beta_1": 0.8, "epsilon": 1e-4}),
    ("Adafactor", {}),
    ("Adafactor", {"relative_step": False, "clip_threshold": 0.5, "weight_decay": 0.1, "schedule": True}),
    ("Muon", {}),
    ("Muon", {"exclude_layers": ["v4"], "rms_rate": None, "nesterov": False, "gradient_accumulation_steps": 2}),
]
WHOLE = ("Adafactor", "Muon", "LossScaleOptimizer", "MultiOptimizer")  # fmt: skip
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")  # Keras' Variable.numpy
WRAPPERS, OURS = {"LossScaleOptimizer", "MultiOptimizer", "OptimizerMap"}, {"LARS"}


def named(value):
    return value if isinstance(value, str) else "+".join(value)


def variables(library):
    return [library.Variable(value, name=f"v{i}") for i, value in enumerate(START)]


def optimizer(library, name, arguments):
    arguments = dict(arguments)
    rate = RATE
    if arguments.pop("schedule", False):
        rate = library.optimizers.schedules.ExponentialDecay(RATE, 4, 0.5)
    return getattr(library.optimizers, name)(rate, **arguments)


def keras_trajectory(name, arguments, steps=STEPS):
    """Keras' variables after `steps` steps: the weights, the optimizer's own."""
    theirs, weights = optimizer(keras, name, arguments), variables(keras)
    theirs.build(weights)
    step = jax.jit(theirs.stateless_apply)
    own, values = [v.value for v in theirs.variables], [v.value for v in weights]
    for gradients in GRADIENTS[:steps]:
        values, own = step(own, gradients, values)
    return [np.asarray(v) for v in values], [np.asarray(v) for v in own], [v.name for v in theirs.variables]


def flat(arrays):
    return np.concatenate([np.ravel(a) for a in arrays])


LAYOUT = Layout.of([(f"v{i}", shape) for i, shape in enumerate(SHAPES)], sums={"loss/total": ()})


class Traced:
    """An optimizer's update graph, run over slices of the vector with the sums that the runtime would make."""

    def __init__(self, ours, slices=((0, P),)):
        self.ours, self.slices = ours, slices
        self.graph, self.mode, self.specs = ours.trace_update(LAYOUT)
        self.names = [n.attrs["name"] for n in self.graph.inputs]
        self.stages = split_stages(self.graph)
        self.run = {piece: [self.compiled(k, piece) for k in range(len(self.stages))] for piece in slices}

    def compiled(self, k, piece):
        stage = stage_function(self.graph, self.stages, k, {"n": piece[1] - piece[0]})
        return jax.jit(lambda arrays, *rest: stage(dict(zip(self.graph.inputs, arrays, strict=True)), *rest))

    def step(self, param, slots, gradient, iteration):
        whole = {"param": param, "gradient": gradient, "segment": LAYOUT.segments()}
        whole |= {f"slot/{name}": slot for (name, _), slot in zip(self.specs, slots, strict=True)}
        control = {"learning_rate": np.float32(RATE), "iteration": np.int32(iteration)}
        arrays = [
            [control[n] if n in control else whole[n][slice(*piece)] for n in self.names] for piece in self.slices
        ]
        carried, reduced = [() for _ in self.slices], None
        for k in range(len(self.stages)):
            given = zip(self.slices, arrays, carried, strict=True)
            results = [self.run[piece][k](a, c, reduced) for piece, a, c in given]
            carried = [r[0] for r in results]
            if k + 1 < len(self.stages):
                reduced = sum(r[1] for r in results)
        outputs = [np.concatenate(parts) for parts in zip(*(r[1] for r in results), strict=True)]
        return outputs[0], outputs[1:]

    def trajectory(self, steps=STEPS):
        param, slots = flat(START), list(self.ours.variables_to_slots(LAYOUT))
        for i, gradients in enumerate(GRADIENTS[:steps]):
            param, slots = self.step(param, slots, flat(gradients), i)
        return param, slots


def test_every_public_optimizer_has_a_row_and_keras_name():
    assert {name for name, _ in TABLE} | WRAPPERS | OURS == {cls.__name__ for cls in ks.optimizers.CLASSES}
    public = {name for name in dir(keras.optimizers) if name[0].isupper()}
    assert {cls.__name__ for cls in ks.optimizers.CLASSES} - OURS == public - {"Optimizer"}


@pytest.mark.parametrize("name", [c.__name__ for c in ks.optimizers.CLASSES if c.__name__ not in OURS] + ["Optimizer"])
def test_signatures_are_keras(name):
    def shown(thing):
        return [(p.name, p.default) for p in inspect.signature(thing).parameters.values()]

    assert shown(getattr(ks.optimizers, name)) == shown(getattr(keras.optimizers, name))


@pytest.mark.parametrize(("name", "arguments"), TABLE, ids=named)
def test_20_traced_steps_are_keras(name, arguments):
    expected, own, names = keras_trajectory(name, arguments)
    ours, weights = optimizer(ks, name, arguments), variables(ks)
    ours.build(weights)
    summed = any(key in arguments for key in ("clipnorm", "global_clipnorm"))
    traced = Traced(ours, ((0, 8), (8, 16), (16, P)) if summed else ((0, P),))
    assert traced.mode == ("replicated" if name in WHOLE else "sliced")
    assert len(traced.stages) == (3 if name == "Lamb" and summed else 2 if summed or name == "Lamb" else 1)
    assert ("segment" in traced.names) == ("clipnorm" in arguments or name == "Lamb")
    param, slots = traced.trajectory()
    np.testing.assert_allclose(param, flat(expected), rtol=1e-5, atol=1e-5)
    ours.slots_to_variables(LAYOUT, slots, STEPS)
    shown = [v.name if not v.name.startswith("variable") else "variable" for v in ours.variables]
    assert shown == [n if not n.startswith("variable") else "variable" for n in names]
    for variable, value in zip(ours.variables, own, strict=True):
        np.testing.assert_allclose(variable.numpy(), value, rtol=1e-4, atol=1e-5, err_msg=variable.name)
    for before, after in zip(slots, ours.variables_to_slots(LAYOUT), strict=True):
        np.testing.assert_array_equal(before, after)


@pytest.mark.parametrize("arguments", [{"clipnorm": 0.5}, {"global_clipnorm": 0.7, "weight_decay": 0.1}], ids=named)
def test_slices_and_the_whole_agree(arguments):
    """Slices cut through variables, one of them empty; names are left out of the decay."""
    results = []
    for slices in (((0, P),), ((0, 10), (10, 13), (13, 13), (13, P))):
        ours = ks.optimizers.Adam(RATE, **arguments)
        ours.exclude_from_weight_decay(var_names=["v1", "v3"])
        ours.build(variables(ks))
        results.append(Traced(ours, slices).trajectory(5)[0])
    np.testing.assert_allclose(*results, rtol=1e-5, atol=1e-6)


def test_weights_left_out_of_the_decay_are_keras():
    results = []
    for library in (keras, ks):
        weights = variables(library)
        chosen = library.optimizers.AdamW(RATE, weight_decay=0.5)
        chosen.exclude_from_weight_decay(var_list=[weights[2]], var_names=["v1"])
        for gradients in GRADIENTS[:3]:
            chosen.apply(gradients, weights)
        results.append(flat([np.asarray(v.value) for v in weights]))
    np.testing.assert_allclose(*results, rtol=1e-5, atol=1e-6)
    with pytest.raises(ValueError, match="can only be configured before the optimizer is built"):
        chosen.exclude_from_weight_decay(var_names=["v0"])


EAGER = [
    ("SGD", {"momentum": 0.9, "clipnorm": 0.5}),
    ("Adam", {"use_ema": True, "gradient_accumulation_steps": 2, "weight_decay": 0.1, "loss_scale_factor": 4.0}),
    ("Nadam", {"schedule": True}),
]


@pytest.mark.parametrize(("name", "arguments"), EAGER, ids=named)
def test_eager_steps_are_keras(name, arguments):
    expected, own, _ = keras_trajectory(name, arguments, steps=4)
    ours, weights = optimizer(ks, name, arguments), variables(ks)
    for gradients in GRADIENTS[:4]:
        assert ours.apply_gradients(zip(gradients, weights, strict=True)) is ours.variables[0]
    np.testing.assert_allclose(flat([w.numpy() for w in weights]), flat(expected), rtol=1e-5, atol=1e-6)
    for variable, value in zip(ours.variables, own, strict=True):
        np.testing.assert_allclose(variable.numpy(), value, rtol=1e-4, atol=1e-6)
    store = {}
    ours.save_own_variables(store)
    again = optimizer(ks, name, arguments)
    again.build(variables(ks))
    again.load_own_variables(store)
    assert all((a.numpy() == b.numpy()).all() for a, b in zip(again.variables, ours.variables, strict=True))


def test_missing_gradients_leave_weights_as_they_are():
    weights = variables(ks)
    ours = ks.optimizers.Adam(RATE, use_ema=True)
    ours.build(weights)
    with pytest.warns(UserWarning, match=r"Gradients do not exist for variables \['v1', 'v4'\]"):
        ours.apply([GRADIENTS[0][0], None, *GRADIENTS[0][2:4], None])
    np.testing.assert_array_equal(weights[1].numpy(), START[1])
    moved = [w.numpy() for w in weights]
    ours.finalize_variable_values(weights)
    assert all((w.numpy() == m).all() for w, m in zip(weights, moved, strict=True)), "the first average is a copy"


class Heavy(ks.optimizers.Optimizer):
    """A user's optimizer as one would write it for Keras: momentum, and a count of its own."""

    def build(self, variables):
        super().build(variables)
        self.momentums = [self.add_variable_from_reference(v, name="momentum") for v in variables]
        self.calls = self.add_variable((), name="calls")

    def update_step(self, gradient, variable, learning_rate):
        m = self.momentums[self._get_variable_index(variable)]
        self.assign(m, ks.ops.subtract(m * 0.9, gradient * learning_rate))
        self.assign_add(variable, m)
        self.assign_add(self.calls, 1.0)


def test_a_users_update_step_gets_whole_variables():
    expected, _, _ = keras_trajectory("SGD", {"momentum": 0.9, "global_clipnorm": 1.0}, steps=5)
    ours = Heavy(RATE, global_clipnorm=1.0)
    ours.build(variables(ks))
    traced = Traced(ours)
    assert traced.mode == "replicated" and len(traced.stages) == 1, "norms are of the whole vector on every rank"
    assert [name for name, _ in traced.specs] == ["momentum", "extra_0"]
    param, slots = traced.trajectory(5)
    np.testing.assert_allclose(param, flat(expected), rtol=1e-5, atol=1e-5)
    ours.slots_to_variables(LAYOUT, slots, 5)
    assert float(ours.calls) == 25.0 and int(ours.iterations) == 5
    eager, weights = Heavy(RATE, global_clipnorm=1.0), variables(ks)
    for gradients in GRADIENTS[:5]:
        eager.apply(gradients, weights)
    np.testing.assert_allclose(flat([w.numpy() for w in weights]), flat(expected), rtol=1e-5, atol=1e-5)
    assert float(eager.calls) == 25.0


def test_a_subclass_may_change_the_gradient_of_a_built_in_step():
    class Signed(ks.optimizers.SGD):
        def update_step(self, gradient, variable, learning_rate):
            super().update_step(ks.ops.sign(gradient), variable, learning_rate)

    ours = Signed(RATE, momentum=0.5)
    ours.build(variables(ks))
    plain = ks.optimizers.SGD(RATE, momentum=0.5)
    plain.build(variables(ks))
    traced, reference = Traced(ours), Traced(plain)
    param, slots = flat(START), ours.variables_to_slots(LAYOUT)
    got = traced.step(param, slots, flat(GRADIENTS[0]), 0)[0]
    want = reference.step(param, slots, np.sign(flat(GRADIENTS[0])), 0)[0]
    np.testing.assert_allclose(got, want, rtol=1e-6)


def test_constraints_come_last():
    weights = variables(ks)
    weights[1].constraint = ks.constraints.NonNeg()
    ours = ks.optimizers.SGD(RATE)
    ours.build(weights)
    traced = Traced(ours)
    assert traced.mode == "replicated"
    param, _ = traced.step(flat(START), (), flat(GRADIENTS[0]), 0)
    want = flat(START) - np.float32(RATE) * flat(GRADIENTS[0])
    want[12:16] = np.maximum(want[12:16], 0.0)
    np.testing.assert_allclose(param, want, rtol=1e-6)
    ours.apply(GRADIENTS[0])
    np.testing.assert_allclose(flat([w.numpy() for w in weights]), want, rtol=1e-6)


def test_the_learning_rate_can_be_set_unless_scheduled():
    ours = ks.optimizers.Adam(0.5)
    assert float(ours.learning_rate) == 0.5
    ours.learning_rate = 0.25
    assert float(ours.learning_rate) == 0.25 and ours.get_config()["learning_rate"] == 0.25
    ours.learning_rate = ks.optimizers.schedules.ExponentialDecay(0.5, 1, 0.5)
    assert [v.name for v in ours.variables] == ["iteration"]
    ours.variables[0].assign(2)
    assert float(ours.learning_rate) == 0.125
    with pytest.raises(TypeError, match="created with a `LearningRateSchedule` .* not settable"):
        ours.learning_rate = 0.1
    assert float(ks.optimizers.SGD(lambda: 0.125).learning_rate) == 0.125


@pytest.mark.parametrize(("name", "arguments"), TABLE, ids=named)
def test_configs_are_keras_and_round_trip(name, arguments):
    arguments = {**arguments, "name": "mine"}
    ours, theirs = optimizer(ks, name, arguments), optimizer(keras, name, arguments)
    config = ks.optimizers.serialize(ours)
    assert config == keras.optimizers.serialize(theirs)
    again = ks.optimizers.deserialize(config)
    assert type(again) is type(ours) and again.get_config() == ours.get_config()


@pytest.mark.parametrize("identifier", ["adam", "Adam", "sgd", "SGD", "rmsprop", "RMSprop", "adamw", "nadam", "lion"])
def test_get_takes_keras_names(identifier):
    assert type(ks.optimizers.get(identifier)).__name__ == type(keras.optimizers.get(identifier)).__name__


def test_errors_say_what_is_wrong():
    Adam, SGD = ks.optimizers.Adam, ks.optimizers.SGD
    with pytest.raises(ValueError, match="Could not interpret optimizer identifier: adm"):
        ks.optimizers.get("adm")
    with pytest.raises(ValueError, match="`learning_rate` should be float.* Received instead: learning_rate=1$"):
        Adam(1)
    with pytest.raises(ValueError, match="Only one of `clipnorm`, `clipvalue` and `global_clipnorm`"):
        Adam(clipnorm=1.0, clipvalue=1.0)
    with pytest.raises(ValueError, match="`gradient_accumulation_steps` must be an integer >= 2"):
        Adam(gradient_accumulation_steps=1)
    with pytest.raises(ValueError, match=r"`ema_momentum` must be in the range \[0, 1\]"):
        Adam(use_ema=True, ema_momentum=2)
    with pytest.raises(ValueError, match="`ema_overwrite_frequency` must be an integer >= 1"):
        Adam(use_ema=True, ema_overwrite_frequency=0.5)
    with pytest.raises(ValueError, match=r"Argument\(s\) not recognized: {'lr': 1}"):
        Adam(lr=1)
    with pytest.raises(ValueError, match=r"`momentum` must be a float between \[0, 1\]"):
        SGD(momentum=1)
    with pytest.raises(ValueError, match="`weight_decay` must be a float"):
        ks.optimizers.AdamW(weight_decay=None)
    with pytest.raises(ValueError, match="degenerates to SignSGD"):
        ks.optimizers.Lion(beta_1=0.0)
    with pytest.raises(ValueError, match="`l1_regularization_strength` needs to be positive"):
        ks.optimizers.Ftrl(l1_regularization_strength=-1.0)
    with pytest.raises(ValueError, match="optimizer 'adam' must be built first"):
        Adam(name="adam").trace_update(LAYOUT)
    weights, built = variables(ks), SGD()
    built.build(weights[:2])
    with pytest.raises(
        ValueError, match=r"built for \['v0', 'v1'\], the layout holds \['v0', 'v1', 'v2', 'v3', 'v4'\]"
    ):
        built.trace_update(LAYOUT)
    with pytest.raises(ValueError, match="Unknown variable: .*path=v2"):
        built.apply(GRADIENTS[0], weights)
    with pytest.raises(ValueError, match="Received a list of 5 gradients, but the optimizer is tracking 2"):
        built.apply(GRADIENTS[0])
    with pytest.raises(ValueError, match="No gradients provided for any variable"):
        built.apply([None, None])
    with pytest.warns(UserWarning, match="has 2 variables whereas the saved optimizer has 1"):
        built.load_own_variables({"0": np.zeros(())})
    with pytest.raises(NotImplementedError, match="optimizer Optimizer must override `update` or `update_step`"):
        ks.optimizers.Optimizer(0.1).apply(GRADIENTS[0], weights)
    giant = Heavy(0.1)
    giant.build(weights)
    giant.add_variable((100,), name="table")
    with pytest.raises(ValueError, match="has 100 elements, more than the 32 of all weights"):
        giant.trace_update(LAYOUT)

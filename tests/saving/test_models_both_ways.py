"""Whole models of every kind, both ways with Keras: compiled state, own classes and functions, sharing, dicts, Lambda."""

import os

os.environ["KERAS_BACKEND"] = "jax"

import json

import keras
import numpy as np
import pytest

import kerasoft as ks
from kerasoft import tree
from kerasoft.errors import UnsafeFileError

pytestmark = [
    pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning"),  # inside Keras
    pytest.mark.filterwarnings("ignore:.*includes a `lambda`:UserWarning"),
]
X = np.random.default_rng(0).normal(size=(4, 6)).astype("float32")
DIRECTIONS = pytest.mark.parametrize("source, target", [(keras, ks), (ks, keras)], ids=["theirs", "ours"])


def chain(k):
    return k.Sequential([k.Input((6,)), k.layers.Dense(3, activation="relu"), k.layers.Dense(2)])


def close(got, want, **tolerance):
    for a, b in zip(tree.flatten(got), tree.flatten(want), strict=True):
        np.testing.assert_allclose(np.asarray(a), np.asarray(b), **{"rtol": 1e-5, "atol": 1e-5, **tolerance})


def clear():
    keras.utils.clear_session(free_memory=False)
    ks.utils.clear_session(free_memory=False)


# --- compiled state: training goes on as if nothing had happened ---

COMPILED = {
    "schedule": lambda k: {
        "optimizer": k.optimizers.Adam(k.optimizers.schedules.ExponentialDecay(0.1, 2, 0.5)), "loss": "mse",
        "metrics": ["mae"],
    },
    "averages": lambda k: {
        "optimizer": k.optimizers.SGD(0.1, momentum=0.9, use_ema=True, ema_momentum=0.5), "loss": k.losses.LogCosh()
    },
    "clipping": lambda k: {
        "optimizer": k.optimizers.AdamW(0.01, weight_decay=0.1, global_clipnorm=1.0), "loss": "mae",
        "metrics": [k.metrics.MeanSquaredError(name="q"), "mae"], "weighted_metrics": ["mse"],
    },
    "accumulation": lambda k: {
        "optimizer": k.optimizers.RMSprop(0.01, gradient_accumulation_steps=2), "loss": "mse", "loss_weights": 2.0
    },
    "muon": lambda k: {"optimizer": k.optimizers.Muon(0.01), "loss": "mse"},
}  # fmt: skip


@DIRECTIONS
@pytest.mark.parametrize("name", COMPILED)
def test_compiled_state_goes_both_ways(name, source, target, tmp_path):
    clear()
    y = np.ones((4, 2), "float32")
    before = chain(source)
    before.compile(**COMPILED[name](source))
    before.fit(X, y, verbose=0, shuffle=False)
    before.save(tmp_path / "m.keras")
    after = target.saving.load_model(tmp_path / "m.keras")
    close([np.asarray(v) for v in after.optimizer.variables], [np.asarray(v) for v in before.optimizer.variables])
    assert not target.saving.load_model(tmp_path / "m.keras", compile=False).compiled
    if name == "averages":
        return  # Keras itself fails on a second fit: it donates one buffer twice
    history = [m.fit(X, y, verbose=0, shuffle=False).history for m in (before, after)]
    assert history[0].keys() == history[1].keys()
    close(list(history[1].values()), list(history[0].values()), rtol=1e-4)
    close(after(X), before(X))


# --- own classes and functions ---


def layer_class(k):
    @k.saving.register_keras_serializable("both_ways")
    class Gain(k.layers.Layer):
        def __init__(self, factor=2.0, inner=None, **kwargs):
            super().__init__(**kwargs)
            self.factor, self.inner = factor, inner or k.layers.Dense(6)
            self.parts = [k.layers.Dense(6), k.layers.Dense(6)]
            self.named = {"a": k.layers.Dense(6)}

        def build(self, input_shape):
            self.gain = self.add_weight(shape=(input_shape[-1],), initializer="ones", name="gain")
            for layer in (self.inner, *self.parts, self.named["a"]):
                if not layer.built:
                    layer.build(input_shape)

        def call(self, x):
            x = self.inner(x) * self.gain * self.factor
            for layer in self.parts:
                x = layer(x)
            return self.named["a"](x)

        def get_config(self):
            inner = k.saving.serialize_keras_object(self.inner)
            return {**super().get_config(), "factor": self.factor, "inner": inner}

        @classmethod
        def from_config(cls, config):
            return cls(**{**config, "inner": k.saving.deserialize_keras_object(config["inner"])})

    return Gain


def model_class(k):
    @k.saving.register_keras_serializable("both_ways")
    class Tower(k.Model):
        def __init__(self, units=3, **kwargs):
            super().__init__(**kwargs)
            self.units, self.first = units, k.layers.Dense(units)
            self.rest = [k.layers.Dense(2) for _ in range(2)]

        def call(self, x, training=False):
            x = self.first(x)
            for layer in self.rest:
                x = layer(x)
            return x

        def get_config(self):
            return {**super().get_config(), "units": self.units}

    return Tower


GAIN = {k: layer_class(k) for k in (keras, ks)}
TOWER = {k: model_class(k) for k in (keras, ks)}


def plain_class(k):
    class Plain(k.layers.Layer):
        def __init__(self, factor=2.0, **kwargs):
            super().__init__(**kwargs)
            self.factor = factor

        def call(self, x):
            return x * self.factor

        def get_config(self):
            return {**super().get_config(), "factor": self.factor}

    return Plain


PLAIN = {k: plain_class(k) for k in (keras, ks)}


def doubled(x):
    return x * 2


def squared(y_true, y_pred):
    return (y_true - y_pred) ** 2


def tower(k):
    model = TOWER[k](5)
    model(X)
    return model


@DIRECTIONS
@pytest.mark.parametrize("make", [lambda k: k.Sequential([k.Input((6,)), GAIN[k](3.0)]), tower], ids=["layer", "model"])
def test_registered_classes_go_both_ways(make, source, target, tmp_path):
    clear()
    model = make(source)
    model.save(tmp_path / "m.keras")
    close(target.saving.load_model(tmp_path / "m.keras")(X), model(X))


@DIRECTIONS
def test_custom_objects_go_both_ways(source, target, tmp_path):
    clear()
    model = source.Sequential([source.Input((6,)), PLAIN[source](3.0), source.layers.Dense(2, activation=doubled)])
    model.compile("sgd", loss=squared, metrics=[squared])
    model.save(tmp_path / "m.keras")
    known = {"Plain": PLAIN[target], "doubled": doubled, "squared": squared}
    with pytest.raises(TypeError, match="Could not locate class 'Plain'"):
        target.saving.load_model(tmp_path / "m.keras")
    read = target.saving.load_model(tmp_path / "m.keras", custom_objects=known)
    close(read(X), model(X))
    with target.saving.CustomObjectScope(known):
        close(target.saving.load_model(tmp_path / "m.keras").predict(X, verbose=0), model(X))


# --- graphs ---


def dicts(k):
    dense, a, b = k.layers.Dense(6), k.Input((6,), name="p"), k.Input((6,), name="q")
    return k.Model({"p": a, "q": b}, {"o": dense(a) + dense(b), "r": (dense(dense(a)), b * 2.0)})


def twice(k):
    x = k.Input((6,))
    h = k.layers.Dense(4)(x)
    inner = k.Model(x, [h, h * 2], name="inner")
    y = k.Input((6,))
    (a, b), (c, d) = inner(y), inner(y + 1.0)
    return k.Model(y, k.layers.Concatenate()([a, b, c, d]))


def functions(k):
    x, ops = k.Input((6,), batch_size=4), k.ops
    return k.Model(
        x,
        [
            x[:, 1:3], x[..., ::2], -x / 2.0 + 1, x**2, ops.where(x > 0, x, 0.0 * x), ops.einsum("bi,bj->bij", x, x),
            ops.mean(x, axis=1, keepdims=True), ops.stack([x, x], 1), ops.split(x, 2, axis=1)[1], ops.clip(x, -0.5, 0.5),
            ops.one_hot(ops.argmax(x, 1), 6), ops.top_k(x, 2)[0], ops.cast(x, "int32"), ops.pad(x, ((0, 0), (1, 2))),
            ops.image.resize(ops.reshape(x, (-1, 2, 3, 1)), (4, 4)), ops.transpose(ops.reshape(x, (-1, 2, 3)), (0, 2, 1)),
        ],
    )  # fmt: skip


def wrapped(k):
    back = k.layers.GRU(3, return_sequences=True, go_backwards=True)
    return k.Sequential(
        [
            k.Input((3, 2)),
            k.layers.Bidirectional(k.layers.LSTM(3, return_sequences=True), backward_layer=back),
            k.layers.TimeDistributed(k.layers.Dense(2, kernel_constraint="non_neg", kernel_regularizer="l2")),
        ]
    )


def masked(k):
    """Two layers of one shape, whose order depends on the length of a mask's way."""
    L, x = k.layers, k.Input((3, 2))
    y = L.LSTM(3)(L.Masking()(L.Dense(4)(x)))
    return k.Model(x, L.Concatenate()([L.LSTM(3)(L.LayerNormalization()(L.Dense(4)(x))), y]))


def handed_on(k):
    """Recurrent layers that begin with the states of others."""
    L, x = k.layers, k.Input((3, 2))
    y, *states = L.LSTM(3, return_sequences=True, return_state=True)(x)
    z = L.LSTM(3, return_sequences=True)(x, initial_state=states)
    both = L.Bidirectional(L.LSTM(3))(L.Concatenate()([y, z]), initial_state=[*states, *states])
    return k.Model(x, [both, L.GRU(3)(x, initial_state=states[0])])


def of_two_axes(k):
    x = k.Input((3, 2))
    y = k.layers.LayerNormalization(axis=[1, -1], gamma_initializer="glorot_uniform")(x)
    return k.Model(x, k.layers.LayerNormalization(axis=[-2, 2], center=False)(y))


GRAPHS = {
    "masked": (masked, X.reshape(4, 3, 2)),
    "handed on": (handed_on, X.reshape(4, 3, 2)),
    "of two axes": (of_two_axes, X.reshape(4, 3, 2)),
    "dicts": (dicts, {"p": X, "q": X + 1}),
    "twice": (twice, X),
    "functions": (functions, X),
    "wrapped": (wrapped, X.reshape(4, 3, 2)),
}


@DIRECTIONS
@pytest.mark.parametrize("name", GRAPHS)
def test_graphs_go_both_ways(name, source, target, tmp_path):
    clear()
    make, x = GRAPHS[name]
    model = make(source)
    model.save(tmp_path / "m.keras")
    read = target.saving.load_model(tmp_path / "m.keras")
    close(read(x), model(x))
    again = target.models.model_from_json(model.to_json(indent=1))
    again.set_weights(model.get_weights())
    close(again(x), model(x))


def test_json_is_that_of_keras():
    for compiled in (False, True):
        clear()
        pair = [chain(k) for k in (keras, ks)]
        for model in pair:
            if compiled:
                model.compile("adam", "mse", metrics=["mae"])
        theirs, ours = (json.loads(model.to_json()) for model in pair)
        assert ours == theirs


# --- Lambda ---


@DIRECTIONS
def test_a_lambda_layer_needs_the_users_word(source, target, tmp_path):
    clear()
    model = source.Sequential([source.Input((6,)), source.layers.Lambda(lambda x: x * 2.0)])
    model.save(tmp_path / "m.keras")
    with pytest.raises(ValueError, match="Requested the deserialization of a `Lambda` layer"):
        target.saving.load_model(tmp_path / "m.keras")
    close(target.saving.load_model(tmp_path / "m.keras", safe_mode=False)(X), 2 * X)
    if target is ks:
        with pytest.raises(UnsafeFileError):
            ks.models.model_from_json(model.to_json())


# --- the editor ---


def test_the_editor_changes_files(tmp_path, capsys):
    clear()
    model = chain(ks)
    model.save(tmp_path / "m.keras")
    model.save_weights(tmp_path / "m.weights.h5")
    editor = ks.saving.KerasFileEditor(tmp_path / "m.weights.h5")
    assert editor.compare(model) == {"status": "success", "error_count": 0, "match_count": 4}
    editor.delete_object("layers/dense_1")
    editor.add_object("layers/dense_1", {"0": np.ones((3, 5), "float32")})
    editor.add_weights("dense_1", {"1": np.zeros(5, "float32"), "2": np.zeros(1)})
    editor.delete_weight("dense_1", "2")
    editor.rename_object("dense", "wide")
    editor.rename_object("layers/wide", "dense")
    editor.save(tmp_path / "e.weights.h5")
    for k in (ks, keras):
        wider = k.Sequential([k.Input((6,)), k.layers.Dense(3, activation="relu"), k.layers.Dense(5)])
        wider.load_weights(tmp_path / "e.weights.h5")
        close(wider.get_weights()[:2], model.get_weights()[:2])
        assert (np.asarray(wider.get_weights()[2]) == 1).all()
    assert editor.compare(model)["error_count"] == 2
    assert "Weight shape mismatch for /layers/dense_1/0" in capsys.readouterr().out
    zipped = ks.saving.KerasFileEditor(str(tmp_path / "m.keras"))
    assert zipped.config["class_name"] == "Sequential" and zipped.metadata["keras_version"] == "3.15.1"
    for call, text in (
        (lambda: ks.saving.KerasFileEditor("m.h5"), "expected a `.keras` `.weights.h5` extension"),
        (lambda: editor.delete_object("layers/none"), "Path 'layers/none' not found in model"),
        (lambda: editor.delete_object("none"), "Source name 'none' does not appear in the model"),
        (lambda: editor.rename_object("dense", "a/b"), "should be a leaf name"),
        (lambda: editor.delete_weight("dense", "7"), "Weight 7 not found in object dense"),
        (lambda: editor.add_object("x/y", {}), "Path 'x' not found in model"),
        (lambda: editor.add_object("x", []), "should be a dict where keys are weight names"),
        (lambda: editor.save("m.keras"), "expected a `.weights.h5` extension"),
    ):
        with pytest.raises(ValueError, match=text):
            call()

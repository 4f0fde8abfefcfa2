"""Subclassed models and layers: where their weights lie in a file, as in Keras, and that they come back."""

import os

os.environ["KERAS_BACKEND"] = "jax"

import h5py
import numpy as np
import pytest

import kerasoft as ks

keras = pytest.importorskip("keras")
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")  # inside Keras

X = np.random.default_rng(0).normal(size=(2, 4)).astype("float32")


def classes(k):
    class Gate(k.layers.Layer):
        def __init__(self, units, **kwargs):
            super().__init__(**kwargs)
            self.units = units
            self.inner = k.layers.Dense(units)

        def build(self, input_shape):
            self.inner.build(input_shape)
            self.scale = self.add_weight(shape=(self.units,), initializer="ones", name="scale")
            self.seen = self.add_weight(shape=(), initializer="zeros", trainable=False, name="seen")

        def call(self, x):
            return self.inner(x) * self.scale

        def get_config(self):
            return {**super().get_config(), "units": self.units}

    class Net(k.Model):
        def __init__(self, width=3, **kwargs):
            super().__init__(**kwargs)
            self.width = width
            self.zoo = {"b": k.layers.Dense(width), "a": k.layers.Dense(width)}
            self.blocks = [k.layers.Dense(width), [Gate(width), k.layers.Dense(width)]]
            self.out = k.layers.Dense(1)
            self._secret = k.layers.Dense(1)

        def call(self, x):
            x = self.zoo["b"](x) + self.zoo["a"](x)
            x = self.blocks[0](x)
            for block in self.blocks[1]:
                x = block(x)
            return self.out(x) + self._secret(x)

        def get_config(self):
            return {**super().get_config(), "width": self.width}

    return Gate, Net


def groups(path):
    found = {}
    with h5py.File(path) as file:
        file.visititems(lambda n, o: found.update({n: getattr(o, "shape", None)}))
    return found


def test_group_names_and_weights_are_those_of_keras(tmp_path):
    keras.utils.clear_session(free_memory=False)
    ks.utils.clear_session(free_memory=False)
    theirs, ours = classes(keras)[1](), classes(ks)[1]()
    theirs(X), ours(X)
    assert [w.path for w in ours.weights] == [w.path for w in theirs.weights]
    theirs.save_weights(tmp_path / "t.weights.h5")
    ours.save_weights(tmp_path / "o.weights.h5")
    assert groups(tmp_path / "o.weights.h5") == groups(tmp_path / "t.weights.h5")
    ours.load_weights(tmp_path / "t.weights.h5")
    np.testing.assert_allclose(ours(X), np.asarray(theirs(X)), rtol=1e-4, atol=1e-5)


def test_a_subclassed_model_comes_back(tmp_path):
    gate, net = classes(ks)
    model = net(5)
    want = np.asarray(model(X))
    model.save(tmp_path / "m.keras")
    again = ks.saving.load_model(tmp_path / "m.keras", custom_objects={"Gate": gate, "Net": net})
    assert again.width == 5
    np.testing.assert_array_equal(again(X), want)
    inside = ks.Sequential([ks.Input((4,)), gate(2)])
    inside.save(tmp_path / "g.keras")
    with ks.saving.custom_object_scope({"Gate": gate}):
        np.testing.assert_array_equal(ks.saving.load_model(tmp_path / "g.keras")(X), inside(X))


def test_a_model_with_a_build_of_its_own():
    class Own(ks.Model):
        def build(self, input_shape):
            self.w = self.add_weight((input_shape[-1], 2), "ones", name="w")

        def call(self, x):
            return ks.ops.matmul(x, self.w)

    model = Own()
    np.testing.assert_allclose(model(X), X @ np.ones((4, 2)), rtol=1e-5)
    assert len(model.weights) == 1

"""The table of `summary()`, character by character as Keras draws it."""

import os

os.environ["KERAS_BACKEND"] = "jax"

import numpy as np
import pytest

import kerasoft as ks

keras = pytest.importorskip("keras")


def chain(k):
    return k.Sequential([k.Input((4,)), k.layers.Dense(1300), k.layers.BatchNormalization(), k.layers.Dense(2)])


def branches(k):
    a, b = k.Input((4,), name="a"), k.Input((4,), name="b")
    shared = k.layers.Dense(3, name="a_rather_long_name_for_a_layer")
    return k.Model([a, b], k.layers.Concatenate()([shared(a), shared(b), a * 2.0]))


def late(k):
    return k.Sequential([k.layers.Dense(3), k.layers.Dense(2)])


def line(k):
    x = k.Input((4, 5))
    return k.Model(x, k.layers.Flatten()(x))


def text(model, **kwargs):
    parts = []
    model.summary(print_fn=lambda s, **_: parts.append(s), **kwargs)
    return "\n".join(parts).rstrip()


@pytest.mark.parametrize("build", [chain, branches, late, line], ids=lambda f: f.__name__)
@pytest.mark.parametrize("options", [{}, {"line_length": 70}, {"show_trainable": True}], ids=str)
def test_tables_are_those_of_keras(build, options):
    keras.utils.clear_session(free_memory=False)
    ks.utils.clear_session(free_memory=False)
    want = "\n".join(row.rstrip() for row in text(build(keras), **options).splitlines())
    assert text(build(ks), **options) == want


def test_nested_models_are_expanded_on_demand():
    inner = ks.Sequential([ks.Input((4,)), ks.layers.Dense(3, name="deep")], name="inner")
    model = ks.Sequential([ks.Input((4,)), inner])
    assert "deep" not in text(model)
    assert "   └ deep (Dense)" in text(model, expand_nested=True)


def test_a_range_of_layers(capsys):
    model = ks.Sequential([ks.Input((4,)), *(ks.layers.Dense(2, name=n) for n in "uvw")])
    model.summary(layer_range=("u", "v"))
    shown = capsys.readouterr().out
    assert "v (Dense)" in shown and "w (Dense)" not in shown
    with pytest.raises(ValueError, match="does not match any layer"):
        model.summary(layer_range=("x", "y"))
    with pytest.raises(ValueError, match="Insufficient console width"):
        model.summary(line_length=10)


def test_optimizer_parameters_are_counted():
    model = ks.Sequential([ks.Input((4,)), ks.layers.Dense(2)])
    model.compile("sgd", "mse")
    model.optimizer.build(model.trainable_weights)
    assert " Optimizer params: 2 (8.00 B)" in text(model)
    assert np.prod(model.weights[0].shape) == 8

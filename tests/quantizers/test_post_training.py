"""Post-training quantisation: integers against NumPy, structure, files, guard, and where it computes."""

import collections
import os

import numpy as np
import pytest
from kerasoft.compiler.kernels import settings

import kerasoft as ks

layers = ks.layers


@pytest.fixture(autouse=True)
def unforced():
    yield
    settings.force(None)


def rows(*shape, low=-1.0):
    return np.random.default_rng(3).uniform(low, 1, shape).astype("float32")


def residual():
    """A convolution with batch normalisation, a pool, a residual block and a classifier."""
    ks.utils.set_random_seed(5)
    x = inputs = ks.Input((12, 12, 3))
    x = layers.Conv2D(16, 3, padding="same")(x)
    x = layers.ReLU()(layers.BatchNormalization()(x))
    x = skip = layers.MaxPooling2D()(x)
    x = layers.Conv2D(16, 3, padding="same", activation="relu")(layers.ZeroPadding2D(1)(x))
    x = layers.BatchNormalization()(layers.Conv2D(16, 3)(x))
    x = layers.ReLU()(layers.Add()([x, layers.Conv2D(16, 1)(skip)]))
    x = layers.DepthwiseConv2D(3, padding="same", activation="relu6")(x)
    x = layers.Concatenate()([layers.Conv2D(8, 1, activation="relu")(x), layers.Conv2D(8, 3, padding="same")(x)])
    x = layers.Conv2D(8, 1, activation="swish")(x)
    model = ks.Model(inputs, layers.Dense(5, activation="softmax")(layers.Flatten()(x)))
    random = np.random.default_rng(1)
    for layer in model.layers:
        if isinstance(layer, layers.BatchNormalization):
            layer.set_weights([random.uniform(0.5, 1.5, w.shape).astype("f") for w in layer.get_weights()])
    return model


def ops_of(model):
    return collections.Counter(n.op.name for n in model.get_layer("int8").graph.nodes)


def test_integers_are_those_of_numpy():
    model = ks.Sequential([ks.Input((6,)), layers.Dense(20, activation="relu"), layers.Dense(3)])
    x = rows(40, 6)
    small, report = ks.quantizers.post_training(model, x, accuracy_guard=None)
    (k1, b1), (k2, b2) = (layer.get_weights() for layer in model.layers[-2:])

    def rounded(kernel):
        scale = np.abs(kernel).max(0) / 127
        return np.round(kernel / scale).astype(int), scale

    (q1, w1), (q2, w2) = rounded(k1), rounded(k2)
    s0, s1 = np.abs(x).max() / 127, np.maximum(x @ k1 + b1, 0).max() / 255
    hidden = (np.clip(np.round(x / s0), -127, 127).astype(int) @ q1) * s0 * w1 + b1
    hidden = np.clip(np.round(hidden / s1), 0, 255).astype(int)
    np.testing.assert_allclose(
        small.predict(x, verbose=0), (hidden @ q2) * s1 * w2 + b2, atol=1.01 * s1 * np.abs(k2).max()
    )
    exact = np.mean(np.abs(small.predict(x, verbose=0) - ((hidden @ q2) * s1 * w2 + b2)) < 1e-5)
    np.testing.assert_allclose(np.asarray(small(x[:2])), small.predict(x[:2], verbose=0), atol=1e-6)
    assert exact > 0.9  # the rest differ by one quantum where float32 rounds the other way
    assert [layer.low for layer in report.layers] == pytest.approx([-np.abs(x).max(), 0])
    assert ops_of(small) == {"input": 1, "quantize": 1, "constant": 6, "quantised_dense": 2}


@pytest.fixture(scope="module")
def blocks():
    model, x = residual(), rows(24, 12, 12, 3)
    return model, x, *ks.quantizers.post_training(model, x, batch_size=8)


def test_values_stay_integers_between_neighbours(blocks):
    model, x, small, report = blocks
    found = ops_of(small)
    assert {op: found[op] for op in ("quantised_conv", "quantised_dense", "quantize", "dequantize", "pad", "add")} == {
        "quantised_conv": 8, "quantised_dense": 1, "quantize": 2, "dequantize": 0, "pad": 0, "add": 0,
    }  # fmt: skip
    want, got = model.predict(x, verbose=0), small.predict(x, verbose=0)
    assert np.abs(want - got).max() < 0.03 and report.measure == "classes" and report.cost <= 0.01
    assert all(0 < layer.error < 0.03 for layer in report.layers)
    text = str(report)
    assert "rows whose class changed: 0 (at most 0.01 allowed)" in text and "conv2d" in text


def test_without_the_native_library_the_integers_are_the_same(blocks, tmp_path):
    _, x, small, _ = blocks
    native = small.predict(x, verbose=0)
    small.save(tmp_path / "m.keras")
    settings.force({"*": "xla"})
    plain = ks.models.load_model(tmp_path / "m.keras").predict(x, verbose=0)
    np.testing.assert_allclose(native, plain, atol=0.01)


def test_files_are_small_and_hold_everything(tmp_path):
    model = ks.Sequential([ks.Input((256,)), layers.Dense(512, activation="relu"), layers.Dense(512)])
    x = rows(16, 256)
    small, report = ks.quantizers.post_training(model, x, method="mse")
    for name, one in (("float", model), ("int8", small)):
        one.save(tmp_path / f"{name}.keras")
    sizes = {name: os.path.getsize(tmp_path / f"{name}.keras") for name in ("float", "int8")}
    assert sizes["int8"] <= 0.27 * sizes["float"]
    loaded = ks.models.load_model(tmp_path / "int8.keras")
    np.testing.assert_array_equal(loaded.predict(x, verbose=0), small.predict(x, verbose=0))
    again = ks.quantizers.QuantizationReport.from_json(loaded.get_layer("int8").get_config()["report"])
    assert again == report and report.bytes <= 0.27 * report.float_bytes


def test_the_guard_leaves_in_float_what_costs_too_much():
    ks.utils.set_random_seed(2)
    model = ks.Sequential([ks.Input((8,)), layers.Dense(8, use_bias=False, name="wide"), layers.Dense(2, name="good")])
    kernel = np.eye(8, dtype="f")
    kernel[0, 0] = 5000.0  # one activation so large that the others vanish beside it
    second = np.random.default_rng(0).normal(size=(8, 2)).astype("f")
    second[0] = 0
    model.get_layer("wide").set_weights([kernel])
    model.get_layer("good").set_weights([second, np.zeros(2, "f")])
    x = rows(64, 8)
    _, careless = ks.quantizers.post_training(model, x, accuracy_guard=None)
    small, report = ks.quantizers.post_training(model, x)
    assert careless.cost > 0.5 and careless.measure == "variance" and careless.left_in_float == ()
    assert report.cost <= 0.01 and [name.split("/")[-1] for name in report.left_in_float] == ["good"]
    assert "int8 cost" in str(report) and ops_of(small)["matmul"] == 1


def test_the_guard_may_watch_a_metric():
    model = ks.Sequential([ks.Input((6,)), layers.Dense(20, activation="relu"), layers.Dense(3, activation="softmax")])
    x = rows(32, 6)
    y = model.predict(x, verbose=0).argmax(-1)
    model.compile("sgd", "sparse_categorical_crossentropy", metrics=["accuracy"])
    small, report = ks.quantizers.post_training(model, x, validation_data=(x, y))
    assert report.measure == "accuracy" and report.cost <= 0.01
    assert small.evaluate(x, y, verbose=0)[1] == pytest.approx(1 - report.cost)
    last = report.layers[1].name
    _, report = ks.quantizers.post_training(model, x, validation_data=(x, y), metric="loss", filters=last + "$")
    assert report.measure == "loss" and report.layers[0].reason == "not among `filters`"
    assert report.left_in_float == (report.layers[0].name,)


def test_outliers_are_cut_off_by_mse():
    model = ks.Sequential([ks.Input((64,)), layers.Dense(4)])
    x = rows(2048, 64)
    x[0, 0] = 20.0
    costs = {
        m: ks.quantizers.post_training(model, x, accuracy_guard=None, method=m, batch_size=512)[1]
        for m in ("minmax", "mse")
    }
    assert costs["mse"].layers[0].high < 0.9 * costs["minmax"].layers[0].high


def test_other_layers_stay_as_they_are():
    inputs = ks.Input((7,), dtype="int32")
    x = layers.LSTM(6, return_sequences=True)(layers.Embedding(1000, 8)(inputs))
    model = ks.Model(inputs, {"a": layers.Conv1D(4, 3, activation="relu")(x), "b": layers.Dense(2)(x)})
    x = np.random.default_rng(0).integers(0, 1000, (16, 7)).astype("int32")
    small, report = ks.quantizers.post_training(model, x)
    want, got = model.predict(x, verbose=0), small.predict(x, verbose=0)
    assert list(got) == ["a", "b"] and len(report.layers) == 2
    for key in want:
        np.testing.assert_allclose(got[key], want[key], atol=0.02 * np.abs(want[key]).max())


def test_errors():
    model = ks.Sequential([ks.Input((4,)), layers.Dense(2)])
    with pytest.raises(ValueError, match="method is one of minmax, mse, got 'entropy'"):
        ks.quantizers.post_training(model, rows(4, 4), method="entropy")
    with pytest.raises(ValueError, match="not finite on the calibration rows"):
        ks.quantizers.post_training(model, np.full((4, 4), np.nan, "f"))
    with pytest.raises(ValueError, match="has no convolution or product"):
        ks.quantizers.post_training(ks.Sequential([ks.Input((4,)), layers.ReLU()]), rows(4, 4))
    with pytest.raises(ValueError, match="needs a compiled model"):
        ks.quantizers.post_training(model, rows(4, 4), validation_data=(rows(4, 4), rows(4, 2)))
    with pytest.raises(ValueError, match=r"use `kerasoft.quantizers.post_training\(model, calibration_data\)`"):
        model.quantize("int8", calibration_data=rows(4, 4))
    model.compile("sgd", "mse")
    with pytest.raises(ValueError, match="evaluate gives loss, not metric='auc'"):
        ks.quantizers.post_training(model, rows(4, 4), validation_data=(rows(4, 4), rows(4, 2)), metric="auc")


@pytest.mark.spark
def test_rows_on_executors_give_the_same_model(spark):
    model = ks.Sequential([ks.Input((6,)), layers.Dense(20, activation="relu"), layers.Dense(3)])
    x = rows(24, 6)
    here, expected = ks.quantizers.post_training(model, x, batch_size=8)
    rdd = spark.sparkContext.parallelize(list(x), 3)
    there, report = ks.quantizers.post_training(model, rdd, batch_size=8)
    want = here.predict(x, verbose=0)
    np.testing.assert_allclose(there.predict(x, verbose=0), want, atol=1e-6)
    assert report.cost == pytest.approx(expected.cost) and report.layers[0].low == expected.layers[0].low
    np.testing.assert_allclose(np.stack(there.predict(rdd).collect()), want, atol=1e-6)

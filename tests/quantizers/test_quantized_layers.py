"""Quantised layers and models against Keras: weights, outputs, gradients, files both ways, distributed prediction."""

import os

os.environ["KERAS_BACKEND"] = "jax"

import jax
import jax.numpy as jnp
import keras
import numpy as np
import pytest

import kerasoft as ks

pytestmark = [
    pytest.mark.filterwarnings("ignore:Layer .* does not have a `quantize` method:UserWarning"),
    pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning"),  # inside Keras
]


def network(k, heads=True):
    x = k.Input((6,), dtype="int32", name="x")
    h = k.layers.Embedding(11, 7, name="table")(x)
    h = k.layers.EinsumDense("abc,cde->abde", (6, 2, 5), bias_axes="de", activation="relu")(h)
    h = k.layers.EinsumDense("abcd,cde->abe", (6, 7))(h)
    if heads:
        h = k.layers.MultiHeadAttention(2, 3)(h, h)
    return k.Model(x, k.layers.Dense(3, activation="tanh")(k.layers.Flatten()(h)))


def randomised(model):
    rng = np.random.default_rng(0)
    model.set_weights([rng.uniform(-0.4, 0.4, w.shape).astype("float32") for w in model.get_weights()])
    return model


X = np.random.default_rng(1).integers(0, 11, (4, 6)).astype("int32")
MODES = {
    "int8": lambda k: "int8",
    "int4": lambda k: "int4",
    "int8, floats as activations": lambda k: k.quantizers.Int8QuantizationConfig(activation_quantizer=None),
    "int4, one scale a channel": lambda k: k.quantizers.Int4QuantizationConfig(block_size=-1),
    "int4, groups of 3": lambda k: k.quantizers.Int4QuantizationConfig(block_size=3),
}


def quantized(k, mode, heads=True):
    model, given = randomised(network(k, heads)), MODES[mode](k)
    model.quantize(given) if isinstance(given, str) else model.quantize(config=given)
    return model


@pytest.mark.parametrize("mode", MODES)
def test_a_quantised_model_is_keras_model(mode, tmp_path):
    keras.utils.clear_session(free_memory=False)
    ks.utils.clear_session(free_memory=False)
    theirs, ours = quantized(keras, mode, heads=False), quantized(ks, mode, heads=False)
    assert [(w.path, w.shape, w.dtype) for w in ours.weights] == [(w.path, w.shape, w.dtype) for w in theirs.weights]
    for mine, its in zip(ours.get_weights(), theirs.get_weights(), strict=True):
        np.testing.assert_allclose(mine, its, rtol=1e-6)
    want = np.asarray(theirs(X))
    np.testing.assert_allclose(ours(X), want, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(ours.predict(X, verbose=0), want, rtol=1e-5, atol=1e-6)
    theirs.save(tmp_path / "t.keras")
    ours.save(tmp_path / "o.keras")
    np.testing.assert_allclose(ks.saving.load_model(tmp_path / "t.keras")(X), want, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(keras.saving.load_model(tmp_path / "o.keras")(X), want, rtol=1e-5, atol=1e-6)
    theirs.save_weights(tmp_path / "t.weights.h5")
    other = quantized(ks, mode, heads=False)
    other.set_weights([np.zeros_like(w) for w in other.get_weights()])
    other.load_weights(tmp_path / "t.weights.h5")
    np.testing.assert_allclose(other(X), want, rtol=1e-5, atol=1e-6)


def test_attention_is_quantised_and_saved_with_a_policy_a_path(tmp_path, mode="int8"):
    ks.utils.clear_session(free_memory=False)
    keras.utils.clear_session(free_memory=False)
    theirs, ours = quantized(keras, mode), quantized(ks, mode)
    want = np.asarray(theirs(X))
    np.testing.assert_allclose(ours(X), want, rtol=1e-5, atol=1e-6)
    ours.save(tmp_path / "m.keras")
    for k in (ks, keras):  # Keras does not read its own file here, but reads ours
        np.testing.assert_allclose(k.saving.load_model(tmp_path / "m.keras")(X), want, rtol=1e-5, atol=1e-6)


def there_and_back(k, tie):
    i, j = k.Input((3,), dtype="int32"), k.Input((5,))
    table = k.layers.ReversibleEmbedding(7, 5, tie_weights=tie, logit_soft_cap=3.0, name="table")
    return k.Model([i, j], [table(i), table(j, reverse=True)])


@pytest.mark.parametrize("tie", [True, False])
@pytest.mark.parametrize("mode", ["int8", "int4, one scale a channel", "int4, groups of 3"])
def test_a_reversible_embedding_is_quantised_both_ways(mode, tie, tmp_path):
    keras.utils.clear_session(free_memory=False)
    ks.utils.clear_session(free_memory=False)
    x = [np.array([[1, 2, 6]]), np.random.default_rng(1).normal(size=(1, 5)).astype("float32")]
    models = []
    for k in (keras, ks):
        model, given = randomised(there_and_back(k, tie)), MODES[mode](k)
        model.quantize(given) if isinstance(given, str) else model.quantize(config=given)
        models.append(model)
    theirs, ours = models
    theirs.save(tmp_path / "t.keras")
    for model in (ours, ks.saving.load_model(tmp_path / "t.keras")):
        assert [(w.path, w.dtype) for w in model.weights] == [(w.path, w.dtype) for w in theirs.weights]
        for got, want in zip(model(x), theirs(x), strict=True):
            np.testing.assert_allclose(got, want, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("mode", ["int8", "int4"])
def test_low_rank_products_are_added_and_saved_in_the_weights(mode, tmp_path):
    keras.utils.clear_session(free_memory=False)
    ks.utils.clear_session(free_memory=False)
    models = []
    for k in (keras, ks):
        model, rng = quantized(k, mode, heads=False), np.random.default_rng(5)
        for layer in model.layers:
            if hasattr(layer, "enable_lora"):
                layer.enable_lora(2, lora_alpha=3)
                for w in layer.weights:
                    if "lora" in w.name:
                        w.assign(rng.normal(size=w.shape) * 0.3)
        models.append(model)
    theirs, ours = models
    np.testing.assert_allclose(ours(X), theirs(X), rtol=1e-5, atol=1e-6)
    theirs.save(tmp_path / "t.keras")
    ours.save(tmp_path / "o.keras")
    want = keras.saving.load_model(tmp_path / "t.keras")(X)
    for name in ("t.keras", "o.keras"):
        np.testing.assert_allclose(ks.saving.load_model(tmp_path / name)(X), want, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("mode", ["int8", "int4"])
def test_gradients_for_the_inputs_are_those_of_keras(mode):
    x = np.random.default_rng(2).normal(size=(3, 6)).astype("float32")

    def gradient(k):
        model = randomised(k.Sequential([k.Input((6,)), k.layers.Dense(5, name="d")]))
        model.quantize(mode)
        return jax.grad(lambda x: jnp.sum(jnp.square(model(x))))(x)

    np.testing.assert_allclose(gradient(ks), gradient(keras), rtol=1e-4, atol=1e-5)


def test_biases_go_on_learning_and_filters_choose():
    model = ks.Sequential([ks.Input((4,)), ks.layers.Dense(3, name="body"), ks.layers.Dense(1, name="head")])
    model.quantize("int8", filters="body")
    assert [layer.quantization_mode for layer in model.layers] == ["int8", None]
    assert model.layers[0].dtype_policy.name == "int8_from_float32"
    model.compile(ks.optimizers.SGD(0.1), "mse")
    before = model.get_weights()
    model.fit(np.ones((8, 4)), np.ones((8, 1)), verbose=0)
    after = {
        w.path.split("/", 1)[1]: not np.array_equal(old, new.numpy())
        for w, old, new in zip(model.weights, before, model.weights)
    }
    assert after == {
        "body/bias": True,
        "body/kernel": False,
        "body/kernel_scale": False,
        "head/kernel": True,
        "head/bias": True,
    }


def test_a_layer_of_a_quantised_policy_is_built_quantised():
    layer = ks.layers.Dense(3, dtype="int8_from_float32")
    layer.build((None, 4))
    assert [(w.name, w.dtype, w.trainable) for w in layer.weights] == [
        ("bias", "float32", True), ("kernel", "int8", False), ("kernel_scale", "float32", False)
    ]  # fmt: skip
    assert layer.get_config()["dtype"]["class_name"] == "QuantizedDTypePolicy"
    assert type(layer).from_config(layer.get_config()).quantization_mode == "int8"
    plain = ks.layers.Dense(3)
    plain.build((None, 4))
    plain.dtype_policy = "int8_from_float32"
    assert plain.kernel.dtype == "int8"


def test_errors_say_what_is_wrong():
    model = ks.Sequential([ks.Input((4,)), ks.layers.Dense(3, name="d")])
    for call, error, text in (
        (lambda: ks.layers.Dense(3, name="u").quantize("int8"), ValueError, "isn't yet built. Layer 'u'"),
        (lambda: model.quantize("int2"), ValueError, "Invalid quantization mode. Expected one of .*mode=int2"),
        (lambda: model.quantize(), ValueError, "You must provide either `mode` or `config`"),
        (lambda: model.quantize("gptq"), ValueError, "you must pass a `GPTQConfig` object"),
        (
            lambda: model.quantize("float8"),
            NotImplementedError,
            "does not quantize with mode 'float8': it has 'int8' and 'int4'",
        ),
        (
            lambda: model.quantize("int8", filters=3),
            ValueError,
            "must be a regex string, a list of regex strings, or a callable",
        ),
        (
            lambda: model.quantize("int4", config=ks.quantizers.Int8QuantizationConfig()),
            ValueError,
            "Contradictory arguments",
        ),
        (lambda: model.quantize("int8", wrong=1), ValueError, "Unrecognized keyword arguments passed to Sequential"),
    ):
        with pytest.raises(error, match=text):
            call()
    model.quantize("int8")
    with pytest.raises(ValueError, match="'d' is already quantized with dtype_policy='int8_from_float32'"):
        model.layers[0].quantize("int8")
    half = ks.Sequential([ks.Input((4,)), ks.layers.Dense(3, dtype="float16")])
    with pytest.raises(ValueError, match="doesn't work well with compute_dtype='float16'"):
        half.layers[0].quantize("int8")
    relu = ks.layers.ReLU()
    relu(np.ones((1, 2)))
    with pytest.raises(NotImplementedError, match="ReLU does not have a `quantize` method"):
        relu.quantize("int8")


@pytest.mark.spark
def test_a_quantised_model_predicts_distributed(context):
    model = randomised(ks.Sequential([ks.Input((6,)), ks.layers.Dense(5, activation="relu"), ks.layers.Dense(2)]))
    model.quantize("int8")
    x = np.random.default_rng(3).normal(size=(20, 6)).astype("float32")
    predicted = model.predict(context.parallelize(list(x), 2), batch_size=7)
    np.testing.assert_allclose(np.stack(predicted.collect()), model.predict(x, verbose=0), rtol=1e-5, atol=1e-6)

"""The functions of kerasoft.quantizers against Keras."""

import os

os.environ["KERAS_BACKEND"] = "jax"

import jax
import jax.numpy as jnp
import keras
import numpy as np
import pytest

import kerasoft as ks
from kerasoft import tree


def arrays(seed=0):
    rng = np.random.default_rng(seed)
    return rng.normal(size=(6, 5)).astype("float32"), rng.integers(-8, 8, (5, 3)).astype("int8")


CALLS = {
    "abs_max": lambda q, x, i: q.abs_max_quantize(x, axis=-1),
    "abs_max of two axes in NumPy": lambda q, x, i: q.abs_max_quantize(x, (0, 1), value_range=(-8, 7), to_numpy=True),
    "abs_max of zeros": lambda q, x, i: q.abs_max_quantize(x * 0.0, axis=0, epsilon=1e-3),
    "quantizer": lambda q, x, i: q.AbsMaxQuantizer(axis=0)(x),
    "quantizer, axis in the call": lambda q, x, i: q.AbsMaxQuantizer(value_range=(-100, 100))(x, axis=(0, 1)),
    "groups": lambda q, x, i: q.abs_max_quantize_grouped_with_zero_point(x, 4),
    "groups in NumPy": lambda q, x, i: q.abs_max_quantize_grouped_with_zero_point(x, 2, to_numpy=True),
    "pack": lambda q, x, i: q.pack_int4(i),
    "pack along the last axis": lambda q, x, i: q.pack_int4(i, axis=-1),
    "unpack": lambda q, x, i: q.unpack_int4(q.pack_int4(i)[0], 5),
    "unpack the last axis": lambda q, x, i: q.unpack_int4(q.pack_int4(i, axis=-1)[0], 3, axis=-1),
    "unpack unsigned": lambda q, x, i: q.unpack_int4(
        q.pack_int4(abs(i).astype("uint8"), dtype="uint8")[0], 5, dtype="uint8"
    ),
    "fake": lambda q, x, i: q.fake_quant_with_min_max_vars(x, -1.0, 0.7),
    "fake, narrow, 4 bits": lambda q, x, i: q.fake_quant_with_min_max_vars(x, -0.9, 1.1, num_bits=4, narrow_range=True),
    "fake, a channel": lambda q, x, i: q.fake_quant_with_min_max_vars(
        x, -np.linspace(0.5, 1, 5).astype("float32"), np.linspace(0.2, 1, 5).astype("float32"), axis=1
    ),
    "float8": lambda q, x, i: q.quantize_and_dequantize(x, 0.5, "float8_e4m3fn", "float32"),
    "float8 scale": lambda q, x, i: q.compute_float8_scale(np.float32(3.0), np.float32(0.5), np.float32(448.0)),
    "float8 history": lambda q, x, i: q.compute_float8_amax_history(x, jnp.arange(4.0)),
}


@pytest.mark.parametrize("name", CALLS)
def test_values_are_those_of_keras(name):
    x, i = arrays()
    want = tree.flatten(CALLS[name](keras.quantizers, jnp.asarray(x), jnp.asarray(i)))
    got = tree.flatten(CALLS[name](ks.quantizers, jnp.asarray(x), jnp.asarray(i)))
    for a, b in zip(got, want, strict=True):
        assert np.asarray(a).dtype == np.asarray(b).dtype
        np.testing.assert_allclose(np.asarray(a), np.asarray(b), rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("axis", [None, 1])
def test_gradients_of_fake_quantisation_are_those_of_keras(axis):
    x, _ = arrays()
    ends = (
        (jnp.float32(-0.8), jnp.float32(0.9)) if axis is None else (-jnp.linspace(0.5, 1, 5), jnp.linspace(0.4, 1, 5))
    )

    def total(q):
        return lambda x, a, b: jnp.sum(jnp.cos(q.fake_quant_with_min_max_vars(x, a, b, axis=axis)))

    got = jax.grad(total(ks.quantizers), argnums=(0, 1, 2))(x, *ends)
    want = jax.grad(total(keras.quantizers), argnums=(0, 1, 2))(x, *ends)
    for a, b in zip(got, want, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5)


def configs(q):
    return [
        q.AbsMaxQuantizer(axis=[0, 1], epsilon=1e-3),
        q.Int8QuantizationConfig(),
        q.Int8QuantizationConfig(q.AbsMaxQuantizer(axis=0), None),
        q.Int4QuantizationConfig(),
        q.Int4QuantizationConfig(q.AbsMaxQuantizer(axis=0, value_range=(-8, 7)), block_size=None),
        q.Float8QuantizationConfig(),
        q.GPTQConfig(None, None, weight_bits=8, group_size=-1),
        q.AWQConfig(None, None, num_samples=4),
    ]


def test_configs_are_those_of_keras():
    for ours, theirs in zip(configs(ks.quantizers), configs(keras.quantizers), strict=True):
        config, wanted = ks.quantizers.serialize(ours), keras.quantizers.serialize(theirs)
        assert config == wanted
        again = ks.quantizers.deserialize(config)
        assert type(again) is type(ours) and ks.quantizers.serialize(again) == config
        assert getattr(again, "mode", None) == getattr(theirs, "mode", None)


def test_names_and_errors():
    q = ks.quantizers
    assert isinstance(q.get("abs_max_quantizer"), q.AbsMaxQuantizer) and q.get(None) is None
    for call, text in (
        (lambda: q.get("median"), "Could not interpret quantizer identifier: median"),
        (lambda: q.AbsMaxQuantizer(value_range=(-300, 3)), r"within the interval \[-128, 127\]"),
        (lambda: q.Int4QuantizationConfig(block_size=0), "block_size must be None, -1, or a positive integer"),
        (lambda: q.Int4QuantizationConfig(q.AbsMaxQuantizer()), "does not support custom quantizers"),
        (lambda: q.Int4QuantizationConfig(q.AbsMaxQuantizer(), block_size=None), r"with value_range=\(-8, 7\)"),
        (lambda: q.GPTQConfig(None, None, weight_bits=5), "Unsupported weight_bits 5"),
        (lambda: q.AWQConfig(None, None, group_size=0), "Invalid group_size"),
        (lambda: q.pack_int4(np.zeros(2, "int8"), dtype="int16"), "Expected dtype to be 'int8' or 'uint8'"),
    ):
        with pytest.raises(ValueError, match=text):
            call()
    with pytest.raises(TypeError, match="Expected int8 tensor for packing, got float32"):
        q.pack_int4(np.zeros(2, "float32"))
    with pytest.raises(NotImplementedError):
        q.QuantizationConfig().mode  # noqa: B018

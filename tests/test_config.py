"""Settings, dtype policies and what is said of the backend, against Keras."""

from __future__ import annotations

import inspect
import itertools

import numpy as np
import pytest

import kerasoft as ks

keras = pytest.importorskip("keras")
BOTH = pytest.mark.parametrize("k", [keras, ks], ids=["keras", "kerasoft"])


def outcome(call):
    try:
        return call()
    except (TypeError, ValueError) as error:
        return type(error).__name__, str(error).replace("keras.", "").replace("kerasoft.", "")


@pytest.mark.parametrize("module", ["backend", "config", "dtype_policies", "mixed_precision", "callbacks"])
def test_public_names_and_arguments(module):
    theirs, ours = getattr(keras, module), getattr(ks, module)
    for name in (n for n in dir(theirs) if not n.startswith("_")):
        kinds = [[p.name for p in inspect.signature(getattr(m, name)).parameters.values()] for m in (theirs, ours)]
        wanted, found = ([n for n in names if n not in ("args", "kwargs", "hooks")] for names in kinds)
        assert found == wanted, name


@pytest.mark.parametrize("floatx", ["float32", "bfloat16"])
def test_result_types(floatx):
    kinds = [
        "bool",
        "uint8",
        "uint32",
        "int8",
        "int64",
        "float16",
        "bfloat16",
        "float64",
        int,
        float,
        None,
        "complex64",
    ]
    for k in (keras, ks):
        k.config.set_floatx(floatx)
    try:
        for given in itertools.chain(
            ((a,) for a in kinds), itertools.product(kinds, kinds), [(), (int, "int8", float)]
        ):
            assert ks.backend.result_type(*given) == keras.backend.result_type(*given), given
    finally:
        for k in (keras, ks):
            k.config.set_floatx("float32")


def test_dtype_names():
    for given in (None, int, float, bool, str, complex, "int", "float32", np.int8, np.dtype("uint8"), np.bool_, "no"):
        wanted = outcome(lambda: keras.backend.standardize_dtype(given))
        assert outcome(lambda: ks.backend.standardize_dtype(given)) == wanted, given
    assert ks.backend.is_float_dtype("bfloat16") and not ks.backend.is_float_dtype("int8")
    assert ks.backend.is_int_dtype("uint8") and not ks.backend.is_int_dtype("float32")
    assert ks.backend.is_keras_tensor(ks.Input((1,))) and not ks.backend.is_keras_tensor(np.ones(1))


def policy(k, make):
    """What can be seen of a policy, and of what becomes of it as a config."""

    def seen(p):
        config = k.saving.serialize_keras_object(p)
        again = k.dtype_policies.get(k.dtype_policies.serialize(p))
        dtypes = p.compute_dtype, p.variable_dtype, p.quantization_mode
        return repr(p), p.name, dtypes, config, again == p, again.get_config()

    return outcome(lambda: seen(make(k.dtype_policies)))


@pytest.mark.parametrize(
    "name",
    [
        "float32", "mixed_float16", "mixed_bfloat16", "float64", "no", "int8_from_float32", "int4_from_float32",
        "int4/64_from_float32", "int4/0_from_float32", "gptq/4/128_from_float32", "gptq/5/1_from_float32",
        "awq/4/128_from_bfloat16", "awq/3/128_from_bfloat16", "float8_from_mixed_bfloat16", "int8_from_float16",
        "int8_from_a_from_b",
    ],
)  # fmt: skip
def test_policies_by_name(name):
    assert policy(ks, lambda p: p.get(name)) == policy(keras, lambda p: p.get(name))


def test_policies_by_class():
    for make in (
        lambda p: p.FloatDTypePolicy("float16"),
        lambda p: p.DTypePolicy(3),
        lambda p: p.QuantizedDTypePolicy("int7", "float32"),
        lambda p: p.QuantizedFloat8DTypePolicy("float8", "float32", 16),
        lambda p: p.QuantizedFloat8DTypePolicy("float8", "float32", 1.5),
        lambda p: p.GPTQDTypePolicy("gptq/4", "float32"),
        lambda p: p.Int4DTypePolicy("int4/x", "float32"),
    ):
        assert policy(ks, make) == policy(keras, make)


@BOTH
def test_policies_by_path(k):
    policies = k.dtype_policies.DTypePolicyMap("float32", {"encoder/.*": k.DTypePolicy("bfloat16")})
    policies["decoder"] = "float16"
    assert [policies[p].name for p in ("encoder/a", "decoder", "decoder/a")] == ["bfloat16", "float16", "float32"]
    policies["encoder/a.*"] = "float16"
    with pytest.raises(ValueError, match="matches multiple dtype policy specification keys"):
        policies["encoder/a"]
    with pytest.raises(ValueError, match="decoder already exist in the DTypePolicyMap"):
        policies["decoder"] = "float32"
    again = k.dtype_policies.get(k.dtype_policies.serialize(policies))
    assert again["decoder"].name == "float16" and len(again) == 3 and policies.name == "map_float32"


@BOTH
def test_the_default_policy_and_floatx(k):
    assert (k.config.floatx(), k.config.backend(), k.config.dtype_policy().name) == ("float32", "jax", "float32")
    try:
        k.mixed_precision.set_global_policy("mixed_bfloat16")
        layer = k.layers.Dense(2)
        assert (layer.compute_dtype, layer.variable_dtype) == ("bfloat16", "float32")
        assert str(layer(np.ones((1, 2), "float32")).dtype) == "bfloat16"
        with pytest.raises(ValueError, match="Invalid `policy` argument"):
            k.config.set_dtype_policy(3)
        k.utils.clear_session(free_memory=False)
        assert k.config.dtype_policy().name == "float32"
        k.config.set_floatx("float16")
        k.utils.clear_session(free_memory=False)
        assert str(k.layers.Dense(2)(np.ones((1, 2), "float32")).dtype) == "float16"
        with pytest.raises(ValueError, match="Unknown `floatx` value: int8"):
            k.config.set_floatx("int8")
    finally:
        k.config.set_floatx("float32")
        k.utils.clear_session(free_memory=False)


@BOTH
def test_other_settings(k):
    k.config.set_epsilon(1e-3)
    k.config.set_image_data_format("channels_first")
    k.config.disable_interactive_logging()
    try:
        assert (k.backend.epsilon(), k.backend.image_data_format()) == (1e-3, "channels_first")
        assert not k.config.is_interactive_logging_enabled()
        with pytest.raises(ValueError, match="The `data_format` argument must be one of"):
            k.config.set_image_data_format("channels")
    finally:
        k.config.set_epsilon(1e-7)
        k.config.set_image_data_format("channels_last")
        k.config.enable_interactive_logging()
    k.config.disable_flash_attention()
    assert k.config.is_flash_attention_enabled() is False
    k.config.enable_flash_attention()
    assert k.config.is_flash_attention_enabled() is None


@BOTH
def test_scopes_of_the_top_level(k):
    with k.name_scope("outer"), k.device("cpu:0"), k.SymbolicScope(), k.RematScope("larger_than"):
        assert k.Variable([1.0], name="v").path == "outer/v"
    assert float(k.remat(lambda x: x * 2)(k.ops.array(3.0))) == 6.0
    with pytest.raises(ValueError, match="Invalid mode 'half'"):
        k.RematScope("half")
    with pytest.raises(ValueError, match="cannot contain character `/`"):
        k.name_scope("a/b")
    assert isinstance(k.version(), str)


def test_other_devices_and_backends_are_refused():
    with pytest.raises(ValueError, match="there is no device 'gpu:0'"), ks.device("gpu:0"):
        pass
    with pytest.raises(ValueError, match="there is no backend 'torch'"):
        ks.config.set_backend("torch")
    ks.config.set_backend("jax")


@BOTH
def test_stateless_scopes(k):
    import jax

    v = k.Variable([1.0, 2.0], name="v")

    def doubled(value):
        with k.StatelessScope([(v, value)]) as scope:
            v.assign(v * 2)
            return scope.get_current_value(v)

    np.testing.assert_array_equal(jax.jit(doubled)(np.array([3.0, 4.0], "float32")), [6.0, 8.0])
    np.testing.assert_array_equal(np.asarray(v), [1.0, 2.0])
    with pytest.raises(ValueError, match="matches the corresponding variable shape"):
        k.StatelessScope([(v, np.ones(3, "float32"))])
    with pytest.raises(ValueError, match="Invalid reference variable in StatelessScope"):
        k.StatelessScope([("v", 1.0)])


@BOTH
def test_functions_and_operations(k):
    class Scale(k.Operation):
        def call(self, x):
            return x * 3.0

        def compute_output_spec(self, x):
            return k.KerasTensor(x.shape, x.dtype)

    x = k.KerasTensor((None, 2))
    function = k.Function({"x": x}, {"y": Scale()(x) + 1.0, "x": x})
    result = function({"x": k.ops.ones((2, 2))})
    np.testing.assert_array_equal(result["y"], np.full((2, 2), 4.0))
    assert function.compute_output_shape({"x": (5, 2)}) == {"y": (5, 2), "x": (5, 2)}
    assert [type(o).__name__ for o in function.operations] == ["Scale", "Add"]
    with pytest.raises(ValueError, match="was passed incompatible inputs"):
        function({"x": k.ops.ones((2, 3))})
    with pytest.raises(ValueError, match="invalid input structure"):
        function([k.ops.ones((2, 2))])

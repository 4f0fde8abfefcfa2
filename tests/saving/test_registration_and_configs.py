"""Custom objects by name, configs of all kinds of values, layers with captured and with written configs."""

import io

import numpy as np
import pytest

import kerasoft as ks
from kerasoft.errors import SerializationError, UnknownNameError
from kerasoft.saving import deserialize_keras_object, serialize_keras_object


class Captured(ks.Layer):
    def __init__(self, size, inner=None, flags=(1, 2), **kwargs):
        super().__init__(**kwargs)
        self.size, self.inner, self.flags = size, inner, flags

    def call(self, x):
        return x * self.size


class Written(ks.Layer):
    def __init__(self, size, **kwargs):
        super().__init__(**kwargs)
        self.size = size

    def get_config(self):
        return {**super().get_config(), "size": self.size}


def test_captured_arguments_come_back():
    layer = Captured(3, inner=ks.layers.Dense(2, name="in"), name="outer", trainable=False)
    config = serialize_keras_object(layer)
    assert (config["module"], config["class_name"]) == (Captured.__module__, "Captured")
    assert set(config["config"]) == {"name", "trainable", "dtype", "size", "inner", "flags"}
    again = deserialize_keras_object(config, custom_objects={"Captured": Captured})
    assert (again.size, again.inner.units, again.inner.name, tuple(again.flags)) == (3, 2, "in", (1, 2))
    assert (again.name, again.trainable) == ("outer", False)


def test_written_configs_come_back():
    again = Written.from_config(Written(5, dtype="mixed_bfloat16").get_config())
    assert (again.size, again.compute_dtype, again.variable_dtype) == (5, "bfloat16", "float32")


def test_unknown_names_say_what_to_do():
    config = serialize_keras_object(Written(5))
    with pytest.raises(UnknownNameError, match=r"Could not locate class 'Written'.*custom_objects=\{'Written': ...\}"):
        deserialize_keras_object(config)
    with pytest.raises(SerializationError, match="Captured could not be made from its config"):
        deserialize_keras_object(
            {"module": None, "class_name": "Captured", "config": {"wrong": 1}, "registered_name": None},
            custom_objects={"Captured": Captured},
        )


def test_registered_objects_are_found_by_package_and_name():
    @ks.saving.register_keras_serializable("tests", "Thing")
    class Unlike(ks.Layer):
        pass

    @ks.saving.register_keras_serializable("tests")
    def double(x):
        return x * 2

    config = serialize_keras_object(Unlike(name="u"))
    assert config["registered_name"] == "tests>Thing"
    assert type(deserialize_keras_object(config)) is Unlike
    assert serialize_keras_object(double)["config"] == "tests>double"
    assert deserialize_keras_object(serialize_keras_object(double)) is double
    assert ks.saving.get_custom_objects()["tests>Thing"] is Unlike
    with pytest.raises(ValueError, match="does not have a get_config"):
        ks.saving.register_keras_serializable()(type("Plain", (), {}))


def test_values_of_all_kinds_survive():
    value = {
        "a": [1, 2.5, None, True, "text"],
        "b": slice(1, None, 2),
        "c": b"bytes",
        "d": np.arange(3.0),
        "e": Ellipsis,
        "f": {"inner": (1, 2)},
    }
    again = deserialize_keras_object(serialize_keras_object(value))
    assert again["a"] == value["a"] and again["b"] == value["b"] and again["c"] == b"bytes" and again["e"] is Ellipsis
    np.testing.assert_array_equal(again["d"], value["d"])
    assert again["f"]["inner"] == [1, 2]
    assert serialize_keras_object(np.float32(2.0)) == 2.0


def test_kerasoft_module_names_are_read_too():
    config = serialize_keras_object(ks.layers.Dense(4))
    assert config["module"] == "keras.layers"
    for module in ("kerasoft.layers", "keras.src.layers.core.dense"):
        assert deserialize_keras_object({**config, "module": module}).units == 4


def test_lambdas_and_classes_are_refused():
    with pytest.raises(SerializationError, match="cannot save a lambda"):
        serialize_keras_object(lambda x: x)
    with pytest.raises(SerializationError, match="cannot serialize the class Dense"):
        serialize_keras_object(ks.layers.Dense)
    with pytest.raises(SerializationError, match="must implement the `get_config"):
        serialize_keras_object(object())


def test_one_shared_object_id_gives_one_object(tmp_path):
    dense = {**serialize_keras_object(ks.layers.Dense(2)), "shared_object_id": 7}
    from kerasoft.saving.serialization import sharing

    with sharing():
        assert deserialize_keras_object(dense) is deserialize_keras_object(dense)
    assert deserialize_keras_object(dense) is not deserialize_keras_object(dense)


def test_a_layer_inside_another_is_shared_again_after_loading():
    @ks.saving.register_keras_serializable("sharing")
    class Around(ks.layers.Layer):
        def __init__(self, layer, **kwargs):
            super().__init__(**kwargs)
            self.layer = layer

        def call(self, x):
            return self.layer(x)

        def get_config(self):
            return {**super().get_config(), "layer": ks.saving.serialize_keras_object(self.layer)}

        @classmethod
        def from_config(cls, config):
            return cls(ks.saving.deserialize_keras_object(config.pop("layer")), **config)

    a, b, inner = ks.Input((2,)), ks.Input((2,)), ks.layers.Dense(1)
    model = ks.Model([a, b], [inner(a), Around(inner)(b)])
    file = io.BytesIO()
    model.save(file)
    again = ks.saving.load_model(file)
    assert again.layers[2] is again.layers[3].layer
    np.testing.assert_array_equal(again.get_weights()[0], model.get_weights()[0])


def test_functions_of_old_files_and_names_that_claim_to_be_ours():
    @ks.saving.register_keras_serializable("old")
    def squared_by_me(x):
        return x**2

    config = {"module": "builtins", "class_name": "function", "config": "squared_by_me", "registered_name": "function"}
    assert ks.saving.deserialize_keras_object(config) is squared_by_me
    with pytest.raises(SerializationError, match="Expected 'config' to be a non-null str"):
        ks.saving.deserialize_keras_object({**config, "config": ["no", "text"]})
    dense = {"module": "keras.layers", "class_name": "Dense", "config": {"units": 1}, "registered_name": "my>Dense"}
    with pytest.raises(SerializationError, match="resolved to a Keras built-in"):
        ks.saving.deserialize_keras_object(dense)


def test_a_compile_of_ones_own_is_not_called_on_loading():
    @ks.saving.register_keras_serializable("compiling")
    class Own(ks.Sequential):
        def compile(self, extra, optimizer="sgd"):
            super().compile(optimizer, "mse")

    model = Own([ks.Input((2,)), ks.layers.Dense(1)])
    model.compile("x")
    file = io.BytesIO()
    model.save(file)
    with pytest.warns(UserWarning, match=r"the model's `compile\(\)` method is custom"):
        assert not ks.saving.load_model(file).compiled


def test_a_subclassed_model_inside_a_functional_one_comes_back(tmp_path):
    @ks.saving.register_keras_serializable("inside")
    class Inside(ks.Model):
        def __init__(self, **kwargs):
            super().__init__(**kwargs)
            self.last = ks.layers.Dense(1)

        def call(self, x):
            return self.last(x)

    inputs = ks.Input((3,))
    model = ks.Model(inputs, Inside()(ks.layers.Dense(2)(inputs)))
    model.compile("sgd", "mse")
    for ending in (".keras", ".h5"):
        model.save(tmp_path / f"m{ending}")
        again = ks.saving.load_model(tmp_path / f"m{ending}")
        np.testing.assert_array_equal(again(np.ones((1, 3))), model(np.ones((1, 3))))

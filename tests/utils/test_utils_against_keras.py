"""The small tools of `kerasoft.utils` give what Keras' give, values, dtypes and errors."""

import keras
import numpy as np
import pytest

import kerasoft as ks


def same(ours, theirs):
    ours, theirs = np.asarray(ours), np.asarray(theirs)
    assert (ours.dtype, ours.shape) == (theirs.dtype, theirs.shape)
    np.testing.assert_array_equal(ours, theirs)


@pytest.mark.parametrize("x", [[0, 2, 1], np.array([[1], [3]]), np.zeros((2, 3, 1), int), 2])
@pytest.mark.parametrize("classes", [None, 5])
def test_to_categorical(x, classes):
    same(ks.utils.to_categorical(x, classes), keras.utils.to_categorical(x, classes))


def test_to_categorical_of_an_array_of_jax():
    import jax.numpy as jnp

    x = jnp.array([[1], [0]])
    same(ks.utils.to_categorical(x, 3), keras.utils.to_categorical(x, 3))


def test_a_class_that_is_not_there():
    for kind in (ValueError, IndexError):
        with pytest.raises(kind, match="class 3 is not among 3 classes"):
            ks.utils.to_categorical([0, 3], 3)


@pytest.mark.parametrize("order", [1, 2, np.inf])
def test_normalize(order):
    x = np.array([[3.0, -4.0, 1.0], [0.0, 0.0, 0.0]])
    for given, axis in ((x, 1), (x, -1), (x[0], -1), *([] if order == np.inf else [(x.tolist(), -1)])):
        same(ks.utils.normalize(given, axis, order), keras.utils.normalize(given, axis, order))
    columns = np.linalg.norm(x, order, 0)
    np.testing.assert_allclose(ks.utils.normalize(x, 0, order), x / columns)


SEQUENCES = [
    ([[1], [2, 3], [4, 5, 6]], {}),
    ([[1], [2, 3], [4, 5, 6]], {"maxlen": 2, "padding": "post", "truncating": "post", "value": -1}),
    ([[], [2, 3]], {"maxlen": 4, "dtype": "float32"}),
    ([[[1, 2]], [[3, 4], [5, 6]]], {}),
    ([["a"], ["b", "c"]], {"dtype": object, "value": "-"}),
]


@pytest.mark.parametrize("sequences, arguments", SEQUENCES)
def test_pad_sequences(sequences, arguments):
    same(ks.utils.pad_sequences(sequences, **arguments), keras.utils.pad_sequences(sequences, **arguments))
    assert ks.preprocessing.sequence.pad_sequences is ks.utils.pad_sequences


@pytest.mark.parametrize(
    "sequences, arguments",
    [(3, {}), ([1, 2], {}), ([[1]], {"value": "a"}), ([[1]], {"padding": "x"}), ([[1]], {"truncating": "x"}),
     ([[[1, 2]], [[1]]], {})],
)  # fmt: skip
def test_errors_of_pad_sequences(sequences, arguments):
    with pytest.raises(ValueError) as theirs:
        keras.utils.pad_sequences(sequences, **arguments)
    with pytest.raises(ValueError) as ours:
        ks.utils.pad_sequences(sequences, **arguments)
    assert str(ours.value) == str(theirs.value)


@pytest.mark.parametrize("data", [1.0, (1,), [1, 2], (1, 2, 3)])
def test_unpacking(data):
    unpacked = ks.utils.unpack_x_y_sample_weight(data)
    assert unpacked == keras.utils.unpack_x_y_sample_weight(data)
    assert ks.utils.pack_x_y_sample_weight(*unpacked) == keras.utils.pack_x_y_sample_weight(*unpacked)
    with pytest.raises(ValueError, match="Data is expected to be in format"):
        ks.utils.unpack_x_y_sample_weight((1, 2, 3, 4))


def test_split_dataset():
    x, y = np.arange(20.0).reshape(10, 2), np.arange(10)
    left, right = ks.utils.split_dataset((x, y), left_size=0.7)
    assert (len(left), len(right)) == (7, 3)
    same(np.stack([a for a, _ in right]), x[7:])
    left, right = ks.utils.split_dataset(x, right_size=4, shuffle=True, seed=3)
    assert sorted(a[0] for a in [*left, *right]) == x[:, 0].tolist()
    assert [a[0] for a in left] != x[:6, 0].tolist()
    left, right = ks.utils.split_dataset(left.batch(4), left_size=5)
    assert [len(a) for a in left] == [4, 1] and [len(a) for a in right] == [1]


@pytest.mark.parametrize(
    "arguments, text",
    [({}, "At least one of the `left_size` or `right_size`"), ({"left_size": 1.5}, "`left_size` should be either"),
     ({"right_size": 9}, "`right_size` should be either"), ({"left_size": "a"}, "Invalid `left_size` Type"),
     ({"left_size": 0.8, "right_size": 0.4}, "is greater than 1"), ({"left_size": 3, "right_size": 3}, "be smaller than"),
     ({"left_size": 0.01}, "left side of the split will be empty")],
)  # fmt: skip
def test_errors_of_split_dataset(arguments, text):
    with pytest.raises((ValueError, TypeError), match=text):
        ks.utils.split_dataset(np.zeros(5), **arguments)


def test_config():
    config, theirs = ks.utils.Config(rate=0.1), keras.utils.Config(rate=0.1)
    for c in (config, theirs):
        c.units = 3
        c["b"] = [1]
        c.freeze()
        with pytest.raises(ValueError, match="Cannot mutate attribute"):
            c.units = 4
        with pytest.raises(AttributeError, match="Unknown attribute: 'unit'. Did you mean 'units'?"):
            c.unit  # noqa: B018
    assert config.as_dict() == theirs.as_dict() and repr(config) == repr(theirs) and list(config) == list(theirs)
    assert (len(config), "b" in config, config.get("x", 2), config.pop) and config.to_json() == theirs.to_json()


def test_source_inputs_and_keras_tensors():
    a, b = ks.Input((2,)), ks.Input((2,))
    assert [x.name for x in ks.utils.get_source_inputs(ks.layers.Add()([a, b, a]))] == [a.name, b.name]
    assert ks.utils.is_keras_tensor(a) and not ks.utils.is_keras_tensor(np.zeros(2))


def test_standardize_dtype():
    for dtype in (None, float, int, bool, np.float16, "bfloat16", np.dtype("uint8")):
        assert ks.utils.standardize_dtype(dtype) == keras.utils.standardize_dtype(dtype)


def test_progbar(capsys):
    for module in (ks, keras):
        bar = module.utils.Progbar(4, verbose=2, stateful_metrics=["last"])
        for step in range(1, 5):
            bar.update(step, [("loss", float(step)), ("last", step)])
    ours, theirs = capsys.readouterr().out.strip().split("\n")
    assert ours.partition(" - loss")[2] == theirs.partition(" - loss")[2]
    bar = ks.utils.Progbar(None)
    bar.add(3, [("loss", 1.0)])
    assert "3/Unknown" in capsys.readouterr().out
    ks.utils.disable_interactive_logging()
    try:
        ks.utils.Progbar(1, verbose=2).update(1)
        assert not ks.utils.is_interactive_logging_enabled() and not capsys.readouterr().out
    finally:
        ks.utils.enable_interactive_logging()


def test_py_dataset_without_super():
    class Bad(ks.utils.PyDataset):
        def __init__(self):
            pass

        def __len__(self):
            return 2

        def __getitem__(self, index):
            return index

    data = Bad()
    with pytest.warns(UserWarning, match="should call `super"):
        assert data.workers == 1
    assert (data.use_multiprocessing, data.max_queue_size, data.num_batches, list(data)) == (False, 10, 2, [0, 1])
    assert ks.utils.Sequence is ks.utils.PyDataset


def test_configs_of_keras_2():
    legacy, meanings = ks.utils.legacy, {"Constant": ks.initializers.Constant, "double": lambda x: 2 * x}
    config = legacy.serialize_keras_object(ks.initializers.Constant(2.0))
    assert config == keras.utils.legacy.serialize_keras_object(keras.initializers.Constant(2.0))
    assert legacy.deserialize_keras_object(config, meanings).value == 2.0
    assert legacy.deserialize_keras_object("Constant", meanings).value == 0.0
    assert legacy.deserialize_keras_object("double", meanings)(3) == 6
    assert legacy.deserialize_keras_object(None) is None and legacy.serialize_keras_object(None) is None
    assert legacy.serialize_keras_object(ks.activations.relu) == "relu"
    for given, text in (("x", "Unknown thing: 'x'"), ({"class_name": "x"}, "Improper config format")):
        with pytest.raises(ValueError, match=text):
            legacy.deserialize_keras_object(given, meanings, printable_module_name="thing")
    with pytest.raises(ValueError, match="Cannot serialize 3"):
        legacy.serialize_keras_object(3)

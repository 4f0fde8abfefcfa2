"""Functional, sequential and subclassed models: structure, running, names, configs, clones, errors."""

import copy
import os
import pickle

os.environ["KERAS_BACKEND"] = "jax"

import numpy as np
import pytest

import kerasoft as ks
from kerasoft import ops
from kerasoft.errors import GraphError, LayerError
from kerasoft.layers import Dense

X = np.random.default_rng(0).normal(size=(3, 4)).astype("float32")


class Net(ks.Model):
    def __init__(self, units=3, **kwargs):
        super().__init__(**kwargs)
        self.units = units
        self.blocks = [Dense(units, activation="relu"), Dense(units)]
        self.head = Dense(1)

    def call(self, x, training=None):
        for block in self.blocks:
            x = block(x)
        return self.head(x) * (2.0 if training else 1.0)


def dense(layer, x):
    return x @ layer.kernel.numpy() + layer.bias.numpy()


def test_functional_structure_and_values():
    ks.utils.clear_session(free_memory=False)
    a, b = ks.Input((4,), name="a"), ks.Input((4,), name="b")
    shared = Dense(2, name="shared")
    x, y = shared(a), shared(b)
    head = Dense(1, name="head")
    model = ks.Model({"left": a, "right": b}, [x - y, head(ops.concatenate([x, y], axis=-1))], name="pair")
    assert [layer.name for layer in model.layers] == ["a", "b", "shared", "head"]
    assert [o.name for o in model.operations] == ["a", "b", "shared", "concatenate", "subtract", "head"]
    assert model.input_names == ["left", "right"] and model.output_names == ["subtract", "head"]
    assert (model.input_shape, model.output_shape) == ([(None, 4), (None, 4)], [(None, 2), (None, 1)])  # flat, as Keras
    assert [w.path for w in model.weights] == ["shared/kernel", "shared/bias", "head/kernel", "head/bias"]
    assert model.count_params() == 10 + 5 and model.get_layer("head") is head and model.get_layer(index=2) is shared
    difference, value = model({"left": X, "right": X * 2})
    np.testing.assert_allclose(difference, dense(shared, X) - dense(shared, X * 2), rtol=1e-5, atol=1e-6)
    both = np.concatenate([dense(shared, X), dense(shared, X * 2)], -1)
    np.testing.assert_allclose(value, dense(head, both), rtol=1e-5, atol=1e-6)
    with pytest.warns(UserWarning, match="structure of `inputs` doesn't match the expected structure"):
        np.testing.assert_allclose(model({"right": X * 2, "left": X, "other": X})[1], value)
    with pytest.warns(UserWarning, match="doesn't match the expected structure"):
        np.testing.assert_allclose(model([X, X * 2])[1], value)
    unsorted = ks.Model({"right": b, "left": a}, x - y)
    with pytest.raises(LayerError, match="doesn't match the expected structure"):
        unsorted([X, X])
    single = ks.Model([a, b], x + y)
    np.testing.assert_allclose(single([X, X]), single({"a": X, "b": X}))


def test_layer_order_is_that_of_keras():
    keras = pytest.importorskip("keras")

    def build(k):
        k.utils.clear_session(free_memory=False)
        i, j = k.Input((4,), name="i"), k.Input((4,), name="j")
        d = [k.layers.Dense(4, name=f"d{n}") for n in range(6)]
        x = d[0](i)
        y = d[1](d[2](j))
        z = d[3](k.layers.Add(name="plus")([x, y]))
        w = d[4](x)
        z = d[0](z)
        return k.Model([j, i], [w, d[5](z), y])

    mine, theirs = build(ks), build(keras)
    assert [layer.name for layer in mine.layers] == [layer.name for layer in theirs.layers]
    assert [w.path for w in mine.weights] == [w.path for w in theirs.weights]


@pytest.mark.parametrize("merge", ["Masking", "Concatenate", "Add", "Attention", "Embedding", "again"])
def test_layer_order_counts_keras_operations_of_masks(merge):
    keras = pytest.importorskip("keras")

    def build(k, longer):
        k.utils.clear_session(free_memory=False)
        L, i, j, ids = k.layers, k.Input((3, 2), name="i"), k.Input((3, 2), name="j"), k.Input((3,), name="ids")
        x = y = L.Masking(name="mask")(L.Dense(2, name="x")(i))
        if merge == "Attention":
            y = L.MultiHeadAttention(1, 2, name="merge")(x, x)
        elif merge == "Embedding":
            y = L.Add(name="merge")(
                [L.Embedding(5, 2, mask_zero=True, name="table")(L.Rescaling(1.0, name="r")(ids)), x]
            )
        elif merge == "again":
            y = L.Masking(1.0, name="merge")(L.GRU(2, return_sequences=True, name="gru")(x))
        elif merge != "Masking":
            y = getattr(L, merge)(name="merge")([x, L.LayerNormalization(name="norm")(x), x])
            y = L.Concatenate(name="last")([L.Dense(2, name="unmasked")(j), y])
        y = L.LSTM(2, name="y")(L.BatchNormalization(name="batch")(y))
        z = j
        for n in range(longer):
            z = L.Dense(2, name=f"z{n}")(z)
        return k.Model([i, j, ids], L.Concatenate(name="both")([L.GRU(2, name="z")(z), y]))

    for longer in range(10):
        mine, theirs = build(ks, longer), build(keras, longer)
        assert [layer.name for layer in mine.layers] == [layer.name for layer in theirs.layers], longer


def test_nested_models_share_weights():
    inner_in = ks.Input((4,))
    inner = ks.Model(inner_in, Dense(4, activation="tanh")(inner_in), name="inner")
    x = ks.Input((4,))
    outer = ks.Model(x, inner(inner(x)))
    assert len(outer.weights) == 2 and outer.layers[1] is inner
    np.testing.assert_allclose(outer(X), inner(np.asarray(inner(X))), rtol=1e-6)
    again = ks.models.model_from_json(outer.to_json())
    again.set_weights(outer.get_weights())
    np.testing.assert_allclose(again(X), outer(X), rtol=1e-6)
    assert again.to_json() == outer.to_json()


def test_a_model_may_begin_in_the_middle():
    x = ks.Input((4,))
    first = Dense(3)
    middle = first(x)
    last = Dense(2)
    full = ks.Model(x, last(middle))
    tail = ks.Model(middle, full.output)
    hidden = np.asarray(first(X))
    np.testing.assert_allclose(tail(hidden), full(X), rtol=1e-6)
    features = ks.Model(full.input, full.layers[1].output)
    np.testing.assert_allclose(features(X), hidden)


def test_sequential_grows_and_shrinks():
    ks.utils.clear_session(free_memory=False)
    model = ks.Sequential(name="s")
    with pytest.raises(GraphError, match="cannot be built because it has no layers"):
        model.build((None, 4))
    model.add(ks.Input((4,)))
    model.add(Dense(3))
    model.add(Dense(2))
    first = model.layers[0].kernel
    assert model.built and model.output_shape == (None, 2) and [w.path for w in model.weights][0] == "s/dense/kernel"
    model.pop()
    assert model.output_shape == (None, 3) and len(model.layers) == 1
    model.add(Dense(5))
    assert (
        model.layers[0].kernel is first and model.output_shape == (None, 5) and len(model.layers[0]._inbound_nodes) == 1
    )
    np.testing.assert_allclose(model(X), dense(model.layers[1], dense(model.layers[0], X)), rtol=1e-5, atol=1e-6)


def test_sequential_builds_at_its_first_call():
    model = ks.Sequential([Dense(3), Dense(2)])
    assert not model.built and model.weights == []
    with pytest.raises(AttributeError, match="has no defined output shape yet"):
        _ = model.output_shape
    assert model(X).shape == (3, 2) and model.input_shape == (None, 4)
    assert model(X[:1]).shape == (1, 2)
    assert [type(layer).__name__ for layer in model.layers] == ["Dense", "Dense"]
    with pytest.raises(GraphError, match="has already been configured to use input shape"):
        model.build((None, 7))


def test_sequential_refuses_what_is_no_chain():
    model = ks.Sequential([ks.Input((4,)), Dense(3, name="a")])
    with pytest.raises(GraphError, match="Name 'a' is already the name of a layer"):
        model.add(Dense(3, name="a"))
    with pytest.raises(GraphError, match="You cannot add a different Input layer"):
        model.add(ks.Input((3,)))
    with pytest.raises(GraphError, match="Only instances of `keras.Layer` can be added"):
        model.add(3)


def test_subclassed_models():
    ks.utils.clear_session(free_memory=False)
    model = Net()
    assert not model.built
    out = model(X)
    assert out.shape == (3, 1) and len(model.weights) == 6 and model.weights[0].path == "net/dense/kernel"
    np.testing.assert_allclose(model(X, training=True), 2 * np.asarray(out), rtol=1e-6)
    other = Net()
    other.build((None, 4))
    assert [w.shape for w in other.weights] == [w.shape for w in model.weights]
    x = ks.Input((4,))
    wrapped = ks.Model(x, model(x))
    np.testing.assert_allclose(wrapped(X), out, rtol=1e-6)
    again = Net.from_config(Net(5).get_config())
    assert again.units == 5


def test_a_subclass_may_call_the_functional_constructor():
    class Mine(ks.Model):
        def __init__(self, units):
            x = ks.Input((4,))
            super().__init__(inputs=x, outputs=Dense(units)(x), name="mine")
            self.extra = units

    model = Mine(2)
    assert model.output_shape == (None, 2) and model.extra == 2 and len(model.weights) == 2
    np.testing.assert_allclose(model(X), dense(model.layers[1], X), rtol=1e-5, atol=1e-6)


def test_clones_have_their_own_weights():
    for model in (
        ks.Sequential([ks.Input((4,)), Dense(3), Dense(2)]),
        ks.models.model_from_json(ks.Sequential([ks.Input((4,)), Dense(2)]).to_json()),
    ):
        copy = ks.models.clone_model(model)
        assert copy.to_json() == model.to_json()
        assert not any(a is b for a, b in zip(copy.weights, model.weights, strict=True))
        copy.set_weights(model.get_weights())
        np.testing.assert_array_equal(copy(X), model(X))
    x = ks.Input((4,))
    double = ks.Model(x, Dense(2, name="d")(x) * 2.0)
    wide = ks.models.clone_model(double, clone_function=lambda o: Dense(7, name="w") if o.name == "d" else o)
    assert wide.output_shape == (None, 7)
    with pytest.raises(ValueError, match="are only supported for Sequential models or Functional models"):
        ks.models.clone_model(Net(), clone_function=lambda layer: layer)
    with pytest.raises(ValueError, match="`input_tensors` must have the same structure as model.input"):
        ks.models.clone_model(double, input_tensors=[ks.Input((4,))])
    double.compile("adam", "mse")
    again = ks.models.clone_model(double)
    assert again.compiled and type(again.optimizer).__name__ == "Adam" and again.optimizer is not double.optimizer


def test_training_and_masks_reach_inner_layers():
    x = ks.Input((4,))
    model = ks.Model(x, Net()(x))
    np.testing.assert_allclose(model(X, training=True), 2 * np.asarray(model(X)), rtol=1e-6)
    assert model.layers[1]._inbound_nodes[0].line.rsplit(":")[0].endswith("test_models.py")


def test_the_models_training_wins_over_that_of_a_call():
    """Keras's files hold the default of every call: a model read from one must still drop out in training."""
    x = ks.Input((50,))
    ones = np.ones((2, 50), "float32")
    for given in (False, True):
        model = ks.Model(x, ks.layers.Dropout(0.5)(x, training=given))
        dropped = [bool((np.asarray(model(ones, training=t)) == 0).any()) for t in (True, False, None)]
        assert dropped == [True, False, given]


def test_freezing_a_model():
    model = ks.Sequential([ks.Input((4,)), Dense(3), Dense(2)])
    model.layers[0].trainable = False
    assert len(model.trainable_weights) == 2
    model.trainable = False
    assert model.trainable_weights == [] and not model.layers[1].trainable
    frozen = ks.Sequential([ks.Input((4,)), Dense(3, trainable=False), Dense(2)])
    assert [w.path.rsplit("/")[-1] for w in frozen.trainable_weights] == ["kernel", "bias"]
    assert len(frozen.non_trainable_weights) == 2


def test_errors_of_graphs():
    a, b = ks.Input((4,), name="a"), ks.Input((4,), name="b")
    with pytest.raises(
        GraphError, match=r"the output depends on Input 'b', which is not among the model's inputs \['a'\]"
    ):
        ks.Model(a, a + b)
    with pytest.raises(GraphError, match='The name "d" is used 2 times in the model'):
        ks.Model(a, Dense(4, name="d")(Dense(4, name="d")(a)))
    with pytest.raises(GraphError, match="All `outputs` values must be KerasTensors"):
        ks.Model(a, 3)
    model = ks.Model([a, b], a + b)
    with pytest.raises(LayerError, match=r"expects 2 named input\(s\) with keys \['a', 'b'\], but it received 1"):
        model(X)
    with pytest.raises(LayerError, match='Missing data for input "b"'):
        model({"a": X})
    with pytest.raises(LayerError, match=r"expected shape=\(None, 4\), found shape=\(3, 2\)"):
        model([X, X[:, :2]])
    with pytest.raises(ValueError, match="No such layer: nothing. Existing layers are: "):
        model.get_layer("nothing")
    with pytest.raises(ValueError, match="Was asked to retrieve layer at index 9"):
        model.get_layer(index=9)
    with pytest.raises(AttributeError, match="`Model.layers` attribute is reserved"):
        model.layers = []


def test_inputs_are_cast_and_reshaped():
    x = ks.Input((1,), dtype="int32")
    model = ks.Model(x, ops.cast(x, "float32") * 0.5)
    np.testing.assert_allclose(model(np.array([3.0, 5.0])), [[1.5], [2.5]])
    column = ks.Input((), name="flat")
    np.testing.assert_allclose(ks.Model(column, column + 1.0)(np.array([[1.0], [2.0]])), [2.0, 3.0])


def test_input():
    ks.utils.clear_session(free_memory=False)
    x = ks.Input((3,), batch_size=2, dtype="int32", name="in")
    assert (x.shape, x.dtype, x.name) == ((2, 3), "int32", "in")
    assert ks.Input(batch_shape=(None, 5)).shape == (None, 5)
    with pytest.raises(ValueError, match="You must pass a `shape` argument"):
        ks.Input()
    with pytest.raises(ValueError, match="did you mean"):
        ks.Input(5)
    with pytest.raises(ValueError, match="cannot pass both `shape` and `batch_shape`"):
        ks.Input((3,), batch_shape=(None, 3))
    with pytest.raises(ValueError, match="`ragged=True` is not supported"):
        ks.Input((3,), ragged=True)


def test_copies_and_pickles_of_a_trained_model():
    model = ks.Sequential([ks.Input((4,)), Dense(1)])
    model.compile("adam", "mse")
    model.fit(X, np.ones((len(X), 1), "float32"), verbose=0)
    for again in (pickle.loads(pickle.dumps(model)), copy.deepcopy(model)):
        np.testing.assert_array_equal(again(X), model(X))
        assert again.compiled and int(again.optimizer.iterations) == 1

"""Common mistakes: each error says who was wronged, what was expected, what came, and what to do.

A row is a mistake and four fragments of the error's text, in this order: the layer (or input, output, argument), the
expected, the received, the fix. No row may raise an exception type of JAX.
"""

import numpy as np
import pytest

import kerasoft as ks

L = ks.layers
RNG = np.random.default_rng(0)
X, Y = RNG.normal(size=(8, 4)).astype("float32"), RNG.normal(size=(8, 3)).astype("float32")
CLASSES = np.array([0, 1, 2, 0] * 2)


def dense(units=3, **options):
    inputs = ks.Input((4,), name="features")
    return ks.Model(inputs, L.Dense(units, name="head", **options)(inputs))


def fit(model, x=X, y=Y, loss="mse", metrics=None, loss_weights=None, **options):
    model.compile("sgd", loss, metrics=metrics, loss_weights=loss_weights)
    model.fit(x, y, verbose=0, **options)


def classify(labels, loss="sparse_categorical_crossentropy"):
    fit(dense(activation="softmax"), X, labels, loss)


def on(layer, *shapes, dtype=None):
    tensors = [ks.Input(shape, dtype=dtype, name=f"input{i}") for i, shape in enumerate(shapes)]
    return layer(tensors[0] if len(tensors) == 1 else tensors)


def twice(layer, first, second):
    layer(ks.Input(first))
    layer(ks.Input(second))


def words(ids):
    model = ks.Sequential([ks.Input((3,), name="ids"), L.Embedding(5, 2, name="words"), L.Flatten(), L.Dense(1)])
    fit(model, np.full((4, 3), ids), np.ones((4, 1)))


def two_outputs():
    inputs = ks.Input((4,))
    return ks.Model(inputs, {"a": L.Dense(1, name="a")(inputs), "b": L.Dense(1, name="b")(inputs)})


def two_inputs():
    left, right = ks.Input((4,), name="left"), ks.Input((4,), name="right")
    return ks.Model([left, right], L.Dense(3)(L.Add()([left, right])))


def disconnected():
    inside, outside = ks.Input((4,), name="inside"), ks.Input((4,), name="outside")
    return ks.Model(inside, L.Dense(2)(outside))


class NoSuper(ks.Layer):
    def __init__(self):
        self.units = 1


class WrongShapes(ks.Layer):
    def call(self, x):
        return ks.ops.matmul(x, ks.ops.ones((7, 2)))


def with_nan():
    x = X.copy()
    x[5, 2] = np.nan
    return x


MISTAKES = [
    # ranks, channels and sizes of inputs
    ("rank 1 into Dense", lambda: on(L.Dense(3, name="head"), ()), '"head"', "min_ndim=2", "ndim=1", "expand_dims"),
    ("rank 3 into Conv2D", lambda: on(L.Conv2D(3, 3, name="stem"), (8, 8)), '"stem"', "min_ndim=4", "ndim=3", "1 more axes"),
    ("rank 5 into Conv2D", lambda: on(L.Conv2D(3, 3, name="stem"), (2, 8, 8, 3)), '"stem"', "max_ndim=4", "ndim=5", "TimeDistributed"),
    ("rank 2 into LSTM", lambda: on(L.LSTM(3, name="memory"), (4,)), '"memory"', "ndim=3", "ndim=2", "1 more axes"),
    ("other channels", lambda: twice(L.Conv2D(3, 3, name="stem"), (8, 8, 3), (8, 8, 1)), '"stem"', "value 3", r"\(None, 8, 8, 1\)", "a layer of its own"),
    ("shared by other widths", lambda: twice(L.Dense(3, name="head"), (4,), (5,)), '"head"', "axis -1 .* value 4", r"\(None, 5\)", "a layer of its own"),
    ("unknown width", lambda: on(L.Dense(3, name="head"), (None,)), "'head'", "known size of axis -1", r"\(None, None\)", "Give Input a fixed size"),
    ("kernel larger than image", lambda: on(L.Conv2D(3, 9, name="stem"), (4, 4, 3)), "'stem'", "at least 9", r"4, 4, 3", "padding='same'"),
    ("window larger than image", lambda: on(L.MaxPooling2D(8, name="pool"), (4, 4, 1)), "'pool'", "at least 8", r"4, 4, 1", "padding='same'"),
    ("groups against channels", lambda: on(L.Conv2D(4, 3, groups=2, name="stem"), (8, 8, 3)), "'stem'", "evenly divisible", "groups=2, .* 3 channels", "Change"),
    ("concatenate other steps", lambda: on(L.Concatenate(name="join"), (3, 4), (2, 5)), "'join'", "matching shapes", r"\(None, 3, 4\), \(None, 2, 5\)", "except for the concatenation axis"),
    ("add other widths", lambda: on(L.Add(name="total"), (3,), (4,)), "'total'", "[Cc]ompatible|same", r"\(3,\) and \(4,\)", "Give"),
    ("dot of other sizes", lambda: on(L.Dot(axes=1, name="dot"), (3,), (4,)), "'dot'", "axis values 3", "4", "axes"),
    ("reshape to other size", lambda: on(L.Reshape((3, 5), name="fold"), (4, 4)), "'fold'", "size of the tensor must be unchanged", r"\(4, 4\)", r"target_shape=\(3, 5\)"),
    ("crop everything", lambda: on(L.Cropping1D(5, name="crop"), (6, 2)), "'crop'", "smaller than", r"6, 2\)", "`cropping`"),
    ("axis of normalisation", lambda: on(L.BatchNormalization(axis=7, name="norm"), (4,)), "'norm'", "out of bounds", r"axis=7", "input shape"),
    ("groups of normalisation", lambda: on(L.GroupNormalization(groups=3, name="norm"), (4,)), "'norm'", "multiple", r"\(3\)", r"channels \(4\)"),
    ("rank into TimeDistributed", lambda: on(L.TimeDistributed(L.Dense(3), name="each"), (4,)), "'each'", "at least 3 dimensions", r"\(None, 4\)", "input_shape"),
    ("shapes inside a user's layer", lambda: on(WrongShapes(name="odd"), (4,)), "'odd'", "must be equal", r"b, 4\] by float32\[7, 2", "last axis"),
    ("a string as input", lambda: L.Dense(3, name="head")("hello"), "'head'", "should be tensors", "hello", "tensors"),
    # constructors
    ("negative units", lambda: L.Dense(-3), "Dense", "positive integer", "-3", "units"),
    ("fractional units", lambda: L.Dense(3.5), "Dense", "positive integer", "3.5", "units"),
    ("no filters", lambda: L.Conv2D(0, 3), "Conv2D", "strictly positive", "filters=0", "`filters`"),
    ("three strides for 2-D", lambda: L.Conv2D(3, 3, strides=(1, 2, 3)), "Conv2D", "tuple of 2 integers", r"strides=\(1, 2, 3\)", "`strides`"),
    ("unknown padding", lambda: L.Conv2D(3, 3, padding="smae"), "Conv2D", "one of .*'same'|one of .*'valid'", "padding=smae", "`padding`"),
    ("stride and dilation", lambda: L.Conv2D(3, 3, strides=2, dilation_rate=2), "Conv2D", "not supported in conjunction", r"strides=\(2, 2\)", "dilation_rate"),
    ("groups against filters", lambda: L.Conv2D(4, 3, groups=3), "Conv2D", "evenly divisible", "groups=3, filters=4", "number of groups"),
    ("dropout of 150 %", lambda: L.Dropout(1.5), "Dropout", "between 0 and 1", "1.5", "`rate`"),
    ("no heads", lambda: L.MultiHeadAttention(0, 4), "MultiHeadAttention", "positive integer", "0", "num_heads"),
    ("misspelt argument", lambda: L.Dense(3, activaton="relu"), "Dense", "activation", "activaton", "Did you mean 'activation'"),
    ("unknown activation", lambda: L.Dense(3, activation="rulu"), "Dense", "activation", "rulu", "Did you mean 'relu'"),
    ("unknown initializer", lambda: L.Dense(3, kernel_initializer="glorot_unifrom"), "Dense", "initializer", "glorot_unifrom", "Did you mean 'glorot_uniform'"),
    ("unknown regularizer", lambda: L.Dense(3, kernel_regularizer="l3"), "Dense", "regularizer", "l3", "a known name"),
    ("unknown constraint", lambda: L.Dense(3, kernel_constraint="max_nrom"), "Dense", "constraint", "max_nrom", "Did you mean 'max_norm'"),
    ("permutation that skips", lambda: L.Permute((1, 3)), "Permute", "consecutive", r"\(1, 3\)", "start from 1"),
    ("Bidirectional of Dense", lambda: L.Bidirectional(L.Dense(3, name="head")), "Bidirectional", "go_backwards|recurrent", "Dense", "LSTM"),
    ("a cell without state", lambda: L.RNN(L.Dense(3, name="head")), "RNN", "state_size", "head", "integer"),
    ("no super().__init__()", lambda: NoSuper()(X), "NoSuper", r"super\(\).__init__\(\)", "forgot", "first statement"),
    # models
    ("a function in Sequential", lambda: ks.Sequential([L.Dense(3), abs]), "Sequential", "instances of", "abs", "[Ll]ayer"),
    ("two layers of one name", lambda: ks.Sequential([L.Dense(3, name="a"), L.Dense(3, name="a")]), "Sequential", "unique names", "'a'", "Update the `name`"),
    ("an input left out", disconnected, "Graph disconnected", "inside", "outside", "among the model's inputs"),
    ("no such layer", lambda: dense().get_layer("haed"), "layer", "features", "haed", "Did you mean 'head'"),
    ("too few weights", lambda: dense().set_weights([np.zeros((4, 3))]), "functional", "2 weights", "length 1", "head/kernel"),
    ("weights of other shape", lambda: dense().set_weights([np.zeros((3, 3)), np.zeros(3)]), "functional", r"\(4, 3\)", r"\(3, 3\)", "head/kernel"),
    ("parameters of an unbuilt layer", lambda: L.Dense(3, name="head").count_params(), "'head'", "built", "isn't built", r"layer.build\(input_shape\)"),
    ("a symbolic condition", lambda: bool(ks.Input((4,)) > 0), "KerasTensor", "boolean", "symbolic", "ops.where|ops.cond"),
    ("NumPy on a symbolic tensor", lambda: np.exp(ks.Input((4,))), "KerasTensor", "actual numerical value", "symbolic", "kerasoft.ops"),
    # compile
    ("unknown loss", lambda: dense().compile("sgd", "mean_squared_eror"), "loss", "interpret", "mean_squared_eror", "Did you mean 'mean_squared_error'"),
    ("unknown metric", lambda: fit(dense(), metrics=["acuracy"]), "metric", "interpret", "acuracy", "Did you mean 'accuracy'"),
    ("unknown optimizer", lambda: dense().compile("adamm", "mse"), "optimizer", "interpret", "adamm", "Did you mean 'adam'"),
    ("a word as learning rate", lambda: ks.optimizers.SGD("fast"), "learning_rate", "float", "fast", "LearningRateSchedule"),
    ("two ways to clip", lambda: ks.optimizers.SGD(clipnorm=1.0, clipvalue=1.0), "clipnorm", "Only one", "clipvalue=1.0", "can be set"),
    ("loss for an unknown output", lambda: fit(two_outputs(), X, {"a": Y[:, :1]}, {"a": "mse", "c": "mse"}), "`loss`", r"\['a', 'b'\]", "'c'", "outputs are"),
    ("three losses for one output", lambda: fit(dense(), loss=["mse", "mse", "mse"]), "`loss`", "1 output", "list of 3", "one entry an output"),
    ("weight of an unknown output", lambda: fit(dense(), loss_weights={"tail": 2.0}), "`loss_weights`", r"\['head'\]", "'tail'", "outputs are"),
    ("fit before compile", lambda: dense().fit(X, Y), "model", "must call", "before", r"`compile\(\)`"),
    ("no loss", lambda: fit(dense(), loss=None), "loss", "Provide", "No loss", r"`compile\(\)`"),
    # data
    ("other width", lambda: fit(dense(), X[:, :3]), "'features'", r"\(None, 4\)", r"\(None, 3\)", "Give the model's Input this shape"),
    ("other width in predict", lambda: dense().predict(X[:, :3], verbose=0), "'features'", r"\(None, 4\)", r"\(None, 3\)", "Give the model's Input this shape"),
    ("misspelt input", lambda: fit(dense(), {"feature": X}), "functional", "'features'", r"\['feature'\]", "takes the inputs"),
    ("one array for two inputs", lambda: fit(two_inputs()), "functional", r"2 input\(s\) \['left', 'right'\]", r"1 array\(s\)", "Give a list"),
    ("labels of an output missing", lambda: fit(two_outputs(), X, {"a": Y[:, :1]}, {"a": "mse", "b": "mse"}), "'b'", "labels", "none for it", "loss=None"),
    ("lengths that differ", lambda: fit(dense(), X, Y[:6]), "'y'", "same number of samples", "sizes: 6", "Make sure"),
    ("sample weights of other length", lambda: fit(dense(), sample_weight=np.ones(7)), "'sample_weight'", "same number", "sizes: 7", "Make sure"),
    ("labels of other width", lambda: fit(dense(), X, RNG.normal(size=(8, 5))), "'head'", r"\(None, 3\)", r"\(None, 5\)", "Change the labels"),
    ("class too large", lambda: classify(CLASSES + 1), "'head'", "from 0 to 2", "is 3 in row 2", "as many units"),
    ("negative class", lambda: classify(CLASSES - 1), "'head'", "from 0 to 2", "is -1 in row 0", "count from 0"),
    ("one-hot for sparse", lambda: classify(np.eye(3)[CLASSES]), "'head'", r"\(None,\)", r"\(None, 3\)", "use categorical_crossentropy"),
    ("classes for one-hot", lambda: classify(CLASSES, "categorical_crossentropy"), "'head'", r"\(None, 3\)", r"\(None,\)", "use sparse_categorical_crossentropy"),
    ("id too large", lambda: words(9), "'ids'.*'words'", "from 0 to 4", "holds 9 in row 0", "larger input_dim"),
    ("NaN", lambda: fit(dense(), with_nan()), "'features'", "finite", "nan in row 5", "Drop or fill"),
    ("no rows", lambda: fit(dense(), X[:0], Y[:0]), "arrays", "data", "0 rows", "no data"),
    ("ragged rows", lambda: fit(dense(), np.array([[1], [1, 2]] * 4, dtype=object)), "x", "one shape", r"row 1 has shape \(2,\)", "pad_sequences"),
    ("words as numbers", lambda: fit(dense(), np.array([["a"] * 4] * 8)), "x", "numbers", "str", "Encode text"),
    ("batches of 0", lambda: fit(dense(), batch_size=0), "batch_size", "at least 1", "batch_size=0", "whole number"),
    ("fewer than no epochs", lambda: fit(dense(), epochs=-1), "epochs", "at least 0", "epochs=-1", "whole number"),
    ("twice all for validation", lambda: fit(dense(), validation_split=2.0), "`validation_split`", "between 0 and 1", "2.0", "fraction"),
    ("two kinds of weights", lambda: fit(dense(), class_weight={0: 1.0}, sample_weight=np.ones(8)), "`sample_weight`", "cannot be specified at the same time", r"\(8,\)", "`class_weight`"),
    ("a word as callback", lambda: fit(dense(), callbacks=["tensorboard"]), "callbacks", "`Callback` instances", "'tensorboard'", "instances"),
    ("nothing to monitor", lambda: fit(dense(), callbacks=[ks.callbacks.EarlyStopping("val_los")]), "EarlyStopping", "mode='max'", "val_los", "mode='min'"),
    # files
    ("no such file", lambda: ks.models.load_model("nowhere.keras"), "file", "accessible", "nowhere.keras", "ensure"),
    ("ending of a model", lambda: dense().save("model.bin"), "filepath", ".keras", "model.bin", "Please add"),
    ("ending of weights", lambda: dense().save_weights("model.bin"), "filename", ".weights.h5", "model.bin", "must end in"),
]  # fmt: skip


@pytest.mark.parametrize("row", MISTAKES, ids=[row[0].replace(" ", "-") for row in MISTAKES])
def test_a_mistake_is_explained(row, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    _, mistake, who, expected, received, fix = row
    with pytest.raises(Exception) as caught:
        mistake()
    assert not type(caught.value).__module__.startswith("jax"), type(caught.value)
    text = str(caught.value)
    missing = {
        k: v for k, v in dict(who=who, expected=expected, received=received, fix=fix).items() if not found(v, text)
    }
    assert not missing, text


def found(fragment, text):
    import re

    return re.search(fragment, text, re.DOTALL)


def test_there_are_sixty():
    assert len({row[0] for row in MISTAKES}) == len(MISTAKES) >= 60

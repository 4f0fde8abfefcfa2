"""Models that begin with text: split into a plan for the host and a compiled part, trained, scored, saved as one."""

import pathlib
import pickle
import subprocess
import sys

import jax
import numpy as np
import pytest

import kerasoft as ks
from kerasoft.errors import DataError, LayerError, SerializationError
from kerasoft.models.host_part import entry

L = ks.layers
ROOT = pathlib.Path(__file__).resolve().parents[2]
TEXTS = np.array(["good film", "bad film", "good, good!", "awful bad", "nice good", "Bad. awful"] * 4)
LABELS = np.array([1, 0, 1, 0, 1, 0] * 4)
TABLE = {"city": np.array(["x", "y", "z"]), "age": np.array([10.0, 30.0, 50.0]), "id": np.array([10, 2**40, 5])}


class Own(ks.Model):
    """A subclassed model of text."""

    def __init__(self, **options):
        super().__init__(**options)
        self.words = L.TextVectorization(vocabulary=["a"], output_sequence_length=2)
        self.vectors = L.Embedding(3, 2)

    def call(self, x):
        return self.vectors(self.words(x))


def text_model(length=3):
    vectorize = L.TextVectorization(output_sequence_length=length)
    vectorize.adapt(TEXTS)
    layers = [vectorize, L.Embedding(vectorize.vocabulary_size(), 4), L.GlobalAveragePooling1D(), L.Dense(1, "sigmoid")]
    model = ks.Sequential([ks.Input((), dtype="string", name="text"), *layers])
    model.compile(ks.optimizers.Adam(0.1), "binary_crossentropy", metrics=["accuracy"])
    return model


def table_model():
    """A nested model that crosses binned numbers with strings, and looks up 64-bit numbers."""
    city, age = ks.Input((1,), dtype="string", name="city"), ks.Input((1,), name="age")
    ids = ks.Input((1,), dtype="int64", name="id")
    crossed = L.HashedCrossing(8, output_mode="one_hot", name="crossed")(
        [city, L.Discretization([20.0, 40.0], name="bins")(age)]
    )
    known = L.StringLookup(vocabulary=["x", "y"], output_mode="one_hot", name="known")(city)
    several = L.IntegerLookup(vocabulary=[10, 20, 2**40], output_mode="multi_hot", name="several")(ids)
    features = ks.Model([city, age, ids], L.Concatenate()([crossed, known, several, age]))
    return ks.Model({"city": city, "age": age, "id": ids}, L.Dense(2)(features([city, age, ids])))


def test_text_is_trained_on_and_scored_like_its_token_ids():
    model = text_model()
    vectorize, rest = model.layers[0], model.layers[1:]
    assert model.fit(TEXTS, LABELS, epochs=20, batch_size=8, verbose=0).history["accuracy"][-1] == 1.0
    ids = np.asarray(vectorize(TEXTS))
    on_ids = ks.Sequential([ks.Input((3,), dtype="int32"), *rest])
    on_ids.compile("adam", "binary_crossentropy", metrics=["accuracy"])
    want = on_ids.predict(ids, verbose=0)
    np.testing.assert_allclose(model.predict(TEXTS, verbose=0), want, atol=1e-6)
    np.testing.assert_allclose(model.predict(list(TEXTS), batch_size=5, verbose=0), want, atol=1e-6)
    np.testing.assert_allclose(model(TEXTS[:, None]), want, atol=1e-6)
    np.testing.assert_allclose(model(["good film"]), want[:1], atol=1e-6)
    assert model.evaluate(TEXTS, LABELS, verbose=0) == pytest.approx(on_ids.evaluate(ids, LABELS, verbose=0))


def test_batches_of_text_are_trained_on():
    model = text_model()
    batches = [(TEXTS[i : i + 8], LABELS[i : i + 8]) for i in range(0, 24, 8)]
    assert model.fit(iter(batches), validation_data=(TEXTS, LABELS), verbose=0).history["val_loss"]
    assert model.train_on_batch(TEXTS[:4], LABELS[:4])


def test_a_table_of_strings_numbers_and_long_numbers_is_trained_on():
    model = table_model()
    part = entry(model)
    assert part.input_names == ["age", "crossed", "known", "several"]
    assert {step.operation.name for step in part._host} == {"bins", "crossed", "known", "several"}
    model.compile("sgd", "mse")
    want = model.predict(TABLE, verbose=0)
    kernel, bias = model.get_weights()
    crossing = np.asarray(L.HashedCrossing(8, output_mode="one_hot")((TABLE["city"], np.array([0, 1, 2]))))
    rows = np.concatenate([crossing, [[0, 1, 0], [0, 0, 1], [1, 0, 0]], [[0, 1, 0, 0], [0, 0, 0, 1], [1, 0, 0, 0]],
                           TABLE["age"][:, None]], axis=1)  # fmt: skip
    np.testing.assert_allclose(want, rows @ kernel + bias, rtol=1e-5)
    model.fit(TABLE, np.zeros((3, 2)), verbose=0)
    assert np.abs(model.predict(TABLE, verbose=0) - want).max() > 0.1


def test_a_vocabulary_learnt_later_is_used_by_programs_made_before():
    vectorize = L.TextVectorization(output_sequence_length=1)
    model = ks.Sequential([ks.Input((), dtype="string"), vectorize, L.Rescaling(1.0)])
    assert model.predict(np.array(["b", "a"]), verbose=0).tolist() == [[1.0], [1.0]]
    vectorize.adapt(["a", "b", "a"])
    assert model.predict(np.array(["b", "a"]), verbose=0).tolist() == [[3.0], [2.0]]


def test_a_sequential_model_without_an_input_is_built_for_text():
    vectorize = L.TextVectorization(vocabulary=["a", "b"], output_sequence_length=2)
    model = ks.Sequential([vectorize, L.Embedding(4, 2), L.Flatten(), L.Dense(1)])
    model.compile("sgd", "mse")
    model.fit(np.array(["a b", "b"]), np.zeros(2), verbose=0)
    assert (model.input_shape, model.output_shape, model.inputs[0].dtype) == ((None,), (None, 1), "string")


def test_shapes_of_models_of_text_are_known_without_a_trace():
    model = text_model()
    assert model.compute_output_shape((None,)) == (None, 1)
    assert Own()(np.array(["a b", "a"])).shape == (2, 2, 2)
    assert ks.models.clone_model(model).output_shape == (None, 1)


def test_whole_numbers_made_inside_the_step_are_looked_up_there():
    x = ks.Input((3,))
    layer = L.IntegerLookup(vocabulary=[4, 1, 9], mask_token=0, num_oov_indices=2)
    counted = L.IntegerLookup(vocabulary=[4, 1, 9], output_mode="count")
    twice = x * 2
    model = ks.Model(x, [layer(twice), counted(twice)])
    values = np.array([[2.0, 4.5, 0.5], [0.0, -1.5, 7.0]], "float32")
    for got, want in zip(model.predict(values, verbose=0), (layer(values * 2), counted(values * 2)), strict=True):
        np.testing.assert_array_equal(got, want)


def test_a_plan_is_run_without_jax_and_without_layers():
    plan = entry(table_model()).plan()
    code = (
        "import sys, pickle, numpy as np; plan, x = pickle.load(sys.stdin.buffer); out = plan(x); "
        "print([m for m in ('jax', 'kerasoft.layers') if m in sys.modules], sorted(out), out['several'].dtype)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], input=pickle.dumps((plan, TABLE)), capture_output=True, cwd=ROOT
    )
    assert not done.stderr.decode()
    assert done.stdout.decode().strip() == "[] ['age', 'crossed', 'known', 'several'] float32"


ERRORS = {
    "text to a layer of numbers": (lambda: L.Dense(2, name="d")(np.array(["a"])), "Layer 'd' (Dense) got text, such as 'a'"),
    "text input to a layer of numbers": (
        lambda: L.Dense(2, name="d")(ks.Input((1,), dtype="string", name="city")),
        "name=city> is text, which cannot be computed with: put a TextVectorization, StringLookup or Hashing layer behind",
    ),
    "a hash of what is computed": (
        lambda: ks.Model(x := ks.Input((1,)), L.Hashing(4, name="h")(L.Dense(1, name="d")(x))).predict(np.zeros((2, 1))),
        "Hashing 'h' works on strings or 64-bit numbers before the compiled step, but takes what 'd' computes inside it",
    ),
    "numbers for text": (lambda: text_model().predict(np.zeros(3)), "input 'text' holds float64 values; expected strings"),
    "a hash under jax.jit": (
        lambda: jax.jit(L.Hashing(4, name="h"))(np.array([1])),
        "Hashing 'h' works on strings or 64-bit numbers before the compiled step; here its input is computed inside it",
    ),
    "a subclassed model of text in a model": (
        lambda: Own(name="own")(ks.Input((), dtype="string")),
        "Own 'own' has layers that take text or other raw columns. It can be called on arrays, but only functional",
    ),
    "training on text without a layer for it": (
        lambda: Own().predict(np.array(["a"])),
        "x holds str32 values; expected numbers. Encode text or dates as numbers first, or begin the model with",
    ),
    "exporting text": (
        lambda: text_model().export("model.stablehlo"),
        "begins with layers that run on the host (text, lookups, hashes), which no exported program can hold",
    ),
    "a missing column": (
        lambda: table_model().predict({"city": TABLE["city"], "age": TABLE["age"]}),
        "takes the inputs ['age', 'city', 'id'], but x has no 'id'",
    ),
    "no text": (lambda: text_model().predict([None, "a"]), "input 'text' holds None (NoneType); expected strings"),
}  # fmt: skip


@pytest.mark.parametrize("what", list(ERRORS))
def test_errors_name_layer_and_fix(what):
    make, text = ERRORS[what]
    with pytest.raises((DataError, LayerError, SerializationError)) as error:
        make()
    assert text in str(error.value)

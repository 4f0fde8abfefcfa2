"""The first step of a model that was trained before: from disk, the same numbers, and nothing worked out that it does not need."""

import numpy as np
import pytest
from kerasoft.compiler import compile_cache, several, stored
from kerasoft.compiler.errors import GradientError
from kerasoft.compiler.ops.registry import REGISTRY, op

import kerasoft as ks


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """Keeps everything in a folder of the test's own; steps are as long as those of large models."""
    monkeypatch.setattr(several, "SHORT_FLOPS", 0.0)
    monkeypatch.setattr(stored, "use_default_cache", lambda: str(tmp_path))
    monkeypatch.setattr(stored, "WORTH_S", 0.0)
    return tmp_path


def images():
    x, y = np.random.default_rng(0).random((8, 6, 6, 3), np.float32), np.arange(8) % 2
    image = ks.Input((6, 6, 3))
    h = ks.layers.Conv2D(4, 3, activation="relu", padding="same")(image)
    h = ks.layers.Dropout(0.4)(ks.layers.BatchNormalization()(h))
    return ks.Model(image, ks.layers.Dense(2, activation="softmax")(ks.layers.Flatten()(h))), x, y


def words():
    x, y = np.random.default_rng(0).integers(0, 50, (8, 5)), np.arange(8) % 2
    layers = [
        ks.Input((5,), dtype="int32"),
        ks.layers.Embedding(50, 4),
        ks.layers.LSTM(6),
        ks.layers.Dense(2, activation="softmax"),
    ]
    return ks.Sequential(layers), x, y


def trained(made, rate=0.01):
    """A model in a fresh session after one `fit`, with its losses, its source and how often XLA compiled."""
    ks.utils.clear_session()
    ks.utils.set_random_seed(0)
    model, x, y = made()
    model.compile(ks.optimizers.Adam(rate), "sparse_categorical_crossentropy")
    before = compile_cache.compilations()
    history = model.fit(x, y, batch_size=4, epochs=2, verbose=0, seed=1)
    (program,) = model._trainer.programs.values()
    return model, (history.history["loss"], [w.tobytes() for w in model.get_weights()]), program.source, before


@pytest.mark.parametrize("made", [images, words])
def test_a_model_that_was_trained_before_is_not_differentiated(folder, made):
    _, first, source, _ = trained(made)
    assert "graph" in vars(source.objective), "the first time"
    model, again, source, before = trained(made)
    assert again == first and compile_cache.compilations() == before
    assert "graph" not in vars(source.objective) and not source._optimised
    _, x, y = made()
    text = model.explain(x, y, batch_size=4, measure=False).text
    assert "gradient of" in text and "=== train" in text


def test_another_rate_is_the_same_step_and_another_loss_is_not(folder):
    _, first, _, _ = trained(images)
    _, other, source, before = trained(images, rate=0.5)
    assert other != first and "graph" not in vars(source.objective), "the rate is an argument"
    assert compile_cache.compilations() == before

    def penalised():
        model, x, y = images()
        model.layers[1].kernel.regularizer = ks.regularizers.L2(0.1)
        return model, x, y

    _, _, source, _ = trained(penalised)
    assert "graph" in vars(source.objective)


def test_a_weight_that_is_frozen_is_another_step(folder):
    trained(images)

    def frozen():
        model, x, y = images()
        model.layers[1].trainable = False
        return model, x, y

    model, _, source, _ = trained(frozen)
    assert "graph" in vars(source.objective)
    assert not any("conv" in name for name in source.objective.weights)


def test_the_next_fit_reads_ahead_what_this_one_ran(folder):
    trained(images)
    (file,) = folder.glob("ahead-*")
    whole = file.read_bytes()
    trained(images)
    assert file.read_bytes() == whole and stored.coming == {} and stored.used is None


def test_what_has_no_gradient_is_refused_before_the_training_begins(folder):
    none = op("first_step_test_none", lower=lambda x: x + 0.0)
    try:

        class Through(ks.layers.Dense):
            def call(self, x):
                return none(super().call(x))

        begun = []
        model = ks.Sequential([ks.Input((3,)), Through(2)])
        model.compile("sgd", "mse")
        told = ks.callbacks.LambdaCallback(on_train_begin=begun.append)
        with pytest.raises(GradientError, match="'first_step_test_none' of 'sequential.*/through' has no gradient"):
            model.fit(np.ones((4, 3), "f"), np.ones((4, 2), "f"), verbose=0, callbacks=[told])
        assert begun == []
    finally:
        del REGISTRY["first_step_test_none"]


def test_tensorboard_still_gets_the_graph_with_gradients(folder):
    trained(images)
    model, _, source, _ = trained(images)
    assert any(name.startswith("grad/") for name in model._status.graph.output_names)

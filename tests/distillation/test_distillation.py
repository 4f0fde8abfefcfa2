"""A student learns from its teacher: losses and training against Keras'."""

import keras
import numpy as np
import pytest

import kerasoft as ks

pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")  # inside Keras
RANDOM = np.random.RandomState(0)
A, B = RANDOM.standard_normal((2, 5, 4)).astype("float32")


@pytest.mark.parametrize("arguments", [{}, {"temperature": 2.0, "loss": "mse"}, {"temperature": 5}])
def test_logits(arguments):
    losses = [library.distillation.LogitsDistillation(**arguments) for library in (keras, ks)]
    expected, found = (np.asarray(loss.compute_loss(A, B)) for loss in losses)
    np.testing.assert_allclose(found, expected, rtol=1e-5)
    again = ks.distillation.LogitsDistillation.from_config(losses[1].get_config())
    np.testing.assert_allclose(np.asarray(again.compute_loss(A, B)), expected, rtol=1e-5)


def test_structures():
    outputs = ({"a": A, "b": B}, {"a": B, "b": A})
    for name in ("LogitsDistillation", "FeatureDistillation"):
        losses = [getattr(lib.distillation, name)(loss={"a": "mse", "b": "mae"}) for lib in (keras, ks)]
        expected, found = (np.asarray(loss.compute_loss(*outputs)) for loss in losses)
        np.testing.assert_allclose(found, expected, rtol=1e-5)
    losses[1].validate_outputs(*outputs)
    with pytest.raises(ValueError, match="don't have the same structure"):
        losses[1].validate_outputs(outputs[0], A)
    with pytest.raises(ValueError, match="Loss structure mismatch"):
        losses[1].validate_outputs(A, B)


def models(library):
    library.utils.clear_session(free_memory=False)
    made = []
    for seed, hidden in ((1, 6), (2, 3)):
        x = library.Input((4,))
        h = library.layers.Dense(hidden, activation="relu", name="hidden")(x)
        model = library.Model(x, library.layers.Dense(3, name="last")(library.layers.Dense(3, name="mid")(h)))
        random = np.random.RandomState(seed)
        model.set_weights([random.standard_normal(w.shape) * 0.5 for w in model.get_weights()])
        made.append(model)
    return made


@pytest.mark.parametrize("features", [False, True])
def test_training(features):
    x = RANDOM.standard_normal((16, 4)).astype("float32")
    y = RANDOM.standard_normal((16, 3)).astype("float32")
    results = []
    for library in (keras, ks):
        teacher, student = models(library)
        losses = [library.distillation.LogitsDistillation(2.0)]
        if features:
            losses.append(library.distillation.FeatureDistillation("mse", "mid", "mid"))
        distiller = library.distillation.Distiller(teacher, student, losses, student_loss_weight=0.3)
        distiller.compile(library.optimizers.SGD(0.1), loss="mse")
        frozen = [w.copy() for w in teacher.get_weights()]
        history = distiller.fit(x, y, batch_size=8, epochs=2, shuffle=False, verbose=0).history
        for before, after in zip(frozen, teacher.get_weights(), strict=True):
            np.testing.assert_array_equal(before, after)
        results.append((history, student.get_weights()))
    (their_history, their_weights), (our_history, our_weights) = results
    assert list(our_history) == list(their_history)
    for name, values in their_history.items():
        np.testing.assert_allclose(our_history[name], values, rtol=1e-4, err_msg=name)
    for theirs, ours in zip(their_weights, our_weights, strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-4, atol=1e-5)


def test_round_trip():
    teacher, student = models(ks)
    distiller = ks.distillation.Distiller(
        teacher, student, ks.distillation.LogitsDistillation(4.0), student_loss_weight=0.2
    )
    again = ks.distillation.Distiller.from_config(distiller.get_config())
    assert again.student_loss_weight == 0.2 and again.distillation_losses[0].temperature == 4.0
    assert [layer.name for layer in again.student.layers] == [layer.name for layer in student.layers]


def test_errors():
    teacher, student = models(ks)
    d = ks.distillation
    loss = d.LogitsDistillation()
    for make, text in (
        (lambda: d.LogitsDistillation(temperature=0), "temperature must be positive"),
        (lambda: d.LogitsDistillation(temperature="a"), "temperature must be a number"),
        (lambda: d.LogitsDistillation(loss={"a": None}), "At least one loss must be non-`None`"),
        (lambda: d.FeatureDistillation(loss=None), "at least one non-`None` value"),
        (lambda: d.Distiller("t", student, loss), "Teacher must be a keras.Model"),
        (lambda: d.Distiller(teacher, student, None), "cannot be `None`"),
        (lambda: d.Distiller(teacher, student, loss, student_loss_weight=2), "must be between 0.0 and 1.0"),
        (lambda: d.Distiller(teacher, student, [loss], [1.0, 2.0]), "must match number of distillation_losses"),
        (lambda: d.Distiller(teacher, student, d.FeatureDistillation("mse", "nothing", "mid")), "In teacher model"),
        (lambda: d.Distiller(teacher, ks.Sequential([ks.Input((5,)), ks.layers.Dense(3)]), loss), "are incompatible"),
        (lambda: d.Distiller(teacher, student, loss).compile(), "'loss' cannot be `None`"),
    ):
        with pytest.raises(ValueError, match=text):
            make()

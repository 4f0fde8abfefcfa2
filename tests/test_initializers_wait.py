"""When variables call their initializers."""

import threading

import numpy as np
import pytest

import kerasoft as ks


def test_a_built_in_initializer_waits_until_the_value_is_read(monkeypatch):
    drawn = []
    original = ks.initializers.GlorotUniform.__call__

    def counted(self, shape, dtype=None):
        drawn.append(shape)
        return original(self, shape, dtype)

    monkeypatch.setattr(ks.initializers.GlorotUniform, "__call__", counted)
    ks.utils.set_random_seed(3)
    layer = ks.layers.Dense(3)
    layer.build((None, 2))
    v = layer.kernel
    assert (v.shape, v.ndim, v.size, v.dtype, len(v)) == ((2, 3), 2, 6, "float32", 2) and not drawn
    layer.set_weights([np.ones((2, 3)), np.zeros(3)])
    assert not drawn and layer.kernel.numpy().tolist() == np.ones((2, 3)).tolist()
    ks.utils.set_random_seed(3)
    again = ks.layers.Dense(3)
    again.build((None, 2))
    first = again.kernel.numpy()
    ks.utils.set_random_seed(9)  # too late to matter: the seed was chosen when the layer was made
    assert drawn == [(2, 3)] and again.kernel.numpy() is first and not first.flags.writeable
    ks.utils.set_random_seed(3)
    third = ks.layers.Dense(3)
    third.build((None, 2))
    ks.utils.set_random_seed(9)
    np.testing.assert_array_equal(third.kernel.numpy(), first)


def test_others_are_called_at_once():
    calls = []

    def own(shape, dtype=None):
        calls.append(shape)
        return np.zeros(shape)

    ks.Variable(own, shape=(2,))
    assert calls == [(2,)]

    class Own(ks.initializers.RandomNormal):
        def __call__(self, shape, dtype=None):
            calls.append(shape)
            return super().__call__(shape, dtype)

    ks.Variable(Own(), shape=(3,))
    assert calls == [(2,), (3,)]
    generator = ks.random.SeedGenerator(1)
    before = np.array(generator.state.numpy())
    ks.Variable(ks.initializers.RandomNormal(seed=generator), shape=(3,))
    assert not np.array_equal(before, generator.state.numpy())
    with pytest.raises(ValueError, match="can only be used for 2D"):
        ks.Variable(ks.initializers.Identity(), shape=(3,))


def test_an_optimizers_variables_are_not_drawn_for_the_first_step(monkeypatch):
    drawn = []
    original = ks.initializers.Constant.__call__

    def counted(self, shape, dtype=None):
        drawn.append(shape)
        return original(self, shape, dtype)

    monkeypatch.setattr(ks.initializers.Constant, "__call__", counted)

    def fitted(optimizer, read):
        ks.utils.set_random_seed(3)
        model = ks.Sequential([ks.Input((2,)), ks.layers.Dense(3)])
        model.compile(optimizer, "mse")
        optimizer.build(model.trainable_variables)
        if read:
            [v.numpy() for v in optimizer.variables]
        drawn.clear()
        model.fit(np.ones((4, 2), "f"), np.ones((4, 3), "f"), verbose=0)
        return len(drawn), [v.numpy() for v in (*model.weights, *optimizer.variables)]

    for make, calls in ((ks.optimizers.Adam, 0), (ks.optimizers.Adagrad, 2)):  # Adagrad's sums begin with 0.1
        (waited, late), (_, early) = fitted(make(0.1), False), fitted(make(0.1), True)
        assert waited == calls
        for a, b in zip(late, early, strict=True):
            np.testing.assert_array_equal(a, b)


def test_numbers_that_are_known_without_a_call():
    assert [ks.Variable(i, shape=(2,)).fill for i in ("zeros", "ones", ks.initializers.Constant(0.5))] == [0, 1, 0.5]
    assert ks.Variable(ks.initializers.Constant([1, 2]), shape=(2,)).fill is None
    v = ks.Variable("zeros", shape=(2,))
    v.assign([3, 4])
    assert v.fill is None and ks.Variable([0.0, 0.0]).fill is None
    with pytest.raises(ValueError, match="broadcast"):
        ks.Variable(ks.initializers.Constant([1, 2, 3]), shape=(2,))


def test_fit_draws_on_a_thread_what_nobody_has_read_or_set(monkeypatch):
    from kerasoft.training.building import DrawAhead

    drawn = []
    original = ks.initializers.GlorotUniform.__call__

    def counted(self, shape, dtype=None):
        drawn.append((threading.current_thread().name, shape))
        return original(self, shape, dtype)

    monkeypatch.setattr(ks.initializers.GlorotUniform, "__call__", counted)

    def made():
        ks.utils.set_random_seed(3)
        return ks.Sequential([ks.Input((2,)), ks.layers.Dense(3), ks.layers.Dense(4), ks.layers.Dense(5)])

    want = [w.tolist() for w in made().get_weights()]
    drawn.clear()
    model = made()
    first, second, third = (layer.kernel for layer in model.layers)
    held = second.numpy()
    draws = DrawAhead(model)
    third.assign(np.ones((4, 5)))
    draws.settle()
    assert sorted(drawn) == [("MainThread", (3, 4)), ("kerasoft-draw", (2, 3)), ("kerasoft-draw", (4, 5))]
    assert second.numpy() is held and third.numpy().tolist() == np.ones((4, 5)).tolist()
    assert [w.tolist() for w in model.get_weights()[:4]] == want[:4] and len(drawn) == 3
    assert not first.waits and not first.numpy().flags.writeable

    model.compile("sgd", "mse")
    again = made()
    again.compile("sgd", "mse")
    drawn.clear()
    again.fit(np.ones((2, 2), "f"), np.ones((2, 5), "f"), verbose=0)
    assert {name for name, _ in drawn} == {"kerasoft-draw"} and len(drawn) == 3

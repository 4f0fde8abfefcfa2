"""Models with tables that are updated by rows: whoever reads a weight sees what a step over all rows would have made."""

import keras
import numpy as np
import pytest
from kerasoft.compiler import adam_row_step, row_step, rows
from kerasoft.compiler.explain import explain
from kerasoft.compiler.kernels import bridge
from twins import same_weights

import kerasoft

_random = np.random.default_rng(3)
ROWS = 120
USERS = (_random.zipf(1.5, ROWS) % 30).astype("int32")
ITEMS = (_random.zipf(1.5, (ROWS, 2)) % 20).astype("int32")
USERS[[0, 1]], USERS[[2, -2]] = 7, 29  # twice in one batch; at the beginning and the end only
Y = _random.normal(size=(ROWS, 1)).astype("float32")
DATA = ([USERS, ITEMS], Y)


@pytest.fixture(params=[0, 10**9], ids=["rows", "whole"])
def by_rows(request, monkeypatch):
    monkeypatch.setattr(rows, "LEAST_SIZE", 1)
    monkeypatch.setattr(rows, "ROWS_PER_LOOKUP", request.param)
    return not request.param


@pytest.fixture
def always_rows(monkeypatch):
    monkeypatch.setattr(rows, "LEAST_SIZE", 1)
    monkeypatch.setattr(rows, "ROWS_PER_LOOKUP", 0)


def two_towers(k, optimizer):
    """A table for users, and one for items that is looked up at three places."""
    user, items = k.Input((), dtype="int32"), k.Input((2,), dtype="int32")
    table = k.layers.Embedding(30, 3, name="items")
    x = k.layers.Concatenate()(
        [k.layers.Embedding(40, 3, name="users")(user), k.layers.Flatten()(table(items)), table(user)]
    )
    model = k.Model([user, items], k.layers.Dense(1)(k.layers.Dense(4, activation="tanh")(x)))
    same_weights(model)
    model.compile(optimizer(k), "mse")
    return model


def fitted(model, **arguments):
    model.fit(*DATA, **{"batch_size": 4, "epochs": 2, "shuffle": False, "verbose": 0, **arguments})
    return model


OPTIMIZERS = {
    "adam": lambda k: k.optimizers.Adam(0.01, epsilon=1e-4, clipvalue=0.05),
    "adamw": lambda k: k.optimizers.AdamW(k.optimizers.schedules.CosineDecay(0.02, 50), weight_decay=0.1),
    "ftrl": lambda k: k.optimizers.Ftrl(0.05, l1_regularization_strength=0.001),
}


@pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")  # Keras's own
@pytest.mark.parametrize("name", OPTIMIZERS)
def test_training_goes_as_in_keras(name, always_rows):
    ours, theirs = (fitted(two_towers(k, OPTIMIZERS[name])) for k in (kerasoft, keras))
    assert updates_rows(ours)
    for a, b in zip(ours.get_weights(), theirs.get_weights(), strict=True):
        np.testing.assert_allclose(a, b, rtol=2e-5, atol=2e-6)
    for a, b in zip(ours.optimizer.variables, theirs.optimizer.variables, strict=True):
        np.testing.assert_allclose(
            np.asarray(a.numpy()), keras.ops.convert_to_numpy(b), rtol=1e-4, atol=1e-5, err_msg=a.path
        )


def updates_rows(model):
    return any(program.step._by_rows for program in model._trainer.programs.values() if program.source.train)


class Reader(kerasoft.callbacks.Callback):
    """Reads the weights in every way that callbacks have."""

    def __init__(self):
        super().__init__()
        self.seen = []

    def on_train_batch_end(self, batch, logs=None):
        if batch in (5, 17):
            self.look()

    def on_epoch_end(self, epoch, logs=None):
        self.look()
        self.seen.append(np.float32(logs["val_loss"]))
        self.seen.append(self.model.predict([USERS[:6], ITEMS[:6]], verbose=0))
        self.seen.append(np.float32(self.model.evaluate([USERS[:6], ITEMS[:6]], Y[:6], verbose=0)))

    def look(self):
        self.seen += [w.copy() for w in self.model.get_weights()]
        self.seen += [v.numpy().copy() for v in self.model.optimizer.variables]


def test_layers_on_rows_work_once_for_each_row(always_rows):
    """Users and items side by side before a wide layer: as with plain products; ids twice, one lookup elsewhere."""

    def made(once):
        user, item = kerasoft.Input((1,), dtype="int32"), kerasoft.Input((), dtype="int32")
        x = [
            kerasoft.layers.Flatten()(kerasoft.layers.Embedding(40, 48)(user)),
            kerasoft.layers.Embedding(20, 32)(item),
        ]
        y = kerasoft.layers.Dense(64, activation="relu")(kerasoft.layers.Concatenate()(x))
        y = kerasoft.layers.Concatenate()([y, kerasoft.layers.Embedding(20, 5)(item)])
        model = kerasoft.Model([user, item], kerasoft.layers.Dense(1)(y))
        same_weights(model)
        model.compile(kerasoft.optimizers.Adam(0.01, epsilon=1e-4), "mse")
        model.fit([USERS[:, None], ITEMS[:, 0]], Y, batch_size=24, epochs=3, shuffle=False, verbose=0)
        (step,) = (s for p in model._trainer.programs.values() if p.source.train for s in p.step._by_rows.values())
        assert ("dense_of_rows_gradients" in {n.op.name for n in step._graph.nodes}) == once
        return model.get_weights()

    once = bridge.loaded("native")
    found = made(once)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(adam_row_step, "AdamRowStep", row_step.RowStep)
        for a, b in zip(found, made(False), strict=True):
            np.testing.assert_allclose(a, b, rtol=2e-5, atol=2e-6)


def test_whoever_reads_sees_settled_weights(by_rows, tmp_path, request):
    model, reader = two_towers(kerasoft, OPTIMIZERS["adamw"]), Reader()
    checkpoint = kerasoft.callbacks.ModelCheckpoint(tmp_path / "at{epoch}.keras")
    fitted(model, callbacks=[reader, checkpoint], validation_data=DATA)
    assert updates_rows(model) == by_rows
    loaded = kerasoft.saving.load_model(tmp_path / "at2.keras")
    seen = [*reader.seen, *loaded.get_weights(), *(v.numpy() for v in loaded.optimizer.variables)]
    other = _SEEN.setdefault("seen", seen)
    for a, b in zip(seen, other, strict=True):
        np.testing.assert_allclose(a, b, rtol=2e-5, atol=1e-6)


_SEEN: dict = {}  # by the run before, with rows or without


def test_interrupted_resumed_and_changed_on_the_way(by_rows, tmp_path):
    """A new learning rate, weights set by a callback, an exception in the middle, a backup to go on from."""

    class Meddler(kerasoft.callbacks.Callback):
        def on_train_batch_end(self, batch, logs=None):
            if batch == 11:
                weights = self.model.get_weights()
                weights[0] = weights[0] + 0.5
                self.model.set_weights(weights)
                self.model.optimizer.learning_rate = 0.02
            if batch == 25 and not fail:
                fail.append(1)
                raise KeyboardInterrupt

    fail = []
    model = two_towers(kerasoft, OPTIMIZERS["adam"])
    backup = kerasoft.callbacks.BackupAndRestore(tmp_path / "backup", save_freq=10)
    with pytest.raises(KeyboardInterrupt):
        fitted(model, callbacks=[Meddler(), backup])
    stopped = model.get_weights()
    again = two_towers(kerasoft, OPTIMIZERS["adam"])
    fitted(again, callbacks=[kerasoft.callbacks.BackupAndRestore(tmp_path / "backup", save_freq=10)])
    seen = [*stopped, *again.get_weights()]
    for a, b in zip(seen, _SEEN.setdefault("meddled", seen), strict=True):
        np.testing.assert_allclose(a, b, rtol=2e-5, atol=2e-6)


def test_a_fit_may_go_on_where_another_ended(always_rows):
    parts, whole = (two_towers(kerasoft, OPTIMIZERS["adam"]) for _ in range(2))
    fitted(parts, epochs=1)
    parts.train_on_batch([USERS[:4], ITEMS[:4]], Y[:4])
    fitted(parts, epochs=1)
    fitted(whole, epochs=1)
    whole.fit([USERS[:4], ITEMS[:4]], Y[:4], batch_size=4, verbose=0)
    fitted(whole, epochs=1)
    for a, b in zip(parts.get_weights(), whole.get_weights(), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6)


def test_ids_outside_of_the_table_count_as_in_numpy(always_rows):
    """Negative ids count from the end; an id beyond the end gives no numbers, and no other row changes by it."""
    inputs = kerasoft.Input((), dtype="int32")
    model = kerasoft.Model(inputs, kerasoft.layers.Embedding(6, 2)(inputs - 6))
    same_weights(model)
    model.compile(kerasoft.optimizers.SGD(0.5), "mse")
    before = model.get_weights()[0]
    model.fit(np.array([5, 1]), np.zeros((2, 2), "float32"), batch_size=2, verbose=0)
    after = model.get_weights()[0]
    assert (np.flatnonzero((before != after).any(axis=1)) == [1, 5]).all()


@pytest.mark.parametrize(
    ("arguments", "because"),
    [
        ({"embeddings_regularizer": "l2"}, "read whole too"),
        ({"embeddings_constraint": "max_norm"}, "constraint"),
        ({}, None),
    ],
)
def test_explain_says_which_tables_are_updated_by_rows(arguments, because, always_rows):
    inputs = kerasoft.Input((3,), dtype="int32")
    x = kerasoft.layers.Embedding(50, 4, name="words", **arguments)(inputs)
    model = kerasoft.Model(inputs, kerasoft.layers.Dense(1)(kerasoft.layers.Flatten()(x)))
    model.compile("adam", "mse")
    model.fit(np.zeros((4, 3), "int32"), np.zeros((4, 1), "float32"), verbose=0)
    (program,) = model._trainer.programs.values()
    text = str(explain(program.source, "train", rows=4, compile=False))
    (line,) = [line for line in text.splitlines() if line.startswith("table ")]
    assert "words/embeddings" in line and ("by rows" in line if because is None else because in line)


def test_a_frozen_table_is_no_table():
    model = kerasoft.Sequential(
        [kerasoft.Input((5,), dtype="int32"), kerasoft.layers.Embedding(1000, 8), kerasoft.layers.Flatten()]
    )
    model.add(kerasoft.layers.Dense(1))
    model.layers[0].trainable = False
    model.compile("adam", "mse")
    before = np.array(model.layers[0].get_weights()[0])
    model.fit(np.arange(80).reshape(16, 5), np.ones(16, "float32"), batch_size=8, verbose=0)
    np.testing.assert_array_equal(model.layers[0].get_weights()[0], before)

"""Saving during training, and going on after an interruption."""

from __future__ import annotations

import json

import numpy as np
import pytest

import kerasoft as ks

X = np.random.default_rng(0).random((40, 3)).astype("float32")
Y = X.sum(axis=1, keepdims=True)


def model_of(weights=None):
    layers = [ks.Input((3,)), ks.layers.Dense(4, name="a"), ks.layers.Dropout(0.2), ks.layers.Dense(1, name="b")]
    model = ks.Sequential(layers)
    model.compile(ks.optimizers.Adam(0.05), "mse", metrics=["mae"])
    if weights is not None:
        model.set_weights(weights)
    return model


class Interrupts(ks.callbacks.Callback):
    def __init__(self, epoch, batch):
        super().__init__()
        self.at, self.epoch = (epoch, batch), 0

    def on_epoch_begin(self, epoch, logs=None):
        self.epoch = epoch

    def on_train_batch_end(self, batch, logs=None):
        if (self.epoch, batch) == self.at:
            raise KeyboardInterrupt


@pytest.mark.parametrize("save_freq, at", [("epoch", (2, 1)), (3, (1, 4)), (2, (2, 0))])
def test_an_interrupted_fit_goes_on_as_if_nothing_had_happened(save_freq, at, tmp_path):
    whole = model_of()
    start = whole.get_weights()
    options = dict(batch_size=8, epochs=4, verbose=0, seed=5)
    expected = whole.fit(X, Y, **options)
    folder = tmp_path / "backup"
    broken = model_of(start)
    with pytest.raises(KeyboardInterrupt):
        broken.fit(X, Y, callbacks=[ks.callbacks.BackupAndRestore(folder, save_freq), Interrupts(*at)], **options)
    assert folder.is_dir()
    again = model_of()  # a new process has other first weights, and draws another seed
    history = again.fit(X, Y, callbacks=[ks.callbacks.BackupAndRestore(folder, save_freq)], **options | {"seed": None})
    assert not folder.exists()
    for key, values in history.history.items():
        np.testing.assert_allclose(values, expected.history[key][-len(values) :], rtol=1e-5, err_msg=key)
    assert history.epoch[-1] == 3 and int(again.optimizer.iterations) == 20
    for mine, wanted in zip(again.get_weights(), whole.get_weights(), strict=True):
        np.testing.assert_allclose(mine, wanted, rtol=1e-5, atol=1e-7)


def test_backups_replace_one_another(tmp_path):
    folder = tmp_path / "backup"
    for double, count in ((False, 1), (True, 2)):
        kept = ks.callbacks.BackupAndRestore(folder, double_checkpoint=double, delete_checkpoint=False)
        model_of().fit(X, Y, batch_size=8, epochs=3 if double else 2, verbose=0, callbacks=[kept])
        assert len(list(folder.glob("*.weights.h5"))) == count
    metadata = json.loads((folder / "training_metadata.json").read_text())
    assert (metadata["epoch"], metadata["batch"]) == (3, 0)
    assert not list(folder.glob("*.new"))


def test_model_checkpoint_files_can_be_loaded(tmp_path):
    model = model_of()
    saves = [
        ks.callbacks.ModelCheckpoint(tmp_path / "whole-{epoch}.keras"),
        ks.callbacks.ModelCheckpoint(tmp_path / "sub" / "{epoch:02d}-{loss:.3f}.weights.h5", save_weights_only=True),
    ]
    history = model.fit(X, Y, epochs=2, verbose=0, callbacks=saves)
    again = ks.models.load_model(tmp_path / "whole-2.keras")
    np.testing.assert_array_equal(again.predict(X, verbose=0), model.predict(X, verbose=0))
    assert int(again.optimizer.iterations) == int(model.optimizer.iterations) == 4
    other = model_of()
    with pytest.warns(UserWarning, match="Skipping variable loading for optimizer 'adam"):  # it has not stepped yet
        other.load_weights(tmp_path / "sub" / f"02-{history.history['loss'][1]:.3f}.weights.h5")
    np.testing.assert_array_equal(other.get_weights()[0], model.get_weights()[0])


def test_a_folder_is_no_checkpoint(tmp_path):
    (tmp_path / "taken.keras").mkdir()
    callback = ks.callbacks.ModelCheckpoint(tmp_path / "taken.keras")
    with pytest.raises(OSError, match="Please specify a non-directory filepath"):
        model_of().fit(X, Y, verbose=0, callbacks=[callback])

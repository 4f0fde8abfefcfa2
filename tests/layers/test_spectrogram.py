"""Spectrograms against Keras: every mode, weights, configs, shapes of unknown sizes, errors."""

import keras
import numpy as np
import pytest

import kerasoft as ks

rng = np.random.default_rng(3)
SIGNAL = rng.normal(size=(2, 60, 3)).astype("float32")
SOUND = rng.normal(size=(2, 500)).astype("float32")
FIRST = np.ascontiguousarray(SIGNAL.transpose(0, 2, 1))
OTHER = {"data_format": "channels_first", "padding": "same", "scaling": "spectrum", "window": "hamming"}
MODES = ("log", "magnitude", "psd", "real", "imag", "angle", "stft")

ROWS = [
    *((lambda L, mode=mode: L.STFTSpectrogram(mode, 16, 8, 32), SIGNAL) for mode in MODES),
    *((lambda L, mode=mode: L.STFTSpectrogram(mode, 16, expand_dims=True, **OTHER), FIRST) for mode in MODES[1:]),
    (lambda L: L.STFTSpectrogram("stft", 16, expand_dims=True, window=None), SIGNAL),
    (lambda L: L.STFTSpectrogram("psd", 16, scaling=None, periodic=True, data_format="channels_first"), FIRST),
    (lambda L: L.MelSpectrogram(64, 32, num_mel_bins=8, sampling_rate=8000), SOUND),
    (lambda L: L.MelSpectrogram(64, 32, 50, num_mel_bins=8, power_to_db=False, mag_exp=1.0, max_freq=4000), SOUND),
    (lambda L: L.MelSpectrogram(64, 32, num_mel_bins=8, ref_power=2.0, top_db=10.0), SOUND[0]),
]


@pytest.mark.parametrize(("make", "x"), ROWS)
def test_values_weights_and_configs_are_keras(make, x):
    ours, theirs = make(ks.layers), make(keras.layers)
    np.testing.assert_allclose(ours(x), theirs(x), rtol=1e-4, atol=2e-5)
    assert [(w.name, w.shape) for w in ours.weights] == [(w.name, w.shape) for w in theirs.weights]

    def config(layer):
        return {k: v for k, v in layer.get_config().items() if k not in ("name", "dtype")}

    assert config(ours) == config(theirs) == config(type(ours).from_config(ours.get_config()))


def test_unknown_sizes():
    assert ks.layers.STFTSpectrogram("log", 16, 8, 32)(ks.Input((60, 3))).shape == (None, 6, 51)
    assert ks.layers.MelSpectrogram()(ks.Input((None,))).shape == (None, 128, None)
    assert ks.layers.MelSpectrogram().compute_output_shape((2, 16000)) == (2, 128, 32)


@pytest.mark.parametrize(
    ("call", "error", "text"),
    [
        (lambda L: L.STFTSpectrogram("power"), ValueError, "must be one of log, magnitude, psd"),
        (lambda L: L.STFTSpectrogram(frame_length=8, frame_step=9), ValueError, "positive integer not greater than"),
        (
            lambda L: L.STFTSpectrogram(frame_length=8, fft_length=4),
            ValueError,
            "should be not less than `frame_length`",
        ),
        (lambda L: L.STFTSpectrogram(scaling="power"), ValueError, "must be `None`, 'density' or 'spectrum'"),
        (lambda L: L.STFTSpectrogram(padding="causal"), ValueError, "it should be 'valid', 'same'"),
        (lambda L: L.STFTSpectrogram(frame_length=8)(np.ones((1, 60, 1), "int32")), TypeError, "Invalid input type"),
        (lambda L: L.MelSpectrogram(64, sequence_length=65), ValueError, "must be greater than or equal to"),
    ],
)
def test_errors(call, error, text):
    with pytest.raises(error, match=text):
        call(ks.layers)

"""Initializers: distributions by their moments, configs and errors against Keras, repetition by seed."""

import random

import keras
import numpy as np
import pytest

from kerasoft import initializers
from kerasoft.naming import to_snake_case

BUILT_IN = [
    "Zeros", "Ones", "Constant", "RandomNormal", "RandomUniform", "TruncatedNormal", "VarianceScaling", "GlorotNormal",
    "GlorotUniform", "HeNormal", "HeUniform", "LecunNormal", "LecunUniform", "Orthogonal", "Identity",
]  # fmt: skip
RANDOM = [n for n in BUILT_IN if n not in ("Zeros", "Ones", "Constant", "Identity")]


def test_every_initializer_has_a_row():
    public = {getattr(keras.initializers, n).__name__ for n in dir(keras.initializers) if n[0].isupper()}
    assert set(BUILT_IN) == public - {"Initializer", "STFT"}  # STFT is tested with the ops that it is for


@pytest.mark.parametrize("name", BUILT_IN)
def test_config_name_and_distribution_are_those_of_keras(name):
    keras.utils.set_random_seed(3)
    ours, theirs = getattr(initializers, name)(), getattr(keras.initializers, name)()
    assert initializers.serialize(ours) == keras.initializers.serialize(theirs)
    again = initializers.deserialize(initializers.serialize(ours))
    assert type(again) is type(ours) and again.get_config() == ours.get_config()
    assert type(initializers.get(name)) is type(initializers.get(to_snake_case(name))) is type(ours)
    shape = (128, 160)
    a, b = ours(shape), np.asarray(theirs(shape))
    assert a.dtype == np.float32 and a.shape == shape
    assert abs(a.mean() - b.mean()) < 0.03 * (b.std() + 1e-9) + 1e-9
    assert a.std() == pytest.approx(b.std(), rel=0.02)
    if name != "RandomNormal" and name != "Orthogonal":  # the others have a bounded range
        assert np.abs(a).max() == pytest.approx(np.abs(b).max(), rel=0.02)


@pytest.mark.parametrize("side", ["real", "imag"])
@pytest.mark.parametrize(
    "options",
    [
        {},
        {"window": "hamming", "scaling": "spectrum", "periodic": True},
        {"window": None},
        {"window": [0.1, 0.4, 0.9, 0.4, 0.2], "scaling": None},
    ],
)
def test_fourier_kernels_are_those_of_keras(side, options):
    ours, theirs = (module.STFT(side, **options) for module in (initializers, keras.initializers))
    np.testing.assert_allclose(ours((5, 1, 9)), theirs((5, 1, 9)), rtol=1e-5, atol=1e-6)
    assert ours.get_config() == theirs.get_config()
    assert initializers.STFTInitializer is initializers.STFT


@pytest.mark.parametrize("mode", ["fan_in", "fan_out", "fan_avg"])
@pytest.mark.parametrize("distribution", ["uniform", "truncated_normal", "untruncated_normal"])
def test_variance_scaling_has_the_variance_it_says(mode, distribution):
    shape = (3, 3, 16, 256)
    fan_in, fan_out = 9 * 16, 9 * 256
    fan = {"fan_in": fan_in, "fan_out": fan_out, "fan_avg": (fan_in + fan_out) / 2}[mode]
    values = initializers.VarianceScaling(3.0, mode, distribution, seed=1)(shape)
    assert values.var() == pytest.approx(3.0 / fan, rel=0.03)


@pytest.mark.parametrize("name", RANDOM)
def test_an_instance_repeats_its_values_and_the_python_seed_governs_the_unseeded(name):
    cls = getattr(initializers, name)
    random.seed(5)
    first = cls()
    values = first((6, 4))
    assert np.array_equal(values, first((6, 4)))
    assert not np.array_equal(values, cls()((6, 4)))
    assert not np.array_equal(values, first.clone()((6, 4)))
    random.seed(5)
    assert np.array_equal(values, cls()((6, 4)))
    assert np.array_equal(cls(seed=9)((6, 4)), cls(seed=9).clone()((6, 4)))


def test_orthogonal_rows_or_columns_are_orthonormal():
    for shape in [(5, 3), (3, 5), (2, 3, 4)]:
        matrix = initializers.Orthogonal(gain=2.0, seed=3)(shape).reshape(-1, shape[-1]).astype("float64") / 2
        rows, columns = matrix.shape
        gram = matrix @ matrix.T if rows < columns else matrix.T @ matrix
        np.testing.assert_allclose(gram, np.eye(min(rows, columns)), atol=1e-6)


def test_identifiers():
    assert initializers.get(None) is None
    function = lambda shape, dtype=None: np.zeros(shape)  # noqa: E731
    assert initializers.get(function) is function
    assert isinstance(initializers.get(initializers.Ones), initializers.Ones)
    assert isinstance(initializers.get("uniform"), initializers.RandomUniform)
    table = np.arange(6.0).reshape(2, 3)
    assert np.array_equal(initializers.get(table)((2, 3)), table)
    with pytest.raises(ValueError, match=r"Expected `shape` to be \(2, 3\) for direct tensor .* shape=\(3, 2\)"):
        initializers.get(table)((3, 2))
    assert initializers.Constant(2.5)((2,), "float64").dtype == np.float64


@pytest.mark.parametrize(
    "make, text",
    [
        (lambda: initializers.get("glorot"), "Could not interpret initializer identifier: glorot"),
        (lambda: initializers.get(3), "Could not interpret initializer identifier: 3"),
        (lambda: initializers.RandomNormal(seed="x"), "`seed` argument should be an instance of"),
        (lambda: initializers.VarianceScaling(scale=0), "Argument `scale` must be positive float. Received: scale=0"),
        (lambda: initializers.VarianceScaling(mode="fan"), "Invalid `mode` argument: fan"),
        (lambda: initializers.VarianceScaling(distribution="beta"), "Invalid `distribution` argument: beta"),
        (lambda: initializers.Orthogonal()((3,)), r"at least two-dimensional. Received: shape=\(3,\) of rank 1"),
        (lambda: initializers.Identity()((3,)), r"only be used for 2D matrices. Received: shape=\(3,\) of rank 1"),
        (
            lambda: initializers.deserialize({"class_name": "Mine", "config": {}}),
            "Could not interpret initializer identifier: .*'Mine'.*. A class of your own must be registered",
        ),
    ],
)
def test_errors(make, text):
    with pytest.raises(ValueError, match=text):
        make()

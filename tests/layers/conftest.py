"""Fixtures of the layers' tests."""

import pytest


@pytest.fixture(scope="module")
def quick_initial_weights():
    """Keras compiles each random initializer for each shape; tests that set all weights skip that."""
    import keras
    import numpy as np

    patch = pytest.MonkeyPatch()
    for name in ("VarianceScaling", "Orthogonal", "RandomUniform"):
        make = lambda self, shape, dtype=None: np.zeros(shape, "float32")  # noqa: E731
        patch.setattr(getattr(keras.initializers, name), "__call__", make)
    yield
    patch.undo()

"""What holds for all tests."""

import os

os.environ.setdefault("KERAS_BACKEND", "jax")  # Keras, the oracle, on the same arithmetic

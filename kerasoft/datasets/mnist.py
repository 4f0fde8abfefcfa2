"""MNIST: handwritten digits."""

from __future__ import annotations

from .reading import Split, arrays, fetch


def load_data(path: str = "mnist.npz") -> Split:
    """(x_train, y_train), (x_test, y_test): 60,000 and 10,000 images uint8 (28, 28), 0 .. 255, and digits uint8.

    Args:
        path: name of the file in the cache.
    """
    data = arrays(fetch(path, "mnist.npz", "731c5ac602752760c8e48fbffcf8c3b850d9dc2a2aedcf2cc48468fc17b673d1"))
    return (data["x_train"], data["y_train"]), (data["x_test"], data["y_test"])


__all__ = ["load_data"]

"""CIFAR-10: small photographs in ten classes."""

from __future__ import annotations

import os

import numpy as np

from ..utils.downloads import get_file
from .cifar import column, in_layout, load_batch
from .reading import Split

ORIGIN = "https://www.cs.toronto.edu/~kriz/cifar-10-python.tar.gz"
SHA256 = "6d958be074577803d12ecdefd02955f39262c83c16fe9348329d7fe0b5c001ce"


def load_data() -> Split:
    """(x_train, y_train), (x_test, y_test): 50,000 and 10,000 images uint8 (32, 32, 3), and classes uint8 (images, 1)."""
    folder = get_file("cifar-10-batches-py-target", origin=ORIGIN, extract=True, file_hash=SHA256)
    folder = os.path.join(folder, "cifar-10-batches-py")
    batches = [load_batch(os.path.join(folder, f"data_batch_{i}")) for i in range(1, 6)]
    x_train = np.concatenate([images for images, _ in batches])
    y_train = [label for _, labels in batches for label in labels]
    x_test, y_test = load_batch(os.path.join(folder, "test_batch"))
    return (in_layout(x_train), column(y_train, "uint8")), (in_layout(x_test), column(y_test, "uint8"))


__all__ = ["load_data"]

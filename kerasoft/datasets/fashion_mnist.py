"""Fashion-MNIST: small pictures of clothes in ten classes."""

from __future__ import annotations

import gzip
import os

import numpy as np

from ..utils.downloads import get_file
from .reading import FOLDER, Split


def load_data() -> Split:
    """(x_train, y_train), (x_test, y_test): 60,000 and 10,000 images uint8 (28, 28), and classes 0 .. 9 uint8."""

    def read(name: str, header_bytes: int) -> np.ndarray:
        path = get_file(name, origin=FOLDER + name, cache_subdir=os.path.join("datasets", "fashion-mnist"))
        with gzip.open(path, "rb") as file:
            return np.frombuffer(file.read(), np.uint8, offset=header_bytes)

    def pair(part: str) -> tuple[np.ndarray, np.ndarray]:
        labels = read(f"{part}-labels-idx1-ubyte.gz", 8)
        return read(f"{part}-images-idx3-ubyte.gz", 16).reshape(len(labels), 28, 28), labels

    return pair("train"), pair("t10k")


__all__ = ["load_data"]

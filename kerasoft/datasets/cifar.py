"""The files of CIFAR-10 and CIFAR-100."""

from __future__ import annotations

import numpy as np

from .. import config
from .reading import ListsOnly


def load_batch(path: str, label_key: str = "labels") -> tuple[np.ndarray, list[int]]:
    """Images uint8 (images, 3, 32, 32) and class numbers of one file."""
    with open(path, "rb") as file:
        content = ListsOnly(file, encoding="bytes").load()
    data = content[b"data"]
    return data.reshape(len(data), 3, 32, 32), content[label_key.encode()]


def in_layout(images: np.ndarray) -> np.ndarray:
    """Channels last, unless the global setting says first."""
    return images.transpose(0, 2, 3, 1) if config.image_data_format() == "channels_last" else images


def column(labels: list[int], dtype: str | None = None) -> np.ndarray:
    """Class numbers of shape (images, 1)."""
    return np.reshape(np.asarray(labels, dtype), (len(labels), 1))

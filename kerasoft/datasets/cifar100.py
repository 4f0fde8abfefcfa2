"""CIFAR-100: small photographs in 100 classes of 20 kinds."""

from __future__ import annotations

import os

from ..utils.downloads import get_file
from .cifar import column, in_layout, load_batch
from .reading import Split

ORIGIN = "https://www.cs.toronto.edu/~kriz/cifar-100-python.tar.gz"
SHA256 = "85cd44d02ba6437773c5bbd22e183051d648de2e7d6b014e1ef29b855ba677a7"


def load_data(label_mode: str = "fine") -> Split:
    """(x_train, y_train), (x_test, y_test): 50,000 and 10,000 images uint8 (32, 32, 3), and classes int64 (images, 1).

    Args:
        label_mode: "fine" for 100 classes, "coarse" for 20.
    """
    if label_mode not in ("fine", "coarse"):
        raise ValueError(f'`label_mode` must be one of `"fine"`, `"coarse"`. Received: label_mode={label_mode}.')
    folder = get_file("cifar-100-python-target", origin=ORIGIN, extract=True, file_hash=SHA256)
    folder = os.path.join(folder, "cifar-100-python")
    parts = [load_batch(os.path.join(folder, part), f"{label_mode}_labels") for part in ("train", "test")]
    train, test = [(in_layout(images), column(labels)) for images, labels in parts]
    return train, test


__all__ = ["load_data"]

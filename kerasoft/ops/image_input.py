"""What an op on images takes: one image or a batch, and where its axes are."""

from __future__ import annotations

from typing import Any

from ..tensors import known_shape
from .dispatch import rank, tensor
from .patches import data_format_of

AXES = {"channels_last": (-3, -2, -1), "channels_first": (-2, -1, -3)}


def image_input(images: Any, data_format: Any, name: str = "images") -> tuple[Any, int, int, int]:
    """The images, and their height, width and channel axes, counted from the end.

    Raises:
        ValueError: another number of axes than 3 or 4.
    """
    images = tensor(images)
    axes = AXES[data_format_of(data_format)]
    if rank(images) not in (3, 4):
        raise ValueError(
            f"Invalid {name} rank: expected rank 3 (single image) or rank 4 (batch of images). "
            f"Received input with shape: {name}.shape={shown(images)}"
        )
    return (images, *axes)


def shown(x: Any) -> tuple:
    """The shape for an error's text, None for unknown sizes."""
    return known_shape(x)

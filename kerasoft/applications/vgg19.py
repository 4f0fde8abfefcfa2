"""VGG19: see `vgg16.py`."""

from __future__ import annotations

from typing import Any

from ..models import Model
from .imagenet_utils import decode_predictions
from .request import Request
from .vgg16 import preprocess_input, vgg


def VGG19(
    include_top: bool = True,
    weights: Any = "imagenet",
    input_tensor: Any = None,
    input_shape: Any = None,
    pooling: str | None = None,
    classes: int = 1000,
    classifier_activation: Any = "softmax",
    name: str = "vgg19",
) -> Model:
    """VGG with 19 layers of weights, for images (224, 224, 3) by default."""
    request = Request(include_top, weights, input_tensor, input_shape, pooling, classes, classifier_activation, name)
    hashes = ("cbe5617147190e668d6c5d5026f83318", "253f8cb515780f3b799900260a226db6")
    return vgg(request, (2, 2, 4, 4, 4), "vgg19", hashes)


__all__ = ["VGG19", "decode_predictions", "preprocess_input"]

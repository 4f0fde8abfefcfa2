"""ResNet50V2, ResNet101V2, ResNet152V2: normalisation and activation come before each convolution.

Source: He, Zhang, Ren and Sun, "Identity Mappings in Deep Residual Networks" (2016).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from .. import layers
from ..models import Model
from .imagenet_utils import decode_predictions, preprocessing
from .request import Request
from .resnet import FILTERS, normalized, relu, resnet


def block(x: Any, filters: int, stride: int, projects: bool, name: str) -> Any:
    """1x1, 3x3 and 1x1 convolutions of the activated input beside a shortcut."""
    active = relu(normalized(x, f"{name}_preact_bn"), f"{name}_preact_relu")
    if projects:
        shortcut = layers.Conv2D(4 * filters, 1, strides=stride, name=f"{name}_0_conv")(active)
    else:
        shortcut = layers.MaxPooling2D(1, strides=stride)(x) if stride > 1 else x
    x = layers.Conv2D(filters, 1, strides=1, use_bias=False, name=f"{name}_1_conv")(active)
    x = relu(normalized(x, f"{name}_1_bn"), f"{name}_1_relu")
    x = layers.ZeroPadding2D(padding=((1, 1), (1, 1)), name=f"{name}_2_pad")(x)
    x = layers.Conv2D(filters, 3, strides=stride, use_bias=False, name=f"{name}_2_conv")(x)
    x = relu(normalized(x, f"{name}_2_bn"), f"{name}_2_relu")
    x = layers.Conv2D(4 * filters, 1, name=f"{name}_3_conv")(x)
    return layers.Add(name=f"{name}_out")([shortcut, x])


def stacked(counts: tuple[int, ...]) -> Callable[[Any], Any]:
    """conv2 to conv5 with so many blocks each; the last block of each but conv5 halves the image."""

    def stacks(x: Any) -> Any:
        for stage, (filters, count) in enumerate(zip(FILTERS, counts, strict=True), 2):
            for index in range(1, count + 1):
                stride = 2 if index == count and stage < 5 else 1
                x = block(x, filters, stride, index == 1, f"conv{stage}_block{index}")
        return x

    return stacks


def _variant(name: str, counts: tuple[int, ...]) -> Callable[..., Model]:
    model_name = name.lower()

    def build(
        include_top: bool = True,
        weights: Any = "imagenet",
        input_tensor: Any = None,
        input_shape: Any = None,
        pooling: str | None = None,
        classes: int = 1000,
        classifier_activation: Any = "softmax",
        name: str = model_name,
    ) -> Model:
        request = Request(
            include_top, weights, input_tensor, input_shape, pooling, classes, classifier_activation, name
        )
        return resnet(request, stacked(counts), model_name, preactivated=True)

    build.__name__ = build.__qualname__ = name
    build.__doc__ = f"{name}, for images (224, 224, 3) by default."
    return build


ResNet50V2 = _variant("ResNet50V2", (3, 4, 6, 3))
ResNet101V2 = _variant("ResNet101V2", (3, 4, 23, 3))
ResNet152V2 = _variant("ResNet152V2", (3, 8, 36, 3))
preprocess_input = preprocessing("tf")

__all__ = ["ResNet101V2", "ResNet152V2", "ResNet50V2", "decode_predictions", "preprocess_input"]

"""Xception.

Source: Chollet, "Xception: Deep Learning with Depthwise Separable Convolutions" (2017), figure 5.
"""

from __future__ import annotations

from typing import Any

from .. import layers
from ..models import Model
from .imagenet_utils import decode_predictions, preprocessing
from .request import KERAS_APPLICATIONS, Request, WeightsFile, channels_axis


def _normalized(x: Any, name: str | None = None) -> Any:
    return layers.BatchNormalization(axis=channels_axis(-1), name=name)(x)


def _relu(x: Any, name: str) -> Any:
    return layers.Activation("relu", name=name)(x)


def _separable(x: Any, filters: int, name: str) -> Any:
    x = layers.SeparableConv2D(filters, (3, 3), padding="same", use_bias=False, name=name)(x)
    return _normalized(x, f"{name}_bn")


def _halving(x: Any, filters: tuple[int, int], block: str, activated: bool = True) -> Any:
    """Two separable convolutions and pooling beside a strided 1x1 convolution."""
    residual = layers.Conv2D(filters[1], (1, 1), strides=(2, 2), padding="same", use_bias=False)(x)
    residual = _normalized(residual)
    if activated:
        x = _relu(x, f"{block}_sepconv1_act")
    x = _separable(x, filters[0], f"{block}_sepconv1")
    x = _separable(_relu(x, f"{block}_sepconv2_act"), filters[1], f"{block}_sepconv2")
    x = layers.MaxPooling2D((3, 3), strides=(2, 2), padding="same", name=f"{block}_pool")(x)
    return layers.add([x, residual])


def Xception(
    include_top: bool = True,
    weights: Any = "imagenet",
    input_tensor: Any = None,
    input_shape: Any = None,
    pooling: str | None = None,
    classes: int = 1000,
    classifier_activation: Any = "softmax",
    name: str = "xception",
) -> Model:
    """Depthwise separable convolutions with shortcuts, for images (299, 299, 3) by default."""
    request = Request(include_top, weights, input_tensor, input_shape, pooling, classes, classifier_activation, name)
    image = request.image(request.shape(299, 71))
    x = layers.Conv2D(32, (3, 3), strides=(2, 2), use_bias=False, name="block1_conv1")(image)
    x = _relu(_normalized(x, "block1_conv1_bn"), "block1_conv1_act")
    x = layers.Conv2D(64, (3, 3), use_bias=False, name="block1_conv2")(x)
    x = _relu(_normalized(x, "block1_conv2_bn"), "block1_conv2_act")
    x = _halving(x, (128, 128), "block2", activated=False)
    x = _halving(x, (256, 256), "block3")
    x = _halving(x, (728, 728), "block4")
    for block in range(5, 13):
        residual = x
        for index in (1, 2, 3):
            x = _separable(_relu(x, f"block{block}_sepconv{index}_act"), 728, f"block{block}_sepconv{index}")
        x = layers.add([x, residual])
    x = _halving(x, (728, 1024), "block13")
    for index, filters in enumerate((1536, 2048), 1):
        x = _relu(_separable(x, filters, f"block14_sepconv{index}"), f"block14_sepconv{index}_act")
    x = request.head(x, named_pooling=False)
    ending = "xception_weights_tf_dim_ordering_tf_kernels"
    hashes = ("0a58e3b7378bc2990ea3b43d5981f1f6", "b0042744bf5b25fce3cb969f33bebb97")
    file = WeightsFile(f"{KERAS_APPLICATIONS}xception/", f"{ending}.h5", f"{ending}_notop.h5", hashes)
    return request.model(image, x, file)


preprocess_input = preprocessing("tf")

__all__ = ["Xception", "decode_predictions", "preprocess_input"]

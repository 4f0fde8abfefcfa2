"""MobileNet (version 1).

Source: Howard et al., "MobileNets: Efficient Convolutional Neural Networks for Mobile Vision Applications" (2017), table 1.
"""

from __future__ import annotations

import warnings
from typing import Any

from .. import config, layers
from ..models import Model
from .imagenet_utils import decode_predictions, preprocessing
from .request import KERAS_APPLICATIONS, Request, WeightsFile, channels_axis

BLOCKS = (  # filters, stride
    *((64, 1), (128, 2), (128, 1), (256, 2), (256, 1), (512, 2)),
    *((512, 1), (512, 1), (512, 1), (512, 1), (512, 1), (1024, 2), (1024, 1)),
)
_ALPHA_IN_NAMES = {1.0: "1_0", 0.75: "7_5", 0.5: "5_0", 0.25: "2_5"}
SIZES = (128, 160, 192, 224)


def sizes_of(shape: Any) -> tuple:
    """Rows and columns of an image shape."""
    return tuple(shape[:2] if config.image_data_format() == "channels_last" else shape[1:])


def trained_size(shape: Any, sizes: tuple[int, ...]) -> int:
    """The side of a square image among `sizes`, 224 for all others."""
    if shape is None:
        return 224
    rows, columns = sizes_of(shape)
    return rows if rows == columns and rows in sizes else 224


def size_of_weights(shape: Any, sizes: tuple[int, ...]) -> int:
    """The image size whose published weights fit best, with a warning when it is another one."""
    rows, columns = sizes_of(shape)
    if rows == columns and rows in sizes:
        return rows
    warnings.warn(
        f"`input_shape` is undefined or non-square, or `rows` is not in {list(sizes)}. Weights for input shape (224, 224) "
        "will be loaded as the default.",
        stacklevel=3,
    )
    return 224


def _normalized_relu(x: Any, name: str) -> Any:
    x = layers.BatchNormalization(axis=channels_axis(-1), name=f"{name}_bn")(x)
    return layers.ReLU(6.0, name=f"{name}_relu")(x)


def _block(x: Any, filters: int, depth_multiplier: int, stride: int, index: int) -> Any:
    """A depthwise and a 1x1 convolution."""
    if stride == 2:
        x = layers.ZeroPadding2D(((0, 1), (0, 1)), name=f"conv_pad_{index}")(x)
    x = layers.DepthwiseConv2D(
        (3, 3),
        padding="same" if stride == 1 else "valid",
        depth_multiplier=depth_multiplier,
        strides=(stride, stride),
        use_bias=False,
        name=f"conv_dw_{index}",
    )(x)
    x = _normalized_relu(x, f"conv_dw_{index}")
    x = layers.Conv2D(filters, (1, 1), padding="same", use_bias=False, strides=(1, 1), name=f"conv_pw_{index}")(x)
    return _normalized_relu(x, f"conv_pw_{index}")


def MobileNet(
    input_shape: Any = None,
    alpha: float = 1.0,
    depth_multiplier: int = 1,
    dropout: float = 0.001,
    include_top: bool = True,
    weights: Any = "imagenet",
    input_tensor: Any = None,
    pooling: str | None = None,
    classes: int = 1000,
    classifier_activation: Any = "softmax",
    name: str | None = None,
) -> Model:
    """Depthwise separable convolutions, for images (224, 224, 3) by default.

    Args:
        alpha: width: all numbers of filters are multiplied by it.
        depth_multiplier: filters a channel of depthwise convolutions.
    """
    request = Request(include_top, weights, input_tensor, input_shape, pooling, classes, classifier_activation, name)
    shape = request.shape(trained_size(input_shape, SIZES), 32)
    rows = sizes_of(shape)[0]
    if weights == "imagenet":
        if depth_multiplier != 1:
            raise ValueError(
                "If imagenet weights are being loaded, depth multiplier must be 1.  Received "
                f"depth_multiplier={depth_multiplier}"
            )
        if alpha not in _ALPHA_IN_NAMES:
            raise ValueError(
                "If imagenet weights are being loaded, alpha can be one of`0.25`, `0.50`, `0.75` or `1.0` only.  Received "
                f"alpha={alpha}"
            )
        rows = size_of_weights(shape, SIZES)
    image = request.image(shape)
    x = layers.Conv2D(int(32 * alpha), (3, 3), padding="same", use_bias=False, strides=(2, 2), name="conv1")(image)
    x = _normalized_relu(x, "conv1")
    for index, (filters, stride) in enumerate(BLOCKS, 1):
        x = _block(x, int(filters * alpha), depth_multiplier, stride, index)
    if include_top:
        x = layers.GlobalAveragePooling2D(keepdims=True)(x)
        x = layers.Dropout(dropout, name="dropout")(x)
        x = layers.Conv2D(classes, (1, 1), padding="same", name="conv_preds")(x)
        x = layers.Reshape((classes,), name="reshape_2")(x)
        x = layers.Activation(activation=request.activation(), name="predictions")(x)
    else:
        x = request.pooled(x, named=False)
    stem = f"mobilenet_{_ALPHA_IN_NAMES.get(alpha)}_{rows}_tf"
    file = WeightsFile(f"{KERAS_APPLICATIONS}mobilenet/", f"{stem}.h5", f"{stem}_no_top.h5")
    return request.model(image, x, file, name=name or f"mobilenet_{alpha:0.2f}_{rows}")


preprocess_input = preprocessing("tf")

__all__ = ["MobileNet", "decode_predictions", "preprocess_input"]

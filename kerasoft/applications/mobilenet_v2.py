"""MobileNetV2.

Source: Sandler et al., "MobileNetV2: Inverted Residuals and Linear Bottlenecks" (2018), table 2.
"""

from __future__ import annotations

from typing import Any

from .. import config, layers
from ..models import Model
from ..tensors import KerasTensor
from .imagenet_utils import decode_predictions, preprocessing
from .mobilenet import size_of_weights, sizes_of, trained_size
from .request import KERAS_APPLICATIONS, Request, WeightsFile, channels_axis, correct_pad, divisible

STAGES = (  # expansion, filters, blocks, stride of the first
    *((1, 16, 1, 1), (6, 24, 2, 2), (6, 32, 3, 2), (6, 64, 4, 2), (6, 96, 3, 1), (6, 160, 3, 2), (6, 320, 1, 1)),
)
SIZES = (96, 128, 160, 192, 224)
ALPHAS = (0.35, 0.50, 0.75, 1.0, 1.3, 1.4)


def _normalized(x: Any, name: str) -> Any:
    return layers.BatchNormalization(axis=channels_axis(-1), epsilon=1e-3, momentum=0.999, name=name)(x)


def _block(x: Any, expansion: int, filters: int, stride: int, index: int) -> Any:
    """1x1 convolution to more channels, depthwise convolution, 1x1 convolution to fewer, beside a shortcut."""
    inputs, channels = x, x.shape[channels_axis(-1)]
    prefix = f"block_{index}_" if index else "expanded_conv_"
    if index:
        x = layers.Conv2D(
            expansion * channels, kernel_size=1, padding="same", use_bias=False, activation=None, name=f"{prefix}expand"
        )(x)
        x = layers.ReLU(6.0, name=f"{prefix}expand_relu")(_normalized(x, f"{prefix}expand_BN"))
    if stride == 2:
        x = layers.ZeroPadding2D(padding=correct_pad(x, 3), name=f"{prefix}pad")(x)
    padding = "same" if stride == 1 else "valid"
    x = layers.DepthwiseConv2D(
        kernel_size=3, strides=stride, activation=None, use_bias=False, padding=padding, name=f"{prefix}depthwise"
    )(x)
    x = layers.ReLU(6.0, name=f"{prefix}depthwise_relu")(_normalized(x, f"{prefix}depthwise_BN"))
    x = layers.Conv2D(filters, kernel_size=1, padding="same", use_bias=False, activation=None, name=f"{prefix}project")(
        x
    )
    x = _normalized(x, f"{prefix}project_BN")
    if channels == filters and stride == 1:
        return layers.Add(name=f"{prefix}add")([inputs, x])
    return x


def check_sizes(input_tensor: Any, input_shape: Any) -> None:
    """Raises ValueError when `input_tensor` and `input_shape` do not agree."""
    if input_shape is None or input_tensor is None:
        return
    if not isinstance(input_tensor, KerasTensor):
        raise ValueError(f"input_tensor is not a Keras tensor; Received `input_tensor={input_tensor}`")
    first = config.image_data_format() == "channels_first"
    if input_tensor.shape[1 if first else 2] != input_shape[1]:
        raise ValueError(
            f"input_tensor.shape[{1 if first else 2}] must equal input_shape[1]; Received "
            f"`input_tensor.shape={input_tensor.shape}`, `input_shape={input_shape}`"
        )


def MobileNetV2(
    input_shape: Any = None,
    alpha: float = 1.0,
    include_top: bool = True,
    weights: Any = "imagenet",
    input_tensor: Any = None,
    pooling: str | None = None,
    classes: int = 1000,
    classifier_activation: Any = "softmax",
    name: str | None = None,
) -> Model:
    """Inverted residual blocks, for images (224, 224, 3) by default.

    Args:
        alpha: width: all numbers of filters are multiplied by it.
    """
    request = Request(include_top, weights, input_tensor, input_shape, pooling, classes, classifier_activation, name)
    check_sizes(input_tensor, input_shape)
    known = input_tensor.shape[1:] if input_shape is None and isinstance(input_tensor, KerasTensor) else input_shape
    shape = request.shape(trained_size(known, SIZES), 32)
    rows = sizes_of(shape)[0]
    if weights == "imagenet":
        if alpha not in ALPHAS:
            raise ValueError(
                "If imagenet weights are being loaded, alpha must be one of `0.35`, `0.50`, `0.75`, `1.0`, `1.3` or `1.4` "
                f"only; Received `alpha={alpha}`"
            )
        rows = size_of_weights(shape, SIZES)
    image = request.image(shape)
    filters = divisible(32 * alpha)
    x = layers.Conv2D(filters, kernel_size=3, strides=(2, 2), padding="same", use_bias=False, name="Conv1")(image)
    x = layers.ReLU(6.0, name="Conv1_relu")(_normalized(x, "bn_Conv1"))
    index = 0
    for expansion, width, blocks, stride in STAGES:
        for block in range(blocks):
            x = _block(x, expansion, divisible(int(width * alpha)), stride if block == 0 else 1, index)
            index += 1
    filters = divisible(1280 * alpha) if alpha > 1.0 else 1280
    x = layers.Conv2D(filters, kernel_size=1, use_bias=False, name="Conv_1")(x)
    x = layers.ReLU(6.0, name="out_relu")(_normalized(x, "Conv_1_bn"))
    x = request.head(x, named_pooling=False, pool_name=None)
    stem = f"mobilenet_v2_weights_tf_dim_ordering_tf_kernels_{float(alpha)}_{rows}"
    file = WeightsFile(f"{KERAS_APPLICATIONS}mobilenet_v2/", f"{stem}.h5", f"{stem}_no_top.h5")
    return request.model(image, x, file, name=name or f"mobilenetv2_{alpha:0.2f}_{rows}")


preprocess_input = preprocessing("tf")

__all__ = ["MobileNetV2", "decode_predictions", "preprocess_input"]

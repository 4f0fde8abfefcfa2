"""MobileNetV3, small and large.

Source: Howard et al., "Searching for MobileNetV3" (2019), tables 1 and 2.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

from .. import config, layers
from ..models import Model
from ..tensors import KerasTensor
from .imagenet_utils import decode_predictions, preprocessing
from .mobilenet import sizes_of
from .mobilenet_v2 import check_sizes
from .request import KERAS_APPLICATIONS, Request, WeightsFile, channels_axis, correct_pad, divisible

# expansion, filters, wide kernel, stride, squeezes and excites, hard swish
SMALL = (
    *((1, 16, False, 2, True, False), (72.0 / 16, 24, False, 2, False, False), (88.0 / 24, 24, False, 1, False, False)),
    *((4, 40, True, 2, True, True), (6, 40, True, 1, True, True), (6, 40, True, 1, True, True)),
    *((3, 48, True, 1, True, True), (3, 48, True, 1, True, True)),
    *((6, 96, True, 2, True, True), (6, 96, True, 1, True, True), (6, 96, True, 1, True, True)),
)
LARGE = (
    *((1, 16, False, 1, False, False), (4, 24, False, 2, False, False), (3, 24, False, 1, False, False)),
    *((3, 40, True, 2, True, False), (3, 40, True, 1, True, False), (3, 40, True, 1, True, False)),
    *((6, 80, False, 2, False, True), (2.5, 80, False, 1, False, True)),
    *((2.3, 80, False, 1, False, True), (2.3, 80, False, 1, False, True)),
    *((6, 112, False, 1, True, True), (6, 112, False, 1, True, True)),
    *((6, 160, True, 2, True, True), (6, 160, True, 1, True, True), (6, 160, True, 1, True, True)),
)
HASHES = {
    "large_224_0.75_float": ("765b44a33ad4005b3ac83185abf1d0eb", "40af19a13ebea4e2ee0c676887f69a2e"),
    "large_224_1.0_float": ("59e551e166be033d707958cf9e29a6a7", "07fb09a5933dd0c8eaafa16978110389"),
    "large_minimalistic_224_1.0_float": ("675e7b876c45c57e9e63e6d90a36599c", "ec5221f64a2f6d1ef965a614bdae7973"),
    "small_224_0.75_float": ("cb65d4e5be93758266aa0a7f2c6708b7", "ebdb5cc8e0b497cd13a7c275d475c819"),
    "small_224_1.0_float": ("8768d4c2e7dee89b9d02b2d03d65d862", "d3e8ec802a04aa4fc771ee12a9a9b836"),
    "small_minimalistic_224_1.0_float": ("99cd97fb2fcdad2bf028eb838de69e37", "cde8136e733e811080d9fcd8a252f7e4"),
}


def _relu(x: Any) -> Any:
    return layers.ReLU()(x)


def _hard_swish(x: Any) -> Any:
    return layers.Activation("hard_swish")(x)


def _normalized(x: Any, name: str) -> Any:
    return layers.BatchNormalization(axis=channels_axis(-1), epsilon=1e-3, momentum=0.999, name=name)(x)


def _pointwise(x: Any, filters: int, name: str, use_bias: bool = True) -> Any:
    return layers.Conv2D(filters, kernel_size=1, padding="same", use_bias=use_bias, name=name)(x)


def _squeezed(x: Any, filters: int, prefix: str) -> Any:
    """Channels weighted by what their means say."""
    gate = layers.GlobalAveragePooling2D(keepdims=True, name=f"{prefix}squeeze_excite_avg_pool")(x)
    gate = _pointwise(gate, divisible(filters * 0.25), f"{prefix}squeeze_excite_conv")
    gate = layers.ReLU(name=f"{prefix}squeeze_excite_relu")(gate)
    gate = _pointwise(gate, filters, f"{prefix}squeeze_excite_conv_1")
    gate = layers.ReLU(6.0)(gate + 3.0) * (1.0 / 6.0)
    return layers.Multiply(name=f"{prefix}squeeze_excite_mul")([x, gate])


def _block(
    x: Any, expansion: float, filters: int, kernel: int, stride: int, squeezes: bool, activation: Callable, index: int
) -> Any:
    """As MobileNetV2's, with squeeze and excitation."""
    shortcut, channels = x, x.shape[channels_axis(-1)]
    prefix = f"expanded_conv_{index}_" if index else "expanded_conv_"
    wide = divisible(channels * expansion)
    if index:
        x = activation(_normalized(_pointwise(x, wide, f"{prefix}expand", use_bias=False), f"{prefix}expand_bn"))
    if stride == 2:
        x = layers.ZeroPadding2D(padding=correct_pad(x, kernel), name=f"{prefix}depthwise_pad")(x)
    padding = "same" if stride == 1 else "valid"
    x = layers.DepthwiseConv2D(kernel, strides=stride, padding=padding, use_bias=False, name=f"{prefix}depthwise")(x)
    x = activation(_normalized(x, f"{prefix}depthwise_bn"))
    if squeezes:
        x = _squeezed(x, wide, prefix)
    x = _normalized(_pointwise(x, filters, f"{prefix}project", use_bias=False), f"{prefix}project_bn")
    if stride == 1 and channels == filters:
        x = layers.Add(name=f"{prefix}add")([shortcut, x])
    return x


def _shape(input_tensor: Any, input_shape: Any) -> tuple:
    check_sizes(input_tensor, input_shape)
    first = config.image_data_format() == "channels_first"
    if input_shape is None and isinstance(input_tensor, KerasTensor):
        rows, columns = sizes_of(input_tensor.shape[1:])
        input_shape = (3, columns, rows) if first else (columns, rows, 3)
    if input_shape is None:
        input_shape = (3, None, None) if first else (None, None, 3)
    rows, columns = sizes_of(input_shape)
    if rows and columns and (rows < 32 or columns < 32):
        raise ValueError(f"Input size must be at least 32x32; Received `input_shape={input_shape}`")
    return input_shape


def _check_weights(alpha: float, minimalistic: bool, shape: tuple) -> None:
    if alpha not in ((1.0,) if minimalistic else (0.75, 1.0)):
        raise ValueError(
            "If imagenet weights are being loaded, alpha can be one of `0.75`, `1.0` for non minimalistic or `1.0` for "
            "minimalistic only."
        )
    if sizes_of(shape) != (224, 224):
        warnings.warn(
            "`input_shape` is undefined or non-square, or `rows` is not 224. Weights for input shape (224, 224) will be "
            "loaded as the default.",
            stacklevel=3,
        )


def _variant(title: str, size: str, table: tuple, last_filters: int) -> Callable[..., Model]:
    def build(
        input_shape: Any = None,
        alpha: float = 1.0,
        minimalistic: bool = False,
        include_top: bool = True,
        weights: Any = "imagenet",
        input_tensor: Any = None,
        classes: int = 1000,
        pooling: str | None = None,
        dropout_rate: float = 0.2,
        classifier_activation: Any = "softmax",
        include_preprocessing: bool = True,
        name: str = title,
    ) -> Model:
        request = Request(
            include_top, weights, input_tensor, input_shape, pooling, classes, classifier_activation, name
        )
        shape = _shape(input_tensor, input_shape)
        if weights == "imagenet":
            _check_weights(alpha, minimalistic, shape)
        image = x = request.image(shape)
        activation = _relu if minimalistic else _hard_swish
        if include_preprocessing:
            x = layers.Rescaling(scale=1.0 / 127.5, offset=-1.0)(x)
        x = layers.Conv2D(16, kernel_size=3, strides=(2, 2), padding="same", use_bias=False, name="conv")(x)
        x = activation(_normalized(x, "conv_bn"))
        for index, (expansion, filters, wide, stride, squeezes, swishes) in enumerate(table):
            kernel = 5 if wide and not minimalistic else 3
            squeezes = squeezes and not minimalistic
            after = activation if swishes else _relu
            x = _block(x, expansion, divisible(filters * alpha), kernel, stride, squeezes, after, index)
        x = _pointwise(x, divisible(x.shape[channels_axis(-1)] * 6), "conv_1", use_bias=False)
        x = activation(_normalized(x, "conv_1_bn"))
        if include_top:
            x = layers.GlobalAveragePooling2D(keepdims=True)(x)
            x = activation(_pointwise(x, divisible(last_filters * alpha) if alpha > 1.0 else last_filters, "conv_2"))
            if dropout_rate > 0:
                x = layers.Dropout(dropout_rate)(x)
            x = layers.Flatten()(_pointwise(x, classes, "logits"))
            x = layers.Activation(activation=request.activation(), name="predictions")(x)
        else:
            x = request.pooled(x)
        stem = f"{size}{'_minimalistic' if minimalistic else ''}_224_{alpha}_float"
        names = (f"weights_mobilenet_v3_{stem}.h5", f"weights_mobilenet_v3_{stem}_no_top_v2.h5")
        file = WeightsFile(f"{KERAS_APPLICATIONS}mobilenet_v3/", *names, HASHES.get(stem, (None, None)))
        return request.model(image, x, file)

    build.__name__ = build.__qualname__ = title
    build.__doc__ = f"""{title}, for images (224, 224, 3), 0 .. 255.

    Args:
        alpha: width: all numbers of filters are multiplied by it.
        minimalistic: whether to leave out 5x5 kernels, squeeze and excitation, and hard swish.
        include_preprocessing: whether the model scales the pixels itself.
    """
    return build


MobileNetV3Small = _variant("MobileNetV3Small", "small", SMALL, 1024)
MobileNetV3Large = _variant("MobileNetV3Large", "large", LARGE, 1280)
preprocess_input = preprocessing(None)

__all__ = ["MobileNetV3Large", "MobileNetV3Small", "decode_predictions", "preprocess_input"]

"""EfficientNetB0 to EfficientNetB7.

Source: Tan and Le, "EfficientNet: Rethinking Model Scaling for Convolutional Neural Networks" (2019), table 1.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

from .. import layers
from ..models import Model
from .imagenet_utils import decode_predictions, preprocessing
from .request import Request, WeightsFile, channels_axis, correct_pad, divisible

STAGES = (  # kernel, blocks, filters in, filters out, expansion, stride of the first block
    *((3, 1, 32, 16, 1, 1), (3, 2, 16, 24, 6, 2), (5, 2, 24, 40, 6, 2), (3, 3, 40, 80, 6, 2)),
    *((5, 3, 80, 112, 6, 1), (5, 4, 112, 192, 6, 2), (3, 1, 192, 320, 6, 1)),
)
HASHES = {
    "b0": ("902e53a9f72be733fc0bcb005b3ebbac", "50bc09e76180e00e4465e1a485ddc09d"),
    "b1": ("1d254153d4ab51201f1646940f018540", "74c4e6b3e1f6a1eea24c589628592432"),
    "b2": ("b15cce36ff4dcbd00b6dd88e7857a6ad", "111f8e2ac8aa800a7a99e3239f7bfb39"),
    "b3": ("ffd1fdc53d0ce67064dc6a9c7960ede0", "af6d107764bb5b1abb91932881670226"),
    "b4": ("18c95ad55216b8f92d7e70b3a046e2fc", "ebc24e6d6c33eaebbd558eafbeedf1ba"),
    "b5": ("ace28f2a6363774853a83a0b21b9421a", "38879255a25d3c92d5e44e04ae6cec6f"),
    "b6": ("165f6e37dce68623721b423839de8be5", "9ecce42647a20130c1f39a5d4cb75743"),
    "b7": ("8c03f828fec3ef71311cd463b6759d99", "cbcfe4450ddf6f3ad90b1b398090fe4a"),
}
CONV = {
    "class_name": "VarianceScaling",
    "config": {"scale": 2.0, "mode": "fan_out", "distribution": "truncated_normal"},
}
DENSE = {"class_name": "VarianceScaling", "config": {"scale": 1.0 / 3.0, "mode": "fan_out", "distribution": "uniform"}}


def conv(x: Any, filters: int, size: int, name: str, strides: int = 1, padding: str = "same", **arguments: Any) -> Any:
    arguments = {"use_bias": False, **arguments}
    return layers.Conv2D(
        filters, size, strides=strides, padding=padding, kernel_initializer=CONV, name=name, **arguments
    )(x)


def normalized(x: Any, name: str, momentum: float = 0.99) -> Any:
    return layers.BatchNormalization(axis=channels_axis(), momentum=momentum, name=name)(x)


def swish(x: Any, name: str) -> Any:
    return layers.Activation("swish", name=name)(x)


def squeezed(x: Any, filters: int, filters_inside: int, name: str) -> Any:
    """Channels weighted by what their means say."""
    gate = layers.GlobalAveragePooling2D(name=f"{name}se_squeeze")(x)
    gate = layers.Reshape((filters, 1, 1) if channels_axis() == 1 else (1, 1, filters), name=f"{name}se_reshape")(gate)
    gate = conv(gate, filters_inside, 1, f"{name}se_reduce", use_bias=True, activation="swish")
    gate = conv(gate, filters, 1, f"{name}se_expand", use_bias=True, activation="sigmoid")
    return layers.multiply([x, gate], name=f"{name}se_excite")


def shortcut(x: Any, inputs: Any, drop_rate: float, name: str) -> Any:
    """Added to the block's input; in training, whole blocks are dropped for some rows."""
    if drop_rate > 0:
        x = layers.Dropout(drop_rate, noise_shape=(None, 1, 1, 1), name=f"{name}drop")(x)
    return layers.add([x, inputs], name=f"{name}add")


def _block(
    inputs: Any,
    drop_rate: float,
    name: str,
    filters_in: int,
    filters_out: int,
    kernel: int,
    stride: int,
    expansion: int,
) -> Any:
    """1x1 convolution to more channels, depthwise convolution, squeeze and excitation, 1x1 convolution to fewer."""
    x, filters = inputs, filters_in * expansion
    if expansion != 1:
        x = conv(x, filters, 1, f"{name}expand_conv")
        x = swish(normalized(x, f"{name}expand_bn"), f"{name}expand_activation")
    if stride == 2:
        x = layers.ZeroPadding2D(padding=correct_pad(x, kernel), name=f"{name}dwconv_pad")(x)
    x = layers.DepthwiseConv2D(
        kernel,
        strides=stride,
        padding="valid" if stride == 2 else "same",
        use_bias=False,
        depthwise_initializer=CONV,
        name=f"{name}dwconv",
    )(x)
    x = swish(normalized(x, f"{name}bn"), f"{name}activation")
    x = squeezed(x, filters, max(1, int(filters_in * 0.25)), name)
    x = normalized(conv(x, filters_out, 1, f"{name}project_conv"), f"{name}project_bn")
    return shortcut(x, inputs, drop_rate, name) if stride == 1 and filters_in == filters_out else x


def _variant(size: str, width: float, depth: float, image_size: int, dropout: float) -> Callable[..., Model]:
    def build(
        include_top: bool = True,
        weights: Any = "imagenet",
        input_tensor: Any = None,
        input_shape: Any = None,
        pooling: str | None = None,
        classes: int = 1000,
        classifier_activation: Any = "softmax",
        name: str = f"efficientnet{size}",
    ) -> Model:
        request = Request(
            include_top, weights, input_tensor, input_shape, pooling, classes, classifier_activation, name
        )
        image = request.image(request.shape(image_size, 32))
        x = layers.Rescaling(1.0 / 255.0)(image)
        x = layers.Normalization(axis=channels_axis())(x)
        if weights == "imagenet":  # the published weights expect one scaling more
            x = layers.Rescaling([1.0 / math.sqrt(deviation) for deviation in (0.229, 0.224, 0.225)])(x)
        x = layers.ZeroPadding2D(padding=correct_pad(x, 3), name="stem_conv_pad")(x)
        x = conv(x, divisible(32 * width), 3, "stem_conv", strides=2, padding="valid")
        x = swish(normalized(x, "stem_bn"), "stem_activation")
        counts = [math.ceil(depth * stage[1]) for stage in STAGES]
        done = 0
        for number, ((kernel, _, filters_in, filters_out, expansion, stride), count) in enumerate(
            zip(STAGES, counts), 1
        ):
            before, filters = divisible(filters_in * width), divisible(filters_out * width)
            for index in range(count):
                rate, block = 0.2 * done / float(sum(counts)), f"block{number}{chr(index + 97)}_"
                first = index == 0
                x = _block(
                    x, rate, block, before if first else filters, filters, kernel, stride if first else 1, expansion
                )
                done += 1
        x = conv(x, divisible(1280 * width), 1, "top_conv")
        x = swish(normalized(x, "top_bn"), "top_activation")
        x = request.head(x, dropout=dropout, kernel_initializer=DENSE)
        folder = "https://storage.googleapis.com/keras-applications/"
        return request.model(image, x, WeightsFile(folder, f"{name}.h5", f"{name}_notop.h5", HASHES[size]))

    build.__name__ = build.__qualname__ = f"EfficientNet{size.upper()}"
    build.__doc__ = f"EfficientNet{size.upper()}, for images ({image_size}, {image_size}, 3), 0 .. 255, by default."
    return build


EfficientNetB0 = _variant("b0", 1.0, 1.0, 224, 0.2)
EfficientNetB1 = _variant("b1", 1.0, 1.1, 240, 0.2)
EfficientNetB2 = _variant("b2", 1.1, 1.2, 260, 0.3)
EfficientNetB3 = _variant("b3", 1.2, 1.4, 300, 0.3)
EfficientNetB4 = _variant("b4", 1.4, 1.8, 380, 0.4)
EfficientNetB5 = _variant("b5", 1.6, 2.2, 456, 0.4)
EfficientNetB6 = _variant("b6", 1.8, 2.6, 528, 0.5)
EfficientNetB7 = _variant("b7", 2.0, 3.1, 600, 0.5)
preprocess_input = preprocessing(None)

__all__ = [*(f"EfficientNetB{i}" for i in range(8)), "decode_predictions", "preprocess_input"]

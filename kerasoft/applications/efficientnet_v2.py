"""EfficientNetV2: B0 to B3, S, M, L.

Source: Tan and Le, "EfficientNetV2: Smaller Models and Faster Training" (2021), table 4.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

from .. import initializers, layers
from ..models import Model
from .efficientnet import CONV, DENSE, conv, normalized, shortcut, squeezed, swish
from .imagenet_utils import decode_predictions, preprocessing
from .request import KERAS_APPLICATIONS, Request, WeightsFile, channels_axis

# blocks, filters in, filters out, expansion, stride of the first block; depthwise (with squeeze and excitation) or fused
SMALLEST = (
    *((1, 32, 16, 1, 1, "fused"), (2, 16, 32, 4, 2, "fused"), (2, 32, 48, 4, 2, "fused")),
    *((3, 48, 96, 4, 2, "depthwise"), (5, 96, 112, 6, 1, "depthwise"), (8, 112, 192, 6, 2, "depthwise")),
)
STAGES = {
    "b0": SMALLEST,
    "b1": SMALLEST,
    "b2": SMALLEST,
    "b3": SMALLEST,
    "s": (
        *((2, 24, 24, 1, 1, "fused"), (4, 24, 48, 4, 2, "fused"), (4, 48, 64, 4, 2, "fused")),
        *((6, 64, 128, 4, 2, "depthwise"), (9, 128, 160, 6, 1, "depthwise"), (15, 160, 256, 6, 2, "depthwise")),
    ),
    "m": (
        *((3, 24, 24, 1, 1, "fused"), (5, 24, 48, 4, 2, "fused"), (5, 48, 80, 4, 2, "fused")),
        *((7, 80, 160, 4, 2, "depthwise"), (14, 160, 176, 6, 1, "depthwise"), (18, 176, 304, 6, 2, "depthwise")),
        (5, 304, 512, 6, 1, "depthwise"),
    ),
    "l": (
        *((4, 32, 32, 1, 1, "fused"), (7, 32, 64, 4, 2, "fused"), (7, 64, 96, 4, 2, "fused")),
        *((10, 96, 192, 4, 2, "depthwise"), (19, 192, 224, 6, 1, "depthwise"), (25, 224, 384, 6, 2, "depthwise")),
        (7, 384, 640, 6, 1, "depthwise"),
    ),
}
HASHES = {
    "b0": ("21ecbf6da12460d5c40bb2f29ceb2188", "893217f2bb855e2983157299931e43ff"),
    "b1": ("069f0534ff22adf035c89e2d9547a9dc", "0e80663031ca32d657f9caa404b6ec37"),
    "b2": ("424e49f28180edbde1e94797771950a7", "1dfe2e7a5d45b6632553a8961ea609eb"),
    "b3": ("1f1fc43bd98a6e4fd8fdfd551e02c7a0", "f6abf7b5849ac99a89b50dd3fd532856"),
    "s": ("e1d88a8495beba45748fedd0cecbe016", "af0682fb74e8c54910f2d4393339c070"),
    "m": ("a3bf6aa3276309f4fc6a34aa114c95cd", "1b8dc055df72dde80d614482840fe342"),
    "l": ("27e6d408b53c7ebc868fefa357689935", "b0b66b5c863aef5b46e8608fe1711615"),
}
MOMENTUM = 0.9


def _rounded(filters: float) -> int:
    return max(8, int(filters + 4) // 8 * 8)


def _depthwise(inputs: Any, drop_rate: float, name: str, before: int, filters: int, stride: int, expansion: int) -> Any:
    x, wide = inputs, before * expansion
    if expansion != 1:
        x = normalized(conv(x, wide, 1, f"{name}expand_conv"), f"{name}expand_bn", MOMENTUM)
        x = swish(x, f"{name}expand_activation")
    x = layers.DepthwiseConv2D(
        kernel_size=3, strides=stride, depthwise_initializer=CONV, padding="same", use_bias=False, name=f"{name}dwconv2"
    )(x)
    x = swish(normalized(x, f"{name}bn", MOMENTUM), f"{name}activation")
    x = squeezed(x, wide, max(1, int(before * 0.25)), name)
    x = normalized(conv(x, filters, 1, f"{name}project_conv"), f"{name}project_bn", MOMENTUM)
    return shortcut(x, inputs, drop_rate, name) if stride == 1 and before == filters else x


def _fused(inputs: Any, drop_rate: float, name: str, before: int, filters: int, stride: int, expansion: int) -> Any:
    x = inputs
    if expansion != 1:
        x = normalized(conv(x, before * expansion, 3, f"{name}expand_conv", stride), f"{name}expand_bn", MOMENTUM)
        x = swish(x, f"{name}expand_activation")
        x = normalized(conv(x, filters, 1, f"{name}project_conv"), f"{name}project_bn", MOMENTUM)
    else:
        x = normalized(conv(x, filters, 3, f"{name}project_conv", stride), f"{name}project_bn", MOMENTUM)
        x = swish(x, f"{name}project_activation")
    return shortcut(x, inputs, drop_rate, name) if stride == 1 and before == filters else x


def _preprocessed(x: Any, shape: tuple, name: str) -> Any:
    axis = channels_axis()
    if name.split("-")[-1].startswith("b") and shape[axis - 1] == 3:
        x = layers.Rescaling(scale=1.0 / 255)(x)
        variance = [0.229**2, 0.224**2, 0.225**2]
        return layers.Normalization(mean=[0.485, 0.456, 0.406], variance=variance, axis=axis)(x)
    return layers.Rescaling(scale=1.0 / 128.0, offset=-1)(x)


def _variant(size: str, width: float, depth: float, image_size: int) -> Callable[..., Model]:
    def build(
        include_top: bool = True,
        weights: Any = "imagenet",
        input_tensor: Any = None,
        input_shape: Any = None,
        pooling: str | None = None,
        classes: int = 1000,
        classifier_activation: Any = "softmax",
        include_preprocessing: bool = True,
        name: str = f"efficientnetv2-{size}",
    ) -> Model:
        request = Request(
            include_top, weights, input_tensor, input_shape, pooling, classes, classifier_activation, name
        )
        shape = request.shape(image_size, 32)
        image = x = request.image(shape)
        if include_preprocessing:
            x = _preprocessed(x, shape, name)
        stages = STAGES[size]
        x = conv(x, _rounded(stages[0][1] * width), 3, "stem_conv", strides=2)
        x = swish(normalized(x, "stem_bn", MOMENTUM), "stem_activation")
        planned, done = float(sum(stage[0] for stage in stages)), 0
        for number, (count, filters_in, filters_out, expansion, stride, kind) in enumerate(stages, 1):
            before, filters = _rounded(filters_in * width), _rounded(filters_out * width)
            block = _fused if kind == "fused" else _depthwise
            for index in range(math.ceil(depth * count)):
                name_of_block, first = f"block{number}{chr(index + 97)}_", index == 0
                rate = 0.2 * done / planned
                x = block(
                    x, rate, name_of_block, before if first else filters, filters, stride if first else 1, expansion
                )
                done += 1
        x = conv(x, _rounded(1280 * width), 1, "top_conv")
        x = swish(normalized(x, "top_bn", MOMENTUM), "top_activation")
        x = request.head(x, dropout=0.2, kernel_initializer=DENSE, bias_initializer=initializers.Constant(0.0))
        folder = f"{KERAS_APPLICATIONS}efficientnet_v2/"
        return request.model(image, x, WeightsFile(folder, f"{name}.h5", f"{name}_notop.h5", HASHES[size]))

    build.__name__ = build.__qualname__ = f"EfficientNetV2{size.upper()}"
    build.__doc__ = f"""EfficientNetV2{size.upper()}, for images ({image_size}, {image_size}, 3), 0 .. 255, by default.

    Args:
        include_preprocessing: whether the model scales the pixels itself; without it they must be -1 .. 1.
    """
    return build


EfficientNetV2B0 = _variant("b0", 1.0, 1.0, 224)
EfficientNetV2B1 = _variant("b1", 1.0, 1.1, 240)
EfficientNetV2B2 = _variant("b2", 1.1, 1.2, 260)
EfficientNetV2B3 = _variant("b3", 1.2, 1.4, 300)
EfficientNetV2S = _variant("s", 1.0, 1.0, 384)
EfficientNetV2M = _variant("m", 1.0, 1.0, 480)
EfficientNetV2L = _variant("l", 1.0, 1.0, 480)
preprocess_input = preprocessing(None)

__all__ = [
    *(f"EfficientNetV2{size.upper()}" for size in STAGES),
    "decode_predictions",
    "preprocess_input",
]

"""InceptionResNetV2.

Source: Szegedy, Ioffe, Vanhoucke and Alemi, "Inception-v4, Inception-ResNet and the Impact of Residual Connections on
Learning" (2017).
"""

from __future__ import annotations

from typing import Any

from .. import layers
from ..models import Model
from .imagenet_utils import decode_predictions, preprocessing
from .request import KERAS_APPLICATIONS, Request, WeightsFile, channels_axis

# paths of convolutions, each (filters, kernel)
PATHS: dict[str, list[list[tuple[int, Any]]]] = {
    "block35": [[(32, 1)], [(32, 1), (32, 3)], [(32, 1), (48, 3), (64, 3)]],
    "block17": [[(192, 1)], [(128, 1), (160, [1, 7]), (192, [7, 1])]],
    "block8": [[(192, 1)], [(192, 1), (224, [1, 3]), (256, [3, 1])]],
}
BLOCKS = (("block35", 10, 0.17), ("block17", 20, 0.1), ("block8", 9, 0.2))


class CustomScaleLayer(layers.Layer):
    """a + b * scale, of a list [a, b]."""

    def __init__(self, scale: float, **kwargs: Any):
        super().__init__(**kwargs)
        self.scale = scale

    def call(self, inputs: Any) -> Any:
        return inputs[0] + inputs[1] * self.scale


def _conv(
    x: Any,
    filters: int,
    kernel: Any,
    strides: int = 1,
    padding: str = "same",
    activation: str | None = "relu",
    use_bias: bool = False,
    name: str | None = None,
) -> Any:
    x = layers.Conv2D(filters, kernel, strides=strides, padding=padding, use_bias=use_bias, name=name)(x)
    if not use_bias:
        x = layers.BatchNormalization(axis=channels_axis(), scale=False, name=name and f"{name}_bn")(x)
    return layers.Activation(activation, name=name and f"{name}_ac")(x) if activation else x


def _halving(x: Any, filters: int) -> Any:
    return _conv(x, filters, 3, strides=2, padding="valid")


def _chain(x: Any, path: list[tuple[int, Any]]) -> Any:
    for filters, kernel in path:
        x = _conv(x, filters, kernel)
    return x


def _joined(branches: list, name: str) -> Any:
    return layers.Concatenate(axis=channels_axis(), name=name)(branches)


def _residual(x: Any, kind: str, index: int, scale: float, activation: str | None = "relu") -> Any:
    name = f"{kind}_{index}"
    mixed = _joined([_chain(x, path) for path in PATHS[kind]], f"{name}_mixed")
    channels = x.shape[channels_axis()]
    up = _conv(mixed, channels, 1, activation=None, use_bias=True, name=f"{name}_conv")
    x = CustomScaleLayer(scale)([x, up])
    return layers.Activation(activation, name=f"{name}_ac")(x) if activation else x


def _stem(x: Any) -> Any:
    x = _conv(_conv(_halving(x, 32), 32, 3, padding="valid"), 64, 3)
    x = layers.MaxPooling2D(3, strides=2)(x)
    x = _conv(_conv(x, 80, 1, padding="valid"), 192, 3, padding="valid")
    x = layers.MaxPooling2D(3, strides=2)(x)
    branches = [_chain(x, [(96, 1)]), _chain(x, [(48, 1), (64, 5)]), _chain(x, [(64, 1), (96, 3), (96, 3)])]
    pool = layers.AveragePooling2D(3, strides=1, padding="same")(x)
    return _joined([*branches, _conv(pool, 64, 1)], "mixed_5b")


def _mixed_6a(x: Any) -> Any:
    branches = [_halving(x, 384), _halving(_chain(x, [(256, 1), (256, 3)]), 384)]
    return _joined([*branches, layers.MaxPooling2D(3, strides=2, padding="valid")(x)], "mixed_6a")


def _mixed_7a(x: Any) -> Any:
    paths: list[tuple[list, int]] = [([(256, 1)], 384), ([(256, 1)], 288), ([(256, 1), (288, 3)], 320)]
    branches = [_halving(_chain(x, path), filters) for path, filters in paths]
    return _joined([*branches, layers.MaxPooling2D(3, strides=2, padding="valid")(x)], "mixed_7a")


def InceptionResNetV2(
    include_top: bool = True,
    weights: Any = "imagenet",
    input_tensor: Any = None,
    input_shape: Any = None,
    pooling: str | None = None,
    classes: int = 1000,
    classifier_activation: Any = "softmax",
    name: str = "inception_resnet_v2",
) -> Model:
    """Inception modules with shortcuts, for images (299, 299, 3) by default."""
    request = Request(include_top, weights, input_tensor, input_shape, pooling, classes, classifier_activation, name)
    image = request.image(request.shape(299, 75))
    x = image
    for before, (kind, count, scale) in zip((_stem, _mixed_6a, _mixed_7a), BLOCKS, strict=True):
        x = before(x)
        for index in range(1, count + 1):
            x = _residual(x, kind, index, scale)
    x = _residual(x, "block8", 10, 1.0, activation=None)
    x = request.head(_conv(x, 1536, 1, name="conv_7b"), named_pooling=False)
    stem = "inception_resnet_v2_weights_tf_dim_ordering_tf_kernels"
    hashes = ("e693bd0210a403b3192acc6073ad2e96", "d19885ff4a710c122648d3b5c3b684e4")
    file = WeightsFile(f"{KERAS_APPLICATIONS}inception_resnet_v2/", f"{stem}.h5", f"{stem}_notop.h5", hashes)
    return request.model(image, x, file)


preprocess_input = preprocessing("tf")

__all__ = ["CustomScaleLayer", "InceptionResNetV2", "decode_predictions", "preprocess_input"]

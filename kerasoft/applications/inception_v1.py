"""InceptionV1 (GoogLeNet), without the auxiliary classifiers.

Source: Szegedy et al., "Going Deeper with Convolutions" (2015), table 1: 6,998,552 weights and biases; Krizhevsky et al. (2012),
section 3.3, for the local response normalisation.
"""

from __future__ import annotations

from typing import Any

from .. import layers, ops
from ..models import Model
from ..saving import register_keras_serializable
from .imagenet_utils import decode_predictions, preprocessing
from .request import Request, channels_axis

# name: filters of 1x1; of 1x1 before and of 3x3; of 1x1 before and of 5x5; of 1x1 after pooling
MODULES = {
    "3a": (64, 96, 128, 16, 32, 32),
    "3b": (128, 128, 192, 32, 96, 64),
    "4a": (192, 96, 208, 16, 48, 64),
    "4b": (160, 112, 224, 24, 64, 64),
    "4c": (128, 128, 256, 24, 64, 64),
    "4d": (112, 144, 288, 32, 64, 64),
    "4e": (256, 160, 320, 32, 128, 128),
    "5a": (256, 160, 320, 32, 128, 128),
    "5b": (384, 192, 384, 48, 128, 128),
}


@register_keras_serializable(package="kerasoft")
class LocalResponseNormalization(layers.Layer):
    """y = x / (1 + alpha * mean of x^2 over the `size` channels around)^beta.

    Shapes: the same out as in.

    Args:
        size: channels that count, an odd number.
        alpha, beta: as in the formula.
        axis: of channels.
    """

    def __init__(self, size: int = 5, alpha: float = 1e-4, beta: float = 0.75, axis: int = -1, **kwargs: Any):
        super().__init__(**kwargs)
        self.size, self.alpha, self.beta, self.axis = size, alpha, beta, axis

    def call(self, x: Any) -> Any:
        rank, channels = len(x.shape), x.shape[self.axis]
        axis, side = self.axis % rank, self.size // 2
        squares = ops.pad(ops.square(x), [(side, side) if i == axis else (0, 0) for i in range(rank)])
        total: Any = 0.0
        for shift in range(self.size):
            window = [slice(None)] * rank
            window[axis] = slice(shift, shift + channels)
            total = total + squares[tuple(window)]
        return x / ops.power(1.0 + self.alpha / self.size * total, self.beta)


def _convolution(x: Any, filters: int, size: int, name: str, strides: int = 1) -> Any:
    return layers.Conv2D(filters, size, strides=strides, padding="same", activation="relu", name=name)(x)


def _module(x: Any, name: str) -> Any:
    one, before_three, three, before_five, five, after_pool = MODULES[name]
    name = f"inception_{name}"
    pool = layers.MaxPooling2D(3, strides=1, padding="same", name=f"{name}_pool")(x)
    branches = [
        _convolution(x, one, 1, f"{name}_1x1"),
        _convolution(_convolution(x, before_three, 1, f"{name}_3x3_reduce"), three, 3, f"{name}_3x3"),
        _convolution(_convolution(x, before_five, 1, f"{name}_5x5_reduce"), five, 5, f"{name}_5x5"),
        _convolution(pool, after_pool, 1, f"{name}_pool_proj"),
    ]
    return layers.Concatenate(axis=channels_axis(), name=f"{name}_output")(branches)


def _halved(x: Any, name: str) -> Any:
    return layers.MaxPooling2D(3, strides=2, padding="same", name=name)(x)


def InceptionV1(
    include_top: bool = True,
    weights: Any = None,
    input_tensor: Any = None,
    input_shape: Any = None,
    pooling: str | None = None,
    classes: int = 1000,
    classifier_activation: Any = "softmax",
    name: str = "inception_v1",
) -> Model:
    """GoogLeNet, for images (224, 224, 3) by default: 6,998,552 parameters with the classifier of 1000 classes.

    Keras has none, so there are no published weights, and `weights` is None by default.
    """
    request = Request(include_top, weights, input_tensor, input_shape, pooling, classes, classifier_activation, name)
    image = request.image(request.shape(224, 32))
    axis = channels_axis()
    x = _halved(_convolution(image, 64, 7, "conv1_7x7_s2", strides=2), "pool1_3x3_s2")
    x = LocalResponseNormalization(axis=axis, name="pool1_norm1")(x)
    x = _convolution(_convolution(x, 64, 1, "conv2_3x3_reduce"), 192, 3, "conv2_3x3")
    x = LocalResponseNormalization(axis=axis, name="conv2_norm2")(x)
    x = _halved(x, "pool2_3x3_s2")
    for module in MODULES:
        if module in ("4a", "5a"):
            x = _halved(x, f"pool{int(module[0]) - 1}_3x3_s2")
        x = _module(x, module)
    if include_top:
        x = layers.GlobalAveragePooling2D(name="avg_pool")(x)
        x = layers.Dropout(0.4, name="dropout")(x)
        x = layers.Dense(classes, activation=request.activation(), name="predictions")(x)
    else:
        x = request.pooled(x)
    return request.model(image, x, None)


preprocess_input = preprocessing("caffe")

__all__ = ["InceptionV1", "LocalResponseNormalization", "decode_predictions", "preprocess_input"]

"""VGG16.

Source: Simonyan and Zisserman, "Very Deep Convolutional Networks for Large-Scale Image Recognition" (2014),
configurations D and E.
"""

from __future__ import annotations

from typing import Any

from .. import layers
from ..models import Model
from .imagenet_utils import decode_predictions, preprocessing
from .request import KERAS_APPLICATIONS, Request, WeightsFile

FILTERS = (64, 128, 256, 512, 512)


def VGG16(
    include_top: bool = True,
    weights: Any = "imagenet",
    input_tensor: Any = None,
    input_shape: Any = None,
    pooling: str | None = None,
    classes: int = 1000,
    classifier_activation: Any = "softmax",
    name: str = "vgg16",
) -> Model:
    """VGG with 16 layers of weights, for images (224, 224, 3) by default."""
    request = Request(include_top, weights, input_tensor, input_shape, pooling, classes, classifier_activation, name)
    hashes = ("64373286793e3c8b2b4e3219cbf3544b", "6d6bbae143d832006294945121d1f1fc")
    return vgg(request, (2, 2, 3, 3, 3), "vgg16", hashes)


def vgg(request: Request, convolutions: tuple[int, ...], file: str, hashes: tuple[str, str]) -> Model:
    """Five blocks of so many convolutions each, then three dense layers."""
    image = x = request.image(request.shape(224, 32))
    for block, (count, filters) in enumerate(zip(convolutions, FILTERS, strict=True), 1):
        for index in range(1, count + 1):
            x = layers.Conv2D(filters, (3, 3), activation="relu", padding="same", name=f"block{block}_conv{index}")(x)
        x = layers.MaxPooling2D((2, 2), strides=(2, 2), name=f"block{block}_pool")(x)
    if request.include_top:
        x = layers.Flatten(name="flatten")(x)
        x = layers.Dense(4096, activation="relu", name="fc1")(x)
        x = layers.Dense(4096, activation="relu", name="fc2")(x)
        x = layers.Dense(request.classes, activation=request.activation(), name="predictions")(x)
    else:
        x = request.pooled(x, named=False)
    ending = "weights_tf_dim_ordering_tf_kernels"
    folder = f"{KERAS_APPLICATIONS}{file}/"
    return request.model(image, x, WeightsFile(folder, f"{file}_{ending}.h5", f"{file}_{ending}_notop.h5", hashes))


preprocess_input = preprocessing("caffe")

__all__ = ["VGG16", "decode_predictions", "preprocess_input"]

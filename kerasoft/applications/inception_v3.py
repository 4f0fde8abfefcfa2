"""InceptionV3.

Source: Szegedy et al., "Rethinking the Inception Architecture for Computer Vision" (2015).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from .. import layers
from ..models import Model
from .imagenet_utils import decode_predictions, preprocessing
from .request import KERAS_APPLICATIONS, Request, WeightsFile, channels_axis

Step = Callable[[Any], Any]


def conv(filters: int, rows: int, columns: int, strides: tuple[int, int] = (1, 1), padding: str = "same") -> Step:
    """Convolution, batch normalisation, ReLU."""

    def step(x: Any) -> Any:
        x = layers.Conv2D(filters, (rows, columns), strides=strides, padding=padding, use_bias=False)(x)
        x = layers.BatchNormalization(axis=channels_axis(), scale=False)(x)
        return layers.Activation("relu")(x)

    return step


def halving(filters: int) -> Step:
    return conv(filters, 3, 3, strides=(2, 2), padding="valid")


def average(x: Any) -> Any:
    return layers.AveragePooling2D((3, 3), strides=(1, 1), padding="same")(x)


def maximum(x: Any) -> Any:
    return layers.MaxPooling2D((3, 3), strides=(2, 2))(x)


def fork(*paths: list[Step], name: str | None = None) -> Step:
    """The paths side by side."""

    def step(x: Any) -> Any:
        return layers.concatenate([chain(x, path) for path in paths], axis=channels_axis(), name=name)

    return step


def chain(x: Any, path: list[Step]) -> Any:
    for step in path:
        x = step(x)
    return x


def _square(pool_filters: int, name: str) -> Step:
    """35 x 35 pixels."""
    return fork(
        [conv(64, 1, 1)],
        [conv(48, 1, 1), conv(64, 5, 5)],
        [conv(64, 1, 1), conv(96, 3, 3), conv(96, 3, 3)],
        [average, conv(pool_filters, 1, 1)],
        name=name,
    )


def _lines(filters: int, name: str) -> Step:
    """17 x 17 pixels, convolutions of 1 x 7 and 7 x 1."""
    return fork(
        [conv(192, 1, 1)],
        [conv(filters, 1, 1), conv(filters, 1, 7), conv(192, 7, 1)],
        [conv(filters, 1, 1), conv(filters, 7, 1), conv(filters, 1, 7), conv(filters, 7, 1), conv(192, 1, 7)],
        [average, conv(192, 1, 1)],
        name=name,
    )


def _wide(name: str, inner: str) -> Step:
    """8 x 8 pixels, paths that fork again."""
    return fork(
        [conv(320, 1, 1)],
        [conv(384, 1, 1), fork([conv(384, 1, 3)], [conv(384, 3, 1)], name=inner)],
        [conv(448, 1, 1), conv(384, 3, 3), fork([conv(384, 1, 3)], [conv(384, 3, 1)])],
        [average, conv(192, 1, 1)],
        name=name,
    )


def _body() -> list[Step]:
    return [
        *(conv(32, 3, 3, strides=(2, 2), padding="valid"), conv(32, 3, 3, padding="valid"), conv(64, 3, 3), maximum),
        *(conv(80, 1, 1, padding="valid"), conv(192, 3, 3, padding="valid"), maximum),
        *(_square(32, "mixed0"), _square(64, "mixed1"), _square(64, "mixed2")),
        fork([halving(384)], [conv(64, 1, 1), conv(96, 3, 3), halving(96)], [maximum], name="mixed3"),
        *(_lines(128, "mixed4"), _lines(160, "mixed5"), _lines(160, "mixed6"), _lines(192, "mixed7")),
        fork(
            [conv(192, 1, 1), halving(320)],
            [conv(192, 1, 1), conv(192, 1, 7), conv(192, 7, 1), halving(192)],
            [maximum],
            name="mixed8",
        ),
        *(_wide("mixed9", "mixed9_0"), _wide("mixed10", "mixed9_1")),
    ]


def InceptionV3(
    include_top: bool = True,
    weights: Any = "imagenet",
    input_tensor: Any = None,
    input_shape: Any = None,
    pooling: str | None = None,
    classes: int = 1000,
    classifier_activation: Any = "softmax",
    name: str = "inception_v3",
) -> Model:
    """Inception with factorised convolutions, for images (299, 299, 3) by default."""
    request = Request(include_top, weights, input_tensor, input_shape, pooling, classes, classifier_activation, name)
    image = request.image(request.shape(299, 75))
    x = request.head(chain(image, _body()), named_pooling=False)
    ending = "inception_v3_weights_tf_dim_ordering_tf_kernels"
    hashes = ("9a0d58056eeedaa3f26cb7ebd46da564", "bcbd6486424b2319ff4ef7d526e38f63")
    file = WeightsFile(f"{KERAS_APPLICATIONS}inception_v3/", f"{ending}.h5", f"{ending}_notop.h5", hashes)
    return request.model(image, x, file)


preprocess_input = preprocessing("tf")

__all__ = ["InceptionV3", "decode_predictions", "preprocess_input"]

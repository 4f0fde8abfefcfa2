"""DenseNet121, DenseNet169, DenseNet201.

Source: Huang, Liu, van der Maaten and Weinberger, "Densely Connected Convolutional Networks" (2017), table 1.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from .. import layers
from ..models import Model
from .imagenet_utils import decode_predictions, preprocessing
from .request import KERAS_APPLICATIONS, Request, WeightsFile, channels_axis, only_channels_last

GROWTH = 32
HASHES = {
    "densenet121": ("9d60b8095a5708f2dcce2bca79d332c7", "30ee3e1110167f948a6b9946edeeb738"),
    "densenet169": ("d699b8f76981ab1b30698df4c175e90b", "b8c4d4c20dd625c148057b9ff1c1176b"),
    "densenet201": ("1ceb130c1ea1b78c3bf6114dbdfd8807", "c13680b51ded0fb44dff2d8f86ac8bb1"),
}


def _normalized_relu(x: Any, normalization: str, relu: str) -> Any:
    x = layers.BatchNormalization(axis=channels_axis(), epsilon=1.001e-5, name=normalization)(x)
    return layers.Activation("relu", name=relu)(x)


def _block(x: Any, name: str) -> Any:
    """Its input, and 32 channels more."""
    more = _normalized_relu(x, f"{name}_0_bn", f"{name}_0_relu")
    more = layers.Conv2D(4 * GROWTH, 1, use_bias=False, name=f"{name}_1_conv")(more)
    more = _normalized_relu(more, f"{name}_1_bn", f"{name}_1_relu")
    more = layers.Conv2D(GROWTH, 3, padding="same", use_bias=False, name=f"{name}_2_conv")(more)
    return layers.Concatenate(axis=channels_axis(), name=f"{name}_concat")([x, more])


def _transition(x: Any, name: str) -> Any:
    """Half the channels, half the image."""
    x = _normalized_relu(x, f"{name}_bn", f"{name}_relu")
    x = layers.Conv2D(int(x.shape[channels_axis()] * 0.5), 1, use_bias=False, name=f"{name}_conv")(x)
    return layers.AveragePooling2D(2, strides=2, name=f"{name}_pool")(x)


def _variant(title: str, counts: tuple[int, ...]) -> Callable[..., Model]:
    model_name = title.lower()

    def build(
        include_top: bool = True,
        weights: Any = "imagenet",
        input_tensor: Any = None,
        input_shape: Any = None,
        pooling: str | None = None,
        classes: int = 1000,
        classifier_activation: Any = "softmax",
        name: str = model_name,
    ) -> Model:
        only_channels_last("DenseNet")
        request = Request(
            include_top, weights, input_tensor, input_shape, pooling, classes, classifier_activation, name
        )
        image = request.image(request.shape(224, 32))
        x = layers.ZeroPadding2D(padding=((3, 3), (3, 3)))(image)
        x = layers.Conv2D(64, 7, strides=2, use_bias=False, name="conv1_conv")(x)
        x = _normalized_relu(x, "conv1_bn", "conv1_relu")
        x = layers.ZeroPadding2D(padding=((1, 1), (1, 1)))(x)
        x = layers.MaxPooling2D(3, strides=2, name="pool1")(x)
        for stage, count in enumerate(counts, 2):
            for index in range(1, count + 1):
                x = _block(x, f"conv{stage}_block{index}")
            if stage < 5:
                x = _transition(x, f"pool{stage}")
        x = request.head(_normalized_relu(x, "bn", "relu"))
        stem = f"{model_name}_weights_tf_dim_ordering_tf_kernels"
        folder = f"{KERAS_APPLICATIONS}densenet/"
        return request.model(image, x, WeightsFile(folder, f"{stem}.h5", f"{stem}_notop.h5", HASHES[model_name]))

    build.__name__ = build.__qualname__ = title
    build.__doc__ = f"{title}, for images (224, 224, 3) by default."
    return build


DenseNet121 = _variant("DenseNet121", (6, 12, 24, 16))
DenseNet169 = _variant("DenseNet169", (6, 12, 32, 32))
DenseNet201 = _variant("DenseNet201", (6, 12, 48, 32))
preprocess_input = preprocessing("torch")

__all__ = ["DenseNet121", "DenseNet169", "DenseNet201", "decode_predictions", "preprocess_input"]

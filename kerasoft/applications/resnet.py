"""ResNet18, ResNet50, ResNet101, ResNet152, and what `resnet_v2.py` shares with them.

Source: He, Zhang, Ren and Sun, "Deep Residual Learning for Image Recognition" (2015), table 1.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from .. import layers
from ..models import Model
from .imagenet_utils import decode_predictions, preprocessing
from .request import KERAS_APPLICATIONS, Request, WeightsFile, channels_axis

HASHES = {
    "resnet50": ("2cb95161c43110f7111970584f804107", "4d473c1dd8becc155b73f8504c6f6626"),
    "resnet101": ("f1aeb4b969a6efcfb50fad2f0c20cfc5", "88cf7a10940856eca736dc7b7e228a21"),
    "resnet152": ("100835be76be38e30d865e96f2aaae62", "ee4c566cf9a93f14d82f913c2dc6dd0c"),
    "resnet50v2": ("3ef43a0b657b3be2300d5770ece849e0", "fac2f116257151a9d068a22e544a4917"),
    "resnet101v2": ("6343647c601c52e1368623803854d971", "c0ed64b8031c3730f411d2eb4eea35b5"),
    "resnet152v2": ("a49b44d1979771252814e80f8ec446f9", "ed17cf2e0169df9d443503ef94b23b33"),
}
FILTERS = (64, 128, 256, 512)


def normalized(x: Any, name: str) -> Any:
    return layers.BatchNormalization(axis=channels_axis(), epsilon=1.001e-5, name=name)(x)


def relu(x: Any, name: str) -> Any:
    return layers.Activation("relu", name=name)(x)


def resnet(request: Request, stacks: Callable[[Any], Any], file: str | None, preactivated: bool) -> Model:
    """The stem, the stacks of residual blocks and the classifier."""
    image = request.image(request.shape(224, 32))
    x = layers.ZeroPadding2D(padding=((3, 3), (3, 3)), name="conv1_pad")(image)
    x = layers.Conv2D(64, 7, strides=2, use_bias=True, name="conv1_conv")(x)
    if not preactivated:
        x = relu(normalized(x, "conv1_bn"), "conv1_relu")
    x = layers.ZeroPadding2D(padding=((1, 1), (1, 1)), name="pool1_pad")(x)
    x = layers.MaxPooling2D(3, strides=2, name="pool1_pool")(x)
    x = stacks(x)
    if preactivated:
        x = relu(normalized(x, "post_bn"), "post_relu")
    x = request.head(x)
    if file is None:
        return request.model(image, x, None)
    ending = "weights_tf_dim_ordering_tf_kernels"
    names = (f"{file}_{ending}.h5", f"{file}_{ending}_notop.h5")
    return request.model(image, x, WeightsFile(f"{KERAS_APPLICATIONS}resnet/", *names, HASHES[file]))


def bottleneck(x: Any, filters: int, stride: int, projects: bool, name: str) -> Any:
    """1x1, 3x3 and 1x1 convolutions beside a shortcut."""
    shortcut = x
    if projects:
        shortcut = layers.Conv2D(4 * filters, 1, strides=stride, name=f"{name}_0_conv")(x)
        shortcut = normalized(shortcut, f"{name}_0_bn")
    x = layers.Conv2D(filters, 1, strides=stride, name=f"{name}_1_conv")(x)
    x = relu(normalized(x, f"{name}_1_bn"), f"{name}_1_relu")
    x = layers.Conv2D(filters, 3, padding="SAME", name=f"{name}_2_conv")(x)
    x = relu(normalized(x, f"{name}_2_bn"), f"{name}_2_relu")
    x = layers.Conv2D(4 * filters, 1, name=f"{name}_3_conv")(x)
    x = normalized(x, f"{name}_3_bn")
    return relu(layers.Add(name=f"{name}_add")([shortcut, x]), f"{name}_out")


def basic(x: Any, filters: int, stride: int, projects: bool, name: str) -> Any:
    """Two 3x3 convolutions beside a shortcut."""
    shortcut = x
    if projects:
        shortcut = layers.Conv2D(filters, 1, strides=stride, name=f"{name}_0_conv")(x)
        shortcut = normalized(shortcut, f"{name}_0_bn")
    x = layers.ZeroPadding2D(padding=((1, 1), (1, 1)), name=f"{name}_1_pad")(x)
    x = layers.Conv2D(filters, 3, strides=stride, name=f"{name}_1_conv")(x)
    x = relu(normalized(x, f"{name}_1_bn"), f"{name}_1_relu")
    x = layers.Conv2D(filters, 3, padding="same", name=f"{name}_2_conv")(x)
    x = normalized(x, f"{name}_2_bn")
    return relu(layers.Add(name=f"{name}_add")([shortcut, x]), f"{name}_out")


def stacked(block: Callable, counts: tuple[int, ...]) -> Callable[[Any], Any]:
    """conv2 to conv5 with so many blocks each; the first block of each but conv2 halves the image."""

    def stacks(x: Any) -> Any:
        for stage, (filters, count) in enumerate(zip(FILTERS, counts, strict=True), 2):
            for index in range(1, count + 1):
                stride = 2 if index == 1 and stage > 2 else 1
                projects = index == 1 and (block is bottleneck or stage > 2)
                x = block(x, filters, stride, projects, f"conv{stage}_block{index}")
        return x

    return stacks


def _variant(
    name: str, doc: str, block: Callable, counts: tuple[int, ...], published: bool = True
) -> Callable[..., Model]:
    model_name, default_weights = name.lower(), "imagenet" if published else None

    def build(
        include_top: bool = True,
        weights: Any = default_weights,
        input_tensor: Any = None,
        input_shape: Any = None,
        pooling: str | None = None,
        classes: int = 1000,
        classifier_activation: Any = "softmax",
        name: str = model_name,
    ) -> Model:
        request = Request(
            include_top, weights, input_tensor, input_shape, pooling, classes, classifier_activation, name
        )
        return resnet(request, stacked(block, counts), model_name if published else None, preactivated=False)

    build.__name__ = build.__qualname__ = name
    build.__doc__ = doc
    return build


ResNet18 = _variant(
    "ResNet18",
    "ResNet with 18 layers of weights; Keras has none, so there are no published weights and `weights` is None.",
    basic,
    (2, 2, 2, 2),
    published=False,
)
ResNet50 = _variant("ResNet50", "ResNet with 50 layers of weights.", bottleneck, (3, 4, 6, 3))
ResNet101 = _variant("ResNet101", "ResNet with 101 layers of weights.", bottleneck, (3, 4, 23, 3))
ResNet152 = _variant("ResNet152", "ResNet with 152 layers of weights.", bottleneck, (3, 8, 36, 3))
preprocess_input = preprocessing("caffe")

__all__ = ["ResNet101", "ResNet152", "ResNet18", "ResNet50", "decode_predictions", "preprocess_input"]

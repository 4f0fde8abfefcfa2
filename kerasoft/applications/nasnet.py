"""NASNetLarge and NASNetMobile.

Source: Zoph, Vasudevan, Shlens and Le, "Learning Transferable Architectures for Scalable Image Recognition" (2018), figure 4.
"""

from __future__ import annotations

from typing import Any

from .. import layers
from ..models import Model
from .imagenet_utils import decode_predictions, preprocessing
from .request import KERAS_APPLICATIONS, Request, WeightsFile, channels_axis, correct_pad, only_channels_last

WIDTH = 2  # by which each reduction multiplies the filters
HASHES = {
    "mobile": ("020fb642bf7360b370c678b08e0adf61", "1ed92395b5b598bdda52abe5c0dbfd63"),
    "large": ("11577c9a518f0070763c2b964a382f17", "d81d89dc07e6e56530c4e77faddd61b5"),
}


def _normalized(x: Any, name: str) -> Any:
    return layers.BatchNormalization(axis=channels_axis(-1), momentum=0.9997, epsilon=1e-3, name=name)(x)


def _pointwise(x: Any, filters: int, name: str, **arguments: Any) -> Any:
    return layers.Conv2D(
        filters, (1, 1), padding="same", name=name, use_bias=False, kernel_initializer="he_normal", **arguments
    )(x)


def _relu(x: Any, name: str | None = None) -> Any:
    return layers.Activation("relu", name=name)(x)


def _separable(x: Any, filters: int, size: int, block: str, strides: tuple[int, int] = (1, 1)) -> Any:
    """Two separable convolutions."""
    x, padding = _relu(x), "same"
    if strides == (2, 2):
        x = layers.ZeroPadding2D(padding=correct_pad(x, size), name=f"separable_conv_1_pad_{block}")(x)
        padding = "valid"
    kernel = (size, size)
    x = layers.SeparableConv2D(
        filters, kernel, strides=strides, name=f"separable_conv_1_{block}", padding=padding, use_bias=False
    )(x)
    x = _relu(_normalized(x, f"separable_conv_1_bn_{block}"))
    x = layers.SeparableConv2D(filters, kernel, name=f"separable_conv_2_{block}", padding="same", use_bias=False)(x)
    return _normalized(x, f"separable_conv_2_bn_{block}")


def _adjusted(previous: Any, x: Any, filters: int, block: str) -> Any:
    """The output of the cell before the last one, in the image size and channels of this one."""
    if previous is None:
        return x
    if previous.shape[-2] != x.shape[-2]:
        previous = _relu(previous, f"adjust_relu_1_{block}")
        halves = []
        for index, shifted in enumerate((False, True), 1):
            half = previous
            if shifted:
                half = layers.ZeroPadding2D(padding=((0, 1), (0, 1)))(half)
                half = layers.Cropping2D(cropping=((1, 0), (1, 0)))(half)
            half = layers.AveragePooling2D(
                (1, 1), strides=(2, 2), padding="valid", name=f"adjust_avg_pool_{index}_{block}"
            )(half)
            halves.append(_pointwise(half, filters // 2, f"adjust_conv_{index}_{block}"))
        return _normalized(layers.concatenate(halves, axis=channels_axis(-1)), f"adjust_bn_{block}")
    if previous.shape[channels_axis(-1)] != filters:
        previous = _pointwise(_relu(previous), filters, f"adjust_conv_projection_{block}", strides=(1, 1))
        return _normalized(previous, f"adjust_bn_{block}")
    return previous


def _average(x: Any, name: str, strides: tuple[int, int] = (1, 1), padding: str = "same") -> Any:
    return layers.AveragePooling2D((3, 3), strides=strides, padding=padding, name=name)(x)


def _maximum(x: Any, name: str) -> Any:
    return layers.MaxPooling2D((3, 3), strides=(2, 2), padding="valid", name=name)(x)


def _normal(x: Any, previous: Any, filters: int, block: str) -> tuple[Any, Any]:
    """A cell that keeps the image size; its output and its input."""
    p = _adjusted(previous, x, filters, block)
    h = _pointwise(_relu(x), filters, f"normal_conv_1_{block}", strides=(1, 1))
    h = _normalized(h, f"normal_bn_1_{block}")

    def sum_of(index: int, a: Any, b: Any) -> Any:
        return layers.add([a, b], name=f"normal_add_{index}_{block}")

    one = sum_of(
        1,
        _separable(h, filters, 5, f"normal_left1_{block}"),
        _separable(p, filters, 3, f"normal_right1_{block}"),
    )
    two = sum_of(
        2,
        _separable(p, filters, 5, f"normal_left2_{block}"),
        _separable(p, filters, 3, f"normal_right2_{block}"),
    )
    three = sum_of(3, _average(h, f"normal_left3_{block}"), p)
    four = sum_of(4, _average(p, f"normal_left4_{block}"), _average(p, f"normal_right4_{block}"))
    five = sum_of(5, _separable(h, filters, 3, f"normal_left5_{block}"), h)
    joined = layers.concatenate([p, one, two, three, four, five], axis=channels_axis(-1), name=f"normal_concat_{block}")
    return joined, x


def _reduction(x: Any, previous: Any, filters: int, block: str) -> tuple[Any, Any]:
    """A cell that halves the image; its output and its input."""
    p = _adjusted(previous, x, filters, block)
    h = _pointwise(_relu(x), filters, f"reduction_conv_1_{block}", strides=(1, 1))
    h = _normalized(h, f"reduction_bn_1_{block}")
    padded = layers.ZeroPadding2D(padding=correct_pad(h, 3), name=f"reduction_pad_1_{block}")(h)

    def halved(source: Any, size: int, side: str) -> Any:
        return _separable(source, filters, size, f"reduction_{side}_{block}", strides=(2, 2))

    one = layers.add([halved(h, 5, "left1"), halved(p, 7, "right1")], name=f"reduction_add_1_{block}")
    two = _maximum(padded, f"reduction_left2_{block}")
    two = layers.add([two, halved(p, 7, "right2")], name=f"reduction_add_2_{block}")
    three = _average(padded, f"reduction_left3_{block}", strides=(2, 2), padding="valid")
    three = layers.add([three, halved(p, 5, "right3")], name=f"reduction_add3_{block}")
    four = layers.add([two, _average(one, f"reduction_left4_{block}")])
    five = _separable(one, filters, 3, f"reduction_left4_{block}")
    five = layers.add([five, _maximum(padded, f"reduction_right5_{block}")], name=f"reduction_add4_{block}")
    joined = layers.concatenate([two, three, four, five], axis=channels_axis(-1), name=f"reduction_concat_{block}")
    return joined, x


def _nasnet(
    request: Request, size: str, penultimate: int, count: int, stem_filters: int, skips: bool, image_size: int
) -> Model:
    """Two reductions, then three groups of `count` normal cells with a reduction between them."""
    only_channels_last("NASNet")
    shape = request.input_shape
    if isinstance(shape, tuple) and None in shape and request.weights == "imagenet":
        raise ValueError(
            "When specifying the input shape of a NASNet and loading `ImageNet` weights, the input_shape argument must be "
            f"static (no None entries). Got: `input_shape={shape}`."
        )
    image = request.image(request.shape(image_size, 32))
    filters = penultimate // 24
    x = layers.Conv2D(
        stem_filters, (3, 3), strides=(2, 2), padding="valid", use_bias=False, name="stem_conv1",
        kernel_initializer="he_normal",
    )(image)  # fmt: skip
    x, p = _reduction(_normalized(x, "stem_bn1"), None, filters // WIDTH**2, "stem_1")
    x, p = _reduction(x, p, filters // WIDTH, "stem_2")
    for group in range(3):
        if group:
            x, before = _reduction(x, p, filters * WIDTH**group, f"reduce_{group * count}")
            p = p if skips else before
        for index in range(count):
            x, p = _normal(x, p, filters * WIDTH**group, str(group * count + index + (group > 0)))
    x = request.head(_relu(x), named_pooling=False, pool_name=None)
    folder = f"{KERAS_APPLICATIONS}nasnet/"
    names = (f"NASNet-{size}.h5", f"NASNet-{size}-no-top.h5")
    saved_as = (f"nasnet_{size}.h5", f"nasnet_{size}_no_top.h5")
    return request.model(image, x, WeightsFile(folder, *names, HASHES[size], saved_as))


def NASNetMobile(
    input_shape: Any = None,
    include_top: bool = True,
    weights: Any = "imagenet",
    input_tensor: Any = None,
    pooling: str | None = None,
    classes: int = 1000,
    classifier_activation: Any = "softmax",
    name: str = "nasnet_mobile",
) -> Model:
    """NASNet-A (4 @ 1056), for images (224, 224, 3) by default."""
    if not include_top and input_shape is None:
        input_shape = (224, 224, 3)
    request = Request(include_top, weights, input_tensor, input_shape, pooling, classes, classifier_activation, name)
    return _nasnet(request, "mobile", 1056, 4, 32, skips=False, image_size=224)


def NASNetLarge(
    input_shape: Any = None,
    include_top: bool = True,
    weights: Any = "imagenet",
    input_tensor: Any = None,
    pooling: str | None = None,
    classes: int = 1000,
    classifier_activation: Any = "softmax",
    name: str = "nasnet_large",
) -> Model:
    """NASNet-A (6 @ 4032), for images (331, 331, 3) by default."""
    request = Request(include_top, weights, input_tensor, input_shape, pooling, classes, classifier_activation, name)
    return _nasnet(request, "large", 4032, 6, 96, skips=True, image_size=331)


preprocess_input = preprocessing("tf")

__all__ = ["NASNetLarge", "NASNetMobile", "decode_predictions", "preprocess_input"]

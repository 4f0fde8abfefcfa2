"""ConvNeXt: tiny, small, base, large, extra large.

Source: Liu et al., "A ConvNet for the 2020s" (2022); Huang et al., "Deep Networks with Stochastic Depth" (2016).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from .. import initializers, layers, ops, random
from ..models import Model, Sequential
from ..utils.graphs import get_source_inputs
from .imagenet_utils import decode_predictions, preprocessing
from .request import KERAS_APPLICATIONS, Request, WeightsFile, only_channels_last

SIZES = {  # blocks of each stage, channels of each stage
    "tiny": ((3, 3, 9, 3), (96, 192, 384, 768)),
    "small": ((3, 3, 27, 3), (96, 192, 384, 768)),
    "base": ((3, 3, 27, 3), (128, 256, 512, 1024)),
    "large": ((3, 3, 27, 3), (192, 384, 768, 1536)),
    "xlarge": ((3, 3, 27, 3), (256, 512, 1024, 2048)),
}
HASHES = {
    "tiny": (
        "8ae6e78ce2933352b1ef4008e6dd2f17bc40771563877d156bc6426c7cf503ff",
        "d547c096cabd03329d7be5562c5e14798aa39ed24b474157cef5e85ab9e49ef1",
    ),
    "small": (
        "ce1277d8f1ee5a0ef0e171469089c18f5233860ceaf9b168049cb9263fd7483c",
        "6fc8009faa2f00c1c1dfce59feea9b0745eb260a7dd11bee65c8e20843da6eab",
    ),
    "base": (
        "52cbb006d3dadd03f6e095a8ca1aca47aecdd75acb4bc74bce1f5c695d0086e6",
        "40a20c5548a5e9202f69735ecc06c990e6b7c9d2de39f0361e27baeb24cb7c45",
    ),
    "large": (
        "070c5ed9ed289581e477741d3b34beffa920db8cf590899d6d2c67fba2a198a6",
        "96f02b6f0753d4f543261bc9d09bed650f24dd6bc02ddde3066135b63d23a1cd",
    ),
    "xlarge": (
        "c1f5ccab661354fc3a79a10fa99af82f0fbf10ec65cb894a3ae0815f17a889ee",
        "de3f8a54174130e0cecdc71583354753d557fcf1f4487331558e2a16ba0cfe05",
    ),
}
EPSILON = 1e-6


class StochasticDepth(layers.Layer):
    """In training, whole rows become zero with probability `drop_path_rate`; the others grow to make up for it."""

    def __init__(self, drop_path_rate: float, **kwargs: Any):
        super().__init__(**kwargs)
        self.drop_path_rate = drop_path_rate
        self._draws = random.SeedGenerator()

    def call(self, x: Any, training: bool | None = None) -> Any:
        if not training:
            return x
        kept = 1 - self.drop_path_rate
        shape = (ops.shape(x)[0],) + (1,) * (len(x.shape) - 1)
        return x / kept * ops.floor(kept + random.uniform(shape, 0, 1, seed=self._draws))


class LayerScale(layers.Layer):
    """Each of `projection_dim` channels times a learnt gain that begins at `init_values`."""

    def __init__(self, init_values: float, projection_dim: int, **kwargs: Any):
        super().__init__(**kwargs)
        self.init_values, self.projection_dim = init_values, projection_dim

    def build(self, input_shape: Any) -> None:
        self.gamma = self.add_weight(
            shape=(self.projection_dim,),
            initializer=initializers.Constant(self.init_values),
            trainable=True,
        )

    def call(self, x: Any) -> Any:
        return x * self.gamma


def _block(x: Any, channels: int, name: str) -> Any:
    """Depthwise 7x7 convolution, then two dense layers over the channels, beside a shortcut."""
    inputs = x
    x = layers.Conv2D(filters=channels, kernel_size=7, padding="same", groups=channels, name=f"{name}_depthwise_conv")(
        x
    )
    x = layers.LayerNormalization(epsilon=EPSILON, name=f"{name}_layernorm")(x)
    x = layers.Dense(4 * channels, name=f"{name}_pointwise_conv_1")(x)
    x = layers.Activation("gelu", name=f"{name}_gelu")(x)
    x = layers.Dense(channels, name=f"{name}_pointwise_conv_2")(x)
    x = LayerScale(1e-6, channels, name=f"{name}_layer_scale")(x)
    return inputs + layers.Activation("linear", name=f"{name}_identity")(x)


def _downsampling(channels: tuple[int, ...], name: str) -> list[Sequential]:
    stem = [
        layers.Conv2D(channels[0], kernel_size=4, strides=4, name=f"{name}_stem_conv"),
        layers.LayerNormalization(epsilon=EPSILON, name=f"{name}_stem_layernorm"),
    ]
    made = [Sequential(stem, name=f"{name}_stem")]
    for index, filters in enumerate(channels[1:]):
        halving = [
            layers.LayerNormalization(epsilon=EPSILON, name=f"{name}_downsampling_layernorm_{index}"),
            layers.Conv2D(filters, kernel_size=2, strides=2, name=f"{name}_downsampling_conv_{index}"),
        ]
        made.append(Sequential(halving, name=f"{name}_downsampling_block_{index}"))
    return made


def _variant(size: str, title: str) -> Callable[..., Model]:
    model_name = f"convnext_{size}"

    def build(
        include_top: bool = True,
        include_preprocessing: bool = True,
        weights: Any = "imagenet",
        input_tensor: Any = None,
        input_shape: Any = None,
        pooling: str | None = None,
        classes: int = 1000,
        classifier_activation: Any = "softmax",
        name: str = model_name,
    ) -> Model:
        only_channels_last("ConvNeXt")
        request = Request(
            include_top, weights, input_tensor, input_shape, pooling, classes, classifier_activation, name
        )
        shape = request.shape(224, 32)
        image = x = request.image(shape)
        if include_preprocessing and shape[2] == 3:
            x = layers.Normalization(
                mean=[0.485 * 255, 0.456 * 255, 0.406 * 255],
                variance=[(0.229 * 255) ** 2, (0.224 * 255) ** 2, (0.225 * 255) ** 2],
                name=f"{name}_prestem_normalization",
            )(x)
        counts, channels = SIZES[size]
        for stage, halving in enumerate(_downsampling(channels, name)):
            x = halving(x)
            for index in range(counts[stage]):
                x = _block(x, channels[stage], f"{name}_stage_{stage}_block_{index}")
        if include_top:
            activation = request.activation()
            x = layers.GlobalAveragePooling2D(name=f"{name}_head_gap")(x)
            x = layers.LayerNormalization(epsilon=EPSILON, name=f"{name}_head_layernorm")(x)
            x = layers.Dense(classes, activation=activation, name=f"{name}_head_dense")(x)
        else:
            x = layers.LayerNormalization(epsilon=EPSILON)(request.pooled(x, named=False))
        if input_tensor is not None:
            image = get_source_inputs(input_tensor)[0]
        folder = f"{KERAS_APPLICATIONS}convnext/"
        return request.model(image, x, WeightsFile(folder, f"{name}.h5", f"{name}_notop.h5", HASHES[size]))

    build.__name__ = build.__qualname__ = title
    build.__doc__ = f"""{title}, for images (224, 224, 3), 0 .. 255, by default.

    Args:
        include_preprocessing: whether the model normalises the pixels itself.
    """
    return build


ConvNeXtTiny = _variant("tiny", "ConvNeXtTiny")
ConvNeXtSmall = _variant("small", "ConvNeXtSmall")
ConvNeXtBase = _variant("base", "ConvNeXtBase")
ConvNeXtLarge = _variant("large", "ConvNeXtLarge")
ConvNeXtXLarge = _variant("xlarge", "ConvNeXtXLarge")
preprocess_input = preprocessing(None)

__all__ = [
    "ConvNeXtBase",
    "ConvNeXtLarge",
    "ConvNeXtSmall",
    "ConvNeXtTiny",
    "ConvNeXtXLarge",
    "LayerScale",
    "StochasticDepth",
    "decode_predictions",
    "preprocess_input",
]

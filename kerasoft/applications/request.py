"""What the families share: the checked arguments, the image that comes in, the classifier on top, the weights."""

from __future__ import annotations

import dataclasses
import os
import warnings
from typing import Any

from .. import activations, config, layers
from ..models import Model
from ..tensors import KerasTensor
from ..utils.downloads import DownloadError, get_file
from ..utils.graphs import get_source_inputs

KERAS_APPLICATIONS = "https://storage.googleapis.com/tensorflow/keras-applications/"


@dataclasses.dataclass(frozen=True)
class WeightsFile:
    """Keras' published weights of one model: their address and MD5 or SHA-256, with and without the classifier."""

    folder: str
    name: str
    name_without_top: str
    hashes: tuple[str | None, str | None] = (None, None)
    saved_as: tuple[str, str] | None = None

    def path(self, include_top: bool) -> str:
        """The file in the cache, downloaded first if it is not there.

        Raises:
            DownloadError: no network; the text says which file to put where, and what else `weights` may be.
        """
        which = 0 if include_top else 1
        name = (self.name, self.name_without_top)[which]
        try:
            return get_file(
                (self.saved_as or (self.name, self.name_without_top))[which],
                f"{self.folder}{name}",
                cache_subdir="models",
                file_hash=self.hashes[which],
            )
        except DownloadError as error:
            raise DownloadError(
                f"{error} Or make the model with `weights=None` (random initial weights) or `weights=PATH` (a file of "
                "weights, `.h5` or `.weights.h5`)."
            ) from error


@dataclasses.dataclass(frozen=True)
class Request:
    """The arguments that every model takes.

    Raises:
        ValueError: `weights` is neither None, "imagenet" nor a file, or `classes` does not fit "imagenet".
    """

    include_top: bool
    weights: Any
    input_tensor: Any
    input_shape: Any
    pooling: str | None
    classes: int
    classifier_activation: Any
    name: str | None

    def __post_init__(self) -> None:
        if self.weights not in ("imagenet", None) and not os.path.exists(self.weights):
            raise ValueError(
                "The `weights` argument should be either `None` (random initialization), `imagenet` (pre-training on "
                f"ImageNet), or the path to the weights file to be loaded. Received: weights={self.weights}"
            )
        if self.weights == "imagenet" and self.include_top and self.classes != 1000:
            raise ValueError(
                "If using `weights='imagenet'` with `include_top=True`, `classes` should be 1000. Received "
                f"classes={self.classes}"
            )

    def shape(self, default_size: int, min_size: int) -> tuple:
        """`input_shape`, checked and filled in."""
        return obtain_input_shape(
            self.input_shape,
            default_size=default_size,
            min_size=min_size,
            data_format=config.image_data_format(),
            require_flatten=self.include_top,
            weights=self.weights,
        )

    def image(self, shape: tuple) -> KerasTensor:
        """The symbolic image that the model begins with."""
        if self.input_tensor is None:
            return layers.Input(shape=shape)
        if isinstance(self.input_tensor, KerasTensor):
            return self.input_tensor
        raise ValueError(
            "`input_tensor` must be a KerasTensor, such as the result of `kerasoft.Input`. Received: "
            f"{type(self.input_tensor).__name__}"
        )

    def pooled(self, x: Any, named: bool = True) -> Any:
        """The features as `pooling` says, for a model without a classifier."""
        if self.pooling == "avg":
            return layers.GlobalAveragePooling2D(name="avg_pool" if named else None)(x)
        if self.pooling == "max":
            return layers.GlobalMaxPooling2D(name="max_pool" if named else None)(x)
        return x

    def head(
        self, x: Any, named_pooling: bool = True, pool_name: str | None = "avg_pool", dropout: float = 0, **dense: Any
    ):
        """Global average, dropout and classifier, or the features as `pooling` says."""
        if not self.include_top:
            return self.pooled(x, named_pooling)
        x = layers.GlobalAveragePooling2D(name=pool_name)(x)
        if dropout > 0:
            x = layers.Dropout(dropout, name="top_dropout")(x)
        return layers.Dense(self.classes, activation=self.activation(), name="predictions", **dense)(x)

    def activation(self) -> Any:
        """The classifier's activation.

        Raises:
            ValueError: one that the weights to be loaded were not trained with.
        """
        allowed = (activations.get("softmax"), activations.get(None))
        if self.weights is not None and activations.get(self.classifier_activation) not in allowed:
            raise ValueError(
                "Only `None` and `softmax` activations are allowed for the `classifier_activation` argument when using "
                "pretrained weights, with `include_top=True`; Received: "
                f"classifier_activation={self.classifier_activation}"
            )
        return self.classifier_activation

    def model(self, image: Any, outputs: Any, file: WeightsFile | None, name: str | None = None) -> Model:
        """The model from the image to `outputs`, with the weights that were asked for."""
        inputs = image if self.input_tensor is None else get_source_inputs(self.input_tensor)
        model = Model(inputs, outputs, name=name or self.name)
        if self.weights == "imagenet":
            if file is None:
                raise ValueError(f"There are no published weights for {model.name}; use `weights=None` or a path.")
            model.load_weights(file.path(self.include_top))
        elif self.weights is not None:
            model.load_weights(self.weights)
        return model


def channels_axis(last: int = 3) -> int:
    """The axis of channels of a batch of images."""
    return last if config.image_data_format() == "channels_last" else 1


def only_channels_last(family: str) -> None:
    """Raises ValueError under the global setting "channels_first"."""
    if config.image_data_format() == "channels_first":
        raise ValueError(
            f"{family} does not support the `channels_first` image data format. Switch to `channels_last` by "
            'kerasoft.config.set_image_data_format("channels_last")'
        )


def correct_pad(x: Any, kernel_size: int) -> tuple:
    """Zeros around an image so that a strided convolution without padding sees what TensorFlow's "same" would show it."""
    row = 2 if config.image_data_format() == "channels_first" else 1
    odd = (0, 0) if x.shape[row] is None else (x.shape[row] % 2, x.shape[row + 1] % 2)
    half = kernel_size // 2
    return (half - 1 + odd[0], half), (half - 1 + odd[1], half)


def divisible(value: float, divisor: int = 8) -> int:
    """The multiple of `divisor` near `value`, at least 90 % of it."""
    rounded = max(divisor, int(value + divisor / 2) // divisor * divisor)
    return rounded + divisor if rounded < 0.9 * value else rounded


def obtain_input_shape(
    input_shape: Any, default_size: int, min_size: int, data_format: str, require_flatten: bool, weights: Any = None
) -> tuple:
    """The image shape of a model: the one given, checked, or the default one.

    Raises:
        ValueError: not three sizes, too small, or none where a classifier or the weights need one.
    """
    first = data_format == "channels_first"
    channels = 3
    if weights != "imagenet" and input_shape and len(input_shape) == 3:
        channels = input_shape[0 if first else -1]
        if channels not in (1, 3):
            warnings.warn(
                "This model usually expects 1 or 3 input channels. However, it was passed an input_shape with "
                f"{channels} input channels.",
                stacklevel=5,
            )
    default = (channels, default_size, default_size) if first else (default_size, default_size, channels)
    if weights == "imagenet" and require_flatten:
        if input_shape is not None and input_shape != default:
            raise ValueError(
                "When setting `include_top=True` and loading `imagenet` weights, `input_shape` should be "
                f"{default}.  Received: input_shape={input_shape}"
            )
        return default
    if not input_shape:
        if require_flatten:
            return default
        return (3, None, None) if first else (None, None, 3)
    if len(input_shape) != 3:
        raise ValueError("`input_shape` must be a tuple of three integers.")
    if weights == "imagenet" and channels_of(input_shape, first) != 3:
        raise ValueError(f"The input must have 3 channels; Received `input_shape={input_shape}`")
    sizes = input_shape[1:] if first else input_shape[:2]
    if any(size is not None and size < min_size for size in sizes):
        raise ValueError(f"Input size must be at least {min_size}x{min_size}; Received: input_shape={input_shape}")
    if require_flatten and None in input_shape:
        raise ValueError(
            f"If `include_top` is True, you should specify a static `input_shape`. Received: input_shape={input_shape}"
        )
    return input_shape


def channels_of(shape: Any, first: bool) -> int | None:
    """The channels among the three sizes of an image."""
    return shape[0] if first else shape[-1]

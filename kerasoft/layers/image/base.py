"""What the image layers share: factors, data formats, random draws, and inputs with labels, boxes and masks."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from ... import ops, random
from ...compiler.ops import random as draws
from ...ops.dispatch import is_static, lowered
from ...scope import current_scope
from ..configured import Configured, data_format_of
from ..noise import row_ids
from .boxes import dense_boxes

INTERPOLATIONS = ("nearest", "bilinear")
FILL_MODES = ("reflect", "wrap", "constant", "nearest")


class ImageLayer(Configured):
    """Base of the layers that change images (batch, height, width, channels), or one image without a batch.

    A subclass draws in `get_random_transformation` and changes a batch in `transform_images`; where labels, bounding
    boxes or segmentation masks change too, it overrides their `transform_*`. The input may be a dict with ``"images"``
    and any of ``"labels"``, ``"bounding_boxes"`` and ``"segmentation_masks"``.

    Args:
        factor: only where the layer says so.
        bounding_box_format: of the boxes in dict inputs, such as ``"xyxy"``.
        data_format: ``"channels_last"`` (default) or ``"channels_first"``.
    """

    bounds: tuple[float, float] = (-1, 1)
    takes_factor = True

    def __init__(self, factor: Any = None, bounding_box_format: Any = None, data_format: Any = None, **kwargs: Any):
        super().__init__(**kwargs)
        self.bounding_box_format = bounding_box_format
        self.data_format = data_format_of(data_format)
        self._kept = ("data_format",)
        if self.takes_factor:
            self.factor = self.range_of("factor", factor or 0.0)
        elif factor is not None:
            raise ValueError(
                f"Layer {type(self).__name__} does not take a `factor` argument. Received: factor={factor}"
            )
        last = self.data_format == "channels_last"
        self.height_axis, self.width_axis, self.channel_axis = (-3, -2, -1) if last else (-2, -1, -3)

    def get_config(self) -> dict[str, Any]:
        config = super().get_config()
        if self.bounding_box_format is not None:
            config["bounding_box_format"] = self.bounding_box_format
        return config

    # --- arguments ---

    def range_of(self, name: str, value: Any) -> tuple:
        """(least, greatest) of a factor: one number stands for its negative (if allowed) and itself.

        Raises:
            ValueError: no number or pair of numbers, or outside of `bounds`.
        """
        low, high = self.bounds
        error = ValueError(
            f"The `{name}` argument should be a number (or a list of two numbers) in the range [{low}, {high}]. "
            f"Received: factor={value}"
        )
        if isinstance(value, (tuple, list)):
            if len(value) != 2 or value[0] > high or value[1] < low:
                raise error
            return tuple(sorted(value))
        if not isinstance(value, (int, float)) or not low <= value <= high:
            raise error
        return (max(-abs(value), low), abs(value))

    def keep_seed(self, seed: Any) -> None:
        """Keeps `seed`; eager calls draw from a generator of it, one key a call."""
        self.keep(seed=seed)
        object.__setattr__(self, "generator", random.SeedGenerator(seed))

    def keep_value_range(self, value_range: Any) -> None:
        """Keeps the least and the greatest value of a channel.

        Raises:
            ValueError: not two numbers.
        """
        if not isinstance(value_range, (tuple, list)) or len(value_range) != 2:
            raise ValueError(
                f"The `value_range` argument should be a list of two numbers. Received: value_range={value_range}"
            )
        self.keep(value_range=sorted(value_range))

    def keep_sampling(self, interpolation: str, fill_mode: str | None = None, fill_value: Any = 0.0) -> None:
        """Keeps how pixels between and outside of pixels are found.

        Raises:
            NotImplementedError: unknown.
        """
        if fill_mode is not None and fill_mode not in FILL_MODES:
            raise NotImplementedError(f"Unknown `fill_mode` {fill_mode}. Expected of one {FILL_MODES}.")
        if interpolation not in INTERPOLATIONS:
            raise NotImplementedError(f"Unknown `interpolation` {interpolation}. Expected of one {INTERPOLATIONS}.")
        self.keep(interpolation=interpolation, fill_value=fill_value)
        if fill_mode is not None:
            self.keep(fill_mode=fill_mode)

    # --- what a subclass defines ---

    def get_random_transformation(self, data: Any, training: bool = True, seed: Any = None) -> Any:
        """What is drawn for these images; None where nothing is."""
        return None

    def transform_images(self, images: Any, transformation: Any = None, training: bool = True) -> Any:
        """A changed batch of images."""
        raise NotImplementedError

    def transform_labels(self, labels: Any, transformation: Any = None, training: bool = True) -> Any:
        """Labels of the changed images; the same by default."""
        return labels

    def transform_bounding_boxes(self, bounding_boxes: Any, transformation: Any = None, training: bool = True) -> Any:
        """Boxes of the changed images; the same by default."""
        return bounding_boxes

    def transform_segmentation_masks(
        self, segmentation_masks: Any, transformation: Any = None, training: bool = True
    ) -> Any:
        """Masks of the changed images; the same by default."""
        return segmentation_masks

    # --- the call ---

    def call(self, data: Any, training: bool = True) -> Any:
        parts = dict(data) if isinstance(data, dict) else {"images": data}
        rank = len(parts["images"].shape)
        if rank not in (3, 4):
            raise ValueError(
                "Expected image tensor to have rank 3 (single image) or 4 (batch of images). "
                f"Received: data.shape={tuple(parts['images'].shape)}"
            )
        transformation = self.get_random_transformation(data, training=training)
        if "bounding_boxes" in parts:
            if not self.bounding_box_format:
                raise ValueError(
                    "You passed an input with a 'bounding_boxes' key, but you didn't specify a bounding box format. "
                    f"Pass a `bounding_box_format` argument to your {type(self).__name__} layer, e.g. "
                    "`bounding_box_format='xyxy'`."
                )
            parts["bounding_boxes"] = dense_boxes(parts["bounding_boxes"], batched=rank == 4)
        for name, function in (
            ("images", self.transform_images),
            ("bounding_boxes", self.transform_bounding_boxes),
            ("labels", self.transform_labels),
            ("segmentation_masks", self.transform_segmentation_masks),
        ):
            if name in parts:
                parts[name] = _batched(function, parts[name], transformation, training, single=rank == 3)
        return parts if isinstance(data, dict) else parts["images"]

    # --- helpers ---

    def draw(self, data: Any, seed: Any = None) -> Draws:
        """Random numbers for this call."""
        images = data["images"] if isinstance(data, dict) else data
        return Draws(self, images, seed)

    def sizes(self, data: Any) -> tuple[Any, Any]:
        """Height and width of the images."""
        shape = (data["images"] if isinstance(data, dict) else data).shape
        return shape[self.height_axis], shape[self.width_axis]

    def lengths(self, data: Any) -> tuple[Any, Any]:
        """Height and width to compute with: numbers, or float32 nodes where the size is not known yet."""
        images = data["images"] if isinstance(data, dict) else data
        axes = (self.height_axis, self.width_axis)
        return tuple(n if is_static(n) else _size(images, axis=a) for n, a in zip(self.sizes(images), axes))  # type: ignore

    def compute(self, images: Any) -> Any:
        """The images in the dtype in which the layer computes."""
        return ops.cast(images, self.compute_dtype)


def _batched(function: Any, value: Any, transformation: Any, training: bool, single: bool) -> Any:
    """`function` on a batch; one image, label, mask or set of boxes is a batch of one."""
    if not single:
        return function(value, transformation=transformation, training=training)
    many = (
        {k: ops.expand_dims(v, 0) for k, v in value.items()} if isinstance(value, dict) else ops.expand_dims(value, 0)
    )
    result = function(many, transformation=transformation, training=training)
    if isinstance(result, dict):
        return {k: ops.squeeze(v, 0) for k, v in result.items()}
    return ops.squeeze(result, 0)


class Draws:
    """Random numbers of one call, for each image or for all.

    In a trace an image's numbers depend on the step's key and on its row id, so they are the same in a local fit and on
    any number of workers. In an eager call they come from the layer's generator.
    """

    def __init__(self, layer: ImageLayer, images: Any, seed: Any = None):
        scope = current_scope()
        self.traced = scope is not None and scope.tracing and seed is None
        batch = images.shape[0] if len(images.shape) == 4 else 1
        if self.traced:
            self.key = scope.key
            self.ids = row_ids(images) if len(images.shape) == 4 else np.zeros(1, "uint32")
        else:
            self.key = random.draw_key(layer.generator if seed is None else seed)
            self.ids = ops.cast(ops.arange(batch), "uint32")
        self._count = 0

    def salt(self) -> int:
        """A number that tells this draw from the step's, or the call's, others."""
        self._count += 1
        return current_scope().next_salt() if self.traced else self._count

    def uniform(self, low: float = 0.0, high: float = 1.0, shape: tuple = ()) -> Any:
        """float32 (batch, *shape) in [low, high)."""
        return draws.uniform_rows(
            self.key, self.ids, salt=self.salt(), shape=shape, minval=float(low), maxval=float(high)
        )

    def normal(self, shape: tuple = ()) -> Any:
        """float32 (batch, *shape) of the standard normal distribution."""
        return draws.normal_rows(self.key, self.ids, salt=self.salt(), shape=shape)

    def happens(self, chance: tuple) -> Any:
        """bool (batch, 1, 1, 1): true with a probability that is itself drawn from the range `chance`."""
        return per_image(ops.less(self.uniform(), self.uniform(*chance)))

    def bits(self, shape: tuple = ()) -> Any:
        """uint32 (batch, *shape)."""
        return draws.random_bits_rows(self.key, self.ids, salt=self.salt(), shape=shape)

    def beta(self, alpha: Any) -> Any:
        """float32 (batch,) of the beta distribution with both parameters `alpha`, a number."""
        return _beta(self.bits((2,)), alpha)

    def order(self) -> Any:
        """int32 (batch,): the places of the images in random order. The layer couples the rows of a batch."""
        scope = current_scope()
        if scope is not None:
            scope.couples_rows = scope.exact_rows = True
        return ops.cast(ops.argsort(ops.cast(ops.right_shift(self.bits(), 1), "int32")), "int32")

    def uniform_once(self, low: float = 0.0, high: float = 1.0, shape: tuple = ()) -> Any:
        """float32 of `shape`, the same for all images of the step."""
        return draws.uniform(self.key, salt=self.salt(), shape=shape, minval=float(low), maxval=float(high))

    def gamma_once(self, alpha: float, shape: tuple = ()) -> Any:
        """float32 of `shape` of the gamma distribution, the same for all images of the step."""
        return _gamma(draws.random_bits(self.key, salt=self.salt(), shape=(2,)), alpha=float(alpha), shape=shape)


@lowered
def _size(images: Any, *, axis: int) -> Any:
    return jnp.asarray(images.shape[axis], "float32")


@lowered
def _beta(bits: Any, alpha: Any) -> Any:
    return jax.vmap(lambda key: jax.random.beta(key, alpha, alpha))(jnp.asarray(bits))


@lowered
def _gamma(bits: Any, *, alpha: float, shape: tuple) -> Any:
    return jax.random.gamma(jnp.asarray(bits), alpha, shape)


def per_image(values: Any) -> Any:
    """(batch,) as (batch, 1, 1, 1), to go with images."""
    return ops.reshape(values, (values.shape[0], 1, 1, 1))


def rescaled(images: Any, have: Any, want: Any) -> Any:
    """Values of the range `have` in the range `want`."""
    if have[0] == want[0] and have[1] == want[1]:
        return images
    return (images - float(have[0])) / float(have[1] - have[0]) * float(want[1] - want[0]) + float(want[0])

"""Changes by the values that an image has: AutoContrast, Equalization, ContrastLimitedAdaptiveHistogramEqualization."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp

from ... import ops
from ...ops.dispatch import lowered
from ...scope import current_scope
from .base import ImageLayer, rescaled


@lowered
def _stretched(images: Any, *, axes: tuple, low: float, high: float) -> Any:
    span = high - low
    scaled = (images - low) / span * 255.0 if (low, high) != (0.0, 255.0) else images
    least, most = jnp.min(scaled, axis=axes, keepdims=True), jnp.max(scaled, axis=axes, keepdims=True)
    scale = 255.0 / (most - least)
    result = jnp.clip(scaled * scale - least * scale, 0.0, 255.0)
    result = result / 255.0 * span + low if (low, high) != (0.0, 255.0) else result
    return jnp.where(jnp.isnan(result), images, result)


class AutoContrast(ImageLayer):
    """Stretches the values of each image's channels to the whole value range, in training and elsewhere.

    Args:
        value_range: least and greatest value of a channel.
    """

    takes_factor = False

    def __init__(self, value_range=(0, 255), **kwargs):
        super().__init__(**kwargs)
        self.keep_value_range(value_range)

    def transform_images(self, images, transformation=None, training=True):
        low, high = (float(v) for v in self.value_range)
        return _stretched(self.compute(images), axes=(1, 2), low=low, high=high)


@lowered
def _equalized(images: Any, *, bins: int, low: float, high: float, axis: int) -> Any:
    """Each channel of the whole batch by its cumulated histogram, as Keras does."""

    def channel(values: Any) -> Any:
        scaled = (values - low) * (255.0 / (high - low))
        places = jnp.clip((scaled.astype("float32") * (bins - 1) / 255.0).astype("int32"), 0, bins - 1)
        counts = jnp.zeros(bins, "int32").at[places.reshape(-1)].add(1)
        total = jnp.cumsum(counts)
        first = jnp.take(total, jnp.argmax(total > 0))
        below = total[-1] - first
        table = (total - first) * 255 / jnp.where(below == 0, 1, below)
        table = jnp.clip(jnp.round(table), 0, 255)
        found = jnp.take(table, jnp.clip(scaled / 255.0 * (bins - 1), 0, bins - 1).astype("int32"))
        result = jnp.where(jnp.count_nonzero(counts) <= 1, scaled, found)
        return result * ((high - low) / 255.0) + low

    return jnp.moveaxis(jax.vmap(channel, in_axes=axis, out_axes=0)(images), 0, axis).astype(images.dtype)


class Equalization(ImageLayer):
    """Spreads values so that all are about equally frequent in each channel, in training.

    Args:
        value_range: least and greatest value of a channel.
        bins: how many kinds of values are counted.
    """

    def __init__(self, value_range=(0, 255), bins=256, data_format=None, **kwargs):
        super().__init__(data_format=data_format, **kwargs)
        self.keep(bins=bins)
        self.keep_value_range(value_range)

    def transform_images(self, images, transformation=None, training=True):
        if not training:
            return images
        scope = current_scope()
        if scope is not None:  # as in Keras, values are counted over the whole batch
            scope.couples_rows = scope.exact_rows = True
        low, high = (float(v) for v in self.value_range)
        return _equalized(self.compute(images), bins=int(self.bins), low=low, high=high, axis=self.channel_axis)


@lowered
def _clahe(images: Any, *, limit: float, grid: tuple) -> Any:
    """images (batch, height, width, channels) with values in 0 to 255, in float32."""
    batch, height, width, channels = images.shape
    tile = (-(-height // grid[0]), -(-width // grid[1]))
    full = (tile[0] * grid[0], tile[1] * grid[1])
    pads = ((0, 0), (0, full[0] - height), (0, full[1] - width), (0, 0))
    padded = jnp.pad(images, pads, mode="symmetric")
    values = jnp.clip(padded.astype("int32"), 0, 255)
    tiles = values.reshape(batch, grid[0], tile[0], grid[1], tile[1], channels).transpose(0, 1, 3, 5, 2, 4)
    tiles = tiles.reshape(batch, grid[0], grid[1], channels, tile[0] * tile[1])
    counts = jnp.sum(jax.nn.one_hot(tiles, 256, dtype="float32"), axis=-2)
    cells = tile[0] * tile[1]
    if limit > 0:
        cut = jnp.clip(counts, 0, limit * cells / 256.0)
        counts = cut + jnp.sum(counts - cut, axis=-1, keepdims=True) / 256.0
    total = jnp.cumsum(counts, axis=-1)
    least = jnp.min(total, axis=-1, keepdims=True)
    below = cells - least
    tables = jnp.clip((total - least) * 255.0 / jnp.where(below == 0, 1.0, below), 0, 255)
    tables = jnp.pad(tables, ((0, 0), (1, 1), (1, 1), (0, 0), (0, 0)), mode="edge")

    def neighbours(size: int, length: int, count: int) -> tuple[Any, Any, Any]:
        """The tiles before and after each pixel, and the share of the one after."""
        place = (jnp.arange(size, dtype="float32") - length / 2.0) / length + 1.0
        before = jnp.floor(place)
        ends = (jnp.clip(n, 0, count + 1).astype("int32") for n in (before, before + 1.0))
        return (*ends, place - before)

    top, bottom, down = neighbours(full[0], tile[0], grid[0])
    left, right, across = neighbours(full[1], tile[1], grid[1])
    rows, channel = jnp.arange(batch)[:, None, None, None], jnp.arange(channels)[None, None, None, :]

    def table(y: Any, x: Any) -> Any:
        return tables[rows, y[None, :, None, None], x[None, None, :, None], channel, values]

    across, down = across[None, None, :, None], down[None, :, None, None]
    above = table(top, left) * (1.0 - across) + table(top, right) * across
    under = table(bottom, left) * (1.0 - across) + table(bottom, right) * across
    return (above * (1.0 - down) + under * down)[:, :height, :width, :]


class ContrastLimitedAdaptiveHistogramEqualization(ImageLayer):
    """Equalises the histogram of each tile of an image, with a limit to its slope, in training and elsewhere.

    Args:
        value_range: least and greatest value of a channel.
        clip_limit: greatest count of a value, as a multiple of the mean count; 0 for no limit.
        tile_grid_size: rows and columns of tiles.

    Source: Zuiderveld 1994.
    """

    def __init__(self, value_range=(0, 255), clip_limit=4.0, tile_grid_size=(8, 8), data_format=None, **kwargs):
        super().__init__(data_format=data_format, **kwargs)
        self.keep(value_range=value_range, clip_limit=clip_limit, tile_grid_size=tile_grid_size)

    def transform_images(self, images, transformation=None, training=True):
        first = self.data_format == "channels_first"
        values = ops.transpose(images, (0, 2, 3, 1)) if first else images
        values = rescaled(ops.cast(values, "float32"), self.value_range, (0, 255))
        values = _clahe(values, limit=float(self.clip_limit), grid=tuple(int(n) for n in self.tile_grid_size))
        values = ops.cast(rescaled(values, (0, 255), self.value_range), images.dtype)
        return ops.transpose(values, (0, 3, 1, 2)) if first else values

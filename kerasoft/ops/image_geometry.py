"""Images read at other places: affine and perspective transformations, elastic distortion, scaling and shifting."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from .. import random
from . import elementwise as e
from .dispatch import lowered, public, rank, shape_of, tensor
from .image_filters import blur
from .image_input import image_input, shown

ORDERS = {"nearest": 0, "bilinear": 1}
FILL_MODES = ("constant", "nearest", "wrap", "mirror", "reflect")
METHODS = ("linear", "bilinear", "trilinear", "cubic", "bicubic", "tricubic", "lanczos3", "lanczos5")


def check_interpolation(interpolation: str, fill_mode: str = "constant") -> None:
    """Raises ValueError unless both are known."""
    if interpolation not in ORDERS:
        raise ValueError(
            f"Invalid value for argument `interpolation`. Expected of one {set(ORDERS)}. "
            f"Received: interpolation={interpolation}"
        )
    if fill_mode not in FILL_MODES:
        raise ValueError(
            f"Invalid value for argument `fill_mode`. Expected of one {set(FILL_MODES)}. Received: fill_mode={fill_mode}"
        )


def _sampled(x: Any, places: Any, axis: int, order: int, mode: str, fill: Any) -> Any:
    """Images read at `places` (batch, 2, rows, columns): row and column of each pixel of the result."""

    def plane(image: Any, where: Any) -> Any:
        return jax.scipy.ndimage.map_coordinates(image, list(where), order=order, mode=mode, cval=fill)

    channels = 2 if axis == -1 else 0
    return jax.vmap(jax.vmap(plane, in_axes=(channels, None), out_axes=channels))(x, places)


def _grid(x: Any, axis: int) -> tuple[Any, Any]:
    """Row and column of each pixel, (1, height, width) each."""
    height, width = (x.shape[1], x.shape[2]) if axis == -1 else (x.shape[2], x.shape[3])
    rows, columns = jnp.meshgrid(jnp.arange(height), jnp.arange(width), indexing="ij")
    return rows[None].astype("float32"), columns[None].astype("float32")


# --- affine -------------------------------------------------------------------------------------------------------


@lowered
def _affine(x: Any, transform: Any, *, axis: int, order: int, mode: str, fill: float) -> Any:
    images = x if x.ndim == 4 else x[None]
    transform = transform if transform.ndim == 2 else transform[None]
    transform = jnp.broadcast_to(transform, (images.shape[0], 8)) if transform.shape[0] == 1 else transform
    a0, a1, a2, b0, b1, b2 = (transform[:, i, None, None] for i in range(6))
    grid = jnp.stack(_grid(images, axis), axis=-1)[0]
    turn = jnp.stack([jnp.stack([b1, a1], axis=1), jnp.stack([b0, a0], axis=1)], axis=1)[..., 0, 0]
    places = jnp.moveaxis(jnp.einsum("hwi,bik->bhwk", grid, turn), -1, 1) + jnp.stack([b2, a2], axis=1)
    result = _sampled(images, places, axis, order, mode, fill)
    return result if x.ndim == 4 else result[0]


@public("image", "AffineTransform", "images transform")
def affine_transform(
    images: Any,
    transform: Any,
    interpolation: str = "bilinear",
    fill_mode: str = "constant",
    fill_value: Any = 0,
    data_format: Any = None,
) -> Any:
    """Images whose pixel (x, y) is that of the input at (a0 x + a1 y + a2, b0 x + b1 y + b2).

    Args:
        transform: [a0, a1, a2, b0, b1, b2, 0, 0], or one such row for each image.
        interpolation: ``"bilinear"`` or ``"nearest"``.
        fill_mode: what stands outside: ``"constant"`` (`fill_value`), ``"nearest"``, ``"wrap"``, ``"mirror"`` or
            ``"reflect"``.
    """
    check_interpolation(interpolation, fill_mode)
    images, _, _, axis = image_input(images, data_format)
    transform = e._as_float(tensor(transform))
    if rank(transform) not in (1, 2):
        raise ValueError(
            "Invalid transform rank: expected rank 1 (single transform) or rank 2 (batch of transforms). "
            f"Received input with shape: transform.shape={shown(transform)}"
        )
    return _affine(images, transform, axis=axis, order=ORDERS[interpolation], mode=fill_mode, fill=fill_value)


# --- perspective --------------------------------------------------------------------------------------------------


@lowered
def _perspective(x: Any, start: Any, end: Any, *, axis: int, order: int, fill: float) -> Any:
    images = x if x.ndim == 4 else x[None]
    start, end = (p.astype("float32") if p.ndim == 3 else p[None].astype("float32") for p in (start, end))
    h = homography(start, end)[:, :, None, None]
    rows, columns = _grid(images, axis)
    below = h[:, 6] * columns + h[:, 7] * rows + 1.0
    across = (h[:, 0] * columns + h[:, 1] * rows + h[:, 2]) / below
    down = (h[:, 3] * columns + h[:, 4] * rows + h[:, 5]) / below
    places = jnp.stack([down, across], axis=1)
    places = jnp.broadcast_to(places, (images.shape[0], *places.shape[1:]))
    result = _sampled(images, places, axis, order, "constant", fill)
    return result if x.ndim == 4 else result[0]


def homography(start: Any, end: Any) -> Any:
    """The eight numbers of the map that takes the points `end` to `start`: (b, 4, 2), (b, 4, 2) -> (b, 8)."""
    (start_x, start_y), (x, y) = (start[..., 0], start[..., 1]), (end[..., 0], end[..., 1])
    zero, one = jnp.zeros_like(x), jnp.ones_like(x)
    first = jnp.stack([x, y, one, zero, zero, zero, -start_x * x, -start_x * y], axis=-1)
    second = jnp.stack([zero, zero, zero, x, y, one, -start_y * x, -start_y * y], axis=-1)
    right = jnp.concatenate([start_x, start_y], axis=-1)[..., None]
    return jnp.linalg.solve(jnp.concatenate([first, second], axis=1), right)[..., 0]


@public("image", "PerspectiveTransform", "images start_points end_points")
def perspective_transform(
    images: Any,
    start_points: Any,
    end_points: Any,
    interpolation: str = "bilinear",
    fill_value: Any = 0,
    data_format: Any = None,
) -> Any:
    """Images seen from elsewhere: what was at `start_points` comes to `end_points`; (4, 2) or (batch, 4, 2), x before y."""
    check_interpolation(interpolation)
    images, _, _, axis = image_input(images, data_format)
    start, end = tensor(start_points), tensor(end_points)
    for name, points in (("start_points", start), ("end_points", end)):
        if shape_of(points)[-2:] != (4, 2) or rank(points) not in (2, 3):
            raise ValueError(
                f"Invalid {name} shape: expected (4,2) for a single image or (N,4,2) for a batch. "
                f"Received shape: {shown(points)}"
            )
    if shown(start) != shown(end):
        raise ValueError(
            "start_points and end_points must have the same shape. "
            f"Received start_points.shape={shown(start)}, end_points.shape={shown(end)}"
        )
    return _perspective(images, start, end, axis=axis, order=ORDERS[interpolation], fill=fill_value)


# --- coordinates --------------------------------------------------------------------------------------------------


@lowered
def _coordinates(x: Any, places: Any, *, order: int, mode: str, fill: float) -> Any:
    return jax.scipy.ndimage.map_coordinates(x, list(places), order=order, mode=mode, cval=fill)


@public("image", "MapCoordinates", "inputs coordinates")
def map_coordinates(inputs: Any, coordinates: Any, order: int, fill_mode: str = "constant", fill_value: Any = 0) -> Any:
    """`inputs` read at `coordinates` (one row for each axis), between cells linearly (`order` 1) or not (0)."""
    inputs, coordinates = tensor(inputs), e._as_float(tensor(coordinates))
    if shape_of(coordinates)[0] != rank(inputs):
        raise ValueError(
            "First dim of `coordinates` must be the same as the rank of `inputs`. "
            f"Received inputs with shape: {shown(inputs)} and coordinate leading dim of {shape_of(coordinates)[0]}"
        )
    if rank(coordinates) < 2:
        raise ValueError(
            f"Invalid coordinates rank: expected at least rank 2. Received input with shape: {shown(coordinates)}"
        )
    if fill_mode not in FILL_MODES:
        raise ValueError(
            f"Invalid value for argument `fill_mode`. Expected one of {set(FILL_MODES)}. Received: fill_mode={fill_mode}"
        )
    if order not in (0, 1):
        raise ValueError(f"Invalid value for argument `order`. Expected one of [0, 1]. Received: order={order}")
    return _coordinates(inputs, coordinates, order=int(order), mode=fill_mode, fill=fill_value)


# --- elastic ------------------------------------------------------------------------------------------------------


def shifted(x: Any, shift: Any, axis: int, order: int, mode: str, fill: float) -> Any:
    """A batch of images with pixels moved by `shift` (batch, height, width), down and to the right alike."""
    rows, columns = _grid(x, axis)
    places = jnp.stack([rows + shift, columns + shift], axis=1)
    return _sampled(x, places, axis, order, mode, fill).astype(x.dtype)


@lowered
def _elastic(x: Any, shift: Any, *, alpha: float, axis: int, order: int, mode: str, fill: float) -> Any:
    result = shifted(x if x.ndim == 4 else x[None], alpha * shift, axis, order, mode, fill)
    return result if x.ndim == 4 else result[0]


@public("image", "ElasticTransform", "images")
def elastic_transform(
    images: Any,
    alpha: float = 20.0,
    sigma: float = 5.0,
    interpolation: str = "bilinear",
    fill_mode: str = "reflect",
    fill_value: float = 0.0,
    seed: Any = None,
    data_format: Any = None,
) -> Any:
    """Images distorted by random smooth shifts.

    Args:
        alpha: how far pixels move; sigma: how smooth the shifts are.
        seed: int, `SeedGenerator` or None.

    Source: Simard et al. 2003.
    """
    check_interpolation(interpolation, fill_mode)
    images, height, width, axis = image_input(images, data_format)
    noise = _normal(images, random.draw_key(seed), axes=(height, width))
    width = int(6 * sigma) | 1
    shift = blur(noise[..., None] * sigma, np.float32([sigma, sigma]), size=(width, width), axis=-1)[..., 0]
    return _elastic(
        images,
        shift,
        alpha=float(alpha),
        axis=axis,
        order=ORDERS[interpolation],
        mode=fill_mode,
        fill=fill_value,
    )


@lowered
def _normal(images: Any, key: Any, *, axes: tuple) -> Any:
    """Normal numbers (batch, height, width), in the dtype of float images."""
    batch = images.shape[0] if images.ndim == 4 else 1
    kind = images.dtype if jnp.issubdtype(images.dtype, jnp.floating) else "float32"
    shape = (batch, *(images.shape[a] for a in axes))
    return jax.random.normal(jnp.asarray(key).astype("uint32"), shape, kind)


# --- scale and translate ------------------------------------------------------------------------------------------


@lowered
def _scale(x: Any, scale: Any, translation: Any, *, shape: tuple, axes: tuple, method: str, antialias: bool) -> Any:
    return jax.image.scale_and_translate(x, shape, axes, scale, translation, method, antialias)


@public("image", "ScaleAndTranslate", "images scale translation")
def scale_and_translate(
    images: Any,
    output_shape: Any,
    scale: Any,
    translation: Any,
    spatial_dims: Any,
    method: str,
    antialias: bool = True,
) -> Any:
    """Images resized by `scale` and then shifted by `translation` along `spatial_dims`, cut to `output_shape`."""
    if method not in METHODS:
        raise ValueError(
            f"Invalid value for argument `method`. Expected of one {set(METHODS)}. Received: method={method}"
        )
    images, scale, translation = (e._as_float(tensor(x)) for x in (images, scale, translation))
    shape = tuple(m if n is None else n for n, m in zip(output_shape, shape_of(images), strict=True))
    return _scale(
        images,
        scale,
        translation,
        shape=shape,
        axes=tuple(int(a) for a in spatial_dims),
        method=method,
        antialias=bool(antialias),
    )

"""Layers that change the size of the steps or the image: ZeroPadding, Cropping, UpSampling."""

from __future__ import annotations

from .. import ops
from .configured import Configured, data_format_of, ints
from .input_spec import InputSpec


def _pairs(name: str, value, rank: int) -> tuple[tuple[int, int], ...]:
    """An int, `rank` ints or `rank` pairs as `rank` pairs (before, after).

    Raises:
        ValueError: none of these.
    """
    if hasattr(value, "__index__"):
        value = (value,) * rank
    if not hasattr(value, "__len__"):
        raise ValueError(
            f"`{name}` should be either an int, a tuple of {rank} ints or a tuple of {rank} tuples of 2 ints. "
            f"Received: {name}={value}."
        )
    if len(value) != rank:
        raise ValueError(f"`{name}` should have {'two' if rank == 2 else rank} elements. Received: {name}={value}.")
    places = ("1st", "2nd", "3rd")
    return tuple(
        ints(f"{place} entry of {name}", entry, 2, allow_zero=True) for place, entry in zip(places, value, strict=False)
    )


class _Spatial(Configured):
    """Base: spatial axes after the batch (or after the channels with channels_first)."""

    rank: int

    def __init__(self, data_format, **kwargs):
        super().__init__(**kwargs)
        self.input_spec = InputSpec(ndim=self.rank + 2)
        self.data_format = data_format_of(data_format)

    def spatial_axes(self) -> range:
        first = 1 if self.data_format == "channels_last" else 2
        return range(first, first + self.rank)


class ZeroPadding(_Spatial):
    """Base of ZeroPadding1D/2D/3D: zeros before and after each spatial axis."""

    def __init__(self, padding, data_format=None, **kwargs):
        super().__init__(data_format, **kwargs)
        pairs = (ints("padding", padding, 2, True),) if self.rank == 1 else _pairs("padding", padding, self.rank)
        self.keep(padding=pairs[0] if self.rank == 1 else pairs, data_format=self.data_format)

    def call(self, inputs):
        widths = [(0, 0)] * (self.rank + 2)
        for axis, pair in zip(self.spatial_axes(), (self.padding,) if self.rank == 1 else self.padding, strict=True):
            widths[axis] = pair
        return ops.pad(inputs, tuple(widths))


class ZeroPadding1D(ZeroPadding):
    """Zeros before and after the steps. `padding`: int, or (before, after)."""

    rank = 1

    def __init__(self, padding=1, data_format=None, **kwargs):
        super().__init__(padding, data_format, **kwargs)


class ZeroPadding2D(ZeroPadding):
    """Zeros around images. `padding`: int, (height, width), or ((top, bottom), (left, right)).

    >>> import kerasoft as ks
    >>> ks.layers.ZeroPadding2D(((0, 1), (2, 2)))(ks.Input((8, 8, 3))).shape
    (None, 9, 12, 3)
    """

    rank = 2

    def __init__(self, padding=(1, 1), data_format=None, **kwargs):
        super().__init__(padding, data_format, **kwargs)


class ZeroPadding3D(ZeroPadding):
    """Zeros around volumes. `padding`: int, 3 ints, or 3 pairs."""

    rank = 3

    def __init__(self, padding=((1, 1), (1, 1), (1, 1)), data_format=None, **kwargs):
        super().__init__(padding, data_format, **kwargs)


class Cropping(_Spatial):
    """Base of Cropping1D/2D/3D: cells cut off before and after each spatial axis.

    Raises:
        ValueError: nothing would be left.
    """

    def __init__(self, cropping, data_format=None, **kwargs):
        super().__init__(data_format, **kwargs)
        if self.rank == 1:
            self.keep(cropping=ints("cropping", cropping, 2, True))
        else:
            self.keep(cropping=_pairs("cropping", cropping, self.rank), data_format=self.data_format)

    def call(self, inputs):
        index = [slice(None)] * (self.rank + 2)
        for axis, (before, after) in zip(
            self.spatial_axes(), (self.cropping,) if self.rank == 1 else self.cropping, strict=True
        ):
            size = inputs.shape[axis]
            if isinstance(size, int) and before + after >= size:
                if self.rank == 1:
                    raise ValueError(
                        "`cropping` parameter of `Cropping1D` layer must be smaller than the input length. "
                        f"Received: input_shape={tuple(inputs.shape)}, cropping={self.cropping}"
                    )
                raise ValueError(
                    "Values in `cropping` argument should be smaller than the corresponding spatial dimension of the "
                    f"input. Received: input_shape={tuple(inputs.shape)}, cropping={self.cropping}"
                )
            index[axis] = slice(before, -after if after else None)
        return ops.get_item(inputs, tuple(index))


class Cropping1D(Cropping):
    """Steps cut off. `cropping`: int, or (before, after)."""

    rank = 1

    def __init__(self, cropping=(1, 1), **kwargs):
        super().__init__(cropping, **kwargs)


class Cropping2D(Cropping):
    """Borders of images cut off. `cropping`: int, (height, width), or ((top, bottom), (left, right))."""

    rank = 2

    def __init__(self, cropping=((0, 0), (0, 0)), data_format=None, **kwargs):
        super().__init__(cropping, data_format, **kwargs)


class Cropping3D(Cropping):
    """Borders of volumes cut off. `cropping`: int, 3 ints, or 3 pairs."""

    rank = 3

    def __init__(self, cropping=((1, 1), (1, 1), (1, 1)), data_format=None, **kwargs):
        super().__init__(cropping, data_format, **kwargs)


class UpSampling(_Spatial):
    """Base of UpSampling1D/2D/3D: every cell repeated along each spatial axis."""

    def call(self, inputs):
        sizes = ints("size", self.size, self.rank)
        for axis, size in zip(self.spatial_axes(), sizes, strict=True):
            if size > 1:
                inputs = ops.repeat(inputs, size, axis=axis)
        return inputs


class UpSampling1D(UpSampling):
    """Each step repeated `size` times."""

    rank = 1

    def __init__(self, size=2, **kwargs):
        super().__init__(None, **kwargs)
        if not isinstance(size, int) or isinstance(size, bool):
            raise TypeError(f"Expected an integer value for `size`, got {type(size)}.")
        if size <= 0:
            raise ValueError(f"Argument `size` should be a positive integer. Received: size={size}")
        self.keep(size=int(size))


class UpSampling2D(UpSampling):
    """Each pixel repeated `size` = (rows, columns) times, or the image resized to as many pixels.

    Args:
        interpolation: ``"nearest"`` repeats; ``"bilinear"``, ``"bicubic"``, ``"lanczos3"`` and ``"lanczos5"`` resize.
    """

    rank = 2

    def __init__(self, size=(2, 2), data_format=None, interpolation="nearest", **kwargs):
        super().__init__(data_format, **kwargs)
        self.keep(size=ints("size", size, 2), data_format=self.data_format, interpolation=str(interpolation).lower())

    def call(self, inputs):
        if self.interpolation == "nearest":
            return super().call(inputs)
        size = [inputs.shape[axis] * n for axis, n in zip(self.spatial_axes(), self.size, strict=True)]
        return ops.image.resize(inputs, size, interpolation=self.interpolation, data_format=self.data_format)


class UpSampling3D(UpSampling):
    """Each cell repeated `size` = (depth, rows, columns) times."""

    rank = 3

    def __init__(self, size=(2, 2, 2), data_format=None, **kwargs):
        super().__init__(data_format, **kwargs)
        self.keep(size=ints("size", size, 3), data_format=self.data_format)

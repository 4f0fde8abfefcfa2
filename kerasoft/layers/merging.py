"""Layers of several inputs: Add, Subtract, Multiply, Average, Maximum, Minimum, Concatenate, Dot; and functions."""

from __future__ import annotations

import functools
import math

from .. import ops
from ..scope import get_mask, set_mask
from .configured import Configured
from .masks import sources_of


class Merge(Configured):
    """Base of the elementwise merges. Shapes: a list of shapes that broadcast -> the broadcast shape.

    Masks: the result is masked only if every input is, by "valid in any input".
    """

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.keep()
        self.supports_masking = True

    def build(self, input_shape):
        shapes = _shapes(input_shape, "A merge layer should be called on a list of inputs.")
        batches = {s[0] for s in shapes if s} - {None}
        if len(batches) > 1:
            raise ValueError(
                f"Cannot merge tensors with different batch sizes. Received tensors with shapes {input_shape}"
            )
        functools.reduce(_broadcast, [s[1:] for s in shapes])

    def call(self, inputs):
        if not isinstance(inputs, (list, tuple)):
            raise ValueError(
                f"A merge layer should be called on a list of inputs. Received: inputs={inputs} (not a list of tensors)"
            )
        rank = max(len(x.shape) for x in inputs)
        return self.merge([_of_rank(x, rank) for x in inputs])

    def merge(self, inputs):
        return functools.reduce(self.combine, inputs)

    def combine(self, a, b):
        raise NotImplementedError

    def compute_mask(self, inputs, mask=None):
        if mask is None:
            return None
        _check_masks(inputs, mask)
        if any(m is None for m in mask):
            return None
        return functools.reduce(ops.logical_or, mask)

    def mask_sources(self, inputs, previous):
        return sources_of(previous[:1], len(previous) - 1) + tuple(
            source for i, mask in enumerate(previous[1:], 1) for source in sources_of(mask, len(previous) - i)
        )


def _shapes(input_shape, text):
    if not isinstance(input_shape, (list, tuple)) or not input_shape or not isinstance(input_shape[0], (list, tuple)):
        raise ValueError(f"{text} Received: input_shape={input_shape} (not a list of shapes)")
    return [tuple(s) for s in input_shape]


def _broadcast(a, b):
    """The shape of an elementwise result; a size that is unknown in one of them is unknown."""
    short, long = sorted((a, b), key=len)
    sizes = list(long[: len(long) - len(short)])
    for x, y in zip(long[len(sizes) :], short, strict=True):
        if None not in (x, y) and x != y and 1 not in (x, y):
            raise ValueError(
                f"Inputs have incompatible shapes. Received shapes {a} and {b}. "
                "Give inputs of one shape, or sizes of 1 where they may be repeated."
            )
        sizes.append(None if None in (x, y) else y if x == 1 else x)
    return tuple(sizes)


def _check_masks(inputs, mask):
    """Refuses anything but one mask (or None) for each input."""
    for name, value in (("mask", mask), ("inputs", inputs)):
        if not isinstance(value, (list, tuple)):
            raise ValueError(f"`{name}` should be a list. Received: {name}={value}")
    if len(mask) != len(inputs):
        raise ValueError(
            "The lists `inputs` and `mask` should have the same length. "
            f"Received: inputs={inputs} of length {len(inputs)}, and mask={mask} of length {len(mask)}"
        )


def _of_rank(x, rank):
    """`x` with axes of size 1 after the batch until it has `rank` axes."""
    while len(x.shape) < rank:
        mask = get_mask(x)
        x = ops.expand_dims(x, 1)
        if mask is not None:
            set_mask(x, ops.expand_dims(mask, 1))
    return x


class Add(Merge):
    """Sum of the inputs.

    >>> import kerasoft as ks
    >>> ks.layers.Add()([ks.ops.array([[1.0]]), ks.ops.array([[2.0]])]).tolist()
    [[3.0]]
    """

    def combine(self, a, b):
        return ops.add(a, b)


class Subtract(Merge):
    """First input minus second."""

    def build(self, input_shape):
        super().build(input_shape)
        if len(input_shape) != 2:
            raise ValueError(
                f"A `Subtract` layer should be called on exactly 2 inputs. Received: input_shape={input_shape}"
            )

    def combine(self, a, b):
        return ops.subtract(a, b)


class Multiply(Merge):
    """Product of the inputs; a masked step counts as 1, one that is masked everywhere gives 0."""

    def combine(self, a, b):
        return ops.multiply(a, b)

    def merge(self, inputs):
        masks = [get_mask(x) for x in inputs]
        masks = [None if m is None else ops.expand_dims(m, -1) for m in masks]
        product = super().merge(
            [x if m is None else ops.where(m, x, ops.ones_like(x)) for x, m in zip(inputs, masks, strict=True)]
        )
        if any(m is None for m in masks):
            return product
        return ops.where(functools.reduce(ops.logical_or, masks), product, ops.zeros_like(product))


class Average(Merge):
    """Mean of the inputs."""

    def merge(self, inputs):
        return ops.divide(super().merge(inputs), float(len(inputs)))

    def combine(self, a, b):
        return ops.add(a, b)


class Extremum(Merge):
    """Base of Maximum and Minimum: where only one of two inputs is valid, that one is taken."""

    def merge(self, inputs):
        output, output_mask = None, None
        for x in inputs:
            mask = get_mask(x)
            mask = None if mask is None else ops.broadcast_to(ops.expand_dims(mask, -1), x.shape)
            if output is None:
                output, output_mask = x, mask
                continue
            if mask is not None:
                x = ops.where(mask, x, output)
            if output_mask is not None:
                output = ops.where(output_mask, output, x)
            both = mask is not None and output_mask is not None
            output_mask = ops.logical_or(output_mask, mask) if both else None
            output = self.combine(output, x)
        return output


class Maximum(Extremum):
    """Largest of the inputs, element by element."""

    def combine(self, a, b):
        return ops.maximum(a, b)


class Minimum(Extremum):
    """Smallest of the inputs, element by element."""

    def combine(self, a, b):
        return ops.minimum(a, b)


class Concatenate(Merge):
    """The inputs one after another along `axis`.

    Raises:
        ValueError: sizes of another axis differ.
    """

    def __init__(self, axis=-1, **kwargs):
        super().__init__(**kwargs)
        self.keep(axis=axis)

    def build(self, input_shape):
        shapes = _shapes(input_shape, "A `Concatenate` layer should be called on a list of at least 1 input.")
        axis = self.axis % len(shapes[0])
        for shape in shapes[1:]:
            same = len(shape) == len(shapes[0]) and all(
                a == b or None in (a, b) or i == axis for i, (a, b) in enumerate(zip(shape, shapes[0], strict=True))
            )
            if not same:
                raise ValueError(
                    "A `Concatenate` layer requires inputs with matching shapes except for the concatenation axis. "
                    f"Received: input_shape={input_shape}"
                )

    def merge(self, inputs):
        return ops.concatenate(list(inputs), axis=self.axis)

    def compute_mask(self, inputs, mask=None):
        if mask is None:
            return None
        _check_masks(inputs, mask)
        if all(m is None for m in mask):
            return None
        full = []
        for x, m in zip(inputs, mask, strict=True):
            if m is None:
                m = ops.ones_like(x, dtype="bool")
            elif len(m.shape) < len(x.shape):
                m = ops.broadcast_to(ops.expand_dims(m, -1), x.shape)
            full.append(m)
        return ops.any(ops.concatenate(full, axis=self.axis), axis=-1)

    def mask_sources(self, inputs, previous):
        found = []
        for x, mask in zip(inputs, previous, strict=True):
            widened = mask is not None and len(mask.shape) < len(x.shape)
            if mask is None or widened:
                found.append((x, 4 if widened else 3))
            found.extend(sources_of(mask, 4 if widened else 2))
        return found


class Dot(Merge):
    """Dot product of two inputs along one axis of each, row by row.

    Shapes: (batch, ..., n, ...) twice -> (batch, rest of the first, rest of the second); vectors give (batch, 1).

    Args:
        axes: int, or one int for each input; never the batch.
        normalize: whether both are first divided by their length along that axis (cosine similarity).
    """

    def __init__(self, axes, normalize=False, **kwargs):
        super().__init__(**kwargs)
        if not isinstance(axes, int):
            if not isinstance(axes, (list, tuple)):
                raise TypeError(
                    f"Invalid type for argument `axes`: it should be a list or an int. Received: axes={axes}"
                )
            if len(axes) != 2:
                raise ValueError(
                    f"Invalid format for argument `axes`: it should contain two elements. Received: axes={axes}"
                )
            if not all(isinstance(a, int) for a in axes):
                raise ValueError(
                    f"Invalid format for argument `axes`: list elements should be integers. Received: axes={axes}"
                )
        self.keep(axes=axes, normalize=normalize)

    def axes_of(self, ranks):
        axes = [self.axes] * 2 if isinstance(self.axes, int) else list(self.axes)
        return [a % rank for a, rank in zip(axes, ranks, strict=True)]

    def build(self, input_shape):
        shapes = _shapes(input_shape, "A `Dot` layer should be called on a list of 2 inputs.")
        if len(shapes) != 2:
            raise ValueError(
                f"A `Dot` layer should be called on a list of 2 inputs. Received: input_shape={input_shape}"
            )
        first, second = self.axes_of([len(s) for s in shapes])
        if 0 in (first, second):
            raise ValueError(f"Dot '{self.name}' cannot contract the batch axis. Received: axes={self.axes}")
        a, b = shapes[0][first], shapes[1][second]
        if a != b and None not in (a, b):
            raise ValueError(
                f"Incompatible input shapes: axis values {a} (at axis {first}) != {b} (at axis {second}). "
                f"Full input shapes: {shapes[0]}, {shapes[1]}. Choose `axes` of equal sizes."
            )

    def call(self, inputs):
        x, y = inputs
        first, second = self.axes_of([len(x.shape), len(y.shape)])
        if self.normalize:
            x, y = _normalized(x, first), _normalized(y, second)
        rest_x = [a for a in range(1, len(x.shape)) if a != first]
        rest_y = [a for a in range(1, len(y.shape)) if a != second]
        n = x.shape[first]
        shape_x, shape_y = [x.shape[a] for a in rest_x], [y.shape[a] for a in rest_y]
        left = ops.reshape(ops.transpose(x, (0, *rest_x, first)), (x.shape[0], math.prod(shape_x), n))
        right = ops.reshape(ops.transpose(y, (0, second, *rest_y)), (y.shape[0], n, math.prod(shape_y)))
        return ops.reshape(ops.matmul(left, right), (x.shape[0], *((*shape_x, *shape_y) or (1,))))

    def compute_mask(self, inputs, mask=None):
        return None


def _normalized(x, axis):
    power = ops.sum(ops.square(x), axis=axis, keepdims=True)
    return ops.multiply(x, ops.rsqrt(ops.maximum(power, 1e-12)))


def add(inputs, **kwargs):
    """`Add` as a function."""
    return Add(**kwargs)(inputs)


def subtract(inputs, **kwargs):
    """`Subtract` as a function."""
    return Subtract(**kwargs)(inputs)


def multiply(inputs, **kwargs):
    """`Multiply` as a function."""
    return Multiply(**kwargs)(inputs)


def average(inputs, **kwargs):
    """`Average` as a function."""
    return Average(**kwargs)(inputs)


def maximum(inputs, **kwargs):
    """`Maximum` as a function."""
    return Maximum(**kwargs)(inputs)


def minimum(inputs, **kwargs):
    """`Minimum` as a function."""
    return Minimum(**kwargs)(inputs)


def concatenate(inputs, axis=-1, **kwargs):
    """`Concatenate` as a function."""
    return Concatenate(axis=axis, **kwargs)(inputs)


def dot(inputs, axes=-1, **kwargs):
    """`Dot` as a function."""
    return Dot(axes=axes, **kwargs)(inputs)

"""Fourier transforms: real and imaginary parts are two tensors, in and out."""

from __future__ import annotations

import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from ..tensors import known_shape
from .dispatch import is_static, lowered, public, rank, shape_of, tensor

__all__ = ["extract_sequences", "fft", "fft2", "ifft2", "irfft", "istft", "rfft", "stft"]


def _parts(x: Any, axes: int = 1, sizes: bool = False) -> tuple[Any, Any]:
    """The real and the imaginary part.

    Raises:
        ValueError: not two float tensors of one shape with `axes` axes or more, all known if `sizes`.
    """
    if not isinstance(x, (tuple, list)) or len(x) != 2:
        raise ValueError(f"Input `x` should be a tuple of two tensors - real and imaginary. Received: x={x}")
    real, imaginary = (tensor(part) for part in x)
    if tuple(shape_of(real)) != tuple(shape_of(imaginary)):
        raise ValueError(
            "Input `x` should be a tuple of two tensors - real and imaginary. Both the real and imaginary parts should "
            f"have the same shape. Received: x[0].shape = {known_shape(real)}, x[1].shape = {known_shape(imaginary)}"
        )
    if not all(jnp.issubdtype(part.dtype, jnp.floating) for part in (real, imaginary)):
        raise ValueError(f"At least one tensor in input `x` is not of type float. Received: x={x}.")
    if rank(real) < axes:
        raise ValueError(f"Input should have rank >= {axes}. Received: input.shape = {known_shape(real)}")
    if sizes and not all(is_static(d) for d in shape_of(real)[-axes:]):
        which = "last dimension" if axes == 1 else "(-2, -1) axes"
        raise ValueError(f"Input should have its {which} fully-defined. Received: input.shape = {known_shape(real)}")
    return real, imaginary


def _split(x: Any) -> tuple[Any, Any]:
    return jnp.real(x), jnp.imag(x)


def _frames(x: Any, length: int, stride: int) -> Any:
    """Windows of `length` places every `stride`: (..., n) -> (..., windows, length)."""
    count = (x.shape[-1] - length) // stride + 1
    places = jnp.arange(count)[:, None] * stride + jnp.arange(length)[None, :]
    return jnp.take(x, places, axis=-1)


# --- in JAX -------------------------------------------------------------------------------------------------------


@lowered
def _fft(real: Any, imaginary: Any) -> Any:
    return _split(jnp.fft.fft(jax.lax.complex(real, imaginary)))


@lowered
def _fft2(real: Any, imaginary: Any) -> Any:
    return _split(jnp.fft.fft2(jax.lax.complex(real, imaginary)))


@lowered
def _ifft2(real: Any, imaginary: Any) -> Any:
    return _split(jnp.fft.ifft2(jax.lax.complex(real, imaginary)))


@lowered
def _rfft(x: Any, *, length: int | None) -> Any:
    return _split(jnp.fft.rfft(x, n=length))


@lowered
def _irfft(real: Any, imaginary: Any, *, length: int | None) -> Any:
    return jnp.fft.irfft(jax.lax.complex(real, imaginary), n=length)


@lowered
def _extract_sequences(x: Any, *, length: int, stride: int) -> Any:
    return _frames(x, length, stride)


@lowered
def _windows(x: Any, window: Any, *, stride: int, center: bool) -> Any:
    length = window.shape[0]
    if center:  # mirrored at both ends; by index, as jnp.pad needs to know the size
        size, half = x.shape[-1], length // 2
        place = jnp.abs(jnp.arange(size + 2 * half) - half)
        x = jnp.take(x, (size - 1) - jnp.abs((size - 1) - place), axis=-1)
    return _frames(x, length, stride) * window


@lowered
def _overlapped(frames: Any, window: Any, *, stride: int, length: int | None, center: bool, gain: float) -> Any:
    size, count = frames.shape[-1], frames.shape[-2]
    frames = frames * window
    total = size + stride * (count - 1)
    places = jnp.arange(count)[:, None] * stride + jnp.arange(size)[None, :]
    signal = jnp.zeros((*frames.shape[:-2], total), frames.dtype).at[..., places].add(frames)
    weight = jnp.zeros((total,), frames.dtype).at[places].add(jnp.broadcast_to(window**2, (count, size)))
    signal = signal * gain / jnp.where(weight > 1e-10, weight, 1.0)
    start = size // 2 if center else 0
    stop = total if length is None and not center else total - size // 2 if length is None else start + length
    return signal[..., start:stop]


# --- public -------------------------------------------------------------------------------------------------------


@public("math", "FFT", "x")
def fft(x: Any) -> Any:
    """The discrete Fourier transform along the last axis: (real, imaginary) -> (real, imaginary).

    >>> real, imaginary = fft((np.array([1.0, 2.0], "float32"), np.array([0.0, 1.0], "float32")))
    >>> real.tolist(), imaginary.tolist()
    ([3.0, -1.0], [1.0, -1.0])
    """
    return _fft(*_parts(x, sizes=True))


@public("math", "FFT2", "x")
def fft2(x: Any) -> Any:
    """The discrete Fourier transform along the last two axes."""
    return _fft2(*_parts(x, 2, sizes=True))


@public("math", "IFFT2", "x")
def ifft2(x: Any) -> Any:
    """The inverse of `fft2`."""
    return _ifft2(*_parts(x, 2, sizes=True))


@public("math", "RFFT", "x")
def rfft(x: Any, fft_length: int | None = None) -> Any:
    """The first half of the transform of real numbers: (..., n) -> two of (..., fft_length // 2 + 1)."""
    x = tensor(x)
    if rank(x) < 1:
        raise ValueError(f"Input should have rank >= 1. Received: input.shape = {shape_of(x)}")
    return _rfft(x, length=fft_length)


@public("math", "IRFFT", "x")
def irfft(x: Any, fft_length: int | None = None) -> Any:
    """The real numbers of which `rfft` gives `x`: two of (..., m) -> (..., fft_length), 2 (m - 1) by default."""
    return _irfft(*_parts(x), length=fft_length)


@public("math", "ExtractSequences", "x")
def extract_sequences(x: Any, sequence_length: int, sequence_stride: int) -> Any:
    """Windows along the last axis: (..., n) -> (..., windows, sequence_length).

    >>> extract_sequences(np.arange(1, 7), 3, 2).tolist()
    [[1, 2, 3], [3, 4, 5]]
    """
    x = tensor(x)
    if rank(x) < 1:
        raise ValueError(f"Input should have rank >= 1. Received: input.shape = {shape_of(x)}")
    return _extract_sequences(x, length=int(sequence_length), stride=int(sequence_stride))


def window_of(window: Any, length: int, size: int, dtype: Any = "float32") -> np.ndarray:
    """A window of `length` places in the middle of `size`; `window` is ``"hann"``, ``"hamming"``, numbers or None.

    Raises:
        ValueError: another name, numbers of another shape, or `size` is less than `length`.
    """
    if size < length:
        raise ValueError(
            "`fft_length` must equal or larger than `sequence_length`. "
            f"Received: sequence_length={length}, fft_length={size}"
        )
    if window is None:
        return np.ones(size, dtype)
    if isinstance(window, str):
        if window not in ("hann", "hamming"):
            raise ValueError(
                f'If a string is passed to `window`, it must be one of `"hann"`, `"hamming"`. Received: window={window}'
            )
        base = 0.5 if window == "hann" else 0.54
        turns = 2 * math.pi * np.arange(length) / length
        window = base - (1 - base) * np.cos(turns) if length > 1 else np.ones(1)
    window = np.asarray(window)
    if window.shape != (length,):
        raise ValueError(
            f"The shape of `window` must be equal to [sequence_length].Received: window shape={window.shape}"
        )
    before = (size - length) // 2
    return np.pad(window, (before, size - length - before)).astype(dtype)


def _check_stride(stride: Any) -> None:
    if not isinstance(stride, (int, np.integer)) or stride <= 0:
        raise ValueError(f"`sequence_stride` must be a positive integer. Received: sequence_stride={stride}")


@public("math", "STFT", "x")
def stft(
    x: Any, sequence_length: int, sequence_stride: int, fft_length: int, window: Any = "hann", center: bool = True
) -> Any:
    """The short-time Fourier transform: `rfft` of windows along the last axis.

    Args:
        sequence_length, sequence_stride: length and distance of the windows.
        fft_length: length of a transform, at least `sequence_length`.
        window: ``"hann"``, ``"hamming"``, factors of shape (sequence_length,), or None for ones.
        center: whether the signal is mirrored at its ends, so that window t is centred on place t * stride.

    Shapes: (..., n) -> two of (..., windows, fft_length // 2 + 1).

    Raises:
        TypeError: x is not float32 or float64.
    """
    x = tensor(x)
    if str(getattr(x, "dtype", "")) not in ("float32", "float64"):
        raise TypeError(
            f"Invalid input type. Expected `float32` or `float64`. Received: input type={getattr(x, 'dtype', type(x))}"
        )
    factors = window_of(window, sequence_length, fft_length)
    _check_stride(sequence_stride)
    return _rfft(_windows(x, factors, stride=int(sequence_stride), center=bool(center)), length=None)


@public("math", "ISTFT", "x")
def istft(
    x: Any,
    sequence_length: int,
    sequence_stride: int,
    fft_length: int,
    length: int | None = None,
    window: Any = "hann",
    center: bool = True,
) -> Any:
    """The signal of which `stft` with the same arguments gives `x`.

    Args:
        length: places of the result; by default what the windows cover, without mirrored ends if `center`.
    """
    real, imaginary = _parts(x, 2)
    factors = window_of(window, sequence_length, fft_length)
    _check_stride(sequence_stride)
    gain = 1.0 if window is not None else fft_length / sequence_stride  # as Keras scales on JAX
    frames = _irfft(real, imaginary, length=int(shape_of(factors)[0]))
    return _overlapped(frames, factors, stride=int(sequence_stride), length=length, center=bool(center), gain=gain)

"""Spectrograms of signals: STFTSpectrogram (its transform can be trained) and MelSpectrogram."""

from __future__ import annotations

import math
import warnings

import numpy as np

from .. import initializers, ops
from ..ops.dispatch import is_static
from ..scope import current_scope
from .configured import Configured, data_format_of
from .input_spec import InputSpec

EPSILON = 1e-7
MODES = ("log", "magnitude", "psd", "real", "imag", "angle", "stft")


class STFTSpectrogram(Configured):
    """The short-time Fourier transform of each channel of a signal, as a convolution.

    Shapes: (batch, steps, channels) -> (batch, frames, frequencies * channels), or with `expand_dims`
    (batch, frames, frequencies, channels); with ``"channels_first"`` channels come second.

    Args:
        mode: what is given back: ``"log"`` (of the magnitude), ``"magnitude"``, ``"psd"``, ``"real"``, ``"imag"``,
            ``"angle"`` or ``"stft"`` (real and imaginary parts).
        frame_length, frame_step: length and distance of frames; the step is half the length by default.
        fft_length: length of a transform, the next power of two by default.
        window, periodic, scaling: see `initializers.STFT`.
        padding: ``"valid"`` or ``"same"``.
    """

    def __init__(
        self,
        mode="log",
        frame_length=256,
        frame_step=None,
        fft_length=None,
        window="hann",
        periodic=False,
        scaling="density",
        padding="valid",
        expand_dims=False,
        data_format=None,
        **kwargs,
    ):
        if frame_step is not None and not 1 <= frame_step <= frame_length:
            raise ValueError(
                "`frame_step` should be a positive integer not greater than `frame_length`. "
                f"Received frame_step={frame_step}, frame_length={frame_length}"
            )
        if fft_length is not None and fft_length < frame_length:
            raise ValueError(
                "`fft_length` should be not less than `frame_length`. "
                f"Received fft_length={fft_length}, frame_length={frame_length}"
            )
        if fft_length is not None and fft_length & (fft_length - 1):
            warnings.warn(
                f"`fft_length` is recommended to be a power of two. Received fft_length={fft_length}", stacklevel=2
            )
        if mode not in MODES:
            raise ValueError(f"Output mode is invalid, it must be one of {', '.join(MODES)}. Received: mode={mode}")
        if padding not in ("valid", "same"):
            raise ValueError(f"Padding is invalid, it should be 'valid', 'same'. Received: padding={padding}")
        initializers.STFT("real", window, scaling, periodic)  # checks them
        super().__init__(**kwargs)
        self.keep(
            mode=mode,
            frame_length=frame_length,
            frame_step=frame_step,
            fft_length=fft_length,
            window=window,
            periodic=periodic,
            scaling=scaling,
            padding=padding,
            expand_dims=expand_dims,
            data_format=data_format_of(data_format),
        )
        self.step = frame_step or frame_length // 2
        self.frequencies = (fft_length or 2 ** math.ceil(math.log2(frame_length))) // 2 + 1
        self.input_spec = InputSpec(ndim=3)

    def build(self, input_shape):
        shape = (self.frame_length, 1, self.frequencies)
        for side, other in (("real", "imag"), ("imag", "real")):
            if self.mode != other:
                start = initializers.STFT(side, self.window, self.scaling, self.periodic)
                kernel = self.add_weight(name=f"{side}_kernel", shape=shape, initializer=start)
                setattr(self, f"{side}_kernel", kernel)

    def call(self, inputs):
        if str(inputs.dtype) not in ("float16", "float32", "float64", "bfloat16"):
            raise TypeError(
                f"Invalid input type. Expected `float16`, `float32` or `float64`. Received: input type={inputs.dtype}"
            )
        if self.data_format == "channels_last":
            inputs = ops.transpose(inputs, (0, 2, 1))
        real = None if self.mode == "imag" else self._transformed(inputs, self.real_kernel)
        imaginary = None if self.mode == "real" else self._transformed(inputs, self.imag_kernel)
        if self.mode in ("real", "imag"):
            return self._arranged(imaginary if real is None else real)
        if self.mode == "angle":
            return self._arranged(ops.arctan2(imaginary, real))
        if self.mode == "stft":
            return self._arranged(ops.concatenate([real, imaginary], axis=3))
        power = ops.add(ops.square(real), ops.square(imaginary))
        if self.mode == "psd":  # all but the first and the last stand for two frequencies
            return self._arranged(power + ops.pad(power[..., 1:-1], ((0, 0), (0, 0), (0, 0), (1, 1))))
        magnitude = ops.sqrt(ops.maximum(power, EPSILON))
        return self._arranged(magnitude if self.mode == "magnitude" else ops.log(ops.maximum(magnitude, EPSILON)))

    def _transformed(self, inputs, kernel):
        """(batch, channels, steps) -> (batch, channels, frames, frequencies)."""
        batch, channels, steps = inputs.shape
        signals = ops.reshape(inputs, (batch * channels, steps, 1))
        frames = ops.conv(signals, ops.cast(kernel, inputs.dtype), self.step, self.padding, "channels_last")
        return ops.reshape(frames, (batch, channels, *frames.shape[1:]))

    def _arranged(self, values):
        batch, channels, frames, frequencies = values.shape
        last = self.data_format == "channels_last"
        if self.expand_dims:
            return ops.transpose(values, (0, 2, 3, 1)) if last else values
        values = ops.transpose(values, (0, 2, 1, 3) if last else (0, 1, 3, 2))
        flat = channels * frequencies
        return ops.reshape(values, (batch, frames, flat) if last else (batch, flat, frames))


class MelSpectrogram(Configured):
    """The power of a signal in bands that are evenly spaced for the ear.

    Shapes: (batch, samples) -> (batch, bands, frames); (samples,) -> (bands, frames).

    Args:
        fft_length, sequence_stride, sequence_length, window: see `ops.stft`.
        sampling_rate: samples a second.
        num_mel_bins: bands, between `min_freq` and `max_freq` (hertz; half the sampling rate by default).
        power_to_db: whether decibels are given back, over `ref_power`, at most `top_db` below the greatest.
        mag_exp: 1 for energy, 2 for power. min_power: least power.
    """

    def __init__(
        self,
        fft_length=2048,
        sequence_stride=512,
        sequence_length=None,
        window="hann",
        sampling_rate=16000,
        num_mel_bins=128,
        min_freq=20.0,
        max_freq=None,
        power_to_db=True,
        top_db=80.0,
        mag_exp=2.0,
        min_power=1e-10,
        ref_power=1.0,
        **kwargs,
    ):
        super().__init__(**kwargs)
        sequence_length = sequence_length or fft_length
        if fft_length < sequence_length:
            raise ValueError(
                "`fft_length` must be greater than or equal to   `sequence_length`. "
                f"Received: `sequence_length`={sequence_length}, `fft_length`={fft_length}."
            )
        self.keep(
            fft_length=fft_length,
            sequence_stride=sequence_stride,
            sequence_length=sequence_length,
            window=window,
            sampling_rate=sampling_rate,
            num_mel_bins=num_mel_bins,
            min_freq=min_freq,
            max_freq=max_freq or int(sampling_rate / 2),
            power_to_db=power_to_db,
            top_db=top_db,
            mag_exp=mag_exp,
            min_power=min_power,
            ref_power=ref_power,
        )

    def call(self, inputs):
        inputs = ops.cast(inputs, "float32")
        real, imaginary = ops.stft(
            inputs, self.sequence_length, self.sequence_stride, self.fft_length, self.window, center=True
        )
        values = ops.power(ops.sqrt(ops.add(ops.square(real), ops.square(imaginary))), self.mag_exp)
        values = ops.matmul(
            values,
            self.linear_to_mel_weight_matrix(
                self.num_mel_bins, self.fft_length // 2 + 1, self.sampling_rate, self.min_freq, self.max_freq
            ),
        )
        if self.power_to_db:
            scope = current_scope()
            if scope is not None:  # the greatest is that of the whole batch
                scope.couples_rows = scope.exact_rows = True
            reference = 10.0 * math.log10(max(abs(self.ref_power), self.min_power))
            values = 10.0 * ops.log10(ops.maximum(values, self.min_power)) - reference
            values = ops.maximum(values, ops.max(values) - self.top_db)
        return ops.cast(ops.swapaxes(values, -1, -2), self.compute_dtype)

    def linear_to_mel_weight_matrix(
        self,
        num_mel_bins=20,
        num_spectrogram_bins=129,
        sampling_rate=8000,
        lower_edge_hertz=125.0,
        upper_edge_hertz=3800.0,
        dtype="float32",
    ):
        """Share of each frequency in each band: (frequencies, bands)."""

        def mel(hertz):
            return 1127.0 * np.log(1.0 + np.asarray(hertz, "float64") / 700.0)

        frequencies = mel(np.linspace(0.0, sampling_rate / 2.0, num_spectrogram_bins)[1:])[:, None]
        edges = np.linspace(mel(lower_edge_hertz), mel(upper_edge_hertz), num_mel_bins + 2)
        low, center, high = edges[:-2], edges[1:-1], edges[2:]
        shares = np.minimum((frequencies - low) / (center - low), (high - frequencies) / (high - center))
        return np.pad(np.maximum(shares, 0.0), ((1, 0), (0, 0))).astype(dtype)

    def compute_output_shape(self, input_shape):
        samples = input_shape[-1]
        frames = (samples + self.sequence_stride + 1) // self.sequence_stride if is_static(samples) else None
        return (*input_shape[:-1], self.num_mel_bins, frames)

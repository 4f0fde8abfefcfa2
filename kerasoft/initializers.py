"""First values of weights.

An initializer is called with a shape and a dtype and gives a NumPy array. A random one repeats its values on every
call: its seed is fixed when it is made (drawn from Python's `random` when None, so `utils.set_random_seed` governs it).
Values come from NumPy's Philox generator; distributions are Keras's, the numbers are not.
"""

from __future__ import annotations

import inspect
import math
import random
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from .identifiers import Family
from .naming import to_snake_case


class Initializer:
    """Base class. A subclass defines ``__call__(shape, dtype=None) -> array`` and `get_config`.

    >>> class Twos(Initializer):
    ...     def __call__(self, shape, dtype=None):
    ...         return 2 * Ones()(shape, dtype)
    >>> Twos()((2,))
    array([2., 2.], dtype=float32)
    """

    def __call__(self, shape: Sequence[int], dtype: str | None = None) -> np.ndarray:
        raise NotImplementedError("Initializer subclasses must implement the `__call__()` method.")

    @property
    def may_wait(self) -> bool:
        """Whether a variable may call it when its value is first read: built-in, never fails, repeats its values."""
        if type(self) not in _MAY_WAIT:
            return False
        number = (int, float, np.number)
        return isinstance(getattr(self, "seed", 0), number) and isinstance(getattr(self, "value", 0), number)

    @property
    def fill(self) -> float | None:
        """The number that every element is, if that is known without a call."""
        fills = {Zeros: 0.0, Ones: 1.0, Constant: getattr(self, "value", None)}
        return float(fills[type(self)]) if self.may_wait and type(self) in fills else None

    def get_config(self) -> dict[str, Any]:
        return {}

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> Initializer:
        return cls(**config)

    def clone(self) -> Initializer:
        """An initializer of the same configuration; with seed None it draws other values."""
        return self.__class__.from_config(self.get_config())


def _array(values: Any, dtype: Any) -> np.ndarray:
    return np.asarray(values, dtype=np.dtype(_named(dtype)))


def _named(dtype: Any) -> Any:
    if dtype == "bfloat16":
        import ml_dtypes

        return ml_dtypes.bfloat16
    return dtype or "float32"


class Constant(Initializer):
    """Every element is `value` (a number, or an array that is broadcast)."""

    def __init__(self, value: Any = 0.0):
        self.value = value

    def __call__(self, shape, dtype=None):
        return np.broadcast_to(_array(self.value, dtype), tuple(shape)).copy()

    def get_config(self):
        value = self.value
        return {"value": value.tolist() if isinstance(value, (np.ndarray, np.generic)) else value}


class Zeros(Initializer):
    """Every element is 0."""

    def __call__(self, shape, dtype=None):
        return np.zeros(tuple(shape), np.dtype(_named(dtype)))


class Ones(Initializer):
    """Every element is 1."""

    def __call__(self, shape, dtype=None):
        return np.ones(tuple(shape), np.dtype(_named(dtype)))


class Identity(Initializer):
    """The identity matrix times `gain`. Shapes: (rows, columns) only."""

    def __init__(self, gain: float = 1.0):
        self.gain = gain

    def __call__(self, shape, dtype=None):
        if len(shape) != 2:
            raise ValueError(
                "Identity matrix initializer can only be used for 2D matrices. "
                f"Received: shape={tuple(shape)} of rank {len(shape)}."
            )
        return _array(self.gain * np.eye(*shape), dtype)

    def get_config(self):
        return {} if self.gain == 1.0 else {"gain": self.gain}  # Keras leaves it out


class RandomInitializer(Initializer):
    """Base of the random ones: holds the seed, and a generator that starts afresh on every call."""

    def __init__(self, seed: Any = None):
        self._init_seed = seed
        if seed is None:
            seed = random.randint(1, 10**9)
        elif isinstance(seed, Mapping):
            import kerasoft

            seed = kerasoft.random.SeedGenerator(**seed["config"])
        elif not isinstance(seed, (int, np.integer)) and not hasattr(seed, "next"):
            raise ValueError(
                "`seed` argument should be an instance of `keras.random.SeedGenerator()` or an integer. "
                f"Received: seed={seed}"
            )
        self.seed = seed

    def generator(self) -> np.random.Generator:
        """The generator of one call; a `SeedGenerator` as seed gives another one each time."""
        seed = np.asarray(self.seed.next()).tolist() if hasattr(self.seed, "next") else int(self.seed)
        return np.random.Generator(np.random.Philox(np.random.SeedSequence(seed)))

    def get_config(self):
        seed = self._init_seed
        if hasattr(seed, "get_config"):
            seed = {
                "module": "keras.random",
                "class_name": "SeedGenerator",
                "config": seed.get_config(),
                "registered_name": None,
            }
        return {"seed": seed}


class RandomNormal(RandomInitializer):
    """Normal values.

    >>> first = RandomNormal(stddev=1.0, seed=7)
    >>> bool((first((3,)) == first((3,))).all())
    True
    """

    def __init__(self, mean: float = 0.0, stddev: float = 0.05, seed: Any = None):
        self.mean, self.stddev = mean, stddev
        super().__init__(seed)

    def __call__(self, shape, dtype=None):
        return _array(self.generator().normal(self.mean, self.stddev, tuple(shape)), dtype)

    def get_config(self):
        return {**super().get_config(), "mean": self.mean, "stddev": self.stddev}


class TruncatedNormal(RandomNormal):
    """Normal values redrawn until they lie within two `stddev` of the mean."""

    def __call__(self, shape, dtype=None):
        return _array(_truncated_normal(self.generator(), tuple(shape), self.mean, self.stddev), dtype)


class RandomUniform(RandomInitializer):
    """Uniform values in [`minval`, `maxval`)."""

    def __init__(self, minval: float = -0.05, maxval: float = 0.05, seed: Any = None):
        self.minval, self.maxval = minval, maxval
        super().__init__(seed)

    def __call__(self, shape, dtype=None):
        return _array(self.generator().uniform(self.minval, self.maxval, tuple(shape)), dtype)

    def get_config(self):
        return {**super().get_config(), "minval": self.minval, "maxval": self.maxval}


class VarianceScaling(RandomInitializer):
    """Random values whose variance is `scale` divided by the fan.

    Args:
        scale: positive float.
        mode: ``"fan_in"``, ``"fan_out"`` or ``"fan_avg"``.
        distribution: ``"truncated_normal"`` (exact variance), ``"untruncated_normal"`` or ``"uniform"``.
        seed: int, `SeedGenerator` or None.
        input_axes, output_axes: axes whose product is the fan-in and fan-out; read off the shape by default.

    Raises:
        ValueError: an argument is none of the above.

    Source: Glorot & Bengio 2010; He et al. 2015.
    """

    def __init__(
        self, scale=1.0, mode="fan_in", distribution="truncated_normal", seed=None, input_axes=None, output_axes=None
    ):
        if scale <= 0.0:
            raise ValueError(f"Argument `scale` must be positive float. Received: scale={scale}")
        _one_of("mode", mode, ("fan_in", "fan_out", "fan_avg"))
        distribution = distribution.lower()
        distribution = "truncated_normal" if distribution == "normal" else distribution
        _one_of("distribution", distribution, ("uniform", "truncated_normal", "untruncated_normal"))
        self.scale, self.mode, self.distribution = scale, mode, distribution
        self.input_axes, self.output_axes = input_axes, output_axes
        super().__init__(seed)

    def __call__(self, shape, dtype=None):
        shape = tuple(shape)
        fan_in, fan_out = compute_fans(shape, self.input_axes, self.output_axes)
        fan = {"fan_in": fan_in, "fan_out": fan_out, "fan_avg": (fan_in + fan_out) / 2}[self.mode]
        variance = self.scale / max(1.0, fan)
        generator = self.generator()
        if self.distribution == "uniform":
            limit = math.sqrt(3.0 * variance)
            return _array(_uniform(generator, shape, limit), dtype)
        if self.distribution == "untruncated_normal":
            return _array(generator.normal(0.0, math.sqrt(variance), shape), dtype)
        # .8796... is the standard deviation of a unit normal cut off at two sigma.
        return _array(_truncated_normal(generator, shape, 0.0, math.sqrt(variance) / 0.87962566103423978), dtype)

    def get_config(self):
        return {
            **super().get_config(),
            "scale": self.scale,
            "mode": self.mode,
            "distribution": self.distribution,
            "input_axes": self.input_axes,
            "output_axes": self.output_axes,
        }


class _Named(VarianceScaling):
    """A `VarianceScaling` with fixed scale, mode and distribution."""

    fixed: tuple[float, str, str]

    def __init__(self, seed=None, input_axes=None, output_axes=None):
        super().__init__(*self.fixed, seed, input_axes, output_axes)

    def get_config(self):
        return {**RandomInitializer.get_config(self), "input_axes": self.input_axes, "output_axes": self.output_axes}


class GlorotUniform(_Named):
    """Uniform within sqrt(6 / (fan_in + fan_out)): the default of Dense and convolution kernels."""

    fixed = (1.0, "fan_avg", "uniform")


class GlorotNormal(_Named):
    """Truncated normal of variance 2 / (fan_in + fan_out)."""

    fixed = (1.0, "fan_avg", "truncated_normal")


class HeUniform(_Named):
    """Uniform within sqrt(6 / fan_in)."""

    fixed = (2.0, "fan_in", "uniform")


class HeNormal(_Named):
    """Truncated normal of variance 2 / fan_in."""

    fixed = (2.0, "fan_in", "truncated_normal")


class LecunUniform(_Named):
    """Uniform within sqrt(3 / fan_in)."""

    fixed = (1.0, "fan_in", "uniform")


class LecunNormal(_Named):
    """Truncated normal of variance 1 / fan_in."""

    fixed = (1.0, "fan_in", "truncated_normal")


class Orthogonal(RandomInitializer):
    """A matrix with orthonormal rows or columns (whichever are fewer) times `gain`.

    Shapes: (..., columns), rank 2 or more; leading axes are flattened into rows.

    Source: Saxe et al. 2014.
    """

    def __init__(self, gain: float = 1.0, seed: Any = None):
        self.gain = gain
        super().__init__(seed)

    def __call__(self, shape, dtype=None):
        if len(shape) < 2:
            raise ValueError(
                "The tensor to initialize must be at least two-dimensional. "
                f"Received: shape={tuple(shape)} of rank {len(shape)}."
            )
        rows, columns = math.prod(shape[:-1]), shape[-1]
        q, r = np.linalg.qr(self.generator().normal(size=(max(rows, columns), min(rows, columns))))
        q = q * np.sign(np.diag(r))  # makes the matrix uniformly distributed
        return _array(self.gain * (q.T if rows < columns else q).reshape(tuple(shape)), dtype)

    def get_config(self):
        return {**super().get_config(), "gain": self.gain}


class STFT(Initializer):
    """The kernels of a short-time Fourier transform, for a convolution. Shapes: (frame_length, 1, frequencies).

    Args:
        side: ``"real"`` (cosines) or ``"imag"`` (sines).
        window: a name that `scipy.signal.get_window` knows without parameters, one factor a place of the frame, or None.
        scaling: ``"density"`` (by the root of the window's power), ``"spectrum"`` (by its sum) or None.
        periodic: whether the window is periodic instead of symmetric.
    """

    def __init__(self, side: str = "real", window: Any = "hann", scaling: Any = "density", periodic: bool = False):
        if side not in ("real", "imag"):
            raise ValueError(f"side should be 'real' or 'imag', not {side}")
        if isinstance(window, str):
            _window(window, 1)  # raises what it does not know
        if scaling not in (None, "density", "spectrum"):
            raise ValueError(
                f"Scaling is invalid, it must be `None`, 'density' or 'spectrum'. Received scaling={scaling}"
            )
        self.side, self.window, self.scaling, self.periodic = side, window, scaling, periodic

    def __call__(self, shape, dtype=None):
        length, _, frequencies = shape
        time = np.arange(length, dtype="float32").reshape(-1, 1, 1)
        turns = np.arange(frequencies, dtype="float32") / np.float32((frequencies - 1) * 2)
        angles = -2 * time * turns * np.float32(np.pi)  # in float32: what is not exactly 0 has Keras's sign
        kernel = np.cos(angles) if self.side == "real" else np.sin(angles)
        if self.window is None:
            return _array(kernel, dtype)
        window = self._factors(length)
        power = {"density": np.sqrt(np.sum(window**2)), "spectrum": np.sum(np.abs(window)), None: 1.0}[self.scaling]
        return _array(kernel * window.reshape(-1, 1, 1).astype("float32") / np.float32(power), dtype)

    def _factors(self, length):
        if not isinstance(self.window, str):
            window = np.asarray(self.window, "float64")
            if window.shape != (length,):
                raise ValueError(
                    f"The shape of `window` must be equal to [frame_length].Received: window shape={window.shape}"
                )
            return window
        return _window(self.window, length, self.periodic)

    def get_config(self):
        return {"side": self.side, "window": self.window, "periodic": self.periodic, "scaling": self.scaling}


def _window(name: str, length: int, periodic: bool = True) -> np.ndarray:
    """`scipy.signal.get_window`; the usual ones without its long import.

    Raises:
        ValueError: no name of a window.
    """
    if name not in ("hann", "hamming"):
        from scipy.signal import get_window

        return get_window(name, length, periodic)
    if length == 1:
        return np.ones(1)
    base = 0.5 if name == "hann" else 0.54
    turns = np.arange(length) / (length if periodic else length - 1)
    return base - (1.0 - base) * np.cos(2.0 * np.pi * turns)


_MAY_WAIT = {
    *(Zeros, Ones, Constant, RandomNormal, TruncatedNormal, RandomUniform, VarianceScaling),
    *(GlorotUniform, GlorotNormal, HeUniform, HeNormal, LecunUniform, LecunNormal),
}


def compute_fans(shape, input_axes=None, output_axes=None) -> tuple[int, int]:
    """Fan-in and fan-out of a weight; for rank > 2 the leading axes are a receptive field.

    >>> compute_fans((3, 3, 8, 16))
    (72, 144)
    """
    if input_axes is not None and output_axes is not None:
        return math.prod(shape[a] for a in input_axes), math.prod(shape[a] for a in output_axes)
    if len(shape) < 2:
        return (int(shape[0]),) * 2 if shape else (1, 1)
    field = math.prod(shape[:-2])
    return int(shape[-2] * field), int(shape[-1] * field)


def _uniform(generator: np.random.Generator, shape: tuple, limit: float) -> np.ndarray:
    """float32 in [-limit, limit): half the random bits and none of the passes of `Generator.uniform`."""
    values = generator.random(shape, dtype=np.float32)
    values *= np.float32(2 * limit)
    values -= np.float32(limit)
    return values


def _truncated_normal(generator, shape, mean, stddev):
    values = generator.normal(size=shape)
    outside = np.abs(values) > 2
    while outside.any():
        values[outside] = generator.normal(size=int(outside.sum()))
        outside = np.abs(values) > 2
    return mean + stddev * values


def _one_of(name, value, allowed):
    if value not in allowed:
        raise ValueError(f"Invalid `{name}` argument: {value}. Please use one of {allowed}")


_CLASSES = (
    Initializer, Constant, Identity, Ones, Zeros, GlorotNormal, GlorotUniform, HeNormal, HeUniform, LecunNormal,
    LecunUniform, Orthogonal, RandomNormal, RandomUniform, STFT, TruncatedNormal, VarianceScaling,
)  # fmt: skip
_FAMILY = Family(
    "initializer",
    _CLASSES,
    {
        "IdentityInitializer": Identity,
        "OrthogonalInitializer": Orthogonal,
        "STFTInitializer": STFT,
        "normal": RandomNormal,
        "uniform": RandomUniform,
        "one": Ones,
        "zero": Zeros,
    },
)
IdentityInitializer, OrthogonalInitializer, STFTInitializer = Identity, Orthogonal, STFT
globals().update({to_snake_case(cls.__name__): cls for cls in _CLASSES[1:]})
deserialize = _FAMILY.deserialize


def serialize(initializer: Any) -> Any:
    """The config of an initializer, as Keras writes it."""
    return _FAMILY.serialize(initializer)


def get(identifier: Any) -> Any:
    """The initializer meant by a name, config, class, callable or an array of the weight's shape; None stays None.

    >>> get("he_normal").get_config()
    {'seed': None, 'input_axes': None, 'output_axes': None}

    Raises:
        ValueError: `identifier` is none of these.
    """
    if inspect.isclass(identifier) or not hasattr(identifier, "__array__"):
        return _FAMILY.get(identifier)
    values = np.asarray(identifier)

    def given(shape, dtype=None):
        if tuple(shape) != values.shape:
            raise ValueError(
                f"Expected `shape` to be {values.shape} for direct tensor as initializer. Received shape={tuple(shape)}"
            )
        return _array(values, dtype)

    return given

"""Random tensors and seeds, with the same numbers as Keras's JAX backend for the same seed."""

from __future__ import annotations

import random as _python_random
from typing import Any

import numpy as np

from . import dtypes
from .variables import Variable

_global: SeedGenerator | None = None


class SeedGenerator:
    """Gives a new key at each `next()`.

    Args:
        seed: an int, or None for one drawn from Python's `random`.

    >>> import kerasoft as ks
    >>> a, b = ks.random.SeedGenerator(3), ks.random.SeedGenerator(3)
    >>> a.next().tolist(), a.next().tolist(), b.next().tolist()
    ([3, 0], [3, 1], [3, 0])
    """

    def __init__(self, seed: int | None = None, name: str | None = None, **_: Any):
        from .naming import auto_name, name_scope

        if seed is None:
            seed = _python_random.randint(1, int(1e9))
        if not isinstance(seed, (int, np.integer)) or seed < 0:
            raise ValueError(f"Argument `seed` must be a non-negative integer. Received: seed={seed}")
        self.name = name or auto_name("SeedGenerator")
        self._initial_seed = int(seed)
        with name_scope(self.name):
            value = np.array([seed % 2**32, 0], "uint32")
            self.state = Variable(value, dtype="uint32", trainable=False, name="seed_generator_state")

    def next(self) -> np.ndarray:
        """The key (uint32[2]); the next one will differ."""
        key = self.state.numpy()
        self.state._value = key + np.array([0, 1], "uint32")
        return key

    def get_config(self) -> dict:
        return {"seed": self._initial_seed}

    @classmethod
    def from_config(cls, config: dict) -> SeedGenerator:
        return cls(**config)


def global_seed_generator() -> SeedGenerator:
    """The generator behind draws without a seed."""
    global _global
    if _global is None:
        _global = SeedGenerator()
    return _global


def reset_global_seed() -> None:
    """The next draw without a seed takes a new seed from Python's `random`."""
    global _global
    _global = None


def draw_key(seed: Any) -> np.ndarray:
    """A key from an int, a generator, or None (the global generator)."""
    if isinstance(seed, SeedGenerator):
        return seed.next()
    if seed is None:
        return global_seed_generator().next()
    if isinstance(seed, (int, np.integer)):
        return np.array([seed % 2**32, 0], "uint32")
    if hasattr(seed, "shape"):
        return seed
    raise ValueError(
        "Argument `seed` must be either an integer or an instance of `SeedGenerator`. "
        f"Received: seed={seed} (of type {type(seed)})"
    )


def _draw(name: str, seed: Any, *args: Any, **kwargs: Any) -> Any:
    import jax

    return getattr(jax.random, name)(jax.numpy.asarray(draw_key(seed)), *args, **kwargs)


def normal(shape: Any, mean: float = 0.0, stddev: float = 1.0, dtype: Any = None, seed: Any = None) -> Any:
    """Normally distributed numbers.

    >>> import kerasoft as ks
    >>> ks.random.normal((2,), seed=1).round(3).tolist() == ks.random.normal((2,), seed=1).round(3).tolist()
    True
    """
    return _draw("normal", seed, tuple(shape), dtypes.standardize(dtype)) * stddev + mean


def uniform(shape: Any, minval: float = 0.0, maxval: float = 1.0, dtype: Any = None, seed: Any = None) -> Any:
    """Evenly distributed numbers in [minval, maxval)."""
    return _draw("uniform", seed, tuple(shape), dtypes.standardize(dtype), minval, maxval)


def truncated_normal(shape: Any, mean: float = 0.0, stddev: float = 1.0, dtype: Any = None, seed: Any = None) -> Any:
    """Normally distributed numbers within two standard deviations."""
    return _draw("truncated_normal", seed, -2.0, 2.0, tuple(shape), dtypes.standardize(dtype)) * stddev + mean


def randint(shape: Any, minval: int, maxval: int, dtype: Any = "int32", seed: Any = None) -> Any:
    """Integers in [minval, maxval)."""
    return _draw("randint", seed, tuple(shape), minval, maxval, dtype)


def categorical(logits: Any, num_samples: int, dtype: Any = "int32", seed: Any = None) -> Any:
    """Class numbers (batch, num_samples) drawn by unnormalised log-probabilities (batch, classes)."""
    import jax.numpy as jnp

    logits = jnp.asarray(logits)
    return _draw("categorical", seed, logits[..., None], 1, (logits.shape[0], num_samples)).astype(dtype)


def shuffle(x: Any, axis: int = 0, seed: Any = None) -> Any:
    """x in random order along `axis`."""
    import jax.numpy as jnp

    return _draw("permutation", seed, jnp.asarray(x), axis)


def gamma(shape: Any, alpha: Any, dtype: Any = None, seed: Any = None) -> Any:
    """Gamma distributed numbers."""
    return _draw("gamma", seed, alpha, tuple(shape), dtypes.standardize(dtype))


def beta(shape: Any, alpha: Any, beta: Any, dtype: Any = None, seed: Any = None) -> Any:
    """Beta distributed numbers."""
    return _draw("beta", seed, alpha, beta, tuple(shape), dtypes.standardize(dtype))


def binomial(shape: Any, counts: Any, probabilities: Any, dtype: Any = None, seed: Any = None) -> Any:
    """Binomially distributed numbers."""
    return _draw("binomial", seed, counts, probabilities, tuple(shape), dtypes.standardize(dtype))


def dropout(inputs: Any, rate: float, noise_shape: Any = None, seed: Any = None) -> Any:
    """`inputs` with a share `rate` set to 0 and the others divided by 1 - rate. Eager only; the layer is `Dropout`."""
    import jax.numpy as jnp

    if rate in (0.0, 1.0):
        return inputs if rate == 0.0 else jnp.zeros_like(inputs)
    inputs = jnp.asarray(inputs)
    shape = inputs.shape if noise_shape is None else [n or s for n, s in zip(noise_shape, inputs.shape, strict=True)]
    mask = _draw("bernoulli", seed, 1.0 - rate, tuple(shape))
    return jnp.where(mask, inputs / (1.0 - rate), 0.0)

"""Window functions: symmetric weights for cutting signals into pieces. The size is a number known now."""

from __future__ import annotations

from typing import Any

from .. import dtypes
from ..tensors import KerasTensor
from ..variables import Variable

__all__ = ["bartlett", "blackman", "hamming", "hanning", "kaiser"]


def _window(name: str, size: Any, *settings: Any) -> Any:
    import jax.numpy as jnp

    if isinstance(size, KerasTensor) or hasattr(size, "op"):
        raise TypeError(
            f"{name.capitalize()} operation does not support symbolic tensors. Received input x = {size} of type "
            f"{type(size)}"
        )
    size = size.numpy() if isinstance(size, Variable) else size
    return getattr(jnp, name)(jnp.asarray(size), *settings).astype(dtypes.floatx())


def bartlett(x: Any) -> Any:
    """A triangle of `x` weights that is 0 at both ends.

    >>> bartlett(5).tolist()
    [0.0, 0.5, 1.0, 0.5, 0.0]
    """
    return _window("bartlett", x)


def blackman(x: Any) -> Any:
    """Blackman's window of `x` weights."""
    return _window("blackman", x)


def hamming(x: Any) -> Any:
    """Hamming's window of `x` weights: a raised cosine that is 0.08 at both ends."""
    return _window("hamming", x)


def hanning(x: Any) -> Any:
    """Hann's window of `x` weights: a raised cosine that is 0 at both ends."""
    return _window("hanning", x)


def kaiser(x: Any, beta: Any) -> Any:
    """Kaiser's window of `x` weights; the greater `beta`, the narrower."""
    return _window("kaiser", x, beta)

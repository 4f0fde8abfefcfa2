"""Random numbers as functions of a key: the same key and counter give the same bits everywhere.

`*_rows` functions draw one block for each row of a batch from (key, salt, row id) alone, so a row gets the same numbers
on any worker, at any place of any batch. `salt` tells apart the draws of one step.

Source: Threefry-2x32 with 20 rounds, Salmon et al., "Parallel Random Numbers: As Easy as 1, 2, 3", SC 2011.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from . import arithmetic as a
from . import rules
from . import shape as s
from .registry import op

_ROTATIONS = ((13, 15, 26, 6), (17, 29, 16, 24))
_PARITY = 0x1BD11BDA


def _threefry(k0: Any, k1: Any, x0: Any, x1: Any) -> tuple[jax.Array, jax.Array]:
    """The block cipher: key words k0, k1 and counter words x0, x1, all uint32 that broadcast, to two random words.

    Written out, so that XLA fuses it with whatever uses the bits; JAX's own stays a loop on CPUs.
    """
    keys = (k0, k1, k0 ^ k1 ^ jnp.uint32(_PARITY))
    x0, x1 = x0 + k0, x1 + k1
    for block in range(5):
        for rotation in _ROTATIONS[block % 2]:
            x0 = x0 + x1
            x1 = ((x1 << jnp.uint32(rotation)) | (x1 >> jnp.uint32(32 - rotation))) ^ x0
        x0 = x0 + keys[(block + 1) % 3]
        x1 = x1 + keys[(block + 2) % 3] + jnp.uint32(block + 1)
    return x0, x1


def _words(key: Any) -> tuple[jax.Array, jax.Array]:
    key = jnp.asarray(key).astype(jnp.uint32)
    return key[..., 0], key[..., 1]


def _fold_in(key: Any, data: Any) -> jax.Array:
    """A new key from a key and a number: uint32 (2), int () -> uint32 (2)."""
    zero = jnp.uint32(0)
    return jnp.stack(_threefry(*_words(key), jnp.asarray(data).astype(jnp.uint32), zero))


fold_in = op("fold_in", lower=_fold_in)


def _fill(k0: jax.Array, k1: jax.Array, shape: tuple) -> jax.Array:
    """Bits of `shape` after the axes of the key words: cell i is word i % half of block i // half."""
    size = math.prod(shape)
    half = size // 2 if isinstance(size, int) and size % 2 == 0 else None
    if half is None:  # an odd or unknown count: one block a cell
        count = jax.lax.iota(jnp.uint32, size)
        first, second = _threefry(k0[..., None], k1[..., None], count, jnp.uint32(1))
        return (first ^ second).reshape((*k0.shape, *shape))
    count = jax.lax.iota(jnp.uint32, half)
    pair = _threefry(k0[..., None], k1[..., None], count, jnp.uint32(0))
    return jnp.concatenate(pair, axis=-1).reshape((*k0.shape, *shape))


def _random_bits_rows(key: Any, row_id: Any, *, salt: int, shape: tuple) -> jax.Array:
    """32 random bits a cell, from key, salt and the row's id alone: uint32 (2), uint32 (b) -> uint32 (b, *shape)."""
    k0, k1 = _words(key)
    row_id = jnp.asarray(row_id).astype(jnp.uint32)
    return _fill(*_threefry(k0, k1, row_id, jnp.uint32(salt)), tuple(shape))


def _random_bits(key: Any, *, salt: int, shape: tuple) -> jax.Array:
    """32 random bits a cell, from key and salt: uint32 (2) -> uint32 shape."""
    k0, k1 = _words(key)
    return _fill(*_threefry(k0, k1, jnp.uint32(0xFFFFFFFF), jnp.uint32(salt)), tuple(shape))


random_bits_rows = op("random_bits_rows", lower=_random_bits_rows, result=rules.words)
random_bits = op("random_bits", lower=_random_bits, result=rules.words)
bits_to_uniform = op(
    "bits_to_uniform",
    lower=lambda bits: (jnp.asarray(bits) >> jnp.uint32(8)).astype(jnp.int32).astype(jnp.float32) * jnp.float32(2**-24),
    doc="Random bits to float32 in [0, 1), multiples of 2**-24: uint32 (...) -> (...).",
)


def _bits_to_normal(bits: Any) -> jax.Array:
    """Random bits to float32 of the standard normal distribution: uint32 (...) -> (...)."""
    odd = (jnp.asarray(bits) >> jnp.uint32(8)).astype(jnp.int32) * 2 + (1 - 2**24)  # odd, so never -1, 0 or 1 below
    return jax.lax.erf_inv(odd.astype(jnp.float32) * jnp.float32(2**-24)) * jnp.float32(math.sqrt(2))


def _bits_to_truncated(bits: Any) -> jax.Array:
    """Random bits to float32 of the standard normal distribution cut to [-2, 2]: uint32 (...) -> (...)."""
    odd = (jnp.asarray(bits) >> jnp.uint32(8)).astype(jnp.int32) * 2 + (1 - 2**24)
    inside = odd.astype(jnp.float32) * jnp.float32(2**-24 * math.erf(math.sqrt(2)))
    return jnp.clip(jax.lax.erf_inv(inside) * jnp.float32(math.sqrt(2)), -2.0, 2.0)


bits_to_normal = op("bits_to_normal", lower=_bits_to_normal)
bits_to_truncated_normal = op("bits_to_truncated_normal", lower=_bits_to_truncated)


def _scaled(unit: Any, low: float, high: float) -> Any:
    return unit if (low, high) == (0.0, 1.0) else a.add(a.multiply(unit, high - low), low)


def _below(bits: Any, probability: float) -> Any:
    """Whether random bits, as a fraction, are below `probability`, a number."""
    limit = round(probability * 2**32)
    if limit >= 2**32:
        return a.ones_like(bits, dtype="bool")
    return a.less(bits, np.uint32(limit))


# --- one block for each row ---------------------------------------------------------------------------------------


def uniform_rows(
    key: Any, row_id: Any, *, salt: int, shape: Sequence[int], minval: float = 0.0, maxval: float = 1.0
) -> Any:
    """float32 in [minval, maxval): -> (b, *shape)."""
    return _scaled(bits_to_uniform(random_bits_rows(key, row_id, salt=salt, shape=tuple(shape))), minval, maxval)


def normal_rows(
    key: Any, row_id: Any, *, salt: int, shape: Sequence[int], mean: float = 0.0, stddev: float = 1.0
) -> Any:
    """float32 of a normal distribution: -> (b, *shape)."""
    unit = bits_to_normal(random_bits_rows(key, row_id, salt=salt, shape=tuple(shape)))
    return _scaled(unit, mean, mean + stddev)


def bernoulli_rows(key: Any, row_id: Any, probability: float, *, salt: int, shape: Sequence[int]) -> Any:
    """True with `probability`, a number: -> bool (b, *shape)."""
    return _below(random_bits_rows(key, row_id, salt=salt, shape=tuple(shape)), probability)


# --- whole arrays -------------------------------------------------------------------------------------------------


def uniform(key: Any, *, salt: int = 0, shape: Sequence[Any], minval: float = 0.0, maxval: float = 1.0) -> Any:
    """float32 in [minval, maxval): -> shape."""
    return _scaled(bits_to_uniform(random_bits(key, salt=salt, shape=tuple(shape))), minval, maxval)


def normal(key: Any, *, salt: int = 0, shape: Sequence[Any], mean: float = 0.0, stddev: float = 1.0) -> Any:
    """float32 of a normal distribution: -> shape."""
    return _scaled(bits_to_normal(random_bits(key, salt=salt, shape=tuple(shape))), mean, mean + stddev)


def truncated_normal(key: Any, *, salt: int = 0, shape: Sequence[Any], mean: float = 0.0, stddev: float = 1.0) -> Any:
    """float32 of a normal distribution cut at two standard deviations: -> shape."""
    return _scaled(bits_to_truncated_normal(random_bits(key, salt=salt, shape=tuple(shape))), mean, mean + stddev)


def bernoulli(key: Any, probability: float, *, salt: int = 0, shape: Sequence[Any]) -> Any:
    """True with `probability`, a number: -> bool shape."""
    return _below(random_bits(key, salt=salt, shape=tuple(shape)), probability)


def integers(key: Any, *, salt: int = 0, shape: Sequence[Any], minval: int, maxval: int, dtype: str = "int32") -> Any:
    """Whole numbers in [minval, maxval), up to 2**24 of them: -> shape."""
    unit = uniform(key, salt=salt, shape=shape)
    return s.cast(a.add(a.floor(a.multiply(unit, float(maxval - minval))), float(minval)), dtype)


def gumbel(key: Any, *, salt: int = 0, shape: Sequence[Any]) -> Any:
    """float32 of the standard Gumbel distribution: -> shape."""
    unit = a.maximum(uniform(key, salt=salt, shape=shape), 2.0**-25)
    return a.negative(a.log(a.negative(a.log(unit))))


def categorical(key: Any, logits: Any, num_samples: int, *, salt: int = 0) -> Any:
    """Classes drawn with the probabilities softmax(logits): (b, c) -> int32 (b, num_samples)."""
    from . import reduce

    rows, classes = logits.shape
    noise = gumbel(key, salt=salt, shape=(rows, num_samples, classes))
    return reduce.argmax(a.add(noise, s.expand_dims(logits, 1)), axis=-1)


def shuffle(key: Any, x: Any, axis: int = 0, *, salt: int = 0) -> Any:
    """`x` with its cells along `axis` in random order."""
    from . import indexing, reduce

    order = reduce.argsort(random_bits(key, salt=salt, shape=(x.shape[axis],)))
    return indexing.take(x, order, axis=axis)

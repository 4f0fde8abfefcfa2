"""Hashes of strings that equal TensorFlow's: FarmHash Fingerprint64, SipHash-2-4, and the crossing of fingerprints.

Strings are hashed in groups of one length, a NumPy operation for all of a group. uint64 arithmetic wraps, as in C.

Source: FarmHash (Google, 2014), `farmhashna::Hash64`; SipHash (Aumasson, Bernstein, 2012).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

import numpy as np

U = np.uint64
K0, K1, K2 = U(0xC3A5C85C97CB3127), U(0xB492B66FBE98F273), U(0x9AE16A3B2F90404F)
CROSS = U(0xC6A4A7935BD1E995)
CROSS_KEY = 0xDECAFCAFFE
"""What `tf.sparse.cross_hashed` begins with."""


def fingerprints(texts: Iterable[str | bytes]) -> np.ndarray:
    """uint64[n]: FarmHash's Fingerprint64 of each text, in UTF-8.

    >>> fingerprints(["a", "hello world"]).tolist()
    [12917804110809363939, 6381520714923946011]
    """
    return _by_length(texts, _farm)


def siphashes(texts: Iterable[str | bytes], key: tuple[int, int]) -> np.ndarray:
    """uint64[n]: SipHash-2-4 of each text under a key of two 64-bit numbers."""
    return _by_length(texts, lambda matrix: _sip(matrix, U(key[0] % 2**64), U(key[1] % 2**64)))


def buckets(texts: Iterable[str | bytes], count: int, salt: tuple[int, int] | list[int] | None = None) -> np.ndarray:
    """int64[n]: the hash bucket, 0 to `count` - 1, of each text; SipHash if there is a salt."""
    hashes = fingerprints(texts) if salt is None else siphashes(texts, (salt[0], salt[1]))
    return (hashes % U(count)).astype(np.int64)


def crossed(columns: list[np.ndarray], count: int) -> np.ndarray:
    """int64[n]: the bucket of each combination of uint64 features, one a column."""
    with np.errstate(over="ignore"):
        result = np.full(len(columns[0]), CROSS_KEY, U)
        for column in columns:
            result = result ^ CROSS ^ (_shift_mix(column * CROSS) * CROSS)
            result = _shift_mix(_shift_mix(result * CROSS) * CROSS)
    return (result % U(count)).astype(np.int64)


def _by_length(texts: Iterable[str | bytes], function: Callable[[np.ndarray], np.ndarray]) -> np.ndarray:
    """`function` on uint8[n, length] matrices of the texts of each length."""
    encoded = [text.encode("utf-8", "surrogateescape") if isinstance(text, str) else text for text in texts]
    lengths = np.fromiter(map(len, encoded), np.int64, len(encoded))
    result = np.empty(len(encoded), U)
    with np.errstate(over="ignore"):
        for length in np.unique(lengths):
            places = np.flatnonzero(lengths == length)
            joined = b"".join(encoded[i] for i in places)
            result[places] = function(np.frombuffer(joined, np.uint8).reshape(len(places), length))
    return result


# --- FarmHash -------------------------------------------------------------------------------------------------------


def _fetch64(s: np.ndarray, at: int) -> np.ndarray:
    return np.ascontiguousarray(s[:, at : at + 8]).view("<u8")[:, 0].astype(U)


def _fetch32(s: np.ndarray, at: int) -> np.ndarray:
    return np.ascontiguousarray(s[:, at : at + 4]).view("<u4")[:, 0].astype(U)


def _rotate(x: np.ndarray, by: int) -> np.ndarray:
    return (x >> U(by)) | (x << U(64 - by))


def _rotate_left(x: np.ndarray, by: int) -> np.ndarray:
    return _rotate(x, 64 - by)


def _shift_mix(x: np.ndarray) -> np.ndarray:
    return x ^ (x >> U(47))


def _hash16(u: np.ndarray, v: np.ndarray, mul: np.uint64) -> np.ndarray:
    a = _shift_mix((u ^ v) * mul)
    return _shift_mix((v ^ a) * mul) * mul


def _farm(s: np.ndarray) -> np.ndarray:
    rows, length = s.shape
    if length == 0:
        return np.full(rows, K2, U)
    if length <= 16:
        return _farm_to_16(s)
    mul = K2 + U(length * 2)
    if length <= 32:
        a, b = _fetch64(s, 0) * K1, _fetch64(s, 8)
        c, d = _fetch64(s, length - 8) * mul, _fetch64(s, length - 16) * K2
        return _hash16(_rotate(a + b, 43) + _rotate(c, 30) + d, a + _rotate(b + K2, 18) + c, mul)
    if length <= 64:
        return _farm_to_64(s, mul)
    return _farm_long(s)


def _farm_to_16(s: np.ndarray) -> np.ndarray:
    length = s.shape[1]
    mul = K2 + U(length * 2)
    if length >= 8:
        a, b = _fetch64(s, 0) + K2, _fetch64(s, length - 8)
        return _hash16(_rotate(b, 37) * mul + a, (_rotate(a, 25) + b) * mul, mul)
    if length >= 4:
        return _hash16(U(length) + (_fetch32(s, 0) << U(3)), _fetch32(s, length - 4), mul)
    a, b, c = (s[:, i].astype(U) for i in (0, length >> 1, length - 1))
    return _shift_mix((a + (b << U(8))) * K2 ^ (U(length) + (c << U(2))) * K0) * K2


def _farm_to_64(s: np.ndarray, mul: np.uint64) -> np.ndarray:
    length = s.shape[1]
    a, b = _fetch64(s, 0) * K2, _fetch64(s, 8)
    c, d = _fetch64(s, length - 8) * mul, _fetch64(s, length - 16) * K2
    y = _rotate(a + b, 43) + _rotate(c, 30) + d
    z = _hash16(y, a + _rotate(b + K2, 18) + c, mul)
    e, f = _fetch64(s, 16) * mul, _fetch64(s, 24)
    g, h = (y + _fetch64(s, length - 32)) * mul, (z + _fetch64(s, length - 24)) * mul
    return _hash16(_rotate(e + f, 43) + _rotate(g, 30) + h, e + _rotate(f + a, 18) + g, mul)


def _weak_pair(s: np.ndarray, at: int, a: np.ndarray, b: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    w, x, y, z = (_fetch64(s, at + i) for i in (0, 8, 16, 24))
    a = a + w
    b = _rotate(b + a + z, 21)
    c = a
    a = a + x + y
    return a + z, b + _rotate(a, 44) + c


def _farm_long(s: np.ndarray) -> np.ndarray:
    rows, length = s.shape
    seed = U(81)
    x = np.full(rows, seed, U)
    y = np.full(rows, seed * K1 + U(113), U)
    z = _shift_mix(y * K2 + U(113)) * K2
    v = w = (np.zeros(rows, U), np.zeros(rows, U))
    x = x * K2 + _fetch64(s, 0)
    end = (length - 1) // 64 * 64
    for at in range(0, end, 64):
        x = _rotate(x + y + v[0] + _fetch64(s, at + 8), 37) * K1
        y = _rotate(y + v[1] + _fetch64(s, at + 48), 42) * K1
        x = x ^ w[1]
        y = y + v[0] + _fetch64(s, at + 40)
        z = _rotate(z + w[0], 33) * K1
        v = _weak_pair(s, at, v[1] * K1, x + w[0])
        w = _weak_pair(s, at + 32, z + w[1], y + _fetch64(s, at + 16))
        z, x = x, z
    mul = K1 + ((z & U(0xFF)) << U(1))
    last = length - 64
    w = (w[0] + U((length - 1) & 63), w[1])
    v = (v[0] + w[0], v[1])
    w = (w[0] + v[0], w[1])
    x = _rotate(x + y + v[0] + _fetch64(s, last + 8), 37) * mul
    y = _rotate(y + v[1] + _fetch64(s, last + 48), 42) * mul
    x = x ^ (w[1] * U(9))
    y = y + v[0] * U(9) + _fetch64(s, last + 40)
    z = _rotate(z + w[0], 33) * mul
    v = _weak_pair(s, last, v[1] * mul, x + w[0])
    w = _weak_pair(s, last + 32, z + w[1], y + _fetch64(s, last + 16))
    z, x = x, z
    return _hash16(_hash16(v[0], w[0], mul) + _shift_mix(y) * K0 + z, _hash16(v[1], w[1], mul) + x, mul)


# --- SipHash --------------------------------------------------------------------------------------------------------


def _sip(s: np.ndarray, key0: np.uint64, key1: np.uint64) -> np.ndarray:
    rows, length = s.shape
    words = length // 8 + 1
    padded = np.zeros((rows, words * 8), np.uint8)
    padded[:, :length] = s
    padded[:, -1] = length & 0xFF
    starts = (0x736F6D6570736575, 0x646F72616E646F6D, 0x6C7967656E657261, 0x7465646279746573)
    v = [np.full(rows, U(start) ^ key, U) for start, key in zip(starts, (key0, key1, key0, key1), strict=True)]
    for i in range(words):
        word = _fetch64(padded, 8 * i)
        v[3] = v[3] ^ word
        _sip_rounds(v, 2)
        v[0] = v[0] ^ word
    v[2] = v[2] ^ U(0xFF)
    _sip_rounds(v, 4)
    return v[0] ^ v[1] ^ v[2] ^ v[3]


def _sip_rounds(v: list[np.ndarray], rounds: int) -> None:
    for _ in range(rounds):
        v[0] = v[0] + v[1]
        v[1] = _rotate_left(v[1], 13) ^ v[0]
        v[0] = _rotate_left(v[0], 32)
        v[2] = v[2] + v[3]
        v[3] = _rotate_left(v[3], 16) ^ v[2]
        v[0] = v[0] + v[3]
        v[3] = _rotate_left(v[3], 21) ^ v[0]
        v[2] = v[2] + v[1]
        v[1] = _rotate_left(v[1], 17) ^ v[2]
        v[2] = _rotate_left(v[2], 32)

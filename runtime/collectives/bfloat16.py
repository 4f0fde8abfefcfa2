"""float32 <-> bfloat16 (as uint16), rounding to nearest even, with integer arithmetic into buffers that are given.

float16 would lose the small gradients that bfloat16 keeps (same exponent range as float32), and converting its subnormal
numbers is fifty times slower.
"""

from __future__ import annotations

import numpy as np

CHUNK = 1 << 15


def encode(values: np.ndarray, out: np.ndarray, scratch: np.ndarray) -> np.ndarray:
    """Rounds float32[n] `values` into uint16[n] `out`. `scratch`: uint32[CHUNK]. NaN stays NaN."""
    bits = values.view(np.uint32)
    for start in range(0, bits.size, CHUNK):
        piece = bits[start : start + CHUNK]
        rounded = scratch[: piece.size]
        np.right_shift(piece, 16, out=rounded)
        np.bitwise_and(rounded, 1, out=rounded)
        np.add(rounded, 0x7FFF, out=rounded)
        np.add(rounded, piece, out=rounded)
        np.right_shift(rounded, 16, out=rounded)
        out[start : start + CHUNK] = rounded
        floats = values[start : start + CHUNK]
        not_numbers = floats != floats
        if not_numbers.any():
            out[start : start + CHUNK][not_numbers] = 0x7FC0
    return out


def decode(encoded: np.ndarray, out: np.ndarray) -> np.ndarray:
    """Widens uint16[n] `encoded` into float32[n] `out`, exactly."""
    bits = out.view(np.uint32)
    np.left_shift(encoded, 16, out=bits, dtype=np.uint32)
    return out

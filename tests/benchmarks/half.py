"""Times dense layers and convolutions in bfloat16, by each lowering, beside XLA in float32.

    python tests/benchmarks/half.py

Variants of one row run in turn, in one process; a cell is the shortest time of seven in milliseconds.
"""

from __future__ import annotations

import time
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from kerasoft.compiler.kernels import choice, lowerings  # noqa: F401  (`choice` fills the table)
from kerasoft.compiler.ops.registry import REGISTRY

DENSE = ((64, 1024, 1024), (512, 1024, 1024), (4096, 1024, 1024), (4096, 256, 256))
CONVOLUTIONS = ((16, 56, 64, 64, 3), (8, 28, 192, 64, 1))


def drawn(*shape: int) -> Any:
    return jnp.asarray(np.random.default_rng(0).standard_normal(shape), jnp.bfloat16)


def row(label: str, op: str, arrays: list, attrs: dict) -> None:
    types = [jax.ShapeDtypeStruct(a.shape, a.dtype) for a in arrays]
    variants = {"xla": REGISTRY[op].lower} | {one.name: one.run for one in lowerings.candidates(op, types, attrs)}
    calls = {name: jax.jit(lambda *a, run=run: run(*a, **attrs)) for name, run in variants.items()}
    given = dict.fromkeys(calls, arrays) | {"xla, float32": [a.astype("float32") for a in arrays]}
    calls["xla, float32"] = calls["xla"]
    best = dict.fromkeys(calls, float("inf"))
    for _ in range(8):
        for name, call in calls.items():
            begin = time.perf_counter()
            jax.block_until_ready(call(*given[name]))
            best[name] = min(best[name], time.perf_counter() - begin)
    print(f"{label:<28} {op:<18}", "  ".join(f"{name} {1e3 * s:.3f}" for name, s in best.items()), flush=True)


def main() -> None:
    for m, k, n in DENSE:
        label = f"{m} x {k} -> {n}"
        row(label, "dense", [drawn(m, k), drawn(k, n)], {"has_bias": False, "relu": False})
        row(label, "dense_grad_input", [drawn(m, n), drawn(k, n)], {"gated": False})
        row(label, "dense_grad_kernel", [drawn(m, k), drawn(m, n)], {})
    for b, s, c, f, w in CONVOLUTIONS:
        attrs: dict = {"strides": (1, 1), "padding": "same", "dilation": (1, 1), "groups": 1}
        x, kernel, dy = drawn(b, s, s, c), drawn(w, w, c, f), drawn(b, s, s, f)
        label = f"{b}, {s}, {c} -> {f}, {w}x{w}"
        row(label, "conv", [x, kernel], attrs)
        row(label, "conv_grad_input", [dy, kernel], attrs | {"input_shape": x.shape})
        row(label, "conv_grad_kernel", [x, dy], attrs | {"kernel_shape": kernel.shape})


if __name__ == "__main__":
    main()

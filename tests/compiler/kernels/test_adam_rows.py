"""Adam's kernels on rows against NumPy in double precision: ids twice, negative, outside; rows behind by any number of steps."""

import jax
import numpy as np
import pytest
from kerasoft.compiler.kernels import bridge, rows
from kerasoft.compiler.rows import HISTORY, AdamRows

pytestmark = pytest.mark.skipif(not bridge.loaded("native"), reason="the native library is not built")

BASE, NOW = HISTORY, HISTORY + 70
BETAS, EPSILON = (0.9, 0.99), 1e-4


def made(count, lookups, width, decays, clip=None):
    random = np.random.default_rng(0)
    adam = AdamRows(*BETAS, EPSILON, clip, decays, (0.9, 0.5), None)
    table = [random.normal(size=(count, width)).astype(np.float32) for _ in range(3)]
    table[2] **= 2
    table[1][::3] = table[2][::3] = 0  # nobody has looked these up
    last = random.integers(BASE, NOW + 1, count).astype(np.int32)
    coefficients = [random.uniform(0.5, 1, HISTORY + 1).astype(np.float32) for _ in range(2 + decays)]
    ids = random.integers(-count - 2, count + 2, lookups).astype(np.int32)
    return adam, table, last, coefficients, ids, random.normal(size=(lookups, width)).astype(np.float32)


def caught_up(adam, table, last, coefficients):
    p, m, v = (t.astype(np.float64) for t in table)
    *left, first, second = (c[last - BASE][:, None] for c in coefficients)
    way = sum(c / (np.sqrt(v) * s + EPSILON) for c, s in zip((first, second), adam.scales))
    moved = (last < NOW)[:, None]
    gap = (NOW - last)[:, None]
    p = np.where(moved, p * (left[0] if left else 1.0) - m * way, p)
    return p, m * BETAS[0] ** gap, v * BETAS[1] ** gap


@pytest.mark.parametrize(
    ("count", "lookups", "width", "decays", "clip"), [(5, 3, 1, False, None), (90, 700, 67, True, 0.5), (900, 300, 64, False, None)]
)  # fmt: skip
def test_rows_are_taken_and_stepped_as_in_numpy(count, lookups, width, decays, clip):
    adam, table, last, coefficients, ids, gradients = made(count, lookups, width, decays, clip)
    places = np.random.default_rng(1).integers(-5, lookups, count).astype(np.int32)  # as earlier steps left them
    iteration, base, rate, lost = np.int32(NOW), np.int32(BASE), np.float32(0.01), np.float32(0.02 * decays)

    def step(table, last):
        chained, touched, _ = rows.chain_rows(ids, last, places, iteration)
        taken = rows.take_adam_rows(adam, table, chained, coefficients, iteration, base)
        return taken, touched, rows.step_adam_rows(adam, table, chained, taken, gradients, iteration, rate, lost)

    taken, touched, after = jax.jit(step)(table, last)
    at = np.where(ids < 0, ids + count, ids)
    inside = (at >= 0) & (at < count)
    p, m, v = caught_up(adam, table, last, coefficients)
    np.testing.assert_allclose(taken[inside], p[at[inside]], rtol=1e-5, atol=1e-6)
    assert np.isnan(taken[~inside]).all()
    rows_of = np.unique(at[inside])
    assert (np.flatnonzero(touched == NOW + 1) == rows_of).all() and (np.delete(touched - last, rows_of) == 0).all()
    g = np.zeros((count, width))
    np.add.at(g, at[inside], gradients[inside])
    g = g if clip is None else g.clip(-clip, clip)
    m, v = m + (g - m) * (1 - BETAS[0]), v + (g**2 - v) * (1 - BETAS[1])
    p = p - p * lost
    for got, old, new in zip(after, table, (p - m * rate / (np.sqrt(v) + EPSILON), m, v), strict=True):
        np.testing.assert_allclose(got[rows_of], new[rows_of], rtol=1e-5, atol=1e-5)
        np.testing.assert_array_equal(np.delete(got, rows_of, axis=0), np.delete(old, rows_of, axis=0))


@pytest.mark.parametrize("decays", [False, True])
def test_all_rows_are_settled_as_in_numpy(decays):
    adam, table, last, coefficients, _, _ = made(900, 1, 67, decays)
    call = jax.jit(rows.settle_adam_rows, static_argnums=0)
    for got, want in zip(
        call(adam, table, last, coefficients, np.int32(NOW), np.int32(BASE)), caught_up(adam, table, last, coefficients)
    ):
        np.testing.assert_allclose(got, want, rtol=1e-5, atol=1e-6)

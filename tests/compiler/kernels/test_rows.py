"""Rows taken, put and summed, against NumPy, natively and by XLA."""

import jax
import numpy as np
import pytest
from kerasoft.compiler.kernels import bridge, rows


@pytest.fixture(params=["native", "xla"])
def kind(request, monkeypatch):
    if request.param == "xla":
        monkeypatch.setattr(bridge, "loaded", lambda library: False)
    elif not bridge.loaded("native"):
        pytest.skip("the native library is not built")


@pytest.mark.parametrize(("count", "lookups", "width"), [(5, 1, 1), (700, 300, 67), (90, 2048, 24)])
def test_rows_as_in_numpy(kind, count, lookups, width):
    random = np.random.default_rng(0)
    table = random.normal(size=(count, width)).astype(np.float32)
    ids = random.integers(0, count, lookups).astype(np.int32)
    np.testing.assert_array_equal(jax.jit(rows.take_rows)(table, ids), table[ids])
    once = np.full(lookups, count, np.int32)
    chosen = random.permutation(min(count, lookups))
    once[chosen[::2]] = chosen[::2]  # others are left out
    values = random.normal(size=(lookups, width)).astype(np.float32)
    put = jax.jit(rows.put_rows, donate_argnums=0)(jax.device_put(table.copy()), once, values)
    expected = table.copy()
    expected[once[once < count]] = values[once < count]
    np.testing.assert_array_equal(put, expected)
    owner = random.integers(0, lookups + 1, lookups).astype(np.int32)
    expected = np.zeros((lookups + 1, width), np.float32)
    np.add.at(expected, owner, values)
    np.testing.assert_array_equal(jax.jit(rows.sum_rows)(values, owner), expected[:-1])


def test_the_callers_table_is_kept_unless_donated(kind):
    table = jax.device_put(np.ones((50, 40), np.float32))
    put = jax.jit(rows.put_rows)(table, np.array([3], np.int32), np.zeros((1, 40), np.float32))
    assert float(table.sum()) == 2000 and float(put.sum()) == 1960

"""Random rows: the cipher, independence of where a row is computed, and distributions."""

import numpy as np
import pytest
import scipy.stats
from jax.extend.random import threefry_2x32
from kerasoft.compiler.ir import Graph, symbol
from kerasoft.compiler.lower import function
from kerasoft.compiler.ops import random
from kerasoft.compiler.ops.registry import input_node

pytestmark = pytest.mark.shipped

KEY = np.array([3, 9], np.uint32)
b = symbol("b")


def test_the_cipher_is_threefry():
    counters = np.arange(10, dtype=np.uint32)
    ours = random._threefry(KEY[0], KEY[1], counters[:5], counters[5:])
    np.testing.assert_array_equal(np.concatenate(ours), threefry_2x32(KEY, counters))


@pytest.mark.parametrize("shape", [(4, 2), (3, 5), ()])
def test_a_row_gets_the_same_bits_in_any_batch(shape):
    ids = np.array([0, 7, 2, 2**32 - 1], np.uint32)
    together = np.asarray(random.random_bits_rows(KEY, ids, salt=5, shape=shape))
    for k, row in enumerate(ids):
        alone = random.random_bits_rows(KEY, np.array([row], np.uint32), salt=5, shape=shape)
        np.testing.assert_array_equal(together[k], alone[0])
    backwards = random.random_bits_rows(KEY, ids[::-1].copy(), salt=5, shape=shape)
    np.testing.assert_array_equal(together[::-1], backwards)


def test_rows_of_a_graph_are_those_computed_at_once():
    key, ids = input_node("key", (2,), "uint32"), input_node("ids", (b,), "uint32")
    kept = random.bernoulli_rows(key, ids, 0.5, salt=1, shape=(6,))
    assert str(kept.type) == "bool[b, 6]"
    rows = np.arange(5, dtype=np.uint32)
    (value,) = function(Graph((key, ids), (kept,), ("kept",)))(KEY, rows)
    np.testing.assert_array_equal(value, random.bernoulli_rows(KEY, rows, 0.5, salt=1, shape=(6,)))


def test_key_salt_and_row_each_change_the_bits():
    ids = np.arange(2, dtype=np.uint32)
    first = np.asarray(random.random_bits_rows(KEY, ids, salt=0, shape=(64,)))
    others = [
        first[::-1],
        random.random_bits_rows(KEY, ids, salt=1, shape=(64,)),
        random.random_bits_rows(random.fold_in(KEY, 1), ids, salt=0, shape=(64,)),
        random.random_bits(KEY, salt=0, shape=(2, 64)),
    ]
    for other in others:
        assert (first != np.asarray(other)).mean() > 0.95


@pytest.mark.parametrize("size", (100_000, 99_999))  # two words a block, one word a block
def test_distributions(size):
    unit = np.asarray(random.uniform(KEY, shape=(size,)))
    assert 0 <= unit.min() and unit.max() < 1
    assert scipy.stats.kstest(unit, "uniform").pvalue > 1e-3
    normal = np.asarray(random.normal(KEY, shape=(size,), mean=1.0, stddev=2.0))
    assert scipy.stats.kstest(normal, scipy.stats.norm(1, 2).cdf).pvalue > 1e-3
    cut = np.asarray(random.truncated_normal(KEY, shape=(size,)))
    assert abs(cut).max() <= 2
    assert scipy.stats.kstest(cut, scipy.stats.truncnorm(-2, 2).cdf).pvalue > 1e-3
    assert abs(np.asarray(random.bernoulli(KEY, 0.3, shape=(size,))).mean() - 0.3) < 0.01
    whole = np.asarray(random.integers(KEY, shape=(size,), minval=-2, maxval=3))
    assert np.bincount(whole + 2, minlength=5).min() > size / 5 * 0.95
    assert set(np.unique(whole)) == {-2, -1, 0, 1, 2}


def test_rows_are_uncorrelated():
    bits = np.asarray(random.normal_rows(KEY, np.arange(50, dtype=np.uint32), salt=0, shape=(4000,)))
    correlation = np.corrcoef(bits) - np.eye(50)
    assert abs(correlation).max() < 0.08
    assert scipy.stats.kstest(np.asarray(random.uniform_rows(KEY, np.arange(9), salt=0, shape=(999,))).ravel(), "uniform").pvalue > 1e-3  # fmt: skip


def test_certain_and_impossible():
    assert random.bernoulli(KEY, 1.0, shape=(1000,)).all()
    assert not random.bernoulli(KEY, 0.0, shape=(1000,)).any()


def test_categorical_and_shuffle():
    logits = np.log(np.array([[0.1, 0.2, 0.7], [0.5, 0.5, 1e-9]], np.float32))
    drawn = np.asarray(random.categorical(KEY, logits, 20_000))
    assert drawn.shape == (2, 20_000)
    np.testing.assert_allclose(np.bincount(drawn[0]) / 20_000, [0.1, 0.2, 0.7], atol=0.02)
    assert drawn[1].max() == 1
    mixed = np.asarray(random.shuffle(KEY, np.arange(100)))
    assert sorted(mixed) == list(range(100)) and (mixed != np.arange(100)).mean() > 0.9

"""The plan against a merge of all rows by brute force."""

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from kerasoft.runtime import shards
from kerasoft.runtime.shards import Plan, ShardTable, apportion, assign, capacity, ladder, permutation

sizes = st.lists(st.integers(0, 40), min_size=1, max_size=7)


def merged(rows):
    """Shard of each row in the walk along the line, by sorting exact fractions."""
    import fractions

    keys = [(fractions.Fraction(2 * i + 1, n), s) for s, n in enumerate(rows) for i in range(n)]
    return [s for _, s in sorted(keys)]


@given(sizes)
@settings(max_examples=60, deadline=None)
def test_apportion_is_a_prefix_of_the_merged_order(rows):
    order = merged(rows)
    taken = np.zeros(len(rows), dtype=int)
    for count in range(len(order) + 1):
        np.testing.assert_array_equal(apportion(np.array(rows), count), taken)
        if count < len(order):
            taken[order[count]] += 1


@given(sizes, st.integers(1, 60), st.integers(0, 5))
@settings(max_examples=60, deadline=None)
def test_every_row_comes_once_in_batches_of_the_right_size(rows, batch, first):
    plan = Plan(rows, batch)
    order = merged(rows)
    assert plan.steps == -(-len(order) // batch)
    bounds = list(plan)
    assert len(bounds) == plan.steps
    for t, (a, b) in enumerate(bounds):
        part = order[t * batch : (t + 1) * batch]
        np.testing.assert_array_equal(b - a, np.bincount(part, minlength=len(rows)))
        assert (b - a).sum() == plan.rows_in(t)
        np.testing.assert_array_equal(a, plan.counts(t))
    first = min(first, plan.steps)
    for (a, b), (c, d) in itertools.zip_longest(plan.iterate(first), bounds[first:]):
        np.testing.assert_array_equal(a, c)
        np.testing.assert_array_equal(b, d)
    for counts, s in zip(plan.row_counts(), range(len(rows)), strict=True):
        assert counts.tolist() == sorted({int((b - a)[s]) for a, b in bounds})


def test_chunks_of_the_walk_join_up(monkeypatch):
    rows = (313, 0, 7, 1000, 55)
    whole = [tuple(b) for _, b in Plan(rows, 13)]
    monkeypatch.setattr(shards, "_CHUNK_ROWS", 64)
    assert [tuple(b) for _, b in Plan(rows, 13)] == whole
    assert whole[-1] == rows


def test_the_bound_for_huge_data_is_never_exceeded(monkeypatch):
    rng = np.random.default_rng(0)
    for _ in range(20):
        rows = rng.integers(0, 300, size=rng.integers(1, 12))
        rows[0] += 1
        owners = assign(rows.tolist(), 3)
        plan = Plan(rows, int(rng.integers(1, 90)))
        exact = plan.row_counts(owners), plan.row_counts()
        monkeypatch.setattr(shards, "_SIMULATED_ROWS", 0)
        loose = plan.row_counts(owners), plan.row_counts()
        monkeypatch.undo()
        for e, bound in zip(itertools.chain(*exact), itertools.chain(*loose), strict=True):
            assert e[-1] <= bound[-1]


def test_apportion_with_many_rows_is_quick_and_close_to_the_quota():
    rows = np.array([10**9, 3 * 10**8, 17, 0])
    taken = apportion(rows, 650_000_001)
    assert taken.sum() == 650_000_001
    assert np.abs(taken - 650_000_001 * rows / rows.sum()).max() <= 1


def test_steps_can_end_early_and_an_empty_set_has_none():
    assert Plan((10, 10), 4, steps=2).steps == 2
    assert [tuple(b) for _, b in Plan((10, 10), 4, steps=2)] == [(2, 2), (4, 4)]
    assert list(Plan((0, 0), 4)) == []


def test_permutation_holds_every_row_and_depends_on_seed_epoch_and_shard():
    base = permutation(100, 1, 0, 0)
    assert sorted(base.tolist()) == list(range(100))
    assert base.tolist() == permutation(100, 1, 0, 0).tolist()
    for other in (permutation(100, 2, 0, 0), permutation(100, 1, 1, 0), permutation(100, 1, 0, 1)):
        assert base.tolist() != other.tolist()
    assert permutation(4, 1, 0, 0, shuffle=False).tolist() == [0, 1, 2, 3]


@given(sizes, st.integers(1, 6))
def test_assignment_is_contiguous_and_balanced(rows, world):
    ranks = assign(rows, world)
    assert list(ranks) == sorted(ranks) and all(0 <= r < world for r in ranks)
    for rank in range(world):
        load = sum(n for n, r in zip(rows, ranks, strict=True) if r == rank)
        assert load <= sum(rows) / world + max(rows)


def test_ladder_and_capacity():
    counts = [np.array([3, 4]), np.array([60, 64]), np.array([0, 1]), np.array([62, 63])]
    assert ladder(counts, exact=False) == (1, 4, 64)
    assert ladder(counts, exact=True) == (1, 3, 4, 60, 62, 63, 64)
    assert [capacity((4, 64), n) for n in (1, 4, 5, 64)] == [4, 4, 64, 64]
    with pytest.raises(ValueError, match=r"65 rows do not fit a program compiled for \(4, 64\) rows"):
        capacity((4, 64), 65)


def test_table_counts_and_survives_json():
    table = ShardTable((3, 0, 2), ("a", "b", "c"), (12, 0, 8))
    assert (table.total, table.offsets) == (5, (0, 3, 3))
    assert ShardTable.from_json(table.to_json()) == table
    with pytest.raises(ValueError, match="one entry a shard, got 2 rows, 1 fingerprints and 2 bytes"):
        ShardTable((1, 2), ("a",), (4, 8))


def test_wrong_numbers_are_named():
    with pytest.raises(ValueError, match="batch_size needs at least 1 row, got 0"):
        Plan((1,), 0)
    with pytest.raises(ValueError, match="cannot take 3 rows out of 2"):
        apportion(np.array([1, 1]), 3)
    with pytest.raises(ValueError, match="workers needs at least 1, got 0"):
        assign((1,), 0)

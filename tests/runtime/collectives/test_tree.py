"""The fixed tree over shards: any ownership gives the same bits."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from kerasoft.runtime.collectives import TreeSum, cover
from kerasoft.runtime.collectives.tree import covers, finish


def level_by_level(vectors):
    while len(vectors) > 1:
        vectors = [
            vectors[i] + vectors[i + 1] if i + 1 < len(vectors) else vectors[i] for i in range(0, len(vectors), 2)
        ]
    return vectors[0]


@st.composite
def ownership(draw):
    shards = draw(st.integers(1, 40))
    cuts = sorted(draw(st.lists(st.integers(0, shards), max_size=7)))
    return [0, *cuts, shards]


@settings(deadline=None, max_examples=200)
@given(bounds=ownership(), seed=st.integers(0, 2**32 - 1))
def test_same_bits_for_any_ownership(bounds, seed):
    shards = bounds[-1]
    random = np.random.default_rng(seed)
    vectors = (random.standard_normal((shards, 16)) * 10.0 ** random.integers(-6, 7, (shards, 16))).astype(np.float32)
    nodes = {}
    for start, stop in zip(bounds[:-1], bounds[1:], strict=True):
        total = TreeSum(start, stop, shards)
        for shard in range(start, stop):
            total.add(vectors[shard])
        nodes.update(total.partials())
    result = finish(nodes, shards, lambda left, right: left + right)
    assert result.tobytes() == level_by_level(list(vectors)).tobytes()


@given(bounds=ownership())
def test_cover_is_a_partition_of_few_nodes(bounds):
    shards = bounds[-1]
    seen = []
    for (start, stop), nodes in zip(zip(bounds[:-1], bounds[1:], strict=True), covers(bounds), strict=True):
        for level, index in nodes:
            seen.extend(range(index << level, min((index + 1) << level, shards)))
        assert len(nodes) <= 2 * max(1, (stop - start).bit_length())
    assert seen == list(range(shards))
    assert cover(0, shards, shards) == [((shards - 1).bit_length(), 0)]


def test_buffers_are_used_again():
    total = TreeSum(0, 8, 8)
    addresses = set()
    for _ in range(5):
        for shard in range(8):
            total.add(np.full(100, shard, np.float32))
        (vector,) = total.partials().values()
        assert (vector == 28).all()
        addresses.add(vector.ctypes.data)
    assert len(total._free) <= 5 and len(addresses) <= 5


def test_wrong_use():
    total = TreeSum(2, 4, 6)
    with pytest.raises(ValueError, match="2 of 2 shards have not been added yet"):
        total.partials()
    total.add(np.zeros(1, np.float32))
    total.add(np.zeros(1, np.float32))
    with pytest.raises(ValueError, match="all 2 shards have been added"):
        total.add(np.zeros(1, np.float32))
    with pytest.raises(ValueError, match=r"bounds start at 0, never fall .* got \[0, 3, 2\]"):
        covers([0, 3, 2])

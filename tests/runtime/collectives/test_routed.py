"""Ring, tree and two levels between sockets: schedules, sums, the bits of the fixed tree, bytes, rounding, failures."""

import itertools

import ml_dtypes
import numpy as np
import pytest
from kerasoft.runtime.collectives import TreeSum, slices
from kerasoft.runtime.collectives.topology import NAMES, schedule
from kerasoft.runtime.collectives.tree import cover, merged
from kerasoft.runtime.errors import WorkerLost

TCP = ("tcp",)
GROUPS = {2: (0, 0), 3: (0, 0, 2), 4: (0, 0, 2, 2), 5: (0, 0, 0, 3, 3)}


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("world_size", [2, 3, 4, 5, 8])
def test_schedules_sum_everything_once_and_copy_everything(name, world_size):
    plan = schedule(name, tuple(r // 2 * 2 for r in range(world_size)))
    held = [[{r} for _ in range(world_size)] for r in range(world_size)]
    for transfers in plan.reduce:
        given = [(t, s, held[t.source][s]) for t in transfers for s in t.what]
        for t, s, _ in given:
            held[t.source][s] = set()
        for t, s, ranks in given:
            assert not held[t.target][s] & ranks
            held[t.target][s] = held[t.target][s] | ranks
    assert all(held[s][s] == set(range(world_size)) for s in range(world_size))
    have = [{r} for r in range(world_size)]
    for transfers in plan.gather:
        assert all(set(t.what) <= have[t.source] for t in transfers)
        for t in transfers:
            have[t.target] |= set(t.what)
    assert all(h == set(range(world_size)) for h in have)


def test_any_split_of_the_shards_merges_to_the_root():
    for shards in range(1, 12):
        for cuts in itertools.combinations_with_replacement(range(shards + 1), 2):
            parts = [cover(a, b, shards) for a, b in itertools.pairwise((0, *cuts, shards))]
            together = []
            for part in (*parts[1:], parts[0]):
                together = merged([*together, *part], shards)
            assert together == cover(0, shards, shards)


def vector_of(shard, elements):
    return np.random.default_rng(shard).normal(size=elements).astype("float32")


def tree_sum(shards, elements):
    total = TreeSum(0, shards, shards)
    for s in range(shards):
        total.add(vector_of(s, elements))
    return next(iter(total.partials().values())).copy()


@pytest.mark.parametrize("name", ["direct", "ring", "tree", "two_level", "auto"])
@pytest.mark.parametrize("world_size", [2, 3, 5])
def test_sums_bits_and_notes(group, name, world_size):
    shards, sizes = 7, (3, 700, 70_001)
    bounds = (0, *sorted(np.random.default_rng(world_size).integers(0, shards + 1, world_size - 1).tolist()), shards)

    def work(collective):
        kept = []
        for step, elements in enumerate((*sizes, *sizes)):
            owned = collective.reduce_scatter(vector_of(collective.rank, elements)).copy()
            plain, notes = collective.all_gather(owned, elements, note=10 * step + collective.rank)
            plain = plain.copy()
            tree = TreeSum(*bounds[collective.rank : collective.rank + 2], shards)
            for s in range(*bounds[collective.rank : collective.rank + 2]):
                tree.add(vector_of(s, elements))
            owned = collective.reduce_scatter_tree(tree.partials(), bounds, elements)
            kept.append(
                (plain, notes, collective.all_gather(owned, elements, out=np.empty(elements, "float32")).vector)
            )
            assert collective.all_reduce_small(np.ones(2))[0] == world_size
        return kept, collective.remark

    options = dict(topology=name, elements=1000, groups=GROUPS[world_size])
    results = group(world_size, work, TCP, **options)
    for kept, remark in results:
        assert ("a round costs" in remark) == (name == "auto") and (name in remark or name in ("auto", "direct"))
        for step, (plain, notes, exact) in enumerate(kept):
            elements = (*sizes, *sizes)[step]
            wanted = sum(vector_of(r, elements).astype(float) for r in range(world_size))
            np.testing.assert_allclose(plain, wanted, atol=1e-5)
            assert plain.tobytes() == results[0][0][step][0].tobytes()
            assert notes == tuple(10 * step + r for r in range(world_size))
            assert exact.tobytes() == tree_sum(shards, elements).tobytes()


def rounded(values, start, exact_from):
    """What a message with the elements from `start` on carries of a vector, by ml_dtypes."""
    count = max(0, min(values.size, exact_from - start))
    halves = values[:count].astype(ml_dtypes.bfloat16).astype(np.float32)
    return np.concatenate([halves, values[count:]])


def rounded_sums(plan, vectors, exact_from, hosts=None):
    """Each rank's slice of the sum, message by message: rounded on its way between `hosts`, added in float32."""
    cuts = slices(vectors[0].size, len(vectors))
    held = [[v[cut] for cut in cuts] for v in vectors]
    for transfers in plan.reduce:
        sent = [
            (t.target, s, held[t.source][s], hosts and hosts[t.source] == hosts[t.target])
            for t in transfers
            for s in t.what
        ]
        for t in transfers:
            for s in t.what:
                held[t.source][s] = None
        for target, s, value, near in sent:
            value = value if near else rounded(value, cuts[s].start, exact_from)
            held[target][s] = value if held[target][s] is None else held[target][s] + value
    return [held[r][r] for r in range(len(vectors))]


@pytest.mark.parametrize(
    "name, transports", [("ring", TCP), ("tree", TCP), ("two_level", TCP), ("two_level", ("shm", "tcp"))]
)
@pytest.mark.parametrize("world_size", [2, 3, 5])
def test_bfloat16_rounds_each_message_and_adds_in_float32(group, name, transports, world_size):
    elements, exact_from, shards, groups = 5000, 4500, 6, GROUPS[world_size]
    bounds = (*range(world_size), shards)
    vectors = [vector_of(r, elements) * np.float32(10) ** r for r in range(world_size)]

    def work(collective):
        owned = collective.reduce_scatter(vectors[collective.rank]).copy()
        before = collective.counters.bytes_sent
        gathered, notes = collective.all_gather(owned, elements, note=collective.rank)
        gathered, sent = gathered.copy(), collective.counters.bytes_sent - before
        exact = collective.all_gather(owned, elements, exact=True).vector.copy()
        tree = TreeSum(*bounds[collective.rank : collective.rank + 2], shards)
        for s in range(*bounds[collective.rank : collective.rank + 2]):
            tree.add(vector_of(s, elements))
        fixed = collective.reduce_scatter_tree(tree.partials(), bounds, elements).copy()
        return owned, gathered, exact, fixed, notes, sent, collective._near is not None

    options = dict(topology=name, groups=groups, wire_dtype="bfloat16", exact_from=exact_from)
    results = group(world_size, work, transports, **options)
    near = name == "two_level"  # always shared by these ranks, whatever `transports` are
    assert all(r[-1] == (near and groups.count(groups[rank]) > 1) for rank, r in enumerate(results))
    sums = rounded_sums(schedule(name, groups), vectors, exact_from, groups if near else None)
    cuts = slices(elements, world_size)
    for rank, (owned, gathered, exact, fixed, notes, _, _) in enumerate(results):
        assert owned.tobytes() == sums[rank].tobytes()
        assert exact.tobytes() == np.concatenate(sums).tobytes()
        wanted = np.concatenate([rounded(v, cut.start, exact_from) for v, cut in zip(sums, cuts, strict=True)])
        assert gathered.tobytes() == wanted.tobytes()  # by everybody alike, its owner too
        assert fixed.tobytes() == tree_sum(shards, elements)[cuts[rank]].tobytes()
        assert notes == tuple(range(world_size))
    if name == "ring":
        share = 2 * exact_from + 4 * (elements - exact_from)
        assert sum(r[5] for r in results) == pytest.approx((world_size - 1) * share, rel=0.05)


def test_bfloat16_gathers_the_same_bits_by_every_topology(group):
    slice_of = {r: vector_of(r, 2000)[: slices(2000, 4)[r].stop - slices(2000, 4)[r].start] for r in range(4)}

    def work(collective):
        return collective.all_gather(slice_of[collective.rank], 2000).vector.tobytes()

    found = {
        bits
        for name in NAMES
        for bits in group(4, work, TCP, topology=name, groups=GROUPS[4], wire_dtype="bfloat16", exact_from=1900)
    }
    assert len(found) == 1


@pytest.mark.parametrize("name, share", [("ring", [2 * 3 / 4] * 4), ("two_level", [2 * 1 / 2, 0] * 2)])
def test_bytes_are_as_the_table_says(group, name, share):
    elements = 64 * 4 * 200

    def work(collective):
        owned = collective.reduce_scatter(np.ones(elements, np.float32))
        collective.all_gather(owned, elements)
        return collective.counters.bytes_sent

    found = group(4, work, TCP, topology=name, groups=GROUPS[4])
    np.testing.assert_allclose(np.array(found) / (4 * elements), share, rtol=0.01, atol=0.01)


@pytest.mark.parametrize("name", ["ring", "tree", "two_level"])
def test_a_lost_rank_ends_all_others(failing_group, name):
    def work(collective):
        for step in range(50):
            collective.at(step)
            if collective.rank == 2 and step == 5:
                raise ConnectionError("gone")
            owned = collective.reduce_scatter(np.ones(5000, np.float32))
            collective.all_gather(owned, 5000)

    results = failing_group(4, work, TCP, timeout_s=5, topology=name, groups=GROUPS[4])
    assert isinstance(results[2], ConnectionError)
    assert all(isinstance(results[r], WorkerLost) for r in (0, 1, 3)), results

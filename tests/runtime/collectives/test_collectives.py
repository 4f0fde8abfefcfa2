"""Sums among ranks, whatever carries them, against NumPy."""

import os
import socket
import struct
import threading
import time

import numpy as np
import psutil
import pytest
from kerasoft.runtime.collectives import Solo, TreeSum, bfloat16, connect, shared, slices
from kerasoft.runtime.errors import PeerAborted, PeerFrozen, PeerLost, WireError

TRANSPORTS = {"tcp": ("tcp",), "unix": ("unix", "tcp"), "shm": ("shm", "unix", "tcp")}
carried = pytest.mark.parametrize("transport", TRANSPORTS)


def numbers(rank, step, elements, seed=0):
    """float32[elements] of very different sizes, so that the order of a sum shows in its bits."""
    random = np.random.default_rng([seed, rank, step])
    return (random.standard_normal(elements) * 10.0 ** random.integers(-3, 4, elements)).astype(np.float32)


def sum_in_order(vectors):
    total = vectors[0].copy()
    for vector in vectors[1:]:
        total = total + vector
    return total


def tree_sum(vectors):
    """The oracle of the deterministic mode: neighbours are added, level by level."""
    while len(vectors) > 1:
        vectors = [
            vectors[i] + vectors[i + 1] if i + 1 < len(vectors) else vectors[i] for i in range(0, len(vectors), 2)
        ]
    return vectors[0]


@carried
@pytest.mark.parametrize("world_size", [1, 2, 3, 4])
@pytest.mark.parametrize("elements", [1, 3, 65, 1000, 70_001])
def test_reduce_scatter_and_all_gather(group, transport, world_size, elements):
    def work(collective):
        assert collective.transport == (transport if world_size > 1 else "solo")
        kept = []
        for step in range(5):
            collective.at(step)
            if step % 2:
                vector = collective.buffer(elements)
                vector[...] = numbers(collective.rank, step, elements)
            else:
                vector = numbers(collective.rank, step, elements)
            owned = collective.reduce_scatter(vector).copy()
            doubled = owned * 2
            gathered, notes = collective.all_gather(doubled, elements, note=10 * step + collective.rank)
            doubled[...] = np.nan  # the caller's own memory, free to use again
            kept.append((owned, gathered.copy(), notes))
        return kept

    results = group(world_size, work, TRANSPORTS[transport])
    cuts = slices(elements, world_size)
    for rank, kept in enumerate(results):
        for step, (owned, vector, notes) in enumerate(kept):
            total = sum_in_order([numbers(r, step, elements) for r in range(world_size)])
            assert owned.tobytes() == total[cuts[rank]].tobytes()
            assert vector.tobytes() == (total * 2).tobytes()
            assert notes == tuple(10 * step + r for r in range(world_size))


@carried
def test_all_gather_alone_never_mixes_steps(group, transport):
    """A fast rank must not overwrite what a slow one still reads."""

    def work(collective):
        mine = collective.owned(1000)
        bad = 0
        for step in range(30):
            vector, notes = collective.all_gather(np.full(mine.stop - mine.start, step, np.float32), 1000, note=step)
            if collective.rank == step % 3:
                time.sleep(0.002)
            bad += not (vector == step).all() or set(notes) != {step}
        return bad

    assert group(3, work, TRANSPORTS[transport]) == [0, 0, 0]


@carried
def test_few_numbers_between_vectors(group, transport):
    """Sums of few numbers leave the gathered vector alone, keep float64, and alternate with other calls."""

    def work(collective):
        n = collective.world_size
        for step in range(10):
            gathered = collective.all_gather(
                np.full(collective.owned(300).stop - collective.owned(300).start, step, np.float32), 300
            ).vector
            for more in range(3):
                value = collective.all_reduce_small(np.array([1e-9 * (collective.rank + 1), 1 + more]))
                assert value.dtype == np.float64
                expected = sum_in_order([np.array([1e-9 * (r + 1), 1 + more]) for r in range(n)])
                assert value.tobytes() == expected.tobytes()
            assert (gathered == step).all()
            big = collective.all_reduce_small(np.full(20_000, collective.rank + 1, np.float32))
            assert (big == n * (n + 1) / 2).all()
            collective.barrier()
        return True

    assert all(group(3, work, TRANSPORTS[transport]))


@carried
@pytest.mark.parametrize("elements", [7, 5000, 40_000])
def test_all_reduce(group, transport, elements):
    def work(collective):
        vector = numbers(collective.rank, 0, elements)
        out = np.zeros(elements, np.float32)
        assert collective.all_reduce(vector, out=out) is out
        return out, collective.all_reduce(vector).copy()

    expected = sum_in_order([numbers(rank, 0, elements) for rank in range(3)])
    for out, returned in group(3, work, TRANSPORTS[transport]):
        assert out.tobytes() == returned.tobytes() == expected.tobytes()


@carried
@pytest.mark.parametrize("bounds", [(0, 5), (0, 2, 5), (0, 1, 1, 5), (0, 0, 4, 5, 5)])
def test_tree_sum_has_the_same_bits_for_every_ownership(group, transport, bounds):
    elements, shards = 500, 5
    expected = tree_sum([numbers(shard, 0, elements, seed=1) for shard in range(shards)])
    assert expected.tobytes() != sum_in_order([numbers(s, 0, elements, seed=1) for s in range(shards)]).tobytes()

    def work(collective):
        start, stop = bounds[collective.rank], bounds[collective.rank + 1]
        total = TreeSum(start, stop, shards)
        kept = []
        for _ in range(3):
            for shard in range(start, stop):
                total.add(numbers(shard, 0, elements, seed=1))
            partials = total.partials()
            few = collective.all_reduce_small_tree({n: v[:9] for n, v in partials.items()}, bounds, 9)
            owned = collective.reduce_scatter_tree(partials, bounds, elements)
            kept.append((collective.all_gather(owned, elements).vector.copy(), few))
        return kept

    for kept in group(len(bounds) - 1, work, TRANSPORTS[transport]):
        for vector, few in kept:
            assert vector.tobytes() == expected.tobytes()
            assert few.tobytes() == expected[:9].tobytes()


def received_bytes(sock):
    """What the kernel counted on a TCP connection: `tcpi_bytes_received` of Linux's struct tcp_info."""
    return struct.unpack_from("Q", sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 192), 128)[0]


@pytest.mark.parametrize("world_size", [2, 3, 4])
def test_bytes_on_the_wire(group, world_size):
    elements = 300_000

    def work(collective):
        socks = [lane.sock for lane in collective._lanes.values()]
        owned = collective.reduce_scatter(np.ones(elements, np.float32))
        collective.all_gather(owned, elements)
        return sum(map(received_bytes, socks)), collective.counters.take()

    for kernel, counted in group(world_size, work, ("tcp",)):
        expected = 2 * (world_size - 1) / world_size * elements * 4
        assert kernel == pytest.approx(expected, rel=0.01)
        assert counted["bytes_sent"] == pytest.approx(expected, rel=0.01)
        assert counted["bytes_received"] == pytest.approx(kernel, rel=0.005)  # the kernel's has the handshake too
        assert counted["calls"] == 2


def test_bfloat16_on_the_wire(group):
    elements, exact_from = 10_000, 9_000

    def work(collective):
        collective.counters.take()
        owned = collective.reduce_scatter(numbers(collective.rank, 0, elements)).copy()
        gathered = collective.all_gather(owned, elements).vector.copy()
        sent = collective.counters.take()["bytes_sent"]
        return owned, gathered, sent, collective.all_gather(owned, elements, exact=True).vector.copy()

    results = group(2, work, ("tcp",), wire_dtype="bfloat16", exact_from=exact_from)
    total = sum_in_order([numbers(rank, 0, elements) for rank in range(2)])
    largest = np.maximum(*[np.abs(numbers(rank, 0, elements)) for rank in range(2)])
    owned = np.concatenate([result[0] for result in results])
    assert np.all(np.abs(owned - total) <= largest / 256)  # one summand was rounded to 8 bits
    assert not np.array_equal(owned[:exact_from], total[:exact_from])
    assert owned[exact_from:].tobytes() == total[exact_from:].tobytes()
    for _, gathered, sent, exact in results:
        assert gathered.tobytes() == results[0][1].tobytes()
        assert np.all(np.abs(gathered - owned) <= np.abs(owned) / 256)
        assert gathered[exact_from:].tobytes() == owned[exact_from:].tobytes()
        assert exact.tobytes() == owned.tobytes()
        assert sent < 0.57 * 4 * elements


def test_an_argument_that_is_refused_leaves_no_connection_behind(failing_group):
    """The connections stood before the argument was looked at, and were left to the garbage collector."""

    def established():
        return {c.laddr for c in psutil.Process().net_connections("tcp") if c.status == psutil.CONN_ESTABLISHED}

    before = established()
    results = failing_group(2, lambda collective: None, ("tcp",), wire_dtype="float16")
    assert all("wire_dtype should be one of" in str(r) and "got 'float16'" in str(r) for r in results)
    assert established() <= before  # while the errors, and so their frames, are alive


def test_bfloat16_rounds_to_nearest_even():
    ml_dtypes = pytest.importorskip("ml_dtypes")
    values = np.random.default_rng(0).integers(0, 2**32, 200_000, np.uint32).view(np.float32)
    values = np.append(values, np.float32([0, -0.0, np.inf, -np.inf, np.nan, 1e-40, 3.4e38, 1.00390625, 1.01171875]))
    encoded = np.empty(values.size, np.uint16)
    bfloat16.encode(values, encoded, np.empty(bfloat16.CHUNK, np.uint32))
    with np.errstate(invalid="ignore"):
        expected = values.astype(ml_dtypes.bfloat16)
    decoded = bfloat16.decode(encoded, np.empty(values.size, np.float32))
    np.testing.assert_array_equal(decoded, expected.astype(np.float32))
    assert np.array_equal(np.signbit(decoded[~np.isnan(decoded)]), np.signbit(values[~np.isnan(decoded)]))


@carried
def test_time_waited_for_a_slow_rank_is_told_apart(group, transport):
    def work(collective):
        collective.barrier()
        collective.counters.take()
        if collective.rank == 1:
            time.sleep(0.3)
        collective.all_reduce(np.ones(100_000, np.float32))
        return collective.counters.take()

    fast, slow = group(2, work, TRANSPORTS[transport])
    assert fast["wait_s"] > 0.2
    assert slow["wait_s"] < fast["wait_s"] / 2
    assert fast["transfer_s"] < fast["wait_s"] / 2


@carried
def test_ranks_that_run_different_programs(failing_group, transport):
    def work(collective):
        collective.at(3)
        if collective.rank:
            return collective.all_reduce_small(np.zeros(30_000, np.float32))
        return collective.all_gather(np.zeros(4992, np.float32), 10_000)

    results = failing_group(2, work, TRANSPORTS[transport], timeout_s=0.5 if transport == "shm" else 10)
    assert all(isinstance(result, WireError | PeerAborted | PeerLost | PeerFrozen) for result in results)
    if transport != "shm":
        texts = [str(result) for result in results if isinstance(result, WireError)]
        assert any("the ranks do not run the same program" in text and "step 3" in text for text in texts)


@carried
def test_a_rank_that_raises_takes_the_others_along(failing_group, transport):
    def work(collective):
        collective.at(4)
        collective.barrier()
        if collective.rank == 1:
            raise ValueError("no")
        collective.reduce_scatter(np.ones(1000, np.float32))

    began = time.monotonic()
    results = failing_group(3, work, TRANSPORTS[transport])
    assert time.monotonic() - began < 5
    assert isinstance(results[1], ValueError)
    for rank in (0, 2):
        assert isinstance(results[rank], PeerAborted)
        assert (results[rank].rank, results[rank].pid, results[rank].host) == (1, 1001, "host1")
    assert any("left the group" in str(results[rank]) and "step 4" in str(results[rank]) for rank in (0, 2))


@carried
def test_who_gives_up_names_the_culprit_to_the_others(failing_group, transport):
    """Rank 0 waits 0.3 s, rank 1 would wait for ever: it learns from rank 0 that rank 2 is the frozen one."""
    release = threading.Event()

    def work(collective):
        collective.at(6)
        collective.barrier()
        if collective.rank == 2:
            release.wait(20)
            return None
        collective.timeout_s = 0.3 if collective.rank == 0 else 60.0
        try:
            collective.all_gather(np.ones(collective.owned(900).stop - collective.owned(900).start, np.float32), 900)
        finally:
            if collective.rank == 1:
                release.set()

    results = failing_group(3, work, TRANSPORTS[transport])
    for rank in (0, 1):
        assert isinstance(results[rank], PeerFrozen)
        assert (results[rank].rank, results[rank].pid, results[rank].step, results[rank].phase) == (
            2,
            1002,
            6,
            "all_gather",
        )
    assert str(results[0]).startswith(
        "rank 2 (host host2, pid 1002) made no progress for 0.3 s while rank 0 waited for it in all_gather of step 6"
    )
    assert "says rank 0" in str(results[1])


def test_a_peer_that_waits_for_the_frozen_one_is_not_blamed(failing_group):
    """Rank 1 stops reading from rank 0 when its windows are full, because rank 2's part is missing."""
    release = threading.Event()

    def work(collective):
        for lane in collective._lanes.values():
            lane.sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1 << 16)
            lane.sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 16)
        collective.barrier()
        if collective.rank == 2:
            release.wait(20)
            return None
        collective.timeout_s = 0.8
        try:
            collective.reduce_scatter(np.ones(1_500_000, np.float32))
        finally:
            if collective.rank == 0:
                release.set()

    results = failing_group(3, work, ("tcp",))
    frozen = [result.rank for result in results[:2] if isinstance(result, PeerFrozen)]
    assert frozen and set(frozen) == {2}
    # who gives up in the middle of a frame can only close: to the other that may look like a loss
    assert all(isinstance(result, PeerFrozen | PeerLost) for result in results[:2])


def test_no_memory_for_a_vector_falls_back_to_sockets(group, monkeypatch):
    real = os.posix_fallocate

    def small_memory(descriptor, offset, size):
        if size > 1_000_000:
            raise OSError(28, "No space left on device")
        real(descriptor, offset, size)

    monkeypatch.setattr(os, "posix_fallocate", small_memory)

    def work(collective):
        kept = []
        for elements in (500, 400_000, 500, 400_000):
            vector = collective.buffer(elements)
            vector[...] = collective.rank + 1
            kept.append((collective.all_reduce(vector) == 3).all())
            owned = collective.reduce_scatter_tree({(0, collective.rank): vector}, (0, 1, 2), elements)
            kept.append((owned == 3).all())
        return kept, collective.transport, collective.counters.bytes_sent

    for kept, transport, sent in group(2, work):
        assert all(kept)
        assert transport == "shm"
        assert sent > 2 * 400_000 * 4


def test_ranks_that_cannot_open_the_file_do_not_share_memory(group, monkeypatch):
    monkeypatch.setattr(shared, "folders", lambda: ("/nonexistent",))
    assert group(2, lambda collective: collective.transport) == ["unix", "unix"]


def test_another_file_of_the_same_name_is_not_shared_memory(group, monkeypatch):
    """Two containers may both have /dev/shm: what the file says counts."""
    monkeypatch.setattr(os, "pread", lambda descriptor, size, offset: bytes(size))
    assert group(3, lambda collective: collective.all_reduce(np.ones(3, np.float32))[0]) == [3, 3, 3]
    assert group(2, lambda collective: collective.transport) == ["unix", "unix"]


def test_the_segment_is_private_and_leaves_no_file(group, monkeypatch):
    modes = []
    real = shared._make_segment

    def spy(world_size, candidates):
        descriptor, path, nonce = real(world_size, candidates)
        modes.append((os.stat(path).st_mode & 0o777, path))
        return descriptor, path, nonce

    monkeypatch.setattr(shared, "_make_segment", spy)
    assert group(2, lambda collective: collective.transport) == ["shm", "shm"]
    ((mode, path),) = modes
    assert mode == 0o600
    assert not os.path.exists(path)


def test_wrong_arguments():
    with Solo() as solo:
        with pytest.raises(ValueError, match=r"contiguous float32 vector, got float64\[3\] on rank 0"):
            solo.reduce_scatter(np.zeros(3))
        with pytest.raises(ValueError, match=r"contiguous float32 vector, got float32\[2, 2\]"):
            solo.reduce_scatter(np.zeros((2, 2), np.float32))
        with pytest.raises(ValueError, match="rank 0 should give 4 elements, got 3"):
            solo.all_gather(np.zeros(3, np.float32), 4)
    with pytest.raises(ValueError, match="transports should be some of .* got .*'rdma'"):
        connect((), 0, b"", 0, transports=("rdma",))


def test_wrong_partials(failing_group):
    def work(collective):
        return collective.reduce_scatter_tree({(0, 0): np.zeros(4, np.float32)}, (0, 2, 4), 4)

    results = failing_group(2, work, ("tcp",))
    assert "rank 0 owns the shards 0..1 and should give the nodes [(1, 0)], got [(0, 0)]" in str(results[0])


@pytest.mark.parametrize("elements", [0, 1, 63, 64, 65, 1000, 10_000_019])
@pytest.mark.parametrize("world_size", [1, 2, 3, 7])
def test_slices(elements, world_size):
    cuts = slices(elements, world_size)
    assert cuts[0].start == 0 and cuts[-1].stop == elements and len(cuts) == world_size
    assert all(a.stop == b.start for a, b in zip(cuts[:-1], cuts[1:], strict=True))
    assert all(cut.start % 64 == 0 or cut.start == elements for cut in cuts)
    sizes = [cut.stop - cut.start for cut in cuts]
    assert max(sizes) - min(sizes) <= 64 or elements < 64 * world_size

"""Two groups for each rank, over real sockets: sums within each, arrays from any part to any other, deaths."""

import threading
import time

import numpy as np
import pytest
from kerasoft.runtime import wire
from kerasoft.runtime.collectives import Peer, PeerListener
from kerasoft.runtime.errors import PeerFrozen, WireError, WorkerLost
from kerasoft.runtime.parallel.grid import Grid
from kerasoft.runtime.parallel.groups import meet
from kerasoft.runtime.parallel.links import Links
from kerasoft.runtime.reports import Stopwatch


def together(grid, work, channels=False, timeout_s=10.0, transports=("shm", "unix", "tcp")):
    """`[work(groups)]` of all ranks, each a thread; what a rank raises takes the place of its result."""
    secret = wire.new_secret()
    listeners = [PeerListener("127.0.0.1") for _ in range(grid.world_size)]
    table = tuple(Peer(rank, f"host{rank}", 1000 + rank, listener.address) for rank, listener in enumerate(listeners))
    results = [None] * grid.world_size

    def run(rank):
        try:
            listener = listeners[rank] if grid.world_size > 1 else None
            with meet(table, rank, grid, secret, 7, timeout_s, listener, transports, channels) as groups:
                results[rank] = work(groups)
        except Exception as error:
            results[rank] = error

    threads = [threading.Thread(target=run, args=(rank,)) for rank in range(grid.world_size)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
        assert not thread.is_alive(), "a rank hangs"
    return results


def test_every_rank_has_one_place():
    grid = Grid(3, 2)
    assert sorted(grid.place(r) for r in range(6)) == [(j, i) for j in range(3) for i in range(2)]
    for rank in range(6):
        assert set(grid.data_group(rank)) & set(grid.model_group(rank)) == {rank}
        assert grid.data_group(rank)[grid.place(rank)[0]] == grid.model_group(rank)[grid.place(rank)[1]] == rank


@pytest.mark.parametrize("transports", [("shm", "unix"), ("unix",), ("tcp",)], ids=lambda t: t[0])
@pytest.mark.parametrize("size", [3, 10_000])
def test_sums_and_gathers_stay_within_a_group(transports, size):
    grid = Grid(2, 3)

    def work(groups):
        links = Links(groups, Stopwatch(), lambda: None).of(0)
        mine = np.arange(size, dtype=np.float32) + 100 * groups.rank
        return [links.sum(axis, mine) for axis in ("data", "model")], links.gather(
            "model", np.full((2, 1), groups.rank, np.int32)
        )

    for rank, ((data, model), gathered) in enumerate(together(grid, work, transports=transports)):
        for total, members in ((data, grid.data_group(rank)), (model, grid.model_group(rank))):
            np.testing.assert_array_equal(total, len(members) * np.arange(size, dtype=np.float32) + 100 * sum(members))
        assert gathered.dtype == np.int32 and gathered.shape == (3, 2, 1)
        assert gathered.ravel().tolist() == [m for m in grid.model_group(rank) for _ in range(2)]


@pytest.mark.parametrize("size", [1, 128, 1000])
def test_slices_are_gathered_and_scattered_in_pieces(size, monkeypatch):
    """Slices longer than a piece, and such as are no multiple of what collectives align to."""
    monkeypatch.setattr("kerasoft.runtime.parallel.links.PIECE", 256)
    whole = np.random.default_rng(0).integers(-9, 9, (3, 3 * size)).astype(np.float32)  # exact sums

    def work(groups):
        links = Links(groups, Stopwatch(), lambda: None).of(0)
        own = links.scatter("model", whole[groups.rank], "slice/0")
        return own, links.gather("model", own)

    for rank, (own, gathered) in enumerate(together(Grid(1, 3), work)):
        np.testing.assert_array_equal(own, whole.sum(0)[rank * size : (rank + 1) * size])
        np.testing.assert_array_equal(gathered.reshape(-1), whole.sum(0))


def test_arrays_arrive_by_number_whatever_the_order():
    """Large arrays both ways at once, taken in another order than they were sent: nobody waits for the other to read."""
    kinds = (((300, 1000), "float32"), ((7,), "bool"), ((), "int32"))

    def work(groups):
        _, place = Grid(2, 2).place(groups.rank)
        links = Links(groups, Stopwatch(), lambda: None)
        value = 10 * groups.rank
        for a in range(3):
            arrays = [np.full(shape, value + a).astype(dtype) for shape, dtype in kinds]
            links.of(a).send(1 - place, arrays)
        found = [links.of(a).receive(1 - place, kinds) for a in (2, 0, 1)]
        total = groups.channels.all_reduce_small(np.full(3, groups.rank, np.float32))
        return found, total, groups.counters.bytes_sent

    for rank, (found, total, sent) in enumerate(together(Grid(2, 2), work, channels=True)):
        other = rank ^ 1
        for a, arrays in zip((2, 0, 1), found, strict=True):
            for array, (shape, dtype) in zip(arrays, kinds, strict=True):
                assert array.shape == shape and array.dtype == dtype
                assert (array == np.full(shape, 10 * other + a).astype(dtype)).all()
        np.testing.assert_array_equal(total, np.full(3, rank + other, np.float32))
        assert sent >= 3 * 1_200_000


@pytest.mark.parametrize("channels", [pytest.param(True, marks=pytest.mark.soak), False])
def test_a_rank_that_leaves_is_named_in_both_groups(channels):
    def work(groups):
        if groups.rank == 2:
            raise RuntimeError("broken")
        place = Grid(2, 2).place(groups.rank)[1]
        if channels:
            groups.channels.receive(1 - place, 5, [((3,), "float32")])
        groups.model.all_reduce(np.zeros(9, np.float32))
        groups.data.all_reduce(np.zeros(9, np.float32))

    zero, one, two, three = together(Grid(2, 2), work, channels)
    assert isinstance(two, RuntimeError)
    assert isinstance(three, WorkerLost) and three.rank == 2 and "rank 2 (host host2" in str(three)
    assert isinstance(zero, WorkerLost) and isinstance(one, WorkerLost)


def test_a_silent_part_is_named():
    def work(groups):
        if groups.rank == 0:
            groups.at(4)
            groups.channels.receive(1, 1, [((3,), "float32")])
        else:
            time.sleep(1.5)

    frozen, _ = together(Grid(1, 2), work, channels=True, timeout_s=0.5)
    assert isinstance(frozen, PeerFrozen) and frozen.rank == 1
    assert "rank 1 (host host1, pid 1001) sent nothing for 0.5 s while rank 0 waited for its part of step 4" in str(
        frozen
    )


def test_other_sizes_than_expected_are_an_error():
    def work(groups):
        groups.channels.send(1 - groups.rank, 1, [np.zeros(4, np.float32)])
        groups.channels.receive(1 - groups.rank, 1, [((3,), "float32")])

    for error in together(Grid(1, 2), work, channels=True):
        assert isinstance(error, (WireError, WorkerLost))
    assert "sent 16 bytes by number 1 where rank" in str(error) or isinstance(error, WorkerLost)

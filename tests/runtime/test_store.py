"""Rows in memory and in files: same rows, checked against the table."""

import errno
import os

import numpy as np
import pytest
from kerasoft.runtime.errors import DataChanged
from kerasoft.runtime.shards import table_of
from kerasoft.runtime.store import ShardStore


def shards_of(sizes, width=3, block=4):
    out, at = [], 0
    for n in sizes:
        blocks = []
        for start in range(0, n, block):
            rows = np.arange(at + start, at + min(start + block, n))
            blocks.append({"x/0": np.repeat(rows[:, None], width, 1).astype("float32"), "y/0": rows.astype("int64")})
        out.append(blocks)
        at += n
    return out


def records(shards, order=1):
    return [(s, q, b) for s, blocks in enumerate(shards) for q, b in list(enumerate(blocks))[::order]]


def loaded(records, *args, **settings):
    store = ShardStore(*args, **settings)
    for record in records:
        store.add(*record)
    return store.finish()


def take(store, shard, rows):
    into = {n: np.zeros((len(rows) + 1, *shape), dtype) for n, (shape, dtype) in store.specs().items()}
    store.gather(shard, np.asarray(rows), into, 1)
    return into


@pytest.mark.parametrize("order", [1, -1])
@pytest.mark.parametrize("cap", [None, 100])
def test_rows_come_back_in_order_of_sequence(order, cap, tmp_path):
    shards = shards_of((10, 0, 7))
    store = loaded(records(shards, order), table_of(shards), (0, 1, 2), memory_cap_bytes=cap, scratch=str(tmp_path))
    assert store.mapped == (cap is not None)
    got = take(store, 2, [6, 0, 3])
    assert got["y/0"].tolist() == [0, 16, 10, 13]
    assert got["x/0"].tolist() == [[0.0] * 3, [16.0] * 3, [10.0] * 3, [13.0] * 3]
    assert bool(list(tmp_path.iterdir())) == store.mapped
    store.close()
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("cap", [None, 100])
def test_arrays_that_nobody_reads_are_let_go_of(cap, tmp_path):
    shards = shards_of((10, 0, 7))
    store = loaded(records(shards), table_of(shards), (0, 1, 2), memory_cap_bytes=cap, scratch=str(tmp_path))
    files = len(list(tmp_path.glob("*/*.rows")))
    store.keep(["y/0"])
    assert list(store.specs()) == ["y/0"] and take(store, 2, [6, 0])["y/0"].tolist() == [0, 16, 10]
    assert len(list(tmp_path.glob("*/*.rows"))) == files // 2 and files == (0 if cap is None else 4)
    store.close()


def changed(shards, mutate, cap=None):
    table = table_of(shards)
    with pytest.raises(DataChanged) as error:
        loaded(mutate(records(shards)), table, (0, 1), where="partition 3 of the data", memory_cap_bytes=cap)
    return str(error.value)


def test_changed_rows_are_named():
    text = changed(shards_of((5, 6)), lambda r: r[:-1])
    assert "partition 3 of the data: shard 1 is not what it was" in text and "expected 6 rows, got 4." in text
    text = changed(shards_of((5, 6)), lambda r: r + r[-1:])
    assert "shard 1" in text and "expected 6 rows, got at least 8" in text
    text = changed(shards_of((5, 6)), lambda r: [(1 - s, q, b) for s, q, b in r])
    assert "expected 5 rows, got at least 6" in text
    text = changed(shards_of((8,)) + shards_of((8,)), lambda r: [(s, 1 - q, b) for s, q, b in r])
    assert "shard 0" in text and "expected fingerprint" in text and "from the same number of rows" in text
    text = changed(shards_of((8,)) + shards_of((8,)), lambda r: [(2, 0, b) for s, q, b in r])
    assert "rows of shard 2 came to the worker of shards [0, 1]" in text
    narrow = lambda r: [*r[:-1], (*r[-1][:2], {"x/0": r[-1][2]["x/0"][:, :2], "y/0": r[-1][2]["y/0"]})]
    text = changed(shards_of((5, 6)), narrow)
    assert "expected blocks like x/0: float32[3], y/0: int64[], got a block of x/0: float32[2], y/0: int64[]" in text


def resident_bytes():
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def test_resident_memory_stays_near_the_cap(tmp_path):
    cap, rows, width = 8 << 20, 4000, 4096  # 64 MB of float32
    block = {"x/0": np.random.default_rng(0).normal(size=(rows, width)).astype("float32")}
    table = table_of([[block]])
    before = resident_bytes()
    parts = ((0, q, {"x/0": block["x/0"][q * 100 : q * 100 + 100]}) for q in range(40))
    store = loaded(parts, table, (0,), memory_cap_bytes=cap, scratch=str(tmp_path))
    into = {"x/0": np.empty((32, width), "float32")}
    worst = resident_bytes()
    order = np.random.default_rng(1).permutation(rows)
    for at in range(0, rows, 32):
        store.gather(0, order[at : at + 32], into, 0)
        np.testing.assert_array_equal(into["x/0"][:32], block["x/0"][order[at : at + 32]])
        worst = max(worst, resident_bytes())
    store.close()
    assert worst - before < 2 * cap


def test_a_full_disk_is_an_error_and_not_the_end_of_the_process(tmp_path, monkeypatch):
    """A mapped file without room would end the process by SIGBUS when a row is written."""

    def full(descriptor, offset, length):
        assert length == 10 * 3 * 4
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "posix_fallocate", full)
    shards = shards_of((10,))
    store = ShardStore(table_of(shards), (0,), memory_cap_bytes=1, scratch=str(tmp_path))
    with pytest.raises(
        OSError, match=r"No space left on device: 120 bytes of rows in .*; free it, or raise memory_cap_b"
    ):
        store.add(*records(shards)[0])
    store.close()
    assert not list(tmp_path.iterdir())

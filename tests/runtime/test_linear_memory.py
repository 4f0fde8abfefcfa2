"""A worker's share of the optimizer's memory falls with the number of workers."""

import dataclasses

import numpy as np
import pytest
from kerasoft.runtime import AllReduce
from kerasoft.runtime.buckets import Buckets
from kerasoft.runtime.worker import Method

from tests.runtime.cases import fit_in_threads, mlp, shards

HELD: list = []


def held_by(step):
    """Bytes of a step's slots and float32 master copies at the end of an epoch."""
    groups = [(o.slots, o.master) for o in step._owned] if hasattr(step, "_owned") else [(step._slots, step._master)]
    slots = sum(np.asarray(s).nbytes for all_slots, _ in groups for s in all_slots)
    return slots, sum(np.asarray(master).nbytes for _, master in groups)


def watched(method):
    class Watched(method):
        def step(self, settings, rank, program, watch):
            made = super().step(settings, rank, program, watch)
            before = made.end_epoch
            made.end_epoch = lambda rate: (HELD.append((rank, *held_by(made))), before(rate))[1]
            return made

    return Watched


@pytest.mark.parametrize("buckets", [1, 2])
def test_slots_are_cut_among_the_workers(buckets):
    source, data = mlp(features=400, units=50), shards((16, 16, 16, 16), features=400)
    size, slots = source.layout.P, len(source.slots)
    assert (size, source.layout.V, slots) == (20_050, 20_454, 2)
    made = watched(Buckets if buckets > 1 else Method)

    class Watching(AllReduce):
        def method(self, *args):
            plain = super().method(*args)
            return made(**{f.name: getattr(plain, f.name) for f in dataclasses.fields(plain)})

    for world_size in (1, 2, 4):
        HELD.clear()
        fit_in_threads(source, data, world_size, Watching(buckets=buckets, timeout_s=5), epochs=1)
        share = source.layout.V / world_size + 64 * buckets  # slices of V elements begin at multiples of 64
        assert sorted(rank for rank, *_ in HELD) == list(range(world_size))
        for _, of_slots, of_master in HELD:
            assert of_slots <= slots * share * 4
            assert of_master <= share * 4
        assert sum(of_slots for _, of_slots, _ in HELD) == 4 * slots * size  # nothing twice

"""Whole fits over other topologies, ranks as threads: the same bits, a death, what is told."""

import numpy as np
import pytest
from kerasoft.runtime import AllReduce
from kerasoft.runtime.faults import Fault

from tests.runtime.cases import digest, fit_in_threads, mlp, shards, weights

SIZES = (13, 0, 29, 5, 20)


def test_deterministic_bits_are_the_same_for_every_topology_and_after_a_death():
    def fit(topology, world_size=3, **more):
        strategy = AllReduce(deterministic=True, topology=topology, timeout_s=5)
        return fit_in_threads(
            mlp(dropout=True), shards(SIZES), world_size, strategy, epochs=2, transports=("tcp",), **more
        )

    wanted = digest(fit("direct")[0])
    for topology in ("ring", "tree", "two_level", "auto"):
        result, hooks, _ = fit(topology, 4)
        assert digest(result) == wanted, topology
        told = [e.text for e in hooks.events if e.kind == "strategy"]
        assert len(told) == 1 and (
            "a round costs" in told[0] and "ring" in told[0] if topology == "auto" else topology in told[0]
        )
    lost, hooks, _ = fit("ring", faults=[Fault(1, 1, 2, "leave")])
    assert digest(lost) == wanted and [e.kind for e in hooks.events].count("retrying") == 1


def test_deterministic_bits_with_a_bfloat16_wire_are_the_same_for_every_topology():
    def fit(topology, world_size=3):
        strategy = AllReduce(deterministic=True, topology=topology, wire_dtype="bfloat16", timeout_s=5)
        return fit_in_threads(mlp(dropout=True), shards(SIZES), world_size, strategy, epochs=2, transports=("tcp",))[0]

    wanted = digest(fit("direct"))
    assert wanted != digest(
        fit_in_threads(mlp(dropout=True), shards(SIZES), 3, AllReduce(deterministic=True), epochs=2)[0]
    )
    for topology in ("ring", "tree", "two_level"):
        assert digest(fit(topology, 4)) == wanted, topology


def test_auto_takes_shared_memory_on_one_host():
    result, hooks, _ = fit_in_threads(mlp(), shards(SIZES), 2, AllReduce(topology="auto", timeout_s=5))
    wanted, _, _ = fit_in_threads(mlp(), shards(SIZES), 2, AllReduce(timeout_s=5))
    np.testing.assert_array_equal(weights(result), weights(wanted))
    assert not [e for e in hooks.events if e.kind == "strategy"]


def test_settings_are_checked():
    with pytest.raises(ValueError, match=r"AllReduce: topology needs 'auto' or one of \('direct', .*, got 'star'"):
        AllReduce(topology="star")

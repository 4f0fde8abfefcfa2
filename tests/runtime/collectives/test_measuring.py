"""The cost model of topologies: on a clock of its own, and with ranks that are there."""

import numpy as np
import pytest
from kerasoft.runtime.collectives import measuring
from kerasoft.runtime.collectives.measuring import LIMIT_S, Line, lengths, measured


class Timed:
    """A collective whose calls take alpha + beta n on a clock that only they move; the other rank takes half as long."""

    rank, world_size = 1, 2
    costs = {"cheap": (1e-4, 1e-9), "slow": (1e-3, 1e-6)}

    def __init__(self):
        self.now, self.calls, self.used = 0.0, [], ""

    def use(self, name):
        self.used = name

    def barrier(self):
        self.now += 1.0  # never counted

    def reduce_scatter(self, vector):
        self.calls.append((self.used, vector.size))
        alpha, beta = self.costs[self.used]
        self.now += alpha + beta * vector.size
        return vector

    def all_gather(self, owned, elements):
        self.now += self.costs[self.used][1] * elements

    def all_reduce_small(self, table):
        return table + np.roll(table, table.size // 2) / 2


def test_predictions_are_alpha_and_beta(monkeypatch):
    one = Timed()
    monkeypatch.setattr(measuring.time, "perf_counter", lambda: one.now)
    found = measured(one, ("cheap", "slow"), 5_000_000)
    for name, (alpha, beta) in one.costs.items():
        for elements in (128, 5_000, 300_000, 5_000_000, 80_000_000):
            assert found[name].seconds_of(elements) == pytest.approx(alpha + 2 * beta * elements), (name, elements)
    assert max(n for name, n in one.calls if name == "cheap") == 5_000_000
    longest = max(n for name, n in one.calls if name == "slow")  # four times as many would be too slow
    assert found["slow"].seconds_of(longest // 4) * 4 <= LIMIT_S < found["slow"].seconds_of(longest) * 4


@pytest.mark.parametrize("world_size, elements", [(2, 1), (2, 128), (2, 129), (3, 1000), (16, 7_000_000)])
def test_lengths_rise_to_the_vectors(world_size, elements):
    found = list(lengths(world_size, elements))
    assert found == sorted(set(found)) and found[0] < 128 * world_size
    assert found[-1] == max(64 * world_size, elements)
    assert all(2 <= b / a <= 16 for a, b in zip(found[:-1], found[1:], strict=True))  # a slope is not of noise


def test_one_length_is_a_constant_and_noise_makes_no_negative_cost():
    assert Line((128,), (0.5,)).seconds_of(10**9) == 0.5
    assert Line((128, 1024), (0.5, 0.4)).seconds_of(10**9) == 0.4


def test_ranks_agree_and_give_the_memory_back(group):
    def work(collective):
        lengths = set(collective._near._regions) if collective._near else set()
        return collective.lines, collective.topology, lengths

    results = group(4, work, ("tcp",), topology="auto", elements=20_000, groups=(0, 0, 2, 2))
    lines, topology, _ = results[0]
    assert all(r == (lines, topology, set()) for r in results)
    assert set(lines) == {"direct", "ring", "tree", "two_level"}
    assert all(line.elements[0] == 256 and min(line.seconds) > 0 for line in lines.values())

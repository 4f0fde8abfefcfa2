"""Shards move from a worker that is always slow: less time, the same bits."""

import dataclasses
import time

import numpy as np
import pytest
from kerasoft.runtime import AllReduce, StaleSynchronous
from kerasoft.runtime.balance import speeds_of
from kerasoft.runtime.shards import assign

from tests.runtime.cases import digest, fit_in_threads, mlp, shards

pytestmark = pytest.mark.alone  # seconds are compared

SLOW = 4
ROW_S = 0.5e-3


def test_shards_are_assigned_by_speed():
    rows = (10,) * 26
    for speeds in [(1.0, 4.0, 4.0, 4.0), (4.0, 1.0, 4.0, 4.0), (4.0, 4.0, 4.0, 1.0)]:
        owners = assign(rows, 4, speeds)
        assert list(owners) == sorted(owners)
        assert [owners.count(r) for r in range(4)] == [2 * s for s in speeds]
    assert assign(rows, 4, (1.0,) * 4) == assign(rows, 4)
    assert set(assign((0, 0, 7), 3, (1.0, 1.0, 1.0))) <= {0, 1, 2}


def test_when_moving_pays():
    rows, owners = (10,) * 8, assign((10,) * 8, 4)
    even = [{"compute": 1.0, "wait": 9.0}] * 4
    assert speeds_of(owners, rows, even, 10, 0.1) is None
    slow = [{"compute": 4.0}, {"compute": 0.9, "input": 0.1}, *even[2:]]
    assert speeds_of(owners, rows, slow, 10, 0.1) == (5.0, 20.0, 20.0, 20.0)
    assert speeds_of(owners, rows, slow, 1, 5.0) is None  # forming a group takes more than it saves
    assert speeds_of((0, 0), (5, 5), [{"compute": 3.0}, {}], 9, 0.1) is None  # nothing is known of the other
    assert speeds_of((0, 1), (5, 5), [{"compute": 1.8}, {"compute": 1.0}], 9, 0.1) is None  # both on one takes longer


class Slow:
    """A program whose gradient takes so long for each row."""

    def __init__(self, program, row_s):
        self.program, self.row_s = program, row_s

    def __getattr__(self, name):
        return getattr(self.program, name)

    def train(self, rows):
        call = self.program.train(rows)
        return dataclasses.replace(Sleeping(call, self.row_s))


@dataclasses.dataclass
class Sleeping:
    call: object
    row_s: float

    stages = property(lambda self: self.call.stages)

    def run(self, k, args, carry=(), reduced=None):
        if args.valid is not None:
            time.sleep(self.row_s * float(np.sum(args.valid)))
        return self.call.run(k, args, carry, reduced)


def with_a_slow_rank(strategy, row_s=ROW_S):
    """The strategy with rank 0 four times as slow as the others."""

    class Slowed(type(strategy)):
        def method(self, *args):
            plain = super().method(*args)

            class Method(type(plain)):
                def program(self, rank, programs):
                    return Slow(super().program(rank, programs), row_s * (SLOW if rank == 0 else 1))

            return Method(**{f.name: getattr(plain, f.name) for f in dataclasses.fields(plain)})

    return Slowed(**{f.name: getattr(strategy, f.name) for f in dataclasses.fields(strategy)})


@pytest.mark.parametrize(
    "strategy",
    [
        AllReduce(),
        pytest.param(StaleSynchronous(0), marks=pytest.mark.soak),
        pytest.param(StaleSynchronous(3), marks=pytest.mark.soak),
    ],
    ids=lambda s: f"{type(s).__name__}",
)
def test_rows_leave_a_worker_that_is_always_slow(strategy):
    deterministic = getattr(strategy, "staleness", 0) == 0
    source, data = mlp(dropout=True), shards((40,) * 12)
    options = dict(epochs=8, batch_size=48)
    strategy = dataclasses.replace(strategy, deterministic=deterministic, timeout_s=20)
    fits = {}
    for balance in (False, True):
        began = time.perf_counter()
        slowed = with_a_slow_rank(dataclasses.replace(strategy, balance=balance))
        result, hooks, driver = fit_in_threads(source, data, 3, slowed, **options)
        fits[balance] = result, hooks, driver, time.perf_counter() - began
    (plain, told, _, _), (moved, hooks, driver, _) = fits[False], fits[True]
    assert not [e for e in told.events if e.kind == "rebalanced"]
    first = next(e for e in hooks.events if e.kind == "rebalanced")
    assert sum(first.details["rows"]) == 480 and first.details["rows"][0] <= 120
    assert "shards move by the workers' speeds before epoch" in first.text
    assert [(r.epoch, r.step) for r in hooks.steps] == [(e, s) for e in range(8) for s in range(10)]
    for end, other in zip(hooks.ends, told.ends, strict=True):  # every row once, as ever
        assert end.sums[1:].tolist() == other.sums[1:].tolist()
    if deterministic:
        assert digest(moved) == digest(plain)
    assert driver.settings.owners.count(0) <= 3

"""Whole fits with ranks as threads: the plan, the worker loop, the driver and real sockets, without Spark."""

import numpy as np
import pytest
from tests.runtime.cases import fit_in_threads, mlp, shards

SIZES = (13, 0, 29, 5, 20)


def test_one_worker_trains():
    result, hooks, driver = fit_in_threads(mlp(), shards(SIZES), 1, epochs=3)
    assert [e.rows for e in hooks.ends] == [67] * 3
    losses = [e.sums[0] / e.sums[1] for e in hooks.ends]
    assert losses[2] < losses[0]
    assert result.iteration == 15

"""`fit(rdd, strategy=...)` for strategies with long-lived workers: nets with dropout and batch normalisation, uneven and
empty partitions, validation; a worker killed on the way changes no bit, nor does the number of workers."""

import dataclasses

import numpy as np
import pytest
from kerasoft.runtime import AllReduce, DriverReduce, LocalSGD, ParameterAveraging, TopK
from kerasoft.runtime.faults import Fault, Script

from tests.training.test_spark_fit import close, cnn, data, digest, mlp, ready, rows_of

pytestmark = pytest.mark.spark

STRATEGIES = {
    "LocalSGD": (cnn, LocalSGD(2, deterministic=True)),
    "ParameterAveraging best": (mlp, ParameterAveraging(3, combine="best", deterministic=True)),
    "AllReduce buckets": (cnn, AllReduce(deterministic=True, buckets=3)),
    "AllReduce compressed ring": (mlp, AllReduce(deterministic=True, compression=TopK(0.2), topology="ring")),
}


def killed(strategy, *faults):
    """The strategy with failures on purpose."""
    from kerasoft.runtime.spark import train

    class Killed(type(strategy)):
        def fit(self, job, data, validation, hooks):
            self.said = []
            told, hooks.on_event = hooks.on_event, lambda event: (self.said.append(event.kind), told(event))
            return train(job, data, validation, self, hooks, Script(faults))

    return Killed(**{f.name: getattr(strategy, f.name) for f in dataclasses.fields(strategy)})


@pytest.mark.parametrize("name", STRATEGIES)
def test_a_killed_worker_and_other_numbers_change_no_bit(context, name):
    make, strategy = STRATEGIES[name]
    x, y = data(make)
    rows = rows_of(context, x, y)
    options = dict(batch_size=16, epochs=3, verbose=0, seed=5, validation_data=rows)
    alone, lost = ready(make), ready(make)
    calm = alone.fit(rows, strategy=dataclasses.replace(strategy, workers=1), **options)
    hurt = killed(dataclasses.replace(strategy, workers=2), Fault(1, 1, 1, "kill"))
    disturbed = lost.fit(rows, strategy=hurt, **options)
    assert hurt.said.count("worker_lost") == hurt.said.count("retrying") == 1
    assert digest(lost) == digest(alone)
    assert calm.history.keys() == disturbed.history.keys() and len(calm.history["loss"]) == 3
    for key, values in calm.history.items():
        np.testing.assert_allclose(values, disturbed.history[key], rtol=1e-6)
    assert lost.last_fit_profile.rows >= 3 * 61


def test_driver_reduce_agrees_with_all_reduce(context):
    x, y = data(cnn)
    rows = rows_of(context, x, y)
    options = dict(batch_size=32, epochs=2, verbose=0, seed=5, validation_data=rows)
    one, other = ready(cnn), ready(cnn)
    first = one.fit(rows, strategy=AllReduce(2), **options)
    second = other.fit(rows, strategy=DriverReduce(), **options)
    close(one, other)
    for name, values in first.history.items():
        np.testing.assert_allclose(values, second.history[name], rtol=1e-5)

"""Fits on real executor processes."""

import dataclasses

import numpy as np
import pytest
from kerasoft.runtime import AllReduce
from kerasoft.runtime.shards import table_of

from tests.runtime.cases import Recorder, fit_in_threads, job_of, mlp, shards, weights

pytestmark = pytest.mark.spark
SIZES = (13, 0, 29, 5, 20)


@dataclasses.dataclass
class Blocks:
    rdd: object
    table: object


def blocks(context, data, partitions=3):
    records = [(s, q, b) for s, parts in enumerate(data) for q, b in enumerate(parts)]
    return Blocks(context.parallelize(records, partitions).cache(), table_of(data))


def fit(context, source, data, strategy, validation=None, hooks=None, faults=(), **job):
    from kerasoft.runtime.faults import Script
    from kerasoft.runtime.spark import train

    hooks = hooks or Recorder()
    valid = None if validation is None else blocks(context, validation)
    made = blocks(context, data)
    result = train(job_of(source, **job), made, valid, strategy, hooks, Script(tuple(faults)))
    return result, hooks


def test_workers_train_and_agree_with_threads(context):
    data, validation = shards(SIZES), shards((9, 4), seed=5)
    here, hooks, _ = fit_in_threads(mlp(), data, 1, epochs=2, validation=validation)
    there, others = fit(context, mlp(), data, AllReduce(workers=2), validation=validation, epochs=2)
    np.testing.assert_allclose(weights(there), weights(here), rtol=2e-5, atol=1e-6)
    print(there.profile)
    for a, b in zip(hooks.ends, others.ends, strict=True):
        np.testing.assert_allclose(a.sums, b.sums, rtol=1e-5)
        np.testing.assert_allclose(a.validation_sums, b.validation_sums, rtol=1e-5)

"""Weights do not depend on how many iterations a Spark job carries."""

import pytest
from kerasoft.runtime import AllReduce

from tests.benchmarks.groups import in_groups
from tests.runtime.cases import digest, fit_in_threads, job_of, mlp, shards


@pytest.mark.parametrize("group", [1, 3, 6])
def test_bits_do_not_depend_on_the_group(group):
    source, data = mlp(dropout=True), shards((30, 0, 40))

    def fit(job):
        names = ("params", "state", "slots", "iteration", "initial_step", "steps_per_epoch", "epochs", "batch_size")
        options = {name: getattr(job, name) for name in names}
        return fit_in_threads(source, data, 2, AllReduce(deterministic=True, timeout_s=20), **options)[0]

    whole = in_groups(job_of(source, batch_size=8), 6, 6, fit)
    assert whole.iteration == 6
    assert digest(in_groups(job_of(source, batch_size=8), group, 6, fit)) == digest(whole)

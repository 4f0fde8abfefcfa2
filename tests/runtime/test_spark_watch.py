"""A Spark job in which nothing moves is cancelled and named."""

import time

import pytest
from kerasoft.runtime.spark_watch import Watch
from py4j.protocol import Py4JError

pytestmark = pytest.mark.spark


def test_a_job_whose_tasks_do_not_end_is_cancelled(context):
    assert context.parallelize(range(4), 4).map(lambda x: x + 1).sum() == 10  # Python workers are there
    began = time.monotonic()
    with Watch(context, 5.0) as jobs:  # a loaded machine may need seconds to begin a task
        assert context.parallelize(range(4), 4).map(lambda x: x + 1).sum() == 10
        assert jobs.why() == ""
        with pytest.raises(Py4JError, match="cancelled"):
            context.parallelize(range(2), 2).map(lambda x: time.sleep(60 * x)).count()
        why = jobs.why()
        assert "none of its tasks ended for 5 s (stage " in why and "1 of 2 tasks run" in why
        assert jobs.why() == ""
        assert context.parallelize([1, 2], 2).count() == 2
    assert time.monotonic() - began < 25


def test_tasks_that_end_and_other_progress_keep_a_job_alive(context):
    moved = []
    with Watch(context, 2.0, lambda: moved.append(1) or len(moved)) as jobs:
        assert context.parallelize([0], 1).map(lambda x: time.sleep(4)).count() == 1
    with Watch(context, 2.0) as jobs:
        assert context.parallelize(range(8), 8).map(lambda x: time.sleep(0.25 * x)).count() == 8
        assert jobs.why() == ""

"""Schedules of pipelines against the closed form of their bubble, and against what a stage may know and hold."""

import itertools

import pytest
from kerasoft.runtime.parallel.schedule import BACKWARD, FORWARD, SCHEDULES, bubble, held, makespan

GRIDS = list(itertools.product((1, 2, 3, 5, 8), (1, 2, 4, 9, 16)))


@pytest.mark.parametrize("schedule", SCHEDULES)
@pytest.mark.parametrize("stages, microbatches", GRIDS)
def test_the_bubble_is_the_closed_form(schedule, stages, microbatches):
    seconds = makespan(schedule, stages, microbatches, [1.0] * stages, [2.0] * stages)
    assert 1 - 3.0 * microbatches / seconds == pytest.approx(bubble(stages, microbatches))


@pytest.mark.parametrize("schedule", SCHEDULES)
@pytest.mark.parametrize("stages, microbatches", GRIDS)
def test_each_task_once_backward_in_order_after_forward(schedule, stages, microbatches):
    for stage in range(stages):
        tasks = SCHEDULES[schedule](stage, stages, microbatches)
        assert sorted(tasks) == sorted((kind, a) for kind in (FORWARD, BACKWARD) for a in range(microbatches))
        for kind in (FORWARD, BACKWARD):
            assert [a for k, a in tasks if k == kind] == list(range(microbatches))
        for a in range(microbatches):
            assert tasks.index((FORWARD, a)) < tasks.index((BACKWARD, a))
        most = microbatches if schedule == "gpipe" else min(stages - stage, microbatches)
        assert held(tasks) == most


def test_a_slow_stage_sets_the_pace():
    """It works without a pause between its first task and its last: one microbatch of the stage before it on either side."""
    seconds = makespan("1f1b", 3, 10, [1.0, 4.0, 1.0], [1.0, 4.0, 1.0])
    assert seconds == pytest.approx(1 + 10 * 8 + 1)

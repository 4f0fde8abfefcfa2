"""AllReduce by buckets, ranks as threads: the weights of AllReduce, in an order that lets the exchange overlap."""

import dataclasses

import numpy as np
import pytest
from kerasoft.compiler.errors import ProgramError
from kerasoft.runtime import AllReduce
from kerasoft.runtime.buckets import BucketedStep
from kerasoft.runtime.collectives import Solo
from kerasoft.runtime.faults import Fault
from kerasoft.runtime.feed import Call, Step

from tests.runtime.cases import Recorder, digest, fit_in_threads, mlp, shards, weights
from tests.runtime.test_driver import Dies

SIZES = (13, 0, 29, 5, 20)
MODELS = [
    {"dropout": True},
    {"clip": True},  # norms: updates wait for the last bucket
    {"clip": True, "update_mode": "replicated"},
]


def fit(model, world_size, strategy, **more):
    return fit_in_threads(mlp(**model), shards(SIZES), world_size, dataclasses.replace(strategy, timeout_s=5), **more)


@pytest.mark.parametrize("model", MODELS, ids=str)
@pytest.mark.parametrize("deterministic", [False, True])
def test_weights_are_those_without_buckets(model, deterministic):
    world_size = 2 if deterministic else 3
    options = dict(epochs=2, validation=shards((9, 4), seed=3))
    plain, told, _ = fit(model, world_size, AllReduce(deterministic=deterministic), **options)
    cut, hooks, driver = fit(model, world_size, AllReduce(deterministic=deterministic, buckets=2), **options)
    assert driver.settings.method.buckets == 2
    np.testing.assert_allclose(weights(cut), weights(plain), atol=1e-6)
    if deterministic:
        assert digest(cut) == digest(plain)
    assert len(hooks.steps) == len(told.steps) == 10
    for end, other in zip(hooks.ends, told.ends, strict=True):
        np.testing.assert_allclose(end.sums, other.sums, rtol=1e-5)
        np.testing.assert_allclose(end.validation_sums, other.validation_sums, rtol=1e-5)


@pytest.mark.parametrize("model", MODELS, ids=str)
def test_deaths_and_a_driver_that_goes_on_without_buckets_change_no_bit(model, tmp_path):
    strategy = AllReduce(deterministic=True, buckets=2)
    calm = fit(model, 2, AllReduce(deterministic=True), epochs=2)[0]
    lost, hooks, _ = fit(model, 3, strategy, epochs=2, faults=[Fault(1, 1, 3, "leave")], checkpoint_every_steps=2)
    assert digest(lost) == digest(calm)
    assert [(r.epoch, r.step) for r in hooks.steps] == [(e, s) for e in range(2) for s in range(5)]
    dying = Recorder()

    def die(event):
        if event.kind == "checkpoint" and event.details["epoch"] == 1 and event.details["step"] == 3:
            raise Dies

    dying.on_event = die
    more = dict(epochs=2, folder=tmp_path, checkpoint_every_steps=2)
    with pytest.raises(Dies):
        fit(model, 3, strategy, hooks=dying, **more)
    again = fit(model, 2, AllReduce(deterministic=True), **more)[0]
    assert digest(again) == digest(calm)


def test_sums_inside_a_gradient_leave_it_whole():
    source = mlp(synchronised=True)
    assert source.buckets(2) == () and source.export(train_rows=(4,), buckets=2).train(4).stages == 2
    plain = fit({"synchronised": True}, 2, AllReduce())[0]
    assert digest(fit({"synchronised": True}, 2, AllReduce(buckets=2))[0]) == digest(plain)


def test_bfloat16_rounds_the_same_elements():
    options = dict(epochs=2, transports=("tcp",))
    plain = fit({}, 3, AllReduce(), **options)[0]
    cut, hooks, _ = fit({}, 3, AllReduce(wire_dtype="bfloat16", buckets=2), **options)
    assert 0 < np.abs(cut.params - plain.params).max() < 0.05
    for end in hooks.ends:  # counts and sums of ids never are
        assert end.sums[1:].tolist() == [67, sum(range(67)), sum(i * i for i in range(67))]


class Late:
    """An array that says when it is read."""

    def __init__(self, value, name, log):
        self.value, self.name, self.log = value, name, log

    shape = property(lambda self: self.value.shape)

    def __array__(self, dtype=None, copy=None):
        self.log.append(f"read {self.name}")
        return np.asarray(self.value)


class Loud(Solo):
    def __init__(self, log):
        super().__init__()
        self.log = log

    def reduce_scatter(self, vector):
        self.log.append(f"reduce {vector.size}")
        return super().reduce_scatter(vector)

    def all_gather(self, owned, elements, *others, **named):
        self.log.append(f"gather {elements}")
        return super().all_gather(owned, elements, *others, **named)


def test_a_bucket_travels_before_the_next_is_there():
    log: list[str] = []
    program = mlp().export(train_rows=(4,), buckets=2)
    assert program.buckets == ((40, 57), (0, 40))
    part = program.part

    class Watched:
        stages = 2

        def run(self, k, args, carry=(), reduced=None):
            carry, out = part("buckets", 4).run(k, args, carry)
            log.append(f"start {k}")
            return carry, Late(out, k, log)

    program.part = lambda kind, rows: Watched()
    step = BucketedStep(program, 0, (0, 1), (4,))
    step.load(Loud(log), np.ones(48, np.float32), [np.zeros(48, np.float32)] * 2, np.zeros(5, np.float32), 0)
    before = step.params.copy()
    log.clear()
    batch = {"x/0": np.ones((4, 5), np.float32), "y/0": np.ones((4, 1), np.float32)}
    call = Call(0, 4, 4, batch, np.ones(4, np.float32), np.arange(4, dtype=np.uint32))
    finish = step.begin(Step(0, 4, [call]), np.zeros(2, np.uint32))
    running = step.params
    sums, notes = finish(0.1, 3)
    assert log == ["start 0", "start 1", "read 0", "reduce 17", "gather 17", "read 1", "reduce 40", "gather 40"]
    np.testing.assert_array_equal(running, before)  # what the gradient was taken at is not written to
    assert np.abs(step.params - before).min() > 0 and notes == (3,) and sums[0, 1] == 4


def test_what_cannot_be_had():
    with pytest.raises(ValueError, match="double_buffering and buckets cannot be had together"):
        AllReduce(double_buffering=True, buckets=2)
    with pytest.raises(ValueError, match="compression and buckets cannot be had together"):
        AllReduce(compression="2bit", buckets=4)
    with pytest.raises(ValueError, match="buckets needs a whole number of at least 1, got 0"):
        AllReduce(buckets=0)
    with pytest.raises(ProgramError, match="no train call for 4 rows"):
        mlp().export(train_rows=(4,), buckets=2).train(4)

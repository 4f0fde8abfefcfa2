"""Whole fits with ranks as threads: the plan, the worker loop, the driver and real sockets, without Spark."""

import numpy as np
import pytest
from kerasoft.runtime import AllReduce
from kerasoft.runtime.errors import DataChanged, RetriesExhausted, TrainingFailed
from kerasoft.runtime.faults import Fault
from kerasoft.runtime.loop import Decision
from kerasoft.runtime.shards import table_of

from tests.runtime.cases import Recorder, digest, fit_in_threads, mlp, shards, weights

SIZES = (13, 0, 29, 5, 20)


def test_one_worker_trains():
    result, hooks, driver = fit_in_threads(mlp(), shards(SIZES), 1, epochs=3)
    assert [e.rows for e in hooks.ends] == [67] * 3
    losses = [e.sums[0] / e.sums[1] for e in hooks.ends]
    assert losses[2] < losses[0]
    assert result.iteration == 15


@pytest.mark.parametrize("world_size", [2, 3])
@pytest.mark.parametrize(
    "model", [{}, {"clip": True}, {"synchronised": True}, {"update_mode": "replicated"}], ids=lambda m: str(m)
)
def test_any_number_of_workers_agrees_with_one(world_size, model):
    data, validation = shards(SIZES), shards((9, 4), seed=5)
    one, hooks, _ = fit_in_threads(mlp(**model), data, 1, epochs=2, validation=validation)
    many, others, driver = fit_in_threads(mlp(**model), data, world_size, epochs=2, validation=validation)
    np.testing.assert_allclose(weights(many), weights(one), rtol=2e-5, atol=1e-6)
    for a, b in zip(hooks.ends, others.ends, strict=True):
        np.testing.assert_allclose(a.sums, b.sums, rtol=1e-5)
        np.testing.assert_allclose(a.validation_sums, b.validation_sums, rtol=1e-5)
        assert a.validation_sums[1] == 13


@pytest.mark.parametrize("model", [{"dropout": True}, {"clip": True}, {"synchronised": True}], ids=lambda m: str(m))
def test_deterministic_gives_the_same_bits_for_any_number_of_workers(model):
    digests = set()
    sums = set()
    for world_size in (1, 2, 3, 4):
        strategy = AllReduce(deterministic=True, timeout_s=5)
        result, hooks, _ = fit_in_threads(
            mlp(**model), shards(SIZES), world_size, strategy, epochs=2, validation=shards((9, 4))
        )
        digests.add(digest(result))
        sums.add(tuple(np.concatenate([[*e.sums, *e.validation_sums] for e in hooks.ends])))
    assert len(digests) == 1 and len(sums) == 1


@pytest.mark.parametrize("batch_size", [1, 7, 67, 500])
@pytest.mark.parametrize("world_size", [1, 2, 4])
def test_every_row_comes_once_an_epoch(batch_size, world_size):
    _, hooks, _ = fit_in_threads(mlp(), shards(SIZES), world_size, epochs=2, batch_size=batch_size)
    for end in hooks.ends:
        assert end.sums[1:].tolist() == [67, sum(range(67)), sum(i * i for i in range(67))]
    assert sum(r.rows for r in hooks.steps) == 134


def undisturbed(world_size, **more):
    return fit_in_threads(
        mlp(dropout=True),
        shards(SIZES),
        world_size,
        AllReduce(deterministic=True, timeout_s=5),
        **({"epochs": 3} | more),
    )


@pytest.mark.parametrize("every", [0, 2])
@pytest.mark.parametrize(
    "fault", [Fault(1, 1, 2, "leave"), Fault(0, 1, 2, "leave"), Fault(1, 0, 0, "leave", "validation")]
)
def test_a_lost_worker_changes_no_bit(fault, every):
    validation = shards((9, 4))
    calm, told, _ = undisturbed(3, validation=validation)
    lost, hooks, driver = undisturbed(3, validation=validation, faults=[fault], checkpoint_every_steps=every)
    assert digest(lost) == digest(calm)
    assert lost.iteration == calm.iteration == 15
    kinds = [e.kind for e in hooks.events]
    assert kinds.count("worker_lost") == kinds.count("retrying") == 1
    loss = next(e for e in hooks.events if e.kind == "worker_lost")
    assert loss.details["rank"] == fault.rank and f"rank {fault.rank} (host " in loss.text
    assert f"epoch {fault.epoch + 1}, step " in loss.text
    # every step is told once, in order, and every epoch's sums are exact
    assert [(r.epoch, r.step) for r in hooks.steps] == [(e, s) for e in range(3) for s in range(5)]
    assert hooks.begun == [0, 1, 2] and [e.epoch for e in hooks.ends] == [0, 1, 2]
    for a, b in zip(told.ends, hooks.ends, strict=True):
        np.testing.assert_array_equal(a.sums, b.sums)
        np.testing.assert_array_equal(a.validation_sums, b.validation_sums)


def test_it_goes_on_from_the_last_checkpoint_not_from_the_start():
    _, hooks, _ = undisturbed(2, faults=[Fault(1, 1, 3, "leave")], checkpoint_every_steps=2)
    retry = next(e for e in hooks.events if e.kind == "retrying")
    assert (retry.details["epoch"], retry.details["step"]) == (1, 3)  # after 8 of 15 steps
    assert retry.text == "attempt 2: going on from epoch 2, step 4"


def test_the_users_own_error_is_not_retried():
    with pytest.raises(TrainingFailed) as error:
        fit_in_threads(mlp(), shards(SIZES), 2, epochs=3, faults=[Fault(1, 1, 2, "raise", generation=None)])
    text = str(error.value)
    assert "rank 1 (host " in text and "raised ValueError in epoch 2, step 3: scripted failure" in text
    assert "raise ValueError(" in text  # the end of its traceback


def test_losses_without_progress_end_the_fit():
    hooks = Recorder()
    with pytest.raises(
        RetriesExhausted, match=r"3 attempts in a row ended without progress; the last: .*rank 1 \(host"
    ):
        faults = [Fault(1, 0, 2, "leave", generation=None)]
        fit_in_threads(mlp(), shards(SIZES), 2, epochs=1, faults=faults, hooks=hooks)
    assert [e.kind for e in hooks.events].count("worker_lost") == 3


def test_changed_rows_end_the_fit():
    data = shards(SIZES)
    source = mlp()
    changed = [*data[:2], [{k: v + 1 for k, v in b.items()} for b in data[2]], *data[3:]]
    with pytest.raises(
        DataChanged, match=r"training data on rank 0: shard 2 is not what it was .* expected fingerprint"
    ):
        fit_in_threads(source, changed, 2, epochs=1, table=table_of(data))


def test_hooks_decide_about_rate_weights_and_stop():
    hooks = Recorder()
    hooks.rate = lambda epoch: [0.05, None, 0.0, 0.0][epoch]
    seen = {}

    def decide(end):
        seen[end.epoch] = end.weights()[0].copy()
        if end.epoch == 0:
            return Decision(learning_rate=0.01)
        if end.epoch == 1:
            return Decision(weights=(np.full_like(seen[1], 0.5), np.zeros(5, "float32")))
        return Decision(stop=end.epoch == 2)

    hooks.decide = decide
    result, hooks, _ = fit_in_threads(mlp(), shards(SIZES), 3, epochs=9, hooks=hooks)
    assert len(hooks.ends) == 3 and [e.learning_rate for e in hooks.ends] == [0.05, 0.01, 0.0]
    np.testing.assert_array_equal(seen[2], np.full(48, 0.5, "float32"))  # a rate of 0 moves nothing
    np.testing.assert_array_equal(result.params, seen[2])


def test_stop_and_rate_within_an_epoch():
    hooks = Recorder()
    hooks.on_report = lambda reports: Decision(stop=True) if reports[-1].step >= 3 else None
    _, hooks, _ = fit_in_threads(mlp(), shards((400,)), 1, epochs=5, hooks=hooks, batch_size=1)
    assert len(hooks.ends) == 1 and 3 < hooks.ends[0].steps < 400
    assert hooks.ends[0].rows == hooks.ends[0].steps == hooks.ends[0].sums[1]


class Dies(Exception):
    pass


@pytest.mark.parametrize("world_size", [1, 3])
def test_a_new_driver_resumes_within_an_epoch(tmp_path, world_size):
    calm, told, _ = undisturbed(2)
    hooks = Recorder()

    def die(event):
        hooks.events.append(event)
        if event.kind == "checkpoint" and event.details["epoch"] == 1 and event.details["step"] == 3:
            raise Dies

    hooks.on_event = die
    with pytest.raises(Dies):
        undisturbed(2, hooks=hooks, folder=tmp_path, checkpoint_every_steps=2)
    result, others, _ = undisturbed(world_size, folder=tmp_path, seed=5)  # another seed, as a new process would have
    assert digest(result) == digest(calm)
    assert others.loaded == {"ends": 1, "steps": 8}
    assert others.begun == [1, 2] and [(r.epoch, r.step) for r in others.steps][:2] == [(1, 3), (1, 4)]
    np.testing.assert_array_equal(others.ends[0].sums, told.ends[1].sums)
    again, _, _ = undisturbed(1, folder=tmp_path, epochs=3)  # that fit has finished: this one starts afresh
    assert again.iteration == 15 and digest(again) == digest(calm)


@pytest.mark.parametrize("world_size", [2, 3])
def test_bfloat16_halves_the_bytes_and_stays_close(world_size):
    full, _, driver = fit_in_threads(mlp(features=300), shards(SIZES, features=300), world_size, epochs=1)
    wire = AllReduce(wire_dtype="bfloat16", timeout_s=5)
    half, hooks, other = fit_in_threads(
        mlp(features=300), shards(SIZES, features=300), world_size, wire, epochs=1, transports=("tcp",)
    )
    np.testing.assert_allclose(half.params, full.params, atol=0.05)
    assert np.abs(half.params - full.params).max() > 0
    assert hooks.ends[0].sums[1:].tolist() == [67, sum(range(67)), sum(i * i for i in range(67))]


@pytest.mark.parametrize("options", [{}, {"deterministic": True}, {"buckets": 2}, {"double_buffering": True}], ids=str)
def test_with_bfloat16_a_death_changes_no_bit(options):
    """The checkpoint holds float32 weights; all compute with rounded ones, from the first step of an attempt on."""
    strategy, more = AllReduce(wire_dtype="bfloat16", timeout_s=5, **options), dict(epochs=2, transports=("tcp",))
    calm, told, _ = fit_in_threads(mlp(dropout=True), shards(SIZES), 3, strategy, **more)
    lost, hooks, _ = fit_in_threads(
        mlp(dropout=True),
        shards(SIZES),
        3,
        strategy,
        faults=[Fault(1, 1, 3, "leave")],
        checkpoint_every_steps=2,
        **more,
    )
    assert [e.kind for e in hooks.events].count("retrying") == 1 and digest(lost) == digest(calm)
    assert [(r.epoch, r.step) for r in hooks.steps] == [(r.epoch, r.step) for r in told.steps]
    exact = fit_in_threads(mlp(dropout=True), shards(SIZES), 3, AllReduce(timeout_s=5, **options), **more)[0]
    assert digest(calm) != digest(exact), "nothing was rounded"


def test_with_bfloat16_weights_of_a_callback_are_rounded_like_all_others():
    given = np.linspace(-1, 1, 48).astype(np.float32), np.full(5, 0.5, np.float32)
    found = []
    for faults in ((), [Fault(1, 1, 0, "leave")]):
        hooks = Recorder()
        hooks.decide = lambda end: Decision(weights=given) if end.epoch == 0 else None
        found.append(
            fit_in_threads(
                mlp(), shards(SIZES), 3, AllReduce(wire_dtype="bfloat16", timeout_s=5), hooks=hooks, epochs=2, faults=faults,
                transports=("tcp",),
            )[0]
        )  # fmt: skip
    assert digest(found[0]) == digest(found[1])


def test_more_workers_than_parameters_or_rows():
    one, _, _ = fit_in_threads(mlp(), shards((2, 1)), 1, epochs=2)
    many, hooks, _ = fit_in_threads(mlp(), shards((2, 1)), 4, epochs=2)
    np.testing.assert_allclose(weights(many), weights(one), rtol=1e-5)
    clipped, _, _ = fit_in_threads(mlp(clip=True), shards((2, 1)), 4, epochs=1)
    assert np.isfinite(clipped.params).all()


def test_rows_in_files_give_the_same_bits():
    memory, _, _ = undisturbed(2)
    strategy = AllReduce(deterministic=True, timeout_s=5, memory_cap_bytes=100)
    files, _, _ = fit_in_threads(mlp(dropout=True), shards(SIZES), 2, strategy, epochs=3)
    assert digest(files) == digest(memory)


def test_profile_adds_up():
    result, _, driver = fit_in_threads(mlp(), shards((400,)), 2, epochs=2)
    profile = result.profile
    assert sum(profile.seconds.values()) == pytest.approx(profile.wall_s, rel=0.02)
    assert {"input", "compute", "sync", "wait", "update", "compile"} <= set(profile.seconds)
    assert len(profile.by_worker) == 2 and profile.steps == 50 and profile.rows == 800


def test_settings_of_the_strategy_are_checked():
    for settings, text in (
        ({"workers": 0}, r"workers needs a whole number of at least 1, two of them \(fewest, most\), or None, got 0"),
        ({"shards": 1.5}, "shards needs a whole number of at least 1 or None, got 1.5"),
        ({"wire_dtype": "float16"}, "wire_dtype needs 'float32' or 'bfloat16', got 'float16'"),
        ({"timeout_s": 0}, "timeout_s needs seconds above 0, got 0"),
        ({"checkpoint": 3}, "checkpoint needs a path or URI as text, got 3"),
    ):
        with pytest.raises(ValueError, match=text):
            AllReduce(**settings)


@pytest.mark.parametrize("world_size", [2, 3])
@pytest.mark.parametrize("wire_dtype, itemsize", [("float32", 4), ("bfloat16", 2)])
def test_bytes_on_the_wire_are_as_stated(world_size, wire_dtype, itemsize):
    source, data = mlp(features=400, units=40), shards((20, 20), features=400)
    sent = []
    for epochs in (1, 4):
        strategy = AllReduce(wire_dtype=wire_dtype, timeout_s=5)
        _, hooks, driver = fit_in_threads(
            source, data, world_size, strategy, epochs=epochs, batch_size=8, transports=("tcp",)
        )
        sent.append([c["bytes_sent"] for c in driver.counters])
    layout = source.layout
    vector = layout.P * itemsize + (layout.S + layout.M) * 4  # states and sums are never rounded
    for few, many in zip(*sent, strict=True):
        assert (many - few) / 15 == pytest.approx(2 * (world_size - 1) / world_size * vector, rel=0.03)
    assert (sum(sent[1]) - sum(sent[0])) / 15 == pytest.approx(2 * (world_size - 1) * vector, rel=0.01)
    assert all(r.sums.shape == (4,) for r in hooks.steps)  # what the driver gets of a step does not grow with P

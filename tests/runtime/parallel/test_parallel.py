"""Whole fits of models that are cut among ranks, as threads: the weights of one process, checkpoints, deaths."""

import numpy as np
import pytest
from kerasoft.runtime import AllReduce, Parallel
from kerasoft.runtime.errors import RetriesExhausted
from kerasoft.runtime.faults import Fault

from tests.runtime.cases import Recorder, digest, fit_in_threads, mlp, shards, weights

SIZES = (13, 0, 29, 5, 20)
FEATURES = 40
MODEL = mlp(FEATURES, 64, dropout=True)
VALIDATION = shards((9, 4), FEATURES, seed=5)
CUTS = {
    "pipeline": dict(pipeline=2),
    "gpipe": dict(pipeline=2, microbatches=3, schedule="gpipe"),
    "pipeline, two replicas": dict(pipeline=2, data=2, microbatches=2),
    "split layers": dict(model=2),
    "split layers, two replicas": dict(model=2, data=2),
    "slices": dict(data=3, zero=3),
}


def cut(name, **more):
    return Parallel(timeout_s=20, **CUTS[name], **more)


def fit(strategy, **options):
    options = {"epochs": 2} | options
    return fit_in_threads(MODEL, shards(SIZES, FEATURES), strategy.limits[0], strategy, **options)


@pytest.fixture(scope="module")
def alone():
    """One process: result and hooks."""
    return fit_in_threads(MODEL, shards(SIZES, FEATURES), 1, epochs=2, validation=VALIDATION)[:2]


@pytest.mark.parametrize("name", [n if n != "gpipe" else pytest.param(n, marks=pytest.mark.soak) for n in CUTS])
def test_a_cut_model_is_trained_as_by_one_process(name, alone):
    result, hooks, _ = fit(cut(name), validation=VALIDATION)
    np.testing.assert_allclose(weights(result), weights(alone[0]), rtol=2e-5, atol=1e-6)
    assert [(r.epoch, r.step) for r in hooks.steps] == [(e, s) for e in range(2) for s in range(5)]
    for a, b in zip(alone[1].ends, hooks.ends, strict=True):
        np.testing.assert_allclose(a.sums, b.sums, rtol=1e-5)
        assert b.sums[1:].tolist() == [67, sum(range(67)), sum(i * i for i in range(67))]  # every row once
        np.testing.assert_allclose(a.validation_sums, b.validation_sums, rtol=1e-5)


def test_ranks_hold_the_arrays_that_their_part_reads(monkeypatch):
    from kerasoft.runtime.store import ShardStore

    held, keep = [], ShardStore.keep

    def spy(store, names):
        keep(store, names)
        held.append((sorted(names), sorted(store.specs())))

    monkeypatch.setattr(ShardStore, "keep", spy)
    result, _, _ = fit(cut("pipeline"), epochs=1)
    assert sorted(held) == [(["x/0"], ["x/0"]), (["y/0"], ["y/0"])]
    assert np.isfinite(weights(result)).all()


def test_schedules_give_the_same_bits():
    one, other = (fit(Parallel(pipeline=2, microbatches=4, schedule=s))[0] for s in ("1f1b", "gpipe"))
    assert digest(one) == digest(other)


def test_deterministic_gives_the_same_bits_for_any_number_of_replicas():
    results = [fit(Parallel(data=d, pipeline=2, microbatches=2, deterministic=True))[0] for d in (1, 2)]
    assert digest(results[0]) == digest(results[1])


@pytest.mark.parametrize("name, rank", [("pipeline, two replicas", 0), ("split layers, two replicas", 3)])
def test_a_lost_part_changes_no_bit(name, rank):
    calm, _, _ = fit(cut(name))
    fault = Fault(rank, 1, 2, "leave")
    lost, hooks, _ = fit(cut(name), faults=[fault], checkpoint_every_steps=2)
    kinds = [e.kind for e in hooks.events]
    assert kinds.count("worker_lost") == kinds.count("retrying") == 1
    loss = next(e for e in hooks.events if e.kind == "worker_lost")
    assert loss.details["rank"] == rank
    assert digest(lost) == digest(calm)


@pytest.mark.parametrize(
    "first, then",
    [
        ("pipeline", None),
        pytest.param(None, "slices", marks=pytest.mark.soak),
        pytest.param("slices", "split layers, two replicas", marks=pytest.mark.soak),
    ],
)
def test_a_checkpoint_goes_on_with_another_cut(first, then, alone, tmp_path):
    strategies = [AllReduce(2) if name is None else cut(name) for name in (first, then)]
    with pytest.raises(RetriesExhausted):
        fit(
            strategies[0],
            faults=[Fault(1, 1, 2, "leave", generation=None)],
            checkpoint_every_steps=2,
            folder=str(tmp_path),
        )
    hooks = Recorder()
    result, _, _ = fit(strategies[1], folder=str(tmp_path), hooks=hooks)
    assert [e.kind for e in hooks.events].count("resumed") == 1 and hooks.loaded is not None
    np.testing.assert_allclose(weights(result), weights(alone[0]), rtol=2e-5, atol=1e-6)


def test_a_rate_weights_and_stop_reach_all_parts():
    """Descent at rate 0 from weights that a callback set: they come back as they were."""
    from kerasoft.runtime.loop import Decision

    hooks = Recorder()
    given = np.linspace(-1, 1, MODEL.layout.P).astype(np.float32)

    def decide(end):
        if end.epoch == 0:
            return Decision(learning_rate=0.0, weights=(given, np.zeros(FEATURES, np.float32)))
        return Decision(stop=end.epoch == 1)

    hooks.decide = decide
    result, _, _ = fit(cut("pipeline, two replicas"), hooks=hooks, epochs=5)
    assert len(hooks.ends) == 2
    np.testing.assert_array_equal(result.params, given)


def test_what_cannot_be_cut_is_said():
    with pytest.raises(ValueError, match="one of model, pipeline and zero at a time, got model=2, pipeline=2"):
        Parallel(model=2, pipeline=2)
    with pytest.raises(ValueError, match="workers follow from data \\* model"):
        Parallel(workers=4, model=2)
    with pytest.raises(ValueError, match="zero needs 3 .* or 0, got 2"):
        Parallel(data=2, zero=2)
    with pytest.raises(ValueError, match="zero=3 exchanges float32 directly"):
        Parallel(data=2, zero=3, topology="ring")
    with pytest.raises(ValueError, match="schedule needs one of \\['1f1b', 'gpipe'\\], got 'ring'"):
        Parallel(pipeline=2, schedule="ring")
    with pytest.raises(ValueError, match="microbatches need a pipeline"):
        Parallel(model=2, microbatches=2)
    with pytest.raises(ValueError, match="needs all weights at once"):
        fit_in_threads(mlp(update_mode="replicated"), shards(SIZES), 2, Parallel(pipeline=2), epochs=1)

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


def weights(result):
    return np.concatenate([result.params, result.state, *result.slots])


def digest(result):
    import hashlib

    return hashlib.sha256(weights(result).tobytes()).hexdigest()


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


@pytest.mark.parametrize("model", [{}, {"clip": True}, {"synchronised": True}], ids=lambda m: str(m))
def test_deterministic_gives_the_same_bits_for_any_number_of_workers(model):
    from kerasoft.runtime import AllReduce

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

"""Masked losses, batch normalisation and `deterministic` on parts of a model: the weights of one process, the same bits."""

import numpy as np
import pytest
from kerasoft.runtime import AllReduce, Parallel
from kerasoft.runtime.faults import Fault

import kerasoft as ks
from tests.compiler.parallel import together
from tests.runtime.cases import digest, fit_in_threads, weights

SIZES = (13, 0, 29, 5, 20)
SLOW = pytest.mark.soak
LOSS = ks.losses.SparseCategoricalCrossentropy(from_logits=True)


def data_of(make, optimizer=None, seed=4):
    """The source of a model, and rows for it in uneven shards."""
    model, x, y = make()  # by SGD: Adam makes steps out of the rounding errors of gradients that are zero
    model.compile(optimizer or ks.optimizers.SGD(momentum=0.9), LOSS, metrics=["accuracy"])
    source = together.source_of(model, x, y, 16)[0]
    rng, edges = np.random.default_rng(seed), np.cumsum([0, *SIZES])
    pick = rng.integers(0, len(x), edges[-1])
    xs, ys = x[pick], y[pick]
    names = [spec.name for spec in source.inputs]
    return source, [[dict(zip(names, (xs[a:b], ys[a:b])))] if b > a else [] for a, b in zip(edges, edges[1:])]


def fit(source, data, strategy=None, **options):
    world = strategy.limits[0] if strategy else 1
    return fit_in_threads(source, data, world, strategy, **{"epochs": 2, "validation": data[2:4], **options})


def agree(source, data, strategy):
    alone, cut = fit(source, data), fit(source, data, strategy)
    np.testing.assert_allclose(
        weights(cut[0]), weights(alone[0]), rtol=0, atol=1e-5 * max(1, np.abs(weights(alone[0])).max())
    )
    for a, b in zip(alone[1].ends, cut[1].ends, strict=True):
        np.testing.assert_allclose(b.sums, a.sums, rtol=1e-5)
        np.testing.assert_allclose(b.validation_sums, a.validation_sums, rtol=1e-5)


def cut(**options):
    return Parallel(timeout_s=20, **options)


@pytest.mark.parametrize(
    "strategy",
    [
        cut(pipeline=2, data=2, microbatches=2),
        pytest.param(cut(data=3, zero=3), marks=SLOW),
        pytest.param(cut(model=2, data=2), marks=SLOW),
        cut(model=2, data=2, deterministic=True),
        pytest.param(cut(pipeline=2, deterministic=True), marks=SLOW),
        pytest.param(cut(data=2, zero=3, deterministic=True), marks=SLOW),
        AllReduce(2, deterministic=True, timeout_s=20),  # validation has other shards than training
    ],
    ids=["stages", "slices", "split", "split, fixed tree", "stages, fixed tree", "slices, fixed tree", "whole"],
)
def test_masked_losses_divide_by_the_steps_of_the_whole_batch(strategy):
    agree(*data_of(together.masked), strategy)


@pytest.mark.parametrize("workers", [3, pytest.param(2, marks=SLOW)])
def test_slices_train_models_with_statistics_of_a_batch(workers):
    agree(*data_of(lambda: together.mlp(depth=1)), cut(data=workers, zero=3))


@pytest.mark.parametrize(
    "strategy",
    [
        pytest.param(cut(data=3, zero=3), marks=SLOW),
        pytest.param(cut(pipeline=2, data=2, microbatches=1), marks=SLOW),
        pytest.param(cut(model=2, data=2), marks=SLOW),
    ],
    ids=["slices", "stages", "split"],
)
def test_synchronised_statistics_are_those_of_the_whole_batch(strategy):
    agree(*data_of(together.synchronised), strategy)


@pytest.mark.parametrize(
    "make", [lambda: together.mlp(depth=1), pytest.param(together.masked, marks=SLOW)], ids=["normalised", "masked"]
)
def test_deterministic_slices_have_the_same_bits_for_any_number_of_workers(make):
    source, data = data_of(make)
    one, three = (fit(source, data, cut(data=d, zero=3, deterministic=True)) for d in (1, 3))
    assert digest(one[0]) == digest(three[0])
    for a, b in zip(one[1].ends, three[1].ends, strict=True):
        np.testing.assert_array_equal(a.sums, b.sums)


@SLOW
def test_a_lost_worker_changes_no_bit_of_deterministic_slices():
    source, data = data_of(lambda: together.mlp(depth=1))
    strategy = cut(data=2, zero=3, deterministic=True)
    calm = fit(source, data, strategy)[0]
    lost, hooks, _ = fit(source, data, strategy, faults=[Fault(1, 1, 2, "leave")], checkpoint_every_steps=2)
    assert [e.kind for e in hooks.events].count("worker_lost") == 1
    assert digest(lost) == digest(calm)


@pytest.mark.parametrize(
    "strategy",
    [cut(pipeline=2, microbatches=2), cut(model=2, deterministic=True), cut(data=2, zero=3, deterministic=True)],
)
def test_synchronised_statistics_need_one_call_a_step(strategy):
    with pytest.raises(ValueError, match="in the middle of a step .*synchronized=True.* several calls"):
        fit(*data_of(together.synchronised), strategy)


def test_norms_of_deterministic_slices_are_refused():
    data = data_of(lambda: together.mlp(depth=1), ks.optimizers.SGD(global_clipnorm=1.0))
    with pytest.raises(ValueError, match="zero=3, deterministic=True.*: this optimizer needs norms of weights"):
        fit(*data, cut(data=2, zero=3, deterministic=True))

"""Tables that are updated by rows among several ranks: the numbers of whole tables, the same bits for any number of ranks."""

import numpy as np
import pytest
from kerasoft.compiler import row_program, rows
from kerasoft.runtime import AllReduce
from kerasoft.runtime.faults import Fault
from kerasoft.runtime.table import add_rows, bucket

import kerasoft as ks
from kerasoft.training.inputs import to_arrays
from tests.runtime.cases import Recorder, digest, fit_in_threads, weights

ROWS = 67
_random = np.random.default_rng(3)
USERS = (_random.zipf(1.5, ROWS) % 30).astype("int32")
ITEMS = (_random.zipf(1.5, (ROWS, 2)) % 20).astype("int32")
Y = _random.normal(size=(ROWS, 1)).astype("float32")


@pytest.fixture
def small(monkeypatch):
    monkeypatch.setattr(rows, "LEAST_SIZE", 1)
    monkeypatch.setattr(rows, "ROWS_PER_LOOKUP", 0)


def source(optimizer, normalized=False):
    """Two tables and a dense layer; one table is looked up at three places. `normalized`: calls of several stages."""
    ks.utils.set_random_seed(1)
    user, items = ks.Input((), dtype="int32", name="user"), ks.Input((2,), dtype="int32", name="items")
    table = ks.layers.Embedding(30, 3, name="items_table")
    x = ks.layers.Concatenate()(
        [ks.layers.Embedding(40, 3, name="users")(user), ks.layers.Flatten()(table(items)), table(user)]
    )
    x = ks.layers.BatchNormalization(synchronized=True, name="norm")(x) if normalized else x
    x = ks.layers.Dropout(0.1)(ks.layers.Dense(4, activation="tanh", name="hidden")(x))
    model = ks.Model([user, items], ks.layers.Dense(1, name="out")(x))
    model.compile(optimizer, "mse")
    arrays = to_arrays(model, [USERS, ITEMS], Y)
    return model._program(arrays.signature, "train", "test").source, arrays.arrays


OPTIMIZERS = {
    "adam": lambda: ks.optimizers.Adam(0.01, epsilon=1e-4),
    "adamw": lambda: ks.optimizers.AdamW(ks.optimizers.schedules.CosineDecay(0.02, 50), weight_decay=0.1),
    "momentum": lambda: ks.optimizers.SGD(0.05, momentum=0.9),
}


def fit(world_size, optimizer="adam", sizes=(13, 0, 29, 5, 20), **more):
    made, arrays = source(OPTIMIZERS[optimizer](), optimizer == "momentum")
    data, start = [], 0
    for n in sizes:
        data.append([{k: v[i : i + 7] for k, v in _cut(arrays, start, n).items()} for i in range(0, n, 7)])
        start += n
    given = {"epochs": 3, "validation": data[:3], "seed": 4} | more
    strategy = given.pop("strategy", AllReduce(timeout_s=5))
    return fit_in_threads(made, data, world_size, strategy, **given)


def _cut(arrays, start, n):
    return {k: np.ascontiguousarray(v[start : start + n]) for k, v in arrays.items()}


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_equals_whole_tables(monkeypatch, optimizer):
    whole, told, _ = fit(2, optimizer)
    monkeypatch.setattr(rows, "LEAST_SIZE", 1)
    monkeypatch.setattr(rows, "ROWS_PER_LOOKUP", 0)
    for world_size, topology in ((1, "direct"), (3, "ring" if optimizer == "adam" else "direct")):
        strategy = AllReduce(timeout_s=5, topology=topology)
        some, heard, driver = fit(world_size, optimizer, strategy=strategy)
        assert driver.settings.method.by_rows == ("users/embeddings", "items_table/embeddings")
        np.testing.assert_allclose(weights(some), weights(whole), rtol=1e-5, atol=1e-6)
        for a, b in zip(told.ends, heard.ends, strict=True):
            np.testing.assert_allclose(a.sums, b.sums, rtol=1e-5)
            np.testing.assert_allclose(a.validation_sums, b.validation_sums, rtol=1e-5)


def certain(world_size, **more):
    strategy = AllReduce(deterministic=True, timeout_s=5)
    return fit(world_size, **{"strategy": strategy, "optimizer": "adamw"} | more)


def test_the_same_bits_for_any_number_of_workers(small, monkeypatch):
    monkeypatch.setattr(row_program, "HISTORY", 8)  # all rows are brought up to date in mid-epoch
    results = [certain(n)[0] for n in (1, 2, 4)]
    assert len({digest(r) for r in results}) == 1
    whole, _, _ = fit(2, "adamw")
    np.testing.assert_allclose(weights(results[0]), weights(whole), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("every", [0, 2])
def test_a_lost_worker_changes_no_bit(small, every):
    calm, _, _ = certain(3)
    lost, hooks, driver = certain(3, faults=[Fault(1, 1, 3, "leave")], checkpoint_every_steps=every)
    assert digest(lost) == digest(calm)
    assert any(event.kind == "retrying" for event in hooks.events)


class Dies(Exception):
    """The driver's end."""


def test_a_new_driver_resumes_within_an_epoch(small, tmp_path):
    calm, told, _ = certain(2)
    hooks = Recorder()

    def die(event):
        if event.kind == "checkpoint" and event.details["epoch"] == 1 and event.details["step"] == 3:
            raise Dies

    hooks.on_event = die
    with pytest.raises(Dies):
        certain(2, hooks=hooks, folder=tmp_path, checkpoint_every_steps=2)
    result, others, _ = certain(3, folder=tmp_path)
    assert digest(result) == digest(calm) and others.begun == [1, 2]
    np.testing.assert_array_equal(others.ends[0].sums, told.ends[1].sums)


@pytest.mark.parametrize("count", [1000, 100_000])
def test_bytes_grow_with_the_rows_touched_and_not_with_the_table(count):
    """A table of `count` rows of 16, of which every step looks up 64."""
    user = ks.Input((), dtype="int32", name="user")
    made = ks.layers.Dense(1, name="out")(ks.layers.Embedding(count, 16, name="users")(user))
    model = ks.Model(user, made)
    model.compile("adam", "mse")
    ids = np.random.default_rng(0).permutation(count)[:512].astype("int32")
    arrays = to_arrays(model, ids, np.ones((512, 1), "float32"))
    source = model._program(arrays.signature, "train").source
    data = [[_cut(arrays.arrays, start, 256)] for start in (0, 256)]
    sent = []
    for epochs in (1, 3):
        strategy = AllReduce(timeout_s=5)
        *_, driver = fit_in_threads(source, data, 2, strategy, epochs=epochs, batch_size=64, transports=("tcp",))
        sent.append(sum(c["bytes_sent"] for c in driver.counters))
    by_rows = count > 10_000
    assert bool(driver.settings.method.by_rows) == by_rows
    a_step = (sent[1] - sent[0]) / 16  # of both
    touched = 2 * (4 * bucket(32) + 4 * bucket(64 * 16))  # ids, gradients
    rest = 4 * 2 * source.layout.without(["users/embeddings"]).V
    stated = touched + rest if by_rows else 4 * 2 * source.layout.V
    assert a_step == pytest.approx(stated, rel=0.15)


def test_rows_of_equal_ids():
    gradients = np.random.default_rng(0).normal(size=(7, 2)).astype("float32")
    ids, into = np.array([5, -1, 2, 5, 9, 2, 5]), np.zeros((4, 2), np.float32)
    add_rows(into, np.array([2, 4, 5, 9]), ids, gradients)
    wanted = np.zeros((10, 2), np.float32)
    np.add.at(wanted, ids[ids >= 0], gradients[ids >= 0])
    np.testing.assert_allclose(into, wanted[[2, 4, 5, 9]], rtol=1e-6)

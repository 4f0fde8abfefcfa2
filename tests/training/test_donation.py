"""The memory of a step: weights and slots are updated in place, and a second fit begins with the vector of the first."""

import jax
import numpy as np
from kerasoft.compiler import calls
from kerasoft.compiler.local import LocalStep

import kerasoft as ks
from kerasoft import layers
from kerasoft.training.weights import WeightStore

ROWS = np.random.default_rng(0).normal(size=(32, 160)).astype("float32")


def model():
    ks.utils.set_random_seed(0)
    made = ks.Sequential([ks.Input((160,)), layers.Dense(160, "relu"), layers.BatchNormalization(), layers.Dense(160)])
    made.compile("adam", "mse")
    return made


def bytes_of(arrays):
    return sum(a.nbytes for a in jax.tree.leaves(arrays))


def test_a_step_of_fit_updates_weights_and_slots_in_place(monkeypatch):
    jitted, steps = [], []
    jit, train = jax.jit, LocalStep.train

    def recording(function, **settings):
        made = jit(function, **settings)
        if settings.get("donate_argnums"):
            jitted.append(made)
        return made

    def watched(self, params, state, slots, *rest):
        given = jax.tree.leaves((params, slots))
        places = {a.unsafe_buffer_pointer() for a in given}
        sizes = bytes_of((params, state, slots))
        shapes = [jax.ShapeDtypeStruct(a.shape, a.dtype) for a in jax.tree.leaves((params, state, slots))]
        results = train(self, params, state, slots, *rest)
        after = jax.block_until_ready(jax.tree.leaves((results[0], results[2])))
        steps.append((all(a.is_deleted() for a in given), {a.unsafe_buffer_pointer() for a in after} == places, sizes))
        steps[-1] += (jax.tree.unflatten(jax.tree.structure((params, state, slots)), shapes), self, rest)
        return results

    monkeypatch.setattr(calls.jax, "jit", recording)
    monkeypatch.setattr(LocalStep, "train", watched)
    monkeypatch.setattr(LocalStep, "together", lambda self, params, rows, size: 1)
    model().fit(ROWS, ROWS, batch_size=8, epochs=2, verbose=0)
    assert len(steps) == 8
    assert all(deleted for deleted, *_ in steps)
    assert all(same_place for _, same_place, *_ in steps[1:]), "what the first gives is in memory of XLA's"
    size, shapes, step, (batch, valid, row_id, key, rows, iteration, rate) = steps[0][2:]
    given = {"valid": valid, "row_id": row_id, "key": key, "rows": np.float32(rows), "share": np.float32(1), "iteration": np.int32(iteration)}  # fmt: skip
    arrays = tuple(given[name] if name in given else batch[name] for name in step._train[0])
    executable = jitted[0].lower(*shapes, arrays, np.int32(iteration), np.float32(rate)).compile()
    memory = executable.memory_analysis()
    assert memory.alias_size_in_bytes >= size > 3 * 2 * 160 * 160 * 4
    assert memory.output_size_in_bytes - memory.alias_size_in_bytes < 4096, "only the sums are new"


def test_a_second_fit_begins_with_the_vector_of_the_first(monkeypatch):
    one = model()
    one.fit(ROWS, ROWS, batch_size=8, verbose=0)
    before = one.layers[0].kernel._value
    packed, placed = [], []
    original, place = WeightStore._packed, LocalStep.place
    monkeypatch.setattr(WeightStore, "_packed", lambda self, part: packed.append(part) or original(self, part))
    monkeypatch.setattr(
        LocalStep, "place", lambda self, params, *rest: placed.append(params) or place(self, params, *rest)
    )
    one.fit(ROWS, ROWS, batch_size=8, verbose=0)
    assert "params" not in packed
    assert len(placed) == 1 and np.shares_memory(placed[0], before)


def test_weights_set_between_two_fits_are_not_lost(monkeypatch):
    one = model()
    one.fit(ROWS, ROWS, batch_size=8, verbose=0)
    one.layers[0].kernel.assign(np.zeros((160, 160), np.float32))
    placed, place = [], LocalStep.place
    monkeypatch.setattr(
        LocalStep, "place", lambda self, params, *rest: placed.append(params) or place(self, params, *rest)
    )
    one.fit(ROWS, ROWS, batch_size=8, verbose=0)
    assert np.count_nonzero(placed[0] == 0) >= 160 * 160

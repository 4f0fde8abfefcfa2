"""A model with a table large enough to be updated by rows, and data for it."""

from __future__ import annotations

from typing import Any

import numpy as np

import kerasoft as ks
from kerasoft.training.inputs import to_arrays

USERS = 30_000


def _rows(count: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    return (rng.zipf(1.3, count) % USERS).astype("int32"), rng.normal(size=(count, 1)).astype("float32")


def _model() -> ks.Model:
    ks.utils.set_random_seed(1)
    user = ks.Input((), dtype="int32", name="user")
    hidden = ks.layers.Dense(4, activation="tanh", name="hidden")(ks.layers.Embedding(USERS, 3, name="users")(user))
    model = ks.Model(user, ks.layers.Dense(1, name="out")(ks.layers.Dropout(0.1)(hidden)))
    model.compile(ks.optimizers.Adam(0.01, epsilon=1e-4), "mse")
    return model


def source() -> Any:
    model = _model()
    arrays = to_arrays(model, *_rows(8, 0))
    return model._program(arrays.signature, "train", "test").source


def tables_data(sizes: tuple[int, ...], validation: tuple[int, ...]) -> tuple[list, list]:
    """Training and validation blocks by shard."""
    model, found = _model(), []
    for cut, seed in ((sizes, 3), (validation, 4)):
        arrays = to_arrays(model, *_rows(sum(cut), seed)).arrays
        shards, start = [], 0
        for n in cut:
            part = {k: np.ascontiguousarray(v[start : start + n]) for k, v in arrays.items()}
            shards.append([{k: v[i : i + 7] for k, v in part.items()} for i in range(0, n, 7)])
            start += n
        found.append(shards)
    return found[0], found[1]

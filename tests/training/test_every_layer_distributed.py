"""Every layer on two executor processes: the bits of one executor, and the numbers of a local fit.

The layers of the contract table train side by side, many in one model: each has an input, a path to an output and a loss
of its own, so that a layer that differs shows by its own weights and losses.
"""

import numpy as np
import pytest
from kerasoft.runtime import AllReduce

import kerasoft as ks
from kerasoft import layers, tree
from tests.layers.test_layer_contract import ROWS

pytestmark = [pytest.mark.spark, pytest.mark.filterwarnings("ignore:.*destroy the mask:UserWarning")]
L = ks.layers
ROWS_OF_DATA, TOGETHER = 12, 20
BATCH_STATISTICS = {"BatchNormalization", "SpectralNormalization"}  # state that the batch changes: kept apart


def one_row_a_layer():
    found = {}
    for row in ROWS:
        found.setdefault(row.name, row)
    return list(found.values())


def groups():
    table = one_row_a_layer()
    apart = [r for r in table if r.name in BATCH_STATISTICS]
    rest = [r for r in table if r.name not in BATCH_STATISTICS]
    return [apart, *(rest[i : i + TOGETHER] for i in range(0, len(rest), TOGETHER))]


GROUPS = groups()


def build(rows):
    """One model with a branch a row: input(s) → layer → flat → dense → loss, and the names of its weights by row."""
    ks.utils.clear_session()
    ks.utils.set_random_seed(3)
    inputs, outputs = {}, {}
    for i, row in enumerate(rows):
        kind = "int32" if row.ints else "float32"
        tensors = [ks.Input(shape, dtype=kind, name=f"x{i}_{k}") for k, shape in enumerate(row.shapes)]
        inputs |= {t.name: t for t in tensors}
        made = row.make(layers)(*([tensors] if row.several else tensors), **row.call)
        flat = [L.Flatten()(t) for t in tree.flatten(made)]
        outputs[f"{row.name}_{i}"] = L.Dense(1, name=f"{row.name}_{i}")(
            flat[0] if len(flat) == 1 else L.Concatenate()(flat)
        )
    model = ks.Model(inputs, outputs)
    model.compile(ks.optimizers.SGD(0.05), {name: "mse" for name in outputs})
    return model


def pick(part, i):
    return {name: array[i] for name, array in part.items()}


def data(rows):
    rng = np.random.default_rng(0)
    x = {}
    for i, row in enumerate(rows):
        for k, shape in enumerate(row.shapes):
            size = (ROWS_OF_DATA, *shape)
            x[f"x{i}_{k}"] = (
                rng.integers(0, row.ints, size).astype("int32") if row.ints else rng.normal(size=size).astype("float32")
            )
    y = {f"{row.name}_{i}": rng.normal(size=(ROWS_OF_DATA, 1)).astype("float32") for i, row in enumerate(rows)}
    return x, y


@pytest.mark.parametrize("rows", GROUPS, ids=[f"{g[0].name}-to-{g[-1].name}" for g in GROUPS])
def test_two_executors_give_the_bits_of_one_and_the_numbers_of_arrays(context, rows):
    x, y = data(rows)
    rdd = context.parallelize([(pick(x, i), pick(y, i)) for i in range(ROWS_OF_DATA)], 2)
    here, one, two = build(rows), build(rows), build(rows)
    coupled = any(row.name in BATCH_STATISTICS for row in rows)
    local = here.fit(x, y, batch_size=ROWS_OF_DATA, epochs=2, verbose=0, seed=5, shuffle=False)
    options = dict(batch_size=ROWS_OF_DATA, epochs=2, verbose=0, seed=5, shuffle=False)
    one.fit(rdd, strategy=AllReduce(1, deterministic=True), **options)
    far = two.fit(rdd, strategy=AllReduce(2, deterministic=True), **options)
    differing = {a.path for a, b in zip(one.weights, two.weights) if a.numpy().tobytes() != b.numpy().tobytes()}
    assert not differing, "other bits on two executors than on one"
    if coupled:  # statistics are of each shard, so the local fit on one shard has others
        return
    for a, b in zip(here.weights, two.weights, strict=True):
        np.testing.assert_allclose(a.numpy(), b.numpy(), rtol=1e-5, atol=1e-5, err_msg=a.path)
    for name, values in local.history.items():
        np.testing.assert_allclose(values, far.history[name], rtol=1e-4, atol=1e-5, err_msg=name)


def test_every_layer_of_the_table_is_in_a_group():
    assert {row.name for group in GROUPS for row in group} == {r.name for r in ROWS}

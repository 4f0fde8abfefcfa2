"""Many kinds of layers on many meshes: cut models give the whole model's results."""

import numpy as np
import pytest
from kerasoft.compiler.parallel import Mesh, partition

import kerasoft as ks
from tests.compiler.parallel import together

pytestmark = pytest.mark.soak

L = ks.layers
MESHES = (Mesh(pipeline=2), Mesh(pipeline=4), Mesh(model=2), Mesh(model=4), Mesh(zero=3, slices=3))


def ids(high, *shape):
    return np.random.default_rng(0).integers(0, high, shape).astype("int32")


def compiled(inputs, outputs, x, classes, *, from_logits=True):
    model = ks.Model(inputs, outputs)
    loss = ks.losses.SparseCategoricalCrossentropy(from_logits=from_logits)
    model.compile("adam", loss, metrics=["accuracy"])
    return model, x, ids(classes, len(x), *outputs.shape[1:-1])


def recurrent():
    inputs = ks.Input((10,), dtype="int32")
    x = L.LSTM(64, return_sequences=True)(L.Embedding(500, 64)(inputs))
    x = L.Dense(256, "relu")(L.Bidirectional(L.GRU(32))(x))
    return compiled(inputs, L.Dense(8, "softmax")(x), ids(500, 24, 10), 8, from_logits=False)


def causal():
    inputs = ks.Input((16,), dtype="int32")
    x = L.Embedding(512, 64)(inputs)
    for _ in range(2):
        h = L.LayerNormalization()(x)
        x = x + L.MultiHeadAttention(4, 16, dropout=0.1)(h, h, use_causal_mask=True)
        x = x + L.Dense(64)(L.Dense(256, "relu")(L.LayerNormalization()(x)))
    return compiled(inputs, L.Dense(512)(x), ids(512, 24, 16), 512)


def grouped_heads():
    inputs = ks.Input((6,), dtype="int32")
    x = L.Embedding(64, 64)(inputs)
    x = x + L.GroupQueryAttention(16, 4, 2)(x, x)
    return compiled(inputs, L.Dense(5)(L.GlobalAveragePooling1D()(x)), ids(64, 24, 6), 5)


def convolutions_of_all_kinds():
    inputs = ks.Input((8, 8, 16))
    x = L.SeparableConv2D(64, 3, padding="same")(inputs)
    x = L.GroupNormalization(4)(x)
    x = L.BatchNormalization()(L.Conv2D(64, 3, groups=2, padding="same")(x))
    x = L.AveragePooling2D(2)(L.Conv2DTranspose(32, 3, 2, activation="gelu")(x))
    x = L.Dense(128, "softplus", kernel_regularizer="l2", use_bias=False)(L.GlobalMaxPooling2D()(x))
    x = L.Dense(64, activity_regularizer="l1")(L.UnitNormalization()(x))
    images = np.random.default_rng(0).normal(size=(24, 8, 8, 16)).astype("float32")
    return compiled(inputs, L.Dense(4)(x), images, 4)


def computed_again():
    with ks.RematScope(mode="full"):
        return together.transformer(blocks=2, width=32)


CASES = {
    "recurrent": recurrent,
    "causal": causal,
    "grouped heads": grouped_heads,
    "convolutions": convolutions_of_all_kinds,
    "convolutional net": together.convolutional,
    "computed again": computed_again,
    "deep": lambda: together.transformer(blocks=4, width=32, tied=True, vocabulary=64),
    "neumf": lambda: together.neumf(301, 203, 16),
}


@pytest.mark.parametrize("case", CASES)
def test_every_mesh_computes_what_the_whole_model_does(case):
    model, x, y = CASES[case]()
    source, params, state = together.source_of(model, x, y, 8)
    given = [together.batch_of(source, x, y, state, 4, 12, start) for start in (0, 4, 8)]
    expected = {
        kind: sum(np.asarray(together.whole(source, kind, 4, params, one)) for one in given)
        for kind in ("train", "test")
    }
    for mesh in MESHES:
        plan = partition(source, mesh, rows=4)
        programs = plan.export(train_rows=(4,), test_rows=(4,))
        rows = (lambda j: [given[j]]) if mesh.zero else given
        found, _ = together.call(plan, programs, "train", 4, params, rows)
        if mesh.model > 1:
            gradients = plan.globalise([v[: own.P] for v, own in zip(found, plan.layouts)])
            found = [np.concatenate([gradients, found[0][plan.layouts[0].P :]])]
        else:
            found = [together.joined(plan, found)]
        together.close(found[0], expected["train"])
        found, _ = together.call(plan, programs, "test", 4, params, rows)
        together.close(found[0] if mesh.model > 1 else sum(found), expected["test"])

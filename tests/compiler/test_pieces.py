"""Pieces of the parameters, and the step on them: the numbers of the flat step."""

import numpy as np
import pytest
from kerasoft.compiler.pieces import LARGE, Pieces
from kerasoft.compiler.program import Layout

import kerasoft as ks


@pytest.mark.parametrize(
    "shapes", [{}, {"a": (3,)}, {"a": (128, 128)}, {"a": (3,), "b": (128, 130), "c": (0,), "d": (2, 2)}]
)
def test_cut_and_flat_are_inverse(shapes):
    layout = Layout.of(params=shapes)
    pieces = Pieces(layout)
    vector = np.random.default_rng(0).normal(size=layout.P).astype("f")
    cut = pieces.cut(vector)
    assert [p.shape for p in cut] == list(pieces.shapes) and sum(p.size for p in cut) == layout.P
    np.testing.assert_array_equal(pieces.flat(cut), vector)
    for e in layout.params:
        home, start = pieces.home(e.name)
        if e.size:
            part = cut[pieces.names.index(home)][start : start + e.size]
            np.testing.assert_array_equal(part, vector[e.offset : e.end])
            index = list(shapes).index(e.name)
            assert set(np.asarray(pieces.segments(pieces.names.index(home)))[start : start + e.size]) == {index}
    assert all(shape[0] >= LARGE for shape in pieces.shapes[: len(pieces.large)])


@pytest.mark.parametrize(
    "optimizer",
    [
        ks.optimizers.Adam(0.01, global_clipnorm=0.5),  # sums over all pieces
        ks.optimizers.SGD(0.1, momentum=0.9, clipnorm=0.1),  # norms of each variable
        ks.optimizers.Muon(0.01),  # whole vectors
    ],
    ids=["global norm", "norms", "whole"],
)
def test_pieces_train_like_one_vector(optimizer, monkeypatch):
    """Large variables by themselves and all in one vector: the same weights, to rounding."""
    random = np.random.default_rng(0)
    x, y = random.normal(size=(64, 130)).astype("f"), random.integers(0, 3, 64)

    def trained(large):
        monkeypatch.setattr("kerasoft.compiler.pieces.LARGE", large)
        ks.utils.set_random_seed(1)
        model = ks.Sequential([ks.Input((130,)), ks.layers.Dense(130, "relu"), ks.layers.Dense(3)])
        loss = ks.losses.SparseCategoricalCrossentropy(from_logits=True)
        model.compile(type(optimizer).from_config(optimizer.get_config()), loss)
        model.fit(x, y, batch_size=16, epochs=2, verbose=0, shuffle=False)
        return [*model.get_weights(), *(v.numpy() for v in model.optimizer.variables)]

    for one, other in zip(trained(1 << 14), trained(1 << 30), strict=True):
        np.testing.assert_allclose(one, other, rtol=2e-4, atol=2e-6)

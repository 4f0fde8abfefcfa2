"""Losses against Keras in every form a user calls them: reductions, weights of all ranks, masks, labels, dtypes, axes."""

from __future__ import annotations

import jax.numpy as jnp
import keras
import numpy as np
import pytest

import kerasoft as ks

rng = np.random.default_rng(0)
P = rng.uniform(0.05, 0.95, (4, 3, 2)).astype("float32")
Q = rng.uniform(0.05, 0.95, (4, 3, 2)).astype("float32")
W = rng.uniform(0.1, 2.0, (4, 3, 1)).astype("float32")
C = rng.dirichlet(np.ones(4), (5, 4)).astype("float32")
LOGITS = rng.normal(size=(5, 4, 4)).astype("float32")
IDS = rng.integers(0, 4, (5, 4))
HOT = np.eye(4, dtype="float32")[IDS]
BITS = rng.integers(0, 2, (4, 3))
MASK = rng.integers(0, 2, (4, 3)).astype(bool)

CASES = [
    *[("MeanSquaredError", {"reduction": r}, P, Q, {"sample_weight": w})
      for r in ("sum", None, "mean", "mean_with_sample_weight") for w in (W, W[..., 0], W[:, :1], 2.0)],
    *[("BinaryCrossentropy", {"reduction": r}, P, Q, {"mask": MASK, "sample_weight": w})
      for r in ("sum", "none", "sum_over_batch_size", "mean_with_sample_weight") for w in (None, W[..., 0])],
    ("MeanAbsoluteError", {}, P[:, 0, 0], Q[:, 0, :1], {}),
    ("MeanAbsoluteError", {}, P[:, 0, :1], Q[:, 0, 0], {"sample_weight": W[:, 0]}),
    ("MeanAbsoluteError", {"dtype": "bfloat16"}, P, Q, {}),
    ("MeanAbsoluteError", {"reduction": "mean_with_sample_weight"}, P[:, 0, 0], Q[:, 0, 0], {"sample_weight": W[:, 0, 0]}),
    ("Huber", {"delta": 0.3}, P, Q.astype("float16"), {}),
    ("LogCosh", {}, BITS, Q[..., 0], {"mask": MASK[:, 0]}),
    ("CosineSimilarity", {"axis": (0, 1)}, P, Q, {}),
    ("CosineSimilarity", {"axis": 1}, P, Q, {"sample_weight": W[:, :1, 0]}),
    *[(name, {"axis": axis, "reduction": None}, P, Q, {}) for name in ("Dice", "Tversky") for axis in (None, (1, 2), [0], -1)],
    ("BinaryCrossentropy", {"axis": 1, "label_smoothing": 0.2}, BITS, Q[..., 0], {}),
    ("BinaryCrossentropy", {"from_logits": True}, BITS.astype(bool), LOGITS[:4, :3, 0], {}),
    ("BinaryFocalCrossentropy", {"apply_class_balancing": True, "alpha": 0.7, "gamma": 3.0}, BITS, Q[..., 0], {}),
    ("CategoricalCrossentropy", {"axis": 1}, HOT, C, {}),
    ("CategoricalCrossentropy", {"label_smoothing": 0.2}, HOT.astype(int), C, {"sample_weight": W[:1, 0]}),
    ("CategoricalFocalCrossentropy", {"alpha": [0.1, 0.2, 0.3, 0.4]}, HOT, C, {}),
    ("SparseCategoricalCrossentropy", {"axis": 1}, IDS[..., None], C, {}),
    ("SparseCategoricalCrossentropy", {"axis": -2, "ignore_class": 1}, IDS, C, {}),
    ("SparseCategoricalCrossentropy", {"ignore_class": -1}, np.where(IDS == 2, -1, IDS), C, {"sample_weight": W[0, :1, 0]}),
    ("SparseCategoricalCrossentropy", {"from_logits": True, "reduction": None}, IDS.astype("float32"), LOGITS, {}),
    ("SparseCategoricalCrossentropy", {}, IDS.astype("uint8"), C, {}),
    ("Circle", {"remove_diagonal": False, "gamma": 4.0}, IDS[:, :1], C[:, 0], {}),
    ("CategoricalGeneralizedCrossEntropy", {"q": 0.9}, IDS[:, 0], C[:, 0], {}),
    ("Hinge", {}, np.where(BITS, 1, -1), Q[..., 0], {}),
    ("SquaredHinge", {}, BITS.astype("float32"), Q[..., 0], {}),
    ("MeanSquaredError", {}, P[:0, 0, 0], Q[:0, 0, 0], {}),
]  # fmt: skip


def called(library, name, arguments, y, p, rest):
    rest = dict(rest)
    mask, p = rest.pop("mask", None), jnp.asarray(p)
    if mask is not None:
        p._keras_mask = jnp.asarray(mask)
    return getattr(library.losses, name)(**arguments)(y, p, **rest)


@pytest.mark.filterwarnings("ignore:Explicitly requested dtype:UserWarning")
@pytest.mark.parametrize("case", CASES, ids=lambda case: case[0])
def test_values_dtypes_and_shapes_are_keras(case):
    got, want = called(ks, *case), called(keras, *case)
    assert (got.shape, str(got.dtype)) == (want.shape, str(want.dtype))
    exact = str(want.dtype) == "float32"
    tolerances = dict(rtol=2e-5, atol=1e-6) if exact else dict(rtol=2e-2, atol=1e-2)
    np.testing.assert_allclose(np.asarray(got, "float32"), np.asarray(want, "float32"), **tolerances)


def test_own_losses_are_counted_by_name_as_in_keras():
    class Mine(ks.losses.Loss):
        def call(self, y_true, y_pred):
            return ks.ops.max(ks.ops.abs(y_true - y_pred), axis=-1)

    first, second = Mine(), Mine(reduction="sum")
    assert second.name.startswith("mine") and first.name != second.name
    np.testing.assert_allclose(float(second(P, Q)), np.abs(P - Q).max(-1).sum(), rtol=1e-5)
    assert Mine.from_config(second.get_config()).reduction == "sum"

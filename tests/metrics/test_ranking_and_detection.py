"""Rankings and detections against plain loops, and merged over splits."""

from __future__ import annotations

import jax
import numpy as np
import pytest
from kerasoft.compiler.ir import Graph, symbol
from kerasoft.compiler.lower import function
from kerasoft.compiler.ops.registry import input_node

import kerasoft as ks

rng = np.random.default_rng(3)
QUERIES, CANDIDATES = 11, 7
RELEVANCE = rng.integers(0, 4, (QUERIES, CANDIDATES)) * rng.integers(0, 2, (QUERIES, CANDIDATES))
RELEVANCE[2] = 0
RELEVANCE[5, 4:] = -1  # padding
SCORES = rng.permuted(np.tile(np.linspace(-2.0, 2.0, CANDIDATES), (QUERIES, 1)), axis=1).astype("float32")
WEIGHTS = rng.integers(0, 3, QUERIES).astype("float32")


def ranked(row):
    order = np.argsort(-SCORES[row], kind="stable")
    return [r for r in RELEVANCE[row][order] if r >= 0]


def hits(row, k):
    return float(any(r > 0 for r in ranked(row)[:k]))


def ndcg(row, k):
    def dcg(relevances):
        return sum((2.0**r - 1.0) / np.log2(i + 2.0) for i, r in enumerate(relevances[:k]))

    best = dcg(sorted(ranked(row), reverse=True))
    return dcg(ranked(row)) / best if best else 0.0


def reciprocal(row, k):
    return next((1.0 / (i + 1) for i, r in enumerate(ranked(row)[:k]) if r > 0), 0.0)


RANKINGS = [("HitRate", hits, 2), ("HitRate", hits, 20), ("NDCG", ndcg, 3), ("NDCG", ndcg, 10),
            ("MeanReciprocalRank", reciprocal, None), ("MeanReciprocalRank", reciprocal, 2)]  # fmt: skip


def batches(metric, y, p, weights=None, cuts=(4, 9)):
    for rows in np.split(np.arange(len(y)), cuts):
        metric.update_state(y[rows], p[rows], sample_weight=None if weights is None else weights[rows])
    return float(metric.result())


@pytest.mark.parametrize(("name", "oracle", "k"), RANKINGS)
def test_rankings_are_the_plain_loop(name, oracle, k):
    values = np.array([oracle(row, k) for row in range(QUERIES)])
    make = getattr(ks.metrics, name)
    assert batches(make(k=k), RELEVANCE, SCORES) == pytest.approx(values.mean(), rel=1e-5)
    weighted = float((values * WEIGHTS).sum() / WEIGHTS.sum())
    assert batches(make(k=k), RELEVANCE, SCORES, WEIGHTS) == pytest.approx(weighted, rel=1e-5)
    again = ks.metrics.deserialize(ks.metrics.serialize(make(k=k)))
    assert type(again) is make and again.get_config() == make(k=k).get_config()


def test_equal_scores_rank_by_place():
    metric = ks.metrics.MeanReciprocalRank()
    assert float(metric([[0, 1, 0]], [[0.5, 0.5, 0.5]])) == 0.5


# --- detection ---

IMAGES, BOXES, FOUND, CLASSES, BINS = 8, 4, 6, 3, 200


def boxes(count, spread):
    corner = rng.uniform(0, spread, (IMAGES, count, 2))
    return np.concatenate([corner, corner + rng.uniform(2, 5, (IMAGES, count, 2))], axis=-1)


TRUTH = np.concatenate([boxes(BOXES, 4), rng.integers(-1, CLASSES, (IMAGES, BOXES, 1))], axis=-1).astype("float32")
near = TRUTH[:, rng.integers(0, BOXES, FOUND), :4] + rng.normal(0, 0.4, (IMAGES, FOUND, 4))
grid = (rng.permutation(BINS)[: IMAGES * FOUND] + 0.5).reshape(IMAGES, FOUND, 1) / BINS  # one detection a bin
PREDICTED = np.concatenate([near, rng.integers(-1, CLASSES, (IMAGES, FOUND, 1)), grid], axis=-1).astype("float32")


def overlap(a, b):
    width, height = min(a[2], b[2]) - max(a[0], b[0]), min(a[3], b[3]) - max(a[1], b[1])
    common = max(width, 0) * max(height, 0)
    return common / ((a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1]) - common)


def average_precision(kind, limit, interpolation):
    """The textbook loop: all detections of a class by score, each takes a box of its image or is wrong."""
    total = int((TRUTH[..., 4] == kind).sum())
    found = sorted(((d[5], i, d) for i in range(IMAGES) for d in PREDICTED[i] if d[4] == kind), key=lambda x: -x[0])
    taken, right, curve = set(), 0, []
    for n, (_, image, box) in enumerate(found, 1):
        rivals = [(overlap(box, t), j) for j, t in enumerate(TRUTH[image]) if t[4] == kind]
        if interpolation == "coco":
            rivals = [(v, j) for v, j in rivals if (image, j) not in taken]
        best, j = max(rivals, default=(-1.0, -1))
        if best >= limit and (image, j) not in taken:
            taken.add((image, j))
            right += 1
        curve.append((right / total, right / n))
    if interpolation == "voc2010":
        area, before = 0.0, 0.0
        for i, (recall, _) in enumerate(curve):
            area += (recall - before) * max(p for _, p in curve[i:])
            before = recall
        return area
    points = np.linspace(0, 1, 101 if interpolation == "coco" else 11)
    return np.mean([max((p for r, p in curve if r >= x - 1e-6), default=0.0) for x in points])


@pytest.mark.parametrize("interpolation", ["coco", "voc2007", "voc2010"])
def test_mean_average_precision_is_the_textbook_loop(interpolation):
    limits = [0.3, 0.5, 0.7]
    make = dict(num_classes=CLASSES, iou_thresholds=limits, interpolation=interpolation, num_bins=BINS)
    want = [[average_precision(c, limit, interpolation) for c in range(CLASSES)] for limit in limits]
    assert 0.0 < np.min(want) and np.max(want) < 1.0 and np.ptp(want) > 0.1, "a case that says something"
    metric = ks.metrics.MeanAveragePrecision(**make)
    assert batches(metric, TRUTH, PREDICTED, cuts=(3, 5)) == pytest.approx(np.mean(want), abs=1e-5)
    np.testing.assert_allclose(metric.average_precisions(), want, atol=1e-5)
    own = metric.stateless_update_state(metric.stateless_reset_state(), TRUTH, PREDICTED)
    assert float(jax.jit(metric.stateless_result)(own)) == pytest.approx(np.mean(want), abs=1e-5)


def test_sums_of_a_traced_step_give_the_same():
    metric = ks.metrics.MeanAveragePrecision(CLASSES, iou_thresholds=[0.5], num_bins=BINS)
    b = symbol("b")
    y, p = input_node("y", (b, BOXES, 5), "float32"), input_node("p", (b, FOUND, 6), "float32")
    valid = input_node("v", (b,), "float32")
    added = metric.measure(y, p, valid=valid)
    run = jax.jit(function(Graph((y, p, valid), tuple(added.values()), tuple(added))))
    sums = dict.fromkeys(added, 0.0)
    for rows in ([0, 1, 2], [3, 4, 5], [6, 7, 7]):
        real = np.array([1, 1, rows[1] != rows[2]], "float32")
        for name, value in zip(added, run(TRUTH[rows], PREDICTED[rows], real), strict=True):
            sums[name] = sums[name] + np.asarray(value, np.float64)
    metric.update_state(TRUTH, PREDICTED)
    assert metric.result_from(sums) == pytest.approx(float(metric.result()), abs=1e-6)


def test_errors_say_what_is_wrong():
    with pytest.raises(
        ValueError, match=r"shape \(batch, candidates\), one query a row. Received: y_true.shape=\(3,\)"
    ):
        ks.metrics.HitRate()([0, 1, 0], [0.1, 0.2, 0.3])
    with pytest.raises(ValueError, match="Argument `k` must be a positive integer. Received: k=0"):
        ks.metrics.NDCG(k=0)
    with pytest.raises(ValueError, match="`interpolation` must be one of .* Received: interpolation=voc"):
        ks.metrics.MeanAveragePrecision(2, interpolation="voc")
    with pytest.raises(ValueError, match=r"expects y_pred of shape \(batch, boxes, 6\): left, top, .* score. Received"):
        ks.metrics.MeanAveragePrecision(2)(np.zeros((1, 2, 5)), np.zeros((1, 2, 5)))

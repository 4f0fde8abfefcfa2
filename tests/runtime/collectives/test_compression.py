"""Compressed gradients: nothing is lost, what is sent is what is taken away, sizes as stated."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from kerasoft.runtime.collectives.compression import Threshold, TopK, TwoBit, compression_of

WAYS = [Threshold(), Threshold(0.5), Threshold(density=0.1), TopK(), TopK(0.2), TwoBit(), TwoBit(0.3)]


@pytest.mark.parametrize("way", WAYS, ids=str)
@settings(max_examples=25, deadline=None)
@given(st.integers(1, 300), st.integers(0, 10**6))
def test_residual_and_what_was_sent_make_up_the_gradient(way, size, seed):
    gradient = np.random.default_rng(seed).normal(size=size).astype("float32")
    residual, total = gradient.copy(), np.zeros(size, "float32")
    way.add(way.encode(residual), total)
    np.testing.assert_allclose(residual + total, gradient, atol=1e-6)
    assert np.abs(total).sum() > 0 or isinstance(way, (Threshold, TwoBit))
    words = way.encode(nothing := np.zeros(size, "float32"))
    way.add(words, total := np.zeros(size, "float32"))
    assert not nothing.any() and not total.any()


def test_against_plain_loops():
    gradient = np.random.default_rng(0).normal(size=1000).astype("float32")
    total = np.zeros(1000, "float32")
    Threshold(1.5).add(Threshold(1.5).encode(gradient.copy()), total)
    np.testing.assert_array_equal(total, [1.5 * np.sign(g) if abs(g) >= 1.5 else 0 for g in gradient])
    total[:] = 0
    TopK(0.01).add(TopK(0.01).encode(gradient.copy()), total)
    largest = sorted(range(1000), key=lambda i: -abs(gradient[i]))[:10]
    np.testing.assert_array_equal(total, [gradient[i] if i in largest else 0 for i in range(1000)])
    total[:] = 0
    TwoBit(0.5).add(TwoBit(0.5).encode(gradient.copy()), total)
    np.testing.assert_array_equal(total, [0.5 if g >= 0.5 else -0.5 if g <= -0.5 else 0 for g in gradient])


@pytest.mark.parametrize("way, share", [(Threshold(density=0.005), 0.005), (TopK(0.004), 0.008), (TwoBit(), 1 / 16)])
def test_sizes(way, share):
    gradient = np.random.default_rng(0).normal(size=200_000).astype("float32")
    assert way.encode(gradient).nbytes == pytest.approx(gradient.nbytes * share, rel=0.1)


def test_error_feedback_sends_everything_in_the_end():
    target = np.random.default_rng(0).normal(size=500).astype("float32")
    for way in (Threshold(density=0.05), TopK(0.05), TwoBit()):
        residual, total = np.zeros(500, "float32"), np.zeros(500, "float32")
        for _ in range(400):
            residual += target
            way.add(way.encode(residual), total)
        np.testing.assert_allclose(total / 400, target, atol=0.25)


def test_names_and_settings_are_checked():
    assert compression_of("2bit") == TwoBit() and compression_of(None) is None
    for make, text in (
        (
            lambda: compression_of("zip"),
            r"compression needs None, one of 'threshold', 'top_k', '2bit', or a .* got 'zip'",
        ),
        (lambda: TopK(2), "TopK: fraction needs a number above 0, at most 1, got 2"),
        (lambda: Threshold(-1), "Threshold: threshold needs a number above 0, got -1"),
        (lambda: TwoBit("x"), "TwoBit: threshold needs a number above 0, got 'x'"),
    ):
        with pytest.raises(ValueError, match=text):
            make()

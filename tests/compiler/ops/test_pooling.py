"""Pooling against XLA on tied data, and against Keras."""

import itertools

import jax
import jax.numpy as jnp
import keras
import numpy as np
import pytest
from kerasoft.compiler.ops import pooling


def _tied(rng, *shape):
    """Values after a relu: many zeros and few levels, so that most windows hold equal maxima."""
    return np.maximum(rng.integers(-2, 3, shape), 0).astype(np.float32)


@pytest.mark.parametrize("window, stride, padding", list(itertools.product((2, 3), (1, 2, 3), ("same", "valid"))))
def test_max_pool_chooses_among_equals_as_xla_does(window, stride, padding):
    rng = np.random.default_rng(window + 10 * stride)
    attrs = {"window": (window, window), "strides": (stride, stride), "padding": padding}
    x = _tied(rng, 2, 7, 6, 3)
    y, pull = jax.vjp(lambda x: pooling.max_pool_op(x, **attrs), jnp.asarray(x))
    dy = rng.normal(size=y.shape).astype(np.float32)
    np.testing.assert_allclose(pooling.max_pool_grad(x, dy, **attrs), pull(jnp.asarray(dy))[0], atol=1e-6)


def test_max_pool_of_three_axes_chooses_as_xla_does():
    rng = np.random.default_rng(0)
    attrs = {"window": (2, 3, 2), "strides": (1, 2, 2), "padding": "same"}
    x = _tied(rng, 2, 4, 5, 4, 2)
    y, pull = jax.vjp(lambda x: pooling.max_pool_op(x, **attrs), jnp.asarray(x))
    dy = rng.normal(size=y.shape).astype(np.float32)
    np.testing.assert_allclose(pooling.max_pool_grad(x, dy, **attrs), pull(jnp.asarray(dy))[0], atol=1e-6)


def test_a_tie_goes_to_the_first_cell_in_row_major_order():
    x = np.array([[0, 1], [1, 1]], np.float32).reshape(1, 2, 2, 1)
    attrs = {"window": (2, 2), "strides": (2, 2), "padding": "valid"}
    dx = pooling.max_pool_grad(x, np.ones((1, 1, 1, 1), np.float32), **attrs)
    assert dx.reshape(2, 2).tolist() == [[0, 1], [0, 0]]


def test_padding_is_never_the_maximum():
    x = np.full((1, 3, 3, 1), -5, np.float32)
    assert (pooling.max_pool(x, 2, 2, "same") == -5).all()
    dx = pooling.max_pool_grad(x, np.ones((1, 2, 2, 1), np.float32), window=(2, 2), strides=(2, 2), padding="same")
    assert dx.sum() == 4


@pytest.mark.parametrize("name", ("max_pool", "average_pool"))
@pytest.mark.parametrize("rank", (1, 2, 3))
@pytest.mark.parametrize("data_format", ("channels_last", "channels_first"))
def test_pooling_is_keras(name, rank, data_format):
    x = np.random.default_rng(rank).normal(size=(2, 5, 6, 5, 4)[: rank + 2]).astype(np.float32)
    ours = getattr(pooling, name)(x, 2, 2, "same", data_format)
    theirs = getattr(keras.ops, name)(x, 2, 2, "same", data_format)
    np.testing.assert_allclose(ours, theirs, atol=1e-6)

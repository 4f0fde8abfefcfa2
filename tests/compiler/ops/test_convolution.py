"""Convolutions against Keras, second derivatives, unknown sizes, and the texts of errors."""

import itertools

import jax
import jax.numpy as jnp
import keras
import numpy as np
import pytest
from kerasoft.compiler.errors import ShapeError
from kerasoft.compiler.gradient import gradient
from kerasoft.compiler.ir import Graph, symbol
from kerasoft.compiler.lower import function
from kerasoft.compiler.ops import arithmetic, convolution, shape
from kerasoft.compiler.ops.registry import input_node

b, n1 = symbol("b"), symbol("n1")


@pytest.mark.parametrize("k, stride, padding", list(itertools.product((1, 2, 3, 4), (1, 2, 3), ("same", "valid"))))
def test_conv_transpose_is_keras(k, stride, padding):
    rng = np.random.default_rng(k)
    x, kernel = rng.normal(size=(2, 4, 3)).astype(np.float32), rng.normal(size=(k, 2, 3)).astype(np.float32)
    for extra in (None, *range(stride)):
        theirs = keras.ops.conv_transpose(x, kernel, stride, padding, extra)
        np.testing.assert_allclose(convolution.conv_transpose(x, kernel, stride, padding, extra), theirs, atol=1e-5)


def test_conv_transpose_of_images_with_dilation_is_keras():
    rng = np.random.default_rng(0)
    x, kernel = rng.normal(size=(2, 3, 4, 3)).astype(np.float32), rng.normal(size=(2, 3, 5, 3)).astype(np.float32)
    for padding, data_format in itertools.product(("same", "valid"), ("channels_last", "channels_first")):
        given = np.moveaxis(x, -1, 1) if data_format == "channels_first" else x
        theirs = keras.ops.conv_transpose(given, kernel, 1, padding, None, data_format, 2)
        ours = convolution.conv_transpose(given, kernel, 1, padding, None, data_format, 2)
        np.testing.assert_allclose(ours, theirs, atol=1e-5)


def test_depthwise_and_separable_are_keras():
    rng = np.random.default_rng(0)
    x, kernel = rng.normal(size=(2, 5, 5, 3)).astype(np.float32), rng.normal(size=(3, 3, 3, 2)).astype(np.float32)
    point = rng.normal(size=(1, 1, 6, 4)).astype(np.float32)
    theirs = keras.ops.depthwise_conv(x, kernel, 2, "same")
    np.testing.assert_allclose(convolution.depthwise_conv(x, kernel, 2, "same"), theirs, atol=1e-5)
    theirs = keras.ops.separable_conv(x, kernel, point, 1, "valid")
    np.testing.assert_allclose(convolution.separable_conv(x, kernel, point, 1, "valid"), theirs, atol=1e-4)


def test_causal_sees_no_later_step():
    x = np.zeros((1, 6, 1), np.float32)
    x[0, 3] = 1
    y = convolution.conv(x, np.ones((3, 1, 1), np.float32), padding="causal", dilation_rate=2)
    assert y[0, :, 0].tolist() == [0, 0, 0, 1, 0, 1]


@pytest.mark.parametrize("stride, padding", list(itertools.product((1, 2), ("same", "valid"))))
def test_unknown_lengths_have_gradients(stride, padding):
    x, kernel = input_node("x", (b, n1, 2), "float32"), input_node("k", (3, 2, 4), "float32")
    y = convolution.conv(x, kernel, stride, padding)
    loss = shape.sum(arithmetic.square(y))
    graph = Graph((x, kernel), tuple(gradient({loss: shape.ones_like(loss)}, [x, kernel])), ("x", "kernel"))
    rng = np.random.default_rng(0)
    given = rng.normal(size=(3, 7, 2)).astype(np.float32), rng.normal(size=(3, 2, 4)).astype(np.float32)
    want = jax.grad(lambda x, k: jnp.sum(convolution.conv(x, k, stride, padding) ** 2), argnums=(0, 1))(*given)
    for ours, theirs in zip(function(graph)(*given), want):
        np.testing.assert_allclose(ours, theirs, rtol=1e-4, atol=1e-4)


def test_second_derivative():
    x, kernel = input_node("x", (b, 5, 2), "float32"), input_node("k", (3, 2, 2), "float32")
    first = gradient({loss: shape.ones_like(loss) for loss in [_cubes(x, kernel)]}, [x, kernel])
    again = shape.sum(arithmetic.square(first[0])) + shape.sum(arithmetic.square(first[1]))
    graph = Graph((x, kernel), tuple(gradient({again: shape.ones_like(again)}, [x, kernel])), ("x", "kernel"))
    rng = np.random.default_rng(0)
    given = rng.normal(size=(2, 5, 2)).astype(np.float32), rng.normal(size=(3, 2, 2)).astype(np.float32)

    def norm(x, k):
        dx, dk = jax.grad(_cubes, argnums=(0, 1))(x, k)
        return jnp.sum(dx**2) + jnp.sum(dk**2)

    for ours, theirs in zip(function(graph)(*given), jax.grad(norm, argnums=(0, 1))(*given)):
        np.testing.assert_allclose(ours, theirs, rtol=1e-3, atol=1e-2)


def _cubes(x, kernel):
    return shape.sum(convolution.conv(x, kernel, 2, "same") ** 3)


def test_errors_say_what_fits():
    x = input_node("x", (b, 5, 5, 3), "float32")
    with pytest.raises(ShapeError, match=r"float32\[b, 5, 5, 3\].*groups=1 takes 4 channels, got 3"):
        convolution.conv(x, np.ones((3, 3, 4, 2), np.float32), groups=1)
    with pytest.raises(ShapeError, match=r"4 filters cannot be cut into groups=3"):
        convolution.conv(x, np.ones((3, 3, 1, 4), np.float32), groups=3)
    with pytest.raises(ShapeError, match=r"conv over 1 spatial axes needs an input \(batch, 1 sizes, channels\)"):
        convolution.conv(x, np.ones((3, 3, 4), np.float32), groups=1)
    with pytest.raises(ShapeError, match=r"needs \(batch, 2 sizes, 7 channels\)"):
        convolution.conv_transpose(x, np.ones((3, 3, 4, 7), np.float32))
    with pytest.raises(ShapeError, match=r"'same' or 'valid', got 'full'"):
        convolution.conv_transpose(x, np.ones((3, 3, 4, 3), np.float32), padding="full")

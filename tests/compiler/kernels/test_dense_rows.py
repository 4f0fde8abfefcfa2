"""Native products: a row has the same bits, however many rows there are and so whichever way the work is cut."""

import jax
import numpy as np
import pytest
from kerasoft.compiler.kernels import bridge, dense

pytestmark = pytest.mark.skipif(not bridge.loaded("native"), reason="no native kernels here")
FEW, MANY = 130, 600


@pytest.mark.parametrize("k", [256, 300, 512])
@pytest.mark.parametrize("n", [33, 256])
def test_few_rows_and_many(k, n):
    random = np.random.default_rng(0)
    x, kernel = random.normal(size=(MANY, k)).astype("f"), random.normal(size=(k, n)).astype("f")
    bias, dy, gate = (random.normal(size=s).astype("f") for s in ((n,), (MANY, n), (MANY, k)))

    @jax.jit
    def forward(x):
        return dense.dense(x, kernel, bias, has_bias=True, relu=True)

    @jax.jit
    def back(dy, gate):
        return dense.dense_grad_input(dy, kernel, gate, gated=True)

    many, few = np.asarray(forward(x)), np.asarray(forward(x[:FEW]))
    np.testing.assert_array_equal(many[:FEW], few)
    wanted = np.maximum(x.astype("d") @ kernel.astype("d") + bias, 0)
    np.testing.assert_allclose(many, wanted, atol=1e-3)
    many, few = np.asarray(back(dy, gate)), np.asarray(back(dy[:FEW], gate[:FEW]))
    np.testing.assert_array_equal(many[:FEW], few)
    np.testing.assert_allclose(many, np.where(gate > 0, dy.astype("d") @ kernel.T.astype("d"), 0), atol=1e-3)


@pytest.mark.parametrize(
    ("rows", "k", "n"),
    [
        (128, 784, 512),  # panels as deep as they may be
        (128, 512, 10),  # one panel: rows are shared out
        (5, 2048, 33),  # rows that fall into the same sets of the first cache are packed
        (31, 2500, 70),  # panels in several blocks, an edge
        (1, 70, 1),
    ],
)
def test_few_rows_against_float64(rows, k, n):
    random = np.random.default_rng(1)
    x, kernel = random.normal(size=(rows, k)).astype("f"), random.normal(size=(k, n)).astype("f")
    bias, dy, gate = (random.normal(size=s).astype("f") for s in ((n,), (rows, n), (rows, k)))
    wide_x, wide_kernel, wide_dy = (a.astype("d") for a in (x, kernel, dy))
    made = jax.jit(lambda *a: dense.dense(*a, has_bias=True, relu=False))(x, kernel, bias)
    np.testing.assert_allclose(made, wide_x @ wide_kernel + bias, atol=1e-3)
    made = jax.jit(lambda *a: dense.dense_grad_input(*a, gated=True))(dy, kernel, gate)
    np.testing.assert_allclose(made, np.where(gate > 0, wide_dy @ wide_kernel.T, 0), atol=1e-3)
    of_kernel, of_bias = jax.jit(dense.dense_grad_kernel)(x, dy)
    np.testing.assert_allclose(of_kernel, wide_x.T @ wide_dy, atol=1e-3)
    np.testing.assert_allclose(of_bias, wide_dy.sum(0), atol=1e-3)


@pytest.mark.parametrize("rows", [17, 190, 200, 700])
def test_gradients_of_kernels_with_panels_in_the_second_cache_and_without(rows):
    random = np.random.default_rng(2)
    x, dy = random.normal(size=(rows, 100)).astype("f"), random.normal(size=(rows, 510)).astype("f")
    of_kernel, of_bias = jax.jit(dense.dense_grad_kernel)(x, dy)
    np.testing.assert_allclose(of_kernel, x.astype("d").T @ dy, atol=1e-3)
    np.testing.assert_allclose(of_bias, dy.astype("d").sum(0), atol=1e-3)

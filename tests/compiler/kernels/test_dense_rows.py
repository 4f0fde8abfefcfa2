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

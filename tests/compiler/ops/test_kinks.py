"""Where a function has a kink, the gradient is the one JAX (and so Keras on JAX) takes."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from kerasoft.compiler import lower
from kerasoft.compiler.gradient import gradient
from kerasoft.compiler.ir import Graph
from kerasoft.compiler.ops import activations, arithmetic, reduce
from kerasoft.compiler.ops.registry import constant, input_node

X = np.array([-1.0, 0.0, 0.0, 1.0, 6.0, 3.0, 3.0], np.float32)


@pytest.mark.parametrize(
    "ours, jaxs",
    [
        (arithmetic.absolute, jnp.abs),
        (lambda x: arithmetic.maximum(x, 0.0), lambda x: jnp.maximum(x, 0.0)),
        (lambda x: arithmetic.minimum(x, 3.0), lambda x: jnp.minimum(x, 3.0)),
        (lambda x: arithmetic.clip(x, -1.0, 3.0), lambda x: jnp.clip(x, -1.0, 3.0)),
        (activations.relu, jax.nn.relu),
        (activations.relu6, jax.nn.relu6),
        (activations.leaky_relu, lambda x: jax.nn.leaky_relu(x, 0.2)),
        (activations.elu, jax.nn.elu),
        (lambda x: reduce.max(x[1:3] * 1.0), lambda x: jnp.max(x[1:3])),
        (lambda x: reduce.min(x), jnp.min),
    ],
)
def test_gradient_at_the_kink(ours, jaxs):
    x = input_node("x", (7,), "float32")
    total = reduce.sum(ours(x) * 2.0)
    (dx,) = gradient({total: constant(1.0)}, [x])
    (got,) = lower.function(Graph((x,), (dx,), ("dx",)))(X)
    np.testing.assert_allclose(got, jax.grad(lambda x: jnp.sum(jaxs(x) * 2.0))(X))

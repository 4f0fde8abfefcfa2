"""DropDeadNodes."""

import jax.numpy as jnp
import pytest
from kerasoft.compiler.gradient import gradient
from kerasoft.compiler.ir import Graph, symbol
from kerasoft.compiler.ops import arithmetic as a
from kerasoft.compiler.ops import shape
from kerasoft.compiler.ops.registry import VJP, constant, input_node, param_node
from kerasoft.compiler.passes import DropDeadNodes

X = input_node("x", (symbol("b"), 2), "float32")
K = param_node("k", (2, 2))


@pytest.fixture
def product(new_op):
    return new_op("test_product", lower=jnp.matmul, gradient=VJP)


def test_an_unread_gradient_goes(check, product):
    y = product(a.sin(X), K)
    _, dk = gradient({shape.sum(y): constant(1.0)}, [a.sin(X), K])
    common = [
        "sin(%0) : float32[b, 2]",
        "constant{value=float32[](1.0)} : float32[]",
        "reshape(%3){shape=(1, 1)} : float32[1, 1]",
        "broadcast_to(%4){shape=(<b>, 2)} : float32[b, 2]",
    ]
    check(
        DropDeadNodes(),
        Graph((X,), (dk,), ("dk",)),
        [
            *common,
            "vjp(%1, %2, %5){attrs=(), count=2, of='test_product', wrt=(0, 1)} : (float32[b, 2], float32[2, 2])",
            "item(%6){index=1} : float32[2, 2]",
        ],
        [
            *common,
            "vjp(%1, %2, %5){attrs=(), count=2, of='test_product', wrt=(1,)} : (float32[2, 2])",
            "item(%6){index=0} : float32[2, 2]",
        ],
    )


def test_what_stays(untouched, product):
    y = product(X, K)
    untouched(DropDeadNodes(), *gradient({shape.sum(y): constant(1.0)}, [X, K]), inputs=(X,))
    untouched(DropDeadNodes(), y, inputs=(X,))

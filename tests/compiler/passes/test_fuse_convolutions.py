"""FuseConvolutions, FuseBiasGradients and FuseBatchNormRelu: what they join, what they leave, the same numbers."""

import jax
import numpy as np
from kerasoft.compiler.gradient import gradient
from kerasoft.compiler.ir import Graph, symbol
from kerasoft.compiler.ir.verify import verify, verify_same_interface
from kerasoft.compiler.lower import function
from kerasoft.compiler.ops import arithmetic as a
from kerasoft.compiler.ops import shape
from kerasoft.compiler.ops.activations import relu_op as relu
from kerasoft.compiler.ops.convolution import conv
from kerasoft.compiler.ops.normalization import batch_norm
from kerasoft.compiler.ops.registry import constant, input_node, param_node
from kerasoft.compiler.passes import FuseBatchNormRelu, FuseBiasGradients, FuseConvolutions, ZeroBiasGradients

B = symbol("b")
X = input_node("x", (B, 6, 6, 3), "float32")
K = param_node("k", (3, 3, 3, 4))
K2 = param_node("k2", (3, 3, 4, 4))
BIAS, GAIN, BETA = (param_node(n, (4,)) for n in ("bias", "gain", "beta"))


def same_numbers(one, graph):
    """The graph after pass `one`, which computes what `graph` does."""
    made = one.run(verify(graph))
    verify(made, after=one.name)
    verify_same_interface(graph, made, one.name)
    assert one.run(made) is made, "the pass finds something in its own result"
    bound = [*graph.inputs, *graph.params]
    r = np.random.default_rng(0)
    arrays = [r.normal(size=[d if isinstance(d, int) else 3 for d in n.shape]).astype("float32") for n in bound]
    old, new = (jax.jit(function(g, bound))(*arrays) for g in (graph, made))
    for x, y in zip(old, new, strict=True):
        np.testing.assert_allclose(x, y, rtol=5e-5, atol=5e-5)
    return made


def names(graph):
    return [n.op.name for n in graph.nodes if n.op.name not in ("input", "param", "constant", "item")]


def test_bias_sum_and_relu_join():
    shortcut = conv(X, param_node("k3", (3, 3, 3, 4)), padding="same")
    y = relu(conv(X, K, padding="same") + BIAS + shortcut)
    made = same_numbers(FuseConvolutions(), Graph((X,), (y,), ("y",)))
    assert names(made) == ["conv", "conv_fused"]
    (fused,) = [n for n in made.nodes if n.op.name == "conv_fused"]
    assert (fused.attrs["has_bias"], fused.attrs["has_sum"], fused.attrs["relu"]) == (True, True, True)


def test_two_convolutions_that_are_added_join_once():
    y = conv(X, K) + conv(X, param_node("k3", (3, 3, 3, 4)))
    assert names(same_numbers(FuseConvolutions(), Graph((X,), (y,), ("y",)))) == ["conv", "conv_fused"]


def test_a_result_that_is_read_elsewhere_stays():
    y = conv(X, K)
    graph = Graph((X,), (relu(y), y), ("y", "z"))
    assert FuseConvolutions().run(graph) is graph
    z = y + BIAS
    made = same_numbers(FuseConvolutions(), Graph((X,), (relu(z), z), ("y", "z")))
    assert names(made) == ["conv_fused", "relu"]


def test_a_bias_that_is_no_row_of_channels_stays():
    for other in (param_node("p", (1,)), param_node("p", (4, 1)), param_node("p", ())):
        graph = Graph((X,), (conv(X, K) + other,), ("y",))
        assert FuseConvolutions().run(graph) is graph


def test_gradients_of_kernel_and_bias_join():
    y = relu(conv(X, K) + BIAS)
    dx, dk, db = gradient({shape.sum(a.square(y)): constant(1.0)}, [X, K, BIAS])
    made = same_numbers(FuseBiasGradients(), Graph((X,), (dx, dk, db), ("dx", "dk", "db")))
    assert "conv_grad_kernel" not in names(made) and names(made).count("conv_grad_kernel_bias") == 1
    assert "sum" not in names(made)


def test_relu_joins_batch_normalisation_forward_and_back():
    y = relu(batch_norm(conv(X, K), GAIN, BETA)[0])
    z = conv(y, K2)
    leaves = [K, GAIN, BETA, K2]
    found = gradient({shape.sum(a.square(z)): constant(1.0)}, leaves)
    made = same_numbers(FuseBatchNormRelu(), Graph((X,), (z, *found), ("z", "a", "b", "c", "d")))
    assert names(made).count("batch_norm") == 1 and "relu" not in names(made) and "where" not in names(made)
    assert all(n.attrs["relu"] for n in made.nodes if n.op.name.startswith("batch_norm"))


def test_a_bias_before_batch_normalisation_has_no_gradient():
    y = relu(batch_norm(conv(X, K) + BIAS, GAIN, BETA)[0])
    found = gradient({shape.sum(a.square(y)): constant(1.0)}, [K, BIAS, GAIN])
    made = same_numbers(ZeroBiasGradients(), Graph((X,), tuple(found), ("k", "bias", "gain")))
    assert made.outputs[1].op.name == "constant" and made.outputs[2] is found[2]
    y = relu(batch_norm(relu(conv(X, K) + BIAS), GAIN, BETA)[0])
    graph = Graph((X,), tuple(gradient({shape.sum(a.square(y)): constant(1.0)}, [BIAS])), ("bias",))
    assert ZeroBiasGradients().run(graph) is graph


def test_a_residual_sum_keeps_its_relu():
    y = batch_norm(conv(X, K), GAIN, BETA)[0]
    graph = Graph((X,), (relu(y + conv(X, K)),), ("y",))
    assert FuseBatchNormRelu().run(graph) is graph

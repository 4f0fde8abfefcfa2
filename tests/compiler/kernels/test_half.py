"""bfloat16 products and convolutions by oneDNN, against float64; and that a mixed policy's graphs have them."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from kerasoft.compiler.kernels import bridge, choice, half, lowerings  # noqa: F401  (`choice` fills the table)
from kerasoft.compiler.ops.registry import REGISTRY

import kerasoft as ks

BITS = 2.0**-8  # half a unit in the last place, relative

pytestmark = pytest.mark.skipif(not bridge.loaded("onednn"), reason="without oneDNN")
instructions = pytest.mark.skipif(not half.has_instructions(), reason="a processor without bfloat16")


def drawn(random, *shape):
    return jnp.asarray(random.standard_normal(shape), jnp.bfloat16)


def agree(op, name, arrays, attrs, terms):
    types = [jax.ShapeDtypeStruct(x.shape, x.dtype) for x in arrays]
    (found,) = [one for one in lowerings.candidates(op, types, attrs, name) if one.name == name]
    got = jax.tree.leaves(jax.jit(lambda *x: found.run(*x, **attrs))(*arrays))
    with jax.enable_x64(True):
        wide = [np.asarray(x).astype(np.float64) for x in arrays]
        want = [np.asarray(w) for w in jax.tree.leaves(REGISTRY[op].lower(*wide, **attrs))]
        size = [np.asarray(w) for w in jax.tree.leaves(REGISTRY[op].lower(*map(np.abs, wide), **attrs))]
    for g, w, s in list(zip(got, want, size, strict=True))[:1]:  # not the sums of rows, which XLA makes
        assert g.dtype == jnp.bfloat16 and g.shape == w.shape
        error = np.abs(np.asarray(g).astype(np.float64) - w)
        assert np.all(error <= BITS * np.abs(w) + (terms + 2) * 2.0**-23 * s + 1e-30), (op, attrs)


@instructions
@pytest.mark.parametrize("shape", [(1, 1, 1), (5, 7, 9), (33, 64, 65), (2, 3, 130, 17), (40, 300, 20)])
def test_products(shape):
    random = np.random.default_rng(len(shape) + shape[0])
    *rows, k, n = shape
    x, kernel, dy = drawn(random, *rows, k), drawn(random, k, n), drawn(random, *rows, n)
    agree("dense", "onednn-bfloat16", (x, kernel), {"has_bias": False, "relu": False}, k)
    agree("dense_grad_input", "onednn-bfloat16", (dy, kernel), {"gated": False}, n)
    agree("dense_grad_kernel", "onednn-bfloat16", (x, dy), {}, int(np.prod(rows)))


@pytest.mark.skipif(not bridge.loaded("mkl"), reason="without MKL")
def test_products_by_mkl():
    random = np.random.default_rng(3)
    for rows, k, n in ((1, 1, 1), (5, 7, 9), (33, 64, 65), (40, 300, 20)):
        x, kernel, dy = drawn(random, rows, k), drawn(random, k, n), drawn(random, rows, n)
        agree("matmul", "mkl", (x, kernel), {}, k)
        agree("dense", "mkl", (x, kernel), {"has_bias": False, "relu": False}, k)
        agree("dense_grad_input", "mkl", (dy, kernel), {"gated": False}, n)
        agree("dense_grad_kernel", "mkl", (x, dy), {}, rows)


def convolutions(name, random):
    for rows, channels, filters, strides, padding in (
        (3, 5, 7, (1, 1), "same"),
        (3, 5, 7, (2, 1), "valid"),
        (2, 16, 48, (1, 1), ((1, 0), (0, 1))),
        (1, 33, 64, (2, 2), "same"),
    ):
        attrs = {"strides": strides, "padding": padding, "dilation": (1, 1), "groups": 1}
        x, kernel = drawn(random, rows, 9, 8, channels), drawn(random, 3, 2, channels, filters)
        dy = REGISTRY["conv"].lower(x, kernel, **attrs)
        agree("conv", name, (x, kernel), attrs, 6 * channels)
        agree("conv_grad_input", name, (dy, kernel), attrs | {"input_shape": x.shape}, 6 * filters)
        agree("conv_grad_kernel", name, (x, dy), attrs | {"kernel_shape": kernel.shape}, rows * 90)


def test_convolutions_in_float32():
    convolutions("onednn-float32", np.random.default_rng(0))


@instructions
def test_convolutions_in_bfloat16():
    convolutions("onednn-bfloat16", np.random.default_rng(1))


@instructions
def test_a_mixed_policy_takes_them():
    """Products large enough by oneDNN, types as Keras has them; numbers of XLA's to bfloat16's precision."""
    x = np.random.default_rng(0).standard_normal((256, 512)).astype("float32")

    def trained(kernels):
        ks.config.set_kernels(kernels)
        ks.utils.set_random_seed(0)
        layers = [ks.layers.Dense(256, "relu", dtype="mixed_bfloat16"), ks.layers.Dense(1, dtype="float32")]
        model = ks.Sequential([ks.Input((512,)), *layers])
        model.compile("sgd", "mse")
        losses = model.fit(x, x[:, :1], batch_size=256, epochs=3, verbose=0, shuffle=False).history["loss"]
        explained = model.explain(x, x[:, :1], batch_size=256, measure=False).parts[0]
        assert model.layers[0].kernel.dtype == "float32" and model.layers[0](x).dtype == jnp.bfloat16
        return losses, {(n.op.name, p.name) for n, p in explained.picked.items()}

    try:
        losses, picked = trained(None)
        plain, _ = trained({"*": "xla"})
    finally:
        ks.config.set_kernels(None)
    assert {("dense", "onednn-bfloat16"), ("dense_grad_kernel", "onednn-bfloat16")} <= picked
    np.testing.assert_allclose(losses, plain, rtol=0.02)

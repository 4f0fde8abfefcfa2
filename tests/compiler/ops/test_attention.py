"""Attention against Keras', against its own definition in double precision, and its memory."""

import jax
import jax.numpy as jnp
import keras
import numpy as np
import pytest
from kerasoft.compiler.errors import ShapeError
from kerasoft.compiler.gradient import gradient
from kerasoft.compiler.ir import Graph, symbol
from kerasoft.compiler.kernels import attention as native
from kerasoft.compiler.kernels import bridge
from kerasoft.compiler.lower import function
from kerasoft.compiler.ops import attention
from kerasoft.compiler.ops.registry import input_node

pytestmark = pytest.mark.shipped

b, t = symbol("b"), symbol("t")
rng = np.random.default_rng(0)
Q, K, V = (rng.normal(size=(2, n, 3, 4)).astype(np.float32) for n in (5, 6, 6))

LOWERINGS = {
    "xla": (attention.attention_op.lower, attention.attention_grad_op.lower),
    "native": (native.attention, native.attention_grad),
}
EACH = [
    pytest.param(n, marks=pytest.mark.skipif(n == "native" and not bridge.loaded("native"), reason="not built"))
    for n in LOWERINGS
]


def definition(q, k, v, dy, mask=None, bias=None, scale=None, is_causal=False):
    """Values and gradients for q, k, v and bias in double precision, from all scores."""
    q, k, v, dy = (np.asarray(x, np.float64) for x in (q, k, v, dy))
    groups = q.shape[2] // k.shape[2]
    k_all, v_all = np.repeat(k, groups, 2), np.repeat(v, groups, 2)
    scores = scale * np.einsum("bthd,bshd->bhts", q, k_all)
    scores = scores if bias is None else scores + bias
    seen = np.ones(scores.shape, bool) if mask is None else np.broadcast_to(mask, scores.shape)
    if is_causal:
        seen = seen & np.tri(*scores.shape[-2:], dtype=bool)
    scores = np.where(seen, scores, -1e30)
    with np.errstate(invalid="ignore"):
        weights = np.exp(scores - scores.max(-1, keepdims=True))
        weights /= weights.sum(-1, keepdims=True)
    y = np.einsum("bhts,bshe->bthe", weights, v_all)
    d_weights = np.einsum("bthe,bshe->bhts", dy, v_all)
    d_scores = np.where(seen, weights * (d_weights - (weights * d_weights).sum(-1, keepdims=True)), 0)
    dq = scale * np.einsum("bhts,bshd->bthd", d_scores, k_all)
    dk = scale * np.einsum("bhts,bthd->bshd", d_scores, q)
    dv = np.einsum("bhts,bthe->bshe", weights, dy)
    grouped = [x.reshape(*k.shape[:3], groups, -1).sum(3) for x in (dk, dv)]
    d_bias = None
    if bias is not None:
        d_bias = d_scores.sum(tuple(i for i, n in enumerate(bias.shape) if n == 1), keepdims=True)
    return y, dq, *grouped, d_bias


CASES = {
    # batch, queries, keys, heads, heads of keys, features, features of values
    "one of each": ((1, 1, 1, 1, 1, 1, 1), {}),
    "odd": ((2, 13, 37, 3, 3, 5, 7), {"mask": (2, 3, 13, 37)}),
    "whole vectors": ((2, 64, 128, 2, 2, 32, 64), {}),
    "causal": ((2, 70, 70, 2, 1, 16, 16), {"is_causal": True}),
    "causal, padded": ((3, 33, 45, 2, 2, 8, 8), {"is_causal": True, "mask": (3, 1, 1, 45)}),
    "more queries than keys, causal": ((1, 150, 20, 1, 1, 8, 40), {"is_causal": True}),
    "masks of rows": ((2, 20, 9, 4, 2, 8, 8), {"mask": (1, 1, 20, 1)}),
    "bias": ((2, 21, 40, 4, 4, 8, 8), {"bias": (1, 4, 21, 40)}),
    "bias of queries": ((2, 21, 40, 4, 2, 8, 8), {"bias": (2, 1, 21, 1), "mask": (2, 4, 1, 40)}),
    "several blocks": ((1, 130, 1100, 2, 1, 24, 33), {"mask": (1, 2, 130, 1100), "bias": (1, 1, 1, 1100)}),
    "several blocks, causal": ((1, 600, 600, 1, 1, 8, 8), {"is_causal": True}),
    "wide heads": ((1, 9, 11, 1, 1, 256, 200), {"scale": 0.1}),
}


def arrays_of(sizes, options, seed=0):
    rng = np.random.default_rng(seed)
    n, queries, keys, heads, key_heads, features, value_features = sizes

    def normal(*shape):
        return rng.normal(size=shape).astype(np.float32)

    q, k = normal(n, queries, heads, features), normal(n, keys, key_heads, features)
    v, dy = normal(n, keys, key_heads, value_features), normal(n, queries, heads, value_features)
    given = {"scale": 0.7, **options}
    if "mask" in given:
        given["mask"] = rng.random(given["mask"]) < 0.6
        given["mask"][0, 0, 0] = False  # a query, or whole row of the batch, that sees nothing
    if "bias" in given:
        given["bias"] = normal(*given["bias"])
    return (q, k, v, dy), given


def computed(name, arrays, given):
    """Values and gradients by the lowering `name`, as a program calls it."""
    forward, backward = LOWERINGS[name]
    *inputs, dy = arrays
    extra = [given[x] for x in ("mask", "bias") if x in given]
    attrs = {
        "has_mask": "mask" in given,
        "has_bias": "bias" in given,
        "scale": given["scale"],
        "is_causal": given.get("is_causal", False),
    }

    @jax.jit
    def run(inputs, extra, dy):
        out, saved = forward(*inputs, *extra, **attrs)
        made = backward(*inputs, *extra, out, saved, dy, of_bias=False, **attrs)
        if "bias" not in given or name == "native":
            return out, *made, None
        return out, *made, attention.attention_grad_op.lower(*inputs, *extra, out, saved, dy, of_bias=True, **attrs)[0]

    return run(inputs, extra, dy)


@pytest.mark.parametrize("name", EACH)
@pytest.mark.parametrize("case", CASES)
def test_values_and_gradients_are_the_definition(case, name):
    arrays, given = arrays_of(*CASES[case])
    want = definition(*arrays, **given)
    for what, one, other in zip(("y", "dq", "dk", "dv", "d_bias"), computed(name, arrays, given), want):
        if one is not None:
            atol = 3e-6 * max(1.0, float(np.abs(other).max()))
            np.testing.assert_allclose(one, other, rtol=0, atol=atol, err_msg=what)


@pytest.mark.parametrize("name", EACH)
def test_a_nan_spoils_its_own_rows_only_and_infinite_biases_hide(name):
    (q, k, v, dy), given = arrays_of((1, 6, 300, 2, 2, 8, 8), {})
    q[0, 2, 1, 3] = np.nan
    given["bias"] = np.zeros((1, 1, 1, 300), np.float32)
    given["bias"][..., :280] = -np.inf  # whole blocks of the kernel's
    y, dq, *_ = computed(name, (q, k, v, dy), given)
    spoilt = np.zeros((6, 2), bool)
    spoilt[2, 1] = True
    np.testing.assert_array_equal(np.isnan(y).all(-1)[0], spoilt)
    np.testing.assert_array_equal(np.isnan(y).any(-1)[0], spoilt)
    np.testing.assert_array_equal(np.isnan(dq).any(-1)[0], spoilt)
    alone = definition(q[:, :2], k[:, 280:], v[:, 280:], dy[:, :2], scale=0.7)
    np.testing.assert_allclose(y[:, :2], alone[0], atol=3e-6)
    given["bias"][:] = -np.inf
    assert np.isnan(computed(name, (q, k, v, dy), given)[0]).all()


@pytest.mark.parametrize("name", EACH)
def test_no_matrix_of_all_scores_stands_in_memory(name):
    """4096 queries and keys: all scores take 64 MB, and the composed form would keep several such matrices."""
    arrays, given = arrays_of((1, 4096, 4096, 1, 1, 8, 8), {"is_causal": True})
    forward, backward = LOWERINGS[name]
    attrs = {"has_mask": False, "has_bias": False, "scale": 0.3, "is_causal": True}

    def run(q, k, v, dy):
        out, saved = forward(q, k, v, **attrs)
        return backward(q, k, v, out, saved, dy, of_bias=False, **attrs)

    compiled = jax.jit(run).lower(*arrays).compile()
    assert "4096,4096" not in compiled.as_text()
    assert compiled.memory_analysis().temp_size_in_bytes < 32 * 2**20


@pytest.mark.parametrize("name", EACH)
def test_half_precision_is_computed_in_float32(name):
    arrays, given = arrays_of((2, 9, 17, 2, 2, 8, 8), {})
    half = [jnp.asarray(x, "bfloat16") for x in arrays]
    want = definition(*(np.asarray(x, np.float64) for x in half), **given)
    for one, other in zip(computed(name, half, given), want):
        if one is not None:
            assert one.dtype == jnp.bfloat16
            np.testing.assert_allclose(np.asarray(one, np.float64), other, rtol=0, atol=0.02 * np.abs(other).max())


@pytest.mark.skipif(not bridge.loaded("native"), reason="not built")
def test_a_program_takes_the_kernel_and_gets_the_same_numbers(monkeypatch):
    from kerasoft.compiler.kernels.choice import Chooser

    x = input_node("x", (b, 20, 2, 8), "float32")
    y = attention.scaled_dot_product(x, x, x, is_causal=True)
    graph = Graph((x,), (y, gradient({y: y}, [x])[0]), ("y", "dx"))
    value = rng.normal(size=(3, 20, 2, 8)).astype(np.float32)
    want = function(graph)(value)
    monkeypatch.setenv("KERASOFT_KERNELS", "attention=native,attention_grad=native")
    chooser = Chooser()
    found = jax.jit(function(graph, lowerer=chooser))(value)
    assert {n.op.name: p.name for n, p in chooser.picked.items()} == {"attention": "native", "attention_grad": "native"}
    for one, other in zip(found, want):
        np.testing.assert_allclose(one, other, rtol=1e-5, atol=1e-5)


def test_plain_and_masked_are_keras():
    mask = rng.random((2, 1, 5, 6)) < 0.7
    bias = rng.normal(size=(1, 3, 5, 6)).astype(np.float32)
    for options in ({}, {"mask": mask}, {"bias": bias}, {"scale": 0.3}):
        want = keras.ops.dot_product_attention(Q, K, V, **options)
        np.testing.assert_allclose(attention.scaled_dot_product(Q, K, V, **options), want, atol=1e-5)


def test_causal_of_unknown_length_sees_no_later_position():
    x = input_node("x", (b, t, 3, 4), "float32")
    y = attention.scaled_dot_product(x, x, x, is_causal=True)
    assert str(y.type) == "float32[b, t, 3, 4]"
    run = function(Graph((x,), (y,), ("y",)))
    changed = Q.copy()
    changed[:, 3:] = 9
    np.testing.assert_allclose(run(Q)[0][:, :3], run(changed)[0][:, :3], atol=1e-6)
    np.testing.assert_allclose(run(Q)[0][:, 0], Q[:, 0], atol=1e-6)


def test_a_query_that_sees_nothing_gets_the_mean():
    y = attention.scaled_dot_product(Q, K, V, mask=np.zeros((2, 1, 5, 6), bool))
    np.testing.assert_allclose(y, np.broadcast_to(V.mean(1, keepdims=True), (2, 5, 3, 4)), atol=1e-5)


@pytest.mark.parametrize(
    "shapes, text",
    [
        (((b, 5, 4), (b, 5, 3, 4), (b, 5, 3, 4)), "three times"),
        (((b, 5, 3, 4), (b, 6, 3, 8), (b, 6, 3, 4)), "features of query and key must be equal, got 4 and 8"),
        (((b, 5, 3, 4), (b, 6, 3, 4), (b, 7, 3, 4)), "steps of key and value must be equal, got 6 and 7"),
        (((b, 5, 3, 4), (b, 6, 2, 4), (b, 6, 2, 4)), "3 heads of query cannot share 2 heads"),
    ],
)
def test_sizes_that_do_not_fit_are_named(shapes, text):
    with pytest.raises(ShapeError, match=text):
        attention.scaled_dot_product(*(input_node(f"x{i}", s, "float32") for i, s in enumerate(shapes)))


def test_a_mask_that_does_not_broadcast_is_named():
    x = input_node("x", (b, 5, 3, 4), "float32")
    with pytest.raises(ShapeError, match=r"mask must broadcast to .*bool\[b, 1, 5, 7\]"):
        attention.scaled_dot_product(x, x, x, mask=input_node("m", (b, 1, 5, 7), "bool"))

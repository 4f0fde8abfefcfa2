"""`ops.nn` against Keras: each public name has a row; half precision, integers, data formats, paddings."""

import jax
import jax.numpy as jnp
import keras
import numpy as np
import pytest
from namespaces import check, check_gradient, check_symbolic, public

import kerasoft as ks

rng = np.random.default_rng(3)
N = lambda *shape: rng.normal(size=shape).astype("float32")  # noqa: E731
A, C = N(2, 3), N(2, 5, 3)
X1, X2, X3 = N(2, 7, 4), N(2, 7, 6, 4), N(2, 5, 6, 4, 2)
FIRST = np.ascontiguousarray(X2.transpose(0, 3, 1, 2))
CF = {"data_format": "channels_first"}
P = np.exp(C) / np.exp(C).sum(-1, keepdims=True)
HOT = np.eye(3, dtype="float32")[rng.integers(0, 3, (2, 5))]
CLASSES = rng.integers(0, 3, (2, 5)).astype("int32")
LABELS = np.array([[1, 2, 2, 0], [3, 1, 0, 0]], "int32")
LOGITS = N(2, 7, 5)
Q, K, V = N(2, 4, 6, 5), N(2, 3, 6, 5), N(2, 3, 6, 5)
FEW = N(2, 3, 2, 5)
MASK = np.array([[[[True, False, True]]], [[[False, True, True]]]])
MEAN, VARIANCE, GAIN, SHIFT = N(4), np.abs(N(4)) + 0.1, N(4), N(4)
EACH = """celu elu gelu glu hard_shrink hard_sigmoid hard_silu hard_swish hard_tanh leaky_relu log_sigmoid log_softmax
relu relu6 selu sigmoid silu soft_shrink softmax softplus softsign sparse_plus sparse_sigmoid sparsemax squareplus swish
tanh_shrink""".split()

ROWS = [
    *((name, (X1,), {}) for name in EACH if name != "sparsemax"),
    *((name, (X1,), {"axis": 1}) for name in ("softmax", "log_softmax")),
    ("sparsemax", (X1[0, 0],), {}),  # of more than one row Keras's is no distribution; see test_activations.py
    ("softmax", (X2,), {"axis": (1, 2)}),
    ("glu", (X2,), {"axis": 2}),
    ("gelu", (X1,), {"approximate": False}),
    ("celu", (X1,), {"alpha": 0.7}),
    ("elu", (X1,), {"alpha": 0.7}),
    ("leaky_relu", (X1,), {"negative_slope": 0.3}),
    ("hard_shrink", (X1,), {"threshold": 0.2}),
    ("soft_shrink", (X1,), {"threshold": 0.2}),
    ("squareplus", (X1,), {"b": 2}),
    ("threshold", (X1, 0.3, -1.0), {}),
    ("polar", (A, A[::-1].copy()), {}),
    ("psnr", (A, A + 0.1), {"max_val": 2.0}),
    ("average_pool", (X2, 2, 2), {}),  # without strides Keras fails
    ("average_pool", (X2, (3, 2), (1, 2), "same"), {}),
    ("average_pool", (FIRST, 2, 1), CF),
    ("average_pool", (X1, 3, 2, "same"), {}),
    ("max_pool", (X2, (2, 3), 2, "same"), {}),
    ("max_pool", (X3, 2, 1), {}),
    ("adaptive_average_pool", (X2, (3, 4)), {}),
    ("adaptive_average_pool", (X1, (3,)), {}),
    ("adaptive_average_pool", (X3, (3, 4, 3)), {}),
    ("adaptive_average_pool", (FIRST, 3), CF),
    ("adaptive_max_pool", (X2, (3, 4)), {}),
    ("adaptive_max_pool", (X1, 3), {}),
    ("adaptive_max_pool", (X3, 2), {}),
    ("adaptive_max_pool", (FIRST, (2, 5)), CF),
    ("conv", (X1, N(3, 4, 5)), {"padding": "same", "strides": 2}),
    ("conv", (X2, N(3, 2, 2, 6)), {"dilation_rate": 2}),
    ("conv", (X3, N(2, 2, 2, 2, 3)), {"padding": "same"}),
    ("conv", (FIRST, N(3, 3, 4, 5), 2, "same"), CF),
    ("depthwise_conv", (X2, N(3, 2, 4, 2), 2, "same"), {}),
    ("depthwise_conv", (X1, N(3, 4, 2)), {"dilation_rate": 2}),
    ("depthwise_conv", (FIRST, N(3, 3, 4, 1)), CF),
    ("separable_conv", (X2, N(3, 2, 4, 2), N(1, 1, 8, 3), 2, "same"), {}),
    ("separable_conv", (X1, N(3, 4, 2), N(1, 8, 3)), {}),
    ("conv_transpose", (X2, N(3, 2, 5, 4), 2), {}),
    ("conv_transpose", (X2, N(3, 3, 5, 4), (2, 3), "same"), {}),
    ("conv_transpose", (X1, N(3, 5, 4), 2, "valid", 1), {}),
    ("conv_transpose", (FIRST, N(3, 3, 5, 4), 1, "same"), CF),
    ("batch_normalization", (X2, MEAN, VARIANCE, -1), {"offset": SHIFT, "scale": GAIN, "epsilon": 1e-2}),
    ("batch_normalization", (FIRST, MEAN, VARIANCE, 1), {}),
    ("layer_normalization", (X1,), {}),
    ("layer_normalization", (X1, GAIN, SHIFT), {"epsilon": 1e-3}),
    ("layer_normalization", (X2, N(7), N(7)), {"axis": 1}),
    ("layer_normalization", (X2, N(6, 4), N(6, 4)), {"axis": (-2, -1)}),
    ("rms_normalization", (X1, GAIN), {}),
    ("rms_normalization", (X1,), {"axis": 1, "epsilon": 1e-2}),
    ("normalize", (X1,), {}),
    ("normalize", (X1,), {"axis": 1, "order": 3}),
    ("moments", (X2,), {"axes": [0, 1], "keepdims": True}),
    ("dot_product_attention", (Q, K, V), {}),
    ("dot_product_attention", (Q, K, V, N(1, 6, 4, 3)), {"mask": MASK, "scale": 0.3}),
    ("dot_product_attention", (Q, Q, Q), {"is_causal": True}),
    ("dot_product_attention", (Q, FEW, FEW), {}),
    ("binary_crossentropy", (HOT, P), {}),
    ("binary_crossentropy", (HOT, C), {"from_logits": True}),
    ("categorical_crossentropy", (HOT, P), {}),
    ("categorical_crossentropy", (HOT, C), {"from_logits": True, "axis": 1}),
    ("sparse_categorical_crossentropy", (CLASSES, P), {}),
    ("sparse_categorical_crossentropy", (CLASSES[..., None], C), {"from_logits": True}),
    ("one_hot", (CLASSES, 4), {}),
    ("one_hot", (np.array([1, -1, 7]), 4), {"axis": 0, "dtype": "int32"}),
    ("multi_hot", (CLASSES, 4), {}),
    ("multi_hot", (CLASSES[0], 4), {}),
    ("multi_hot", (CLASSES,), {"num_tokens": 4, "axis": 1, "dtype": "int32"}),
    ("average_pool", (X2.astype("int32"), 2, 2), {}),
    ("conv", (X2.astype("int32"), N(3, 3, 4, 2)), {}),
    ("ctc_loss", (LABELS, LOGITS, np.array([3, 2]), np.array([7, 5])), {}),
    ("ctc_loss", (LABELS, LOGITS, np.array([3, 2]), np.array([7, 2])), {"mask_index": 4}),
    ("ctc_decode", (LOGITS, np.array([7, 5])), {}),
    ("ctc_decode", (LOGITS, np.array([7, 5])), {"merge_repeated": False, "mask_index": None}),
    ("ctc_decode", (LOGITS, np.array([7, 5])), {"strategy": "beam_search", "beam_width": 3, "top_paths": 2}),
    ("unfold", (X2, 3), {}),
    ("unfold", (X2, (2, 3), 1, (1, 2), (2, 1)), {}),
    ("fold", (N(2, 18, 20), (6, 7), (3, 3)), {}),
    ("fold", (N(2, 12, 24), (7, 4), (2, 3), 1, (1, 2), (2, 1)), {}),
    ("depth_to_space", (N(2, 3, 4, 8), 2), {}),
    ("depth_to_space", (N(2, 8, 3, 4), 2), CF),
    ("space_to_depth", (N(2, 4, 6, 3), 2), {}),
    ("space_to_depth", (N(2, 3, 4, 6), 2), CF),
]
LOOSE = {"ctc_decode": 1e-4, "conv": 1e-4, "separable_conv": 1e-4, "conv_transpose": 1e-4, "fold": 1e-4}


def test_each_public_name_has_a_row():
    assert public(keras.ops.nn) - {name for name, _, _ in ROWS} == set()
    assert [n for n in public(keras.ops.nn) if not hasattr(ks.ops.nn, n) or not hasattr(ks.ops, n)] == []


@pytest.mark.parametrize(("name", "args", "kwargs"), ROWS)
def test_values_are_those_of_keras(name, args, kwargs):
    check(f"nn.{name}", args, kwargs, LOOSE.get(name, 2e-5))


@pytest.mark.parametrize(
    ("name", "args", "kwargs"),
    [
        ("adaptive_average_pool", (X2, (3, 4)), {}),
        ("adaptive_max_pool", (X2, (3, 4)), {}),
        ("fold", (N(2, 18, 20), (6, 7), 3), {}),
        ("unfold", (X2, 3), {}),
        ("sparse_plus", (X1,), {}),
        ("squareplus", (X1,), {}),
        ("normalize", (X1,), {}),
        ("dot_product_attention", (Q, Q, Q), {"is_causal": True}),
        ("conv_transpose", (X2, N(3, 2, 5, 4), 2), {}),
    ],
)
def test_gradients_are_those_of_keras(name, args, kwargs):
    check_gradient(f"nn.{name}", args, kwargs, 1e-3)


def test_the_gradient_of_ctc_is_keras():
    lengths = np.array([3, 2]), np.array([7, 5])
    want = jax.grad(lambda x: keras.ops.ctc_loss(LABELS, x, *lengths).sum())(LOGITS)
    got = jax.grad(lambda x: ks.ops.ctc_loss(LABELS, x, *lengths).sum())(LOGITS)
    np.testing.assert_allclose(got, want, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", [n for n in EACH if n != "glu"])
@pytest.mark.parametrize("kind", ["bfloat16", "int32"])
def test_dtypes_of_activations_are_keras(name, kind):
    x = jnp.asarray([[-3.0, 0.0, 0.0, 2.0]], kind)
    try:
        want = getattr(keras.ops.nn, name)(x)
    except (TypeError, ValueError, RuntimeWarning):
        pytest.skip("Keras refuses the dtype")
    got = getattr(ks.ops.nn, name)(x)
    assert got.dtype == want.dtype
    np.testing.assert_allclose(np.asarray(got, "float32"), np.asarray(want, "float32"), rtol=1e-2, atol=1e-2)


@pytest.mark.parametrize(
    ("name", "args", "kwargs"),
    [
        ("conv", (X2, N(3, 3, 4, 5), 2, "same"), {}),
        ("max_pool", (X2, 2, 2, "same"), {}),
        ("average_pool", (X2, 2, 2), {}),
        ("layer_normalization", (X1, GAIN, SHIFT), {}),
        ("rms_normalization", (X1, GAIN), {}),
        ("batch_normalization", (X2, MEAN, VARIANCE, -1), {}),
        ("dot_product_attention", (Q, K, V), {}),
        ("adaptive_average_pool", (X2, 3), {}),
        ("unfold", (X2, 3), {}),
        ("depth_to_space", (X2, 2), {}),
    ],
)
def test_half_precision_stays(name, args, kwargs):
    args = [jnp.asarray(a, "bfloat16") if isinstance(a, np.ndarray) else a for a in args]
    want, got = getattr(keras.ops.nn, name)(*args, **kwargs), getattr(ks.ops.nn, name)(*args, **kwargs)
    assert got.dtype == want.dtype
    np.testing.assert_allclose(np.asarray(got, "float32"), np.asarray(want, "float32"), rtol=3e-2, atol=3e-2)


@pytest.mark.parametrize(
    ("name", "args", "kwargs"),
    [
        ("unfold", (X2, 3), {}),
        ("depth_to_space", (X2, 2), {}),
        ("space_to_depth", (N(2, 3, 4, 6), 2), CF),
        ("max_pool", (X2, 2, 2), {}),
        ("ctc_decode", (LOGITS,), {"sequence_lengths": np.array([7, 5])}),
    ],
)
def test_shapes_of_unknown_batches_are_those_of_keras(name, args, kwargs):
    check_symbolic(f"nn.{name}", args, kwargs)


@pytest.mark.parametrize(
    ("call", "error", "text"),
    [
        (lambda o: o.normalize(A, order=0), ValueError, "`order` must be an int >= 1. Received: order=0"),
        (lambda o: o.psnr(A, C, 1.0), ValueError, "must match for PSNR calculation"),
        (lambda o: o.unfold(A, 2), ValueError, "Input must be a 4D tensor"),
        (lambda o: o.fold(N(2, 7, 4), 4, 2), ValueError, "must be divisible by kernel_size product .4."),
        (lambda o: o.fold(A, 4, 2), ValueError, "Input must be a 3D tensor"),
        (lambda o: o.depth_to_space(X2, 1), ValueError, "`block_size` must be at least 2"),
        (lambda o: o.depth_to_space(X2, 3), ValueError, "number of channels .4. must be divisible by block_size"),
        (lambda o: o.space_to_depth(X2, 2), ValueError, "Height .7. must be divisible by block_size .2."),
        (lambda o: o.adaptive_max_pool(A, 2), ValueError, "supports only 1D/2D/3D inputs"),
        (lambda o: o.ctc_decode(LOGITS, [7, 5], "best"), ValueError, "Invalid strategy best"),
        (lambda o: o.ctc_loss(LABELS[:1], LOGITS, [3], [7, 5]), ValueError, "must have the same first dimension"),
        (lambda o: o.binary_crossentropy(A, C), ValueError, "must have the same shape"),
    ],
)
def test_errors(call, error, text):
    with pytest.raises(error, match=text):
        call(ks.ops.nn)

"""Front-end ops against keras.ops: values eager, values through a graph, shapes and dtypes symbolic."""

import os

os.environ["KERAS_BACKEND"] = "jax"

import numpy as np
import pytest
from kerasoft.compiler import lower
from kerasoft.compiler.ir import Graph
from kerasoft.compiler.ops.registry import constant, input_node

import kerasoft as ks
from kerasoft.tensors import Scope

keras = pytest.importorskip("keras")

rng = np.random.default_rng(3)
A = rng.normal(size=(2, 3)).astype("float32")
B = rng.normal(size=(2, 3)).astype("float32")
P = np.abs(A) + 0.1
UNIT = np.clip(A / 4, -0.9, 0.9)
INTS = np.array([[3, -1, 2], [0, 5, -4]], "int32")
BOOL = A > 0
V = rng.normal(size=(3,)).astype("float32")
C3 = rng.normal(size=(2, 3, 4)).astype("float32")
IMAGE = rng.normal(size=(2, 6, 5, 4)).astype("float32")
SIGNAL = rng.normal(size=(2, 7, 3)).astype("float32")
PROBS = (P / P.sum(-1, keepdims=True)).astype("float32")
SQUARE = rng.normal(size=(3, 3)).astype("float32")
K = lambda *s: rng.normal(size=s).astype("float32")  # noqa: E731
ids = np.array([2, 0, 1, 1], "int32")

UNARY = """absolute abs negative square sign exp exp2 expm1 sin cos tan arctan sinh cosh tanh arcsinh ceil floor trunc
isfinite isinf isnan deg2rad rad2deg erf relu relu6 sigmoid softplus softsign silu swish log_sigmoid selu hard_sigmoid
hard_silu tanh_shrink hard_tanh elu celu gelu leaky_relu softmax log_softmax hard_shrink soft_shrink cbrt round sum mean
max min prod var std all any argmax argmin amax amin cumsum cumprod sort argsort logsumexp count_nonzero ravel transpose
flip tril triu zeros_like ones_like logical_not median copy stop_gradient normalize rms_normalization norm nan_to_num""".split()
POSITIVE = "log log1p log2 log10 sqrt rsqrt reciprocal arccosh".split()
SMALL = "arcsin arccos arctanh".split()
BINARY = """add subtract multiply divide true_divide power mod floor_divide maximum minimum arctan2 hypot logaddexp
equal not_equal greater greater_equal less less_equal divide_no_nan isclose vdot outer inner""".split()

CASES = {}
for _name in UNARY:
    CASES[_name] = (_name, (A,), {})
for _name in POSITIVE:
    CASES[_name] = (_name, (P + 1 if _name == "arccosh" else P,), {})
for _name in SMALL:
    CASES[_name] = (_name, (UNIT,), {})
for _name in BINARY:
    CASES[_name] = (_name, (P if _name == "power" else A, B), {})
CASES |= {
    f"{name} {i}": (name, args, kwargs)
    for i, (name, args, kwargs) in enumerate(
        [
            ("add", (A, 2), {}),
            ("add", (INTS, 2), {}),
            ("add", (INTS, A), {}),
            ("divide", (INTS, INTS + 9), {}),
            ("divide", (6.0, P), {}),
            ("power", (P, 2), {}),
            ("multiply", (A, V), {}),
            ("sum", (A,), {"axis": 1, "keepdims": True}),
            ("sum", (C3,), {"axis": (0, 2)}),
            ("sum", (BOOL,), {"axis": -1}),
            ("mean", (INTS,), {"axis": 0}),
            ("mean", (C3,), {"axis": [1, 2], "keepdims": True}),
            ("max", (A,), {"axis": 1, "initial": 0.5}),
            ("min", (INTS,), {"axis": 0}),
            ("prod", (INTS,), {"axis": 1}),
            ("var", (C3,), {"axis": -1}),
            ("std", (C3,), {"axis": 0, "keepdims": True}),
            ("all", (BOOL,), {"axis": 1}),
            ("any", (BOOL,), {"axis": 0, "keepdims": True}),
            ("argmax", (A,), {"axis": -1}),
            ("argmin", (C3,), {"axis": 1, "keepdims": True}),
            ("argsort", (A,), {"axis": 0}),
            ("sort", (C3,), {"axis": 1}),
            ("cumsum", (C3,), {"axis": 1}),
            ("cumprod", (A,), {"axis": 0}),
            ("logsumexp", (C3,), {"axis": 2, "keepdims": True}),
            ("average", (A,), {"axis": 1, "weights": P}),
            ("average", (A,), {"axis": 0}),
            ("quantile", (A, 0.3), {"axis": 1}),
            ("top_k", (A, 2), {}),
            ("in_top_k", (np.array([0, 2]), A, 2), {}),
            ("moments", (C3,), {"axes": [0, 1]}),
            ("where", (BOOL, A, B), {}),
            ("where", (BOOL, A, 0.0), {}),
            ("clip", (A, -0.5, 0.5), {}),
            ("round", (A,), {"decimals": 1}),
            ("cast", (A, "int32"), {}),
            ("cast", (BOOL, "float32"), {}),
            ("logical_and", (BOOL, INTS), {}),
            ("logical_or", (BOOL, INTS), {}),
            ("logical_xor", (BOOL, BOOL), {}),
            ("reshape", (C3, (-1, 6)), {}),
            ("reshape", (C3, (2, 12)), {}),
            ("transpose", (C3, (2, 0, 1)), {}),
            ("swapaxes", (C3, 0, 2), {}),
            ("moveaxis", (C3, 0, -1), {}),
            ("moveaxis", (C3, (0, 1), (2, 0)), {}),
            ("expand_dims", (A, 1), {}),
            ("expand_dims", (A, (0, -1)), {}),
            ("squeeze", (A[:, :1],), {}),
            ("squeeze", (A[:, :1],), {"axis": 1}),
            ("broadcast_to", (V, (2, 3)), {}),
            ("concatenate", ([A, B],), {"axis": -1}),
            ("concatenate", ([A, INTS],), {"axis": 0}),
            ("stack", ([A, B],), {"axis": 1}),
            ("hstack", ([A, B],), {}),
            ("vstack", ([V, V],), {}),
            ("append", (A, B), {"axis": 0}),
            ("append", (A, B), {}),
            ("unstack", (A,), {"axis": 1}),
            ("split", (IMAGE, 3), {"axis": 1}),
            ("split", (IMAGE, [1, 4]), {"axis": 1}),
            ("repeat", (A, 2), {"axis": 1}),
            ("repeat", (A, 3), {}),
            ("repeat", (A, np.array([1, 0, 2])), {"axis": 1}),
            ("tile", (A, (2, 1, 3)), {}),
            ("tile", (C3, 2), {}),
            ("flip", (C3,), {"axis": (0, 2)}),
            ("roll", (A, 2), {"axis": 1}),
            ("roll", (A, 1), {}),
            ("roll", (A, (1, 2)), {"axis": (0, 1)}),
            ("pad", (A, ((1, 0), (2, 3))), {}),
            ("pad", (A, ((1, 1), (0, 1))), {"constant_values": 7.0}),
            ("pad", (A, ((1, 1), (2, 1))), {"mode": "reflect"}),
            ("pad", (A, ((1, 1), (2, 1))), {"mode": "symmetric"}),
            ("take", (A, ids), {"axis": 1}),
            ("take", (A, np.array([[0, -1]])), {"axis": 0}),
            ("take", (A, ids), {}),
            ("take_along_axis", (A, np.array([[0], [2]])), {"axis": 1}),
            ("tril", (C3,), {"k": 1}),
            ("triu", (SQUARE,), {"k": -1}),
            ("diag", (V,), {"k": 1}),
            ("diag", (SQUARE,), {}),
            ("diagonal", (C3,), {"axis1": 1, "axis2": 2}),
            ("trace", (SQUARE,), {"offset": 1}),
            ("scatter", (np.array([[0, 1], [2, 2]]), np.array([5.0, 6.0], "float32"), (3, 4)), {}),
            ("scatter_update", (A, np.array([[0, 1]]), np.array([9.0], "float32")), {}),
            ("slice", (C3, (0, 1, 1), (2, 2, 3)), {}),
            ("slice_update", (A, (0, 1), np.ones((1, 2), "float32")), {}),
            ("full_like", (A, 4), {}),
            ("ones_like", (A,), {"dtype": "int32"}),
            ("one_hot", (ids, 3), {}),
            ("one_hot", (ids, 4), {"axis": 0, "dtype": "int32"}),
            ("multi_hot", (np.array([[0, 2], [1, 1]]), 4), {}),
            ("matmul", (C3, K(4, 5)), {}),
            ("matmul", (C3, K(2, 4, 5)), {}),
            ("matmul", (V, SQUARE), {}),
            ("matmul", (SQUARE, V), {}),
            ("matmul", (INTS, INTS.T), {}),
            ("dot", (C3, K(4, 2)), {}),
            ("dot", (V, V), {}),
            ("tensordot", (C3, K(3, 4, 2)), {"axes": 2}),
            ("tensordot", (C3, K(4, 3)), {"axes": [[1, 2], [1, 0]]}),
            ("einsum", ("bij,jk->bik", C3, K(4, 2)), {}),
            ("einsum", ("bij->b", C3), {}),
            ("cross", (A, B), {}),
            ("norm", (C3,), {"axis": -1}),
            ("norm", (C3,), {"axis": 1, "ord": 1, "keepdims": True}),
            ("norm", (A,), {"ord": np.inf, "axis": 1}),
            ("norm", (A,), {"ord": 3, "axis": 1}),
            ("normalize", (C3,), {"axis": 1}),
            ("leaky_relu", (A,), {"negative_slope": 0.4}),
            ("elu", (A,), {"alpha": 0.5}),
            ("celu", (A,), {"alpha": 2.0}),
            ("gelu", (A,), {"approximate": False}),
            ("glu", (IMAGE,), {}),
            ("softmax", (C3,), {"axis": 1}),
            ("softmax", (C3,), {"axis": (1, 2)}),
            ("log_softmax", (C3,), {"axis": 1}),
            ("conv", (IMAGE, K(3, 2, 4, 6)), {"strides": 2, "padding": "same"}),
            ("conv", (IMAGE, K(3, 3, 2, 6)), {}),
            ("conv", (IMAGE, K(2, 2, 4, 3)), {"dilation_rate": 2, "padding": "same"}),
            ("conv", (SIGNAL, K(3, 3, 2)), {"padding": "valid", "strides": 2}),
            ("conv", (np.moveaxis(IMAGE, -1, 1), K(3, 3, 4, 2)), {"data_format": "channels_first"}),
            ("conv_transpose", (IMAGE, K(3, 3, 2, 4)), {"strides": 2, "padding": "same"}),
            ("conv_transpose", (IMAGE, K(2, 3, 2, 4)), {"strides": 3, "padding": "valid"}),
            ("conv_transpose", (IMAGE, K(3, 3, 2, 4)), {"strides": 2, "padding": "valid", "output_padding": 1}),
            ("depthwise_conv", (IMAGE, K(3, 3, 4, 2)), {"padding": "same"}),
            ("separable_conv", (IMAGE, K(3, 3, 4, 2), K(1, 1, 8, 3)), {"strides": 1}),
            ("max_pool", (IMAGE, 2), {"strides": 2, "padding": "same"}),
            ("max_pool", (SIGNAL, 3), {"strides": 1}),
            ("average_pool", (IMAGE, (2, 3)), {"strides": 2, "padding": "same"}),
            ("average_pool", (IMAGE, 2), {"strides": 2}),
            ("batch_normalization", (A, V, np.abs(V), -1, V + 1, V - 2), {"epsilon": 1e-2}),
            ("batch_normalization", (C3, V, np.abs(V), 1), {}),
            ("layer_normalization", (A,), {"gamma": V, "beta": V + 1, "axis": -1, "epsilon": 1e-3}),
            ("rms_normalization", (A,), {"scale": V}),
            ("dot_product_attention", (K(2, 4, 2, 3), K(2, 4, 2, 3), K(2, 4, 2, 3)), {"is_causal": True}),
            ("binary_crossentropy", (BOOL.astype("float32"), PROBS), {}),
            ("binary_crossentropy", (BOOL.astype("float32"), A), {"from_logits": True}),
            ("categorical_crossentropy", (PROBS, P), {}),
            ("categorical_crossentropy", (PROBS, A), {"from_logits": True}),
            ("sparse_categorical_crossentropy", (np.array([0, 2]), P), {}),
            ("sparse_categorical_crossentropy", (np.array([[0], [2]]), A), {"from_logits": True}),
            ("get_item", (C3, (slice(None), slice(0, 2), 1)), {}),
            ("get_item", (C3, (Ellipsis, None, slice(None, None, 2))), {}),
            ("get_item", (C3, (0, slice(None, None, -1))), {}),
            ("get_item", (C3, -1), {}),
        ]
    )
}


def is_array(x):
    return isinstance(x, np.ndarray) and x.ndim > 0


def compare(got, want):
    got, want = flatten(got), flatten(want)
    assert len(got) == len(want)
    for g, w in zip(got, want, strict=True):
        g, w = np.asarray(g), np.asarray(w)
        assert g.shape == w.shape
        assert g.dtype == w.dtype
        np.testing.assert_allclose(g, w, rtol=2e-5, atol=2e-6)


def flatten(x):
    return [y for item in x for y in flatten(item)] if isinstance(x, (list, tuple)) else [x]


def split_arrays(args, kwargs):
    """Float arrays of the call, and a function that puts others in their places."""
    arrays = []

    def take(x):
        if is_array(x) and x.dtype == np.float32:
            arrays.append(x)
            return len(arrays) - 1, "array"
        if isinstance(x, list) and any(is_array(v) for v in x):
            return [take(v) for v in x]
        return x, "value"

    marked = [take(a) for a in args], {k: take(v) for k, v in kwargs.items()}

    def fill(values):
        def put(m):
            return [put(v) for v in m] if isinstance(m, list) else values[m[0]] if m[1] == "array" else m[0]

        return [put(m) for m in marked[0]], {k: put(m) for k, m in marked[1].items()}

    return arrays, fill


@pytest.mark.parametrize("case", CASES)
def test_values_and_shapes_are_those_of_keras(case):
    name, args, kwargs = CASES[case]
    want = getattr(keras.ops, name)(*args, **kwargs)
    function = getattr(ks.ops, name)
    compare(function(*args, **kwargs), want)
    arrays, fill = split_arrays(args, kwargs)
    if not arrays:
        return
    nodes = [input_node(f"a{i}", a.shape, "float32") for i, a in enumerate(arrays)]
    filled, named = fill(nodes)
    with Scope():
        outputs = [o if hasattr(o, "op") else constant(o) for o in flatten(function(*filled, **named))]
    graph = Graph(tuple(nodes), tuple(outputs), tuple(f"o{i}" for i in range(len(outputs))))
    compare(list(lower.function(graph)(*arrays)), want)
    filled, named = fill([ks.KerasTensor(a.shape) for a in arrays])
    symbolic = flatten(function(*filled, **named))
    assert [(t.shape, t.dtype) for t in symbolic] == [(np.shape(w), str(w.dtype)) for w in flatten(want)]


@pytest.mark.parametrize("name", sorted(n for n in ks.ops.__all__ if hasattr(getattr(ks.ops, n), "entry")))
def test_class_name_and_arguments_are_those_of_keras(name):
    import inspect

    from keras.src.ops import core, einops, linalg, math, nn, numpy

    if not hasattr(keras.ops, name):
        pytest.skip("not an op of Keras")
    entry = getattr(ks.ops, name).entry
    modules = {"numpy": numpy, "nn": nn, "core": core, "math": math, "linalg": linalg, "einops": einops}
    module = modules[entry.module.rsplit(".")[-1]]
    theirs = getattr(module, entry.class_name)
    settings = [p for p in inspect.signature(theirs.__init__).parameters if p not in ("self", "name")]
    unused = {"sparse", "ragged", "kwargs", "rms_scaling"} | ({"dtype"} if name == "multi_hot" else set())
    assert [s for s in entry.settings if s not in unused] == [s for s in settings if s not in unused] or set(
        entry.settings
    ) == set(settings)
    mine = [p.name for p in inspect.signature(getattr(ks.ops, name)).parameters.values()]
    keras_names = [p.name for p in inspect.signature(getattr(keras.ops, name)).parameters.values()]
    assert [p for p in mine if p not in unused] == [p for p in keras_names if p not in unused and p != "dtype"] or (
        mine == keras_names
    )

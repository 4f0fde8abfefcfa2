"""How an op is compared with Keras: on arrays, through a graph, and on symbolic tensors of known and unknown sizes."""

import os

os.environ["KERAS_BACKEND"] = "jax"

import keras
import numpy as np
from kerasoft.compiler import lower
from kerasoft.compiler.ir import Graph
from kerasoft.compiler.ops.registry import constant, input_node

import kerasoft as ks
from kerasoft.tensors import Scope


def leaves(x):
    """The results of an op as a flat list."""
    if isinstance(x, (list, tuple)):
        return [y for item in x for y in leaves(item)]
    return [x]


def close(got, want, rtol=2e-5, atol=2e-6):
    got, want = leaves(got), leaves(want)
    assert len(got) == len(want)
    for g, w in zip(got, want, strict=True):
        g, w = np.asarray(g), np.asarray(w)
        assert g.shape == w.shape
        assert g.dtype == w.dtype
        if g.dtype.name == "bfloat16":
            g, w = g.astype("float32"), w.astype("float32")
        np.testing.assert_allclose(g, w, rtol=rtol, atol=atol)


def is_array(x):
    return isinstance(x, np.ndarray) and x.ndim > 0


def with_arrays_replaced(args, kwargs, replace, only=lambda x: True):
    """The call's arguments with `replace(array)` in the place of each array."""

    def put(x):
        if is_array(x) and only(x):
            return replace(x)
        if isinstance(x, (list, tuple)) and any(is_array(v) for v in x):
            return type(x)(put(v) for v in x)
        return x

    return [put(a) for a in args], {k: put(v) for k, v in kwargs.items()}


def spec(module, name, args, kwargs, unknown=False):
    """Shapes and dtypes of the op's results for symbolic tensors; with `unknown`, of unknown batch size."""

    def symbol(x):
        return module.KerasTensor((None, *x.shape[1:]) if unknown else x.shape, x.dtype.name)

    args, kwargs = with_arrays_replaced(args, kwargs, symbol, lambda x: x.dtype.kind in "fc")
    results = leaves(getattr(module.ops, name)(*args, **kwargs))
    return [(tuple(t.shape), t.dtype if isinstance(t.dtype, str) else t.dtype.name) for t in results]


def through_graph(name, args, kwargs):
    """What the op gives when compiled: its arrays are inputs of a graph."""
    arrays, nodes = [], []

    def node(x):
        arrays.append(x)
        nodes.append(input_node(f"a{len(nodes)}", x.shape, x.dtype.name))
        return nodes[-1]

    args, kwargs = with_arrays_replaced(args, kwargs, node, lambda x: x.dtype.kind in "fc")
    with Scope():
        outputs = leaves(getattr(ks.ops, name)(*args, **kwargs))
    outputs = [o if hasattr(o, "op") else constant(o) for o in outputs]
    graph = Graph(tuple(nodes), tuple(outputs), tuple(f"o{i}" for i in range(len(outputs))))
    return list(lower.function(graph)(*arrays))


def has_symbolic_arrays(args, kwargs):
    found = []
    with_arrays_replaced(args, kwargs, found.append, lambda x: x.dtype.kind in "fc")
    return bool(found)


def keras_op(name):
    return getattr(keras.ops, name)

"""Checks of ops by their dotted name ("image.resize"): eager, compiled, symbolic, and gradients against Keras."""

import operator

import jax
import keras
import numpy as np
import oracle
from kerasoft.compiler.gradient import gradient
from kerasoft.compiler.ir import Graph
from kerasoft.compiler.lower import function
from kerasoft.compiler.ops import shape
from kerasoft.compiler.ops.registry import constant, input_node

import kerasoft as ks
from kerasoft.tensors import Scope


def ops_of(module, name):
    return operator.attrgetter(name)(module.ops)


def check(name, args, kwargs, tolerance=2e-5):
    """The op on arrays, and compiled with its arrays as inputs, gives what Keras gives."""
    want = ops_of(keras, name)(*args, **kwargs)
    oracle.close(ops_of(ks, name)(*args, **kwargs), want, tolerance, tolerance)
    arrays, nodes = [], []

    def node(x):
        arrays.append(x)
        nodes.append(input_node(f"a{len(nodes)}", x.shape, x.dtype.name))
        return nodes[-1]

    traced, named = oracle.with_arrays_replaced(args, kwargs, node, lambda x: x.dtype.name in ("float32", "uint8"))
    if not nodes:
        return
    with Scope():
        outputs = [o if hasattr(o, "op") else constant(o) for o in oracle.leaves(ops_of(ks, name)(*traced, **named))]
    graph = Graph(tuple(nodes), tuple(outputs), tuple(f"o{i}" for i in range(len(outputs))))
    oracle.close(list(function(graph)(*arrays)), want, tolerance, tolerance)


def check_gradient(name, args, kwargs, tolerance=1e-4):
    """The gradient of sum(op(x)**2) for the first argument: our compiler's, and JAX's of the eager call, are Keras's."""
    x, *rest = args

    def total(module):
        def f(x):
            return sum((y**2).sum() for y in oracle.leaves(ops_of(module, name)(x, *rest, **kwargs)))

        return f

    want = jax.grad(total(keras))(jax.numpy.asarray(x))
    np.testing.assert_allclose(jax.jit(jax.grad(total(ks)))(x), want, rtol=tolerance, atol=tolerance)
    node = input_node("x", x.shape, "float32")
    with Scope():
        outputs = oracle.leaves(ops_of(ks, name)(node, *rest, **kwargs))
    squares = [shape.sum(y * y) for y in outputs]
    (slope,) = gradient({s: constant(1.0) for s in squares}, [node])
    (got,) = function(Graph((node,), (slope,), ("slope",)))(x)
    np.testing.assert_allclose(got, want, rtol=tolerance, atol=tolerance)


def check_symbolic(name, args, kwargs):
    """Shapes and dtypes for tensors of unknown batch size are Keras's."""

    def shown(module):
        def symbol(x):
            return module.KerasTensor((None, *x.shape[1:]), x.dtype.name)

        made, named = oracle.with_arrays_replaced(
            args, kwargs, symbol, lambda x: x.dtype.kind in "fui" and x.dtype.name != "float64"
        )
        results = oracle.leaves(ops_of(module, name)(*made, **named))
        return [(tuple(t.shape), str(t.dtype)) for t in results]

    assert shown(ks) == shown(keras)


def public(namespace):
    return {n for n in dir(namespace) if not n.startswith("_")}

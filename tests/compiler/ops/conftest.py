"""What a row of the op contract table is checked for."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from kerasoft.compiler.gradient import gradient
from kerasoft.compiler.ir import Graph, TensorType, bind
from kerasoft.compiler.lower import function
from kerasoft.compiler.ops.registry import input_node

B = 3  # the number put in for b


@pytest.fixture
def check_op():
    return check


def _list(values: Any) -> list:
    return list(values) if isinstance(values, (tuple, list)) else [values]


def _is_float(value: Any) -> bool:
    return np.issubdtype(np.dtype(value.dtype), np.floating)


def check(case):
    """Checks one row of the contract table."""
    rng = np.random.default_rng(len(case.label))
    inputs = [given.node(k) for k, given in enumerate(case.inputs)]
    arrays = [given.array(rng) for given in case.inputs]
    outputs = _list(case.call(*inputs))
    graph = Graph(tuple(inputs), tuple(outputs), tuple(map(str, range(len(outputs)))))

    # The gradient graph: <dy, J v> with a new input for each dy.
    wrt = [k for k, x in enumerate(arrays) if _is_float(x)]
    floats = [k for k, y in enumerate(outputs) if y.type.is_float]
    if not case.gradient or not wrt or not floats:
        wrt, floats = [], []
    cotangents = [input_node(f"dy{k}", outputs[k].shape, outputs[k].dtype) for k in floats]
    merged: dict = {}
    for k, dy in zip(floats, cotangents):
        merged[outputs[k]] = dy if outputs[k] not in merged else merged[outputs[k]] + dy
    grads = gradient(merged, [inputs[k] for k in wrt]) if wrt else []
    for k, g in zip(wrt, grads):
        assert g is None or g.type == inputs[k].type
    dys = [rng.normal(size=bind(y.shape, {"b": B})).astype(y.dtype) for y in cotangents]
    known = [g for g in grads if g is not None]
    backward = Graph((*inputs, *cotangents), tuple(known), tuple(map(str, range(len(known)))))
    assert case.op in {n.op.name for n in (*graph.nodes, *backward.nodes)}

    def compute(arrays, dys):
        def chosen(*xs):
            full = list(arrays)
            for k, x in zip(wrt, xs):
                full[k] = x
            values = function(graph)(*full)
            return [values[k] for k in floats], values

        if not wrt:
            return chosen()[1], (), ()
        _, pull, values = jax.vjp(chosen, *(arrays[k] for k in wrt), has_aux=True)
        return values, function(backward)(*arrays, *dys), pull(dys)

    values, ours, theirs = jax.jit(compute)([jnp.asarray(x) for x in arrays], [jnp.asarray(d) for d in dys])

    # Values and types.
    for out, value in zip(outputs, values):
        assert out.type == TensorType(out.shape, np.dtype(value.dtype).name)
        assert bind(out.shape, {"b": B}) == value.shape
        assert not value.weak_type
    if case.want is not None:
        for value, want in zip(values, _list(case.want(*arrays)), strict=True):
            assert value.shape == np.shape(want)
            np.testing.assert_allclose(value, want, rtol=case.tolerance, atol=case.tolerance)
    if case.eager:
        for value, eager in zip(values, _list(case.call(*map(jnp.asarray, arrays))), strict=True):
            np.testing.assert_allclose(value, eager, rtol=1e-5, atol=1e-5)

    # Gradients.
    mine = iter(ours)
    full = [next(mine) if g is not None else np.zeros_like(arrays[k]) for k, g in zip(wrt, grads)]
    scale = 1 + max((np.abs(t).max() for t in theirs if t.size), default=0)
    for one, jaxs in zip(full, theirs):
        np.testing.assert_allclose(one / scale, jaxs / scale, rtol=0, atol=case.tolerance)
    if wrt and case.differences:
        _check_differences(graph, arrays, wrt, floats, dys, full, rng)


def _check_differences(graph, arrays, wrt, floats, dys, grads, rng):
    """A directional derivative by central differences of the lowered graph in double precision."""
    step = 1e-5
    directions = [rng.normal(size=arrays[k].shape) for k in wrt]

    def moved(sign):
        full = [x.astype(np.float64) if _is_float(x) else x for x in arrays]
        for k, d in zip(wrt, directions):
            full[k] = full[k] + sign * step * d
        return full

    with jax.enable_x64(True):
        forward = jax.jit(function(graph))
        up, down = forward(*moved(1)), forward(*moved(-1))
    assert all(up[k].dtype == np.float64 for k in floats), "this op computes in single precision: differences=False"
    slope = sum(
        float(np.vdot(dy, (np.asarray(up[k]) - np.asarray(down[k])) / (2 * step))) for k, dy in zip(floats, dys)
    )
    ours = sum(float(np.vdot(g, d)) for g, d in zip(grads, directions))
    size = 1 + sum(float(np.abs(g * d).sum()) for g, d in zip(map(np.asarray, grads), directions))
    assert abs(slope - ours) / size < 2e-4, (slope, ours)

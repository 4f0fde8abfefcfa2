"""Every lowering of every op against float64, and gradients against finite differences in float64.

Lowerings are found in the table; an op with a new one needs a row in `lowering_cases.py`.
"""

from __future__ import annotations

import jax
import numpy as np
import pytest
from kerasoft.compiler.gradient import gradient
from kerasoft.compiler.ir import Graph
from kerasoft.compiler.kernels import choice, lowerings, settings
from kerasoft.compiler.lower import function
from kerasoft.compiler.ops.registry import REGISTRY, input_node
from lowering_cases import ROWS, Call

from tests.xla_settings import QUICK

EPSILON = float(np.finfo(np.float32).eps)
THERE = [name for name in ROWS if name.partition(",")[0] in REGISTRY or name.startswith("fourier_")]


@pytest.fixture(autouse=True)
def unforced():
    yield
    settings.force(None)


def graph_of(call: Call, gradients: bool) -> tuple[Graph, list[int]]:
    """The results and, if wanted, the gradients of the inputs that have one, whose positions come second."""
    nodes = [input_node(f"x{i}", a.shape, a.dtype.name) for i, a in enumerate(call.arrays)]
    results = list(call.make(*nodes))
    inputs, wanted, positions = list(nodes), list(results), []
    if gradients:
        given = [input_node(f"dy{i}", r.shape, r.dtype) for i, r in enumerate(results)]
        floats = [i for i, n in enumerate(nodes) if n.type.is_float]
        found = gradient(dict(zip(results, given)), [nodes[i] for i in floats])
        positions = [i for i, d in zip(floats, found) if d is not None]
        wanted += [d for d in found if d is not None]
        inputs += given
    return Graph(tuple(inputs), tuple(wanted), tuple(f"out{i}" for i in range(len(wanted)))), positions


def arrays_of(call: Call, graph: Graph, random) -> list[np.ndarray]:
    more = [random.standard_normal(n.shape).astype(np.float32) for n in graph.inputs[len(call.arrays) :]]
    return [*call.arrays, *more]


def in_float64(graph: Graph):
    """The outputs by XLA in float64, as a function of a list of arrays, compiled once."""
    run = jax.jit(function(graph), compiler_options=QUICK)

    def outputs(arrays) -> list[np.ndarray]:
        with jax.enable_x64(True):
            wide = [a.astype(np.float64) if a.dtype == np.float32 else a for a in arrays]
            return [np.asarray(out) for out in run(*wide)]

    return outputs


def by(name: str, graph: Graph, arrays) -> tuple[list[np.ndarray] | None, set[tuple[str, str]]]:
    """The outputs with every node by its lowering `name`, and which (op, name) there were; no outputs where none has it."""
    settings.force({"*": name})
    chooser = choice.Chooser(graph, {})
    settings.force(None)
    if name != "xla" and not any(p.name == name for p in chooser.picked.values()):
        return None, set()
    outs = jax.jit(function(graph, lowerer=chooser), compiler_options=chooser.options or None)(*arrays)
    return [np.asarray(out) for out in outs], {(n.op.name, p.name) for n, p in chooser.picked.items()}


def bounds(row, outputs, arrays, wanted) -> list[np.ndarray]:
    """The largest error allowed for each element."""
    if row.bound != "terms":
        largest = max(np.max(np.abs(w), where=np.isfinite(w), initial=0) for w in wanted)
        return [row.bound * EPSILON * largest for _ in wanted]
    known = [np.nan_to_num(np.abs(a), nan=0, posinf=0) for a in arrays]
    counts = outputs([np.ones_like(a) for a in arrays])
    return [(c + 2) * EPSILON * s for c, s in zip(counts, outputs(known))]


def agree(got, wanted, allowed, what: str) -> None:
    for i, (g, w, most) in enumerate(zip(got, wanted, allowed, strict=True)):
        assert g.shape == w.shape, f"{what}, output {i}"
        np.testing.assert_array_equal(np.isnan(g), np.isnan(w), f"{what}, output {i}: NaN")
        infinite = np.isinf(w)
        np.testing.assert_array_equal(g[infinite], w[infinite], f"{what}, output {i}: Inf")
        finite = np.isfinite(w)
        error = np.abs(np.where(finite, g, 0) - np.where(finite, w, 0))
        assert not np.any(error > most), f"{what}, output {i}: error {error.max()}, too much"


def test_every_op_with_lowerings_has_a_row():
    reached = set()
    for name in THERE:
        row, random = ROWS[name], np.random.default_rng(0)
        for _ in range(row.draws):
            reached |= {n.op.name for n in graph_of(row.draw(random), row.gradients)[0].nodes}
    assert set(lowerings._TABLE) <= reached, "add rows to lowering_cases.py"


@pytest.mark.parametrize("name", THERE)
def test_lowerings_agree_with_float64(name):
    row, random = ROWS[name], np.random.default_rng(7)
    seen, ops = set(), set()
    for k in range(row.draws):
        call = row.draw(random)
        spoiled = k % 4 == 3 and row.nonfinite(call) and call.arrays[0].size > 1
        graph, _ = graph_of(call, row.gradients and not spoiled)
        arrays = arrays_of(call, graph, random)
        if spoiled:
            arrays[0] = arrays[0].copy()
            places = random.choice(arrays[0].size, 2, replace=False)
            arrays[0].flat[places] = (np.nan, random.choice([np.inf, -np.inf]))
        outputs = in_float64(graph)
        wanted = outputs(arrays)
        allowed = bounds(row, outputs, arrays, wanted)
        ops |= {n.op.name for n in graph.nodes}
        for lowering in {"xla": 0} | {name: 0 for op in ops for name in lowerings.names_of(op)}:
            got, made = by(lowering, graph, arrays)
            seen |= made
            if got is None:
                continue
            if spoiled and lowering == "onednn" and call.attrs.get("relu"):  # keeps NaN, and makes NaN of -Inf
                got = [np.where(np.isnan(g) & (w == 0), 0, g) for g, w in zip(got, wanted)]
            # A tile of Winograd's shares its rounding: a small element errs as much as a large neighbour, and all taps count.
            most = [np.full_like(a, 8 * a.max(initial=0)) for a in allowed] if lowering == "winograd" else allowed
            agree(got, wanted, most, f"{name} by {lowering}: {call.attrs}, {[a.shape for a in call.arrays]}")
    there = {(op, one.name) for op in ops for one in lowerings._TABLE.get(op, ()) if one.is_there}
    there = {(op, lowering) for op, lowering in there if row.skipped.isdisjoint({lowering, (op, lowering)})}
    assert there <= seen, "these were never drawn"


@pytest.mark.parametrize("name", [name for name in THERE if ROWS[name].gradients])
def test_gradients_agree_with_finite_differences(name):
    row, random = ROWS[name], np.random.default_rng(11)
    for _ in range(3):
        call = row.draw(random)
        while call.arrays[0].size == 0 or not row.smooth(call):
            call = row.draw(random)
        (forward, _), (whole, positions) = graph_of(call, False), graph_of(call, True)
        arrays = arrays_of(call, whole, random)
        weights = [a.astype(np.float64) for a in arrays[len(call.arrays) :]]
        along = {i: random.standard_normal(call.arrays[i].shape) for i in positions}

        def loss(step, call=call, outputs=in_float64(forward), along=along, weights=weights):
            moved = [a + step * along[i] if i in along else a for i, a in enumerate(call.arrays)]
            return sum(float(np.sum(w * out)) for w, out in zip(weights, outputs(moved)))

        chooser = choice.Chooser(whole, {})
        grads = jax.jit(function(whole, lowerer=chooser))(*arrays)[-len(positions) :]
        parts = [np.asarray(g, np.float64) * along[i] for g, i in zip(grads, positions)]
        slope = (loss(1e-6) - loss(-1e-6)) / 2e-6
        size = sum(np.abs(p).sum() for p in parts)
        assert abs(sum(p.sum() for p in parts) - slope) <= 1e-5 * size + 1e-6, f"{name}: {call.attrs}"

"""Sums over all rows of a batch in the middle of a step: masked losses, synchronised statistics."""

import numpy as np
import pytest
from kerasoft.compiler.ir import Graph
from kerasoft.compiler.ops import arithmetic as a
from kerasoft.compiler.ops import shape as shapes
from kerasoft.compiler.ops.collective import all_reduce
from kerasoft.compiler.ops.registry import input_node, param_node
from kerasoft.compiler.parallel import Mesh, Sum, partition
from kerasoft.compiler.parallel.before import hoisted

from tests.compiler.parallel import together

MESHES = {"pipeline": Mesh(pipeline=2), "model": Mesh(model=2), "zero": Mesh(zero=3, slices=2)}


def agree(made, mesh, rows):
    """Calls of `rows` rows, all of a batch of 16, against one call of the whole model; the programs."""
    model, x, y = made
    source, params, state = together.source_of(model, x, y, 16)
    plan = partition(source, mesh, rows=rows)
    programs = plan.export(train_rows=(rows,))
    expected = np.asarray(together.whole(source, "train", 16, params, together.batch_of(source, x, y, state, 16, 16)))
    given = [together.batch_of(source, x, y, state, rows, 16, start) for start in range(0, 16, rows)]
    found, _ = together.call(plan, programs, "train", rows, params, (lambda i: [given[i]]) if mesh.zero else given)
    if mesh.model == 1:
        together.close(together.joined(plan, found), expected)
    else:
        length = source.layout.P
        together.close(plan.globalise([v[: own.P] for v, own in zip(found, plan.layouts)]), expected[:length])
        together.close(found[0][plan.layouts[0].P :], expected[length:])
    return programs


@pytest.mark.parametrize("name", MESHES)
def test_what_masks_leave_is_summed_before_the_calls(name):
    programs = agree(together.masked(), MESHES[name], 8)
    calls = [p.train(8) for p in programs]
    assert [c.totals for c in calls if "before" in c.phases] == [(("total/0", ()),)] * (1 if name == "pipeline" else 2)
    assert not any(isinstance(i, Sum) and i.axis == "data" for c in calls for phase in c.phases.values() for i in phase)


@pytest.mark.parametrize(("name", "rows"), [("pipeline", 16), ("model", 16), ("zero", 8)])
def test_synchronised_statistics_are_summed_within_a_call(name, rows):
    programs = agree(together.synchronised(), MESHES[name], rows)
    phases = [phase for p in programs for phase in p.train(rows).phases.values()]
    sums = [i for phase in phases for i in phase if isinstance(i, Sum) and i.axis == "data"]
    assert len(sums) == (2 if name == "pipeline" else 4)  # on each coordinate that normalises: forward, backward


def graph_of(total):
    x, k = input_node("x", (4,), "float32"), param_node("k", (4,))
    return x, k, lambda out: Graph((x,), (a.add(shapes.sum(a.multiply(k, x)), total(x, k)),), ("out",))


def test_a_sum_of_arrays_alone_becomes_an_argument():
    _, _, made = graph_of(lambda x, k: all_reduce(shapes.sum(x)))
    graph = made(None)
    rest, shares = hoisted(graph)
    assert [n.attrs["name"] for n in rest.inputs] == ["x", "total/0"]
    assert not any(n.op.name == "all_reduce" for n in (*rest.nodes, *shares.nodes))
    assert shares.output_names == ("total/0",) and [n.op.name for n in shares.nodes] == ["input", "sum"]


@pytest.mark.parametrize("total", [lambda x, k: shapes.sum(x), lambda x, k: all_reduce(shapes.sum(a.multiply(x, k)))])
def test_other_graphs_come_back_as_they_are(total):
    graph = graph_of(total)[2](None)
    rest, shares = hoisted(graph)
    assert rest is graph and shares is None

"""Zero stage 3: each worker computes all layers on rows of its own, and keeps slices of everything."""

import numpy as np
import pytest
from kerasoft.compiler.parallel import GatherParams, Mesh, ParallelError, ScatterGrads, partition

from tests.compiler.parallel import together


@pytest.mark.parametrize(
    ("make", "workers"),
    (
        pytest.param(together.mlp, 3, id="mlp"),
        pytest.param(lambda: together.transformer(blocks=1, tied=True), 2, id="tied"),
    ),
)
def test_slices_compute_what_the_whole_model_does(make, workers):
    model, x, y = make()
    source, params, state = together.source_of(model, x, y, 16)
    plan = partition(source, Mesh(zero=3, slices=workers), rows=4)
    np.testing.assert_array_equal(plan.globalise([plan.localise(j, params) for j in range(workers)]), params)
    programs = plan.export(train_rows=(4,), predict_rows=(4,))
    total = 4 * workers
    given = [together.batch_of(source, x, y, state, 4, total, 4 * j) for j in range(workers)]
    expected = sum(np.asarray(together.whole(source, "train", 4, params, one)) for one in given)
    vectors, _ = together.call(plan, programs, "train", 4, params, lambda j: [given[j]])
    together.close(together.joined(plan, vectors), expected)
    found, _ = together.call(plan, programs, "predict", 4, params, lambda j: [given[j]])
    for got, one in zip(found, given):
        together.close(np.asarray(got[0][0]), np.asarray(together.whole(source, "predict", 4, params, one)[0]))


def test_each_keeps_a_slice_and_gathers_a_group_at_a_time():
    source, params, _ = together.source_of(*together.transformer(blocks=3, width=32), 16)
    plan = partition(source, Mesh(zero=3, slices=4), rows=16)
    groups = plan.cut.groups
    assert len(groups) == 8 and all(g.size for g in groups)
    assert plan.layouts[0].P == sum(64 * -(-g.size // (4 * 64)) for g in groups)  # slices begin at multiples of 64
    assert max(g.size for g in groups) < source.layout.P / 4  # so much is there at a time
    program = plan.export(train_rows=(16,))[1]
    phase = program.train(16).phases["whole"]
    gathered = sum(i.size for i in phase if isinstance(i, GatherParams))
    assert source.layout.P < gathered <= 2 * source.layout.P  # forward and backward; the last group once
    assert plan.cut.sent()[0] == 4 * 3 * (
        sum(i.stop - i.start for i in phase if isinstance(i, GatherParams)) + plan.layouts[0].P
    )
    assert {i.group for i in phase if isinstance(i, ScatterGrads)} == set(range(8))
    order = np.concatenate([np.arange(e.offset, e.end) for g in groups for e in g.entries])
    assert sorted(order) == list(range(source.layout.P))
    variables = plan.globalise([p.segments().astype(np.float32) for p in plan.export(train_rows=())])
    np.testing.assert_array_equal(variables, source.layout.segments())
    assert "in slices, group 7" in plan.describe()


def test_vectors_of_another_model_are_refused():
    source, params, _ = together.source_of(*together.neumf(), 16)
    plan = partition(source, Mesh(zero=3, slices=2), rows=16)
    with pytest.raises(ParallelError, match="parameters, got a vector of shape"):
        plan.localise(0, params[:-1])
    with pytest.raises(ParallelError, match="in slices of .* on 2 workers, got vectors of shapes"):
        plan.globalise([plan.localise(0, params)])

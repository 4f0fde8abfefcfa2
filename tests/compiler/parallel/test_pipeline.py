"""Models cut into pipeline stages give the whole model's gradients, states, sums and outputs."""

import numpy as np
import pytest
from kerasoft.compiler.parallel import Mesh, ParallelError, partition

import kerasoft as ks
from tests.compiler.parallel import together

CASES = [  # "tied": the table is read by the first stage and by the last
    pytest.param(together.mlp, 3, id="mlp"),
    pytest.param(lambda: together.transformer(blocks=1), 2, id="transformer"),
    pytest.param(lambda: together.transformer(blocks=1, tied=True), 3, id="tied"),
    pytest.param(together.neumf, 3, id="neumf"),
]


@pytest.mark.parametrize(("make", "stages"), CASES)
def test_a_pipeline_computes_what_the_whole_model_does(make, stages):
    model, x, y = make()
    source, params, state = together.source_of(model, x, y, 16)
    plan = partition(source, Mesh(pipeline=stages), rows=8)
    programs = plan.export(train_rows=(8,), test_rows=(8,), predict_rows=(8,))
    assert sum(layout.P for layout in plan.layouts) == source.layout.P
    np.testing.assert_array_equal(plan.globalise([plan.localise(i, params) for i in range(stages)]), params)
    batches = [together.batch_of(source, x, y, state, 8, 16, start) for start in (0, 8)]

    expected = sum(np.asarray(together.whole(source, "train", 8, params, given)) for given in batches)
    vectors, hub = together.call(plan, programs, "train", 8, params, batches)
    together.close(together.joined(plan, vectors), expected)
    assert all(kind == "send" for kind, _, _ in hub.log)

    expected = sum(np.asarray(together.whole(source, "test", 8, params, given)) for given in batches)
    found, _ = together.call(plan, programs, "test", 8, params, batches)
    together.close(sum(found), expected)

    found, _ = together.call(plan, programs, "predict", 8, params, batches)
    assert not any(found[0])
    for got, given in zip(found[-1], batches):
        for a, b in zip(got, together.whole(source, "predict", 8, params, given), strict=True):
            together.close(np.asarray(a), np.asarray(b))


def stage_of(plan):
    """{layer: the stage that holds its weights}."""
    return {p.name.split("/")[-2]: i for i, held in enumerate(plan.cut.parts) for p in held}


def test_layers_stay_where_users_pin_them():
    model, x, y = together.neumf()
    source, params, state = together.source_of(model, x, y, 16)
    pins = {"gmf_user": 1, "gmf_item": 1, "mlp_user": 0, "mlp_item": 0, "deep0": 0, "head": 1}
    plan = partition(source, Mesh(pipeline=2), pins, rows=16)
    found = stage_of(plan)
    assert {name: found[name] for name in pins} == pins
    programs = plan.export(train_rows=(16,))
    assert "x/user" in programs[1].reads("train")  # its own tables are looked up there
    given = [together.batch_of(source, x, y, state, 16, 16)]
    vectors, _ = together.call(plan, programs, "train", 16, params, given)
    together.close(together.joined(plan, vectors), np.asarray(together.whole(source, "train", 16, params, given[0])))


def sequential(widths):
    model = ks.Sequential([ks.Input((1024,)), *(ks.layers.Dense(w, name=f"d{i}") for i, w in enumerate(widths))])
    model.compile("sgd", "mse")
    x = np.zeros((4, 1024), np.float32)
    return together.source_of(model, x, np.zeros((4, widths[-1]), np.float32), 4)[0]


def test_stages_are_balanced_by_cost():
    even = partition(sequential([1024] * 8), Mesh(pipeline=4), rows=256)
    assert stage_of(even) == {f"d{i}": i // 2 for i in range(8)}
    wide = partition(sequential([1024, 128, 128, 128, 128, 128]), Mesh(pipeline=2), rows=256)
    assert stage_of(wide) == {"d0": 0, **{f"d{i}": 1 for i in range(1, 6)}}  # one large layer beside five small ones


def test_stages_are_balanced_by_measured_times(monkeypatch):
    """A layer that took as long as all others has a stage to itself, whatever was counted."""
    import types

    from kerasoft.compiler.parallel import stages

    source = sequential([256] * 6)

    def explain(source, kind, rows, lengths, measure):
        assert (kind, rows, measure) == ("train", 256, True)
        took = lambda n: 1.0 if (n.source or "").endswith("d4") else 0.1  # noqa: E731
        nodes = [n for n in source.optimised("train").nodes if n.inputs]
        return types.SimpleNamespace(
            parts=[types.SimpleNamespace(regions=[types.SimpleNamespace(nodes=(n,), seconds=took(n)) for n in nodes])]
        )

    monkeypatch.setattr(stages, "explain", explain)
    found = stage_of(partition(source, Mesh(pipeline=3), rows=256, measure=True))
    assert [name for name, stage in found.items() if stage == found["d4"]] == ["d4"]


@pytest.mark.parametrize(
    ("pins", "stages", "said"),
    (
        (
            {"d0": 1, "d2": 0},
            2,
            "layer 'sequential/d2' has placement=0, but it reads what layer 'sequential/d0' computes",
        ),
        ({"d0": 2}, 2, "layer 'd0': placement=2, but the pipeline has the stages 0 to 1"),
        ({"dense": 0}, 2, "placement names 'dense', which compute nothing in the model's step; its layers are"),
        ({}, 400, "too few for 400 stages"),
    ),
)
def test_what_cannot_be_cut_is_said(pins, stages, said):
    ks.utils.clear_session(free_memory=False)
    with pytest.raises(ParallelError, match=said):
        partition(sequential([8, 8, 8]), Mesh(pipeline=stages), pins)


class Counting(ks.optimizers.Optimizer):
    """Descent by a rate that a variable of its own makes smaller."""

    def build(self, variables):
        super().build(variables)
        self.count = self.add_variable((), name="count")

    def update_step(self, gradient, variable, learning_rate):
        self.count.assign(self.count + 1.0)
        variable.assign(variable - learning_rate / self.count * gradient)


def test_what_the_optimizer_cannot_do_is_said():
    model = ks.Sequential([ks.Input((8,)), ks.layers.Dense(4, name="first"), ks.layers.Softmax(name="last")])
    x = np.zeros((4, 8), np.float32)
    model.compile(Counting(0.1), "mse")
    with pytest.raises(ParallelError, match="at once: Counting keeps variables that belong to no weight"):
        partition(together.source_of(model, x, x[:, :4], 4)[0], Mesh(pipeline=2))
    model.compile(ks.optimizers.Muon(), "mse")
    with pytest.raises(ParallelError, match="a stage of the pipeline has no weights of its own"):
        partition(together.source_of(model, x, x[:, :4], 4)[0], Mesh(pipeline=2), {"first": 0, "last": 1})


def test_one_way_at_a_time():
    with pytest.raises(ParallelError, match="one of model=, pipeline= and zero= at a time"):
        Mesh(model=2, pipeline=2)
    with pytest.raises(ParallelError, match="pipeline= is a number of workers"):
        Mesh(pipeline=0)


def test_describe_says_where_layers_are():
    ks.utils.clear_session(free_memory=False)
    text = partition(sequential([64] * 4), Mesh(pipeline=2), rows=256).describe()
    assert text.startswith("a pipeline of 2 stages, balanced for 256 rows\ncoordinate 0: ")
    assert text.count("sends 65.5 kB in a call") == 2  # activations of 64 units forward, their gradients backward
    first, second = text.split("coordinate 1: ")
    assert "sequential/d0" in first and "sequential/d3" in second and "sequential/d3" not in first

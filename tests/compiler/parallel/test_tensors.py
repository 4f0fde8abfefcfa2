"""Models whose tensors are split give the whole model's results, with as few sums as Megatron-LM's cut by hand."""

import numpy as np
import pytest
from kerasoft.compiler.parallel import Compute, Mesh, ParallelError, partition
from kerasoft.compiler.parallel.shardings import spec_of
from kerasoft.compiler.parallel.tensors import collectives

import kerasoft as ks
from tests.compiler.parallel import together


def exact(made, count, placement=None, kinds=("train",)):
    """The plan, its programs; after a comparison of all coordinates' results with the whole model's."""
    model, x, y = made
    source, params, state = together.source_of(model, x, y, 16)
    plan = partition(source, Mesh(model=count), placement, rows=16)
    programs = plan.export(**{f"{kind}_rows": (16,) for kind in kinds})
    np.testing.assert_array_equal(plan.globalise([plan.localise(i, params) for i in range(count)]), params)
    given = [together.batch_of(source, x, y, state, 16, 16)]
    for kind in kinds:
        expected = together.whole(source, kind, 16, params, given[0])
        found, _ = together.call(plan, programs, kind, 16, params, given)
        if kind == "predict":
            for outputs in found:
                for a, b in zip(outputs[0], expected, strict=True):
                    together.close(np.asarray(a), np.asarray(b))
            continue
        if kind == "train":
            length = source.layout.P
            together.close(plan.globalise([v[: own.P] for v, own in zip(found, plan.layouts)]), expected[:length])
            expected = np.asarray(expected)[length:]
            found = [v[own.P :] for v, own in zip(found, plan.layouts)]
        for rest in found:  # states and sums are whole everywhere, to the bit
            together.close(rest, np.asarray(expected))
            np.testing.assert_array_equal(rest, found[0])
    return plan, programs


def axes(plan):
    return {name.split("/", 1)[-1] if "sequential" in name else name: str(s) for name, s in plan.cut.shardings.items()}


def test_a_transformer_sums_twice_forward_and_twice_backward_in_each_block():
    plan, _ = exact(together.transformer(blocks=1, width=32), 2, kinds=("train", "predict"))
    source = together.source_of(*together.transformer(blocks=3, width=32), 16)[0]
    programs = partition(source, Mesh(model=2), rows=16).export(train_rows=(16,), predict_rows=(16,))
    assert collectives(programs[0].train(16)) == (3 * 2 + 3 * 2, 0)
    assert collectives(programs[0].predict(16)) == (3 * 2, 0)
    codes = [i.exported.digest for i in programs[0].predict(16).phases["whole"] if isinstance(i, Compute)]
    assert (len(codes), len(set(codes))) == (7, 4)  # alike blocks are compiled once
    found = axes(plan)
    assert {found[f"attention0/{name}/kernel"] for name in ("query", "key", "value")} == {"axis 1"}  # heads
    assert found["attention0/attention_output/kernel"] == "axis 0"
    assert (found["up0/kernel"], found["up0/bias"], found["down0/kernel"]) == ("axis 1", "axis 0", "axis 0")
    held = {p.name for p in plan.cut.parts[0] if p.axis is None}
    assert held == {"table/embeddings", "head/kernel", "head/bias"} | {
        f"{name}" for name in found if "norm" in name or name.endswith(("output/bias", "down0/bias", "down1/bias"))
    }


def test_weights_slots_and_operations_are_divided():
    source = together.source_of(*together.transformer(blocks=2, width=64, vocabulary=512), 16)[0]
    one = sum(sum(work.values()) for work in partition(source, Mesh(pipeline=2), rows=16).cut.operations())
    for count in (2, 4):
        plan = partition(source, Mesh(model=count), rows=16)
        assert plan.layouts[0].P < 1.05 * source.layout.P / count
        assert plan.memory(0) < 1.05 * 4 * (5 * source.layout.P / count)  # weight, its master copy, gradient, two slots
        assert sum(plan.cut.operations()[0].values()) < 1.15 * one / count
        made = [n.op.name for n in plan.cut.local("train").nodes]
        assert axes(plan)["table/embeddings"] == "axis 1"  # gathered once, and not the whole stream behind it
        assert (made.count("part_sum"), made.count("part_stack")) == (2 * 4, 1)
        stream = 4 * 16 * 6 * 64  # bytes of (rows, steps, width)
        assert plan.cut.sent() == [(8 * 2 * stream + stream) * (count - 1) / count] * count


def test_dense_layers_alternate_and_random_masks_are_the_whole_models():
    plan, programs = exact(together.mlp(64, 3), 2, kinds=("train", "test"))
    found = axes(plan)
    assert (found["hidden1/kernel"], found["hidden2/kernel"]) == ("axis 1", "axis 0")
    assert collectives(programs[0].test(16)) == (1, 0)
    sums, _ = collectives(programs[0].train(16))
    assert sums == 2


def test_tied_tables_are_split_by_rows():
    plan, programs = exact(together.transformer(blocks=1, width=32, tied=True, vocabulary=64), 2)
    assert axes(plan)["table/embeddings"] == "axis 0"
    assert collectives(programs[0].train(16)) == (
        4 + 2,
        1,
    )  # a block's, the lookup and the logits' gradient; the logits


def test_tables_of_neumf_are_split_by_columns_or_as_pinned_by_rows():
    made = together.neumf(users=300, items=211, width=16)
    plan, _ = exact(made, 2)
    assert {s for name, s in axes(plan).items() if "embeddings" in name} == {"axis 1"}
    assert plan.layouts[0].P < 0.51 * plan.source.layout.P
    pins = {"mlp_user": 0, "mlp_item": 0, "gmf_item": "replicate"}
    plan, _ = exact(made, 2, pins)
    found = axes(plan)
    assert found["mlp_item/embeddings"] == "axis 0" and found["gmf_item/embeddings"] == "whole"
    assert plan.layouts[1].unpack("params", plan.localise(1, np.ones(plan.source.layout.P)))[
        "mlp_item/embeddings"
    ].shape == (106, 16)  # 211 rows: the last part is filled up


def test_convolutions_are_split_by_channels():
    plan, programs = exact(together.convolutional(), 2)
    found = axes(plan)
    sums, gathers = collectives(programs[0].train(16))
    assert sums <= 3 and gathers <= 3
    assert (found["conv1/kernel"], found["conv2/kernel"]) == ("axis 2", "axis 3")


@pytest.mark.parametrize(
    ("pins", "said"),
    (
        ({"a": "half"}, "layer 'a': placement='half'; with model= it is 'split', 'replicate', an axis of the kernel"),
        (
            {"a": 1},
            r"layer 'sequential/a': placement=1, but axis 1 of 'sequential/a/kernel' \(6, 7\) cannot be cut into 2",
        ),
        ({"c": "split"}, "placement names 'c', which have no weights .* are sequential/a, sequential/b"),
    ),
)
def test_what_cannot_be_split_is_said(pins, said):
    ks.utils.clear_session(free_memory=False)
    model = ks.Sequential([ks.Input((6,)), ks.layers.Dense(7, name="a"), ks.layers.Dense(8, name="b")])
    model.compile("sgd", "mse")
    x = np.zeros((4, 6), np.float32)
    source = together.source_of(model, x, np.zeros((4, 8), np.float32), 4)[0]
    assert axes(partition(source, Mesh(model=2), {"b": 1}))["b/kernel"] == "axis 1"
    with pytest.raises(ParallelError, match=said):
        partition(source, Mesh(model=2), pins)


def test_labels_of_reshapes():
    """Axes with the same outer edge: heads go with what they are merged into, not what is merged into them."""
    from kerasoft.compiler.ir import symbol
    from kerasoft.compiler.ops import shape
    from kerasoft.compiler.ops.registry import input_node

    x = input_node("x", (symbol("b"), 6, 4, 8), "float32")
    spec = spec_of(shape.reshape(x, shape=(symbol("b"), 6, 32)))
    assert spec.inputs[0][2] is not None and spec.inputs[0][2] == spec.outputs[0][2]
    assert spec.inputs[0][3] is None
    assert spec.inputs[0][1] == spec.outputs[0][1] is not None

"""ONNX files against ONNX Runtime: every layer of the contract table, whole models, unknown sizes, errors."""

import numpy as np
import pytest

import kerasoft as ks
from kerasoft import tree
from kerasoft.errors import SerializationError
from kerasoft.export.archive import forward_of
from kerasoft.export.onnx.writer import onnx_model
from tests.rows import Combined, group_id, groups, outputs

onnxruntime = pytest.importorskip("onnxruntime")
pytestmark = pytest.mark.filterwarnings("ignore:.*np.object:DeprecationWarning")


def session(model_bytes):
    onnxruntime.set_default_logger_severity(3)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    return onnxruntime.InferenceSession(model_bytes, options, providers=["CPUExecutionProvider"])


def scored(made, feeds):
    return made.run(None, {entry.name: feeds[entry.name] for entry in made.get_inputs()})


# Their windows differ in size; ONNX has no such pooling.
WITHOUT = {f"Adaptive{kind}Pooling{d}D" for kind in ("Average", "Max") for d in (1, 2, 3)}


@pytest.mark.parametrize("rows", groups(25, WITHOUT), ids=group_id)
def test_every_layer_scores_the_same(rows):
    ks.utils.clear_session(free_memory=False)
    ours = Combined(ks, rows).randomise()
    made = session(onnx_model(forward_of(ours.model, None)).SerializeToString())
    feeds = dict(zip((x.name for x in ours.model.inputs), ours.xs, strict=True))
    ours.compare(scored(made, feeds), outputs(ours.model, ours.xs), rtol=1e-4)


def words_and_pictures():
    words = ks.Input((None,), dtype="int32", name="words")
    image = ks.Input((None, None, 2), name="image")
    x = ks.layers.Embedding(11, 4, mask_zero=True)(words)
    x = ks.layers.Bidirectional(ks.layers.LSTM(3, return_sequences=True))(x)
    x = ks.layers.GRU(4)(ks.layers.LayerNormalization()(x))
    y = ks.layers.Conv2D(4, 3, strides=2, padding="same", activation="gelu")(image)
    y = ks.layers.BatchNormalization()(ks.layers.MaxPooling2D(2, padding="same")(y))
    y = ks.layers.GlobalAveragePooling2D()(y)
    z = ks.ops.concatenate([x, y], axis=-1)
    return ks.Model([words, image], {"p": ks.layers.Dense(3, activation="softmax")(z), "s": ks.ops.sum(z, axis=1)})


def test_masks_and_unknown_sizes(tmp_path):
    model = words_and_pictures()
    model.export(tmp_path / "m.onnx", format="onnx", verbose=False)
    made = session((tmp_path / "m.onnx").read_bytes())
    assert [entry.name for entry in made.get_outputs()] == ["p", "s"]
    assert [entry.shape for entry in made.get_inputs()] == [["batch", "words_1"], ["batch", "image_1", "image_2", 2]]
    rng = np.random.default_rng(0)
    for rows, steps, side in ((2, 5, 8), (3, 7, 9)):
        feeds = {
            "words": rng.integers(0, 11, (rows, steps)).astype("int32"),
            "image": rng.normal(size=(rows, side, side, 2)).astype("float32"),
        }
        want = model([feeds["words"], feeds["image"]])
        for got, name in zip(scored(made, feeds), ("p", "s"), strict=True):
            np.testing.assert_allclose(got, want[name], rtol=1e-4, atol=1e-5)


def test_ops_as_nodes_and_a_quantised_model():
    x = ks.Input((6,))
    y = ks.ops.where(x > 0.1, ks.ops.log1p(ks.ops.abs(x)), ks.ops.floor(x * 3.0) / 2.0)
    y = ks.ops.concatenate([y, ks.ops.cumsum(x, axis=1), ks.ops.flip(x, 1)[:, 1:5]], axis=-1)
    outs = [
        ks.layers.Dense(3)(y),
        ks.ops.argmax(y, axis=-1),
        ks.ops.softplus(y),
        ks.ops.one_hot(ks.ops.argmin(x, 1), 6),
    ]
    model = ks.Model(x, outs)
    with pytest.warns(UserWarning, match="does not have a `quantize`"):
        model.quantize("int8")
    made = session(onnx_model(forward_of(model, None)).SerializeToString())
    data = np.random.default_rng(0).normal(size=(4, 6)).astype("float32")
    for got, want in zip(made.run(None, {made.get_inputs()[0].name: data}), tree.flatten(model(data)), strict=True):
        np.testing.assert_allclose(got, want, rtol=1e-4, atol=1e-5)


def test_eight_bit_integers():
    ks.utils.set_random_seed(2)
    x = inputs = ks.Input((9, 9, 3))
    x = skip = ks.layers.Conv2D(8, 3, padding="same", activation="relu")(x)
    x = ks.layers.Conv2D(8, 3, strides=2, padding="same")(ks.layers.ZeroPadding2D(1)(x))
    skip = ks.layers.Conv2D(8, 1)(ks.layers.MaxPooling2D(2, padding="same")(skip)[:, :5, :5])
    x = ks.layers.ReLU(6.0)(ks.layers.Add()([x[:, :5, :5], skip]))
    x = ks.layers.DepthwiseConv2D(3, padding="same")(x)  # negative numbers
    x = ks.layers.Conv2D(6, 2, dilation_rate=2)(x)
    model = ks.Model(inputs, ks.layers.Dense(4)(ks.layers.Flatten()(x)))
    data = np.random.default_rng(0).uniform(-1, 1, (40, 9, 9, 3)).astype("float32")
    small, _ = ks.quantizers.post_training(model, data, accuracy_guard=None)
    made = onnx_model(forward_of(small, None))
    kinds = [n.op_type for n in made.graph.node]
    assert kinds.count("ConvInteger") == 5 and kinds.count("MatMulInteger") == 1
    read = {name for n in made.graph.node for name in n.input}
    assert {one.name for one in made.graph.initializer} <= read, "kernels are written once"
    (got,) = session(made.SerializeToString()).run(None, {made.graph.input[0].name: data})
    want = small.predict(data, verbose=0)
    off = np.abs(got - want) / np.abs(want).max()
    # The same integers, but for sums that end half-way between two of them and round differently in the last bit.
    assert np.mean(off < 1e-5) > 0.9 and off.max() < 0.02


def test_sparse_rows():
    ids = ks.Input((4,), dtype="int32")
    rows = ks.layers.CategoryEncoding(9, output_mode="multi_hot", sparse=True)(ids)
    wide = ks.layers.Concatenate()([rows, ks.layers.Rescaling(0.1)(ids)])
    model = ks.Model(ids, [ks.layers.SparseDense(3)(wide), ks.layers.Rescaling(2.0)(rows)])
    made = session(onnx_model(forward_of(model, None)).SerializeToString())
    data = np.random.default_rng(0).integers(0, 9, (5, 4)).astype("int32")
    for got, want in zip(made.run(None, {made.get_inputs()[0].name: data}), model(data), strict=True):
        np.testing.assert_allclose(got, want, rtol=1e-4, atol=1e-5)


def test_what_onnx_cannot_hold_is_named(tmp_path):
    x = ks.Input((3, 3))
    model = ks.Model(x, ks.layers.Lambda(ks.ops.linalg.svd, name="parts")(x)[1])
    with pytest.raises(SerializationError, match="no form for op 'linalg_svd' of layer 'parts'.*format='stablehlo'"):
        model.export(tmp_path / "m.onnx", format="onnx")
    assert not (tmp_path / "m.onnx").exists()
    for name in sorted(WITHOUT):
        pooled = ks.Sequential([ks.Input((4,) * int(name[-2]) + (2,)), getattr(ks.layers, name)(2)])
        with pytest.raises(SerializationError, match="no form for op 'patches_adaptive_.*of layer '.*adaptive_"):
            pooled.export(tmp_path / "m.onnx", format="onnx")
    half = ks.Sequential([ks.Input((3,)), ks.layers.Dense(2, dtype="bfloat16")])
    with pytest.raises(SerializationError, match="does not write bfloat16"):
        half.export(tmp_path / "m.onnx", format="onnx")
    with pytest.raises(SerializationError, match="opset 20 or later, got opset_version=9"):
        half.export(tmp_path / "m.onnx", format="onnx", opset_version=9)

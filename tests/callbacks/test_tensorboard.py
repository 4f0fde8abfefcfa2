"""What TensorBoard finds in the event files that the callback writes."""

from __future__ import annotations

import pathlib
import struct

import numpy as np
import pytest

import kerasoft as ks
from kerasoft.callbacks.tensorboard import graph_definition

X = np.random.default_rng(0).random((40, 3)).astype("float32")
Y = X.sum(axis=1, keepdims=True)


def events(folder):
    """All events of a run, read record by record."""
    from tensorboardX.proto.event_pb2 import Event

    found = []
    for path in sorted(pathlib.Path(folder).glob("events*")):
        data, at = path.read_bytes(), 0
        while at < len(data):
            (length,) = struct.unpack_from("<Q", data, at)
            found.append(Event.FromString(data[at + 12 : at + 12 + length]))
            at += 12 + length + 4
    return found


def scalars(folder):
    """{tag: [(step, value)]}"""
    found = {}
    for event in events(folder):
        for value in event.summary.value:
            if value.WhichOneof("value") == "simple_value":
                found.setdefault(value.tag, []).append((event.step, value.simple_value))
    return found


@pytest.fixture(scope="module")
def fitted(tmp_path_factory):
    folder = tmp_path_factory.mktemp("logs")
    model = ks.Sequential([ks.Input((3,), name="x"), ks.layers.Dense(2, name="hidden"), ks.layers.Dense(1, name="out")])
    model.compile(ks.optimizers.SGD(0.1), "mse", metrics=["mae"])
    board = ks.callbacks.TensorBoard(
        folder, histogram_freq=2, write_images=True, update_freq=3, write_steps_per_second=True
    )
    halve = ks.callbacks.LearningRateScheduler(lambda epoch, rate: rate / 2)
    options = dict(batch_size=8, epochs=3, verbose=0, validation_data=(X[:10], Y[:10]))
    history = model.fit(X, Y, callbacks=[halve, board], **options)
    return folder, history, model


def test_epoch_scalars_equal_the_history(fitted):
    folder, history, _ = fitted
    train, validation = scalars(folder / "train"), scalars(folder / "validation")
    for key, values in history.history.items():
        run, tag = (validation, f"epoch_{key[4:]}") if key.startswith("val_") else (train, f"epoch_{key}")
        assert [step for step, _ in run[tag]] == [0, 1, 2]
        np.testing.assert_allclose([v for _, v in run[tag]], values, rtol=1e-6)
    assert [round(v, 6) for _, v in train["epoch_learning_rate"]] == [0.05, 0.025, 0.0125]
    assert all(v > 0 for _, v in train["epoch_rows_per_second"] + train["epoch_steps_per_second"])


def test_phases_add_up_to_the_epoch(fitted):
    folder, history, model = fitted
    train = scalars(folder / "train")
    phases = [tag for tag in train if tag.startswith("phase_seconds/")]
    assert {"phase_seconds/input", "phase_seconds/compute", "phase_seconds/validation"} <= set(phases)
    end = model._status.end
    assert sum(train[tag][-1][1] for tag in phases) == pytest.approx(end.wall_s, rel=1e-3)


def test_step_scalars(fitted):
    folder, history, _ = fitted
    train = scalars(folder / "train")
    assert [step for step, _ in train["batch_loss"]] == [3, 6, 9, 12, 15]
    assert train["batch_loss"][-1][1] == pytest.approx(history.history["loss"][-1], rel=1e-6)  # a running mean
    assert {"batch_mae", "batch_learning_rate", "batch_rows_per_second", "batch_phase_seconds/compute"} <= set(train)
    assert [step for step, _ in scalars(folder / "validation")["evaluation_loss_vs_iterations"]] == [5, 10, 15]


def test_histograms_and_images(fitted):
    found = {}
    for event in events(fitted[0] / "train"):
        for value in event.summary.value:
            if value.WhichOneof("value") in ("histo", "image"):
                found.setdefault(value.tag, []).append(event.step)
    kernel, bias = fitted[2].get_layer("hidden").kernel.path, fitted[2].get_layer("out").bias.path
    assert found[f"{kernel}/histogram"] == [0, 2] and found[f"{bias}/image"] == [0, 2]


def test_graph(fitted):
    from tensorboardX.proto.graph_pb2 import GraphDef

    (graph,) = [GraphDef.FromString(e.graph_def) for e in events(fitted[0] / "train") if e.graph_def]
    names = {node.name for node in graph.node}
    assert len(names) == len(graph.node)
    assert all(source in names for node in graph.node for source in node.input)
    kernel = fitted[2].get_layer("hidden").kernel.path
    assert {"x/x", kernel} <= names and any("hidden/" in name and name != kernel for name in names)


def test_each_step_and_no_graph(tmp_path):
    model = ks.Sequential([ks.Input((3,)), ks.layers.Dense(1)])
    model.compile("sgd", "mse")
    model.fit(X, Y, verbose=0, callbacks=[ks.callbacks.TensorBoard(tmp_path, write_graph=False, update_freq="batch")])
    assert [step for step, _ in scalars(tmp_path / "train")["batch_loss"]] == [1, 2]
    assert not any(e.graph_def for e in events(tmp_path / "train"))
    assert not (tmp_path / "validation").exists()


def test_graph_definition_names_repeated_ops():
    from kerasoft.compiler.ir import Graph
    from kerasoft.compiler.ops import arithmetic
    from kerasoft.compiler.ops.registry import input_node

    x = input_node("x", (2,), "float32")
    y = arithmetic.multiply(arithmetic.multiply(x, x), x)
    made = graph_definition(Graph((x,), (y,), ("out/0",)))
    assert [(n.name, n.op, list(n.input)) for n in made.node] == [
        ("x", "input", []),
        ("multiply", "multiply", ["x", "x"]),
        ("multiply_1", "multiply", ["multiply", "x"]),
        ("out/0", "output", ["multiply_1"]),
    ]


def test_what_is_not_offered_is_said():
    for options in ({"profile_batch": 3}, {"embeddings_freq": 1}):
        with pytest.raises(ValueError, match="profile_batch, embeddings_freq and embeddings_metadata are not offered"):
            ks.callbacks.TensorBoard(**options)
    with pytest.raises(ValueError, match="update_freq must be 'epoch', 'batch' or a number of steps, got 'step'"):
        ks.callbacks.TensorBoard(update_freq="step")

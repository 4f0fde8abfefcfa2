"""Parameter servers on real executor processes: bits, deaths, and what the front-end shows of them."""

import os
import signal

import numpy as np
import pytest
from kerasoft.runtime import Downpour, ParameterContext, ParameterServer
from kerasoft.runtime.errors import TrainingFailed
from kerasoft.runtime.faults import Fault

import kerasoft as ks
from tests.runtime.cases import digest, fit_in_threads, mlp, shards, weights
from tests.runtime.test_spark import IDS, SIZES, exact, fit

pytestmark = pytest.mark.spark


def test_a_killed_worker_is_replaced_while_the_server_and_the_other_worker_go_on(context):
    calm, _, _ = fit_in_threads(mlp(dropout=True), shards(SIZES), 1, exact(), epochs=3)
    strategy = ParameterServer(1, workers=2, deterministic=True, timeout_s=40)
    result, hooks = fit(context, mlp(dropout=True), shards(SIZES), strategy, epochs=3, faults=[Fault(2, 1, 2, "kill")])
    assert digest(result) == digest(calm)
    kinds = [e.kind for e in hooks.events]
    assert kinds.count("worker_lost") == kinds.count("worker_replaced") == 1 and "retrying" not in kinds
    assert [e.sums[1:].tolist() for e in hooks.ends] == [IDS] * 3
    broadcast = ParameterServer(store="broadcast")
    there, others = fit(context, mlp(dropout=True), shards(SIZES), broadcast, epochs=1)
    here, _, _ = fit_in_threads(mlp(dropout=True), shards(SIZES), 1, exact(), epochs=1)
    np.testing.assert_allclose(weights(there), weights(here), rtol=1e-5, atol=1e-6)


def test_downpour_by_fit_shows_stale_pushes_in_history_and_tensorboard(context, tmp_path):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    rng = np.random.default_rng(0)
    x = rng.normal(size=(256, 6)).astype("float32")
    y = (x.sum(1) > 0).astype("float32")
    model = ks.Sequential([ks.layers.Input((6,)), ks.layers.Dense(8, "tanh"), ks.layers.Dense(1, "sigmoid")])
    model.compile(ks.optimizers.SGD(0.2), "binary_crossentropy", metrics=["accuracy"])
    rows = context.parallelize(list(zip(x, y, strict=True)), 4)
    history = model.fit(
        rows,
        batch_size=16,
        epochs=4,
        verbose=0,
        strategy=Downpour(2, 2, workers=2),
        callbacks=[ks.callbacks.TensorBoard(str(tmp_path))],
    ).history
    assert history["accuracy"][-1] > 0.9 and len(history["stale_pushes"]) == 4
    assert set(history) == {"accuracy", "loss", "stale_pushes", "staleness"}
    events = EventAccumulator(str(next(tmp_path.glob("train*"))))
    events.Reload()
    assert any("stale_pushes" in tag for tag in events.Tags()["scalars"] + events.Tags()["tensors"])


def test_functions_of_ones_own_train_a_tree_and_a_killed_task_loses_no_row(context, tmp_path):
    """A task is killed once in its third batch; the sums that the tree holds show every row exactly once an epoch."""
    mark = str(tmp_path / "killed")

    def gradient(model, rows):
        if 17 in rows and not os.path.exists(mark):
            open(mark, "w").close()
            os.kill(os.getpid(), signal.SIGKILL)
        x = np.array(rows, np.float64)
        return {"mean": (x - model["layers"][0]).sum(), "seen": [len(rows), x.sum(), (x * x).sum()]}

    def descent(model, update):
        model["layers"][0] += 0.05 * update["mean"]
        model["seen"] = tuple(a + b for a, b in zip(model["seen"], update["seen"], strict=True))

    rdd = context.parallelize(range(40), 2).cache()
    with ParameterContext({"layers": [np.zeros(())], "seen": (0, 0.0, 0.0)}) as parameters:
        model = parameters.train(rdd, gradient, descent, epochs=5, batch_size=4)
    assert os.path.exists(mark)
    assert model["seen"] == (200, 5 * sum(range(40)), 5 * sum(i * i for i in range(40)))
    assert 5 < model["layers"][0] < 35 and parameters.counts["updates"] == 50

    def wrong(model, update):
        raise KeyError("no such layer")

    with pytest.raises(TrainingFailed, match="descent raised KeyError"):
        ParameterContext({"a": np.zeros(2)}).train(rdd, lambda model, rows: 1.0, wrong)

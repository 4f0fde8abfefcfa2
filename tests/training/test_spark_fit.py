"""`fit`, `evaluate` and `predict` on RDDs and DataFrames, on real executor processes, against one process on arrays."""

import hashlib
import pathlib
import subprocess
import sys

import numpy as np
import pytest
from kerasoft.runtime import AllReduce, ShuffleAllReduce

import kerasoft as ks
from kerasoft.errors import DataError, EmptyDataError

pytestmark = pytest.mark.spark
ROOT = pathlib.Path(__file__).resolve().parent.parent.parent
L = ks.layers


def mlp():
    return ks.Sequential(
        [ks.Input((6,)), L.Dense(8, activation="tanh"), L.Dropout(0.3), L.Dense(3, activation="softmax")]
    )


def cnn(synchronized=False):
    return ks.Sequential(
        [
            ks.Input((6, 6, 1)),
            L.Conv2D(4, 3, use_bias=False),
            L.BatchNormalization(synchronized=synchronized, momentum=0.8),
            L.Activation("relu"),
            L.MaxPooling2D(),
            L.Flatten(),
            L.Dropout(0.2),
            L.Dense(3, activation="softmax"),
        ]
    )


def lstm():
    return ks.Sequential([ks.Input((5, 3)), L.LSTM(4, dropout=0.2), L.Dense(3, activation="softmax")])


SHAPES = {mlp: (6,), cnn: (6, 6, 1), lstm: (5, 3)}


def data(make, n=61, seed=0):
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(n, *SHAPES[make])).astype("float32")
    return x, (np.abs(x.reshape(n, -1).sum(1)) % 3).astype("int32")


def ready(make, optimizer="adam", **options):
    ks.utils.set_random_seed(3)
    model = make(**options)
    model.compile(optimizer, "sparse_categorical_crossentropy", metrics=["accuracy"])
    return model


def rows_of(context, x, y, cuts=(0, 13, 13, 40, 61)):
    """Uneven partitions, one of them empty."""
    pairs = [list(zip(x[a:b], y[a:b].tolist())) for a, b in zip(cuts, cuts[1:])]
    return context.parallelize(pairs, len(pairs)).flatMap(list)


def digest(model):
    return hashlib.sha256(b"".join(np.ascontiguousarray(w).tobytes() for w in model.get_weights())).hexdigest()


def close(a, b, tolerance=1e-5):
    for left, right in zip(a.get_weights(), b.get_weights(), strict=True):
        np.testing.assert_allclose(left, right, rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize("make", [mlp, lstm])
def test_full_batch_equals_arrays(context, make):
    x, y = data(make)
    here, there = ready(make), ready(make)
    local = here.fit(x, y, batch_size=61, epochs=3, verbose=0, seed=5)
    far = there.fit(rows_of(context, x, y), batch_size=61, epochs=3, verbose=0, seed=5, strategy=AllReduce(workers=2))
    close(here, there)
    for name, values in local.history.items():
        np.testing.assert_allclose(values, far.history[name], rtol=1e-5)


class OwnLoss(ks.Model):
    """A loss, a metric and one more value in the logs, all of its own."""

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self.surprise = ks.metrics.Mean(name="surprise")

    def compute_loss(self, x=None, y=None, y_pred=None, sample_weight=None, training=True):
        loss = super().compute_loss(x, y, y_pred, sample_weight, training)
        self.surprise.update_state(ks.ops.max(y_pred, -1))
        return loss + 0.1 * ks.ops.mean(ks.ops.square(y_pred))


class OwnStep(OwnLoss):
    def train_step(self, state, data):
        logs, state = super().train_step(state, data)
        return {**logs, "twice": logs["loss"] * 2.0}, state


def own(cls):
    inputs = ks.Input((6,))
    hidden = L.Dense(8, activation="tanh", kernel_regularizer="l2")(inputs)
    return cls(inputs, L.Dense(3, activation="softmax")(hidden))


@pytest.mark.parametrize("cls", [OwnLoss, OwnStep])
def test_steps_of_the_users_own_equal_arrays(context, cls):
    x, y = data(mlp)
    here, there, far_too = (ready(own, cls=cls) for _ in range(3))
    local = here.fit(x, y, batch_size=61, epochs=3, verbose=0, seed=5, validation_data=(x[:20], y[:20]))
    rows, held_out = rows_of(context, x, y), context.parallelize(list(zip(x[:20], y[:20].tolist())), 2)
    options = dict(batch_size=61, epochs=3, verbose=0, seed=5, validation_data=held_out)
    far = there.fit(rows, strategy=AllReduce(workers=2), **options)
    close(here, there)
    assert list(far.history) == list(local.history)
    for name, values in local.history.items():
        np.testing.assert_allclose(values, far.history[name], rtol=1e-5, err_msg=name)
    far_too.fit(rows, strategy=AllReduce(workers=1), **{**options, "batch_size": 16})
    again = ready(own, cls=cls)
    again.fit(rows, strategy=AllReduce(workers=3), **{**options, "batch_size": 16})
    close(far_too, again)
    evaluated = there.evaluate(rows, return_dict=True)
    expected = here.evaluate(x, y, batch_size=61, verbose=0, return_dict=True)
    assert evaluated.keys() == expected.keys()
    np.testing.assert_allclose([evaluated[n] for n in expected], list(expected.values()), rtol=1e-5)


def test_steps_that_a_cluster_cannot_add_up_are_refused(context):
    class Twice(OwnLoss):
        def train_step(self, state, data):
            first, state = super().train_step(state, data)
            return super().train_step(state, data)

    class Never(OwnLoss):
        def train_step(self, state, data):
            return {"loss": 0.0}, state

    class Predicts(OwnLoss):
        def predict_step(self, state, data):
            return super().predict_step(state, data)

    x, y = data(mlp)
    rows = rows_of(context, x, y)
    with pytest.raises(
        NotImplementedError, match="calls `self.optimizer.stateless_apply` more than once; on a cluster"
    ):
        ready(own, cls=Twice).fit(rows, verbose=0)
    with pytest.raises(NotImplementedError, match="Never.train_step never calls `self.optimizer.stateless_apply`"):
        ready(own, cls=Never).fit(rows, verbose=0)
    with pytest.raises(NotImplementedError, match="Predicts overrides `predict_step`, which runs in one process only"):
        ready(own, cls=Predicts).predict(rows)


@pytest.mark.parametrize("make", [mlp, cnn, lstm])
def test_any_number_of_workers_agrees_with_one(context, make):
    x, y = data(make)
    rows = rows_of(context, x, y)
    one = ready(make)
    one.fit(rows, batch_size=16, epochs=3, verbose=0, seed=5, strategy=AllReduce(workers=1))
    for workers in (2, 4) if make is mlp else (3,):
        several = ready(make)
        several.fit(rows, batch_size=16, epochs=3, verbose=0, seed=5, strategy=AllReduce(workers=workers))
        close(one, several)


def test_synchronised_batch_normalisation_sees_the_global_batch(context):
    x, y = data(cnn)
    here, there = ready(cnn, synchronized=True), ready(cnn, synchronized=True)
    here.fit(x, y, batch_size=61, epochs=3, verbose=0, seed=5)
    there.fit(rows_of(context, x, y), batch_size=61, epochs=3, verbose=0, seed=5, strategy=AllReduce(workers=2))
    close(here, there)


def test_deterministic_gives_the_same_bits_for_any_number_of_workers(context):
    x, y = data(cnn)
    rows, found = rows_of(context, x, y), set()
    for workers in (1, 2, 3, 4):
        model = ready(cnn)
        model.fit(rows, batch_size=16, epochs=2, verbose=0, seed=5, strategy=AllReduce(workers, deterministic=True))
        found.add(digest(model))
    assert len(found) == 1


def test_shuffle_all_reduce_gives_the_bits_of_deterministic_all_reduce(context):
    x, y = data(mlp)
    rows = rows_of(context, x, y)
    one, other = ready(mlp), ready(mlp)
    first = one.fit(
        rows,
        batch_size=32,
        epochs=2,
        verbose=0,
        seed=5,
        validation_data=rows,
        strategy=AllReduce(2, deterministic=True),
    )
    second = other.fit(
        rows, batch_size=32, epochs=2, verbose=0, seed=5, validation_data=rows, strategy=ShuffleAllReduce(workers=3)
    )
    assert digest(one) == digest(other)
    for name, values in first.history.items():
        np.testing.assert_allclose(values, second.history[name], rtol=1e-6)


def test_jobs_do_not_grow_with_steps(context):
    x, y = data(mlp)
    rows = rows_of(context, x, y)
    jobs = []
    for number, batch_size in enumerate((61, 4)):
        model = ready(mlp)
        group = f"count-{number}"
        before = set(context.statusTracker().getJobIdsForGroup())
        context.setJobGroup(group, "counted")
        model.fit(rows, batch_size=batch_size, epochs=2, verbose=0, seed=1, strategy=AllReduce(workers=2))
        tracker = context._jsc.sc().statusTracker()
        jobs.append(len(tracker.getJobIdsForGroup(group)) + len(set(tracker.getJobIdsForGroup(None)) - before))
        context._jsc.sc().clearJobGroup()
    assert jobs[1] <= jobs[0] + 1  # 2 and 32 steps


def test_evaluate_and_predict_equal_arrays_and_keep_order_and_partitions(context):
    x, y = data(cnn)
    model = ready(cnn)
    rows = rows_of(context, x, y)
    here = model.evaluate(x, y, verbose=0, return_dict=True)
    there = model.evaluate(rows, batch_size=7, return_dict=True)
    assert here.keys() == there.keys()
    for name in here:
        np.testing.assert_allclose(here[name], there[name], rtol=1e-5)
    predicted = model.predict(rows, batch_size=7)
    assert predicted.getNumPartitions() == rows.getNumPartitions()
    np.testing.assert_allclose(np.stack(predicted.collect()), model.predict(x, verbose=0), rtol=1e-5, atol=1e-6)
    sizes = predicted.glom().map(len).collect()
    assert sizes == rows.glom().map(len).collect()
    only_x = rows.map(lambda row: row[0])
    np.testing.assert_allclose(
        np.stack(model.predict(only_x).collect()), np.stack(predicted.collect()), rtol=1e-5, atol=1e-6
    )


def test_several_inputs_outputs_and_weights(context):
    def build():
        ks.utils.set_random_seed(1)
        a, b = ks.Input((3,), name="a"), ks.Input((2,), name="b")
        both = L.Concatenate()([L.Dense(4)(a), b])
        model = ks.Model([a, b], {"left": L.Dense(1, name="left")(both), "right": L.Dense(2, name="right")(both)})
        model.compile("sgd", {"left": "mse", "right": "mae"}, loss_weights={"left": 1.0, "right": 0.5})
        return model

    rng = np.random.default_rng(0)
    x = {"a": rng.normal(size=(20, 3)).astype("float32"), "b": rng.normal(size=(20, 2)).astype("float32")}
    y = {"left": rng.normal(size=(20, 1)).astype("float32"), "right": rng.normal(size=(20, 2)).astype("float32")}

    def pick(part, i):
        return {name: array[i] for name, array in part.items()}

    rows = context.parallelize([(pick(x, i), pick(y, i)) for i in range(20)], 3)
    here, there = build(), build()
    one = here.fit(x, y, batch_size=20, epochs=2, verbose=0, seed=1)
    two = there.fit(rows, batch_size=20, epochs=2, verbose=0, seed=1, strategy=AllReduce(workers=2))
    close(here, there)
    assert one.history.keys() == two.history.keys()
    flat = context.parallelize([{**pick(x, i), **pick(y, i)} for i in range(20)], 3)
    np.testing.assert_allclose(there.evaluate(flat), there.evaluate(x, y, verbose=0), rtol=1e-5)
    answers = there.predict(rows).collect()
    np.testing.assert_allclose(
        np.stack([a["right"] for a in answers]), there.predict(x, verbose=0)["right"], rtol=1e-5, atol=1e-6
    )


def test_sample_weights_travel_with_the_rows(context):
    x, y = data(mlp)
    weight = np.linspace(0, 2, 61).astype("float32")
    here, there = ready(mlp, "sgd"), ready(mlp, "sgd")
    here.fit(x, y, sample_weight=weight, batch_size=61, epochs=2, verbose=0, seed=1)
    rows = context.parallelize(list(zip(x, y.tolist(), weight.tolist())), 3)
    there.fit(rows, batch_size=61, epochs=2, verbose=0, seed=1, strategy=AllReduce(workers=2))
    close(here, there)


def test_dataframes(spark, context):
    from pyspark.ml.linalg import Vectors

    x, y = data(mlp)
    here = ready(mlp, "sgd")
    here.fit(x, y, batch_size=61, epochs=2, verbose=0, seed=1)
    wanted = here.evaluate(x, y, verbose=0)
    predicted = here.predict(x, verbose=0)
    arrays = spark.createDataFrame([(list(map(float, a)), int(b)) for a, b in zip(x, y)], ["features", "label"])
    vectors = spark.createDataFrame([(Vectors.dense(a), int(b)) for a, b in zip(x, y)], ["v", "target"])
    columns = spark.createDataFrame([(*map(float, a), int(b)) for a, b in zip(x, y)], [*"abcdef", "target"])
    there = ready(mlp, "sgd")
    there.fit(arrays, batch_size=61, epochs=2, verbose=0, seed=1, strategy=AllReduce(workers=2))
    close(here, there)
    for df, features, labels in (
        (arrays, None, None),
        (vectors, ["v"], ["target"]),
        (columns, list("abcdef"), ["target"]),
    ):
        np.testing.assert_allclose(there.evaluate(df, feature_cols=features, label_cols=labels), wanted, rtol=1e-5)
        scored = there.predict(df, feature_cols=features)
        assert scored.columns == [*df.columns, "prediction"]
        np.testing.assert_allclose([r["prediction"] for r in scored.collect()], predicted, rtol=1e-4, atol=1e-5)


def test_a_stream_is_scored(spark, tmp_path):
    x, _ = data(mlp, n=20)
    model = ready(mlp)
    spark.createDataFrame([(i, list(map(float, a))) for i, a in enumerate(x)], ["i", "features"]).write.json(
        str(tmp_path / "in")
    )
    stream = spark.readStream.schema("i long, features array<float>").json(str(tmp_path / "in"))
    query = model.predict(stream).writeStream.format("memory").queryName("scored").trigger(availableNow=True).start()
    query.awaitTermination(120)
    found = {r["i"]: r["prediction"] for r in spark.table("scored").collect()}
    wanted = model.predict(x, verbose=0)
    assert len(found) == 20
    np.testing.assert_allclose([found[i] for i in range(20)], wanted, rtol=1e-4, atol=1e-5)


def test_callbacks_decide_on_the_driver(context, tmp_path):
    x, y = data(mlp)
    rows = rows_of(context, x, y)
    model = ready(mlp, ks.optimizers.SGD(0.5))
    rates = ks.callbacks.LearningRateScheduler(lambda epoch, rate: 0.5 if epoch < 2 else 0.0)
    stop = ks.callbacks.EarlyStopping(monitor="loss", patience=1, min_delta=0.5, restore_best_weights=True)
    board = ks.callbacks.TensorBoard(str(tmp_path / "logs"))
    save = ks.callbacks.ModelCheckpoint(str(tmp_path / "{epoch:02d}.weights.h5"), save_weights_only=True)
    fitted = model.fit(
        rows, batch_size=16, epochs=6, verbose=0, seed=1, validation_data=rows,
        callbacks=[rates, stop, board, save], strategy=AllReduce(workers=2),
    )  # fmt: skip
    epochs = len(fitted.history["loss"])
    assert 2 <= epochs < 6 and fitted.history["learning_rate"][0] == 0.5
    assert (tmp_path / f"{epochs:02d}.weights.h5").exists()
    best = ready(mlp)
    best.load_weights(
        str(
            tmp_path
            / f"{int(np.argmin(fitted.history['loss'])) + 1 if stop.best_epoch is None else stop.best_epoch + 1:02d}.weights.h5"
        )
    )
    close(model, best, 0)

    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    for run, prefix in (("train", ""), ("validation", "val_")):
        events = EventAccumulator(str(tmp_path / "logs" / run))
        events.Reload()
        for name in ("loss", "accuracy"):
            logged = [e.value for e in events.Scalars(f"epoch_{name}")]
            np.testing.assert_allclose(logged, fitted.history[prefix + name], rtol=1e-6)


def test_profile_adds_up(context):
    x, y = data(mlp)
    model = ready(mlp)
    model.fit(rows_of(context, x, y), batch_size=8, epochs=3, verbose=0, strategy=AllReduce(workers=2))
    profile = model.last_fit_profile
    assert profile.workers == 2 and profile.steps == 3 * 8 and profile.rows == 3 * 61
    np.testing.assert_allclose(sum(profile.seconds.values()), profile.wall_s, rtol=0.02)
    assert {"input", "compute", "sync", "update", "wait", "scheduling"} <= set(profile.seconds)
    assert profile.seconds["other"] < 0.25 * profile.wall_s


BAD = [
    (lambda x, y: list(zip(x, y + 3)), "expected a class from 0 to 2, because the output has 3 units"),
    (lambda x, y: [*zip(x, y), (x[0] * np.nan, 0)], "holds nan in row 21 of partition 2; expected finite numbers"),
    (lambda x, y: [*zip(x, y), (x[0][:4], 0)], "has shape (4,); expected (6,) (row"),
    (lambda x, y: list(zip(x[:, :5], y)), "needs shape (None, 6), got (None, 5)"),
    (
        lambda x, y: list(zip(x, np.eye(3)[y])),
        "For one-hot labels use categorical_crossentropy",
    ),
    (lambda x, y: list(x), "expected (x, y) or (x, y, weight), a dict or a Row"),
]


@pytest.mark.parametrize("make_rows, text", BAD)
def test_bad_rows_are_named_before_the_first_step(context, make_rows, text):
    x, y = data(mlp)
    model = ready(mlp)
    before = digest(model)
    with pytest.raises(ValueError) as error:
        model.fit(context.parallelize(make_rows(x, y), 3), verbose=0, strategy=AllReduce(workers=2))
    assert text in str(error.value)
    assert digest(model) == before


def test_empty_and_uncompiled(context):
    model = ready(mlp)
    for empty in (context.parallelize([], 3), context.parallelize([1, 2], 2).filter(lambda _: False)):
        with pytest.raises(EmptyDataError, match="the RDD is empty: expected at least one row, got 0 rows in"):
            model.fit(empty, verbose=0)
    with pytest.raises(ValueError, match=r"You must call `compile\(\)` before using the model"):
        mlp().fit(context.parallelize([(np.zeros(6), 0)]))
    with pytest.raises(
        ValueError, match="`sample_weight` cannot be given with an RDD or a DataFrame: add the weight to the"
    ):
        model.fit(context.parallelize([(np.zeros(6), 0)]), sample_weight=[1.0])
    with pytest.raises(DataError, match="label of output 'dense_1' is 7|expected a class from 0 to 2"):
        model.evaluate(context.parallelize([(np.zeros(6), 7)]))


def test_too_many_workers_is_said_before_data_is_touched(context):
    touched = context.accumulator(0)
    rows = context.parallelize([(np.zeros(6), 0)] * 9, 3).map(lambda row: (touched.add(1), row)[1])
    with pytest.raises(
        Exception, match=r"64 workers were asked for and 4 can run at once\. Use AllReduce\(workers=4\)"
    ):
        ready(mlp).fit(rows, verbose=0, strategy=AllReduce(workers=64))
    assert touched.value == 0


SCRIPT = """
import sys
import numpy as np
import kerasoft as ks
from pyspark.sql import SparkSession

class Square(ks.layers.Layer):  # known to this process only
    def build(self, input_shape):
        self.gain = self.add_weight(shape=(input_shape[-1],), initializer="ones", name="gain")
    def call(self, x):
        return ks.ops.square(x) * self.gain

def error(y_true, y_pred):
    return ks.ops.mean(ks.ops.square(y_true - y_pred), axis=-1)

builder = SparkSession.builder
for pair in sys.argv[1:]:
    key, value = pair.split("=", 1)
    builder = builder.config(key, value)
spark = builder.getOrCreate()
try:
    rng = np.random.default_rng(0)
    x = rng.normal(size=(64, 3)).astype("float32")
    rows = spark.sparkContext.parallelize([(a, np.array([(a * a).sum()], "float32")) for a in x], 4)
    model = ks.Sequential([ks.Input((3,)), Square(), ks.layers.Dense(1)])
    model.compile(ks.optimizers.Adam(0.05), error)
    history = model.fit(rows, batch_size=16, epochs=20, verbose=0).history["loss"]
    print("LOSS", history[0], history[-1], np.asarray(model.predict(rows).first()).shape)
finally:
    spark.stop()
"""


def test_a_layer_of_main_trains_on_the_cluster(cluster, tmp_path):
    (tmp_path / "notebook.py").write_text(SCRIPT)
    settings = [f"{key}={value}" for key, value in cluster.settings(executors=2).items()]
    out = subprocess.run(
        [sys.executable, "notebook.py", *settings], cwd=tmp_path, capture_output=True, text=True, timeout=240,
        env={**__import__("os").environ, "PYTHONPATH": str(ROOT), "PYSPARK_PYTHON": sys.executable},
    )  # fmt: skip
    line = next((line for line in out.stdout.splitlines() if line.startswith("LOSS")), out.stderr[-3000:])
    _, first, last, *shape = line.split(maxsplit=3)
    assert float(last) < 0.2 * float(first) and shape == ["(1,)"]

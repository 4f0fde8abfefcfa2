"""`fit(strategy=Parallel(...))` on real executors: an MLP, a Transformer and NCF, cut among processes, against one process."""

import numpy as np
import pytest
from kerasoft.runtime import AllReduce, Parallel
from kerasoft.runtime.faults import Fault

import kerasoft as ks
from tests.training.test_spark_fit import close, digest
from tests.training.test_strategies import killed

pytestmark = pytest.mark.spark
L = ks.layers


def mlp():
    return ks.Sequential(
        [
            ks.Input((6,)),
            L.Dense(32, activation="tanh"),
            L.Dropout(0.3),
            L.Dense(32, activation="relu"),
            L.Dense(3, activation="softmax"),
        ]
    )


def transformer():
    """One block over token ids: attention and a feed-forward part, each with a residual sum and a normalisation."""
    tokens = ks.Input((8,), dtype="int32")
    x = L.Embedding(30, 16)(tokens)
    x = L.LayerNormalization()(x + L.MultiHeadAttention(4, 4)(x, x))
    x = L.LayerNormalization()(x + L.Dense(16)(L.Dense(32, activation="gelu")(x)))
    return ks.Model(tokens, L.Dense(3, activation="softmax")(L.GlobalAveragePooling1D()(x)))


def ncf():
    """Neural collaborative filtering: products of embeddings beside a tower over both."""
    pair = ks.Input((2,), dtype="int32")
    user, item = pair[:, 0], pair[:, 1]
    product = L.Embedding(40, 8)(user) * L.Embedding(50, 8)(item)
    tower = L.Concatenate()([L.Embedding(40, 16)(user), L.Embedding(50, 16)(item)])
    for units in (32, 16):
        tower = L.Dense(units, activation="relu")(tower)
    return ks.Model(pair, L.Dense(3, activation="softmax")(L.Concatenate()([product, tower])))


def normalised():
    return ks.Sequential([ks.Input((6,)), L.Dense(32), L.BatchNormalization(), L.Dense(3, activation="softmax")])


def rows(make, n=61, seed=0):
    rng = np.random.default_rng(seed)
    if make in (mlp, normalised):
        x = rng.normal(size=(n, 6)).astype("float32")
    elif make is transformer:
        x = rng.integers(0, 30, (n, 8)).astype("int32")
    else:
        x = np.stack([rng.integers(0, 40, n), rng.integers(0, 50, n)], 1).astype("int32")
    return x, rng.integers(0, 3, n).astype("int32")


def ready(make, optimizer="adam"):
    ks.utils.set_random_seed(3)
    model = make()
    model.compile(optimizer, "sparse_categorical_crossentropy", metrics=["accuracy"])
    return model


def distributed(context, x, y, cuts=(0, 13, 13, 40, 61)):
    """Uneven partitions, one of them empty."""
    pairs = [list(zip(x[a:b], y[a:b].tolist())) for a, b in zip(cuts, cuts[1:])]
    return context.parallelize(pairs, len(pairs)).flatMap(list)


OPTIONS = dict(batch_size=16, epochs=2, verbose=0, seed=5, shuffle=False)
CASES = [
    pytest.param(mlp, Parallel(data=2, zero=3), marks=pytest.mark.soak),
    (transformer, Parallel(pipeline=2, data=2, microbatches=2)),
    pytest.param(ncf, Parallel(model=2), marks=pytest.mark.soak),
]
SCORED = [
    (mlp, Parallel(pipeline=2)),
    pytest.param(transformer, Parallel(model=2, data=2), marks=pytest.mark.soak),
    pytest.param(normalised, Parallel(data=3, zero=3), marks=pytest.mark.soak),
]


@pytest.mark.parametrize("make, strategy", CASES, ids=lambda c: getattr(c, "__name__", ""))
def test_a_cut_model_is_trained_as_a_whole_one(context, make, strategy):
    x, y = rows(make)
    here, there = ready(make, ks.optimizers.SGD(0.1)), ready(make, ks.optimizers.SGD(0.1))
    data = distributed(context, x, y)
    whole = here.fit(data, strategy=AllReduce(1), validation_data=data, **OPTIONS)
    cut = there.fit(data, strategy=strategy, validation_data=data, **OPTIONS)
    close(here, there)
    for name, values in whole.history.items():
        np.testing.assert_allclose(values, cut.history[name], rtol=1e-4)


@pytest.mark.parametrize("make, strategy", SCORED, ids=lambda c: getattr(c, "__name__", ""))
def test_a_cut_model_scores_as_a_whole_one(context, make, strategy):
    """Every row once, in its partition and its order; blocks larger and smaller than a call, an empty partition."""
    x, y = rows(make)
    model = ready(make)
    data = distributed(context, x, y)
    for whole, cut in zip(
        model.evaluate(data, verbose=0, batch_size=16),
        model.evaluate(data, batch_size=16, strategy=strategy),
        strict=True,
    ):
        np.testing.assert_allclose(cut, whole, rtol=1e-5)
    inputs = data.map(lambda row: row[0])
    scored = model.predict(inputs, batch_size=8, strategy=strategy)
    assert scored.glom().map(len).collect() == [13, 0, 27, 21]
    np.testing.assert_allclose(np.stack(scored.collect()), model.predict(x, verbose=0), rtol=1e-5, atol=1e-6)
    assert len(scored.take(3)) == 3


@pytest.mark.parametrize(
    "strategy",
    [Parallel(data=2, zero=3), pytest.param(Parallel(pipeline=2), marks=pytest.mark.soak)],
    ids=["slices", "pipeline"],
)
def test_dataframes_get_the_column_that_ordinary_predictions_have(spark, context, strategy):
    """Vectors and other columns beside it, in the rows' order; an empty partition."""
    from pyspark.ml.linalg import Vectors

    x, _ = rows(mlp, 40)
    model = ready(mlp)
    made = [(i, Vectors.dense(row), [f"row {i}"]) for i, row in enumerate(x.astype(float))]
    parts = [made[:13], [], made[13:14], made[14:]]
    data = context.parallelize(parts, 4).flatMap(list)
    frame = spark.createDataFrame(data, spark.createDataFrame(made, ["i", "features", "names"]).schema)
    cut = model.predict(frame, batch_size=8, strategy=strategy, output_col="p")
    whole = model.predict(frame, output_col="p")
    assert cut.schema == whole.schema
    for a, b in zip(cut.collect(), whole.collect(), strict=True):
        assert a[:3] == b[:3]
        np.testing.assert_allclose(a.p, b.p, rtol=1e-5, atol=1e-6)


@pytest.mark.soak
def test_a_killed_part_changes_no_bit(context):
    x, y = rows(mlp)
    data = distributed(context, x, y)
    calm, lost = ready(mlp), ready(mlp)
    strategy = Parallel(pipeline=2)
    calm.fit(data, strategy=strategy, **OPTIONS)
    hurt = killed(strategy, Fault(1, 1, 1, "kill"))
    lost.fit(data, strategy=hurt, **OPTIONS)
    assert hurt.said.count("worker_lost") == hurt.said.count("retrying") == 1
    assert digest(lost) == digest(calm)


def test_layers_go_where_the_user_wants_them(context):
    x, y = rows(mlp)
    model = ready(mlp)
    for layer, stage in zip([layer for layer in model.layers if layer.weights], (0, 1, 1), strict=True):
        layer.placement = stage
    hooks = model.fit(distributed(context, x, y), strategy=Parallel(pipeline=2), **OPTIONS)
    assert hooks is model.history
    text = next(e.text for e in model._trainer.events if e.kind == "strategy")
    first, second = text.split("coordinate 1")
    names = [layer.name for layer in model.layers if layer.weights]
    assert names[0] in first and names[1] in second and names[2] in second and names[1] not in first
    assert "stages wait 11% of a step" in text


def test_scoring_says_what_it_cannot_do(context):
    x, y = rows(mlp, 8)
    model, data = ready(mlp), distributed(context, *rows(mlp, 8), cuts=(0, 8))
    with pytest.raises(ValueError, match="trains whole models only"):
        model.evaluate(data, strategy=AllReduce(2))
    with pytest.raises(ValueError, match="needs an RDD or a Spark DataFrame as x, got ndarray"):
        model.predict(x, strategy=Parallel(pipeline=2))

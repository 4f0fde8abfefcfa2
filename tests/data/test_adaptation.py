"""`adapt` on a cluster gives what it gives on the same data as an array; models of text are trained on rows of text."""

import collections

import numpy as np
import pytest

import kerasoft as ks
from kerasoft.errors import DataError
from kerasoft.host.states import EXACT_VALUES, Moments, Quantiles

pytestmark = pytest.mark.spark
L = ks.layers
RANDOM = np.random.default_rng(3)
WORDS = [f"w{i}" for i in range(12)]
TEXTS = [" ".join(RANDOM.choice(WORDS, 5)) for _ in range(60)]
LABELS = [int("w1" in text.split()) for text in TEXTS]
X = RANDOM.normal(3.0, 2.0, (120, 3)).astype("float32")


def adapted(layer, data, **options):
    layer.adapt(data, **options)
    return layer


def rows_of(values, context, parts=3):
    return context.parallelize([(value, 0) for value in values], parts)


def test_lookups_count_on_the_executors(context, spark):
    rdd = rows_of(TEXTS, context)
    options = {"output_mode": "tf_idf", "ngrams": 2, "max_tokens": 40}
    want, got = adapted(L.TextVectorization(**options), TEXTS), adapted(L.TextVectorization(**options), rdd)
    assert got.get_vocabulary() == want.get_vocabulary()
    np.testing.assert_array_equal(got(TEXTS), want(TEXTS))
    table = spark.createDataFrame([(t, t.split(), int(t[1])) for t in TEXTS], ["text", "words", "number"])
    assert (
        adapted(L.TextVectorization(), table.select("text")).get_vocabulary()
        == adapted(L.TextVectorization(), TEXTS).get_vocabulary()
    )
    words = adapted(L.StringLookup(output_mode="tf_idf"), table, feature_cols="words")
    split = adapted(L.StringLookup(output_mode="tf_idf"), np.array([t.split() for t in TEXTS]))
    assert words.get_vocabulary() == split.get_vocabulary()
    np.testing.assert_array_equal(words.idf_weights, split.idf_weights)
    numbers = adapted(L.IntegerLookup(), table, feature_cols=["number"])
    counted = collections.Counter(int(t[1]) for t in TEXTS)
    assert numbers.get_vocabulary()[1:] == sorted(counted, key=lambda n: (counted[n], n), reverse=True)
    with pytest.raises(DataError, match=r"columns \['text', 'words', 'number'\]; choose the one to adapt to"):
        L.TextVectorization().adapt(table)


def test_statistics_are_summed_on_the_executors(context, spark):
    rdd = context.parallelize(list(X), 5)
    table = spark.createDataFrame(X.tolist(), ["a", "b", "c"])
    want = adapted(L.Normalization(), X)
    for data in (rdd, table):
        got = adapted(L.Normalization(), data)
        np.testing.assert_allclose(got.mean, want.mean, rtol=1e-6)
        np.testing.assert_allclose(got.variance, want.variance, rtol=1e-6)
    bins = adapted(L.Discretization(num_bins=5), rdd).bin_boundaries
    assert bins == adapted(L.Discretization(num_bins=5), X).bin_boundaries
    with pytest.raises(DataError, match=r"rows of different shapes; expected numbers of one shape \(in partition 1\)"):
        L.Normalization().adapt(context.parallelize([[1.0], [2.0], [3.0], [4.0, 5.0]], 2))
    with pytest.raises(DataError, match="adapt\\(\\) got no rows"):
        L.Normalization().adapt(context.parallelize([], 2))


def test_a_feature_space_learns_all_its_columns_in_one_pass(context, spark):
    columns = {"a": X[:, 0].tolist(), "b": [t[:2] for t in TEXTS * 2], "c": X[:, 1].tolist()}
    rows = [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]
    features = {"a": "float_normalized", "b": "string_categorical", "c": "float_discretized"}
    want = ks.utils.FeatureSpace(features, num_discretization_bins=3)
    want.adapt(columns)
    whole = L.Discretization(num_bins=3)
    whole.adapt(X[:, 1])
    for data in (context.parallelize(rows, 3), spark.createDataFrame(rows)):
        got = ks.utils.FeatureSpace(features, num_discretization_bins=3)
        started = context.statusTracker().getJobIdsForGroup(None)
        got.adapt(data)
        jobs = set(context.statusTracker().getJobIdsForGroup(None)) - set(started)
        assert len(jobs) == 1
        assert got.preprocessors["b"].get_vocabulary() == want.preprocessors["b"].get_vocabulary()
        np.testing.assert_allclose(got.preprocessors["a"].mean, want.preprocessors["a"].mean, rtol=1e-5)
        assert got.preprocessors["c"].bin_boundaries == whole.bin_boundaries
        assert got({k: v[:4] for k, v in columns.items()}).shape == want({k: v[:4] for k, v in columns.items()}).shape


def test_a_model_of_text_is_trained_and_scored_on_rows_of_text(context, spark):
    vectorize = adapted(L.TextVectorization(output_sequence_length=5), TEXTS)
    layers = [vectorize, L.Embedding(vectorize.vocabulary_size(), 4), L.Flatten(), L.Dense(1, "sigmoid")]
    model = ks.Sequential([ks.Input((), dtype="string", name="text"), *layers])
    model.compile(ks.optimizers.SGD(0.1), "binary_crossentropy")
    start = model.get_weights()
    rows = context.parallelize(list(zip(TEXTS, LABELS, strict=True)), 2)
    model.fit(rows, batch_size=60, epochs=2, verbose=0)
    trained = model.get_weights()
    model.set_weights(start)
    ids = np.asarray(vectorize(TEXTS))
    on_ids = ks.Sequential([ks.Input((5,), dtype="int32"), *layers[1:]])
    on_ids.compile(ks.optimizers.SGD(0.1), "binary_crossentropy")
    on_ids.fit(ids, np.array(LABELS), batch_size=60, epochs=2, shuffle=False, verbose=0)
    for got, expected in zip(trained, on_ids.get_weights(), strict=True):
        np.testing.assert_allclose(got, expected, rtol=1e-5, atol=1e-6)
    want = on_ids.predict(ids, verbose=0)
    table = spark.createDataFrame(list(zip(TEXTS, LABELS, strict=True)), ["text", "label"])
    scored = model.predict(table)
    assert scored.columns == ["text", "label", "prediction"]
    found = {row.text: row.prediction[0] for row in scored.collect()}
    np.testing.assert_allclose([found[t] for t in TEXTS], want[:, 0], atol=1e-6)
    np.testing.assert_allclose(model.predict(rows.keys()).collect(), want, atol=1e-6)


def test_rows_of_no_fixed_length_are_refused_before_training(context):
    vectorize = L.TextVectorization(vocabulary=["a"], name="words")
    model = ks.Sequential([ks.Input((), dtype="string"), vectorize, L.Embedding(3, 2), L.GlobalAveragePooling1D()])
    with pytest.raises(
        DataError, match="layer 'words' gives rows of shape .* give the TextVectorization layer output_seq"
    ):
        model.predict(context.parallelize(["a"], 1))


def test_states_merge_in_any_grouping():
    whole, parts = Moments((-1,)), [Moments((-1,)) for _ in range(4)]
    whole.update(X)
    for part, rows in zip(parts, np.split(X, [0, 7, 50]), strict=True):
        part.update(rows)
    one = parts[0].merge(parts[1]).merge(parts[2].merge(parts[3]))
    np.testing.assert_allclose(one.mean, X.astype(np.float64).mean(0), rtol=1e-12)
    np.testing.assert_allclose(one.variance, whole.variance, rtol=1e-12)
    many = RANDOM.normal(size=3 * EXACT_VALUES).astype("float32")
    halves = [Quantiles(0.01) for _ in range(2)]
    for half, values in zip(halves, np.split(many, [EXACT_VALUES // 2]), strict=True):
        half.update(values)
    summary = halves[0].merge(halves[1]).result()
    ranks = [float((many <= v).mean()) for v in summary[0]]
    np.testing.assert_allclose(ranks, np.cumsum(summary[1]) / summary[1].sum(), atol=0.02)

"""Models on sparse rows, against Keras's Dense on the same rows made dense; SciPy, RDDs and DataFrames of them."""

import keras
import numpy as np
import pytest
import scipy.sparse
from kerasoft.compiler import rows
from kerasoft.runtime import AllReduce

import kerasoft as ks
from kerasoft.data import blocks
from kerasoft.errors import DataError, LayerError
from kerasoft.host import sparse
from kerasoft.host.sparse import SparseRows
from kerasoft.layers.preprocessing import feature_space
from kerasoft.training import trace

N, COLUMNS = 90, 40
_random = np.random.default_rng(5)


def _matrix(rows=N, columns=COLUMNS):
    counts = np.append(_random.integers(0, 9, rows - 2), [0, 12])  # an empty row, and one much fuller than the others
    ids = [_random.choice(columns, k, replace=False) for k in counts]
    dense = np.zeros((rows, columns), np.float32)
    for i, row in enumerate(ids):
        dense[i, row] = _random.normal(size=len(row))
    return scipy.sparse.csr_matrix(dense)


X = _matrix()
Y = _random.normal(size=(N, 1)).astype("float32")


@pytest.fixture(params=[10**9, 1], ids=["packed", "pieces"])
def in_pieces(request, monkeypatch):
    """Rows as they are, and cut into pieces."""
    monkeypatch.setattr(sparse, "PIECES_FROM", request.param)
    monkeypatch.setattr(sparse, "UNEVEN", 0)
    monkeypatch.setattr(sparse, "LEAST_WIDTH", 0)
    return request.param == 1


@pytest.fixture
def by_rows(monkeypatch):
    monkeypatch.setattr(rows, "LEAST_SIZE", 1)
    monkeypatch.setattr(rows, "ROWS_PER_LOOKUP", 0)


def network(k, sparse, optimizer="adam"):
    """Two layers on one input, joined with dense features of the rows' sums."""
    inputs = k.Input((COLUMNS,), name="features", **({"sparse": True} if sparse else {}))
    wide = k.layers.SparseDense if sparse else k.layers.Dense
    x = k.layers.Concatenate()(
        [wide(4, activation="tanh", name="a")(inputs), wide(2, use_bias=False, name="b")(inputs)]
    )
    model = k.Model(inputs, k.layers.Dense(1, name="label")(x))
    generator = np.random.default_rng(1)
    model.set_weights([generator.normal(size=w.shape).astype("float32") / 3 for w in model.get_weights()])
    model.compile(optimizer(k) if callable(optimizer) else optimizer, "mse")
    return model


OPTIMIZERS = {
    "adam": lambda k: k.optimizers.Adam(0.01),
    "momentum": lambda k: k.optimizers.SGD(k.optimizers.schedules.CosineDecay(0.05, 40), momentum=0.9),
}


@pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")  # Keras's own
@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_is_keras_on_dense_rows(by_rows, in_pieces, optimizer):
    here, there = network(ks, True, OPTIMIZERS[optimizer]), network(keras, False, OPTIMIZERS[optimizer])
    given = {"batch_size": 8, "epochs": 3, "shuffle": False, "verbose": 0}
    history = here.fit(X, Y, validation_split=0.2, **given).history
    wanted = there.fit(X.toarray(), Y, validation_split=0.2, **given).history
    for name, values in wanted.items():
        np.testing.assert_allclose(history[name], values, rtol=1e-5, atol=1e-6)
    for mine, theirs in zip(here.get_weights(), there.get_weights(), strict=True):
        np.testing.assert_allclose(mine, theirs, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(here.predict(X, verbose=0), there.predict(X.toarray(), verbose=0), atol=1e-6)
    np.testing.assert_allclose(here(X[:3]), there(X[:3].toarray()), atol=1e-6)


def test_large_kernel_is_updated_by_rows():
    columns = 1 << 18
    x = scipy.sparse.random(64, columns, density=5 / columns, format="csr", random_state=1, dtype=np.float32)
    model = ks.Sequential([ks.layers.SparseDense(2, kernel_initializer="zeros")])
    model.compile("adam", "mse")
    model.fit(x, np.ones((64, 2)), batch_size=16, epochs=2, verbose=0)
    text = str(model.explain(x[:16], np.ones((16, 2))))
    assert "by rows" in text, text
    kernel = model.get_weights()[0]
    assert set(np.flatnonzero(kernel.any(axis=1))) == set(x.indices)


def test_what_is_no_product_reads_a_dense_matrix(in_pieces, monkeypatch):
    inputs = ks.Input((COLUMNS,), sparse=True)
    assert inputs.sparse and ks.layers.Concatenate()([inputs, inputs]).sparse
    scaled = ks.layers.Rescaling(2.0)(inputs)
    both = ks.layers.Concatenate()([inputs, scaled, ks.layers.Dense(3)(inputs)])
    model = ks.Model(inputs, ks.layers.SparseDense(2)(both))
    np.testing.assert_allclose(model.predict(X, verbose=0), model(X.toarray()), atol=1e-5)
    monkeypatch.setattr(trace, "MOST_COLUMNS", COLUMNS - 1)
    other = ks.Model(inputs, ks.layers.Dense(2)(scaled))
    with pytest.raises(LayerError, match="sparse rows of 40 columns are read whole by 'multiply' of rescaling"):
        other.predict(X, verbose=0)


def test_batches_of_any_width(by_rows):
    """Generators, subclassed models, rows of one number; equal to arrays."""

    class Net(ks.Model):
        def __init__(self):
            super().__init__()
            self.inner = ks.layers.SparseDense(1, kernel_initializer="ones")

        def call(self, x):
            return self.inner(x)

    model, other = Net(), Net()
    for m, data in ((model, X), (other, X.toarray())):
        m.compile("sgd", "mse")
        m.fit(((data[i : i + 9], Y[i : i + 9]) for i in range(0, N, 9)), verbose=0)
    np.testing.assert_allclose(model.get_weights()[0], other.get_weights()[0], atol=1e-6)


def test_packed_rows():
    packed = SparseRows.of(X).packed()
    assert packed.shape == (N, 2, 12) and packed.dtype == np.int32
    dense = np.zeros(X.shape, np.float32)
    np.add.at(dense, (np.arange(N)[:, None], packed[:, 0]), packed[:, 1].view(np.float32))
    np.testing.assert_array_equal(dense, X.toarray())
    padded = packed[:, 0][packed[:, 1] == 0]
    assert set(padded) <= {0, *X.indices}  # padding reads no row that the batch does not read
    np.testing.assert_array_equal(SparseRows.of(X.toarray()).packed(), SparseRows.of(X.tocsc()).packed())


def test_rows_in_pieces(monkeypatch):
    assert SparseRows.of(X).piece_width() is None  # too few rows to care
    counts, pieces = SparseRows.of(X).in_pieces(4).cut(np.arange(N)[::-1])
    assert counts.sum() <= len(pieces) <= counts.sum() + N // 4 and pieces.shape[1:] == (2, 4)
    dense = np.zeros(X.shape, np.float32)
    owner = np.minimum(np.repeat(np.arange(N + 1), np.append(counts, len(pieces) - counts.sum())), N - 1)
    np.add.at(dense, (owner[:, None], pieces[:, 0]), pieces[:, 1].view(np.float32))
    np.testing.assert_array_equal(dense, X.toarray()[::-1])


MISTAKES = [
    (lambda: ks.Input((3, 4), sparse=True), ValueError, "needs rows of one known size, float32 and not optional"),
    (lambda: ks.Input((4,), dtype="int32", sparse=True), ValueError, r"Input\(shape=\(n,\), sparse=True\)"),
    (lambda: network(ks, True).predict(X[:, :7], verbose=0), DataError, r"needs shape \(None, 40\), got \(None, 7\)"),
    (lambda: network(ks, True).fit(X * np.inf, Y, verbose=0), DataError, "input 'features' holds .* in row .*, column"),
    (lambda: network(ks, False).fit(X, Y[:3], verbose=0), DataError, "cardinality is ambiguous"),
]


@pytest.mark.filterwarnings("ignore:invalid value:RuntimeWarning")
@pytest.mark.parametrize("call, kind, text", MISTAKES)
def test_mistakes(call, kind, text):
    with pytest.raises(kind, match=text):
        call()


# --- Spark ------------------------------------------------------------------------------------------------------------


def _vectors(dense_too=False):
    from pyspark.ml.linalg import Vectors

    rows = [X[i] for i in range(N)]
    made = [Vectors.sparse(COLUMNS, r.indices.tolist(), r.data.tolist()) for r in rows]
    return [Vectors.dense(v.toArray()) if dense_too and i % 5 == 0 else v for i, v in enumerate(made)]


def _data(spark, kind):
    if kind == "dataframe":
        rows = zip(_vectors(dense_too=True), Y[:, 0].tolist())
        return spark.createDataFrame(rows, ["features", "label"]).repartition(2)
    rows = [X[i] for i in range(N)] if kind == "scipy" else _vectors()
    return spark.sparkContext.parallelize(list(zip(rows, Y)), 3)


def _packed_records(spark):
    """Records as a fit makes them, in two partitions."""
    halves = [
        (0, 0, {"x/features": SparseRows.of(X[: N // 2]).packed()}),
        (1, 0, {"x/features": SparseRows.of(X[N // 2 :]).packed()}),
    ]
    return spark.sparkContext.parallelize(halves, 2)


@pytest.mark.spark
def test_rdds_and_dataframes_equal_one_process(spark, monkeypatch):
    data = {kind: _data(spark, kind) for kind in ("vectors", "scipy", "dataframe")}
    given = {"batch_size": N, "epochs": 2, "verbose": 0}
    here, there = network(ks, True), network(ks, True)
    wanted = here.fit(X, Y, **given).history["loss"]
    strategy = AllReduce(workers=2)
    found = there.fit(data["dataframe"], validation_data=data["scipy"], strategy=strategy, **given).history
    np.testing.assert_allclose(found["loss"], wanted, rtol=1e-5)
    for mine, theirs in zip(here.get_weights(), there.get_weights(), strict=True):
        np.testing.assert_allclose(mine, theirs, rtol=1e-5, atol=1e-6)
    assert there.evaluate(data["vectors"], verbose=0) == pytest.approx(found["val_loss"][-1], rel=1e-5)
    scored = there.predict(data["dataframe"]).collect()
    x, p = (np.array(part, np.float32) for part in zip(*((r.features.toArray(), r.prediction) for r in scored)))
    np.testing.assert_allclose(p, there.predict(x, verbose=0), atol=1e-6)
    p = np.array(there.predict(data["scipy"]).collect())
    np.testing.assert_allclose(p, there.predict(X, verbose=0), atol=1e-6)
    monkeypatch.setattr(blocks, "MANY_BYTES", 0)
    monkeypatch.setattr(blocks, "WASTEFUL", 2)
    with pytest.warns(UserWarning, match="'features' hold 3.7 numbers on the average, the fullest 12, and each takes"):
        blocks.widest_rows(_packed_records(spark), ["x/features"])
    bad = spark.sparkContext.parallelize([(X[0], Y[0]), (X[0, :7], Y[0])], 1)
    with pytest.raises(DataError, match="input 'features' is a vector of size 7; expected 40 .row 1 of partition 0"):
        there.evaluate(bad, verbose=0)


# --- wide columns -----------------------------------------------------------------------------------------------------


def _raw():
    jobs, ages = _random.choice(["clerk", "cook", "judge"], N), _random.normal(size=(N, 1)).astype("float32")
    towns, codes = _random.integers(0, 900, N), _random.integers(0, 9, (N, 4))
    texts = [" ".join(_random.choice(["a", "b", "c"], 4)) for _ in range(N)]
    return {"job": jobs.astype(object), "town": towns, "age": ages, "codes": codes, "text": np.array(texts, object)}


def wide_and_deep(sparse):
    """Every layer that makes sparse rows, side by side with a dense column; and a deep part."""
    L = ks.layers
    kinds = {
        "job": ((), "string"),
        "town": ((1,), "int64"),
        "age": ((1,), None),
        "codes": ((4,), "int32"),
        "text": ((1,), "string"),
    }
    given = {name: ks.Input(shape, dtype=dtype, name=name) for name, (shape, dtype) in kinds.items()}
    one_hot = {"output_mode": "one_hot", "sparse": sparse}
    wide = L.Concatenate()(
        [
            L.StringLookup(vocabulary=["cook", "judge"], **one_hot)(given["job"]),
            L.Hashing(70, **one_hot)(given["town"]),
            given["age"],
            L.HashedCrossing(70_000, **one_hot)([given["text"], given["town"]]),
            L.IntegerLookup(vocabulary=[3, 5, 7], output_mode="count", sparse=sparse)(given["town"]),
            L.CategoryEncoding(8, output_mode="multi_hot", sparse=sparse)(ks.ops.minimum(given["codes"], 7)),
            L.TextVectorization(vocabulary=["a", "b"], output_mode="tf_idf", idf_weights=[0.5, 2.0], sparse=sparse)(
                given["text"]
            ),
        ]
    )
    deep = L.Dense(3, activation="relu")(given["age"])
    logit = L.Add()([(L.SparseDense if sparse else L.Dense)(1)(wide), L.Dense(1)(deep)])
    model = ks.Model(given, L.Activation("sigmoid", name="label")(logit))
    generator = np.random.default_rng(1)
    model.set_weights([generator.normal(size=w.shape).astype("float32") / 9 for w in model.get_weights()])
    model.compile(ks.optimizers.Adam(0.01), "binary_crossentropy")
    return model


def test_wide_columns_equal_dense_ones(by_rows, in_pieces, tmp_path):
    x, y = _raw(), (Y > 0).astype("float32")
    here, there = wide_and_deep(True), wide_and_deep(False)
    for model in (here, there):
        model.fit(x, y, batch_size=16, epochs=2, shuffle=False, verbose=0)
    for mine, theirs in zip(here.get_weights(), there.get_weights(), strict=True):
        np.testing.assert_allclose(mine, theirs, rtol=1e-5, atol=1e-6)
    here.save(tmp_path / "wide.keras")
    again = ks.models.load_model(tmp_path / "wide.keras")
    np.testing.assert_allclose(again.predict(x, verbose=0), there.predict(x, verbose=0), atol=1e-6)


def test_crosses_of_a_feature_space(by_rows, monkeypatch):
    x, y = {k: v for k, v in _raw().items() if k in ("job", "town")}, (Y > 0).astype("float32")
    found = []
    for least in (1, 10**9):
        monkeypatch.setattr(feature_space, "SPARSE_FROM", least)
        FS = ks.utils.FeatureSpace
        crosses = [FS.cross(("job", "town"), crossing_dim=3000)]
        space = FS({"job": "string_categorical", "town": FS.integer_hashed(num_bins=50)}, "concat", crosses)
        space.adapt([x])
        encoded = space.get_encoded_features()
        assert encoded.sparse == (least == 1)
        model = ks.Model(
            space.get_inputs(), ks.layers.Dense(1, activation="sigmoid", kernel_initializer="zeros")(encoded)
        )
        model.compile("adam", "binary_crossentropy")
        model.fit(x, y, batch_size=16, epochs=2, shuffle=False, verbose=0)
        found.append(model.get_weights())
    for sparse_one, dense_one in zip(*found, strict=True):
        np.testing.assert_allclose(sparse_one, dense_one, rtol=1e-5, atol=1e-6)


@pytest.mark.spark
def test_wide_columns_of_a_dataframe_and_an_rdd(spark):
    x, y = _raw(), (Y > 0).astype("float32")
    rows = [
        {
            k: (v[i].tolist() if k in ("codes", "age") else v[i].item() if k == "town" else str(v[i]))
            for k, v in x.items()
        }
        for i in range(N)
    ]
    model, other = wide_and_deep(True), wide_and_deep(True)
    model.fit(x, y, batch_size=N, verbose=0)
    frame = spark.createDataFrame([{**row, "label": float(t[0])} for row, t in zip(rows, y)]).repartition(2)
    other.fit(frame, batch_size=N, verbose=0, strategy=AllReduce(workers=2))
    for mine, theirs in zip(model.get_weights(), other.get_weights(), strict=True):
        np.testing.assert_allclose(mine, theirs, rtol=1e-5, atol=1e-6)
    scored = other.predict(spark.sparkContext.parallelize(rows, 2)).collect()
    np.testing.assert_allclose(scored, other.predict(x, verbose=0), atol=1e-6)

"""Layers of raw columns against Keras: lookups, text, hashing, bins, statistics; arrays in, arrays out.

What Keras gives stands in `preprocessing_values.json`, because its string layers need TensorFlow, which is no dependency
of the tests. To make the file again, in an environment with Keras 3.15 and TensorFlow:
`KERAS_BACKEND=jax python tests/layers/test_preprocessing_layers.py`.
"""

import importlib
import json
import pathlib

import numpy as np

VALUES = pathlib.Path(__file__).parent / "preprocessing_values.json"
WORDS = ["", "a", "ab", "abc", "abcd", "abcdefg", "abcdefgh", "hello world", "x" * 16, "x" * 17, "y" * 32, "z" * 33, "w" * 64,
         "v" * 65, "u" * 128, "t" * 129, "long " * 60, "é ü 漢字"]  # fmt: skip
TEXTS = [
    "The cat sat; the cat ran!",
    "a dog. A DOG?  ran",
    "",
    "Él niño\tate\u00a0the cat's  food",
    "the-end of the dog",
]
TOKENS = ["b", "a", "c", "b", "a", "d", "é", "Z", "b"]
NUMBERS = [5, 3, 3, -7, 5, 8, 100, 5]
MATRIX = np.array([["a", "b", "q"], ["c", "a", "a"]])
X = np.random.default_rng(0).normal(2.0, 3.0, (7, 4, 3)).astype("float32")

CASES = {}


def case(function):
    CASES[function.__name__] = function
    return function


def adapted(layer, data, **options):
    layer.adapt(data, **options)
    return layer


def encodings(make, *inputs):
    """The results of every output mode, with static shapes and the config."""
    found = {}
    for mode in ("int", "one_hot", "multi_hot", "count"):
        layer = make(output_mode=mode)
        found[mode] = [layer(x) for x in inputs]
        found[f"{mode} shapes"] = [layer.compute_output_shape(s) for s in ((None, 3), (None, 1), (4, None))]
        found[f"{mode} config"] = config(layer)
    return found


def config(layer):
    return {k: v for k, v in layer.get_config().items() if k not in ("name", "dtype")}


@case
def string_lookup(L):
    return encodings(
        lambda **o: L.StringLookup(vocabulary=["a", "b", "c"], **o),
        ["a", "q", "b"], MATRIX, MATRIX[:, :1], np.array(["a", b"b"], object), np.array([b"c", b"q"]), "b", np.array("c"),
        MATRIX[:, :, None],
    )  # fmt: skip


@case
def string_lookup_with_mask_and_several_oov(L):
    def make(**o):
        return L.StringLookup(vocabulary=["a", "b", "c"], num_oov_indices=3, mask_token="", **o)

    return [encodings(make, ["a", "", "q", "w", "e", "r", "t"]), make().get_vocabulary(), make().vocabulary_size(),
            make(output_mode="count").get_vocabulary(), make(salt=[3, 4])(WORDS), make()(WORDS),
            make().get_vocabulary(include_special_tokens=False)]  # fmt: skip


@case
def string_lookup_adapted(L):
    first = adapted(L.StringLookup(), TOKENS)
    few = adapted(L.StringLookup(max_tokens=4, mask_token="c"), np.array(TOKENS))
    batches = adapted(L.StringLookup(), (np.array(b) for b in (TOKENS[:3], TOKENS[3:7], TOKENS[7:])), steps=2)
    square = adapted(L.StringLookup(num_oov_indices=2, oov_token="a"), np.array(TOKENS).reshape(3, 3))
    by_hand = L.StringLookup()
    by_hand.update_state(np.array(["x", "y", "x"]))
    by_hand.update_state(np.array([["z", "z"], ["z", "x"]]))
    by_hand.finalize_state()
    layers = (first, few, batches, square, by_hand)
    return [[x.get_vocabulary() for x in layers], [x(TOKENS) for x in layers], [config(x) for x in layers]]


@case
def string_lookup_tf_idf(L):
    given = L.StringLookup(vocabulary=["a", "b", "c"], idf_weights=[0.5, 1.5, 2.5], output_mode="tf_idf")
    special = L.StringLookup(vocabulary=["[UNK]", "a"], idf_weights=[0.25, 0.5], output_mode="tf_idf", max_tokens=4,
                             pad_to_max_tokens=True)  # fmt: skip
    found = adapted(L.StringLookup(output_mode="tf_idf"), MATRIX)
    flat = adapted(L.StringLookup(output_mode="tf_idf", max_tokens=6, pad_to_max_tokens=True), TOKENS)
    return [
        [x(MATRIX) for x in (given, special, found, flat)],
        found.get_vocabulary(),
        [config(x) for x in (given, flat)],
    ]


@case
def string_lookup_set_vocabulary(L):
    layer = L.StringLookup(mask_token="m")
    layer.set_vocabulary(["m", "[UNK]", "x", "y"])
    first = layer(["x", "y", "m", "q"])
    layer.set_vocabulary(np.array(["y", "x", "w"]))
    return [first, layer(["x", "y", "m", "q"]), layer.get_vocabulary(), config(layer)]


@case
def integer_lookup(L):
    return encodings(
        lambda **o: L.IntegerLookup(vocabulary=[3, 7, -9], **o),
        [3, 7, 1], np.array([[-9, 7, 3], [1, 2, 3]]), np.array([[3], [4]], "int32"), np.int64(7),
    )  # fmt: skip


@case
def integer_lookup_options(L):
    several = L.IntegerLookup(vocabulary=[3, 7, 9], num_oov_indices=3)
    farm = L.IntegerLookup(vocabulary=np.array([3, 7, 9]), num_oov_indices=3, oov_method="farmhash")
    salted = L.IntegerLookup(vocabulary=(3, 7, 9), num_oov_indices=3, oov_method="farmhash", salt=7)
    masked = L.IntegerLookup(vocabulary=[3, 7, 9], mask_token=0)
    inverse = L.IntegerLookup(vocabulary=[3, 7, 9], mask_token=0, invert=True)
    x = [0, 3, 7, 1, 2, -5, 100, 9]
    return [
        [layer(x) for layer in (several, farm, salted, masked)], inverse([0, 1, 2, 3, 4, 5]), masked.get_vocabulary(),
        [config(x) for x in (several, farm, salted, masked, inverse)],
    ]  # fmt: skip


@case
def integer_lookup_adapted(L):
    layers = (
        adapted(L.IntegerLookup(), NUMBERS), adapted(L.IntegerLookup(max_tokens=3), np.array(NUMBERS)[:, None]),
        adapted(L.IntegerLookup(mask_token=3, oov_token=5, num_oov_indices=2), NUMBERS),
        adapted(L.IntegerLookup(output_mode="tf_idf"), np.array(NUMBERS).reshape(4, 2)),
    )  # fmt: skip
    return [[x.get_vocabulary() for x in layers], [x(NUMBERS) for x in layers]]


@case
def text_vectorization(L):
    layers = (
        adapted(L.TextVectorization(), TEXTS),
        adapted(L.TextVectorization(max_tokens=6, output_sequence_length=4), np.array(TEXTS)[:, None]),
        adapted(L.TextVectorization(standardize="lower", ngrams=2), TEXTS),
        adapted(L.TextVectorization(standardize="strip_punctuation", ngrams=(1, 3)), TEXTS),
        adapted(L.TextVectorization(standardize=None, split="character", output_sequence_length=9), TEXTS),
        adapted(L.TextVectorization(standardize=None, split=None), TEXTS),
        adapted(L.TextVectorization(standardize=np.char.upper), TEXTS),
        adapted(L.TextVectorization(), (np.array(t) for t in (TEXTS[:2], TEXTS[2:]))),
    )
    return [
        [x.get_vocabulary() for x in layers], [x(TEXTS) for x in layers[:5]], [x(np.array(TEXTS)[:, None]) for x in layers[:6]],
        [x("the dog") for x in layers[:5]], [config(x) for x in layers[:6]], [x.compute_output_shape((None, 1)) for x in layers],
    ]  # fmt: skip


@case
def text_vectorization_encoded(L):
    layers = [
        adapted(L.TextVectorization(output_mode=mode, **options), TEXTS)
        for mode in ("multi_hot", "count", "tf_idf")
        for options in ({}, {"max_tokens": 6}, {"max_tokens": 30, "pad_to_max_tokens": True}, {"ngrams": 2})
    ]
    given = L.TextVectorization(vocabulary=["a", "b"], idf_weights=[0.5, 2.0], output_mode="tf_idf")
    return [
        [x(TEXTS) for x in layers], [x.get_vocabulary() for x in layers], [x.compute_output_shape((None,)) for x in layers],
        given(["a b a c"]), config(given),
    ]  # fmt: skip


@case
def hashing(L):
    return [
        encodings(lambda **o: L.Hashing(4, **o), ["a", "b", "c"], MATRIX, MATRIX[:, :1], np.array([[1, 2], [3, 4]])),
        L.Hashing(1000)(WORDS), L.Hashing(1000, salt=[133, 137])(WORDS), L.Hashing(10**6, salt=5)(np.array([1, -1, 0])),
        L.Hashing(1000)(np.array([0, 1, -1, 12345678901])), L.Hashing(1000)(np.array([0.5, 1.9, -1.5])),
        L.Hashing(5, mask_value="")(WORDS), L.Hashing(5, mask_value=3)(np.array([[3], [4], [5]])), L.Hashing(7)("a"),
    ]  # fmt: skip


@case
def hashed_crossing(L):
    words, numbers = np.array(["A", "B", "A", "C"]), np.array([101, 102, -3, 5])
    layer, one_hot = L.HashedCrossing(1000), L.HashedCrossing(5, output_mode="one_hot")
    return [
        layer((words, numbers)), layer([words[:, None], numbers[:, None], words[::-1][:, None]]), layer(("A", 101)),
        one_hot((words, numbers)), one_hot((words[:, None], numbers[:, None])), one_hot(("A", 101)), layer((numbers, numbers)),
        [config(x) for x in (layer, one_hot)], one_hot.compute_output_shape(((None, 1), (None, 1))),
    ]  # fmt: skip


@case
def category_encoding(L):
    ids = np.array([[0, 2, 2], [1, 9, 0]])
    found = {}
    for mode in ("one_hot", "multi_hot", "count"):
        layer = L.CategoryEncoding(4, output_mode=mode)
        found[mode] = [layer(x) for x in (ids, ids[:, :1], ids[0], ids[:, :, None], np.int32(2), [[3, 1]])]
        found[f"{mode} more"] = [
            config(layer),
            [layer.compute_output_shape(s) for s in ((None, 3), (None, 1), (3,), (1,), ())],
        ]
    weights = np.array([[0.1, 0.2, 0.3], [1.0, 2.0, 3.0]])
    return [
        found,
        L.CategoryEncoding(4, "count")(ids, count_weights=weights),
        L.CategoryEncoding(2, "binary", dtype="int32")([0]),
    ]


@case
def discretization(L):
    return [
        encodings(lambda **o: L.Discretization([-1.0, 0.5, 4.0], **o), X[:, 0], X[:, 0, :1], X[0, 0], X[:2], np.array([[0, 4, 5]])),
        L.Discretization([0.0, 1.0])([-1.0, 0.0, 1.0]),
    ]  # fmt: skip


@case
def discretization_adapted(L):
    many = np.random.default_rng(1).normal(size=5000).astype("float32")
    layers = (
        adapted(L.Discretization(num_bins=4, epsilon=0.01), np.array([[-1.5, 1.0, 3.4, 0.5], [0.0, 3.0, 1.3, 0.0]])),
        adapted(L.Discretization(num_bins=5), many), adapted(L.Discretization(num_bins=10, epsilon=0.05), many[:777]),
        adapted(L.Discretization(num_bins=6), list(many.reshape(5, 1000))),
        adapted(L.Discretization(num_bins=6), iter(many.reshape(5, 1000)), steps=3),
    )  # fmt: skip
    return [[x.bin_boundaries for x in layers], [x(X[:, 0]) for x in layers], config(layers[0])]


@case
def normalization(L):
    layers = [
        adapted(L.Normalization(axis=axis), X) for axis in (-1, 1, (1, 2), None, (-1, 1))
    ] + [
        adapted(L.Normalization(), [X[:3], X[3:]]), adapted(L.Normalization(invert=True), X), L.Normalization(mean=2.0, variance=4.0),
        L.Normalization(axis=(1, 2), mean=[1.0, 2.0, 3.0], variance=[4.0, 5.0, 0.0]),
        L.Normalization(axis=None, mean=1.0, variance=3.0, invert=True), L.Normalization(),
    ]  # fmt: skip
    results = [x(X) for x in layers]
    flat = adapted(L.Normalization(), X[:, 0])
    return [
        results, [x.get_weights() for x in layers], [config(x) for x in layers], [x.mean for x in layers[:9]], flat([[1, 2, 3]]),
        [[w.path.rpartition("/")[2] for w in x.weights] for x in layers[:1]], layers[0].get_build_config(),
    ]  # fmt: skip


@case
def feature_space(L):
    space = importlib.import_module(L.__name__.split(".")[0]).utils.FeatureSpace
    columns = {
        "f": [1.0, 2.0, 3.0, 4.0], "n": [1.0, 5.0, 2.0, 9.0], "r": [0.0, 1.0, 2.0, 3.0], "d": [0.1, 0.5, 0.9, 0.3],
        "ic": [3, 3, 5, 7], "sc": ["a", "b", "a", "c"], "sh": ["q", "w", "e", "r"], "ih": [10, 20, 30, 40],
    }  # fmt: skip
    features = {
        "f": "float", "n": "float_normalized", "r": space.float_rescaled(scale=2.0, offset=1.0),
        "d": space.float_discretized(3), "ic": space.integer_categorical(max_tokens=3, num_oov_indices=2, output_mode="int"),
        "sc": "string_categorical", "sh": space.string_hashed(5), "ih": "integer_hashed",
    }  # fmt: skip
    crosses = [("sc", "ic"), space.cross(("sh", "d"), 6, output_mode="int")]
    as_dict = space(features, crosses=crosses, crossing_dim=8, output_mode="dict")
    as_dict.adapt(columns)
    joined = space({"sc": "string_categorical", "d": "float_discretized", "n": "float"},
                   crosses=[["sc", "d"]], crossing_dim=4, num_discretization_bins=2)  # fmt: skip
    joined.adapt(columns)
    few = {k: np.array(v)[:2] for k, v in columns.items()}
    one = {k: v[1] for k, v in columns.items()}
    return [
        as_dict(few), as_dict(one), joined({k: few[k] for k in ("sc", "d", "n")}), joined({k: one[k] for k in ("sc", "d", "n")}),
        {k: [list(x.shape), x.dtype, x.name] for k, x in as_dict.get_inputs().items()},
        {k: [list(x.shape), x.dtype] for k, x in as_dict.get_encoded_features().items()}, list(joined.get_encoded_features().shape),
    ]  # fmt: skip


def plain(value):
    """JSON of results: arrays as lists with their dtype."""
    if isinstance(value, dict):
        return {k: plain(v) for k, v in value.items()}
    if isinstance(value, np.generic):
        return value.item()
    if hasattr(value, "dtype") and hasattr(value, "shape"):
        array = np.asarray(value)
        return {"dtype": array.dtype.name, "values": array.tolist()}
    return [plain(v) for v in value] if isinstance(value, (list, tuple)) else value


def differences(got, want, path=""):
    """Where two results differ, numbers to 1e-5."""
    if isinstance(want, dict) and isinstance(got, dict):
        if set(got) != set(want):
            return [f"{path}: keys {sorted(set(got) ^ set(want))}"]
        return [d for k in want for d in differences(got[k], want[k], f"{path}.{k}")]
    if isinstance(want, list) and isinstance(got, list):
        if len(got) != len(want):
            return [f"{path}: {got} != {want}"]
        return [d for i, (a, b) in enumerate(zip(got, want, strict=True)) for d in differences(a, b, f"{path}[{i}]")]
    both = isinstance(got, (int, float)) and isinstance(want, (int, float))
    same = np.isclose(got, want, rtol=1e-5, atol=1e-5) if both else got == want
    return [] if same and type(got) is type(want) else [f"{path}: {got!r} != {want!r}"]


if __name__ == "__main__":
    import keras

    VALUES.write_text(json.dumps({name: plain(make(keras.layers)) for name, make in CASES.items()}))
else:
    import pytest

    from kerasoft import layers, utils

    EXPECTED = json.loads(VALUES.read_text())
    COVERED = {"CategoryEncoding", "Discretization", "HashedCrossing", "Hashing", "IntegerLookup", "Normalization",
               "StringLookup", "TextVectorization"}  # fmt: skip

    @pytest.mark.parametrize("name", list(CASES))
    def test_layer_is_keras_layer(name):
        found = differences(plain(CASES[name](layers)), EXPECTED[name])
        assert not found, "\n".join(found[:20])

    def test_a_feature_space_learns_from_rows_and_batches():
        columns = {"a": [1.0, 3.0, 8.0], "s": ["x", "y", "x"]}
        found = []
        for data in (
            columns,
            [{"a": a, "s": s} for a, s in zip(*columns.values(), strict=True)],
            [({"a": columns["a"][:2], "s": columns["s"][:2]}, 0), ({"a": columns["a"][2:], "s": columns["s"][2:]}, 0)],
        ):
            space = utils.FeatureSpace({"a": "float_normalized", "s": "string_categorical"})
            space.adapt(data)
            found.append(np.asarray(space({"a": [2.0], "s": ["y"]})))
        np.testing.assert_allclose(found, [found[0]] * 3, rtol=1e-6)
        with pytest.raises(
            ValueError, match="called on a dict of arrays/lists, an iterable of them, a DataFrame or an RDD"
        ):
            space.adapt(3)

    def test_every_layer_has_a_case():
        named = {n for n in COVERED for c in CASES if n.lower() in c.replace("_", "")}
        assert named == COVERED

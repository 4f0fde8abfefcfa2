"""What the layers of raw columns say about wrong arguments, vocabularies and data."""

import numpy as np
import pytest

from kerasoft import layers as L

CASES = [
    (lambda: L.StringLookup(max_tokens=1), "`max_tokens` must be greater than 1. Received: max_tokens=1"),
    (lambda: L.StringLookup(pad_to_max_tokens=True), "If pad_to_max_tokens is True, must set `max_tokens`"),
    (lambda: L.StringLookup(num_oov_indices=-1), "must be greater than or equal to 0. Received: num_oov_indices=-1"),
    (lambda: L.StringLookup(output_mode="hot"), "Unknown value for `output_mode` argument of StringLookup. Allowed values"),
    (lambda: L.StringLookup(sparse=True), "`sparse` may only be true if `output_mode` is"),
    (lambda: L.HashedCrossing(3, sparse=True), "`sparse` may only be true if `output_mode` is `'one_hot'`"),
    (lambda: L.StringLookup(invert=True, output_mode="count"), "`output_mode` must be `'int'` when `invert` is true"),
    (lambda: L.StringLookup(vocabulary=["a"], output_mode="tf_idf"), "the `idf_weights` argument must also be provided"),
    (lambda: L.StringLookup(idf_weights=[1.0]), "`idf_weights` should only be set if `output_mode` is `'tf_idf'`"),
    (lambda: L.StringLookup(words=3), "Unrecognized keyword argument(s): {'words': 3}"),
    (lambda: L.StringLookup(vocabulary=["a", "b", "a"]), "at least one repeated term. Please uniquify your dataset. The "
     "repeated terms are: ['a']"),
    (lambda: L.StringLookup(vocabulary=[]), "Cannot set an empty vocabulary"),
    (lambda: L.StringLookup(vocabulary=["a", "m"], mask_token="m"), "Found reserved mask token at unexpected location"),
    (lambda: L.StringLookup(vocabulary=["a", "[UNK]"], invert=True), "Found reserved OOV token at unexpected location"),
    (lambda: L.StringLookup(vocabulary=["a", "b"], max_tokens=2), "Received vocabulary size is 3; `max_tokens` is 2"),
    (lambda: L.StringLookup(vocabulary=["a"], num_oov_indices=0)(["a", "q"]), "all inputs should be in vocabulary, found OOV "
     "values ['q'], consider setting `num_oov_indices=1`"),
    (lambda: L.StringLookup(vocabulary=["a"], name="s")([1, 2]), "StringLookup 's' holds int64 values; expected strings"),
    (lambda: L.StringLookup(name="s").adapt(["a", None]), "StringLookup 's' holds None (NoneType); expected strings. Fill"),
    (lambda: L.StringLookup(vocabulary=["a"], name="s").adapt(["b"]), "Cannot adapt layer 's' after setting a static "
     "vocabulary"),
    (lambda: L.StringLookup(output_mode="count")(["a"]), "you must set the layer's vocabulary before calling it"),
    (lambda: L.IntegerLookup(vocabulary=[1], name="i")(["x"]), "IntegerLookup 'i' holds ['x']; expected whole numbers"),
    (lambda: L.IntegerLookup(vocabulary_dtype="int32"), "Only `vocabulary_dtype='int64'` is supported"),
    (lambda: L.IntegerLookup(salt=3), "`salt` can only be used when `oov_method='farmhash'`"),
    (lambda: L.TextVectorization(standardize="upper"), "Unknown value for `standardize` argument of TextVectorization"),
    (lambda: L.TextVectorization(split="comma"), "Unknown value for `split` argument of TextVectorization"),
    (lambda: L.TextVectorization(ngrams=[1]), "`ngrams` must be None, an integer, or a tuple of integers. Received: ngrams=[1]"),
    (lambda: L.TextVectorization(ragged=True), "`ragged=True` can only be used with the TensorFlow backend"),
    (lambda: L.TextVectorization(output_mode="count", output_sequence_length=3), "must not be set if `output_mode` is not 'int'"),
    (lambda: L.TextVectorization(vocabulary=["a"])([["a", "b"]]), "the input rank must be 1 or the last shape dimension must "
     "be 1. Received: inputs.shape=(1, 2)"),
    (lambda: L.Hashing(0), "`num_bins` for `Hashing` cannot be `None` or non-positive values. Received: num_bins=0"),
    (lambda: L.Hashing(3, salt="s"), "can only be a tuple of size 2 integers, or a single integer. Received: salt=s"),
    (lambda: L.Hashing(3, output_mode="tf_idf"), "Invalid value for argument `output_mode`"),
    (lambda: L.Hashing(3, dtype="float32"), "`dtype` should be an integer type"),
    (lambda: L.HashedCrossing(3)(np.array(["a"])), "should be called on a list or tuple of inputs"),
    (lambda: L.HashedCrossing(3)([["a"]]), "should be called on at least two inputs"),
    (lambda: L.HashedCrossing(3)((["a"], [0.5])), "should have an integer or string dtype. Received: dtypes ['object', 'float64']"),
    (lambda: L.HashedCrossing(3)((["a"], ["a", "b"])), "should have equal shape. Received: shapes [(1,), (2,)]"),
    (lambda: L.Normalization(mean=1.0), "both `mean` and `variance` must be set"),
    (lambda: L.Normalization(axis=3).build((None, 2)), "All `axis` values must be in the range [-ndim, ndim)"),
    (lambda: L.Normalization().build((None, None)), "must have a known shape. Received axis=(-1,)"),
    (lambda: L.Normalization().adapt([]), "adapt() received an empty iterable (no batches)"),
    (lambda: L.Discretization(), "You need to set either `num_bins` or `bin_boundaries`"),
    (lambda: L.Discretization(num_bins=3)([1.0]), "either pass the `bin_boundaries` argument at construction time or call `adapt"),
    (lambda: L.Discretization([1.0]).adapt([2.0]), "Cannot adapt a Discretization layer that has been initialized with"),
    (lambda: L.CategoryEncoding(), "num_tokens must be set to use this layer"),
    (lambda: L.CategoryEncoding(3)([1], count_weights=[1.0]), "`count_weights` is not used when `output_mode` is not `'count'`"),
]  # fmt: skip


@pytest.mark.parametrize("number", range(len(CASES)))
def test_errors(number):
    make, text = CASES[number]
    with pytest.raises((ValueError, RuntimeError)) as error:
        make()
    assert text in str(error.value)

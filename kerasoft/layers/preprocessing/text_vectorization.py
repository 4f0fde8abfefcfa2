"""TextVectorization: texts to rows of token indices, or to encoded rows."""

from __future__ import annotations

import functools
from typing import Any

from ... import dtypes
from ...data.kinds import is_spark
from ...host.lookup import as_texts
from ...host.sparse import encoded_rows
from ...host.text import Tokenizer, Vectorizer, count_texts
from ...tensors import KerasTensor
from .adapting import batches_of, is_array, spark_state
from .host_layer import HostLayer, as_host, one_of
from .index_lookup import MODES, OLD_MODES
from .string_lookup import StringLookup


class TextVectorization(HostLayer):
    """Standardizes texts, splits them into tokens, joins these to n-grams, and looks them up.

    Shapes: (batch,) or (batch, 1) -> (batch, length) for mode ``int``, else (batch, tokens).

    Args:
        max_tokens: size of the vocabulary at most, padding and unknown included.
        standardize: None, ``lower``, ``strip_punctuation``, ``lower_and_strip_punctuation``, or a function of a NumPy
            array of str.
        split: None, ``whitespace``, ``character``, or a function from an array of str to lists of str.
        ngrams: the largest size of n-grams, or a tuple of sizes.
        output_mode: ``int``, ``one_hot``, ``multi_hot``, ``count`` or ``tf_idf``.
        output_sequence_length: cuts and pads rows of mode ``int``; None pads to the longest.
        pad_to_max_tokens: whether encoded rows have `max_tokens` columns whatever the vocabulary's size.
        vocabulary, idf_weights: as StringLookup's.
        sparse: in a model, encoded results are sparse rows, for SparseDense; in calls on arrays they are dense.
        ragged: must be False.

    >>> import kerasoft as ks
    >>> layer = ks.layers.TextVectorization(output_sequence_length=4)
    >>> layer.adapt(["The sun, the sea", "the sky"])
    >>> layer.get_vocabulary()
    ['', '[UNK]', 'the', 'sun', 'sky', 'sea']
    >>> layer(["the blue sky"]).tolist()
    [[2, 1, 4, 0]]
    """

    def __init__(
        self,
        max_tokens=None,
        standardize="lower_and_strip_punctuation",
        split="whitespace",
        ngrams=None,
        output_mode="int",
        output_sequence_length=None,
        pad_to_max_tokens=False,
        vocabulary=None,
        idf_weights=None,
        sparse=False,
        ragged=False,
        encoding="utf-8",
        name=None,
        **kwargs,
    ):
        if ragged:
            raise ValueError(
                "`ragged=True` can only be used with the TensorFlow backend. Leave it out: rows are padded with 0."
            )
        has_vocabulary = kwargs.pop("has_input_vocabulary", vocabulary is not None)
        size = kwargs.pop("vocabulary_size", None)
        super().__init__(name=name, **kwargs)
        allowed = ("lower_and_strip_punctuation", "lower", "strip_punctuation")
        one_of(self, "standardize", standardize, allowed, none=True, function=True)
        one_of(self, "split", split, ("whitespace", "character"), none=True, function=True)
        output_mode = one_of(self, "output_mode", OLD_MODES.get(output_mode, output_mode), MODES)
        is_sizes = isinstance(ngrams, tuple) and all(isinstance(n, int) for n in ngrams)
        if not (ngrams is None or isinstance(ngrams, int) or is_sizes):
            raise ValueError(f"`ngrams` must be None, an integer, or a tuple of integers. Received: ngrams={ngrams}")
        length = output_sequence_length
        if output_mode == "int" and not (length is None or isinstance(length, int)):
            raise ValueError(
                "`output_sequence_length` must be either None or an integer when `output_mode` is 'int'. "
                f"Received: output_sequence_length={length}"
            )
        if output_mode != "int" and length is not None:
            raise ValueError(
                "`output_sequence_length` must not be set if `output_mode` is not 'int'. "
                f"Received output_sequence_length={length}."
            )
        self._max_tokens, self._standardize, self._split, self._ngrams_arg = max_tokens, standardize, split, ngrams
        self._output_mode, self._output_sequence_length, self._encoding = output_mode, length, encoding
        sizes = tuple(range(1, ngrams + 1)) if isinstance(ngrams, int) else ngrams
        self._tokenizer = Tokenizer(standardize, split, sizes, encoding, f"TextVectorization '{self.name}'")
        self._lookup_layer = StringLookup(
            max_tokens=max_tokens,
            vocabulary=vocabulary,
            idf_weights=idf_weights,
            pad_to_max_tokens=pad_to_max_tokens,
            mask_token="",
            output_mode=output_mode,
            sparse=sparse,
            has_input_vocabulary=has_vocabulary,
            encoding=encoding,
            vocabulary_size=size,
        )
        self._has_input_vocabulary = has_vocabulary
        self.built = True

    compute_dtype = variable_dtype = dtype = input_dtype = property(lambda self: "string")  # type: ignore[assignment]

    def build(self, input_shape=None):
        """There is nothing to make."""

    def compute_output_shape(self, input_shape):
        shape = tuple(input_shape)
        if self._output_mode == "int":
            return (shape[0], self._output_sequence_length)
        if self._split is None:
            shape = (*shape, 1) if len(shape) <= 1 else shape
        else:  # a last axis of 1 is one text: its tokens take its place
            shape = (*(shape[:-1] if len(shape) > 1 and shape[-1] == 1 else shape), None)
        return self._lookup_layer.compute_output_shape(shape)

    def compute_output_spec(self, inputs):
        kind = "int64" if self._output_mode == "int" else dtypes.floatx()
        shape = self.compute_output_shape(inputs.shape)
        return KerasTensor(shape, dtype=kind, sparse=self._lookup_layer.sparse and len(shape) == 2)

    # --- vocabulary ---

    def adapt(self, data, batch_size=None, steps=None, *, feature_cols=None):
        """Counts the tokens of texts; the most frequent ones, ties by falling token, become the vocabulary.

        Args:
            data: an array or list of texts; an iterable of batches; an RDD of texts or of tuples that begin with one; or
                a DataFrame of one column. RDDs and DataFrames are counted on the executors; the result is that for the
                same data as an array.
            batch_size: accepted for Keras's sake.
            steps: batches to take of an iterable.
            feature_cols: the column, if the DataFrame (or rows that are dicts) has several.
        """
        self.reset_state()
        if is_spark(data):
            self._take_state(spark_state(data, *self._distributed_state(), steps, feature_cols))
        elif is_array(data):
            data = as_texts(as_host(data), self._tokenizer.owner)
            self.update_state(data[:, None] if data.ndim == 1 else data)
        else:
            for batch in batches_of(data, steps):
                self.update_state(batch)
        self.finalize_state()

    def _distributed_state(self) -> tuple[Any, Any]:
        _, start = self._lookup_layer._distributed_state()
        return functools.partial(count_texts, self._tokenizer), start

    def _take_state(self, state: Any) -> None:
        self._lookup_layer._take_state(state)

    def update_state(self, data):
        """Counts the tokens of a batch of texts."""
        self._lookup_layer._refuse_static()
        self._lookup_layer._counts.update(self._tokenizer(as_host(data)).rows)

    def finalize_state(self):
        """Makes the vocabulary of what was counted."""
        self._lookup_layer.finalize_state()

    def reset_state(self):
        """Forgets what was counted, not the vocabulary."""
        self._lookup_layer.reset_state()

    def get_vocabulary(self, include_special_tokens=True):
        """The tokens; the place of each is its index, if special tokens (padding, unknown) are included."""
        return self._lookup_layer.get_vocabulary(include_special_tokens)

    def vocabulary_size(self):
        """The number of tokens, special ones included."""
        return self._lookup_layer.vocabulary_size()

    def set_vocabulary(self, vocabulary, idf_weights=None):
        """Takes a vocabulary (an array, a list, or the path of a file with a token a line) in place of `adapt`."""
        self._lookup_layer.set_vocabulary(vocabulary, idf_weights=idf_weights)

    # --- the call ---

    def sparse_function(self):
        lookup = self._lookup_layer
        lookup._ensure_vocabulary()
        idf = lookup.idf_weights if self._output_mode == "tf_idf" else None
        ids = Vectorizer(self._tokenizer, lookup.table, "ids")
        return functools.partial(encoded_rows, ids, self._output_mode, lookup._depth() or 0, idf)

    def host_function(self):
        lookup = self._lookup_layer
        lookup._ensure_vocabulary()
        length = self._output_sequence_length
        return Vectorizer(
            self._tokenizer, lookup.table, self._output_mode, length, lookup._depth() or 0, lookup.idf_weights
        )

    # --- configuration and files ---

    def get_config(self):
        return {
            **super().get_config(),
            "max_tokens": self._lookup_layer.max_tokens,
            "standardize": _saved(self._standardize),
            "split": _saved(self._split),
            "ngrams": self._ngrams_arg,
            "output_mode": self._output_mode,
            "output_sequence_length": self._output_sequence_length,
            "pad_to_max_tokens": self._lookup_layer.pad_to_max_tokens,
            "sparse": self._lookup_layer.sparse,
            "ragged": False,
            "vocabulary": self._lookup_layer.input_vocabulary,
            "idf_weights": self._lookup_layer.input_idf_weights,
            "encoding": self._encoding,
            "vocabulary_size": self.vocabulary_size(),
        }

    @classmethod
    def from_config(cls, config):
        from ...saving.serialization import deserialize_keras_object

        config = dict(config)
        for name in ("standardize", "split"):
            if not isinstance(config.get(name), str):
                config[name] = deserialize_keras_object(config.get(name))
        if isinstance(config.get("ngrams"), list):
            config["ngrams"] = tuple(config["ngrams"])
        return super().from_config(config)

    def save_own_variables(self, store):
        self._lookup_layer.save_own_variables(store)

    def load_own_variables(self, store):
        self._lookup_layer.load_own_variables(store)

    def save_assets(self, dir_path):
        """Writes the vocabulary to ``vocabulary.txt``, unless it stands in the config."""
        self._lookup_layer.save_assets(dir_path)

    def load_assets(self, dir_path):
        """Reads what `save_assets` wrote."""
        self._lookup_layer.load_assets(dir_path)


def _saved(setting: Any) -> Any:
    from ...saving.serialization import serialize_keras_object

    return setting if setting is None or isinstance(setting, str) else serialize_keras_object(setting)

"""IndexLookup: what StringLookup and IntegerLookup share. A vocabulary, given or counted, and indices into it."""

from __future__ import annotations

import collections
import functools
import os
from collections.abc import Callable
from typing import Any

import numpy as np

from ... import dtypes
from ...data.kinds import is_spark
from ...errors import NotBuiltError, UnsafeFileError
from ...host.encoding import DROPPED
from ...host.lookup import InverseLookup, Lookup
from ...host.sparse import encoded_rows
from ...host.states import TokenCounts
from ...host.text import count_rows, looked_up
from ...tensors import KerasTensor
from .adapting import batches_of, is_array, spark_state
from .host_layer import HostLayer, as_host, one_of, salt_of

MODES = ("int", "one_hot", "multi_hot", "count", "tf_idf")
OLD_MODES = {"binary": "multi_hot", "tf-idf": "tf_idf"}


class IndexLookup(HostLayer):
    """Values to indices of a vocabulary; see StringLookup for the arguments."""

    def __init__(
        self,
        max_tokens,
        num_oov_indices,
        mask_token,
        oov_token,
        vocabulary_dtype,
        vocabulary=None,
        idf_weights=None,
        invert=False,
        output_mode="int",
        sparse=False,
        pad_to_max_tokens=False,
        oov_method="floormod",
        name=None,
        salt=None,
        **kwargs,
    ):
        size = kwargs.pop("vocabulary_size", None)
        has_vocabulary = kwargs.pop("has_input_vocabulary", vocabulary is not None)
        trainable = kwargs.pop("trainable", True)
        kwargs.pop("dtype", None)
        if kwargs:
            raise ValueError(f"Unrecognized keyword argument(s): {kwargs}")
        super().__init__(name=name, trainable=trainable)
        if max_tokens is not None and max_tokens <= 1:
            raise ValueError(f"If set, `max_tokens` must be greater than 1. Received: max_tokens={max_tokens}")
        if pad_to_max_tokens and max_tokens is None:
            raise ValueError(f"If pad_to_max_tokens is True, must set `max_tokens`. Received: max_tokens={max_tokens}")
        if num_oov_indices < 0:
            raise ValueError(
                f"`num_oov_indices` must be greater than or equal to 0. Received: num_oov_indices={num_oov_indices}"
            )
        one_of(self, "oov_method", oov_method, ("floormod", "farmhash"))
        if salt is not None and vocabulary_dtype != "string" and oov_method != "farmhash":
            raise ValueError(f"`salt` can only be used when `oov_method='farmhash'`. Received: oov_method={oov_method}")
        output_mode = one_of(self, "output_mode", OLD_MODES.get(output_mode, output_mode), MODES)
        if invert and output_mode != "int":
            raise ValueError(
                f"`output_mode` must be `'int'` when `invert` is true. Received: output_mode={output_mode}"
            )
        if sparse and output_mode == "int":
            raise ValueError(
                "`sparse` may only be true if `output_mode` is `'one_hot'`, `'multi_hot'`, `'count'` or `'tf_idf'`. "
                f"Received: sparse={sparse} and output_mode={output_mode}"
            )
        if idf_weights is not None and output_mode != "tf_idf":
            raise ValueError(
                "`idf_weights` should only be set if `output_mode` is `'tf_idf'`. "
                f"Received: idf_weights={idf_weights} and output_mode={output_mode}"
            )
        self.invert, self.max_tokens, self.num_oov_indices = invert, max_tokens, num_oov_indices
        self.mask_token, self.oov_token, self.output_mode = mask_token, oov_token, output_mode
        self.sparse, self.pad_to_max_tokens = sparse, pad_to_max_tokens
        self.vocabulary_dtype, self.oov_method, self.salt = vocabulary_dtype, oov_method, salt_of(self, salt)
        self.input_vocabulary = None if isinstance(vocabulary, (str, os.PathLike)) else _plain(vocabulary)
        self.input_idf_weights = _plain(idf_weights)
        self.idf_weights: np.ndarray | None = None
        self._frozen_vocab_size = size
        self._has_input_vocabulary = has_vocabulary
        self._counts = TokenCounts(output_mode == "tf_idf")
        self._tokens: list = []
        self._table: Any = None
        if output_mode == "tf_idf" and has_vocabulary and idf_weights is None:
            raise ValueError(
                "When specifying the `vocabulary` argument, in TF-IDF output mode, the `idf_weights` argument must also "
                "be provided."
            )
        if vocabulary is not None:
            self.set_vocabulary(vocabulary, idf_weights)
        self.built = True

    # --- dtypes and shapes ---

    compute_dtype = variable_dtype = dtype = input_dtype = property(lambda self: self.vocabulary_dtype)  # type: ignore[assignment]

    def compute_output_shape(self, input_shape):
        if self.output_mode == "int":
            return input_shape
        shape, depth = tuple(input_shape), self._depth()
        if self.output_mode == "one_hot" and not (len(shape) > 1 and shape[-1] == 1):
            return (*shape, depth)
        return (*shape[:-1], depth)

    def compute_output_spec(self, inputs):
        kind = "int64" if self.output_mode == "int" else dtypes.floatx()
        if self.invert:
            kind = self.vocabulary_dtype
        shape = self.compute_output_shape(inputs.shape)
        return KerasTensor(shape, dtype=kind, sparse=self.sparse and len(shape) == 2)

    def get_build_config(self):
        return {}

    def build_from_config(self, config):
        self.built = True

    # --- vocabulary ---

    def get_vocabulary(self, include_special_tokens=True):
        """The tokens, as Python strings or ints; the place of each is its index, if special tokens are included."""
        if not include_special_tokens:
            return list(self._tokens)
        special = [self.oov_token] * self._token_start()
        if self.mask_token is not None and self.output_mode == "int":
            special[0] = self.mask_token
        return special + list(self._tokens)

    def vocabulary_size(self):
        """The number of tokens, special ones included."""
        return len(self._tokens) + self._token_start()

    def set_vocabulary(self, vocabulary, idf_weights=None):
        """Takes a vocabulary (an array, a list, or the path of a file with a token a line) in place of `adapt`.

        Args:
            idf_weights: a factor for each token, needed for output mode ``tf_idf``.

        Raises:
            ValueError: it is empty, repeats tokens, holds special tokens at the wrong place, or is too large.
        """
        if self.output_mode == "tf_idf":
            if idf_weights is None:
                raise ValueError("`idf_weights` must be set if output_mode is 'tf_idf'.")
        elif idf_weights is not None:
            raise ValueError(
                "`idf_weights` should only be set if output_mode is `'tf_idf'`. "
                f"Received: output_mode={self.output_mode} and idf_weights={idf_weights}"
            )
        if isinstance(vocabulary, (str, os.PathLike)):
            self._use(self._read(vocabulary))
            return
        given = self._lookup([]).standardized(as_host(vocabulary)).tolist()
        if not given:
            raise ValueError(f"Cannot set an empty vocabulary. Received: vocabulary={vocabulary}")
        start = self._token_start()
        special = [self.mask_token] * self._oov_start() + [self.oov_token] * self.num_oov_indices
        has_special = given[:start] == special
        tokens = given[start:] if has_special else given
        self._check(given, tokens, special)
        self._use(tokens)
        if idf_weights is not None:
            self._set_idf(np.asarray(idf_weights), len(given), 0 if has_special else start)

    def _read(self, path: Any) -> list:
        if not os.path.exists(path):
            raise ValueError(f"Vocabulary file {path} does not exist.")
        if self.output_mode == "tf_idf":
            raise ValueError("output_mode `'tf_idf'` does not support loading a vocabulary from file.")
        with open(path, encoding="utf-8") as file:
            return self._of_lines(file.read())

    def _of_lines(self, text: str) -> list:
        lines = text.split("\n")
        while lines and lines[-1] == "":
            lines.pop()
        return lines if self.vocabulary_dtype == "string" else [int(line) for line in lines]

    def _check(self, given: list, tokens: list, special: list) -> None:
        repeated = [token for token, n in collections.Counter(tokens).items() if n > 1]
        if repeated:
            raise ValueError(
                "The passed vocabulary has at least one repeated term. Please uniquify your dataset. The repeated terms "
                f"are: {repeated}"
            )
        for what, word, token in (("mask", "mask", self.mask_token), ("oov", "OOV", self.oov_token)):
            if token is not None and token in tokens and (what == "mask" or self.invert):
                at = len(given) - 1 - given[::-1].index(token)
                raise ValueError(
                    f"Found reserved {word} token at unexpected location in `vocabulary`. Note that passed `vocabulary` "
                    "does not need to include the OOV and mask tokens. Either remove all mask and OOV tokens, or include "
                    f"them only at the start of the vocabulary in precisely this order: {special}. "
                    f"Received: {what}_token={token} at vocabulary index {[at]}"
                )
        size = self._token_start() + len(tokens)
        if self.max_tokens is not None and size > self.max_tokens:
            raise ValueError(
                "Attempted to set a vocabulary larger than the maximum vocab size. Received vocabulary size is "
                f"{size}; `max_tokens` is {self.max_tokens}."
            )

    def _set_idf(self, weights: np.ndarray, given: int, front: int) -> None:
        if len(weights) != given:
            raise ValueError(
                "`idf_weights` must be the same length as vocabulary. "
                f"len(idf_weights) is {len(weights)}; len(vocabulary) is {given}"
            )
        if weights.ndim != 1:
            raise ValueError(f"TF-IDF data must be a 1-index array. Received: type(idf_weights)={type(weights)}")
        back = self.max_tokens - front - len(weights) if self.pad_to_max_tokens else 0
        self.idf_weights = np.pad(
            weights.astype(np.float64), (front, back), constant_values=(np.average(weights), 0)
        ).astype(dtypes.floatx())

    def _use(self, tokens: list) -> None:
        self._tokens, self._table = tokens, None
        self._record_size()

    def _record_size(self) -> None:
        size = self.vocabulary_size()
        if self._frozen_vocab_size not in (None, size) and self.output_mode != "int" and not self.pad_to_max_tokens:
            raise RuntimeError(
                f"When using `output_mode={self.output_mode}` and `pad_to_max_tokens=False`, the vocabulary size cannot "
                f"be changed after the layer is called. Old vocab size is {self._frozen_vocab_size}, new vocab size is "
                f"{size}"
            )
        self._frozen_vocab_size = size

    def _oov_start(self) -> int:
        return 1 if self.mask_token is not None and self.output_mode == "int" else 0

    def _token_start(self) -> int:
        return self._oov_start() + self.num_oov_indices

    def _depth(self) -> int | None:
        return self.max_tokens if self.pad_to_max_tokens else self._frozen_vocab_size

    # --- adapt ---

    def adapt(self, data, steps=None, *, feature_cols=None):
        """Counts the tokens of `data`; the most frequent ones, ties by falling token, become the vocabulary.

        Args:
            data: an array or a list (each element of a flat one is a document of its own); an iterable of batches; an
                RDD of tokens, of lists of tokens or of tuples that begin with one; or a DataFrame of one column. RDDs
                and DataFrames are counted on the executors; the result is that for the same data as an array.
            steps: batches to take of an iterable.
            feature_cols: the column, if the DataFrame (or rows that are dicts) has several.
        """
        self.reset_state()
        if is_spark(data):
            self._take_state(spark_state(data, *self._distributed_state(), steps, feature_cols))
        elif is_array(data):
            data = self._lookup([]).standardized(as_host(data))
            self.update_state(data[:, None] if data.ndim == 1 else data)
        else:
            for batch in batches_of(data, steps):
                self.update_state(batch)
        self.finalize_state()

    def _distributed_state(self) -> tuple[Callable, TokenCounts]:
        """How rows are put into a state on an executor, and the state to begin with."""
        self._refuse_static()
        return functools.partial(count_rows, self._lookup([])), TokenCounts(self.output_mode == "tf_idf")

    def _take_state(self, state: TokenCounts) -> None:
        self._counts = state

    def _refuse_static(self) -> None:
        if self._has_input_vocabulary:
            raise ValueError(
                f"Cannot adapt layer '{self.name}' after setting a static vocabulary via `vocabulary` argument or "
                "`set_vocabulary()` method."
            )

    def update_state(self, data):
        """Counts the tokens of a batch; rows are documents, an array of one axis is one document."""
        self._refuse_static()
        array = self._lookup([]).standardized(as_host(data))
        self._counts.update(array.reshape(-1 if array.ndim > 1 else 1, array.shape[-1] if array.ndim else 1).tolist())

    def finalize_state(self):
        """Makes the vocabulary of what was counted."""
        if self._has_input_vocabulary or not self._counts.counts:
            self._record_size()
            return
        special = [t for t in (self.mask_token, self.oov_token) if t is not None]
        most = self.max_tokens - self._token_start() if self.max_tokens else None
        tokens = self._counts.tokens(without=special, most=most)
        self._tokens, self._table = tokens, None
        if self.output_mode == "tf_idf":
            idf = self._counts.idf(tokens)
            back = self.max_tokens - self._token_start() - len(tokens) if self.pad_to_max_tokens else 0
            self.idf_weights = np.pad(idf, (self._token_start(), back), constant_values=(idf.mean(), 0))
        self.reset_state()
        self._record_size()

    def reset_state(self):
        """Forgets what was counted, not the vocabulary."""
        if not self._has_input_vocabulary:
            self._counts = TokenCounts(self.output_mode == "tf_idf")

    # --- the call ---

    def _lookup(self, tokens: list) -> Lookup:
        return Lookup(
            kind=self.vocabulary_dtype,
            tokens=tokens,
            mask_token=self.mask_token,
            mask_index=0 if self.output_mode == "int" else DROPPED,
            first_oov=self._oov_start(),
            oov_count=self.num_oov_indices,
            oov_method=self.oov_method,
            salt=self.salt,
            owner=f"{type(self).__name__} '{self.name}'",
        )

    @property
    def table(self) -> Any:
        """The lookup table: a function of arrays that executors can run."""
        if self._table is None:
            if self.invert:
                mask = None if self.mask_token is None else self.mask_token
                self._table = InverseLookup(
                    self.vocabulary_dtype, self._tokens, self._token_start(), self.oov_token, mask
                )
            else:
                self._table = self._lookup(self._tokens)
        return self._table

    def host_function(self):
        self._ensure_vocabulary()
        return functools.partial(looked_up, self.table, self.output_mode, self._depth(), self.idf_weights)

    def sparse_function(self):
        self._ensure_vocabulary()
        idf = self.idf_weights if self.output_mode == "tf_idf" else None
        return functools.partial(encoded_rows, self.table, self.output_mode, self._depth(), idf)

    def _ensure_vocabulary(self) -> None:
        if self.output_mode != "int" and not self.pad_to_max_tokens and self._frozen_vocab_size is None:
            raise RuntimeError(
                f"When using `output_mode={self.output_mode}` and `pad_to_max_tokens=False`, you must set the layer's "
                "vocabulary before calling it. Either pass a `vocabulary` argument to the layer, or call `adapt` with "
                "some sample data."
            )
        if self.output_mode == "tf_idf" and self.idf_weights is None:
            raise NotBuiltError("When `output_mode` is `'tf_idf'`, `idf_weights` must be provided.")

    # --- configuration and files ---

    def get_config(self):
        return {
            **super().get_config(),
            "invert": self.invert,
            "max_tokens": self.max_tokens,
            "num_oov_indices": self.num_oov_indices,
            "oov_token": self.oov_token,
            "mask_token": self.mask_token,
            "output_mode": self.output_mode,
            "sparse": self.sparse,
            "pad_to_max_tokens": self.pad_to_max_tokens,
            "vocabulary_dtype": self.vocabulary_dtype,
            "idf_weights": self.input_idf_weights,
            "vocabulary": self.input_vocabulary,
            "vocabulary_size": self._frozen_vocab_size,
            "oov_method": self.oov_method,
            "salt": self.salt,
        }

    @classmethod
    def from_config(cls, config):
        if isinstance(config.get("vocabulary"), str):
            raise UnsafeFileError(
                "Requested the loading of a vocabulary file outside of the model archive. This carries a potential risk "
                "of loading arbitrary and sensitive files and thus it is disallowed. Give the path to the constructor. "
                f"Vocabulary file: '{config['vocabulary']}'"
            )
        return cls(**config)

    def save_own_variables(self, store):
        if self.output_mode == "tf_idf" and self.idf_weights is not None:
            store["idf_weights"] = self.idf_weights

    def load_own_variables(self, store):
        if self.output_mode == "tf_idf" and "idf_weights" in store:
            self.idf_weights = np.asarray(store["idf_weights"])

    def save_assets(self, dir_path):
        """Writes the vocabulary, special tokens included, to ``vocabulary.txt``, unless it stands in the config."""
        if self.input_vocabulary is None:
            with open(os.path.join(dir_path, "vocabulary.txt"), "w", encoding="utf-8") as file:
                file.write("\n".join(map(str, self.get_vocabulary())))

    def load_assets(self, dir_path):
        """Reads what `save_assets` wrote."""
        if self.input_vocabulary is None:
            with open(os.path.join(dir_path, "vocabulary.txt"), encoding="utf-8") as file:
                tokens = self._of_lines(file.read())
            idf = self.idf_weights
            if tokens:
                self.set_vocabulary(tokens, idf_weights=idf if idf is None else idf[: len(tokens)])


def _plain(values: Any) -> Any:
    """Arrays as lists, for configs."""
    values = as_host(values)
    if isinstance(values, np.ndarray):
        values = values.tolist()
    return [v.decode("utf-8") if isinstance(v, bytes) else v for v in values] if isinstance(values, list) else values

"""FeatureSpace: a table of floats, whole numbers and strings as one vector a row, or as a dict of encoded features."""

from __future__ import annotations

import functools
from typing import Any

import numpy as np

from ... import dtypes, naming, ops
from ...data.kinds import is_spark
from ...host.lookup import as_texts
from ...host.states import Several, fill_several, filled
from ...tensors import KerasTensor
from ..input_layer import Input
from ..layer import Layer
from ..rescaling import Rescaling
from .category_encoding import CategoryEncoding
from .data_normalization import Normalization
from .discretization import Discretization
from .hashing import HashedCrossing, Hashing
from .index_lookup import IndexLookup
from .integer_lookup import IntegerLookup
from .string_lookup import StringLookup
from .text_vectorization import TextVectorization

_MODULE = "keras.src.layers.preprocessing.feature_space"
SPARSE_FROM = 1024  # places of a one-hot feature that is sparse rows in a model, so that Dense reads what it fills only
BATCH = 32  # rows of arrays that `adapt` looks at together, as Keras does


class Cross:
    """Features whose combinations are a feature of their own."""

    keras_module = _MODULE

    def __init__(self, feature_names, crossing_dim, output_mode="one_hot"):
        if output_mode not in {"int", "one_hot"}:
            raise ValueError(
                "Invalid value for argument `output_mode`. Expected one of {'int', 'one_hot'}. "
                f"Received: output_mode={output_mode}"
            )
        self.feature_names = tuple(feature_names)
        self.crossing_dim, self.output_mode = crossing_dim, output_mode

    @property
    def name(self) -> str:
        return "_X_".join(self.feature_names)

    def get_config(self):
        return {
            "feature_names": self.feature_names,
            "crossing_dim": self.crossing_dim,
            "output_mode": self.output_mode,
        }

    @classmethod
    def from_config(cls, config):
        return cls(**config)


class Feature:
    """A column: its dtype, the layer that prepares it, and how it is given out."""

    keras_module = _MODULE

    def __init__(self, dtype, preprocessor, output_mode):
        from ...saving.serialization import deserialize_keras_object

        if output_mode not in {"int", "one_hot", "float"}:
            raise ValueError(
                "Invalid value for argument `output_mode`. Expected one of {'int', 'one_hot', 'float'}. "
                f"Received: output_mode={output_mode}"
            )
        self.dtype, self.output_mode = dtype, output_mode
        self.preprocessor = deserialize_keras_object(preprocessor) if isinstance(preprocessor, dict) else preprocessor

    def get_config(self):
        from ...saving.serialization import serialize_keras_object

        return {
            "dtype": self.dtype,
            "preprocessor": serialize_keras_object(self.preprocessor),
            "output_mode": self.output_mode,
        }

    @classmethod
    def from_config(cls, config):
        return cls(**config)


class TFDIdentity(Layer):
    """A column as it is. (Names in files are Keras's.)"""

    keras_module = _MODULE

    def call(self, x):
        return x

    def get_config(self):
        return super().get_config()


class TFDConcat(Layer):
    """Columns side by side."""

    keras_module = _MODULE

    def __init__(self, axis, **kwargs):
        super().__init__(**kwargs)
        self.axis = axis

    def get_config(self):
        return {**super().get_config(), "axis": self.axis}

    def call(self, xs):
        return ops.concatenate(xs, axis=self.axis)


class FeatureSpace(Layer):
    """Says how each column of a table is encoded, learns what that needs, and encodes.

    Args:
        features: a name or a `FeatureSpace.float_normalized(...)`-like description for each column: ``float``,
            ``float_rescaled``, ``float_normalized``, ``float_discretized``, ``integer_categorical``,
            ``string_categorical``, ``integer_hashed``, ``string_hashed``.
        output_mode: ``concat`` for one vector a row, ``dict`` for a dict of them.
        crosses: pairs (or more) of column names, or `FeatureSpace.cross(...)`.
        crossing_dim, hashing_dim, num_discretization_bins: sizes where a description does not say its own.

    >>> import kerasoft as ks
    >>> space = ks.utils.FeatureSpace({"city": "string_categorical", "age": "float"})
    >>> space.adapt({"city": ["rome", "bern", "rome"], "age": [1.0, 2.0, 3.0]})
    >>> space({"city": ["bern"], "age": [30.0]}).tolist()
    [[30.0, 0.0, 0.0, 1.0]]
    """

    keras_module = "keras.utils"

    # --- descriptions ---

    @classmethod
    def cross(cls, feature_names, crossing_dim, output_mode="one_hot"):
        """Combinations of columns, hashed to `crossing_dim` bins."""
        return Cross(feature_names, crossing_dim, output_mode=output_mode)

    @classmethod
    def feature(cls, dtype, preprocessor, output_mode):
        """A column with a layer of your own."""
        return Feature(dtype, preprocessor, output_mode)

    @classmethod
    def float(cls, name=None):
        """A number as it is."""
        name = name or naming.auto_name("float")
        return Feature("float32", TFDIdentity(dtype="float32", name=f"{name}_preprocessor"), "float")

    @classmethod
    def float_rescaled(cls, scale=1.0, offset=0.0, name=None):
        """A number times `scale` plus `offset`."""
        name = name or naming.auto_name("float_rescaled")
        return Feature("float32", Rescaling(scale=scale, offset=offset, name=f"{name}_preprocessor"), "float")

    @classmethod
    def float_normalized(cls, name=None):
        """A number shifted and scaled to mean 0 and variance 1."""
        name = name or naming.auto_name("float_normalized")
        return Feature("float32", Normalization(axis=-1, name=f"{name}_preprocessor"), "float")

    @classmethod
    def float_discretized(cls, num_bins, bin_boundaries=None, output_mode="one_hot", name=None):
        """The bin of a number."""
        name = name or naming.auto_name("float_discretized")
        layer = Discretization(num_bins=num_bins, bin_boundaries=bin_boundaries, name=f"{name}_preprocessor")
        return Feature("float32", layer, output_mode)

    @classmethod
    def integer_categorical(cls, max_tokens=None, num_oov_indices=1, output_mode="one_hot", name=None):
        """A whole number that is a name."""
        name = name or naming.auto_name("integer_categorical")
        layer = IntegerLookup(name=f"{name}_preprocessor", max_tokens=max_tokens, num_oov_indices=num_oov_indices)
        return Feature("int32", layer, output_mode)

    @classmethod
    def string_categorical(cls, max_tokens=None, num_oov_indices=1, output_mode="one_hot", name=None):
        """A string out of a vocabulary."""
        name = name or naming.auto_name("string_categorical")
        layer = StringLookup(name=f"{name}_preprocessor", max_tokens=max_tokens, num_oov_indices=num_oov_indices)
        return Feature("string", layer, output_mode)

    @classmethod
    def string_hashed(cls, num_bins, output_mode="one_hot", name=None):
        """A string, hashed to bins."""
        name = name or naming.auto_name("string_hashed")
        return Feature("string", Hashing(name=f"{name}_preprocessor", num_bins=num_bins), output_mode)

    @classmethod
    def integer_hashed(cls, num_bins, output_mode="one_hot", name=None):
        """A whole number, hashed to bins."""
        name = name or naming.auto_name("integer_hashed")
        return Feature("int32", Hashing(name=f"{name}_preprocessor", num_bins=num_bins), output_mode)

    # --- making ---

    def __init__(
        self,
        features,
        output_mode="concat",
        crosses=None,
        crossing_dim=32,
        hashing_dim=32,
        num_discretization_bins=32,
        name=None,
    ):
        super().__init__(name=name)
        if not features:
            raise ValueError("The `features` argument cannot be None or empty.")
        self.crossing_dim, self.hashing_dim = crossing_dim, hashing_dim
        self.num_discretization_bins = num_discretization_bins
        self.features = {name: self._standardized(name, value) for name, value in features.items()}
        self.crosses = [self._standardized_cross(cross, features) for cross in crosses or ()]
        if output_mode not in {"dict", "concat"}:
            raise ValueError(
                "Invalid value for argument `output_mode`. Expected one of {'dict', 'concat'}. "
                f"Received: output_mode={output_mode}"
            )
        self.output_mode = output_mode
        self.inputs = {name: Input((1,), dtype=f.dtype, name=name) for name, f in self.features.items()}
        self.preprocessors = {name: f.preprocessor for name, f in self.features.items()}
        self.crossers = {cross.name: HashedCrossing(cross.crossing_dim, name=cross.name) for cross in self.crosses}
        self.one_hot_encoders: dict[str, Any] = {}
        self.encoded_features: Any = None
        self.concat: Any = None
        self._is_adapted = False

    def _standardized(self, name, feature):
        from ...saving.serialization import deserialize_keras_object

        if isinstance(feature, Feature):
            return feature
        if isinstance(feature, dict):
            return deserialize_keras_object(feature)
        sizes = {
            "float_discretized": self.num_discretization_bins,
            "integer_hashed": self.hashing_dim,
            "string_hashed": self.hashing_dim,
        }
        plain = ("float", "float_rescaled", "float_normalized", "integer_categorical", "string_categorical")
        if feature in sizes:
            return getattr(self, feature)(sizes[feature], name=name)
        if feature in plain:
            return getattr(self, feature)(name=name)
        raise ValueError(f"Invalid feature type: {feature}")

    def _standardized_cross(self, cross, features):
        from ...saving.serialization import deserialize_keras_object

        if isinstance(cross, dict):
            cross = deserialize_keras_object(cross)
        if isinstance(cross, Cross):
            return cross
        if not self.crossing_dim:
            raise ValueError(
                "When specifying `crosses`, the argument `crossing_dim` (dimensionality of the crossing space) should be "
                "specified as well."
            )
        if any(key not in features for key in cross):
            raise ValueError(
                "All features referenced in the `crosses` argument should be present in the `features` dict. "
                f"Received unknown features: {cross}"
            )
        return Cross(cross, crossing_dim=self.crossing_dim)

    # --- adapt ---

    def _adaptable(self) -> list[str]:
        def waits(layer: Any) -> bool:
            if isinstance(layer, Normalization):
                return layer.input_mean is None
            return hasattr(layer, "adapt") and not (
                isinstance(layer, TextVectorization) and layer._has_input_vocabulary
            )

        return [name for name, layer in self.preprocessors.items() if waits(layer)]

    def adapt(self, dataset):
        """Learns vocabularies, statistics and bins.

        Args:
            dataset: a dict of arrays or lists; an iterable of such dicts, each a batch or a row; a DataFrame with these
                columns; or an RDD of dicts or Rows. DataFrames and RDDs are looked at in one pass on the executors.

        Raises:
            ValueError: something else.
        """
        names = self._adaptable()
        if is_spark(dataset):
            self._adapt_on_spark(dataset, names)
        elif isinstance(dataset, dict):
            for name in names:
                self.preprocessors[name].adapt(_batches(dataset[name]))
        elif hasattr(dataset, "__iter__") and not isinstance(dataset, (str, np.ndarray)):
            parts = [part[0] if isinstance(part, tuple) else part for part in dataset]
            for name in names:
                self.preprocessors[name].adapt(_parts([part[name] for part in parts]))
        else:
            raise ValueError(
                "`adapt()` can only be called on a dict of arrays/lists, an iterable of them, a DataFrame or an RDD. "
                f"Received instead: {dataset} (of type {type(dataset)})"
            )
        self._is_adapted = True
        self.get_encoded_features()

    def _adapt_on_spark(self, dataset: Any, names: list[str]) -> None:
        from ...data.adaptation import merged_state

        for name in names:
            if hasattr(self.preprocessors[name], "reset_state"):
                self.preprocessors[name].reset_state()
        parts = {name: self.preprocessors[name]._distributed_state() for name in names}
        fill = functools.partial(fill_several, {name: fill for name, (fill, _) in parts.items()})
        start = Several({name: state for name, (_, state) in parts.items()})
        if not names:
            return
        found = merged_state(dataset, functools.partial(filled, fill, start), names, whole=True)
        for name in names:
            self.preprocessors[name]._take_state(found.states[name])
            self.preprocessors[name].finalize_state()

    # --- encoding ---

    def get_inputs(self):
        """A symbolic input for each column, for models that begin with raw columns."""
        self._check_adapted()
        self.get_encoded_features()
        return self.inputs

    def get_encoded_features(self):
        """The symbolic encoded features, for models that begin with encoded columns."""
        self._check_adapted()
        if self.encoded_features is None:
            self.encoded_features = self._encoded(self.inputs)
            self.built = True
        return self.encoded_features

    def _check_adapted(self) -> None:
        if not self._is_adapted and self._adaptable():
            raise ValueError("You need to call `.adapt(dataset)` on the FeatureSpace before you can start using it.")
        self._is_adapted = True

    def __call__(self, data):
        """Encodes a dict of columns: arrays (rows,) or (rows, 1), or single values for one row."""
        self.get_encoded_features()
        if not isinstance(data, dict):
            raise ValueError(
                f"A FeatureSpace can only be called with a dict. Received: data={data} (of type {type(data)}"
            )
        if any(isinstance(x, KerasTensor) for x in data.values()):
            return self._encoded(data)
        arrays = {name: _array(x, self.features[name].dtype) for name, x in data.items() if name in self.features}
        single = any(x.ndim == 0 for x in arrays.values())
        found = self._encoded({name: x.reshape(-1, 1) if x.ndim < 2 else x for name, x in arrays.items()})
        if not single:
            return found
        if isinstance(found, dict):
            return {
                name: ops.squeeze(x, 0) if len(x.shape) == 2 and x.shape[0] == 1 else x for name, x in found.items()
            }
        return ops.squeeze(found, 0)

    def _encoded(self, columns: dict[str, Any]) -> Any:
        prepared = {name: self.preprocessors[name](columns[name]) for name in columns}
        crossed = {
            cross.name: self.crossers[cross.name]([prepared[n] for n in cross.feature_names]) for cross in self.crosses
        }
        crosses = {cross.name: cross for cross in self.crosses}
        found = {name: self._one_hot(name, prepared[name], self.features[name]) for name in sorted(prepared)}
        found |= {name: self._one_hot(name, crossed[name], crosses[name]) for name in sorted(crossed)}
        if self.output_mode == "dict":
            return found
        for name, feature in found.items():
            kind = dtypes.standardize(feature.dtype)
            if kind.startswith("int") or kind == "string":
                raise ValueError(
                    f"Cannot concatenate features because feature '{name}' has not been encoded (it has dtype {kind}). "
                    "Consider using `output_mode='dict'`."
                )
        if self.concat is None:
            self.concat = TFDConcat(axis=-1)
        return self.concat(list(found.values()))

    def _one_hot(self, name: str, feature: Any, spec: Any) -> Any:
        if spec.output_mode != "one_hot":
            return feature
        if name not in self.one_hot_encoders:
            layer = self.preprocessors.get(name) or self.crossers.get(name)
            kind = dtypes.standardize(feature.dtype)
            if not kind.startswith("int"):
                raise ValueError(
                    f"Feature '{name}' has `output_mode='one_hot'`. Thus its preprocessor should return an integer dtype. "
                    f"Instead it returns a {kind} dtype."
                )
            count = _cardinality(name, layer)
            self.one_hot_encoders[name] = self._tracked(CategoryEncoding(count, "multi_hot", count >= SPARSE_FROM))
        return self.one_hot_encoders[name](feature)

    def _tracked(self, layer: Any) -> Any:
        self._track(layer)
        return layer

    # --- configuration and files ---

    def get_config(self):
        from ...saving.serialization import serialize_keras_object

        return {
            "features": serialize_keras_object(self.features),
            "output_mode": self.output_mode,
            "crosses": serialize_keras_object(self.crosses),
            "crossing_dim": self.crossing_dim,
            "hashing_dim": self.hashing_dim,
            "num_discretization_bins": self.num_discretization_bins,
        }

    @classmethod
    def from_config(cls, config):
        return cls(**config)

    def get_build_config(self):
        return {name: f.preprocessor.get_build_config() for name, f in self.features.items()}

    def build_from_config(self, config):
        for name, inner in config.items():
            if inner and not self.features[name].preprocessor.built:
                self.features[name].preprocessor.build_from_config(inner)
        self._is_adapted = True

    def save(self, filepath):
        """Writes it to a `.keras` file, for `kerasoft.saving.load_model`."""
        from ...saving.files import save_model

        save_model(self, filepath)

    def save_own_variables(self, store):
        """The layers inside save theirs."""

    def load_own_variables(self, store):
        """The layers inside load theirs."""


def _cardinality(name: str, layer: Any) -> int:
    if isinstance(layer, IndexLookup):
        return layer.vocabulary_size()
    if isinstance(layer, CategoryEncoding):
        return layer.num_tokens
    if isinstance(layer, (Discretization, HashedCrossing, Hashing)):
        return layer.num_bins if layer.num_bins is not None else len(layer.bin_boundaries) + 1
    raise ValueError(
        f"Feature '{name}' has `output_mode='one_hot'`. However it isn't a standard feature and the dimensionality of its "
        "output space is not known, thus it cannot be one-hot encoded. Try using `output_mode='int'`."
    )


def _array(x: Any, dtype: str) -> np.ndarray:
    if dtype == "string":
        return as_texts(x)
    array = np.asarray(x)
    return array.astype(dtype) if dtype == "float32" else array.astype(np.int64)


def _batches(values: Any):
    """A column as batches with a feature axis."""
    array = np.asarray(values)
    array = as_texts(values) if array.dtype.kind in "OUST" else array
    if array.ndim == 1:
        for start in range(0, len(array), BATCH):
            yield array[start : start + BATCH, None]
    else:
        for row in array:
            yield row[:, None] if row.ndim == 1 else row


def _parts(values: list):
    """A column of rows or batches as batches with a feature axis."""
    if np.ndim(values[0]) == 0:
        yield from _batches(values)
        return
    for value in values:
        array = np.asarray(value)
        yield array[:, None] if array.ndim == 1 else array

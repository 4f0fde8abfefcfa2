"""Normalization: y = (x - mean) / max(sqrt(variance), 1e-7), with statistics of the data."""

from __future__ import annotations

import numpy as np

from ... import ops
from ...data.kinds import is_spark
from ...host.states import Moments, fill_moments
from ..configured import Configured
from .adapting import batches_of, spark_state
from .host_layer import as_host

EPSILON = 1e-7
CHUNK = 8192  # rows of an array that are looked at together


class Normalization(Configured):
    """Shifts and scales the input to mean 0 and variance 1.

    Args:
        axis: axes that have statistics of their own, e.g. -1 for each feature; None for one mean of everything.
        mean, variance: instead of `adapt`; numbers, or arrays along `axis`.
        invert: whether to do the opposite.

    >>> import kerasoft as ks
    >>> layer = ks.layers.Normalization()
    >>> layer.adapt(ks.ops.array([[1.0, 10.0], [3.0, 30.0]]))
    >>> layer([[2.0, 40.0]]).tolist()
    [[0.0, 2.0]]
    """

    def __init__(self, axis=-1, mean=None, variance=None, invert=False, **kwargs):
        super().__init__(**kwargs)
        self.axis = () if axis is None else (axis,) if isinstance(axis, int) else tuple(axis)
        self.input_mean, self.input_variance, self.invert = mean, variance, invert
        self.supports_masking = True
        self._build_input_shape = None
        if (mean is not None) != (variance is not None):
            raise ValueError(
                "When setting values directly, both `mean` and `variance` must be set. "
                f"Received: mean={mean} and variance={variance}"
            )
        if mean is not None and np.shape(mean) != np.shape(variance):
            raise ValueError(
                "When setting values directly, `mean` and `variance` must have the same shape. Received: "
                f"mean shape {np.shape(mean)} and variance shape {np.shape(variance)}"
            )
        if mean is not None and len(np.shape(mean)) > len(self.axis):
            raise ValueError(
                f"The rank of `mean` must be less than or equal to the number of axes ({len(self.axis)}). Received: "
                f"mean shape {np.shape(mean)} for axis {self.axis}"
            )

    def build(self, input_shape):
        if input_shape is None:
            return
        ndim = len(input_shape)
        self._build_input_shape = tuple(input_shape)
        if any(a < -ndim or a >= ndim for a in self.axis):
            raise ValueError(
                "All `axis` values must be in the range [-ndim, ndim). "
                f"Received inputs with ndim={ndim}, while axis={self.axis}"
            )
        self._keep_axis = tuple(sorted(a % ndim for a in self.axis))
        for a in self._keep_axis:
            if input_shape[a] is None:
                raise ValueError(
                    f"All `axis` values to be kept must have a known shape. Received axis={self.axis}, "
                    f"inputs.shape={tuple(input_shape)}, with unknown axis at index {a}"
                )
        self._broadcast_shape = tuple(input_shape[a] if a in self._keep_axis else 1 for a in range(ndim))
        shape = tuple(input_shape[a] for a in self._keep_axis)
        if self.input_mean is None:
            self.adapt_mean = self.add_weight(shape, "zeros", trainable=False, name="mean")
            self.adapt_variance = self.add_weight(shape, "ones", trainable=False, name="variance")
            self.count = self.add_weight((), "zeros", dtype="int", trainable=False, name="count")
        else:
            self._given = tuple(self._aligned(v) for v in (self.input_mean, self.input_variance))

    def _aligned(self, value) -> np.ndarray:
        """A given mean or variance, its axes put at the last of the kept axes."""
        value = np.asarray(as_host(value), np.float32)
        shape = [1] * len(self._broadcast_shape)
        for i in range(1, value.ndim + 1):
            shape[self._keep_axis[-i]] = value.shape[-i]
        return np.broadcast_to(value.reshape(shape), self._broadcast_shape)

    # --- adapt ---

    def adapt(self, data, *, feature_cols=None):
        """Sets mean and variance to those of the data.

        Args:
            data: an array; an iterable of batches; an RDD of vectors or numbers, or of tuples that begin with one; or a
                DataFrame of numeric columns, which are the features. RDDs and DataFrames are summed on the executors.
            feature_cols: columns of a DataFrame.

        Raises:
            ValueError: no data, or shapes that do not fit. TypeError: something else than data.
        """
        if is_spark(data):
            self._take_state(spark_state(data, *self._distributed_state(), None, feature_cols))
            return
        elif hasattr(data, "dtype") and hasattr(data, "shape"):
            data = np.asarray(as_host(data))
            self._build_for(data.shape)
            moments = self._moments([data] if 0 in self._keep_axis else _chunks(data))
        elif hasattr(data, "__iter__"):
            moments = self._moments(self._checked(data))
        else:
            raise TypeError(
                f"Unsupported data type: {type(data)}. `adapt` supports arrays, iterables of batches (e.g. list, "
                "generator), RDDs and DataFrames."
            )
        self._assign(moments)

    def _distributed_state(self):
        return fill_moments, Moments(self.axis)

    def _take_state(self, moments: Moments) -> None:
        self._build_for((None, *moments.shape))
        self._assign(moments)

    def _assign(self, moments: Moments) -> None:
        if self.input_mean is None:
            self.adapt_mean.assign(moments.mean + np.zeros(self.adapt_mean.shape))
            self.adapt_variance.assign(moments.variance + np.zeros(self.adapt_variance.shape))

    def _build_for(self, shape: tuple) -> None:
        if not self.built:
            self.build(shape)
        for a in self._keep_axis:
            if len(shape) != len(self._build_input_shape) or shape[a] != self._build_input_shape[a]:
                raise ValueError(
                    f"The layer was built with input_shape={self._build_input_shape}, but adapt() is being called with "
                    f"data with an incompatible shape, data.shape={tuple(shape)}"
                )

    def _checked(self, data):
        """The batches of an iterable, each of the shape that the first one has."""
        empty = True
        for batch in batches_of(data, None):
            if not hasattr(batch, "shape"):
                raise TypeError(
                    "adapt() expects an iterable that yields arrays or tensors with a `.shape` attribute (e.g. numpy "
                    f"arrays or backend tensors). Got an element of type {type(batch).__name__}. Ensure each yielded "
                    "element is array-like with a `.shape` attribute."
                )
            if empty:
                self._build_for(batch.shape)
            elif any(batch.shape[a] != self._build_input_shape[a] for a in self._keep_axis):
                raise ValueError(
                    "adapt() yielded a batch with incompatible shape. Expected "
                    f"{self._build_input_shape}, got {tuple(batch.shape)}."
                )
            empty = False
            yield batch
        if empty:
            raise ValueError(
                "adapt() received an empty iterable (no batches). Expected at least one batch. Pass a non-empty iterable "
                "of arrays or tensors, e.g. layer.adapt([x]) or layer.adapt(list_of_batches)."
            )

    def _moments(self, batches) -> Moments:
        moments = Moments(self.axis)
        for batch in batches:
            moments.update(batch)
        return moments

    def finalize_state(self):
        """Nothing is left to do: the call reads the weights."""

    # --- the call ---

    def _statistic(self, weight_name: str, place: int):
        if not self.built:
            return None
        if self.input_mean is not None:
            return ops.cast(self._given[place], self.compute_dtype)
        return ops.cast(ops.reshape(getattr(self, weight_name), self._broadcast_shape), self.compute_dtype)

    mean = property(lambda self: self._statistic("adapt_mean", 0))
    variance = property(lambda self: self._statistic("adapt_variance", 1))

    def call(self, inputs):
        x = ops.cast(inputs, self.compute_dtype)
        deviation = ops.maximum(ops.sqrt(self.variance), EPSILON)
        if self.invert:
            return ops.add(self.mean, ops.multiply(x, deviation))
        return ops.divide(ops.subtract(x, self.mean), deviation)

    def compute_output_shape(self, input_shape):
        return input_shape

    # --- configuration ---

    def get_config(self):
        return {
            **super(Configured, self).get_config(),
            "axis": self.axis,
            "invert": self.invert,
            "mean": None if self.input_mean is None else np.array(as_host(self.input_mean)).tolist(),
            "variance": None if self.input_variance is None else np.array(as_host(self.input_variance)).tolist(),
        }

    def get_build_config(self):
        return {"input_shape": self._build_input_shape} if self._build_input_shape else None

    def build_from_config(self, config):
        if config and not self.built:
            self.build(tuple(config["input_shape"]))


def _chunks(data: np.ndarray):
    for start in range(0, max(len(data), 1) if data.ndim else 1, CHUNK):
        yield data[start : start + CHUNK] if data.ndim else data

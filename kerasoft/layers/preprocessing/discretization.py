"""Discretization: numbers to bins between boundaries that are given or found by `adapt`."""

from __future__ import annotations

import functools

import numpy as np

from ... import dtypes, ops
from ...data.kinds import is_spark
from ...host.bins import binned
from ...host.states import Quantiles, boundaries, empty, fill_quantiles, merged, summarized
from ...ops.dispatch import kernel
from ...tensors import KerasTensor
from ..configured import Configured
from .adapting import batches_of, spark_state
from .encoding import encode
from .host_layer import as_host, one_of


class Discretization(Configured):
    """Numbers to the number of the bin they lie in; a boundary belongs to the bin above it.

    Args:
        bin_boundaries: rising numbers; b of them make b + 1 bins.
        num_bins: instead of them, how many bins of equal weight `adapt` shall find.
        epsilon: accuracy of `adapt`: about 1 / epsilon values summarise the data.
        output_mode: ``int``, ``one_hot``, ``multi_hot`` or ``count``.
        sparse: accepted; the result is dense.

    >>> import kerasoft as ks
    >>> layer = ks.layers.Discretization(num_bins=4, epsilon=0.01)
    >>> layer.adapt(np.array([[-1.5, 1.0, 3.4, 0.5], [0.0, 3.0, 1.3, 0.0]]))
    >>> layer([[-1.5, 1.0, 3.4, 0.5], [0.0, 3.0, 1.3, 0.0]]).tolist()
    [[0, 2, 3, 2], [1, 3, 3, 1]]
    """

    def __init__(
        self,
        bin_boundaries=None,
        num_bins=None,
        epsilon=0.01,
        output_mode="int",
        sparse=False,
        dtype=None,
        name=None,
    ):
        super().__init__(name=name, dtype=dtype)
        if sparse and output_mode == "int":
            raise ValueError(
                "`sparse=True` may only be used if `output_mode` is `'one_hot'`, `'multi_hot'`, or `'count'`. "
                f"Received: sparse={sparse} and output_mode={output_mode}"
            )
        one_of(self, "output_mode", output_mode, ("int", "one_hot", "multi_hot", "count"))
        if num_bins is not None and num_bins < 0:
            raise ValueError(f"`num_bins` must be greater than or equal to 0. Received: `num_bins={num_bins}`")
        if num_bins is not None and bin_boundaries is not None:
            raise ValueError(
                "Both `num_bins` and `bin_boundaries` should not be set. "
                f"Received: `num_bins={num_bins}` and `bin_boundaries={bin_boundaries}`"
            )
        if num_bins is None and bin_boundaries is None:
            raise ValueError("You need to set either `num_bins` or `bin_boundaries`.")
        self.bin_boundaries, self.num_bins, self.epsilon = bin_boundaries, num_bins, epsilon
        self.output_mode, self.sparse = output_mode, sparse
        self.summary = None if bin_boundaries else empty()

    input_dtype = property(lambda self: dtypes.floatx())  # type: ignore[assignment]
    output_dtype = property(lambda self: "int32" if self.output_mode == "int" else self.compute_dtype)

    # --- adapt ---

    def adapt(self, data, steps=None, *, feature_cols=None):
        """Finds boundaries between bins of equal weight.

        Args:
            data: an array; an iterable of batches; an RDD of numbers or vectors, or of tuples that begin with one; or a
                DataFrame of numeric columns. RDDs and DataFrames are summarised on the executors: up to 262,144 numbers
                exactly as an array, more of them to about epsilon.
            steps: batches to take of an iterable.
            feature_cols: columns of a DataFrame.

        Raises:
            ValueError: the layer has boundaries of the user's.
        """
        if self.num_bins is None:
            raise ValueError(
                "Cannot adapt a Discretization layer that has been initialized with `bin_boundaries`, use `num_bins` "
                "instead."
            )
        self.reset_state()
        if is_spark(data):
            self._take_state(spark_state(data, *self._distributed_state(), steps, feature_cols))
        elif isinstance(data, np.ndarray) or not hasattr(data, "__iter__") or hasattr(data, "dtype"):
            self.update_state(data)
        else:
            for batch in batches_of(data, steps):
                self.update_state(batch)
        self.finalize_state()

    def _distributed_state(self):
        return fill_quantiles, Quantiles(self.epsilon)

    def _take_state(self, state: Quantiles) -> None:
        self.summary = state.result()

    def update_state(self, data):
        """Adds the numbers of a batch to the summary."""
        fresh = summarized(np.asarray(as_host(data)).astype("float32"), self.epsilon)
        self.summary = merged(fresh, self.summary, self.epsilon)

    def finalize_state(self):
        """Makes the boundaries of the summary."""
        if self.num_bins is not None:
            self.bin_boundaries = boundaries(self.summary, self.num_bins)

    def reset_state(self):
        """Forgets the numbers seen."""
        if self.num_bins is not None:
            self.summary = empty()

    # --- the call ---

    def _known_boundaries(self) -> np.ndarray:
        if self.bin_boundaries is None:
            raise ValueError(
                "You need to either pass the `bin_boundaries` argument at construction time or call `adapt(dataset)` "
                "before you can start using the `Discretization` layer."
            )
        return np.asarray(self.bin_boundaries, np.float32)

    def compute_output_shape(self, input_shape):
        shape = tuple(input_shape)
        if self.output_mode == "int":
            return input_shape
        depth = self.num_bins if self.bin_boundaries is None else len(self.bin_boundaries) + 1
        if self.output_mode == "one_hot":
            return (*(shape[:-1] if len(shape) > 1 and shape[-1] == 1 else shape), depth)
        return (shape[0], *shape[2:], depth) if len(shape) >= 2 else (depth,)

    def compute_output_spec(self, inputs):
        return KerasTensor(self.compute_output_shape(inputs.shape), dtype=self.output_dtype)

    def call(self, inputs):
        borders = self._known_boundaries()
        if borders.size:
            places = kernel("digitize")(ops.cast(inputs, "float32"), borders)
        else:
            places = ops.zeros_like(inputs, dtype="int32")
        return encode(ops.cast(places, "int32"), self.output_mode, borders.size + 1, self.output_dtype)

    def host_function(self):
        """The same in NumPy, for models that cross the bins with strings."""
        dtype = self.output_dtype if self.output_dtype != "bfloat16" else "float32"
        return functools.partial(binned, self._known_boundaries(), self.output_mode, dtype)

    # --- configuration and files ---

    def get_config(self):
        return {
            "bin_boundaries": self.bin_boundaries,
            "num_bins": self.num_bins,
            "epsilon": self.epsilon,
            "output_mode": self.output_mode,
            "sparse": self.sparse,
            "name": self.name,
            "dtype": self.dtype,
        }

    @classmethod
    def from_config(cls, config, custom_objects=None):
        config = dict(config)
        found = config.get("bin_boundaries")
        if found is None or config.get("num_bins") is None:
            return cls(**config)
        del config["bin_boundaries"]
        layer = cls(**config)
        layer.bin_boundaries = found
        return layer

    def load_own_variables(self, store):
        if "0" in store.keys():  # files of older versions of Keras
            self.summary = np.asarray(store["0"])

"""SparseDense: y = activation(x @ kernel + bias), for rows x that hold few numbers."""

from __future__ import annotations

from .. import ops
from .configured import Configured, keeps_shape, known, positive
from .input_spec import InputSpec


class SparseDense(Configured):
    """A fully connected layer on sparse rows: what `Dense` gives for the same rows, without making them dense.

    Forward, it adds up the kernel's rows that the columns of x name; backward, the kernel's gradient is those rows. In a fit
    a large kernel is updated by these rows only, with the numbers of an update of all of it (docs/design/0007): a kernel of
    a million rows costs what a batch touches. A `kernel_regularizer` or `kernel_constraint` reads all rows in each step.

    The input is an ``Input(shape=(n,), sparse=True)``, several of them through `Concatenate`, or what `Hashing`,
    `HashedCrossing`, `IntegerLookup`, `StringLookup` and `CategoryEncoding` give with ``sparse=True``. A dense input is
    taken too.

    Shapes: (batch, features) -> (batch, units).

    Args:
        units: size of the output's last axis, at least 1.
        activation: name or function; None means none.
        use_bias: whether a bias is added.

    Raises:
        ValueError: `units` is not a positive int; the input's last size is unknown.

    Source: SparseLinear and SparseDense of BigDL's Keras API, for the name; arguments are those of Keras's Dense.

    >>> import kerasoft as ks
    >>> ks.layers.SparseDense(3)(ks.Input((1000000,), sparse=True)).shape
    (None, 3)
    """

    def __init__(
        self,
        units,
        activation=None,
        use_bias=True,
        kernel_initializer="glorot_uniform",
        bias_initializer="zeros",
        kernel_regularizer=None,
        bias_regularizer=None,
        activity_regularizer=None,
        kernel_constraint=None,
        bias_constraint=None,
        **kwargs,
    ):
        if "input_dim" in kwargs:
            kwargs["input_shape"] = (kwargs.pop("input_dim"),)
        super().__init__(activity_regularizer=activity_regularizer, **kwargs)
        self.keep(
            units=positive(self, "units", units),
            activation=activation,
            use_bias=use_bias,
            kernel_initializer=kernel_initializer,
            bias_initializer=bias_initializer,
            kernel_regularizer=kernel_regularizer,
            bias_regularizer=bias_regularizer,
            kernel_constraint=kernel_constraint,
            bias_constraint=bias_constraint,
        )
        self.input_spec = InputSpec(ndim=2)
        self.autocast = False  # a cast of the rows would make them dense; a cast of the kernel would touch all of it

    def build(self, input_shape):
        features = known(self, input_shape, -1)
        self.kernel = self.weight("kernel", (features, self.units))
        self.bias = self.weight("bias", (self.units,)) if self.use_bias else None
        self.input_spec = InputSpec(ndim=2, axes={-1: features})

    def quick_shape(self, shape):
        return (*shape[:-1], self.units) if keeps_shape(self.activation) else None

    def call(self, inputs):
        x = ops.matmul(inputs, self.kernel)
        if self.bias is not None:
            x = ops.add(x, self.bias)
        x = ops.cast(x, self.compute_dtype)
        return x if self.activation is None else self.activation(x)

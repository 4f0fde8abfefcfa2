"""Convolutions: y = activation(conv(x, kernel) + bias). Conv, DepthwiseConv, SeparableConv, ConvTranspose."""

from __future__ import annotations

from .. import ops
from .configured import Configured, data_format_of, ints, keeps_shape, padding_of, window_shape
from .input_spec import InputSpec
from .lora import LowRank, low_rank


class Convolution(Configured):
    """Base of the convolutions: window arguments, bias and activation.

    Shapes: (batch, *spatial, channels) -> (batch, *spatial', filters); with ``data_format="channels_first"``
    (batch, channels, *spatial). ``"valid"`` spatial sizes are (n - dilation*(kernel-1) - 1) // stride + 1,
    ``"same"`` ones ceil(n / stride), ``"causal"`` ones (Conv1D) too, without looking at later steps.
    """

    rank: int
    paddings: tuple[str, ...] = ("valid", "same")

    def keep_window(self, kernel_size, strides, padding, data_format, dilation_rate, activation, use_bias):
        """Checks and keeps the arguments of the sliding window.

        Raises:
            ValueError: a size, stride or dilation that is no positive int; stride and dilation both above 1.
        """
        self.keep(
            kernel_size=ints("kernel_size", kernel_size, self.rank),
            strides=ints("strides", strides, self.rank),
            padding=padding_of(padding, self.paddings),
            data_format=data_format_of(data_format),
            dilation_rate=ints("dilation_rate", dilation_rate, self.rank),
            activation=activation,
            use_bias=use_bias,
        )
        if max(self.strides) > 1 and max(self.dilation_rate) > 1:
            raise ValueError(
                "`strides > 1` not supported in conjunction with `dilation_rate > 1`. "
                f"Received: strides={self.strides} and dilation_rate={self.dilation_rate}"
            )
        self.input_spec = InputSpec(min_ndim=self.rank + 2, max_ndim=self.rank + 2)

    @property
    def channel_axis(self) -> int:
        return -1 if self.data_format == "channels_last" else 1

    def channels_of(self, input_shape) -> int:
        """Number of input channels; fixes it for later calls.

        Raises:
            ValueError: it is unknown.
        """
        channels = input_shape[self.channel_axis]
        if not isinstance(channels, int):
            raise ValueError(
                f"{type(self).__name__} '{self.name}' needs a known number of channels (axis {self.channel_axis}), got "
                f"input shape {tuple(input_shape)}. Give Input a fixed size there."
            )
        self.input_spec = InputSpec(min_ndim=self.rank + 2, max_ndim=self.rank + 2, axes={self.channel_axis: channels})
        return channels

    def finish(self, x):
        """Adds the bias and applies the activation."""
        if self.bias is not None:
            bias = self.bias
            if self.data_format == "channels_first":
                bias = ops.reshape(bias, (1, bias.shape[0]) + (1,) * self.rank)
            x = ops.add(x, bias)
        return x if self.activation is None else self.activation(x)

    def get_config(self):
        return {"activity_regularizer": None, **super().get_config()}


def _filters(layer, filters, groups=1):
    if filters is not None and filters <= 0:
        raise ValueError(
            f"Invalid value for argument `filters`. Expected a strictly positive value. Received filters={filters}."
        )
    if groups <= 0:
        raise ValueError(f"The number of groups must be a positive integer. Received: groups={groups}.")
    if filters % groups:
        raise ValueError(
            "The number of filters must be evenly divisible by the number of groups. "
            f"Received: groups={groups}, filters={filters}."
        )
    return int(filters)


class Conv(LowRank, Convolution):
    """Base of Conv1D/2D/3D. Kernel: (*kernel_size, channels / groups, filters)."""

    kernel = low_rank("kernel")

    def __init__(
        self,
        filters,
        kernel_size,
        strides=1,
        padding="valid",
        data_format=None,
        dilation_rate=1,
        groups=1,
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
        lora = kwargs.pop("lora_rank", None), kwargs.pop("lora_alpha", None)
        super().__init__(activity_regularizer=activity_regularizer, **kwargs)
        self.keep_lora(*lora)
        self.keep(filters=_filters(self, filters, groups), groups=groups)
        self.keep_window(kernel_size, strides, padding, data_format, dilation_rate, activation, use_bias)
        self.keep(
            kernel_initializer=kernel_initializer,
            bias_initializer=bias_initializer,
            kernel_regularizer=kernel_regularizer,
            bias_regularizer=bias_regularizer,
            kernel_constraint=kernel_constraint,
            bias_constraint=bias_constraint,
        )

    def build(self, input_shape):
        channels = self.channels_of(input_shape)
        if channels % self.groups:
            raise ValueError(
                "The number of input channels must be evenly divisible by the number of groups. Received "
                f"groups={self.groups}, but the input has {channels} channels (full input shape is {input_shape}). "
                "Change `groups` or the number of channels."
            )
        self.kernel = self.weight("kernel", (*self.kernel_size, channels // self.groups, self.filters))
        self.bias = self.weight("bias", (self.filters,)) if self.use_bias else None
        self.build_lora()

    def quick_shape(self, shape):
        return window_shape(self, shape, self.kernel_size, self.filters) if keeps_shape(self.activation) else None

    def call(self, inputs):
        x = ops.conv(inputs, self.kernel, self.strides, self.padding, self.data_format, self.dilation_rate)
        return self.finish(x)


class Conv1D(Conv):
    """Convolution over steps; ``padding="causal"`` keeps step t from seeing later ones.

    >>> import kerasoft as ks
    >>> ks.layers.Conv1D(8, 3, padding="causal")(ks.Input((20, 4))).shape
    (None, 20, 8)
    """

    rank = 1
    paddings = ("valid", "same", "causal")


class Conv2D(Conv):
    """Convolution over images.

    >>> import kerasoft as ks
    >>> ks.layers.Conv2D(8, 3, strides=2, padding="same", activation="relu")(ks.Input((28, 28, 1))).shape
    (None, 14, 14, 8)
    """

    rank = 2
    DEFAULTS = {"strides": (1, 1), "dilation_rate": (1, 1)}


class Conv3D(Conv):
    """Convolution over volumes."""

    rank = 3
    DEFAULTS = {"strides": (1, 1, 1), "dilation_rate": (1, 1, 1)}


class DepthwiseConv(Convolution):
    """Base of DepthwiseConv1D/2D: each channel by its own filters.

    Kernel: (*kernel_size, channels, depth_multiplier); output channel c*depth_multiplier + m.
    """

    def __init__(
        self,
        kernel_size,
        strides=1,
        padding="valid",
        depth_multiplier=1,
        data_format=None,
        dilation_rate=1,
        activation=None,
        use_bias=True,
        depthwise_initializer="glorot_uniform",
        bias_initializer="zeros",
        depthwise_regularizer=None,
        bias_regularizer=None,
        activity_regularizer=None,
        depthwise_constraint=None,
        bias_constraint=None,
        **kwargs,
    ):
        super().__init__(activity_regularizer=activity_regularizer, **kwargs)
        self.keep(depth_multiplier=_depth_multiplier(depth_multiplier))
        self.keep_window(kernel_size, strides, padding, data_format, dilation_rate, activation, use_bias)
        self.keep(
            depthwise_initializer=depthwise_initializer,
            bias_initializer=bias_initializer,
            depthwise_regularizer=depthwise_regularizer,
            bias_regularizer=bias_regularizer,
            depthwise_constraint=depthwise_constraint,
            bias_constraint=bias_constraint,
        )

    def build(self, input_shape):
        channels = self.channels_of(input_shape)
        self.kernel = self.weight("kernel", (*self.kernel_size, channels, self.depth_multiplier), "depthwise")
        self.bias = self.weight("bias", (channels * self.depth_multiplier,)) if self.use_bias else None

    def call(self, inputs):
        x = ops.depthwise_conv(inputs, self.kernel, self.strides, self.padding, self.data_format, self.dilation_rate)
        return self.finish(x)


class DepthwiseConv1D(DepthwiseConv):
    """Each channel of a sequence convolved by its own filters."""

    rank = 1


class DepthwiseConv2D(DepthwiseConv):
    """Each channel of an image convolved by its own filters."""

    rank = 2
    DEFAULTS = {"strides": (1, 1), "dilation_rate": (1, 1)}


class SeparableConv(Convolution):
    """Base of SeparableConv1D/2D: a depthwise convolution, then a 1x1 convolution that mixes the channels.

    Kernels: (*kernel_size, channels, depth_multiplier) and (1, ..., channels * depth_multiplier, filters).
    """

    def __init__(
        self,
        filters,
        kernel_size,
        strides=1,
        padding="valid",
        data_format=None,
        dilation_rate=1,
        depth_multiplier=1,
        activation=None,
        use_bias=True,
        depthwise_initializer="glorot_uniform",
        pointwise_initializer="glorot_uniform",
        bias_initializer="zeros",
        depthwise_regularizer=None,
        pointwise_regularizer=None,
        bias_regularizer=None,
        activity_regularizer=None,
        depthwise_constraint=None,
        pointwise_constraint=None,
        bias_constraint=None,
        **kwargs,
    ):
        super().__init__(activity_regularizer=activity_regularizer, **kwargs)
        self.keep(depth_multiplier=_depth_multiplier(depth_multiplier), filters=_filters(self, filters))
        self.keep_window(kernel_size, strides, padding, data_format, dilation_rate, activation, use_bias)
        self.keep(
            depthwise_initializer=depthwise_initializer,
            pointwise_initializer=pointwise_initializer,
            bias_initializer=bias_initializer,
            depthwise_regularizer=depthwise_regularizer,
            pointwise_regularizer=pointwise_regularizer,
            bias_regularizer=bias_regularizer,
            depthwise_constraint=depthwise_constraint,
            pointwise_constraint=pointwise_constraint,
            bias_constraint=bias_constraint,
        )

    def build(self, input_shape):
        channels = self.channels_of(input_shape)
        middle = channels * self.depth_multiplier
        self.depthwise_kernel = self.weight(
            "depthwise_kernel", (*self.kernel_size, channels, self.depth_multiplier), "depthwise"
        )
        self.pointwise_kernel = self.weight("pointwise_kernel", (1,) * self.rank + (middle, self.filters), "pointwise")
        self.bias = self.weight("bias", (self.filters,)) if self.use_bias else None

    def call(self, inputs):
        x = ops.depthwise_conv(
            inputs, self.depthwise_kernel, self.strides, self.padding, self.data_format, self.dilation_rate
        )
        return self.finish(ops.conv(x, self.pointwise_kernel, 1, "valid", self.data_format))


class SeparableConv1D(SeparableConv):
    """Depthwise, then pointwise convolution over steps."""

    rank = 1


class SeparableConv2D(SeparableConv):
    """Depthwise, then pointwise convolution over images."""

    rank = 2
    DEFAULTS = {"strides": (1, 1), "dilation_rate": (1, 1)}


class ConvTranspose(Convolution):
    """Base of Conv1D/2D/3DTranspose: the gradient of a convolution, as a layer that enlarges.

    Kernel: (*kernel_size, filters, channels). Spatial sizes: ``"same"`` n * stride, ``"valid"``
    (n - 1) * stride + max(kernel, stride), and as Keras computes them when `output_padding` is given.
    """

    def __init__(
        self,
        filters,
        kernel_size,
        strides=1,
        padding="valid",
        output_padding=None,
        data_format=None,
        dilation_rate=1,
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
        super().__init__(activity_regularizer=activity_regularizer, **kwargs)
        if output_padding is not None:
            output_padding = ints("output_padding", output_padding, self.rank, allow_zero=True)
        self.keep(filters=_filters(self, filters), output_padding=output_padding)
        self.keep_window(kernel_size, strides, padding, data_format, dilation_rate, activation, use_bias)
        if output_padding is not None and any(p >= s for p, s in zip(output_padding, self.strides, strict=True)):
            raise ValueError(
                "`output_padding` must be strictly less than `strides` for all dimensions. "
                f"Received: output_padding={output_padding}, strides={self.strides}"
            )
        self.keep(
            kernel_initializer=kernel_initializer,
            bias_initializer=bias_initializer,
            kernel_regularizer=kernel_regularizer,
            bias_regularizer=bias_regularizer,
            kernel_constraint=kernel_constraint,
            bias_constraint=bias_constraint,
        )

    def build(self, input_shape):
        channels = self.channels_of(input_shape)
        self.kernel = self.weight("kernel", (*self.kernel_size, self.filters, channels))
        self.bias = self.weight("bias", (self.filters,)) if self.use_bias else None

    def call(self, inputs):
        x = ops.conv_transpose(
            inputs,
            self.kernel,
            self.strides,
            self.padding,
            self.output_padding,
            self.data_format,
            self.dilation_rate,
        )
        return self.finish(x)


class Conv1DTranspose(ConvTranspose):
    """Transposed convolution over steps."""

    rank = 1


class Conv2DTranspose(ConvTranspose):
    """Transposed convolution over images.

    >>> import kerasoft as ks
    >>> ks.layers.Conv2DTranspose(4, 3, strides=2, padding="same")(ks.Input((7, 7, 8))).shape
    (None, 14, 14, 4)
    """

    rank = 2
    DEFAULTS = {"strides": (1, 1), "dilation_rate": (1, 1)}


class Conv3DTranspose(ConvTranspose):
    """Transposed convolution over volumes; `output_padding` comes after `data_format`, as in Keras."""

    rank = 3

    def __init__(
        self,
        filters,
        kernel_size,
        strides=(1, 1, 1),
        padding="valid",
        data_format=None,
        output_padding=None,
        dilation_rate=(1, 1, 1),
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
        super().__init__(
            filters,
            kernel_size,
            strides,
            padding,
            output_padding,
            data_format,
            dilation_rate,
            activation,
            use_bias,
            kernel_initializer,
            bias_initializer,
            kernel_regularizer,
            bias_regularizer,
            activity_regularizer,
            kernel_constraint,
            bias_constraint,
            **kwargs,
        )


def _depth_multiplier(value):
    if value is None or value <= 0:
        raise ValueError(
            "Invalid value for argument `depth_multiplier`. Expected a strictly positive value. "
            f"Received depth_multiplier={value}."
        )
    return int(value)

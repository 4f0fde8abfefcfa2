"""Texts of errors: bad constructor arguments, and inputs that do not fit."""

import numpy as np
import pytest

import kerasoft as ks
from kerasoft import layers as L


def on(layer, *shapes):
    inputs = [ks.Input(s) for s in shapes]
    return layer(inputs if len(inputs) > 1 else inputs[0])


class Grows(L.Layer):
    def call(self, x, flag=None):
        self.w = self.add_weight(shape=())
        return x


CASES = [
    (lambda: L.Dense(0), "invalid value for `units`, expected a positive integer. Received: units=0 .layer Dense."),
    (lambda: L.Dense(2.5), "invalid value for `units`, expected a positive integer. Received: units=2.5"),
    (lambda: L.Dense(2, "tnah"), "Could not interpret activation function identifier: tnah"),
    (lambda: L.Dense(2).enable_lora(3), "Cannot enable lora on a layer that isn't yet built."),
    (lambda: L.Dense(2, units_=3), r"Unrecognized keyword arguments passed to Dense: \{'units_': 3\}"),
    (
        lambda: on(L.Dense(2, name="head"), (None,)),
        r"Dense 'head' needs a known size of axis -1, got input shape \(None, None\). Give Input a fixed size there.",
    ),
    (lambda: L.Embedding(0, 3), "`input_dim` must be a positive integer. Received: input_dim=0 .of type int."),
    (lambda: L.ReLU(negative_slope=-1.0), "negative_slope of a ReLU layer cannot be None or a negative value"),
    (lambda: L.LeakyReLU(None), "negative_slope value of a Leaky ReLU layer cannot be None or negative"),
    (lambda: L.Permute((1, 3)), r"consecutive and start from 1. Received dims=\(1, 3\)"),
    (lambda: L.Reshape((-1, -1)), r"at most one unknown dimension in target_shape. Received: target_shape=\(-1, -1\)"),
    (
        lambda: on(L.Reshape((3, 3), name="r"), (8,)),
        r"total size of the tensor must be unchanged. Received: input_shape=\(8,\), target_shape=\(3, 3\) \(layer 'r'\)",
    ),
    (lambda: on(L.Reshape((3, -1)), (8,)), r"must be unchanged. Received: input_shape=\(8,\), target_shape=\(3, -1\)"),
    (lambda: L.Conv2D(0, 3), "Invalid value for argument `filters`. Expected a strictly positive value. Received filters=0"),
    (lambda: L.Conv2D(4, 3, groups=3), "filters must be evenly divisible by the number of groups. .*groups=3, filters=4"),
    (lambda: L.Conv2D(4, (3, 3, 3)), r"`kernel_size` argument must be a tuple of 2 integers. Received kernel_size=\(3, 3, 3\)"),
    (lambda: L.Conv2D(4, 0), "`kernel_size` argument must be a tuple of 2 integers. Received kernel_size=0, including values \\{0\\} that do not satisfy `value > 0`"),
    (lambda: L.Conv2D(4, 3, strides=2, dilation_rate=2), "`strides > 1` not supported in conjunction with `dilation_rate > 1`"),
    (lambda: L.Conv2D(4, 3, padding="causal"), "`padding` argument must be one of .* Received: padding=causal"),
    (lambda: L.Conv2D(4, 3, data_format="last"), "`data_format` argument must be one of .* Received: data_format=last"),
    (lambda: on(L.Conv2D(4, 3, name="c"), (8, 8, None)), r"Conv2D 'c' needs a known number of channels \(axis -1\)"),
    (lambda: on(L.Conv2D(4, 3, groups=2), (8, 8, 3)), "input channels must be evenly divisible .* groups=2, but the input has 3"),
    (lambda: on(L.Conv2D(4, 3), (8, 8)), "expected min_ndim=4, found ndim=3"),
    (lambda: L.Conv2DTranspose(4, 3, strides=2, output_padding=2), "`output_padding` must be strictly less than `strides`"),
    (lambda: L.DepthwiseConv2D(3, depth_multiplier=0), "argument `depth_multiplier`. Expected a strictly positive value"),
    (lambda: L.MaxPooling2D(padding="full"), "`padding` argument must be one of .* Received: padding=full"),
    (lambda: L.ZeroPadding2D((1, 2, 3)), r"`padding` should have two elements. Received: padding=\(1, 2, 3\)"),
    (lambda: on(L.Cropping1D(3), (5, 2)), r"`cropping` parameter of `Cropping1D` layer must be smaller .* input_shape=.*5, 2\), cropping=\(3, 3\)"),
    (lambda: on(L.Add(), (3, 4), (3, 5)), r"Inputs have incompatible shapes. Received shapes \(3, 4\) and \(3, 5\)"),
    (lambda: on(L.Add(), (3,)), "A merge layer should be called on a list of inputs."),
    (lambda: on(L.Subtract(), (3,), (3,), (3,)), "A `Subtract` layer should be called on exactly 2 inputs."),
    (lambda: on(L.Concatenate(), (3, 4), (2, 4)), "requires inputs with matching shapes except for the concatenation axis"),
    (lambda: on(L.Dot(axes=1), (3,), (4,)), r"Incompatible input shapes: axis values 3 \(at axis 1\) != 4 \(at axis 1\)"),
    (lambda: on(L.Dot(axes=(0, 1)), (3,), (3,)), r"cannot contract the batch axis. Received: axes=\(0, 1\)"),
    (lambda: L.Dot(axes=(1, 2, 3)), "it should contain two elements"),
    (lambda: L.Softmax()(np.ones((2, 3)), mask=np.ones((2, 2), bool)), "The `mask` must be broadcastable to `inputs`"),
    (lambda: L.Dense(2, trainable=1), "Expected `trainable` to be a boolean. Received: trainable=1"),
    (lambda: L.Dense.from_config({"units": 0}), "Error when deserializing class 'Dense' using config=.'units': 0."),
    (lambda: L.Layer().add_weight("w"), "`name` must be passed as a keyword argument. Received: add_weight\\('w', ...\\)"),
    (lambda: Grows()(np.ones(3)), "You cannot add new elements of state .* to a layer that is already built."),
    (lambda: Grows()(np.ones(3), True), "Only input tensors may be passed as positional arguments. .* keyword argument: True"),
    (lambda: L.Add().compute_mask([1, 2], np.ones(2)), "`mask` should be a list. Received: mask="),
    (lambda: L.Add().compute_mask(1, [None, None]), "`inputs` should be a list. Received: inputs=1"),
    (lambda: L.Concatenate().compute_mask([1, 2], [None]), "should have the same length. .* length 2, and .* length 1"),
    (
        lambda: L.TimeDistributed(L.Dense(1))(np.ones((4, 5, 3)), mask=np.ones((4, 6), bool)),
        r"mask.* has a shape \(4, 6\) that is incompatible with the input shape \(4, 5, 3\).* prefix: \(4, 5\)",
    ),
    (lambda: on(L.GroupNormalization(groups=3), (4,)), r"Number of groups \(3\) must be a multiple of the number of channels \(4\)"),
    (lambda: on(L.LayerNormalization(axis=2), (4,)), r"Axis 2 is out of bounds for input shape \(None, 4\)"),
    (lambda: L.EinsumDense("ab->ac", 3), "Invalid einsum equation 'ab->ac'"),
    (lambda: L.Attention(score_mode="sum"), "Expected one of {'dot', 'concat'}. Received: score_mode=sum"),
    (lambda: on(L.Attention(), (3, 4)), "Attention layer must be called on a list of inputs"),
    (lambda: L.MultiHeadAttention(0, 2), "invalid value for argument `num_heads`, expected a positive integer. Received: num_heads=0"),
    (lambda: L.MultiHeadAttention(2, 3, sliding_window=0), "`sliding_window` must be `None` or a positive integer. Received: sliding_window=0"),
]  # fmt: skip


@pytest.mark.parametrize("number", range(len(CASES)))
def test_errors(number):
    make, text = CASES[number]
    with pytest.raises(ValueError, match=text):
        make()


def test_a_wrong_type():
    with pytest.raises(TypeError, match="Expected an integer value for `n`, got <class 'float'>"):
        L.RepeatVector(2.0)
    with pytest.raises(TypeError, match="Expected an int or a list/tuple of ints for the argument 'axis'"):
        L.LayerNormalization(axis="last")


def test_a_built_layer_names_the_axis_that_changed():
    layer = L.Dense(2, name="head")
    layer(np.ones((1, 4), "float32"))
    with pytest.raises(ValueError, match=r'layer "head" is incompatible .* axis -1 .* value 4, .* shape \(2, 5\)'):
        layer(np.ones((2, 5), "float32"))

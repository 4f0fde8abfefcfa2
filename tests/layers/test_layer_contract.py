"""Every public layer against Keras: same config, weights, symbolic shapes, outputs and gradients.

`ROWS` holds one row (or several) for each public layer: how to make it (`make` gets `keras.layers` or
`kerasoft.layers` as L) and the shapes of its inputs without the batch.
"""

import dataclasses
import functools
import re
from collections.abc import Callable

import jax
import jax.numpy as jnp
import keras
import numpy as np
import pytest
from kerasoft.compiler.gradient import gradient
from kerasoft.compiler.ir import Graph, symbol
from kerasoft.compiler.lower import function
from kerasoft.compiler.ops.registry import constant, input_node

import kerasoft as ks
from kerasoft import layers, ops, tree
from kerasoft.layers import image
from kerasoft.scope import Scope


@dataclasses.dataclass
class Row:
    name: str
    make: Callable
    shapes: tuple
    ints: int = 0
    call: dict = dataclasses.field(default_factory=dict)
    trains: bool = False
    gradient: bool = True
    without: tuple = ()

    @property
    def several(self):
        return isinstance(self.shapes, list)


def row(name, make, *shapes, **options):
    return Row(name, make, shapes, **options)


def merge(name, make, *shapes, **options):
    return Row(name, make, list(shapes), **options)


@ks.saving.register_keras_serializable("tests")
@keras.saving.register_keras_serializable("tests")
def named_function(x, factor=2.0):
    return x * factor + 1.0


IMAGE, STEPS = (6, 5, 4), (6, 4)

ROWS = [
    # core
    row("Dense", lambda L: L.Dense(3), (4,)),
    row("Dense", lambda L: L.Dense(3, activation="tanh", use_bias=False, kernel_regularizer="l2"), (2, 3, 4)),
    row("EinsumDense", lambda L: L.EinsumDense("ab...,bc->ac...", 3, bias_axes="c"), (4, 2)),
    row("EinsumDense", lambda L: L.EinsumDense("abc,cd->abd", (None, 3), bias_axes="d", activation="relu"), (2, 4)),
    row("EinsumDense", lambda L: L.EinsumDense("...ab,bc->...ac", (None, 3)), (2, 3, 4)),
    row("Dense", lambda L: L.Dense(3, lora_rank=2), (4,)),
    row("EinsumDense", lambda L: L.EinsumDense("abc,cde->abde", (2, 3, 2), bias_axes="e", lora_rank=2, lora_alpha=4), (2, 4)),
    row("Embedding", lambda L: L.Embedding(7, 3, lora_rank=2), (5,), ints=7),
    row("Activation", lambda L: L.Activation("silu"), (4,)),
    row("Identity", lambda L: L.Identity(), (4,)),
    row("Rescaling", lambda L: L.Rescaling(0.5, offset=1.0), (4,)),
    row("Rescaling", lambda L: L.Rescaling([0.5, 2.0], [1.0, 0.0]), (3, 2)),
    row("Embedding", lambda L: L.Embedding(7, 3), (5,), ints=7),
    row("Embedding", lambda L: L.Embedding(7, 3, mask_zero=True, embeddings_initializer="ones"), (2, 5), ints=7),
    row("Masking", lambda L: L.Masking(mask_value=0.5), (3, 4), gradient=False),
    row("ActivityRegularization", lambda L: L.ActivityRegularization(l1=0.1, l2=0.2), (4,)),
    # activations
    row("ReLU", lambda L: L.ReLU(), (4,)),
    row("ReLU", lambda L: L.ReLU(max_value=1.0, negative_slope=0.1, threshold=0.2), (4,)),
    row("LeakyReLU", lambda L: L.LeakyReLU(), (4,)),
    row("LeakyReLU", lambda L: L.LeakyReLU(negative_slope=0.1), (4,)),
    row("ELU", lambda L: L.ELU(alpha=0.7), (4,)),
    row("PReLU", lambda L: L.PReLU(), (4,)),
    row("PReLU", lambda L: L.PReLU(alpha_initializer="ones", shared_axes=[1, 2]), IMAGE),
    row("Softmax", lambda L: L.Softmax(), (4,)),
    row("Softmax", lambda L: L.Softmax(axis=(1, 2)), (3, 4)),
    # reshaping
    row("Flatten", lambda L: L.Flatten(), (2, 3, 4)),
    row("Flatten", lambda L: L.Flatten(data_format="channels_first"), (2, 3, 4)),
    row("Flatten", lambda L: L.Flatten(), ()),
    row("Reshape", lambda L: L.Reshape((3, 2)), (6,)),
    row("Reshape", lambda L: L.Reshape((2, -1)), (3, 4)),
    row("Permute", lambda L: L.Permute((2, 1)), (3, 4)),
    row("RepeatVector", lambda L: L.RepeatVector(3), (4,)),
    row("ZeroPadding1D", lambda L: L.ZeroPadding1D((1, 2)), STEPS),
    row("ZeroPadding2D", lambda L: L.ZeroPadding2D(((1, 0), (2, 1))), IMAGE),
    row("ZeroPadding2D", lambda L: L.ZeroPadding2D(2, data_format="channels_first"), IMAGE),
    row("ZeroPadding3D", lambda L: L.ZeroPadding3D((1, 0, 2)), (2, 3, 2, 2)),
    row("Cropping1D", lambda L: L.Cropping1D((1, 2)), STEPS),
    row("Cropping2D", lambda L: L.Cropping2D(((1, 0), (2, 1))), IMAGE),
    row("Cropping3D", lambda L: L.Cropping3D(1), (3, 4, 3, 2)),
    row("UpSampling1D", lambda L: L.UpSampling1D(3), STEPS),
    row("UpSampling2D", lambda L: L.UpSampling2D((2, 3)), IMAGE),
    row("UpSampling2D", lambda L: L.UpSampling2D(2, data_format="channels_first"), IMAGE),
    row("UpSampling2D", lambda L: L.UpSampling2D((2, 3), interpolation="bilinear"), IMAGE),
    row("UpSampling2D", lambda L: L.UpSampling2D(2, "channels_first", "lanczos3"), IMAGE),
    row("AdaptiveAveragePooling1D", lambda L: L.AdaptiveAveragePooling1D(3), STEPS),
    row("AdaptiveAveragePooling2D", lambda L: L.AdaptiveAveragePooling2D((3, 2)), IMAGE),
    row("AdaptiveAveragePooling3D", lambda L: L.AdaptiveAveragePooling3D(2, "channels_first"), (2, 3, 4, 3)),
    row("AdaptiveMaxPooling1D", lambda L: L.AdaptiveMaxPooling1D(3, data_format="channels_first"), STEPS),
    row("AdaptiveMaxPooling2D", lambda L: L.AdaptiveMaxPooling2D(4), IMAGE),
    row("AdaptiveMaxPooling3D", lambda L: L.AdaptiveMaxPooling3D((2, 3, 1)), (3, 4, 3, 2)),
    row("UpSampling3D", lambda L: L.UpSampling3D((1, 2, 1)), (2, 3, 2, 2)),
    # convolutions
    row("Conv1D", lambda L: L.Conv1D(3, 3, padding="causal", dilation_rate=2, activation="relu"), STEPS),
    row("Conv1D", lambda L: L.Conv1D(3, 2, strides=2, use_bias=False), STEPS),
    row("Conv2D", lambda L: L.Conv2D(3, 3, strides=2, padding="same"), IMAGE),
    row("Conv2D", lambda L: L.Conv2D(4, (3, 2), groups=2, dilation_rate=2, activation="tanh"), IMAGE),
    row("Conv2D", lambda L: L.Conv2D(3, 2, data_format="channels_first", padding="same"), (4, 6, 5)),
    row("Conv3D", lambda L: L.Conv3D(2, 2, padding="same", kernel_regularizer="l2"), (3, 3, 2, 2)),
    row("DepthwiseConv1D", lambda L: L.DepthwiseConv1D(3, depth_multiplier=2), STEPS),
    row("DepthwiseConv2D", lambda L: L.DepthwiseConv2D(3, strides=2, padding="same", depth_multiplier=2), IMAGE),
    row("SeparableConv1D", lambda L: L.SeparableConv1D(3, 3, padding="same"), STEPS),
    row("SeparableConv2D", lambda L: L.SeparableConv2D(3, 2, depth_multiplier=2, activation="relu"), IMAGE),
    row("Conv1DTranspose", lambda L: L.Conv1DTranspose(3, 3, strides=2), STEPS),
    row("Conv2DTranspose", lambda L: L.Conv2DTranspose(3, 3, strides=2, padding="same", output_padding=1), IMAGE),
    row("Conv2DTranspose", lambda L: L.Conv2DTranspose(3, 2, strides=3), IMAGE),
    row("Conv3DTranspose", lambda L: L.Conv3DTranspose(2, 2, padding="same"), (2, 3, 2, 2)),
    # pooling
    row("MaxPooling1D", lambda L: L.MaxPooling1D(3, strides=2, padding="same"), STEPS),
    row("MaxPooling2D", lambda L: L.MaxPooling2D(), IMAGE),
    row("MaxPooling2D", lambda L: L.MaxPooling2D((3, 2), strides=1, padding="same", data_format="channels_first"), IMAGE),
    row("MaxPooling3D", lambda L: L.MaxPooling3D(2), (4, 3, 2, 2)),
    row("AveragePooling1D", lambda L: L.AveragePooling1D(2), STEPS),
    row("AveragePooling2D", lambda L: L.AveragePooling2D(3, strides=2, padding="same"), IMAGE),
    row("AveragePooling3D", lambda L: L.AveragePooling3D(2, padding="same"), (3, 3, 2, 2)),
    row("GlobalMaxPooling1D", lambda L: L.GlobalMaxPooling1D(), STEPS),
    row("GlobalMaxPooling2D", lambda L: L.GlobalMaxPooling2D(keepdims=True), IMAGE),
    row("GlobalMaxPooling3D", lambda L: L.GlobalMaxPooling3D(), (2, 3, 2, 2)),
    row("GlobalAveragePooling1D", lambda L: L.GlobalAveragePooling1D(keepdims=True), STEPS),
    row("GlobalAveragePooling2D", lambda L: L.GlobalAveragePooling2D(data_format="channels_first"), IMAGE),
    row("GlobalAveragePooling3D", lambda L: L.GlobalAveragePooling3D(), (2, 3, 2, 2)),
    # normalisation
    row("BatchNormalization", lambda L: L.BatchNormalization(), (4,), trains=True),
    row("BatchNormalization", lambda L: L.BatchNormalization(axis=1, momentum=0.8, scale=False), (3, 4), trains=True),
    row("BatchNormalization", lambda L: L.BatchNormalization(center=False, epsilon=0.1), IMAGE, trains=True),
    row("BatchNormalization", lambda L: L.BatchNormalization(renorm=True, renorm_clipping={"rmax": 2.0, "dmax": 0.5}), (4,), trains=True),
    row("LayerNormalization", lambda L: L.LayerNormalization(), (4,)),
    row("LayerNormalization", lambda L: L.LayerNormalization(axis=[1, 2], center=False), (3, 4)),
    row("GroupNormalization", lambda L: L.GroupNormalization(groups=2), IMAGE),
    row("GroupNormalization", lambda L: L.GroupNormalization(groups=-1, axis=1), (4, 3, 2)),
    row("RMSNormalization", lambda L: L.RMSNormalization(), (3, 4)),
    row("UnitNormalization", lambda L: L.UnitNormalization(), (3, 4)),
    row("UnitNormalization", lambda L: L.UnitNormalization(axis=[1, 2]), (3, 4)),
    # noise: nothing happens outside of training
    row("Dropout", lambda L: L.Dropout(0.5, noise_shape=(None, 1), seed=3), (4,)),
    row("SpatialDropout1D", lambda L: L.SpatialDropout1D(0.5), STEPS),
    row("SpatialDropout2D", lambda L: L.SpatialDropout2D(0.5), IMAGE),
    row("SpatialDropout3D", lambda L: L.SpatialDropout3D(0.5), (2, 3, 2, 2)),
    row("GaussianNoise", lambda L: L.GaussianNoise(0.5), (4,)),
    row("GaussianDropout", lambda L: L.GaussianDropout(0.5), (4,)),
    row("AlphaDropout", lambda L: L.AlphaDropout(0.5), (4,)),
    # merging
    merge("Add", lambda L: L.Add(), (3, 4), (3, 4), (3, 4)),
    merge("Add", lambda L: L.Add(), (4,), (3, 4)),
    merge("Subtract", lambda L: L.Subtract(), (3, 4), (3, 1)),
    merge("Multiply", lambda L: L.Multiply(), (4,), (4,)),
    merge("Average", lambda L: L.Average(), (4,), (4,), (4,)),
    merge("Maximum", lambda L: L.Maximum(), (4,), (4,)),
    merge("Minimum", lambda L: L.Minimum(), (4,), (4,)),
    merge("Concatenate", lambda L: L.Concatenate(), (3, 4), (3, 2)),
    merge("Concatenate", lambda L: L.Concatenate(axis=1), (3, 4), (1, 4), (2, 4)),
    merge("Dot", lambda L: L.Dot(axes=1), (4,), (4,)),
    merge("Dot", lambda L: L.Dot(axes=(2, 1), normalize=True), (3, 4), (4, 2)),
    merge("Dot", lambda L: L.Dot(axes=-1), (2, 3, 4), (5, 4)),
    # recurrent
    row("SimpleRNN", lambda L: L.SimpleRNN(3), STEPS),
    row("SimpleRNN", lambda L: L.SimpleRNN(3, activation="relu", return_sequences=True, go_backwards=True), STEPS),
    row("LSTM", lambda L: L.LSTM(3), STEPS),
    row("LSTM", lambda L: L.LSTM(3, return_sequences=True, return_state=True, go_backwards=True), STEPS),
    row("LSTM", lambda L: L.LSTM(3, activation="relu", recurrent_activation="hard_sigmoid", use_bias=False), STEPS),
    row("LSTM", lambda L: L.LSTM(3, unit_forget_bias=False, unroll=True, return_state=True), STEPS),
    row("GRU", lambda L: L.GRU(3), STEPS),
    row("GRU", lambda L: L.GRU(3, reset_after=False, return_sequences=True, return_state=True), STEPS),
    row("GRU", lambda L: L.GRU(3, use_bias=False, activation="softsign", go_backwards=True), STEPS),
    row("RNN", lambda L: L.RNN(L.LSTMCell(3), return_sequences=True), STEPS),
    row("RNN", lambda L: L.RNN([L.LSTMCell(3), L.GRUCell(2)], return_state=True), STEPS),
    row("StackedRNNCells", lambda L: L.RNN(L.StackedRNNCells([L.SimpleRNNCell(3), L.GRUCell(2)])), STEPS),
    row("SimpleRNNCell", lambda L: L.RNN(L.SimpleRNNCell(3, use_bias=False)), STEPS),
    row("LSTMCell", lambda L: L.RNN(L.LSTMCell(3, unit_forget_bias=False, use_bias=False)), STEPS),
    row("GRUCell", lambda L: L.RNN(L.GRUCell(3, reset_after=False)), STEPS),
    row("Bidirectional", lambda L: L.Bidirectional(L.LSTM(3)), STEPS),
    row("Bidirectional", lambda L: L.Bidirectional(L.GRU(3, return_sequences=True), merge_mode="sum"), STEPS),
    row("Bidirectional", lambda L: L.Bidirectional(L.SimpleRNN(3, return_sequences=True), merge_mode="mul"), STEPS),
    row("Bidirectional", lambda L: L.Bidirectional(L.LSTM(3, return_state=True), merge_mode="ave"), STEPS),
    row("Bidirectional", lambda L: L.Bidirectional(L.GRU(3), merge_mode=None), STEPS),
    row("TimeDistributed", lambda L: L.TimeDistributed(L.Dense(3, activation="relu")), STEPS),
    row("TimeDistributed", lambda L: L.TimeDistributed(L.Conv2D(2, 2)), (3, 4, 4, 2)),
    # attention
    merge("Attention", lambda L: L.Attention(use_scale=True), (3, 4), (5, 4)),
    merge("Attention", lambda L: L.Attention(score_mode="concat"), (3, 4), (5, 4), (5, 4), call={"use_causal_mask": True}),
    merge("AdditiveAttention", lambda L: L.AdditiveAttention(), (3, 4), (5, 4)),
    row("MultiHeadAttention", lambda L: L.MultiHeadAttention(2, 3), (3, 4), (5, 6)),
    row("MultiHeadAttention", lambda L: L.MultiHeadAttention(2, 3, value_dim=2, output_shape=5, use_bias=False, dropout=0.1), (3, 4), (3, 4),
        call={"use_causal_mask": True}),
    row("MultiHeadAttention", lambda L: L.MultiHeadAttention(2, 3, attention_axes=(1, 2), use_gate=True, output_shape=(2, 3)), (2, 3, 4), (2, 3, 4)),
    row("MultiHeadAttention", lambda L: L.MultiHeadAttention(2, 3, sliding_window=2), (5, 4), (5, 4), call={"return_attention_scores": True}),
    row("GroupQueryAttention", lambda L: L.GroupQueryAttention(3, 4, 2, use_gate=True), (3, 4), (3, 4), call={"use_causal_mask": True}),
    row("GroupQueryAttention", lambda L: L.GroupQueryAttention(3, 4, 2, sliding_window=2, use_bias=False), (3, 4), (3, 4)),
    # functions, wrappers, convolutional recurrence
    row("Lambda", lambda L: L.Lambda(named_function, arguments={"factor": 3.0}), (4,)),
    row("SpectralNormalization", lambda L: L.SpectralNormalization(L.Dense(3), 2), (4,), trains=True),
    row("ReversibleEmbedding", lambda L: L.ReversibleEmbedding(7, 3, mask_zero=True), (5,), ints=7),
    row("ReversibleEmbedding", lambda L: L.ReversibleEmbedding(7, 4, logit_soft_cap=2.0), (5, 4), call={"reverse": True}),
    row("ConvLSTM1D", lambda L: L.ConvLSTM1D(2, 2, dilation_rate=2, use_bias=False, activation="relu"), (3, 5, 2)),
    row("ConvLSTM2D", lambda L: L.ConvLSTM2D(2, 3, padding="same", return_state=True, unit_forget_bias=False), (3, 3, 4, 2)),
    row("ConvLSTM2D", lambda L: L.ConvLSTM2D(2, 2, strides=2, return_sequences=True, go_backwards=True), (3, 5, 4, 2)),
    row("ConvLSTM3D", lambda L: L.ConvLSTM3D(1, 2), (2, 2, 3, 2, 2)),
]  # fmt: skip

pytestmark = pytest.mark.usefixtures("quick_initial_weights")
BATCH = 3
# XLA's costly optimisations buy nothing on arrays of a hundred numbers.
FAST = {"xla_backend_optimization_level": 0, "xla_llvm_disable_expensive_passes": True}
ELSEWHERE = ("kerasoft.layers.image", "kerasoft.layers.pipeline")  # image layers have tables of their own
NOT_IN_TABLE = {"JaxLayer", "Layer", "Input", "InputLayer", "InputSpec", "Wrapper", "serialize", "deserialize"}
# Their tables are in files of their own, which see to it that each has rows.
OTHER_TABLES = {
    "test_preprocessing_layers": {
        "CategoryEncoding", "Discretization", "HashedCrossing", "Hashing", "IntegerLookup", "Normalization", "StringLookup",
        "TextVectorization",
    },
    "image/test_image_layers": {*image.__all__, "Pipeline"},
    "test_spectrogram": {"MelSpectrogram", "STFTSpectrogram"},
    "../training/test_sparse_inputs": {"SparseDense"},
}  # fmt: skip


def jitted(f, *args):
    return jax.jit(f).lower(*args).compile(compiler_options=FAST)(*args)


def data(row):
    rng = np.random.default_rng(7)
    if row.ints:
        return [rng.integers(0, row.ints, (BATCH, *s)).astype("int32") for s in row.shapes]
    return [rng.normal(size=(BATCH, *s)).astype("float32") for s in row.shapes]


def given(row, values):
    return [list(values)] if row.several else list(values)


def keras_side(row, xs):
    """The layer, its symbolic output shapes, random weights, output and gradients of sum(output²), from Keras."""
    keras.utils.clear_session(free_memory=False)
    layer = row.make(keras.layers)
    symbolic = layer(*given(row, [keras.Input(x.shape[1:], dtype=x.dtype.name) for x in xs]), **row.call)
    rng = np.random.default_rng(3)
    layer.set_weights(
        [
            rng.uniform(0.5, 1.5, w.shape) if "variance" in w.path else rng.uniform(-0.6, 0.6, w.shape)
            for w in layer.weights
        ]
    )
    trainable = [v.value for v in layer.trainable_variables]
    fixed = [v.value for v in layer.non_trainable_variables]

    def run(trainable, xs, training):
        mode = {"training": training} if layer._call_has_training_arg else {}
        return layer.stateless_call(trainable, fixed, *given(row, xs), **mode, **row.call)

    def loss(trainable, floats):
        out, _ = run(trainable, floats, row.trains)
        return sum(jnp.sum(jnp.square(o)) for o in tree.flatten(out)), out

    def everything(trainable, floats):
        if row.ints:
            grads, out = jax.grad(lambda t: loss(t, xs), has_aux=True)(trainable)
            return grads, [], out
        (grads, dxs), out = jax.grad(loss, argnums=(0, 1), has_aux=True)(trainable, floats)
        return grads, dxs, out

    grads, dxs, out = jitted(everything, trainable, [] if row.ints else [jnp.asarray(x) for x in xs])
    return layer, symbolic, tree.flatten(out), [np.asarray(g) for g in (*grads, *dxs)]


def our_side(row, xs, weights):
    """The same from kerasoft, through a traced graph."""
    ks.utils.clear_session(free_memory=False)
    layer = row.make(layers)
    symbolic = layer(*given(row, [ks.Input(x.shape[1:], dtype=x.dtype.name) for x in xs]), **row.call)
    layer.set_weights(weights)
    nodes = [input_node(f"x{i}", (symbol("b"), *x.shape[1:]), x.dtype.name) for i, x in enumerate(xs)]
    with Scope(training=row.trains) as scope:
        outputs = tree.flatten(layer(*given(row, nodes), **row.call))
        loss = functools.reduce(ops.add, [ops.sum(ops.square(o)) for o in outputs])
    params = [scope.node_of(v) for v in layer.trainable_variables] + ([] if row.ints else nodes)
    grads = gradient({loss: constant(1.0)}, params)
    grads = [constant(np.zeros(p.shape, p.dtype)) if g is None else g for p, g in zip(params, grads, strict=True)]
    graph = Graph(tuple(nodes), (*outputs, *grads), tuple(f"o{i}" for i in range(len(outputs) + len(grads))))
    bound = [*nodes, *graph.params]
    by_name = {name: v.numpy() for name, v in scope.params.items()}
    arrays = [jnp.asarray(x) for x in xs] + [jnp.asarray(by_name[n.attrs["name"]]) for n in graph.params]
    results = jitted(function(graph, bound), *arrays)
    return layer, symbolic, results[: len(outputs)], [np.asarray(g) for g in results[len(outputs) :]]


def plain(config):
    """A config without what differs between two makers of the same layer: counters in automatic names."""
    if isinstance(config, dict):
        if config.get("class_name") == "DTypePolicy":
            return config["config"]["name"]
        hidden = {"build_config", "registered_name"} | {k for k in ("seed",) if config.get(k) is None}
        return {k: plain(v) for k, v in config.items() if k not in hidden}
    if isinstance(config, (list, tuple)):
        return [plain(v) for v in config]
    return re.sub(r"_\d+$", "", config) if isinstance(config, str) else config


IDS = [f"{r.name}-{i}" for i, r in enumerate(ROWS)]


@pytest.mark.parametrize("row", ROWS, ids=IDS)
def test_a_layer_is_keras_layer(row):
    xs = data(row)
    theirs, their_symbolic, want, want_grads = keras_side(row, xs)
    ours, our_symbolic, got, got_grads = our_side(row, xs, [np.asarray(v.value) for v in theirs.weights])

    config, expected = plain(row.make(layers).get_config()), plain(row.make(keras.layers).get_config())
    assert config == expected
    assert plain(type(ours).from_config(ours.get_config()).get_config()) == plain(ours.get_config())
    assert plain(type(theirs).from_config(row.make(layers).get_config()).get_config()) == expected

    assert [(w.name, w.shape, w.trainable) for w in ours.weights] == [
        (w.name, w.shape, w.trainable) for w in theirs.weights
    ]
    assert [re.sub(r"_\d+/", "/", w.path) for w in ours.weights] == [
        re.sub(r"_\d+/", "/", w.path) for w in theirs.weights
    ]
    for mine, its in zip(tree.flatten(our_symbolic), tree.flatten(their_symbolic), strict=True):
        # Keras does not know all sizes that follow from an attention's axes.
        assert tuple(None if b is None else a for a, b in zip(mine.shape, its.shape, strict=True)) == its.shape
    for a, b in zip(got, want, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-5)
    for a, b in zip(got_grads, want_grads, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-4 * max(1.0, np.abs(b).max(initial=0)))


def test_every_public_layer_has_a_row():
    public = {"GroupQueryAttention"}
    for name in layers.__all__:
        found = getattr(layers, name)
        in_table = name not in NOT_IN_TABLE and name[0].isupper() and found.__name__ == name
        if in_table and not found.__module__.startswith(ELSEWHERE):
            public.add(name)
    public -= set().union(*OTHER_TABLES.values())
    assert public - {r.name for r in ROWS} == set()
    assert {r.name for r in ROWS} - public == set()


def test_every_name_of_the_public_list_is_keras_name():
    assert [n for n in layers.__all__ if not hasattr(keras.layers, n)] == ["SparseDense"]

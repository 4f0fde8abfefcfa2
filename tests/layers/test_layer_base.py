"""Layer: state, names, building, calls in three ways, masks, losses, training, errors."""

import numpy as np
import pytest
from kerasoft.compiler import lower
from kerasoft.compiler.ir import Graph, symbol
from kerasoft.compiler.ops.registry import input_node

import kerasoft as ks
from kerasoft import ops
from kerasoft.tensors import Scope, get_mask, set_mask


class Affine(ks.Layer):
    def __init__(self, units, **kwargs):
        super().__init__(**kwargs)
        self.units = units

    def build(self, input_shape):
        self.kernel = self.add_weight((input_shape[-1], self.units), "ones", name="kernel")
        self.bias = self.add_weight((self.units,), "zeros", name="bias")
        self.count = self.add_weight((), "zeros", trainable=False, name="count")
        self.input_spec = ks.layers.InputSpec(min_ndim=2, axes={-1: input_shape[-1]})

    def call(self, x):
        return ops.matmul(x, self.kernel) + self.bias


class Mode(ks.Layer):
    """2x in training, x in inference."""

    def call(self, x, training=False):
        return x * 2.0 if training else x


class Holder(ks.Layer):
    def __init__(self, *layers, **kwargs):
        super().__init__(**kwargs)
        self.parts = list(layers)

    def call(self, x):
        for part in self.parts:
            x = part(x)
        return x


def traced(layer, *arrays, training=False, masks=(), **scope):
    """The layer's result and scope, through a graph."""
    nodes = [
        input_node(f"x{i}", (symbol("b"), *a.shape[1:]) if a.ndim else (), a.dtype.name) for i, a in enumerate(arrays)
    ]
    with Scope(training=training, **scope) as made:
        for node, mask in zip(nodes, masks, strict=False):
            set_mask(node, mask)
        out = layer(*nodes)
    graph = Graph(tuple(nodes), (out,), ("out",))
    values = [v.numpy() for v in (made.params[p.attrs["name"]] for p in graph.params)]
    return lower.function(graph)(*arrays, *values)[0], made


def test_one_call_serves_arrays_graphs_and_symbols():
    layer = Affine(2)
    x = np.arange(6, dtype="float32").reshape(2, 3)
    eager = layer(x)
    np.testing.assert_allclose(eager, x @ np.ones((3, 2)))
    graph, scope = traced(layer, x)
    np.testing.assert_array_equal(graph, eager)
    assert list(scope.params) == ["affine/kernel", "affine/bias"] or [n.endswith("kernel") for n in scope.params][0]
    assert layer(ks.Input((3,))).shape == (None, 2)
    assert layer(ks.Input((None, 3))).shape == (None, None, 2)
    np.testing.assert_allclose(layer([[1.0, 2.0, 3.0]]), [[6.0, 6.0]])
    assert str(layer(np.ones((1, 3))).dtype) == "float32"


def test_weights_are_in_keras_order_and_found_in_lists_and_dicts():
    ks.utils.clear_session(free_memory=False)
    layer = Holder(Affine(2), Affine(3))
    layer.table = {"extra": Affine(4)}
    layer(np.ones((1, 2)))
    layer.table["extra"](np.ones((1, 2)))
    layer.parts.append(Affine(5, name="late"))
    layer.late = ks.Variable([1.0], name="own")
    names = [w.path for w in layer.weights]
    assert names == ["own"] + [
        f"holder/{a}/{w}" for a in ("affine", "affine_1") for w in ("kernel", "bias", "count")
    ] + [f"affine_2/{w}" for w in ("kernel", "bias", "count")]
    assert [layer.name for layer in layer._layers] == ["affine", "affine_1", "affine_2", "late"]
    assert len(layer.trainable_weights) == 7 and len(layer.non_trainable_weights) == 3
    assert layer.count_params() == 1 + (4 + 2 + 1) + (6 + 3 + 1) + (8 + 4 + 1)


def test_freezing_reaches_all_below():
    layer = Holder(Affine(2), Affine(3))
    layer(np.ones((1, 2)))
    layer.trainable = False
    assert layer.trainable_weights == [] and len(layer.non_trainable_weights) == 6
    assert not layer.parts[1].kernel.trainable
    layer.parts[0].trainable = True
    assert layer.trainable_weights == [] and len(layer.parts[0].trainable_weights) == 2
    layer.trainable = True
    assert len(layer.trainable_weights) == 4  # the counts stay what they are
    frozen = Affine(2, trainable=False)
    frozen(np.ones((1, 2)))
    assert frozen.trainable_weights == [] and Holder(frozen).trainable_weights == []


def test_get_and_set_weights():
    layer = Affine(2)
    with pytest.raises(ValueError, match="the layer isn't built"):
        layer.count_params()
    layer.build((None, 3))
    layer.set_weights([np.full((3, 2), 2.0), np.ones(2), np.float32(4)])
    assert layer.count.numpy() == 4 and layer.kernel.numpy()[0, 0] == 2
    with pytest.raises(ValueError, match="with a weight list of length 1, but the layer was expecting 3 weights"):
        layer.set_weights([np.ones((3, 2))])
    with pytest.raises(ValueError, match=r"weight shape \(2,\) is not compatible with provided weight shape \(3,\)"):
        layer.set_weights([np.zeros((3, 2)), np.ones(3), np.float32(4)])
    assert layer.kernel.numpy()[0, 0] == 2  # nothing was set


def test_training_is_explicit_then_outer_then_the_step():
    x = np.ones((1, 1), "float32")
    layer = Holder(Mode())
    assert float(layer(x)[0, 0]) == 1.0
    assert float(layer(x, training=True)[0, 0]) == 2.0
    assert float(traced(layer, x, training=True)[0][0, 0]) == 2.0
    assert float(traced(layer, x)[0][0, 0]) == 1.0

    class Fixed(Holder):
        def call(self, x):
            return self.parts[0](x, training=False)

    assert float(Fixed(Mode())(x, training=True)[0, 0]) == 1.0
    assert float(traced(Fixed(Mode()), x, training=True)[0][0, 0]) == 1.0


class Marking(ks.Layer):
    def compute_mask(self, inputs, previous_mask=None):
        return ops.not_equal(inputs, 0.0)

    def call(self, x):
        return x + 0.0


class Counting(ks.Layer):
    def compute_mask(self, inputs, previous_mask=None):
        return None

    def call(self, x, mask=None):
        return ops.sum(ops.cast(mask, "float32"), axis=-1) if mask is not None else ops.sum(x * 0.0, axis=-1) - 1.0


class Passing(ks.Layer):
    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.supports_masking = True

    def call(self, x):
        return x * 3.0


def test_masks_travel_eagerly_in_graphs_and_symbolically():
    x = np.array([[1, 0, 2], [0, 0, 5]], "float32")
    marked = Holder(Marking(), Passing(), Counting())
    np.testing.assert_array_equal(marked(x), [2.0, 1.0])
    np.testing.assert_array_equal(traced(marked, x)[0], [2.0, 1.0])
    np.testing.assert_array_equal(Counting()(x), [-1.0, -1.0])
    symbolic = Passing()(Marking()(ks.Input((3,))))
    assert get_mask(symbolic).shape == (None, 3) and get_mask(symbolic).dtype == "bool"
    model = ks.Sequential([ks.Input((3,)), Marking(), Passing(), Counting()])
    np.testing.assert_array_equal(model(x), [2.0, 1.0])


def test_a_layer_that_drops_a_mask_says_so():
    with pytest.warns(UserWarning, match="Layer 'mode.*does not support masking and will therefore destroy the mask"):
        out = Mode()(Marking()(ks.Input((3,))), training=True)
    assert get_mask(out) is None


def test_activity_regularizer_is_divided_by_real_rows():
    layer = Passing(activity_regularizer=ks.regularizers.L2(0.5))
    x = np.array([[1.0], [2.0], [3.0], [9.0]], "float32")
    layer(x[:3])
    want = 0.5 * 9.0 * 14.0 / 3.0
    np.testing.assert_allclose(layer.losses, [want], rtol=1e-6)
    node = input_node("x", (4, 1), "float32")
    valid, rows = input_node("valid", (4,), "float32"), input_node("rows", (), "float32")
    with Scope(valid=valid, rows=rows) as scope:
        layer(node)
    graph = Graph((node, valid, rows), tuple(scope.losses), ("loss",))
    share = lower.function(graph)(x, np.array([1, 1, 1, 0], "float32"), np.float32(3))[0]
    np.testing.assert_allclose(share, want, rtol=1e-6)
    assert not scope.exact_rows


def test_add_loss_is_weighted_by_the_share_and_forbids_padding():
    class Extra(ks.Layer):
        def call(self, x):
            self.add_loss(ops.mean(x))
            return x

    layer = Extra()
    layer(np.full((2, 2), 3.0))
    np.testing.assert_allclose(layer.losses, [3.0])
    node, share = input_node("x", (2, 2), "float32"), input_node("share", (), "float32")
    with Scope(share=share) as scope:
        layer(node)
    graph = Graph((node, share), tuple(scope.losses), ("loss",))
    np.testing.assert_allclose(lower.function(graph)(np.full((2, 2), 3.0, "float32"), np.float32(0.25))[0], 0.75)
    assert scope.exact_rows


def test_weight_penalties_are_losses():
    layer = Affine(2)
    layer(np.ones((1, 3)))
    layer.kernel.regularizer = ks.regularizers.L2(0.1)
    np.testing.assert_allclose(layer.losses, [0.6], rtol=1e-6)


def test_assignments_in_a_trace_are_updates_and_eagerly_happen():
    class Counter(ks.Layer):
        def build(self, input_shape):
            self.seen = self.add_weight((), "zeros", trainable=False, name="seen")

        def call(self, x):
            self.seen.assign_add(ops.sum(x))
            return x * self.seen

    layer, x = Counter(name="c"), np.ones((2, 1), "float32")
    assert float(layer(x)[0, 0]) == 2.0 and float(layer.seen.numpy()) == 2.0
    out, scope = traced(layer, x)
    assert float(out[0, 0]) == 4.0 and float(layer.seen.numpy()) == 2.0
    assert list(scope.updates) == [layer.seen] and scope.updates[layer.seen].shape == ()


def test_several_inputs_build_by_name_and_dtypes():
    class Two(ks.Layer):
        def build(self, query_shape, value_shape):
            self.shapes = (query_shape, value_shape)
            self.w = self.add_weight((query_shape[-1], value_shape[-1]), "ones", name="w")

        def call(self, query, value, scale=1.0):
            return ops.matmul(query, self.w) * value * scale

    layer = Two()
    out = layer(ks.Input((3,)), value=ks.Input((2,)), scale=2.0)
    assert out.shape == (None, 2) and layer.shapes == ((None, 3), (None, 2))
    assert layer.get_build_config() == {"shapes_dict": {"query_shape": (None, 3), "value_shape": (None, 2)}}
    again = Two()
    again.build_from_config({"shapes_dict": {"query_shape": [None, 3], "value_shape": [None, 2]}})
    assert again.built and again.w.shape == (3, 2)
    half = Affine(2, dtype="mixed_bfloat16")
    result = half(np.ones((1, 3), "float32"))
    assert result.dtype.name == "bfloat16" and half.kernel.dtype == "float32"
    assert half(ks.Input((3,))).dtype == "bfloat16"


def test_output_shapes():
    assert Affine(4).compute_output_shape((None, 3)) == (None, 4)
    assert Affine(4).compute_output_shape((2, 5, 3)) == (2, 5, 4)


def test_errors_name_layer_shapes_and_line():
    layer = Affine(3, name="d")
    layer(np.ones((2, 4)))
    expected = (
        r'Input 0 of layer "d" is incompatible with the layer: expected axis -1 of input shape to have value 4, but '
        r"received input with shape \(2, 5\)"
    )
    with pytest.raises(ValueError, match=expected) as caught:
        layer(np.ones((2, 5)))
    text = str(caught.value)
    assert "in layer 'd' (Affine) called on (2, 5), at " in text and "test_layer_base.py:" in text
    with pytest.raises(ValueError, match=r"expected min_ndim=2, found ndim=1. Full shape received: \(4,\)"):
        layer(np.ones(4))
    with pytest.raises(ValueError, match=r"needs a known size for its weight 'kernel' of shape \(None, 2\)"):
        Affine(2)(ks.Input((None,)))
    with pytest.raises(ValueError, match=r'Layer "d" expects 1 input\(s\), but it received 2 input tensors'):
        layer([np.ones((2, 4)), np.ones((2, 4))])

    class Wrong(ks.Layer):
        def call(self, x):
            return ops.matmul(x, ops.ones((7, 2)))

    with pytest.raises(
        ValueError, match=r"(?s)matmul.*in layer 'w' \(Wrong\) called on \(None, 3\), at .*test_layer_base.py"
    ):
        Holder(Wrong(name="w"), name="h")(ks.Input((3,)))
    with pytest.raises(TypeError, match="Unrecognized|unexpected|keyword") as caught:
        Affine(2)(np.ones((1, 2)), wrong=1)
    assert "in layer 'affine" in str(caught.value)

    class Forgot(ks.Layer):
        def __init__(self):
            pass

    with pytest.raises(RuntimeError, match="you forgot to call `super"):
        Forgot()(np.ones((1, 2)))
    with pytest.raises(ValueError, match="Unrecognized keyword arguments passed to Affine: {'size': 3}"):
        Affine(2, size=3)
    with pytest.raises(NotImplementedError, match="does not have a `call"):
        ks.Layer()(np.ones((1, 2)))


def test_symbolic_values_refuse_to_be_numbers():
    x = ks.Input((3,))
    for use in (bool, float, np.asarray, list, len):
        with pytest.raises(TypeError):
            use(x)
    variable = ks.Variable([1.0], name="v")
    with Scope(), pytest.raises(TypeError, match="variable 'v' would be frozen into the graph"):
        np.asarray(variable)


def test_variables():
    v = ks.Variable(lambda shape, dtype: np.ones(shape, dtype), shape=(2,), name="v")
    assert (v.shape, v.dtype, v.name, v.trainable) == ((2,), "float32", "v", True)
    np.testing.assert_allclose(v * 2 + np.array([1.0, 2.0], "float32"), [3.0, 4.0])
    np.testing.assert_allclose(1.0 / (v + v), [0.5, 0.5])
    v.assign_sub([0.5, 0.25])
    np.testing.assert_allclose(v.numpy(), [0.5, 0.75])
    np.testing.assert_allclose(ops.exp(v), np.exp([0.5, 0.75]), rtol=1e-6)
    with pytest.raises(ValueError, match=r"variable.shape=\(2,\), Received: value.shape=\(3,\)"):
        v.assign(np.ones(3))
    with pytest.raises(ValueError, match="cannot contain character `/`"):
        ks.Variable([1.0], name="a/b")
    with pytest.raises(ValueError, match="the `shape` argument should be specified"):
        ks.Variable(lambda shape, dtype: None)


def test_jax_functions_are_ops():
    import jax.numpy as jnp

    class Soft(ks.Layer):
        def build(self, input_shape):
            self.limit = self.add_weight((input_shape[-1],), "ones", name="limit")

        def call(self, x):
            return ops.jax(lambda x, limit: limit * jnp.tanh(x / limit))(x, self.limit)

    x = np.array([[-5.0, 0.5]], "float32")
    layer = Soft()
    np.testing.assert_allclose(layer(x), np.tanh(x), rtol=1e-6)
    np.testing.assert_allclose(traced(layer, x)[0], np.tanh(x), rtol=1e-6)
    assert Soft()(ks.Input((2,))).shape == (None, 2)


def test_control_flow_in_graphs():
    class Loops(ks.Layer):
        def call(self, x):
            total = ops.fori_loop(0, 3, lambda i, v: v * 2.0, x)
            carry, ys = ops.scan(lambda c, row: (c + row, c * 2.0), ops.zeros((3,)), total)
            tested = ops.cond(ops.greater(ops.sum(x), 0.0), lambda: carry, lambda: carry * 0.0)
            return ops.concatenate([ys, tested[None]], axis=0)

    x = np.arange(6, dtype="float32").reshape(2, 3)
    want = np.stack([np.zeros(3), 16.0 * x[0], 8.0 * x.sum(0)])
    np.testing.assert_allclose(Loops()(x), want)
    node = input_node("x", (2, 3), "float32")
    with Scope():
        out = Loops()(node)
    np.testing.assert_allclose(lower.function(Graph((node,), (out,), ("o",)))(x)[0], want)


def test_losses_stay_with_the_layer_that_added_them():
    class Adds(ks.Layer):
        def call(self, x):
            self.add_loss(ks.ops.sum(x))
            return x

    layer, x = Adds(), np.ones((1, 2), "float32")
    layer(x)
    model = ks.Sequential([layer])
    for _ in range(2):
        model(x)
    assert [float(v) for v in model.losses] == [2.0] == [float(v) for v in layer.losses]
    nothing = ks.layers.ActivityRegularization(l2=1.0)
    nothing(np.ones((0, 2)))
    assert float(nothing.losses[0]) == 0.0


def test_what_is_built_from_the_start_and_what_is_tracked_early():
    class Early(ks.Layer):
        def __init__(self):
            self.w = ks.Variable(np.ones(2))
            super().__init__()

    assert len(Early().weights) == 1
    assert (
        ks.layers.Dropout(0.5).built
        and not ks.layers.Flatten().built
        and not ks.layers.EinsumDense("ab,bc->ac", 2).built
    )
    table = ks.layers.Embedding(3, 2)
    table.build()
    assert table.get_build_config() == {"shapes_dict": {}}
    again = ks.layers.Embedding.from_config(table.get_config())
    again.build_from_config(table.get_build_config())
    assert again.built and len(again.weights) == 1


def test_arrays_as_scales_and_states_of_stacked_cells():
    made = ks.layers.Rescaling(np.array(0.5), np.array([1.0, 2.0]))
    read = ks.layers.Rescaling.from_config(made.get_config())
    assert made.get_config()["scale"] == 0.5 and read.offset.tolist() == [1.0, 2.0]
    cells = [ks.layers.GRUCell(3), ks.layers.LSTMCell(2)]
    _, *states = ks.layers.RNN(cells, return_state=True)(np.ones((2, 3, 4), "float32"))
    assert [[s.shape for s in state] for state in states] == [[(2, 3)], [(2, 2), (2, 2)]]

"""Recurrent layers: initial states, user cells, unknown numbers of steps, and errors."""

import jax
import keras
import numpy as np
import pytest
from kerasoft.compiler.ir import Graph, symbol
from kerasoft.compiler.lower import function
from kerasoft.compiler.ops.registry import input_node

import kerasoft as ks
from kerasoft import layers, ops
from kerasoft.scope import Scope
from kerasoft.training.checks import check_no_kept_states

FAST = {"xla_backend_optimization_level": 0, "xla_llvm_disable_expensive_passes": True}
X = np.random.default_rng(0).normal(size=(3, 5, 2)).astype("float32")


def compute(run, *arrays, shapes=None):
    """`run` on nodes of unknown batch (or of `shapes`), then on the arrays."""
    shapes = shapes or [(symbol("b"), *a.shape[1:]) for a in arrays]
    nodes = [input_node(f"x{i}", s, a.dtype.name) for i, (a, s) in enumerate(zip(arrays, shapes, strict=True))]
    with Scope(training=False) as scope:
        outputs = run(*nodes)
    outputs = tuple(outputs) if isinstance(outputs, (list, tuple)) else (outputs,)
    graph = Graph(tuple(nodes), outputs, tuple(map(str, range(len(outputs)))))
    arrays = (*arrays, *(scope.params[n.attrs["name"]].numpy() for n in graph.params))
    return [np.asarray(v) for v in jax.jit(function(graph)).lower(*arrays).compile(compiler_options=FAST)(*arrays)]


@pytest.mark.parametrize(
    "make, states",
    [
        (lambda L: L.LSTM(4, return_state=True), 2),
        (lambda L: L.GRU(4, return_sequences=True), 1),
        (lambda L: L.RNN(L.LSTMCell(4)), 2),
        (lambda L: L.Bidirectional(L.LSTM(4, return_sequences=True)), 4),
    ],
)  # fmt: skip
def test_initial_states_are_keras_initial_states(make, states):
    ours, theirs = make(layers), make(keras.layers)
    hs = [np.random.default_rng(i).normal(size=(3, 4)).astype("float32") for i in range(states)]
    want = theirs(X, initial_state=[keras.ops.convert_to_tensor(h) for h in hs])
    ours(ks.Input((5, 2)), initial_state=[ks.Input((4,)) for _ in hs])
    ours.set_weights([np.asarray(w.value) for w in theirs.weights])
    got = compute(lambda x, *h: ours(x, initial_state=list(h)), X, *hs)
    for a, b in zip(got, want if isinstance(want, (list, tuple)) else [want], strict=True):
        np.testing.assert_allclose(a, np.asarray(b), atol=1e-5)


class Fading:
    """A cell that is no layer: half of the state and the input."""

    state_size = 2

    def call(self, inputs, states):
        state = ops.add(ops.multiply(states[0], 0.5), inputs)
        return state, [state]


class Counting(layers.Layer):
    """A cell layer with a weight, a state of its own shape and no `get_initial_state`."""

    state_size = [2, 1]
    output_size = 2

    def build(self, input_shape):
        self.gain = self.add_weight((input_shape[-1],), "ones", name="gain")

    def call(self, inputs, states):
        before, count = states
        now = before + inputs * self.gain
        return now / (count + 1.0), [now, count + 1.0]


@pytest.mark.parametrize("steps", [5, None])
@pytest.mark.parametrize("unroll", [False, True])
def test_cells_of_users_run_over_known_and_unknown_numbers_of_steps(steps, unroll):
    if unroll and steps is None:
        with pytest.raises(ValueError, match="Cannot unroll RNN 'mine': the number of steps is unknown. Give Input"):
            layers.RNN(Fading(), unroll=True, name="mine")(ks.Input((None, 2)))
        return
    shape = [(symbol("b"), 5 if steps else symbol("t"), 2)]
    layer = layers.RNN(Fading(), return_sequences=True, unroll=unroll)
    (y,) = compute(layer, X, shapes=shape)
    want = np.zeros_like(X)
    for t in range(5):
        want[:, t] = X[:, t] + (0.5 * want[:, t - 1] if t else 0)
    np.testing.assert_allclose(y, want, rtol=1e-6)
    np.testing.assert_allclose(layer(X), want, rtol=1e-6)
    (y,) = compute(layers.RNN(Counting(), unroll=unroll), X, shapes=shape)
    np.testing.assert_allclose(y, X.mean(axis=1), rtol=1e-5)


@pytest.mark.parametrize("make", [lambda: layers.LSTM(3), lambda: layers.Bidirectional(layers.GRU(3)),
                                  lambda: layers.TimeDistributed(layers.Dense(3))])  # fmt: skip
def test_an_unknown_number_of_steps(make):
    layer = make()
    assert layer(ks.Input((None, 2))).shape[-1] in (3, 6)
    (unknown,) = compute(layer, X, shapes=[(symbol("b"), symbol("t"), 2)])
    np.testing.assert_allclose(unknown, layer(X), atol=1e-5)


def test_weights_of_nested_layers_are_named_by_their_place():
    layer = layers.Bidirectional(layers.LSTM(2, name="memory"), name="both")
    layer(ks.Input((5, 2)))
    assert [w.path for w in layer.weights][::3] == [
        "both/forward_memory/lstm_cell/kernel",
        "both/backward_memory/lstm_cell/kernel",
    ]
    assert layer.backward_layer.go_backwards and not layer.forward_layer.go_backwards


@pytest.mark.parametrize("name", ["LSTM", "GRU"])
def test_a_stateful_layer_goes_on_where_it_ended(name):
    theirs, ours = getattr(keras.layers, name)(3, stateful=True), getattr(layers, name)(3, stateful=True)
    x = np.random.default_rng(0).normal(size=(2, 3, 4)).astype("float32")
    theirs.build(x.shape)
    ours.build(x.shape)
    ours.set_weights([np.asarray(w.value) for w in theirs.weights])
    for _ in range(2):
        np.testing.assert_allclose(ours(x), theirs(x), atol=1e-6)
    ours.reset_state()
    theirs.reset_state()
    np.testing.assert_allclose(ours(x), theirs(x), atol=1e-6)
    assert [v.name for v in ours.variables] == ["kernel", "recurrent_kernel", "bias"]
    with pytest.raises(ValueError, match="Expected batch size: 2\\n- Received batch size: 3"):
        ours(np.zeros((3, 3, 4), "float32"))


def test_a_distributed_fit_refuses_kept_states():
    model = ks.Sequential([ks.Input(batch_shape=(2, 3, 4)), layers.LSTM(2, stateful=True, name="memory")])
    with pytest.raises(ValueError, match="Layer 'memory' is stateful, which a distributed fit cannot do"):
        check_no_kept_states(model)


@pytest.mark.parametrize(
    "make, text",
    [
        (lambda: layers.LSTM(3, stateful=True)(ks.Input((4, 2))), "the batch size must be static. Found dynamic batch size"),
        (lambda: layers.GRU(0), "invalid value for argument `units`, expected a positive integer, got 0"),
        (lambda: layers.RNN(object()), "Argument `cell` should have a `call` method. Received: cell="),
        (lambda: layers.RNN(layers.Dense(2)), "The RNN cell should have a `state_size` attribute"),
        (lambda: layers.LSTM(3)(ks.Input((4,))), r"expected ndim=3, found ndim=2. Full shape received: \(None, 4\)"),
        (lambda: layers.LSTM(3)(ks.Input((4, None))), "LSTMCell 'lstm_cell' needs a known number of features"),
        (lambda: layers.Bidirectional(3), "Please initialize `Bidirectional` layer with a `keras.layers.Layer`"),
        (lambda: layers.Bidirectional(layers.LSTM(3), merge_mode="max"), "Invalid merge mode. Received: max."),
        (
            lambda: layers.Bidirectional(layers.LSTM(3), backward_layer=layers.LSTM(3)),
            "should have different `go_backwards` value",
        ),
        (
            lambda: layers.Bidirectional(layers.LSTM(3), backward_layer=layers.LSTM(3, True and "tanh", go_backwards=True, return_sequences=True)),
            'the same value for attribute "return_sequences", got "False" for forward layer',
        ),
        (lambda: layers.TimeDistributed(layers.Dense(2))(ks.Input((3,))), "at least 3 dimensions"),
        (lambda: layers.TimeDistributed(np.tanh), "isn't a supported layer type"),
    ],
)  # fmt: skip
def test_errors(make, text):
    with pytest.raises(ValueError, match=text):
        make()

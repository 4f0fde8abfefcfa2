"""RematScope and remat: the trajectories of a fit without them, what each mode computes again, and less memory."""

import json
import subprocess
import sys

import keras
import numpy as np
import pytest
from keras.src.backend.common.remat import get_current_remat_mode as keras_mode

import kerasoft as ks
from kerasoft import layers
from kerasoft.rematerialization import get_current_remat_mode

ROWS = 24
X = np.random.default_rng(0).normal(size=(ROWS, 8, 8, 2)).astype("float32")
Y = np.random.default_rng(1).integers(0, 3, ROWS)


class Block(layers.Layer):
    """A layer of layers, with a state, a random mask and a loss of its own."""

    def __init__(self, units, **kwargs):
        super().__init__(**kwargs)
        self.inner = [layers.Conv2D(units, 3, padding="same", activation="gelu"), layers.BatchNormalization()]
        self.drop = layers.Dropout(0.3)

    def call(self, x):
        for layer in self.inner:
            x = layer(x)
        x = self.drop(x)
        self.add_loss(ks.ops.mean(ks.ops.square(x)) * 0.01)
        return x


def trained(make, scope=None):
    """Weights after two epochs, and how many forward nodes the train graph computes again."""
    ks.utils.clear_session(free_memory=False)
    ks.utils.set_random_seed(3)
    if scope is None:
        model = make()
    else:
        with scope:
            model = make()
    model.compile("sgd", "sparse_categorical_crossentropy")
    model.fit(X, Y, batch_size=8, epochs=2, verbose=0, seed=5)
    graph = model.explain(X[:8], Y[:8], batch_size=8, measure=False).parts[0].before
    again = [n for n in graph.nodes if (n.source or "").endswith(", again")]
    return model.get_weights(), {n.source.split("/")[-1].removesuffix(", again") for n in again}


def wavy(x):
    return ks.ops.exp(ks.ops.sin(ks.ops.tanh(x)))


def net():
    x = inputs = ks.Input((8, 8, 2))
    for i in range(3):
        x = Block(4, name=f"block{i}")(x)
    x = layers.Flatten()(x)
    x = layers.Dense(12, activation=wavy, name="wide")(x)
    return ks.Model(inputs, layers.Dense(3, activation="softmax", name="head")(x))


@pytest.fixture(scope="module")
def plain():
    weights, again = trained(net)
    assert again == set()
    return weights


@pytest.mark.parametrize(
    ("mode", "given", "computed", "left"),
    [
        ("full", {}, {"conv2d_1", "wide"}, set()),
        ("activations", {}, {"wide"}, {"conv2d_1", "dropout_1"}),
        ("larger_than", {"output_size_threshold": 200}, {"conv2d_1"}, {"wide"}),
        ("larger_than", {"output_size_threshold": 10**6}, set(), {"conv2d_1", "wide"}),
        ("list_of_layers", {"layer_names": ["block1", "wide"]}, {"conv2d_1", "wide"}, {"conv2d", "conv2d_2"}),
        (None, {}, set(), {"conv2d_1", "wide"}),
    ],
)
def test_every_mode_gives_the_weights_of_a_plain_fit(plain, mode, given, computed, left):
    weights, again = trained(net, ks.RematScope(mode, **given))
    for x, y in zip(weights, plain, strict=True):
        np.testing.assert_allclose(x, y, rtol=2e-6, atol=2e-6)
    assert computed <= again and not left & again


def test_the_innermost_scope_counts_as_in_keras():
    for k, current in ((keras, keras_mode), (ks, get_current_remat_mode)):
        assert current() is None
        with k.RematScope("full"):
            with k.RematScope("larger_than", output_size_threshold=7, layer_names=["a"]):
                assert tuple(current()) == ("larger_than", 7, ["a"])
            with k.RematScope(None):
                assert current().mode is None
            assert current().mode == "full"
        assert current() is None


def test_functions_in_remat():
    """A function that a layer calls, with keyword arguments; outside of a training graph it is the function itself."""

    class Twice(layers.Layer):
        def __init__(self, wrap, **kwargs):
            super().__init__(**kwargs)
            self.function = wrap(self.formula)

        def formula(self, x, gain=1.0):
            return ks.ops.tanh(ks.ops.exp(ks.ops.sin(x) * gain))

        def call(self, x):
            return self.function(x, gain=0.5)

    def make(wrap):
        return lambda: ks.Sequential([ks.Input((8, 8, 2)), layers.Flatten(), layers.Dense(6, name="in"), Twice(wrap, name="twice"), layers.Dense(3, "softmax")])  # fmt: skip

    plain, none = trained(make(lambda f: f))
    weights, again = trained(make(ks.remat))
    assert (none, again) == (set(), {"twice"})
    for x, y in zip(weights, plain, strict=True):
        np.testing.assert_allclose(x, y, rtol=1e-6, atol=1e-6)
    assert ks.remat(lambda x, scale=1.0: x * scale)(np.float32(3), scale=2.0) == 6.0


MEMORY = """
import json, sys
import numpy as np, kerasoft as ks
from kerasoft import layers
def peak():
    return next(int(line.split()[1]) * 1024 for line in open("/proc/self/status") if line.startswith("VmHWM"))
ks.utils.set_random_seed(0)
with ks.RematScope(sys.argv[1] if sys.argv[1] != "none" else None):
    x = inputs = ks.Input((256,))
    for _ in range(32):
        x = layers.Dense(256, "tanh")(x)
    model = ks.Model(inputs, layers.Dense(1)(x))
model.compile("sgd", "mse")
rows = np.random.default_rng(0).normal(size=(8192, 256)).astype("float32")
before = peak()
loss = model.fit(rows, rows[:, :1], batch_size=8192, verbose=0, shuffle=False).history["loss"]
rss = peak()
memory = model.explain(rows[:2], rows[:2, :1], batch_size=8192, measure=False).parts[0].memory
print(json.dumps([loss, rss - before, memory["temporaries"], model.get_weights()[0].sum().item()]))
"""


def test_a_deep_network_needs_less_memory():
    """32 layers of 256 on 8,192 rows: by the executable's own count, and the process' peak."""
    found = {}
    for mode in ("none", "full"):
        done = subprocess.run([sys.executable, "-c", MEMORY, mode], capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr[-2000:]
        found[mode] = json.loads(done.stdout.splitlines()[-1])
    (loss, rss, temporaries, total), (loss_again, rss_again, temporaries_again, total_again) = found.values()
    np.testing.assert_allclose([*loss_again, total_again], [*loss, total], rtol=1e-5)
    assert temporaries_again < 0.5 * temporaries
    assert rss_again < 0.7 * rss, (rss, rss_again)

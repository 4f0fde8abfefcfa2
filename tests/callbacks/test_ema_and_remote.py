"""SwapEMAWeights and RemoteMonitor; weights and rates that callbacks set while a fit is under way."""

from __future__ import annotations

import http.server
import json
import threading
import urllib.parse

import numpy as np
import pytest
from twins import X, Y, assert_alike, fit, same_weights

import kerasoft as ks

keras = pytest.importorskip("keras")
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")
HELD_OUT = (X[:7], Y[:7])


def net(k, optimizer="sgd"):
    model = same_weights(k.Sequential([k.Input((4,)), k.layers.Dense(3, activation="tanh"), k.layers.Dense(1)]))
    model.compile(optimizer, "mse")
    return model


def averages(rate=0.1, momentum=0.8, epochs=3):
    """The weights and their moving average after each epoch of one batch, by the formula."""
    model = net(ks, ks.optimizers.SGD(rate))
    found, mean = [], None
    for _ in range(epochs):
        model.train_on_batch(X, Y)
        weights = model.get_weights()
        mean = (
            weights if mean is None else [momentum * m + (1 - momentum) * w for m, w in zip(mean, weights, strict=True)]
        )
        found.append((weights, mean))
    return found


@pytest.mark.parametrize("on_epoch", [False, True])
def test_the_average_is_validated_and_the_weights_train_on(on_epoch):
    model = net(ks, ks.optimizers.SGD(0.1, use_ema=True, ema_momentum=0.8))
    seen = []

    class Sees(ks.callbacks.Callback):
        def on_epoch_end(self, epoch, logs=None):
            seen.append(self.model.get_weights())

    swap = ks.callbacks.SwapEMAWeights(swap_on_epoch=on_epoch)
    settings = dict(epochs=3, batch_size=20, verbose=0, shuffle=False, validation_data=HELD_OUT)
    history = model.fit(X, Y, callbacks=[swap, Sees()], **settings).history
    expected = averages()
    probe = net(ks)
    for (weights, mean), found, loss in zip(expected, seen, history["val_loss"], strict=True):
        probe.set_weights(mean)
        np.testing.assert_allclose(loss, probe.evaluate(*HELD_OUT, verbose=0), rtol=1e-5)
        assert_alike(mean if on_epoch else weights, found)
    assert_alike(expected[-1][1], model.get_weights())


def test_evaluate_and_predict_swap_too_and_swap_back():
    model = net(ks, ks.optimizers.SGD(0.1, use_ema=True, ema_momentum=0.8))
    for _ in range(3):
        model.train_on_batch(X, Y)
    weights, mean = averages()[-1]
    swap = ks.callbacks.SwapEMAWeights()
    loss, y = model.evaluate(X, Y, verbose=0, callbacks=[swap]), model.predict(X, verbose=0, callbacks=[swap])
    assert_alike(weights, model.get_weights())
    probe = net(ks)
    probe.set_weights(mean)
    np.testing.assert_allclose(loss, probe.evaluate(X, Y, verbose=0), rtol=1e-5)
    np.testing.assert_allclose(y, probe.predict(X, verbose=0), rtol=1e-5, atol=1e-6)


def test_an_optimizer_without_average_is_refused():
    with pytest.raises(ValueError, match="SwapEMAWeights must be used when `use_ema=True` is set on the optimizer"):
        net(ks).fit(X, Y, validation_data=HELD_OUT, callbacks=[ks.callbacks.SwapEMAWeights()], verbose=0)


def test_a_cluster_refuses_it():
    from kerasoft.training.checks import refuse_in_cluster

    refuse_in_cluster([ks.callbacks.EarlyStopping()])
    with pytest.raises(ValueError, match="SwapEMAWeights cannot be used in a distributed fit: validation runs on"):
        refuse_in_cluster([ks.callbacks.SwapEMAWeights()])


def test_orbax_is_refused_with_advice():
    with pytest.raises(NotImplementedError, match="Use ModelCheckpoint to keep models or weights"):
        ks.callbacks.OrbaxCheckpoint("folder")


@pytest.fixture
def server():
    """A web server on loopback; gives its URL and the list of what it is sent."""
    received = []

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_POST(self):
            body = self.rfile.read(int(self.headers["Content-Length"])).decode()
            received.append((self.path, self.headers["Content-Type"], self.headers.get("X-Key"), body))
            self.send_response(500 if self.path == "/broken" else 200)
            self.end_headers()

        def log_message(self, *_):
            pass

    found = http.server.HTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=found.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{found.server_address[1]}", received
    found.shutdown()
    thread.join()
    found.server_close()


def test_epochs_are_posted(server):
    root, received = server
    form = ks.callbacks.RemoteMonitor(root, headers={"X-Key": "k"})
    plain = ks.callbacks.RemoteMonitor(root, path="/json", send_as_json=True)
    history = net(ks).fit(X, Y, epochs=2, verbose=0, callbacks=[form, plain]).history
    (path, kind, key, body), (json_path, json_kind, _, json_body) = received[:2]
    assert (path, kind, key) == ("/publish/epoch/end/", "application/x-www-form-urlencoded", "k")
    assert (json_path, json_kind) == ("/json", "application/json")
    sent = {"epoch": 0, "loss": history["loss"][0]}
    assert json.loads(urllib.parse.parse_qs(body)["data"][0]) == json.loads(json_body) == sent
    assert len(received) == 4
    ks.callbacks.RemoteMonitor(root, path="/broken").on_epoch_end(0, {"loss": np.float32(1)})


def test_a_server_out_of_reach_is_a_warning(server):
    with pytest.warns(UserWarning, match="Could not reach RemoteMonitor root server at http://127.0.0.1:1"):
        ks.callbacks.RemoteMonitor("http://127.0.0.1:1").on_epoch_end(0, {})


@pytest.mark.parametrize("hook", ["on_epoch_begin", "on_epoch_end", "on_train_batch_begin", "on_train_batch_end"])
def test_weights_and_rates_set_in_a_hook_are_used_as_in_keras(hook):
    def trained(k):
        def halve(self, index, logs=None):
            if index == 1:
                self.model.set_weights([w * 0.5 for w in self.model.get_weights()])
                self.model.optimizer.learning_rate = 0.2

        halving = type("Halving", (k.callbacks.Callback,), {hook: halve})()
        return fit(net(k), X, Y, epochs=3, callbacks=[halving], validation_data=HELD_OUT)

    assert_alike(trained(keras), trained(ks))

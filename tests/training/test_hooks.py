"""Hooks as a distributed runtime calls them: reports late and in groups, weights only when asked for."""

from __future__ import annotations

import json

import numpy as np
import pytest
from kerasoft.runtime.local import LocalLoop
from kerasoft.runtime.loop import Decision, Event, TrainJob

import kerasoft as ks
from kerasoft.callbacks.base import CallbackList
from kerasoft.training.feeds import ArrayFeed
from kerasoft.training.hooks import FitHooks
from kerasoft.training.inputs import to_arrays
from kerasoft.training.status import Status

X = np.random.default_rng(0).random((40, 3)).astype("float32")
Y = X.sum(axis=1, keepdims=True)


class Far:
    """Passes on what a runtime in other processes calls, and counts how often the weights travel."""

    def __init__(self, hooks):
        self.hooks, self.pulls, self.decisions = hooks, 0, []
        self.on_epoch_begin, self.on_event = hooks.on_epoch_begin, hooks.on_event

    def on_steps(self, reports):
        self.decisions.append(self.hooks.on_steps(reports))
        return self.decisions[-1]

    def on_epoch_end(self, end):
        pull = end.weights

        def counted():
            self.pulls += 1
            return pull()

        object.__setattr__(end, "weights", counted)
        return self.hooks.on_epoch_end(end)


@pytest.fixture(scope="module")
def model():
    model = ks.Sequential([ks.Input((3,)), ks.layers.Dense(2), ks.layers.Dense(1)])
    model.compile(ks.optimizers.SGD(0.1), "mse")
    return model


def train(model, *callbacks, epochs=2):
    """A fit through hooks that are told they are far away."""
    model.compile(ks.optimizers.SGD(0.1), "mse")
    model.stop_training = False
    arrays = to_arrays(model, X, Y)
    program = model._program(arrays.signature, "train")
    layout = program.source.layout
    told = CallbackList(list(callbacks), add_history=True, model=model, epochs=epochs, steps=5, verbose=0)
    status = model._trainer.status = Status()
    hooks = FitHooks(model, told, program.traced.targets, layout, program.store, status, in_process=False)
    told.on_train_begin()
    params, state = program.store.read()
    slots = model.optimizer.variables_to_slots(layout)
    job = TrainJob(program.source, params, state, slots, batch_size=8, epochs=epochs, learning_rate=0.1)
    far = Far(hooks)
    result = LocalLoop(job, far, program.step).run(ArrayFeed(arrays, 8), lambda p, s: (np.array([6.0, 2.0]), 2))
    return far, result


class Keeps(ks.callbacks.Callback):
    def __init__(self):
        super().__init__()
        self.heard = []

    def on_train_batch_begin(self, batch, logs=None):
        self.heard.append(("begin", batch))

    def on_train_batch_end(self, batch, logs=None):
        self.heard.append(("end", batch, logs["loss"]))

    def on_test_end(self, logs=None):
        self.heard.append(("test", logs))


def test_reported_steps_become_batch_hooks(model):
    keeps = Keeps()
    train(model, keeps, epochs=1)
    assert [h[:2] for h in keeps.heard[:-1]] == [(kind, b) for b in range(5) for kind in ("begin", "end")]
    assert keeps.heard[-1] == ("test", {"loss": 3.0})
    assert model.history.history["loss"] == [pytest.approx(keeps.heard[-2][2])]
    assert model.history.history["val_loss"] == [3.0]


def test_weights_travel_only_when_a_callback_reads_them(model):
    far, _ = train(model, ks.callbacks.EarlyStopping(patience=5), ks.callbacks.TerminateOnNaN())
    assert far.pulls == 0
    far, _ = train(model, Keeps())
    assert far.pulls == 2


def test_decisions_of_callbacks_reach_the_runtime(model):
    class Decides(ks.callbacks.Callback):
        def on_train_batch_end(self, batch, logs=None):
            if batch == 2:
                self._model.optimizer.learning_rate = 0.5

        def on_epoch_end(self, epoch, logs=None):
            self.model.set_weights([np.full(w.shape, 0.25, "float32") for w in self.model.get_weights()])
            self.model.stop_training = True

    far, result = train(model, Decides(), epochs=5)
    assert [d.learning_rate for d in far.decisions if d is not None and d.learning_rate] == [0.5]
    assert far.decisions[-1].weights is None
    np.testing.assert_array_equal(result.params, np.full_like(result.params, 0.25))
    assert len(model.history.epoch) == 1


def test_state_of_callbacks_survives_a_driver(model):
    stop = ks.callbacks.EarlyStopping(monitor="loss", patience=9, min_delta=9.0)
    far, _ = train(model, stop, ks.callbacks.LearningRateScheduler(lambda epoch, rate: rate / 2))
    saved = json.loads(json.dumps(far.hooks.save_state()))
    fresh = ks.callbacks.EarlyStopping(monitor="loss", patience=9, min_delta=9.0)
    model.compile(ks.optimizers.SGD(0.1), "mse")
    told = CallbackList([fresh, ks.callbacks.LearningRateScheduler(lambda e, r: r)], add_history=True, model=model)
    hooks = FitHooks(model, told, far.hooks.targets, far.hooks.layout, far.hooks.store, Status(), in_process=False)
    hooks.load_state(saved)
    assert (fresh.wait, fresh.best) == (stop.wait, stop.best) == (1, stop.best)
    assert model.history.epoch == [0, 1] and len(model.history.history["loss"]) == 2
    assert float(model.optimizer.learning_rate) == pytest.approx(0.025)


def test_events_are_shown_and_kept(model, capsys):
    far, _ = train(model, ks.callbacks.ProgbarLogger())
    capsys.readouterr()
    far.hooks.on_event(Event("worker_lost", "worker 1 of 2 was lost at step 7"))
    far.hooks.on_event(Event("checkpoint", "committed"))
    assert [e.kind for e in far.hooks.events] == ["worker_lost", "checkpoint"]
    far.hooks.callbacks.callbacks[0].verbose = 1
    far.hooks.on_event(Event("retrying", "going on"))
    assert capsys.readouterr().out == "going on\n"


def test_a_batch_is_made_while_the_step_before_it_runs(model, monkeypatch):
    """With reports as often as can be: no sums are waited for that were asked for by the last call."""
    monkeypatch.setattr("kerasoft.runtime.local.REPORT_S", 0.0)
    arrays = to_arrays(model, X, Y)
    program = model._program(arrays.signature, "train")
    made, waited, seen, reports = 0, set(), [], []

    class Sums:
        def __init__(self, number, sums):
            self.number, self.sums = number, sums

        def __array__(self, dtype=None, copy=None):
            waited.add(self.number)
            return np.asarray(self.sums)

    class Late:
        """A step whose sums say when they are read."""

        def __getattr__(self, name):
            return getattr(program.step, name)

        def train(self, *args):
            nonlocal made
            *after, sums = program.step.train(*args)
            made += 1
            return (*after, Sums(made - 1, sums))

        def together(self, *args):
            return 1

    class Feed(ArrayFeed):
        def epoch(self, epoch, first=0):
            for batch in super().epoch(epoch, first):
                seen.append((made, sorted(waited)))
                yield batch

    class Told:
        def on_epoch_begin(self, epoch):
            return None

        def on_steps(self, told):
            reports.extend((r.step, r.iteration) for r in told)

        def on_epoch_end(self, end):
            assert (end.steps, end.rows) == (5, 40)
            return Decision()

    slots = model.optimizer.variables_to_slots(program.source.layout)
    job = TrainJob(program.source, *program.store.read(), slots, batch_size=8, epochs=1, learning_rate=0.1)
    LocalLoop(job, Told(), Late()).run(Feed(arrays, 8), None)
    assert seen == [(n, list(range(n - 1))) for n in range(5)]
    assert reports == [(n, n + 1) for n in range(5)]

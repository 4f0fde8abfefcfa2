"""Callbacks that set the learning rate."""

from __future__ import annotations

import warnings

import numpy as np

from .base import Callback
from .monitor import MonitorCallback


class LearningRateScheduler(Callback):
    """Sets the learning rate at the start of each epoch.

    Args:
        schedule: ``schedule(epoch, learning_rate) -> float`` (or ``schedule(epoch)``), `epoch` 0-based.
        verbose: 1 prints each change.

    >>> import numpy as np, kerasoft as ks
    >>> model = ks.Sequential([ks.Input((3,)), ks.layers.Dense(1)])
    >>> model.compile(ks.optimizers.SGD(0.5), "mse")
    >>> halve = ks.callbacks.LearningRateScheduler(lambda epoch, rate: rate / 2)
    >>> history = model.fit(np.ones((4, 3)), np.ones((4, 1)), epochs=3, callbacks=[halve], verbose=0)
    >>> history.history["learning_rate"]
    [0.25, 0.125, 0.0625]
    """

    reads_weights = False

    def __init__(self, schedule, verbose=0):
        super().__init__()
        self.schedule = schedule
        self.verbose = verbose

    def on_epoch_begin(self, epoch, logs=None):
        for optimizer, name in optimizers_of(self._model.optimizer):
            if not hasattr(optimizer, "learning_rate"):
                raise ValueError('Optimizer must have a "learning_rate" attribute.')
            try:
                rate = self.schedule(epoch, rate_of(optimizer))
            except TypeError:
                rate = self.schedule(epoch)
            if not isinstance(rate, (float, np.float32, np.float64)):
                raise ValueError(f"The output of the `schedule` function should be a float. Got: {rate}")
            optimizer.learning_rate = rate
            if self.verbose > 0:
                name = f"{name} " if name else ""
                print(f"\nEpoch {epoch + 1}: LearningRateScheduler setting {name}learning rate to {rate}.")

    def on_epoch_end(self, epoch, logs=None):
        if logs is not None:
            logs.update(rates_of(self._model.optimizer))


class ReduceLROnPlateau(MonitorCallback):
    """Multiplies the learning rate by `factor` after `patience` epochs without improvement.

    Args:
        monitor, mode, min_delta: see `MonitorCallback`.
        factor: below 1.
        patience: epochs without improvement.
        verbose: 1 prints each change.
        cooldown: epochs after a reduction in which nothing is counted.
        min_lr: the rate is not reduced below this.
    """

    reads_weights = False

    def __init__(
        self,
        monitor="val_loss",
        factor=0.1,
        patience=10,
        verbose=0,
        mode="auto",
        min_delta=1e-4,
        cooldown=0,
        min_lr=0.0,
    ):
        super().__init__(monitor, mode, min_delta=min_delta)
        if factor >= 1.0:
            raise ValueError(f"ReduceLROnPlateau does not support a factor >= 1.0. Received factor={factor}")
        self.factor = factor
        self.min_lr = min_lr
        self.patience = patience
        self.verbose = verbose
        self.cooldown = cooldown
        self._reset()

    def _reset(self) -> None:
        self.best = None
        self.cooldown_counter = 0
        self.wait = 0

    def in_cooldown(self) -> bool:
        return self.cooldown_counter > 0

    def on_train_begin(self, logs=None):
        self._reset()

    def on_epoch_end(self, epoch, logs=None):
        if self._direction is None:
            self._set_direction()
        logs = logs if logs is not None else {}
        logs.update(rates_of(self._model.optimizer))
        current = logs.get(self.monitor)
        if current is None:
            warnings.warn(
                f"Learning rate reduction is conditioned on metric `{self.monitor}` which is not available. "
                f"Available metrics are: {','.join(logs)}.",
                stacklevel=2,
            )
            return
        if self.in_cooldown():
            self.cooldown_counter -= 1
            self.wait = 0
        if self._is_improvement(current, self.best):
            self.best = current
            self.wait = 0
        elif not self.in_cooldown():
            self.wait += 1
            if self.wait >= self.patience and self._reduce(epoch):
                self.cooldown_counter = self.cooldown
                self.wait = 0

    def _reduce(self, epoch: int) -> bool:
        reduced = False
        for optimizer, name in optimizers_of(self._model.optimizer):
            old = rate_of(optimizer)
            if old <= np.float32(self.min_lr):
                continue
            optimizer.learning_rate = new = max(old * self.factor, self.min_lr)
            reduced = True
            if self.verbose > 0:
                name = f" {name}" if name else ""
                print(f"\nEpoch {epoch + 1}: ReduceLROnPlateau reducing{name} learning rate to {new}.")
        return reduced


def optimizers_of(optimizer) -> list[tuple]:
    """Pairs (optimizer, name) of a `MultiOptimizer`'s inner ones; of another optimizer itself, without a name."""
    inner = getattr(optimizer, "optimizers", None)
    return [(optimizer, "")] if inner is None else [(each, each.name) for each in inner]


def rates_of(optimizer) -> dict[str, float]:
    """Learning rates as logs: "learning_rate", or "learning_rate_<name>" of each of several."""
    pairs = optimizers_of(optimizer)
    return {f"learning_rate_{name}" if name else "learning_rate": rate_of(each) for each, name in pairs}


def rate_of(optimizer) -> float:
    """The learning rate that the next step uses; 0 for a `MultiOptimizer`, whose inner ones have their own."""
    return float(np.asarray(getattr(optimizer, "learning_rate", 0.0)))

"""History: every epoch's logs, in memory."""

from __future__ import annotations

from .base import Callback


class History(Callback):
    """What `fit` returns: `history` (a list of values for each key), `epoch` (0-based) and `params`."""

    reads_weights = False

    def __init__(self):
        super().__init__()
        self.history: dict[str, list] = {}
        self.epoch: list[int] = []

    def on_train_begin(self, logs=None):
        self.epoch = []

    def on_epoch_end(self, epoch, logs=None):
        self.epoch.append(epoch)
        for key, value in (logs or {}).items():
            self.history.setdefault(key, []).append(value)
        self._model.history = self

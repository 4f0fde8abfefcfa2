"""ProgbarLogger: shows steps, loss, metrics, rows/s and the time left."""

from __future__ import annotations

from .. import config
from ..training.progress import Progress
from .base import Callback


class ProgbarLogger(Callback):
    """The display of `fit`, `evaluate` and `predict`; added by itself unless `verbose=0`.

    In a terminal and in a notebook the line is rewritten in place; in a file or pipe plain lines appear now and then.
    """

    batch_calls = "latest"
    reads_weights = False

    def __init__(self):
        super().__init__()
        self.verbose = 1
        self.epochs = 1
        self.target: int | None = None
        self.display: Progress | None = None
        self._in_fit = False

    def set_params(self, params):
        self.params = params
        automatic = 1 if config.is_interactive_logging_enabled() else 2
        self.verbose = automatic if params.get("verbose", 1) == "auto" else int(params.get("verbose", 1))
        self.epochs = params.get("epochs", 1)
        self.target = params.get("steps")

    def note(self, text: str) -> None:
        """Shows a sentence on a line of its own."""
        if self.verbose:
            (self.display or Progress(None, self.verbose)).note(text)

    def on_train_begin(self, logs=None):
        self._in_fit = True

    def on_train_end(self, logs=None):
        self._in_fit = False

    def on_epoch_begin(self, epoch, logs=None):
        self.display = Progress(self.target, self.verbose)
        if self.verbose and self.epochs > 1:
            self.display.note(f"Epoch {epoch + 1}/{self.epochs}")

    def on_train_batch_end(self, batch, logs=None):
        self._show(batch + 1, logs)

    def on_epoch_end(self, epoch, logs=None):
        self._finish(logs)

    def on_test_begin(self, logs=None):
        if not self._in_fit:
            self.display = Progress(self.target, self.verbose)

    def on_test_batch_end(self, batch, logs=None):
        if not self._in_fit:
            self._show(batch + 1, logs)

    def on_test_end(self, logs=None):
        if not self._in_fit:
            self._finish(logs)

    def on_predict_begin(self, logs=None):
        self.display = Progress(self.target, self.verbose)

    def on_predict_batch_end(self, batch, logs=None):
        self._show(batch + 1, None)

    def on_predict_end(self, logs=None):
        self._finish(None)

    def _show(self, done: int, logs) -> None:
        if self.display is not None:
            self.display.update(done, self._rows(), logs or {})

    def _finish(self, logs) -> None:
        if self.display is not None:
            status = getattr(self._model, "_status", None)
            self.display.done = max(self.display.done, status.step if status is not None else 0)
            self.display.finish(self._rows(), logs or {})
            self.target = self.target or self.display.done

    def _rows(self) -> int:
        status = getattr(self._model, "_status", None)
        return status.rows if status is not None else 0

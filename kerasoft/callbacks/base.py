"""Callback and CallbackList: the hooks, and calling them in order.

Hook order: train_begin, then per epoch: epoch_begin, (train_batch_begin, train_batch_end)*, (test_begin,
(test_batch_begin, test_batch_end)*, test_end), epoch_end; at last train_end.
"""

from __future__ import annotations

from typing import Any

BATCH_HOOKS = {
    "train": ("on_train_batch_begin", "on_train_batch_end", "on_batch_begin", "on_batch_end"),
    "test": ("on_test_batch_begin", "on_test_batch_end"),
    "predict": ("on_predict_batch_begin", "on_predict_batch_end"),
}


class Callback:
    """Base of callbacks; override the hooks that matter.

    Attributes:
        model: the model in training; reading it within an epoch brings its weights up to date.
        params: {"verbose", "epochs", "steps"}.
        batch_calls: when `on_train_batch_end` and its likes are called: "each" step at once, "late" for each step but
            some steps later, or only for the "latest" step, some times a second. The last two cost hardly any time.
        one_process: why the callback cannot be used in a distributed fit; None if it can.
        reads_weights: False when the epoch hooks never look at the model's weights, which need not be fetched for it.

    >>> import kerasoft as ks
    >>> class Epochs(ks.callbacks.Callback):
    ...     def on_epoch_end(self, epoch, logs=None):
    ...         print(epoch, sorted(logs))
    """

    batch_calls = "each"
    reads_weights = True
    one_process: str | None = None

    def __init__(self):
        self.params: dict | None = None
        self._model: Any = None

    def set_params(self, params: dict) -> None:
        self.params = params

    def set_model(self, model: Any) -> None:
        self._model = model

    @property
    def model(self) -> Any:
        model = getattr(self, "_model", None)
        synchronise = getattr(model, "_synchronise", None)
        if synchronise is not None:
            synchronise()
        return model

    def on_batch_begin(self, batch, logs=None):
        """An older name of `on_train_batch_begin`."""

    def on_batch_end(self, batch, logs=None):
        """An older name of `on_train_batch_end`."""

    def on_epoch_begin(self, epoch, logs=None):
        """Before epoch `epoch` (0-based) of `fit`."""

    def on_epoch_end(self, epoch, logs=None):
        """After an epoch and its validation; `logs` holds the epoch's means, validation ones prefixed with `val_`."""

    def on_train_batch_begin(self, batch, logs=None):
        """Before step `batch` of an epoch of `fit`."""
        self.on_batch_begin(batch, logs=logs)

    def on_train_batch_end(self, batch, logs=None):
        """After a step of `fit`; `logs` holds the means of the epoch so far."""
        self.on_batch_end(batch, logs=logs)

    def on_test_batch_begin(self, batch, logs=None):
        """Before a batch of `evaluate` or of a validation."""

    def on_test_batch_end(self, batch, logs=None):
        """After a batch of `evaluate` or of a validation; `logs` holds the means so far."""

    def on_predict_batch_begin(self, batch, logs=None):
        """Before a batch of `predict`."""

    def on_predict_batch_end(self, batch, logs=None):
        """After a batch of `predict`; `logs["outputs"]` are its outputs."""

    def on_train_begin(self, logs=None):
        """Before the first epoch."""

    def on_train_end(self, logs=None):
        """After the last epoch; `logs` are those of the last `on_epoch_end`."""

    def on_test_begin(self, logs=None):
        """Before `evaluate` or a validation."""

    def on_test_end(self, logs=None):
        """After `evaluate` or a validation; `logs` holds its means."""

    def on_predict_begin(self, logs=None):
        """Before `predict`."""

    def on_predict_end(self, logs=None):
        """After `predict`."""


def overrides(callback: Callback, hook: str) -> bool:
    """Whether a callback does something at `hook`."""
    return hook in vars(callback) or getattr(type(callback), hook) is not getattr(Callback, hook)


def batch_callbacks(callbacks: list, mode: str) -> list:
    """The callbacks that do something at the batch hooks of `mode` ("train", "test", "predict")."""
    return [c for c in callbacks if any(overrides(c, hook) for hook in BATCH_HOOKS[mode])]


class CallbackList(Callback):
    """Several callbacks as one, called in order with the same logs: a key that one adds, the next ones see.

    Args:
        callbacks: callbacks, or nested lists of them.
        add_history, add_progbar: append a `History` and a progress display unless there is one.
        model: given to each.
        **params: given to each as `params`.
    """

    def __init__(self, callbacks=None, add_history=False, add_progbar=False, model=None, **params):
        from .history import History
        from .progress import ProgbarLogger

        super().__init__()
        self.callbacks: list[Callback] = _flat(callbacks)
        for kind, wanted in ((History, add_history), (ProgbarLogger, add_progbar)):
            if wanted and not any(isinstance(c, kind) for c in self.callbacks):
                self.callbacks.append(kind())
        self._history = next((c for c in self.callbacks if isinstance(c, History)), None)
        if model is not None:
            self.set_model(model)
        self.set_params(params)

    def append(self, callback: Callback) -> None:
        self.callbacks.append(callback)

    def set_params(self, params: dict) -> None:
        self.params = params
        if params:
            for callback in self.callbacks:
                callback.set_params(params)

    def set_model(self, model: Any) -> None:
        super().set_model(model)
        if self._history is not None:
            model.history = self._history
        for callback in self.callbacks:
            callback.set_model(model)


def _flat(callbacks: Any) -> list[Callback]:
    if callbacks is None:
        return []
    if isinstance(callbacks, (list, tuple)):
        return [c for item in callbacks for c in _flat(item)]
    if not hasattr(callbacks, "on_epoch_end"):
        raise ValueError(
            f"callbacks must be `Callback` instances, got {callbacks!r} of type {type(callbacks).__name__}"
        )
    return [callbacks]


def _for_each(hook: str, has_index: bool):
    def call_all(self, index, logs=None):
        logs = plain_logs(logs)
        for callback in self.callbacks:
            getattr(callback, hook)(index, logs)

    def call_all_without_index(self, logs=None):
        logs = plain_logs(logs)
        for callback in self.callbacks:
            getattr(callback, hook)(logs)

    return call_all if has_index else call_all_without_index


for _when in ("train", "test", "predict"):
    for _edge in ("begin", "end"):
        setattr(CallbackList, f"on_{_when}_{_edge}", _for_each(f"on_{_when}_{_edge}", False))
        setattr(CallbackList, f"on_{_when}_batch_{_edge}", _for_each(f"on_{_when}_batch_{_edge}", True))
for _edge in ("begin", "end"):
    setattr(CallbackList, f"on_epoch_{_edge}", _for_each(f"on_epoch_{_edge}", True))
    setattr(CallbackList, f"on_batch_{_edge}", _for_each(f"on_batch_{_edge}", True))


def plain_logs(logs: dict | None) -> dict:
    """Logs with sorted keys and Python floats where a value is a number.

    >>> plain_logs({"b": 1, "a": {"c": 2.0}})
    {'c': 2.0, 'b': 1.0}
    """
    plain: dict = {}
    for key, value in sorted((logs or {}).items()):
        if isinstance(value, dict):
            plain.update(plain_logs(value))
            continue
        try:
            value = float(value)
        except (TypeError, ValueError):
            pass
        plain[key] = value
    return plain

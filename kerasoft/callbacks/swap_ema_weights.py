"""SwapEMAWeights: evaluates with the moving average of the weights."""

from __future__ import annotations

from typing import Any

from .base import Callback


class SwapEMAWeights(Callback):
    """Puts the optimizer's moving average into the model for each validation, and the weights back after it.

    Needs an optimizer with ``use_ema=True``.

    Args:
        swap_on_epoch: also between `on_epoch_end` and the next `on_epoch_begin`, so that callbacks behind this one, such
            as `ModelCheckpoint`, see the average.

    Raises:
        ValueError: at the first swap: the optimizer keeps no average.

    >>> import numpy as np, kerasoft as ks
    >>> model = ks.Sequential([ks.Input((1,)), ks.layers.Dense(1)])
    >>> model.compile(ks.optimizers.SGD(0.5, use_ema=True), "mse")
    >>> x = np.ones((4, 1))
    >>> history = model.fit(x, x, validation_data=(x, x), callbacks=[ks.callbacks.SwapEMAWeights()], verbose=0)
    """

    one_process = "validation runs on the workers, with the weights in training; validate with `evaluate` instead"

    def __init__(self, swap_on_epoch=False):
        super().__init__()
        self.swap_on_epoch = swap_on_epoch
        self._ema_weights_in_model = False

    def _averages(self) -> list[tuple[Any, Any]]:
        """Pairs of a weight and its average."""
        optimizer = self.model.optimizer
        optimizer = getattr(optimizer, "inner_optimizer", optimizer)
        inner = getattr(optimizer, "optimizers", None)
        found = [o for o in (inner if inner is not None else [optimizer]) if getattr(o, "use_ema", False)]
        if not found:
            raise ValueError(
                "SwapEMAWeights must be used when at least one inner optimizer has `use_ema=True` set. Received a "
                "MultiOptimizer with all inner optimizers having `use_ema=False`."
                if inner is not None
                else "SwapEMAWeights must be used when `use_ema=True` is set on the optimizer. "
                f"Received: use_ema={optimizer.use_ema}"
            )
        return [
            pair for o in found for pair in zip(o._trainable_variables, o._model_variables_moving_average, strict=True)
        ]

    def _swap(self, average: bool) -> None:
        """Brings the average into the model, or the weights back; does nothing if they are there."""
        if self._ema_weights_in_model == average:
            return
        self._ema_weights_in_model = average
        for weight, mean in self._averages():
            kept = weight.numpy()
            weight.assign(mean.numpy())
            mean.assign(kept)

    def on_epoch_begin(self, epoch, logs=None):
        if self.swap_on_epoch:
            self._swap(False)

    def on_epoch_end(self, epoch, logs=None):
        if not self.swap_on_epoch:
            return
        self._swap(True)
        if epoch == self.params["epochs"] - 1:
            for weight, mean in self._averages():
                mean.assign(weight.numpy())

    def on_test_begin(self, logs=None):
        self._swap(True)

    def on_test_end(self, logs=None):
        self._swap(False)

    def on_predict_begin(self, logs=None):
        self._swap(True)

    def on_predict_end(self, logs=None):
        self._swap(False)

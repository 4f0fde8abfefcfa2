"""TerminateOnNaN: ends the training when the loss is no number."""

from __future__ import annotations

import math

from .base import Callback


class TerminateOnNaN(Callback):
    """Stops the training at the first NaN or infinite loss.

    Args:
        raise_error: raise a RuntimeError at once instead of ending the training in order.
    """

    reads_weights = False

    def __init__(self, raise_error: bool = False):
        super().__init__()
        self.raise_error = raise_error

    def on_batch_end(self, batch, logs=None):
        loss = (logs or {}).get("loss")
        if loss is None or math.isfinite(loss):
            return
        if self.raise_error:
            raise RuntimeError(
                f"NaN or Inf loss encountered at batch {batch}. Loss value: {loss}. Terminating training immediately."
            )
        print(f"Batch {batch}: Invalid loss, terminating training")
        self._model.stop_training = True

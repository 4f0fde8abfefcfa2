"""LambdaCallback: a callback out of functions."""

from __future__ import annotations

from .base import Callback


class LambdaCallback(Callback):
    """A callback whose hooks are given functions.

    Args:
        on_epoch_begin, on_epoch_end: ``f(epoch, logs)``.
        on_train_begin, on_train_end: ``f(logs)``.
        on_train_batch_begin, on_train_batch_end: ``f(batch, logs)``.
        **hooks: any other hook of `Callback` by its name.

    >>> import numpy as np, kerasoft as ks
    >>> model = ks.Sequential([ks.Input((3,)), ks.layers.Dense(1)])
    >>> model.compile("sgd", "mse")
    >>> tell = ks.callbacks.LambdaCallback(on_epoch_begin=lambda epoch, logs: print("epoch", epoch))
    >>> history = model.fit(np.ones((4, 3)), np.ones((4, 1)), epochs=2, callbacks=[tell], verbose=0)
    epoch 0
    epoch 1
    """

    def __init__(
        self,
        on_epoch_begin=None,
        on_epoch_end=None,
        on_train_begin=None,
        on_train_end=None,
        on_train_batch_begin=None,
        on_train_batch_end=None,
        **hooks,
    ):
        super().__init__()
        hooks |= {
            "on_epoch_begin": on_epoch_begin,
            "on_epoch_end": on_epoch_end,
            "on_train_begin": on_train_begin,
            "on_train_end": on_train_end,
            "on_train_batch_begin": on_train_batch_begin,
            "on_train_batch_end": on_train_batch_end,
        }
        self.__dict__.update({name: function for name, function in hooks.items() if function is not None})

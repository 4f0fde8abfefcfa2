"""OrbaxCheckpoint: a name of Keras that is refused, with what to use instead."""

from __future__ import annotations

from .base import Callback


class OrbaxCheckpoint(Callback):
    """Not offered: checkpoints in Orbax's format need another library.

    Raises:
        NotImplementedError: always; says what to use.
    """

    def __init__(
        self,
        directory,
        monitor="val_loss",
        verbose=0,
        save_best_only=False,
        mode="auto",
        save_freq="epoch",
        initial_value_threshold=None,
        max_to_keep=1,
        save_on_background=True,
        save_weights_only=False,
    ):
        raise NotImplementedError(
            "OrbaxCheckpoint is not offered. Use ModelCheckpoint to keep models or weights, or BackupAndRestore to go on "
            "with an interrupted fit."
        )

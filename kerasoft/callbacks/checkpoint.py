"""Callbacks that save: the model now and then, and what an interrupted fit needs to go on."""

from __future__ import annotations

import json
import os
import shutil
import warnings
from typing import Any

import numpy as np

from .base import Callback
from .monitor import MonitorCallback


class _BatchCount:
    """Counts batches over epochs: true once every `every` batches."""

    def __init__(self, every):
        if every != "epoch" and not (isinstance(every, int) and not isinstance(every, bool) and every > 0):
            raise ValueError(f"Unrecognized save_freq: {every}. Expected save_freq are 'epoch' or integer values")
        self.every = every
        self.seen = 0
        self.last: int | None = None

    def reached(self, batch: int) -> bool:
        if self.every == "epoch":
            return False
        fresh = self.last is None or batch <= self.last
        self.seen += batch + 1 if fresh else batch - self.last
        self.last = batch
        if self.seen < self.every:
            return False
        self.seen = 0
        return True


class ModelCheckpoint(MonitorCallback):
    """Saves the model or its weights after epochs, or every so many batches.

    Args:
        filepath: may hold `{epoch}` (1-based), `{batch}` and keys of the logs, as in ``"{epoch:02d}-{val_loss:.2f}.keras"``;
            ends in `.weights.h5` with `save_weights_only`, else in `.keras`.
        monitor, mode: see `MonitorCallback`; they matter with `save_best_only`.
        verbose: 1 prints each save.
        save_best_only: save only after an improvement.
        save_weights_only: `model.save_weights` instead of `model.save`.
        save_freq: "epoch", or a number of batches, counted across epochs.
        initial_value_threshold: first best value.
    """

    def __init__(
        self,
        filepath,
        monitor="val_loss",
        verbose=0,
        save_best_only=False,
        save_weights_only=False,
        mode="auto",
        save_freq="epoch",
        initial_value_threshold=None,
    ):
        super().__init__(monitor, mode, initial_value_threshold)
        self.filepath = os.fspath(filepath)
        self.verbose = verbose
        self.save_best_only = save_best_only
        self.save_weights_only = save_weights_only
        self.save_freq = save_freq
        self._count = _BatchCount(save_freq)
        self._epoch = 0
        if save_freq == "epoch":
            self.batch_calls = "latest"
        if save_weights_only and not self.filepath.endswith(".weights.h5"):
            raise ValueError(
                "When using `save_weights_only=True` in `ModelCheckpoint`, the filepath provided must end in "
                f"`.weights.h5` (Keras weights format). Received: filepath={self.filepath}"
            )
        if not save_weights_only and not self.filepath.endswith((".keras", ".h5")):
            raise ValueError(
                f"The filepath provided must end in `.keras` (Keras model format). Received: filepath={self.filepath}"
            )

    def on_epoch_begin(self, epoch, logs=None):
        self._epoch = epoch

    def on_train_batch_end(self, batch, logs=None):
        if self._count.reached(batch):
            self._save(self._epoch, logs or {}, batch=batch + 1)

    def on_epoch_end(self, epoch, logs=None):
        if self._direction is None and (self.save_best_only or self.mode != "auto"):
            self._set_direction()
        if self.save_freq == "epoch":
            self._save(epoch, logs or {})

    def _save(self, epoch: int, logs: dict, **batch: int) -> None:
        try:
            path = self.filepath.format(epoch=epoch + 1, **{**batch, **logs})
        except KeyError as error:
            raise KeyError(f'Failed to format this callback filepath: "{self.filepath}". Reason: {error}') from error
        if not self._should_save(epoch, logs, path):
            return
        if os.path.isdir(path):
            raise OSError(
                "Please specify a non-directory filepath for ModelCheckpoint. "
                f"Filepath used is an existing directory: {path}"
            )
        os.makedirs(os.path.dirname(path) or ".", exist_ok=True)
        if self.save_weights_only:
            self.model.save_weights(path, overwrite=True)
        else:
            self.model.save(path, overwrite=True)
        if self.verbose > 0:
            print(f"\nEpoch {epoch + 1}: finished saving model to {path}")

    def _should_save(self, epoch: int, logs: dict, path: str) -> bool:
        if not self.save_best_only:
            if self.verbose > 0:
                print(f"\nEpoch {epoch + 1}: saving model to {path}")
            return True
        current = logs.get(self.monitor)
        if current is None:
            warnings.warn(f"Can save best model only with {self.monitor} available.", stacklevel=4)
            return True
        if np.ndim(current) > 0:
            warnings.warn(
                f"Can save best model only when `monitor` is a scalar value. Received: {current}. "
                "Falling back to `save_best_only=False`.",
                stacklevel=4,
            )
            return True
        before = "None" if self.best is None else f"{self.best:.5f}"
        better = self._is_improvement(current, self.best)
        if self.verbose > 0 and better:
            print(
                f"\nEpoch {epoch + 1}: {self.monitor} improved from {before} to {current:.5f}, saving model to {path}"
            )
        elif self.verbose > 0:
            print(f"\nEpoch {epoch + 1}: {self.monitor} did not improve from {before}")
        if better:
            self.best = current
        return better


class BackupAndRestore(Callback):
    """Lets an interrupted `fit` go on where its last backup was made: epoch, batch, row order, optimizer, metrics.

    Run the same program again: `fit` finds the backup and continues. A backup is complete or not there at all: its
    files are written beside the old ones, then one small file that names them is replaced.

    Args:
        backup_dir: folder for the backup, used by nothing else.
        save_freq: "epoch", or a number of batches: then training goes on in the middle of an epoch.
        double_checkpoint: keep the backup before the last one too.
        delete_checkpoint: delete the folder when the training ends normally.
    """

    METADATA = "training_metadata.json"

    def __init__(self, backup_dir, save_freq="epoch", double_checkpoint=False, delete_checkpoint=True):
        super().__init__()
        if not backup_dir:
            raise ValueError("Empty `backup_dir` argument passed")
        self.backup_dir = os.fspath(backup_dir)
        if save_freq != "epoch" and not isinstance(save_freq, int):
            raise ValueError(
                f"Invalid value for argument `save_freq`. Received: save_freq={save_freq}. Expected either 'epoch' or an "
                "integer value."
            )
        self.save_freq = save_freq
        self.double_checkpoint = double_checkpoint
        self.delete_checkpoint = delete_checkpoint
        self._count = _BatchCount(save_freq)
        if save_freq == "epoch":
            self.batch_calls = "latest"

    def on_train_begin(self, logs=None):
        metadata = self._metadata()
        if metadata is None:
            return
        model = self.model
        model._build_optimizer()
        model.load_weights(os.path.join(self.backup_dir, metadata["weights"]))
        model._resume = {key: metadata[key] for key in ("epoch", "batch", "seed", "rows", "sums")}
        self._count.seen = metadata["counted"]
        self._count.last = metadata["batch"] - 1 if metadata["batch"] else None

    def on_train_batch_end(self, batch, logs=None):
        if self._count.reached(batch):
            status = self._model._status
            self._save(status.epoch, status.step, status.rows, [float(v) for v in status.sums])

    def on_epoch_end(self, epoch, logs=None):
        if self.save_freq == "epoch":
            self._save(epoch + 1, 0, 0, None)

    def on_train_end(self, logs=None):
        if self.delete_checkpoint and os.path.isdir(self.backup_dir):
            shutil.rmtree(self.backup_dir)

    def _metadata(self) -> dict[str, Any] | None:
        path = os.path.join(self.backup_dir, self.METADATA)
        if not os.path.exists(path):
            return None
        with open(path, encoding="utf-8") as file:
            return json.load(file)

    def _save(self, epoch: int, batch: int, rows: int, sums: list[float] | None) -> None:
        os.makedirs(self.backup_dir, exist_ok=True)
        weights = f"epoch_{epoch:06d}_batch_{batch:09d}.weights.h5"
        before = self._metadata()
        self.model.save_weights(os.path.join(self.backup_dir, weights), overwrite=True)
        metadata = {
            "epoch": epoch,
            "batch": batch,
            "rows": rows,
            "sums": sums,
            "seed": self._model._status.seed,
            "counted": self._count.seen,
            "weights": weights,
            "before": before["weights"] if before else None,
        }
        path = os.path.join(self.backup_dir, self.METADATA)
        with open(path + ".new", "w", encoding="utf-8") as file:
            json.dump(metadata, file)
            file.flush()
            os.fsync(file.fileno())
        os.replace(path + ".new", path)
        kept = {weights, metadata["before"] if self.double_checkpoint else None}
        for name in os.listdir(self.backup_dir):
            if name.endswith(".weights.h5") and name not in kept:
                os.remove(os.path.join(self.backup_dir, name))

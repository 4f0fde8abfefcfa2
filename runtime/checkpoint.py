"""Checkpoints of a distributed fit: what is in them, how they are written whole or not at all, and read back.

    folder/checkpoint-00000007/arrays.npz     params, state, slot/<i>: float32; sums: float64; kept/<name>
    folder/checkpoint-00000007/meta.json      where training stood, what fit it belongs to, SHA-256 of arrays.npz

A checkpoint is written beside its place and then renamed, so that one which can be seen is complete. The last two are
kept; reading falls back to the older one if the newer is damaged. No pickle.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
import pathlib
import shutil
import tempfile
from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import numpy as np

from .errors import CheckpointError

KEPT = 2
_PREFIX = "checkpoint-"
_VERSION = 1


@dataclasses.dataclass
class Checkpoint:
    """Where a fit stands between two steps; with it, any number of workers go on as if nothing had happened.

    Attributes:
        epoch, step: the next step to make; step 0 is an epoch's first.
        iteration: optimiser steps made.
        learning_rate: in force.
        params: float32[P]. state: float32[S]. slots: float32[P] each.
        sums: float64[M], summed over the steps made in `epoch`.
        seed: of row order and random masks.
        fit: what the fit is (`identity`), compared when it is resumed.
        hooks: the front-end's own state (history, callbacks), any JSON object.
        finished: the fit ended; nothing is left to resume.
        untold: of the steps before the next one, those whose sums are not in `sums` and were told to no hook yet.
        kept: what the strategy's workers need besides, see `kerasoft.runtime.step.DistributedStep.kept`.
    """

    epoch: int
    step: int
    iteration: int
    learning_rate: float
    params: np.ndarray
    state: np.ndarray
    slots: tuple[np.ndarray, ...]
    sums: np.ndarray
    seed: int = 0
    fit: dict[str, Any] = dataclasses.field(default_factory=dict)
    hooks: dict[str, Any] = dataclasses.field(default_factory=dict)
    finished: bool = False
    untold: int = 0
    kept: dict[str, np.ndarray] = dataclasses.field(default_factory=dict)


class Folder(Protocol):
    """A place for folders of files: a local one, or one on a file system that Spark reaches."""

    where: str

    def names(self) -> list[str]:
        """What it holds; [] when it does not exist yet."""

    def put(self, local: pathlib.Path, name: str) -> None:
        """Copies the local folder to `name`, which appears complete or not at all."""

    def get(self, name: str, local: pathlib.Path) -> None:
        """Copies the folder `name` to the local path, which does not exist yet."""

    def remove(self, name: str) -> None:
        """Removes the folder `name`."""


class LocalFolder:
    """A `Folder` on this machine's disk."""

    def __init__(self, path: str | os.PathLike[str]):
        self.path = pathlib.Path(path)
        self.where = str(path)

    def names(self) -> list[str]:
        return sorted(os.listdir(self.path)) if self.path.is_dir() else []

    def put(self, local: pathlib.Path, name: str) -> None:
        self.path.mkdir(parents=True, exist_ok=True)
        beside = self.path / f".{name}.{os.getpid()}"
        try:
            shutil.copytree(local, beside)
            os.rename(beside, self.path / name)
        except OSError:
            shutil.rmtree(beside, ignore_errors=True)  # it takes the room that is wanting
            raise

    def get(self, name: str, local: pathlib.Path) -> None:
        shutil.copytree(self.path / name, local)

    def remove(self, name: str) -> None:
        shutil.rmtree(self.path / name)


def identity(
    source: Any, rows: Sequence[int], fingerprints: Sequence[str], job: Any, strategy: Mapping[str, Any] | None = None
) -> dict[str, Any]:
    """What must be the same for a fit to be resumed: model, optimiser slots, data, how steps are cut from it, and
    `strategy`: what its steps are if they are not those of `AllReduce`."""
    value = {
        "layout": source.layout.to_json(),
        "slots": [[s.name, s.fill] for s in source.slots],
        "rows": list(rows),
        "fingerprints": list(fingerprints),
        "batch_size": job.batch_size,
        "shuffle": job.shuffle,
        "steps_per_epoch": job.steps_per_epoch,
    }
    if strategy:
        value["strategy"] = dict(strategy)
    return json.loads(json.dumps(value))


class Checkpoints:
    """The checkpoints in one folder.

    Args:
        folder: where they are.
        fit: what this fit is, as `identity` says.
        temporary: whether the folder goes away with the fit.
    """

    def __init__(self, folder: Folder, fit: Mapping[str, Any], temporary: bool = False):
        self.folder, self.fit, self.temporary = folder, dict(fit), temporary

    def _found(self) -> list[str]:
        return sorted(n for n in self.folder.names() if n.startswith(_PREFIX) and n[len(_PREFIX) :].isdigit())

    def commit(self, checkpoint: Checkpoint) -> str:
        """Writes `checkpoint` and removes all but the last two; returns its name.

        Raises:
            CheckpointError: it could not be written: no room, no right; names the place. The older ones are untouched.
        """
        found = self._found()
        name = f"{_PREFIX}{int(found[-1][len(_PREFIX) :]) + 1 if found else 1:08d}"
        try:
            with tempfile.TemporaryDirectory(prefix="kerasoft-checkpoint-") as scratch:
                local = pathlib.Path(scratch) / name
                local.mkdir()
                write(checkpoint, local)
                self.folder.put(local, name)
        except OSError as error:
            raise CheckpointError(
                f"{name} could not be written to {self.folder.where} (by way of {tempfile.gettempdir()}): {error}. Free room "
                "there and call fit again: with the same checkpoint folder it goes on from the one before."
            ) from error
        for old in found[: len(found) + 1 - KEPT]:
            self.folder.remove(old)
        return name

    def latest(self) -> tuple[Checkpoint | None, list[str]]:
        """The newest checkpoint that is whole, and a sentence for each damaged one that was passed over.

        None when there is none, or when the newest says that its fit has finished.

        Raises:
            CheckpointError: it belongs to another fit; names what differs.
        """
        damaged: list[str] = []
        for name in reversed(self._found()):
            with tempfile.TemporaryDirectory(prefix="kerasoft-checkpoint-") as scratch:
                local = pathlib.Path(scratch) / name
                try:
                    self.folder.get(name, local)
                    checkpoint = read(local)
                except (CheckpointError, OSError) as error:
                    damaged.append(f"{self.folder.where}/{name} is damaged and was passed over: {error}")
                    continue
            if checkpoint.finished:
                return None, damaged
            self._compare(checkpoint.fit, name)
            return checkpoint, damaged
        return None, damaged

    def _compare(self, other: Mapping[str, Any], name: str) -> None:
        for key in (*self.fit, *(k for k in other if k not in self.fit)):
            mine = self.fit.get(key)
            if other.get(key) != mine:
                raise CheckpointError(
                    f"{self.folder.where}/{name} belongs to another fit: its {key} is {_short(other.get(key))}, "
                    f"this fit's is {_short(mine)}. Give this fit another checkpoint folder, or remove that one."
                )


def write(checkpoint: Checkpoint, folder: pathlib.Path) -> None:
    """Writes the two files of `checkpoint` into an existing local folder."""
    arrays = {"params": checkpoint.params, "state": checkpoint.state, "sums": checkpoint.sums}
    arrays |= {f"slot/{i}": s for i, s in enumerate(checkpoint.slots)}
    arrays |= {f"kept/{name}": array for name, array in checkpoint.kept.items()}
    np.savez(folder / "arrays.npz", **arrays)  # type: ignore[arg-type]
    scalars = ("epoch", "step", "iteration", "learning_rate", "seed", "fit", "hooks", "finished", "untold")
    meta = {name: getattr(checkpoint, name) for name in scalars}
    meta |= {"version": _VERSION, "sha256": _sha256(folder / "arrays.npz"), "slots": len(checkpoint.slots)}
    (folder / "meta.json").write_text(json.dumps(meta))


def read(folder: pathlib.Path) -> Checkpoint:
    """The checkpoint in a local folder.

    Raises:
        CheckpointError: a file is missing, cut short or altered, or is of another version.
    """
    try:
        meta = json.loads((folder / "meta.json").read_text())
        found = _sha256(folder / "arrays.npz")
        if meta.pop("version") != _VERSION:
            raise CheckpointError("it was written by another version of kerasoft")
        if meta.pop("sha256") != found:
            raise CheckpointError("the SHA-256 of arrays.npz is not the one in meta.json")
        with np.load(folder / "arrays.npz", allow_pickle=False) as arrays:
            slots = tuple(arrays[f"slot/{i}"] for i in range(meta.pop("slots")))
            kept = {n.removeprefix("kept/"): arrays[n] for n in arrays.files if n.startswith("kept/")}
            vectors = {name: arrays[name] for name in ("params", "state", "sums")}
            return Checkpoint(**vectors, slots=slots, kept=kept, **meta)
    except FileNotFoundError as error:
        raise CheckpointError(f"{os.path.basename(error.filename)} is missing") from None
    except (ValueError, KeyError, TypeError) as error:
        raise CheckpointError(f"it cannot be read ({error})") from None


def _sha256(path: pathlib.Path) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _short(value: Any) -> str:
    text = json.dumps(value)
    return text if len(text) <= 80 else text[:77] + "..."

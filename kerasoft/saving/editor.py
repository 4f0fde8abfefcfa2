"""KerasFileEditor: look into a weights file, change it, write it again."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

import numpy as np

from ..errors import SerializationError
from . import archive
from .files import replacing
from .hdf5 import GroupReader, opened
from .state import write_state

Weights = dict[str, Any]  # nested by object names; the leaves are arrays


class KerasFileEditor:
    """The contents of a `.weights.h5` or `.keras` file as nested dicts of arrays.

    Attributes:
        weights_dict: arrays by object and name (``"0"``, ``"1"``, ...), nested as the objects are.
        object_metadata: the name of the layer at each path.
        config, metadata: of a `.keras` file, else None.

    Raises:
        SerializationError: another ending, or a damaged file.

    >>> import kerasoft as ks, tempfile, os
    >>> path = os.path.join(tempfile.mkdtemp(), "m.weights.h5")
    >>> ks.Sequential([ks.Input((2,)), ks.layers.Dense(1)]).save_weights(path)
    >>> editor = ks.saving.KerasFileEditor(path)
    >>> editor.rename_object("layers/dense", "head")
    >>> editor.summary()
    layers
        head
            0: shape=(2, 1), dtype=float32
            1: shape=(1,), dtype=float32
    """

    def __init__(self, filepath: Any):
        self.filepath = os.fspath(filepath)
        self.metadata: dict | None = None
        self.config: dict | None = None
        self.object_metadata: dict[str, str] = {}
        if self.filepath.endswith(".keras"):
            with archive.opened_archive(self.filepath) as parts:
                self.config, self.metadata = parts.config(), parts.metadata()
                with parts.weights() as reader:
                    self.weights_dict = self._read(reader.file)
        elif self.filepath.endswith(".weights.h5"):
            with opened(self.filepath) as file:
                self.weights_dict = self._read(file)
        else:
            raise SerializationError(
                f"Invalid filename: expected a `.keras` `.weights.h5` extension. Received: filepath={self.filepath}"
            )

    def _read(self, group: Any, path: str = "") -> Weights:
        import h5py

        found: Weights = {}
        for key in group:
            if not isinstance(group.get(key, getlink=True), h5py.HardLink):
                continue
            value = group[key]
            if not isinstance(value, h5py.Group):
                continue
            if key == "vars":
                if "name" in value.attrs:
                    self.object_metadata[path] = str(value.attrs["name"])
                reader = GroupReader(value)
                found.update({name: reader[name] for name in reader.keys()})
            else:
                inner = self._read(value, f"{path}/{key}")
                if inner:
                    found[key] = inner
        return found

    # --- looking ---

    def summary(self) -> None:
        """Prints the objects and their weights."""
        print("\n".join(_lines(self.weights_dict, "")))

    def compare(self, reference_model: Any) -> dict[str, Any]:
        """Prints what differs from a model; ``{"status", "error_count", "match_count"}``."""
        wanted = _model_weights(reference_model)
        mine, theirs = _flat(self.weights_dict), _flat(wanted)
        errors = 0
        for path in sorted(set(mine) | set(theirs)):
            if path not in mine or path not in theirs:
                errors += 1
                here, there = (
                    ("reference model", "saved file") if path not in mine else ("saved file", "reference model")
                )
                print(f"...Weight {path} present in {here}, missing from {there}")
            elif mine[path].shape != theirs[path].shape:
                errors += 1
                print(
                    f"...Weight shape mismatch for {path}: in reference model shape={theirs[path].shape}, in saved file "
                    f"shape={mine[path].shape}"
                )
        matches = sum(path in theirs and mine[path].shape == theirs[path].shape for path in mine)
        if errors:
            print(f"Found {errors} error{'s' * (errors > 1)}: saved file is not compatible with the reference model")
        else:
            print(
                f"Comparison successful: saved file is compatible with the reference model ({matches} matching weights)"
            )
        return {"status": "error" if errors else "success", "error_count": errors, "match_count": matches}

    # --- changing ---

    def _edit(self, name: str, change: Callable[[Weights, str], None]) -> None:
        """Calls `change(parent, key)` for the object at a path, or the only one of a name."""
        if "/" in name:
            *folders, leaf = name.split("/")
            place = self.weights_dict
            for folder in folders:
                if not isinstance(place.get(folder), dict):
                    raise SerializationError(f"Path '{name}' not found in model.")
                place = place[folder]
            if leaf not in place:
                raise SerializationError(f"Path '{name}' not found in model.")
            change(place, leaf)
            return
        found: list[Weights] = []

        def search(place: Weights) -> None:
            if name in place:
                found.append(place)
            for value in place.values():
                if isinstance(value, dict):
                    search(value)

        search(self.weights_dict)
        if len(found) > 1:
            raise SerializationError(f"Name '{name}' occurs more than once in the model; try passing a complete path")
        if not found:
            raise SerializationError(
                f"Source name '{name}' does not appear in the model. Use `editor.summary()` to list all objects."
            )
        change(found[0], name)

    def rename_object(self, object_name: str, new_name: str) -> None:
        """Gives an object another name.

        Args:
            object_name: a name that occurs once, or a path such as ``"layers/dense_2"``.
            new_name: the last part of the new path.
        """
        if "/" in new_name:
            raise SerializationError(
                "Argument `target_name` should be a leaf name, not a full path name. "
                f"Received: target_name='{new_name}'"
            )

        def rename(place: Weights, key: str) -> None:
            place[new_name] = place.pop(key)

        self._edit(object_name, rename)

    def delete_object(self, object_name: str) -> None:
        """Removes an object and what is below it."""
        self._edit(object_name, lambda place, key: place.pop(key))

    def add_object(self, object_path: str, weights: dict[str, Any]) -> None:
        """Adds an object with its weights, ``{"0": kernel, "1": bias}``."""
        _check_weights(weights)
        *folders, leaf = object_path.split("/")
        place = self.weights_dict
        for folder in folders:
            if not isinstance(place.get(folder), dict):
                raise SerializationError(f"Path '{'/'.join(folders)}' not found in model.")
            place = place[folder]
        place[leaf] = dict(weights)

    def add_weights(self, object_name: str, weights: dict[str, Any]) -> None:
        """Adds weights to an object."""
        _check_weights(weights)
        self._edit(object_name, lambda place, key: place[key].update(weights))

    def delete_weight(self, object_name: str, weight_name: str) -> None:
        """Removes one weight of an object."""

        def delete(place: Weights, key: str) -> None:
            if weight_name not in place[key]:
                raise SerializationError(
                    f"Weight {weight_name} not found in object {object_name}. Weights found: {list(place[key])}"
                )
            place[key].pop(weight_name)

        self._edit(object_name, delete)

    def save(self, filepath: Any) -> None:
        """Writes a `.weights.h5` file.

        Raises:
            SerializationError: another ending.
        """
        import h5py

        path = os.fspath(filepath)
        if not path.endswith(".weights.h5"):
            raise SerializationError(
                f"Invalid `filepath` argument: expected a `.weights.h5` extension. Received: filepath={path}"
            )
        with replacing(path, True) as file, h5py.File(file, "w") as h5:
            self._write(h5, self.weights_dict, "")

    def resave_weights(self, filepath: Any) -> None:
        """`save` under Keras's older name."""
        self.save(filepath)

    def _write(self, file: Any, weights: Weights, path: str) -> None:
        group = file.require_group(f"{path}/vars" if path else "vars")
        name = self.object_metadata.get(path)
        if name is not None:
            group.attrs["name"] = name
        for key, value in weights.items():
            if isinstance(value, dict):
                self._write(file, value, f"{path}/{key}")
            else:
                group.create_dataset(key, data=np.asarray(value))


def _check_weights(weights: Any) -> None:
    if not isinstance(weights, dict):
        raise SerializationError(
            "Argument `weights` should be a dict where keys are weight names (usually '0', '1', etc.) and values are NumPy "
            f"arrays. Received: type(weights)={type(weights)}"
        )


def _lines(weights: Weights, indent: str) -> list[str]:
    lines = []
    for key, value in weights.items():
        if isinstance(value, dict):
            lines += [f"{indent}{key}", *_lines(value, indent + "    ")]
        else:
            lines.append(f"{indent}{key}: shape={np.shape(value)}, dtype={np.asarray(value).dtype.name}")
    return lines


def _flat(weights: Weights, path: str = "") -> dict[str, np.ndarray]:
    found: dict[str, np.ndarray] = {}
    for key, value in weights.items():
        place = f"{path}/{key}"
        found.update(_flat(value, place) if isinstance(value, dict) else {place: np.asarray(value)})
    return found


class _Collector:
    """Takes the place of a file."""

    def __init__(self) -> None:
        self.weights: Weights = {}

    def group(self, path: str, name: str | None) -> Weights:
        place = self.weights
        for part in path.split("/") if path else ():
            place = place.setdefault(part, {})
        return place


def _model_weights(model: Any) -> Weights:
    collector = _Collector()
    write_state(model, collector)
    return collector.weights

"""Reads what `Model.export` wrote and runs it. Needs JAX and NumPy only; nothing of the model's code."""

from __future__ import annotations

import io
import json
import os
import zipfile
from typing import Any

import numpy as np

FORMAT, VERSION = "kerasoft.stablehlo", 1
METADATA = "metadata.json"
LARGEST_METADATA = 16 << 20  # bytes


class ExportError(ValueError):
    """A file that is no exported model, or inputs that it does not take."""


class ExportedModel:
    """A model in a file: its programs and weights.

    Attributes:
        metadata: what the file says of itself: versions, endpoints with names, shapes and dtypes.
        endpoints: the names of its functions; ``"serve"`` is the model.
    """

    def __init__(self, metadata: dict, programs: dict[str, Any], weights: list[np.ndarray]):
        self.metadata, self._programs, self._weights = metadata, programs, weights
        self.endpoints = list(programs)
        self._jitted: dict[str, Any] = {}

    @property
    def inputs(self) -> list[dict]:
        """Name, shape (None for any size) and dtype of each input of ``serve``."""
        return self.metadata["endpoints"]["serve"]["inputs"]

    @property
    def outputs(self) -> list[dict]:
        return self.metadata["endpoints"]["serve"]["outputs"]

    def __call__(self, *inputs: Any, endpoint: str = "serve") -> Any:
        """The outputs for `inputs`, given as the model takes them: an array, a list, or a dict by name.

        Raises:
            ExportError: an endpoint that is not there, or inputs of other numbers or shapes.
        """
        import jax

        if endpoint not in self._programs:
            raise ExportError(f"there is no endpoint '{endpoint}'; the file has {self.endpoints}")
        entry = self.metadata["endpoints"][endpoint]
        arrays = _as_arrays(inputs, entry["inputs"], endpoint)
        if endpoint not in self._jitted:
            self._jitted[endpoint] = jax.jit(self._programs[endpoint].call)
        weights = [self._weights[i] for i in entry["weights"]]
        return _packed([np.asarray(x) for x in self._jitted[endpoint](weights, *arrays)], entry)

    def predict(self, x: Any, batch_size: int | None = None) -> Any:
        """As `__call__`, `batch_size` rows at a time (all at once by default)."""
        entry = self.metadata["endpoints"]["serve"]
        arrays = _as_arrays((x,), entry["inputs"], "serve")
        rows = arrays[0].shape[0]
        if batch_size is None or rows <= batch_size:
            return self(arrays)
        parts = [self._flat([a[i : i + batch_size] for a in arrays]) for i in range(0, rows, batch_size)]
        return _packed([np.concatenate(p) for p in zip(*parts, strict=True)], entry)

    def _flat(self, arrays: list) -> list:
        outputs = self(arrays)
        return (
            list(outputs.values()) if isinstance(outputs, dict) else outputs if isinstance(outputs, list) else [outputs]
        )


def _as_arrays(inputs: tuple, wanted: list[dict], endpoint: str) -> list[np.ndarray]:
    given: Any = inputs[0] if len(inputs) == 1 else list(inputs)
    names = [entry["name"] for entry in wanted]
    if isinstance(given, dict):
        missing = [n for n in names if n not in given]
        if missing:
            raise ExportError(f"endpoint '{endpoint}': input '{missing[0]}' is missing; given are {list(given)}")
        flat = [given[n] for n in names]
    elif len(wanted) == 1:
        flat = [given] if np.ndim(given) == len(wanted[0]["shape"]) else list(given)
    else:
        flat = list(given)
    if len(flat) != len(wanted):
        raise ExportError(f"endpoint '{endpoint}' takes {len(wanted)} inputs {names}, got {len(flat)}")
    arrays = []
    for x, entry in zip(flat, wanted, strict=True):
        array = np.asarray(x, _dtype(entry["dtype"]))
        shape = entry["shape"]
        if len(shape) != array.ndim or any(a not in (None, b) for a, b in zip(shape, array.shape, strict=True)):
            raise ExportError(f"input '{entry['name']}' is {tuple(shape)}, got an array of shape {array.shape}")
        arrays.append(array)
    return arrays


def _packed(flat: list, entry: dict) -> Any:
    kind = entry["structure"]
    if isinstance(kind, list):
        return dict(zip(kind, flat, strict=True))
    return flat[0] if kind == "one" else flat


def _dtype(name: str) -> Any:
    if name == "bfloat16":
        import ml_dtypes

        return ml_dtypes.bfloat16
    return np.dtype(name)


def load(filepath: Any) -> ExportedModel:
    """The exported model in a file.

    Raises:
        ExportError: no such file, or none that `Model.export` wrote; a newer version.
    """
    from jax import export

    path = os.fspath(filepath)
    if not os.path.exists(path):
        raise ExportError(f"there is no file {path}")
    if not zipfile.is_zipfile(path):
        raise ExportError(f"{path} is no exported model; `Model.export` writes one")
    with zipfile.ZipFile(path) as archive:
        if METADATA not in archive.namelist() or archive.getinfo(METADATA).file_size > LARGEST_METADATA:
            raise ExportError(f"{path} is no exported model: it has no {METADATA}")
        for member in archive.infolist():
            if member.compress_type != zipfile.ZIP_STORED:
                raise ExportError(f"{path}: member {member.filename!r} is compressed; exported models are not")
        metadata = json.loads(archive.read(METADATA))
        if metadata.get("format") != FORMAT:
            raise ExportError(f"{path} is of format {metadata.get('format')!r}, not {FORMAT!r}")
        if metadata["version"] > VERSION:
            raise ExportError(f"{path} is of version {metadata['version']}; this kerasoft reads up to {VERSION}")
        programs = {name: export.deserialize(archive.read(f"{name}.stablehlo")) for name in metadata["endpoints"]}
        weights = []
        for i, entry in enumerate(metadata["weights"]):
            array = np.load(io.BytesIO(archive.read(f"weights/{i}.npy")), allow_pickle=False)
            weights.append(array.view(_dtype(entry["dtype"])) if entry["dtype"] == "bfloat16" else array)
    return ExportedModel(metadata, programs, weights)

"""Weights in HDF5, laid out as Keras 3 does: ``<path of the object>/vars/<index>``.

Reading never follows links to other files, refuses datasets that are far larger than what is stored of them, and reads
a dataset only after its shape is known to fit.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from typing import Any

import numpy as np

from ..errors import SerializationError, UnsafeFileError

KERAS_VERSION = "3.15.1"  # of the formats written
LARGEST_EXPANSION = 100  # a dataset may be this much larger than its stored bytes (compression)
FREE_BYTES = 64 << 20  # below this, expansion does not matter


class WeightsWriter:
    """Puts variables into an open ``h5py.File``."""

    def __init__(self, file: Any):
        self.file = file

    def group(self, path: str, name: str | None) -> GroupWriter:
        """The place for the variables of one object; made also when it has none."""
        group = self.file.create_group(f"{path}/vars" if path else "vars")
        if name is not None:
            group.attrs["name"] = name
        return GroupWriter(group)


class GroupWriter:
    """``store["0"] = array``."""

    def __init__(self, group: Any):
        self._group = group

    def __setitem__(self, key: str, value: Any) -> None:
        array = np.asarray(value)
        if array.dtype.name == "bfloat16":  # HDF5 has no such type: the bits are kept, the type is an attribute
            self._group.create_dataset(key, data=array.view(np.uint16)).attrs["dtype"] = "bfloat16"
        else:
            self._group.create_dataset(key, data=array)

    def __contains__(self, key: str) -> bool:
        return key in self._group

    def keys(self) -> list[str]:
        return list(self._group.keys())


class WeightsReader:
    """Finds the variables of objects in an open ``h5py.File``."""

    def __init__(self, file: Any):
        self.file = file

    def group(self, path: str) -> GroupReader:
        """The variables of one object; empty when the file has none."""
        group = inside(self.file, f"{path}/vars" if path else "vars")
        if group is None and path.endswith("layers"):
            return GroupReader(None)
        return GroupReader(group)


@contextlib.contextmanager
def opened(path: str) -> Iterator[Any]:
    """The HDF5 file at `path`, for reading.

    Raises:
        SerializationError: there is none, or it is no HDF5 file.
    """
    import h5py

    if not os.path.exists(path):
        raise SerializationError(f"there is no file {path}")
    try:
        file = h5py.File(path, "r")
    except OSError as error:
        raise SerializationError(f"{path} is no HDF5 file: {error}") from error
    with file:
        yield file


def inside(file: Any, path: str) -> Any:
    """The group at `path`, reached through plain groups only."""
    import h5py

    current = file
    for part in path.split("/"):
        link = current.get(part, getlink=True) if part in current else None
        if link is None:
            return None
        if not isinstance(link, h5py.HardLink):
            raise UnsafeFileError(
                f"the weights file links '{path}' to another place (a SoftLink or ExternalLink); weights must be in the "
                "file itself"
            )
        current = current[part]
    if not isinstance(current, h5py.Group):
        raise SerializationError(f"'{path}' in the weights file is no group")
    return current


class GroupReader:
    """The variables of one object, read one by one."""

    def __init__(self, group: Any):
        self._group = group

    def keys(self) -> list[str]:
        return [] if self._group is None else list(self._group.keys())

    def __len__(self) -> int:
        return len(self.keys())

    def __iter__(self) -> Iterator[str]:
        return iter(self.keys())

    def __contains__(self, key: str) -> bool:
        return key in self.keys()

    def __getitem__(self, key: str) -> np.ndarray:
        import h5py

        if key not in self:
            raise KeyError(f"the weights file has no variable '{key}' here; it has {self.keys()}")
        link = self._group.get(key, getlink=True)
        if not isinstance(link, h5py.HardLink):
            raise UnsafeFileError(f"variable '{key}' of {self._group.name} is a link to another place")
        dataset = self._group[key]
        if not isinstance(dataset, h5py.Dataset):
            raise SerializationError(f"'{key}' of {self._group.name} is no array")
        if dataset.external or dataset.is_virtual:
            raise UnsafeFileError(f"variable '{key}' of {self._group.name} is kept in another file")
        stored = dataset.id.get_storage_size()
        if dataset.nbytes > max(FREE_BYTES, LARGEST_EXPANSION * stored):
            raise UnsafeFileError(
                f"variable '{key}' of {self._group.name} claims {dataset.nbytes:,} bytes but only {stored:,} are stored"
            )
        if dataset.dtype.kind not in "fiub" and not (dataset.dtype.kind == "V" and dataset.dtype.itemsize == 2):
            raise SerializationError(f"variable '{key}' of {self._group.name} is of type {dataset.dtype}, not a number")
        value = np.asarray(dataset[()])
        if dataset.attrs.get("dtype") == "bfloat16":
            import ml_dtypes

            value = value.view(ml_dtypes.bfloat16) if value.dtype.itemsize == 2 else value.astype(ml_dtypes.bfloat16)
        return value
